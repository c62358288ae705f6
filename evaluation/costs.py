"""What ordered tests would cost, and how invasive they are.

data/test_prices.csv: of common laboratory tests the national limit of the US Medicare Clinical
Laboratory Fee Schedule (CLFS, unchanged since 2020; its code stands in the table), from memory and
to be checked before a figure is published; of all other tests a round sum for the modality, which
is ours. Professional fees, a second contrast phase and what a hospital really charges are not in
it: compare models with it, do not bill.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from medaction.envs.naming import profile
from medaction.envs.orders import single_tests


@dataclass(frozen=True, slots=True)
class Price:
    """usd: dollars a test. invasiveness: 0 nothing enters the body, 1 a needle in a vein,
    2 ionising radiation, 3 a procedure."""

    usd: float
    invasiveness: int


PROCEDURE = 3
"""The most invasive class: something more than a needle in a vein enters the body."""

UNKNOWN_TEST = Price(20.0, 1)
"""A test that the table does not know is taken for one more tube of blood."""


def price_of(test: str) -> Price:
    """The price of a single test: by its name, else the dearest of its modalities.

    >>> price_of("CBC").usd, price_of("liver biopsy").invasiveness, price_of("serum IgG4").usd
    (7.77, 3, 20.0)
    """
    reading, prices = profile(test), _price_table()
    if price := prices.get(("test", reading.canonical or "")):  # '' is no test's name
        return price
    known = [prices["modality", kind] for kind in reading.kinds if ("modality", kind) in prices]
    # The dearest: 'CT-guided biopsy' is a biopsy, and not a CT.
    return max(known, key=lambda price: price.usd, default=UNKNOWN_TEST)


def cost_of(orders: Iterable[str]) -> float:
    """Dollars of the tests that orders name, each once: a repeated one costs once only where it is
    written alike."""
    return sum(price_of(test).usd for test in single_tests(orders))


def usd_a_case(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean dollars of a result's rows; None where nothing was played."""
    # Of what was played: a rollout that failed cost nothing, and would look cheap.
    played = [row["usd"] for row in rows if row["trajectory_id"]]
    return sum(played) / len(played) if played else None


def accuracy_by_cost(rollouts: Sequence[tuple[float, bool]]) -> list[tuple[float, float]]:
    """(dollars, share of all rollouts that are right and cost at most that) at each tenth of the
    costs. `rollouts`: (dollars, whether the diagnosis is right)."""
    costs = sorted(cost for cost, _ in rollouts)
    limits = [costs[(len(costs) - 1) * tenth // 10] for tenth in range(1, 11)] if costs else []
    return [
        (limit, sum(right for cost, right in rollouts if cost <= limit) / len(rollouts))
        # Many rollouts cost the same: equal limits are one point.
        for limit in dict.fromkeys(limits)
    ]


@cache
def _price_table() -> dict[tuple[str, str], Price]:
    text = files("medaction.evaluation").joinpath("data", "test_prices.csv").read_text("utf-8")
    return {
        (row["kind"], row["name"]): Price(float(row["usd"]), int(row["invasiveness"]))
        for row in csv.DictReader(text.splitlines())
    }
