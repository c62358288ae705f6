"""Laboratory values and vital signs in text: 'Hemoglobin 7.9 g/dL (reference 12-15.5)' is low.

A range printed beside the value wins over words ('elevated', 'H', 'positive'), and words over the
table's adult range. Such words, and those that say that something is past or doubtful, stand in
data/cues.csv: the kind of a cue and its phrase, in which '*' at the end of a word stands for any
ending. Cues of denial are in medaction.words.negation.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from medaction.kg.tables import DATA, parts, rows

TABLES = Path(__file__).parent / "data"
ANALYTES = DATA / "analytes.csv"
COLUMNS_OF_ANALYTES = [
    "analyte", "synonyms", "test", "low_finding", "high_finding", "low", "high", "unit", "si",
]  # fmt: skip
Level = Literal["low", "normal", "high"]

REACH = 110
"""Characters after a name in which its value stands: our choice, a line of a report. With a longer
reach the value of something else is taken."""

SPECIMENS = ("urin", "csf", "synovial", "pleural", "ascit", "stool", "sputum", "semen")
"""What before the first colon names a specimen other than blood: in 'Urinalysis: WBC: 0/hpf'
no blood cells are counted."""


@cache
def cue(kind: str) -> re.Pattern[str]:
    """A pattern that matches every phrase of this kind as whole words, the longest first, so that
    'not detected' goes before 'not'."""
    table = rows(TABLES / "cues.csv", ["kind", "phrase"])
    phrases = sorted((row["phrase"] for _, row in table if row["kind"] == kind), key=len)
    words = "|".join(re.escape(phrase).replace(r"\*", r"\w*") for phrase in reversed(phrases))
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Analyte:
    """Something measured, or looked for, by its names.

    low, high: adult reference in `unit`, NaN where there is none. factors: other unit -> what to
    multiply a value by to get `unit`.
    """

    names: tuple[str, ...]
    low_finding: str
    high_finding: str
    low: float
    high: float
    unit: str
    factors: dict[str, float]

    @property
    def is_sign(self) -> bool:
        """Whether it is either there or not, so that the reader of phrases takes it."""
        return bool(self.high_finding) and not (self.low_finding or self.has_range)

    @property
    def has_range(self) -> bool:
        return not (math.isnan(self.low) and math.isnan(self.high))


@cache
def analytes() -> list[Analyte]:
    """All of kg/data/analytes.csv."""
    table = []
    for _, row in rows(ANALYTES, COLUMNS_OF_ANALYTES):
        pairs = (part.rsplit(":", 1) for part in parts(row["si"]))
        factors = {unit.strip().lower(): float(factor) for unit, factor in pairs}
        limits = _number_or_nan(row["low"]), _number_or_nan(row["high"])
        names = row["analyte"], *parts(row["synonyms"])
        signs = row["low_finding"], row["high_finding"]
        table.append(Analyte(names, *signs, *limits, row["unit"], factors))
    return table


def _folded(name: str) -> str:
    """Short names keep their case: 'K' is potassium, 'PT' the prothrombin time."""
    return name if len(name) <= 3 else " ".join(name.lower().split())


@cache
def _analytes_by_name(specimen: str) -> dict[str, Analyte]:
    """Of another specimen than blood only those whose names say that specimen; these also by what
    stands behind it: in a text about urine 'protein' is 'urine protein'."""
    # Signs are left to the phrases: 'Murphy sign' has no value.
    measured = [analyte for analyte in analytes() if not analyte.is_sign]
    # The empty specimen, blood, is in every name.
    chosen = [item for item in measured if specimen in " ".join(item.names).lower()]
    head = "urine " if specimen == "urin" else f"{specimen} "
    names = [(name, item) for item in chosen for name in item.names]
    specific = [(name[len(head) :], item) for name, item in names if name.lower().startswith(head)]
    return {_folded(name): item for name, item in (*names, *specific)}


@cache
def _analyte_pattern(specimen: str) -> re.Pattern[str]:
    """A pattern of all names, the longest first."""
    names = sorted(_analytes_by_name(specimen), key=len, reverse=True)
    long, short = (
        # Of no name an alternative that never matches.
        "|".join(
            re.escape(name).replace(r"\ ", r"\s+") for name in names if (len(name) > 3) is is_long
        )
        or "(?!)"
        for is_long in (True, False)
    )
    # Not a part of a word: 'WBC' is in no 'WBC/hpf'. Without 'a' a 'ſ' is an 's', which `_folded`
    # does not know.
    return re.compile(rf"(?<![^\s,;:()=])(?:(?ai:{long})|{short})(?![^\s,;:()=.])")


# Not the stop of an initial ('S. aureus'); 'with' begins what the value is not of.
_END_OF_VALUE = re.compile(r"[;\n]|(?<!\b[A-Z])\.(?=\s|$)|\bwith\b")


def levels(text: str) -> Iterator[tuple[Analyte, Level]]:
    """Every analyte of a text that is followed by a value or a word for its level."""
    # A report writes both signs for 'micro' and three for a minus.
    text = text.replace("_", " ").replace("μ", "µ").replace("−", "-").replace("–", "-")
    # Only before the first colon: 'urine' further on is another test's.
    heading = text.partition(":")[0].lower()
    specimen = next((name for name in SPECIMENS if name in heading), "")
    mentions = list(_analyte_pattern(specimen).finditer(text))
    next_starts = [*(mention.start() for mention in mentions[1:]), len(text)]
    for mention, next_start in zip(mentions, next_starts, strict=False):
        # Up to the next name: its value is not this one's.
        reach = text[mention.end() : min(next_start, mention.end() + REACH)]
        after = _END_OF_VALUE.split(reach, maxsplit=1)[0]
        analyte = _analytes_by_name(specimen)[_folded(mention[0])]
        if level := _level(analyte, after):
            yield analyte, level


_VALUE_NUMBER = r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?"
_VALUE_AND_UNIT = re.compile(
    rf"(?P<number>{_VALUE_NUMBER})\s*(?P<power>[x×*]\s*10\s*\^?\s*\d+\s*)?(?P<unit>[^\s,;()]*)"
)
_RANGE = re.compile(
    r"(?:[(\[]|\b(?:reference|ref\.?|normal|nl|range)\b)[^<>≤≥\d()\[\]]*"
    rf"(?:(?:<|≤|less than|below|up to|under)\s*(?P<upper>{_VALUE_NUMBER})"
    rf"|(?:>|≥|more than|above|over)\s*(?P<lower>{_VALUE_NUMBER})"
    rf"|(?P<low>{_VALUE_NUMBER})\s*[%a-zA-Z/^\d]*?\s*(?:-|to)\s*(?P<high>{_VALUE_NUMBER}))",
    re.IGNORECASE,
)
LOWEST_FAHRENHEIT = 60
"""No living patient's temperature is above 60 degrees Celsius."""


