"""From a case report to a clinical environment E = (o1, M, f), or to a refusal with the name of the
check that failed (stage 1)."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace

from medaction.envs import checks
from medaction.envs.documented import is_documented, without_void
from medaction.envs.ledger import ledger_of
from medaction.envs.patients import is_grown
from medaction.envs.records import (
    BadCase,
    Built,
    CaseReport,
    CheckResult,
    ClinicalEnvironment,
    DocumentedTest,
    StructuredCase,
)
from medaction.envs.redaction import Redacted, redact, share_cut
from medaction.envs.results_told import EXAMINED, is_told
from medaction.envs.voice import told_of_patient
from medaction.words.names import normalise

Extract = Callable[[CaseReport], StructuredCase]
"""Reads o1, the menu and the diagnosis out of a report that came without sections
(`medaction.envs.extraction.make_extractor`)."""


_RULES = (
    "build categories checks composition diagnosis_names documented extracted extraction grounding"
    " leaks mentions naming patients phenotype_tests redaction results_told scripts voice"
)
# With them a changed rule makes a run build its environments anew.
RULES = tuple(f"medaction.envs.{name}" for name in _RULES.split())
"""The modules whose questions, thresholds and tables decide what becomes of a report."""


def build_environment(
    report: CaseReport, extract: Extract | None = None, min_tests: int = 1
) -> Built:
    """The clinical environment of one report, or its refusal under the name of the first required
    check that fails.

    A report with sections is taken as it is; any other goes through `extract`. What can be mended
    without inventing is mended and noted in `warnings`: `tidy`, and `medaction.envs.redaction`,
    which cuts whole sentences that tell too much out of the initial observation as long as they are
    few. What leaks then is refused.
    """
    try:
        structured = _structured(report, extract)
    except BadCase as refusal:
        return Built(None, refusal)
    case, mended = tidy(structured)
    # Before the second merge: what moves out of o1 may be a test that the menu has.
    redacted = redact(report, case)
    case, merged = with_one_entry_a_name(redacted.case)
    case = replace(case, initial_observation=without_void(case.initial_observation))
    redacted = replace(redacted, case=case)
    mended = [*case.notes, *mended, *merged]
    mended += [f"cut from the initial observation: {text}" for text in redacted.cut]
    mended += [
        f"cut from the initial observation, the menu tells it: {text}"
        for text in redacted.told_again
    ]
    mended += [
        f"moved from the initial observation to the menu: {test.name}: {test.result}"
        for test in redacted.moved
    ]
    results = tuple(all_checks(report, redacted, min_tests))
    entries = [f"{test.name}: {test.result}\n{test.quote}" for test in case.tests]
    # Before the refusals: a refused case has its ledger too.
    ledger = ledger_of(report, case.initial_observation, entries, case.diagnosis, mended)
    for result in results:
        if result.required and not result.passed:
            failed = BadCase(result.name, result.detail, report.case_id, report.path)
            return Built(None, failed, results, ledger)
    mended += [
        f"{result.name}: {result.detail}"
        for result in results
        if result.applicable and not result.passed
    ]
    environment = ClinicalEnvironment(
        case_id=report.case_id,
        source=report.source,
        title=report.title,
        initial_observation=case.initial_observation,
        menu=case.tests,
        diagnosis=case.diagnosis,
        synonyms=case.synonyms,
        licence=report.licence,
        evaluation_only=report.evaluation_only,
        warnings=tuple(mended),
        body_system=case.body_system,
        disease_type=case.disease_type,
        rare=case.rare,
    )
    return Built(environment, None, results, ledger)


def _structured(report: CaseReport, extract: Extract | None) -> StructuredCase:
    if report.structured is not None:
        return report.structured
    # What no model has to read to see: nothing is spent on it.
    for check in (checks.not_human, checks.several_patients):
        if not (result := check(report, StructuredCase("", (), ""))).passed:
            raise BadCase(result.name, result.detail, report.case_id, report.path)
    if extract is not None:
        return extract(report)
    message = (
        "the report has no structured part; give an extractor, e.g. --extractor MODEL, or put"
        " <stem>.json beside it"
    )
    raise BadCase("needs_extraction", message, report.case_id, report.path)


def all_checks(report: CaseReport, redacted: Redacted, min_tests: int) -> list[CheckResult]:
    """The results of all checks, in the order in which a refusal is named."""
    case = redacted.case
    return [
        checks.has_diagnosis(report, case),
        # Before the script: of an observation that was cut whole nobody could say in which it is.
        checks.has_initial_observation(report, case),
        checks.readable_script(report, case),
        checks.not_human(report, case),
        checks.several_patients(report, case),
        checks.min_tests(report, case, min_tests),
        checks.no_duplicate_tests(report, case),
        checks.no_diagnosis_in_o1(report, case),
        checks.no_result_in_o1(report, case),
        checks.no_outcome_in_o1(report, case),
        share_cut(redacted),
        checks.results_grounded(report, case),
        checks.quotes_grounded(report, case),
        checks.readable_language(report, case),
        checks.no_treatment_in_o1(report, case),
        checks.no_manifestation_in_o1(report, case),
        checks.no_known_disease_in_o1(report, case),
        checks.numbers_in_report(report, case),
        checks.one_diagnosis(report, case),
    ]


def tidy(case: StructuredCase) -> tuple[StructuredCase, list[str]]:
    """What can be mended without inventing, and notes of it.

    - A test whose result says that there is none ('Pending', 'Not performed') is left out: the
      oracle answers UNAVAILABLE.
    - Vital signs and examination findings that the initial observation tells already are no test;
      nor is, in a mother's report, a test of her newborn.
    - Control and invisible characters leave the initial observation, and so does what speaks to a
      reader: instructions, questions, an actor's directions (`medaction.envs.voice`).
    - Tests of the same name become one: equal results once, different ones verbatim on lines of
      their own, in order.
    """
    tests = [replace(test, result=without_void(test.result)) for test in case.tests]
    # A test without a name cannot be ordered.
    documented = [test for test in tests if test.name.strip() and is_documented(test.result)]
    notes = [
        f"left out, no result documented: {test.name}: {test.result}".removesuffix(": ")
        for test in tests
        if test not in documented
    ]
    examined = [
        test
        for test in documented
        if EXAMINED.match(test.name) and is_told(test, case.initial_observation)
    ]
    notes += [f"left out, the initial observation tells it: {test.name}" for test in examined]
    # A newborn's own report keeps them: there they are the patient's.
    if is_grown(case.initial_observation):
        newborns = [test for test in documented if re.match(r"(?i)newborn|neonat", test.name)]
        notes += [f"left out, of another patient: {test.name}: {test.result}" for test in newborns]
        examined += newborns
    documented = [test for test in documented if test not in examined]
    observation, asides = told_of_patient(seen_text(case.initial_observation))
    notes += [f"said to a reader, not of the patient: {aside}" for aside in asides]
    tidied = replace(
        case,
        initial_observation=observation,
        diagnosis=case.diagnosis.strip(" .;。\n\t"),
        tests=tuple(documented),
    )
    tidied, merged = with_one_entry_a_name(tidied)
    return tidied, [*notes, *merged]


def with_one_entry_a_name(case: StructuredCase) -> tuple[StructuredCase, list[str]]:
    """Tests of the same name become one, and notes of it."""
    entries: dict[str, DocumentedTest] = {}
    notes = []
    for test in case.tests:
        # A name of signs alone ('+/-') has no normalised one; two such stay two.
        key = normalise(test.name) or test.name
        if key in entries:
            notes.append(f"documented more than once, merged: {test.name}")
        entries[key] = _merge(entries[key], test) if key in entries else test
    return replace(case, tests=tuple(entries.values())), notes


def seen_text(text: str) -> str:
    """`text` without control and invisible characters, behind which a name could hide; line breaks
    and tabs stay."""
    # Cf: zero-width spaces and marks of direction; Cs, Co: halves of pairs, private use.
    return "".join(
        c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co")
    )


def _merge(entry: DocumentedTest, further: DocumentedTest) -> DocumentedTest:
    lines = [*entry.result.splitlines(), *further.result.splitlines()]
    return replace(
        entry,
        result="\n".join(dict.fromkeys(lines)),
        aliases=tuple(dict.fromkeys((*entry.aliases, *further.aliases))),
        quote="\n".join(dict.fromkeys((entry.quote, further.quote)))
        # Where one quote is missing, the other lacks the second result's numbers.
        if entry.quote and further.quote
        else "",
    )
