"""Tests named in running text: 'Normal brain CT and urinalysis' names two."""

import re
from functools import cache, lru_cache

from medaction.envs.naming import REGIONS, TABLE
from medaction.words.names import normalise
from medaction.words.phrases import phrase_pattern, phrase_regex
from medaction.words.tests import NAMES_IN_PROSE

_AMBIGUOUS = phrase_pattern(TABLE["ambiguous_in_prose"])
_VAGUE = phrase_pattern(TABLE["vague_in_prose"])


@cache
def _mention() -> re.Pattern[str]:
    """A test, with the region before it ('left axillary lymph node biopsy') and after it ('MRI of
    the spine')."""
    # 'Positive sputum cultures' in a history is evidence of a known disease, no result told early.
    # 'Lead', 'iron', 'got': in running text they are words as well.
    names = [n for names in NAMES_IN_PROSE.values() for n in names if not _AMBIGUOUS.fullmatch(n)]
    places = {*REGIONS, "spinal", "cervical", "lumbar", "axillary", "lymph node", "whole body"}
    region = phrase_regex("|".join(places))
    regions = rf"{region}(?:\s+and\s+{region})?"
    # 'CT of the chest and cervical spine', 'MRI of the brain, orbits and neck'
    places_behind = rf"{region}(?:(?:,?\s+and\s+|,\s+|\s+){region})*"
    names_in_prose = phrase_regex("|".join(names).casefold(), "")
    names_in_prose = names_in_prose.replace("e", "[ao]?e")  # 'haemoglobin', 'oestradiol'
    # Behind 'test for' an ambiguous name is one.
    sought = phrase_regex("|".join({*names, *TABLE["ambiguous_in_prose"].split("|")}).casefold())
    kind = f"{phrase_regex(TABLE['prose_abbreviations'])}|(?i:{phrase_regex(TABLE['prose_tests'])})"
    return re.compile(
        rf"\b(?=\w)(?i:{phrase_regex(TABLE['before_a_test'])}\s+)*"
        # A bound: 'lungs' is two names of regions, and twenty of them a million ways.
        rf"(?:(?i:{regions}\s+){{0,4}}(?:{kind})|(?i:{names_in_prose})"
        rf"|(?i:(?:tests?|testing|screen(?:ing)?) for {sought}))\b"
        rf"(?i:\s+of\s+(?:the\s+)?(?:(?:left|right)\s+)?{places_behind}\b)?"
    )


@lru_cache(maxsize=4096)
def named_tests(text: str) -> tuple[str, ...]:
    """The tests that running text names, in its own words and order, each once.

    >>> named_tests("Normal brain CT, chest X-ray and urinalysis; MRI of the spine showed a mass.")
    ('brain CT', 'chest X-ray', 'urinalysis', 'MRI of the spine')
    """
    mentions = (" ".join(match[0].split()) for match in _mention().finditer(text))
    names = (name for name in mentions if not _VAGUE.fullmatch(name))
    # By the normalised name: 'brain CT' and 'Brain-CT' are one; the later spelling stays at the
    # first place.
    return tuple({normalise(name): name for name in names}.values())


def without_names_of_tests(text: str) -> str:
    """`text` without the names of tests in it.

    >>> without_names_of_tests("MRI of the spine and urinalysis were not done")
    'and were not done'
    """
    return " ".join(_mention().sub("", text).split())
