"""What keeps two names from being one disease, however alike their words are: course, behaviour,
side, grade, type or stage, organism, site.

A contradiction needs both names to say something. Where only one says 'acute', 'left' or 'type 2',
nothing contradicts: a judge of diagnoses takes a missing or a further detail as no fault. A site
contradicts only where the rest of the two names is the same: two sites alone caught 7 of 165 right
answers and 2 of 45 wrong ones (210 of those of benchmarks/answers.py).
"""

from collections import Counter
from functools import cache
from typing import Literal

from medaction.envs.naming import profile
from medaction.kg.icd import load_icd
from medaction.kg.opposites import Opposition, opposition
from medaction.kg.readings import bag
from medaction.words.names import normalise

Contradiction = Opposition | Literal["organism", "site"]

_STEM = 7  # letters: 'tubercu' of 'tuberculous'
_KINGDOMS = ("bacteri", "viral", "virus", "fungal", "fungus", "parasit", "protozo", "helmint")
"""The beginnings of the words for kingdoms of organisms."""
_SHARE_OF_INFECTIONS = 0.75
"""Share of the names in ICD-10-CM with words of one beginning that stand in its chapters of
infections, from which these words name an organism or its disease (our choice)."""


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
    # The cheap rules first: regions and organisms read tables.
    if opposed := opposition(stated, true):
        return opposed
    ours, theirs = normalise(stated), normalise(true)
    organisms = _organisms(ours), _organisms(theirs)
    if all(organisms) and not organisms[0] & organisms[1]:
        return "organism"
    sites = _sites(ours), _sites(theirs)
    if all(sites) and not _regions(sites[0]) & _regions(sites[1]):
        # Two sites alone say little: a disease may be called by either of two organs that it is in.
        rest = [bag(text) - site for text, site in zip((ours, theirs), sites, strict=True)]
        if rest[0] == rest[1]:
            return "site"
    return ""


def names_kingdom_alone(stated: str, true: str) -> bool:
    """Whether `stated` is `true` with a kingdom, right or wrong, in place of the organism that
    `true` begins with. All else is the same: what is said besides may be the organism.

    >>> names_kingdom_alone("Fungal meningitis", "Cryptococcal meningitis")
    True
    >>> names_kingdom_alone("Viral CMV colitis", "Cytomegalovirus colitis")
    False
    >>> names_kingdom_alone("Pseudomonas bacterial keratitis", "Pseudomonas aeruginosa keratitis")
    False
    """
    words = normalise(stated).split()
    rest = [word for word in words if not word.startswith(_KINGDOMS)]
    # An empty truth must not end the judging.
    organism, *others = normalise(true).split() or [""]
    return (
        0 < len(rest) < len(words)
        and bag(" ".join(rest)) == bag(" ".join(others))
        and bool(_organisms(organism))
    )


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
        stems = {word[:_STEM] for word in words if len(word) > 3}  # 'due', 'of'
        every.update(stems)
        if code.code[0] in "AB":  # A00 to B99
            infections.update(stems)
    return frozenset(
        stem
        for stem, count in infections.items()
        # A word of one single code is too little to call it an organism.
        if count > 1 and count >= _SHARE_OF_INFECTIONS * every[stem]
    )
