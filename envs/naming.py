"""What the name of a test says: which test it is, by which modality, of which body region, side and
specimen.

Tables carry the knowledge: `medaction.words.tests` has the names of tests, data/test_words.toml the
words. Everything else is read off the words, so that 'CT head', 'Head CT scan without contrast' and
'cranial computed tomography' say the same.
"""

import itertools
import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from medaction.words.names import normalise
from medaction.words.phrases import phrase_pattern
from medaction.words.plurals import singular
from medaction.words.tests import NAMES, canonical_names

TABLE: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent / "data" / "test_words.toml").read_text(encoding="utf-8")
)


def _words_of_section(section: str) -> frozenset[str]:
    return frozenset(TABLE[section].split())


def _rows_of_section(section: str) -> list[str]:
    return [line for line in TABLE[section].split("\n") if line]


def _by_word(section: str) -> dict[str, str]:
    """Each word of a row -> the first word of the row."""
    return {
        word: row.split()[0]
        for row in _rows_of_section(section)
        for word in row.split(">")[0].split()
    }


# '~' joins the words of a form, so that no later phrase runs across its border.
_PHRASES = [(form.replace(" ", "~"), phrase_pattern(table)) for form, table in TABLE["phrases"]]
STEMS = frozenset(
    stem.removesuffix("*")
    for _, table in TABLE["phrases"]
    for stem in table.split()
    if stem.endswith("*") and len(stem) > 6
)
"""Beginnings of words that the phrases know with any ending: 'mammogra'."""
_LEFT_OUT = [pattern for form, pattern in _PHRASES if not form]
_CONTRAST = phrase_pattern(TABLE["contrast"])
_NO_CONTRAST = phrase_pattern(TABLE["no_contrast"])

IMAGING = _words_of_section("imaging")
"""Modalities of imaging; 'imaging' alone stands for any of them."""
KINDS = IMAGING | _words_of_section("kinds")
CULTURED = frozenset({"culture", "pcr", "smear", "stain", "cytology"})
"""Kinds of tests that are done on any specimen: a specimen that is not named may be any."""
SOUGHT = CULTURED - {"cytology"} | {
    "antibody",
    "antigen",
    "serology",
    "sequencing",
    "cytometry",
    "immunofluorescence",
}
"""Kinds of tests that say nothing without what they look for, or where."""
GENERAL = _words_of_section("general")
NO_SLIPS = _words_of_section("no_slips")
TISSUES = _words_of_section("tissues")
SHORTHAND: dict[str, str] = TABLE["shorthand"]
REGIONS = _by_word("regions")
WITHIN = {
    row.split()[0]: frozenset(row.partition(">")[2].split()) for row in _rows_of_section("regions")
}
"""Region -> the regions inside it."""
FINDINGS: dict[str, tuple[str, ...]] = {}
"""Words that say of a test how it came out ('anemia' of hemoglobin), by the test's first name."""
for _row in _rows_of_section("findings"):
    _findings, _, _test = _row.partition(" > ")
    FINDINGS[_test] = (*FINDINGS.get(_test, ()), *_findings.split())
TEST_OF_FINDING = {finding: test for test, findings in FINDINGS.items() for finding in findings}

CONDITIONS = _words_of_section("conditions")
"""What a test is done under: a value of it is none of the plain test."""

