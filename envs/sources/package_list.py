"""The list that PMC puts beside each bulk package: '<package>.filelist.csv' with each article's
licence and whether it is retracted.

Columns are found by name: AccessionID (PMC and digits), License ('CC BY', 'NO-CC CODE', ...),
Retracted ('yes' or 'no').
"""

import csv
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from medaction.envs.records import BadCase
from medaction.envs.sources.files import inside, read_lines

MAX_ROWS = 1_000_000
"""A package holds the articles of one block of a million ids."""

NO_LICENCE = {"", "none", "no-cc code"}
_COLUMNS = ("AccessionID", "License", "Retracted")
_CODES = 2**12
"""Room for different licences; PMC has about ten."""

SUFFIX = ".filelist.csv"


class PackageList:
    """Licence and retraction by PMCID, 8 bytes an article: a package has up to a million."""

    def __init__(self) -> None:
        self._entries = array("q")
        self._licences: dict[str, int] = {}

    def add(self, number: int, licence: str, retracted: bool) -> None:
        code = self._licences.setdefault(licence, len(self._licences))
        # Bounded, since the list is untrusted: its codes must fit into their bits.
        if code >= _CODES or len(self._entries) >= MAX_ROWS:
            raise ValueError(f"more than {MAX_ROWS:,} articles or {_CODES:,} licences")
        # Article, licence and retraction in one integer, so that sorting finds them again.
        self._entries.append((number * _CODES + code) * 2 + retracted)

    def close(self) -> None:
        """To be called once, after the last `add` and before the first `find`."""
        self._entries = array("q", sorted(self._entries))

    def find(self, pmcid: str) -> tuple[str, bool] | None:
        """(licence, retracted) of an article, the licence '' where it has none; None where the list
        does not name it."""
        if not re.fullmatch(r"PMC[0-9]{1,12}", pmcid):
            return None
        number = int(pmcid[3:])
        # The smallest entry that the article can have.
        at = bisect_left(self._entries, number * _CODES * 2)
        if at == len(self._entries) or self._entries[at] // (_CODES * 2) != number:
            return None
        code, retracted = divmod(self._entries[at] % (_CODES * 2), 2)
        licence = next(licence for licence, known in self._licences.items() if known == code)
        return ("" if licence.casefold() in NO_LICENCE else licence), bool(retracted)


def list_beside(package: Path) -> PackageList:
    """The list beside a package; an empty one where there is none.

    Raises BadCase('bad_list' | 'outside_folder' | 'unreadable' | 'too_large' | 'bad_encoding'): a
    list that is there but cannot be read may hide a retraction, so the package is not read without
    it.
    """
    # The package's own spelling stays: only its ending is compared without case.
    name = package.name.lower().removesuffix(".tar.gz").removesuffix(".tgz")
    path = package.with_name(package.name[: len(name)] + SUFFIX)
    result = PackageList()
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
            if not re.fullmatch(r"PMC[0-9]{1,12}", pmcid):
                raise ValueError(f"{pmcid[:40]!r} is no article id")
            result.add(int(pmcid[3:]), licence, retracted.casefold() == "yes")
    except (csv.Error, ValueError, IndexError) as error:
        message = (
            f"{path.name} line {rows.line_num}: {str(error)[:200]}; mend it, or take it away to do"
            " without its licences"
        )
        raise BadCase("bad_list", message, path=str(path)) from error
    result.close()
    return result


def _text_lines(path: Path) -> Iterator[str]:
    for _, line in read_lines(path):
        if isinstance(line, BadCase):
            raise line
        yield line
