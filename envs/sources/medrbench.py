"""MedR-Bench's diagnosis cases (JSON). A benchmark: every case is marked evaluation-only and never
becomes training data."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medaction.envs.categories import category_of, known_category
from medaction.envs.composition import BODY_SYSTEMS, DISEASE_TYPES
from medaction.envs.documented import is_documented
from medaction.envs.leaks import outcomes_in
from medaction.envs.mentions import named_tests
from medaction.envs.naming import KINDS, canonical_of, profile
from medaction.envs.patients import parts_by_patient, patients_in
from medaction.envs.records import BadCase, CaseReport, DocumentedTest, StructuredCase, check_id
from medaction.envs.results_told import result_told
from medaction.envs.sources.files import object_at, parse_json, read_text, text_at, unread_fields
from medaction.envs.sources.text import iso_date
from medaction.words.names import normalise
from medaction.words.phrases import IN_BRACKETS
from medaction.words.sentences import split_outside_brackets

LICENCE = "CC BY-SA"
HEADING = "Ancillary tests"
"""What a result is called that names no test and has no entry above it."""

_CASE_FIELDS = {
    "raw_case",
    "generate_case",
    "body_category",
    "disorder_category",
    "receive_time",
    "checked_rare_disease",
}

_ANCILLARY = re.compile(
    r"^[-*#\s]*Ancillary Tests[^:\n]*?\**\s*:?\**:?(?P<rest>[^\n]*)$", re.MULTILINE
)
_BULLET_LINE = re.compile(r"^(?P<indent>\s*)(?:[-*•]|\d+[.)])\s+(?P<text>.*)$")
# A section of the summary, whatever its name: 'Chief Complaint: ...', '- History: ...'.
_SECTION = re.compile(r"[-*•#\s]*[A-Z][A-Za-z /&-]{2,50}:(?:\s|$)")
_LABELLED_LINE = re.compile(r"\*?(?P<label>[^:*]{2,150}?)\s*:\*?(?:\s+(?P<rest>.*))?")
# 'Glucose: 5 g/L; urine dipstick: positive': a second label on the line of the first.
_NEXT_LABEL = re.compile(r";\s+(?=[A-Za-z][\w ()/-]{2,50}:\s)(?![^()]*\))")
# Labels that gather tests and are none themselves.
_CATEGORY = re.compile(
    r"(?:(?:initial|other|further|additional|routine|ancillary"
    r"|prenatal|radiologic(?:al)?|relevant|subsequent) )*"
    r"(?:imaging(?:"
    r" (?:tests?|studies|findings|results))?|radiology|tests?"
    r"|testing|investigations?|findings|others?)(?: \(.*\))?",
    re.IGNORECASE,
)
# Labels and subjects that tell what was done for the patient or became of them.
_LATER_COURSE = re.compile(
    r"\b(?:treatments?|therapy|management|outcomes?|prognosis|complications?|course|recovery"
    r"|response|improvement|delivery|cesarean|symptoms|followed up|autopsy|necropsy"
    r"|post-?mortem)\b",
    re.IGNORECASE,
)
_OPERATION = re.compile(
    r"\b(?:surg\w+|excision|resection|\w+ectomy|graft|implant\w*|transplant\w*)\b", re.IGNORECASE
)
_PERSON_AS_SUBJECT = re.compile(
    r"(?:he|she|they|(?:the )?(?:patient|child|infant))\b", re.IGNORECASE
)
_TELLS_DIAGNOSIS = re.compile(r"\b(?:diagnos[ei]s|final assessment)\b", re.IGNORECASE)
# Verbs whose subject is a test; of a passive one ('was noted') it is what was found.
_SHOWS = (
    r"(?:reveal|show|demonstrat|confirm|indicat|identif|suggest|detect|disclos|includ|display"
    r"|exhibit|exclud|verif|support|visuali[sz]|rul(?=\w+ out))(?:ed|s|es|ied|ing)?|found"
)
_STATES = r"was|were|is|are|remained|returned|noted|reported|diagnosed"
_QUALITIES = (
    r"positive|negative|normal|unremarkable|inconclusive|consistent|suggestive|elevated"
    r"|raised|increased|decreased|low|high|reduced|abnormal|rose|fell|dropped|declined"
    r"|corrected|significant|notable|remarkable"
)
_SHOWING_VERB = re.compile(rf"\s(?:\w+ly\s)?(?:{_SHOWS})\b")
_FINDING_VERB = re.compile(
    rf"\s(?:\w+ly\s)?(?:{_SHOWS}|{_STATES}|(?:positive|negative|normal|unremarkable"
    rf"|inconclusive|consistent|suggestive))\b"
)
_SHOWS_A_VALUE = re.compile(
    rf"\s(?:\w+ly\s)?(?:{_SHOWS}|{_STATES}|(?P<quality>{_QUALITIES}))\b"
    r"|\s(?P<value>(?=\(?[<>≤≥=~]?\s*\d))"
)
_PASSIVE = re.compile(
    r"(?:\s\w+ly|\salso)?\s(?:\w+e[dn]|found|shown|made|done)\b|\W*$"
    r"|\s(?:in|on|by|at|with|as|during|from|near)\b"
)
_CHANGE_OF = re.compile(
    r"(?:decline|rise|increase|drop|decrease|fall|elevation|reduction) (?:in|of) ", re.IGNORECASE
)
_OPENING_PHRASE = re.compile(
    r"(?:(?:after|before|on|at|during|in|by|following|upon) [^,]{3,60}|\w+ly), ", re.IGNORECASE
)
_LOOSE_END = re.compile(
    r"(?:\s(?:within|of|in|from|to|at|over|for|until|after|late|early|a|an|the))+$"
)
# Words that begin what a test has found, not a test's name.
_NO_NAME = re.compile(
    r"(?:an?|no|none|not|both|all|these|this|those|the|there|it|its|he|she|patient|others?|another"
    r"|any|some|most|many|majority|findings?|presence|absence|evidence)\b",
    re.IGNORECASE,
)
_RESULT_END = re.compile(r"(?<=[.;])\s+(?=[A-Z])|;\s+")
_BARE_STATUS = re.compile(
    r"(?i)(?:normal|negative|elevated|unremarkable|raised|increased"
    r"|decreased|low|reduced|abnormal|positive)(?: results?)?(?: for)?:?\s+"
)
# Labels below a test that tell what it found, and no test.
_NO_LABEL = re.compile(
    r"""no\b|not\b|none\b|excluded\b|(?:.*\b)?(?:lesions?|findings?|anomal\w+|abnormalit\w+|initial|follow-?ups?|episodes?|mass(?:es)?|tumou?rs?
    |first|second|cases?|exclusions?|staging|surg\w+|pre-?surgery|(?:further|initial)\sevaluation|uterus|others?|noted|time|date|day\s\d+)\b""",
    re.IGNORECASE | re.VERBOSE,
)
# More of what the test above has found: 'Associated findings', 'No metastases'.
_MORE = re.compile(
    r"(?:no|not|none|excluded)\b"
    r"|(?:(?:associated|additional|further|incidental|other|secondary|\w+al|noted)\s)*"
    r"(?:findings?|observations?|anomal\w+|abnormalit\w+|features|signs?)(?:\s\(.*\))?$",
    re.IGNORECASE,
)
# Labels that tell when, of the tests below.
_WHEN = re.compile(
    r"(?:on|at|after|before|during|upon|following|prior|post|pre|follow-?ups?|initial(?:ly)?|first"
    r"|second|third|recurrent|case|day|week|month|hour|time|date|others?$|\d+)\b",
    re.IGNORECASE,
)
_LATER = re.compile(r"(?:follow-?up|post)", re.IGNORECASE)
# Under these labels stands what was seen in another patient.
_ANOTHER = re.compile(r"\b(?:neonat\w+|newborn|fetus)\b", re.IGNORECASE)
_GENERAL_LABS = re.compile(
    r"(?:(?:routine|other|basic|serum|blood|abnormal)"
    r" )*(?:labs?|laborator\w+|blood|serum|biochemistry|chemistry|tests?)"
    r"(?: (?:tests?|work|results?|findings|investigations?|studies|analysis|values))?|bloodwork",
    re.IGNORECASE,
)
_UNDONE_TEST = re.compile(
    r"\b(?:await\w*|pending|planned|declined|not (?:performed|done|available|tested))\b",
    re.IGNORECASE,
)
_CELL_END = re.compile(r"\s\|\s|\t+")
_ABBREVIATION = re.compile(r"\s*\(([A-Z][A-Za-z0-9/-]{1,11})\)")
_STATUS_LIST = re.compile(
    r"(?:normal|negative|elevated|raised|increased|decreased|low|reduced|positive"
    r"|abnormal)\s+(?:for\s+)?(?P<first>[^:;()]+)"
    r"|(?P<last>[^:;()]+?)\s+(?:(?:were|was|are|all|within)\s+)*(?:normal(?:\s+limits)?"
    r"|negative|unremarkable|positive|elevated)",
    re.IGNORECASE,
)
_TEST_NOUN = re.compile(
    r"(?i)[^.;:,(]{0,60}?\b(?:tests?|testing|analys[ie]s|evaluation|examinations?|levels?"
    r"|stud(?:y|ies)|markers|panel|screen(?:ing)?|antibod(?:y|ies)"
    r"|antigens?|assays?|cultures?|scrapings?|smears?|stain(?:ing)?|serolog(?:y|ies)"
    r"|function|labs?|blood ?work|work-?up|titers?|scans?)\b"
)


def recognises(value: Any) -> bool:
    """Whether parsed JSON has the form of MedR-Bench's diagnosis cases."""
    return isinstance(value, dict) and any(
        isinstance(case, dict) and "generate_case" in case for case in value.values()
    )


