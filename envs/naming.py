"""What the name of a test says: which test it is, by which modality, of which body region, side and
specimen.

Tables carry the knowledge: data/test_names.txt and data/test_names_ordered.txt (names of the same
test), data/test_panels.txt (tests that report others) and data/test_words.toml (words). Everything
else is read off the words, so that 'CT head', 'Head CT scan without contrast' and 'cranial computed
tomography' say the same.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from medaction.words.names import normalise
from medaction.words.plurals import singular

_DATA = Path(__file__).parent / "data"


def _lines(name: str) -> list[str]:
    lines = (_DATA / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _named(table: str) -> dict[str, tuple[str, ...]]:
    return {names[0]: names for names in (tuple(line.split(" | ")) for line in _lines(table))}


SYNONYMS: dict[str, tuple[str, ...]] = _named("test_names.txt")
"""All names of a test by its first name, as they are met in running text."""

ORDERED_NAMES: dict[str, tuple[str, ...]] = {
    first: tuple(dict.fromkeys((*SYNONYMS.get(first, ()), *names)))
    for first, names in (SYNONYMS | _named("test_names_ordered.txt")).items()
}
"""The same with the names that mean a test where a test's name is expected."""

PANELS: dict[str, tuple[str, ...]] = {
    panel: tuple(parts.split(" | "))
    for panel, _, parts in (line.partition(": ") for line in _lines("test_panels.txt"))
}
"""The tests that a panel reports, by their first names."""

