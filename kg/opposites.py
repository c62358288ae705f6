"""What keeps two names from being one disease whatever else they say: course, side, behaviour,
type, stage, grade.

A contradiction needs both names to say something: where only one says 'acute', 'left' or 'type 2',
nothing contradicts.
"""

import re
from typing import Literal

from medaction.words.names import normalise

Opposition = Literal["opposite", "behaviour", "level", ""]

OPPOSITES = (
    ("acute", "chronic"), ("hyper*", "hypo*"), ("congenital", "acquired"),
    ("primary", "secondary"), ("ischemic", "hemorrhagic"), ("upper", "lower"),
    ("viral", "bacterial"), ("central", "peripheral"), ("small cell", "non small cell"),
    ("hodgkin", "non hodgkin"), ("obstructive", "restrictive"),
    ("autosomal dominant", "autosomal recessive"), ("systolic", "diastolic"),
    ("anterior", "posterior"), ("intradural", "extradural"), ("unilateral", "bilateral"),
    ("left", "right"), ("left", "bilateral"), ("right", "bilateral"),
    ("gram positive", "gram negative"),
)  # fmt: skip
"""Words of which a disease has one or the other; `*` ends the beginning of a word."""

# 'Secondary to' tells a cause, an 'acute exacerbation' is one of a chronic disease.
_NO_OPPOSITE = re.compile(r"\bsecondary to\b|\bacute (?:exacerbation|flare|on chronic)\b")
# Endings that pathology gives to tumours. 'Hemangiosarcoma' and 'adenocarcinoma' end as malignant
# ones, so the malignant endings are looked for first.
_MALIGNANT = (
    "carcinoma", "sarcoma", "lymphoma", "leukemia", "melanoma", "myeloma", "blastoma", "glioma",
    "cancer",
)  # fmt: skip
_BENIGN = (
    "adenoma", "fibroma", "lipoma", "myoma", "angioma", "papilloma", "chondroma", "osteoma",
    "neuroma", "schwannoma",
)  # fmt: skip
_ROMAN_NUMBERS = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6"}
_DENIAL = re.compile(r"\bwithout (\w+)")
# 'Stage IIIa' is a stage III; 'grade 1-2', normalised to 'grade 1 2', is both.
_LEVEL = re.compile(
    r"\b(?P<scale>type|class|stage|grade|group|subtype|hepatitis|hemophilia|vitamin)"
    r" (?P<level>[a-e]|i{1,3}|iv|vi?|\d{1,2})[a-c]?\b(?: (?P<to>\d)\b)?"
)
_GRADE = re.compile(
    r"\b(?:(low|intermediate|high)(?: to \w+)? grade|(well|poorly|de|un)[ -]?differentiated)\b"
)
_HIGH = {"high", "poorly", "de", "un"}


def opposition(one: str, other: str) -> Opposition:
    """What two names contradict each other in; '' for nothing.

    >>> opposition("Chronic hepatitis B", "Acute hepatitis B")
    'opposite'
    >>> opposition("Pleomorphic adenoma of the parotid", "Secretory carcinoma of the parotid")
    'behaviour'
    >>> opposition("Hepatitis C", "Hepatitis B"), opposition("Hepatitis", "Hepatitis B")
    ('level', '')
    >>> opposition("Hernia without gangrene", "Hernia with gangrene")
    'opposite'
    """
    texts = [_NO_OPPOSITE.sub(" ", normalise(text)) for text in (one, other)]
    for pair in OPPOSITES:
        here, there = (_said(text, pair) for text in texts)
        # A name that says both ('acute and chronic cholecystitis') contradicts neither.
        if len(here) == len(there) == 1 and here != there:
            return "opposite"
    for denying, affirming in (texts, texts[::-1]):
        # 'Hernia without gangrene' denies gangrene.
        if set(_DENIAL.findall(denying)) & set(_DENIAL.sub(" ", affirming).split()):
            return "opposite"
    behaviours = [_behaviour(text) for text in texts]
    if all(behaviours) and behaviours[0] != behaviours[1]:
        return "behaviour"
    levels = [_levels(text) for text in texts]
    for scale in levels[0].keys() & levels[1].keys():
        if not levels[0][scale] & levels[1][scale]:
            return "level"
    return ""


def _said(text: str, pair: tuple[str, str]) -> set[str]:
    """Which of two opposites a text says; 'non hodgkin' does not say 'hodgkin'."""
    said, text = set(), f" {text} "  # whole words at both ends, too
    for word in sorted(pair, key=len, reverse=True):
        sought = f" {word[:-1]}" if word.endswith("*") else f" {word} "
        if sought in text:
            said.add(word)
            text = text.replace(sought, "  ")
    return said


def _behaviour(text: str) -> str:
    # 'adenomas' ends as 'adenoma' does.
    words = [word.removesuffix("s") for word in text.split()]
    if any(word.endswith(_MALIGNANT) or "malignan" in word or "metasta" in word for word in words):
        return "malignant"
    return "benign" if any(word == "benign" or word.endswith(_BENIGN) for word in words) else ""


def _levels(text: str) -> dict[str, set[str]]:
    """Scale -> what is said of it: {'type': {'2'}}; of a grade whether it is low or high too."""
    levels: dict[str, set[str]] = {}
    for match in _LEVEL.finditer(text):
        level = _ROMAN_NUMBERS.get(match["level"], match["level"])
        levels.setdefault(match["scale"], set()).update(filter(None, (level, match["to"])))
    grades = {"high" if set(match.groups()) & _HIGH else "low" for match in _GRADE.finditer(text)}
    # tumours are graded from 1 to 3 or 4: WHO's lower two are its low grades
    grades |= {"low" if level < "3" else "high" for level in levels.pop("grade", ())}
    return levels | ({"grade": grades} if grades else {})