@dataclass(slots=True)
class _Node:
    """One bullet of the summary with the bullets nested below it."""

    text: str
    indent: int
    children: list["_Node"] = field(default_factory=list)
    begins: bool = True
    """False: a sentence that follows another one on the heading's own line."""


@dataclass(frozen=True, slots=True)
class _Remark:
    """A statement that names no test: it goes on with the entry above, but where `no_test` says
    why it is none."""

    text: str
    no_test: str = ""


_Line = DocumentedTest | _Remark


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The cases of one MedR-Bench file. A bad case is yielded as BadCase and the others go on.

    Raises BadCase when the file itself cannot be read.
    """
    cases = parse_json(read_text(path), path)
    if not isinstance(cases, dict):
        raise BadCase(
            "bad_field", f"{path.name}: an object of cases by id is needed", path=str(path)
        )
    for case_id, case in cases.items():
        try:
            yield from _cases(case_id, case, path)
        except BadCase as bad:
            yield BadCase(bad.reason, bad.message, case_id[:100], str(path))


def _cases(case_id: str, case: Any, path: Path) -> Iterator[CaseReport]:
    """The case, or one a patient where the summary tells several apart: '<id>-1', '<id>-2', ..."""
    place = f"{path.name} case {case_id[:60]!r}"
    generated = object_at(case, "generate_case", path, f" case {case_id[:60]!r}")
    summary = text_at(generated, "case_summary", path, place)
    diagnosis = _without_markdown(text_at(generated, "diagnosis_results", path, place))
    diagnosis = diagnosis.replace("*", "").lstrip("-• ")
    summaries = parts_by_patient(summary)
    if not summaries:
        yield _case_of_summary(case_id, case, summary, diagnosis, path)
        return
    final = str(generated.get("final_diagnosis") or "")
    of_patients = []
    for number, (patient, told) in enumerate(summaries.items(), 1):
        others = [name for name in summaries if name != patient]
        if patients_in(told) or any(re.search(rf"\b{name}\b", told, re.I) for name in others):
            raise _several(place, summaries, "and not clearly what is whose")
        own = _diagnosis_of(patient, diagnosis, final)
        if not own:
            raise _several(place, summaries, "and not whose the diagnosis is")
        of_patients.append(_case_of_summary(f"{case_id}-{number}", case, told, own, path))
    yield from of_patients


def _several(place: str, summaries: Mapping[str, str], unclear: str) -> BadCase:
    names = ", ".join(summaries)
    return BadCase("several_patients", f"{place}: the summary tells of {names}, {unclear}")


def _diagnosis_of(patient: str, results: str, final: str) -> str:
    """A patient's own diagnosis, or the one that is said to be that of all; '' if not told."""
    match = re.search(rf"(?im)^[-*#\s]*{patient}\b\W*(.+)$", final)
    if match:
        return _without_markdown(match[1])
    of_all = r"(?i)\s*\b(?:in|for)?\s*(?:both|all)(?: \w+)? (?:cases|patients)\b"
    return re.sub(of_all, "", results) if re.search(of_all, f"{results} {final}") else ""


