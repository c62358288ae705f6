"""AgentClinic's cases (JSON Lines) in their two forms; the sections of a case are the environment,
no model is needed.

OSCE examinations (agentclinic_medqa.jsonl and agentclinic_medqa_extended.jsonl, whose first cases
are the same) come with their tests one by one. Image challenges of NEJM (agentclinic_nejm.jsonl,
agentclinic_nejm_extended.jsonl) come as {question, patient_info, physical_exams, answers: [{text,
correct}], image_url, type}: what the patient tells is the initial observation; of the examiner's
notes, which tell tests and findings alike, what names a test is a test.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medaction.envs.categories import category_of
from medaction.envs.documented import says_something
from medaction.envs.mentions import named_tests
from medaction.envs.naming import profile, specimen_of
from medaction.envs.patients import NEWBORN, PERSON
from medaction.envs.records import (
    BadCase,
    CaseReport,
    DocumentedTest,
    Loss,
    StructuredCase,
    sample_of,
)
from medaction.envs.results_told import FINDING, STATUS, is_ordered, result_told
from medaction.envs.sources.files import bad_field, object_at, read_rows, text_at, unread_fields
from medaction.envs.sources.finding_sentences import begins_with_noun
from medaction.envs.sources.labels import at_time, tells_when, why_no_test
from medaction.envs.voice import patients_part
from medaction.words.names import normalise
from medaction.words.phrases import IN_BRACKETS, phrase_pattern, phrase_regex

# A section of Test_Results is a group of tests, and none itself, when its name has no word but
# these: 'Other laboratory tests', 'Imaging'. Panels such as Complete_Blood_Count stay one test.
_GROUP_HEADS = frozenset(
    """
    biochemistry biopsy chemistries chemistry hematologic hematology imaging lab laboratory rays
    serology studies test testing tests values work
    """.split()  # noqa: SIM905
)
_GROUP_WORDS = _GROUP_HEADS | frozenset(
    """
    additional analysis and basic blood findings other results routine screening serum special
    urine x
    """.split()  # noqa: SIM905
)
# Leaf names that describe a result and name no test: 'Chest X-ray: {Findings: ...}' has the result
# '...'.
_DESCRIPTIVE = phrase_pattern(
    "finding | result | preliminary finding | preliminary result | level | histopathology"
    " | histopathology finding | microscopic description | microscopy | comment | description"
    " | interpretation | score | analysis | report | staining"
)
# What follows the diagnostic assessment in a case report (the CARE guideline's items 9 to 12, the
# assessment and plan of SOAP notes), where it stands by itself among the tests.
_SECTIONS = (
    "interpretation | impression | assessment | conclusion | summary | comment | note"
    " | discussion | plan | recommendation | next step | follow up | followup | disposition"
    " | consent"
)
_SECTION_OF_REPORT = re.compile(
    rf"(?:(?:final|overall|clinical|general|discharge) )?{phrase_regex(_SECTIONS)}", re.IGNORECASE
)

_OSCE = {"OSCE_Examination"}
_NEJM = {"question", "answers", "patient_info", "physical_exams"}
_OSCE_FIELDS = {
    *("Patient_Actor", "Physical_Examination_Findings", "Test_Results", "Correct_Diagnosis")
}
# What a question for the diagnosis looks like: for a kind of disease, or for what is behind all of
# it; and what makes it one for something else.
_DIAGNOSIS = phrase_pattern(
    "diagnosis | diagnoses | etiology | aetiology | which disease | which disorder"
    " | which condition | which syndrome | what disease | what disorder | what condition"
    " | what syndrome | underlying cause | likely cause | probable cause | cause of * patient*"
    " | cause of * symptom | cause of * condition | cause of * presentation | cause of * illness"
    " | cause of * complaint"
)
_OTHER_SUBJECT = phrase_pattern(
    "treatment | therapy | management | manage | managed | medication | drug | next step"
    " | next best | mechanism | complication | gene | prognosis | associated with | risk factor"
    " | confirm* * diagnosis | establish* * diagnosis | support* * diagnosis | make * diagnosis"
    " | confirm* the * diagnosis | establish* the * diagnosis"
)
_OTHER_OBJECTS = (
    "test | study | studies | imaging | finding | step | procedure | organism | feature"
)
_WHICH_OTHER = re.compile(
    rf"\b(?:which|what)(?:(?! diagnos)[ -]\w+){{0,8}}? {phrase_regex(_OTHER_OBJECTS)}\b",
    re.IGNORECASE,
)
# The examiner's notes are lists, in lines or in one: '1. Dermoscopy: ... 2. Biopsy results: ...',
# 'CT: ... - Lavage: ...'. A sentence's end (`sentence`) begins no new item.
_NOTE_END = re.compile(
    r"\s*\n\s*(?:[-*•]\s+|\d{1,2}\.\s+)?|(?:^|\s+)[-•]\s+"
    r"|(?:^|(?<=[.:;)])\s+)\d{1,2}\.\s+(?=[A-Z*])"
    r"|(?<=[\w)\]][.;])(?P<sentence>\s+)(?=[A-Z])"
)
_LABELLED_NOTE = re.compile(
    r"(?P<label>[^:.;]{2,90}?)\s*(?:(?:findings?|results?)\s*)?:\s*(?P<rest>\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_FINDING_HEADER = re.compile(
    r"(?P<test>.{2,120}?),?(?: (?:findings?|results?))?"
    r"(?: (?:has |have |was |were )?(?:show|reveal|demonstrat|disclos|not|report|includ|found)\w*)?"
    r"(?: the)?(?: following)?\s*:",
    re.IGNORECASE,
)
_PARTS_OF_EXAMINATION = (
    "exam | examination | vital sign | appearance | inspection | palpation | auscultation"
)
_VITAL_SIGNS = (
    "blood pressure | temperature | pulse | heart rate | respiratory rate | oxygen saturation"
)
_EXAMINATION = re.compile(
    rf"(?:(?:[\w'’-]+ ){{0,2}}{phrase_regex(_PARTS_OF_EXAMINATION)}"
    rf"|{phrase_regex(_VITAL_SIGNS)})\b",
    re.IGNORECASE,
)
# A test that is named by what it looks for: 'Tests for cryptococcus: Negative'.
_TEST_LABEL = phrase_pattern(
    "test for | tests for | test of | tests of | level | count | antibody | antibodies | antigen"
    " | stain | staining | titer | smear | *scopy | *metry | *graphy | *gram"
)
# A note and, in the same line, the heading of the section behind it: 'Sodium: 138 Urinalysis:'
_NEXT_HEADING = re.compile(r"(?P<note>.+?)\s(?P<heading>[A-Z][\w ]{2,40}:)", re.DOTALL)
# 'The provided text does not include specific instrument readings': the notes tell none.
_NO_NOTE = phrase_pattern(
    "instrument reading | provided | not include | not contain | not mention | not detailed"
    " | not specified | cannot generate | case report"
)
# Keys can hold no slash: 'Hemoglobin_g_dL', 'Glucose_mg_per_dL', 'MCV_fL'.
_UNIT_OF_KEY = re.compile(
    r"_((?:(?:[kmnpuµ]?(?:g|mol|Eq|IU|U|Osm)|mm|cells)_(?:per_)?"
    r"(?:[dmnpuµf]?L|[km]?g|h|hr|hour|min|mm3)|fL|pg|mmHg|percent))$"
)
# A result by its form: a number, or a word that says how a test came out.
_RESULT_WORDS = re.compile(rf"\b(?:{STATUS}|detected|absent|present)\b|\d", re.IGNORECASE)


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The cases of one file, one a line; case ids are 'agentclinic-' or 'agentclinic-nejm-' and the
    line's number from 0.

    A bad line is yielded as BadCase and the others go on, so is a question for something else than
    the diagnosis ('not_a_diagnosis'). Raises BadCase when the file itself cannot be read.
    """
    for number, row in read_rows(path):
        place = f" line {number}"
        # By any key of its form: a NEJM row that lacks one is refused as that.
        nejm = isinstance(row, dict) and not set(row) >= _OSCE and set(row) & _NEJM
        # Refused rows need ids too: the store keeps failures by case.
        case_id = f"agentclinic-{'nejm-' if nejm else ''}{number - 1:04d}"
        try:
            if isinstance(row, BadCase):
                raise row
            reader = _challenge if nejm else _case_of_row
            yield reader(row, number - 1, path, place)
        except BadCase as bad:
            yield BadCase(bad.reason, bad.message, bad.case_id or case_id, str(path))


