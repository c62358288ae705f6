"""Rollouts that go in circles: turns that order only what was ordered before, and when a diagnosis
is demanded for it."""

import re
from collections.abc import Sequence
from functools import lru_cache

from medaction.envs.turns import Turn

LOOP = 2
"""After so many turns in a row that brought nothing new, the next turn is the last: it can only
commit to a diagnosis."""


def turns_without_news(turns: Sequence[Turn]) -> int:
    """How many of the last turns, in a row, ordered only what was ordered before.

    An ordered test is not new when an earlier turn ordered one of the same name (case, spaces and
    punctuation aside), or when the record's entries that answer it had all been returned before. A
    test that is UNAVAILABLE for the first time is new.
    """
    count = 0
    for repeated in repeated_orders(turns):
        # A turn without orders breaks the row: it asked for nothing in vain.
        count = count + 1 if repeated and all(repeated) else 0
    return count


def repeated_orders(turns: Sequence[Turn]) -> list[list[bool]]:
    """Of every turn's orders, whether they are not new, as `turns_without_news` says."""
    earlier: set[object] = set()
    flags = []
    for turn in turns:
        flags.append(
            [
                _name(answer.order) in earlier
                # Another name of a test brings the same entries again.
                or bool(answer.results and earlier.issuperset(answer.results))
                for answer in turn.answers
            ]
        )
        # After the whole turn: twice in one turn is no circle of turns.
        earlier.update(_name(answer.order) for answer in turn.answers)
        earlier.update(result for answer in turn.answers for result in answer.results)
    return flags


def must_commit(turns: Sequence[Turn], t_max: int) -> bool:
    """Whether the turn after `turns` can only commit to a diagnosis: it is turn `t_max`, or the
    rollout goes in circles."""
    return len(turns) + 1 >= t_max or turns_without_news(turns) >= LOOP


@lru_cache(maxsize=10_000)  # of all earlier orders, several times a turn
def _name(order: str) -> str:
    return " ".join(re.findall(r"\w+", order.casefold()))