def _case_of_summary(
    case_id: str, case: Any, summary: str, diagnosis: str, path: Path
) -> CaseReport:
    place = f" case {case_id[:60]!r}"
    raw = text_at(case, "raw_case", path, place)
    observation, inline, ancillary = _sections_of_summary(summary, f"{path.name}{place}")
    observation, preamble = _without_preamble(observation)
    nodes = [_Node(text, 0, begins=number == 0) for number, text in enumerate(inline)]
    lines = (line for node in (*nodes, *_tree(ancillary)) for line in _tests_of_bullet(node))
    parts = list(_with_remarks(lines, HEADING))
    tests = [part for part in parts if isinstance(part, DocumentedTest)]
    notes = [f"before the first section: {line[:100]}" for line in preamble]
    notes += [
        f"left out, {part.no_test}: {part.text[:100]}"
        for part in parts
        if isinstance(part, _Remark)
    ]
    title = next((line.strip() for line in raw.splitlines() if line.strip()), case_id)
    return CaseReport(
        case_id=check_id(case_id),
        source="medrbench",
        title=title,
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
        meta=_metadata_of_case(case_id, case) | {"summary_at": str(len(raw) + 2)},
        losses=(
            *unread_fields(case, _CASE_FIELDS),
            *unread_fields(
                case["generate_case"], {"case_summary", "diagnosis_results"}, "generate_case"
            ),
        ),
    )


