"""Phrases in tables instead of regular expressions in code.

A table lists phrases, separated by ' | ' or line breaks. `*` stands for any letters of a word, `#`
for a number and a space for any gap; a plural in s counts too: 'x ray' is in 'X-rays'.
"""

import re
from functools import cache

IN_BRACKETS = re.compile(r"\s*\([^()]*\)")
"""What stands in round brackets, with the space before them; not brackets in brackets."""

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
    longest_first = sorted(phrases, key=lambda phrase: (-len(phrase), phrase))
    # `re` tries one alternative after another at every word, so those that begin with the same
    # letter make a group, which it leaves after that letter. Phrases of two letters cannot match at
    # the same place: the longest is still tried first. What begins with `*` or `#` may match where
    # others do, and keeps its place among them.
    groups: list[dict[str, list[str]]] = [{}]
    for phrase in longest_first:
        if phrase[0] in "*#":
            groups += [{phrase: [_regex(phrase)]}, {}]
        else:
            groups[-1].setdefault(phrase[0].casefold(), []).append(_regex(phrase))
    choices = [f"(?:{'|'.join(group)})" for part in groups for group in part.values()]
    return rf"(?:{'|'.join(choices)}){plural}"


def _regex(phrase: str) -> str:
    words = (re.escape(w).replace(r"\*", r"\w*").replace(r"\#", r"\d+") for w in phrase.split())
    return _GAP.join(words)