_STATES = {
    (question, answer.partition(" | ")[0]): phrase_pattern(answer)
    for question, _, answer in (row.partition(" > ") for row in _rows_of_section("states"))
}
_WAYS = {
    short: way
    for shorts, _, way in (row.partition(" > ") for row in _rows_of_section("ways"))
    for short in shorts.split()
}
_LATER_COURSE_STATE = ("course", "later")
_LATER_STATES = {("treatment", "postoperative"), ("fed", "postprandial")}
"""States in which no plain result is taken."""
_AFTERWARDS = re.compile(r"\b(?:after|post(?! void)) (?!\d|(?:\w+ ){0,3}fast)")
"""'Sodium after 3 % saline' and not 'after 3 h' or 'after an overnight fast', which say when. A
post-void residual is a test by itself."""
States = frozenset[tuple[str, str]]
"""Questions of the table of states, each with its answer."""
_WAY = re.compile(r"\b(?:trans|endo)(\w+(?:al|ic))\b")
"""By which way an organ is looked at: 'transvaginal' and 'endovaginal' are one."""
_IGNORED = _words_of_section("ignored")
_REPEATED = _words_of_section("again")
TAKEN = _words_of_section("taken")
AMOUNTS = _words_of_section("amounts")
"""What is counted of a marker in tissue: 'Ki-67 index', 'CD10 expression'."""
# 'Cortical', 'disc' and 'canal' are of many organs: in running text they tell no region.
_ANATOMY = _by_word("anatomy") | {
    word: region for word, region in REGIONS.items() if word not in _words_of_section("ambiguous")
}
_SPECIMENS = _by_word("specimens")
APART = _words_of_section("apart")
_SIDES = frozenset({"left", "right"})
_PLACE = REGIONS.keys() | _SIDES | {"of"}
CLASSES = frozenset({"igg", "igm", "iga", "ige"})
"""Classes of antibodies: alone an amount, with what they are against another test."""
# No minutes: a value after some is one of a test under a condition.
_HOURS = {"h": 1, "hour": 1, "day": 24, "week": 168, "month": 720, "year": 8760}
_UNIT = f"({'|'.join(_HOURS)})s?"
_AFTER = re.compile(rf"\((\d+ ?{_UNIT})\)", re.IGNORECASE)
_OTHER_CLOCK = "(?! (?:urine|(?:of )?(?:fast|gestation|pregnancy|age|old)))"
_MOMENT = re.compile(
    rf"\b(?:at|after|on|in|by) ((?:\d+ (?:and )?){{1,5}}){_UNIT}\b{_OTHER_CLOCK}(?: of \w+)?"
    rf"|\b(\d+) {_UNIT} later\b"
    r"|\b(?:on )?(hour|day|week|month|year) (\d+)$"
    r"|\b(?:at|on) (?:presentation|admission|arrival|baseline)\b"
)
"""When a test is done: 'at 0 and 6 h', '3 months later', 'on day 5', 'on admission'.
'Day 3 FSH' is of the cycle, 'at 20 weeks of gestation' of the pregnancy."""
_UNDER_TREATMENT = re.compile(rf"\d {_UNIT} of (?!life\b|age\b)")
IN_FLUID_AT_END = re.compile(
    rf" (?:from|in|on) (?:the )?(?:{'|'.join(_SPECIMENS)})(?: fluid)?$", re.IGNORECASE
)
"""'Gene Xpert and PCR from CSF': the fluid is that of both."""
_LONGEST_TAIL = 8
"""Words behind a name that are tried without."""
_COLLECTED = frozenset({"urine", "stool"})
"""Specimens that are gathered over hours: 'in 24 h' is no time of theirs."""
_MATERNAL = frozenset({"maternal", "mother"})
_BABY = frozenset({"neonatal"})
_WHOSE = _MATERNAL | _BABY | {"fetal", "baby", "newborn", "patient"}
# A 'CT angiography' is another study than the 'CT' in its name.
_FURTHER = frozenset({"angiography", "venography", "pet", "biopsy", "fluorescein"})
"""What makes another test of a scan."""
_TAPS = frozenset({"tap", "aspirate", "aspiration", "puncture"})
_VESSELS = frozenset({"aorta", "carotid"})
_PLACED = IMAGING | {"biopsy", "bronchoscopy"}
"""Kinds of tests in whose names 'cervical' or 'nasal' is a place and no specimen."""