def _without_preamble(observation: str) -> tuple[str, list[str]]:
    """The observation from its first section on, and the lines before: the form's own words, or a
    sentence that says the sections again. A summary without sections is left as it is."""
    lines = observation.splitlines()
    sections = [number for number, line in enumerate(lines) if _SECTION.match(line)]
    if len(sections) < 2:
        return observation, []
    return "\n".join(lines[sections[0] :]), lines[: sections[0]]


def _first_of(known: tuple[str, ...], found: object) -> str:
    """The first of a case's categories, a list, that is one of `known`; '' when there is none."""
    return (
        next((category for category in found if category in known), "")
        if isinstance(found, list)
        else ""
    )


def _metadata_of_case(case_id: str, case: dict[str, Any]) -> dict[str, str]:
    """The article's id, and the day it was received: the only date that the benchmark tells."""
    meta = {
        "pmcid": match[0] if (match := re.match(r"PMC\d+(?=-\d+$|$)", case_id)) else "",
        "date": iso_date(str(case.get("receive_time", ""))),
    }
    return {key: value for key, value in meta.items() if value}


def _sections_of_summary(summary: str, place: str) -> tuple[str, list[str], list[str]]:
    """What stands before the first 'Ancillary Tests' line, the sentences on it, and the lines
    below.

    The section ends at the next line that is not indented: another section, or another patient.
    Below a heading that is no bullet itself ('**Ancillary Tests:**') nothing needs indentation, and
    the next heading of its form ends the section.
    """
    heading = _ANCILLARY.search(summary)
    if heading is None:
        raise BadCase("no_tests_section", f"{place}: the summary has no 'Ancillary Tests' section")
    bulleted = _BULLET_LINE.match(heading[0])
    mark = "" if bulleted else re.match(r"[*#]*", heading[0].strip())[0]  # type: ignore[index]
    inline = heading["rest"].strip()
    lines = [f"- {inline}"] if inline.endswith(":") else []  # it names what the bullets below hold
    sentences = [] if lines else re.split(r"(?<=\.)\s+(?=[A-Z])", inline)
    for line in summary[heading.end() :].splitlines():
        below = (
            line.startswith((" ", "\t"))
            or (not bulleted and _BULLET_LINE.match(line))
            or (mark and not line.startswith((mark, "---")))
        )
        if line.strip() and not below:
            break
        lines.append(line)
    observation = _without_markdown(summary[: heading.start()])
    return observation, list(filter(None, sentences)), [line for line in lines if line.strip()]


