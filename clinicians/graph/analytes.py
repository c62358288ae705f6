"""Laboratory values and vital signs in text: 'Hemoglobin 7.9 g/dL (reference 12-15.5)' is low.

A range printed beside the value wins over words ('elevated', 'H', 'positive'), and words over the
table's adult range.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from medaction.clinicians.graph.cues import cue
from medaction.kg.tables import DATA, BadTable, parts, rows

PATH = DATA / "analytes.csv"
COLUMNS = [
    "analyte", "synonyms", "test", "low_finding", "high_finding", "low", "high", "unit", "si",
]  # fmt: skip
Status = Literal["low", "normal", "high"]

LONGEST_NAME = 6
"""Words of the longest name in the table."""

REACH = 110
"""Characters after a name in which its value stands."""

SPECIMENS = {
    "urin": "urine", "csf": "csf", "cerebrospinal": "csf", "lumbar puncture": "csf",
    "spinal tap": "csf", "synovial": "synovial", "joint": "joint", "arthrocentesis": "synovial",
    "pleural": "pleural", "thoracentesis": "pleural", "ascit": "ascit", "paracentesis": "ascit",
    "stool": "stool", "sputum": "sputum", "semen": "semen",
}  # fmt: skip
"""Words before the first colon that name a specimen other than blood: in 'Urinalysis: WBC: 0/hpf'
no blood cells are counted."""


@dataclass(frozen=True, slots=True)
class Analyte:
    """Something measured, or looked for.

    low, high: adult reference in `unit`. factors: other unit -> what to multiply a value by to get
    `unit`.
    """

    name: str
    synonyms: tuple[str, ...]
    test: str
    low_finding: str
    high_finding: str
    low: float | None
    high: float | None
    unit: str
    factors: dict[str, float]

    @property
    def is_sign(self) -> bool:
        """Whether it is either there or not, so that the reader of phrases takes it."""
        has_range = self.low is not None or self.high is not None
        return bool(self.high_finding) and not self.low_finding and not has_range


@cache
def analytes() -> list[Analyte]:
    """All of kg/data/analytes.csv. Raises BadTable."""
    return [_analyte(line, row) for line, row in rows(PATH, COLUMNS)]


def _analyte(line: int, row: dict[str, str]) -> Analyte:
    try:
        low, high = (float(row[column]) if row[column] else None for column in ("low", "high"))
        pairs = (part.rsplit(":", 1) for part in parts(row["si"]))
        factors = {unit.strip(): float(factor) for unit, factor in pairs}
    except ValueError as error:
        message = f"{row['analyte']!r}: a limit or a unit's factor is no number"
        raise BadTable(PATH, line, message) from error
    names = (row["analyte"], parts(row["synonyms"]), row["test"])
    return Analyte(*names, row["low_finding"], row["high_finding"], low, high, row["unit"], factors)


@cache
def _analytes_by_name() -> dict[str, Analyte]:
    measured = [analyte for analyte in analytes() if not analyte.is_sign]
    return {_folded(name): item for item in measured for name in (item.name, *item.synonyms)}


def _folded(name: str) -> str:
    """Short names keep their case: 'K' is potassium, 'PT' the prothrombin time."""
    return name if len(name) <= 3 else " ".join(name.lower().split())


_WORD = re.compile(r"[^\s,;:()=]+")
_SENTENCE_END = re.compile(r"[;\n]|(?<!\b[A-Z])\.(?=\s|$)|\bwith\b")


def lab_statuses(text: str) -> Iterator[tuple[Analyte, Status]]:
    """Every analyte of a text that is followed (or led) by a value or a word for its status."""
    text = text.replace("_", " ").replace("μ", "µ").replace("−", "-").replace("–", "-")
    heading = text.partition(":")[0].lower()
    specimen = next((name for word, name in SPECIMENS.items() if word in heading), "")
    mentions = list(_mentions(text, specimen))
    next_starts = [*(start for start, _, _ in mentions[1:]), len(text)]
    for (start, end, analyte), next_start in zip(mentions, next_starts, strict=False):
        after = _SENTENCE_END.split(text[end : min(next_start, end + REACH)], maxsplit=1)[0]
        status = _status(analyte, text[:start], after)
        if status:
            yield analyte, status


def _mentions(text: str, specimen: str) -> Iterator[tuple[int, int, Analyte]]:
    """(start, end, analyte), the longest name first at every word. Of another specimen than blood
    only analytes whose names say that specimen."""
    words = list(_WORD.finditer(text))
    at, by_name = 0, _analytes_by_name()
    while at < len(words):
        for length in range(min(LONGEST_NAME, len(words) - at), 0, -1):
            start = words[at].start()
            name = text[start : words[at + length - 1].end()].rstrip(".")
            analyte = by_name.get(_folded(f"{specimen} {name}".strip())) or by_name.get(
                _folded(name)
            )
            if analyte and specimen in " ".join((analyte.name, *analyte.synonyms)).lower():
                yield start, start + len(name), analyte
                at += length
                break
        else:
            at += 1


_NUMBER = r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?"
_VALUE = re.compile(
    rf"(?P<number>{_NUMBER})\s*(?P<power>[x×*]\s*10\s*\^?\s*\d+\s*)?(?P<unit>[^\s,;()]*)"
)
_RANGE = re.compile(
    r"(?:[(\[]|\b(?:reference|ref\.?|normal|nl|range)\b)[^<>≤≥\d()\[\]]*"
    rf"(?:(?P<below><|≤|less than|below|up to|under)\s*(?P<upper>{_NUMBER})"
    rf"|(?P<above>>|≥|more than|above|over)\s*(?P<lower>{_NUMBER})"
    rf"|(?P<low>{_NUMBER})\s*[%a-zA-Z/^\d]*?\s*(?:-|to)\s*(?P<high>{_NUMBER}))[^,;()\[\]]*",
    re.IGNORECASE,
)
_FLAG = re.compile(r"(?<![/\w^])[HL]\b")
_PRESSURE = re.compile(r"(\d{2,3})\s*/\s*(\d{2,3})")
DIASTOLIC_HIGH = 92
"""mm Hg; the table's range is of the systolic pressure."""