_AND_OR = "(?:/|,? and |, )"
_ORGAN = "(?:liver|hepatic|renal|kidney|thyroid|coagulation)"
_SPINE_LEVEL = "(?:cervical|thoracic|lumbar|lumbosacral)"
_SHARED_NOUNS = [
    # 'Liver and renal function tests': the noun stands behind the last of them alone.
    (rf"\b({word}){_AND_OR}(?=(?:{word}{_AND_OR})*{word} (?:{nouns}))", rf"\1 {noun}, ")
    for word, nouns, noun in (
        (_ORGAN, "function|profile|panel", "function"),
        ("(?:o?estrogen|progesterone)", "receptor", "receptor"),
        (_SPINE_LEVEL, "spine|spinal cord|cord", "spine"),
        (f"(?:{'|'.join(_SPECIMENS)})", "cultures?", "culture"),
    )
]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a test's name says. Empty sets and None: the name does not say."""

    text: str
    canonical: str | None
    """The first name of the test in the table of tests."""
    kinds: frozenset[str]
    regions: frozenset[str]
    sides: frozenset[str]
    specimen: str | None
    terms: frozenset[str]
    """The words that are none of the above: what is measured or looked for."""
    repeated: bool = False
    """Whether it is a test done again: 'repeat CT', 'follow-up MRI'."""
    contrast: bool | None = None
    moments: frozenset[int] = frozenset()
    """How many hours after presentation it is done."""
    states: States = frozenset()
    """How each question of the table of states is answered."""


@lru_cache(maxsize=20_000)
def canonical_of(name: str) -> str | None:
    """The test that `name` is a name of, also with a specimen or a word like 'test' around it."""
    text = normalise(name)
    tests = canonical_names()
    if text in tests:
        return tests[text]
    for pattern in (_MOMENT, *_LEFT_OUT):
        text = pattern.sub(" ", text)
    aside = _IGNORED | _REPEATED | _WHOSE
    words = [word for word in text.split() if {word, _singular(word)}.isdisjoint(aside)]
    # 'Initial CSF' is 'CSF', and 'serum LDH level' is 'LDH'; 'urine culture' is no 'culture' of
    # anything.
    spelt = text.split()
    # 'Cardiac enzyme tests'; of a row of a thousand such words each cut would take a pass.
    tail = [*itertools.takewhile(aside.__contains__, reversed(spelt[-_LONGEST_TAIL:]))]
    # Not all of the tail at once: that is `words`, which comes after the shorter cuts.
    shorter = (spelt[:-length] for length in range(1, len(tail)))
    # From the name as written to ever less of it: the first that is known is the nearest.
    of_any = [[word for word in form if word not in _SPECIMENS] for form in (spelt, words)]
    for bare in (spelt, *shorter, of_any[0], words, of_any[1]):
        for form in (" ".join(bare), " ".join(map(_singular, bare))):
            if form in tests:
                return tests[form]
    places = itertools.takewhile(_PLACE.__contains__, reversed(words))
    head = " ".join(words[: len(words) - len([*places])])  # 'arthrocentesis of the left knee'
    if head in tests:
        return tests[head]
    # Last, since a joined or turned name may by chance be another test's.
    apart = _written_apart()
    return (
        apart.get("".join(text.split()))
        or apart.get("".join(words))
        or _of_antibody(words)
        or _of_count_or_fluid(words)
    )


@cache
def _written_apart() -> dict[str, str]:
    """The first name of a test by each of its longer names without spaces: 'anti-ds-DNA' is
    'anti-dsDNA'. A name that would be two tests' is left out."""
    tests: dict[str, set[str]] = {}
    for name, first in canonical_names().items():
        tests.setdefault(name.replace(" ", ""), set()).add(first)
    # Five letters or fewer join to another abbreviation by chance.
    return {
        name: min(firsts) for name, firsts in tests.items() if len(firsts) == 1 and len(name) > 5
    }


def _of_antibody(words: list[str]) -> str | None:
    """'dsDNA antibody' is 'anti-dsDNA', and the other way round."""
    tests = canonical_names()
    if words[-1:] in (["antibody"], ["antibodies"]):
        return tests.get(" ".join(["anti", *words[:-1]]))
    return tests.get(" ".join([*words[1:], "antibody"])) if words[:1] == ["anti"] else None


