"""Accuracy corrected for a judge's errors: what share is right, given the share that the judge
calls right, its sensitivity and its specificity (W. J. Rogan and B. Gladen, Am J Epidemiol 107,
1978: 71-76).

    true share = (share called right + specificity - 1) / (sensitivity + specificity - 1)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medaction.evaluation.judges import OFFLINE
from medaction.evaluation.scores import ScoreTable, mean_of_scored
from medaction.kg.bootstrap import RESAMPLES


@dataclass(frozen=True, slots=True)
class MeasuredJudge:
    """A judge beside a reference: of `right` answers it called `right_called` right, of `wrong`
    ones `wrong_called` wrong. `on` says on which answers."""

    right: int
    right_called: int
    wrong: int
    wrong_called: int
    on: str

    @property
    def sensitivity(self) -> float:
        return self.right_called / self.right

    @property
    def specificity(self) -> float:
        return self.wrong_called / self.wrong


MEASURED: Mapping[str, MeasuredJudge] = {
    f"{OFFLINE}@4d2296c0f3f4": MeasuredJudge(
        right=367,
        right_called=306,
        wrong=83,
        wrong_called=70,
        on="450 answers of three models to 150 MedR-Bench cases, in nested cross-validation by"
        " case, beside a GPT's verdicts (benchmarks/answers.py)",
    )
}
"""By the beginning of a judge's key: other rules are another judge, which has to be measured. A
language model that judges has no entry: nobody has measured yours."""


def measured_judge(key: str) -> MeasuredJudge | None:
    """What is known of the judge of a key (`medaction.evaluation.judges.judge_key`)."""
    # By the key's beginning: the hash of the graphs that follows changes no rule.
    return next((known for name, known in MEASURED.items() if key.startswith(name)), None)


@dataclass(frozen=True, slots=True)
class Corrected:
    """The corrected accuracy, 0 to 1, and its 95 % interval. None: nothing is scored."""

    accuracy: float | None
    low: float | None
    high: float | None


def corrected_accuracy(table: ScoreTable, judge: MeasuredJudge) -> Corrected:
    """Of a score table (`medaction.evaluation.scores.score_table`).

    The interval is a bootstrap over the cases and, because sensitivity and specificity are
    measured ones, over the answers that they were measured on. It is wide: that is what a judge
    costs.
    """
    verdicts = table["accuracy"]
    # Cases without any verdict are no evidence, and must not widen or narrow the interval.
    verdicts = verdicts[~np.isnan(verdicts).all(axis=1)]
    cases = len(verdicts)
    if not cases:
        return Corrected(None, None, None)
    called = _accuracy(verdicts)
    draw = np.random.default_rng(0)
    drawn = draw.integers(cases, size=(RESAMPLES, cases))
    # Drawn anew each time, since they were themselves measured on a few hundred answers.
    sensitivity = draw.binomial(judge.right, judge.sensitivity, RESAMPLES) / judge.right
    specificity = draw.binomial(judge.wrong, judge.specificity, RESAMPLES) / judge.wrong
    shares = np.array([_accuracy(verdicts[rows]) for rows in drawn])
    if called in (0.0, 1.0):
        # Resamples of equal cases are all equal. Jeffreys' interval of a share does not shrink to
        # a point (L. D. Brown, T. T. Cai and A. DasGupta, Stat Sci 16, 2001: 101-133).
        right = called * cases
        shares = draw.beta(right + 0.5, cases - right + 0.5, RESAMPLES)
    resampled = _rogan_gladen(shares, sensitivity, specificity)
    low, high = np.quantile(resampled, [0.025, 0.975])
    point = _rogan_gladen(
        np.array(called), np.array(judge.sensitivity), np.array(judge.specificity)
    )
    return Corrected(float(point), float(low), float(high))


def _accuracy(verdicts: np.ndarray) -> float:
    """Mean over the runs of the runs' shares, as the score table has it; shape (cases, runs)."""
    return float(mean_of_scored(mean_of_scored(verdicts)))


def _rogan_gladen(
    called: np.ndarray, sensitivity: np.ndarray, specificity: np.ndarray
) -> np.ndarray:
    """Shares outside of 0 to 1 are the nearest of the two."""
    return np.clip((called + specificity - 1) / (sensitivity + specificity - 1), 0.0, 1.0)
