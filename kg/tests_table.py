"""The curated table of tests: what each can show and which diseases it confirms. Written by hand, checked on loading."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

from kg.names import normalise

Category = Literal["laboratory", "imaging", "procedure", "physiologic", "pathology"]
PATH = Path(__file__).parent / "data" / "tests.csv"
COLUMNS = ["test", "synonyms", "category", "finds", "diseases"]


class BadTable(ValueError):
    """A curated table that cannot be used; the message names file and line."""

    def __init__(self, path: Path, line: int, message: str):
        super().__init__(f"{path}:{line}: {message}")


@dataclass(frozen=True, slots=True)
class TestEntry:
    """One test. `finds` are HPO labels of what it can show, `diseases` names of what it is used to confirm, `line` its line."""

    name: str
    synonyms: tuple[str, ...]
    category: Category
    finds: tuple[str, ...]
    diseases: tuple[str, ...]
    line: int

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.synonyms)


TestEntry.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test case to pytest


@cache
def tests_table() -> list[TestEntry]:
    """All tests in the order of the table. Raises BadTable."""
    return read_tests(PATH)


def read_tests(path: Path) -> list[TestEntry]:
    """Read a table of tests. Raises BadTable for a wrong header, category or field, or for a name that two tests share.

    Whether `finds` and `diseases` are known names is checked where the graph is built, with the same kind of error.
    """
    entries = [_entry(path, line, row) for line, row in _rows(path)]
    owners: dict[str, str] = {}
    for entry in entries:
        for name in {normalise(name) for name in entry.names}:
            if owners.setdefault(name, entry.name) != entry.name:
                raise BadTable(path, entry.line, f"{name!r} already names {owners[name]!r}")
    return entries


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        if reader.fieldnames != COLUMNS:
            raise BadTable(path, 1, f"the columns must be {', '.join(COLUMNS)}")
        for row in reader:
            if None in row or None in row.values():
                raise BadTable(path, reader.line_num, f"a row has {len(COLUMNS)} fields")
            yield reader.line_num, row


def _entry(path: Path, line: int, row: dict[str, str]) -> TestEntry:
    name, category = row["test"].strip(), row["category"]
    synonyms, finds, diseases = (tuple(_parts(row[column])) for column in ("synonyms", "finds", "diseases"))
    if not normalise(name):
        raise BadTable(path, line, "the test has no name")
    if category not in get_args(Category):
        raise BadTable(path, line, f"{category!r} is no category; use one of {', '.join(get_args(Category))}")
    if not finds and not diseases:
        raise BadTable(path, line, f"{name!r} finds nothing and confirms nothing")
    return TestEntry(name, synonyms, cast(Category, category), finds, diseases, line)


def _parts(field: str) -> Iterator[str]:
    return (part.strip() for part in field.split("|") if part.strip())
