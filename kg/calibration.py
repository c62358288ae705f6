"""Choosing tau_RAC on a graph other than the paper's.

The paper chose 3 hops because the mean RAC of trajectories that reach the truth was 3.3 (appendix
C); with 4 more was kept (78 % against 53 % of the data) and the trained model was worse. Hops mean
other things on other graphs: on the open test graph nearly every test is within 3 hops of every
diagnosis, and 3 removes nothing. So the right turns are compared with a null: the same changes of
the differential after as many tests of other cases, and the same tests before as many changed
diagnoses of other cases. A threshold is worth what it keeps of the right turns more than of the
null.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from medaction.kg.bootstrap import interval
from medaction.kg.graph import Graph
from medaction.kg.metrics import Course, changed_nodes, looked_up, rac, reaches_truth

FEW = 30
"""Below so many RAC values of trajectories that reach the truth a proposal is hardly more than a
guess."""
STEP = 0.5
"""Thresholds are multiples of this many hops: RAC is a mean of a few whole numbers, of which half
hops tell two apart."""
NULL_VALUES = 2000
"""Values of each null distribution at most: their shares are then known to about one in a
hundred."""
NULL_DRAWS = 10
"""Random orders, and random changes, drawn for a turn at most."""


@dataclass(frozen=True, slots=True)
class Change:
    """A turn t >= 2 that changed the differential after tests of which some are nodes.

    reached: whether its trajectory ends on the truth, None: unknown. changed, tests: the added and
    removed diagnoses and the tests of turn t-1, as nodes of the test graph.
    """

    case_id: str
    reached: bool | None
    changed: tuple[int, ...]
    tests: tuple[int, ...]


def changes_of(case_id: str, course: Course, dtc: int | None, branch_turn: int) -> Iterator[Change]:
    """The changes that a trajectory played itself: a branch's shared turns are its parent's.

    dtc: that of its last turn.
    """
    reached = reaches_truth(bool(course.turns) and not course.turns[-1].tests, dtc)
    for before, turn in zip(course.turns, course.turns[1:], strict=False):
        changed = changed_nodes(before.differential, turn.differential)
        tests = {test for test in before.tests if test is not None}
        if turn.number > branch_turn and changed and tests:  # else RAC has no value
            # Sorted, so that the seeded draws of the null do not hang on the order of a set.
            yield Change(case_id, reached, tuple(sorted(changed)), tuple(sorted(tests)))


def values_of(changes: Sequence[Change], graph: Graph) -> list[float | None]:
    """RAC of every change, equation 4."""
    hops = looked_up(graph, (pair for row in changes for pair in product(row.tests, row.changed)))
    # From an empty differential to the changed nodes: the difference is the change itself.
    return [rac(hops, (), row.changed, row.tests).value for row in changes]


@dataclass(frozen=True, slots=True)
class Null:
    """RAC in hops without any connection between tests and changes. orders: of the same changes
    after random tests. changes: of random changes after the same tests."""

    orders: tuple[float, ...]
    changes: tuple[float, ...]


def null_of(changes: Sequence[Change], graph: Graph) -> Null:
    """As many tests as the turn ordered, and as many diagnoses as it changed, each drawn from what
    the other cases ordered and changed, as often as they did. A node that is drawn twice counts
    once, so some draws have fewer. Empty with fewer than two cases."""
    rng = random.Random(0)
    few = rng.sample(list(changes), min(len(changes), NULL_VALUES))
    draws = max(1, min(NULL_DRAWS, NULL_VALUES // max(1, len(few))))
    tests = _by_case((row.case_id, row.tests) for row in changes)
    diagnoses = _by_case((row.case_id, row.changed) for row in changes)
    orders, changed = list[Change](), list[Change]()
    # Few turns are drawn for more than once, until there are about NULL_VALUES in all.
    for row in few * draws if len(tests) > 1 else ():
        # Half of the null changes the tests, half the diagnoses: a threshold has to beat both.
        null_tests = _drawn(rng, tests, row.case_id, len(row.tests))
        orders.append(Change(row.case_id, None, row.changed, null_tests))
        null_tests = _drawn(rng, diagnoses, row.case_id, len(row.changed))
        changed.append(Change(row.case_id, None, null_tests, row.tests))
    both = (values_of(rows, graph) for rows in (orders, changed))
    return Null(*(tuple(value for value in values if value is not None) for values in both))


def _by_case(pairs: Iterable[tuple[str, Sequence[int]]]) -> dict[str, list[int]]:
    nodes_by_case = defaultdict[str, list[int]](list)
    for case_id, nodes in pairs:
        nodes_by_case[case_id] += nodes
    return nodes_by_case


def _drawn(
    rng: random.Random, nodes: Mapping[str, Sequence[int]], case_id: str, count: int
) -> tuple[int, ...]:
    """`count` nodes of other cases: a case with many counts as often as it has them."""
    cases = list(nodes)
    # Its own tests are no null: they were ordered for these very diagnoses.
    weights = [0 if case == case_id else len(nodes[case]) for case in cases]
    donors = rng.choices(cases, weights, k=count)
    return tuple(sorted({rng.choice(nodes[case]) for case in donors}))


@dataclass(frozen=True, slots=True)
class Calibration:
    """right, wrong: known RAC values of turns whose trajectory does and does not reach the truth.

    threshold: the proposal, in hops. low, high: 95 % bootstrap interval of the right turns' mean
    over cases. cases: of the right turns. unknown: changes without a known distance.
    """

    right: tuple[float, ...]
    wrong: tuple[float, ...]
    null: Null
    threshold: float
    low: float | None
    high: float | None
    cases: int
    unknown: int

    @property
    def mean(self) -> float:
        """Mean RAC of the right turns, the paper's 3.3."""
        return float(np.mean(self.right))


