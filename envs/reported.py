"""Whether a result in running text reports the value of a test: 'Hb: 9 g/dL', 'elevated AST and
ALT', 'mild anemia', 'TSH normal'."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

from medaction.envs.naming import specimen_of
from medaction.words.names import GREEK

_STATUS = re.compile(
    r"\b(?:elevat\w+|rais\w+|high|higher|low|lower|normal\w*|negativ\w*|positiv\w*|decreas\w+|increas\w+|reduc\w+|abnormal\w*|undetectable"
    r"|unremarkable|within|prolong\w+|present|absent|absence|detect\w+|confirm\w+|noted|identified|revealed|showed|suppressed|deranged"
    r"|reactive|nonreactive|no|not|without|mild\w*|moderate\w*|marked\w*|severe\w*|slight\w*|borderline|deficien\w+|diagnos\w+|growth|grew)\b"
)
_MEASURED = (
    r"(?:elevat\w+|rais\w+|high|higher|low|lower|normal|negative|positive|decreas\w+|increas\w+|reduced|undetectable|detect\w+|noted|within"
    r"|unremarkable|prolonged|suppressed|not|abnormal)"
)
_VALUE_AFTER = re.compile(
    rf"[\s,]*(?:\([^()]{{1,40}}\)\s*)?(?:(?:levels?|titers?|activity|concentrations?|antibod\w+)\s*)?(?:[:=(]\s*)?(?:(?:was|were|is|are|of|at)\s+)*"
    rf"(?:[<>≤≥~]?\s*\d|{_MEASURED}\b)"
)
_VALUE_BEFORE = re.compile(
    rf"\b{_MEASURED}[\s(:]{{1,3}}(?:(?:serum|plasma|blood|urine|urinary|levels?|titers?|values?|activity|tests?|testing|screen\w*|results?|for|of|the|and)\s+|[\w-]+,\s*(?:and\s+)?){{0,8}}$"
)
_DISEASE = re.compile(
    r"""\b(?:disease|syndrome|disorder|infection|cancer|malignan\w+|tumou?r|lesion|mass|abscess|failure|injury|fracture|deficiency|diagnosis
    |fistula|hernia|aneurysm|occlusion|dissection|pregnancy|abortion|cysts?|poisoning|intoxication|palsy|rupture|embolism|infarction|torsion
    |atresia|malformation|calculus|perforation|fever|\w+(?:omas?|itis|osis|iasis|[ae]emia|opathy|plasia|trophy|ectasis|rrhage|plegia|algia
    |tension|cele|pox|uria))\b""",
    re.VERBOSE,
)
_NOT_DONE = re.compile(
    r"\b(?:not|never|without being) (?:performed|done|measured|available|obtained|tested|checked|taken|ordered|reported)"
    r"|\b(?:pending|await\w+|planned|scheduled)\b|\bno \w+ levels? measured"
)
_CLAUSE_END = re.compile(r"(?<!e\.g)(?<!i\.e)\.(?=\s|$)|[;\n]|,? but\b|\bwhile\b|\bwhereas\b")
_UNITS_AND_WORDS = frozenset(
    [
        "mg",
        "k",
        "na",
        "cl",
        "ca",
        "cr",
        "pt",
        "t3",
        "t4",
        "fe",
        "ph",
        "lh",
        "hb",
        "rf",
        "la",
        "125",
        "19 9",
        "15 3",
        "ada",
    ]
)
_SIGNS = str.maketrans(dict.fromkeys("‐‑‒–—−", "-") | GREEK)
_ORGAN = r"(?:liver|hepatic|renal|kidney|thyroid|coagulation)"
_JOINT = r"\s{0,2}(?:,|/|and|, and)\s{0,2}"
_FUNCTIONS = re.compile(
    rf"\b({_ORGAN}){_JOINT}(?=(?:{_ORGAN}{_JOINT}){{0,3}}{_ORGAN}\s(?:functions?|profiles?|panels?)\b)"
)
"""'Normal liver and renal function' is 'normal liver function, renal function'."""
_FACTORS = re.compile(r"\bfactors [ivx]+\b(?:[ ,]{1,2}(?:and )?[ivx]+\b){1,12}")
_MOST = 6000
"""Characters of a result that are read."""
_AROUND = 300
"""Characters before and after a name in which its value is looked for."""
_PLACES = 10
"""Mentions of a name in one statement that are looked at."""


def clauses(result: str) -> tuple[str, ...]:
    """The statements of a result, in lower case."""
    text = unicodedata.normalize("NFKC", result[:_MOST])[:_MOST].casefold().translate(_SIGNS)
    text = _FUNCTIONS.sub(r"\1 function, ", text)
    text = _FACTORS.sub(
        lambda found: ", ".join(
            f"factor {number}" for number in re.findall(r"\b[ivx]+\b", found[0])
        ),
        text,
    )
    return tuple(piece for clause in _CLAUSE_END.split(text) if (piece := clause.strip()))


def reports(
    statements: Sequence[str], name: str, specimen: str | None = None, known: bool = True
) -> bool:
    """Whether one of the statements gives the value of `name`, by a figure or a word, in blood or
    the given specimen.

    A name that no table of tests has (`known` false) must stand right beside its value, and a name
    of a disease is none: nobody gets 'confirmed Wilson disease' by ordering 'Wilson disease'.
    """
    if not known and names_a_disease(name):
        return False
    if (len(name) < 2 and name != "k") or not (
        any(c.isalpha() for c in name) or name in _UNITS_AND_WORDS
    ):
        return False
    first = name.split(maxsplit=1)[0]
    likely = [statement for statement in statements if first in statement]
    if not likely:
        return False
    named = _named(name)
    places = (
        (statement, found)
        for statement in likely
        for found in islice(named.finditer(statement), _PLACES)
    )
    return any(_gives(statement, found, name, specimen, known) for statement, found in places)


def names_a_disease(name: str) -> bool:
    return _DISEASE.search(name) is not None


def is_done(statement: str) -> bool:
    """Whether a statement tells of no test that was left undone: 'CA 19-9 not performed',
    'sequencing pending'."""
    return _NOT_DONE.search(statement) is None


def mentions(statements: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a statement has one of `words` as a word of its own ('anemia', 'thrombocytopenia')."""
    found = _any_of(tuple(words))
    return any(found.search(statement) for statement in statements)


