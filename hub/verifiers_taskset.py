"""A verifiers v1 environment: every turn is a trace of its own, on the context that is rebuilt for
it, and carries the reward that the turn earned.

A package that verifiers finds by name is two lines of yours (docs/rl.md):

    from medaction.hub.verifiers_taskset import MedactionEnv, MedactionTaskset
    __all__ = ["MedactionEnv", "MedactionTaskset"]
"""

from collections.abc import Iterable
from pathlib import Path

import verifiers.v1 as vf

from medaction.envs.episode import T_MAX
from medaction.evaluation.judges import OFFLINE
from medaction.hub.episodes import Play, environments_of, scorer_of

MESSAGES_BY_ROLE = {"user": vf.UserMessage, "assistant": vf.AssistantMessage}


class EpisodeData(vf.TaskData):
    """A case by its id; its environment stays with the taskset, out of every trace."""

    case_id: str


class EpisodeTask(vf.Task[EpisodeData]):
    """One turn of one case. The environment scores it when the episode has ended."""


class MedactionConfig(vf.TasksetConfig):
    cases: Path = Path("examples/cases")
    """Case reports (docs/sources.md)."""
    training: bool = False
    """Refuse cases that are marked for evaluation only."""
    judge: str = OFFLINE
    """'offline', or a language model by its name."""
    t_max: int = T_MAX
    """The last turn of an episode."""


class MedactionTaskset(vf.Taskset[EpisodeTask, MedactionConfig]):
    def __init__(self, config: MedactionConfig):
        super().__init__(config)
        self.worlds = environments_of(config.cases, config.training)

    def load(self) -> Iterable[EpisodeTask]:
        for world in self.worlds.values():
            # The first turn's prompt, for lists of tasks; `MedactionEnv.run` makes each turn's
            # anew.
            system, user = Play(world, self.config.t_max).prompt()
            id_, texts = world.case_id, (system["content"], user["content"])
            data = EpisodeData(id=id_, case_id=id_, system_prompt=texts[0], prompt=texts[1])
            yield EpisodeTask(data, self.config.task)


class MedactionEnvConfig(vf.EnvConfig):
    clinician: vf.AgentConfig = vf.AgentConfig(
        harness={"id": "null"}, runtime={"type": "subprocess"}
    )
    """The policy: a chat without tools, one call a turn. It runs nothing and needs no sandbox."""
    turn_weight: float = 1.0
    """Weight of what a turn itself earned in the reward of its trace; refused replies earn 0."""
    episode_weight: float = 0.0
    """Weight of what the whole episode earned in the reward of each of its traces."""


class MedactionEnv(vf.Env[MedactionEnvConfig]):
    taskset: MedactionTaskset

    async def start(self) -> None:
        self.scorer = scorer_of(self.taskset.config.judge)

    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        play = Play(self.taskset.worlds[task.data.case_id], self.taskset.config.t_max)
        traces: list[tuple[vf.Trace, int | None]] = []
        while not play.ended:
            system, *chat = play.prompt()
            turn = task.with_data(
                system_prompt=system["content"],
                prompt=[
                    MESSAGES_BY_ROLE[message["role"]](content=message["content"])
                    for message in chat
                ],
            )
            trace = await agents.clinician.run(turn)
            if not trace.ok:
                return  # no reply came: the trace has the provider's error, and nobody is scored
            before = len(play.episode.turns)
            # Without a text, all of the reply may stand where its server took it for thinking.
            thoughts = [message.reasoning_content for message in trace.assistant_messages]
            play.step(trace.last_reply or (thoughts and thoughts[-1]) or "")
            traces.append((trace, before if len(play.episode.turns) > before else None))
        score, credit = await self.scorer.result(play)
        if credit is None:
            return  # the judge gave no verdict: nobody is scored
        for trace, at in traces:
            # `at` None: a refused reply, which brought no turn to credit.
            earned = 0.0 if at is None else credit.turns[at].total
            trace.record_reward("turn", earned, self.config.turn_weight)
            trace.record_reward("episode", credit.total, self.config.episode_weight)
        values = {name: value for name, value in score.values().items() if value is not None}
        rewards = {f"reward_{k}": v for k, v in credit.rewards.items() if v is not None}
        # Once an episode, on its last trace: a mean over traces would count long episodes more.
        traces[-1][0].record_metrics({name: float(v) for name, v in (values | rewards).items()})
