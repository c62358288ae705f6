"""The tests of a summary's bullets: each with its result, and why a bullet is none."""

import calendar
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from medaction.envs.categories import category_of, known_category
from medaction.envs.diagnosis_names import english_words
from medaction.envs.documented import MONTHS, is_documented
from medaction.envs.leaks import outcomes_in
from medaction.envs.mentions import named_tests
from medaction.envs.naming import (
    CLASSES,
    CONDITIONS,
    CULTURED,
    IMAGING,
    KINDS,
    SOUGHT,
    TEST_OF_FINDING,
    canonical_of,
    fluids_in,
    profile,
    specimen_of,
)
from medaction.envs.orders import IN_FLUIDS
from medaction.envs.records import DocumentedTest
from medaction.envs.results_told import result_told
from medaction.envs.sources.finding_sentences import (
    ABBREVIATION,
    ARTICLE,
    BARE_STATUS,
    FINDING_VERB,
    IMPRESSION,
    OPENING_PHRASE,
    SHOWING_VERB,
    SHOWS,
    SHOWS_A_VALUE,
    STATUS_JOINT,
    TEST_BEHIND,
    TEST_NOUN,
    begins_with_noun,
    label_and_rest,
    listed_tests,
    phrase_of,
    subject_of,
    tests_joined,
    tests_of_status,
    with_specimen,
    without_quality,
)
from medaction.words.markdown import without_markdown
from medaction.words.names import normalise
from medaction.words.negation import DENIAL, is_undone
from medaction.words.phrases import IN_BRACKETS, phrase_pattern, phrase_regex
from medaction.words.sentences import split_outside_brackets
from medaction.words.tests import PANELS, canonical_names