def _of_count_or_fluid(words: list[str]) -> str | None:
    """'Retics' are their count, and a 'tap of the ascites' is an analysis of it."""
    fluids = {_SPECIMENS.get(word) for word in words if word not in _TAPS}
    if len(fluids) == 1 and (fluid := min(fluids, key=str)):
        return canonical_names().get(f"{fluid} fluid analysis") if len(words) > 1 else None
    return canonical_names().get(" ".join([*map(_singular, words), "count"]))


def names_in_a_row(text: str) -> list[str]:
    """The names of tests that text strings together without separators ('FSH LH estradiol'), if
    hardly anything else is left; else `text`."""
    if canonical_of(text) is not None:
        return [text]
    words = normalise(text).split()
    names: list[str] = []
    strangers = start = 0
    while start < len(words):
        # The longest name first: 'c reactive protein' before 'protein'.
        ends = range(min(len(words), start + 6), start, -1)
        end = next((end for end in ends if " ".join(words[start:end]) in canonical_names()), 0)
        last = canonical_names().get(names[-1], "") if names else ""
        if end and words[start] in CLASSES and "antibody" in last:
            names[-1] += f" {words[start]}"  # 'tTG IgG' is one test
        elif end:
            names.append(" ".join(words[start:end]))
        elif words[start] not in _IGNORED and words[start] not in _SPECIMENS:
            strangers += 1
        start = end or start + 1
    # 'CBC of the patient with fever' is prose: more strangers than names.
    return names if len(names) > 1 and strangers <= (len(names) - 1) // 2 else [text]


@lru_cache(maxsize=20_000)
def profile(name: str) -> Profile:
    """Read off what `name` says."""
    canonical = canonical_of(name)
    text = normalise(name)
    timed = normalise(_AFTER.sub(r" at \1 ", name))  # 'Troponin (3 h)'
    collected = any(_SPECIMENS.get(word) in _COLLECTED for word in text.split())
    words = text if collected else _MOMENT.sub(" ", timed)
    if canonical is not None:
        # The table may say more than the name: a 'pregnancy test' is one in serum and in urine.
        places = _SPECIMENS.keys() | _WHOSE | _SIDES | REGIONS.keys()
        # 'Serum and urine immunofixation' is of two fluids, whatever the test's own.
        in_own_fluid = fluids_in(text) == {_own_fluid(canonical)}
        more = [w for w in text.split() if w in places and not (in_own_fluid and specimen_of(w))]
        known = canonical
        in_fluid = bool({_SPECIMENS.get(word) for word in more} - {None, "blood"})
        if in_fluid:
            # 'CSF white blood cells' are none of the blood.
            known = " ".join(word for word in canonical.split() if word != "blood" or word in more)
        # 'Urine pregnancy test' is in the table a name of what 'serum hCG' is, and one in urine.
        is_whole = text in canonical_names() and not (in_fluid and not fluids_in(canonical))
        words = canonical if is_whole else " ".join([known, *more])
    tokens = tokens_of(words)
    kinds = frozenset(tokens) & KINDS
    # KUB: kidneys, ureters and bladder, a plain film where no other modality is named.
    if "kub" in tokens and not kinds & IMAGING:
        kinds |= {"xray"}
    regions = frozenset(REGIONS[token] for token in tokens if token in REGIONS)
    if "cervical" in tokens and kinds & (IMAGING | {"fna"}):
        regions |= {"neck"}
    moments = frozenset() if collected or "fetus" in regions else moments_in(timed)
    special = _IGNORED | KINDS | _SIDES | _MATERNAL | _REPEATED | _SPECIMENS.keys() | REGIONS.keys()
    return Profile(
        text=text,
        canonical=canonical,
        # 'MRI imaging': 'imaging' says nothing beside a modality.
        kinds=kinds - {"imaging"} if kinds & IMAGING - {"imaging"} else kinds,
        regions=regions,
        sides=frozenset(tokens) & (_SIDES | _MATERNAL | _BABY),
        specimen=_specimen(tokens),
        terms=frozenset(tokens) - special - (TAKEN if "biopsy" in kinds else frozenset()),
        repeated=(bool(moments) and 0 not in moments) or not _REPEATED.isdisjoint(text.split()),
        contrast=contrast_in(text),
        moments=moments,
        states=states_in(text),
    )


