"""The curated tables in kg/data: CSV with a header, "|" between the parts of a field, errors that
name file and line."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from medaction.words.errors import MedactionError
from medaction.words.names import normalise

DATA = Path(__file__).parent / "data"
COMMON_DISEASES = DATA / "common_diseases.csv"
ALIASES = DATA / "aliases.csv"


class BadTable(MedactionError, ValueError):
    """A table that cannot be used; the message names file and line."""

    def __init__(self, path: Path, line: int, message: str):
        super().__init__(f"{path}:{line}: {message}")


def rows(path: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) for every row of a table with exactly these columns. Raises BadTable."""
    with path.open(encoding="utf-8", newline="") as file:
        # Strict: an unclosed quote is an error, not the rest of the file in one field.
        reader = csv.DictReader(file, strict=True)
        if reader.fieldnames != columns:
            raise BadTable(path, 1, f"the columns must be {', '.join(columns)}")
        for row in reader:
            # How DictReader marks a row with too many fields, and one with too few.
            if None in row or None in row.values():
                raise BadTable(path, reader.line_num, f"a row has {len(columns)} fields")
            yield reader.line_num, row


def parts(field: str) -> tuple[str, ...]:
    """The parts of a field, without empty ones."""
    return tuple(part.strip() for part in field.split("|") if part.strip())


@dataclass(frozen=True, slots=True)
class Disease:
    """A disease and what it shows.

    weight: how common, relative to the others. findings: HPO label in the table, else the finding's
    key -> share of patients in 0..1. line: in the table, 0 for one that stands in none.
    """

    name: str
    synonyms: tuple[str, ...]
    weight: float
    findings: dict[str, float]
    line: int = 0


@cache
def common_diseases() -> list[Disease]:
    """All of COMMON_DISEASES: those that HPO, which is about rare ones, does not describe. Raises
    BadTable."""
    table = rows(COMMON_DISEASES, ["name", "synonyms", "weight", "findings"])
    return [_common_disease(line, row) for line, row in table]


def _common_disease(line: int, row: dict[str, str]) -> Disease:
    pairs = (part.rsplit(":", 1) for part in parts(row["findings"]))
    try:
        findings = {label.strip(): float(share) for label, share in pairs}
        weight = float(row["weight"])
    except ValueError as error:
        raise BadTable(
            COMMON_DISEASES,
            line,
            f"{row['name']!r}: findings are 'label:share', weight is a number",
        ) from error
    # A finding that no patient shows is left out of the table, not written with 0.
    if not normalise(row["name"]) or not all(0 < share <= 1 for share in findings.values()):
        raise BadTable(
            COMMON_DISEASES, line, f"{row['name']!r}: a name is missing or a share is not in 0..1"
        )
    return Disease(row["name"].strip(), parts(row["synonyms"]), weight, findings, line)


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name of a node of this type: an abbreviation in its usual meaning, a lay name, an
    eponym."""

    alias: str
    name: str
    type: str
    line: int


@cache
def aliases() -> list[Alias]:
    """All of ALIASES. Raises BadTable for an alias without a name, or given twice for one type."""
    pairs = [
        Alias(row["alias"].strip(), row["name"].strip(), row["type"], line)
        for line, row in rows(ALIASES, ["alias", "name", "type"])
    ]
    written_pairs: set[tuple[str, str]] = set()
    for entry in pairs:
        key = (normalise(entry.alias), entry.type)
        if (
            not key[0]
            or not entry.name
            or entry.type not in ("disease", "test")
            or key in written_pairs
        ):
            raise BadTable(
                ALIASES,
                entry.line,
                f"{entry.alias!r} is empty, given twice, or not of type disease or test",
            )
        written_pairs.add(key)
    return pairs