def is_group(name: str) -> bool:
    """Whether a section's name is that of a group of tests.

    >>> is_group("Other laboratory tests"), is_group("Complete Blood Count"), is_group("Findings")
    (True, False, False)
    """
    words = set(name.casefold().split())
    return words <= _GROUP_WORDS and not words.isdisjoint(_GROUP_HEADS)


def recognises(row: Any) -> bool:
    """Whether a row is a case in one of AgentClinic's two forms."""
    return isinstance(row, dict) and (set(row) >= _OSCE or set(row) >= _NEJM)


def asks_for_diagnosis(question: str) -> bool:
    """Whether the last sentence of a question asks which disease the patient has.

    >>> asks_for_diagnosis("A man has fever. What is the most likely diagnosis?")
    True
    >>> asks_for_diagnosis("The diagnosis is malaria. Which is the best treatment?")
    False
    """
    # The last sentence asks; those before it may name diagnosis and treatment.
    wish = _wanted_of(question)
    is_other = _OTHER_SUBJECT.search(wish) or _WHICH_OTHER.search(wish)
    return bool(_DIAGNOSIS.search(wish)) and not is_other


def _wanted_of(question: str) -> str:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", question.strip())[-1]


# --- NEJM image challenges --------------------------------------------------------------

_UNIT_OF_AGE = "(?:year|month|week|day)"
_STATED_AGE = re.compile(rf"\d+[- ]{_UNIT_OF_AGE}s?[- ]old\b|\bage[ds]?\b", re.IGNORECASE)
# 'An 80-year-old presented with fever', '... noticed a tumor': these end like a farmer.
_ATTRIBUTE = r"(?: (?!(?:with|who|in|is|was|ha[ds]|\w+ed|came|an?|the)\b)[\w-]+)"
# 'A 45-year-old Korean farmer': the endings of a person's noun are those of nations, too.
_AGED_PERSON = re.compile(
    rf"an? (?:\d+[- ]{_UNIT_OF_AGE}[- ]old\b"
    rf"(?:{_ATTRIBUTE}{{0,2}}?(?: (?:{PERSON.pattern}|(?:fe)?male\b)){{1,2}})?"
    rf"|(?:[\w-]+ ){{0,2}}?{NEWBORN})",
    re.IGNORECASE,
)


