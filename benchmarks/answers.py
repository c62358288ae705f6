"""The offline judge beside a GPT's and Gemma's verdicts on real answers, on cases that it was not
fitted to; and the fit.

Run as: python -m benchmarks.answers ANSWERS.jsonl (case_id, truth, answer, gpt, gemma a line)
[--fit]. Cases are split by the first byte of the SHA-256 of their id: even ones are for
development. --fit prints coefficients for `medaction.evaluation.diagnoses`, and what ten-fold
cross-validation by case says of them.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from medaction.envs.oracle import Encode
from medaction.evaluation.agreement import agreement
from medaction.evaluation.diagnoses import LIKELY, Likeness, likeness
from medaction.evaluation.scores import share
from medaction.kg.encoder import load_encoder
from medaction.kg.linking import Linker
from medaction.trajectories.scoring import disease_linker

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FOLDS = 10

WRONG, ELSEWHERE = 1.5, 0.4
"""Weights in the fit, a right answer being 1: of a wrong answer, and of one that was given to
another case, which is wrong and easy. Chosen by cross-validation on the development half among
(1, 1.5, 2, 3) and (0.1, 0.2, 0.4)."""

RIDGE = 1.0
"""Penalty on the squares of the coefficients, of figures of mean 0 and deviation 1 (our choice)."""


@dataclass(frozen=True, slots=True)
class Example:
    """An answer in the fit. `figures` None: `probability` follows from a rule."""

    case: str
    right: bool
    weight: float
    figures: np.ndarray | None
    probability: float


def half(case_id: str) -> str:
    """'development' or 'test'."""
    return "test" if hashlib.sha256(case_id.encode()).digest()[0] % 2 else "development"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--half", default="test", choices=("test", "development"))
    parser.add_argument("--fit", action="store_true", help="on the development half")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.answers.read_text(encoding="utf-8").splitlines()]
    linker, encode = disease_linker(), load_encoder().encode
    if options.fit:
        rows = [row for row in rows if half(row["case_id"]) == "development"]
        _print_fit(examples(rows, linker, encode), rows)
        return
    rows = [row for row in rows if half(row["case_id"]) == options.half]
    likely = [likeness(row["answer"], [row["truth"]], linker, encode) for row in rows]
    print(f"{options.half}, {len(rows)} answers")
    _print_rates([answer.probability for answer in likely], rows, [LIKELY])
    beside = agreement([[row["gemma"] for row in rows], [row["gpt"] for row in rows]])
    print(f"Gemma beside the GPT: raw {beside.raw:.3f}, alpha {beside.alpha:.3f}")


def examples(rows: Sequence[dict[str, Any]], linker: Linker, encode: Encode) -> list[Example]:
    """The answers with the GPT's verdicts, then each case's answers given to the next case."""
    cases = list(dict.fromkeys(row["case_id"] for row in rows))
    following = dict(zip(cases, [*cases[1:], cases[0]], strict=True))
    truths = {row["case_id"]: row["truth"] for row in rows}

    def example(row: dict[str, Any], case: str, right: bool, weight: float) -> Example:
        answer: Likeness = likeness(row["answer"], [truths[case]], linker, encode)
        return Example(case, right, weight, answer.figures, answer.probability)

    real = [example(row, row["case_id"], row["gpt"], 1.0 if row["gpt"] else WRONG) for row in rows]
    return real + [example(row, following[row["case_id"]], False, ELSEWHERE) for row in rows]


def fitted(chosen: Sequence[Example]) -> np.ndarray:
    """Coefficients of the figures, then the constant: a logistic regression with a ridge, on the
    examples that no rule decides."""
    open_ones = [example for example in chosen if example.figures is not None]
    figures = np.array([example.figures for example in open_ones])
    signs = np.array([1.0 if example.right else -1.0 for example in open_ones])
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


def probabilities(coefficients: np.ndarray, chosen: Sequence[Example]) -> list[float]:
    return [
        example.probability
        if example.figures is None
        else float(1 / (1 + np.exp(-(example.figures @ coefficients[:-1] + coefficients[-1]))))
        for example in chosen
    ]


def _print_fit(chosen: Sequence[Example], rows: Sequence[dict[str, Any]]) -> None:
    cases = sorted({example.case for example in chosen})
    place = np.random.default_rng(0).permutation(len(cases)) % FOLDS
    folds = dict(zip(cases, place, strict=True))
    unseen = [0.0] * len(chosen)
    for fold in range(FOLDS):
        coefficients = fitted([example for example in chosen if folds[example.case] != fold])
        held_out = [n for n, example in enumerate(chosen) if folds[example.case] == fold]
        for n, value in zip(
            held_out, probabilities(coefficients, [chosen[n] for n in held_out]), strict=True
        ):
            unseen[n] = value
    print(f"cross-validation, {FOLDS} folds by case")
    _print_rates(unseen[: len(rows)], rows, THRESHOLDS)
    elsewhere = share([value >= LIKELY for value in unseen[len(rows) :]])
    print(f"answers to another case that count as right: {elsewhere:.3f}")
    print("coefficients:", ", ".join(f"{value:.2f}" for value in fitted(chosen)))


def _print_rates(
    likely: Sequence[float], rows: Sequence[dict[str, Any]], thresholds: Sequence[float]
) -> None:
    for threshold in thresholds:
        verdicts = [probability >= threshold for probability in likely]
        for judge in ("gpt", "gemma"):
            agreed = agreement([verdicts, [row[judge] for row in rows]])
            right = [verdict for verdict, row in zip(verdicts, rows, strict=True) if row[judge]]
            wrong = [not v for v, row in zip(verdicts, rows, strict=True) if not row[judge]]
            print(
                f"from {threshold}, beside {judge}: raw {agreed.raw:.3f}, alpha {agreed.alpha:.3f},"
                f" sensitivity {share(right):.3f} of {len(right)},"
                f" specificity {share(wrong):.3f} of {len(wrong)}"
            )


if __name__ == "__main__":
    main()
