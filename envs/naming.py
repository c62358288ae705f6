"""What the name of a test says: which test it is, by which modality, of which body region, side and specimen.

Two tables carry the knowledge: data/test_names.txt (names of the same test) and data/test_panels.txt (tests that report others).
Everything else is read off the words, so that 'CT head', 'Head CT scan without contrast' and 'cranial computed tomography' say the same.
"""

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

_DATA = Path(__file__).parent / "data"


def _lines(name: str) -> list[str]:
    lines = (_DATA / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


SYNONYMS: dict[str, tuple[str, ...]] = {
    names[0]: names for names in (tuple(line.split(" | ")) for line in _lines("test_names.txt"))
}
"""All names of a test by its first name."""

PANELS: dict[str, tuple[str, ...]] = {
    panel: tuple(parts.split(" | ")) for panel, _, parts in (line.partition(": ") for line in _lines("test_panels.txt"))
}
"""The tests that a panel reports, by their first names."""

# Words for the same modality or kind of test; the left side is what names are compared by. Longer phrases first.
_PHRASES: tuple[tuple[str, str], ...] = (
    ("xray", r"x rays?|xrays?|radiographs?|radiography|radiographic|roentgenograms?|plain films?|orthopantomogra\w+|opg"),
    ("pet", r"(?:fdg )?pet ct|(?:fdg )?pet|positron emission tomography(?: ct)?"),
    ("ct angiography", r"ct angiogra\w+|cta|computed tomogra\w+ angiogra\w+|ctpa"),
    ("mri angiography", r"mr angiogra\w+|mra|magnetic resonance angiogra\w+"),
    ("mrcp", r"mrcp|magnetic resonance cholangiopancreatography"),
    ("ct", r"(?:hr|ce|nc|cb)?ct(?: scans?)?|computed tomogra\w+(?: scans?)?|computerized tomogra\w+|cat scans?"),
    ("mri heart", r"cmr|cardiac mri?|cardiac magnetic resonance(?: imaging)?"),
    ("mri", r"(?:diffusion|susceptibility) weighted imaging|dwi|swi|flair"),
    ("mri", r"mris?(?: scans?)?|magnetic resonance(?: imaging)?|mr(?: imaging)?"),
    ("echo transesophageal", r"tee|(?:trans)?esophageal echocardiogra\w+|(?:trans)?esophageal echo"),
    ("echo", r"(?:transthoracic |doppler )?echocardiogra\w+|(?:transthoracic )?echo|tte|echocardiograms?"),
    ("ultrasound pelvis", r"tvus|transvaginal (?:ultraso\w+|sonogra\w+|us)"),
    ("ultrasound", r"ultraso\w+|sonogra\w+|usg|us|doppler|duplex"),
    ("endoscopic ultrasound", r"eus"),
    ("ecg", r"electrocardiogra\w+|e[ck]gs?"),
    ("eeg", r"electroencephalogra\w+|eegs?"),
    ("holter", r"holter(?: monitor\w*)?|ambulatory (?:ecg|heart|cardiac|rhythm)(?: monitor\w*)?"),
    ("scintigraphy bone", r"bone scans?|bone scintigra\w+"),
    ("scintigraphy", r"scintigra\w+|radionuclide scans?"),
    ("mammography", r"mammogra\w+"),
    ("angiography", r"angiogra\w+|arteriogra\w+"),
    ("imaging", r"imaging|radiolog\w+"),
    ("fna", r"fnac?|fine needle aspirat\w+(?: cytology)?|needle aspirat\w+"),
    ("biopsy", r"biops\w+|histopatholog\w+|histolog\w+|patholog\w+"),
    ("cytometry", r"flow cytometry|immunophenotyping"),
    ("immunofluorescence", r"immunofluorescence|dif"),
    ("culture", r"cultures?"),
    ("pcr", r"pcr|naat|polymerase chain reaction|nucleic acid amplification"),
    ("antibody igg", r"igg(?: antibod\w+)?"),
    ("antibody igm", r"igm(?: antibod\w+)?"),
    ("antibody iga", r"iga(?: antibod\w+)?"),
    ("antibody", r"antibod\w+|abs?|autoantibod\w+"),
    ("serology", r"serolog\w+|elisa|immunoassay"),
    ("antigen", r"antigens?|ag"),
    ("colonoscopy", r"colonoscop\w+"),
    ("bonemarrow", r"bone marrow"),
    ("lymphnode", r"lymph nodes?"),
    ("spine", r"(?:cervical|thoracic|lumbar|lumbosacral|thoracolumbar|sacral|c|l|t) spine|spinal cord"),
    ("spine", r"spinal|vertebra\w*|lumbar|lumbosacral|sacral"),
    ("tuberculosis", r"tb|mycobacterium tuberculosis"),
    ("acetylcholine receptor", r"achr"),
    ("hepatitis b", r"hbv"),
    ("hepatitis c", r"hcv"),
    ("leg", r"lower (?:limbs?|extremit\w+)|legs?"),
    ("arm", r"upper (?:limbs?|extremit\w+)|arms?"),
    ("ruq", r"right upper quadrant"),
)  # fmt: skip
_PHRASE_PATTERNS = [(canonical, re.compile(rf"\b(?:{words})\b")) for canonical, words in _PHRASES]

_WORDS: dict[str, str] = tomllib.loads((_DATA / "test_words.toml").read_text(encoding="utf-8"))
_IGNORED = frozenset(_WORDS["ignored"].split())
IMAGING = frozenset(_WORDS["imaging"].split())
_KINDS = IMAGING | frozenset(_WORDS["kinds"].split())
_REGION_LINES = [line.partition(" > ") for line in _WORDS["regions"].split("\n") if line]
REGIONS = {word: words.split()[0] for words, _, _ in _REGION_LINES for word in words.split()}
_WITHIN = {words.split()[0]: frozenset(inner.split()) for words, _, inner in _REGION_LINES}
_SPECIMENS = {word: line.split()[0] for line in _WORDS["specimens"].split("\n") if line for word in line.split()}
CULTURED = frozenset({"culture", "pcr", "smear", "stain", "cytology"})
"""Kinds of tests that are done on any specimen: one that is not named may be any."""

_FURTHER = {"angiography", "venography", "pet", "biopsy", "fluorescein"}
"""What makes another test of a scan."""

_MARROW = "bonemarrow"
_SEROLOGY = {"serology", "antibody", "antigen"}

_SIDES = {"left", "right"}
_GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "κ": "kappa", "λ": "lambda", "µ": "u", "μ": "u"}


