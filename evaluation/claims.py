"""What a stated diagnosis claims: the claims of its first diagnosis, without hedges and lists.

A statement names one disease, with its causes and complications. What follows a word of doubt is
not asserted, and of alternatives ('A or B', 'A; B', one a line) only the first is.
"""

import re
from itertools import pairwise

from medaction.words.negation import DENIAL, DENIAL_AFTER
from medaction.words.phrases import phrase_pattern
from medaction.words.sentences import sentences

MOST_CLAIMS = 6
"""Claims of one statement that are read: a disease, its cause and a few complications."""

BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
# What follows is not asserted, up to the end of its sentence.
_DOUBTFUL = (
    "likely | possib* | probabl* | suspected | presumed | impending | consider* | rule out"
    " | ruled out | rules out | ruling out | r/o | versus | vs | rather than | not | no"
    " | instead of | negative for | absence of | exclud* | unlikely | despite | history of"
    " | status post | pending | suspicious for | differential | alternatively | mimicking"
    " | masquerading as | resembling | cannot be | is absent | was absent | one of | screening for"
    " | risk of | risk for"
)
# 'The findings argue against gout'; antibodies against a receptor are a part of a name.
_AGAINST = r"(?<!antibodies )(?<!antibody )\bagainst\b"


def _doubt(table: str) -> re.Pattern[str]:
    return re.compile(rf"{phrase_pattern(table).pattern}|{_AGAINST}", re.IGNORECASE)


