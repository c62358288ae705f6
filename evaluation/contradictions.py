"""What keeps two names from being one disease, however alike their words are: course, behaviour,
side, grade, type or stage, organism, site.

A contradiction needs both names to say something. Where only one says 'acute', 'left' or 'type 2',
nothing contradicts: a judge of diagnoses takes a missing or a further detail as no fault. A site
contradicts only where the rest of the two names is the same: two sites alone caught 7 of 165 right
answers and 2 of 45 wrong ones (development half of benchmarks/answers.py).
"""

import re
from collections import Counter
from functools import cache
from typing import Literal

from medaction.envs.naming import profile
from medaction.kg.icd import load_icd
from medaction.kg.readings import bag
from medaction.words.names import normalise

Contradiction = Literal["opposite", "behaviour", "level", "organism", "site", ""]

OPPOSITES = (
    ("acute", "chronic"),
    ("hyper*", "hypo*"),
    ("congenital", "acquired"),
    ("primary", "secondary"),
    ("ischemic", "hemorrhagic"),
    ("upper", "lower"),
    ("viral", "bacterial"),
    ("central", "peripheral"),
    ("small cell", "non small cell"),
    ("hodgkin", "non hodgkin"),
    ("obstructive", "restrictive"),
    ("autosomal dominant", "autosomal recessive"),
    ("systolic", "diastolic"),
    ("anterior", "posterior"),
    ("intradural", "extradural"),
    ("unilateral", "bilateral"),
    ("left", "right"),
    ("gram positive", "gram negative"),
)
"""Words of which a disease has one or the other; `*` ends the beginning of a word."""

# 'Secondary to' tells a cause, an 'acute exacerbation' is one of a chronic disease.
_NO_OPPOSITE = re.compile(r"\bsecondary to\b|\bacute (?:exacerbation|flare|on chronic)\b")
# Endings that pathology gives to tumours. 'Hemangiosarcoma' and 'adenocarcinoma' end as malignant
# ones, so the malignant endings are looked for first.
_MALIGNANT = re.compile(
    r"\w*(?:carcinoma|sarcoma|lymphoma|leukemia|melanoma|myeloma|blastoma|glioma|cancer|malignan\w+"
    r"|metasta\w+)s?\b"
)
_BENIGN = re.compile(
    r"\bbenign\b|\w*(?:adenoma|fibroma|lipoma|myoma|angioma|papilloma|chondroma|osteoma|neuroma"
    r"|schwannoma|lymphoepithelioma)s?\b"
)
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6"}
_LEVEL = re.compile(
    r"\b(?P<scale>type|class|stage|grade|group|subtype|hepatitis|hemophilia|vitamin)"
    r" (?P<level>[a-e]|i{1,3}|iv|vi?|\d{1,2})[a-c]?\b(?: (?P<to>\d)\b)?"
)
_GRADE = re.compile(
    r"\b(?:(low|intermediate|high)(?: to \w+)? grade|(well|poorly|de|un)[ -]?differentiated)\b"
)
_HIGH = {"high", "poorly", "de", "un"}
_STEM = 7
_SHARE_OF_INFECTIONS = 0.75
"""Share of a word's names in ICD-10-CM that stand in its chapter of infections, from which it names
an organism or its disease. Not tuned: any share between 0.6 and 0.9 gives the same words but for
some thirty."""


def contradiction(stated: str, true: str) -> Contradiction:
    """What of `stated` cannot be said of `true`; '' for nothing.

    >>> contradiction("Chronic hepatitis B", "Acute hepatitis B")
    'opposite'
    >>> contradiction("Pleomorphic adenoma of the parotid", "Secretory carcinoma of the parotid")
    'behaviour'
    >>> contradiction("Hepatitis C", "Hepatitis B"), contradiction("Hepatitis", "Hepatitis B")
    ('level', '')
    >>> contradiction("Brucella spondylitis", "Tuberculous spondylitis")
    'organism'
    >>> contradiction("Renal tuberculosis", "Pulmonary tuberculosis")
    'site'
    """
    ours, theirs = (_NO_OPPOSITE.sub(" ", normalise(text)) for text in (stated, true))
    for pair in OPPOSITES:
        here, there = (_said(text, pair) for text in (ours, theirs))
        if len(here) == len(there) == 1 and here != there:
            return "opposite"
    behaviours = _behaviour(ours), _behaviour(theirs)
    if all(behaviours) and behaviours[0] != behaviours[1]:
        return "behaviour"
    levels = _levels(ours), _levels(theirs)
    for scale in levels[0].keys() & levels[1].keys():
        if not levels[0][scale] & levels[1][scale]:
            return "level"
    organisms = _organisms(ours), _organisms(theirs)
    if all(organisms) and not organisms[0] & organisms[1]:
        return "organism"
    sites = _sites(ours), _sites(theirs)
    if all(sites) and not _regions(sites[0]) & _regions(sites[1]):
        rest = [bag(text) - site for text, site in zip((ours, theirs), sites, strict=True)]
        if rest[0] == rest[1]:
            return "site"
    return ""


def _said(text: str, pair: tuple[str, str]) -> set[str]:
    """Which of two opposites a text says; 'non hodgkin' does not say 'hodgkin'."""
    said, text = set(), f" {text} "
    for word in sorted(pair, key=len, reverse=True):
        sought = f" {word[:-1]}" if word.endswith("*") else f" {word} "
        if sought in text:
            said.add(word)
            text = text.replace(sought, "  ")
    return said


def _behaviour(text: str) -> str:
    if _MALIGNANT.search(text):
        return "malignant"
    return "benign" if _BENIGN.search(text) else ""


def _levels(text: str) -> dict[str, set[str]]:
    """Scale -> what is said of it: {'type': {'2'}}; of a grade whether it is low or high too."""
    levels: dict[str, set[str]] = {}
    for match in _LEVEL.finditer(text):
        level = _ROMAN.get(match["level"], match["level"])
        levels.setdefault(match["scale"], set()).update(filter(None, (level, match["to"])))
    grades = {"high" if set(match.groups()) & _HIGH else "low" for match in _GRADE.finditer(text)}
    # tumours are graded from 1 to 3 or 4: WHO's lower two are its low grades
    grades |= {"low" if level < "3" else "high" for level in levels.pop("grade", ())}
    return levels | ({"grade": grades} if grades else {})


def _organisms(text: str) -> frozenset[str]:
    """The beginnings of words that name organisms: 'tuberculous' and 'tuberculosis' have one."""
    return frozenset(word[:_STEM] for word in text.split()) & organism_stems()


def _sites(text: str) -> frozenset[str]:
    return frozenset(word for word in bag(text) if profile(word).regions)


def _regions(words: frozenset[str]) -> frozenset[str]:
    return frozenset().union(*(profile(word).regions for word in words))


@cache
def organism_stems() -> frozenset[str]:
    """The beginnings of words that ICD-10-CM has nearly only among infections (A00 to B99)."""
    infections: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for code in load_icd().values():
        words = {word for name in (code.name, *code.synonyms) for word in normalise(name).split()}
        every.update(words)
        if code.code[0] in "AB":
            infections.update(words)
    return frozenset(
        word[:_STEM]
        for word, count in infections.items()
        if count > 1 and len(word) > 3 and count >= _SHARE_OF_INFECTIONS * every[word]
    )
