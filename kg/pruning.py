"""Which turns of a trajectory are worth training on: the paper's DTC and RAC pruning and its two baselines (section 3.3).

All three functions take the same arguments and measure DTC and RAC at every turn; they differ in the verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from kg.graph import Graph
from kg.metrics import dtc, rac

THRESHOLD = 3.0
"""tau_RAC, the maximum of hops (paper, appendix C)."""

Status = Literal["kept", "truncated", "discarded", "unscorable"]


@dataclass(frozen=True, slots=True)
class TurnNodes:
    """A turn as nodes. None: unlinked.

    top: the top hypothesis b_t(1), or in a turn that commits the final diagnosis, as a node of the disease graph.
    differential: b_t as nodes of the test graph, the linked ones only.
    tests: a_t as nodes of the test graph; empty in a turn that commits.
    """

    number: int
    top: int | None
    differential: frozenset[int]
    tests: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a trajectory; a plain record that can be counted.

    reason: a short name. last_turn: the number of turn t*, None where nothing is kept.
    removed_turns: turns up to t* that RAC removed. kept_turns: numbers of the turns to train on.
    dtc, rac: one value for every turn given, None where unknown (and for RAC at turn 1).
    """

    status: Status
    reason: str
    last_turn: int | None
    removed_turns: tuple[int, ...]
    kept_turns: tuple[int, ...]
    dtc: tuple[int | None, ...]
    rac: tuple[float | None, ...]


def prune_none(
    turns: Sequence[TurnNodes], truth: int | None, disease_graph: Graph, test_graph: Graph, threshold: float = THRESHOLD
) -> Verdict:
    """No filter: every trajectory is kept whole, whatever its outcome."""
    return _whole(turns, *_measure(turns, truth, disease_graph, test_graph))


def prune_correctness(
    turns: Sequence[TurnNodes], truth: int | None, disease_graph: Graph, test_graph: Graph, threshold: float = THRESHOLD
) -> Verdict:
    """The correctness filter: keep whole what ends on the true diagnosis (the same node), discard the rest.

    A last turn that still orders tests has not committed: 'no_final_diagnosis'. An unlinked truth or final diagnosis, or two
    nodes without a path: unscorable.
    """
    distances, racs = _measure(turns, truth, disease_graph, test_graph)
    if not turns or turns[-1].tests:
        return _nothing("discarded", "no_final_diagnosis", distances, racs)
    if distances[-1] is None:
        reason = _unknown(turns[-1], truth, "final_diagnosis")
        return _nothing("unscorable", reason, distances, racs)
    if distances[-1] > 0:
        return _nothing("discarded", "wrong_final_diagnosis", distances, racs)
    return _whole(turns, distances, racs)


def prune_dtc_rac(
    turns: Sequence[TurnNodes], truth: int | None, disease_graph: Graph, test_graph: Graph, threshold: float = THRESHOLD
) -> Verdict:
    """DTC, then RAC pruning, as in the paper.

    t* is the latest turn t >= 2 with DTC_t <= DTC_1; what follows it is cut. Then, in one pass over the RAC values of the
    trajectory as played, each t >= 2 up to t* with RAC_t > `threshold` removes turn t-1. So t* itself always stays.

    Discarded: 'one_turn' (there is no t >= 2) and 'no_convergence' (no later turn is as close as the first).
    Unscorable: truth or first hypothesis unlinked or without a path between them, and 'later_hypotheses_unknown' (of no later
    turn is the distance known). Otherwise a turn of unknown DTC is not t*, and one of unknown RAC removes nothing.
    """
    distances, racs = _measure(turns, truth, disease_graph, test_graph)
    if len(turns) < 2:
        return _nothing("discarded", "one_turn", distances, racs)
    first = distances[0]
    if first is None:
        return _nothing("unscorable", _unknown(turns[0], truth, "first_hypothesis"), distances, racs)
    if all(distance is None for distance in distances[1:]):
        return _nothing("unscorable", "later_hypotheses_unknown", distances, racs)
    close = [t for t in range(1, len(turns)) if (distance := distances[t]) is not None and distance <= first]
    if not close:
        return _nothing("discarded", "no_convergence", distances, racs)
    last = close[-1]
    removed = {t - 1 for t in range(1, last + 1) if (value := racs[t]) is not None and value > threshold}
    kept = tuple(turns[t].number for t in range(last + 1) if t not in removed)
    cut = last < len(turns) - 1
    reason = {(False, False): "whole", (True, False): "cut", (False, True): "pruned", (True, True): "cut_and_pruned"}
    return Verdict(
        status="truncated" if cut or removed else "kept",
        reason=reason[cut, bool(removed)],
        last_turn=turns[last].number,
        removed_turns=tuple(turns[t].number for t in sorted(removed)),
        kept_turns=kept,
        dtc=distances,
        rac=racs,
    )


def _measure(
    turns: Sequence[TurnNodes], truth: int | None, disease_graph: Graph, test_graph: Graph
) -> tuple[tuple[int | None, ...], tuple[float | None, ...]]:
    """DTC_t and RAC_t of every turn."""
    distances = tuple(dtc(disease_graph, turn.top, truth) for turn in turns)
    changes = [
        rac(test_graph, before.differential, after.differential, before.tests).value for before, after in pairwise(turns)
    ]
    return distances, (None, *changes)[: len(turns)]


def _unknown(turn: TurnNodes, truth: int | None, what: str) -> str:
    if truth is None:
        return "truth_unlinked"
    return f"{what}_unlinked" if turn.top is None else f"{what}_without_path"


def _whole(turns: Sequence[TurnNodes], distances: tuple[int | None, ...], racs: tuple[float | None, ...]) -> Verdict:
    numbers = tuple(turn.number for turn in turns)
    return Verdict("kept", "whole", numbers[-1] if numbers else None, (), numbers, distances, racs)


def _nothing(status: Status, reason: str, distances: tuple[int | None, ...], racs: tuple[float | None, ...]) -> Verdict:
    return Verdict(status, reason, None, (), (), distances, racs)
