"""How probably a stated diagnosis is the true one: a logistic regression on five figures.

Words weigh by how rare they are among the names of the disease graph. The coefficients were fitted
to a GPT's verdicts on the development half of real answers (benchmarks/answers.py has the split),
with answers to other cases and lists of diagnoses added as wrong.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from medaction.evaluation.claims import BRACKETS, LINK, MOST_CLAIMS, claims
from medaction.kg.linking import Linker

COEFFICIENTS = np.array([-0.59, 2.08, 2.59, 2.34, -1.11, -1.25])
"""Of `figures`, then the constant."""

THRESHOLD = 0.6
"""Probability from which a diagnosis counts as the true one: of 0.45 to 0.7 the one with the
highest alpha in a ten-fold cross-validation by case (development half), for these figures and
together with the rules of `same_diagnosis`. None of these thresholds reached a specificity of 0.9
there (docs/evaluation.md)."""

FOREIGN = 0.3
"""A claim of which the truth has less than this share of the words is about something else."""

Words = frozenset[str]
Encode = Callable[[list[str]], np.ndarray]


@lru_cache(maxsize=4)
def word_weights(linker: Linker) -> Callable[[Words], float]:
    """The weight of a set of words: each 1 in one name of the graph, towards 0 in all; 0.5 for a
    word that no name has."""
    names = list(linker.name_words())
    counts = Counter(word for words in names for word in words)
    most = math.log(len(names) + 1)
    weights = {word: 1 - math.log(count + 1) / most for word, count in counts.items()}
    return lambda words: sum(weights.get(word, 0.5) for word in words)


def figures(
    statement: str,
    names: Sequence[str],
    linker: Linker,
    encode: Encode,
    words_of: Callable[[str], Words],
    shared: Callable[[Words, Words], Words],
) -> np.ndarray | None:
    """Five figures of a statement beside the names of a truth; None for a statement without claims.

    In order: the share of the best name's words that the statement has, and that its first claim
    has; the highest cosine of a claim and a name or part of it; the share of the statement's words
    that the truth has; log(1 + claims about something else).
    """
    parts = claims(statement)[: MOST_CLAIMS + 2]
    if not parts or not names:
        return None
    weigh = word_weights(linker)

    def share(words: Words, others: Words) -> float:
        return weigh(shared(words, others)) / weigh(words) if words else 0.0

    stated = frozenset().union(*map(words_of, parts))
    true = frozenset().union(*map(words_of, names))
    first = words_of(parts[1] if len(parts) > 1 else parts[0])
    pieces = [
        piece.strip(" .,")
        for piece in LINK.split(BRACKETS.sub(" ", names[0]))
        if len(piece.strip()) > 3
    ]
    vectors = encode([*parts, *names[:6], *pieces])
    cosines = vectors[: len(parts)] @ vectors[len(parts) :].T
    foreign = sum(
        weigh(words) > 0.4 and share(words, true) < FOREIGN for words in map(words_of, parts[1:])
    )
    return np.array(
        [
            max(share(words_of(name), stated) for name in names),
            max(share(words_of(name), first) for name in names),
            float(cosines.max()),
            share(stated, true),
            math.log1p(foreign),
        ]
    )


def likelihood(row: np.ndarray | None) -> float:
    """The probability for figures; 0 for none."""
    if row is None:
        return 0.0
    return float(1 / (1 + math.exp(-(row @ COEFFICIENTS[:-1] + COEFFICIENTS[-1]))))
