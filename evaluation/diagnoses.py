"""Whether a stated diagnosis is the true one, without a language model: a probability.

A logistic regression on four figures of the claims (`medaction.evaluation.claims`) beside the
names of the truth; a contradiction (`medaction.evaluation.contradictions`) makes it 0. Words weigh
by how rare they are among the names of the disease graph. As in MedR-Bench aliases are the same
diagnosis, and a complication or two beside it do no harm; a list of diagnoses is none.

The coefficients were fitted to a GPT's verdicts on the development half of real answers
(benchmarks/answers.py has the split), with answers to other cases and lists of diagnoses added as
wrong ones of weight 0.15.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from rapidfuzz import fuzz

from medaction.envs.oracle import Encode
from medaction.evaluation.claims import BRACKETS, DOUBT, LINK, MOST_CLAIMS, claims
from medaction.evaluation.contradictions import Contradiction, contradiction
from medaction.kg.linking import Linker
from medaction.kg.readings import bag, head
from medaction.words.names import normalise

COEFFICIENTS = np.array([0.36, 2.94, 4.47, -1.20, -2.04])
"""Of `figures`, then the constant."""

LIKELY = 0.4
"""Probability from which a diagnosis counts as the true one: the one with the highest alpha beside
the GPT in ten-fold cross-validation by case on the development half (docs/evaluation.md has the
curve). What a policy without knowledge of the patient can win does not hang on it, but on the rules
(tests/test_gaming.py)."""

MOST_NAMES = 6
"""Names of the truth that are encoded."""

FOREIGN = 0.3
"""A claim of which the truth has less than this share of the words is about something else."""

VAGUE = 0.5
"""A statement that says less than this share of the name which it resembles most is something more
general, as 'carcinoma' is for 'carcinoma of the salivary gland'. On the development half this
refuses 94 of 131 single words and general names ('Cancer', 'Infection') that were likely enough
without it, and 8 of 112 right answers."""

NAMED = 0.75
"""A statement of one word must have this share of some name of the truth: 'meningitis' names a
class of which tuberculous meningitis is one."""

_QUALIFIERS = frozenset(
    ["acute", "chronic", "severe", "symptomatic", "recurrent", "early", "late", "massive", "benign"]
)
"""Words that say how bad or since when, not what."""

_LIST = frozenset([",", "/", "and"])
"""What joins the names of a list. Of the answers of the development half none was refused."""

_NODE_METHODS = ("exact", "synonym", "abbreviation")
_SAME_WORD = {
    "carcinoma": "cancer",
    "adenocarcinoma": "cancer",
    "malignancy": "cancer",
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

Words = frozenset[str]


Fault = Literal["more general", "a list"]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How probably a statement is the true diagnosis, and what rules it out ('' for nothing)."""

    probability: float
    fault: Contradiction | Fault = ""

    def __bool__(self) -> bool:
        return self.probability >= LIKELY


def likeness(statement: str, truths: Sequence[str], linker: Linker, encode: Encode) -> Likeness:
    """A statement beside the true diagnosis, which goes by the names `truths`, the first of them
    its own, and by those of its node in the linker's graph. Nothing claimed is nothing right.

    encode: texts -> vectors of length 1, shape (texts, dimension).
    """
    parts = claims(statement)[: MOST_CLAIMS + 2]
    names = list(dict.fromkeys(name for truth in truths for name in names_of_truth(truth)))
    if not parts or not names:
        return Likeness(0.0)
    if fault := contradiction(parts[0], truths[0]):
        return Likeness(0.0, fault)
    synonyms = [name for node in _nodes(names, linker) for name in linker.names_of(node)]
    row = figures(parts, list(dict.fromkeys((*names, *synonyms))), linker, encode)
    if isinstance(row, str):
        return Likeness(0.0, row)
    return Likeness(float(1 / (1 + math.exp(-(row @ COEFFICIENTS[:-1] + COEFFICIENTS[-1])))))


