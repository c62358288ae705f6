"""AgentClinic's OSCE cases (JSON Lines): the examination's sections are the environment, no model is needed."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from envs.categories import category_of
from envs.checks import is_documented
from envs.records import BadCase, CaseReport, DocumentedTest, StructuredCase
from envs.sources.files import object_at, parse_json, read_text, text_at

# Sections of Test_Results that hold tests, and are none themselves. Panels such as Complete_Blood_Count stay one test.
_CONTAINER = re.compile(
    r"""(?:(?:basic|other|additional|special|serum|routine)\s)*
    (?:blood\s(?:tests?|work)|imaging(?:\sand\sother\stests|\sstudies|\sresults)?|assessment\stools|hematolog(?:y|ic)|urine\stests|serology
    |lab(?:oratory)?\s?(?:tests?|studies|results|work|values|findings)?|x\srays|(?:other|additional|special|screening)?\s?tests?
    |serum\s(?:studies|chemistries|laboratory\s(?:analysis|values)|biochemistry|chemistry)|blood\schemistry|infectious\sdisease\stesting
    |biopsy|vestibular\sfunction\stests)""",
    re.IGNORECASE | re.VERBOSE,
)
# Leaf names that describe a result and name no test: 'Chest X-ray: {Findings: ...}' has the result '...'.
_DESCRIPTIVE = re.compile(
    r"(preliminary )?(findings?|results?|level|histopathology( findings)?|microscopic description|microscopy|comments?|description"
    r"|interpretation|scores|analysis|report)",
    re.IGNORECASE,
)


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The cases of one OSCE file, one a line; case ids are the file's stem and the line's number from 0.

    A bad line is yielded as BadCase and the others go on. Raises BadCase when the file itself cannot be read.
    """
    for number, line in enumerate(read_text(path).splitlines()):
        if line.strip():
            try:
                yield _case(line, number, path)
            except BadCase as bad:
                yield bad


def _case(line: str, number: int, path: Path) -> CaseReport:
    where = f" line {number + 1}"
    osce = object_at(parse_json(line, path, where), "OSCE_Examination", path, where)
    patient = object_at(osce, "Patient_Actor", path, where)
    examination = {"Physical_Examination": osce.get("Physical_Examination_Findings", {})}
    results = object_at(osce, "Test_Results", path, where)
    observation = "\n".join([*_lines(patient), *_lines(examination)])
    diagnosis = text_at(osce, "Correct_Diagnosis", path, where)
    tests = tuple(_tests(results))
    text = "\n".join([observation, "Test results:", *_lines(results), f"Diagnosis: {diagnosis}"])
    return CaseReport(
        case_id=f"agentclinic-{number:04d}",
        source="agentclinic",
        title=f"AgentClinic OSCE case {number}",
        text=text,
        path=str(path),
        licence="MIT",
        structured=StructuredCase(observation, tests, diagnosis),
        meta={"row": str(number)},
    )


def _lines(sections: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Sections as readable lines: 'Past Medical History: ...', nested ones indented below their heading."""
    for key, value in sections.items():
        if isinstance(value, Mapping) and not _is_panel(value):
            yield f"{indent}{_words(key)}:"
            yield from _lines(value, indent + "  ")
        elif text := _result(value):
            yield f"{indent}{_words(key)}: {text}"


def _tests(results: Mapping[str, Any], container: str = "") -> Iterator[DocumentedTest]:
    for key, value in results.items():
        name = _words(key)
        if (
            isinstance(value, Mapping)
            and value
            and (_CONTAINER.fullmatch(name) or not _is_panel(value))
            and not _describes(value)
        ):
            for test in _tests(value, f"{container} {name}"):
                yield _named_after(test, name)
        elif text := _result(value):
            yield DocumentedTest(name, category_of(name, container), text)


def _named_after(test: DocumentedTest, container: str) -> DocumentedTest:
    """A biopsy's or an imaging study's site alone ('Cervical Lymph Node') is no name of a test: the container goes with it."""
    if container.lower() in ("biopsy", "urine tests"):
        head = container.split()[0]
        name = test.name if head.lower() in test.name.lower() else f"{test.name} {head.lower()}"
        name = f"Urine {test.name}" if head == "Urine" else name
        return DocumentedTest(name, category_of(name), test.result)
    return test


def _is_panel(value: Mapping[str, Any]) -> bool:
    """Whether all values are plain: the components of one test. Deeper nesting is a group of tests."""
    return not any(isinstance(inner, Mapping) and not _describes(inner) for inner in value.values())


def _describes(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(_DESCRIPTIVE.fullmatch(_words(key)) for key in value)


def _result(value: Any) -> str:
    """A result in one line: 'WBC: 7,000 /µL; Hemoglobin: 14 g/dL'. Values are verbatim, names with spaces for underscores.

    Values that tell none ('Pending') are left out, so that a panel shows what it documents.
    """
    if isinstance(value, Mapping):
        parts = ((_words(key), _result(inner)) for key, inner in value.items())
        return "; ".join(
            text if _DESCRIPTIVE.fullmatch(key) and len(value) == 1 else f"{key}: {text}" for key, text in parts if text
        )
    if isinstance(value, list):
        return "; ".join(filter(None, map(_result, value)))
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    return text if is_documented(text) else ""


def _words(key: str) -> str:
    return " ".join(key.replace("_", " ").split())
