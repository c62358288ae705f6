"""Whether a stated diagnosis is the true one, without a language model: a probability.

Rules come first: a contradiction (`medaction.evaluation.contradictions`), another disease of the
graph, nothing in common, a list and a more general name are wrong; another name of the same node
is right. The rest is a logistic regression on three figures of the claims
(`medaction.evaluation.claims`) beside the names of the truth. As in MedR-Bench aliases are the same
diagnosis, and a complication or two beside it do no harm; a list of diagnoses is none.

`python -m benchmarks.answers ANSWERS` fits the coefficients to a GPT's verdicts on real answers.
Where a constant says 'development half', it was chosen on 210 of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medaction.envs.oracle import Encode
from medaction.evaluation.claims import (
    BRACKETS,
    DOUBT,
    LINK,
    LIST,
    MOST_CLAIMS,
    assertion,
    claims,
    denied,
)
from medaction.evaluation.contradictions import Contradiction, contradiction, names_kingdom_alone
from medaction.evaluation.word_shares import word_shares, words_of
from medaction.kg.hierarchy import Kinship, kinship
from medaction.kg.linking import Linker
from medaction.kg.readings import head
from medaction.words.names import normalise

COEFFICIENTS = (1.45, 2.99, 5.80, -4.11)
"""Of `figures`, then the constant, fitted to a GPT's verdicts on 450 real answers. Further figures
(whether the last word of a name is said, the best single pair of names, the share and the cosine of
the first claim, what the nodes are to one another, the number of claims) moved the area under the
curve by less than 0.01 in cross-validation by case."""

LIKELY = 0.8
"""Probability from which a diagnosis counts as the true one: where the sum of sensitivity and
specificity is highest, in cross-validation on the same answers."""

MOST_NAMES = 6
"""Names of the truth that are encoded."""

FOREIGN = 0.3
"""A claim of which the truth has less than this share of the words is about something else."""

IN_COMMON = 0.15
"""A statement that says less than this share of each name of the truth, and nothing above or below
it in a hierarchy, has nothing in common with it, however near an encoder sees them. On the
development half this refuses 20 of 45 wrong answers and 12 of 165 right ones."""

VAGUE = 0.5
"""A statement that says less than this share of the name which it resembles most is something more
general, as 'carcinoma' is for 'carcinoma of the salivary gland'. On the development half this
refuses 94 of 131 single words and general names ('Cancer', 'Infection') that were likely enough
without it, and 8 of 112 right answers."""

NAMED = 0.75
"""A statement of one word must have this share of some name of the truth: 'meningitis' names a
class of which tuberculous meningitis is one."""

MANY = 4
"""Other diseases of the graph that a statement names, from which it is a list, or a chain of causes
that reaches everything. No answer of the development half names as many."""

_QUALIFIERS = frozenset(
    ["acute", "chronic", "severe", "symptomatic", "recurrent", "early", "late", "massive", "benign"]
)
"""Words that say how bad or since when, not what."""

_NODE_METHODS = ("exact", "synonym", "abbreviation")

Fault = Literal["more general", "a list", "another disease", "nothing in common", "denied"]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How probably a statement is the true diagnosis, what rules it out ('' for nothing), and the
    figures that the probability follows from (None: a rule decided)."""

    probability: float
    fault: Contradiction | Fault = ""
    figures: np.ndarray | None = None

    def __bool__(self) -> bool:
        return self.probability >= LIKELY


def likeness(statement: str, truths: Sequence[str], linker: Linker, encode: Encode) -> Likeness:
    """A statement beside the true diagnosis, which goes by the names `truths`, the first of them
    its own, and by those of its node in the linker's graph. Nothing claimed is nothing right.

    encode: texts -> vectors of length 1, shape (texts, dimension).
    """
    # Two more: the first two are the whole assertion and what stands before its first cause.
    parts = claims(statement)[: MOST_CLAIMS + 2]
    names = list(dict.fromkeys(name for truth in truths for name in names_of_truth(truth)))
    if not parts or not names:
        return Likeness(0.0)
    # What is absent is a disease ('gout') or, where the statement names a malformation, an organ.
    absent = denied(statement)
    if absent and linker.knows(absent) and likeness(absent, truths, linker, encode):
        return Likeness(0.0, "denied")
    asserted = assertion(statement)
    # Against the truth's own name alone: synonyms may be wider, and contradict less or more.
    if fault := contradiction(asserted, truths[0]):
        return Likeness(0.0, fault)
    relation = _relation(asserted, truths[0], linker)
    if relation == "same":
        return Likeness(1.0)
    # Before the figures: an encoder sees two diseases of one organ as near.
    if relation == "apart":
        return Likeness(0.0, "another disease")
    if names_kingdom_alone(asserted, truths[0]):
        return Likeness(0.0, "more general")
    row = figures(parts, names, linker, encode)
    if isinstance(row, str):
        return Likeness(0.0, row)
    # Logistic regression: the probability is the logistic function of the margin.
    margin = float(row @ COEFFICIENTS[:-1] + COEFFICIENTS[-1])
    return Likeness(1 / (1 + math.exp(-margin)), figures=row)


