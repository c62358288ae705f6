"""What a source reads and does not put into the report's text is counted, whatever the source; and
text that speaks to an actor or a form is no part of a case."""

import json
from pathlib import Path

import pytest

from medaction.envs.records import BadCase, CaseReport
from medaction.envs.sources import read_cases
from medaction.envs.voice import asks_reader, patients_part

OSCE = {
    "OSCE_Examination": {
        "Objective_for_Doctor": "Find out why he coughs.",
        "Patient_Actor": {
            "Demographics": "60-year-old man",
            "History": "He has coughed for weeks.",
        },
        "Physical_Examination_Findings": {"Chest": "Crackles"},
        "Test_Results": {"Sputum": "Acid-fast rods", "Tuberculin": "Pending", "HIV": "Not done"},
        "Correct_Diagnosis": "Tuberculosis",
    }
}
CHALLENGE = {
    "question": "What is the most likely diagnosis?",
    "patient_info": "As the patient, you are a 60-year-old man who coughs. You must not say since"
    " when. Your wife coughs too.",
    "physical_exams": "Sputum smear showed:\n- Acid-fast rods\n- Many neutrophils\nSerum"
    " neopterin: 31 nmol/L (unit not provided)\nHIV test: Not provided\nGeneral note: none.",
    "answers": [{"text": "Tuberculosis", "correct": True}, {"text": "Asthma", "correct": False}],
    "image_url": "https://example.org/1.png",
    "type": "",
}
MEDIQ = {
    "id": 3,
    "question": "What is the diagnosis?",
    "context": ["A 60-year-old man coughs.", "His sputum holds acid-fast rods."],
    "options": {"A": "Tuberculosis", "B": "Asthma", "C": "Gout"},
    "answer": "Tuberculosis",
    "answer_idx": "A",
    "facts": ["1. He coughs."],
    "rationale": "Rods are acid-fast.",
}
SUMMARY = (
    "- **Chief Complaint:** Cough for three weeks and night sweats.\n"
    "- **Ancillary Tests:**\n  - **Sputum smear:** Acid-fast rods."
)
BENCH = {
    "PMC9": {
        "raw_case": "A cough",
        "generate_case": {
            "case_summary": SUMMARY,
            "diagnosis_results": "Tuberculosis",
            "differential_diagnosis": "Asthma was thought of.",
        },
        "reviewer": "B",
    }
}
DIAGBENCH = [
    {
        "note_id": "PMC9-1",
        "case_summary": "- Chief Complaint: Cough for three weeks and night sweats.",
        "stepwise_diagnostic_reasoning_timeline_list": [
            "Current diagnosis: Bronchitis\nBased on the patient's initial presentation, the"
            " following investigation(s) should be performed: Sputum smear\nReason: He coughs.\n"
            "Test result: Acid-fast rods.",
            "Current diagnosis: Tuberculosis\nReason: He coughs still.",
            "The available information is sufficient to make a diagnosis.\n\nDiagnosis:"
            " Tuberculosis\nReason: The rods.",
        ],
        "rubrics": [{"of": "a form that nobody has shown"}],
    }
]
PACKET = {
    "id": "p1",
    "subject": {"id": "1", "sex": "MALE", "karyotypicSex": "XY"},
    "phenotypicFeatures": [
        {"type": {"id": "HP:0012735", "label": "Cough"}, "evidence": [{"id": "x"}]},
        {"type": {"id": "HP:0001945", "label": "Fever"}, "evidence": [{"id": "y"}]},
    ],
    "measurements": [{"assay": {"id": "LOINC:1", "label": "CRP"}}],
    "medicalActions": [{"treatment": "rest"}],
    "diseases": [{"term": {"id": "MONDO:1", "label": "Tuberculosis"}}],
}
LUNG = {"id": "UBERON:1", "label": "lung"}
FAMILY = {
    "id": "f1",
    "relatives": [{"id": "p2"}],
    "consanguinousParents": True,
    "proband": {
        "subject": {"id": "1"},
        "phenotypicFeatures": [],
        "interpretations": [
            {"id": "i", "diagnosis": {"disease": {"id": "MONDO:1", "label": "Tuberculosis"}}}
        ],
        "diseases": [
            {"term": {"id": "MONDO:1", "label": "Tuberculosis"}, "primarySite": LUNG},
            {"term": {"id": "MONDO:2", "label": "Gout"}},
        ],
    },
}
TEXT = "title: A cough\nTitle: Again\n\n![The chest](chest.png)\n" + "He coughed at night. " * 20