def _without_markdown(markdown: str) -> str:
    """Markdown without its bold, heading and rule marks; bullets stay."""
    lines = (
        re.sub(r"^\s*#+\s*", "", line).replace("**", "").rstrip()
        for line in markdown.strip().splitlines()
    )
    return "\n".join(line for line in lines if line and not re.fullmatch(r"-{3,}", line))


def _tree(lines: list[str]) -> list[_Node]:
    """Bullets by their indentation; a line without a bullet goes on with the bullet above it."""
    root = _Node("", -1)
    open_nodes = [root]
    for line in lines:
        bullet = _BULLET_LINE.match(line)
        if bullet is None and len(open_nodes) > 1:
            open_nodes[-1].text += " " + line.strip()
            continue
        node = (
            _Node(bullet["text"].strip(), len(bullet["indent"]))
            if bullet
            else _Node(line.strip(), 0)
        )
        while open_nodes[-1].indent >= node.indent:
            open_nodes.pop()
        open_nodes[-1].children.append(node)
        open_nodes.append(node)
    return root.children


def _tests_of_bullet(node: _Node, container: str = "") -> Iterator[_Line]:
    """The tests of one bullet and of the bullets below it. What names none is a remark."""
    label, rest = _label_and_rest(node.text)
    if node.children and not label and _is_heading(node.text):
        label, rest = _without_markdown(node.text), ""
    knows_label = _is_label_of_test(label)
    below = (text for child in node.children for text in _texts_of_bullet(child))
    more = "\n".join(_without_markdown(text) for text in (rest, *below) if text)
    if no_test := _why_no_test(label, node.text):
        yield from (_Remark(_without_markdown(text), no_test) for text in _texts_of_bullet(node))
    elif label and not knows_label and not _CATEGORY.fullmatch(label) and _WHEN.match(label):
        lines = (line for child in node.children for line in _tests_of_bullet(child, container))
        yield from _dated(label, (*(_prose(rest, container) if rest else ()), *lines))
    elif label and not knows_label and _MORE.match(label) and not named_tests(more):
        yield _Remark(f"{label}: {more}")
    elif node.children and (not rest or _CATEGORY.fullmatch(label)) and _are_tests(node):
        heading = label or container
        lines = (line for child in node.children for line in _tests_of_bullet(child, heading))
        listed = _with_remarks((*(_prose(rest, heading) if rest else ()), *lines), label)
        yield from _dated(label, listed)
    elif node.children:
        if label:
            yield from _tests_of_label(label, more, container)
        else:  # 'Cervical spine CT revealed:' and its findings below
            text = more.replace(rest, _without_markdown(node.text), 1)
            for line in _sentence(node.text.rstrip(": "), container, begins=True):
                if isinstance(line, DocumentedTest):
                    yield replace(line, result=text)
                else:
                    yield _Remark(text)
    elif label and not _CATEGORY.fullmatch(label):
        yield from _tests_of_label(label, rest, container)
    elif label:
        yield from _with_remarks(_prose(rest, container or label), label)
    else:
        yield from _prose(node.text, container, node.begins)


def _is_heading(text: str) -> bool:
    """Whether a bullet with others below it is their heading, without a colon: it says nothing."""
    words = IN_BRACKETS.sub("", text).split()
    return (
        len(words) <= 4 and not re.search(r"\d", " ".join(words)) and not _FINDING_VERB.search(text)
    )


def _is_label_of_test(label: str) -> bool:
    """Whether the words of a label, but for 'pre-surgery', are of a test or of a kind of test."""
    name = re.sub(r"(?i)\b(?:pre|post)[\s-]?\w+", "", label)
    reading = profile(name)
    return bool(
        named_tests(name) or known_category(name) or reading.specimen or reading.kinds & KINDS
    )


