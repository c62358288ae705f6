"""Further sources: MedR-Bench's categories, AgentClinic's NEJM form, MediQ, phenopackets, plain
text, more of our own JSON."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from medaction.envs.build import build_environment
from medaction.envs.composition import BODY_SYSTEMS, DISEASE_TYPES
from medaction.envs.extracted import names_diagnosis
from medaction.envs.grounding import Report
from medaction.envs.records import BadCase, CaseReport, StructuredCase
from medaction.envs.sources import (
    agentclinic,
    case_json,
    diagbench,
    mediq,
    medrbench,
    phenopackets,
    read_cases,
    text,
)
from tests.conftest import shared_data


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def rows(path: Path, *values: object) -> Path:
    """A JSON Lines file; a string stands as it is."""
    return write(
        path, "\n".join(value if isinstance(value, str) else json.dumps(value) for value in values)
    )


def only(cases: Iterable[CaseReport | BadCase]) -> CaseReport:
    (case,) = cases
    assert isinstance(case, CaseReport), case
    return case


def structure(case: CaseReport | BadCase) -> StructuredCase:
    assert isinstance(case, CaseReport), case
    assert case.structured is not None
    return case.structured


def refusal(cases: Iterable[CaseReport | BadCase]) -> BadCase:
    (case,) = cases
    assert isinstance(case, BadCase), case
    return case


# --- DiagBench --------------------------------------------------------------------------


def step(order: str, result: str, reason: str = "To tell the two apart.") -> str:
    """A step of a timeline as DiagBench publishes it."""
    return (
        "Current diagnosis: Community-acquired pneumonia\nBased on the patient's initial"
        " presentation, the following investigation(s) should be performed:"
        f" {order}.\nReason: {reason}\nTest result: {result}"
    )


END = (
    "The available information is sufficient to make a diagnosis. \n\nDiagnosis: Legionnaires'"
    " disease\nReason: The antigen is positive."
)
NOTE = {
    "note_id": "10000001-DS-7",
    "case_summary": "- Patient Information: ___ y/o M\n- Chief Complaint: Fever and a dry cough for"
    " four days\n- Personal History: Not provided.",
    "stepwise_diagnostic_reasoning_timeline_list": [
        step("Chest X-ray", "Consolidation of the right lower lobe."),
        step("Serum sodium, C-reactive protein and procalcitonin", "Na 128, CRP 310, PCT 4.1"),
        step("Sputum culture", "Not available."),
        step("Legionella urinary antigen", "Positive for serogroup 1."),
        END,
    ],
    "final_diagnosis": "Legionnaires' disease",
}
TIMELINE = diagbench.TIMELINE


@pytest.mark.parametrize("form", ["list", "object"])
def test_diagbench_timelines_are_menus_in_both_forms(form: str, tmp_path: Path) -> None:
    named = {key: value for key, value in NOTE.items() if key != "note_id"}
    content = [NOTE] if form == "list" else {NOTE["note_id"]: named}
    path = write(tmp_path / "DiagBench.json", content)
    assert refusal(read_cases(path)).reason == "no_licence"  # the notes of MIMIC-IV
    case = only(read_cases(path, frozenset({"unlicensed"})))
    assert (case.case_id, case.source, case.evaluation_only) == ("10000001-DS-7", "diagbench", True)
    world = build_environment(case).environment
    assert world is not None
    assert world.evaluation_only
    assert world.diagnosis == "Legionnaires' disease"
    shared = "Na 128, CRP 310, PCT 4.1"
    # The sputum culture has no result, and the oracle must not have one either.
    assert {test.name: test.result for test in world.menu} == {
        "Chest X-ray": "Consolidation of the right lower lobe.",
        "Serum sodium": shared,
        "C-reactive protein": shared,
        "procalcitonin": shared,
        "Legionella urinary antigen": "Positive for serogroup 1.",
    }
    assert "left out, no result documented: Sputum culture" in world.warnings


def test_a_long_order_of_diagbench_is_read_to_its_end(tmp_path: Path) -> None:
    wanted = [f"Serum analyte of number {number}" for number in range(30)]
    note = NOTE | {"note_id": "m-1", TIMELINE: [step(", ".join(wanted), "Each 12 mg/L."), END]}
    case = only(read_cases(write(tmp_path / "b.json", [note])))
    assert [test.name for test in structure(case).tests] == wanted


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"final_diagnosis": None}, ""),  # the timeline's end tells it
        ({TIMELINE: NOTE[TIMELINE][:-1]}, ""),  # and the field, where the end is missing
        ({TIMELINE: NOTE[TIMELINE][:-1], "final_diagnosis": ""}, "no_diagnosis"),
        ({TIMELINE: "one text"}, "bad_field"),
        ({TIMELINE: [NOTE[TIMELINE]]}, "bad_field"),
        ({"case_summary": None}, "bad_field"),
        ({"final_diagnosis": ["Legionnaires' disease"]}, "bad_field"),
        ({"note_id": "../a"}, "unsafe_id"),
    ],
)
def test_a_damaged_diagbench_case_is_refused_and_the_others_go_on(
    change: dict[str, object], reason: str, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "b.json", [NOTE | {"note_id": "PMC12-1"} | change, 7, NOTE | {"note_id": "m-2"}]
    )
    first, number, last = read_cases(path)
    assert isinstance(number, BadCase)
    assert (number.reason, number.case_id) == ("bad_field", "diagbench-2")
    assert isinstance(last, CaseReport)
    assert last.licence == "MIT"
    if reason:
        assert isinstance(first, BadCase)
        assert first.reason == reason
    else:
        assert structure(first).diagnosis == "Legionnaires' disease"
        assert structure(first).tests == structure(last).tests


# --- MedR-Bench -------------------------------------------------------------------------

BENCH = {
    "raw_case": "A title\nThe case.",
    "generate_case": {
        "case_summary": "- **Chief Complaint:** Fever\n- **Ancillary Tests:**\n  - Chest X-ray:"
        " Normal.\n",
        "diagnosis_results": "Liver abscess.",
    },
    "body_category": ["The Whole Body", "Digestive System", "Immune System"],
    "disorder_category": ["Infections", "Cancers"],
    "receive_time": "2024-7-09",
    "checked_rare_disease": [],
}


def test_categories_rarity_and_date_of_a_bench_case(tmp_path: Path) -> None:
    plain = {key: BENCH[key] for key in ("raw_case", "generate_case")}
    other = BENCH | {
        "receive_time": "2024-13-40",
        "checked_rare_disease": ["Tularemia"],
        "body_category": "Digestive System",
    }
    bench, bare, odd = medrbench.read(
        write(tmp_path / "bench.json", {"PMC12": BENCH, "case-2": plain, "PMC13": other})
    )
    told = structure(bench)
    assert (told.body_system, told.disease_type, told.rare) == (
        "Digestive System",
        "Infections",
        False,
    )
    assert isinstance(bench, CaseReport)
    assert bench.meta == {
        "pmcid": "PMC12",
        "date": "2024-07-09",
        "summary_at": str(bench.text.index("\n\n") + 2),
    }
    untold = structure(bare)
    assert (untold.body_system, untold.disease_type, untold.rare) == ("", "", None)
    assert isinstance(bare, CaseReport)
    assert set(bare.meta) == {"summary_at"}
    assert (structure(odd).body_system, structure(odd).rare) == ("", True)
    assert isinstance(odd, CaseReport)
    assert {key: value for key, value in odd.meta.items() if key != "summary_at"} == {
        "pmcid": "PMC13"
    }


@pytest.mark.parametrize(
    ("ancillary", "menu"),
    [
        (  # headings without a colon
            "- **Ancillary Tests:**\n  1. Blood (day 1)\n     - Hb: 92 g/L\n  2. Stool\n"
            "     - Microscopy: no ova\n",
            {"Hb": "92 g/L", "Microscopy": "no ova"},
        ),
        (  # a table
            "- **Ancillary Tests:**\n  - Hb | 92 g/L | low\n  - Plt\t41\tlow\n",
            {"Hb": "92 g/L | low", "Plt": "41\tlow"},
        ),
        (  # lines that are no bullets
            "**Ancillary Tests:**\nHb 92 g/L.\nStool microscopy: no ova.\n\n**Treatment:** Rest\n",
            {"Hb": "Hb 92 g/L.", "Stool microscopy": "no ova."},
        ),
    ],
)
def test_tests_of_a_bench_case_in_any_layout(
    ancillary: str, menu: dict[str, str], tmp_path: Path
) -> None:
    summary = {"case_summary": f"**Chief Complaint:** Fever\n{ancillary}"}
    row = BENCH | {"generate_case": BENCH["generate_case"] | summary}  # type: ignore[operator]
    case = structure(only(medrbench.read(write(tmp_path / "bench.json", {"PMC12": row}))))
    assert {test.name: test.result for test in case.tests} == menu


def test_every_real_bench_case_tells_its_categories() -> None:
    cases = list(medrbench.read(shared_data("medrbench/diagnosis_cases.json")))
    told = [case for case in cases if isinstance(case, CaseReport)]
    systems = Counter(structure(case).body_system for case in told)
    types = Counter(structure(case).disease_type for case in told)
    assert set(systems) <= {"", *BODY_SYSTEMS}
    assert set(types) <= {"", *DISEASE_TYPES}
    assert systems[""] < len(told) * 0.1
    assert types[""] < len(told) * 0.1
    assert all(
        case.case_id.partition("-")[0] == case.meta["pmcid"]
        and case.meta["date"].startswith("2024-")
        for case in told
    )
    assert 0.4 < sum(bool(structure(case).rare) for case in told) / len(told) < 0.6


# --- text -------------------------------------------------------------------------------

STORY = (
    "A 41-year-old woman who makes cheese had evening fevers and low back pain for five weeks. " * 4
)


def test_a_markdown_report_with_a_header(tmp_path: Path) -> None:
    header = "---\nLicense: CC BY 4.0\ndate: 2021-3\nJournal: Reports of Nowhere\n---\n\n"
    case = only(
        text.read(
            write(
                tmp_path / "cheese.md",
                f"{header}# Fever in a cheesemaker #\n\n{STORY}\n\n## Tests\n\nCRP 80 mg/L",
            )
        )
    )
    assert (case.case_id, case.source, case.licence) == ("cheese", "text", "CC BY 4.0")
    assert case.title == "Fever in a cheesemaker"
    assert case.text == f"# Fever in a cheesemaker #\n\n{STORY}\n\n## Tests\n\nCRP 80 mg/L"
    assert case.meta == {"date": "2021-03", "journal": "Reports of Nowhere"}
    assert case.structured is None


def test_a_plain_text_is_titled_by_its_header_or_first_line(tmp_path: Path) -> None:
    assert only(text.read(write(tmp_path / "a.txt", f"title: Cheese\n{STORY}"))).title == "Cheese"
    bare = only(
        text.read(
            write(tmp_path / "b.txt", f"\nA fever\n{STORY}\nDate: of no matter here, and no header")
        )
    )
    assert bare.title == "A fever"
    assert bare.text.endswith("no header")
    assert (bare.licence, bare.meta) == (None, {})


def test_a_file_is_named_as_people_name_files(tmp_path: Path) -> None:
    for name in ("Müller discharge (2).txt", "two words.md", "病例 7.txt", "报告 7.txt"):
        write(tmp_path / name, STORY)
    ids = sorted(only(text.read(file)).case_id for file in tmp_path.iterdir())
    assert ids[2:] == ["Muller-discharge-2", "two-words"]
    assert ids[0] != ids[1], "their letters are lost, their names differ"
    assert all(re.fullmatch("7-[0-9a-f]{8}", id_) for id_ in ids[:2])


@pytest.mark.parametrize(
    ("name", "content", "reason", "told"),
    [
        ("short.txt", "title: Nothing\nTo be written.", "empty_body", "14 characters"),
        ("dated.txt", f"date: last spring\n{STORY}", "bad_field", "last spring"),
        ("..two words.md", STORY, "unsafe_id", "two-words"),
        ("!!.md", STORY, "unsafe_id", "cannot be a case id"),
        ("ids.txt", "# mine\nPMC12\nPMC13  # the second\n", "unknown_format", "pmc:"),
    ],
)
def test_a_text_that_is_no_report_is_refused(
    name: str, content: str, reason: str, told: str, tmp_path: Path
) -> None:
    bad = refusal(text.read(write(tmp_path / name, content)))
    assert bad.reason == reason
    assert told in bad.message
    assert bad.path.endswith(name)


# --- AgentClinic: NEJM's form -----------------------------------------------------------

CHALLENGE = {
    "image_url": "https://example.org/images?id=1",
    "question": "A 41-year-old woman who makes cheese had evening fevers. CT showed edema of L4."
    " What is the most likely diagnosis?",
    "type": ["CT scan"],
    "patient_info": "You are a 41-year-old woman who makes cheese. You have had fevers every"
    " evening. Remember, you know no diagnosis.",
    "physical_exams": (
        "Physical examination: Tender lower back. Laboratory studies: - C-reactive protein: 80 mg/L"
        " (reference range, 0 to 5). "
        "- Tests for tuberculosis: Negative - Peripheral lymphocytosis present Imaging results: -"
        " CT of the spine: Edema of L4. "
        "- Blood cultures: Not provided"
    ),
    "answers": [
        {"text": "Tuberculosis", "correct": False},
        {"text": "Brucellosis", "correct": True},
    ],
}
NUMBERED = CHALLENGE | {
    "physical_exams": "The notes are: 1. Dermoscopy findings: Round spots. 2. Skin biopsy results:"
    " Grains in the dermis. 3. Psychiatric: Anxious."
}
PROSE = CHALLENGE | {
    "physical_exams": "Whole-body MRI showed edema of L4. Laboratory studies showed pancytopenia."
}
PARTED = CHALLENGE | {
    "physical_exams": "1. **Biopsy of the Left Arm:**\n- Findings: Grains in the dermis.\n"
    "- Staining: Negative for iron.\n2. **CT of the Chest:**\n- Findings: not provided\n"
    "Laboratory studies: - Sodium: 138 mmol/L Urinalysis: - Hematuria: Present - Glucose: 2+"
    " - Urine culture: Negative\nThese are the MRI findings:\n- Edema of L4"
}
NONE = CHALLENGE | {
    "physical_exams": "The provided text does not include specific instrument readings or test"
    " results."
}


def test_an_image_challenge_becomes_observation_and_menu(tmp_path: Path) -> None:
    challenge, numbered, prose, parted, none = agentclinic.read(
        rows(tmp_path / "nejm.jsonl", CHALLENGE, NUMBERED, PROSE, PARTED, NONE)
    )
    told = structure(challenge)
    assert isinstance(challenge, CaseReport)
    assert (challenge.case_id, challenge.licence) == ("agentclinic-nejm-0000", None)
    assert told.diagnosis == "Brucellosis"
    assert told.initial_observation == (
        "The patient is a 41-year-old woman who makes cheese. They have had fevers every"
        " evening.\nPhysical examination: Tender lower back."
    )
    assert {test.name: (test.category, test.result) for test in told.tests} == {
        "C-reactive protein": ("laboratory", "80 mg/L (reference range, 0 to 5)."),
        "Tests for tuberculosis": ("laboratory", "Negative"),
        "CT of the spine": ("imaging", "Edema of L4."),
    }
    assert all(test.result in challenge.text for test in told.tests)
    assert any("lymphocytosis" in note for note in told.notes)
    assert [test.name for test in structure(numbered).tests] == ["Dermoscopy", "Skin biopsy"]
    assert [(test.name, test.result) for test in structure(prose).tests] == [
        ("Whole-body MRI", "Whole-body MRI showed edema of L4."),
        ("Laboratory studies", "Laboratory studies showed pancytopenia."),
    ]
    assert {test.name: test.result for test in structure(parted).tests} == {
        "Biopsy of the Left Arm": "Findings: Grains in the dermis.\nStaining: Negative for iron.",
        "Sodium": "138 mmol/L",
        "Urinalysis": "Hematuria: Present\nGlucose: 2+",
        "Urine culture": "Negative",
        "MRI": "Edema of L4",
    }
    assert structure(none).tests == ()


@pytest.mark.parametrize(
    "patient",
    [
        "A 41-year-old woman",
        "A 41-year-old Korean cheesemaker",
        "A 41-year-old",
        "A 41 year old female",
        "A previously healthy infant",
    ],
)
def test_the_age_of_a_part_without_one_is_the_question_s_which_the_ledger_knows(
    tmp_path: Path, patient: str
) -> None:
    part = (
        "As an actor, you should know this: - **You** have had fevers. Your voice must be low."
        " You are not aware of any specific test results."
    )
    if "infant" not in patient:
        part += " You have a healthy infant."
    question = f"{patient} noticed a tumor. What is the most likely diagnosis?"
    row = CHALLENGE | {"patient_info": part, "question": question}
    [challenge] = agentclinic.read(rows(tmp_path / "nejm.jsonl", row))
    assert isinstance(challenge, CaseReport)
    built = build_environment(challenge)
    assert built.environment is not None
    observation = built.environment.initial_observation
    patient = patient[0].lower() + patient[1:]
    first_line = observation.splitlines()[0]
    assert first_line.startswith(f"The patient is {patient}. They have had fevers.")
    reasons = {line.reason for line in built.ledger}
    assert "the question of the exam, beside the patient's part" in reasons


@pytest.mark.parametrize(
    ("row", "reason", "told"),
    [
        (
            CHALLENGE | {"question": "The diagnosis is malaria. Which is the best treatment?"},
            "not_a_diagnosis",
            "best treatment",
        ),
        (
            CHALLENGE | {"question": "A man has spots. What is the name of this sign?"},
            "not_a_diagnosis",
            "this sign",
        ),
        (
            CHALLENGE | {"answers": [{"text": "Brucellosis", "correct": False}]},
            "bad_field",
            "answers",
        ),
        (CHALLENGE | {"physical_exams": None}, "bad_field", "physical_exams"),
        ("{broken", "bad_json", "line 1"),
        ([1], "bad_field", "OSCE_Examination"),
    ],
)
def test_a_bad_challenge_is_named_and_the_others_go_on(
    row: object, reason: str, told: str, tmp_path: Path
) -> None:
    bad, good = agentclinic.read(rows(tmp_path / "nejm.jsonl", row, CHALLENGE))
    assert isinstance(bad, BadCase)
    assert bad.reason == reason
    assert "nejm.jsonl line 1" in bad.message
    assert told in bad.message
    assert isinstance(good, CaseReport)
    assert good.case_id == "agentclinic-nejm-0001"


def test_a_note_may_open_with_the_heading_of_its_group_and_a_name_end_in_its_method(
    tmp_path: Path,
) -> None:
    notes = (
        "Examination of the ear: Bulging drum.\nTympanometry: Flat curve."
        " Laboratory studies: Vitamin B12: 90 pg/mL; Hemoglobin: 8.1 g/dL."
    )
    row = CHALLENGE | {"physical_exams": notes}
    case = structure(only(agentclinic.read(rows(tmp_path / "agentclinic_nejm.jsonl", row))))
    assert case.initial_observation.endswith("Bulging drum.")
    names = [test.name for test in case.tests]
    assert names == ["Tympanometry", "Vitamin B12", "Hemoglobin"]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("Hemoglobin_g_dL", "Hemoglobin (g/dL)"),
        ("Glucose_mg_per_dL", "Glucose (mg/dL)"),
        ("MCV_fL", "MCV (fL)"),
        ("Protein_S", "Protein S"),
        ("Hepatitis_B_DNA", "Hepatitis B DNA"),
    ],
)
def test_a_unit_behind_a_key_stands_in_brackets(key: str, name: str, tmp_path: Path) -> None:
    parts = {"Patient_Actor": {}, "Test_Results": {"Blood_Tests": {key: 7.1}}}
    row = {"OSCE_Examination": parts | {"Correct_Diagnosis": "Gout"}}
    case = structure(only(agentclinic.read(rows(tmp_path / "a.jsonl", row))))
    assert [test.name for test in case.tests] == [name]


@pytest.mark.parametrize("heading", ["Physical examination", "Vital signs", "On examination"])
def test_items_below_a_heading_of_the_examination_are_findings(
    heading: str, tmp_path: Path
) -> None:
    notes = f"{heading}:\n- Pulse 104\n- Dark creases\nLaboratory tests:\n- Cortisol 1.8 ug/dL"
    row = CHALLENGE | {"physical_exams": notes}
    case = structure(only(agentclinic.read(rows(tmp_path / "agentclinic_nejm.jsonl", row))))
    assert case.initial_observation.endswith("\nPulse 104\nDark creases")
    assert [test.name for test in case.tests] == ["Cortisol"]


def test_cases_made_from_mimic_are_not_under_agentclinics_licence(tmp_path: Path) -> None:
    osce = {
        "Patient_Actor": {"History": "Fever"},
        "Test_Results": {"CRP": "80 mg/L"},
        "Correct_Diagnosis": "Brucellosis",
    }
    told = [
        only(
            agentclinic.read(
                rows(tmp_path / f"agentclinic_{name}.jsonl", {"OSCE_Examination": osce})
            )
        )
        for name in ("medqa_extended", "mimiciv")
    ]
    assert [(case.case_id, case.licence) for case in told] == [
        ("agentclinic-0000", "MIT"),
        ("agentclinic-mimiciv-0000", None),
    ]


def test_both_forms_of_agentclinic_are_recognised() -> None:
    assert agentclinic.recognises(CHALLENGE)
    assert agentclinic.recognises({"OSCE_Examination": {}})
    assert not agentclinic.recognises(ROW)


# --- MediQ ------------------------------------------------------------------------------

ROW = {
    "id": 7,
    "question": "Which of the following is the most likely diagnosis?",
    "context": [
        "A 41-year-old woman who makes cheese has had evening fevers",
        "Her CRP is 80 mg/L.",
    ],
    "options": {"A": "Tuberculosis", "B": "Brucellosis"},
    "answer": "Brucellosis",
    "answer_idx": "B",
    "facts": ["1. The woman makes cheese."],
}


def test_sentences_question_and_answer_are_the_report(tmp_path: Path) -> None:
    case = only(mediq.read(rows(tmp_path / "all_dev.jsonl", ROW)))
    assert (case.case_id, case.licence, case.structured) == ("mediq-all_dev-7", "CC BY 4.0", None)
    assert case.text == (
        "A 41-year-old woman who makes cheese has had evening fevers. Her CRP is 80 mg/L.\n"
        "Which of the following is the most likely diagnosis?\nDiagnosis: Brucellosis"
    )
    assert mediq.recognises(ROW)
    assert not mediq.recognises(CHALLENGE)
    assert names_diagnosis(
        Report(case.text), case.title, "brucellosis"
    )  # else every extraction of it would be refused


@pytest.mark.parametrize(
    ("question", "asks"),
    [
        ("He has fever. What is the most likely diagnosis?", True),
        (
            "Based on these findings, which of the following is the most likely diagnosis in this"
            " patient?",
            True,
        ),
        ("Which condition does the patient have?", True),
        ("What is the best test for diagnosis?", False),
        ("Which of the following is the most accurate study to reach the diagnosis?", False),
        ("Which additional finding fits this diagnosis?", False),
        ("The diagnosis is gout. What causes it?", False),
        ("Given the diagnosis, which of the following is the next step?", False),
    ],
)
def test_only_a_question_for_the_diagnosis_is_one(question: str, asks: bool) -> None:
    assert agentclinic.asks_for_diagnosis(question) is asks


@pytest.mark.parametrize(
    ("row", "reason", "told"),
    [
        (
            ROW | {"question": "Which of the following is the next step in diagnosis?"},
            "not_a_diagnosis",
            "next step",
        ),
        (ROW | {"context": 7}, "bad_field", "context"),
        (ROW | {"context": " "}, "bad_field", "context"),
        (ROW | {"id": None}, "bad_field", "'id'"),
        (ROW | {"id": "../7"}, "unsafe_id", "../7"),
        ([], "bad_field", "question"),
        ("{", "bad_json", "line 1"),
    ],
)
def test_a_bad_row_is_named_and_the_others_go_on(
    row: object, reason: str, told: str, tmp_path: Path
) -> None:
    bad, good = mediq.read(rows(tmp_path / "dev.jsonl", row, ROW))
    assert isinstance(bad, BadCase)
    assert (bad.reason, bad.path) == (reason, str(tmp_path / "dev.jsonl"))
    assert told in bad.message
    assert isinstance(good, CaseReport)


@pytest.mark.long
def test_a_context_in_one_text_is_read_alike(tmp_path: Path) -> None:
    whole = ROW | {"context": "He has fever. His CRP is 80 mg/L"}
    case = only(mediq.read(rows(tmp_path / "dev.jsonl", whole)))
    assert case.text.startswith("He has fever. His CRP is 80 mg/L.\n")


def test_long_runs_of_one_character_take_no_time(tmp_path: Path) -> None:
    """What backtracks on a run takes minutes at this length."""
    started = time.thread_time()
    for run in (" ", "\n", "# ", "a ", "- ", "1. ", "A: ", "a" * 100):
        long = run * (50_000 // len(run))
        list(text.read(write(tmp_path / "long.md", f"# Title {long}\n{STORY} {long}x")))
        challenge = CHALLENGE | {
            "patient_info": f"You {long}x",
            "physical_exams": f"CT {long}x",
            "question": f"{long}a diagnosis?",
        }
        list(agentclinic.read(rows(tmp_path / "nejm.jsonl", challenge)))
        list(
            mediq.read(
                rows(
                    tmp_path / "dev.jsonl",
                    ROW | {"context": [long], "question": f"{long}a diagnosis?"},
                )
            )
        )
    assert time.thread_time() - started < 30


# --- phenopackets -----------------------------------------------------------------------


def term(label: str, code: str = "X:1") -> dict[str, str]:
    return {"id": code, "label": label}


def measured(assay: str, value: float, unit: str, **more: object) -> dict[str, object]:
    reference = {"unit": term(unit), "low": 24, "high": 180}
    quantity = {"unit": term(unit), "value": value, "referenceRange": reference}
    return {"assay": term(assay), "value": {"quantity": quantity}, **more}


VARIANT = {
    "subjectOrBiosampleId": "II:3",
    "interpretationStatus": "CAUSATIVE",
    "variantInterpretation": {
        "acmgPathogenicityClassification": "LIKELY_PATHOGENIC",
        "variationDescriptor": {
            "geneContext": {"valueId": "HGNC:0", "symbol": "MADEUP1"},
            "expressions": [
                {"syntax": "hgvs.g", "value": "NC_000000.1:g.1A>T"},
                {"syntax": "hgvs.c", "value": "NM_000000.0:c.712C>T"},
            ],
            "allelicState": term("heterozygous"),
        },
    },
}
PACKET = {
    "id": "II:3",
    "subject": {
        "id": "II:3", "sex": "FEMALE",
        "timeAtLastEncounter": {"age": {"iso8601duration": "P3Y1M"}},
    },
    "phenotypicFeatures": [
        {
            "type": term("Hypotonia"), "severity": term("Severe"),
            "onset": {"age": {"iso8601duration": "P3M"}},
        },
        {
            "type": term("Frequent falls"), "modifiers": [term("Episodic")],
            "onset": {"ontologyClass": term("Childhood onset")},
        },
        {"type": term("Seizure"), "excluded": True},
        {
            "type": term("Hearing impairment"), "excluded": True,
            "onset": {"age": {"iso8601duration": "P3M"}},
        },
    ],
    "measurements": [
        measured(
            "Creatine kinase", 2400.5, "U/L", timeObserved={"age": {"iso8601duration": "P2Y"}},
        ),
        measured("Creatine kinase", 1900.0, "U/L"),
        {"assay": term("Nitrite in urine"), "value": {"ontologyClass": term("Absent")}},
        {
            "assay": term("Blood pressure"),
            "complexValue": {
                "typedQuantities": [
                    {"type": term("systolic"), "quantity": {"unit": term("mmHg"), "value": 95}},
                    {"type": term("diastolic"), "quantity": {"unit": term("mmHg"), "value": 60}},
                ],
            },
        },
        {"assay": term("Muscle ultrasound")},
    ],
    "diseases": [
        {"term": term("Nemaline myopathy"), "excluded": True},
        {"term": term("Invented muscular dystrophy", "OMIM:1")},
    ],
    "interpretations": [
        {
            "id": "a", "progressStatus": "UNSOLVED",
            "diagnosis": {"disease": term("Another dystrophy", "OMIM:2")},
        },
        {
            "id": "b", "progressStatus": "SOLVED",
            "diagnosis": {
                "disease": term("Muscular dystrophy, invented", "OMIM:1"),
                "genomicInterpretations": [VARIANT],
            },
        },
    ],
    "metaData": {
        "created": "2023-03-23T21:36:32Z", "phenopacketSchemaVersion": "2.0",
        "externalReferences": [
            {"id": "PMID:1", "description": "A girl who falls"}, {"id": "PMC:PMC12"},
            {"id": "DOI:10.1/x"},
        ],
    },
}  # fmt: skip


def test_a_packet_becomes_observation_menu_and_diagnosis(tmp_path: Path) -> None:
    case = only(phenopackets.read(write(tmp_path / "PMID_1_II:3.json", PACKET)))
    told = structure(case)
    assert (case.case_id, case.title, case.licence) == ("PMID_1_II-3", "A girl who falls", None)
    assert case.meta == {"pmcid": "PMC12", "doi": "10.1/x"}
    assert told.initial_observation == (
        "Age: 3 years 1 month. Sex: female.\n"
        "Present: Hypotonia (severe, onset 3 months); Frequent falls (episodic, onset Childhood).\n"
        "Absent: Seizure; Hearing impairment."
    )
    assert {test.name: test.result for test in told.tests} == {
        "Creatine kinase": (
            "2400.5 U/L (reference range 24 to 180), at 2 years\n1900 U/L (reference range 24"
            " to 180)"  # one test, in order
        ),
        "Nitrite in urine": "Absent",
        "Blood pressure": "systolic 95 mmHg; diastolic 60 mmHg",
        "Genetic testing": "MADEUP1 NM_000000.0:c.712C>T, heterozygous, causative, likely"
        " pathogenic",
    }
    assert (told.diagnosis, told.synonyms) == (
        "Muscular dystrophy, invented",
        ("Invented muscular dystrophy",),
    )
    assert "Excluded: Nemaline myopathy." in case.text
    assert all(line in case.text for test in told.tests for line in test.result.split("\n"))
    built = build_environment(case)
    assert built.refusal is None, built.refusal


@pytest.mark.parametrize(
    ("diagnosis", "phenotype"),
    [
        ("Retinitis pigmentosa 98", "Rod-cone dystrophy"),
        ("Wilms tumor 7", "Nephroblastoma"),
        ("Cataract 44, posterior", "Posterior cataract"),
    ],
)
def test_a_phenotype_that_is_the_diagnosis_in_other_words_is_not_told(
    tmp_path: Path, diagnosis: str, phenotype: str
) -> None:
    features = [*PACKET["phenotypicFeatures"], {"type": term(phenotype)}]  # type: ignore[misc]
    interpretation = {
        "id": "a", "progressStatus": "SOLVED",
        "diagnosis": {"disease": term(diagnosis), "genomicInterpretations": [VARIANT]},
    }  # fmt: skip
    packet = PACKET | {
        "phenotypicFeatures": features, "interpretations": [interpretation], "diseases": [],
    }  # fmt: skip
    environment = build_environment(
        only(phenopackets.read(write(tmp_path / "packet.json", packet)))
    ).environment
    assert environment is not None
    assert phenotype not in environment.initial_observation
    assert "Frequent falls" in environment.initial_observation
    assert phenotype in environment.synonyms


def test_wrapped_packets_families_and_cohorts(tmp_path: Path) -> None:
    licensed = {
        "phenopacket": {key: PACKET[key] for key in PACKET if key != "metaData"},
        "metaData": {"licence": "CC0"},
    }
    bare = {
        "id": "x",
        "subject": {"id": "x"},
        "phenotypicFeatures": [],
        "diseases": [{"term": term("Gout")}],
    }
    family = {"proband": PACKET, "relatives": [bare], "pedigree": {}}
    cohort = {"id": "all", "members": [PACKET, bare | {"diseases": []}, "none", bare]}
    assert only(phenopackets.read(write(tmp_path / "one.json", licensed))).licence == "CC0"
    assert (
        structure(only(phenopackets.read(write(tmp_path / "family.json", family)))).diagnosis
        == "Muscular dystrophy, invented"
    )
    first, undiagnosed, broken, last = phenopackets.read(write(tmp_path / "all.json", cohort))
    assert isinstance(first, CaseReport)
    assert isinstance(last, CaseReport)
    assert (first.case_id, last.case_id) == ("all-1", "all-4")
    assert (structure(last).initial_observation, structure(last).tests) == ("A patient.", ())
    assert isinstance(undiagnosed, BadCase)
    assert (undiagnosed.reason, undiagnosed.case_id) == ("no_diagnosis", "all-2")
    assert isinstance(broken, BadCase)
    assert broken.reason == "bad_field"
    assert all(phenopackets.recognises(value) for value in (PACKET, licensed, family, cohort))
    others: tuple[object, ...] = ([], {"PMC12": BENCH}, {"members": [1]}, {"members": [cohort]})
    assert not any(phenopackets.recognises(value) for value in others)


@pytest.mark.parametrize(
    ("packet", "reason", "told"),
    [
        (
            PACKET | {"metaData": {"phenopacketSchemaVersion": "1.0.0-RC3"}},
            "unsupported_version",
            "version 1",
        ),
        (
            PACKET | {"phenotypicFeatures": [{"type": term("Seizure"), "negated": True}]},
            "unsupported_version",
            "version 1",
        ),
        (PACKET | {"measurements": {"assay": "CK"}}, "bad_field", "'measurements'"),
        (PACKET | {"subject": None}, "bad_field", "'subject'"),
        (
            PACKET
            | {"interpretations": [], "diseases": [{"term": term("Gout"), "excluded": True}]},
            "no_diagnosis",
            "diseases",
        ),
        (
            PACKET
            | {
                "interpretations": [],
                "diseases": [{"term": term("Gout")}, {"term": term("Obesity", "X:2")}],
            },
            "several_diagnoses",
            "Gout, Obesity",
        ),
        (
            PACKET | {"interpretations": [], "diseases": [{"term": {"id": "OMIM:1"}}]},
            "no_diagnosis",
            "OMIM:1 is a code",
        ),
        (
            PACKET | {"interpretations": [], "diseases": [{"term": term("OMIM:1", "OMIM:1")}]},
            "no_diagnosis",
            "OMIM:1 is a code",
        ),
        (
            PACKET | {"subject": {"id": "x", "taxonomy": term("Mus musculus", "NCBITaxon:10090")}},
            "not_human",
            "Mus musculus",
        ),
    ],
)
def test_a_packet_that_tells_no_case_is_refused(
    packet: object, reason: str, told: str, tmp_path: Path
) -> None:
    bad = refusal(phenopackets.read(write(tmp_path / "packet.json", packet)))
    assert (bad.reason, bad.case_id) == (reason, "packet")
    assert "packet.json" in bad.message
    assert told in bad.message


def test_fields_in_the_names_of_protobuf_are_read_alike(tmp_path: Path) -> None:
    text = re.sub(r'[a-z]+[A-Za-z]*(?=": )', lambda key: in_schema(key[0]), json.dumps(PACKET))
    assert "phenotypic_features" in text
    assert '"time_observed"' in text
    case = only(read_cases(write(tmp_path / "a.json", text), frozenset({"unlicensed"})))
    other = only(phenopackets.read(write(tmp_path / "a.json", PACKET)))
    assert (case.text, case.structured, case.losses) == (other.text, other.structured, other.losses)


def in_schema(key: str) -> str:
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", key)


def test_what_has_no_label_is_named_by_the_ontology_or_counted(tmp_path: Path) -> None:
    features = [
        {"type": {"id": "HP:0001250"}},
        {"type": {"id": "HP:0012625"}},
        {"excluded": True},
        {"type": {"id": "X:1", "label": " "}},
    ]
    unnamed = {
        "phenotypicFeatures": features,
        "measurements": [
            {"assay": {"id": "LOINC:1"}},
            {"assay": term("Troponin I"), "value": {"quantity": {"value": "812.5"}}},
            {"assay": term("Ferritin"), "value": {"quantity": {"value": "high"}}},
        ],
    }
    case = only(phenopackets.read(write(tmp_path / "a.json", PACKET | unnamed)))
    assert "Present: Seizure.\n" in f"{structure(case).initial_observation}\n"
    # A stage is told by what the kidneys clear, which nobody sees at the bedside.
    assert [(test.name, test.result) for test in structure(case).tests][:2] == [
        ("Troponin I", "812.5"),
        ("Kidney function tests", "Present: Stage 3 chronic kidney disease."),
    ]
    assert [loss.sample[:30] for loss in case.losses if loss.reason == "it has no value"]
    counts = {loss.kind: loss.count for loss in case.losses if loss.reason == "it has no label"}
    assert counts == {"phenotypicFeatures": 2, "measurements": 1}


def test_one_disease_under_two_codes_is_one(tmp_path: Path) -> None:
    twice = [{"term": term("Gout", code)} for code in ("OMIM:1", "MONDO:1")]
    packet = PACKET | {"interpretations": [], "diseases": twice}
    assert (
        structure(only(phenopackets.read(write(tmp_path / "a.json", packet)))).diagnosis == "Gout"
    )


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"gene": {"symbol": "DMD"}}, "DMD, causative"),
        (
            {
                "gene": {"symbol": None},
                "variantInterpretation": {"variationDescriptor": {"vcfRecord": {"chrom": "X"}}},
            },
            "X, causative",
        ),
        (
            {
                "variantInterpretation": {
                    "variationDescriptor": {
                        "structuralType": term("deletion"),
                        "vcfRecord": {"chrom": "15", "pos": "22", "ref": "N", "alt": "<DEL>"},
                    }
                }
            },
            "deletion 15:22 N <DEL>, causative",
        ),
    ],
)
def test_a_gene_alone_and_a_place_alone_are_documented_too(
    row: dict[str, object], line: str, tmp_path: Path
) -> None:
    genomic = [{"interpretationStatus": "CAUSATIVE", **row}]
    solved = {"id": "a", "diagnosis": {"disease": term("Gout"), "genomicInterpretations": genomic}}
    packet = PACKET | {"interpretations": [solved]}
    case = structure(only(phenopackets.read(write(tmp_path / "packet.json", packet))))
    assert case.tests[-1].result == line


def test_a_number_is_told_as_it_is_written_and_nothing_else_is(tmp_path: Path) -> None:
    values = [0, 24000.0, 1e-7, 10**30, float("nan"), float("inf"), True, None, "12", [1]]
    measurements = [measured(f"Test {number}", value, "U/L") for number, value in enumerate(values)]  # type: ignore[arg-type]
    open_end = measured("Open", 3, "U/L")
    open_end["value"]["quantity"]["referenceRange"] = {"unit": term("g/L"), "low": 2}  # type: ignore[index]
    packet = PACKET | {"measurements": [*measurements, open_end], "interpretations": []}
    told = structure(only(phenopackets.read(write(tmp_path / "packet.json", packet))))
    assert [test.result.partition(" (")[0] for test in told.tests] == [
        "0 U/L",
        "24000 U/L",
        "1e-07 U/L",
        f"{10**30} U/L",
        "12 U/L",  # protobuf's JSON may hold a number in a string
        "3 U/L",
    ]
    assert told.tests[-1].result == "3 U/L (reference range from 2 g/L)"


# --- our own form -----------------------------------------------------------------------

OWN = {
    "licence": "CC BY 4.0",
    "initial_observation": "A 41-year-old woman who makes cheese has had evening fevers and low"
    " back pain for five weeks.",
    "diagnosis": "Brucellosis",
    "body_system": "Bones, Joints and Muscles",
    "disease_type": "Infections",
    "rare": True,
    "tests": [
        {
            "name": "CRP", "minor": "inflammatory markers", "result": "80 mg/L",
            "quote": "Her CRP was raised at 80 mg/L.",
        },
        {"name": "MRI lumbar spine", "result": "Edema of the L4 and L5 end plates."},
    ],
}  # fmt: skip


def test_views_minor_categories_and_quotes_of_an_own_case(tmp_path: Path) -> None:
    case = only(case_json.read(write(tmp_path / "own.json", OWN)))
    told = structure(case)
    assert (told.body_system, told.disease_type, told.rare) == (
        "Bones, Joints and Muscles",
        "Infections",
        True,
    )
    assert [(test.minor, test.quote) for test in told.tests] == [
        ("inflammatory markers", "Her CRP was raised at 80 mg/L."),
        ("", ""),
    ]
    assert build_environment(case).refusal is None
    plain = {key: OWN[key] for key in ("initial_observation", "diagnosis", "tests")}
    untold = structure(only(case_json.read(write(tmp_path / "plain.json", plain))))
    assert (untold.body_system, untold.disease_type, untold.rare) == ("", "", None)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"body_system": "Bones"}, "Bones, Joints and Muscles"),
        ({"disease_type": 3}, "must be a string"),
        ({"rare": "yes"}, "true or false"),
        ({"tests": [{"name": "CRP", "result": "80 mg/L", "minor": ["x"]}]}, "test 1: 'minor'"),
        (
            {"tests": [{"name": "CRP", "result": "80 mg/L", "quotes": "x"}]},
            "unknown field 'quotes'",
        ),
    ],
)
def test_a_wrong_optional_field_is_named(
    wrong: dict[str, object], told: str, tmp_path: Path
) -> None:
    bad = refusal(case_json.read(write(tmp_path / "own.json", OWN | wrong)))
    assert bad.reason == "bad_field"
    assert "own.json" in bad.message
    assert told in bad.message


def test_own_cases_stand_one_a_line_and_a_bad_line_is_named(tmp_path: Path) -> None:
    file = rows(tmp_path / "own.jsonl", OWN | {"case_id": "a"}, "{", OWN | {"rare": "yes"}, OWN)
    first, torn, wrong, last = read_cases(file)
    assert [case.case_id for case in (first, last)] == ["a", "own-line-4"]
    assert structure(first) == structure(last)
    assert isinstance(torn, BadCase)
    assert (torn.reason, torn.case_id) == ("bad_json", "own-line-2")
    assert isinstance(wrong, BadCase)
    assert wrong.message.startswith("line 3: own.jsonl: 'rare' must be true or false")


STORY = "A 41-year-old woman who makes cheese has had evening fevers for five weeks. " * 4


def test_files_of_other_forms_in_a_folder_are_named_an_entry_an_ending(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", f"licence: CC0\n\n{STORY}")
    for name in ("README", "LICENSE.rst", ".DS_Store", "b.pdf", "c.PDF", "d.docx", "notes"):
        write(tmp_path / name, "anything")
    report, *others = read_cases(tmp_path)
    assert isinstance(report, CaseReport)
    assert [(refusal([bad]).reason, str(bad).partition(";")[0]) for bad in others] == [
        ("not_read", "not_read: 2 files of a form that is not read (.pdf): b.pdf, c.PDF"),
        ("not_read", "not_read: 1 files of a form that is not read (.docx): d.docx"),
        ("not_read", "not_read: 1 files of a form that is not read (no ending): notes"),
    ]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
        (b"PK\x03\x04\x14", "a zip archive"),
        (rb"{\rtf1\ansi A man", "RTF"),
    ],
)
def test_a_file_that_is_no_text_is_named_by_what_it_is(
    content: bytes, form: str, tmp_path: Path
) -> None:
    path = tmp_path / "report.txt"
    path.write_bytes(content + STORY.encode())
    bad = refusal(text.read(path))
    assert bad.reason == "unknown_format"
    assert form in bad.message


def test_a_page_is_read_without_its_tags(tmp_path: Path) -> None:
    page = (
        "<html><head><style>p {color: red}</style></head><body><h1>Fever</h1>"
        f"<p>{STORY}BP&nbsp;120/70, CRP &lt; 5.</p><table><tr><td>Hb</td><td>92</td></tr></table>"
    )
    report = only(text.read(write(tmp_path / "page.html", page)))
    assert report.title == "Fever"
    assert report.text.splitlines()[-1] == "Hb\t92"
    assert "BP 120/70, CRP < 5." in report.text.replace("\u00a0", " ")
    assert "color" not in report.text


def test_a_title_that_says_retracted_is_refused_in_every_form(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", f"licence: CC0\ntitle: RETRACTED: Fever\n\n{STORY}")
    write(tmp_path / "b.json", OWN | {"title": "Retracted article: fever"})
    assert [refusal([bad]).reason for bad in read_cases(tmp_path)] == ["retracted", "retracted"]