LOWEST_FAHRENHEIT = 60
"""No living patient's temperature is above 60 degrees Celsius."""


def _status(analyte: Analyte, before: str, after: str) -> Status | None:
    if cue("unknown").search(after):
        return None
    limits = _RANGE.search(after)
    value = _VALUE.search(after[: limits.start()] if limits else after)
    if limits and value:
        low, high = limits["low"] or limits["lower"], limits["high"] or limits["upper"]
        lower, upper = (_number(limit) if limit else None for limit in (low, high))
        return _compare(_number(value["number"]), lower, upper)
    in_words = _status_in_words(before, after)
    return in_words or (_status_by_table(analyte, value, after) if value else None)


def _status_in_words(before: str, after: str) -> Status | None:
    """'elevated serum troponin' and 'troponin: elevated'; the word before the name goes first."""
    words = [
        word for word in before.split()[-4:] if word not in ("serum", "plasma", "levels", "of")
    ]
    lead = words[-1].lower() if words else ""
    if lead == "no":
        return "normal"
    is_lead = any(cue(f"{status} value").fullmatch(lead) for status in ("normal", "high", "low"))
    text = lead if is_lead else after
    if cue("normal value").search(text) or text.strip().lower().startswith("no "):
        return "normal"
    high, low = cue("high value").search(text), cue("low value").search(text)
    if high or low:
        return "high" if not low or (high and high.start() < low.start()) else "low"
    flag = _FLAG.search(text)
    return ("high" if flag[0] == "H" else "low") if flag else None


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _compare(value: float, low: float | None, high: float | None) -> Status:
    if low is not None and value < low:
        return "low"
    return "high" if high is not None and value > high else "normal"


def _status_by_table(analyte: Analyte, value: re.Match[str], after: str) -> Status | None:
    if analyte.low is None and analyte.high is None:
        return None
    number = _number(value["number"])
    unit = value["unit"].lower()
    pressure = _PRESSURE.search(after)
    if analyte.name == "Blood pressure":
        if pressure is None:
            return None
        if float(pressure[2]) > DIASTOLIC_HIGH:
            return "high"
    if analyte.name == "Temperature" and number > LOWEST_FAHRENHEIT:
        number = (number - 32) / 1.8
    if analyte.unit == "%" and "%" not in unit and number > 100:
        return None  # a count where a share is expected
    if analyte.unit == "10^9/L" and not value["power"]:
        # a large count is per microlitre: '13,400/mm3', but not '7.2/mm3'
        number *= 0.001 if number > (500 if unit.startswith("/") else 2000) else 1.0
    elif not value["power"]:
        factors = (factor for name, factor in analyte.factors.items() if name.lower() in unit)
        number *= next(factors, 1.0)
    return _compare(number, analyte.low, analyte.high)
