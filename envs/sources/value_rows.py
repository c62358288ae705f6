"""The grammar of a row of values: 'WBC 9.7, CRP 25.9 mg/L', in which a value follows every name."""

import itertools
import re
from collections.abc import Iterator

from medaction.envs.diagnosis_names import english_words
from medaction.envs.mentions import named_tests
from medaction.envs.naming import (
    CLASSES,
    CULTURED,
    TEST_OF_FINDING,
    canonical_of,
    profile,
    specimen_of,
)
from medaction.envs.orders import IN_FLUIDS
from medaction.envs.sources.finding_sentences import (
    BARE_STATUS,
    IMPRESSION,
    SHOWS,
    SHOWS_A_VALUE,
    tests_joined,
    without_quality,
)
from medaction.words.names import normalise
from medaction.words.phrases import phrase_regex
from medaction.words.sentences import split_outside_brackets
from medaction.words.tests import canonical_names

# '68Ga-DOTATATE PET/CT was negative' begins a sentence as well; the '2' of 'No. 2' none.
RESULT_END = re.compile(r"(?<=[.;])\s+(?=(?:\d+[a-z]?-?)?[A-Z])|;\s+")
# 'CRP 212, falling to 40 by day 4' goes on with the value.
_GOES_ON = (
    r"(?:(?:\w+ly )?\w+(?:ing|ed) (?:to|from)|down|up|with|which|then"
    rf"|(?:\w+ly )?(?=\w+ing\b){SHOWS}) "
)
# 'Negative Shiga toxin PCR, ruling out HUS': what the value means.
_INTERPRETED = re.compile(rf",\s(?:\w+ly )?(?=\w+ing\b){SHOWS}\s")
ITEM_END = re.compile(rf"(?:[,;]\s+(?:and\s+)?|\n)(?!{_GOES_ON})")
# What only may end an item: 'and' joins words of one name, too.
_ITEM_MAY_END = re.compile(r"(?:,\s+)?\b(?:and|with)\s+")
_ENDS_NAME = (
    "and | or | but | with | without | which | that | from | after | before | than | in | except"
)
_WORD_OF_NAME = rf"(?!{phrase_regex(_ENDS_NAME, '')} )[^\s,;()=:]+"
# 'Elevated CK (8,120 U/L)', 'plasma EBV-DNA quantification at 166 copies/mL', 'ANA negative'
_VALUE_ITEM = re.compile(
    rf"(?:initial )?(?P<status>(?:\w+ly )?{BARE_STATUS.pattern})?"
    rf"(?P<name>(?={_WORD_OF_NAME})(?:[A-Za-zα-ω]|\d[\d,]*-h?)[^\s,;()=:]*"
    rf"(?: {_WORD_OF_NAME}){{0,6}}?)"
    r"(?: \((?P<short>[A-Za-z][\w/-]*)\))?"
    r"(?: (?:levels?|of|at|was|is|were))*\s*[:=]?\s*"
    # Not the number of a name: 'HbA1c', 'T4'. In brackets the analyte may be named again.
    r"(?P<value>(?:[(](?:[^()\d]{0,20}(?<=\W))?)?[<>≤≥~]?\s*(?<![\w-])\d.*"
    rf"|(?:\w+ly )?{IMPRESSION}\b.*|)",
    re.IGNORECASE,
)
# 'negative urine and blood cultures': several tests with a status of their own.
_JOINED_ITEM = re.compile(
    rf"(?P<status>(?:\w+ly )?{BARE_STATUS.pattern})"
    r"(?P<name>[^,;:()\d]{2,50} and [^,;:()\d]{2,50})(?P<short>)(?P<value>)",
    re.IGNORECASE,
)
_LONGEST_ITEM = 200
"""Characters of an item with its reference range: our choice."""
# 'Splenomegaly (14 cm)' is what was found, and names no analyte.
_FINDING_NOUN = re.compile(r"(?:osis|itis|megaly)$")


def analytes_of(result: str) -> list[tuple[str, str]]:
    """Each analyte of 'WBC 9.7 x 10^3/uL, CRP 25.9 mg/L' with its own words; none where an item is
    anything else.

    A word before the first item ('Elevated ESR (75), CRP (4)') is said of all of them, so such a
    result stays in one piece.
    """
    row = row_of_values(result)
    return [] if shares_status(row) else [(name, item) for name, item, _ in row]


