"""Checks that every environment passes, whatever its source: plain functions of the report and the
structured case.

Each returns a `CheckResult` with a name, a figure and what was found, so that a refusal can be
counted and understood.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from rapidfuzz import fuzz

from medaction.envs.diagnosis_names import (
    abbreviations_of,
    is_general,
    known_parts,
    mentions,
    names_of,
    parts_of,
)
from medaction.envs.mentions import named_tests
from medaction.envs.naming import profile
from medaction.envs.records import CaseReport, CheckResult, DocumentedTest, StructuredCase
from medaction.words.names import normalise

GROUNDED_AT = 90.0
"""A result is found in the report when its best aligned window there agrees to this many percent
(rapidfuzz partial ratio)."""

RESULT_LENGTH = 25
"""A shorter result ('Normal', '120/80 mmHg') can stand in the initial observation without having
been copied there."""


def has_initial_observation(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: characters of o1; at least 40 are needed (an age, a sex and a complaint)."""
    length = len(case.initial_observation.strip())
    return CheckResult(
        "has_initial_observation",
        length >= 40,
        length,
        40,
        f"{length} characters, at least 40 are needed",
    )


def has_diagnosis(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: letters of the diagnosis."""
    letters = sum(c.isalpha() for c in case.diagnosis)
    return CheckResult(
        "has_diagnosis", letters >= 3, letters, 3, f"the diagnosis is {case.diagnosis!r}"
    )


def min_tests(_report: CaseReport, case: StructuredCase, at_least: int) -> CheckResult:
    """Figure: documented tests. With fewer than `at_least` there is too little to order."""
    count = len(case.tests)
    return CheckResult(
        "min_tests",
        count >= at_least,
        count,
        at_least,
        f"{count} documented tests, at least {at_least} are needed",
    )


def no_duplicate_tests(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: test names that stand more than once in the menu."""
    names = [normalise(test.name) for test in case.tests]
    twice = sorted({name for name in names if names.count(name) > 1})
    return CheckResult("no_duplicate_tests", not twice, len(twice), 0, ", ".join(twice))


def results_grounded(report: CaseReport, case: StructuredCase) -> CheckResult:
    """Every line of every result stands in the report (GROUNDED_AT), and so does every number of
    it.

    Figure: the lowest agreement over all results, in percent; 0 when a number is missing.
    """
    text = _plain(report.text)
    numbers = set(numbers_of(text))
    worst, detail = 100.0, ""
    for test in case.tests:
        for line in test.result.splitlines() or [""]:
            missing = next(
                (number for number in numbers_of(_plain(line)) if number not in numbers), None
            )
            score = 0.0 if missing else _agreement(_plain(line), text)
            if score < worst:
                reason = (
                    f"the number {missing} is not in the report"
                    if missing
                    else f"found to {score:.0f} %"
                )
                worst, detail = score, f"{test.name}: {line[:80]!r}: {reason}"
    return CheckResult("results_grounded", worst >= GROUNDED_AT, worst, GROUNDED_AT, detail)


def quotes_grounded(report: CaseReport, case: StructuredCase) -> CheckResult:
    """Where a test names the passage that tells its result: the passage stands in the report, and
    holds every number of the result.

    Figure: the lowest agreement over all quotes, in percent; 0 when a number is missing.
    """
    text = _plain(report.text)
    worst, detail = 100.0, ""
    for test in case.tests:
        if not test.quote:
            continue
        quote = _plain(test.quote)
        missing = next(
            (
                number
                for number in numbers_of(_plain(test.result))
                if number not in numbers_of(quote)
            ),
            None,
        )
        score = 0.0 if missing else _agreement(quote, text)
        if score < worst:
            worst, detail = (
                score,
                f"{test.name}: the number {missing} is not in its quote"
                if missing
                else f"{test.name}: its quote",
            )
    return CheckResult("quotes_grounded", worst >= GROUNDED_AT, worst, GROUNDED_AT, detail)


def numbers_in_report(report: CaseReport, case: StructuredCase) -> CheckResult:
    """Every number of every result stands in the published report itself, where a source tells it
    apart from a summary of it.

    A warning, since results are copied from the summary: `results_grounded` cannot see a number
    that the summary got wrong, or that stands only in a figure or table of the article. Figure: the
    share of the numbers that the report has, 0 to 1.
    """
    told = set(numbers_of(_plain(report.original or report.text)))
    numbers = [
        (test.name, number) for test in case.tests for number in numbers_of(_plain(test.result))
    ]
    missing = [f"{number} ({name})" for name, number in numbers if number not in told]
    share = 1 - len(missing) / len(numbers) if numbers else 1.0
    detail = f"not in the report: {', '.join(missing[:8])}"
    return CheckResult(
        "numbers_in_report", not missing, round(share, 3), 1.0, detail, required=False
    )


def one_diagnosis(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Whether the diagnosis names one disease. A warning: several joined ones are kept whole and in
    their order, all of them are hidden, and an answer is held against all of them; the first may be
    a complication of the next.

    Figure: the number of diseases named, with their causes.
    """
    parts = [
        part
        for part in parts_of(case.diagnosis)[0]
        if not re.match(r"(?:stage|grade|type|class)\b", part, re.IGNORECASE)
    ]
    return CheckResult(
        "one_diagnosis",
        len(parts) <= 1,
        len(parts),
        1,
        f"the diagnosis joins {'; '.join(parts)}",
        required=False,
    )


def no_diagnosis_in_o1(report: CaseReport, case: StructuredCase) -> CheckResult:
    """No name of the diagnosis, synonym or abbreviation stands in o1; a negated or past mention
    counts too.

    Excepted is what the patient brings along beside what is to be found
    (`medaction.envs.diagnosis_names.known_parts`). Figure: the number of names found.
    """
    found = diagnosis_told(report, case, case.initial_observation)
    return CheckResult(
        "no_diagnosis_in_o1",
        not found,
        len(found),
        0,
        f"the initial observation names {', '.join(found)!r}",
    )


def diagnosis_told(report: CaseReport, case: StructuredCase, text: str) -> list[str]:
    """The names of the diagnosis that `text`, the initial observation or a part of it, tells;
    abbreviations as the report declares them ('nasopharyngeal carcinoma (NPC)') too.
    """
    diagnoses = (case.diagnosis, *case.synonyms)
    known = {normalise(name) for name in known_parts(case.diagnosis, case.initial_observation)}
    names = _unique(
        name
        for diagnosis in diagnoses
        for name in names_of(diagnosis)
        if normalise(name) not in known
    )
    shorts = _unique(short for diagnosis in diagnoses for short in abbreviations_of(diagnosis))
    shorts += [
        synonym
        for synonym in case.synonyms
        if re.fullmatch(r"[A-Z][A-Za-z0-9-]{0,2}[A-Z]", synonym)
    ]
    shorts += _declared(report.text, tuple(names))
    found = [name for name in names if mentions(text, name)]
    return found + [
        short for short in dict.fromkeys(shorts) if re.search(rf"\b{re.escape(short)}s?\b", text)
    ]


@lru_cache(maxsize=64)
def _declared(text: str, names: tuple[str, ...]) -> list[str]:
    """The abbreviations that a text gives to one of the names: in brackets right behind it, in
    capitals."""
    wanted = "|".join(
        r"[\s-]+".join(map(re.escape, name.split())) for name in names if not is_general(name)
    )
    found = (
        re.findall(rf"(?i:{wanted})s?\s+\(([A-Z][A-Za-z0-9-]{{1,7}})[),;]", text) if wanted else []
    )
    return [short for short in dict.fromkeys(found) if sum(c.isupper() for c in short) >= 2]


def no_known_disease_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """What the diagnosis names and the patient brings along: a known primary, a known cause, the
    complaint itself. A warning: the rest of the diagnosis is what is to be found.

    Figure: the number of such names found.
    """
    known = known_parts(case.diagnosis, case.initial_observation)
    found = _unique(name for name in known if mentions(case.initial_observation, name))
    detail = f"the initial observation tells {', '.join(found)!r} as known or as the complaint"
    return CheckResult("no_known_disease_in_o1", not found, len(found), 0, detail, required=False)


def no_manifestation_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """What the diagnosis names beside the disease itself ('... with ascites') is better not told
    either, but may be a symptom.

    Figure: the number of such parts found.
    """
    found = [
        part for part in parts_of(case.diagnosis)[1] if mentions(case.initial_observation, part)
    ]
    return CheckResult(
        "no_manifestation_in_o1",
        not found,
        len(found),
        0,
        f"the initial observation names {', '.join(found)!r}",
        required=False,
    )


def no_result_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """No result of the menu stands in o1: no line of RESULT_LENGTH characters or more, and no
    laboratory value of a test by its name.

    Figure: the number of tests whose result is told there.
    """
    found = [
        test.name
        for test in case.tests
        if is_told(test, case.initial_observation, complaint_of(case.initial_observation))
    ]
    return CheckResult(
        "no_result_in_o1",
        not found,
        len(found),
        0,
        f"the initial observation tells the result of {', '.join(found)}",
    )


def complaint_of(observation: str) -> str:
    """What the patient comes with: the first sentence, which says who it is, and the chief
    complaint. These are never cut."""
    first, *lines = observation.splitlines() or [""]
    who = first if COMPLAINT.search(first[:40]) else re.split(r"(?<=[.;!?])\s+", first)[0]
    return "\n".join([who, *(line for line in lines if COMPLAINT.search(line[:40]))])


def is_told(test: DocumentedTest, text: str, complaint: str = "") -> bool:
    """Whether `text` tells the test's result: a line of it that is too long to stand there by
    chance, its value beside its name, or the finding in other words; words of the `complaint` are
    no finding.
    """
    plain = _plain(text)
    lines = [_plain(line) for line in test.result.splitlines()]
    if _copies(test.result, text) or _retells(test, text, complaint):
        return True
    if any(
        RESULT_LENGTH <= len(line) <= len(plain) and _agreement(line, plain) >= 95 for line in lines
    ):
        return True
    return test.category == "laboratory" and any(
        _beside(name, line, plain) for name in (test.name, *test.aliases) for line in lines
    )


COMPLAINT = re.compile(r"(?:chief|presenting|main) complaint|reason for|objective", re.IGNORECASE)

_FINDING = re.compile(
    r"\b(?:show(?:ed|s|ing|n)|reveal(?:ed|s|ing)|demonstrat(?:ed|es|ing)|confirm(?:ed|s|ing)|identif(?:ied|ying)"
    r"|detected|disclosed|found|noted on"
    r"|suggest(?:ed|ing|ive)|indicat(?:ed|ing)|seen on)\b",
    re.IGNORECASE,
)
_COMMON = re.compile(
    r"normal|abnormal|patient|showed|shows|revealed|demonstrated|confirmed|identified|detected|suggested|indicated"
    r"|finding|findings|result|results|evidence|consistent|suggestive|with|without|which|after|before|there|other|right"
    r"|left|bilateral|upper|lower|within|initial|initially|further|examination|evaluation|imaging|significant|positive"
    r"|negative|elevated|increased|mild|moderate|severe|history|level|levels|approximately|during|following|multiple"
    r"|performed|noted|small|large|including|about"
)


def _copies(result: str, text: str) -> bool:
    """Whether `text` has five words in a row of the result that name a test and what it found: 'CT
    and MRI confirmed cellulitis'."""
    words, plain = result.split(), " ".join(text.split())
    runs = (" ".join(words[start : start + 5]) for start in range(len(words) - 4))
    return any(_FINDING.search(run) and run in plain and named_tests(run) for run in runs)


def _retells(test: DocumentedTest, text: str, complaint: str) -> bool:
    """Whether a sentence tells the result in other words: it names the test, or one of its kind,
    with a verb of finding, and shares two or more content words with the result, which are neither
    in the names of the tests nor in the complaint.
    """
    own = profile(test.name)
    words = _content(test.result) - _content(test.name) - _content(complaint)
    return len(words) >= 2 and any(
        len(words & shared) >= 2 and _same_test(name, kinds, regions, test, own.kinds, own.regions)
        for shared, named in _findings(text)
        for name, kinds, regions in named
    )


def _same_test(
    name: str,
    kinds: frozenset[str],
    regions: frozenset[str],
    test: DocumentedTest,
    own: frozenset[str],
    places: frozenset[str],
) -> bool:
    if normalise(name) == normalise(test.name):
        return True
    return bool(kinds & own) and (not regions or not places or bool(regions & places))


@lru_cache(maxsize=512)
def _findings(
    text: str,
) -> tuple[tuple[frozenset[str], tuple[tuple[str, frozenset[str], frozenset[str]], ...]], ...]:
    """Of every sentence with a verb of finding that names tests: its content words, and each test
    with its kinds and regions."""
    found = []
    for sentence in re.split(r"(?<=[.;!?])\s+|\n", text):
        if _FINDING.search(sentence) and (names := named_tests(sentence)):
            profiles = ((name, profile(name)) for name in names)
            found.append(
                (
                    _content(sentence) - _content(" ".join(names)),
                    tuple((name, of.kinds, of.regions) for name, of in profiles),
                )
            )
    return tuple(found)


@lru_cache(maxsize=512)
def _content(text: str) -> frozenset[str]:
    """The words of five letters and more that tell something, by their first six letters."""
    return frozenset(
        word[:6]
        for word in re.findall(r"[a-z]{5,}", text.casefold())
        if not _COMMON.fullmatch(word)
    )


def _beside(name: str, line: str, plain: str) -> bool:
    """Whether a value of `line` stands right after the test's name: 'hemoglobin was 9.1', 'HIV test
    was positive'."""
    if sum(c.isalpha() for c in name) < 2:
        return False
    values = [
        *numbers_of(line)[:1],
        *re.findall(r"\b(?:positive|negative|reactive|elevated|low|high|normal)\b", line)[:1],
    ]
    named = rf"\b{re.escape(_plain(name))}\b[^.;\n]{{0,25}}?"
    return any(
        re.search(rf"{named}(?<![\d.]){re.escape(value)}(?![\d.]*\d)", plain) for value in values
    )


# What became of the patient. A death in the family, a remission in the past or a visit 'for
# follow-up' is history.
_OUTCOME = re.compile(
    r"""\b(?:(?:patient|he|she|infant|neonate|child|baby|boy|girl|man|woman)\s(?:\w+\s)?(?:died|expired|recovered|succumbed|passed\saway)
    |pronounced\sdead
    |(?:was|were)\s(?:\w+\s)?discharged(?!\sfrom\san)|autopsy|post-?mortem
    |at\s(?:the\s|an?\s)?(?:[\w-]+[\s-])?(?:day|week|month|year)s?['’]?[\s-](?:of\s)?follow-?\s?up
    |follow-?\s?up\s(?:\w+\s)?(?:showed|revealed|demonstrated|confirmed)
    |(?:no|without)\s(?:evidence\sof\s|signs?\sof\s)?(?:recurrence|relapse)\s(?:at|after|during|was)
    |(?:uneventful|full|complete)\s(?:post-?operative\s)?recovery|post-?operative\s(?:course|period|recovery))\b""",
    re.IGNORECASE | re.VERBOSE,
)
_TREATMENT = re.compile(
    r"""\b(?:(?:was|were)\s(?:then\s|immediately\s|subsequently\s|empirically\s)?(?:started|commenced|initiated|placed|put)\s(?:on|with)
    |(?:treatment|therapy)\s(?:with\s[\w\s-]{3,40}\s)?(?:was|were)\s(?:\w+\s)?(?:started|initiated|commenced|begun)
    |responded\s(?:well\s|poorly\s)?to|improved\s(?:after|with|on|following)
    |underwent\s(?:\w+\s){0,2}(?:surgery|laparotomy|resection|\w{4,}ectomy|chemotherapy|radiotherapy))\b""",
    re.IGNORECASE | re.VERBOSE,
)


def no_outcome_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """What became of the patient is not told: death, discharge, follow-up, recovery. Figure: the
    number of passages found."""
    found = _passages(_OUTCOME, case.initial_observation)
    return CheckResult(
        "no_outcome_in_o1",
        not found,
        len(found),
        0,
        f"the initial observation tells the outcome: {found[:3]}",
    )


def no_treatment_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Treatment that was begun or answered to. A warning: what was tried before the first encounter
    belongs to the history.

    Figure: the number of passages found.
    """
    found = _passages(_TREATMENT, case.initial_observation)
    detail = f"the initial observation tells of treatment: {found[:3]}"
    return CheckResult("no_treatment_in_o1", not found, len(found), 0, detail, required=False)


def _passages(pattern: re.Pattern[str], text: str) -> list[str]:
    """What the pattern finds outside of past and family histories."""
    lines = (
        line
        for line in text.splitlines()
        if not re.match(r"\W*(?:\w+\s){1,2}history\b", line, re.IGNORECASE)
    )
    return [" ".join(found[0].split()) for line in lines for found in pattern.finditer(line)]


def diagnosis_linkable(score: float, threshold: float, linked_to: str) -> CheckResult:
    """Whether the true diagnosis is a node of the disease graph. A warning: without it a case can
    be played, but not scored by DTC.

    Figure: the score of the link, 0 to 1 (`medaction.kg.linking`).
    """
    detail = (
        f"linked to {linked_to}" if linked_to else "the diagnosis is no node of the disease graph"
    )
    return CheckResult(
        "diagnosis_linkable", bool(linked_to), score, threshold, detail, required=False
    )


# --- text -------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """`text` for comparison: one case, one kind of space, dash and quote, no markdown marks;
    numbers and signs stay."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"[‐-―−]", "-", text)
    text = re.sub(r"[‘’`´]", "'", text).replace("“", '"').replace("”", '"')
    return " ".join(re.sub(r"[*_#|]|^\s*-\s", " ", text, flags=re.MULTILINE).split())


def numbers_of(text: str) -> list[str]:
    """The numbers of plain text, thousands without commas: '11,500/mm3' -> 11500, 3."""
    return [
        number.replace(",", "")
        for number in re.findall(r"\d+(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?", text)
    ]


def _agreement(needle: str, text: str) -> float:
    """How well `needle` is found in `text`, in percent; 100 when it stands there."""
    if not needle:
        return 0.0
    return (
        100.0 if needle in text else fuzz.partial_ratio(needle, text, score_cutoff=GROUNDED_AT - 30)
    )


def _unique(names: Iterable[str]) -> list[str]:
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(normalise(name), name)
    return list(first.values())
