"""The sentences and statements of clinical prose.

A line ends a sentence, as reports are lists as often as prose. pysbd was tried on 60 summaries of
MedR-Bench: it splits as this does (one of 903 apart), and takes 3.8 ms a 1,000 characters where
this takes 0.03; a report has up to 40,000.
"""

import re
from bisect import bisect_left

# A full stop needs a space behind it ('3.5'); '。' is written without one.
_END = re.compile(r"[.!?;](?=[)\]\"'”’]*\s)[)\]\"'”’]*\s+|[。！？；｡।]\s*|\n+")
_ABBREVIATIONS = (
    "dr. mr. mrs. ms. prof. st. vs. fig. figs. approx. ca. cf. e.g. i.e. sp. spp. incl."
)
"""A full stop in them ends no sentence."""
_BULLETS = " \t-*•·–"

LABEL = re.compile(r"\s*(?:[-*•]\s*)?(?:[A-Z][\w /&()'-]{1,45}:\s*)?")
"""The bullet and the label before a line: '- Chief Complaint: ' of '- Chief Complaint: pain'. It
matches every line, with nothing where there is neither."""


def sentences(text: str) -> list[str]:
    """The sentences of `text` in their own words and order, without bullets. What stands in
    brackets is not split.

    >>> sentences("CT (low dose. Plain) was normal. S. aureus grew; no fever.\\n- Dr. Lee agreed")
    ['CT (low dose. Plain) was normal.', 'S. aureus grew; no fever.', 'Dr. Lee agreed']
    """
    return _split(text, ".!?\n。！？｡।")


def statements(text: str) -> list[str]:
    """The same, where a semicolon ends a statement too.

    >>> statements("S. aureus grew; no fever.")
    ['S. aureus grew;', 'no fever.']
    """
    return _split(text, ".!?\n。！？｡।;；")


def split_outside_brackets(end: re.Pattern[str], text: str) -> list[str]:
    """`text` cut at the matches of `end` that stand in no brackets, as `end.split` would.

    One pass over the brackets: a lookahead for the next one takes a time that grows with the square
    of a text without any.

    >>> split_outside_brackets(re.compile(r"(?<=[;])\\s+"), "a; b (c; d); e")
    ['a;', 'b (c; d);', 'e']
    """
    brackets = [match.start() for match in re.finditer(r"[()]", text)]
    pieces, start = [], 0
    for match in end.finditer(text):
        following = bisect_left(brackets, match.end())
        if following == len(brackets) or text[brackets[following]] == "(":
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def _split(text: str, signs: str) -> list[str]:
    pieces, start = [], 0
    for end in _END.finditer(text):
        piece = text[start : end.end()].rstrip()
        # `_END` matches ';' too: `signs` says whether it counts here.
        if end[0][0] in signs and ("\n" in end[0] or _ends(piece, text[end.end() :])):
            pieces.append(piece)
            start = end.end()
    pieces.append(text[start:])
    return [piece for text in pieces if (piece := text.strip(_BULLETS + "\n\r"))]


def _ends(piece: str, following: str) -> bool:
    """Whether a sentence ends with `piece`, before `following`."""
    # A bracket that nobody closes holds no sentence open.
    if piece.count("(") > piece.count(")") and ")" in following:
        return False
    if not piece.endswith("."):
        return True
    word = piece.rsplit(maxsplit=1)[-1].lstrip("(")
    if len(word) == 2 and word[0].isupper():  # 'S. aureus', but 'hepatitis B. He ...'
        return not following[:1].islower()
    if word.casefold() in ("no.", "nos."):  # 'No. 3', but 'Fever: no. Cough: yes.'
        return not following[:1].isdigit()
    return word.casefold() not in _ABBREVIATIONS.split()