def _why_no_test(label: str, text: str) -> str:
    """Why a bullet holds no test, as its label or its beginning says; '' where it may."""
    beginning = label or _SHOWS_A_VALUE.split(text, maxsplit=1)[0][:30]
    if named_tests(beginning) or (label and _LATER.match(label) and named_tests(text)):
        return ""
    if _ANOTHER.search(label):
        return "of another patient"
    if _TELLS_DIAGNOSIS.search(beginning):
        return "states the diagnosis"
    is_course = _LATER_COURSE.search(beginning) or _PERSON_AS_SUBJECT.match(text)
    if is_course or (not named_tests(text) and outcomes_in(text)):
        return "tells of treatment or its outcome"
    return ""


def _dated(label: str, lines: Iterable[_Line]) -> Iterator[_Line]:
    """What stands under a label that tells when. A test of after the treatment says so in its
    name: its result is none of the test before it."""
    when = f" ({label[0].lower()}{label[1:]})" if _LATER.match(label) else ""
    for line in _with_remarks(lines, HEADING):
        yield replace(line, name=line.name + when) if isinstance(line, DocumentedTest) else line


def _with_remarks(lines: Iterable[_Line], name: str) -> Iterator[_Line]:
    """The lines with each remark added to the entry above; above any it is an entry itself, called
    `name`."""
    entry: DocumentedTest | None = None
    for line in lines:
        if isinstance(line, DocumentedTest):
            if entry is not None:
                yield entry
            entry = line
        elif line.no_test or not name:
            yield line
        elif entry is None:
            entry = DocumentedTest(name, category_of(name), line.text)
        else:
            entry = replace(entry, result=f"{entry.result}\n{line.text}")
    if entry is not None:
        yield entry


def names_test(label: str) -> bool:
    """Whether a label names a test, or tests, as it seems: 'Nance analysis' and 'VFSS' do,
    'Lesions' does not.

    >>> names_test("Blood tests"), names_test("Soluble CD25"), names_test("Lesions")
    (True, True, False)
    """
    return bool(
        _CATEGORY.fullmatch(label)
        or named_tests(label)
        or known_category(label)
        or not _NO_LABEL.match(label)
    )


def _prose(text: str, container: str, begins: bool = True) -> Iterator[_Line]:
    """The tests of running text, sentence by sentence."""
    for sentence in split_outside_brackets(_RESULT_END, text):
        yield from _sentence(sentence, container, begins)
        begins = False


def _are_tests(node: _Node) -> bool:
    """Whether the bullets below are tests of their own (all name one), or the findings of the test
    above."""
    label = _label_and_rest(node.text)[0] or _without_markdown(node.text)
    labels = [_label_and_rest(child.text)[0] for child in node.children]
    named = [
        bool(here and names_test(here)) or bool(named_tests(child.text))
        for here, child in zip(labels, node.children, strict=True)
    ]
    return all(named) if not _CATEGORY.fullmatch(label) else any(named)


def _texts_of_bullet(node: _Node) -> Iterator[str]:
    yield node.text
    for child in node.children:
        yield from _texts_of_bullet(child)


def _tests_of_label(label: str, result: str, container: str) -> Iterator[DocumentedTest]:
    name = _without_markdown(label).strip()
    result, *further = _NEXT_LABEL.split(_without_markdown(result).strip())
    labels = [_label_and_rest(line)[0] for line in further]
    one_line = "\n" not in "".join(further) and not _label_and_rest(result)[0]
    if _is_label_of_test(name) and all(map(_is_label_of_test, labels)) and one_line:
        for line in further:
            yield from _tests_of_label(*_label_and_rest(line), container)
    else:
        result = "; ".join([result, *further])
    if not name or not result:
        return
    category = category_of(name, container)
    if category == "laboratory" and _GENERAL_LABS.fullmatch(name) and (parts := _analytes(result)):
        yield from (DocumentedTest(part, category_of(part, name), value) for part, value in parts)
        return
    listed = (
        _listed(result)
        if category == "laboratory" and profile(name).specimen in (None, "blood")
        else ()
    )
    done = " ".join(
        clause for clause in re.split(r"(?<=[.;])\s+", result) if not _UNDONE_TEST.search(clause)
    )
    others = (*_others(named_tests(f"{name}. {done}"), name), *listed)
    yield DocumentedTest(name, category, result, _once(others, name))


def _once(names: tuple[str, ...], own: str) -> tuple[str, ...]:
    """Each name once, without the test's own."""
    return tuple(
        {normalise(name): name for name in names if normalise(name) != normalise(own)}.values()
    )


