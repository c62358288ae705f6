"""Whether an ordered test and an entry of the menu are the same test: pure comparisons of what
their names and results say."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from medaction.envs.naming import (
    CULTURED,
    IMAGING,
    Profile,
    can_be_same,
    is_code,
    profile,
    regions_in_text,
    specimen_of,
)
from medaction.envs.orders import cut, is_general, read_order
from medaction.envs.records import DocumentedTest
from medaction.words.tests import parts_of_panel

COVERAGE = 0.6
"""Of the longer name's words, this share must stand in the shorter one."""

SOUGHT = frozenset(
    {
        "antibody",
        "antigen",
        "serology",
        "pcr",
        "culture",
        "smear",
        "stain",
        "sequencing",
        "cytometry",
        "immunofluorescence",
    }
)
"""Kinds of tests that say nothing without what they look for, or where."""

SAMPLED = IMAGING | {"fluoroscopy", "biopsy", "fna", "cytology", "cytometry"}
"""Kinds of entries whose result is of an image or of tissue, so that a word in it is no value in
blood."""

ON_TISSUE = frozenset({"stain", "smear", "pcr", "culture", "immunofluorescence", "sequencing"})
"""Kinds of tests that are done on the tissue of a biopsy, so that its report may tell how they came
out."""

MARKING = frozenset({"immunohistochemistry", "marker", "immunophenotype"})

MARKER = re.compile(
    r"(?:cd|ck|p|s|ki|sox|ttf|pax|gata|mum|bcl|hmb|wt|stat|dog|tle)\s?\d{1,3}[a-z]?|desmin|vimentin|synaptophysin|chromogranin"
)
"""Markers that are ordered by their bare name."""

_IG = frozenset({"igg", "igm", "iga"})


@dataclass(frozen=True, slots=True)
class Name:
    """One name of one entry: its own, an alias, or one of several tests that its name lists."""

    entry: int
    own: bool
    profile: Profile
    inferred: frozenset[str] = frozenset()
    """Regions of the profile that its name leaves open, so that the result or the menu tells them.
    """


def texts_of(test: DocumentedTest) -> Iterator[tuple[str, bool]]:
    """The name of an entry, what it says outside brackets, the single tests that it lists, and its
    aliases."""
    yield cut(test.name), True
    seen = {test.name}
    asked = read_order(test.name)
    listed = [part for part in (*asked.parts, *asked.brackets) if _names_a_test(part)]
    for text in (
        asked.text,
        *(listed if len(asked.parts) + len(asked.brackets) > 1 else ()),
        *test.aliases,
    ):
        if text and (text := cut(text)) not in seen and not is_general(text):
            seen.add(text)
            yield text, False


def _names_a_test(text: str) -> bool:
    """Whether a piece of an entry's name stands for a test: not 'pleural fluid' alone, which is
    where another was done."""
    said = profile(text)
    place = all(
        specimen_of(word) or word in ("fluid", "sample", "swab") for word in said.text.split()
    )
    return not place and bool(said.canonical or said.kinds or "tuberculosis" in said.terms)


def of_all_parts(name: str) -> Profile:
    """The profile of an entry's name; what only some of the tests that it lists are of ('Serum ACE
    and urinary calcium') is left open."""
    whole, asked = profile(name), read_order(name)
    specimens = {profile(part).specimen for part in asked.parts}
    canonical = whole.canonical or (
        profile(asked.text).canonical if len(asked.parts) == 1 else None
    )
    return replace(
        whole, canonical=canonical, specimen=whole.specimen if len(specimens) < 2 else None
    )


def is_short_for(one: str, other: str) -> bool:
    """'abpm' of 'ambulatory blood pressure monitoring'."""
    short, long = sorted((one, other), key=len)
    return (
        len(short) > 2 and " " not in short and short == "".join(word[0] for word in long.split())
    )


def nested(one: Profile, other: Profile) -> bool:
    ours, theirs = _said(one), _said(other)
    return bool(ours and theirs and one.terms | one.kinds and other.terms | other.kinds) and (
        ours <= theirs or theirs <= ours
    )


