"""The graph clinician: a seeded Bayesian diagnostician over the open disease graph. It is no
language model.

A turn: read the findings of every source, update the hypotheses, order the tests that tell most
about them or commit, and say so in plain sentences. Thresholds were set on AgentClinic's cases
(benchmarks/graph_clinician.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from medaction.clinicians.graph import prose
from medaction.clinicians.graph.analytes import TABLES
from medaction.clinicians.graph.findings import name_of_key
from medaction.clinicians.graph.hypotheses import hypotheses
from medaction.clinicians.graph.model import Ranking, rank
from medaction.clinicians.graph.orders import Aim, tests_worth_ordering
from medaction.clinicians.graph.prose import in_a_sentence
from medaction.envs.loops import must_commit
from medaction.envs.reply import render
from medaction.envs.turns import Hypothesis, Observation, Style, Turn
from medaction.words.versions import constants_of, version_of

SURE: dict[Aim, float] = {"kg-screening": 0.97, "kg-targeted": 0.9}
"""Posterior of the leader at which the work-up ends. At 0.95 and 0.9, with at most four tests and
GOOD_ENOUGH 0.35, screening finds 0.50 of the documented tests, at these values 0.55."""

TESTS_IN_A_TURN: dict[Aim, int] = {"kg-screening": 5, "kg-targeted": 3}
"""At most; in some turns one less."""

GOOD_ENOUGH = 0.2
"""A test is ordered along with the best one if its score is at least this share of that one's. The
lower, the more documented tests are ordered, and the more that nobody documented."""

MOST_HYPOTHESES = 6
"""Lines of a differential: our choice, within the 8 that the reply's grammar allows."""


@cache
def graph_version() -> str:
    """The version of all data that decides a turn: constants and tables."""
    modules = [f"medaction.clinicians.graph.{file.stem}" for file in TABLES.parent.glob("*.py")]
    modules += ["medaction.kg.tables", "medaction.kg.tests_table"]
    return f"kg-{version_of([constants_of(*modules), sorted(TABLES.iterdir())])}"


class KgClinician:
    """Plays one style. Deterministic: the same observation, turns and seed give the same reply."""

    def __init__(self, aim: Aim):
        if aim not in SURE:
            raise ValueError(f"{aim!r} is no style of the graph clinician: {', '.join(SURE)}")
        self.aim: Aim = aim
        self.name: str = aim
        self.prompt_versions: Mapping[Style, str] = {"schema": graph_version()}

    async def decide(self, observation: Observation, seed: int) -> Turn:
        """The next turn: tests to order, or a final diagnosis once it is sure, at a loss, or at
        turn `t_max`.

        It writes in the schema only; raises ValueError for another style.
        """
        if observation.style not in self.prompt_versions:
            raise ValueError(f"{self.name} writes in the schema only, not {observation.style!r}")
        turns = observation.turns
        rng = np.random.default_rng([seed, len(turns)])
        ranking = rank(observation.initial_observation, turns)
        options = tests_worth_ordering(ranking, turns, self.aim, rng)
        end = ""
        # Never at the first turn, which must order something.
        if turns and ranking.chance >= SURE[self.aim]:
            end = "sure"
        elif not options or must_commit(turns, observation.t_max):
            end = "exhausted"
        # Now and then one less, so that rollouts of one case differ.
        most = 0 if end else TESTS_IN_A_TURN[self.aim] - int(rng.integers(2))
        good = (option for option in options if option.score >= GOOD_ENOUGH * options[0].score)
        orders = list(good)[:most]
        aims = [
            f"{in_a_sentence(test.entry.name)} (for {in_a_sentence(name_of_key(test.sign))})"
            for test in orders
        ]
        fields = {"tests": prose.listed(aims), **prose.names_of_leaders(ranking)}
        outlook = prose.sentence(end or self.aim, rng, **fields)
        names = [hypotheses()[at].name for at in ranking.order[:MOST_HYPOTHESES]]
        words = " ".join([*prose.reasoning(ranking, turns, rng), outlook])
        # Without orders the pivot is of what could have been ordered.
        question = prose.pivot(ranking, orders or options[:3], rng)
        tests, final = tuple(order.entry.name for order in orders), names[0] if end else None
        lines = _differential(ranking, names)
        turn = Turn(len(turns) + 1, words, lines, question, tests, final, raw="")
        return replace(turn, raw=render(turn))


def _differential(ranking: Ranking, names: Sequence[str]) -> tuple[Hypothesis, ...]:
    """Three to six hypotheses in whole percents: as many as it takes to cover nine tenths."""
    shares = np.exp(ranking.posteriors[-1][ranking.order[: len(names)]])
    # Three at least: RAC compares differentials, and one line has nothing to change.
    count = int(np.clip(1 + np.searchsorted(np.cumsum(shares), 0.9), 3, len(names)))
    # Never 0 or 100: whole percents of a belief.
    percents = np.clip(np.round(100 * shares[:count]), 1, 99)
    return tuple(Hypothesis(name, int(share)) for name, share in zip(names, percents, strict=False))
