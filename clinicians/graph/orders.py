"""Which tests to order: those whose results are expected to tell most about the leading hypotheses.

Each sign that a test can show is weighed by the information (nats) that it is expected to give
about the hypotheses; screening weighs all of them, targeted the leader against the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from medaction.clinicians.graph.cues import DATA
from medaction.clinicians.graph.findings import DISEASE, ancestors, key_of
from medaction.clinicians.graph.hypotheses import disease_names
from medaction.clinicians.graph.model import chances, load_model
from medaction.kg.tables import rows
from medaction.kg.tests_table import TestEntry, tests_table
from medaction.words.names import normalise

Style = Literal["kg-screening", "kg-targeted"]

EASE = {"routine": 2.0, "": 1.0, "special": 0.5}
"""Factor on a test's worth: what any hospital does on the day, and what is ordered on a particular
suspicion only. With 1.35 and 0.6, 3 of 100 documented tests fewer are ordered."""

CONFIRMS = {
    "laboratory": 0.5, "physiologic": 0.4, "imaging": 0.7, "procedure": 0.7, "pathology": 0.8,
}  # fmt: skip
ALSO_CONFIRMS = 0.02
"""P(a result names the disease that its test confirms): by category for patients with it; without
it per disease that the test is for. Routine measurements name none."""

CONSIDERED: dict[Style, int] = {"kg-screening": 20, "kg-targeted": 6}
"""Hypotheses that a choice is about."""

SIGNS_PER_TEST = 3
LEAST_INFORMATION = 0.02
"""Expected information (nats) below which a test is not worth ordering, after the first turn."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A test worth ordering, its score, and the keys of its telling findings, best first."""

    entry: TestEntry
    score: float
    signs: tuple[str, ...]


@cache
def _entries_by_name() -> dict[str, TestEntry]:
    return {normalise(name): entry for entry in tests_table() for name in entry.names}


def entry_of(name: str) -> TestEntry | None:
    """The table's test of this name or synonym."""
    return _entries_by_name().get(normalise(name))


@cache
def access() -> dict[str, str]:
    """Test -> 'routine' or 'special', for those that are either."""
    return {row["test"]: row["access"] for _, row in rows(DATA / "access.csv", ["test", "access"])}


@cache
def symptoms() -> frozenset[str]:
    """Normalised labels that tests.csv lists as what a test is ordered for: the patient shows them,
    the test does not."""
    return frozenset(map(normalise, (DATA / "symptoms.txt").read_text("utf-8").splitlines()))


@cache
def signs_of_tests() -> tuple[tuple[TestEntry, tuple[str, ...], tuple[str, ...]], ...]:
    """Every test with the keys of what it can show, and the diseases that its result can name."""
    signs = []
    for entry in tests_table():
        labels = [label for label in entry.finds if normalise(label) not in symptoms()]
        # 'Abnormal ...' is too general to be a result
        keys = [key_of(label) for label in labels if not label.startswith("Abnormal")]
        findings = tuple(dict.fromkeys(key for key in keys if not key.startswith(DISEASE)))
        names = (disease_names().get(normalise(name)) for name in entry.diseases)
        measures = findings and access().get(entry.name) == "routine"
        is_value = measures and entry.category in ("laboratory", "physiologic")
        diseases = () if is_value else tuple(sorted({name for name in names if name}))
        signs.append((entry, findings, diseases))
    return tuple(signs)


@cache
def _signs() -> tuple[dict[str, int], np.ndarray]:
    """Every finding that a test can show, as a row of P(finding | d), shape (F, D)."""
    keys = list(dict.fromkeys(key for _, findings, _ in signs_of_tests() for key in findings))
    shares = np.array([chances(key) for key in keys], dtype=np.float32)
    return {key: at for at, key in enumerate(keys)}, shares


def choices(
    log_posterior: np.ndarray,
    known: frozenset[str],
    answers: Mapping[str, bool],
    style: Style,
    rng: np.random.Generator,
) -> list[Choice]:
    """The tests worth ordering, best first, each once and none of those ordered before.

    `known`: keys of findings that are present or absent already, which no test has to show again.
    `answers`: order -> whether the record had a result; categories of tests that it documents are
    preferred.
    """
    model = load_model()
    entries = [(entry, had) for name, had in answers.items() if (entry := entry_of(name))]
    lines = {entry.line for entry, _ in entries}
    top = np.argsort(-log_posterior)[: CONSIDERED[style]]
    weights = np.exp(log_posterior[top] - log_posterior[top[0]])
    weights /= weights.sum()
    row_of, shares = _signs()
    information = _information(shares[:, top], weights)
    worth = information if style == "kg-screening" else _separation(shares[:, top], weights)
    settled = known.union(*map(ancestors, known))
    column = {model.diseases[at].name: place for place, at in enumerate(top)}
    luck = np.exp(0.2 * rng.gumbel(size=len(signs_of_tests())))
    options = []
    for (entry, findings, diseases), chance in zip(signs_of_tests(), luck, strict=True):
        if entry.line in lines:
            continue
        signs = [
            (float(worth[row]), float(information[row]), key)
            for key in findings
            if key not in settled and (row := row_of[key]) >= 0
        ]
        for name in diseases:
            if name in column and DISEASE + name not in settled:
                share = np.full((1, len(top)), min(0.3, ALSO_CONFIRMS * len(entry.diseases)))
                share[0, column[name]] = CONFIRMS[entry.category]
                value = float(_information(share, weights)[0])
                apart = value if style == "kg-screening" else float(_separation(share, weights)[0])
                signs.append((apart, value, DISEASE + name))
        signs = sorted(signs, reverse=True)[:SIGNS_PER_TEST]
        if sum(value for _, value, _ in signs) >= LEAST_INFORMATION:
            total = sum(value for value, _, _ in signs)
            best = total if style == "kg-screening" else signs[0][0] + 0.3 * total
            # Laplace's rule of succession: the chance that one more of this category is documented
            had = [had for other, had in entries if other.category == entry.category]
            documented = (1 + sum(had)) / (2 + len(had))
            score = best * EASE[access().get(entry.name, "")] * float(chance) * documented
            options.append(Choice(entry, score, tuple(key for _, _, key in signs)))
    return sorted(options, key=lambda choice: -choice.score)


def _information(shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mutual information (nats) of hypothesis and finding, for P(finding | hypothesis) of shape
    (S, K) and the hypotheses' weights (K,); shape (S,)."""

    def entropy(chance: np.ndarray) -> np.ndarray:
        return -chance * np.log(chance) - (1 - chance) * np.log(1 - chance)

    return np.asarray(entropy(shares @ weights) - entropy(shares) @ weights)


def _separation(shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How far a finding is expected to move the odds of the leader against the others: symmetric
    divergence (nats), shape (S,)."""
    leader, others = shares[:, 0], shares[:, 1:] @ weights[1:] / max(weights[1:].sum(), 1e-12)
    odds = np.log(leader / (1 - leader)) - np.log(others / (1 - others))
    return np.asarray((leader - others) * odds)