# Words for the same modality or kind of test; the left side is what names are compared by. Longer
# phrases first.
_PHRASES: tuple[tuple[str, str], ...] = (
    ("", r"(?:ct|us|(?:endobronchial |endoscopic )?ultraso\w+|ebus|eus|mri?|image|fluoroscop\w+) guided"),
    ("", r"(?:stereotactic\w*|computed tomogra\w+) guided"),
    ("", r"(?:at |day |week |month |year )?\d+ (?:days?|weeks?|months?|years?)(?: ago| later| gestation)?|(?:day|week|month) \d+"),
    ("", r"x ?\d|tc ?99m?|99m ?tc|18 ?f|f ?18|68 ?ga|ga ?68|technetium \w+|i ?1[23]\d|pure tone"),
    ("dotatate", r"(?:68 ?ga |ga ?68 )?dota(?:tate|toc|noc)|somatostatin receptor"),
    ("head neck", r"cranio ?cervical|cervico ?cranial|cerebro ?cervical"),
    ("ruq", r"right upper quadrant"),
    ("abdomen pelvis", r"iliac fossa|lower quadrant"),
    ("abdomen", r"epigastri\w+|hypochondri\w+|left upper quadrant"),
    ("", r"post (?:biopsy|op(?:erative)?|surg\w+|treatment|reduction)|pre (?:op(?:erative)?|surg\w+|treatment)|surgical(?= path)"),
    ("xray chest", r"cxr|chest films?"),
    ("xray abdomen", r"axr|abdominal films?|kub films?"),
    ("xray face", r"orthopantomogra\w+|opg|panoramic (?:dental )?(?:x ?rays?|radiogra\w+|films?)"),
    ("xray", r"x rays?|xrays?|radiographs?|radiography|radiographic|roentgenograms?|(?:plain )?films?"),
    ("pet", r"(?:fdg |18f fdg |f fdg )?(?:pet ct|petct|pet mri?|pet)|(?:fdg )?positron emission tomography(?: ct)?|fdg"),
    ("ct venography", r"ct venogra\w+|ctv"),
    ("mri venography", r"(?:mr|magnetic resonance) venogra\w+|mrv"),
    ("ct angiography chest", r"ctpa|ct pulmonary angiogra\w+"),
    ("ct angiography", r"ct angiogra\w+|ms ?cta|cta|computed tomogra\w+ angiogra\w+"),
    ("mri angiography", r"mr angiogra\w+|mra|magnetic resonance angiogra\w+"),
    ("mrcp", r"mrcp|(?:magnetic resonance|mr) cholangiopancreatogra\w+"),
    ("ct kidney", r"ct urogra\w+|ctu"),
    ("ct face", r"cbct|cone beam (?:ct|computed tomogra\w+)"),
    ("ct", r"(?:hr|ce|nc|md|ms|ld)?ct(?: scans?)?|computed tomogra\w+(?: scans?)?|computerized tomogra\w+|cat scans?"),
    ("mri heart", r"cmr|cardiac mri?|cardiac magnetic resonance(?: imaging)?"),
    ("mri", r"(?:diffusion|susceptibility) weighted imaging|dwi|swi|flair"),
    ("mri", r"mris?(?: scans?)?|magnetic resonance(?: imaging)?|mr(?: imaging)?"),
    ("echo heart transesophageal", r"tee|toe|trans ?o?esophageal echo(?:cardiogra\w+)?|esophageal echo(?:cardiogra\w+)?"),
    ("echo heart", r"(?:transthoracic |trans thoracic |doppler )?echo ?cardiogra\w+|(?:transthoracic )?echo|tte"),
    ("echo heart", r"(?:cardiac|heart) (?:ultraso\w+|sonogra\w+)"),
    ("ultrasound endobronchial", r"ebus"),
    ("ultrasound pelvis", r"tvus|transvaginal (?:ultraso\w+|sonogra\w+|us)"),
    ("ultrasound", r"ultraso\w+|sonogra\w+|sonograms?|usg|us|doppler|duplex"),
    ("endoscopic ultrasound", r"eus"),
    ("ecg", r"electro ?cardiogra\w+|e[ck]gs?"),
    ("eeg", r"electroencephalogra\w+|eegs?"),
    ("holter", r"holter(?: monitor\w*)?|ambulatory (?:ecg|heart|cardiac|rhythm)(?: monitor\w*)?"),
    ("scintigraphy bone", r"bone scans?|bone scintigra\w+"),
    ("scintigraphy", r"scintigra\w+|radionuclide scans?"),
    ("mammography breast", r"mammogra\w+"),
    ("densitometry bone", r"bone (?:mineral )?densit\w+|densitometry|dexa|dxa"),
    ("venography", r"venogra\w+|phlebogra\w+"),
    ("angiography", r"angiogra\w+|arteriogra\w+|aortogra\w+"),
    ("imaging", r"imaging|radiolog\w+|scans(?= of)"),
    ("fna", r"fna[cb]?|fine needle aspirat\w+(?: biops\w+)?(?: cytology)?|needle aspirat\w+"),
    ("biopsy", r"biops\w+|bx|histo ?patholog\w+|histolog\w+|patholog\w+|dermatopatholog\w+|microscopic (?:findings|examination)"),
    ("cytology", r"cytolog\w+|cytopatholog\w+"),
    ("cytometry", r"flow cytometr\w+|immunophenotyp\w+"),
    ("immunofluorescence", r"immunofluorescence|dif"),
    ("sequencing", r"genetic (?:test\w*|analys\w+|stud\w+|sequencing|screen\w*|panel)|genotyp\w+|sanger"),
    ("sequencing", r"gene(?:tic)? (?:panel|sequencing|test\w*)"),
    ("sequencing", r"(?:next generation |targeted |dna |molecular )?sequencing|ngs"),
    ("sequencing", r"mutation(?:al)? (?:analys\w+|test\w*)|molecular (?:genetic )?test\w*"),
    ("culture", r"cultures?"),
    ("tuberculosis stain", r"ziehl(?: neelsen| nielsen)?(?: stain\w*)?|zn stain\w*"),
    ("stain immunohistochemistry", r"immuno ?histo ?chem\w+(?: stain\w*)?|ihc(?: stain\w*)?|immuno ?(?:peroxidase )?stain\w*"),
    ("stain", r"stain(?:s|ed|ing)?"),
    ("pcr tuberculosis", r"genexpert|xpert(?: mtb(?: rif)?)?|cb ?naat"),
    ("pcr", r"pcr|naat|polymerase chain reaction|nucleic acid amplification"),
    ("antibody igg", r"igg(?: antibod\w+)?"),
    ("antibody igm", r"igm(?: antibod\w+)?"),
    ("antibody iga", r"iga(?: antibod\w+)?"),
    ("antibody", r"antibod\w+|abs?|autoantibod\w+"),
    ("serology", r"serolog\w+|elisa|immunoassay"),
    ("antigen", r"antigens?|ag"),
    ("colonoscopy", r"ileo ?colonoscop\w+|colonoscop\w+"),
    ("bronchoscopy", r"bronchoscop\w+"),
    ("hysteroscopy", r"hysteroscop\w+"),
    ("laparoscopy", r"laparoscop\w+"),
    ("arthroscopy", r"arthroscop\w+"),
    ("laryngoscopy", r"laryngoscop\w+"),
    ("", r"(?:19|20)\d\d"),
    ("cystoscopy", r"cysto(?:urethro)?scop\w+"),
    ("bonemarrow", r"bone marrow|bm(?= (?:biops|bx|aspir|exam))"),
    ("lymphnode neck", r"(?:cervical|supraclavicular) (?:lymph ?)?nodes?"),
    ("lymphnode", r"lymph nodes?|(?<=axillary )nodes?|(?<=sentinel )nodes?|nodes?(?= (?:biops|excision|aspirat|fna))"),
    ("spine", r"(?:cervical|thoracic|lumbar|lumbosacral|thoracolumbar|sacral|c|l|t) spine|spinal cord"),
    ("spine", r"spinal|vertebra\w*|lumbar|lumbosacral|sacral"),
    ("tuberculosis", r"tb|mtb|mycobacteri\w+(?: tuberculosis)?|afb|acid fast(?: bacill\w+)?"),
    ("acetylcholine receptor", r"achr"),
    ("sarscov2", r"covid(?: 19)?|sars cov ?2?|(?:novel )?coronavirus(?: 2019)?"),
    ("cmv", r"cytomegalovirus"),
    ("ebv", r"epstein barr(?: virus)?"),
    ("hsv", r"herpes simplex(?: virus)?"),
    ("vzv", r"varicella(?: zoster)?(?: virus)?|herpes zoster"),
    ("hiv", r"human immunodeficiency virus|retroviral|retrovirus"),
    ("echinococcus", r"hydatid\w*|echinococ\w+"),
    ("streptococcus", r"strep|streptococc\w+"),
    ("pneumocystis", r"pneumocystis(?: jir\w+| carinii)?|pcp|pjp"),
    ("toxoplasma", r"toxoplasm\w+"),
    ("aspergillus", r"aspergill\w+|galactomannan"),
    ("cryptococcus", r"cryptococc\w+"),
    ("histoplasma", r"histoplasm\w+"),
    ("brucella", r"brucell\w+"),
    ("influenza", r"flu|influenza(?: [ab])?(?: and b)?"),
    ("hepatitis b", r"hbv"),
    ("hepatitis c", r"hcv"),
    ("fetal", r"fetal|fetus|prenatal|antenatal|obstetric\w*"),
    ("leg", r"lower (?:limbs?|extremit\w+)|legs?"),
    ("arm", r"upper (?:limbs?|extremit\w+)|arms?"),
)  # fmt: skip
_PHRASE_PATTERNS = [(canonical, re.compile(rf"\b(?:{words})\b")) for canonical, words in _PHRASES]

