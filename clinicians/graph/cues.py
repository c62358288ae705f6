"""Words by which a clinical text says that something is past, doubtful, high or low.

They stand in data/cues.csv: what kind of cue, and the phrase. '*' at the end of a word stands for
any ending. Cues of denial are in medaction.words.negation.
"""

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from medaction.kg.tables import rows

DATA = Path(__file__).parent / "data"


@cache
def cue(kind: str) -> re.Pattern[str]:
    """A pattern that matches every phrase of this kind as whole words. Raises KeyError."""
    phrases = _phrases()[kind]
    words = "|".join(re.escape(phrase).replace(r"\*", r"\w*") for phrase in phrases)
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


@cache
def _phrases() -> dict[str, list[str]]:
    """Kind -> its phrases, the longest first, so that 'not detected' goes before 'not'."""
    phrases = defaultdict(list)
    for _, row in rows(DATA / "cues.csv", ["kind", "phrase"]):
        phrases[row["kind"]].append(row["phrase"])
    return {kind: sorted(words, key=len, reverse=True) for kind, words in phrases.items()}