def _challenge(row: Any, number: int, path: Path, place: str) -> CaseReport:
    question = text_at(row, "question", path, place)
    if not asks_for_diagnosis(question):
        message = (
            f"{path.name}{place}: the question is {_wanted_of(question)[:120]!r}, its answer is no"
            " diagnosis"
        )
        raise BadCase("not_a_diagnosis", message, path=str(path))
    diagnosis = _answer(row, path, place)
    part = _single_spaced(text_at(row, "patient_info", path, place).replace("**", ""))
    notes = _single_spaced(text_at(row, "physical_exams", path, place))
    history, directions = patients_part(part)
    tests, findings, left_out = _notes(notes)
    # The part often leaves out what its actor would show.
    patient = _AGED_PERSON.match(question.strip())
    is_stated = _STATED_AGE.search(history)
    # A mother's infant says nothing of her own age.
    if patient and not re.search(r"\d", patient[0]):
        is_stated = is_stated or re.search(NEWBORN, history, re.IGNORECASE)
    if patient and not is_stated:
        history = f"The patient is {patient[0][0].lower()}{patient[0][1:]}. {history}"
    left_out = (
        f"the question of the exam, beside the patient's part: {question}",
        *(f"said to the actor: {text}" for text in directions),
        *left_out,
    )
    return CaseReport(
        case_id=f"agentclinic-nejm-{number:04d}",
        source="agentclinic-nejm",
        title=f"AgentClinic NEJM case {number}",
        text="\n".join([question, part, notes, f"Diagnosis: {diagnosis}"]),
        path=str(path),
        licence=None,  # AgentClinic's MIT is not the journal's, whose texts these are
        structured=StructuredCase(
            "\n".join([history, *findings]), tests, diagnosis, notes=left_out
        ),
        meta={"row": str(number)},
        losses=(*_wrong_answers(row["answers"]), *unread_fields(row, _NEJM)),
    )