HEADING = "Ancillary tests"
"""What a result is called that names no test and has no entry above it."""
BULLET_LINE = re.compile(r"^(?P<indent>\s*)(?:[-*•]|\d+[.)])\s+(?P<text>.*)$")
# 'Glucose: 5 g/L; urine dipstick: positive': a second label on the line of the first.
# Not inside brackets: '(IgM; IgG: ...)' is one result.
_JOINED_CLAUSE = re.compile(r",\s+(?:and|but|while|whereas)\s+")
_JOINED_WITHOUT_COMMA = re.compile(r"\s+(?:but|while|whereas)\s+")
# 'Ultrasound showed a mass, confirmed by CT showing a cyst'
_BORNE_OUT_BY = re.compile(r",\s+(?:\w+ )?\w+ed (?:by|on|via)\s+(?:an?\s+|the\s+)?")
# 'CRP 212, falling to 40 by day 4' goes on with the value.
_GOES_ON = (
    r"(?:(?:\w+ly )?\w+(?:ing|ed) (?:to|from)|down|up|with|which|then"
    rf"|(?:\w+ly )?(?=\w+ing\b){SHOWS}) "
)
# 'Negative Shiga toxin PCR, ruling out HUS': what the value means.
_INTERPRETED = re.compile(rf",\s(?:\w+ly )?(?=\w+ing\b){SHOWS}\s")
_ITEM_END = re.compile(rf"(?:[,;]\s+(?:and\s+)?|\n)(?!{_GOES_ON})")
# What only may end an item: 'and' joins words of one name, too.
_ITEM_MAY_END = re.compile(r"(?:,\s+)?\b(?:and|with)\s+")
_ENDS_NAME = (
    "and | or | but | with | without | which | that | from | after | before | than | in | except"
)
_WORD_OF_NAME = rf"(?!{phrase_regex(_ENDS_NAME, '')} )[^\s,;()=:]+"
# 'Elevated CK (8,120 U/L)', 'plasma EBV-DNA quantification at 166 copies/mL', 'ANA negative'
_VALUE_ITEM = re.compile(
    rf"(?:initial )?(?P<status>(?:\w+ly )?{BARE_STATUS.pattern})?"
    rf"(?P<name>(?={_WORD_OF_NAME})(?:[A-Za-zα-ω]|\d[\d,]*-h?)[^\s,;()=:]*"
    rf"(?: {_WORD_OF_NAME}){{0,6}}?)"
    r"(?: \((?P<short>[A-Za-z][\w/-]*)\))?"
    r"(?: (?:levels?|of|at|was|is|were))*\s*[:=]?\s*"
    # Not the number of a name: 'HbA1c', 'T4'. In brackets the analyte may be named again.
    r"(?P<value>(?:[(](?:[^()\d]{0,20}(?<=\W))?)?[<>≤≥~]?\s*(?<![\w-])\d.*"
    rf"|(?:\w+ly )?{IMPRESSION}\b.*|)",
    re.IGNORECASE,
)
# 'negative urine and blood cultures': several tests with a status of their own.
_JOINED_ITEM = re.compile(
    rf"(?P<status>(?:\w+ly )?{BARE_STATUS.pattern})"
    r"(?P<name>[^,;:()\d]{2,50} and [^,;:()\d]{2,50})(?P<short>)(?P<value>)",
    re.IGNORECASE,
)
_FINDING_OF_ROW = re.compile(r"(?:[\w-]+ ){0,2}(?P<finding>\w+) \((?P<row>[^()]+)")
_LONGEST_ITEM = 200
"""Characters of an item with its reference range: our choice."""
# 'Splenomegaly (14 cm)' is what was found, and names no analyte.
_FINDING_NOUN = re.compile(r"(?:osis|itis|megaly)$")
_NEXT_LABEL = re.compile(r"[;.]\s+(?=(?:\d+-)?[A-Za-z][\w ()/-]{2,50}:\s)(?![^()]*\))")
# Labels that gather tests and are none themselves.
_ATTRIBUTES = (
    "initial | other | further | additional | routine | ancillary | prenatal | radiologic"
    " | radiological | relevant | subsequent | abnormal | diagnostic | paraclinical"
)
_GROUPS = (
    "imaging | imaging test | imaging studies | imaging findings | imaging results | radiology"
    " | test | testing | investigation | findings | other | studies | work up | workup"
    " | diagnostics"
)
_CATEGORY = re.compile(
    rf"(?:{phrase_regex(_ATTRIBUTES, '')} )*{phrase_regex(_GROUPS)}(?: \(.*\))?", re.IGNORECASE
)
_CODE_AND_VALUE = re.compile(r"(?P<code>[A-Z]{2,}) \d")
"""'BP 110/70 mmHg'"""
_INVESTIGATIONS = re.compile(
    rf"(?:{phrase_regex(_ATTRIBUTES, '')} )*(?:tests?|testing|investigations?|work-?up|imaging)",
    re.I,
)
# Labels and subjects that tell what was done for the patient or became of them.
_LATER_COURSE = phrase_pattern(
    "treatment | therapy | management | outcome | prognosis | complication | course | recovery"
    " | response | improvement | delivery | cesarean | symptoms | followed up | autopsy | necropsy"
    " | postmortem | post mortem"
)
_OPERATION = phrase_pattern(
    "surg* | excision | resection | *ectomy | graft | implant* | transplant*"
)
_BEGUN = re.compile(rf"{_LATER_COURSE.pattern} \w+ed\b", re.IGNORECASE)  # 'therapy initiated'
_BEGINNING = "started | given | begun | commenced | initiated | administered | prescribed"
_TREATED = re.compile(rf"\b(?:was|were) {phrase_regex(_BEGINNING, '')}\b", re.IGNORECASE)
_PERSON_AS_SUBJECT = re.compile(
    r"(?:he|she|they|(?:the )?(?:patient|child|infant))\b", re.IGNORECASE
)
_TELLS_DIAGNOSIS = re.compile(r"\b(?:diagnos[ei]s|final assessment)\b", re.IGNORECASE)
# '68Ga-DOTATATE PET/CT was negative' begins a sentence as well; the '2' of 'No. 2' none.
_RESULT_END = re.compile(r"(?<=[.;])\s+(?=(?:\d+[a-z]?-?)?[A-Z])|;\s+")
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
_TIME = re.compile(
    rf"{phrase_pattern(f'{_RESULT_TIMES} | {MONTHS}').pattern}|^{phrase_regex(_NTH, '')}$",
    re.IGNORECASE,
)
_LATER = re.compile(r"(?:follow-?up|post)", re.IGNORECASE)
# The first encounter: what was found then is the plain test's result.
_FIRST_TIMES = (
    "initial | first | admission | presentation | arrival | baseline | pre | prior | before"
)
_AT_FIRST = re.compile(
    rf"(?:(?:on|at|upon|during|the|time of) )*{phrase_regex(_FIRST_TIMES, '')}", re.IGNORECASE
)
_GENERAL_NAMES = "lab | laborator* | blood | serum | biochemistry | chemistry | test"
_LAB_NOUNS = "test | work | result | findings | investigation | studies | analysis | values"
_GENERAL_LABS = re.compile(
    rf"(?:(?:routine|other|basic|serum|blood|abnormal) )*{phrase_regex(_GENERAL_NAMES)}"
    rf"(?: {phrase_regex(_LAB_NOUNS)})?|bloodwork",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Bullet:
    """One bullet of the summary with the bullets nested below it."""

    text: str
    indent: int
    children: list["Bullet"] = field(default_factory=list)
    begins: bool = True
    """False: a sentence that follows another one on the heading's own line."""


@dataclass(frozen=True, slots=True)
class Remark:
    """A statement that names no test: it goes on with the entry above, but where `no_test` says
    why it is none."""

    text: str
    no_test: str = ""


_BulletLine = DocumentedTest | Remark


def tree_of_bullets(lines: list[str]) -> list[Bullet]:
    """Bullets by their indentation; a line without a bullet goes on with the bullet above it."""
    root = Bullet("", -1)
    open_nodes = [root]
    for line in lines:
        bullet = BULLET_LINE.match(line)
        # A bullet that was wrapped by hand.
        if bullet is None and len(open_nodes) > 1:
            open_nodes[-1].text += " " + line.strip()
            continue
        node = (
            Bullet(bullet["text"].strip(), len(bullet["indent"]))
            if bullet
            # Without a bullet and without one above it: a line of a summary in prose.
            else Bullet(line.strip(), 0)
        )
        while open_nodes[-1].indent >= node.indent:
            open_nodes.pop()
        open_nodes[-1].children.append(node)
        open_nodes.append(node)
    return root.children


def entries_of_bullet(node: Bullet, container: str = "") -> Iterator[_BulletLine]:
    """The tests of one bullet and of the bullets below it. What names none is a remark."""
    label, rest = label_and_rest(node.text)
    # A heading without a colon: 'Imaging studies' with bullets below.
    if node.children and not label and _is_heading(node.text):
        label, rest = without_markdown(node.text), ""
    knows_label = _is_label_of_test(label)
    below = (text for child in node.children for text in _texts_of_bullet(child))
    more = "\n".join(without_markdown(text) for text in (rest, *below) if text)
    # From the surest to the least: course, time, more of the above, groups, a test with findings.
    no_test = "" if gathers_tests(label) else why_no_test(label, node.text)
    if no_test:
        yield from (Remark(without_markdown(text), no_test) for text in _texts_of_bullet(node))
    elif tells_when(label):
        lines = (line for child in node.children for line in entries_of_bullet(child, container))
        # 'Day 3: Na 130, K 4.1' has values on the label's own line.
        analytes = [_test_of_analyte(*part, container) for part in _analytes(rest)]
        of_label = analytes or (_prose(rest, container) if rest else ())
        yield from _dated(label, (*of_label, *lines))
    # 'No metastases: ...' goes on with the entry above, but not where a test is named below.
    elif label and not knows_label and _goes_on(label) and not named_tests(more):
        yield Remark(f"{label}: {more}")
    # A group: its bullets are tests, and its own text a further one.
    elif node.children and (not rest or gathers_tests(label)) and _are_tests(node):
        heading = label or container
        lines = (line for child in node.children for line in entries_of_bullet(child, heading))
        # 'Further testing/management': what is no test is the other.
        if _LATER_COURSE.search(label):
            lines = (_of_course(line) for line in lines)
        listed = with_remarks((*(_prose(rest, heading) if rest else ()), *lines), label)
        yield from _dated(label, listed)
    # Bullets below a test are its findings: one entry, their lines joined.
    elif node.children:
        if label:
            yield from _tests_of_label(label, more, container)
        else:  # 'Cervical spine CT revealed:' and its findings below
            # The heading's words stand in the result as the source has them.
            text = more.replace(rest, without_markdown(node.text), 1)
            for line in _sentence(node.text.rstrip(": "), container, begins=True):
                if isinstance(line, DocumentedTest):
                    yield replace(line, result=text)
                else:
                    yield Remark(text)
    elif label and not gathers_tests(label) and not _heads_prose(label, rest):
        yield from _tests_of_label(label, rest, container)
    # 'Imaging: CT showed ...': the label is no test, the sentence behind it names one.
    elif label:
        says_nothing = gathers_tests(label) or known_category(label) is not None
        text = without_markdown(rest)
        for line in with_remarks(_prose(rest, container or label), label):
            if isinstance(line, DocumentedTest) and line.result == text and not says_nothing:
                # 'Standing: renin 9' is no plain renin.
                names = _once((*line.aliases, label), line.name)
                line = replace(line, result=f"{label}: {text}", aliases=names)
            yield line
    else:
        yield from _prose(node.text, container, node.begins)


def gathers_tests(label: str) -> bool:
    """Whether a label gathers tests and is none itself, alone or joined with the later course.

    >>> [*map(gathers_tests, ("Other findings", "Further testing/Management", "Management"))]
    [True, True, False]
    """
    parts = re.split(r"\s*(?:/|&|,|\band\b)\s*", label)
    joined = any(map(_CATEGORY.fullmatch, parts)) and any(map(_LATER_COURSE.search, parts))
    return bool(_CATEGORY.fullmatch(label)) or joined


def _goes_on(label: str) -> bool:
    """Whether a label goes on with the entry above: 'Associated findings'; 'Other findings' are no
    more of an MRI."""
    return bool(_MORE.match(label)) and not gathers_tests(label)


def _heads_prose(label: str, text: str) -> bool:
    """Whether sentences behind a label that names no test are each about a test of their own:
    'Neurophysiology: EMG showed denervation. Evoked potentials were delayed.', 'Of note: Ammonia
    142 µmol/L'"""
    sentences = split_outside_brackets(_RESULT_END, text)
    # 'Radiological: Normal MRI brain; chest X-ray showed ...' has tests that say more than it.
    # Laboratory values stand under their heading together.
    says_more = not named_tests(label) and known_category(label) != "laboratory"
    if says_more and not _TIME.search(label) and _are_of_known_tests(sentences):
        return True
    if len(sentences) > 1:
        return not _is_label_of_test(label) and all(map(_is_of_test, sentences))
    reading = profile(label)
    # 'Laboratory: Blood count was normal' is of that one test.
    if _GENERAL_LABS.fullmatch(label) and len(split_outside_brackets(_ITEM_END, text)) == 1:
        return len(named_tests(text)) == 1 and _begins_with_test(text)
    # 'Saline infusion test: aldosterone 22', 'Left adrenal vein: cortisol 800' are no plain ones.
    is_test = _is_label_of_test(label) or begins_with_noun(label) or reading.regions
    if is_test or label_and_rest(text)[0] or reading.terms & CONDITIONS:
        return False
    return _begins_with_test(text)


def _begins_with_test(clause: str) -> bool:
    """Whether the first words of a clause name a test that is known, and the others what it
    found."""
    if item := _value_of_item(clause):
        return bool(item["value"]) and canonical_of(item["name"]) is not None
    name = next(iter(named_tests(clause)), clause)
    # 'CT, MRI and EUS failed' lists tests.
    says_more = re.match(r":?\s(?!and\b|or\b)", clause[len(name) :])
    return clause.startswith(name) and bool(says_more) and is_documented(clause)


def _is_of_test(clause: str) -> bool:
    """Whether a test is what a clause tells of, and found, shown or measured."""
    names = named_tests(clause)
    if not FINDING_VERB.search(clause):
        return False
    subject = subject_of(clause, names, begins=True)
    # 'Ziehl-Neelsen stain' is in no table, and a test by its noun.
    return names[0] in subject if names else bool(TEST_NOUN.fullmatch(subject))


def _are_of_known_tests(sentences: list[str]) -> bool:
    """Whether each clause begins with tests that are known and tells of no others: 'Normal MRI
    brain', and of several 'chest X-ray showed an effusion'."""
    clauses = [clause for sentence in sentences for clause in _clauses_of_tests(sentence)]
    for clause in clauses:
        names = named_tests(IN_BRACKETS.sub("", clause))
        items = tests_of_status(clause)
        behind = IN_BRACKETS.sub("", clause.rpartition(items[-1])[2]) if items else ""
        is_status = items and all(map(named_tests, items)) and ", " not in behind
        is_subject = len(clauses) > 1 and len(names) == 1 and clause.startswith(names[0])
        if not (is_status or (not items and is_subject and _is_of_test(clause))):
            return False
    return True


def _of_course(line: _BulletLine) -> _BulletLine:
    if isinstance(line, DocumentedTest):
        return line
    return replace(line, no_test=line.no_test or "tells of treatment or its outcome")


def _is_heading(text: str) -> bool:
    """Whether a bullet with others below it is their heading, without a colon: it says nothing."""
    words = IN_BRACKETS.sub("", text).split()
    return (
        # Longer ones, or those with a number or a verb, tell a result themselves.
        len(words) <= 4 and not re.search(r"\d", " ".join(words)) and not FINDING_VERB.search(text)
    )


def _is_label_of_test(label: str) -> bool:
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
    if named_tests(beginning) or (label and _LATER.match(label) and named_tests(text)):
        return ""
    if _TELLS_DIAGNOSIS.search(beginning):
        return "states the diagnosis"
    is_course = _LATER_COURSE.search(beginning) or _PERSON_AS_SUBJECT.match(text)
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
        bool(_WHEN.match(label)) and not _is_label_of_test(label) and not _CATEGORY.fullmatch(label)
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


def _dated(label: str, lines: Iterable[_BulletLine]) -> Iterator[_BulletLine]:
    """What stands under a label that tells when."""
    for line in with_remarks(lines, HEADING):
        told_when = _LATER.match(label) or tells_when(label)
        yield at_time(line, label) if told_when and isinstance(line, DocumentedTest) else line


def with_remarks(lines: Iterable[_BulletLine], name: str) -> Iterator[_BulletLine]:
    """The lines with each remark added to the entry above; above any it is an entry itself, called
    `name`."""
    entry: DocumentedTest | None = None
    for line in lines:
        # A remark belongs to the entry above it, so that entry waits for what follows.
        if isinstance(line, DocumentedTest):
            if entry is not None:
                yield entry
            entry = line
        # Without a name for it, or with a reason against it, it stays a remark.
        elif line.no_test or not name:
            yield line
        elif entry is None or _was_left_undone(entry.result):
            if entry is not None:
                yield entry
            entry = DocumentedTest(name, category_of(name), line.text)
        # 'Anti-Mi-2 negative' is no more of a CK, while 'CD20 positive' is more of a biopsy.
        elif _is_analyte(entry) and (value := _value_of_item(line.text)) and value["value"]:
            yield entry
            entry = _test_of_analyte(value["name"], line.text, name)
        else:
            entry = replace(entry, result=f"{entry.result}\n{line.text}")
    if entry is not None:
        yield entry


def _was_left_undone(result: str) -> bool:
    """Whether an entry says that there is no result, which no further line can tell more of."""
    is_denied = is_undone(result) or DENIAL.match(result)
    return bool(is_denied) and not is_documented(result)


def _is_analyte(entry: DocumentedTest) -> bool:
    """Whether an entry is of one analyte of the blood: 'mesothelial cells 5 %' behind a 'pleural
    fluid analysis' is more of it."""
    reading = profile(entry.name)
    is_one = reading.canonical not in PANELS and (reading.canonical or _value_of_item(entry.result))
    return entry.category == "laboratory" and reading.specimen in (None, "blood") and bool(is_one)


def _prose(text: str, container: str, begins: bool = True) -> Iterator[_BulletLine]:
    """The tests of running text, sentence by sentence."""
    for sentence in split_outside_brackets(_RESULT_END, text):
        for clause in _clauses_of_tests(sentence):
            yield from _sentence(clause, container, begins)
            begins = False


def _clauses_of_tests(sentence: str) -> list[str]:
    """The clauses of 'ECG showed ST depression, and cardiac enzymes were raised', where each has a
    test for its subject; else the sentence."""
    for joint in (_JOINED_CLAUSE, _JOINED_WITHOUT_COMMA, _BORNE_OUT_BY):
        clauses = split_outside_brackets(joint, sentence)
        if len(clauses) > 1 and all(map(_is_of_test, clauses)):
            return clauses
    clauses = split_outside_brackets(STATUS_JOINT, sentence)
    if len(clauses) > 1 and not _row_of_values(sentence) and all(map(tests_of_status, clauses)):
        return clauses
    verb = SHOWING_VERB.search(sentence)
    before, _, subject = sentence[: verb.start() if verb else 0].rpartition(", ")
    is_named = named_tests(subject) == (subject,) and not named_tests(before)
    # 'Acylcarnitines as in MADD, biopsy showing fat': what is before is none of the biopsy's.
    if before and is_named and is_documented(before) and not OPENING_PHRASE.match(sentence):
        return [before, sentence[len(before) + 2 :]]
    clauses = split_outside_brackets(_ITEM_END, sentence)
    names = [name for clause in clauses[1:] for name in named_tests(clause)]
    # 'Pleural fluid glucose 20, LDH 400': of that fluid.
    in_fluid = {profile(name).specimen for name in named_tests(clauses[0])} - {None, "blood"}
    is_apart = names and not (in_fluid and any(map(_may_be_of_fluid, names)))
    if is_apart and not _row_of_values(sentence) and all(map(_is_result_alone, clauses)):
        return clauses
    return [sentence]


def _is_result_alone(clause: str) -> bool:
    """Whether a clause without a verb names a test and what it found: 'fibrillation on ECG', 'IGRA
    negative', 'normal spirometry', 'mild anemia (Hb 10)'."""
    if _CODE_AND_VALUE.match(clause):
        return True
    names = named_tests(clause)
    if SHOWING_VERB.search(clause) or not (names or begins_with_noun(clause)):
        return False
    # 'Hepatitis screen negative, HIV test pending': neither's result is the other's.
    if is_undone(clause):
        return True
    by_test = any(re.search(rf"\w (?:on|by|via) .*{re.escape(n)}\W*$", clause) for n in names)
    has_status = BARE_STATUS.match(clause) or re.search(rf" {IMPRESSION}\W*$", clause)
    has_value = re.search(r"\(.*\d.*\)", clause) or _value_of_item(clause)
    return bool(by_test or has_status or has_value)


def _are_tests(node: Bullet) -> bool:
    """Whether the bullets below are tests of their own (all name one), or the findings of the test
    above: 'Uterus: ...' below 'Histology' is a finding, 'Nance analysis: ...' below 'Further
    studies' a test."""
    label = label_and_rest(node.text)[0] or without_markdown(node.text)
    labels = [label_and_rest(child.text)[0] for child in node.children]
    below_test = profile(label).kinds - {"imaging"}
    # Below a kind of test a label must be a test's; below a heading any label will do.
    named = [
        bool(_is_label_of_test(below) if below_test else below) or bool(named_tests(child.text))
        for below, child in zip(labels, node.children, strict=True)
    ]
    # Below a group one test is enough: the others may be named by analytes that no table knows.
    return all(named) if not gathers_tests(label) else any(named)


def _texts_of_bullet(node: Bullet) -> Iterator[str]:
    yield node.text
    for child in node.children:
        yield from _texts_of_bullet(child)


def _tests_of_label(label: str, result: str, container: str) -> Iterator[DocumentedTest]:
    name = without_markdown(label).strip()
    text = without_markdown(result).strip()
    # 'Low cortisol: 4.9 ug/dL' is of a cortisol.
    status = BARE_STATUS.match(name)
    bare = name[status.end() :] if status else ""
    if bare and text and "\n" not in text and (canonical_of(bare) or named_tests(bare)):
        name, text = bare, f"{name}: {text}"
    result, *further = _NEXT_LABEL.split(text)
    labels = [label_and_rest(line)[0] for line in further]
    one_line = "\n" not in "".join(further) and not label_and_rest(result)[0]
    # 'Urinalysis: Protein 3+. Glucose: negative': that glucose is of the urine.
    in_fluid = profile(name).specimen not in (None, "blood") and any(map(_may_be_of_fluid, labels))
    # All labels must be tests: else a later one may be a part of the first's result.
    are_tests = all(
        _is_label_of_test(label) or canonical_of(label) is not None or begins_with_noun(label)
        for label in (name, *labels)
    )
    if are_tests and one_line and not in_fluid:
        for line in further:
            yield from _tests_of_label(*label_and_rest(line), container)
    else:
        if tests := _at_times(name, [result, *further], container):
            yield from tests
            return
        result = text
    if not name or not result:
        return
    category = category_of(name, container)
    # '... Echocardiography revealed hypertrophy.' at the end of a laboratory's results is its own.
    if appended := _of_other_tests(name, category, result):
        end = len(result)
        for last in reversed(appended):
            end = result.rindex(last, 0, end)
        yield from _tests_of_label(name, result[:end].strip(" ,;\n"), container)
        lines = (_sentence(last, container, begins=False) for last in appended)
        sentence = split_outside_brackets(_RESULT_END, result)[-1]
        for test in itertools.chain.from_iterable(lines):
            if isinstance(test, DocumentedTest):
                # 'Uptake in the left breast, biopsy was benign': of what the sentence tells.
                reading = profile(test.name)
                is_bare = not (reading.regions or reading.terms) and test.result in sentence
                yield replace(test, result=sentence) if is_bare and reading.kinds else test
        return
    # 'Laboratory tests: Na 130, K 4.1' is one test for each analyte, which are ordered so.
    if category == "laboratory" and _GENERAL_LABS.fullmatch(name) and (parts := _analytes(result)):
        yield from (_test_of_analyte(*part, name) for part in parts)
        return
    listed = (
        listed_tests(result)
        # In blood alone: the parts of a urinalysis are no tests by their bare names.
        if category == "laboratory" and profile(name).specimen in (None, "blood")
        else ()
    )
    # 'EEG not done' in a result names a test that has none.
    done = " ".join(clause for clause in re.split(r"(?<=[.;])\s+", result) if not is_undone(clause))
    others = (*_others(named_tests(f"{name}. {done}"), name), *listed)
    yield DocumentedTest(name, category, result, _once(others, name))


def _of_other_tests(name: str, category: str, result: str) -> list[str]:
    """The sentences at the end of a test's result that tell of another one, and so the clauses at
    the end that begin with its name: ', chest X-ray without infiltrates'."""
    pieces = split_outside_brackets(_RESULT_END, result)
    first, *clauses = split_outside_brackets(_ITEM_END, pieces[-1])
    # 'Peripheral smear, biopsy and CT normal' lists tests.
    last = [first, *clauses] if all(map(is_documented, (first, *clauses))) else [pieces[-1]]
    later = [*pieces[:-1], *last][1:]
    return [*itertools.takewhile(partial(_is_of_other, name, category), reversed(later))][::-1]


def _is_of_other(name: str, category: str, clause: str) -> bool:
    """Whether a clause tells of a test that can be no part of the one called `name`: of another
    category, modality or specimen. An analyte may be measured in whatever was taken, but not in a
    scan."""
    names = named_tests(clause)
    label = label_and_rest(clause)[0]
    subject = label if _is_label_of_test(label) else subject_of(clause, names, begins=bool(names))
    if not subject and _begins_with_test(clause):
        subject = next(iter(names), "")
    if not subject:
        phrase = phrase_of(clause, names)
        is_behind = re.search(rf" on (?:an? |the )?{re.escape(phrase)}\W*$", clause)
        if is_behind and profile(phrase).kinds & IMAGING:
            subject = phrase  # 'no vegetation on transesophageal echo'
    own, other = profile(name), profile(subject)
    # A 'peripheral smear' is of blood, whatever was taken for the pathology before it.
    is_of_blood = own.specimen != "blood" and "blood" in fluids_in(other.canonical or "")
    category_of_other = known_category(subject) or category_of(subject)
    is_scan = category in ("imaging", "physiologic")
    is_known = (
        bool(_GENERAL_LABS.fullmatch(subject))
        or (bool(own.kinds) and is_of_blood)
        or known_category(subject) not in (None, "laboratory")
        # The ejection fraction is a part of the echocardiogram.
        or (is_scan and canonical_of(subject) is not None and own.regions.isdisjoint(other.regions))
    )
    # 'PCR was positive' behind a cytology is of what was taken for it.
    is_taken = own.specimen not in (None, "blood") or category in ("pathology", "procedure")
    is_made = other.kinds & KINDS - (SOUGHT if is_taken and not other.specimen else frozenset())
    if not (is_known or is_made or other.specimen):
        return False
    modalities = own.kinds & IMAGING, other.kinds & IMAGING
    if all(modalities):
        ways = [{state for state in side.states if state[0] == "way"} for side in (own, other)]
        is_way = all(ways) and ways[0].isdisjoint(ways[1])
        return is_way or modalities[0].isdisjoint(modalities[1])
    specimens = other.specimen or "blood", own.specimen or "blood"
    return category_of_other != category or specimens[0] != specimens[1]


def _may_be_of_fluid(label: str) -> bool:
    """Whether a label names no specimen, and a test that is done in fluids, too."""
    reading = profile(label)
    in_fluids = (reading.canonical or reading.text) in IN_FLUIDS or reading.kinds & CULTURED
    return not reading.specimen and bool(in_fluids)


def _at_times(name: str, parts: list[str], container: str) -> list[DocumentedTest]:
    """The tests of 'Calcium: Day 1: 3.6; Day 7: 2.6; Reference: 2.1-2.6', one a time with what is
    said of all; none where fewer than two labels are times."""
    labelled = [label_and_rest(part) for part in parts]
    times = [label for label, _ in labelled if tells_when(label) and _TIME.search(label)]
    of_all = [part for part, (label, _) in zip(parts, labelled, strict=True) if label not in times]
    # A reference alone is no result.
    return [
        at_time(test, label)
        for label, rest in labelled
        if label in times and len(times) > 1
        for test in _tests_of_label(
            name, "\n".join([rest, *(of_all if is_documented(rest) else ())]), container
        )
    ]


def _test_of_analyte(name: str, value: str, container: str) -> DocumentedTest:
    return DocumentedTest(name, category_of(name, container), value)


def _once(names: tuple[str, ...], own: str) -> tuple[str, ...]:
    """Each name once, without the test's own."""
    return tuple(
        {normalise(name): name for name in names if normalise(name) != normalise(own)}.values()
    )


def _analytes(result: str) -> list[tuple[str, str]]:
    """Each analyte of 'WBC 9.7 x 10^3/uL, CRP 25.9 mg/L' with its own words; none where an item is
    anything else.

    A word before the first item ('Elevated ESR (75), CRP (4)') is said of all of them, so such a
    result stays in one piece.
    """
    row = _row_of_values(result)
    return [] if _shares_status(row) else [(name, item) for name, item, _ in row]


def _row_of_values(text: str) -> list[tuple[str, str, re.Match[str]]]:
    """The name, the words and the grammar of each item of a list in which a value follows every
    noun phrase; none where an item is anything else: all or none, since such a line is prose."""
    row = []
    for item, words in _items_of_row(text.strip(" .")):
        value = _value_of_item(item)
        if value is None:
            return []
        # 'Severe anemia (6.8 g/dL)' is a hemoglobin.
        name = value["name"]
        if canonical_of(name) is None:
            name = TEST_OF_FINDING.get(normalise(name).split()[-1], name)
        name = without_quality(name)
        # 'CA 19-9 400 U/mL' is no calcium.
        if " and " in value["name"] and named_tests(name):
            row += [(each, words, value) for each in tests_joined(value["name"])]
            continue
        longer = " ".join([name, *re.findall(r"\A[\d–-]\S*", value["value"])])
        is_longer = normalise(longer) in canonical_names()
        is_longer = is_longer or any(map(longer.endswith, named_tests(longer)))
        row.append((longer if is_longer else name, words, value))
    names = [name for name, *_ in row]
    # 'Urine sodium 40, potassium 20', 'dengue IgM positive, IgG negative': what names no specimen,
    # or nothing that it is against, may be of the one before.
    is_shared = any(
        (
            profile(one).specimen not in (None, "blood")
            and _may_be_of_fluid(two)
            and not any(map(specimen_of, normalise(two).split()))
        )
        or (normalise(two) in CLASSES and "antibody" in profile(one).kinds)
        for one, two in itertools.pairwise(names)
    )
    # An analyte that stands twice was measured twice, and needs its words.
    is_row = len(row) > 1 and len(set(map(normalise, names))) == len(row)
    is_row = is_row and len({value.string for *_, value in row}) > 1
    is_known = any(canonical_of(name) is not None or named_tests(name) for name in names)
    return row if is_row and is_known and not is_shared else []


def _items_of_row(text: str) -> Iterator[tuple[str, str]]:
    """Each item of a list, and its words: of 'elevated AST (120) and ALT (85)' both items have all
    of them, with the status."""
    for piece in split_outside_brackets(_ITEM_END, text):
        items = [*_joined_items(piece)]
        values = [_value_of_item(item) for item in items]
        statuses = [bool(value and value["status"]) for value in values]
        is_shared = len(items) > 1 and statuses[0] and not any(statuses[1:])
        yield from ((item, piece.strip() if is_shared else item) for item in items)


def _joined_items(piece: str) -> Iterator[str]:
    start = end = 0
    for part in split_outside_brackets(_ITEM_MAY_END, piece):
        place = piece.index(part, end)
        if end and _value_of_item(part) and _value_of_item(piece[start:end]):
            yield piece[start:end].strip()
            start = place
        end = place + len(part)
    yield piece[start:end].strip()


def _value_of_item(item: str) -> re.Match[str] | None:
    """The name and the value of an item, where the name is a known test's or may be an analyte's
    that no table knows: a noun phrase that is neither plain English, nor an organ, nor a finding.
    """
    item = _INTERPRETED.split(item, maxsplit=1)[0].strip(" .;")
    if len(item) > _LONGEST_ITEM or len(split_outside_brackets(_RESULT_END, item)) > 1:
        return None
    # A long row of spaces would be tried in every way.
    words_of_item = " ".join(item.split())
    value = _VALUE_ITEM.fullmatch(words_of_item) or _JOINED_ITEM.fullmatch(words_of_item)
    if value is None or not (words := normalise(value["name"]).split()):
        return None
    canonical = canonical_of(value["name"])
    is_known = canonical is not None or bool(named_tests(value["name"]))
    is_finding = canonical is None and words[-1] in TEST_OF_FINDING
    # Without a value: 'leukocytosis', 'elevated D-dimer'.
    if is_finding or not value["value"]:
        return value if is_finding or (is_known and value["status"]) else None
    if canonical is not None:
        return value
    has_code = re.search(r"[A-Za-z]-?\d", value["name"])
    is_plain = english_words().issuperset(words) and not (is_known or has_code)
    reading = profile(value["name"])
    # 'Spleen 14 cm' is of an organ, 'hepatic copper' of what is measured in it.
    tells = (reading.regions and not reading.terms) or _FINDING_NOUN.search(words[-1])
    return None if is_plain or tells or SHOWS_A_VALUE.search(value["name"]) else value


def _shares_status(row: list[tuple[str, str, re.Match[str]]]) -> bool:
    """'Elevated ESR (75), CRP (4)': whether an item's status is said of a later one, too, which
    has its value in the same form: not of that behind 'elevated ESR (75)' in '..., Hb 9 g/dL'."""
    shared = None
    for name, words, value in row:
        # A finding has its own status, and so has what shares that of the item before.
        if value["status"] or name not in words or value.string != words:
            shared = value["value"][:1] if value["status"] else shared
        elif shared in ("(", None) and shared != value["value"][:1]:
            continue
        elif re.match(r"\W*\d", value["value"]):
            return True
    return False


def _sentence(sentence: str, container: str, begins: bool) -> Iterator[_BulletLine]:
    """A finding in prose: named by its grammatical subject when that is a test, else by the first
    test that it mentions.

    Where it `begins` a bullet, any subject of what was measured or of an active verb is a test, as
    the heading says; later on it may be a part of what the test before has shown.
    """
    label, rest = label_and_rest(sentence)
    if label and (begins or _is_label_of_test(label)):
        yield from _tests_of_label(label, rest, container)
        return
    if row := _row_of_values(sentence):
        of_all = without_markdown(sentence) if _shares_status(row) else ""
        for name, item, value in row:
            test = _test_of_analyte(name, of_all or item, container)
            yield replace(test, aliases=(value["short"],) if value["short"] else ())
        return
    names = named_tests(sentence)
    subject = _subject(sentence, names, container, begins)
    # The source's words around a test: 'EBV PCR' is no plain PCR.
    phrase = phrase_of(sentence, names)
    is_list = subject in ("", container) or BARE_STATUS.match(sentence)
    if not names and subject in ("", container):
        items = tests_of_status(sentence)
        # 'Negative cytokeratin stains' go on with the biopsy.
        phrase = ", ".join(items) if all(category_of(i) == "laboratory" for i in items) else ""
    tests = tests_joined(phrase if is_list and phrase not in subject else subject)
    if len(tests) > 1:
        for item in with_specimen(tests):  # 'Normal brain CT and EMG': one finding of several tests
            name = ARTICLE.sub("", IN_BRACKETS.sub("", item))
            if canonical_of(name) is None:  # 'thrombocytopenia' is a platelet count
                name = TEST_OF_FINDING.get(normalise(name).rpartition(" ")[2], name)
            name = without_quality(re.sub(r" (?:level|value)s?$", "", name))
            asides = " ".join(IN_BRACKETS.findall(item))
            short_forms = (*ABBREVIATION.findall(item), *named_tests(asides))
            category, text = category_of(name, container), without_markdown(sentence)
            yield DocumentedTest(name, category, text, aliases=_once(short_forms, name))
        return
    # 'Intra-abdominal pressure (IAP) monitoring' will be ordered as 'IAP monitoring'.
    inside = ABBREVIATION.search(phrase)
    shorter = f"{inside[1]}{phrase[inside.end() :]}" if inside else ""
    phrase = IN_BRACKETS.sub("", phrase)
    # 'Normal sweat test, gait and ECG' is of all three.
    is_more = is_list and len(names) and phrase.startswith(f"{subject}, ")
    if name := without_quality(phrase if is_more else subject or phrase):
        # 'magnetic resonance imaging (MRI)': the short form is how it will be ordered.
        short = tuple(
            match[1]
            for match in ABBREVIATION.finditer(sentence)
            if sentence[: match.start()].endswith(name)
        )
        short += (shorter,) if " " in shorter and phrase == name else ()
        for test in _tests_of_label(name, sentence, container):
            others = (*short, *_others(names, test.name), *test.aliases)
            yield replace(test, aliases=_once(others, test.name))
    elif text := without_markdown(sentence):
        no_test = why_no_test("", sentence)
        # An operation is treatment, but for what it showed.
        is_course = _OPERATION.search(text) or _BEGUN.search(text)
        if is_course and not SHOWING_VERB.search(text):
            no_test = no_test or "tells of treatment or its outcome"
        if not is_documented(text):
            no_test = no_test or "no result documented"
        yield Remark(text, no_test)


def _subject(sentence: str, names: tuple[str, ...], container: str, begins: bool) -> str:
    """What a sentence is about: its grammatical subject, else the group of tests that it stands
    under, or the test at its end ('... on renal scan'); '' for none of them."""
    finding = _FINDING_OF_ROW.match(sentence)
    test = finding and TEST_OF_FINDING.get(finding["finding"].casefold())
    # 'Pancytopenia (neutrophils 430, platelets 13,000)' is no neutrophil count.
    if begins and finding and test and len(named_tests(finding["row"])) > 1:
        return test
    subject = subject_of(sentence, names, begins)
    shows = SHOWING_VERB.search(sentence)
    # 'Investigations ruled out an infection' is no more of the biopsy before.
    if shows and not subject and _INVESTIGATIONS.fullmatch(sentence[: shows.start()]):
        subject = sentence[: shows.start()]
    if not subject and not names and (code := _CODE_AND_VALUE.match(sentence)):
        subject = code["code"]
    place = TEST_BEHIND.search(sentence) if not names else None
    if place and not subject and len(tests_joined(place["test"])) > 1:
        subject = place["test"]  # '... in imaging or sputum testing'
    if begins and not subject and not names and (statement := result_told(sentence)):
        subject = statement.tests[0]  # 'Operative findings', 'Laboratory tests'
    # 'Na 130, CRP elevated': the first value is not what the sentence is about.
    if not subject and names and _is_value_name(names[0]) and "," in sentence:
        subject = container if category_of(container) == "laboratory" else ""
    if place and not subject:
        subject = place["test"]
    return subject


def _others(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The other tests that an entry reports. Laboratory values are found in the result itself,
    where their numbers stand; a part of the own name ('CT' of 'CT-guided biopsy') would only say
    less.
    """
    return tuple(
        other
        for other in names
        if other.casefold() not in name.casefold() and not _is_value_name(other)
    )


def _is_value_name(name: str) -> bool:
    return category_of(name) == "laboratory" and not profile(name).kinds
