"""Which tests to order: those whose results are expected to tell most about the leading hypotheses.

Each sign that a test can show is weighed by the information (nats) that it is expected to give
about the hypotheses; screening weighs all of them, targeted the leader against the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy.special import entr, softmax

from medaction.clinicians.graph.analytes import TABLES
from medaction.clinicians.graph.findings import key_of
from medaction.clinicians.graph.hypotheses import DISEASE, disease_names
from medaction.clinicians.graph.model import Ranking, chances
from medaction.envs.turns import Turn
from medaction.kg.tables import rows
from medaction.kg.tests_table import TestEntry, tests_by_name, tests_table
from medaction.words.names import normalise

Aim = Literal["kg-screening", "kg-targeted"]

EASE = {"routine": 2.0, "": 1.0, "special": 0.5}
"""Factor on a test's worth: what any hospital does on the day, and what is ordered on a particular
suspicion only. With 1.35 and 0.6, 3 of 100 documented tests fewer are ordered; without it 4 to 6
(AgentClinic, 104 cases, 2 seeds)."""

CONSIDERED = 20
"""Hypotheses that the tests are to tell apart: our choice. The more, the broader the tests; with 6
for targeted ones 2 to 3 of 100 documented tests fewer are ordered."""

WORTH_ORDERING = 0.02
"""Expected information (nats) below which a test is not worth ordering: our choice. The higher, the
sooner a work-up ends for want of tests."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A test worth ordering, its score, and the key of its most telling finding."""

    entry: TestEntry
    score: float
    sign: str


@cache
def access() -> dict[str, str]:
    """Test -> 'routine' or 'special', for those that are either."""
    table = rows(TABLES / "access.csv", ["test", "access"])
    return {row["test"]: row["access"] for _, row in table}


@cache
def _tests_and_signs() -> tuple[list[tuple[TestEntry, list[str]]], list[str], np.ndarray]:
    """Every test with the keys of what its result can show, and of the diseases that it can name;
    all of these keys, and P(sign | d) of each, shape (S, D)."""
    tests = []
    for entry in tests_table():
        # 'Abnormal ...' is too general to be a result
        keys = [key_of(label) for label in entry.finds if not label.startswith("Abnormal")]
        names = (disease_names().get(normalise(name)) for name in entry.diseases)
        keys += [DISEASE + name for name in names if name]
        tests.append((entry, list(dict.fromkeys(keys))))
    signs = list(dict.fromkeys(key for _, keys in tests for key in keys))
    return tests, signs, np.array([chances(key) for key in signs])


def tests_worth_ordering(
    ranking: Ranking, turns: Sequence[Turn], aim: Aim, rng: np.random.Generator
) -> list[Choice]:
    """The tests worth ordering, best first, each once and none of those ordered before; categories
    of tests that the record documents are preferred. What is present or absent already no test has
    to show again. A first turn has something to order, however sure the history makes it: a
    diagnosis that no test confirmed is a guess, and a trajectory of one turn is discarded (section
    3.3)."""
    least = WORTH_ORDERING if turns else 0.0
    # Orders first, answers over them: an order without an answer had no result.
    has_result = {name: False for turn in turns for name in turn.tests}
    has_result |= {answer.order: bool(answer.results) for turn in turns for answer in turn.answers}
    entries = {name: tests_by_name().get(normalise(name)) for name in has_result}
    orders = [(entry, has_result[name]) for name, entry in entries.items() if entry]
    log_posterior = ranking.posteriors[-1]
    # Among so many leaders only: all diseases would drown the few that matter.
    top = np.argsort(-log_posterior)[:CONSIDERED]
    tests, keys, shares = _tests_and_signs()
    nats = _mutual_information(shares[:, top], softmax(log_posterior[top]))
    information = dict(zip(keys, nats, strict=True))
    settled = {finding.key for finding in ranking.findings}
    # Gumbel noise on the score: the best test is usually chosen, but not always.
    luck = np.exp(0.2 * rng.gumbel(size=len(tests)))
    options = []
    for (entry, shown), chance in zip(tests, luck, strict=True):
        open_keys = (key for key in shown if key not in settled)
        signs = sorted(open_keys, key=information.__getitem__, reverse=True)
        # By line of the table: two names of one test are one.
        is_new = all(entry.line != order.line for order, _ in orders)
        total = sum(information[key] for key in signs)
        if is_new and signs and total >= least:
            # Screening wants a test that tells much in all, targeted one that decides.
            best = total if aim == "kg-screening" else information[signs[0]]
            # Laplace's rule of succession: the chance that one more of this category is documented
            had = [had for order, had in orders if order.category == entry.category]
            documented = (1 + sum(had)) / (2 + len(had))
            score = best * EASE[access().get(entry.name, "")] * chance * documented
            options.append(Choice(entry, float(score), signs[0]))
    return sorted(options, key=lambda choice: -choice.score)


def _mutual_information(shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mutual information (nats) of hypothesis and sign, for P(sign | hypothesis) of shape (S, K)
    and the hypotheses' weights (K,); shape (S,)."""
    mean = shares @ weights
    return entr(mean) + entr(1 - mean) - (entr(shares) + entr(1 - shares)) @ weights
