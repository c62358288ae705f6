"""The curated table of tests: what each can show and which diseases it confirms. Written by hand,
checked on loading.

A row names its tests once; their other names come from the one table of tests,
`medaction.words.tests`.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast, get_args

from medaction.kg.tables import DATA, BadTable, parts, rows
from medaction.words.names import normalise
from medaction.words.tests import NAMES, Category, canonical_names

PATH = DATA / "tests.csv"
SHORTEST_NAME = 3
"""Letters: 'K' and 'Na' mean a test where an order is expected only."""
COLUMNS_OF_TESTS = ["test", "synonyms", "category", "finds", "diseases"]


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
def tests_by_name() -> dict[str, TestEntry]:
    """Normalised name or synonym -> its test."""
    return {normalise(name): test for test in tests_table() for name in test.names}


@cache
def aliases_of_tests() -> dict[str, tuple[str, ...]]:
    """Normalised name of a test -> every name of that test, for the oracle."""
    return {name: test.names for name, test in tests_by_name().items()}


def read_tests(path: Path) -> list[TestEntry]:
    """Read a table of tests. Raises BadTable for a wrong header, category or field, or for a name
    that two tests share.

    Whether `finds` and `diseases` are known names is checked where the graph is built, with the
    same kind of error.
    """
    entries = [_entry(path, line, row) for line, row in rows(path, COLUMNS_OF_TESTS)]
    owners: dict[str, str] = {}
    for entry in entries:
        # A set: two spellings of one test may be one normalised name.
        for name in {normalise(name) for name in entry.names}:
            if owners.setdefault(name, entry.name) != entry.name:
                raise BadTable(path, entry.line, f"{name!r} already names {owners[name]!r}")
    return [_with_all_names(entry, owners) for entry in entries]


def _with_all_names(entry: TestEntry, owners: dict[str, str]) -> TestEntry:
    """The entry with the other names of its tests, which no other entry has."""
    tests = (canonical_names().get(normalise(name)) for name in entry.names)
    names = (name for test in dict.fromkeys(tests) if test for name in NAMES[test])
    more = {
        key: name
        for name in names
        if len(key := normalise(name)) >= SHORTEST_NAME
        # A name that another row has already stays there: a name leads to one test.
        and owners.setdefault(key, entry.name) == entry.name
    }
    own_names = {normalise(name) for name in entry.names}
    more_names = tuple(name for key, name in more.items() if key not in own_names)
    return replace(entry, synonyms=(*entry.synonyms, *more_names))


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
