"""Checks that every environment passes, whatever its source: plain functions of the report and the structured case.

Each returns a `CheckResult` with a name, a figure and what was found, so that a refusal can be counted and understood.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rapidfuzz import fuzz

from envs.naming import normalise
from envs.records import CaseReport, StructuredCase

GROUNDED_AT = 90.0
"""A result is found in the report when its best aligned window there agrees to this many percent (rapidfuzz partial ratio)."""

LEAKED_AT = 92.0
"""The same for names of the diagnosis of at least `FUZZY_LENGTH` characters: spelling and inflection vary, another disease does not."""

FUZZY_LENGTH = 12
RESULT_LENGTH = 25
"""A shorter result ('Normal', '120/80 mmHg') can stand in the initial observation without having been copied there."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found. `figure` is its measure; `detail` names the offending passage."""

    name: str
    passed: bool
    figure: float
    detail: str = ""


def has_initial_observation(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: characters of o1; at least 40 are needed (an age, a sex and a complaint)."""
    length = len(case.initial_observation.strip())
    return CheckResult("has_initial_observation", length >= 40, length, f"{length} characters, at least 40 are needed")


def has_diagnosis(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: letters of the diagnosis."""
    letters = sum(c.isalpha() for c in case.diagnosis)
    return CheckResult("has_diagnosis", letters >= 3, letters, f"the diagnosis is {case.diagnosis!r}")


def min_tests(_report: CaseReport, case: StructuredCase, at_least: int = 2) -> CheckResult:
    """Figure: documented tests. With fewer than `at_least`, ordering tests is no choice."""
    count = len(case.tests)
    return CheckResult("min_tests", count >= at_least, count, f"{count} documented tests, at least {at_least} are needed")


def no_duplicate_tests(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: test names that stand more than once in the menu."""
    names = [normalise(test.name) for test in case.tests]
    twice = sorted({name for name in names if names.count(name) > 1})
    return CheckResult("no_duplicate_tests", not twice, len(twice), ", ".join(twice))


def results_grounded(report: CaseReport, case: StructuredCase) -> CheckResult:
    """Every line of every result stands in the report (GROUNDED_AT), and so does every number of it.

    Figure: the lowest agreement over all results, in percent; 0 when a number is missing.
    """
    text = _plain(report.text)
    numbers = set(_numbers(text))
    worst, detail = 100.0, ""
    for test in case.tests:
        for line in test.result.splitlines() or [""]:
            missing = next((number for number in _numbers(_plain(line)) if number not in numbers), None)
            score = 0.0 if missing else _agreement(_plain(line), text)
            if score < worst:
                reason = f"the number {missing} is not in the report" if missing else f"found to {score:.0f} %"
                worst, detail = score, f"{test.name}: {line[:80]!r}: {reason}"
    return CheckResult("results_grounded", worst >= GROUNDED_AT, worst, detail)


def no_diagnosis_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """No name of the diagnosis, synonym or abbreviation stands in o1; a negated or past mention counts too.

    Figure: the number of names found.
    """
    found = [name for name in _unique(names_of_diagnosis(case)) if mentions(case.initial_observation, name)]
    found += [short for short in abbreviations(case) if re.search(rf"\b{re.escape(short)}\b", case.initial_observation)]
    return CheckResult("no_diagnosis_in_o1", not found, len(found), f"the initial observation names {', '.join(found)!r}")


def no_manifestation_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """What the diagnosis names beside the disease itself ('... with ascites') is better not told either, but may be a symptom.

    Figure: the number of such parts found.
    """
    found = [part for part in _parts(case.diagnosis)[1] if mentions(case.initial_observation, part)]
    return CheckResult("no_manifestation_in_o1", not found, len(found), f"the initial observation names {', '.join(found)!r}")


def no_result_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """No result of at least RESULT_LENGTH characters stands in o1. Figure: the number of results found there."""
    text = _plain(case.initial_observation)
    found = [
        test.name
        for test in case.tests
        for line in test.result.splitlines()
        if len(_plain(line)) >= RESULT_LENGTH and _agreement(_plain(line), text) >= 95
    ]
    return CheckResult(
        "no_result_in_o1", not found, len(found), f"the initial observation tells the result of {', '.join(found)}"
    )


# A result that says that there is none: not examined, not told, or only a suggestion.
_UNDOCUMENTED = re.compile(
    r"""(?:results?\s)?
    (?:pending|unknown|n/?a|none|optional|awaited|to\sfollow|expected\sto\sshow|to\sbe\sdetermined|no\s(?:data|results?)\savailable
    |not\s(?:yet\s)?(?:provided|specified|performed|done|available|indicated|applicable|mentioned|documented|reported|required|conducted|given|tested)
    )\b
    |.*\b(?:(?:could|can)\sbe\sconsidered|not\stypically\snecessary|but\simagine|were\snot\sexplicitly\sdetailed|unavailable\sdue\sto)\b""",
    re.IGNORECASE | re.VERBOSE,
)


def is_documented(result: str) -> bool:
    """Whether a result tells one: not 'Pending', 'Not performed' or 'Optional: can be considered'."""
    return bool(result.strip()) and not _UNDOCUMENTED.match(result.strip())


# --- names of a diagnosis --------------------------------------------------------------------------------------------------------

# What follows decides: a cause is the diagnosis as much as what it caused; what a disease comes with, as, or after an exposure is
# often the complaint or the history itself. 'and' and commas go on as before.
_CONNECTOR = re.compile(
    r"""\b(?P<cause>caused\sby|due\sto|secondary\sto|from|resulting\sfrom)\b
    |\b(?P<beside>with(?:out)?|presenting\s(?:as|with)|causing|leading\sto|complicated\sby|complicating|mimicking|involving|during|managed
        |in\sthe\s(?:absence|context|setting|presence)\sof|associated(?:\swith)?|nearing|successfully|following|after|likely|induced\sby
        |triggered\sby|superimposed\son|compounded\sby|in\san?)\b
    |(?P<same>\band\b|[,;\n]|\b\d\.\s)""",
    re.VERBOSE,
)
_LEADING = re.compile(
    r"""^(?:(?:final\sdiagnosis|acute|chronic|active|severe|mild|primary|secondary|idiopathic|isolated|recurrent|benign|malignant|congenital
    |adult|giant|bilateral|left|right|acquired|classic|atypical|symptomatic|spontaneous|incidental\sfinding\sof|concurrent|concomitant
    |synchronous|suspected|possible|an?|the|stage\s[ivx\d]+\w?|type\s[ivx\d]+|early|late|onset|physiologic(?:al)?|simple|uncomplicated
    )\b[\s:,-]*)+""",
    re.IGNORECASE | re.VERBOSE,
)
_EPONYM = re.compile(r"^(.{5,}?)(?:'s|’s|s['’])?\s+(?:disease|syndrome|disorder|phenomenon)$", re.IGNORECASE)
# Too general to give a diagnosis away when they stand alone.
_GENERAL = re.compile(
    r"(?:cancer|tumor|tumour|mass|cyst|lesion|infection|disease|syndrome|disorder|fracture|pain|injury|obstruction"
    r"|hemorrhage|bleeding|infarction|metastasis|abscess|rupture|perforation|pregnancy|inflammation|behavior|normal"
    r"|dislocation|fever|anemia|edema|stroke|celiac|kidney|liver|cardiac|pulmonary|vascular|autoimmune|metabolic"
    r"|connective|tissue|inflammatory|bowel|coronary|artery|heart|lung|thyroid)(?: disease)?"
)


def names_of_diagnosis(case: StructuredCase) -> Iterator[str]:
    """The names that would give the diagnosis away: as written, without brackets, its causes, without 'acute', without 'disease'."""
    for name in (case.diagnosis, *case.synonyms):
        for part in _parts(name)[0]:
            yield part
            if len(bare := _LEADING.sub("", part)) >= 5:
                yield bare
            if (eponym := _EPONYM.match(bare)) and not _GENERAL.fullmatch(normalise(eponym[1]).split()[-1]):
                yield eponym[1]
        for before, inner in re.findall(r"([^()]*)\(([^()]{5,})\)", name):
            if not _CONNECTOR.search(before):
                yield inner


def _parts(diagnosis: str) -> tuple[list[str], list[str]]:
    """The diagnosis with its causes; and what it comes with: 'Sepsis due to pyelitis with shock' -> [Sepsis, pyelitis], [shock]."""
    parts: dict[str, list[str]] = {"cause": [], "beside": []}
    current, start = "cause", 0
    text = re.sub(r"\([^()]*\)|\*+", " ", diagnosis)
    for connector in _CONNECTOR.finditer(text):
        parts[current].append(text[start : connector.start()])
        current, start = (current if connector["same"] else str(connector.lastgroup)), connector.end()
    parts[current].append(text[start:])
    return _long_enough(parts["cause"]), _long_enough(parts["beside"])


def _long_enough(parts: list[str]) -> list[str]:
    stripped = (" ".join(part.split()).strip(" .:-") for part in parts)
    return [part for part in stripped if sum(c.isalpha() for c in part) >= 4 and not _GENERAL.fullmatch(normalise(part))]


def abbreviations(case: StructuredCase) -> tuple[str, ...]:
    """Abbreviations in brackets, and the initials of names of three to five words, as they are written: in capitals."""
    found = []
    for name in (case.diagnosis, *case.synonyms):
        core = _parts(name)[0]
        for before, short in re.findall(r"([^()]*)\(([A-Z][A-Za-z0-9-]{1,9})\)", name):
            if sum(c.isupper() for c in short) >= 2 and any(part in before for part in core):
                found.append(short)
        words = [re.findall(r"[A-Za-z]+", part) for part in core]
        found += ["".join(word[0] for word in name).upper() for name in words if 3 <= len(name) <= 5]
    return tuple(_unique(found))


def mentions(text: str, name: str) -> bool:
    """Whether `text` names it: as whole words, by all its words within one sentence, or, when long, in a slightly other spelling."""
    plain, wanted = normalise(text), normalise(name)
    if not wanted or _GENERAL.fullmatch(wanted):
        return False
    if re.search(rf"\b{re.escape(wanted)}(?:s|es)?\b", plain):
        return True
    stems = [word[: max(5, len(word) - 3)] for word in wanted.split() if len(word) > 3]
    if len(stems) >= 2 and any(all(_has_stem(sentence, stem) for stem in stems) for sentence in _sentences(text)):
        return True
    return len(wanted) >= FUZZY_LENGTH and _words_align(wanted, plain)


def _words_align(wanted: str, plain: str) -> bool:
    """Fuzzy, but word for word: each word of the name has a close one at its place, so 'hypo-' is never taken for 'hyper-'."""
    words, pattern = plain.split(), wanted.split()
    windows = (words[i : i + len(pattern)] for i in range(len(words) - len(pattern) + 1))
    return any(all(_close(a, b) for a, b in zip(pattern, window, strict=True)) for window in windows)


def _close(a: str, b: str) -> bool:
    if a == b:
        return True
    return len(a) >= 7 and a[:4] == b[:4] and fuzz.ratio(a, b) >= LEAKED_AT


def _has_stem(sentence: str, stem: str) -> bool:
    return re.search(rf"\b{re.escape(stem)}", sentence) is not None


def _sentences(text: str) -> list[str]:
    return [normalise(sentence) for sentence in re.split(r"(?<=[.;!?])\s|\n", text)]


# --- text --------------------------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """`text` for comparison: one case, one kind of space, dash and quote, no markdown marks; numbers and signs stay."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"[‐-―−]", "-", text)
    text = re.sub(r"[‘’`´]", "'", text).replace("“", '"').replace("”", '"')
    return " ".join(re.sub(r"[*_#|]|^\s*-\s", " ", text, flags=re.MULTILINE).split())


def _numbers(text: str) -> list[str]:
    """The numbers of plain text, thousands without commas: '11,500/mm3' -> 11500, 3."""
    return [number.replace(",", "") for number in re.findall(r"\d+(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?", text)]


def _agreement(needle: str, text: str) -> float:
    """How well `needle` is found in `text`, in percent; 100 when it stands there."""
    if not needle:
        return 0.0
    return 100.0 if needle in text else fuzz.partial_ratio(needle, text, score_cutoff=GROUNDED_AT - 30)


def _unique(names: Iterable[str]) -> list[str]:
    return list({normalise(name): name for name in names}.values())