def may_be_related(ordered: str | None, entry: str | None) -> bool:
    """Whether two known tests are one, or a panel and its part; of a test that no table knows
    anything may be true."""
    if ordered is None or entry is None or ordered == entry:
        return True
    ours, theirs = parts_of_panel(ordered), parts_of_panel(entry)
    return (
        ordered in theirs
        or entry in ours
        or bool(ours and theirs and (ours <= theirs or theirs <= ours))
    )


def tells(entry: Profile, statement: frozenset[str], wanted: Profile) -> bool:
    """Whether a statement, with the name of its entry, tells of a kind of test and of what it
    looked for and where.

    'Blood and urine cultures negative' does of the culture of both, and 'Sputum studies: negative
    for AFB' of the AFB smear.
    """
    sought = wanted.terms - _IG
    if not (sought or wanted.specimen or wanted.regions):
        return False
    if wanted.specimen is None and entry.specimen:
        return False
    places = {specimen_of(word) for word in statement} | {entry.specimen}
    if wanted.specimen and wanted.specimen not in places:
        return False
    if not wanted.regions <= regions_in_text(sorted(statement)) | entry.regions:
        return False
    named = wanted.kinds | (wanted.terms & _IG) <= statement | entry.kinds
    studied = bool(
        sought
        and wanted.specimen
        and wanted.specimen == entry.specimen
        and wanted.kinds <= CULTURED
    )
    return (named or studied) and is_told(sought, statement | entry.terms)


def word_score(wanted: Profile, candidate: Name, told: frozenset[str]) -> float:
    """0: not the same test. Else how much of what either says both say, 0 to 1; an inferred region
    counts half."""
    name = candidate.profile
    if not (wanted.kinds or wanted.terms) or not (name.kinds or name.terms) or is_vague(wanted):
        return 0.0
    if not can_be_same(wanted, name, told):
        return 0.0
    ours = _said(wanted)
    stated = _said(name) - candidate.inferred
    common = ours & stated
    inferred = ours & candidate.inferred
    nested = wanted.terms <= name.terms or name.terms <= wanted.terms
    if wanted.kinds and wanted.kinds <= SOUGHT:
        nested = nested or is_told(wanted.terms - name.terms, told)
    sought = wanted.terms - _IG
    if (
        wanted.kinds
        and wanted.kinds <= SOUGHT
        and sought
        and not (common | inferred) - wanted.kinds
        and not is_told(sought, told)
    ):
        return 0.0  # 'CMV PCR' is not just any PCR
    if (
        wanted.kinds
        and wanted.kinds <= SOUGHT - CULTURED
        and not sought
        and wanted.regions
        and not wanted.regions & name.regions
    ):
        return 0.0  # nor 'thyroid antibodies' just any antibodies
    if wanted.kinds and name.kinds:
        # One of the two may say more ('MRI brain with spectroscopy', 'Biopsy of cervical lymph
        # node'), not both something else.
        enough = (common or inferred) and (nested or wanted.regions & name.regions)
        return (len(common) + len(inferred) / 2) / len(ours | stated) if enough else 0.0
    theirs = stated | inferred
    share = len(ours & theirs) / max(len(ours), len(theirs))
    return share if (ours <= theirs or theirs <= ours) and share >= COVERAGE else 0.0


def is_told(sought: frozenset[str], told: frozenset[str]) -> bool:
    """Whether a result names what is looked for: all codes of it and at least half of the other
    words ('T. cruzi')."""
    missing = sought - told
    return not any(is_code(word) for word in missing) and 2 * len(missing) <= len(sought)


def is_vague(wanted: Profile) -> bool:
    """'Serology', 'culture', 'IgG panel': of what, is not said."""
    more = wanted.terms - _IG or wanted.regions or wanted.specimen
    return bool(wanted.kinds) and wanted.kinds <= SOUGHT - {"sequencing"} | {"imaging"} and not more


def _said(said: Profile) -> frozenset[str]:
    return said.kinds | said.regions | said.terms


def told_of_staining(told: frozenset[str]) -> bool:
    """Whether the words of a report tell of staining for markers."""
    return bool(
        told
        & {"stain", "immunohistochemistry", "immunoreactivity", "cytokeratin", "vimentin", "desmin"}
    ) or any(MARKER.fullmatch(word) for word in told if any(c.isdigit() for c in word))
