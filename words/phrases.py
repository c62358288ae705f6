"""Phrases in tables instead of regular expressions in code.

A table lists phrases, separated by ' | ' or line breaks. `*` stands for any letters of a word, `#`
for a number and a space for any gap; a plural in s counts too: 'x ray' is in 'X-rays'.
"""

import re
from functools import cache
from itertools import groupby

IN_BRACKETS = re.compile(r"\s*\([^()]*\)")
"""What stands in round brackets, with the space before them; not brackets in brackets."""

# 'x ray' is 'x-ray', 'x_ray' and 'X/ray'.
_GAP = r"[\s_'’/-]+"


@cache
def phrase_pattern(table: str) -> re.Pattern[str]:
    """A pattern that matches any phrase of `table`, the longest first, as words of their own.

    >>> bool(phrase_pattern("ct | computed tomogra*").search("Computed  tomography of the chest"))
    True
    >>> bool(phrase_pattern("ct | computed tomogra*").search("act"))
    False
    """
    return re.compile(rf"\b{phrase_regex(table)}\b", re.IGNORECASE)


def phrase_regex(table: str, plural: str = "s?") -> str:
    """The same as a part of a larger regular expression, without the borders of words."""
    phrases = {phrase.strip() for line in table.splitlines() for phrase in line.split("|")} - {""}
    # `re` takes the first alternative that fits: 'ct' would hide 'ct angiography'.
    longest_first = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    phrases_in_order = (" ".join(phrase.split()) for phrase in longest_first)
    # What begins with `*` or `#` may match where others do, and keeps its place among them.
    runs = groupby(phrases_in_order, key=lambda phrase: phrase[0] in "*#")
    return rf"(?:{'|'.join(_either(list(run)) for _, run in runs)}){plural}"


def _either(phrases: list[str]) -> str:
    """Any of the phrases, the first ones preferred. Those that begin with one letter stand
    together, so that `re` tries a letter and not a thousand phrases: of 343 summaries
    `named_tests` took 1.5 s of CPU without, and 0.4 s with it. Capitals are not grouped, since case
    may count or not."""
    letters = sorted({phrase[:1] for phrase in phrases})
    if len(phrases) < 2 or not all(re.fullmatch("[a-z0-9]", letter) for letter in letters):
        return "|".join(map(_regex, phrases))
    groups = ((letter, [p[1:] for p in phrases if p[0] == letter]) for letter in letters)
    return "|".join(f"{letter}(?:{_either(group)})" for letter, group in groups)


def _regex(phrase: str) -> str:
    # `re.escape` has put a backslash before the table's own signs.
    words = (
        re.escape(word).replace(r"\*", r"\w*").replace(r"\#", r"\d+") for word in phrase.split(" ")
    )
    return _GAP.join(words)
