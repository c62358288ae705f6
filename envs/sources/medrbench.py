"""MedR-Bench's diagnosis cases (JSON). A benchmark: every case is marked evaluation-only and never becomes training data."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from envs.categories import category_of
from envs.composition import BODY_SYSTEMS, DISEASE_TYPES
from envs.mentions import named_tests
from envs.naming import profile
from envs.records import BadCase, CaseReport, DocumentedTest, StructuredCase, check_id
from envs.sources.files import object_at, parse_json, read_text, text_at
from envs.sources.text import iso_date

LICENCE = "CC BY-SA"

_ANCILLARY = re.compile(r"^[-*#\s]*Ancillary Tests[^:\n]*?\**\s*:?\**:?(?P<rest>[^\n]*)$", re.MULTILINE)
_BULLET = re.compile(r"^(?P<indent>\s*)(?:[-*•]|\d+[.)])\s+(?P<text>.*)$")
_LABEL = re.compile(r"^\**(?P<label>[^:*]{2,90}?)\**\s*:\**(?:\s+(?P<rest>.*))?$")
# Labels that gather tests and are none themselves.
_CATEGORY = re.compile(
    r"(?:(?:initial|other|further|additional|routine|ancillary|prenatal|radiologic(?:al)?|relevant|subsequent) )*"
    r"(?:imaging(?: (?:tests?|studies|findings|results))?|radiology|tests?|testing|investigations?|findings|others?)(?: \(.*\))?",
    re.IGNORECASE,
)
# What was done or became of the patient is no test, wherever it stands; pathology after surgery is one.
_NO_TEST = re.compile(
    r"""\b(?:treatments?|therapy|management|outcomes?|prognosis|complications?|clinical\scourse|diagnos[ie]s|discharge
    |post-?\s?treatment|post-?\s?operative\s(?:course|evaluation|recovery|follow-?up|imaging)|after\streatment|final\sassessment
    |(?<!pre-)surgery|interventions?|autopsy|necropsy|post-?mortem)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_FINDING_VERB = re.compile(
    r"\s(?:\w+ly\s)?(?:revealed|showed|shows|showing|demonstrated|confirmed|indicated|identified|suggested|detected|found|disclosed|noted"
    r"|included|displayed|exhibited|was|were|is|are|ruled out|excluded|verified|reported|diagnosed|supported|visualized|remained"
    r"|revealing|confirming|indicating|demonstrating|suggesting|suggestive|consistent|positive|negative|normal)\b"
)
_SENTENCE_END = re.compile(r"(?:(?<=[.;])\s+(?=[A-Z])|;\s+)(?![^()]*\))")  # not inside brackets
_STATUS = re.compile(
    r"(?i)(?:normal|negative|elevated|unremarkable|raised|increased|decreased|low|reduced|abnormal|positive)(?: results?)?(?: for)?\s+"
)
_TEST_NOUN = re.compile(
    r"(?i)[^.;:,(]{0,60}?\b(?:tests?|testing|analys[ie]s|evaluation|examinations?|levels?|stud(?:y|ies)|markers|panel|screen(?:ing)?|antibod(?:y|ies)"
    r"|antigens?|assays?|cultures?|scrapings?|smears?|stain(?:ing)?|serolog(?:y|ies)|function|labs?|blood ?work|work-?up|titers?|scans?)\b"
)


def recognises(value: Any) -> bool:
    """Whether parsed JSON has the form of MedR-Bench's diagnosis cases."""
    return isinstance(value, dict) and any(isinstance(case, dict) and "generate_case" in case for case in value.values())


