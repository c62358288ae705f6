"""MedR-Bench's diagnosis cases (JSON). A benchmark: every case is marked evaluation-only and never
becomes training data."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medaction.envs.categories import MINOR_CATEGORIES, known_category
from medaction.envs.composition import BODY_SYSTEMS, DISEASE_TYPES
from medaction.envs.mentions import named_tests
from medaction.envs.patients import parts_by_patient, patients_in
from medaction.envs.records import BadCase, CaseReport, DocumentedTest, StructuredCase, check_id
from medaction.envs.sources.bulleted_tests import (
    BULLET_LINE,
    HEADING,
    Bullet,
    Remark,
    entries_of_bullet,
    tree_of_bullets,
    with_remarks,
)
from medaction.envs.sources.files import (
    bad_field,
    object_at,
    parse_json,
    read_text,
    text_at,
    unread_fields,
)
from medaction.envs.sources.finding_sentences import label_and_rest
from medaction.envs.sources.labels import gathers_tests
from medaction.envs.sources.text import iso_date
from medaction.words.markdown import tables_as_bullets, without_markdown

LICENCE = "CC BY-SA"

_CASE_FIELDS = set(
    """
    raw_case generate_case body_category disorder_category receive_time checked_rare_disease
    """.split()  # noqa: SIM905
)
_GENERATED_FIELDS = {"case_summary", "diagnosis_results"}

# 'Microbiology' heads tests as 'Cytology' does, which is a test itself.
_DISCIPLINES = {part for minor in MINOR_CATEGORIES["laboratory"] for part in minor.split(" and ")}
_OF_ANYTHING = re.compile(r"\s*\b(?:findings?|others?)\b\s*", re.IGNORECASE)
# Models wrote the summaries: bold, heading, bullet or none, in all mixtures.
_ANCILLARY = re.compile(
    r"^[-*#\s]*(?:Ancillary Tests|ANCILLARY TESTS)[^:\n]*?\**\s*:?\**:?(?P<rest>[^\n]*)$",
    re.MULTILINE,
)
# By another name where a summary has none of this: 'Investigations'.
_LABELLED = re.compile(
    r"^[-*#\s]*(?P<label>[A-Z][A-Za-z /&-]{2,50}?)\**\s*:\**(?P<rest>[^\n]*)$", re.MULTILINE
)
# 'Investigations' in a line of its own, as a heading or in bold; most headings have a colon.
_HEADING_LINE = re.compile(r"^(?:#+ +\**|\*\*)[A-Z][A-Za-z &/-]{2,50}+\**(?=[ \t]*$)", re.MULTILINE)
# A section of the summary, whatever its name: 'Chief Complaint: ...', '- History: ...'; no
# sentence: 'Here is the summary:'.
_SECTION = re.compile(
    r"[-*•#\s]*(?![^:\n]{2,50}\b(?:is|are|have)\b)[A-Z][A-Za-z /&-]{2,50}:(?:\s|$)"
)


def recognises(value: Any) -> bool:
    """Whether parsed JSON has the form of MedR-Bench's diagnosis cases."""
    return isinstance(value, dict) and any(
        isinstance(case, dict) and "generate_case" in case for case in value.values()
    )


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The cases of one MedR-Bench file. A bad case is yielded as BadCase and the others go on.

    Raises BadCase when the file itself cannot be read.
    """
    cases = parse_json(read_text(path), path)
    if not isinstance(cases, dict):
        raise bad_field(path, "", "an object of cases by id is needed")
    for case_id, case in cases.items():
        try:
            yield from _cases(case_id, case, path)
        except BadCase as bad:
            yield BadCase(bad.reason, bad.message, case_id[:100], str(path))


def _cases(case_id: str, case: Any, path: Path) -> Iterator[CaseReport]:
    """The case, or one a patient where the summary tells several apart: '<id>-1', '<id>-2', ..."""
    place = f"{path.name} case {case_id[:60]!r}"
    generated = object_at(case, "generate_case", path, f" case {case_id[:60]!r}")
    summary = tables_as_bullets(text_at(generated, "case_summary", path, place))
    summary = _HEADING_LINE.sub(r"\g<0>:", summary)
    diagnosis = without_markdown(text_at(generated, "diagnosis_results", path, place))
    # Stars that were left over of bold text, and the bullet of a list of one.
    diagnosis = diagnosis.replace("*", "").lstrip("-• ")
    summaries = parts_by_patient(summary)
    if not summaries:
        yield _case_of_summary(case_id, case, summary, diagnosis, path)
        return
    final = str(generated.get("final_diagnosis") or "")
    of_patients = []
    for number, (patient, told) in enumerate(summaries.items(), 1):
        others = [name for name in summaries if name != patient]
        # A part that names another patient would mix two menus.
        if patients_in(told) or any(re.search(rf"\b{name}\b", told, re.I) for name in others):
            raise _several(place, summaries, "and not clearly what is whose")
        own = _diagnosis_of(patient, diagnosis, final)
        if not own:
            raise _several(place, summaries, "and not whose the diagnosis is")
        # All patients first: if one diagnosis is untold, no patient of the case is used.
        of_patients.append(_case_of_summary(f"{case_id}-{number}", case, told, own, path))
    yield from of_patients


def _several(place: str, summaries: Mapping[str, str], unclear: str) -> BadCase:
    names = ", ".join(summaries)
    return BadCase("several_patients", f"{place}: the summary tells of {names}, {unclear}")


def _diagnosis_of(patient: str, results: str, final: str) -> str:
    """A patient's own diagnosis, or the one that is said to be that of all; '' if not told."""
    for text in (final, results):
        # The short field first: results often tell reasons too.
        if own := parts_by_patient(text).get(patient, ""):
            return without_markdown(own).replace("*", "").strip(" .-•\n")
    of_all = r"(?i)\s*\b(?:in|for)?\s*(?:both|all)(?: \w+)? (?:cases|patients)\b"
    return re.sub(of_all, "", results) if re.search(of_all, f"{results} {final}") else ""