_WORDS: dict[str, Any] = tomllib.loads((_DATA / "test_words.toml").read_text(encoding="utf-8"))
_IGNORED = frozenset(_WORDS["ignored"].split())
GENERAL = frozenset(_WORDS["general"].split())
NO_SLIPS = frozenset(_WORDS["no_slips"].split())
SHORTHAND: dict[str, str] = _WORDS["shorthand"]
_AGAIN = frozenset(_WORDS["again"].split())
IMAGING = frozenset(_WORDS["imaging"].split())
_KINDS = IMAGING | frozenset(_WORDS["kinds"].split())
_REGION_LINES = [line.partition(" > ") for line in _WORDS["regions"].split("\n") if line]
REGIONS = {word: words.split()[0] for words, _, _ in _REGION_LINES for word in words.split()}
_ANATOMY = {
    word: line.split()[0] for line in _WORDS["anatomy"].split("\n") if line for word in line.split()
} | {word: region for word, region in REGIONS.items() if word not in _WORDS["ambiguous"].split()}
TISSUES = frozenset(_WORDS["tissues"].split())
WITHIN = {words.split()[0]: frozenset(inner.split()) for words, _, inner in _REGION_LINES}
_SPECIMENS = {
    word: line.split()[0]
    for line in _WORDS["specimens"].split("\n")
    if line
    for word in line.split()
}
CULTURED = frozenset({"culture", "pcr", "smear", "stain", "cytology"})
"""Kinds of tests that are done on any specimen: one that is not named may be any."""

