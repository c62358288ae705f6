"""Whether a stated diagnosis is the true one, without a language model: by graph node, by synonym
set, by what the names say.

Of a statement only what it asserts counts: 'likely', 'versus', 'not', 'no evidence of' and the like
end what is asserted. As in MedR-Bench, aliases are the same diagnosis, and complications beside it
do no harm; a cause counts as much as what it caused.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from rapidfuzz import fuzz

from medaction.evaluation.claims import claims
from medaction.evaluation.likeness import THRESHOLD, Encode, figures, likelihood
from medaction.kg.linking import Linker
from medaction.kg.readings import bag, head
from medaction.words.names import normalise

How = Literal["node", "name", "part", "narrower", ""]
"""Why two diagnoses are the same: one node of the graph; the same words; all words of the truth and
its head; or the statement leaves out only where it is."""

_NODE_METHODS = ("exact", "synonym", "abbreviation")

_BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
# What follows is not asserted, up to the end of its sentence.
_DOUBT = re.compile(
    r"\b(?:likely|possibl[ey]|probabl[ey]|suspected|presumed|impending|consider(?:ing)?|rule[ds]?[-"
    r" ]out|ruling out|r/o|versus|vs"
    r"|rather than"
    r"|not|no|non|without|negative for|absence of|exclud(?:e|ed|es|ing)|unlikely|despite|history"
    r" of|status post|pending|suspicious for"
    r"|differential|alternatively|mimicking|masquerading as|resembling|or)\b",
    re.IGNORECASE,
)
# Opens a further assertion: a cause, a consequence, a companion.
_LINK = re.compile(
    r"[,;:/]|\s[-–—]\s|—|\b(?:due to|secondary to|caused by|because of|resulting"
    r" from|from|with|and|complicated by|causing"
    r"|leading to|resulting in"
    r"|associated with|in the setting of|presenting as|presenting"
    r" with|following|after|involving)\b",
    re.IGNORECASE,
)
_CAUSE = re.compile(
    r"\b(?:due to|secondary to|caused by|because of|resulting from)\b", re.IGNORECASE
)
_SENTENCE = re.compile(r"(?<=[a-z)])\.\s+|\n+|;\s+")
_BEFORE_OF = re.compile(r"\b(?:of|in|at|on|to|within)\b.*")

# Words that say how sure, how bad, how far, where exactly or since when, not what.
_QUALIFIERS = frozenset(
    re.findall(
        r"\w+",
        "disease disorder syndrome acute chronic active severe mild moderate early late very"
        " recurrent classic "
        "classical typical idiopathic primary advanced symptomatic isolated confirmed definitive"
        " final diagnosis new onset patient "
        "infection condition case form rare adult giant benign metastatic",
    )
)
_OPPOSITES = (
    ("acute", "chronic"),
    ("benign", "malignant"),
    ("hyper", "hypo"),
    ("congenital", "acquired"),
    ("primary", "secondary"),
    ("type 1", "type 2"),
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
)
_SAME_WORD = {
    "carcinoma": "cancer",
    "adenocarcinoma": "cancer",
    "malignancy": "cancer",
    "tumour": "tumor",
    "neoplasm": "tumor",
    "renal": "kidney",
    "hepatic": "liver",
    "pulmonary": "lung",
    "cardiac": "heart",
    "cerebral": "brain",
    "gastric": "stomach",
    "mammary": "breast",
    "cutaneous": "skin",
    "ocular": "eye",
    "ovarian": "ovary",
    "testicular": "testis",
    "tuberculous": "tuberculosis",
    "osseous": "bone",
    "pancreas": "pancreatic",
    "uterus": "uterine",
    "appendix": "appendiceal",
    "trachea": "tracheal",
    "bladder": "vesical",
    "avulsion": "rupture",
    "tear": "rupture",
    "failure": "insufficiency",
}
_SITES = frozenset(
    re.findall(
        r"\w+",
        "stomach kidney liver lung heart brain breast skin eye ovary testis bone pancreatic uterine"
        " appendiceal intestinal bowel colon "
        "colonic rectal esophageal nasal oral lingual tongue neck head thyroid adrenal spinal spine"
        " cervical thoracic lumbar sacral "
        "femoral tibial hip knee left right bilateral proximal distal anterior posterior lateral"
        " medial upper lower internal external ",
    )
)


@dataclass(frozen=True, slots=True)
class Sameness:
    """`how` '' : another diagnosis. `said` and `true` are the phrases that met, or ''."""

    how: How
    said: str = ""
    true: str = ""

    def __bool__(self) -> bool:
        return self.how != ""


def asserted(statement: str) -> list[str]:
    """The diagnoses that a statement asserts, the first one first.

    >>> asserted("Obstructive jaundice due to pancreatic head carcinoma (Courvoisier sign)")[:2]
    ['Obstructive jaundice due to pancreatic head carcinoma', 'Obstructive jaundice']
    >>> asserted("Chronic cough (non-TB), likely asthma; no evidence of tuberculosis")
    ['Chronic cough']
    """
    text = re.sub(r"[*#_`]+", " ", statement)
    phrases, aside = [], []
    for sentence in _SENTENCE.split(text):
        for inner in _BRACKETS.findall(sentence):
            if not _DOUBT.search(inner):
                aside.append(inner)
        plain = _BRACKETS.sub(" ", sentence)
        doubt = _DOUBT.search(plain)
        sure = plain[: doubt.start()] if doubt else plain
        phrases += [sure, *_LINK.split(sure)]
    trimmed = (" ".join(phrase.split()).strip(" .,:;-–—/") for phrase in (*phrases, *aside))
    return list(dict.fromkeys(phrase for phrase in trimmed if sum(c.isalpha() for c in phrase) > 1))


LEAST_LIKELY = 0.3
"""Probability below which no rule makes a statement right: so improbable are lists in which the
truth stands beside many other diagnoses."""


def probability(statement: str, truths: Sequence[str], linker: Linker, encode: Encode) -> float:
    """How probably a statement asserts the true diagnosis (`medaction.evaluation.likeness`), which
    goes by the names `truths` and those of its node."""
    names = list(dict.fromkeys(name for truth in truths for name in names_of_truth(truth)))
    nodes = set(_nodes(names, linker).values())
    synonyms = [name for node in sorted(nodes) for name in linker.names_of(node)]

    def shared(words: frozenset[str], others: frozenset[str]) -> frozenset[str]:
        return frozenset(word for word in words if _covers(others, {word}))

    every = list(dict.fromkeys((*names, *synonyms)))
    return likelihood(figures(statement, every, linker, encode, _words, shared))


def is_same_diagnosis(
    statement: str, truths: Sequence[str], linker: Linker, encode: Encode
) -> bool:
    """The offline judge's verdict: probable enough, or the same by the rules of `same_diagnosis`
    on what the statement claims first, and not improbable."""
    parts = claims(statement)
    if not parts or any(_contrary(parts[0], truth) for truth in truths[:1]):
        return False
    likely = probability(statement, truths, linker, encode)
    if likely >= THRESHOLD:
        return True
    return likely >= LEAST_LIKELY and bool(same_diagnosis("; ".join(parts), truths, linker))


def same_diagnosis(statement: str, truths: Sequence[str], linker: Linker) -> Sameness:
    """Whether a statement asserts the true diagnosis, which goes by any of the names `truths`."""
    names = list(dict.fromkeys(name for truth in truths for name in names_of_truth(truth)))
    said = asserted(statement)
    nodes = _nodes([*said, *names], linker)
    for phrase in said:
        for name in names:
            if how := _how(phrase, name, nodes):
                return Sameness(how, phrase, name)
    return Sameness("")


def names_of_truth(truth: str) -> Iterator[str]:
    """The whole, without brackets, what stands before its circumstances, and its names in
    brackets."""
    plain = " ".join(_BRACKETS.sub(" ", truth).split()).strip(" .")
    yield plain
    core = head(truth)
    # 'Anemia due to Cameron lesions' is more than any anemia: of a truth with a cause, one word
    # alone does not name it.
    if core and (len(_words(core) - _QUALIFIERS) > 1 or not _CAUSE.search(truth)):
        yield core
    yield from (
        inner.strip()
        for inner in _BRACKETS.findall(truth)
        if not _DOUBT.search(inner) and len(inner) > 6
    )


def _nodes(texts: Sequence[str], linker: Linker) -> dict[str, int]:
    known = [text for text in dict.fromkeys(texts) if linker.knows(text)]
    links = linker.link(known)
    return {
        link.text: link.node
        for link in links
        if link.node is not None and link.method in _NODE_METHODS
    }


def _how(said: str, true: str, nodes: dict[str, int]) -> How:
    if _contrary(said, true):
        return ""
    if said in nodes and nodes[said] == nodes.get(true):
        return "node"
    ours, theirs = _words(said), _words(true)
    told, wanted = ours - _QUALIFIERS, theirs - _QUALIFIERS
    if not told or not wanted:
        return "name" if ours and ours == theirs else ""
    if _covers(told, wanted) and _covers(wanted, told):
        return "name"
    if _covers(told, wanted) and _has_head(said, wanted):
        return "part"
    missing = {word for word in wanted if not _covers(told, {word})}
    return (
        "narrower"
        if _covers(wanted, told) and missing <= _SITES and len(told) > 1 and _has_head(true, told)
        else ""
    )


def _contrary(said: str, true: str) -> bool:
    """'Acute hepatitis' is no 'chronic hepatitis'; where only one of the two says it, nothing is
    contrary."""
    ours, theirs = f" {normalise(said)} ", f" {normalise(true)} "
    for one, other in _OPPOSITES:
        for here, there in ((one, other), (other, one)):
            if (
                _says(ours, here)
                and not _says(ours, there)
                and _says(theirs, there)
                and not _says(theirs, here)
            ):
                return True
    letters = [
        re.findall(r" (?:type |class |stage |hemophilia |hepatitis |vitamin )([a-e1-9]) ", text)
        for text in (ours, theirs)
    ]
    return bool(letters[0] and letters[1] and letters[0] != letters[1])


def _says(text: str, word: str) -> bool:
    return f" {word}" in text if word in ("hyper", "hypo") else f" {word} " in text


@cache
def _words(text: str) -> frozenset[str]:
    return frozenset(_SAME_WORD.get(word, word) for word in bag(normalise(text)))


def _covers(words: frozenset[str] | set[str], wanted: frozenset[str] | set[str]) -> bool:
    return all(any(_same_word(word, other) for other in words) for word in wanted)


def _same_word(one: str, other: str) -> bool:
    """Inflections and spellings of one word: 'physiologic' and 'physiological'; never 'hypo-' for
    'hyper-'."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    if len(short) < 6 or short[:4] != long[:4]:
        return False
    return (long.startswith(short) and len(long) - len(short) <= 2) or fuzz.ratio(one, other) >= 90


def _has_head(text: str, words: frozenset[str] | set[str]) -> bool:
    """Whether the word that says what it is ('anemia' of 'anemia of chronic kidney disease') is
    among `words`, or says nothing itself."""
    before = normalise(_BEFORE_OF.sub("", _BRACKETS.sub(" ", text))) or normalise(text)
    last = [
        word for word in before.split() if not re.fullmatch(r"\d+|[a-e]|i+v?|right|left", word)
    ][-1:]
    return (
        not last
        or _covers(
            words | _QUALIFIERS,
            {_SAME_WORD.get(last[0].rstrip("s"), _SAME_WORD.get(last[0], last[0]))},
        )
        or (_covers(words, _words(last[0])))
    )