def _analytes(result: str) -> list[tuple[str, str]]:
    """Each analyte of 'WBC 9.7 x 10^3/uL, CRP 25.9 mg/L, ESR 42 mm/hr' with its own words; none
    where an item is anything else.

    A word before the first item ('Elevated ESR (75), CRP (4)') is said of all of them, so such a
    result stays in one piece.
    """
    items = [item.strip(" .") for item in re.split(r"[,;]\s+(?![^()]*\))", result.strip())]
    results = []
    for item in items:
        value = re.fullmatch(
            r"(?P<name>[A-Za-z][\w\s/α-ω-]*?)(?:\s+(?:levels?|count|of|was"
            r"|is))*\s*[:=(]?\s*[<>≤≥~]?\s*\d[^,;]*",
            item,
        )
        if (
            not value
            or canonical_of(value["name"]) is None
            or profile(value["name"]).specimen not in (None, "blood")
        ):
            return []
        results.append((value["name"], item))
    return (
        results
        if len(results) > 1 and len({normalise(name) for name, _ in results}) == len(results)
        else []
    )


def _listed(result: str) -> tuple[str, ...]:
    """The tests that share one finding: 'Normal amino acids, lactate and organic acids' names
    three. Findings ('anemia') are none."""
    names: list[str] = []
    for clause in re.split(r"(?<=[.;])\s+", result):
        clause = re.sub(
            r"\s*\(([^()\d]*)\)", r", \1", clause
        )  # 'serology (HIV, syphilis) negative'
        match = _STATUS_LIST.fullmatch(clause.strip(" .;"))
        items = (
            re.split(r",\s*(?:and\s+)?|\s+and\s+", match["first"] or match["last"]) if match else []
        )
        if len(items) > 1 and all(
            re.fullmatch(r"(?:[A-Za-z0-9α-ωβ/-]+\s?){1,4}", item) for item in items
        ):
            items = [_BARE_STATUS.sub("", item.strip(), count=1) for item in items]
            names += [
                item
                for item in items
                if not re.fullmatch("Ig[AEGM]", item)
                and (canonical_of(item) is not None or _TEST_NOUN.fullmatch(item))
            ]
    return tuple(names)


def _sentence(sentence: str, container: str, begins: bool) -> Iterator[_Line]:
    """A finding in prose: named by its grammatical subject when that is a test, else by the first
    test that it mentions.

    Where it `begins` a bullet, any subject of what was measured or of an active verb is a test, as
    the heading says; later on it may be a part of what the test before has shown.
    """
    label, rest = _label_and_rest(sentence)
    if label and names_test(label):
        yield from _tests_of_label(label, rest, container)
        return
    names = named_tests(sentence)
    subject = _subject(sentence, names, begins)
    if begins and not subject and not names and (statement := result_told(sentence)):
        subject = statement.tests[0]  # 'Operative findings', 'Laboratory tests'
    if not subject and names and _is_value_name(names[0]) and "," in sentence:
        subject = container if category_of(container) == "laboratory" else ""
    of_subject = named_tests(subject)
    if len(of_subject) > 1 and not _are_joined(of_subject, subject):
        subject = of_subject[-1]  # 'fluoroestradiol PET': the noun at the end
    elif len(names) > 1 and (_BARE_STATUS.match(sentence) or set(names) == set(of_subject)):
        for name in _with_specimen(
            names
        ):  # 'Normal brain CT and EMG': one finding of several tests
            yield DocumentedTest(name, category_of(name, container), _without_markdown(sentence))
        return
    if name := subject or next(iter(names), ""):
        short = tuple(
            match[1]
            for match in _ABBREVIATION.finditer(sentence)
            if sentence[: match.start()].endswith(name)
        )
        for test in _tests_of_label(name, sentence, container):
            others = (*short, *_others(names, test.name), *test.aliases)
            yield replace(test, aliases=_once(others, test.name))
    elif text := _without_markdown(sentence):
        no_test = _why_no_test("", sentence)
        if _OPERATION.search(text) and not _SHOWING_VERB.search(text):
            no_test = no_test or "tells of treatment or its outcome"
        if not is_documented(text):
            no_test = no_test or "no result documented"
        yield _Remark(text, no_test)