def _case_of_summary(
    case_id: str, case: Any, summary: str, diagnosis: str, path: Path
) -> CaseReport:
    place = f" case {case_id[:60]!r}"
    raw = text_at(case, "raw_case", path, place)
    observation, inline, ancillary, behind = _sections_of_summary(summary, f"{path.name}{place}")
    observation, preamble = _without_preamble(observation)
    nodes = [Bullet(text, 0, begins=number == 0) for number, text in enumerate(inline)]
    lines = (
        line for node in (*nodes, *tree_of_bullets(ancillary)) for line in entries_of_bullet(node)
    )
    parts = list(with_remarks(lines, HEADING))
    tests = [part for part in parts if isinstance(part, DocumentedTest)]
    notes = [f"before the first section: {line[:100]}" for line in preamble]
    notes += [
        f"left out, {part.no_test}: {part.text[:100]}" for part in parts if isinstance(part, Remark)
    ]
    notes += [f"left out, of a section behind the tests: {line}" for line in behind]
    # A raw case begins with the article's title.
    title = next((line.strip() for line in raw.splitlines() if line.strip()), case_id)
    return CaseReport(
        case_id=check_id(case_id),
        source="medrbench",
        title=title,
        # The article too: `numbers_in_report` looks there for what the summary says.
        text=f"{raw}\n\n{summary}",
        path=str(path),
        licence=LICENCE,
        evaluation_only=True,
        structured=StructuredCase(
            observation,
            tuple(tests),
            diagnosis,
            body_system=_first_of(BODY_SYSTEMS, case.get("body_category")),
            disease_type=_first_of(DISEASE_TYPES, case.get("disorder_category")),
            rare=bool(case["checked_rare_disease"]) if "checked_rare_disease" in case else None,
            notes=tuple(notes),
        ),
        original=raw,
        # Two characters are the empty line between article and summary.
        meta=_metadata_of_case(case_id, case) | {"summary_at": str(len(raw) + 2)},
        losses=(
            *unread_fields(case, _CASE_FIELDS),
            *unread_fields(case["generate_case"], _GENERATED_FIELDS, "generate_case"),
        ),
    )


