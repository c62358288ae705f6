"""What the label of a line says: whether it is a test's, gathers tests, or tells when or what was
done."""

import calendar
import re
from dataclasses import replace

from medaction.envs.categories import known_category
from medaction.envs.documented import MONTHS
from medaction.envs.leaks import outcomes_in
from medaction.envs.mentions import named_tests
from medaction.envs.naming import KINDS, profile
from medaction.envs.records import DocumentedTest
from medaction.envs.sources.finding_sentences import SHOWS_A_VALUE
from medaction.words.phrases import phrase_pattern, phrase_regex

# Labels that gather tests and are none themselves.
ATTRIBUTES = (
    "initial | other | further | additional | routine | ancillary | prenatal | radiologic"
    " | radiological | relevant | subsequent | abnormal | diagnostic | paraclinical"
)
_GROUPS = (
    "imaging | imaging test | imaging studies | imaging findings | imaging results | radiology"
    " | test | testing | investigation | findings | other | studies | work up | workup"
    " | diagnostics"
)
_CATEGORY = re.compile(
    rf"(?:{phrase_regex(ATTRIBUTES, '')} )*{phrase_regex(_GROUPS)}(?: \(.*\))?", re.IGNORECASE
)
# Labels and subjects that tell what was done for the patient or became of them.
LATER_COURSE = phrase_pattern(
    "treatment | therapy | management | outcome | prognosis | complication | course | recovery"
    " | response | improvement | delivery | cesarean | symptoms | followed up | autopsy | necropsy"
    " | postmortem | post mortem"
)
_BEGINNING = "started | given | begun | commenced | initiated | administered | prescribed"
_TREATED = re.compile(rf"\b(?:was|were) {phrase_regex(_BEGINNING, '')}\b", re.IGNORECASE)
_PERSON_AS_SUBJECT = re.compile(
    r"(?:he|she|they|(?:the )?(?:patient|child|infant))\b", re.IGNORECASE
)
_TELLS_DIAGNOSIS = re.compile(r"\b(?:diagnos[ei]s|final assessment)\b", re.IGNORECASE)
# More of what the test above has found: 'Associated findings', 'No metastases'.
_MORE_OF = "associated | additional | further | incidental | other | secondary | noted"
_MORE = re.compile(
    r"(?:no|not|none)\b"
    rf"|(?:(?:{phrase_regex(_MORE_OF, '')}|\w+al)\s)*"
    rf"{phrase_regex('finding | observation | anomal* | abnormalit* | feature | sign')}"
    r"(?:\s\(.*\))?$",
    re.IGNORECASE,
)
# Labels that tell when, of the tests below.
_BEFORE_A_TIME = "on | at | after | before | during | upon | following | prior | post | pre"
_RESULT_TIMES = (
    "follow up | followup | initial | initially | recurrent | day | week | month | year | hour"
    " | time | date | admission | #"
)
_NTH = "first | second | third"
_WHEN = re.compile(
    rf"(?:{phrase_regex(f'{_BEFORE_A_TIME} | {_RESULT_TIMES} | {_NTH}')}"
    rf"|{phrase_regex(MONTHS, '')}|[\w-]+ (?:hour|day|week|month|year)s? (?:later|after))\b",
    re.IGNORECASE,
)
# A 'first' one without a noun; the 'second eye' is no time.
TIME = re.compile(
    rf"{phrase_pattern(f'{_RESULT_TIMES} | {MONTHS}').pattern}|^{phrase_regex(_NTH, '')}$",
    re.IGNORECASE,
)
LATER = re.compile(r"(?:follow-?up|post)", re.IGNORECASE)
# The first encounter: what was found then is the plain test's result.
_FIRST_TIMES = (
    "initial | first | admission | presentation | arrival | baseline | pre | prior | before"
)
_AT_FIRST = re.compile(
    rf"(?:(?:on|at|upon|during|the|time of) )*{phrase_regex(_FIRST_TIMES, '')}", re.IGNORECASE
)
_GENERAL_NAMES = "lab | laborator* | blood | serum | biochemistry | chemistry | test"
_LAB_NOUNS = "test | work | result | findings | investigation | studies | analysis | values"
GENERAL_LABS = re.compile(
    rf"(?:(?:routine|other|basic|serum|blood|abnormal) )*{phrase_regex(_GENERAL_NAMES)}"
    rf"(?: {phrase_regex(_LAB_NOUNS)})?|bloodwork",
    re.IGNORECASE,
)


def gathers_tests(label: str) -> bool:
    """Whether a label gathers tests and is none itself, alone or joined with the later course.

    >>> [*map(gathers_tests, ("Other findings", "Further testing/Management", "Management"))]
    [True, True, False]
    """
    parts = re.split(r"\s*(?:/|&|,|\band\b)\s*", label)
    joined = any(map(_CATEGORY.fullmatch, parts)) and any(map(LATER_COURSE.search, parts))
    return bool(_CATEGORY.fullmatch(label)) or joined


def goes_on_above(label: str) -> bool:
    """Whether a label goes on with the entry above: 'Associated findings'; 'Other findings' are no
    more of an MRI."""
    return bool(_MORE.match(label)) and not gathers_tests(label)


def is_label_of_test(label: str) -> bool:
    """Whether the words of a label, but for 'pre-surgery', are of a test or of a kind of test."""
    # 'Pre-surgery CT' is a CT: the time is no part of the test.
    name = re.sub(r"(?i)\b(?:pre|post)[\s-]?\w+", "", label)
    reading = profile(name)
    return bool(
        named_tests(name) or known_category(name) or reading.specimen or reading.kinds & KINDS
    )


def why_no_test(label: str, text: str) -> str:
    """Why a bullet holds no test, as its label or its beginning says; '' where it may."""
    # The beginning alone: the end of a sentence often tells of treatment in passing.
    beginning = label or SHOWS_A_VALUE.split(text, maxsplit=1)[0][:30]
    # A later test is a test: 'Postoperative CT'.
    if named_tests(beginning) or (label and LATER.match(label) and named_tests(text)):
        return ""
    if _TELLS_DIAGNOSIS.search(beginning):
        return "states the diagnosis"
    is_course = LATER_COURSE.search(beginning) or _PERSON_AS_SUBJECT.match(text)
    # 'Tensilon was given, and the lid rose' is a test.
    is_treated = _TREATED.search(text) and not known_category(text)
    if is_course or (not named_tests(text) and (is_treated or outcomes_in(text))):
        return "tells of treatment or its outcome"
    return ""


def tells_when(label: str) -> bool:
    """Whether a label tells when the tests below were made, and names none.

    >>> tells_when("Day 3"), tells_when("After treatment"), tells_when("Postoperative CT")
    (True, True, False)
    """
    return (
        bool(_WHEN.match(label)) and not is_label_of_test(label) and not _CATEGORY.fullmatch(label)
    )


def at_time(test: DocumentedTest, label: str) -> DocumentedTest:
    """The test with its time in its name, but for that of the first encounter: its result is none
    of the same test at another time."""
    if _AT_FIRST.match(label):
        return test
    # 'March 2019' keeps its capital.
    is_month = label[:3] in calendar.month_abbr
    when = label if is_month else label[0].lower() + label[1:]
    return replace(test, name=f"{test.name} ({when})")