@dataclass(frozen=True, slots=True)
class Profile:
    """What a test's name says. Empty sets and None: the name does not say."""

    text: str
    canonical: str | None
    kinds: frozenset[str]
    regions: frozenset[str]
    sides: frozenset[str]
    specimen: str | None
    rest: frozenset[str]


def normalise(name: str) -> str:
    """`name` in lower case with single spaces, without accents and punctuation, in American spelling.

    >>> normalise("Chest_X-Ray"), normalise("Haemoglobin"), normalise("β-hCG")
    ('chest x ray', 'hemoglobin', 'beta hcg')
    """
    plain = "".join(_GREEK.get(c, c) for c in unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    plain = re.sub(r"['’`]s\b", "", plain)
    words = re.sub(r"[^a-z0-9+]+", " ", plain).split()
    return " ".join(_american(word) if len(word) > 5 else word for word in words)


def _american(word: str) -> str:
    return re.sub(r"(?<=[bctv])re$", "er", re.sub(r"(?<!^)ae|^ae(?=[a-z]{3})|oe(?=[a-z]{3})", "e", word))


@cache
def _canonical_names() -> dict[str, str]:
    known = {normalise(name): canonical for canonical, names in SYNONYMS.items() for name in names}
    return known | {name.replace(" and ", " "): canonical for name, canonical in known.items()}


def canonical_of(name: str) -> str | None:
    """The test of `SYNONYMS` that `name` is a name of, also with a specimen or a word like 'test' around it."""
    text = normalise(name)
    known = _canonical_names()
    if text in known:
        return known[text]
    bare = " ".join(word for word in text.split() if word not in _IGNORED and word not in _SPECIMENS)
    return known.get(bare)


def known_names_in(text: str) -> list[str]:
    """The names that text strings together without separators ('FSH LH estradiol'), when nothing else is left; else `text` alone."""
    words = normalise(text).split()
    names, start = [], 0
    while start < len(words):
        ends = range(min(len(words), start + 6), start, -1)
        end = next((end for end in ends if " ".join(words[start:end]) in _canonical_names()), None)
        if end is not None:
            names.append(" ".join(words[start:end]))
        elif words[start] not in _IGNORED and words[start] not in _SPECIMENS:
            return [text]
        start = end or start + 1
    return names if len(names) > 1 and canonical_of(text) is None else [text]


@lru_cache(maxsize=50_000)
def profile(name: str) -> Profile:
    """Read off what `name` says."""
    canonical = canonical_of(name)
    text = normalise(name)
    words = text
    if canonical is not None:  # the table may say more than the name: a 'pregnancy test' is one in serum and in urine
        words = canonical if text in _canonical_names() else f"{canonical} {_specimen_word(text)}"
    for replacement, pattern in _PHRASE_PATTERNS:
        words = pattern.sub(replacement.replace(" ", "~"), words)
    tokens = [_singular(token) for word in words.split() for token in word.split("~")]
    specimen = next((_SPECIMENS[t] for t in tokens if t in _SPECIMENS and _SPECIMENS[t] != "blood"), None)
    if specimen is None and "culture" in tokens and "blood" in tokens:
        specimen = "blood"
    special = _IGNORED | _KINDS | _SIDES | set(_SPECIMENS) | set(REGIONS)
    kinds = frozenset(tokens) & _KINDS
    return Profile(
        text=text,
        canonical=canonical,
        kinds=kinds - {"imaging"} if kinds & IMAGING - {"imaging"} else kinds,
        regions=frozenset(REGIONS[t] for t in tokens if t in REGIONS),
        sides=frozenset(tokens) & frozenset(_SIDES),
        specimen=specimen,
        rest=frozenset(t for t in tokens if t not in special),
    )


def _specimen_word(text: str) -> str:
    return next((word for word in text.split() if word in _SPECIMENS), "")


def _singular(word: str) -> str:
    known = word in REGIONS or word in _IGNORED or word in _KINDS
    return word[:-1] if len(word) > 4 and word.endswith("s") and not word.endswith(("ss", "is", "us")) and not known else word


_CODE = re.compile(r"\w*\d\w*|[ivx]+|ig[gmae]|[a-z]")
"""What tells tests of one name apart: IgG and IgM, C3 and C4, factor V and VIII, hepatitis B and C."""


def can_be_same(order: Profile, entry: Profile) -> bool:
    """The guards that hold at every step: nothing that both names say may differ.

    'CT head' is not 'CT chest', 'sodium' is not 'potassium', 'CSF glucose' is not 'glucose', 'left knee' is not 'right knee';
    'CT angiography' is more than 'CT', so it is not answered by one.
    """
    if order.canonical and entry.canonical and order.canonical != entry.canonical:
        return False
    if order.sides and entry.sides and order.sides != entry.sides:
        return False
    ours, theirs = (frozenset(filter(_CODE.fullmatch, said.rest)) for said in (order, entry))
    if not (ours <= theirs or theirs <= ours):
        return False
    return _same_kind(order, entry) and _same_regions(order, entry) and _same_specimen(order, entry)


def _same_kind(order: Profile, entry: Profile) -> bool:
    ours, theirs = order.kinds, entry.kinds
    if not ours or not theirs:
        return not ours and not theirs
    if "imaging" in ours | theirs and ours != theirs:  # any modality, but only of what it names
        return bool(ours & IMAGING and theirs & IMAGING and order.regions & entry.regions)
    if "serology" in ours | theirs and ours & _SEROLOGY and theirs & _SEROLOGY:
        return ours - _SEROLOGY <= theirs
    return ours <= theirs and (not (theirs - ours) & _FURTHER or bool(order.regions & entry.regions))


def _same_regions(order: Profile, entry: Profile) -> bool:
    if _MARROW in order.regions ^ entry.regions and order.kinds & {"biopsy", "fna"}:
        return False
    if not order.regions or not entry.regions:
        return True
    around = {inner for region in order.regions for inner in _WITHIN[region]} | order.regions
    return bool(around & entry.regions) or any(order.regions & _WITHIN[region] for region in entry.regions)


def _same_specimen(order: Profile, entry: Profile) -> bool:
    if order.specimen == entry.specimen:
        return True
    one_sided = order.specimen is None or entry.specimen is None
    return one_sided and bool(CULTURED & order.kinds)


def synonyms_of(name: str) -> tuple[str, ...]:
    """All names of the same test, `name` itself among them; of 'urine protein' also 'protein', as a urinalysis has it."""
    if canonical := canonical_of(name):
        return tuple(normalise(known) for known in SYNONYMS[canonical])
    text = normalise(name)
    return text, " ".join(word for word in text.split() if word not in _SPECIMENS and word not in _IGNORED)
