"""What the entries of a menu say of themselves, and whether an ordered test and an entry are the
same test: pure comparisons of names and results."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from medaction.envs.naming import (
    CULTURED,
    IMAGING,
    IN_FLUID_AT_END,
    KINDS,
    SOUGHT,
    TISSUES,
    Profile,
    can_be_same,
    canonical_of,
    is_code,
    moments_in,
    more_states,
    profile,
    regions_in_text,
    says_blood,
    specimen_of,
    states_in,
    tokens_of,
)
from medaction.envs.orders import cut, names_no_test, read_order
from medaction.envs.records import DocumentedTest
from medaction.envs.reported import clauses
from medaction.words.names import normalise
from medaction.words.negation import DENIAL, DENIAL_OF_A_LIST, is_undone
from medaction.words.phrases import IN_BRACKETS
from medaction.words.tests import parts_of_panel

COVERAGE = 0.6
"""Of the longer name's words, this share must stand in the shorter one."""

SAMPLED = IMAGING | {"fluoroscopy", "biopsy", "fna", "cytology", "cytometry"}
"""Kinds of entries whose result is of an image or of tissue, so that a word in it is no value in
blood."""

ON_TISSUE = frozenset({"stain", "smear", "pcr", "culture", "immunofluorescence", "sequencing"})
"""Kinds of tests that are done on the tissue of a biopsy, so that its report may tell how they came
out."""

MARKING = frozenset({"immunohistochemistry", "marker", "immunophenotype"})
# Letters and digits apart: 'hmb45' is 'hmb' and '45', as a report may write it.
_PIECES = re.compile(r"[^\W\d_]+|\d+")
_STAINED = frozenset({"stain", "immunohistochemistry", "immunoreactivity", "cytokeratin"})

MARKER = re.compile(
    r"(?:cd|ck|p|s|ki|sox|ttf|pax|gata|mum|bcl|hmb|wt|stat|dog|tle)\s?\d{1,3}[a-z]?"
    r"|(?:er|pr|her\s?2)\b|(?:o?estrogen|progesterone) receptor"
    "|desmin|vimentin|synaptophysin|chromogranin"
)
"""Markers that are ordered by their bare name."""
SYMBOL = re.compile(r"(?:[a-z]{2} )?[a-z]{1,5}\d{1,3}[a-z]?\b")
"""'MDM2' and 'PD-L1' before a word of how much of it there is: in tissue, a marker too."""

_WIDE = frozenset({"angiography", "venography", "pet", "imaging"})
"""Kinds of imaging that say little without their region."""
_OF_AN_ORGAN = frozenset(kind for kind in KINDS if kind.endswith("scopy")) - {
    "endoscopy",
    "fluoroscopy",
    "arthroscopy",
}
"""Endoscopies whose own name says of what: what else one says is how it is made ('flexible')."""
# 'Anti' says of no antibody which one it is.
_OF_ANY = frozenset({"igg", "igm", "iga", "anti"})
_READ = 1500
"""Characters of a result that are read for the regions and words that its entry's name leaves open.
"""


@dataclass(frozen=True, slots=True)
class Name:
    """One name of one entry: that of the menu, an alias, or a test that its name lists."""

    entry: int
    of_entry: bool
    """Whether it is the name that the entry has in the menu."""
    profile: Profile
    inferred: frozenset[str] = frozenset()
    """Regions of the profile that its name leaves open: the result or the menu tells them."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the menu, read."""

    test: DocumentedTest
    profile: Profile
    """Of its name; what only some of the tests that it lists are of is left open."""
    tokens: tuple[str, ...]
    """The words of its result, in order."""
    words: frozenset[str]
    """The same, each once."""
    clauses: tuple[str, ...]
    statements: tuple[frozenset[str], ...]
    """The words of each clause that tells of a test that was done."""


