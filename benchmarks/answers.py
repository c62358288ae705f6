"""The offline judge beside a GPT's and Gemma's verdicts on real answers: nested cross-validation,
and the fit.

Run as: python -m benchmarks.answers ANSWERS.jsonl (case_id, model, truth, answer, gpt, gemma a
line). Each answer is judged with coefficients and a threshold that its case had no part in: the
outer folds leave out a tenth of the cases, and with --models also the model that gave the answer;
the threshold is chosen by five inner folds of the other cases. What no fold leaves out are the
rules of `medaction.evaluation`: whoever wrote them had read these answers.

The last line has the coefficients and the threshold of all answers, for
`medaction.evaluation.diagnoses`.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from benchmarks.auc import auc, auc_interval
from medaction.envs.oracle import Encode
from medaction.evaluation.diagnoses import likeness
from medaction.evaluation.scores import hit_share
from medaction.kg.bootstrap import interval
from medaction.kg.encoder import load_encoder
from medaction.kg.linking import Linker
from medaction.trajectories.scoring import disease_linker

THRESHOLDS = np.arange(0.30, 0.96, 0.05).round(2)
OUTER, INNER = 10, 5

ELSEWHERE = 0.4
"""Weight in the fit of an answer that was given to another case, which is wrong and easy; a real
answer weighs 1. Chosen among (0.1, 0.2, 0.4) on 210 of the answers."""

RIDGE = 1.0
"""Penalty on the squares of the coefficients, of figures of mean 0 and deviation 1 (our choice)."""

MEASURES = ("sensitivity", "specificity", "their sum - 1", "agreement", "alpha")


@dataclass(frozen=True, slots=True)
class Example:
    """An answer in the fit. `figures` None: `probability` follows from a rule."""

    case: str
    model: str
    is_right: bool
    weight: float
    figures: np.ndarray | None
    probability: float


@dataclass(frozen=True, slots=True)
class Fit:
    """`coefficients` of the figures, then the constant; the `threshold` of probability from which
    an answer counts as right."""

    coefficients: np.ndarray
    threshold: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--models", action="store_true", help="leave the answer's model out, too")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.answers.read_text(encoding="utf-8").splitlines()]
    real, elsewhere = examples(rows, disease_linker(), load_encoder().encode)
    probabilities, verdicts = cross_validated(real, elsewhere, options.models)
    gpt, gemma = (np.array([row[judge] for row in rows]) for judge in ("gpt", "gemma"))
    cases = [row["case_id"] for row in rows]
    everywhere = np.ones(len(rows), dtype=bool)
    print(f"{len(rows)} answers to {len(set(cases))} cases; 95 % intervals over cases")
    print("| judge | beside | right | wrong | " + " | ".join(MEASURES) + " |")
    print("|---|---|---|---|" + "---|" * len(MEASURES))
    for judge, called, beside, truth, chosen in (
        ("offline", verdicts, "GPT", gpt, everywhere),
        ("offline", verdicts, "Gemma", gemma, everywhere),
        ("offline", verdicts, "both, where they agree", gpt, gpt == gemma),
        ("Gemma", gemma, "GPT", gpt, everywhere),
    ):
        cells = _cells(called, truth, chosen, cases)
        right, wrong = cells[:, :2].sum(), cells[:, 2:].sum()
        measured = " | ".join(
            f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in _measured(cells)
        )
        print(f"| {judge} | {beside} | {right} | {wrong} | {measured} |")
    _print_roc(probabilities, gpt, cases)
    fit = fitted([*real, *elsewhere])
    print("coefficients:", ", ".join(f"{value:.2f}" for value in fit.coefficients), end="; ")
    print(f"threshold {fit.threshold}")


def examples(
    rows: Sequence[dict[str, Any]], linker: Linker, encode: Encode
) -> tuple[list[Example], list[Example]]:
    """The answers with the GPT's verdicts, and each case's answers given to the next case."""
    cases = list(dict.fromkeys(row["case_id"] for row in rows))
    following = dict(zip(cases, [*cases[1:], cases[0]], strict=True))
    truths = {row["case_id"]: row["truth"] for row in rows}

    def example(row: dict[str, Any], case: str, is_right: bool, weight: float) -> Example:
        likely = likeness(row["answer"], [truths[case]], linker, encode)
        return Example(case, row["model"], is_right, weight, likely.figures, likely.probability)

    return (
        [example(row, row["case_id"], row["gpt"], 1.0) for row in rows],
        [example(row, following[row["case_id"]], False, ELSEWHERE) for row in rows],
    )


def cross_validated(
    real: Sequence[Example], elsewhere: Sequence[Example], leave_models_out: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The probability and the verdict for each real answer, by a fit without its case (and without
    its model). Shapes (answers,), (answers,)."""
    probabilities, verdicts = np.zeros(len(real)), np.zeros(len(real), dtype=bool)
    everything = [*real, *elsewhere]
    for fold in folds(everything, OUTER):
        for model in sorted({example.model for example in real}) if leave_models_out else [""]:
            others = [
                example
                for example in everything
                if example.case not in fold and example.model != model
            ]
            held_out = [
                n
                for n, example in enumerate(real)
                if example.case in fold and model in ("", example.model)
            ]
            fit = fitted(others)
            probabilities[held_out] = likely(fit.coefficients, [real[n] for n in held_out])
            verdicts[held_out] = probabilities[held_out] >= fit.threshold
    return probabilities, verdicts