_APART_BOTH, _APART_ORDERED = (
    frozenset(line.split()) for line in _WORDS["apart"].split("\n") if line
)

FINDINGS: dict[str, tuple[str, ...]] = {}
"""Words that say of a test how it came out ('anemia' of hemoglobin), by the test's first name."""
for _line in filter(None, _WORDS["findings"].split("\n")):
    _words, _, _test = _line.partition(" > ")
    FINDINGS[_test] = (*FINDINGS.get(_test, ()), *_words.split())

_TAKEN = frozenset(_WORDS["taken"].split())
_FURTHER = {"angiography", "venography", "pet", "biopsy", "fluorescein"}
"""What makes another test of a scan."""

_MARROW = "bonemarrow"
_FETUS = "fetus"
_SEROLOGY = {"serology", "antibody", "antigen"}

_SIDES = {"left", "right"}
_MATERNAL = {"maternal", "mother"}
_NO_CONTRAST = re.compile(
    r"\b(?:non ?contrast|noncontrast|without (?:\w+ )?contrast|no contrast|ncct|unenhanced|non enhanced)\b"
)
_CONTRAST = re.compile(r"\b(?:contrast|cect|gadolinium|enhanced)\b")


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
    again: bool = False
    """Whether it is a test done again: 'repeat CT', 'follow-up MRI'."""
    contrast: bool | None = None


@cache
def canonical_names() -> dict[str, str]:
    """The first name of a test by each of its normalised names, in singular too."""
    known = {
        normalise(name): canonical for canonical, names in ORDERED_NAMES.items() for name in names
    }
    known = {name.replace(" and ", " "): canonical for name, canonical in known.items()} | known
    return {
        " ".join(map(_singular, name.split())): canonical for name, canonical in known.items()
    } | known


def canonical_of(name: str) -> str | None:
    """The test of `ORDERED_NAMES` that `name` is a name of, also with a specimen or a word like
    'test' around it."""
    text = normalise(name)
    known = canonical_names()
    if text in known:
        return known[text]
    aside = _IGNORED | _AGAIN | _WHOSE
    words = [
        word for word in _WHEN.sub(" ", text).split() if {word, _singular(word)}.isdisjoint(aside)
    ]
    # 'Initial CSF' is 'CSF', and 'serum LDH level' is 'LDH'; 'urine culture' is no 'culture' of
    # anything.
    for bare in (words, [word for word in words if word not in _SPECIMENS]):
        if bare and (
            canonical := known.get(" ".join(bare)) or known.get(" ".join(map(_singular, bare)))
        ):
            return canonical
    return None


_PLACED = IMAGING | {"biopsy", "bronchoscopy"}
_WHEN = re.compile(
    r"\b(?:at )?\d+ (?:days?|weeks?|months?|years?)\b|\b(?:tc ?99m?|99m ?tc|18 ?f|f ?18|68 ?ga|ga ?68)\b"
)
_WHOSE = frozenset(_MATERNAL | {"fetal", "baby", "patient"})


def known_names_in(text: str) -> list[str]:
    """The names that text strings together without separators ('FSH LH estradiol'), if hardly
    anything else is left; else `text`."""
    if canonical_of(text) is not None:
        return [text]
    words = normalise(text).split()
    names, other, start = [], 0, 0
    while start < len(words):
        ends = range(min(len(words), start + 6), start, -1)
        end = next((end for end in ends if " ".join(words[start:end]) in canonical_names()), None)
        if end is not None:
            names.append(" ".join(words[start:end]))
        elif words[start] not in _IGNORED and words[start] not in _SPECIMENS:
            other += 1
        start = end or start + 1
    return names if len(names) > 1 and other <= (len(names) - 1) // 2 else [text]


