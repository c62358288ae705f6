"""DTC and RAC over graph nodes (paper, section 3.3, equations 3 and 4). None stands for unknown, which is never far."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from kg.graph import Graph, hops, hops_from


@dataclass(frozen=True, slots=True)
class Rac:
    """RAC_t with what it rests on.

    value: mean hops over the changed diagnoses whose distance is known; None if there are none.
    changed: how many diagnoses were added or removed.
    unknown: how many of these have no known distance to any ordered test.
    """

    value: float | None
    changed: int
    unknown: int


def dtc(graph: Graph, top: int | None, truth: int | None) -> int | None:
    """DTC_t = h(b_t(1), s*), equation 3: hops between the top hypothesis and the true diagnosis.

    0 if they are the same node. None if either is unlinked (None) or no path joins them.
    """
    return None if top is None or truth is None else hops(graph, top, truth)


def rac(graph: Graph, before: Set[int], after: Set[int], tests: Sequence[int | None]) -> Rac:
    """RAC_t, equation 4: mean over the diagnoses in exactly one of b_{t-1} and b_t of the hops to the nearest test of a_{t-1}.

    Nothing changed: value None, changed 0. Unlinked tests (None) are left out; where no linked test remains, every changed
    diagnosis is unknown. A changed diagnosis without a path to any of the tests is unknown and does not enter the mean.
    Unlinked diagnoses are no nodes and so are in neither set.
    """
    changed = before ^ after
    nearest = _nearest(graph, changed, {test for test in tests if test is not None})
    value = sum(nearest.values()) / len(nearest) if nearest else None
    return Rac(value, len(changed), len(changed) - len(nearest))


def _nearest(graph: Graph, diagnoses: Set[int], tests: Set[int]) -> dict[int, int]:
    """Hops to the nearest test, for each diagnosis from which any can be reached."""
    nearest: dict[int, int] = {}
    for test in sorted(tests) if diagnoses else ():
        for diagnosis, distance in hops_from(graph, test, diagnoses).items():
            if distance is not None:
                nearest[diagnosis] = min(distance, nearest.get(diagnosis, distance))
    return nearest