def calibrate(changes: Sequence[Change], graph: Graph) -> Calibration:
    """The multiple of STEP, at least one hop, that keeps the most of the right turns over what it
    keeps of the null; of several the one nearest to the right turns' mean.

    Without a null (one case only) it is the multiple nearest to that mean. Raises ValueError if no
    trajectory that reaches the truth has a turn with a RAC.
    """
    values = values_of(changes, graph)
    known = [
        (row.reached, value)
        for row, value in zip(changes, values, strict=True)
        if value is not None
    ]
    right, wrong = (
        tuple(value for reached, value in known if reached is way) for way in (True, False)
    )
    if not right:
        raise ValueError(
            f"none of {len(changes)} turns that changed the differential both has a RAC and belongs"
            " to a trajectory that reaches the truth"
        )
    null = null_of(changes, graph)
    interval_of_mean = _interval(changes, values)
    cases = len({row.case_id for row in changes if row.reached})
    threshold = _best(right, null)
    return Calibration(right, wrong, null, threshold, *interval_of_mean, cases, values.count(None))


def _best(right: Sequence[float], null: Null) -> float:
    mean = float(np.mean(right))
    # From 1 hop: 0 would keep a change only if a test and a diagnosis are the same node.
    grid = [STEP * step for step in range(round(1 / STEP), int(max(right) / STEP) + 2)]

    def worth(threshold: float) -> tuple[float, float]:
        # A half is empty where nothing that was drawn has a path.
        of_null = [share_within(part, threshold) for part in (null.orders, null.changes) if part]
        margin = share_within(right, threshold) - sum(of_null) / len(of_null) if of_null else 0.0
        # Rounded: shares that differ in their last bit only are equal, and the mean decides.
        return round(margin, 9), -abs(threshold - mean)

    return max(grid, key=worth)


def share_within(values: Sequence[float], threshold: float) -> float:
    """The share of the values that are at most this; NaN of none."""
    return float(np.mean(np.array(values) <= threshold)) if values else float("nan")


def _interval(
    changes: Sequence[Change], values: Sequence[float | None]
) -> tuple[float | None, float | None]:
    by_case: dict[str, list[float]] = defaultdict(list)
    for row, value in zip(changes, values, strict=True):
        if row.reached and value is not None:
            by_case[row.case_id].append(value)
    sums, counts = (np.array([*map(function, by_case.values())]) for function in (sum, len))
    # A case is drawn with all its turns; the mean is over turns, so a long case weighs more.
    return interval(lambda cases: sums[cases].sum(axis=0) / counts[cases].sum(axis=0), len(sums))


def draw(calibration: Calibration, graph: str, path: Path) -> Path:
    """Draw the distributions with the proposal as a PNG at `path`."""
    # Without pyplot, which keeps every figure and chooses a backend for the whole process.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.add_subplot()
    parts = (
        (calibration.right, "trajectories that reach the truth", "#2a6f97"),
        (calibration.wrong, "that do not", "#c8553d"),
        (calibration.null.orders, "random orders", "#b8b8b8"),
        (calibration.null.changes, "random changes", "#888888"),
    )
    top = int(np.ceil(max(max(values, default=0.0) for values, _, _ in parts))) + 1
    edges = np.arange(0, top + STEP, STEP)
    for place, (values, label, colour) in enumerate(parts):
        if values:
            starts = edges[:-1] + 0.12 * place  # four bars within one STEP of 0.5
            heights = 100 * np.histogram(values, bins=edges)[0] / len(values)
            label = f"{label} ({len(values)} turns)"
            axes.bar(starts, heights, 0.11, align="edge", color=colour, label=label)
    mean, threshold = calibration.mean, calibration.threshold
    axes.axvline(mean, color="#2a6f97", linestyle=":", label=f"their mean {mean:.2f}")
    axes.axvline(threshold, color="black", label=f"threshold {threshold:g}")
    axes.set_xlabel(f"RAC in hops on {graph}")
    axes.set_ylabel("% of turns that changed something")
    axes.set_xlim(0, top)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
