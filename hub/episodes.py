"""What every tool is given: the environments of a set of cases, an episode that asks again for a
reply that cannot be read, and its scores as `medaction evaluate` and as training have them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medaction.envs.build import build_environment
from medaction.envs.credit import Credit
from medaction.envs.episode import T_MAX, Episode
from medaction.envs.loops import must_commit
from medaction.envs.make_oracle import oracle_of
from medaction.envs.prompts import PROMPT_VERSIONS, repair_messages
from medaction.envs.records import BadCase, ClinicalEnvironment
from medaction.envs.rewards import Ruler
from medaction.envs.sources import read_cases
from medaction.evaluation.judges import OFFLINE, Judge, LlmJudge
from medaction.evaluation.judging import failed_score, judge, score_of
from medaction.evaluation.offline_judge import OfflineJudge
from medaction.evaluation.protocol import protocol
from medaction.evaluation.scores import Score
from medaction.kg.encoder import load_encoder
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import CONTEXT_TOKENS, Teacher
from medaction.llm.usage import Message
from medaction.trajectories.records import RolloutSpec, Trajectory
from medaction.trajectories.scoring import linkers

ATTEMPTS_A_TURN = 4
"""Refused replies of one turn after which an episode has failed: a rollout asks as often
(`medaction.clinicians.language_model`)."""

PAPER = protocol("medaction")
"""The rules under which a score is the one of `medaction evaluate`."""


def environments_of(cases: Path, training: bool) -> dict[str, ClinicalEnvironment]:
    """The environments of the case reports at `cases`, by case. A report that is refused is left
    out, as everywhere.

    Raises BadCase when none is left, and 'evaluation_only' when one of them is a benchmark's and
    they are wanted for `training`.
    """
    environments = {}
    refusals: list[BadCase] = []
    for report in read_cases(cases):
        if isinstance(report, BadCase):
            refusals.append(report)
            continue
        built = build_environment(report)
        if built.environment is None:
            refusals += [built.refusal] if built.refusal else []
        # Raised, not left out: whoever names a benchmark to train on should hear of it.
        elif training and built.environment.evaluation_only:
            raise BadCase(
                "evaluation_only",
                f"{report.case_id} in {cases} is a benchmark's case, which no model may be trained"
                " on; serve it for evaluation, or take other cases",
                report.case_id,
            )
        else:
            environments[report.case_id] = built.environment
    if not environments:
        example = f"; the first refusal: {refusals[0]}" if refusals else ""
        raise BadCase("no_environment", f"{cases}: no case can be played{example}")
    return environments


def world_of(worlds: Mapping[str, ClinicalEnvironment], case_id: str) -> ClinicalEnvironment:
    if case_id not in worlds:
        raise ValueError(f"there is no case {case_id!r:.100} here; one is {next(iter(worlds))!r}")
    return worlds[case_id]


class Play:
    """An episode as a model meets it: a prompt, a reply, the next prompt. A reply that cannot be
    read is answered by what is wrong with it; after ATTEMPTS_A_TURN the episode has
    failed."""

    def __init__(
        self,
        environment: ClinicalEnvironment,
        t_max: int = T_MAX,
        context_tokens: int = CONTEXT_TOKENS,
    ):
        self.episode = Episode(environment, oracle_of(environment), t_max)
        self.context_tokens = context_tokens
        self.faults: list[MalformedReply] = []
        """What was wrong with the replies to this turn."""

    @property
    def failed(self) -> bool:
        return len(self.faults) >= ATTEMPTS_A_TURN

    @property
    def ended(self) -> bool:
        return self.failed or self.episode.ended

    def prompt(self) -> list[Message]:
        """What the model is told: the turn's prompt, and after a first fault a request to mend it.
        After a second one the turn begins anew, because a model repeats what it sees.

        Raises PromptTooLong (`medaction.envs.prompts.messages`)."""
        prompt = self.episode.prompt(self.context_tokens)
        if len(self.faults) % 2 == 0:
            return prompt
        fault = self.faults[-1]
        # On the last turn the mended reply must name a diagnosis, and is told so.
        last_turn = must_commit(self.episode.turns, self.episode.t_max)
        return repair_messages(prompt, fault.raw, fault.message, last_turn)

    def step(self, reply: str) -> str:
        """Take a reply; returns what came of it: the results of the tests, or what is wrong."""
        try:
            turn = self.episode.step(reply)
        except MalformedReply as fault:
            self.faults.append(fault)
            return fault.message
        self.faults.clear()
        return "\n".join(answer.text for answer in turn.answers)


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores played episodes: `judge` of tests and diagnoses, `ruler` for what is measured on
    graphs."""

    judge: Judge
    ruler: Ruler

    async def score(self, play: Play) -> Score:
        """Precision, recall and diagnosis, as `medaction evaluate` scores the same replies by the
        paper's rules."""
        episode = play.episode
        world = episode.environment
        if episode.outcome is None:
            return failed_score(world.case_id, 0, MalformedReply.__name__, PAPER)
        # A trajectory is what the judges read; this one is never stored, so that its names do not
        # matter.
        spec = RolloutSpec(world.environment_id, world.case_id, "hub", episode.style, 0, "")
        version = PROMPT_VERSIONS["schema"]
        trajectory = Trajectory(spec, episode.turns, episode.outcome, episode.t_max, version, "hub")
        judgement = await judge(self.judge, trajectory, world, "", PAPER)
        return score_of([judgement], world.case_id, 0)

    async def credit(self, play: Play) -> Credit:
        """The rewards for training (`medaction.envs.credit`). Raises what a judge raises that gives
        no verdict."""
        episode = play.episode
        diagnosis = episode.turns[-1].final_diagnosis if episode.turns else None
        correct = diagnosis is not None and await self.judge.diagnosis(
            diagnosis, episode.environment, PAPER
        )
        return self._credit_by(correct, play)

    async def result(self, play: Play) -> tuple[Score, Credit | None]:
        """The score, and the rewards by the same verdict on the diagnosis; None where the judge
        gave none: the score's note says why."""
        score = await self.score(play)
        return score, None if score.correct is None else self._credit_by(score.correct, play)

    def _credit_by(self, correct: bool, play: Play) -> Credit:
        return play.episode.credit(lambda _diagnosis, _world: correct, self.ruler)


def scorer_of(judge_name: str = OFFLINE) -> Scorer:
    """The scorer on the open graphs, with the offline judge or a language model by its name."""
    ruler = linkers()
    if judge_name != OFFLINE:
        # As in `medaction evaluate`: the same reply gets the same verdict.
        model = Teacher.parse(judge_name).model_copy(update={"temperature": 0.0})
        return Scorer(LlmJudge(model), ruler)
    return Scorer(OfflineJudge(ruler.diseases, load_encoder().encode), ruler)
