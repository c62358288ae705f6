"""What each turn of an episode was worth: measured on knowledge graphs, and against what the report
documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medaction.envs.loops import repeated_orders
from medaction.envs.records import ClinicalEnvironment
from medaction.envs.turns import Turn
from medaction.kg.metrics import Course, Rac, TurnNodes, measure

if TYPE_CHECKING:
    from medaction.kg.linking import Linker


@dataclass(frozen=True, slots=True)
class Nodes:
    """The texts of trajectories as graph nodes; None: linked to no node."""

    diseases: dict[str, int | None]
    """Diagnoses on the disease graph, where DTC is measured."""
    diagnoses: dict[str, int | None]
    """Diagnoses on the test graph, where RAC is measured."""
    tests: dict[str, int | None]


@dataclass(frozen=True, slots=True)
class Ruler:
    """The linkers of the graphs on which DTC and RAC are measured."""

    diseases: "Linker"
    """Diagnoses on the disease graph."""
    diagnoses: "Linker"
    """Diagnoses on the test graph."""
    tests: "Linker"

    def truth(self, environment: ClinicalEnvironment) -> int | None:
        """The true diagnosis as a node of the disease graph."""
        name = true_name(environment, self.diseases)
        return _linked(self.diseases, [name])[name]

    def nodes(self, turns: Sequence[Turn]) -> Nodes:
        """Every diagnosis and order of the turns as nodes."""
        names = list(dict.fromkeys(name for turn in turns for name in named_diagnoses(turn)))
        orders = list(dict.fromkeys(order for turn in turns for order in turn.tests))
        return Nodes(
            _linked(self.diseases, names),
            _linked(self.diagnoses, names),
            _linked(self.tests, orders),
        )

    def course(self, environment: ClinicalEnvironment, turns: Sequence[Turn]) -> Course:
        """The turns as nodes, with the truth of the environment."""
        nodes = self.nodes(turns)
        return Course(tuple(turn_nodes(turn, nodes) for turn in turns), self.truth(environment))


def _linked(linker: "Linker", texts: Sequence[str]) -> dict[str, int | None]:
    return {text: link.node for text, link in zip(texts, linker.link(texts), strict=True)}


@dataclass(frozen=True, slots=True)
class TurnReward:
    """One turn's measures.

    dtc: hops from the top hypothesis to the truth (paper, equation 3); None: unknown.
    dtc_progress: hops that the turn came nearer than the turn before; None at turn 1 or unknown.
    rac: equation 4, of this turn's change of the differential and the tests before; None at turn 1.
    documented: share of the turn's orders that the report documents; None without orders.
    novel: share of the turn's orders that bring something that was not ordered before.
    """

    number: int
    dtc: int | None
    dtc_progress: int | None
    rac: Rac | None
    documented: float | None
    novel: float | None


def turn_rewards(
    environment: ClinicalEnvironment, turns: Sequence[Turn], ruler: Ruler | None
) -> tuple[TurnReward, ...]:
    """The measures of every turn."""
    dtc: Sequence[int | None] = [None] * len(turns)
    rac: Sequence[Rac | None] = [None] * len(turns)
    # Without graphs, or before the first turn, every measure of them is unknown.
    if ruler and turns:
        course = ruler.course(environment, turns)
        (measured,) = measure([course], ruler.diseases.graph, ruler.diagnoses.graph)
        dtc, rac = measured.dtc, measured.rac
    rewards = []
    for at, (turn, repeated) in enumerate(zip(turns, repeated_orders(turns), strict=True)):
        before = dtc[at - 1] if at else None
        now = dtc[at]
        # Unknown where either end is: it would not be 0.
        progress = None if before is None or now is None else before - now
        answered = [bool(answer.results) for answer in turn.answers]
        rewards.append(
            TurnReward(
                turn.number,
                now,
                progress,
                rac[at],
                sum(answered) / len(answered) if answered else None,
                1 - sum(repeated) / len(repeated) if repeated else None,
            )
        )
    return tuple(rewards)


def named_diagnoses(turn: Turn) -> tuple[str, ...]:
    """The diagnoses of a turn's differential, and its final diagnosis, each once."""
    # Beside the differential, which need not have it where no grammar read the turn.
    final = [turn.final_diagnosis] if turn.final_diagnosis else []
    return tuple(dict.fromkeys([*(line.diagnosis for line in turn.differential), *final]))


def turn_nodes(turn: Turn, nodes: Nodes) -> TurnNodes:
    """A turn as graph nodes. In a turn that commits, the final diagnosis is the top hypothesis
    b_t(1)."""
    return TurnNodes(
        turn.number,
        # DTC is measured of the top hypothesis alone, RAC of the whole differential.
        nodes.diseases[turn.leader],
        tuple(nodes.diagnoses[name] for name in named_diagnoses(turn)),
        tuple(nodes.tests[order] for order in turn.tests),
    )


def true_name(environment: ClinicalEnvironment, linker: "Linker") -> str:
    """The name by which the truth is linked: the diagnosis, or the first documented synonym that
    the graph knows where it does not."""
    return linked_name(environment.diagnosis, environment.synonyms, linker)


def linked_name(diagnosis: str, synonyms: Sequence[str], linker: "Linker") -> str:
    """The first of these names that the graph knows; the diagnosis where it knows none."""
    return next((name for name in (diagnosis, *synonyms) if linker.knows(name)), diagnosis)


@dataclass(frozen=True, slots=True)
class Standing:
    """The truth in one differential. probability: its stated confidence over 100, or over their sum
    where that is more. reciprocal_rank: 1 over its place. Both 0 where the differential does not
    have it."""

    probability: float
    reciprocal_rank: float


def standing(turn: Turn, nodes: Mapping[str, int | None], truth: int | None) -> Standing | None:
    """None, unknown: the truth is no node; or it is not found while an entry of the differential is
    no node, which might be it."""
    if truth is None:
        return None
    places = [nodes.get(line.diagnosis) for line in turn.differential]
    # Confidences that sum to 150 are scaled down; a sum of 60 leaves 40 for what is not named.
    total = max(100, sum(line.confidence for line in turn.differential))
    if truth in places:
        at = places.index(truth)
        return Standing(turn.differential[at].confidence / total, 1 / (at + 1))
    # An entry without a node might be the truth under a name that the graph lacks.
    return None if None in places else Standing(0.0, 0.0)
