"""Our own JSON form of a structured case (docs/case-format.md): alone a case, beside an article its
structured part."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from medaction.envs.categories import category_of
from medaction.envs.composition import BODY_SYSTEMS, DISEASE_TYPES
from medaction.envs.records import (
    BadCase,
    CaseReport,
    DocumentedTest,
    StructuredCase,
    check_id,
    id_of_file,
)
from medaction.envs.sources.files import bad_field, parse_json, read_rows, read_text, text_at
from medaction.words.tests import Category

MAX_CASE_BYTES = 4 * 2**20
_FIELDS = set(
    """
    case_id title licence initial_observation diagnosis diagnosis_synonyms tests body_system
    disease_type rare evaluation_only
    """.split()  # noqa: SIM905
)
_TEST_FIELDS = {"name", "category", "minor", "result", "aliases", "quote"}


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The one case of `path`. Its text is all its parts, so that the checks see what they see in a
    report."""
    try:
        yield read_case(path)
    except BadCase as bad:
        yield BadCase(bad.reason, bad.message, bad.case_id, str(path))


def read_cases_by_line(path: Path) -> Iterator[CaseReport | BadCase]:
    """The cases of a .jsonl, one a line. A bad row is yielded as BadCase and the others go on;
    raises BadCase when the file cannot be read."""
    for number, row in read_rows(path):
        name = f"{path.stem[:80]}-line-{number}"
        try:
            if isinstance(row, BadCase):
                raise row
            yield _case_of_object(_checked(row, path), path, name)
        except BadCase as bad:
            place = "" if bad is row else f"line {number}: "
            yield BadCase(bad.reason, place + bad.message, bad.case_id or name[:100], str(path))


def read_case(path: Path) -> CaseReport:
    """The case of `path`, also for the article of the same name beside it. Raises BadCase."""
    value = parse_json(read_text(path, MAX_CASE_BYTES), path)
    return _case_of_object(_checked(value, path), path, path.stem)


def is_case(value: Any) -> bool:
    """Whether parsed JSON has this form."""
    return isinstance(value, dict) and "initial_observation" in value and "tests" in value


def _checked(value: Any, path: Path) -> dict[str, Any]:
    if not is_case(value):
        raise bad_field(path, "", "an object with 'initial_observation' and 'tests' is needed")
    # Both misspelt and foreign fields: what is not read must not look as if it were.
    _refuse_unknown(value, _FIELDS, path, "")
    case: dict[str, Any] = value
    return case


def _case_of_object(value: dict[str, Any], path: Path, name: str) -> CaseReport:
    """`name`: the id and the title of a case that has none."""
    structured = _structured_of_object(value, path)
    results = [
        # With name and quote: `grounding` looks for both in the text.
        "\n".join(filter(None, [f"{test.name}: {test.result}", test.quote]))
        for test in structured.tests
    ]
    title = text_at(value, "title", path) if "title" in value else name
    licence = text_at(value, "licence", path) if value.get("licence") is not None else None
    text = "\n".join(
        [title, structured.initial_observation, *results, f"Diagnosis: {structured.diagnosis}"]
    )
    named = "case_id" in value
    # A written id is refused where it is unsafe; a file's name is made safe.
    case_id = check_id(text_at(value, "case_id", path)) if named else id_of_file(name)
    # null is as good as absent.
    held_out = _true_or_false(value, "evaluation_only", path) or False
    return CaseReport(case_id, "case_json", title, text, str(path), licence, held_out, structured)


def _structured_of_object(value: dict[str, Any], path: Path) -> StructuredCase:
    tests = value["tests"]
    if not isinstance(tests, list):
        raise bad_field(path, "", "'tests' must be a list")
    return StructuredCase(
        text_at(value, "initial_observation", path),
        tuple(
            _test_of_object(test, path, f" test {number}") for number, test in enumerate(tests, 1)
        ),
        text_at(value, "diagnosis", path),
        _strings(value, "diagnosis_synonyms", path, ""),
        _allowed_value(BODY_SYSTEMS, value, "body_system", path),
        _allowed_value(DISEASE_TYPES, value, "disease_type", path),
        _true_or_false(value, "rare", path),
    )


def _allowed_value(allowed: tuple[str, ...], value: dict[str, Any], key: str, path: Path) -> str:
    """One of `allowed`; '' when the case does not tell it."""
    value_of_key = text_at(value, key, path) if value.get(key) is not None else ""
    if value_of_key and value_of_key not in allowed:
        raise bad_field(path, "", f"{key!r} must be one of {'; '.join(allowed)}")
    return value_of_key


def _true_or_false(value: dict[str, Any], key: str, path: Path) -> bool | None:
    flag = value.get(key)
    if flag is not None and not isinstance(flag, bool):
        raise bad_field(path, "", f"{key!r} must be true or false, not {type(flag).__name__}")
    return flag


def _test_of_object(value: Any, path: Path, place: str) -> DocumentedTest:
    name = text_at(value, "name", path, place)
    _refuse_unknown(value, _TEST_FIELDS, path, place)
    category = value.get("category", category_of(name))
    if category not in get_args(Category):
        categories = ", ".join(get_args(Category))
        raise bad_field(path, place, f"'category' must be one of {categories}")
    return DocumentedTest(
        name,
        category,
        text_at(value, "result", path, place),
        _strings(value, "aliases", path, place),
        text_at(value, "minor", path, place) if "minor" in value else "",
        text_at(value, "quote", path, place) if "quote" in value else "",
    )


def _strings(value: dict[str, Any], key: str, path: Path, place: str) -> tuple[str, ...]:
    values = value.get(key, [])
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise bad_field(path, place, f"{key!r} must be a list of strings")
    return tuple(values)


def _refuse_unknown(value: dict[str, Any], allowed: set[str], path: Path, place: str) -> None:
    """A misspelt optional field would otherwise be lost without a word."""
    if unknown := sorted(set(value) - allowed):
        known = ", ".join(sorted(allowed))
        raise bad_field(path, place, f"unknown field {unknown[0]!r}; known: {known}")
