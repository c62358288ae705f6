"""What was played: turns, trajectories, and the failures among them. Frozen, plain, and safe to
send between processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from medaction.envs.turns import Outcome, Style, Turn
from medaction.llm.usage import Usage
from medaction.words.versions import json_hash


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """A rollout to be played: everything its identity depends on. Branches name their parent and
    the last shared turn."""

    environment_id: str
    case_id: str
    teacher: str
    style: Style
    sample: int
    settings_hash: str
    parent_id: str | None = None
    branch_turn: int = 0

    @property
    def trajectory_id(self) -> str:
        """The same rollout under the same settings has the same id in every run, so a rerun finds
        what it has."""
        # Without the case's id: an environment's own id holds it.
        names = ("environment_id", "teacher", "style", "parent_id", "branch_turn", "sample")
        identity = [getattr(self, name) for name in (*names, "settings_hash")]
        # 64 bits: a million rollouts collide with a chance of one in 40 million.
        return json_hash(identity)[:16]

    @property
    def seed(self) -> int:
        """A 31-bit seed that goes with the id (some servers refuse larger ones)."""
        return int(self.trajectory_id[:8], 16) & 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A finished rollout. `turns` are those played here: a branch's are numbered on from
    `branch_turn`, its prefix is its parent's."""

    spec: RolloutSpec
    turns: tuple[Turn, ...]
    outcome: Outcome
    t_max: int
    prompt_version: str
    code_version: str

    @property
    def trajectory_id(self) -> str:
        return self.spec.trajectory_id

    @property
    def final_diagnosis(self) -> str | None:
        return self.turns[-1].final_diagnosis if self.turns else None


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that did not work, as a record that can be queried and retried. `raw` keeps a
    malformed reply.

    `usage` is what was spent on it and is in no stored turn: a failed rollout's own turns are not
      kept, their cost is. `protocol` and `repeat` are of a judging; its judge is the `teacher`.
    """

    stage: str
    case_id: str
    error_class: str
    message: str
    time: datetime
    teacher: str | None = None
    trajectory_id: str | None = None
    turn: int | None = None
    attempt: int = 1
    raw: str | None = None
    path: str = ""
    usage: Usage = field(default_factory=Usage)
    protocol: str | None = None
    repeat: int | None = None


def failure_of(
    stage: str,
    case_id: str,
    error: object,
    spec: RolloutSpec | None = None,
    turn: int | None = None,
    usage: Usage | None = None,
) -> Failure:
    """What a task ended with when it brought no result: an error of a model, a lost worker."""
    return Failure(
        stage,
        case_id,
        type(error).__name__,
        str(error)[:2000],  # servers may send whole pages, and an error quotes the whole reply
        now(),
        teacher=spec.teacher if spec else None,
        trajectory_id=spec.trajectory_id if spec else None,
        turn=turn,
        raw=getattr(error, "raw", None),
        usage=usage or Usage(),
    )


@dataclass(frozen=True, slots=True)
class Played:
    """What the rollouts of one case gave. `not_started` counts those that were left for another run
    because the budget was spent.

    `oracle_usage` is what the oracle's model used, over all of them.
    """

    case_id: str
    trajectories: tuple[Trajectory, ...]
    failures: tuple[Failure, ...]
    not_started: int = 0
    oracle_usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class OpenFailure:
    """A failure that can be retried. Without a trajectory it is the whole case's."""

    stage: str
    case_id: str
    teacher: str | None
    trajectory_id: str | None
    error_class: str

    @property
    def is_refusal(self) -> bool:
        """Whether a check refused the case, which is a result. Checks have names in small letters,
        classes of errors begin with a capital."""
        return self.stage == "environment" and self.error_class.islower()


WORKER_LOST = "WorkerLost"
"""The error class of what ended with its worker, node or cluster. The case is not to blame, so a
rerun plays it again without being asked."""


def now() -> datetime:
    return datetime.now(UTC)


def path_of(trajectory: Trajectory, by_id: dict[str, Trajectory]) -> tuple[Turn, ...]:
    """The whole line of turns from turn 1: the ancestors' turns up to each branch turn, then the
    trajectory's own.

    Raises KeyError when an ancestor is missing from `by_id`.
    """
    spec = trajectory.spec
    # A branch of a branch shares what its parent shared, hence the recursion.
    if spec.parent_id is None:
        return trajectory.turns
    # Cut at the launch point: the parent itself went on from there.
    prefix: Sequence[Turn] = path_of(by_id[spec.parent_id], by_id)[: spec.branch_turn]
    return (*prefix, *trajectory.turns)
