"""A lint for what should have been taken out of a report before it came here: traces of a person.

It looks for nine of the eighteen identifiers of HIPAA's safe harbour (45 CFR 164.514(b)(2)), by
their form alone. It removes nothing and proves nothing: a report without a finding can still name
its patient. De-identify with a tool made for it (docs/deidentification.md), then look here for what
it left.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_YEAR = r"(?:19|20)\d\d"
_DATE = (
    rf"(?:{_YEAR}-\d\d-\d\d|{_DAY}[./-]\s?(?:0?[1-9]|1[0-2])[./-]\s?{_YEAR}"
    rf"|(?:0?[1-9]|1[0-2])/{_DAY}/{_YEAR}|{_DAY}(?:st|nd|rd|th)? {_MONTH},? {_YEAR}"
    rf"|{_MONTH} {_DAY}(?:st|nd|rd|th)?,? {_YEAR})"
)

IDENTIFIER_FORMS: dict[str, re.Pattern[str]] = {
    "date of birth": re.compile(
        rf"(?:\bborn(?: on)?|\bd\.?o\.?b\b\.?|\bdate of birth|\bgeb\.)[\s:,]{{0,3}}{_DATE}", re.I
    ),
    "date with its day": re.compile(rf"(?<![\d.-]){_DATE}(?![\d-])"),
    # Ages over 89 are identifiers of the safe harbour; younger ones are not.
    "age over 89": re.compile(r"\b(?:9\d|1[01]\d)[- ]year(?:s)?[- ]old\b|\baged (?:9\d|1[01]\d)\b"),
    "name after a title": re.compile(
        r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Herr|Frau|Patient(?:'s)? name:?)\.?\s(?:[A-Z]\.\s?)?"
        r"[A-Z][a-zà-ÿ]+(?:[ -][A-Z][a-zà-ÿ]+)?"
    ),
    "telephone or fax number": re.compile(
        r"(?:\b(?:tel(?:ephone)?|phone|mobile|cell|fax)\b\.?[^\d\n+(]{0,12}|\+)"
        r"\(?\d[\d ()/.-]{6,}\d"
        r"|\(\d{3}\)\s?\d{3}[- ]\d{4}\b|\b\d{3}-\d{3}-\d{4}\b",
        re.I,
    ),
    "mail address": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "social security number": re.compile(r"\b\d{3}-\d{2}-\d{4}\b"),
    "record number": re.compile(
        r"\b(?:MRN|(?:medical )?record(?: number| no)|accession(?: number| no)?"
        r"|(?:patient|hospital|case|chart|admission|file) (?:id|number|no|nr)"
        r"|NHS(?: number| no)?|Pat\.?-?(?:ID|Nr))\b"
        r"[\s.:#]{0,4}[A-Z]{0,4}[- ]?\d[\d -]{3,}",
        re.I,
    ),
    "web address": re.compile(r"https?://\S+|\bwww\.\S+"),
}
"""A kind of identifier -> its form in text. The first kind that matches a passage has it."""

WITHHELD = 2
"""Characters of a finding's words that are shown at each end of them: enough to find the place, too
little to spread it."""


@dataclass(frozen=True, slots=True)
class Identifier:
    """A passage that may tell who the patient is: its kind, the line (from 1), and its words, most
    of their letters and digits withheld."""

    kind: str
    line: int
    words: str


def identifiers_in(text: str) -> Iterator[Identifier]:
    """What may name a person in a report's text, in the order of IDENTIFIER_FORMS; a passage
    counts once.

    >>> [(found.kind, found.words) for found in identifiers_in("Mrs. Jones, born 3 May 1961.")]
    [('date of birth', 'bo·· · ··· ··61'), ('name after a title', 'Mr·. ···es')]
    """
    # 'born 3 May 1961' is a date of birth, and no second finding as a date.
    taken: set[int] = set()
    for kind, pattern in IDENTIFIER_FORMS.items():
        for match in pattern.finditer(text):
            if taken.isdisjoint(range(*match.span())):
                taken.update(range(*match.span()))
                yield Identifier(kind, text.count("\n", 0, match.start()) + 1, _withheld(match[0]))


def _withheld(words: str) -> str:
    words = " ".join(words.split())
    middle = re.sub(r"\w", "·", words[WITHHELD:-WITHHELD])
    return words[:WITHHELD] + middle + words[-WITHHELD:]
