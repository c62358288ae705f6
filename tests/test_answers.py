"""The cross-validation that measures the offline judge."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.answers import Example, cross_validated, measures
from medaction.evaluation.agreement import agreement

DRAW = np.random.default_rng(3)


def example(n: int, is_right: bool, weight: float = 1.0) -> Example:
    figures = DRAW.normal(1.0 if is_right else -1.0, 1.0, size=3)
    return Example(f"case{n // 3}", f"model{n % 3}", is_right, weight, figures, 0.0)


REAL = [example(n, n % 4 > 0) for n in range(60)]
ELSEWHERE = [replace(example(n, False, 0.4), case=REAL[n].case) for n in range(60)]


@pytest.mark.parametrize("leave_models_out", [False, True])
def test_the_verdicts_on_a_case_have_no_part_in_its_probabilities(leave_models_out: bool) -> None:
    before, _ = cross_validated(REAL, ELSEWHERE, leave_models_out)
    changed = [
        replace(row, is_right=not row.is_right) if row.case == "case7" else row for row in REAL
    ]
    after, _ = cross_validated(changed, ELSEWHERE, leave_models_out)
    own = np.array([row.case == "case7" for row in REAL])
    assert np.array_equal(before[own], after[own])
    assert not np.array_equal(before[~own], after[~own])
    assert (before > 0).all()  # each answer has its turn


def test_figures_that_tell_are_used_and_noise_is_not() -> None:
    right = np.array([row.is_right for row in REAL])
    _, verdicts = cross_validated(REAL, ELSEWHERE)
    assert (verdicts == right).mean() > 0.85
    noise = [replace(row, figures=DRAW.normal(size=3)) for row in REAL]
    _, verdicts = cross_validated(noise, [])
    assert abs(verdicts[right].mean() - verdicts[~right].mean()) < 0.35


def test_measures_are_those_of_the_other_modules() -> None:
    called, right = DRAW.random(80) < 0.6, DRAW.random(80) < 0.7
    cells = np.array([(called & right), (~called & right), (called & ~right), (~called & ~right)])
    sensitivity, specificity, gain, raw, alpha = measures(cells.sum(axis=1))
    agreed = agreement([called.tolist(), right.tolist()])
    assert (raw, alpha) == pytest.approx((agreed.raw, agreed.alpha))
    assert sensitivity == pytest.approx(called[right].mean())
    assert specificity == pytest.approx(1 - called[~right].mean())
    assert gain == pytest.approx(sensitivity + specificity - 1)