# Counted as a loss, not read: a wrong option in the text would be a name of a disease there.
def _wrong_answers(answers: list[Any]) -> Iterator[Loss]:
    wrong = [answer for answer in answers if answer.get("correct") is not True]
    if wrong:
        reason = "an option of the question that is not its answer"
        yield Loss("answer", len(wrong), reason, sample_of(wrong[0].get("text", "")))


def _single_spaced(text: str) -> str:
    """No run of spaces or empty lines is left: searching them takes the square of their length."""
    return "\n".join(" ".join(line.split()) for line in text.split("\n") if line.strip())


def _answer(row: Any, path: Path, place: str) -> str:
    answers = row.get("answers")
    if isinstance(answers, list) and all(isinstance(answer, dict) for answer in answers):
        correct = [answer for answer in answers if answer.get("correct") is True]
        if len(correct) == 1:
            return text_at(correct[0], "text", path, f"{place} answers").strip()
    raise bad_field(path, place, "'answers' must be a list with one correct answer")


def _notes(notes: str) -> tuple[tuple[DocumentedTest, ...], list[str], tuple[str, ...]]:
    """The examiner's notes as tests, findings of the physical examination, and what is neither for
    sure and left out.

    A note that stands for no test by name ('Hypereosinophilia') may still be a test's result: it
    never goes to what is seen first. Items without a name below 'CT of the chest showed:', and
    sentences that go on behind a test's result, are that test's.
    """
    tests: list[DocumentedTest] = []
    findings: list[str] = []
    left_out: list[str] = []
    header = ""
    of_examination = False  # whether the items stand below 'Physical examination:'
    goes_on = False  # whether the item before is a test's result
    for note, new_item in _items(notes):
        match = _LABELLED_NOTE.fullmatch(note)
        label = match["label"].strip() if match else ""
        # The label's tests first: what stands behind it may name other tests.
        names = named_tests(label) or (named_tests(note) if not label else ())
        if note.endswith(":"):
            name = _FINDING_HEADER.fullmatch(note)
            header = name["test"] if name and _is_test(name["test"]) else ""
            # 'Here are the MRI findings:' is a sentence and no name.
            if not {"is", "are", "was", "were"}.isdisjoint(header.split()):
                header = next(iter(named_tests(header)), "")
            of_examination = _is_of_examination(note, names)
            header = "" if of_examination else header
            goes_on = False
        elif _is_of_examination(label, names):
            findings.append(note)
            header, goes_on = "", False
        elif header and new_item and match and _is_part(label, header):
            if says_something(match["rest"]):
                before = f"{tests.pop().result}\n" if goes_on else ""
                tests.append(DocumentedTest(header, category_of(header), before + note))
                goes_on = True
            else:
                left_out.append(f"no result documented: {note[:100]}")
        elif match and (names or _names_test(label, match["rest"])):
            goes_on = says_something(match["rest"])
            if goes_on:
                tests.append(DocumentedTest(label, category_of(label), match["rest"].strip()))
            else:
                left_out.append(f"no result documented: {note[:100]}")
            header = ""
        elif header and new_item:
            before = f"{tests.pop().result}\n" if goes_on else ""
            tests.append(DocumentedTest(header, category_of(header), before + note))
            goes_on = True
        elif test_name := (
            _test_behind_label(label, match["rest"]) if match else _test_in_prose(note, names)
        ):
            result = match["rest"].strip() if match and test_name == label else note
            tests.append(DocumentedTest(test_name, category_of(test_name), result))
            goes_on = True
        # Brackets aside: '(image not provided)' behind a finding says nothing of the finding.
        elif _NO_NOTE.search(IN_BRACKETS.sub("", note)):
            left_out.append(f"tells no result: {note[:100]}")
        elif goes_on and not new_item:
            result = f"{tests[-1].result}\n{note}"
            tests[-1] = DocumentedTest(tests[-1].name, tests[-1].category, result)
        # What is seen or heard at the bedside: 'Visual acuity: 20/200'.
        elif of_examination or (match and not is_ordered(label) and says_something(match["rest"])):
            findings.append(note)
        # Not to what is seen first: it may be a test's result without its name.
        else:
            left_out.append(f"no test by name: {note[:100]}")
            goes_on = False
    return tuple(tests), findings, tuple(left_out)


