"""Made-up inputs of the sources, each with one kind of fault: its right value."""

import re
from pathlib import Path

import pytest

from medaction.envs.build import build_environment
from medaction.envs.patients import parts_by_patient
from medaction.envs.records import BadCase, CaseReport, ClinicalEnvironment
from medaction.envs.sources import read_cases
from medaction.envs.voice import told_of_patient

SOURCES = Path(__file__).parent / "made_up_reports" / "sources"


def cases_of(name: str) -> dict[str, CaseReport | BadCase]:
    return {case.case_id: case for case in read_cases(SOURCES / name, frozenset({"unlicensed"}))}


def environment_of(case: CaseReport | BadCase) -> ClinicalEnvironment:
    assert isinstance(case, CaseReport), case
    built = build_environment(case)
    assert built.environment, built.refusal
    return built.environment


@pytest.mark.parametrize("number", ["1002", "1003"])
def test_what_stands_before_the_sections_or_asks_for_them_is_no_observation(number: str) -> None:
    environment = environment_of(cases_of("made_up_bench.json")[f"PMC{number}"])
    assert environment.initial_observation.startswith("- Patient Information: 33-year-old woman.")
    assert not re.search("involves|Key details|Please|If none", environment.initial_observation)
    assert "broad finger ends" in environment.initial_observation
    reasons = [warning.partition(": ")[0] for warning in environment.warnings]
    assert "before the first section" in reasons


def test_patients_whose_diagnosis_is_not_told_apart_are_refused_by_name() -> None:
    refused = cases_of("made_up_bench.json")["PMC1004"]
    assert isinstance(refused, BadCase)
    assert refused.reason == "several_patients"
    assert "P1, P2, P3" in refused.message


def test_every_line_under_the_heading_of_tests_is_in_the_menu() -> None:
    environment = environment_of(cases_of("made_up_bench.json")["PMC1005"])
    results = " ".join(test.result for test in environment.menu)
    for words in (
        "BUN (38 mg/dL)",
        "chitotriosidase",
        "elastase",
        "urine copper",
        "metanephrine",
        "Giardia",
        "acid-fast",
        "hepatitis B",
        "spectroscopy",
        "Kayser-Fleischer",
        "BCR::ABL1",
        "cystography",
        "neopterin",
    ):
        assert words in results


def test_a_time_or_a_change_is_no_tests_name() -> None:
    environment = environment_of(cases_of("made_up_bench.json")["PMC1006"])
    names = {test.name.casefold() for test in environment.menu}
    assert {"creatinine", "hemoglobin", "platelets", "serum β-hcg levels"} <= names
    assert not any(re.match("on admission|after|post-|decline", name) for name in names)


def test_nejm_s_parts_are_told_of_the_patient_and_no_result_is_lost() -> None:
    cases = cases_of("made_up_nejm.jsonl")
    environments = {
        name: environment_of(case) for name, case in cases.items() if isinstance(case, CaseReport)
    }
    assert len(cases) == 6  # a refused row keeps an id of its own
    told = {name[-1]: environment for name, environment in environments.items()}
    for environment in told.values():
        assert not re.search(r"(?i)\byou(r|rself)?\b|actor", environment.initial_observation)
    menus = {name: {t.name: t.result for t in one.menu} for name, one in told.items()}
    assert menus["0"] == {
        "Computed tomography of the abdomen and pelvis": "Whirl of the mesentery in the left lower"
        " belly\nOne loop of colon 11 cm wide"
    }
    assert set(menus["1"]) == {
        "Hemoglobin level",
        "Haptoglobin level",
        "Reticulocyte count",
        "Serum IgE against ragweed",
    }
    assert menus["1"]["Haptoglobin level"].startswith("Low")
    assert told["5"].diagnosis == "Gout"


@pytest.mark.parametrize(
    ("observation", "gone"),
    [
        ("A man of 60 coughs. What is the most likely diagnosis?", "What is"),
        ("Complaint: Cough.\nHistory: State the history here.", "State the history"),
        ("Which of these explains his cough best?\nA man of 60 coughs.", "Which"),
        ("You are an experienced physician.\nComplaint: Cough.", "physician.."),
    ],
)
def test_what_speaks_to_a_reader_leaves_the_observation(observation: str, gone: str) -> None:
    text, asides = told_of_patient(observation)
    assert gone not in text
    assert "ough" in text
    assert asides or "You" not in text


def test_what_a_patient_says_stays() -> None:
    text = 'He says: "You can\'t make me". At 2 he asked "Why?".\n- Signs: ?rash, fever > 38 °C'
    assert told_of_patient(text) == (text, ())


def test_a_summary_is_parted_by_bullets_sentences_and_headings() -> None:
    bullets = "Sex:\n- Twin A: boy\n- Twin B: girl\nSigns: Twin A: pale. Twin B: well."
    assert parts_by_patient(bullets) == {
        "Twin a": "Sex:\n- boy\nSigns: pale.",
        "Twin b": "Sex:\n- girl\nSigns: well.",
    }
    headings = "**Patient 1**\n- Cough\n  - dry\n**Patient 2**\n- Fever"
    assert parts_by_patient(headings) == {"Patient 1": "- Cough\n  - dry", "Patient 2": "- Fever"}
    assert parts_by_patient("- A man with case 2 of this hotel in mind.\n- P2 sound is loud.") == {}
