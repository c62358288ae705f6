"""What would give a diagnosis away: its names, its parts, its abbreviations, and whether a text
tells one of them.

Strict on purpose: a negated mention, one in the family, or one in the past history counts as well.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from rapidfuzz import fuzz

from medaction.words.names import normalise
from medaction.words.negation import DENIAL
from medaction.words.sentences import statements

CLOSE_AT = 92.0
"""Two long words are the same in another spelling or inflection from this rapidfuzz ratio on;
another disease is not."""

FUZZY_LENGTH = 12

# What follows decides: a cause is the diagnosis as much as what it caused; what a disease comes
# with, as, or after an exposure is often the complaint or the history itself. 'and' and commas go
# on as before.
_CONNECTOR = re.compile(
    r"""\b(?P<cause>caused\sby|due\sto|secondary\sto|from|resulting\sfrom)\b
    |\b(?P<beside>with(?:out)?|presenting\s(?:as|with)|causing|leading\sto|complicated\sby|complicating|mimicking|involving|during|managed
        |in\sthe\s(?:absence|context|setting|presence)\sof|(?<!-)associated(?:\swith)?|nearing|successfully|following|after|likely|induced\sby
        |triggered\sby|superimposed\son|compounded\sby|in\san?)\b
    |(?P<same>\band\b|[,;\n]|\b\d\.\s)""",
    re.VERBOSE,
)
_LEADING = re.compile(
    r"""^(?:(?:final\sdiagnosis|acute|chronic|active|severe|mild|primary|secondary|idiopathic|isolated|recurrent|benign|malignant|congenital
    |metastatic|adult|giant|bilateral|left|right|acquired|classic|atypical|symptomatic|spontaneous|incidental\sfinding\sof|concurrent|concomitant
    |synchronous|suspected|possible|an?|the|stage\s[ivx\d]+\w?|type\s[ivx\d]+|early|late|onset|physiologic(?:al)?|simple|uncomplicated
    )\b[\s:,-]*)+""",
    re.IGNORECASE | re.VERBOSE,
)
_EPONYM = re.compile(
    r"(\S{5,}?)(?:'s|’s|s['’])?\s+(?:disease|syndrome|disorder|phenomenon)", re.IGNORECASE
)
_EXPOSED = re.compile(
    r".+?[- ](?:induced|associated|related|triggered|mediated)\s+(.+)", re.IGNORECASE
)
_ORGANISM = re.compile(
    r"\b[A-Z][a-z]{3,}(?:a|us|um|er|es|as|is|ella|ma) (?!(?:with|in|of|disease|syndrome)\b)[a-z]{3,}(?:us|is|um|ii|ae|ens|a|e|i)\b"
)
# Words that name a disease by their ending, or as such; the general ones give nothing away without
# the word before them.
_DISEASE = re.compile(
    r"\w{3,}(?:itis|osis|asis|oma|emia|pathy|thorax|ectasis|plasia|trophy)|cancer|apoplexy|achalasia|malaria|tetanus"
)
_GENERAL_DISEASE = re.compile(
    r"arthritis|dermatitis|gastritis|hepatitis|\w*carcinoma|sarcoma|lymphoma|leukemia|anemia|cancer|hematoma|granuloma|fibrosis|stenosis|thrombosis|necrosis"
    r"|acidosis|alkalosis|cyanosis|diagnosis|prognosis|sclerosis|bacteremia|hypoxemia|hyperemia|septicemia|uremia|neuropathy|nephropathy"
    r"|myopathy|lymphadenopathy|dysplasia|hyperplasia|neoplasia|hypertrophy|atrophy|dystrophy|metaplasia|ptosis|osteolysis|calculosis"
    r"|coma|trauma|stoma|hypoglycemia|hyperglycemia|hypokalemia|hyperkalemia|hyponatremia|hypercalcemia|leukocytosis|anastomosis"
)
# Too general to give a diagnosis away when they stand alone.
_GENERAL = re.compile(
    r"(?:cancer|tumor|tumour|mass|cyst|lesion|infection|disease|syndrome|disorder|fracture|pain|injury|obstruction"
    r"|hemorrhage|bleeding|infarction|metastasis|abscess|rupture|perforation|pregnancy|inflammation|behavior|normal"
    r"|dislocation|fever|anemia|edema|stroke|celiac|kidney|liver|cardiac|pulmonary|vascular|autoimmune|metabolic"
    r"|connective|tissue|inflammatory|bowel|coronary|artery|heart|lung|thyroid)(?: disease)?"
)


_SUFFIX = re.compile(r"(?:i?osis|itis|oma|emia|i?asis)$")
_ORGANS = {
    "pulmonary": "lung", "renal": "kidney", "hepatic": "liver", "cardiac": "heart", "cerebral": "brain", "gastric": "stomach",
    "mammary": "breast", "cutaneous": "skin", "ocular": "eye", "osseous": "bone", "testicular": "testis", "ovarian": "ovary",
    "splenic": "spleen",
}  # fmt: skip


def _organs(plain: str) -> str:
    """One word an organ: 'pulmonary' is 'lung'."""
    return " ".join(_ORGANS.get(word, word) for word in plain.split())


def names_of(diagnosis: str) -> Iterator[str]:
    """The names that would give it away: of each part as written, without 'acute', without
    'drug-induced', without 'disease', its last word where that is a disease by itself
    ('sparganosis'), the organism, and what stands in brackets.
    """
    for part in parts_of(diagnosis)[0]:
        yield from _names_of_part(part)
        yield from _diseases_in(part)
    yield from _ORGANISM.findall(diagnosis.replace("*", ""))
    for before, inner in re.findall(r"([^()]*)\(([^()]{5,})\)", diagnosis):
        if not _CONNECTOR.search(before):
            yield inner


def _names_of_part(part: str) -> Iterator[str]:
    bare = _LEADING.sub("", part)
    caused = found[1] if (found := _EXPOSED.fullmatch(part)) else ""
    eponym = found[1] if (found := _EPONYM.fullmatch(bare)) and "-" not in found[1] else ""
    for name in (part, bare, caused, _LEADING.sub("", caused), eponym):
        if len(name) >= 4 and not is_general(name):
            yield name


# A disease that a line or sentence tells as known from before.
_KNOWN = re.compile(
    r"""\b(?:known|histor(?:y|ies)\sof|previous(?:ly)?|prior|earlier|(?:years?|months?|weeks?)\s(?:ago|earlier|before|prior|after)|since
    |status\spost|s/p|diagnosed\sin)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_SUSPECTED = re.compile(r"\b(?:suspected|possible)\b", re.IGNORECASE)