def read_entry(test: DocumentedTest) -> Entry:
    parts = clauses(test.result)
    # Cut again: `normalise` may make one sign into several letters.
    text = normalise(test.result[:_READ])[:_READ]
    tokens = tuple(tokens_of(text))
    reading = _profile_of_entry(cut(test.name))
    # 'Glucose: random 9 mmol/L'; a 'trans-' of a result is of many things.
    of_result = frozenset(state for state in states_in(text) if state[0] != "way")
    reading = replace(reading, states=more_states(reading.states, of_result))
    # 'Potassium: 5.8, 3.2 at 6 hours' answers for both times.
    if not reading.moments and (later := moments_in(text)):
        reading = replace(reading, moments=later | {0})
    return Entry(
        test,
        reading,
        tokens,
        frozenset(tokens),
        parts,
        # Undone tests stay in `clauses`, where `reported` sees that they are undone, but tell no
        # result here.
        tuple(frozenset(tokens_of(normalise(part))) for part in parts if not is_undone(part)),
    )


def _profile_of_entry(name: str) -> Profile:
    """'Serum ACE and urinary calcium' is of no one specimen; 'Urine' is its analysis."""
    reading, parts = profile(name), read_order(name).parts
    # 'Urine' or 'CSF' alone: a report heads the whole examination of a fluid so.
    if reading.specimen and all(map(specimen_of, reading.text.split())):
        reading = replace(reading, canonical=canonical_of(f"{reading.specimen} analysis"))
    specimens = (
        {profile(part).specimen for part in parts} if not IN_FLUID_AT_END.search(name) else ()
    )
    canonical = reading.canonical or (profile(parts[0]).canonical if len(parts) == 1 else None)
    # Of two specimens neither is the name's own: an order of either may be answered.
    specimen = reading.specimen if len(specimens) < 2 else None
    return replace(reading, canonical=canonical, specimen=specimen)


