"""DTC and RAC over graph nodes (paper, section 3.3, equations 3 and 4). None stands for unknown,
which is never far.

`dtc` and `rac` are the two equations for one turn. `measure` is both for every turn of many
trajectories: it looks every pair of nodes up once, all targets of a node together, which at the
paper's size is a hundred times faster than one search a look-up.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medaction.kg.graph import Graph

Hops = Callable[[int, int], int | None]
"""h of the equations: the length of the shortest path between two nodes, None where there is none.
"""


@dataclass(frozen=True, slots=True)
class TurnNodes:
    """A turn as nodes. None: unlinked.

    top: the top hypothesis b_t(1), or in a turn that commits the final diagnosis, as a node of the
    disease graph. differential: b_t as nodes of the test graph; in a turn that commits with the
    final diagnosis, listed or not. tests: a_t as nodes of the test graph; empty in a turn that
    commits.
    """

    number: int
    top: int | None
    differential: tuple[int | None, ...]
    tests: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Course:
    """A trajectory as nodes: its turns from the first, and the true diagnosis s* as a node of the
    disease graph."""

    turns: tuple[TurnNodes, ...]
    truth: int | None


def reaches_truth(commits: bool, dtc: int | None) -> bool | None:
    """Whether a trajectory ends on the truth, by the DTC of its last turn; None: unknown. One that
    commits to no diagnosis does not, whatever its distance."""
    if not commits:
        return False
    return None if dtc is None else dtc == 0


@dataclass(frozen=True, slots=True)
class Rac:
    """RAC_t with what it rests on.

    value: mean hops over the changed diagnoses whose distance is known; None if there are none.
    changed: how many diagnoses were added or removed. unknown: how many of these have no known
    distance to any ordered test. unlinked: how many entries of the two differentials are no node,
    so that whether they changed cannot be told.
    """

    value: float | None
    changed: int
    unknown: int
    unlinked: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """DTC and RAC of every turn of a course, in order; `rac` is None at the first turn, which
    follows no action."""

    dtc: tuple[int | None, ...]
    rac: tuple[Rac | None, ...]


def dtc(distance: Hops, top: int | None, truth: int | None) -> int | None:
    """DTC_t = h(b_t(1), s*), equation 3: hops between the top hypothesis and the true diagnosis.

    0 if they are the same node. None if either is unlinked (None) or no path joins them.
    """
    # From the truth: a run has few truths and many hypotheses, and hops grow from the first node.
    return None if top is None or truth is None else distance(truth, top)


def rac(
    distance: Hops,
    before: Sequence[int | None],
    after: Sequence[int | None],
    tests: Sequence[int | None],
) -> Rac:
    """RAC_t, equation 4: mean over the diagnoses in exactly one of b_{t-1} and b_t of the hops to
    the nearest test of a_{t-1}.

    Differentials are sets of nodes: what links to the same node, or is listed twice, is one
    diagnosis, and its rank says nothing. Unlinked diagnoses cannot be compared as nodes; they are
    left out and counted. Nothing changed: value None, changed 0. Unlinked tests are left out,
    repeated ones are one. Without a linked test (a_{t-1} may be empty) every changed diagnosis is
    unknown. One without a path to any of the tests is unknown, too, and does not enter the mean.
    """
    changed = changed_nodes(before, after)
    linked = _known_nodes(tests)
    # Equation 4: of each changed diagnosis the nearest test, then the mean over diagnoses.
    nearest = [
        min(distances)
        for node in changed
        if (distances := [hops for test in linked if (hops := distance(test, node)) is not None])
    ]
    value = sum(nearest) / len(nearest) if nearest else None
    unlinked = before.count(None) + after.count(None)
    return Rac(value, len(changed), len(changed) - len(nearest), unlinked)


def changed_nodes(before: Iterable[int | None], after: Iterable[int | None]) -> set[int]:
    """Delta b_t: the diagnoses that were added or removed, as nodes."""
    return _known_nodes(before) ^ _known_nodes(after)


def _known_nodes(nodes: Iterable[int | None]) -> set[int]:
    return {node for node in nodes if node is not None}


def measure(
    courses: Sequence[Course], disease_graph: "Graph", test_graph: "Graph"
) -> list[Measured]:
    """DTC and RAC of every turn of every course, in order."""
    to_truth = looked_up(disease_graph, dtc_pairs(courses))
    to_tests = looked_up(test_graph, rac_pairs(courses))
    measured = []
    for course in courses:
        turns = course.turns
        distances = tuple(dtc(to_truth, turn.top, course.truth) for turn in turns)
        changes = (
            rac(to_tests, a.differential, b.differential, a.tests) for a, b in pairwise(turns)
        )
        measured.append(Measured(distances, (None, *changes)[: len(turns)]))
    return measured


def dtc_pairs(courses: Iterable[Course]) -> Iterator[tuple[int, int]]:
    """Every (truth, top hypothesis) whose distance equation 3 asks for, as often as it does."""
    for course in courses:
        if course.truth is not None:
            yield from ((course.truth, turn.top) for turn in course.turns if turn.top is not None)


def rac_pairs(courses: Iterable[Course]) -> Iterator[tuple[int, int]]:
    """Every (test, changed diagnosis) whose distance equation 4 asks for, as often as it does."""
    for course in courses:
        for before, after in pairwise(course.turns):
            # (test, diagnosis), as `rac` asks: the hops of one test serve all diagnoses.
            yield from product(
                _known_nodes(before.tests), changed_nodes(before.differential, after.differential)
            )


def looked_up(graph: "Graph", pairs: Iterable[tuple[int, int]]) -> Hops:
    """The distances of these pairs, found beforehand: each pair once, and all of one node
    together.
    """
    # Here, so that reading records of turns needs neither NumPy nor a graph.
    from medaction.kg.graph import hops_from

    targets_of: dict[int, set[int]] = defaultdict(set)
    for a, b in pairs:
        targets_of[a].add(b)
    hops = {a: hops_from(graph, a, targets) for a, targets in targets_of.items()}
    return lambda a, b: hops[a][b]