@lru_cache(maxsize=4096)
def _named(name: str) -> re.Pattern[str]:
    name = re.sub(r"(?<=[a-z]{4}[^s])s$", "", name)
    words = r"[\s\-_/]{0,3}".join(re.escape(word) for word in name.split())
    return re.compile(rf"(?<![a-z0-9-]){words}(?:s|es)?(?![a-z0-9])")


@lru_cache(maxsize=512)
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)})\b")


def _gives(
    statement: str, found: re.Match[str], name: str, specimen: str | None, known: bool
) -> bool:
    before, after = (
        statement[max(0, found.start() - _AROUND) : found.start()],
        statement[found.end() : found.end() + _AROUND],
    )
    if _NOT_DONE.search(before[-25:] + found[0] + after.partition(",")[0][:60]):
        return False
    near = re.findall(r"[a-z]+", re.split(r"[,;:(]", before)[-1])[-5:]
    of = next((specimen_of(word) for word in reversed(near) if specimen_of(word)), None)
    if of not in (None, specimen, "blood"):
        return False
    if (
        name in _UNITS_AND_WORDS
    ):  # 'mg' of '3 mg/dL' is no magnesium: a figure or a word for it must follow at once
        return not re.search(r"\d\s*$", before) and bool(
            re.match(r"\s*(?:[:=(]\s*|levels?\s+|was\s+|is\s+|of\s+)*[<>≤≥~]?\s*\d", after)
            or re.match(
                rf"\s*(?:[:=(]\s*|levels?\s+|was\s+|were\s+|is\s+)*{_STATUS.pattern}", after
            )
            or (_STATUS.search(before) and re.match(r"\s*(?:[,)]|and\b|levels?\b|$)", after))
        )
    if not known:
        return bool(_VALUE_AFTER.match(after) or _VALUE_BEFORE.search(before))
    return bool(
        re.search(r"\d", after)
        or re.match(r"\s*[:=]", after)
        or _STATUS.search(before)
        or _STATUS.search(after)
    )