@cache
def _own_fluid(canonical: str) -> str | None:
    """The fluid in which a test is done whether its name says it or not: '5-HIAA' is in urine."""
    of_names = {fluids_in(name) for name in NAMES[canonical]}
    fluids = frozenset[str]().union(*of_names)
    return next(iter(fluids)) if len(fluids) == 1 and frozenset() in of_names else None


def states_in(text: str) -> States:
    text = text.replace("following", "after")
    states = [state for state, pattern in _STATES.items() if pattern.search(text)]
    if _AFTERWARDS.search(text) or not _LATER_STATES.isdisjoint(states):
        states.append(_LATER_COURSE_STATE)
    ways = (*_WAY.findall(text), *(_WAYS[word] for word in text.split() if word in _WAYS))
    return frozenset([*states, *(("way", way) for way in ways)])


def _states_differ(order: States, entry: States) -> bool:
    """Whether both answer one question of the table of states, and otherwise: 'fasting glucose' is
    no 'random glucose'; a plain 'glucose' may be either."""
    common = {question for question, _ in order} & {question for question, _ in entry}
    return any(
        entry.isdisjoint(state for state in order if state[0] == question) for question in common
    )


def moments_in(text: str) -> frozenset[int]:
    """The moments that a normalised text tells of, in hours after presentation."""
    moments = set()
    for match in _MOMENT.finditer(text):
        numbers, unit = (match[1] or match[3] or match[6] or "0"), (match[2] or match[4])
        # 'Day 1' is the day of presentation.
        first = int(match[0].endswith("day 1"))
        hours = _HOURS.get(unit or match[5], 0)
        moments |= {(int(n) - first) * hours for n in re.findall(r"\d+", numbers)}
    return frozenset(moments)


def same_moment(order: Profile, entry: Profile) -> bool:
    """Whether two names tell of one time, as far as both tell one. A result before a treatment is
    none after it."""
    if not (order.moments and entry.moments):
        return not order.moments or entry.repeated or not _UNDER_TREATMENT.search(order.text)
    return not order.moments.isdisjoint(entry.moments)


def tokens_of(words: str) -> list[str]:
    """The words of a normalised text, with each phrase for a modality, kind or region in one
    form."""
    for form, pattern in _PHRASES:
        words = pattern.sub(form, words)
    return [_singular(token) for word in words.split() for token in word.split("~") if token]


def _specimen(tokens: list[str]) -> str | None:
    specimens = [_SPECIMENS[token] for token in tokens if token in _SPECIMENS]
    # Blood is what most tests are of: it tells nothing unless it is cultured.
    fluid = next((specimen for specimen in specimens if specimen != "blood"), None)
    if fluid is None:
        return "blood" if specimens and "culture" in tokens and "blood" in tokens else None
    if tokens == [tokens[0], "blood"]:
        return fluid  # 'urine blood' looks for blood in the urine
    if fluid != "pleural" and not _PLACED.isdisjoint(tokens):
        return None  # a cervical spine CT is of no specimen
    return None if "blood" in specimens else fluid  # 'serum and CSF antibody' is of either


def name_each_noun(text: str) -> str:
    """'Renal and liver function' is 'renal function, liver function'; so of 'cervical and thoracic
    spine' and of 'blood and urine cultures'."""
    for pattern, named in _SHARED_NOUNS:
        text = re.sub(pattern, named, text, flags=re.IGNORECASE)
    return text


def contrast_in(text: str) -> bool | None:
    """'With contrast', 'without contrast'; 'with and without contrast' says neither."""
    without = _NO_CONTRAST.search(text) is not None
    contrast = _CONTRAST.search(_NO_CONTRAST.sub(" ", text)) is not None
    contrast = contrast or "with and without" in text
    return contrast if contrast != without else None


def regions_in_text(tokens: list[str]) -> frozenset[str]:
    """The body regions that a running text speaks of."""
    return frozenset(_ANATOMY[token] for token in tokens if token in _ANATOMY)


def specimen_of(word: str) -> str | None:
    """The specimen that a word names: 'urinary' -> 'urine'."""
    return _SPECIMENS.get(word)