@dataclass(slots=True)
class _Node:
    """One bullet of the summary with the bullets nested below it."""

    text: str
    indent: int
    children: list["_Node"] = field(default_factory=list)


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The cases of one MedR-Bench file. A bad case is yielded as BadCase and the others go on.

    Raises BadCase when the file itself cannot be read.
    """
    cases = parse_json(read_text(path), path)
    if not isinstance(cases, dict):
        raise BadCase("bad_field", f"{path.name}: an object of cases by id is needed", path=str(path))
    for case_id, case in cases.items():
        try:
            yield _case(case_id, case, path)
        except BadCase as bad:
            yield BadCase(bad.reason, bad.message, case_id[:100], str(path))


def _case(case_id: str, case: Any, path: Path) -> CaseReport:
    where = f" case {case_id[:60]!r}"
    generated = object_at(case, "generate_case", path, where)
    raw = text_at(case, "raw_case", path, where)
    summary = text_at(generated, "case_summary", path, where)
    if re.search(r"^[-*#\s]*(?:case|patient) [2-9]\b", summary, re.IGNORECASE | re.MULTILINE):
        raise BadCase("several_patients", f"{path.name}{where}: the summary tells of several patients; an environment is one")
    observation, ancillary = _split(summary, f"{path.name}{where}")
    tests = [test for node in _tree(ancillary) for test in _tests(node)]
    diagnosis = _plain(text_at(generated, "diagnosis_results", path, where))
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
        ),
        meta=_meta(case_id, case),
    )


def _first_of(known: tuple[str, ...], found: object) -> str:
    """The first of a case's categories, a list, that is one of `known`; '' when there is none."""
    return next((category for category in found if category in known), "") if isinstance(found, list) else ""


def _meta(case_id: str, case: dict[str, Any]) -> dict[str, str]:
    """The article's id, and the day it was received: the only date that the benchmark tells."""
    meta = {"pmcid": case_id if re.fullmatch(r"PMC\d+", case_id) else "", "date": iso_date(str(case.get("receive_time", "")))}
    return {key: value for key, value in meta.items() if value}


def _split(summary: str, where: str) -> tuple[str, list[str]]:
    """What stands before the first 'Ancillary Tests' line, and the lines of that section.

    The section ends at the next line that is not indented: another section, or another patient.
    """
    heading = _ANCILLARY.search(summary)
    if heading is None:
        raise BadCase("no_tests_section", f"{where}: the summary has no 'Ancillary Tests' section")
    inline = heading["rest"].strip()
    sentences = [inline] if inline.endswith(":") else re.split(r"(?<=\.)\s+(?=[A-Z])", inline)
    lines = [f"{'' if inline.endswith(':') else '  '}- {sentence}" for sentence in sentences if sentence]
    for line in summary[heading.end() :].splitlines():
        if line.strip() and not line.startswith((" ", "\t")):
            break
        lines.append(line)
    return _plain(summary[: heading.start()]), [line for line in lines if line.strip()]


def _plain(markdown: str) -> str:
    """Markdown without its bold, heading and rule marks; bullets stay."""
    lines = (re.sub(r"^\s*#+\s*", "", line).replace("**", "").rstrip() for line in markdown.strip().splitlines())
    return "\n".join(line for line in lines if line and not re.fullmatch(r"-{3,}", line))


def _tree(lines: list[str]) -> list[_Node]:
    """Bullets by their indentation; a line without a bullet goes on with the bullet above it."""
    root = _Node("", -1)
    open_nodes = [root]
    for line in lines:
        bullet = _BULLET.match(line)
        if bullet is None and len(open_nodes) > 1:
            open_nodes[-1].text += " " + line.strip()
            continue
        node = _Node(bullet["text"].strip(), len(bullet["indent"])) if bullet else _Node(line.strip(), 0)
        while open_nodes[-1].indent >= node.indent:
            open_nodes.pop()
        open_nodes[-1].children.append(node)
        open_nodes.append(node)
    return root.children


def _tests(node: _Node, container: str = "") -> Iterator[DocumentedTest]:
    """The tests of one bullet and of the bullets below it; none where no test is named."""
    label, rest = _label(node.text)
    if _NO_TEST.search(label or node.text[:25]) and not named_tests(label):
        return
    if node.children and (not rest or _CATEGORY.fullmatch(label)) and _are_tests(node):
        yield from (test for child in node.children for test in _tests(child, label or container))
    elif node.children:
        lines = [_plain(line) for child in node.children for line in _texts(child)]
        if label:
            yield from _test(label, "\n".join(filter(None, [rest, *lines])), container)
        else:  # 'Cervical spine CT revealed:' and its findings below
            whole = "\n".join([_plain(node.text), *lines])
            yield from (replace(test, result=whole) for test in _sentence(node.text.rstrip(": "), container))
    elif label and not _CATEGORY.fullmatch(label):
        yield from _test(label, rest, container)
    else:
        for sentence in _SENTENCE_END.split(rest or node.text):
            yield from _sentence(sentence, container)


