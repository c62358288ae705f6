"""Laboratory values and vital signs in text: 'Hemoglobin 7.9 g/dL (reference 12-15.5)' is low.

A range printed beside the value wins over words ('elevated', 'H', 'positive'), and words over the
table's adult range.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from medaction.clinicians.graph.cues import cue, longest_matches
from medaction.kg.tables import DATA, BadTable, parts, rows

ANALYTES = DATA / "analytes.csv"
COLUMNS_OF_ANALYTES = [
    "analyte", "synonyms", "test", "low_finding", "high_finding", "low", "high", "unit", "si",
]  # fmt: skip
Level = Literal["low", "normal", "high"]

LONGEST_NAME = 6
"""Words of the longest name in the table."""

REACH = 110
"""Characters after a name in which its value stands: our choice, a line of a report. With a longer
reach the value of something else is taken."""

SPECIMENS = ("urin", "csf", "synovial", "pleural", "ascit", "stool", "sputum", "semen")
"""What before the first colon names a specimen other than blood: in 'Urinalysis: WBC: 0/hpf'
no blood cells are counted."""


@dataclass(frozen=True, slots=True)
class Analyte:
    """Something measured, or looked for.

    low, high: adult reference in `unit`, NaN where there is none. factors: other unit -> what to
    multiply a value by to get `unit`.
    """

    name: str
    synonyms: tuple[str, ...]
    test: str
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
    """All of kg/data/analytes.csv. Raises BadTable."""
    table = []
    for line, row in rows(ANALYTES, COLUMNS_OF_ANALYTES):
        try:
            limits = _number_or_nan(row["low"]), _number_or_nan(row["high"])
            pairs = (part.rsplit(":", 1) for part in parts(row["si"]))
            factors = {unit.strip().lower(): float(factor) for unit, factor in pairs}
        except ValueError as error:
            message = f"{row['analyte']!r}: a limit or a unit's factor is no number"
            raise BadTable(ANALYTES, line, message) from error
        names = row["analyte"], parts(row["synonyms"]), row["test"]
        signs = row["low_finding"], row["high_finding"]
        table.append(Analyte(*names, *signs, *limits, row["unit"], factors))
    return table


def _folded(name: str) -> str:
    """Short names keep their case: 'K' is potassium, 'PT' the prothrombin time."""
    return name if len(name) <= 3 else " ".join(name.lower().split())


@cache
def _analytes_by_name() -> dict[str, Analyte]:
    # Signs are left to the phrases: 'Murphy sign' has no value.
    measured = [analyte for analyte in analytes() if not analyte.is_sign]
    return {_folded(name): item for item in measured for name in (item.name, *item.synonyms)}


_NAME_WORD = re.compile(r"[^\s,;:()=]+")
# Not the stop of an initial ('S. aureus'); 'with' begins what the value is not of.
_END_OF_VALUE = re.compile(r"[;\n]|(?<!\b[A-Z])\.(?=\s|$)|\bwith\b")


def levels(text: str) -> Iterator[tuple[Analyte, Level]]:
    """Every analyte of a text that is followed by a value or a word for its level."""
    # A report writes both signs for 'micro' and three for a minus.
    text = text.replace("_", " ").replace("μ", "µ").replace("−", "-").replace("–", "-")
    # Only before the first colon: 'urine' further on is another test's.
    heading = text.partition(":")[0].lower()
    specimen = next((name for name in SPECIMENS if name in heading), "")
    mentions = list(_mentions_of_analytes(text, specimen))
    next_starts = [*(start for start, _, _ in mentions[1:]), len(text)]
    for (_, end, analyte), next_start in zip(mentions, next_starts, strict=False):
        # Up to the next name: its value is not this one's.
        after = _END_OF_VALUE.split(text[end : min(next_start, end + REACH)], maxsplit=1)[0]
        if level := _level(analyte, after):
            yield analyte, level


def _mentions_of_analytes(text: str, specimen: str) -> Iterator[tuple[int, int, Analyte]]:
    """(start, end, analyte) of its mentions. Of another specimen than blood only analytes whose
    names say that specimen."""
    words, by_name = list(_NAME_WORD.finditer(text)), _analytes_by_name()

    def look_up(run: list[re.Match[str]]) -> Analyte | None:
        name = text[run[0].start() : run[-1].end()].rstrip(".")
        # 'Urine protein' before 'protein': the table has ranges for both.
        specific = f"urine {name}" if specimen == "urin" else f"{specimen} {name}".strip()
        analyte = by_name.get(_folded(specific)) or by_name.get(_folded(name))
        names = " ".join((analyte.name, *analyte.synonyms)).lower() if analyte else ""
        # The empty specimen, blood, is in every name.
        return analyte if specimen in names else None

    for start, end, analyte in longest_matches(words, LONGEST_NAME, look_up):
        yield words[start].start(), words[end - 1].end(), analyte


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
    if analyte.name == "Temperature" and number > LOWEST_FAHRENHEIT:
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
