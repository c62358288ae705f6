"""Laboratory values and vital signs in text: 'Hemoglobin 7.9 g/dL (reference 12-15.5)' is low.

A range printed beside the value wins over words ('elevated', 'H', 'positive'), and words over the
table's adult range.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from medaction.kg.tables import DATA, BadTable, parts, rows

PATH = DATA / "analytes.csv"
COLUMNS = [
    "analyte",
    "synonyms",
    "test",
    "low_finding",
    "high_finding",
    "low",
    "high",
    "unit",
    "si",
]
Status = Literal["low", "normal", "high"]


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
        return (
            self.low is None
            and self.high is None
            and bool(self.high_finding)
            and not self.low_finding
        )


@dataclass(frozen=True, slots=True)
class Lab:
    """One reading of an analyte; `evidence` are the words it was read from."""

    analyte: Analyte
    status: Status
    evidence: str


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
        raise BadTable(
            PATH, line, f"{row['analyte']!r}: a limit or a unit's factor is no number"
        ) from error
    names = parts(row["synonyms"])
    return Analyte(
        row["analyte"],
        names,
        row["test"],
        row["low_finding"],
        row["high_finding"],
        low,
        high,
        row["unit"],
        factors,
    )


@cache
def _names() -> dict[str, Analyte]:
    """Name -> analyte; names of up to three characters keep their case ('K', 'PT'), longer ones
    lose it."""
    measured = [analyte for analyte in analytes() if not analyte.is_sign]
    return {
        _folded(name): analyte for analyte in measured for name in (analyte.name, *analyte.synonyms)
    }


def _folded(name: str) -> str:
    return name if len(name) <= 3 else " ".join(name.lower().split())


_WORD = re.compile(r"[^\s,;:()=]+")
_END = re.compile(r"[;\n]|(?<!\b[A-Z])\.(?=\s|$)|\bwith\b")
_WORDS_LONGEST = 6


def lab_statuses(text: str) -> Iterator[Lab]:
    """Every analyte of a text that is followed (or led) by a value or a word that tells its status."""
    text = text.replace("_", " ").replace("μ", "µ").replace("−", "-").replace("–", "-")
    specimen = _SPECIMEN.search(text.partition(":")[0])
    mentions = list(_mentions(text, _specimen_name(specimen[0]) if specimen else ""))
    for at, (start, end, analyte) in enumerate(mentions):
        limit = mentions[at + 1][0] if at + 1 < len(mentions) else len(text)
        stop = _END.search(text, end)
        after = text[end : min(limit, stop.start() if stop else len(text), end + 110)]
        status = _status(analyte, text[max(0, start - 40) : start], after)
        if status:
            yield Lab(
                analyte, status, " ".join((text[start:end] + after).split()).rstrip(" ,:(")[:80]
            )


_SPECIMEN = re.compile(
    r"\b(?:urin\w*|csf|cerebrospinal|lumbar puncture|spinal tap|synovial|joint|arthrocentesis|pleural|thoracentesis|ascit\w*|paracentesis"
    r"|stool|sputum|semen)\b",
    re.IGNORECASE,
)
"""Specimens other than blood, told by what stands before the first colon: 'Urinalysis: WBC: 0/hpf'
counts no blood cells."""


def _specimen_name(word: str) -> str:
    word = word.lower()
    return (
        "urine"
        if word.startswith("urin")
        else "csf"
        if word in ("csf", "cerebrospinal", "lumbar puncture", "spinal tap")
        else word
    )


def _mentions(text: str, specimen: str) -> Iterator[tuple[int, int, Analyte]]:
    """(start, end, analyte), longest name first at every word. Of another specimen than blood only
    what is known of that one."""
    words = [(found.start(), found.end()) for found in _WORD.finditer(text)]
    at = 0
    while at < len(words):
        for length in range(min(_WORDS_LONGEST, len(words) - at), 0, -1):
            start, end = words[at][0], words[at + length - 1][1]
            name = text[start:end].rstrip(".")
            analyte = _names().get(_folded(f"{specimen} {name}" if specimen else name)) or (
                specimen and _names().get(_folded(name))
            )
            if analyte and (
                not specimen
                or specimen
                in _folded(" ".join((analyte.name, *analyte.synonyms, analyte.test)).lower())
            ):
                yield start, start + len(name), analyte
                at += length
                break
        else:
            at += 1


_NUMBER = r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?"
_VALUE = re.compile(
    rf"(?P<number>{_NUMBER})\s*(?P<times>[x×*]\s*10\s*\^?\s*\d+\s*)?(?P<unit>[^\s,;()]{{0,12}})"
)
_RANGE = re.compile(
    r"(?P<lead>\(|\[|\b(?:reference|ref\.?|normal|nl|range)\b)[^<>≤≥\d()\[\]]{0,30}"
    rf"(?:(?P<sign><|>|≤|≥|less than|below|up to|above|under|over)\s*(?P<limit>{_NUMBER})"
    rf"|(?P<low>{_NUMBER})\s*[%a-zA-Z/^\d]{{0,6}}?\s*(?:-|to)\s*(?P<high>{_NUMBER}))[^,;()\[\]]{{0,20}}[)\]]?",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"\b(?:pending|not (?:specified|performed|done|provided|available|mentioned|indicated)|optional|unknown|can be|could be)\b",
    re.I,
)
_NORMAL = re.compile(
    r"\b(?:normal|negative|within|unremarkable|none|absent|non-?reactive|undetected|nil|not (?:detected|elevated|seen|present|increased))\b"
    r"|^\W*no\b",
    re.IGNORECASE,
)
_HIGH = re.compile(
    r"\b(?:elevated|high|increased|raised|above|positive|present|presence|reactive|detected|prolonged|abundant|many|numerous|seen|heavy"
    r"|identified|abnormal|[1-4]\+)(?![a-z])|(?-i:(?<![/\w^])H\b)|↑|\+\+",
    re.IGNORECASE,
)
_LOW = re.compile(
    r"\b(?:low|decreased|reduced|below|deficient|deficiency|diminished|undetectable|suppressed|depressed)\b|(?-i:(?<![/\w^])L\b)|↓",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"\b(?P<word>elevated|high|increased|raised|positive|low|decreased|reduced|negative|normal|no)\s+(?:(?:serum|plasma|levels? of) )?$",
    re.IGNORECASE,
)


def _status(analyte: Analyte, before: str, after: str) -> Status | None:
    if _UNKNOWN.search(after):
        return None
    printed = _RANGE.search(after)
    value = _VALUE.search(after[: printed.start()] if printed else after)
    words = after[: printed.start()] + after[printed.end() :] if printed else after
    if printed and value:
        return _against(_number(value), *_limits(printed))
    return _in_words(before, words) or (_by_table(analyte, value, after) if value else None)


def _in_words(before: str, after: str) -> Status | None:
    lead = _LEAD.search(before)
    told = lead["word"] if lead else after
    if _NORMAL.search(told) or (lead and lead["word"].lower() == "no"):
        return "normal"
    high, low = _HIGH.search(told), _LOW.search(told)
    if high and low:
        return "high" if high.start() < low.start() else "low"
    if high or low:
        return "high" if high else "low"
    return None


def _number(value: re.Match[str]) -> float:
    return float(value["number"].replace(",", ""))


def _limits(printed: re.Match[str]) -> tuple[float | None, float | None]:
    def number(text: str | None) -> float | None:
        return float(text.replace(",", "")) if text else None

    if printed["sign"]:
        upper = printed["sign"].lower() in ("<", "≤", "less than", "below", "up to", "under")
        return (None, number(printed["limit"])) if upper else (number(printed["limit"]), None)
    return number(printed["low"]), number(printed["high"])


def _against(value: float, low: float | None, high: float | None) -> Status:
    if low is not None and value < low:
        return "low"
    return "high" if high is not None and value > high else "normal"


def _by_table(analyte: Analyte, value: re.Match[str], after: str) -> Status | None:
    number = _number(value) * _factor(analyte, value)
    if analyte.name == "Temperature" and number > 60:
        number = (number - 32) / 1.8
    if analyte.name == "Blood pressure":
        both = re.search(r"(\d{2,3})\s*/\s*(\d{2,3})", after)
        if both is None:
            return None
        if float(both[2]) > 92:
            return "high"
    if analyte.low is None and analyte.high is None:
        return None
    return _against(number, analyte.low, analyte.high)


def _factor(analyte: Analyte, value: re.Match[str]) -> float:
    """What brings the value into the table's unit. Counts without 'x 10^n' and above 500 are per
    microlitre."""
    unit = value["unit"]
    if not value["times"]:
        for other, factor in analyte.factors.items():
            if other.lower() in unit.lower():
                return factor if other.startswith("/") is False or _number(value) > 500 else 1.0
        if analyte.unit == "10^9/L" and _number(value) > 2000:
            return 0.001
    if analyte.unit == "%" and "%" not in unit and _number(value) > 100:
        return (
            0.0 if analyte.low is None else float("nan")
        )  # a count where a share is expected: the table does not apply
    return 1.0