def _are_tests(node: _Node) -> bool:
    """Whether the bullets below are tests of their own (all name one), or the findings of the test above."""
    label, _ = _label(node.text)
    named = [bool(_label(child.text)[0]) or bool(named_tests(child.text)) for child in node.children]
    return all(named) if not _CATEGORY.fullmatch(label) else any(named)


def _texts(node: _Node) -> Iterator[str]:
    yield node.text
    for child in node.children:
        yield from _texts(child)


def _test(label: str, result: str, container: str) -> Iterator[DocumentedTest]:
    name = _plain(label).strip()
    result = _plain(result).strip()
    if name and result:
        yield DocumentedTest(name, category_of(name, container), result, _others(named_tests(f"{name}. {result}"), name))


def _sentence(sentence: str, container: str) -> Iterator[DocumentedTest]:
    """A finding in prose: named by its grammatical subject when that names a test, else by the first test it mentions."""
    label, rest = _label(sentence)
    if label:
        yield from _test(label, rest, container)
        return
    named = named_tests(sentence)
    subject = _subject(sentence)
    if len(named) > 1 and (_STATUS.match(sentence) or set(named) == set(named_tests(subject))):
        for name in named:  # 'Normal brain CT, urinalysis and EMG': one finding of several tests
            yield DocumentedTest(name, category_of(name, container), _plain(sentence))
    elif name := subject if named_tests(subject) or (subject and not named) else next(iter(named), ""):
        yield from (replace(test, aliases=_others(named, test.name)) for test in _test(name, sentence, container))


def _subject(sentence: str) -> str:
    """What a finding is about, when that is a test: 'Renal biopsy' of 'Renal biopsy showed ...', 'autoimmune markers' of 'Negative ...'."""
    if found := _STATUS.match(sentence):
        subject = re.match(_TEST_NOUN, sentence[found.end() :]) or re.match(
            r"[^.;:,()]{2,40}?(?= \([^()]*\d)", sentence[found.end() :]
        )
        return subject[0].strip() if subject else ""
    before = _FINDING_VERB.split(sentence, maxsplit=1)[0] if _FINDING_VERB.search(sentence) else ""
    before = before or re.split(r"\s(?=[<>≤≥=]?\s*\d)", sentence, maxsplit=1)[0]
    return (
        before if len(before) <= 60 and "(" not in before and (named_tests(before) or re.fullmatch(_TEST_NOUN, before)) else ""
    )


def _label(text: str) -> tuple[str, str]:
    """'**Blood tests**: Hb 9 g/dL' -> ('Blood tests', 'Hb 9 g/dL'); a bullet without a label -> ('', text)."""
    found = _LABEL.match(text)
    if found is None or re.search(r"[.;]\s", found["label"]) or _is_value(found):
        return "", text
    return _plain(found["label"]).strip(), (found["rest"] or "").strip()


def _is_value(found: re.Match[str]) -> bool:
    """Whether the colon belongs to a value inside a sentence ('Elevated enzymes (AST: 90'), so that there is no label."""
    if found["label"].lower() in ("positive", "negative", "normal", "abnormal"):
        return True
    return found["label"].count("(") > found["label"].count(")") or bool(_FINDING_VERB.search(found["label"]))


def _others(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The other tests that an entry reports. Laboratory values are found in the result itself, where their numbers stand;
    a part of the own name ('CT' of 'CT-guided biopsy') would only say less.
    """
    return tuple(other for other in names if other.casefold() not in name.casefold() and not _is_value_name(other))


def _is_value_name(name: str) -> bool:
    return category_of(name) == "laboratory" and not profile(name).kinds