def _items(notes: str) -> Iterator[tuple[str, bool]]:
    """The notes one by one, and whether each begins an item of the list, or goes on with it."""
    start, begins_item = 0, True
    for end in [*_NOTE_END.finditer(notes), None]:
        piece = notes[start : end.start() if end else len(notes)]
        note = piece.replace("**", "").strip()
        opens = _LABELLED_NOTE.fullmatch(note)
        # 'Laboratory studies: Vitamin B12: 90 pg/mL' is a heading and the first note below it.
        name = opens["rest"].partition(":")[0] if opens else ""
        if opens and is_group(opens["label"]) and name != opens["rest"] and _is_one_name(name):
            yield f"{opens['label']}:", True
            note = opens["rest"].strip()
        ends_in_heading = _NEXT_HEADING.fullmatch(note)
        # 'Skin Biopsy:' is a heading as it stands, 'Low sodium Imaging results:' a note with one.
        if ends_in_heading and (
            ":" in ends_in_heading["note"] or is_group(ends_in_heading["heading"].rstrip(":"))
        ):
            yield ends_in_heading["note"].rstrip(), begins_item
            yield ends_in_heading["heading"], True
        elif note:
            yield note, begins_item
        if end:
            start, begins_item = end.end(), end["sentence"] is None


def _is_one_name(text: str) -> bool:
    return len(text) <= 60 and set(".;,").isdisjoint(text)


def _is_part(label: str, header: str) -> bool:
    """Whether a labelled item below a test's name is a part of its result: 'Findings' of a biopsy,
    'Hematuria' and 'Glucose' of a urinalysis, where 'Urine culture' is a test of its own."""
    of_label, of_header = profile(label), profile(header)
    # 'Serum' and 'blood' say where, though a profile takes blood for granted.
    names_specimen = any(map(specimen_of, normalise(label).split()))
    in_fluid = of_header.specimen not in (None, "blood") and not of_header.kinds
    is_analyte = in_fluid and not of_label.kinds and not names_specimen
    is_named = bool(named_tests(label) or of_label.kinds or names_specimen)
    is_named = is_named or bool(_TEST_LABEL.search(label))
    return bool(_DESCRIPTIVE.fullmatch(label)) or not is_named or is_analyte


def _is_of_examination(label: str, names: tuple[str, ...]) -> bool:
    """Whether what a label heads was seen or measured at the bedside: it names no test beside the
    vital signs. 'Physical examination with ultrasound: ...' is a test."""
    return bool(_EXAMINATION.match(label)) and all(map(_EXAMINATION.fullmatch, names))


def _is_test(name: str) -> bool:
    return not is_group(name) and bool(named_tests(name) or _TEST_LABEL.search(name))


def _test_in_prose(note: str, names: tuple[str, ...]) -> str:
    """The test of which a note without a label tells more than its name, or the group of tests."""
    # Two words more than the name: 'Chest X-ray.' tells no result.
    if names and len(note.split()) > len(names[0].split()) + 1:
        return names[0]
    return _group_in(note)


