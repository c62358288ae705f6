"""The paper's three failure modes (Figure 2) of what models played: how often, and how often
together.

The paper names and describes the modes but states no rule by which a trajectory has one. The rules
here are ours: they can be computed from the store, or asked of a judge
(`medaction.evaluation.failure_judge`).
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, product

import polars as pl
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from medaction.envs.loops import repeated_orders
from medaction.envs.turns import Turn
from medaction.evaluation.played import Linked, Path, endings, paths
from medaction.evaluation.plots import HUES
from medaction.kg.metrics import Hops, dtc, looked_up
from medaction.kg.pruning import THRESHOLD
from medaction.trajectories.store import Store

MODES = ("ungrounded", "unreliable", "incoherent")
NAMES_OF_MODES = {
    "ungrounded": "ungrounded test ordering",
    "unreliable": "unreliable diagnostic update",
    "incoherent": "degraded multi-turn coherence",
}

ERRATIC = 3.0
"""Hops on the disease graph between two leading diagnoses above which the second is no refinement
of the first: our choice."""


def failure_modes(store: Store, links: Linked, threshold: float = THRESHOLD) -> pl.DataFrame:
    """trajectory_id, case_id, model, wrong (null: unknown), and whether it shows each of MODES, of
    every trajectory. threshold: tau_RAC of the test graph."""
    trajectories = list(paths(store, links))
    # All pairs beforehand: one search a node serves all trajectories.
    turns = [turn for path in trajectories for turn in path.course.turns]
    pairs = (pair for turn in turns for pair in product(turn.tests, turn.differential))
    known = ((a, b) for a, b in pairs if a is not None and b is not None)
    to_tests = looked_up(links.test_graph, known)
    of_diseases = (pair for path in trajectories for pair in _disease_pairs(path))
    to_diseases = looked_up(links.disease_graph, of_diseases)
    rows = []
    for path in trajectories:
        verdicts_by_mode = {
            "ungrounded": ungrounded(path, to_tests, threshold),
            "unreliable": unreliable(path, to_diseases, ERRATIC),
            "incoherent": incoherent(path.turns, path.trajectory.outcome),
        }
        rows.append({"trajectory_id": path.trajectory.trajectory_id} | verdicts_by_mode)
    schema = {"trajectory_id": pl.String(), **{mode: pl.Boolean() for mode in MODES}}
    verdicts = endings(store).select("trajectory_id", "case_id", "model", "wrong")
    return verdicts.join(pl.DataFrame(rows, schema=schema), on="trajectory_id", how="inner").sort(
        "trajectory_id"
    )


def _disease_pairs(path: Path):
    tops = [turn.top for turn in path.course.turns]
    yield from ((a, b) for a, b in pairwise(tops) if a is not None and b is not None)
    if path.course.truth is not None:
        # From the truth, as `dtc` asks: hops grow from the first node.
        yield from ((path.course.truth, top) for top in tops if top is not None)


def ungrounded(path: Path, distance: Hops, threshold: float) -> bool:
    """Tests without a clear connection to the stated hypotheses: some turn orders only tests that
    lie more than `threshold` hops on the test graph from every diagnosis of its differential. Tests
    and diagnoses that are no node, or have no path, say nothing."""
    for turn in path.course.turns:
        known = [
            hops
            for test, node in product(turn.tests, turn.differential)
            if test is not None and node is not None and (hops := distance(test, node)) is not None
        ]
        if known and min(known) > threshold:  # one near test is enough
            return True
    return False


def unreliable(path: Path, distance: Hops, threshold: float) -> bool:
    """Rigid: results came back, and from the first turn to the last the same diagnosis led, which
    is not the truth (known DTC above 0). Or erratic: the lead passed, from one turn to the next, to
    a diagnosis more than `threshold` hops away on the disease graph that is no nearer to the truth.
    Where a distance is unknown, neither is found."""
    turns, truth = path.course.turns, path.course.truth
    distances = [dtc(distance, turn.top, truth) for turn in turns]
    informed = any(answer.results for turn in path.turns for answer in turn.answers)
    rigid = (
        len(turns) > 1
        and informed
        and len({turn.top for turn in turns}) == 1
        # Neither 0, the truth, nor None, unknown.
        and bool(distances[-1])
    )
    leads = zip((turn.top for turn in turns), distances, strict=True)
    return rigid or any(
        a is not None
        and b is not None
        and a != b
        and (apart := distance(a, b)) is not None
        # No jump where the next diagnosis is nearer to the truth: then the results warranted it.
        and apart > threshold
        for (a, before), (b, after) in pairwise(leads)
        if before is not None and after is not None and after >= before
    )


def incoherent(turns: Sequence[Turn], outcome: str) -> bool:
    """Lost track of what was done or is still open: a test is ordered that had been ordered before,
    or whose results had all come back; or the pivot is word for word the one of the turn before
    although results came back in between; or no diagnosis at the end."""
    repeats = any(any(turn) for turn in repeated_orders(turns))
    stuck = any(
        # Free text has no pivot.
        a.pivot.strip()
        and a.pivot.strip().casefold() == b.pivot.strip().casefold()
        and any(answer.results for answer in a.answers)
        for a, b in pairwise(turns)
    )
    return repeats or stuck or outcome != "diagnosed"


def together(modes: pl.DataFrame) -> dict[tuple[bool, bool, bool], int]:
    """How many wrong trajectories have each combination of (ungrounded, unreliable, incoherent),
    none included."""
    counted = Counter(modes.filter(pl.col("wrong")).select(MODES).rows())
    either = (True, False)
    return {(a, b, c): counted[a, b, c] for a, b, c in product(either, either, either)}


def shares(modes: pl.DataFrame) -> pl.DataFrame:
    """model, trajectories, wrong, unknown (whether wrong), and of the wrong ones the share with
    each of MODES."""
    wrong = pl.col("wrong").fill_null(False)
    return (
        modes.group_by("model")
        .agg(
            pl.len().cast(pl.Int64).alias("trajectories"),
            wrong.sum().cast(pl.Int64).alias("wrong"),
            pl.col("wrong").is_null().sum().cast(pl.Int64).alias("unknown"),
            *(pl.col(mode).filter(wrong).mean().alias(mode) for mode in MODES),
        )
        .sort("model")
    )


# Centres of the circles, radius 1; where the numbers of the seven regions stand; and where the
# names do.
_CENTRES = ((-0.5, 0.35), (0.5, 0.35), (0.0, -0.5))
_PLACES = {
    (True, False, False): (-0.95, 0.6),
    (False, True, False): (0.95, 0.6),
    (False, False, True): (0.0, -1.05),
    (True, True, False): (0.0, 0.75),
    (True, False, True): (-0.58, -0.22),
    (False, True, True): (0.58, -0.22),
    (True, True, True): (0.0, 0.1),
}
_NAME_PLACES = ((-0.15, 1.55, "right"), (0.15, 1.55, "left"), (0.0, -1.7, "center"))


def draw_failure_modes(modes: pl.DataFrame, how: str) -> Figure:
    """A Venn diagram of the wrong trajectories; `how` says by what rule the modes were found."""
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-2.1, 2.1), ylim=(-2.2, 1.85), aspect="equal")
    axes.axis("off")
    counted = together(modes)
    total = sum(counted.values())
    axes.set_title(f"Failure modes of {total} wrong trajectories, {how}", loc="left")
    for mode, centre, hue, (across, up, side) in zip(
        MODES, _CENTRES, HUES, _NAME_PLACES, strict=False
    ):
        axes.add_patch(Circle(centre, 1.0, facecolor=hue, alpha=0.22, edgecolor=hue, linewidth=1.5))
        count_of_mode = sum(
            count for combination, count in counted.items() if combination[MODES.index(mode)]
        )
        label = f"{NAMES_OF_MODES[mode]}\n{count_of_mode} ({count_of_mode / max(1, total):.0%})"
        axes.text(across, up, label, ha=side, va="center", color="#222222")
    for combination, place in _PLACES.items():
        axes.text(*place, str(counted[combination]), ha="center", va="center", size=13)
    unknown = int(modes["wrong"].is_null().sum())
    axes.text(
        -2.05,
        -2.1,
        f"{counted[False, False, False]} wrong without any; {unknown} with unknown ending left out",
        size=8,
    )
    return figure
