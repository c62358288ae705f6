"""Choosing tau_RAC on a graph other than the paper's, in the way the paper chose 3 (appendix C).

There the mean RAC of trajectories that reach the truth was 3.3 hops and the threshold 3, the
nearest whole number; with 4 more was kept (78 % against 53 % of the data) and the trained model was
worse. Hops mean other things on other graphs, so the 3 does not carry over.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medaction.kg.bootstrap import interval

FEW = 30
"""Below so many RAC values of trajectories that reach the truth a proposal is hardly more than a
guess."""


@dataclass(frozen=True, slots=True)
class ScoredPath:
    """A trajectory's path. rac: the known RAC of its turns t >= 2 in hops. reached: whether it ends
    with DTC 0, None: unknown.

    unknown: how many of its turns t >= 2 have no RAC, because nothing changed or no distance is
    known.
    """

    case_id: str
    reached: bool | None
    rac: tuple[float, ...]
    unknown: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """reached, missed: RAC values of trajectories that do and do not end on the truth. cases,
    paths: of those that do.

    threshold: the proposal, in hops. low, high: 95 % bootstrap interval of the mean over cases.
    unknown: turns without a RAC in trajectories that reach the truth. unscorable: trajectories of
    which it is not known whether they do.
    """

    reached: tuple[float, ...]
    missed: tuple[float, ...]
    threshold: float
    low: float | None
    high: float | None
    cases: int
    paths: int
    unknown: int
    unscorable: int

    @property
    def mean(self) -> float:
        return float(np.mean(self.reached))

    def kept(self, threshold: float) -> tuple[float, float]:
        """Which shares of the turns t >= 2 of trajectories that reach the truth, and of the others,
        have a RAC of at most this."""
        return _share(self.reached, threshold), _share(self.missed, threshold)


def calibrate(paths: Sequence[ScoredPath], seed: int = 0) -> Calibration:
    """The distribution of RAC and the whole number of hops nearest to its mean, at least 1.

    Raises ValueError if no trajectory that reaches the truth has a turn with a RAC.
    """
    good = [path for path in paths if path.reached]
    values = tuple(value for path in good for value in path.rac)
    if not values:
        raise ValueError(
            f"none of {len(paths)} trajectories both reaches the truth (DTC 0 at its end) and has "
            f"a turn with a RAC"
        )
    low, high = _interval(good, seed)
    return Calibration(
        reached=values,
        missed=tuple(value for path in paths if path.reached is False for value in path.rac),
        threshold=float(max(1, int(np.floor(np.mean(values) + 0.5)))),
        low=low,
        high=high,
        cases=len({path.case_id for path in good}),
        paths=len(good),
        unknown=sum(path.unknown for path in good),
        unscorable=sum(path.reached is None for path in paths),
    )


def _interval(paths: Sequence[ScoredPath], seed: int) -> tuple[float | None, float | None]:
    by_case: dict[str, list[float]] = defaultdict(list)
    for path in paths:
        by_case[path.case_id] += path.rac
    sums, counts = (
        np.array([function(values) for values in by_case.values() if values])
        for function in (sum, len)
    )
    return interval(
        lambda cases: sums[cases].sum(axis=0) / counts[cases].sum(axis=0), len(sums), seed
    )


def _share(values: Sequence[float], threshold: float) -> float:
    return float(np.mean(np.array(values) <= threshold)) if values else float("nan")


def draw(found: Calibration, graph: str, path: Path) -> Path:
    """Draw the distributions with the proposal and the paper's 3 as a PNG at `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.add_subplot()
    top = int(np.ceil(max((*found.reached, *found.missed, found.threshold, 3.0)))) + 1
    edges = np.arange(0, top + 0.5, 0.5)
    for values, label, colour, shift in (
        (found.reached, "trajectories that reach the truth", "#2a6f97", 0.0),
        (found.missed, "that do not", "#c8553d", 0.25),
    ):
        if values:
            shares = np.histogram(values, bins=edges)[0] / len(values)
            axes.bar(
                edges[:-1] + shift,
                100 * shares,
                0.24,
                align="edge",
                color=colour,
                label=f"{label} ({len(values)} turns)",
            )
    axes.axvline(
        found.mean,
        color="#2a6f97",
        linestyle=":",
        label=f"mean {found.mean:.2f} ({found.low:.2f} to {found.high:.2f})",
    )
    axes.axvline(found.threshold, color="black", label=f"proposed threshold {found.threshold:g}")
    axes.set(
        xlabel=f"RAC in hops on {graph}", ylabel="% of turns from the second on", xlim=(0, top)
    )
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
