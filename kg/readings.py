"""The ways to read what a clinician wrote: which words name the thing, and which say how sure, how bad, where or why."""

import re
from collections.abc import Iterator

from kg.names import normalise

# What says how sure, how bad or how soon, not what; and what every order may carry.
_HEDGES = re.compile(
    r"^(suspected|possible|probable|presumed|likely|early|late|acute|severe|mild|moderate|massive|active|new onset|advanced|"
    r"symptomatic|uncomplicated|complicated|recurrent|repeat|serial|stat|urgent|emergent|emergency|bedside|portable|formal|"
    r"dedicated|serum|plasma|blood|baseline|quantitative|diagnostic|contrast enhanced|noncontrast|non contrast|targeted|"
    r"comprehensive|full|complete|routine|standard|initial|follow up|updated|further|detailed|limited) "
)
_TAILS = re.compile(
    r" (levels?|tests?|testing|stud(y|ies)|panel|measurement|assay|screen|screening|analysis|scan|examination|evaluation|"
    r"(with|without|with and without|with or without)( iv| intravenous| oral)? (contrast|gadolinium|contrast enhancement)|"
    r"imaging|x ?[23]|now|today|stat|titers?|titres?|series|exacerbation|flare)$"
)
# Where the disease or test itself ends and its circumstances begin.
_CIRCUMSTANCES = re.compile(
    r"[,;:]| - |\b(with|secondary to|due to|caused by|causing|complicated by|complicating|associated with|presenting|in the|"
    r"following|after|involving|mimicking|masquerading|leading to|resulting|without|from|for|and)\b"
)
TOO_BROAD = frozenset(
    re.findall(
        r"\w+",
        "syndrome disease disorder infection tumor neoplasm cancer carcinoma mass lesion cyst pain inflammation injury "
        "anomaly anomalies malformation deficiency obstruction hemorrhage bleeding abscess type failure necrosis rupture "
        "stenosis fistula ulcer nodule edema death fever shock contusion trauma test panel culture biopsy radiographs "
        "histology pathology endoscopy microarray antibody sodium blood serum urine stain mri ct pet chest brain",
    )
)
"""Words too general to stand for a text that holds them."""

_GENERIC = frozenset(
    re.findall(
        r"\w+",
        "syndrome disease disorder acute chronic primary secondary severe infection type test serum level panel culture blood "
        "antibody scan biopsy study imaging familial congenital hereditary",
    )
)
"""Words that two names may share without meaning the same."""

_BRACKETS = re.compile(r"\s*[(\[][^)\]]*[)\]]")
_FILLERS = {"left", "right", "bilateral", "of", "the", "a", "an", "and", "in", "for", "with", "by", "to", "on", "due"}
_SPELLINGS = {
    "computed tomography": "ct",
    "magnetic resonance imaging": "mri",
    "magnetic resonance": "mr",
    "ultrasonography": "ultrasound",
    "sonography": "ultrasound",
    "sonogram": "ultrasound",
    "angiogram": "angiography",
    "arteriography": "angiography",
    "radiography": "x ray",
    "xray": "x ray",
    "radiograph": "x ray",
    "antibodies": "antibody",
    "biopsies": "biopsy",
}
_SPELLING = re.compile("|".join(_SPELLINGS))
MAX_ABBREVIATION = 6
_MAX_PART = 8


def variants(text: str) -> Iterator[str]:
    """Normalised readings of `text`, the most literal first: as it stands, without brackets, without hedges, its brackets.

    An abbreviation in brackets is no reading: it repeats the words before it, and may mean something else elsewhere.

    >>> list(variants("Suspected pulmonary embolism (PE)"))
    ['suspected pulmonary embolism pe', 'suspected pulmonary embolism', 'pulmonary embolism']
    """
    readings = [normalise(text), normalise(_BRACKETS.sub(" ", text))]
    readings += _shorter(readings[-1])
    readings += [head(text), *_shorter(head(text))]
    readings += [part for part in map(normalise, _BRACKETS.findall(text)) if len(part) > MAX_ABBREVIATION]
    yield from (reading for reading in dict.fromkeys(readings) if reading)


def parts_of(words: list[str], anywhere: bool) -> Iterator[str]:
    """Runs of the words, the longest first and of equal ones the earlier: all of them, or those that end with the last word.

    >>> list(parts_of(["bedside", "ecg", "strip"], anywhere=False))
    ['bedside ecg strip', 'ecg strip', 'strip']
    """
    for length in range(min(len(words), _MAX_PART), 0, -1):
        starts = range(len(words) - length + 1) if anywhere else [len(words) - length]
        yield from (" ".join(words[start : start + length]) for start in starts)


def head(text: str) -> str:
    """The normalised text up to its circumstances, without brackets.

    >>> head("Isolated renal tuberculosis (TB) with haematuria")
    'isolated renal tuberculosis'
    """
    return normalise(_CIRCUMSTANCES.split(_BRACKETS.sub(" ", text.casefold()), maxsplit=1)[0])


def _shorter(reading: str) -> Iterator[str]:
    """`reading` with one qualifier less at a time, from both ends."""
    while True:
        shorter = _HEDGES.sub("", reading) if _HEDGES.match(reading) else _TAILS.sub("", reading)
        if shorter == reading:
            return
        reading = shorter
        yield reading


def share_a_word(a: str, b: str) -> bool:
    """Whether two names share the beginning (5 letters) of a word that says something; 'Lemierre' and 'Lelis syndrome' do not.

    >>> share_a_word("neurosarcoidosis", "sarcoidosis"), share_a_word("lemierre syndrome", "lelis syndrome")
    (True, False)
    """
    telling = [word for word in normalise(a).split() if word not in _GENERIC and word not in _FILLERS]
    others = [word for word in normalise(b).split() if word not in _GENERIC and word not in _FILLERS]
    return any(word[:5] == other[:5] or (len(other) > 5 and other[:6] in word) for word in telling for other in others)


def bag(name: str) -> frozenset[str]:
    """The words of a normalised name, in the singular, in one spelling, without fillers.

    >>> bag("computed tomography of the chest") == bag("chest ct"), bag("blood cultures") == bag("blood culture")
    (True, True)
    """
    words = (word for word in _SPELLING.sub(lambda found: _SPELLINGS[found.group()], name).split() if word not in _FILLERS)
    return frozenset(word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "aisu" else word for word in words)