def _level(analyte: Analyte, after: str) -> Level | None:
    # 'Not measured', 'pending': a number behind it is of something else.
    if cue("unknown").search(after):
        return None
    # The printed range first: laboratories differ, and so do children.
    limits = _RANGE.search(after)
    # Before the range: in '(12-15.5)' the first number would be taken for the value.
    value = _VALUE_AND_UNIT.search(after[: limits.start()] if limits else after)
    if limits and value:
        low, high = limits["low"] or limits["lower"], limits["high"] or limits["upper"]
        return _compare(_number_or_nan(value["number"]), _number_or_nan(low), _number_or_nan(high))
    return _level_in_words(after) or (_by_table(analyte, value) if value else None)


def _level_in_words(text: str) -> Level | None:
    """'troponin: elevated', 'cortisol is low', 'potassium 6.1 H'."""
    if text.strip().lower().startswith("no ") or cue("normal value").search(text):
        return "normal"
    high, low = cue("high value").search(text), cue("low value").search(text)
    if high or low:
        # The first of two words: 'elevated, not low' is high.
        return "high" if not low or (high and high.start() < low.start()) else "low"
    # 'H' and 'L' as printed flags; not the L of 'mg/L'.
    flag = re.search(r"(?<![/\w^])[HL]\b", text)
    return ("high" if flag[0] == "H" else "low") if flag else None


def _number_or_nan(text: str | None) -> float:
    """Not a number where there is none: nothing is below or above it."""
    return float(text.replace(",", "")) if text else math.nan


def _compare(value: float, low: float, high: float) -> Level:
    return "low" if value < low else "high" if value > high else "normal"


def _by_table(analyte: Analyte, value: re.Match[str]) -> Level | None:
    if not analyte.has_range:
        return None
    number, unit = _number_or_nan(value["number"]), value["unit"].lower()
    if analyte.names[0] == "Temperature" and number > LOWEST_FAHRENHEIT:
        number = (number - 32) / 1.8
    if analyte.unit == "%" and "%" not in unit and number > 100:
        return None  # a count where a share is expected
    # '7.2 x 10^9/L' is in the table's unit, whatever the power is written as.
    if value["power"]:
        return _compare(number, analyte.low, analyte.high)
    if analyte.unit == "10^9/L":
        # a large count is per microlitre: '13,400/mm3', but not '7.2/mm3'
        number *= 0.001 if number > (500 if unit.startswith("/") else 2000) else 1.0
    else:
        # A unit that no factor knows is taken for the table's own.
        number *= next((factor for name, factor in analyte.factors.items() if name in unit), 1.0)
    return _compare(number, analyte.low, analyte.high)
