"""What a clause denies: 'no rash, fever or cough', 'ascites was not seen', 'Cultures: negative'.

The cues are those of NegEx (Chapman et al., J Biomed Inform 2001;34:301-10) that reports use: some
stand before the phrase that they deny, some after it.
"""

import re

DENIAL = re.compile(
    r"\b(?:no|not|den(?:y|ies|ied|ying)|without|absent|absence of|negative for|never|free of"
    r"|lack of|lacks|nor|neither|non|unremarkable for|rules? out|ruled out|excludes?|no longer"
    r"|negative(?= \w)|normal(?! pressure))\b",
    re.IGNORECASE,
)
"""Cues that deny what follows them. 'Normal pressure hydrocephalus' is no normal pressure."""

DENIAL_OF_A_LIST = re.compile(
    r"\b(?:den(?:y|ies|ied|ying)|negative for|neither|free of)\b", re.IGNORECASE
)
"""Cues that deny a whole list, whatever joins it: 'denies fever, chills'."""

DENIAL_AFTER = re.compile(
    r"\b(?:absent|negative|none|not (?:been )?(?:seen|present|detected|noted|identified|observed"
    r"|evident|reported|visible|appreciated)|denied|ruled out|excluded|nil|unlikely|resolved)\b",
    re.IGNORECASE,
)
"""Cues that deny what stands before them: 'ascites was not seen'."""

DENIAL_AT_START = re.compile(
    r"\s*(?:none|no|absent|negative|normal|nil|not\b|within normal|unremarkable|denied|0\b)",
    re.IGNORECASE,
)
"""What follows the colon of 'Fever: none'."""

_UNDONE = re.compile(
    r"\b(?:not|never|without being) (?:yet )?(?:performed|done|conducted|measured|available"
    r"|obtained|tested|checked|taken|ordered|reported|documented|provided)"
    r"|\b(?:pending|await\w+|planned|scheduled)\b|\bno [^.;,]{2,60} levels? measured",
    re.IGNORECASE,
)


def is_undone(statement: str) -> bool:
    """Whether a statement tells of a test that was left undone: 'CA 19-9 not performed',
    'sequencing pending'."""
    return _UNDONE.search(statement) is not None
