"""Words by which a clinical text says that something is past, doubtful, high or low: data/cues.csv,
the kind of a cue and its phrase.

'*' at the end of a word stands for any ending. Cues of denial are in medaction.words.negation.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

from medaction.kg.tables import rows

TABLES = Path(__file__).parent / "data"
Word = TypeVar("Word")
Value = TypeVar("Value")


@cache
def cue(kind: str) -> re.Pattern[str]:
    """A pattern that matches every phrase of this kind as whole words, the longest first, so that
    'not detected' goes before 'not'."""
    table = rows(TABLES / "cues.csv", ["kind", "phrase"])
    phrases = sorted((row["phrase"] for _, row in table if row["kind"] == kind), key=len)
    words = "|".join(re.escape(phrase).replace(r"\*", r"\w*") for phrase in reversed(phrases))
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


def longest_matches(
    words: list[Word], longest: int, look_up: Callable[[list[Word]], Value | None]
) -> Iterator[tuple[int, int, Value]]:
    """(start, end, entry) of the phrases among the words, from left to right, the longest first at
    every word. `look_up` returns the entry of a run of words."""
    start = 0
    while start < len(words):
        for end in range(min(start + longest, len(words)), start, -1):
            entry = look_up(words[start:end])
            if entry is not None:
                yield start, end, entry
                start = end
                break
        else:
            start += 1
