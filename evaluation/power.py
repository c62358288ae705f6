"""What an experiment can tell apart, said before it runs: the power of a paired comparison of two
models over the same cases.

The difference of two models on a case varies between cases, and on the same case from run to run
and seed to seed. With K runs and seeds of each, its variance is w² + (s_A² + s_B²) / K, w² between
cases and s² within one (Miller 2024, "Adding error bars to evals", arXiv 2411.00640, section 5).
"""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, t

ALPHA = 0.05
POWER = 0.8
"""Share of true differences of this size that a test finds: Cohen's convention (1988)."""
SCORE_VARIANCE_BETWEEN = 1 / 3
"""w, and SCORE_VARIANCE_WITHIN s², as Miller's example takes them for scores between 0 and 1 before
any are known: for answers that are right or wrong s² is at most 1/4."""
SCORE_VARIANCE_WITHIN = 1 / 6


def sd_of_difference(replays: int) -> float:
    """Of a case's difference, each model with the mean over `replays` runs and seeds."""
    return math.sqrt(SCORE_VARIANCE_BETWEEN**2 + 2 * SCORE_VARIANCE_WITHIN / replays)


def paired_power(difference: float, sd: float, cases: int) -> float:
    """The chance that a two-sided paired t-test at ALPHA finds a mean difference over so many cases
    (Cohen 1988, chapter 2, by the noncentral t distribution)."""
    freedom = cases - 1
    # The noncentrality: the true difference in standard errors.
    shift = difference / sd * math.sqrt(cases)
    edge = t.ppf(1 - ALPHA / 2, freedom)
    # The far tail is no number where it is too small to be told from 0.
    return float(nct.sf(edge, freedom, shift) + np.nan_to_num(nct.cdf(-edge, freedom, shift)))


def detectable(sd: float, cases: int) -> float:
    """The smallest mean difference that is found with this POWER. Raises ValueError for fewer than
    two cases."""
    if cases < 2:
        raise ValueError(f"{cases} cases: a difference needs two at least")
    # With two cases, where t is widest, 17 standard errors are needed.
    highest = 30 * sd / math.sqrt(cases)
    return float(brentq(lambda size: paired_power(size, sd, cases) - POWER, 1e-9, highest))
