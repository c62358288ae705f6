"""What was played: turns, trajectories, and the failures among them. Frozen, plain, and safe to send between processes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from envs.records import Answer

Style = Literal["schema", "free", "gold"]
"""How a trajectory was written: in the output schema, free-form (about 10 %, RQ2), or reconstructed from the report (RQ1)."""

Outcome = Literal["diagnosed", "turn_limit", "loop"]
"""How a rollout ended: it committed to a diagnosis (at turn T_max because it had to), it came to T_max without one, or its
diagnosis was demanded before T_max because it only ordered again what it had (`trajectories.loops`)."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One line of the differential b_t: a diagnosis and its stated confidence in percent, 0 to 100."""

    diagnosis: str
    confidence: int


@dataclass(frozen=True, slots=True)
class Fault:
    """An attempt that brought nothing usable, whether or not a later one did: an answer that was no reply (`message` begins with HTTP's
    status), or a reply outside the grammar, with its text in `raw`."""

    error_class: str
    message: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a turn cost: model calls, tokens, dollars, seconds. All zero for a clinician that is no language model.

    `calls` are those that a server answered with a reply; `cached_calls` were answered by the call cache, and are in no other
    field. `faults` are the attempts that failed: those of class MalformedReply (and its kinds) are among the calls, the others are not.
    So a server was asked `calls` + the other faults times, less the requests that never reached it.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    cached_calls: int = 0
    faults: tuple[Fault, ...] = ()

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_usd + other.cost_usd,
            self.seconds + other.seconds,
            self.cached_calls + other.cached_calls,
            self.faults + other.faults,
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn (equation 2 of the paper): differential b_t, pivot p_t, then either tests a_t with answers r_t or a final diagnosis.

    `raw` is the reply as it came (after a repair: the repaired one) and is what a model is trained on.
    `thinking` is what a reasoning model thought apart from its reply, where the server returns it.
    A clinician returns the turn without `answers`; the rollout adds what the oracle said.
    """

    number: int
    reasoning: str
    differential: tuple[Hypothesis, ...]
    pivot: str
    tests: tuple[str, ...]
    final_diagnosis: str | None
    raw: str
    answers: tuple[Answer, ...] = ()
    thinking: str = ""
    repaired: bool = False
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """A rollout to be played: everything its identity depends on. Branches name their parent and the last shared turn."""

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
        """The same rollout under the same settings has the same id in every run, so a rerun finds what it has."""
        identity = [
            self.environment_id,
            self.teacher,
            self.style,
            self.parent_id,
            self.branch_turn,
            self.sample,
            self.settings_hash,
        ]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    @property
    def seed(self) -> int:
        """A 31-bit seed that goes with the id (some servers refuse larger ones)."""
        return int(self.trajectory_id[:8], 16) & 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A finished rollout. `turns` are those played here: a branch's are numbered on from `branch_turn`, its prefix is its parent's."""

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
    """Something that did not work, as a record that can be queried and retried. `raw` keeps a malformed reply.

    `usage` is what was spent on it and is in no stored turn: a failed rollout's own turns are not kept, their cost is.
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
    usage: Usage = Usage()


def now() -> datetime:
    return datetime.now(UTC)


def path_of(trajectory: Trajectory, by_id: dict[str, Trajectory]) -> tuple[Turn, ...]:
    """The whole line of turns from turn 1: the ancestors' turns up to each branch turn, then the trajectory's own.

    Raises KeyError when an ancestor is missing from `by_id`.
    """
    spec = trajectory.spec
    if spec.parent_id is None:
        return trajectory.turns
    prefix: Sequence[Turn] = path_of(by_id[spec.parent_id], by_id)[: spec.branch_turn]
    return (*prefix, *trajectory.turns)
