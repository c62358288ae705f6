"""The major and the minor category of the paper's Figure 7 that a test belongs to, told from its
name by the phrases of data/categories.toml."""

import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import cast, get_args

from medaction.words.names import normalise
from medaction.words.phrases import phrase_pattern
from medaction.words.tests import Category

_TABLE: dict[str, list[tuple[str, str]]] = tomllib.loads(
    (Path(__file__).parent / "data" / "categories.toml").read_text(encoding="utf-8")
)
_REMAINDER: dict[Category, str] = {
    "laboratory": "unspecified laboratory",
    "imaging": "other imaging",
    "procedure": "other procedures",
    "physiologic": "other function tests",
    "pathology": "other pathology",
}

MINOR_CATEGORIES: dict[Category, tuple[str, ...]] = {
    category: (
        # A minor category has several rows in the table where order decides.
        *dict.fromkeys(minor for minor, _ in _TABLE[category] if minor != _REMAINDER[category]),
        _REMAINDER[category],
    )
    for category in get_args(Category)
}
"""The minor categories of Figure 7 within each major one; the last of each gathers what the name
does not tell apart."""


def category_of(name: str, container: str = "") -> Category:
    """The major category of the test `name`; where the name tells nothing, the section it stood in
    decides; else laboratory.

    >>> category_of("CT chest"), category_of("Skin biopsy"), category_of("Brain", "Imaging")
    ('imaging', 'pathology', 'imaging')
    """
    return known_category(name, container) or "laboratory"


def known_category(name: str, container: str = "") -> Category | None:
    """The same; None where neither tells one."""
    test = re.sub(r"\([^()]*\)", " ", name)  # brackets tell of when and why: '(post-biopsy)'
    # The whole name only where it says nothing without its brackets.
    matches = (_match("major", text) for text in (test, name, container))
    return cast(Category | None, next(filter(None, matches), None))


def minor_category_of(name: str, category: Category) -> str:
    """The minor category, one of MINOR_CATEGORIES[category], of the test `name` that belongs to
    this major category.

    >>> minor_category_of("Complete blood count", "laboratory")
    'hematology'
    >>> minor_category_of("Routine tests", "laboratory")
    'unspecified laboratory'
    """
    return _match(category, name) or _REMAINDER[category]


@lru_cache(maxsize=20_000)
def _match(section: str, name: str) -> str | None:
    text = normalise(name)
    rows = _TABLE[section]
    return next(
        (category for category, phrases in rows if phrase_pattern(phrases).search(text)), None
    )