def _test_behind_label(label: str, text: str) -> str:
    """The test of 'Corneal scraping: culture grew yeasts', its label, and of 'Skin: biopsy showed
    granulomas'; '' for none."""
    if begins_with_noun(label) and profile(text).kinds and says_something(text):
        return label
    statement = result_told(text)
    is_section = _SECTION_OF_REPORT.fullmatch(label)
    return statement.tests[0] if statement and not is_section else ""


def _group_in(note: str) -> str:
    """The group of tests that a sentence is about: 'Laboratory studies showed pancytopenia.'"""
    verb = FINDING.search(note)
    subject = note[: verb.start()].strip() if verb else ""
    return subject if is_group(subject) else ""


def _names_test(label: str, result: str) -> bool:
    """Whether a label that is in no table of tests names one: by its form, by the specimen ('Serum
    IgE against ragweed'), or because a value or an outcome is told of something that is no mere
    place of the body ('Abdomen')."""
    of_label = profile(label)
    if _TEST_LABEL.search(label) or of_label.kinds:
        return True
    # 'Serum laboratory tests: Normal' tells of all of them.
    measures = bool(of_label.terms or of_label.specimen or is_group(label))
    # A bracket holds a reference range as often as a result.
    return measures and bool(_RESULT_WORDS.search(IN_BRACKETS.sub("", result)))


# --- OSCE examinations ------------------------------------------------------------------


def _case_of_row(row: Any, number: int, path: Path, place: str) -> CaseReport:
    osce = object_at(row, "OSCE_Examination", path, place)
    patient = object_at(osce, "Patient_Actor", path, place)
    examination = {"Physical_Examination": osce.get("Physical_Examination_Findings", {})}
    results = object_at(osce, "Test_Results", path, place)
    observation = "\n".join([*_lines_of_sections(patient), *_lines_of_sections(examination)])
    diagnosis = text_at(osce, "Correct_Diagnosis", path, place)
    tests, notes = [], []
    for test in _tests(results):
        if reason := _why_no_entry(test):
            notes.append(f"left out, {reason}: {test.name}: {test.result[:100]}")
        else:
            tests.append(test)
    # Made from MIMIC-IV, whose data use agreement AgentClinic's MIT does not lift.
    mimic = "mimic" in path.stem.lower()
    lines = [observation, "Test results:", *_lines_of_sections(results), f"Diagnosis: {diagnosis}"]
    return CaseReport(
        case_id=f"agentclinic-{'mimiciv-' if mimic else ''}{number:04d}",
        source="agentclinic",
        title=f"AgentClinic OSCE case {number}",
        text="\n".join(lines),
        path=str(path),
        licence=None if mimic else "MIT",
        structured=StructuredCase(observation, tuple(tests), diagnosis, notes=tuple(notes)),
        meta={"row": str(number)},
        losses=(*unread_fields(row, _OSCE), *unread_fields(osce, _OSCE_FIELDS), *_untold(results)),
    )


def _why_no_entry(test: DocumentedTest) -> str:
    """Why a field among the results is no test: 'Outcome', 'Treatment', 'Recommendations'; '' where
    it is one."""
    if _SECTION_OF_REPORT.fullmatch(test.name):
        return "a section of the report and no test"
    return why_no_test(test.name, test.name)


def _untold(results: Mapping[str, Any]) -> Iterator[Loss]:
    """The fields of results that hold none: 'Pending', 'Not performed'."""
    texts = [text for text in _leaves(results) if text and not says_something(text)]
    if texts:
        yield Loss("result", len(texts), "it tells no result", sample_of(texts[0]))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value).strip()