def with_later_tests(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, where one whose name says more in brackets than another's, 'CK (day 5)' beside
    'CK', is marked as that test repeated: a plain order gets the first result, at presentation."""
    plain = {entry.profile.text for entry in entries}
    return [
        replace(entry, profile=replace(entry.profile, repeated=True))
        if (name := normalise(IN_BRACKETS.sub("", entry.test.name))) in plain
        and name != entry.profile.text
        else entry
        for entry in entries
    ]


def names_of_menu(entries: Sequence[Entry], complaint: str = "") -> list[Name]:
    """All names of a menu. What they leave open the result may tell: 'CT: mass in the right lung'
    is of the chest. Where the result does not tell either, the region must be one that the menu
    or the complaint speaks of."""
    spoken_of = [entry.profile.regions | _regions_of_result(entry) for entry in entries]
    of_complaint = regions_in_text(tokens_of(normalise(_complained_of(complaint))))
    # 'Skin' and 'bone' are spoken of everywhere, and are no place of an unnamed image.
    around = of_complaint.union(*spoken_of) - TISSUES
    return [
        name for number in range(len(entries)) for name in _entry_names(number, entries, around)
    ]


def _complained_of(complaint: str) -> str:
    """A complaint without what it denies: 'Hip pain' of 'Hip pain, no neck pain'."""
    affirmed = (DENIAL_OF_A_LIST.split(line, maxsplit=1)[0] for line in complaint.splitlines())
    parts = ", ".join(affirmed).replace(" but ", ", ").replace(";", ",").split(",")
    return ", ".join(DENIAL.split(part, maxsplit=1)[0] for part in parts)


def _regions_of_result(entry: Entry) -> frozenset[str]:
    laboratory = entry.test.category == "laboratory"
    return frozenset() if laboratory else regions_in_text(list(entry.tokens))


def _entry_names(number: int, entries: Sequence[Entry], around: frozenset[str]) -> Iterator[Name]:
    entry = entries[number]
    base, words, category = entry.profile, entry.words, entry.test.category
    modality = words & (IMAGING - {"imaging"})
    regions_in_result = regions_in_text(list(entry.tokens))
    # 'Bone' and 'skin' in a text are what is seen on the way, not where the image is of.
    regions_in_result -= TISSUES - ({"lymphnode"} if category == "pathology" else set())
    sides = words & {"left", "right"}
    # Blood is the default: only another fluid tells something.
    fluids = (specimen_of(token) for token in entry.tokens)
    specimen = next((fluid for fluid in fluids if fluid and fluid != "blood"), None)
    for text, of_entry in _texts_of(entry.test):
        reading = profile(text)
        sampled = category in ("imaging", "pathology") or bool(reading.kinds & SAMPLED)
        # An 'FNAC' beside a 'CT chest' is of another place, if of any.
        is_another = bool(reading.kinds and base.kinds) and not (
            reading.kinds & base.kinds or (reading.kinds | base.kinds) <= IMAGING
        )
        regions = reading.regions or (frozenset() if is_another else base.regions)
        regions = regions or (regions_in_result if sampled else frozenset())
        # An image of no region may be of any that the menu speaks of; an angiography may not.
        if sampled and not regions and not reading.kinds & _WIDE:
            regions = around
        # 'Imaging' is of the modality that its result names.
        open_kind = sampled and reading.kinds == {"imaging"} and not reading.regions
        full = replace(
            reading,
            canonical=reading.canonical or (base.canonical if of_entry else None),
            regions=regions,
            # A result that names both sides says of neither that the image is of it alone.
            sides=reading.sides or (sides if sampled and len(sides) == 1 else frozenset()),
            specimen=reading.specimen
            or base.specimen
            or (specimen if reading.kinds & CULTURED else None),
            kinds=modality if open_kind and modality else reading.kinds,
            moments=reading.moments or base.moments,
            # 'Pathology' of 'Pathology (after surgery)' is of after the surgery too.
            states=more_states(reading.states, base.states),
        )
        yield Name(number, of_entry, full, regions - reading.regions - base.regions)


def _texts_of(test: DocumentedTest) -> Iterator[tuple[str, bool]]:
    """The name of an entry, what it says outside brackets, the single tests that it lists, and its
    aliases; whether it is the name of the menu."""
    yield cut(test.name), True
    order = read_order(test.name)
    parts = (*order.parts, *order.brackets)
    listed = [part for part in parts if _names_a_test(part)] if len(parts) > 1 else []
    # Not `listed`: a fluid in brackets is no test, but makes one of the test before it.
    fluids = [fluid for fluid in map(normalise, order.brackets) if specimen_of(fluid)]
    of_each = [f"{fluid} {order.text}" for fluid in fluids]  # 'Oligoclonal bands (CSF and serum)'
    for text in dict.fromkeys(map(cut, (order.text, *of_each, *listed, *test.aliases))):
        if text and text != test.name and not names_no_test(text):
            yield text, False


def _names_a_test(text: str) -> bool:
    """Whether a piece of an entry's name stands for a test: not 'pleural fluid' alone, which is
    where another was done."""
    reading = profile(text)
    places = ("fluid", "sample", "swab")
    # 'Synovial fluid' says where, 'swab culture' what.
    if all(specimen_of(word) or word in places for word in reading.text.split()):
        return False
    return bool(reading.canonical or reading.kinds or "tuberculosis" in reading.terms)


def nested(name: Profile, other: Profile) -> bool:
    words, more = _content(name), _content(other)
    reading = name.terms | name.kinds and other.terms | other.kinds
    return bool(reading) and (words <= more or more <= words)


def may_be_related(ordered: str | None, entry: str | None) -> bool:
    """Whether two known tests are the same, or a panel and its part; of a test that no table knows
    anything may be true."""
    if ordered is None or entry is None or ordered == entry:
        return True
    parts, more = parts_of_panel(ordered), parts_of_panel(entry)
    return (
        ordered in more
        or entry in parts
        # Two panels: one must be inside the other, else they only overlap.
        or bool(parts and more and (parts <= more or more <= parts))
    )


def tells_of_test(entry: Profile, statement: frozenset[str], ordered: Profile) -> bool:
    """Whether a statement, with the name of its entry, tells of a kind of test and of what it
    looked for and where.

    'Blood and urine cultures negative' does of the culture of both, and 'Sputum studies: negative
    for AFB' of the AFB smear.
    """
    sought = ordered.terms - _OF_ANY
    if not (sought or ordered.specimen or ordered.regions):
        return False
    # A culture of urine does not answer a plain culture.
    if ordered.specimen is None and entry.specimen:
        return False
    places = {specimen_of(word) for word in statement} | {entry.specimen}
    if ordered.specimen and ordered.specimen not in places:
        return False
    # A PCR in blood is none in the fluid that the statement tells of.
    if says_blood(ordered) and places - {None} and "blood" not in places:
        return False
    if not ordered.regions <= regions_in_text(sorted(statement)) | entry.regions:
        return False
    words = statement | entry.kinds
    # Every kind that was ordered: a culture is no answer to 'culture and PCR'.
    kinds_match = ordered.kinds | (ordered.terms & _OF_ANY - {"anti"}) <= words
    # Antibodies and antigens are what a serology looks for, and 'negative testing for parvovirus'
    # leaves open how.
    looked_for = words & {"antibody", "antigen"} or (
        not words & KINDS and words & {"test", "testing"}
    )
    if ordered.kinds == {"serology"} and looked_for:
        kinds_match = True
    # 'Sputum studies: negative for AFB': the entry's specimen stands for the kind.
    same_specimen = bool(sought and ordered.specimen and ordered.specimen == entry.specimen)
    # 'Sputum smear for AFB' says its kind, and tells of no culture.
    grown = frozenset({"culture", "pcr"})
    same_kind = not entry.kinds or entry.kinds & grown == ordered.kinds & grown
    studied = same_specimen and ordered.kinds <= CULTURED and same_kind
    return (kinds_match or studied) and names_sought(sought, statement | entry.terms)


def word_score(ordered: Profile, candidate: Name, result: frozenset[str]) -> float:
    """How much of what either name says both say, 0 to 1; 0: not the same test. An inferred region
    counts half."""
    name = candidate.profile
    if not (ordered.kinds or ordered.terms) or not (name.kinds or name.terms) or is_vague(ordered):
        return 0.0
    if not can_be_same(ordered, name, result):
        return 0.0
    words = _content(ordered)
    stated = _content(name) - candidate.inferred
    common, inferred = words & stated, words & candidate.inferred
    is_nested = ordered.terms <= name.terms or name.terms <= ordered.terms
    if ordered.kinds and ordered.kinds <= SOUGHT:
        sought = ordered.terms - _OF_ANY
        is_nested = is_nested or names_sought(ordered.terms - name.terms, result)
        if sought and not (common | inferred) - ordered.kinds and not names_sought(sought, result):
            return 0.0  # 'CMV PCR' is not just any PCR
        elsewhere = ordered.regions and not ordered.regions & name.regions
        if not sought and elsewhere and ordered.kinds <= SOUGHT - CULTURED:
            return 0.0  # nor 'thyroid antibodies' just any antibodies
        if not is_nested and not ordered.kinds & CULTURED:
            return 0.0  # nor thyroid receptor antibodies those against its peroxidase
    if ordered.kinds and name.kinds:
        # One of the two may say more ('MRI brain with spectroscopy', 'Biopsy of cervical lymph
        # node'), not both something else.
        is_same = is_nested or ordered.regions & name.regions or common & _OF_AN_ORGAN
        enough = (common or inferred) and is_same
        return (len(common) + len(inferred) / 2) / len(words | stated) if enough else 0.0
    documented = stated | inferred
    if not (ordered.kinds and name.kinds):  # a kind that one side leaves open tells nothing
        words, documented = words - ordered.kinds - {"anti"}, documented - name.kinds - {"anti"}
    share = len(words & documented) / max(len(words), len(documented))
    within = words <= documented or documented <= words
    return share if within and share >= COVERAGE else 0.0


def names_sought(sought: frozenset[str], result: frozenset[str]) -> bool:
    """Whether a result names what is looked for: all codes of it and at least half of the other
    words ('T. cruzi'). A code may be written apart: 'HMB-45'."""
    # 'HMB-45' is 'hmb45' in the order.
    absent = {word for word in sought - result if not set(_PIECES.findall(word)) <= result}
    # 'HSV1' in a result tells of HSV.
    types = {re.sub(r"\d+$", "", word) for word in result if len(word) > 3} if absent else set()
    absent -= types
    return not any(map(is_code, absent)) and 2 * len(absent) <= len(sought)


def is_vague(ordered: Profile) -> bool:
    """'Serology', 'culture', 'IgG panel': of what, is not said."""
    more = ordered.terms - _OF_ANY or ordered.regions or ordered.specimen
    return (
        bool(ordered.kinds) and ordered.kinds <= SOUGHT - {"sequencing"} | {"imaging"} and not more
    )


def tells_of_staining(words: frozenset[str]) -> bool:
    """Whether the words of a report tell of staining for markers."""
    return bool(words & _STAINED) or any(map(MARKER.fullmatch, words))


def _content(reading: Profile) -> frozenset[str]:
    return reading.kinds | reading.regions | reading.terms
