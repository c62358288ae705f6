"""Scores: precision, recall and F1 of the tests that were asked for, accuracy of the diagnosis;
means over cases and runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medaction.kg.bootstrap import interval


@dataclass(frozen=True, slots=True)
class Score:
    """One trajectory's score. None: left out (`note` says why). `unreadable`: the model's reply
    could not be read, so that the score is about its form, not its content."""

    case_id: str
    run: int
    precision: float | None
    recall: float | None
    correct: bool | None
    note: str = ""
    unreadable: bool = False

    @property
    def f1(self) -> float | None:
        return (
            None
            if self.precision is None or self.recall is None
            else f1(self.precision, self.recall)
        )

    def values(self) -> dict[str, float | None]:
        """By name, as tables and tools take them."""
        return {
            "correct": None if self.correct is None else float(self.correct),
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }


def hit_share(hits: Sequence[bool]) -> float:
    """Hits among all; 0 for none, as the benchmark has it."""
    return sum(hits) / len(hits) if hits else 0.0


def f1(precision: float, recall: float) -> float:
    """Their harmonic mean; 0 when both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclass(frozen=True, slots=True)
class Measure:
    """A score over cases and runs.

    mean: mean over the runs of the runs' values. sd: standard deviation over the runs (n - 1); None
    with one run. low, high: 95 % bootstrap interval over cases. scored, unreadable, of:
    trajectories scored, those that ended with a reply that could not be read, and all that should
    have been scored.
    """

    name: str
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    scored: int
    of: int
    unreadable: int


MEASURES = ("precision", "recall", "f1_of_means", "mean_f1", "accuracy")
"""f1_of_means: F1 of mean precision and mean recall, which the paper's Table 2 holds; mean_f1: mean
of the F1 of the trajectories."""


def measures(scores: Sequence[Score], cases: Sequence[str], runs: int) -> list[Measure]:
    """All MEASURES over `cases` x `runs`; a pair without a score counts as not scored. Raises
    ValueError for a pair that is there twice."""
    table, chosen = score_table(scores, cases, runs), set(cases)
    unreadable = sum(
        score.unreadable for score in scores if score.case_id in chosen and score.run < runs
    )
    results = []
    for name in MEASURES:
        by_run = _by_run(table, name)
        scored_runs = by_run[~np.isnan(by_run)]
        mean = float(scored_runs.mean()) if scored_runs.size else None
        sd = float(scored_runs.std(ddof=1)) if scored_runs.size > 1 else None
        # F1 of means has no value a case: what is counted is the F1 of each.
        is_scored = ~np.isnan(table[_COLUMN[name]])

        def of_sample(rows: np.ndarray, name: str = name) -> np.ndarray:
            # F1 of means is not a mean of cases: each resample computes it anew.
            sample = {column: values[rows] for column, values in table.items()}
            return mean_of_scored(_by_run(sample, name), axis=-1)

        # Over cases, not rollouts: the runs of one case are no independent evidence.
        low, high = interval(of_sample, len(cases))
        if name == "accuracy" and mean in (0.0, 1.0):
            # All draws are alike: the bootstrap's interval is a point, however few the cases.
            low, high = wilson(mean, int(is_scored.any(axis=1).sum()))
        scored = int(is_scored.sum())
        results.append(Measure(name, mean, sd, low, high, scored, len(cases) * runs, unreadable))
    return results


Z_95 = 1.959964
"""The 97.5 % quantile of the normal distribution."""


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `n` independent cases (1927). 0 of 20: 0 to 0.161."""
    middle = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / (1 + Z_95**2 / n)
    # Rounding may pass 0 or 1 by a last bit.
    return max(0.0, middle - half), min(1.0, middle + half)


ScoreTable = dict[str, np.ndarray]
"""'precision', 'recall', 'f1' and 'accuracy' -> values, shape (cases, runs), NaN where not scored.
"""

_COLUMN = {name: name for name in ("precision", "recall", "accuracy")}
_COLUMN |= {"f1_of_means": "f1", "mean_f1": "f1"}


def score_table(scores: Sequence[Score], cases: Sequence[str], runs: int) -> ScoreTable:
    """The scores as arrays in the order of `cases`. Raises ValueError for a pair that is there
    twice."""
    row = {case_id: number for number, case_id in enumerate(cases)}
    table = {
        name: np.full((len(cases), runs), np.nan)
        for name in ("precision", "recall", "f1", "accuracy")
    }
    filled = set()
    for score in scores:
        if score.case_id not in row or score.run >= runs:  # a subset asks for its own
            continue
        place = (row[score.case_id], score.run)
        if place in filled:
            raise ValueError(f"case {score.case_id} has two scores of run {score.run}")
        filled.add(place)
        for name, value in score.values().items():
            column = table["accuracy" if name == "correct" else name]
            column[place] = math.nan if value is None else value
    return table


def _by_run(table: ScoreTable, name: str) -> np.ndarray:
    """The measure of each run, shape (runs,)."""
    if name == "f1_of_means":
        precision, recall = mean_of_scored(table["precision"]), mean_of_scored(table["recall"])
        total = precision + recall
        return np.divide(
            2 * precision * recall,
            total,
            # 0 where both are 0, unknown where one is unknown.
            out=np.where(np.isnan(total), np.nan, 0.0),
            where=total > 0,
        )
    return mean_of_scored(table[_COLUMN[name]])


def mean_of_scored(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """The mean of what is scored; NaN where nothing is."""
    is_scored = ~np.isnan(values)
    count = is_scored.sum(axis=axis)
    return np.divide(
        np.where(is_scored, values, 0.0).sum(axis=axis),
        count,
        out=np.full(count.shape, np.nan),
        where=count > 0,
    )