def fluids_in(text: str) -> frozenset[str]:
    """The specimens that the words of a text name, blood among them."""
    return frozenset(filter(None, map(specimen_of, normalise(text).split())))


def _singular(word: str) -> str:
    # What the tables know is compared as it stands there.
    return word if word in REGIONS or word in _IGNORED or word in KINDS else singular(word)


def is_code(word: str) -> bool:
    """Whether a word tells tests of one name apart: IgG and IgM, C3 and C4, factor V and VIII,
    hepatitis B and C."""
    return (
        len(word) == 1
        or any(character.isdigit() for character in word)
        or word in CLASSES
        or set(word) <= set("ivx")
    )


def codes_of(name: Profile) -> frozenset[str]:
    return frozenset(filter(is_code, name.terms))


def says_how(text: str) -> bool:
    """Whether a text tells in which state, which way or with which contrast a test is made."""
    plain = normalise(text)
    return contrast_in(plain) is not None or bool(states_in(plain))


def can_be_same(order: Profile, entry: Profile, result: frozenset[str] = frozenset()) -> bool:
    """The guards that hold at every step: nothing that both names say may differ. `result`: the
    words of the entry's result.

    'CT head' is not 'CT chest', 'sodium' is not 'potassium', 'CSF glucose' is not 'glucose', 'left
    knee' is not 'right knee'; 'CT angiography' is more than 'CT', so it is not answered by one.
    """
    if order.canonical and entry.canonical and order.canonical != entry.canonical:
        return False
    # Of the texts: a table may have several classes under one name.
    classes = [CLASSES.intersection(side.text.split()) for side in (order, entry)]
    if all(classes) and classes[0].isdisjoint(classes[1]):
        return False
    codes, entry_codes = codes_of(order), codes_of(entry)
    # One may say more ('IgG' of 'IgG and IgM'), neither something else.
    return (
        (codes <= entry_codes or entry_codes <= codes)
        and same_moment(order, entry)
        and same_states(order, entry)
        and _same_kind(order, entry)
        and can_be_same_place(order, entry)
        and _none_apart(order, entry, result)
    )


def can_be_same_place(order: Profile, entry: Profile) -> bool:
    """The guards of region, side, specimen and mother or child."""
    left_or_right = order.sides & _SIDES, entry.sides & _SIDES
    # Both must say a side for it to differ.
    if all(left_or_right) and left_or_right[0] != left_or_right[1]:
        return False
    whose = order.sides - _SIDES, entry.sides - _SIDES
    if all(whose) and whose[0].isdisjoint(whose[1]):
        return False
    return _same_regions(order, entry) and _same_specimen(order, entry)


def same_modality(order: Profile, entry: Profile) -> bool:
    """Whether two names speak of the same modality of imaging and kind of test, as far as both
    say."""
    return not order.kinds or not entry.kinds or _same_kind(order, entry)


def _none_apart(order: Profile, entry: Profile, result: frozenset[str]) -> bool:
    ordered, documented = order.terms | order.kinds, entry.terms | entry.kinds
    if "biopsy" in ordered:  # an endobronchial biopsy is one of the lung
        return True
    return not (ordered - documented - result) & APART


def _same_kind(order: Profile, entry: Profile) -> bool:
    ordered, documented = order.kinds, entry.kinds
    if not ordered or not documented:  # 'sputum AFB' leaves open how it is looked for
        if not order.terms & entry.terms:
            return not ordered and not documented
        # 'Jo-1' is the antibody against it, if no table knows it as a test of its own.
        unknown = not (order.canonical or entry.canonical)
        open_kinds = CULTURED | {"serology"} | ({"antibody", "antigen"} if unknown else set())
        # 'Bone age' tells no modality, and its X-ray may be ordered.
        is_image = unknown and entry.regions & order.regions and entry.terms <= order.terms
        return ordered | documented <= open_kinds or bool(is_image and ordered <= IMAGING)
    both = ordered | documented
    if "imaging" in both and ordered != documented:  # any modality, but only of what it names
        return both <= IMAGING and bool(order.regions & entry.regions)
    if documented == {"cytology"} and "fna" in ordered:
        return True
    if "catheter" in order.terms and documented & {"ct", "mri"}:
        return False
    if "angiography" in ordered and "heart" in order.regions ^ entry.regions:
        return False  # the coronary arteries are another study than those of the lung
    further = (documented - ordered) & _FURTHER
    around = order.regions.union(*(WITHIN[region] - _VESSELS for region in order.regions))
    # A CT of the vessels of a region shows the region, an MRI of them does not.
    shows_region = around & entry.regions and "mri" not in ordered
    return ordered <= documented and (not further or bool(shows_region))