_COMPLAINT = re.compile(r"^\W*(?:chief|presenting|main) complaint\W", re.IGNORECASE)
# What must be left to find when a part of the diagnosis is known: a disease or an injury, no stage
# and no course.
_TO_FIND = re.compile(
    r"""\b(?:\w{3,}(?:itis|osis|asis|oma|omas|emia|pathy|thorax|ectasis|plasia|trophy|spasm|ases)|cancer|leuk[a]?emia|syndrome|fracture|metasta\w+
    |aneurysm|infarct\w*|rupture|fistula|abscess|infection|perforation|embolism|dissection|tumou?r|disease|dysfunction)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_COURSE = re.compile(
    r"\b(?:relapse|recurren\w+|flare|progressi\w+|exacerbation|reactivation|crisis)\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=64)
def known_parts(diagnosis: str, observation: str) -> tuple[str, ...]:
    """Names in the diagnosis that the patient brings along, so that they are not what is asked for.

    - The effect of a cause ('Cardiac arrest due to ...') that is the chief complaint; the cause is
      to be found.
    - A disease that the observation tells as known from before, when the diagnosis names another
      beside it: the primary of a metastasis, the known cause of a new effect, one of two injuries,
      'tuberculosis' of a syndrome that its treatment brings.

    What is left must name a disease that the observation does not tell at all in such words; else
    nothing is known, and a mention is a leak. A known disease that came back, or got worse, is the
    answer and stays hidden.
    """
    parts = _causes_in_order(diagnosis)
    told = [
        part
        for part, effect in parts
        if _is_known(part, observation) or (effect and _is_complaint(part, observation))
    ]
    left = [
        part
        for part, _ in parts
        if part not in told and _TO_FIND.search(part) and not _COURSE.search(part)
    ]
    hidden = {
        normalise(name) for part in left for name in (*_names_of_part(part), *_diseases_in(part))
    }
    known = (
        [name for part in told for name in (part, *_names_of_part(part), *_diseases_in(part))]
        if left
        else []
    )
    for part in left:  # a disease that only qualifies another: 'tuberculosis immune reconstitution inflammatory syndrome'
        words = normalise(part).split()
        own = {normalise(name) for name in _names_of_part(part)}
        known += [
            name
            for name in _diseases_in(part)
            if normalise(name) not in own
            and name.split()[-1] != words[-1]
            and words[-1] == "syndrome"
            and _is_known(name, observation)
        ]
    asked = {normalise(name) for part in left for name in _names_of_part(part)}
    return tuple(
        dict.fromkeys(
            name
            for name in known
            if normalise(name) not in (asked if name in _qualifiers(left) else hidden)
        )
    )


def _qualifiers(parts: list[str]) -> set[str]:
    return {name for part in parts for name in _diseases_in(part)}


def _is_known(part: str, observation: str) -> bool:
    names = list(_names_of_part(part))
    for line in observation.splitlines():
        label = found[0] if (found := re.match(r"^\W*[A-Z][\w /]{2,40}:", line)) else ""
        past = re.match(r"\W*past\b", label, re.IGNORECASE)
        for sentence in statements(line[len(label) :]):
            if (past or _KNOWN.search(sentence)) and any(
                mentions(clause, n) for clause in _affirmed(sentence) for n in names
            ):
                return True
    return False


def _affirmed(sentence: str) -> list[str]:
    """The clauses of a sentence that deny and suspect nothing."""
    return [
        clause
        for clause in re.split(r"[,;]\s|\bbut\b", sentence)
        if not (DENIAL.search(clause) or _SUSPECTED.search(clause))
    ]


def _is_complaint(part: str, observation: str) -> bool:
    names = list(_names_of_part(part))
    return any(
        _COMPLAINT.match(line) and mentions(line, name)
        for line in observation.splitlines()
        for name in names
    )


def _causes_in_order(diagnosis: str) -> list[tuple[str, bool]]:
    """The parts of the diagnosis, and of each whether a cause of it follows ('X due to Y': X True,
    Y False)."""
    text = re.sub(r"\([^()]*\)|\*+", " ", diagnosis)
    causes = [found.start() for found in _CONNECTOR.finditer(text) if found["cause"]]
    return [
        (part, any(place > text.find(part) for place in causes)) for part in parts_of(diagnosis)[0]
    ]


def is_general(name: str) -> bool:
    """Whether a name gives nothing away when it stands alone: 'infection', 'kidney disease'."""
    return _GENERAL.fullmatch(normalise(name)) is not None


def _diseases_in(part: str) -> Iterator[str]:
    """'sparganosis' of 'pulmonary sparganosis'; of a general one the word before it too: 'thyroid
    carcinoma'."""
    words = normalise(re.sub(r"\bof\b.*", "", part)).split()
    for before, word in zip(["", *words], words, strict=False):
        if _DISEASE.fullmatch(word) and not _GENERAL_DISEASE.fullmatch(word):
            yield word
        elif _DISEASE.fullmatch(word) and before not in ("", "cell") and _LEADING.sub("", before):
            yield f"{before} {word}"


def parts_of(diagnosis: str) -> tuple[list[str], list[str]]:
    """The diagnosis with its causes; and what it comes with: 'Sepsis due to pyelitis with shock' ->
    [Sepsis, pyelitis], [shock]."""
    parts: dict[str, list[str]] = {"cause": [], "beside": []}
    current, start = "cause", 0
    text = re.sub(r"\([^()]*\)|\*+", " ", diagnosis)
    for connector in _CONNECTOR.finditer(text):
        parts[current].append(text[start : connector.start()])
        current, start = (
            (current if connector["same"] else str(connector.lastgroup)),
            connector.end(),
        )
    parts[current].append(text[start:])
    return _long_enough(parts["cause"]), _long_enough(parts["beside"])


def _long_enough(parts: list[str]) -> list[str]:
    stripped = (" ".join(part.split()).strip(" .:-") for part in parts)
    return [
        part for part in stripped if sum(c.isalpha() for c in part) >= 4 and not is_general(part)
    ]


def abbreviations_of(diagnosis: str) -> Iterator[str]:
    """Abbreviations in brackets, and the initials of names of three to five words, as they are
    written: in capitals."""
    core = parts_of(diagnosis)[0]
    for before, short in re.findall(r"([^()]*)\(([A-Z][A-Za-z0-9-]{1,9})\)", diagnosis):
        if sum(c.isupper() for c in short) >= 2 and any(part in before for part in core):
            yield short
    for words in (re.findall(r"[A-Za-z]+", part) for part in core):
        if 3 <= len(words) <= 5:
            yield "".join(word[0] for word in words).upper()


def mentions(text: str, name: str) -> bool:
    """Whether `text` names it: as whole words, by all its words within one sentence, as an
    adjective ('tuberculous'), by what is given against it ('antituberculosis'), or, when long, in a
    slightly other spelling. Hyphens and invisible characters hide nothing.
    """
    if not (wanted := _organs(normalise(name))) or is_general(wanted):
        return False
    seen = text if text.isascii() else "".join(c for c in text if unicodedata.category(c) != "Cf")
    return any(
        _mentions(variant, wanted) for variant in dict.fromkeys((seen, seen.replace("-", "")))
    )


def _mentions(text: str, wanted: str) -> bool:
    plain = _organs(normalise(text))
    if _named_by(wanted).search(plain):
        return True
    stems = [word[: max(5, len(word) - 3)] for word in wanted.split() if len(word) > 3]
    if len(stems) >= 2 and any(
        all(_has_stem(sentence, stem) for stem in stems) for sentence in _sentences(text)
    ):
        return True
    return len(wanted) >= FUZZY_LENGTH and _words_align(wanted, plain)


@lru_cache(maxsize=5000)
def _named_by(wanted: str) -> re.Pattern[str]:
    """The whole name, what is given against it, or its adjective."""
    ways = [rf"{re.escape(wanted)}(?:s|es)?\b"]
    if len(wanted) >= 7:
        ways.append(rf"anti ?{re.escape(wanted[: len(wanted) - 3])}")
    stem = _SUFFIX.sub("", wanted)
    if 6 <= len(stem) < len(wanted):
        ways.append(rf"{re.escape(stem)}(?:ous|otic|itic|omatous|emic|id|ic|al)?\b")
    return re.compile(rf"\b(?:{'|'.join(ways)})")


def _words_align(wanted: str, plain: str) -> bool:
    """Fuzzy, but word for word: each word of the name has a close one at its place, so 'hypo-' is
    never taken for 'hyper-'."""
    words, pattern = plain.split(), wanted.split()
    return any(
        _close(pattern[0], words[start])
        and all(map(_close, pattern, words[start : start + len(pattern)]))
        for start in range(len(words) - len(pattern) + 1)
    )


def _close(a: str, b: str) -> bool:
    if a == b:
        return True
    return len(a) >= 7 and a[:4] == b[:4] and fuzz.ratio(a, b) >= CLOSE_AT


def _has_stem(sentence: str, stem: str) -> bool:
    return f" {stem}" in f" {sentence}" or f"+{stem}" in sentence


@lru_cache(maxsize=200)
def _sentences(text: str) -> list[str]:
    return [_organs(normalise(sentence)) for sentence in statements(text)]