@lru_cache(maxsize=20_000)
def profile(name: str) -> Profile:
    """Read off what `name` says."""
    canonical = canonical_of(name)
    text = normalise(name)
    words = text
    if (
        canonical is not None
    ):  # the table may say more than the name: a 'pregnancy test' is one in serum and in urine
        more = [
            word for word in text.split() if word in _SPECIMENS or word in _WHOSE or word in _SIDES
        ]
        words = canonical if text in canonical_names() else " ".join([canonical, *more])
    tokens = tokens_of(words)
    specimen = next(
        (_SPECIMENS[t] for t in tokens if t in _SPECIMENS and _SPECIMENS[t] != "blood"), None
    )
    if (
        (_PLACED.intersection(tokens) and specimen != "pleural")
        or not IMAGING.isdisjoint(tokens)
        or (specimen and {"serum", "blood", "plasma"}.intersection(tokens))
    ):
        specimen = None  # 'cervical spine CT' is of no specimen, 'serum and CSF antibody' of either
    if specimen is None and "culture" in tokens and "blood" in tokens:
        specimen = "blood"
    special = _IGNORED | _KINDS | _SIDES | _MATERNAL | _AGAIN | set(_SPECIMENS) | set(REGIONS)
    kinds = frozenset(tokens) & _KINDS
    if "kub" in tokens and not kinds & IMAGING:
        kinds |= {"xray"}
    cervical = "cervical" in tokens and not kinds.isdisjoint(IMAGING | {"fna"})
    return Profile(
        text=text,
        canonical=canonical,
        kinds=kinds - {"imaging"} if kinds & IMAGING - {"imaging"} else kinds,
        regions=frozenset(REGIONS[t] for t in tokens if t in REGIONS)
        | ({"neck"} if cervical else set()),
        sides=frozenset(tokens) & frozenset(_SIDES | _MATERNAL),
        specimen=specimen,
        rest=frozenset(
            t for t in tokens if t not in special and not ("biopsy" in kinds and t in _TAKEN)
        ),
        again=not _AGAIN.isdisjoint(text.split()),
        contrast=_contrast(text),
    )


def tokens_of(words: str) -> list[str]:
    """The words of a normalised name, with each phrase for a modality, kind or region in one form."""
    for replacement, pattern in _PHRASE_PATTERNS:
        words = pattern.sub(replacement.replace(" ", "~"), words)
    return [_singular(token) for word in words.split() for token in word.split("~") if token]


def _contrast(text: str) -> bool | None:
    """'With contrast', 'without contrast'; 'with and without contrast' says neither."""
    without = _NO_CONTRAST.search(text) is not None
    given = _CONTRAST.search(_NO_CONTRAST.sub(" ", text)) is not None or "with and without" in text
    return given if given != without else None


def regions_told(tokens: list[str]) -> frozenset[str]:
    """The body regions that a running text speaks of."""
    return frozenset(_ANATOMY[t] for t in tokens if t in _ANATOMY)


def _singular(word: str) -> str:
    return word if word in REGIONS or word in _IGNORED or word in _KINDS else singular(word)


_CODE = re.compile(r"\w*\d\w*|[ivx]+|ig[gmae]|[a-z]")
"""What tells tests of one name apart: IgG and IgM, C3 and C4, factor V and VIII, hepatitis B and C.
"""


def is_code(word: str) -> bool:
    """Whether a word tells tests of one name apart."""
    return _CODE.fullmatch(word) is not None


def can_be_same(order: Profile, entry: Profile, told: frozenset[str] = frozenset()) -> bool:
    """The guards that hold at every step: nothing that both names say may differ. `told` are words
    of the entry's result.

    'CT head' is not 'CT chest', 'sodium' is not 'potassium', 'CSF glucose' is not 'glucose', 'left
    knee' is not 'right knee'; 'CT angiography' is more than 'CT', so it is not answered by one.
    """
    if order.canonical and entry.canonical and order.canonical != entry.canonical:
        return False
    ours, theirs = (frozenset(filter(_CODE.fullmatch, said.rest)) for said in (order, entry))
    if not (ours <= theirs or theirs <= ours):
        return False
    return (
        _same_kind(order, entry)
        and can_be_same_place(order, entry)
        and _none_apart(order, entry, told)
    )


