"""What a policy gets that orders the same tests for every patient: the floor of precision, recall
and F1. A score near it says nothing about the patient.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medaction.envs.make_oracle import oracle_of
from medaction.envs.naming import profile
from medaction.envs.records import ClinicalEnvironment
from medaction.evaluation.scores import f1

CANDIDATES = 30
"""Names of tests that are tried, the most frequent of the menus (our choice)."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The best constant orders found, and what they score: means over the cases."""

    orders: tuple[str, ...]
    precision: float
    recall: float
    f1_of_means: float


def constant_orders(environments: Sequence[ClinicalEnvironment]) -> Floor:
    """The constant orders with the highest F1 of mean precision and mean recall, built test by test
    on the cases themselves: more than any policy can know beforehand, so a generous floor."""
    # Recall of a case without documented tests is 0 for everyone, and would lower the floor.
    with_tests = [environment for environment in environments if environment.menu]
    if not with_tests:
        return Floor((), 0.0, 0.0, 0.0)
    readings = [
        # By the test, not its wording: 'CBC' and 'full blood count' are one candidate.
        {profile(test.name).canonical or profile(test.name).text for test in environment.menu}
        for environment in with_tests
    ]
    counts = Counter(name for names in readings for name in names if name)
    # Names of the same count in the order of the alphabet, so that a result can be made again.
    names = sorted(counts, key=lambda name: (-counts[name], name))[:CANDIDATES]
    hit, covered = _hits(with_tests, names)
    sizes = np.array([len(environment.menu) for environment in with_tests])
    best = Floor((), 0.0, 0.0, 0.0)
    orders: list[int] = []
    while len(orders) < len(names):
        floors = [
            (_floor([*orders, more], names, hit, covered, sizes), more)
            for more in range(len(names))
            if more not in orders
        ]
        floor, more = max(floors, key=lambda pair: pair[0].f1_of_means)
        if floor.f1_of_means <= best.f1_of_means:  # one more test costs more than it brings
            break
        best, orders = floor, [*orders, more]
    return best


def _hits(
    environments: Sequence[ClinicalEnvironment], names: Sequence[str]
) -> tuple[np.ndarray, list[list[set[int]]]]:
    """Whether case i documents order j, shape (cases, names); and the menu's entries it covers."""
    covered = []
    for environment in environments:
        oracle = oracle_of(environment)
        covered.append(
            [{entry for match in oracle.matches(name) for entry in match.entries} for name in names]
        )
    return np.array([[bool(entries) for entries in row] for row in covered]), covered


def _floor(
    orders: Sequence[int],
    names: Sequence[str],
    hit: np.ndarray,
    covered: Sequence[Sequence[set[int]]],
    sizes: np.ndarray,
) -> Floor:
    precision = float(hit[:, orders].mean())
    counts = [len(set().union(*(row[order] for order in orders))) for row in covered]
    recall = float((np.array(counts) / sizes).mean())
    return Floor(tuple(names[o] for o in orders), precision, recall, f1(precision, recall))
