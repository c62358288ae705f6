"""The one table of tests: all names of a test (data/tests.txt), and the tests that a panel reports
(data/panels.txt).

The first name of a test stands for it everywhere.
"""

from functools import cache
from pathlib import Path
from typing import Literal

from medaction.words.names import normalise
from medaction.words.plurals import singular

Category = Literal["laboratory", "imaging", "procedure", "physiologic", "pathology"]
"""The major categories of tests (paper, Figure 7)."""

_TABLES = Path(__file__).parent / "data"


def _lines_of_table(table: str) -> list[str]:
    lines = (_TABLES / table).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _names_in_line(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split("|") if name.strip())


NAMES: dict[str, tuple[str, ...]] = {
    names[0]: names for names in (_names_in_line(line) for line in _lines_of_table("tests.txt"))
}
"""All names of a test, where the name of a test is expected, by its first name."""

NAMES_IN_PROSE: dict[str, tuple[str, ...]] = {
    name: _names_in_line(prose)
    for name, line in zip(NAMES, _lines_of_table("tests.txt"), strict=True)
    for prose, mark, _ in [line.partition("||")]
    # A first name alone before '||' stands for its test, and means one in orders only: 'zinc',
    # 'progesterone' and 'c3' are drugs, doses and vertebrae in running text.
    if not mark or " | " in prose
}
"""The names that mean a test in running text too."""

PANELS: dict[str, frozenset[str]] = {
    panel: frozenset(parts.split(" | "))
    for panel, _, parts in (line.partition(": ") for line in _lines_of_table("panels.txt"))
}
"""The tests that a panel reports."""


@cache
def canonical_names() -> dict[str, str]:
    """The first name of a test by each of its normalised names, also in singular and without
    'and'."""
    table: dict[str, str] = {}
    for canonical, names in NAMES.items():
        for name in map(normalise, names):
            words = " ".join(map(singular, name.split()))
            # 'urea/electrolytes' has lost its slash in `normalise`, and never had an 'and'.
            for form in (name, words, name.replace(" and ", " ")):
                table.setdefault(form, canonical)
    return table


def parts_of_panel(panel: str | None) -> frozenset[str]:
    """The tests that a panel reports, with those that its own panels report."""
    parts = PANELS.get(panel or "", frozenset())
    # One level is enough: what lies deeper stands in the panel's own line too.
    return parts.union(*(PANELS.get(part, frozenset()) for part in parts))