def can_be_same_place(order: Profile, entry: Profile) -> bool:
    """The guards of region, side, specimen and mother or child."""
    if order.sides and entry.sides and order.sides != entry.sides:
        return False
    return _same_regions(order, entry) and _same_specimen(order, entry)


def same_modality(order: Profile, entry: Profile) -> bool:
    """Whether two names speak of the same modality of imaging and kind of test, as far as both say."""
    return not order.kinds or not entry.kinds or _same_kind(order, entry)


def _none_apart(order: Profile, entry: Profile, told: frozenset[str]) -> bool:
    ours, theirs = order.rest | order.kinds, entry.rest | entry.kinds
    if "biopsy" in ours:  # an endobronchial biopsy is one of the lung
        return True
    if (theirs - ours) & _APART_BOTH and order.canonical != entry.canonical:
        return False
    return not (ours - theirs - told) & (_APART_BOTH | _APART_ORDERED)


def _same_kind(order: Profile, entry: Profile) -> bool:
    ours, theirs = order.kinds, entry.kinds
    if not ours or not theirs:  # 'sputum AFB' leaves open how it is looked for
        return ours | theirs <= (CULTURED if order.rest & entry.rest else frozenset())
    if "imaging" in ours | theirs and ours != theirs:  # any modality, but only of what it names
        return bool(ours & IMAGING and theirs & IMAGING and order.regions & entry.regions)
    if "serology" in ours | theirs and ours & _SEROLOGY and theirs & _SEROLOGY:
        return ours - _SEROLOGY <= theirs
    if theirs == {"cytology"} and "fna" in ours:
        return True
    if "angiography" in ours and (order.regions ^ entry.regions) & {"heart"}:
        return False  # the coronary arteries are another study than those of the lung
    around = order.regions.union(*(WITHIN[region] for region in order.regions))
    return ours <= theirs and (not (theirs - ours) & _FURTHER or bool(around & entry.regions))


def _same_regions(order: Profile, entry: Profile) -> bool:
    if _MARROW in order.regions ^ entry.regions and order.kinds & {"biopsy", "fna"}:
        return False
    if _FETUS in order.regions - entry.regions or (
        _MATERNAL & order.sides and _FETUS in entry.regions
    ):
        return False
    ours, theirs = order.regions, entry.regions
    if ours - TISSUES and theirs - TISSUES:
        ours, theirs = ours - TISSUES, theirs - TISSUES
    if not ours or not theirs:
        return True
    around = {inner for region in ours for inner in WITHIN[region]} | ours
    return bool(around & theirs) or any(ours & WITHIN[region] for region in theirs)


def _same_specimen(order: Profile, entry: Profile) -> bool:
    if order.specimen == entry.specimen:
        return True
    if order.specimen is None and order.kinds == {"antigen"} and order.rest:
        return True  # 'histoplasma antigen' is looked for in urine
    one_sided = order.specimen is None or (entry.specimen is None and entry.rest <= order.rest)
    return one_sided and bool(CULTURED & order.kinds)


@lru_cache(maxsize=4096)
def synonyms_of(name: str) -> tuple[str, ...]:
    """All names of the same test, `name` itself among them; of 'urine protein' also 'protein', as a
    urinalysis has it."""
    if canonical := canonical_of(name):
        return tuple(normalise(known) for known in ORDERED_NAMES[canonical])
    text = normalise(name)
    return text, " ".join(
        word for word in text.split() if word not in _SPECIMENS and word not in _IGNORED
    )


@cache
def vocabulary() -> frozenset[str]:
    """All words that the tables know: a word of an order that stands here is no slip of the pen."""
    words = {word for name in canonical_names() for word in name.split()}
    return frozenset(
        words
        | _IGNORED
        | GENERAL
        | _KINDS
        | set(_ANATOMY)
        | set(_SPECIMENS)
        | _APART_BOTH
        | _APART_ORDERED
    )


def specimen_of(word: str) -> str | None:
    """The specimen that a word names: 'urinary' -> 'urine'."""
    return _SPECIMENS.get(word)