def figures(
    parts: Sequence[str], names: Sequence[str], linker: Linker, encode: Encode
) -> np.ndarray | Fault:
    """Four figures of the claims `parts` beside the names of a truth, shape (4,).

    Instead of them a fault: a statement is more general than the truth (VAGUE, NAMED), or a list
    that begins with something else ('Pneumonia, lymphoma and gout' for lymphoma). A cause or a
    complication may come before the truth, joined by a word that says so.

    In order: the share of the best name's words that the first claim has; the highest cosine of a
    claim and a name or what the truth's own name begins with; the share of the claims' words that
    the truth has; log(1 + claims about something else).
    """
    weigh = word_weights(linker)

    def share(words: Words, others: Words) -> float:
        shared = frozenset(word for word in words if any(_same_word(word, o) for o in others))
        return weigh(shared) / weigh(words) if words else 0.0

    stated = frozenset().union(*map(_words_that_tell, parts))
    true = frozenset().union(*map(_words_that_tell, names))
    likest = max(names, key=lambda name: share(_words_that_tell(name), stated))
    is_word = (
        len(stated - _QUALIFIERS) < 2
        and share(_words_that_tell(likest) - _QUALIFIERS, stated) < NAMED
    )
    if is_word or weigh(stated) < VAGUE * weigh(_words_that_tell(likest)):
        return "more general"
    # parts[0] is all that is asserted, parts[1] what stands before its first cause or companion
    first_claim = _words_that_tell(parts[1] if len(parts) > 1 else parts[0])
    joint = LINK.search(parts[0])
    if joint and joint[0].strip().lower() in _LIST and share(first_claim, true) < FOREIGN:
        return "a list"
    core = LINK.split(BRACKETS.sub(" ", names[0]))[0].strip(" .,")
    vectors = encode([*parts, *names[:MOST_NAMES], *([core] if len(core) > 3 else [])])
    cosines = vectors[: len(parts)] @ vectors[len(parts) :].T
    foreign = sum(
        weigh(words) > 0.4 and share(words, true) < FOREIGN
        for words in map(_words_that_tell, parts[1:])
    )
    return np.array(
        [
            max(share(_words_that_tell(name), first_claim) for name in names),
            float(cosines.max()),
            share(stated, true),
            math.log1p(foreign),
        ]
    )


@lru_cache(maxsize=4)
def word_weights(linker: Linker) -> Callable[[Words], float]:
    """The weight of a set of words: each 1 in one name of the graph, towards 0 in all; 0.5 for a
    word that no name has."""
    names = list(linker.name_words())
    counts = Counter(word for words in names for word in words)
    most = math.log(len(names) + 1)
    weights = {word: 1 - math.log(count + 1) / most for word, count in counts.items()}
    return lambda words: sum(weights.get(word, 0.5) for word in words)


def names_of_truth(truth: str) -> Iterator[str]:
    """A truth without its brackets, what of it stands before its circumstances, and the names in
    its brackets."""
    yield " ".join(BRACKETS.sub(" ", truth).split()).strip(" .")
    core = head(truth)
    # 'Anemia due to Cameron lesions' is more than any anemia: of a truth with a cause, one word
    # alone does not name it.
    if core and (len(_words_that_tell(core) - _QUALIFIERS) > 1 or core == normalise(truth)):
        yield core
    yield from (
        inner.strip()
        for inner in BRACKETS.findall(truth)
        if not DOUBT.search(inner) and len(inner) > 6
    )


def _nodes(texts: Sequence[str], linker: Linker) -> list[int]:
    links = linker.link([text for text in texts if linker.knows(text)])
    return sorted(
        {link.node for link in links if link.node is not None and link.method in _NODE_METHODS}
    )


@cache
def _words_that_tell(text: str) -> Words:
    return frozenset(_SAME_WORD.get(word, word) for word in bag(normalise(text)))


def _same_word(word: str, other: str) -> bool:
    """Inflections and spellings of one word: 'physiologic' and 'physiological'; never 'hypo-' for
    'hyper-'."""
    if word == other:
        return True
    short, long = sorted((word, other), key=len)
    if len(short) < 6 or short[:4] != long[:4]:
        return False
    return (long.startswith(short) and len(long) - len(short) <= 2) or fuzz.ratio(word, other) >= 90