def row_of_values(text: str) -> list[tuple[str, str, re.Match[str]]]:
    """The name, the words and the grammar of each item of a list in which a value follows every
    noun phrase; none where an item is anything else: all or none, since such a line is prose."""
    row = []
    for item, words in _items_of_row(text.strip(" .")):
        value = value_of_item(item)
        if value is None:
            return []
        # 'Severe anemia (6.8 g/dL)' is a hemoglobin.
        name = value["name"]
        if canonical_of(name) is None:
            name = TEST_OF_FINDING.get(normalise(name).split()[-1], name)
        name = without_quality(name)
        # 'CA 19-9 400 U/mL' is no calcium.
        if " and " in value["name"] and named_tests(name):
            row += [(each, words, value) for each in tests_joined(value["name"])]
            continue
        longer = " ".join([name, *re.findall(r"\A[\d–-]\S*", value["value"])])
        is_longer = normalise(longer) in canonical_names()
        is_longer = is_longer or any(map(longer.endswith, named_tests(longer)))
        row.append((longer if is_longer else name, words, value))
    names = [name for name, *_ in row]
    # 'Urine sodium 40, potassium 20', 'dengue IgM positive, IgG negative': what names no specimen,
    # or nothing that it is against, may be of the one before.
    is_shared = any(
        (
            profile(one).specimen not in (None, "blood")
            and may_be_of_fluid(two)
            and not any(map(specimen_of, normalise(two).split()))
        )
        or (normalise(two) in CLASSES and "antibody" in profile(one).kinds)
        for one, two in itertools.pairwise(names)
    )
    # An analyte that stands twice was measured twice, and needs its words.
    is_row = len(row) > 1 and len(set(map(normalise, names))) == len(row)
    is_row = is_row and len({value.string for *_, value in row}) > 1
    is_known = any(canonical_of(name) is not None or named_tests(name) for name in names)
    return row if is_row and is_known and not is_shared else []


def _items_of_row(text: str) -> Iterator[tuple[str, str]]:
    """Each item of a list, and its words: of 'elevated AST (120) and ALT (85)' both items have all
    of them, with the status."""
    for piece in split_outside_brackets(ITEM_END, text):
        items = [*_joined_items(piece)]
        values = [value_of_item(item) for item in items]
        statuses = [bool(value and value["status"]) for value in values]
        is_shared = len(items) > 1 and statuses[0] and not any(statuses[1:])
        yield from ((item, piece.strip() if is_shared else item) for item in items)


def _joined_items(piece: str) -> Iterator[str]:
    start = end = 0
    for part in split_outside_brackets(_ITEM_MAY_END, piece):
        place = piece.index(part, end)
        if end and value_of_item(part) and value_of_item(piece[start:end]):
            yield piece[start:end].strip()
            start = place
        end = place + len(part)
    yield piece[start:end].strip()


def value_of_item(item: str) -> re.Match[str] | None:
    """The name and the value of an item, where the name is a known test's or may be an analyte's
    that no table knows: a noun phrase that is neither plain English, nor an organ, nor a finding.
    """
    item = _INTERPRETED.split(item, maxsplit=1)[0].strip(" .;")
    if len(item) > _LONGEST_ITEM or len(split_outside_brackets(RESULT_END, item)) > 1:
        return None
    # A long row of spaces would be tried in every way.
    words_of_item = " ".join(item.split())
    value = _VALUE_ITEM.fullmatch(words_of_item) or _JOINED_ITEM.fullmatch(words_of_item)
    if value is None or not (words := normalise(value["name"]).split()):
        return None
    canonical = canonical_of(value["name"])
    is_known = canonical is not None or bool(named_tests(value["name"]))
    is_finding = canonical is None and words[-1] in TEST_OF_FINDING
    # Without a value: 'leukocytosis', 'elevated D-dimer'.
    if is_finding or not value["value"]:
        return value if is_finding or (is_known and value["status"]) else None
    if canonical is not None:
        return value
    has_code = re.search(r"[A-Za-z]-?\d", value["name"])
    is_plain = english_words().issuperset(words) and not (is_known or has_code)
    reading = profile(value["name"])
    # 'Spleen 14 cm' is of an organ, 'hepatic copper' of what is measured in it.
    tells = (reading.regions and not reading.terms) or _FINDING_NOUN.search(words[-1])
    return None if is_plain or tells or SHOWS_A_VALUE.search(value["name"]) else value


def shares_status(row: list[tuple[str, str, re.Match[str]]]) -> bool:
    """'Elevated ESR (75), CRP (4)': whether an item's status is said of a later one, too, which
    has its value in the same form: not of that behind 'elevated ESR (75)' in '..., Hb 9 g/dL'."""
    shared = None
    for name, words, value in row:
        # A finding has its own status, and so has what shares that of the item before.
        if value["status"] or name not in words or value.string != words:
            shared = value["value"][:1] if value["status"] else shared
        elif shared in ("(", None) and shared != value["value"][:1]:
            continue
        elif re.match(r"\W*\d", value["value"]):
            return True
    return False


def may_be_of_fluid(label: str) -> bool:
    """Whether a label names no specimen, and a test that is done in fluids, too."""
    reading = profile(label)
    in_fluids = (reading.canonical or reading.text) in IN_FLUIDS or reading.kinds & CULTURED
    return not reading.specimen and bool(in_fluids)
