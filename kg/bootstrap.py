"""One bootstrap for all intervals: cases are drawn with replacement, each with all that belongs to
it, because the trajectories of one case share turns and are not independent."""

import warnings
from collections.abc import Callable

import numpy as np

RESAMPLES = 2000
"""Enough for the two quantiles to move by less than a tenth of the interval from seed to seed."""


def interval(
    statistic: Callable[[np.ndarray], np.ndarray], cases: int
) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of a statistic over `cases` cases.

    `statistic` takes the positions of the cases drawn, shape (cases, resamples), and returns one
    value a resample, shape (resamples,), NaN where it has none; these are left out. (None, None)
    for fewer than two cases, or where no resample has a value.
    """
    if cases < 2:
        return None, None
    # Takes longer to import than all of this package's ground.
    from scipy.stats import DegenerateDataWarning, bootstrap

    # Positions are drawn, not values: a statistic may need several numbers of each case.
    with warnings.catch_warnings():
        # Of scipy's own interval, which resamples without a value spoil, and which is not used.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        resampled = bootstrap(
            (np.arange(cases),),
            lambda positions, axis: statistic(np.moveaxis(positions, axis, 0)),
            n_resamples=RESAMPLES,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(0),  # the same interval each time a report is made
        ).bootstrap_distribution
    values = resampled[~np.isnan(resampled)]
    if not values.size:
        return None, None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