def _with_specimen(names: tuple[str, ...]) -> Iterator[str]:
    """'Elevated urinary chloride and potassium': the specimen is said once for all."""
    specimen = profile(names[0]).specimen
    for name in names:
        shares = specimen not in (None, "blood") and category_of(name) == "laboratory"
        if shares and profile(name).specimen is None and not profile(name).kinds:
            name = f"{names[0].split()[0]} {name}"
        yield name


def _are_joined(names: tuple[str, ...], subject: str) -> bool:
    """Whether the names are listed ('CT and MRI'), and not words of one name."""
    places = [(subject.find(name), len(name)) for name in names]
    gaps = [
        subject[start + length : following]
        for (start, length), (following, _) in itertools.pairwise(places)
    ]
    return all(re.search(r"[,/&;]|\b(?:and|or|with|plus)\b", gap) for gap in gaps)


def _subject(sentence: str, names: tuple[str, ...], begins: bool) -> str:
    """What a finding is about, when that is a test: 'Renal biopsy' of 'Renal biopsy showed ...',
    'autoimmune markers' of 'Negative ...'.

    Where the sentence `begins` a bullet, it is whatever shows something, and whatever was measured
    when the sentence names no test that is known.
    """
    if opening := _OPENING_PHRASE.match(sentence):
        sentence = sentence[opening.end() :]
    sentence = _CHANGE_OF.sub("", sentence, count=1)
    if status := _BARE_STATUS.match(sentence):
        following = sentence[status.end() :]
        match = re.match(_TEST_NOUN, following) or re.match(
            r"[^.;:,()]{2,40}?(?= \([^()]*\d)", following
        )
        if match is None and begins and not names:
            end = r"[.;:(]|\s(?:except|in|on|with)\b|\s\d|$"
            match = re.match(rf"[^.;:()]{{3,60}}?(?={end})", following)
        subject = match[0].strip() if match else ""
        return subject if " " in subject or not names else ""
    shows = _SHOWING_VERB.search(sentence.partition(", ")[0])
    verb = shows or _SHOWS_A_VALUE.search(sentence)
    if verb is None:
        return ""
    before = _LOOSE_END.sub("", _ABBREVIATION.sub("", sentence[: verb.start()]))
    if len(before) > 60 and not names and (noun := re.match(_TEST_NOUN, before)):
        before = noun[0]
    if len(before) > 60 or "(" in before:
        return ""
    if named_tests(before) or (not names and re.fullmatch(_TEST_NOUN, before)):
        return before
    if shows and known_category(before):
        return before
    is_participle = verb[0].rpartition(" ")[2] in ("noted", "reported", "diagnosed")
    passive = is_participle or (
        not verb.groupdict().get("quality") and _PASSIVE.match(sentence[verb.end() :])
    )
    if not begins or passive or "," in before or _NO_NAME.match(before) or (names and not shows):
        return ""
    return before


def _label_and_rest(text: str) -> tuple[str, str]:
    """'**Blood tests**: Hb 9 g/dL' -> ('Blood tests', 'Hb 9 g/dL'), and so of a table's row 'Hb | 9
    | low'; a bullet without a label -> ('', text)."""
    cells = [cell.strip() for cell in _CELL_END.split(text.strip("| ")) if cell.strip()]
    if len(cells) > 1:
        return _without_markdown(cells[0]).strip(": "), text.partition(cells[0])[2].strip(":| \t")
    match = _LABELLED_LINE.fullmatch(text.replace("**", ""))
    if match is None or re.search(r"[.;]\s", match["label"]) or _is_value(match):
        return "", text
    return _without_markdown(match["label"]).strip(), (match["rest"] or "").strip()


def _is_value(match: re.Match[str]) -> bool:
    """Whether the colon belongs to a value inside a sentence ('Elevated enzymes (AST: 90'), so that
    there is no label."""
    if match["label"].lower() in ("positive", "negative", "normal", "abnormal"):
        return True
    return match["label"].count("(") > match["label"].count(")") or bool(
        _FINDING_VERB.search(match["label"])
    )


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