def folds(chosen: Sequence[Example], count: int) -> Iterator[set[str]]:
    """Cases in `count` parts, by chance but always the same."""
    cases = np.array(sorted({example.case for example in chosen}))
    for places in np.array_split(np.random.default_rng(0).permutation(len(cases)), count):
        yield set(cases[places].tolist())


def fitted(chosen: Sequence[Example]) -> Fit:
    """Coefficients of all that is `chosen`, and the threshold at which the sum of sensitivity and
    specificity is highest in cross-validation within it.

    The variance of an accuracy corrected for the judge's errors goes with 1 / (sensitivity +
    specificity - 1) squared (Rogan and Gladen 1978), so there a score says most.
    """
    probabilities, is_right = [], []
    for fold in folds(chosen, INNER):
        coefficients = regression([example for example in chosen if example.case not in fold])
        # an answer to another case has weight in the fit alone: all of them are easy
        held_out = [example for example in chosen if example.case in fold and example.weight == 1]
        probabilities.append(likely(coefficients, held_out))
        is_right += [example.is_right for example in held_out]
    unseen, right = np.concatenate(probabilities), np.array(is_right)
    gains = [(unseen[right] >= at).mean() - (unseen[~right] >= at).mean() for at in THRESHOLDS]
    return Fit(regression(chosen), float(THRESHOLDS[int(np.argmax(gains))]))


def regression(chosen: Sequence[Example]) -> np.ndarray:
    """A logistic regression with a ridge, on the examples that no rule decides."""
    open_ones = [example for example in chosen if example.figures is not None]
    figures = np.array([example.figures for example in open_ones])
    signs = np.array([1.0 if example.is_right else -1.0 for example in open_ones])
    weights = np.array([example.weight for example in open_ones])
    mean, deviation = figures.mean(axis=0), figures.std(axis=0)
    scaled = (figures - mean) / deviation

    def loss(coefficients: np.ndarray) -> float:
        margins = signs * (scaled @ coefficients[:-1] + coefficients[-1])
        penalty = RIDGE / 2 * float(coefficients[:-1] @ coefficients[:-1])
        return float(weights @ np.logaddexp(0, -margins)) + penalty

    best = minimize(loss, np.zeros(figures.shape[1] + 1)).x
    slopes = best[:-1] / deviation
    return np.append(slopes, best[-1] - slopes @ mean)


def likely(coefficients: np.ndarray, chosen: Sequence[Example]) -> np.ndarray:
    return np.array(
        [
            example.probability
            if example.figures is None
            else 1 / (1 + np.exp(-(example.figures @ coefficients[:-1] + coefficients[-1])))
            for example in chosen
        ]
    )


def _cells(
    called: np.ndarray, truth: np.ndarray, chosen: np.ndarray, cases: Sequence[str]
) -> np.ndarray:
    """A row a case: how many answers are right and called so, right and not, wrong and called
    right, wrong and not. Shape (cases, 4)."""
    place = {case: n for n, case in enumerate(dict.fromkeys(cases))}
    cells = np.zeros((len(place), 4), dtype=int)
    for case, is_called, is_right, is_chosen in zip(cases, called, truth, chosen, strict=True):
        cells[place[case], (0 if is_right else 2) + (not is_called)] += is_chosen
    return cells


def measures(cells: np.ndarray) -> np.ndarray:
    """MEASURES of tables of verdicts, shape (..., 4) -> (..., 5). Alpha is Krippendorff's of two
    raters and no gap: 1 - disagreement / that of all verdicts mixed at random."""
    hit, miss, false, correct = np.moveaxis(cells.astype(float), -1, 0)
    sensitivity, specificity = hit / (hit + miss), correct / (false + correct)
    answers = hit + miss + false + correct
    right, wrong = 2 * hit + miss + false, 2 * correct + miss + false
    by_chance = 2 * right * wrong / (2 * answers * (2 * answers - 1))
    raw = (hit + correct) / answers
    alpha = 1 - (1 - raw) / by_chance
    return np.stack([sensitivity, specificity, sensitivity + specificity - 1, raw, alpha], axis=-1)


def _measured(cells: np.ndarray) -> Iterator[tuple[float, float | None, float | None]]:
    """Each measure with its bootstrap interval over cases."""
    for n, value in enumerate(measures(cells.sum(axis=0))):

        def statistic(positions: np.ndarray, n: int = n) -> np.ndarray:
            return measures(cells[positions].sum(axis=0))[..., n]

        yield (float(value), *interval(statistic, len(cells)))


def _print_roc(probabilities: np.ndarray, truth: np.ndarray, cases: Sequence[str]) -> None:
    groups: dict[str, list[tuple[float, bool]]] = {case: [] for case in cases}
    for case, probability, is_right in zip(cases, probabilities, truth, strict=True):
        groups[case].append((-probability, bool(is_right)))
    area = auc(-probabilities[truth], -probabilities[~truth])
    low, high = auc_interval(list(groups.values()))
    print(f"\noffline beside GPT: area under the curve {area:.3f} ({low:.3f} to {high:.3f})")
    print("| from | sensitivity | specificity |\n|---|---|---|")
    for threshold in THRESHOLDS:
        called = probabilities >= threshold
        right, wrong = hit_share(called[truth].tolist()), hit_share((~called[~truth]).tolist())
        print(f"| {threshold:.2f} | {right:.3f} | {wrong:.3f} |")


if __name__ == "__main__":
    main()
