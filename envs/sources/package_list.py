"""The list that PMC puts beside each bulk package: '<package>.filelist.csv' with each article's
licence and whether it is retracted.

Columns are found by name: AccessionID (PMC and digits), License ('CC BY', 'NO-CC CODE', ...),
Retracted ('yes' or 'no').
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from medaction.envs.records import BadCase
from medaction.envs.sources.files import inside, read_lines

MAX_ROWS = 1_000_000
"""A package holds the articles of one block of a million ids."""

NO_LICENCE = {"", "none", "no-cc code", "tdm"}
"""PMC's codes of articles that are under no licence, or may be mined and not passed on."""

PMCID = re.compile(r"PMC[0-9]{1,12}")
_COLUMNS = ("AccessionID", "License", "Retracted")

MAX_LICENCES = 1000
"""Different ones; PMC has about ten."""

SUFFIX = ".filelist.csv"

PackageList = dict[int, tuple[str, bool]]
"""The number of an article's PMCID -> (licence, '' for none; whether it is retracted)."""


def entry_of(listed: PackageList, pmcid: str) -> tuple[str, bool]:
    """(licence, retracted) of an article; ('', False) where the list does not name it."""
    return listed.get(int(pmcid[3:]), ("", False)) if PMCID.fullmatch(pmcid) else ("", False)


def list_beside(package: Path) -> PackageList:
    """The list beside a package; an empty one where there is none.

    Raises BadCase('bad_list' | 'outside_folder' | 'unreadable' | 'too_large' | 'bad_encoding'): a
    list that is there but cannot be read may hide a retraction, so the package is not read without
    it.
    """
    # The package's own spelling stays: only its ending is compared without case.
    name = package.name.lower().removesuffix(".tar.gz").removesuffix(".tgz")
    path = package.with_name(package.name[: len(name)] + SUFFIX)
    result: PackageList = {}
    entries: dict[tuple[str, bool], tuple[str, bool]] = {}
    # No list is no fault: most articles name their licence themselves.
    if not path.exists():
        return result
    if not inside(path, package.parent):
        message = f"{path.name} is a link that leads out of its folder; copy the file"
        raise BadCase("outside_folder", message, path=str(path))
    rows = csv.reader(_text_lines(path))
    try:
        names = next(rows, [])
        # By name: nobody promises the order of the columns.
        columns = [names.index(column) for column in _COLUMNS]
        for row in rows:
            pmcid, licence, retracted = (row[column].strip() for column in columns)
            if not PMCID.fullmatch(pmcid):
                raise ValueError(f"{pmcid[:40]!r} is no article id")
            is_named = licence.casefold() not in NO_LICENCE
            entry = (licence if is_named else "", retracted.casefold() == "yes")
            # Named twice: retracted in one line is retracted, and two licences are none.
            before = result.get(int(pmcid[3:]), entry)
            entry = (entry[0] if entry[0] == before[0] else "", entry[1] or before[1])
            # Few licences for many articles: one object each.
            result[int(pmcid[3:])] = entries.setdefault(entry, entry)
            # Bounded, since the list is untrusted.
            if len(result) > MAX_ROWS or len(entries) > MAX_LICENCES:
                raise ValueError(f"more than {MAX_ROWS:,} articles or {MAX_LICENCES:,} licences")
    except (csv.Error, ValueError, IndexError) as error:
        message = (
            f"{path.name} line {rows.line_num}: {str(error)[:200]}; mend it, or take it away to do"
            " without its licences"
        )
        raise BadCase("bad_list", message, path=str(path)) from error
    return result


def _text_lines(path: Path) -> Iterator[str]:
    for _, line in read_lines(path):
        if isinstance(line, BadCase):
            raise line
        yield line
