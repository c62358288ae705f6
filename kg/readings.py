"""The ways to read what a clinician wrote: which words name the thing, and which say how sure, how
bad, where or why."""

import re
from collections.abc import Iterator

from medaction.words.names import normalise
from medaction.words.phrases import phrase_regex

# What says how sure, how bad or how soon, not what; and what every order may carry.
_HEDGE_WORDS = (
    "suspected | possible | probable | presumed | likely | early | late | acute | severe"
    " | mild | moderate | massive | active | new onset | advanced | symptomatic"
    " | uncomplicated | complicated | recurrent | repeat | serial | stat | urgent | emergent"
    " | emergency | bedside | portable | formal | dedicated | serum | plasma | blood"
    " | baseline | quantitative | diagnostic | contrast enhanced | noncontrast"
    " | non contrast | targeted | comprehensive | full | complete | routine | standard"
    " | initial | follow up | updated | further | detailed | limited"
)
_HEDGES = re.compile(f"^{phrase_regex(_HEDGE_WORDS, plural='')} ")
_TAIL_WORDS = (
    "level | test | testing | study | studies | panel | measurement | assay | screen | screening"
    " | analysis | scan | examination | evaluation | imaging | x2 | x3 | x 2 | x 3 | now | today"
    " | stat | titer | titre | series | exacerbation | flare"
)
_TAILS = re.compile(
    rf" (?:{phrase_regex(_TAIL_WORDS)}|(?:with and |with or )?with(?:out)?"
    r"(?: iv| intravenous| oral)? (?:contrast(?: enhancement)?|gadolinium))$"
)
# Where the disease or test itself ends and its circumstances begin.
_BEGIN_CIRCUMSTANCES = (
    "with | secondary to | due to | caused by | induced by | triggered by | nearing | revealed by"
    " | causing | complicated by | complicating | associated with | presenting | in the"
    " | following | after | involving | mimicking | masquerading | leading to | resulting"
    " | without | from | for | and"
)
_CIRCUMSTANCES = re.compile(
    rf"[,;:]| - |\b(?:{phrase_regex(_BEGIN_CIRCUMSTANCES, '')}"
    r"|(?!bleeding|swelling)[a-z]+ing (?:in|into|from|to|as|within))\b"
)
TOO_BROAD = frozenset(
    """
    syndrome disease disorder infection tumor neoplasm cancer carcinoma mass lesion cyst pain
    inflammation injury anomaly anomalies malformation deficiency obstruction hemorrhage bleeding
    abscess type failure necrosis rupture stenosis fistula ulcer nodule edema death fever shock
    contusion trauma test panel culture biopsy radiographs histology pathology endoscopy microarray
    antibody sodium blood serum urine stain mri ct pet chest brain
    """.split()  # noqa: SIM905
)
"""Words too general to stand for a text that holds them."""

_GENERIC = frozenset(
    """
    syndrome disease disorder acute chronic primary secondary severe infection type test serum level
    panel culture blood antibody scan biopsy study imaging tumor tumors neoplasm cancer carcinoma
    fever antigen combination serology serologies
    """.split()  # noqa: SIM905
)
"""Words that two names may share without meaning the same."""