def write(folder: Path, name: str, *rows: object) -> Path:
    path = folder / name
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "losses"),
    [
        (
            "osce.jsonl",
            OSCE,
            {("field", "Objective_for_Doctor: not read"): 1, ("result", "it tells no result"): 2},
        ),
        (
            "nejm.jsonl",
            CHALLENGE,
            {
                ("answer", "an option of the question that is not its answer"): 1,
                ("field", "image_url: not read"): 1,
            },
        ),
        (
            "mediq.jsonl",
            MEDIQ,
            {
                ("answer", "an option of the question that is not its answer"): 2,
                ("field", "it says the context again"): 1,
                ("field", "rationale: not read"): 1,
            },
        ),
        (
            "bench.json",
            BENCH,
            {
                ("field", "generate_case.differential_diagnosis: not read"): 1,
                ("field", "reviewer: not read"): 1,
            },
        ),
        (
            "diagbench.json",
            DIAGBENCH,
            {
                ("step", "it orders no test"): 1,
                ("reasoning", "an annotator's reasoning, no part of the record"): 3,
                ("field", "rubrics: not read"): 1,
            },
        ),
        (
            "packet.json",
            PACKET,
            {
                ("field", "medicalActions: not read"): 1,
                ("field", "subject.karyotypicSex: not read"): 1,
                ("field", "phenotypicFeatures.evidence: not read"): 2,
                ("measurement", "it has no value"): 1,
            },
        ),
        (
            "family.json",
            FAMILY,
            {
                ("field", "relatives: not read"): 1,
                ("field", "consanguinousParents: not read"): 1,
                ("field", "diseases.primarySite: not read"): 1,
                ("disease", "a disease beside the diagnosis: not read"): 1,
            },
        ),
        (
            "cough.txt",
            TEXT,
            {
                ("header line", "its name stands in a line above"): 1,
                ("figure", "pictures beside the text are not read"): 1,
            },
        ),
    ],
)
def test_every_source_counts_what_it_does_not_use(
    name: str, content: object, losses: dict[tuple[str, str], int], tmp_path: Path
) -> None:
    (case,) = read_cases(write(tmp_path, name, content), frozenset({"unlicensed"}))
    assert isinstance(case, CaseReport), case
    assert {(loss.kind, loss.reason): loss.count for loss in case.losses} == losses
    assert all(loss.sample for loss in case.losses)


def test_an_actors_part_is_a_history_and_items_below_a_test_are_its_result(tmp_path: Path) -> None:
    (case,) = read_cases(write(tmp_path, "nejm.jsonl", CHALLENGE), frozenset({"unlicensed"}))
    assert isinstance(case, CaseReport)
    assert case.structured
    assert case.structured.initial_observation == (
        "The patient is a 60-year-old man who coughs. Their wife coughs too."
    )
    assert {test.name: test.result for test in case.structured.tests} == {
        "Sputum smear": "Acid-fast rods\nMany neutrophils",
        "Serum neopterin": "31 nmol/L (unit not provided)",
    }
    notes = " | ".join(case.structured.notes)
    assert "said to the actor: You must not say since when." in notes
    assert "no result documented: HIV test: Not provided" in notes


def test_refused_rows_of_mediq_have_ids_of_their_own(tmp_path: Path) -> None:
    nameless = {key: value for key, value in MEDIQ.items() if key != "id"}
    rows = [nameless | {"id": None}, MEDIQ | {"id": 1.5}, "{broken", MEDIQ]
    cases = list(read_cases(write(tmp_path, "mediq.jsonl", MEDIQ | {"id": 9}, *rows)))
    ids = [case.case_id for case in cases]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    assert sum(isinstance(case, BadCase) for case in cases) == 3


@pytest.mark.parametrize(
    ("part", "history"),
    [
        ("You're 44. The pain wakes you and your wife.", "The patient is 44. The pain wakes them"),
        (
            "Hello, I'm a nurse of 30. I was well until my leg hurt me.",
            "They were well until their",
        ),
        ("I am 50 and I've bipolar I disorder, I think.", "they've bipolar I disorder, they think"),
        ("You are 9. Your mother told you that you snore.", "Their mother told them that they"),
        # The direction ends before the list that it introduces, and an order about the part goes.
        (
            "As an actor, you should know this: - You are 71. - You cough. Your voice must be low.",
            "The patient is 71. They cough.",
        ),
    ],
)
def test_first_and_second_person_become_the_third(part: str, history: str) -> None:
    assert history in patients_part(part)[0]


@pytest.mark.parametrize(
    ("sentence", "asks"),
    [
        ("Please summarise the case below.", True),
        ("If unknown, state that it is unknown.", True),
        ("Describe the vital signs.", True),
        ("Based on the findings, which disease does he have?", True),
        ("Describes pain as burning.", False),
        ("Report of a fall.", False),
        ("Use of alcohol is denied.", False),
        ('His wife asked: "Will you be back?"', False),
        ("Provided no urine.", False),
    ],
)
def test_what_asks_its_reader_is_told_by_its_grammar(sentence: str, asks: bool) -> None:
    assert asks_reader(sentence) is asks
