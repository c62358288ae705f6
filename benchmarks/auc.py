"""How well a distance tells two kinds of pairs apart."""

from collections.abc import Sequence

import numpy as np

from medaction.kg.bootstrap import interval


def auc(near: Sequence[float], far: Sequence[float]) -> float:
    """The share of (near, far) combinations in which the first is smaller, ties counted as half."""
    a, b = np.array(near)[:, None], np.array(far)[None, :]
    return float(((a < b) + 0.5 * (a == b)).mean())


def auc_interval(
    groups: Sequence[Sequence[tuple[float, bool]]],
) -> tuple[float | None, float | None]:
    """The 95 % bootstrap interval of the AUC over groups of (distance, whether it should be near):
    what belongs together, a run or all pairs of one disorder, is drawn together."""

    def statistic(positions: np.ndarray) -> np.ndarray:
        return np.array([resampled(column) for column in positions.T])

    def resampled(column: np.ndarray) -> float:
        rows = [row for at in column for row in groups[at]]
        near, far = (
            [value for value, is_near in rows if is_near is kind] for kind in (True, False)
        )
        return auc(near, far) if near and far else np.nan

    return interval(statistic, len(groups))
