"""Cases of a run that another set holds too, as `medaction contamination` wrote them into the run's
folder; of each pair both texts, and the words that they share."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

COMPARISONS = "contamination"
"""Of a run's folder: where the report is that the viewer shows; a folder in it for each of several
sets."""
COMPARISON_FILE = "contamination.json"
TEXTS = "texts.parquet"
"""Beside the report, a row a pair in its order: text, other_text, diagnosis, other_diagnosis."""

SHARED_WORDS = 3
"""Words in a row that both texts have, from which they are marked; numbers all count as one word,
since a copy may have others."""
_WORD_OR_NUMBER = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A report: what it says of itself, its pairs, and the file with their texts."""

    about: dict[str, Any]
    pairs: list[dict[str, Any]]
    texts: Path


def comparisons(out: Path) -> list[Comparison]:
    """The reports in the run's folder, each pair with the `against` and the `place` at which the
    viewer shows it."""
    # Compared with one set, or with several, each in a folder of its own.
    folder = out / COMPARISONS
    files = sorted([*folder.glob(COMPARISON_FILE), *folder.glob(f"*/{COMPARISON_FILE}")])
    reports: list[Comparison] = []
    count = 0
    for file in files:
        about = json.loads(file.read_text(encoding="utf-8"))
        against = (about["against"] or about["cases"])["path"]
        pairs = [
            pair | {"against": against, "place": place}
            # Numbered on over all reports: the number is the pair's address.
            for place, pair in enumerate(about.pop("pairs"), count)
        ]
        count += len(pairs)
        reports.append(Comparison(about, pairs, file.with_name(TEXTS)))
    return reports


def pair_at(out: Path, place: int) -> dict[str, Any] | None:
    """The pair at this place with its texts, whole (None: not kept) and in `pieces`; None: there is
    no such pair."""
    for comparison in comparisons(out):
        for row, pair in enumerate(comparison.pairs):
            if pair["place"] == place:
                if not comparison.texts.is_file():  # a report of earlier days
                    return pair | {"texts": None}
                texts = pl.read_parquet(comparison.texts).row(row, named=True)
                one, two = texts["text"], texts["other_text"]
                marked = {"one": [*pieces(one, two)], "two": [*pieces(two, one)]}
                return pair | {"texts": texts} | marked
    return None


def pieces(text: str, other: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, and whether each stands in the other one too: runs of SHARED_WORDS words
    and more, in whatever case.

    >>> list(pieces("Fever for 3 days.", "She had fever for 12 days"))
    [('Fever for 3 days', True), ('.', False)]
    """
    words = list(_WORD_OR_NUMBER.finditer(text))
    keys = _comparable(word.group() for word in words)
    # Runs, not words: nearly every word of a report is somewhere in any other one, too.
    runs = set(_runs_of_words(_comparable(_WORD_OR_NUMBER.findall(other))))
    shared = {
        at + step
        for at, run in enumerate(_runs_of_words(keys))
        if run in runs
        for step in range(SHARED_WORDS)
    }
    begin = 0
    for is_shared, places in groupby(range(len(words)), shared.__contains__):
        if is_shared:
            stretch = [words[place] for place in places]
            start, end = stretch[0].start(), stretch[-1].end()
            if begin < start:
                yield text[begin:start], False
            yield text[start:end], True
            begin = end
    if begin < len(text):
        yield text[begin:], False


def _comparable(words: Iterable[str]) -> list[str]:
    return ["0" if word[0].isdigit() else word.casefold() for word in words]


def _runs_of_words(keys: list[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(keys[at : at + SHARED_WORDS]) for at in range(len(keys) - SHARED_WORDS + 1))