def _lines_of_sections(sections: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Sections as readable lines: 'Past Medical History: ...', nested ones indented below their
    heading."""
    for key, value in sections.items():
        if isinstance(value, Mapping) and not _is_panel(value):
            yield f"{indent}{_words_of_key(key)}:"
            yield from _lines_of_sections(value, indent + "  ")
        elif text := _result_text(value):
            yield f"{indent}{_words_of_key(key)}: {text}"


def _tests(
    results: Mapping[str, Any], container: str = "", panel: str = ""
) -> Iterator[DocumentedTest]:
    """The tests of a section; `panel`: the section's name, where it is a test's."""
    for key, value in results.items():
        name = _words_of_key(key)
        # 'Day 3: {...}' is a time, not a test: its tests get it in their names.
        if isinstance(value, Mapping) and tells_when(name):
            of_time = {panel: value} if panel and _is_panel(value) else value
            yield from (at_time(test, name) for test in _tests(of_time, container))
        elif _holds_tests(name, value):
            # The names of all sections above: 'Brain' below 'Imaging' is imaging by its container.
            for test in _tests(value, f"{container} {name}", "" if is_group(name) else name):
                yield _named_after(test, name)
        elif text := _result_text(value):
            yield DocumentedTest(name, category_of(name, container), text)


def _holds_tests(name: str, value: Any) -> bool:
    """Whether what stands under a name are tests, and not the components of one."""
    if not isinstance(value, Mapping) or not value or _describes(value):
        return False
    # 'Biopsy: {Site: ..., Findings: ...}' is one: what stands beside its findings is its own.
    describes = any(_DESCRIPTIVE.fullmatch(_words_of_key(key)) for key in value)
    if describes and _is_panel(value) and profile(name).kinds - {"imaging"}:
        return False
    return is_group(name) or not _is_panel(value)


def _named_after(test: DocumentedTest, container: str) -> DocumentedTest:
    """A site alone ('Cervical Lymph Node' of 'Biopsy', 'Head' of 'CT') is no name of a test, and a
    specimen is said once for all: the container goes with them."""
    of_test, of_all = profile(test.name), profile(container)
    is_site = not (of_test.kinds or of_test.terms or of_test.canonical)
    name = test.name
    # 'Imaging' says nothing: only a modality or a kind completes a name.
    if is_site and of_all.kinds - {"imaging"}:
        name = f"{test.name} {container if container.isupper() else container.lower()}"
    # Blood needs no name; urine is another specimen than the name's own.
    elif of_all.specimen == "urine" and of_test.specimen is None and not of_test.kinds:
        name = f"Urine {test.name}"
    return test if name == test.name else DocumentedTest(name, category_of(name), test.result)


def _is_panel(value: Mapping[str, Any]) -> bool:
    """Whether all values are plain: the components of one test. Deeper nesting is a group of
    tests."""
    # 'Chest X-ray: {Findings: ...}' is a plain value in disguise.
    return not any(isinstance(inner, Mapping) and not _describes(inner) for inner in value.values())


def _describes(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(_DESCRIPTIVE.fullmatch(_words_of_key(key)) for key in value)


def _result_text(value: Any) -> str:
    """A result in one line: 'WBC: 7,000 /µL; Hemoglobin: 14 g/dL'. Values are verbatim, names with
    spaces for underscores.

    Values that tell none ('Pending') are left out, so that a panel shows what it documents.
    """
    if isinstance(value, Mapping):
        parts = [(_words_of_key(key), _result_text(inner)) for key, inner in value.items()]
        # 'Status: Refused', beside it the reason.
        if value.get("Status") and ("Status", "") in parts:
            return ""
        # One field 'Findings' alone: its name says nothing. Two need their names.
        return "; ".join(
            text if _DESCRIPTIVE.fullmatch(key) and len(value) == 1 else f"{key}: {text}"
            for key, text in parts
            if text
        )
    if isinstance(value, list):
        return "; ".join(filter(None, map(_result_text, value)))
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    return text if says_something(text) else ""


def _words_of_key(key: str) -> str:
    """The name that a key is; a unit behind it in brackets: 'Hemoglobin (g/dL)'."""
    unit = _UNIT_OF_KEY.search(key)
    name = " ".join((key[: unit.start()] if unit else key).replace("_", " ").split())
    return f"{name} ({unit[1].replace('_per_', '/').replace('_', '/')})" if unit else name