# What stands before a diagnosis in a list or a report's heading.
_PREAMBLE = re.compile(
    r"^[\s*_#>-]*(((final|definitive|primary|working) )?diagnos[ie]s( ready)?\s*(is"
    r"|are)?[*_]*\s*:[\s*_]*)?(\d{1,2}[.)]\s+)?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r" (type )?(\d{1,2}[a-z]?|[ivx]{1,4})$")
BRACKETED = re.compile(r"\s*[(\[][^)\]]*[)\]]")
_FILLERS = frozenset(
    "left right bilateral of the a an and in for with by to on due".split()  # noqa: SIM905
)
_SPELLINGS = {
    # Of two that begin alike the longer one first: the pattern takes the first that matches.
    "computed tomography": "ct", "magnetic resonance imaging": "mri", "magnetic resonance": "mr",
    "ultrasonography": "ultrasound", "sonography": "ultrasound", "sonogram": "ultrasound",
    "angiogram": "angiography", "arteriography": "angiography", "radiography": "x ray",
    "xray": "x ray", "radiograph": "x ray", "antibodies": "antibody", "biopsies": "biopsy",
}  # fmt: skip
ORGANS = {
    "renal": "kidney", "hepatic": "liver", "pulmonary": "lung", "cardiac": "heart",
    "myocardial": "heart", "bowel": "intestine",
    "intestinal": "intestine", "gastric": "stomach", "cerebral": "brain", "cutaneous": "skin",
    "mammary": "breast",
    "ocular": "eye", "vesical": "bladder", "uterine": "uterus", "duodenum": "duodenal",
}  # fmt: skip
"""One word for an organ and its adjective, where they do not begin alike."""

_LONG_PREFIXES = tuple(
    """
    intra inter hyper trans extra pseudo supra infra retro micro macro hemat poly peri para post
    anti endo
    """.split()  # noqa: SIM905
)
"""Beginnings that many words share: those have to agree in more than five letters."""

_SPELLING = re.compile("|".join(_SPELLINGS))
MAX_ABBREVIATION = 6
"""Letters up to which what stands in brackets is taken for an abbreviation: our choice. The
higher, the more names that stand in brackets are passed over."""

_MAX_PART = 8  # words of the longest name that is looked up inside a text: our choice, for speed


def variants(text: str) -> Iterator[str]:
    """Normalised readings of `text`, the most literal first: as it stands, without brackets,
    without hedges, its brackets.

    An abbreviation in brackets is no reading: it repeats the words before it, and may mean
    something else elsewhere.

    >>> list(variants("Suspected pulmonary embolism (PE)"))
    ['suspected pulmonary embolism pe', 'suspected pulmonary embolism', 'pulmonary embolism']
    """
    text = first_line(text)
    readings = [normalise(text), normalise(BRACKETED.sub(" ", text))]
    readings += _shorter(readings[-1])
    for reading in heads(text):
        readings += [reading, *_shorter(reading)]
    # Brackets last: what stands in them is more often a detail than the disease.
    readings += [
        part for part in map(normalise, BRACKETED.findall(text)) if len(part) > MAX_ABBREVIATION
    ]
    yield from (reading for reading in dict.fromkeys(readings) if reading)


def runs_of_words(words: list[str], anywhere: bool) -> Iterator[str]:
    """Runs of the words, the longest first and of equal ones the earlier: all of them, or those
    that end with the last word.

    >>> list(runs_of_words(["bedside", "ecg", "strip"], anywhere=False))
    ['bedside ecg strip', 'ecg strip', 'strip']
    """
    for length in range(min(len(words), _MAX_PART), 0, -1):
        starts = range(len(words) - length + 1) if anywhere else [len(words) - length]
        yield from (" ".join(words[start : start + length]) for start in starts)


def first_line(text: str) -> str:
    """`text` without what a list or a heading puts before it, and up to the end of its first line.

    >>> first_line("**Final Diagnosis:**\\n1. Impacted canine.\\n2. Crack tooth syndrome")
    'Impacted canine.'
    """
    return _PREAMBLE.sub("", text).strip().partition("\n")[0]


def head(text: str) -> str:
    """The normalised text up to its circumstances, without brackets. What is before them must be a
    word: '47,XXY' is one name.

    >>> head("Isolated renal tuberculosis (TB) with haematuria")
    'isolated renal tuberculosis'
    >>> head("47,XXY Klinefelter syndrome")
    '47 xxy klinefelter syndrome'
    """
    return heads(text)[-1]


def heads(text: str) -> list[str]:
    """The normalised text up to the third, second and first of its circumstances, as far as there
    is a word before them.

    >>> heads("Granulomatosis with polyangiitis presenting as pachymeningitis")
    ['granulomatosis with polyangiitis', 'granulomatosis']
    """
    line = BRACKETED.sub(" ", first_line(text).casefold())
    cuts = [line[: match.start()] for match in _CIRCUMSTANCES.finditer(line)][:3]
    readings = [
        reading for cut in reversed(cuts) if re.search("[a-z]{2}", reading := normalise(cut))
    ]
    return readings or [normalise(line)]


def without_number(name: str) -> str:
    """A normalised name without the number of its type at the end.

    >>> without_number("bartter syndrome type 3")
    'bartter syndrome'
    """
    return _NUMBER.sub("", name)


def same_numbers(a: str, b: str) -> bool:
    """Whether every number in the name `b` is in `a`: type 3 is not type 2.

    >>> same_numbers("dentinogenesis imperfecta type 2", "dentinogenesis imperfecta type 3")
    False
    """
    return set(re.findall(r"\d+", normalise(b))) <= set(re.findall(r"\d+", normalise(a)))


def _shorter(reading: str) -> Iterator[str]:
    """`reading` with one qualifier less at a time, from both ends."""
    while True:
        shorter = _HEDGES.sub("", reading) if _HEDGES.match(reading) else _TAILS.sub("", reading)
        if shorter == reading:
            return
        reading = shorter
        yield reading


def resembles(text: str, name: str) -> bool:
    """Whether every telling word of `name` is in `text`, and these are more than half of what
    `text` tells.

    Words are alike that begin alike (5 letters) or name one organ. An encoder finds 'colon
    leiomyoma' near 'abdominal leiomyomas' and 'esophageal disease' near 'esophageal foreign body';
    a reader does not. A single word of the text may hide in a longer one.

    >>> resembles("appendiceal mucocele", "mucocele of appendix")
    True
    >>> resembles("neurosarcoidosis", "sarcoidosis")
    True
    >>> resembles("lemierre syndrome", "lelis syndrome")
    False
    >>> resembles("esophageal foreign body", "esophageal disease")
    False
    """
    text_words, name_words = _telling(text), _telling(name)
    shared = [word for word in text_words if any(_alike(word, other) for other in name_words)]
    return (
        bool(name_words)
        and all(any(_alike(word, other) for word in text_words) for other in name_words)
        and 2 * len(shared) > len(text_words)
    )


_NARROWING = frozenset(
    """
    acute chronic recurrent congenital hereditary familial neonatal juvenile malignant benign
    metastatic
    """.split()  # noqa: SIM905
).union(ORGANS.values())
"""Course, origin, behaviour and organ: words that make a special case of a disease."""


def is_bare(synonym: str, label: str) -> bool:
    """Whether a synonym of `label` is the same name without what makes it a special case; both
    normalised. Such a synonym means something more general to whoever writes it.

    >>> is_bare("tuberculosis", "pulmonary tuberculosis"), is_bare("lung tb", "pulmonary tb")
    (True, False)
    >>> is_bare("meningitis", "bacterial meningitis"), is_bare("bartter", "bartter syndrome")
    (True, False)
    """
    words, label_words = _words_of(synonym), _words_of(label)
    return words < label_words and bool(label_words - words - _GENERIC | _narrower(words, label))


def is_wider(term: str, label: str) -> bool:
    """Whether a classification's inclusion term leaves open what its label narrows down: site,
    course or behaviour; both normalised. Such a term is filed there, and no synonym.

    >>> is_wider("mycobacterium avium infection", "pulmonary mycobacterial infection")
    True
    >>> is_wider("lyme borreliosis", "lyme disease")
    False
    """
    # 'without ...' rules a companion out; it narrows nothing down.
    return is_bare(term, label.partition(" without ")[0]) or bool(_narrower(_words_of(term), label))


def _words_of(name: str) -> frozenset[str]:
    return frozenset(ORGANS.get(word, word) for word in bag(name))


def _narrower(words: frozenset[str], label: str) -> frozenset[str]:
    return (_words_of(label) - words) & _NARROWING


_RESIDUAL = re.compile(
    r"\b(other|unspecified|ill-defined|classified elsewhere|elsewhere classified)\b|, nos$"
)


def is_residual(label: str) -> bool:
    """Whether a label names what a classification has left over, which is no disease.

    >>> is_residual("Other injury of unspecified body region"), is_residual("Otherwise well")
    (True, False)
    >>> is_residual("Chagas' disease with other organ involvement")
    True
    """
    return _RESIDUAL.search(label.lower()) is not None


_SAYS_MALIGNANT = ("cancer", "carcinoma", "malignan")
_MAY_BE_MALIGNANT = (
    *_SAYS_MALIGNANT, "sarcoma", "melanoma", "metasta", "lymphoma", "leukemia", "blastoma",
    "myeloma",
)  # fmt: skip


def adds_malignancy(text: str, name: str) -> bool:
    """Whether only `name` is malignant, both normalised. An encoder puts such names side by side.

    >>> adds_malignancy("placental chorioadenoma", "placental choriocarcinoma")
    True
    """
    is_malignant = any(word in name for word in _SAYS_MALIGNANT)
    return is_malignant and not any(word in text for word in _MAY_BE_MALIGNANT)


def _telling(name: str) -> list[str]:
    words = _SPELLING.sub(lambda match: _SPELLINGS[match.group()], normalise(name)).split()
    return [
        ORGANS.get(word, word)
        for word in words
        if word not in _GENERIC and word not in _FILLERS and not word.isdigit()
    ]


def _alike(word: str, other: str) -> bool:
    stem = 9 if other.startswith(_LONG_PREFIXES) else 5
    if min(len(word), len(other)) == 4 < stem:
        stem = 4  # 'exam' is an examination
    # 'neurosarcoidosis' hides 'sarcoidosis', which does not begin alike.
    return word[:stem] == other[:stem] or (len(other) > 5 and other[:6] in word and stem == 5)


def bag(name: str) -> frozenset[str]:
    """The words of a normalised name, in the singular, in one spelling, without fillers.

    >>> bag("computed tomography of the chest") == bag("chest ct")
    True
    >>> bag("blood cultures") == bag("blood culture")
    True
    """
    words = (
        word
        for word in _SPELLING.sub(lambda match: _SPELLINGS[match.group()], name).split()
        if word not in _FILLERS
    )
    return frozenset(
        # 'pancreas', 'sepsis', 'abscess' and 'virus' are no plurals.
        word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "aisu" else word
        for word in words
    )
