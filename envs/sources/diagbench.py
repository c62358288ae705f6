"""DiagBench's cases (JSON, https://huggingface.co/datasets/Henrychur/DiagBench). A benchmark: every
case is marked evaluation-only and never becomes training data.

A file is a list of cases, or one object of them by their note's id. A case has a summary, the
timeline of its work-up with a result a step, and the final diagnosis; the timeline is the menu, so
that the oracle answers with what is documented and no generator is needed.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medaction.envs.categories import category_of
from medaction.envs.orders import MAX_ORDER, single_tests
from medaction.envs.records import (
    BadCase,
    CaseReport,
    DocumentedTest,
    Loss,
    StructuredCase,
    check_id,
    sample_of,
)
from medaction.envs.sources.files import bad_field, parse_json, read_text, text_at, unread_fields

TIMELINE = "stepwise_diagnostic_reasoning_timeline_list"
_FORM = {"case_summary", TIMELINE}
_READ_FIELDS = _FORM | {"note_id", "final_diagnosis"}
_CONCLUDING = "information is sufficient to make a diagnosis"
"""The last step says so before its 'Diagnosis: ...'."""
_ORDERED = re.compile(r"\b(?:performed|needed)\s*:")
_NOTE_OF_MIMIC = re.compile(r"\d+-DS-\d+")


def recognises(value: Any) -> bool:
    """Whether parsed JSON has the form of DiagBench's cases."""
    return any(isinstance(case, dict) and set(case) >= _FORM for _, case in _cases_by_note(value))


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The cases of one DiagBench file; ids are those of the notes. A bad case is yielded as BadCase
    and the others go on.

    Raises BadCase when the file itself cannot be read.
    """
    for case_id, case in _cases_by_note(parse_json(read_text(path), path)):
        try:
            yield _case_of_note(case_id, case, path)
        except BadCase as bad:
            yield BadCase(bad.reason, bad.message, case_id[:100], str(path))


def _cases_by_note(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        for number, case in enumerate(value, 1):
            note = case.get("note_id") if isinstance(case, dict) else None
            # A case without an id needs one too: the store keeps failures by case.
            yield note if isinstance(note, str) and note else f"diagbench-{number}", case


def _case_of_note(case_id: str, case: Any, path: Path) -> CaseReport:
    place = f" case {case_id[:60]!r}"
    summary = text_at(case, "case_summary", path, place).strip()
    timeline = case.get(TIMELINE)
    if not isinstance(timeline, list) or not all(isinstance(step, str) for step in timeline):
        raise bad_field(path, place, f"{TIMELINE!r} must be a list of strings")
    concluded = [step for step in timeline[-1:] if _CONCLUDING in step]
    # The field is what DiagBench compares answers with; the timeline's end may say it otherwise.
    if case.get("final_diagnosis"):
        diagnosis = text_at(case, "final_diagnosis", path, place).strip()
    else:
        diagnosis = "".join(_between(step, "Diagnosis:", "Reason:") for step in concluded)
    if not diagnosis:
        message = f"{path.name}{place}: neither 'final_diagnosis' nor the timeline's end tells it"
        raise BadCase("no_diagnosis", message)
    steps = timeline[: len(timeline) - len(concluded)]
    by_step = [(step, _tests_of_step(step)) for step in steps]
    tests = [test for _, its_tests in by_step for test in its_tests]
    without_test = [step for step, its_tests in by_step if not its_tests]
    reasons = [reason for step in timeline if (reason := _between(step, "Reason:"))]
    lines = [summary, *(f"{test.name}: {test.result}" for test in tests), f"Diagnosis: {diagnosis}"]
    return CaseReport(
        case_id=check_id(case_id),
        source="diagbench",
        title=f"DiagBench case {case_id}",
        text="\n".join(lines),
        path=str(path),
        # The notes of MIMIC-IV stay under its data use agreement, which no card lifts.
        licence=None if _NOTE_OF_MIMIC.fullmatch(case_id) else "MIT",
        evaluation_only=True,
        structured=StructuredCase(summary, tuple(tests), diagnosis),
        losses=(*_losses(without_test, reasons), *unread_fields(case, _READ_FIELDS)),
    )


def _tests_of_step(step: str) -> list[DocumentedTest]:
    """The tests that a step orders, each with the step's result: several of one step share it."""
    before, _, result = step.partition("Test result:")
    order = _between(before, "Based on the", "Reason:")
    ordered = _ORDERED.search(order)
    text = order[ordered.end() :].strip(" .\n") if ordered else ""
    # Of a longer one only the beginning is read.
    orders = [text] if len(text) <= MAX_ORDER else re.split(r"[,;\n]\s*", text)
    names = single_tests(orders)
    return [DocumentedTest(name, category_of(name), result.strip()) for name in names if name]


def _losses(without_test: list[str], reasons: list[str]) -> Iterator[Loss]:
    if without_test:
        sample = sample_of(without_test[0])
        yield Loss("step", len(without_test), "it orders no test", sample)
    if reasons:
        reason = "an annotator's reasoning, no part of the record"
        yield Loss("reasoning", len(reasons), reason, sample_of(reasons[0]))


def _between(text: str, begin: str, end: str = "Test result:") -> str:
    return text.partition(begin)[2].partition(end)[0].strip()