def same_states(order: Profile, entry: Profile) -> bool:
    """Whether both answer each question of the table of states alike. A glucose of any hour may be
    the fasting one; what is done after a treatment or a meal, and a vessel's ultrasound, must be
    told."""
    if _states_differ(order.states, entry.states):
        return False
    untold = more_states(entry.states, order.states) - entry.states
    # An image after a fall is the first one, a value after a drug is not.
    later = _LATER_STATES | ({_LATER_COURSE_STATE} if order.kinds <= SOUGHT else set())
    if untold & later and not (entry.repeated or entry.moments or "biopsy" in entry.kinds):
        return False  # tissue that was removed is seen after the operation
    is_doppler = not {"doppler", "duplex"}.isdisjoint(entry.text.split())
    of_vessel = any(question == "vessel" for question, _ in untold)
    return not of_vessel or "ultrasound" not in order.kinds & entry.kinds or is_doppler


def more_states(states: States, others: States) -> States:
    """The states with what others answer of the questions that they leave open."""
    answered = {question for question, _ in states}
    return states | {state for state in others if state[0] not in answered}


def _same_regions(order: Profile, entry: Profile) -> bool:
    ordered, documented = order.regions, entry.regions
    if "fetus" in ordered - documented or (_MATERNAL & order.sides and "fetus" in documented):
        return False
    # A tissue ('bone') beside a region says less than the region.
    if ordered - TISSUES and documented - TISSUES:
        ordered, documented = ordered - TISSUES, documented - TISSUES
    if not ordered or not documented:
        return True
    around = ordered.union(*(WITHIN[region] for region in ordered))
    return bool(around & documented) or any(ordered & WITHIN[region] for region in documented)


def _same_specimen(order: Profile, entry: Profile) -> bool:
    if order.specimen == entry.specimen:
        return True
    if any(says_blood(one) and other.specimen for one, other in ((order, entry), (entry, order))):
        return False
    if order.specimen is None and order.kinds == {"antigen"} and order.terms:
        return True  # 'histoplasma antigen' is looked for in urine
    in_fluid = canonical_names().get(f"{entry.specimen} {order.text}")
    if order.specimen is None and in_fluid and in_fluid == order.canonical:
        return True  # a 'pregnancy test' is made in urine too, and the table has both names
    open_side = order.specimen is None or (entry.specimen is None and entry.terms <= order.terms)
    return open_side and bool(CULTURED & order.kinds)


def says_blood(name: Profile) -> bool:
    fluids = {_SPECIMENS.get(word) for word in name.text.split()} - {None}
    return fluids == {"blood"}


@lru_cache(maxsize=4096)
def synonyms_of(name: str) -> tuple[str, ...]:
    """All names of the same test, `name` itself among them; of 'urine protein' also 'protein', as a
    urinalysis has it."""
    if canonical := canonical_of(name):
        return tuple(map(normalise, NAMES[canonical]))
    text = normalise(name)
    # Both for a test that no table knows: its report may leave the specimen out.
    aside = _SPECIMENS.keys() | _IGNORED
    return text, " ".join(word for word in text.split() if word not in aside)


@cache
def vocabulary() -> frozenset[str]:
    """All words that the tables know: a word of an order that stands here is no slip of the pen."""
    words = {word for name in canonical_names() for word in name.split()}
    return frozenset(words).union(_IGNORED, GENERAL, KINDS, _ANATOMY, _SPECIMENS, APART)
