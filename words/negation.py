"""What a clause denies: 'no rash, fever or cough', 'ascites was not seen', 'Cultures: negative'.

The cues are those of NegEx (Chapman et al., J Biomed Inform 2001;34:301-10) that reports use: some
stand before the phrase that they deny, some after it.
"""

import re

from medaction.words.phrases import phrase_pattern, phrase_regex

_DENIALS = (
    "no | not | deny | denies | denied | denying | without | absent | absence of"
    " | negative for | never | free of | lack of | lacks | nor | neither | non"
    " | unremarkable for | rule out | rules out | ruled out | exclude | no longer"
)
DENIAL = re.compile(
    phrase_pattern(_DENIALS).pattern
    # 'A negative culture' denies what follows; 'culture: negative' what stands before.
    + r"|\bnegative(?= \w)|\bnormal(?! pressure)\b",
    re.IGNORECASE,
)
"""Cues that deny what follows them. 'Normal pressure hydrocephalus' is no normal pressure."""

DENIAL_OF_A_LIST = phrase_pattern(
    "deny | denies | denied | denying | negative for | neither | free of"
)
"""Cues that deny a whole list, whatever joins it: 'denies fever, chills'."""

PERCEPTIONS = (
    "seen | present | detected | noted | identified | observed | evident | reported | visible"
    " | appreciated"
)
_DENIALS_AFTER = (
    "absent | negative | none | denied | ruled out | excluded | nil | unlikely | resolved"
)
DENIAL_AFTER = re.compile(
    phrase_pattern(_DENIALS_AFTER).pattern + rf"|\bnot (?:been )?{phrase_regex(PERCEPTIONS, '')}\b",
    re.IGNORECASE,
)
"""Cues that deny what stands before them: 'ascites was not seen'."""

DENIAL_AT_START = re.compile(
    r"\s*(?:none|no|absent|negative|normal|nil|not|within normal|unremarkable|denied|0)\b",
    re.IGNORECASE,
)
"""What follows the colon of 'Fever: none'."""

_DOINGS = (
    "performed | done | conducted | measured | available | obtained | tested | checked | taken"
    " | ordered | reported | documented | provided"
)
_STILL_TO_COME = phrase_pattern("pending | await* | planned | scheduled")
_UNDONE = re.compile(
    _STILL_TO_COME.pattern + rf"|\b(?:not|never|without being) (?:yet )?{phrase_regex(_DOINGS, '')}"
    r"|\bno [^.;,]{2,60} levels? measured",
    re.IGNORECASE,
)


def is_undone(statement: str) -> bool:
    """Whether a statement tells of a test that was left undone: 'CA 19-9 not performed',
    'sequencing pending'."""
    return _UNDONE.search(statement) is not None
