"""The curated table of tests: what each can show and which diseases it confirms. Written by hand,
checked on loading."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

from medaction.kg.tables import DATA, BadTable, parts, rows
from medaction.words.names import normalise

Category = Literal["laboratory", "imaging", "procedure", "physiologic", "pathology"]
PATH = DATA / "tests.csv"
COLUMNS = ["test", "synonyms", "category", "finds", "diseases"]


@dataclass(frozen=True, slots=True)
class TestEntry:
    """One test. `finds` are HPO labels of what it can show, `diseases` names of what it is used to
    confirm, `line` its line."""

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


@cache
def aliases_of_tests() -> dict[str, tuple[str, ...]]:
    """Normalised name of a test -> every name of that test, for the oracle."""
    return {normalise(name): test.names for test in tests_table() for name in test.names}


def read_tests(path: Path) -> list[TestEntry]:
    """Read a table of tests. Raises BadTable for a wrong header, category or field, or for a name
    that two tests share.

    Whether `finds` and `diseases` are known names is checked where the graph is built, with the
    same kind of error.
    """
    entries = [_entry(path, line, row) for line, row in rows(path, COLUMNS)]
    owners: dict[str, str] = {}
    for entry in entries:
        for name in {normalise(name) for name in entry.names}:
            if owners.setdefault(name, entry.name) != entry.name:
                raise BadTable(path, entry.line, f"{name!r} already names {owners[name]!r}")
    return entries


def _entry(path: Path, line: int, row: dict[str, str]) -> TestEntry:
    name, category = row["test"].strip(), row["category"]
    synonyms, finds, diseases = (parts(row[column]) for column in ("synonyms", "finds", "diseases"))
    if not normalise(name):
        raise BadTable(path, line, "the test has no name")
    if category not in get_args(Category):
        raise BadTable(
            path, line, f"{category!r} is no category; use one of {', '.join(get_args(Category))}"
        )
    if not finds and not diseases:
        raise BadTable(path, line, f"{name!r} finds nothing and confirms nothing")
    return TestEntry(name, synonyms, cast(Category, category), finds, diseases, line)
