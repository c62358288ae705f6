"""Checks that every environment passes, whatever its source: plain functions of the report and the
structured case.

Each returns a `CheckResult` with a name, a figure and the offending passage, so that a refusal can
be counted and understood. A check that cannot look does not pass: it says 'not applicable'.
"""

import re

from medaction.envs.diagnosis_names import diseases_joined, english_words, mentions, parts_of
from medaction.envs.grounding import GROUNDED_AT, agreement_of_texts, numbers_of, plain_text
from medaction.envs.leaks import (
    complaint_of,
    mentions_in,
    names_of_case,
    outcomes_in,
    treatments_in,
)
from medaction.envs.patients import animal_in, animal_of_age, patients_in, patients_in_title
from medaction.envs.records import CaseReport, CheckResult, StructuredCase
from medaction.envs.results_told import is_told
from medaction.envs.scripts import is_unspaced, script_of
from medaction.words.names import normalise

MIN_OBSERVATION = 40
"""Characters of o1: an age, a sex and a complaint."""

ENGLISH_AT = 0.5
"""Share of o1's words from which on it is English prose. Of 700 observations, real and made up,
those in ten other languages have at most 0.36, two notes in shorthand 0.17 and 0.45, and all others
at least 0.61."""


def has_diagnosis(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: letters of the diagnosis; a script that writes words in one letter needs two."""
    letters = sum(map(str.isalpha, case.diagnosis))
    least = 2 if is_unspaced(case.diagnosis) else 3
    detail = f"the diagnosis is {case.diagnosis!r}"
    return CheckResult("has_diagnosis", letters >= least, letters, least, detail)


def has_initial_observation(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: characters of o1."""
    length = len(case.initial_observation.strip())
    # A Chinese character says about as much as three Latin letters.
    least = MIN_OBSERVATION // 3 if is_unspaced(case.initial_observation) else MIN_OBSERVATION
    detail = f"{length} characters, at least {least} are needed"
    return CheckResult("has_initial_observation", length >= least, length, least, detail)


def min_tests(_report: CaseReport, case: StructuredCase, at_least: int) -> CheckResult:
    """Figure: documented tests. With fewer than `at_least` there is too little to order."""
    count = len(case.tests)
    detail = f"{count} documented tests, at least {at_least} are needed"
    return CheckResult("min_tests", count >= at_least, count, at_least, detail)


def no_duplicate_tests(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: test names that stand more than once in the menu."""
    names = [normalise(test.name) for test in case.tests]
    twice = sorted({name for name in names if names.count(name) > 1})
    return CheckResult("no_duplicate_tests", not twice, len(twice), 0, ", ".join(twice))


def several_patients(report: CaseReport, case: StructuredCase) -> CheckResult:
    """Whether the report tells of one patient: results of several would be mixed in one menu.

    Figure: the number of patients that the observation, or else the report, tells apart.
    """
    patients = patients_in(case.initial_observation)
    # Only where no reader has told the patients apart yet.
    if not patients and report.structured is None and "patient" not in report.meta:
        patients = patients_in(report.text) or patients_in_title(report.title)
    names = ", ".join(patients)
    detail = f"the report tells of {names}; put each patient in a file of its own"
    return CheckResult("several_patients", len(patients) < 2, len(patients), 1, detail)


def not_human(report: CaseReport, case: StructuredCase) -> CheckResult:
    """Figure: 1 for an animal."""
    animal = animal_in(case.initial_observation) or animal_in(report.title)
    # Before a model has read it there is no o1: the article's text is all there is.
    if not animal and report.structured is None:
        animal = animal_of_age(report.text)
    return CheckResult(
        "not_human", not animal, bool(animal), 0, f"the patient is an animal: {animal!r}"
    )


def readable_script(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Whether the diagnosis could be seen in the observation: both must be in one script, and the
    diagnosis must have letters that can be compared.

    Figure: 1 where they are.
    """
    scripts = script_of(case.diagnosis), script_of(case.initial_observation)
    # A name that normalises to nothing would be found nowhere, and never leak.
    readable = bool(normalise(case.diagnosis)) and scripts[0] == scripts[1]
    detail = (
        f"the diagnosis is in {scripts[0] or 'no'} script and the observation in"
        f" {scripts[1] or 'no'}: its name could not be seen there; give both in one language"
    )
    return CheckResult("readable_script", readable, readable, 1, detail)


def readable_language(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Whether o1 is English prose: in another language, or in mere abbreviations, a result told in
    passing is seen only where the menu has its words. A warning: let a verifier read the case.

    Figure: the share of the words that are common in English, 0 to 1.
    """
    share = _share_of_english(case.initial_observation)
    detail = (
        f"{share:.0%} of the words of the initial observation are common in English: results and"
        " outcomes that it tells in passing may stay there unseen"
    )
    readable = share >= ENGLISH_AT
    return CheckResult(
        "readable_language", readable, round(share, 3), ENGLISH_AT, detail, required=False
    )


def _share_of_english(text: str) -> float:
    # Neither abbreviations nor '45M': capitals and digits; 'de', 'die' and 'un' are short.
    without_codes = re.sub(r"\b\w*(?:[A-Z]{2}|\d)\w*", "", text)
    words = re.findall(r"[^\W\d_]{3,}", without_codes.casefold())
    return sum(word in english_words() for word in words) / len(words) if words else 0.0


def results_grounded(report: CaseReport, case: StructuredCase) -> CheckResult:
    """Every line of every result stands in the report (GROUNDED_AT), and so does every number of
    it. Not applicable to a source whose text is made of these very results.

    Figure: the lowest agreement over all results, in percent; 0 when a number is missing.
    """
    name = "results_grounded"
    if report.text_is_the_case:
        return not_applicable(name, "the source gives the results alone, no report to hold against")
    text = plain_text(report.text)
    # Numbers apart: a long line with one digit wrong agrees to more than 90 percent.
    numbers = set(numbers_of(text))
    worst, detail = 100.0, ""
    for test in case.tests:
        # Line by line: merged results stand at several places of the report.
        for line in map(plain_text, test.result.splitlines() or [""]):
            absent = next((number for number in numbers_of(line) if number not in numbers), None)
            score = 0.0 if absent else agreement_of_texts(line, text)
            if score < worst:
                why = f"the number {absent} is not in the report" if absent else f"{score:.0f} %"
                worst, detail = score, f"{test.name}: {line[:80]!r}: {why}"
    return CheckResult(name, worst >= GROUNDED_AT, worst, GROUNDED_AT, detail)


def quotes_grounded(report: CaseReport, case: StructuredCase) -> CheckResult:
    """Where a test names the passage that tells its result: the passage stands in the report, and
    holds every number of the result.

    Figure: the lowest agreement over all quotes, in percent; 0 when a number is missing.
    """
    quoted = [test for test in case.tests if test.quote]
    if not quoted:
        return not_applicable("quotes_grounded", "no test names the passage of its result")
    text = plain_text(report.text)
    worst, detail = 100.0, ""
    for test in quoted:
        quote = plain_text(test.quote)
        # In the quote, not the report: another test's number may be the same.
        numbers = numbers_of(plain_text(test.result))
        absent = next((number for number in numbers if number not in numbers_of(quote)), None)
        score = 0.0 if absent else agreement_of_texts(quote, text)
        if score < worst:
            why = f"the number {absent} is not in its quote" if absent else "its quote"
            worst, detail = score, f"{test.name}: {why}"
    return CheckResult("quotes_grounded", worst >= GROUNDED_AT, worst, GROUNDED_AT, detail)


def numbers_in_report(report: CaseReport, case: StructuredCase) -> CheckResult:
    """Every number of every result stands in the published report itself, where a source tells it
    apart from a summary of it.

    A warning, since results are copied from the summary: `results_grounded` cannot see a number
    that the summary got wrong, or that stands only in a figure or table of the article. Figure: the
    share of the numbers that the report has, 0 to 1.
    """
    name = "numbers_in_report"
    if report.text_is_the_case and not report.original:
        return not_applicable(name, "the source gives the results alone, no report to hold against")
    in_report = set(numbers_of(plain_text(report.original or report.text)))
    numbers = [
        (test.name, number) for test in case.tests for number in numbers_of(plain_text(test.result))
    ]
    absent = [f"{number} ({test})" for test, number in numbers if number not in in_report]
    share = 1 - len(absent) / len(numbers) if numbers else 1.0
    detail = f"not in the report: {', '.join(absent[:8])}"
    return CheckResult(name, not absent, round(share, 3), 1.0, detail, required=False)


def one_diagnosis(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Whether the diagnosis names one disease. A warning: several joined ones are kept in their
    order, all of them are hidden, and an answer is held against all of them; the first may be a
    complication of the next.

    Figure: the number of diseases named, with those that caused them.
    """
    names = diseases_joined(case.diagnosis)
    detail = f"the diagnosis joins {'; '.join(names)}"
    return CheckResult("one_diagnosis", len(names) <= 1, len(names), 1, detail, required=False)


def no_diagnosis_in_o1(report: CaseReport, case: StructuredCase) -> CheckResult:
    """No name of the diagnosis, synonym or abbreviation stands in o1 but as history
    (`medaction.envs.leaks`).

    Figure: the number of names found.
    """
    all_mentions = mentions_in(case.initial_observation, names_of_case(report, case), case)
    # Sentence by sentence: history in one does not excuse the same name in another.
    leaks = {normalise(m.name.text): m.name.text for m in all_mentions if not m.excuse}
    detail = f"the initial observation names {', '.join(leaks.values())!r}"
    return CheckResult("no_diagnosis_in_o1", not leaks, len(leaks), 0, detail)


def no_known_disease_in_o1(report: CaseReport, case: StructuredCase) -> CheckResult:
    """What the diagnosis names and the patient brings along: a denied history, an exposure, a known
    cause, the complaint itself. A warning: the rest of the diagnosis is what is to be found.

    Figure: the number of such names found.
    """
    all_mentions = mentions_in(case.initial_observation, names_of_case(report, case), case)
    excused = {
        normalise(m.name.text): f"{m.name.text} ({m.excuse})" for m in all_mentions if m.excuse
    }
    detail = f"the initial observation tells {', '.join(excused.values())}"
    return CheckResult(
        "no_known_disease_in_o1", not excused, len(excused), 0, detail, required=False
    )


def no_manifestation_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """What the diagnosis names beside the disease itself ('... with ascites') is better not told
    either, but may be a symptom.

    Figure: the number of such parts found.
    """
    names = [
        part.text
        for part in parts_of(case.diagnosis)
        if part.role == "beside" and mentions(case.initial_observation, part.text)
    ]
    detail = f"the initial observation names {', '.join(names)!r}"
    return CheckResult("no_manifestation_in_o1", not names, len(names), 0, detail, required=False)


def no_result_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """No result of the menu stands in o1 (`medaction.envs.results_told`).

    Figure: the number of tests whose result is told there.
    """
    complaint = complaint_of(case.initial_observation)
    tests = [test.name for test in case.tests if is_told(test, case.initial_observation, complaint)]
    detail = f"the initial observation tells the result of {', '.join(tests)}"
    return CheckResult("no_result_in_o1", not tests, len(tests), 0, detail)


def no_outcome_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """What became of the patient: death, discharge, follow-up, recovery. English alone is read.

    Figure: the number of passages found.
    """
    name = "no_outcome_in_o1"
    passages = outcomes_in(case.initial_observation)
    if not passages and _share_of_english(case.initial_observation) < ENGLISH_AT:
        return not_applicable(name, "outcomes are known by their English words")
    detail = f"the initial observation tells the outcome: {passages[:3]}"
    return CheckResult(name, not passages, len(passages), 0, detail)


def no_treatment_in_o1(_report: CaseReport, case: StructuredCase) -> CheckResult:
    """Treatment that was begun or answered to. A warning: what was tried before the first encounter
    belongs to the history.

    Figure: the number of passages found.
    """
    passages = treatments_in(case.initial_observation)
    detail = f"the initial observation tells of treatment: {passages[:3]}"
    return CheckResult("no_treatment_in_o1", not passages, len(passages), 0, detail, required=False)


def diagnosis_linkable(score: float, threshold: float, linked_to: str) -> CheckResult:
    """Whether the true diagnosis is a node of the disease graph. A warning: without it a case can
    be played, but not scored by DTC.

    Figure: the score of the link, 0 to 1 (`medaction.kg.linking`).
    """
    name = "diagnosis_linkable"
    detail = (
        f"linked to {linked_to}" if linked_to else "the diagnosis is no node of the disease graph"
    )
    return CheckResult(name, bool(linked_to), score, threshold, detail, required=False)


def not_applicable(name: str, why: str) -> CheckResult:
    """A check that had nothing to look at: neither passed nor a reason to refuse."""
    return CheckResult(name, False, 0, 0, why, required=False, applicable=False)