_DOUBT_OF_THE_DISEASE = _doubt(_DOUBTFUL)
DOUBT = _doubt(f"{_DOUBTFUL} | without")
# Of the words of doubt those that deny: behind the only name they leave nothing of it. 'Not
# excluded' denies a denial.
_DENIAL_OF_THE_DISEASE = re.compile(
    rf"(?:(?:is|was) )?(?:{DENIAL_AFTER.pattern}|not\b(?!\W+(?:{DENIAL_AFTER.pattern})))",
    re.IGNORECASE,
)
# A sentence around the name: an aside ('Given the imaging,'), a subject that is no disease with its
# verb ('this patient most likely has'), a number. 'Primary' is stripped before 'diagnosis' alone:
# elsewhere it is what a disease is.
_ASIDE = (
    # No '-ly': 'acromegaly' and 'polydactyly' are no adverbs.
    r"(?:(?:finally|ultimately|accordingly|consequently|clearly|certainly|overall|together"
    r"|therefore|thus|hence|so|sure|okay|ok|yes)[,.!:]"
    # 'AS' is a disease, 'after-cataract', too.
    # A preposition begins no name ('in situ' aside), and in capitals it may be one: 'AS', 'ON'.
    r"|(?:given|based|considering|taken|after|according|because|since"
    r"|(?-i:[Aa]s|[Oo]n|[Aa]t|[Tt]o|[Bb]y|[Ff]rom|[Ff]or|[Ww]ith|[Uu]nder|[Aa]ll in|[Ii]n)(?! situ)"
    # 'Weighing everything up': a participle with its object.
    r"|[a-z]+ing (?:(?:it|this|that) )?(?:all|everything|the|these|those|this|it))"
    r"(?=[\s,])[^,;\n]*,"
    # 'Not only gout but lymphoma' claims both, and is a list.
    r"|not\b(?! (?:only|just|merely|simply|solely)\b)[^,;\n]*,? but(?: rather)?\b)\W*"
)
_LABEL = (
    "(?:(?:an?|the|this|these|our|my) )?(?:patient['’]s )?"
    "(?:(?:most|likely|probable|final|definitive|primary|principal|working|leading|top|unifying"
    "|clinical|overall) )*"
    "(?:patient|case|findings?|results?|picture|presentation|answer|diagnos[ie]s)"
)
_VERB = (
    r"(?:(?: (?:most|very|would|must|(?!un)\w+ly))*"
    " (?:is|was|are|be|has|have|had|of|diagnose|suffers? from|suffering from|points? to"
    "|suggests?|supports?|confirms?|indicates?|(?:consistent|compatible) with))+"
)
_OPENING = re.compile(
    rf"^\W*(?:{_ASIDE}|(?:this|it|he|she|i|we|{_LABEL}){_VERB}\b\W*|{_LABEL}\W+)*"
    r"(?:an? |the )?"
    r"(?:(?:most )?(?:likely|probabl[ey]|suspected|presumed)\s+)?"
    r"(?:(?:case|patient)?\s*\d{1,2}\s*[.):]\W*)?",
    re.IGNORECASE,
)
_IS = re.compile(r"\b(?:is|are|was|were|be|been)\s*$", re.IGNORECASE)
# A malformation: 'Absence of the radius'. Behind another name the same words exclude.
_ABSENCE = re.compile(r"\W*absence of\b", re.IGNORECASE)
_ALTERNATIVE = re.compile(r";|\n|\||\s/\s|\bor\b|\b(?:versus|vs)\b", re.IGNORECASE)
_INITIAL = re.compile(r"\b[A-Z]\.$")  # of 'H. Influenzae'
# Opens a further claim: a cause, a consequence, a companion.
_LINK_WORDS = phrase_pattern(
    "due to | secondary to | caused by | because of | resulting from | from | with"
    " | complicated by | causing | leading to | resulting in | associated with | arising in"
    " | arising from | in the setting of | in the context of | presenting as | presenting with"
    " | following | after | involving | related to"
)
_LIST_WORDS = phrase_pattern("and | as well as | along with | plus")
# Apostrophes, hyphens, signs on letters ('Barre\u0301'), and all that scripts beyond Latin have.
_IN_NAMES = "’‘“”´°′™®\xad\u0300-\u1fff\u200b-\u200d\u2010-\u2013\u2212"
LIST = re.compile(
    # 'ET' is a disease.
    rf"{_LIST_WORDS.pattern}|(?-i:\b(?:et|und)\b)|[,/]"
    rf"|(?<=\s)[^\w\s'()\[\].:]+(?=\s)|[^\w\s\x00-\x7f{_IN_NAMES}]",
    re.IGNORECASE,
)
"""What says of a further name no more than that it follows: a word, or any mark between spaces or
outside of ASCII, as in 'A + B', 'A，B', 'A → B'."""
LINK = re.compile(
    rf"{_LINK_WORDS.pattern}|{LIST.pattern}|:|(?<=\w)(?:-induced|-related|-associated)\b",
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
    >>> claims("Primary aldosteronism"), claims("The patient has a primary diagnosis of gout")
    (['Primary aldosteronism'], ['gout'])
    >>> claims("Absence of the radius, no anemia"), claims("Gout, absence of tophi")
    (['Absence of the radius'], ['Gout'])
    >>> claims("Gout was ruled out"), claims("Gout, likely"), claims("St. Louis encephalitis. Rash")
    ([], ['Gout'], ['St. Louis encephalitis'])
    >>> claims("Gout not excluded"), claims("Gout not ruled out, tophi"), claims("Gout not likely")
    (['Gout'], ['Gout'], [])
    >>> claims("Given the scan, this patient most likely has gout.")[:1], claims("It is not gout")
    (['gout'], [])
    >>> claims("This is not gout, but lymphoma"), claims("Rather than gout, lymphoma")
    (['lymphoma'], [])
    >>> claims("Acromegaly, severe")[0], claims("Sure! The diagnosis of gout is confirmed")[0]
    ('Acromegaly, severe', 'gout is confirmed')
    >>> claims("Angioma NOS"), claims("Sarcoma, not otherwise specified")
    (['Angioma'], ['Sarcoma'])
    >>> claims("Sarcoidosis + gout")[1:], claims("Gout instead of sarcoidosis")
    (['Sarcoidosis', 'gout'], ['Gout'])
    >>> claims("The patient's findings are most consistent with gout"), claims("AS, severe")[0]
    (['gout'], 'AS, severe')
    >>> claims("On balance, gout"), claims("All in all, this is gout"), claims("ON, ALL")[0]
    (['gout'], ['gout'], 'ON, ALL')
    >>> claims("Weighing the evidence, gout"), claims("Whooping cough, gout")[1]
    (['gout'], 'Whooping cough')
    >>> claims("Gout is excluded by the crystals"), claims("The findings argue against gout")
    ([], ['argue'])
    >>> claims("Encephalitis with antibodies against LGI1")[-1]
    'antibodies against LGI1'
    >>> claims("Not only gout but sarcoidosis"), claims("Guillain\u2010Barre\u0301 syndrome")[1:]
    ([], [])
    """
    text, plain = _first_alternative(statement)
    # With 'without': 'varices without bleeding' claims varices, and no bleeding.
    sure = _before_doubt(plain, DOUBT)
    # 'non-' begins a name outside of brackets and excludes one inside them
    brackets = [
        bracket[1]
        for bracket in BRACKETS.finditer(text)
        # A bracket behind the doubt belongs to what is not asserted.
        if bracket.start() <= len(sure)
        and not DOUBT.search(bracket[1])
        and not bracket[1].lstrip().lower().startswith("non")
    ]
    parts = (" ".join(part.split()).strip(" .,:;-–—/") for part in (sure, *LINK.split(sure)))
    # 'a 3' is left over from a list's marks, and claims nothing.
    phrases = [part for part in dict.fromkeys(parts) if sum(map(str.isalpha, part)) > 1]
    return [*phrases, *(inner.strip() for inner in brackets if len(inner.strip()) > 1)]


def assertion(statement: str) -> str:
    """The first diagnosis as far as it is asserted, brackets aside, with what it says is absent: in
    'wound without foreign body of the left hand' the side belongs to it.

    >>> assertion("Varices without bleeding, likely due to cirrhosis (stage 2); gout")
    'Varices without bleeding'
    """
    _, plain = _first_alternative(statement)
    return " ".join(_before_doubt(plain, _DOUBT_OF_THE_DISEASE).split()).strip(" .,:;-–—/")


def denied(statement: str) -> str:
    """What a statement that opens with a denial says is absent; '' for any other. It may be the
    name of a malformation, too.

    >>> denied("Absence of gout"), denied("Absence of the radius"), denied("Non-Hodgkin lymphoma")
    ('gout', 'the radius', '')
    """
    _, plain = _first_alternative(statement)
    denial = DENIAL.match(plain.strip())
    behind = plain.strip()[denial.end() :] if denial else ""
    # 'Non-Hodgkin': a hyphen makes the denial a part of the name.
    return behind.strip() if behind.startswith(" ") else ""


def _first_alternative(statement: str) -> tuple[str, str]:
    """All that a statement says, and the first of its alternatives with blanks for brackets, so
    that a place in the one is a place in the other."""
    # Marks of Markdown first: '**Final diagnosis:** gout'.
    text = _OPENING.sub("", re.sub(r"[*#_`]+", " ", statement).strip())
    plain = BRACKETS.sub(lambda bracket: " " * len(bracket[0]), text)
    end = 0
    for sentence, following in pairwise(sentences(plain)):
        # By place: `sentences` returns texts, and brackets are told by where they stand.
        end = plain.index(following, plain.index(sentence, end) + len(sentence))
        if not _INITIAL.search(sentence):
            plain = plain[:end]
            break
    return text, _ALTERNATIVE.split(plain, maxsplit=1)[0]


def _before_doubt(plain: str, words_of_doubt: re.Pattern[str]) -> str:
    absence = _ABSENCE.match(plain)
    # Behind a malformation's 'absence of': that word is its name, and no doubt.
    doubt = words_of_doubt.search(plain, absence.end() if absence else 0)
    if not doubt:
        return plain
    sure = plain[: doubt.start()]
    denial = _DENIAL_OF_THE_DISEASE.match(plain, doubt.start())
    end = denial.end() if denial else doubt.end()
    # 'Gout is excluded by the crystals', 'gout is not the cause': what stands before is denied.
    if denial and _IS.search(sure):
        return sure.rpartition(",")[0]
    # Something stands behind the doubt: that is what is doubted.
    if re.search(r"\w", words_of_doubt.sub("", re.split(r"[,;.]", plain[end:])[0])):
        return sure
    # 'A, B less likely': the doubt stands behind what it is of
    return sure.rpartition(",")[0] or ("" if denial else sure)
