"""What keeps two names from being one disease, however alike their words are: course, behaviour,
side, grade, type or stage, organism, site.

A contradiction needs both names to say something. Where only one says 'acute', 'left' or 'type 2',
nothing contradicts: a judge of diagnoses takes a missing or a further detail as no fault. A site
contradicts only where the rest of the two names is the same: two sites alone caught 7 of 165 right
answers and 2 of 45 wrong ones (210 of those of benchmarks/answers.py).
"""

from collections import Counter, defaultdict
from functools import cache
from typing import Literal

from medaction.envs.naming import profile
from medaction.kg.icd import IcdCode, load_icd
from medaction.kg.opposites import Opposition, opposition
from medaction.kg.readings import bag
from medaction.words.names import normalise

Contradiction = Opposition | Literal["organism", "site"]

_STEM = 7
KINGDOMS = {
    "bacteria": (("bacteri",), "A00-A05 A15-A58 A65-A79"),
    "viruses": (("viral", "virus"), "A08-A08 A60-A60 A63-A63 A80-B34"),
    # ICD-10-CM files Pneumocystis, a fungus, with the protozoa.
    "fungi": (("fungal", "fungus", "mycotic"), "B35-B49 B59-B59"),
    "parasites": (("parasit", "protozo", "helmint"), "A06-A07 A59-A59 B50-B58 B60-B89"),
}
"""Kingdom of organisms -> the beginnings of the words for it, and its blocks of ICD-10-CM."""
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
    >>> contradiction("Bacterial meningitis", "Cryptococcal meningitis")
    'organism'
    >>> contradiction("Renal tuberculosis", "Pulmonary tuberculosis")
    'site'
    """
    if opposed := opposition(stated, true):
        return opposed
    ours, theirs = normalise(stated), normalise(true)
    organisms = _organisms(ours), _organisms(theirs)
    if all(organisms) and not organisms[0] & organisms[1]:
        return "organism"
    kingdoms = _kingdoms(ours), _kingdoms(theirs)
    if all(kingdoms) and not kingdoms[0] & kingdoms[1]:
        return "organism"
    sites = _sites(ours), _sites(theirs)
    if all(sites) and not _regions(sites[0]) & _regions(sites[1]):
        rest = [bag(text) - site for text, site in zip((ours, theirs), sites, strict=True)]
        if rest[0] == rest[1]:
            return "site"
    return ""


def names_kingdom_alone(stated: str, true: str) -> bool:
    """Whether `stated` names the kingdom of the organism that `true` names, and no organism.

    >>> names_kingdom_alone("Fungal meningitis", "Cryptococcal meningitis")
    True
    >>> names_kingdom_alone("Fungal meningitis, Cryptococcus", "Cryptococcal meningitis")
    False
    """
    ours, theirs = normalise(stated), normalise(true)
    names_kingdom = any(
        word.startswith(beginnings) for word in ours.split() for beginnings, _ in KINGDOMS.values()
    )
    return names_kingdom and not _organisms(ours) and bool(_organisms(theirs) & kingdom_of().keys())


def _organisms(text: str) -> frozenset[str]:
    """The beginnings of words that name organisms: 'tuberculous' and 'tuberculosis' have one."""
    return frozenset(word[:_STEM] for word in text.split()) & organism_stems()


def _kingdoms(text: str) -> frozenset[str]:
    stems = (word[:_STEM] for word in text.split())
    return frozenset(kingdom_of()[stem] for stem in stems if stem in kingdom_of())


def _sites(text: str) -> frozenset[str]:
    return frozenset(word for word in bag(text) if profile(word).regions)


def _regions(words: frozenset[str]) -> frozenset[str]:
    return frozenset().union(*(profile(word).regions for word in words))


@cache
def kingdom_of() -> dict[str, str]:
    """Beginnings of words that name a kingdom, or an organism of one alone -> that kingdom."""
    kingdoms: dict[str, set[str]] = defaultdict(set)
    for code in load_icd().values():
        for kingdom, (_, blocks) in KINGDOMS.items():
            ends = (block.split("-") for block in blocks.split())
            if any(first <= code.code[:3] <= last for first, last in ends):
                for stem in _stems(code):
                    kingdoms[stem].add(kingdom)
    of_organisms = {
        stem: min(of) for stem, of in kingdoms.items() if len(of) == 1 and stem in organism_stems()
    }
    return of_organisms | {
        beginning: kingdom for kingdom, (names, _) in KINGDOMS.items() for beginning in names
    }


def _stems(code: IcdCode) -> set[str]:
    names = map(normalise, (code.name, *code.synonyms))
    return {word[:_STEM] for name in names for word in name.split() if len(word) > 3}


@cache
def organism_stems() -> frozenset[str]:
    """The beginnings of words that ICD-10-CM has nearly only among infections (A00 to B99)."""
    infections: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for code in load_icd().values():
        stems = _stems(code)
        every.update(stems)
        if code.code[0] in "AB":
            infections.update(stems)
    return frozenset(
        stem
        for stem, count in infections.items()
        if count > 1 and count >= _SHARE_OF_INFECTIONS * every[stem]
    )
