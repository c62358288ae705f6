"""What a stated diagnosis claims: the claims of its first diagnosis, without hedges and lists.

A statement names one disease, with its causes and complications. What follows a word of doubt is
not asserted, and of alternatives ('A or B', 'A; B', one a line) only the first is.
"""

import re

from medaction.words.phrases import phrase_pattern

MOST_CLAIMS = 6
"""Claims of one statement that are read: a disease, its cause and a few complications."""

BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
# What follows is not asserted, up to the end of its sentence.
DOUBT = phrase_pattern(
    "likely | possib* | probabl* | suspected | presumed | impending | consider* | rule out"
    " | ruled out | rules out | ruling out | r/o | versus | vs | rather than | not | no"
    " | without | negative for | absence of | exclud* | unlikely | despite | history of"
    " | status post | pending | suspicious for | differential | alternatively | mimicking"
    " | masquerading as | resembling | cannot be"
)
_OPENING = re.compile(
    r"^\W*(?:(?:the )?(?:(?:most )?(?:likely|probable)|final|definitive|primary|working)"
    r" )?(?:diagnos[ie]s(?: is| are)?\W+)?(?:(?:likely|probable|suspected|presumed)\s+)?"
    r"(?:(?:case|patient)?\s*\d{1,2}\s*[.):]\W*)?",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(
    r";|\n|\||\s/\s|(?<=[a-z)]{2})\.\s+|\bor\b|\b(?:versus|vs)\b", re.IGNORECASE
)
# Opens a further claim: a cause, a consequence, a companion.
LINK = re.compile(
    phrase_pattern(
        "due to | secondary to | caused by | because of | resulting from | from | with | and"
        " | complicated by | causing | leading to | resulting in | associated with | arising in"
        " | arising from | in the setting of | in the context of | presenting as | presenting with"
        " | following | after | involving | related to"
    ).pattern
    + r"|[,:/]|\s[-–—]\s|—|(?<=\w)(?:-induced|-related|-associated)\b",
    re.IGNORECASE,
)


def claims(statement: str) -> list[str]:
    """The claims of the diagnosis that a statement makes first: its text, the parts, then what
    stands in brackets.

    >>> claims("Obstructive jaundice due to pancreatic head carcinoma (Courvoisier sign)")
    ['Obstructive jaundice due to pancreatic head carcinoma', 'Obstructive jaundice', \
'pancreatic head carcinoma', 'Courvoisier sign']
    >>> claims("Chronic cough (non-TB), likely asthma; no evidence of tuberculosis")
    ['Chronic cough']
    >>> claims("Gout (podagra); lipid pneumonia (endogenous)")
    ['Gout', 'podagra']
    >>> claims("Non-Hodgkin lymphoma")
    ['Non-Hodgkin lymphoma']
    >>> claims("Tuberculosis, sarcoidosis less likely")
    ['Tuberculosis']
    >>> claims("Sarcoidosis; tuberculosis; lymphoma"), claims("Final diagnosis: likely gout.")
    (['Sarcoidosis'], ['gout'])
    """
    text = _OPENING.sub("", re.sub(r"[*#_`]+", " ", statement).strip())
    # Brackets become blanks of their length, so that a place in `plain` is one in `text`.
    plain = BRACKETS.sub(lambda bracket: " " * len(bracket[0]), text)
    plain = _ALTERNATIVE.split(plain, maxsplit=1)[0]
    doubt = DOUBT.search(plain)
    sure = plain[: doubt.start()] if doubt else plain
    if doubt and not re.match(r"\W*\w", re.split(r"[,;.]", plain[doubt.end() :])[0]):
        # 'A, B less likely': the doubt stands behind what it is of
        sure = sure.rpartition(",")[0] or sure
    # 'non-' begins a name outside of brackets and excludes one inside them
    brackets = [
        bracket[1]
        for bracket in BRACKETS.finditer(text)
        if bracket.start() <= len(sure)
        and not DOUBT.search(bracket[1])
        and not bracket[1].lstrip().lower().startswith("non")
    ]
    parts = (" ".join(part.split()).strip(" .,:;-–—/") for part in (sure, *LINK.split(sure)))
    phrases = [part for part in dict.fromkeys(parts) if sum(map(str.isalpha, part)) > 1]
    return [*phrases, *(inner.strip() for inner in brackets if len(inner.strip()) > 1)]