def _without_preamble(observation: str) -> tuple[str, list[str]]:
    """The observation from its first section on, and the lines before: the form's own words, or a
    sentence that says the sections again. A summary without sections is left as it is."""
    lines = observation.splitlines()
    sections = [number for number, line in enumerate(lines) if _SECTION.match(line)]
    # One section may be chance: a sentence with a colon.
    if len(sections) < 2:
        return observation, []
    return "\n".join(lines[sections[0] :]), lines[: sections[0]]


def _mark(line: str) -> str:
    """The mark of a line's bullet; '0' for any number."""
    return re.sub(r"\d", "0", line.lstrip()[:1])


def _first_of(known: tuple[str, ...], field: object) -> str:
    """The first of a case's categories, a list, that is one of `known`; '' when there is none."""
    categories = field if isinstance(field, list) else []
    return next((category for category in categories if category in known), "")


def _metadata_of_case(case_id: str, case: dict[str, Any]) -> dict[str, str]:
    """The article's id, and the day it was received: the only date that the benchmark tells."""
    meta = {
        "pmcid": match[0] if (match := re.match(r"PMC\d+(?=-\d+$|$)", case_id)) else "",
        "date": iso_date(str(case.get("receive_time", ""))),
    }
    return {key: value for key, value in meta.items() if value}


def _sections_of_summary(summary: str, place: str) -> tuple[str, list[str], list[str], list[str]]:
    """What stands before the first 'Ancillary Tests' line, the sentences on it, the lines below,
    and those of the sections behind.

    The section ends at the next line that is not indented: another section, or another patient; but
    sections right behind it that gather tests as well ('Further testing/Management') go on with it.
    Below a heading that is no bullet itself ('**Ancillary Tests:**') nothing needs indentation, and
    the next heading of its form ends the section.
    """
    # 'Findings' and 'Other' alone may be of the bedside, and so may be what is physiologic.
    headings = (
        m
        for m in _LABELLED.finditer(summary)
        if gathers_tests(_OF_ANYTHING.sub("", m["label"]))
        or known_category(m["label"]) in ("laboratory", "imaging", "pathology")
    )
    heading = _ANCILLARY.search(summary) or next(headings, None)
    if heading is None:
        raise BadCase("no_tests_section", f"{place}: the summary has no 'Ancillary Tests' section")
    bulleted = BULLET_LINE.match(heading[0])
    # What the heading is marked with begins the next section as well.
    mark = "" if bulleted else re.match(r"[*#]*", heading[0].strip())[0]  # type: ignore[index]
    inline = heading["rest"].strip()
    lines = [f"- {inline}"] if inline.endswith(":") else []  # it names what the bullets below hold
    sentences = [] if lines else re.split(r"(?<=\.)\s+(?=[A-Z])", inline)
    rest = summary[heading.end() :].splitlines()
    behind: list[str] = []
    for number, line in enumerate(rest):
        below = (
            line.startswith((" ", "\t"))
            # Bullets of another mark are the heading's list: '- Ancillary Tests:', then '1. EMG'.
            or (BULLET_LINE.match(line) and not (bulleted and _mark(line) == _mark(heading[0])))
            or (mark and not line.startswith((mark, "---")))
        )
        if line.strip() and not below:
            line = f"- {without_markdown(line).lstrip('-*• ')}"
            label = label_and_rest(line[2:])[0]
            # An operation is treatment, whatever it has shown.
            is_of_tests = known_category(label) not in (None, "procedure")
            is_of_tests = is_of_tests or label.casefold() in _DISCIPLINES
            # 'Blood transfusion: two units' names a specimen and no test.
            is_of_tests = is_of_tests and (line.endswith(":") or bool(named_tests(line)))
            if not gathers_tests(label) and not is_of_tests:
                behind = [left for text in rest[number:] if (left := text.strip())]
                break
        # A paragraph below a list or a table is no more of its last item.
        is_paragraph = lines[-1:] == [""] and not BULLET_LINE.match(line)
        lines.append(re.sub(r"(?=\S)", "- ", line, count=1) if is_paragraph else line.rstrip())
    observation = without_markdown(summary[: heading.start()])
    tests = [line for line in lines if line.strip()]
    return observation, list(filter(None, sentences)), tests, behind