def figures(
    parts: Sequence[str], truth: Sequence[str], linker: Linker, encode: Encode
) -> np.ndarray | Fault:
    """Three figures of the claims `parts` beside the names `truth`, shape (3,), or a fault.

    In order: of the best name's words the share that the claims have; of the claims' words the
    share that the names have; the highest cosine of a claim with a name, or with what the truth's
    own name begins with.
    """
    shares = word_shares(linker)
    nodes = _nodes(truth, linker)
    synonyms = [name for node in nodes for name in linker.names_of(node)]
    names = list(dict.fromkeys((*truth, *synonyms)))
    stated = frozenset().union(*map(words_of, parts))
    true = frozenset().union(*map(words_of, names))
    # parts[0] is all that is asserted, parts[1] what stands before its first cause or companion
    first_claim = words_of(parts[1] if len(parts) > 1 else parts[0])
    # Of the names the best one: who says any of them says the disease.
    likest = max(names, key=lambda name: shares.share(words_of(name), stated))
    said = shares.share(words_of(likest), stated)
    if said < IN_COMMON and not any(
        kinship(linker, node, other) != "apart" for node in _nodes(parts, linker) for other in nodes
    ):
        return "nothing in common"
    is_word = (
        len(stated - _QUALIFIERS) < 2
        and shares.share(words_of(likest) - _QUALIFIERS, stated) < NAMED
    )
    if is_word or shares.weight(stated) < VAGUE * shares.weight(words_of(likest)):
        return "more general"
    # 'A, B' with a foreign A is a list; in 'A due to B' it may be what B causes.
    joint = LINK.search(parts[0])
    if joint and "with" in joint[0].casefold().split():
        # 'A with B, C' where the graph knows A for another disease.
        is_apart = _relation(parts[1], truth[0], linker) == "apart"
        joint = LIST.search(parts[0], joint.end()) if is_apart else None
    is_list = joint and LIST.match(parts[0], joint.start())
    if is_list and shares.share(first_claim, true) < FOREIGN:
        return "a list"
    others = {
        linker.bearer(part) for part in parts[1:] if shares.share(words_of(part), true) < FOREIGN
    }
    if len(others - {None}) >= MANY:
        return "a list"
    # Without cause and companions, which pull the vector away from the disease.
    core = LINK.split(BRACKETS.sub(" ", truth[0]))[0].strip(" .,")
    vectors = encode([*parts, *names[:MOST_NAMES], *([core] if len(core) > 3 else [])])
    cosines = vectors[: len(parts)] @ vectors[len(parts) :].T
    return np.array([said, shares.share(stated, true), float(cosines.max())])


def _relation(stated: str, true: str, linker: Linker) -> Kinship | None:
    """What the node named by a whole statement is to that named by the truth; None where one of
    them names none, or the words of one hold those of the other: it may be a kind of it that no
    tree has."""
    nodes = [linker.bearer(BRACKETS.sub(" ", name)) for name in (stated, true)]
    if nodes[0] is None or nodes[1] is None:
        return None
    relation = kinship(linker, nodes[0], nodes[1])
    shares, words = word_shares(linker), (words_of(stated), words_of(true))
    # Near 1, not 1: weights are sums of fractions.
    holds = max(shares.share(*words), shares.share(*reversed(words))) > 0.99
    return None if relation == "apart" and holds else relation


def names_of_truth(truth: str) -> Iterator[str]:
    """A truth without its brackets, what of it stands before its circumstances, and the names in
    its brackets."""
    yield " ".join(BRACKETS.sub(" ", truth).split()).strip(" .")
    core = head(truth)
    # 'Anemia due to Cameron lesions' is more than any anemia: of a truth with a cause, one word
    # alone does not name it.
    if core and (len(words_of(core) - _QUALIFIERS) > 1 or core == normalise(truth)):
        yield core
    yield from (
        inner.strip()
        for inner in BRACKETS.findall(truth)
        if not DOUBT.search(inner) and len(inner) > 6  # no abbreviation: they are ambiguous
    )


def _nodes(texts: Sequence[str], linker: Linker) -> list[int]:
    links = linker.link([text for text in texts if linker.knows(text)])
    return sorted(
        {link.node for link in links if link.node is not None and link.method in _NODE_METHODS}
    )
