"""The ICD-10-CM tree, read straight from the XML that the simple-icd-10-cm package carries."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache

from medaction.kg.cache import cached_json
from medaction.kg.packages import package_path
from medaction.words.versions import code_of, version_of

NOT_DISEASES = {"20", "21"}
"""Chapters left out: external causes (V00-Y99) and factors influencing health status (Z00-Z99)."""

_UNSPECIFIED = re.compile(
    r"^Unspecified |,? (NOS|unspecified( organism| site| cause)?|not elsewhere classified)$"
)
_INCOMPLETE = re.compile(r" (of|in|by|with|to|and|or|due)$")
_BRACKETS = re.compile(r"\s*[\[(][^\])]*[\])]")


@dataclass(frozen=True, slots=True)
class IcdCode:
    """A chapter, a block or a code. `name` is the official one freed of 'unspecified' and of what
    stands in brackets (modifiers that do not matter, abbreviations, ranges of codes); `synonyms`
    are the official name and the inclusion terms."""

    code: str
    name: str
    synonyms: tuple[str, ...]
    parent: str | None


@cache
def load_icd() -> dict[str, IcdCode]:
    """Every entry of the tree by code, parents first, without the chapters in NOT_DISEASES. Reading
    the XML takes a second of CPU, once on a machine."""
    rows = cached_json("icd", version_of(code_of(__name__)), _rows_of_tree)
    return {code: IcdCode(code, name, tuple(terms), parent) for code, name, terms, parent in rows}


def _rows_of_tree() -> list[tuple[str, str, tuple[str, ...], str | None]]:
    path = package_path("simple_icd_10_cm", "data/icd10c-tabular-April-1-2026.xml")
    # Read as XML without more ado: the file's hash was checked.
    return [
        astuple(code)
        for chapter in ET.parse(path).getroot().findall("chapter")
        if chapter.findtext("name") not in NOT_DISEASES
        for code in _walk(chapter, None)
    ]


def _walk(element: ET.Element, parent: str | None) -> Iterator[IcdCode]:
    code = _code(element)
    official = (element.findtext("desc") or "").strip()
    terms = [official, *(note.text or "" for note in element.findall("inclusionTerm/note"))]
    plain = plain_name(official)
    # Terms as they are written, too: 'NOS' is what records say.
    synonyms = dict.fromkeys(
        name for term in terms for name in (term, plain_name(term)) if name and name != plain
    )
    yield IcdCode(code, plain, tuple(synonyms), parent)
    for child in element:
        if child.tag in ("section", "diag"):
            # A block of one code bears that code's name ('C50'): the code hangs on what the block
            # hangs on.
            yield from _walk(child, parent if _code(child) == code else code)


def _code(element: ET.Element) -> str:
    # Blocks bear their code as an id, chapters and codes as a name.
    return element.get("id") or element.findtext("name") or ""


def plain_name(term: str) -> str:
    """'Influenza NOS' -> 'Influenza', 'Pneumonia, unspecified organism' -> 'Pneumonia'.

    >>> plain_name("Essential (primary) hypertension")
    'Essential hypertension'
    """
    plain = _BRACKETS.sub("", _UNSPECIFIED.sub("", term)).strip() or term
    # Brackets may hold what the name needs: it would end in 'due to' or 'of'.
    plain = term if _INCOMPLETE.search(plain) else plain
    return plain[0].upper() + plain[1:]
