"""A turn of an episode: observation, differential, pivot, orders, results (paper, section 3.3)."""

from dataclasses import dataclass, field
from typing import Literal

from medaction.envs.records import Answer
from medaction.llm.usage import Usage

Style = Literal["schema", "free", "gold"]
"""How a trajectory was written: in the output schema, free-form (about 10 %, RQ2), or reconstructed
from the report (RQ1)."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One line of the differential b_t: a diagnosis and its confidence in percent, 0 to 100."""

    diagnosis: str
    confidence: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn (equation 2 of the paper): differential b_t, pivot p_t, then either tests a_t with
    answers r_t or a final diagnosis.

    `raw` is what a model is trained on: the reply rendered in the one grammar, whatever its form
    was, or a free-form text as it came. `thinking` is what a reasoning model thought apart from its
    reply, where the server returns it. A clinician returns the turn without `answers`; the rollout
    adds what the oracle said.
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
    usage: Usage = field(default_factory=Usage)

    @property
    def leader(self) -> str:
        """b_t(1): the final diagnosis where the turn commits, else the top of the differential."""
        return self.final_diagnosis or self.differential[0].diagnosis


Outcome = Literal["diagnosed", "turn_limit", "loop"]
"""How an episode ended: it committed to a diagnosis (at turn T_max because it had to), it came to
T_max without one, or its diagnosis was demanded before T_max because it only ordered again what it
had (`medaction.envs.loops`)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """o_t: all that a policy knows before a turn. The turns so far hold the tests and results."""

    initial_observation: str
    turns: tuple[Turn, ...]
    t_max: int
    style: Style = "schema"

    @property
    def number(self) -> int:
        """The number of the turn that comes, from 1."""
        return len(self.turns) + 1
