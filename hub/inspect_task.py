"""An inspect_ai task: `inspect eval medaction/diagnosis -T cases=FOLDER --model MODEL`.

A sample is a case; its solver plays the episode, each turn on the context that is rebuilt for it.
The log keeps every prompt and reply, and the scorer plays the replies again: so `inspect score`
scores a log anew, with another judge if you like.
"""

import math
from functools import cache
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentReasoning,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from medaction.envs.episode import T_MAX
from medaction.envs.records import ClinicalEnvironment
from medaction.evaluation.judges import OFFLINE
from medaction.hub.episodes import Play, environments_of, scorer_of, world_of
from medaction.llm.usage import Message

REPLIES = "medaction_replies"
"""The key of a sample's store under which its replies stand, in their order."""

MESSAGES_BY_ROLE = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
    "assistant": ChatMessageAssistant,
}

# The solver and the scorer of every sample ask for them.
worlds_of = cache(environments_of)
judging = cache(scorer_of)


@task
def diagnosis(cases: str = "examples/cases", judge: str = OFFLINE, t_max: int = T_MAX) -> Task:
    """The cases of a folder, file or list of ids, played for at most `t_max` turns and scored by
    `judge`: 'offline', or a model by its name."""
    worlds = worlds_of(Path(cases), False)
    samples = [
        Sample(world.initial_observation, target=world.diagnosis, id=world.case_id)
        for world in worlds.values()
    ]
    return Task(
        dataset=MemoryDataset(samples, name=Path(cases).name),
        solver=clinician(cases, t_max),
        scorer=episode_scores(cases, judge, t_max),
    )


def chat(messages: list[Message]) -> list[ChatMessage]:
    return [MESSAGES_BY_ROLE[message["role"]](content=message["content"]) for message in messages]


def thinking_of(message: ChatMessageAssistant) -> str:
    """What a server gave apart from the text: all of a reply, where it took that for thinking."""
    parts = () if isinstance(message.content, str) else message.content
    return "".join(part.reasoning for part in parts if isinstance(part, ContentReasoning))


@solver
def clinician(cases: str, t_max: int) -> Solver:
    """Lets the model play the sample's episode."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        play = Play(world_of_sample(cases, state), t_max)
        replies: list[str] = []
        # inspect begins with the sample's input as a message, which stands in our own prompt
        # already.
        state.messages = []
        while not play.ended:
            prompt = chat(play.prompt())
            output = await get_model().generate(prompt)
            state.messages += [*prompt, output.message]
            state.output = output
            replies.append(output.completion.strip() or thinking_of(output.message))
            play.step(replies[-1])
        state.store.set(REPLIES, replies)
        return state

    return solve


def world_of_sample(cases: str, state: TaskState) -> ClinicalEnvironment:
    return world_of(worlds_of(Path(cases), False), str(state.sample_id))


SAMPLE_SCORES = ("correct", "precision", "recall", "f1", "reward")


@scorer(metrics={name: [mean(), stderr()] for name in SAMPLE_SCORES})
def episode_scores(cases: str, judge: str, t_max: int) -> Scorer:
    """What `medaction evaluate` scores, and the reward of training."""

    async def score(state: TaskState, target: Target) -> Score:
        play = Play(world_of_sample(cases, state), t_max)
        # Played again from the log alone: `inspect score` has no solver's episode.
        for reply in state.store.get(REPLIES, []):
            play.step(reply)
        result, credit = await judging(judge).result(play)
        values = result.values() | {"reward": credit.total if credit else None}
        turns = play.episode.turns
        return Score(
            # NaN is left out of the means, and counted as unscored.
            value={name: math.nan if v is None else float(v) for name, v in values.items()},
            answer=turns[-1].final_diagnosis if turns else None,
            explanation=result.note,
            metadata={
                "outcome": play.episode.outcome or "failed",
                "rewards": dict(credit.rewards) if credit else {},
            },
        )

    return score
