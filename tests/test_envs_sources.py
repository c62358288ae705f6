"""Sources: real files of each kind, small hand-written ones, and hostile ones."""

import json
import re
import tarfile
import time
from pathlib import Path

import pytest

from medaction.envs.records import BadCase, CaseReport
from medaction.envs.sources import agentclinic, case_json, jats, medrbench, read_cases
from tests.conftest import SAMPLES, shared_data

OSCE = {
    "OSCE_Examination": {
        "Objective_for_Doctor": "Find out why she is tired. It is anaemia.",
        "Patient_Actor": {
            "Demographics": "30-year-old woman",
            "History": "Tired for two months.",
            "Symptoms": {
                "Primary_Symptom": "Fatigue",
                "Secondary_Symptoms": ["Pallor", "Heavy periods"],
            },
        },
        "Physical_Examination_Findings": {"Vital_Signs": {"Blood_Pressure": "110/70 mmHg"}},
        "Test_Results": {
            "Blood_Tests": {
                "Complete_Blood_Count": {"Hemoglobin": "8.1 g/dL", "MCV": "70 fL"},
                "Ferritin": "4 ng/mL",
                "TSH": "Pending",
            },
            "Imaging": {"Chest_X-ray": {"Findings": "Normal."}},
            "Biopsy": {"Lymph_Node": {"Findings": "Reactive."}},
        },
        "Correct_Diagnosis": "Iron deficiency anemia",
    }
}
SUMMARY = """- **Patient Information:** 40-year-old man
- **Chief Complaint**: Fever
- **Ancillary Tests:**
  - **Laboratory:** CRP 120 mg/L; WBC 14 (elevated; repeat 13).
  - Imaging:
    - Chest X-ray: Normal.
    - CT of the abdomen: Liver abscess of 5 cm.
  - Cervical spine MRI revealed:
    - Disc bulge at C5.
  - Normal ECG and urinalysis.
  - Autopsy: Not consistent.
- **Treatment:** Drainage.
"""
ARTICLE = """<?xml version="1.0"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Archiving DTD v1.1//EN" \
"JATS-archivearticle1.dtd">
<article xmlns:xlink="http://www.w3.org/1999/xlink" \
article-type="{kind}"><front><article-meta><title-group>
<article-title>A <italic>rare</italic> fever</article-title></title-group><permissions>
<license xlink:href="https://creativecommons.org/licenses/by/4.0/"><license-p>Open.</license-p></license></permissions>
</article-meta></front><body><sec><title>Case</title><p>A man of 40&#160;years had fever [<xref \
ref-type="bibr">1</xref>,
<xref ref-type="bibr">2</xref>] and 9 &#215; 10<sup>9</sup>/L leukocytes (see <xref \
ref-type="fig">Figure 1</xref>).
<table-wrap><label>Table \
1</label><caption><p>Tests</p></caption><table><tr><th>Test</th><th>Result</th></tr>
<tr><td>CRP</td><td>120&nbsp;mg/L</td></tr></table></table-wrap> Then he was \
better.</p><p>{filler}</p></sec></body></article>"""


def article(kind: str = "case-report", filler: str = "More of the same. " * 20) -> str:
    return ARTICLE.format(kind=kind, filler=filler)


def only(path: Path) -> CaseReport:
    (case,) = read_cases(path)
    assert isinstance(case, CaseReport), case
    return case


def refusal(path: Path) -> BadCase:
    (case,) = read_cases(path)
    assert isinstance(case, BadCase), case
    return case


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


# --- AgentClinic ------------------------------------------------------------------------


def test_osce_sections_become_observation_and_menu(tmp_path: Path) -> None:
    case = only(write(tmp_path / "cases.jsonl", json.dumps(OSCE)))
    assert case.structured is not None
    menu = {test.name: (test.category, test.result) for test in case.structured.tests}
    assert menu == {
        "Complete Blood Count": ("laboratory", "Hemoglobin: 8.1 g/dL; MCV: 70 fL"),
        "Ferritin": ("laboratory", "4 ng/mL"),
        "Chest X-ray": ("imaging", "Normal."),
        "Lymph Node biopsy": ("pathology", "Reactive."),
    }
    assert "Heavy periods" in case.structured.initial_observation
    assert "110/70 mmHg" in case.structured.initial_observation
    assert "anaemia" not in case.text  # the objective is the examiner's, and tells the answer
    assert all(test.result in case.text for test in case.structured.tests)


def test_a_bad_line_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    lines = [
        json.dumps(OSCE),
        "{broken",
        json.dumps({"OSCE_Examination": {"Patient_Actor": {}}}),
        json.dumps(OSCE),
    ]
    good, broken, incomplete, last = read_cases(write(tmp_path / "cases.jsonl", "\n".join(lines)))
    assert isinstance(good, CaseReport)
    assert isinstance(last, CaseReport)
    assert last.case_id == "agentclinic-0003"
    assert isinstance(broken, BadCase)
    assert broken.reason == "bad_json"
    assert "cases.jsonl line 2" in broken.message
    assert isinstance(incomplete, BadCase)
    assert incomplete.reason == "bad_field"
    assert "Test_Results" in incomplete.message


def test_all_real_agentclinic_cases_are_read() -> None:
    cases = list(agentclinic.read(shared_data("agentclinic/agentclinic_medqa.jsonl")))
    assert len(cases) == 107
    for case in cases:
        assert isinstance(case, CaseReport)
        assert case.structured is not None
        assert case.structured.diagnosis
        assert all(test.result in case.text for test in case.structured.tests)


# --- MedR-Bench -------------------------------------------------------------------------


def bench(summary: str) -> dict[str, object]:
    return {
        "PMC1": {
            "raw_case": "A title\nThe case.",
            "generate_case": {"case_summary": summary, "diagnosis_results": "Liver abscess."},
        }
    }


def test_a_summary_is_split_at_the_ancillary_tests(tmp_path: Path) -> None:
    case = only(write(tmp_path / "bench.json", bench(SUMMARY)))
    assert case.evaluation_only
    assert case.licence == "CC BY-SA"
    assert case.structured is not None
    assert (
        case.structured.initial_observation
        == "- Patient Information: 40-year-old man\n- Chief Complaint: Fever"
    )
    assert {test.name: test.result for test in case.structured.tests} == {
        "CRP": "CRP 120 mg/L",
        "WBC": "WBC 14 (elevated; repeat 13)",
        "Chest X-ray": "Normal.",
        "CT of the abdomen": "Liver abscess of 5 cm.",
        "Cervical spine MRI": "Cervical spine MRI revealed:\nDisc bulge at C5.",
        "ECG": "Normal ECG and urinalysis.",
        "urinalysis": "Normal ECG and urinalysis.",
    }


def test_a_summary_without_tests_or_of_several_patients_is_refused(tmp_path: Path) -> None:
    assert (
        refusal(write(tmp_path / "bench.json", bench("- **Chief Complaint:** Fever"))).reason
        == "no_tests_section"
    )
    assert (
        refusal(
            write(tmp_path / "bench.json", bench(f"#### Case 1\n{SUMMARY}\n#### Case 2\n{SUMMARY}"))
        ).reason
        == "several_patients"
    )


SEVERAL = """
#### Case 1
- **Patient Information:** 40-year-old man
- **Chief Complaint:** Fever
- **Ancillary Tests:**
  - CT of the abdomen: Liver abscess of 5 cm.

#### Case 2
- **Patient Information:** 50-year-old woman
- **Chief Complaint:** Chills
- **Ancillary Tests:**
  - CT of the abdomen: Liver abscess of 2 cm.
"""
NESTED = """
- **Patient Information:**
  - Case 1: 40-year-old man
  - Case 2: 50-year-old woman
- **Chief Complaint:** Case 1: Fever. Case 2: Chills.
- **Ancillary Tests:**
  - Case 1:
    - CT of the abdomen: Liver abscess of 5 cm.
  - Case 2:
    - CT of the abdomen: Liver abscess of 2 cm.
"""


@pytest.mark.parametrize("summary", [SEVERAL, NESTED])
@pytest.mark.parametrize(
    "final",
    ["Liver abscess in both patients.", "- **Case 1:** Liver abscess\n- **Case 2:** Cholangitis"],
)
def test_each_of_several_patients_is_a_case_when_all_is_clearly_hers(
    tmp_path: Path, summary: str, final: str
) -> None:
    case = bench(summary)
    case["PMC1"]["generate_case"]["final_diagnosis"] = final  # type: ignore[index]
    cases = list(read_cases(write(tmp_path / "bench.json", case)))
    assert [one.case_id for one in cases] == ["PMC1-1", "PMC1-2"]
    told = [one.structured for one in cases if isinstance(one, CaseReport)]
    assert told[0] is not None
    assert told[1] is not None
    names = [one.diagnosis.rstrip(".") for one in told if one]
    assert names == ["Liver abscess", "Cholangitis" if "Cholangitis" in final else "Liver abscess"]
    assert [[test.result for test in one.tests] for one in told if one] == [
        ["Liver abscess of 5 cm."],
        ["Liver abscess of 2 cm."],
    ]
    for one, own, others in (
        (told[0], "40.*Fever", "50|Chills"),
        (told[1], "50.*Chills", "40|Fev"),
    ):
        assert re.search(own, one.initial_observation, re.DOTALL)
        assert not re.search(f"{others}|Case", one.initial_observation)
    unclear = bench(summary.replace("40-year-old man", "Two patients of 40 and 50 years"))
    unclear["PMC1"]["generate_case"]["final_diagnosis"] = final  # type: ignore[index]
    assert refusal(write(tmp_path / "bench.json", unclear)).reason == "several_patients"


MENUS = {
    "Labs: WBC 9.7 x 10^3/uL, CRP 25.9 mg/L, ESR 42 mm/hr": {"WBC": (), "CRP": (), "ESR": ()},
    "Labs: Elevated ESR (75 mm/h), CRP (4 mg/dL)": {"Labs": ()},
    "Other labs: Normal calcium, uric acid, and TSH.": {
        "Other labs": ("calcium", "uric acid", "TSH")
    },
    "Chromosomal microarray analysis (CMA) revealed a deletion of 2 Mb.": {
        "Chromosomal microarray analysis": ("CMA",)
    },
    "Sputum was positive by GeneXpert.": {"GeneXpert": ()},
    "Lesions: Papules on both arms.": {"Lesions": ()},
    "Surgical findings: An inflamed appendix.": {"Surgical findings": ()},
    "Plasma zoledrin elevated (threefold).": {"Plasma zoledrin": ()},
    "After the zoledrin challenge, 24-hour urine zinc rose to 1,900 µg.": {
        "24-hour urine zinc": ()
    },
    "Decline in platelets from 131 to 88 called for a transfusion.": {"platelets": ()},
    "Negative for HIV, measles, and mumps.": {"HIV, measles, and mumps": ("HIV",)},
    "Quintoscopy revealed a ring.": {"Quintoscopy": ()},
    "On admission: Creatinine 3.1 mg/dL.": {"Creatinine": ()},
    "Post-procedure: Creatinine 1.0 mg/dL.": {"Creatinine (post-procedure)": ()},
    "Initial tests: Pancytopenia, elevated ferritin (900), low zinc.": {
        "complete blood count": (),
        "ferritin": (),
        "zinc": (),
    },
    "Others: Negative for measles.": {"measles": ()},
    "Leukocytosis, no acidosis.": {"Ancillary tests": ()},
    "Labs: Low sodium (121). " + "ECG showed flutter. " * 2000: {"Labs": (), "ECG": ()},
    "ECG showed flutter. " + "lungs " * 400: {"ECG": ()},
    "Second episode: Rods that were named later.": {"Ancillary tests (second episode)": ()},
    "MRI: A mass.\n  - Other findings:\n    - Elevated albumin.\n    - ECG was normal.": {
        "MRI": (),
        "albumin": (),
        "ECG": (),
    },
    "Blood glucose: 5 g/L; urine dipstick: positive.": {"Blood glucose": (), "urine dipstick": ()},
    "Calcium: 0.84 mmol/L. Magnesium: 0.71 mmol/L.": {"Calcium": (), "Magnesium": ()},
    "Calcium 1.98 mmol/L, platelets 1,120 x10^9/L, HbA1c 5.4%.": {
        "Calcium": (),
        "platelets": (),
        "HbA1c": (),
    },
    "White blood cell count 14,490/mm3, CRP 71 mg/L.": {"White blood cell count": (), "CRP": ()},
    "Serum osmolality 252, urine sodium 84 mmol/L.": {"Serum osmolality": (), "urine sodium": ()},
    "Urine sodium 84 mmol/L, potassium 20 mmol/L.": {"Urine sodium": ()},
    "Urinalysis: Protein 3+; glucose: negative.": {"Urinalysis": ()},
    "Pleural fluid: Turbid; LDH: 900 U/L; CRP: 71 mg/L.": {"Pleural fluid": ()},
    "Urinalysis: Normal; CRP: 71 mg/L.": {"Urinalysis": (), "CRP": ()},
    "CA 19-9 400 U/mL, CEA 12 ng/mL, and LDH 900 U/L.": {"CA 19-9": (), "CEA": (), "LDH": ()},
    # In every way that the spaces can be parted this would take hours.
    f"Calcium{' ' * 1000}low, CRP 71 mg/L.": {"Calcium": ()},
    "*Initial ECG:* Sinus rhythm.": {"Initial ECG": ()},
    "**Pathology** (post-biopsy): Chronic inflammation.": {"Pathology (post-biopsy)": ()},
    "Follow-up Imaging:\n    - MRI: No mass.": {"MRI (follow-up Imaging)": ()},
    "Imaging: Two cavities, no effusion.": {"Imaging": ()},
    "MRI: A mass.\n  - Associated findings: A wide ventricle.\n  - No metastases.": {"MRI": ()},
    "Laboratory: Complete blood count was normal.": {"Complete blood count": ()},
    "Negative tests for infectious causes.": {"tests for infectious causes": ()},
    "Labs: Elevated LDH (714), increased creatinine (7.4), hemoglobin 9.7 g/dL.": {
        "LDH": (),
        "creatinine": (),
        "hemoglobin": (),
    },
    "Laboratory: Low blood count, and a high lipase as well.": {"Laboratory": ()},
    "Normal QZ3 activity (>50%) and negative Shiga toxin PCR, ruling out a uraemia.": {
        "QZ3 activity": (),
        "Shiga toxin PCR": (),
    },
    "Pancytopenia (neutrophils 430/mm3, platelets 13,000/mm3).": {"complete blood count": ()},
    "MRI revealed a mass.\n- Other abnormal findings: A large spleen.": {
        "MRI": (),
        "Other abnormal findings": (),
    },
    "Treatment with prednisolone showed no improvement.": {},
    "Diagnosis was confirmed clinically.": {},
    "Autopsy: A torn vessel.": {},
    "Worse pain led to graft surgery.": {},
    "Ultrasound showed a mass. It has smooth borders. He was sent home.": {"Ultrasound": ()},
    "Microscopic findings include capillaries in lobules.": {"Microscopic findings": ()},
    "Dengue IgM positive, IgG negative.": {"Dengue IgM": ()},
    "Radiographs of the pelvic bones, both tibiae, and both ankles were free of fractures.": {
        "Radiographs of the pelvic bones, both tibiae, and both ankles": ()
    },
    "CT scans of the pelvis and lumbar spine and a plain chest radiograph showed no fracture.": {
        "CT scans of the pelvis and lumbar spine": (),
        "plain chest radiograph": (),
    },
    "Positive adenovirus PCR later on.": {"adenovirus PCR": ()},
    "Sputum PCR and culture were negative.": {"Sputum PCR": (), "Sputum culture": ()},
    "Negative results on initial rectal aspiration and skin biopsy for amyloid.": {
        "initial rectal aspiration": (),
        "skin biopsy": (),
    },
    "Repeat imaging (X-ray and CT) confirmed a fracture.": {"X-ray": (), "CT": ()},
    "Surveillance imaging and tumor marker (CEA) testing were unremarkable.": {
        "Surveillance imaging": (),
        "tumor marker testing": ("CEA",),
    },
    "Ferritin, thyroid function, Hb electrophoresis, and zinc were normal.": {
        "Ferritin": (),
        "thyroid function": (),
        "Hb electrophoresis": (),
        "zinc": (),
    },
    "Normal CBC, liver, and kidney function.": {"CBC": (), "liver and kidney function": ()},
    "Raised serum urea and chloride levels imply dehydration.": {"serum urea": (), "chloride": ()},
    "Negative calcitonin, desmin, and keratin staining.": {
        "calcitonin, desmin, and keratin staining": ("calcitonin", "keratin staining")
    },
    "MRI scans in 2005 and 2023 demonstrated a mass.": {"MRI scans in 2005 and 2023": ()},
    "Flutter on ECG, effusion on a chest X-ray": {"ECG": (), "chest X-ray": ()},
    "Serum ACE and calcium normal, IGRA and Mantoux negative.": {
        "Serum ACE": (),
        "calcium": (),
        "IGRA": (),
        "Mantoux": (),
    },
    "A rise in AFP and advancing size prompted imaging and chemotherapy.": {"AFP": ()},
    "Positive antinuclear antibody, anti-Jo-1, and pANCA.": {
        "antinuclear antibody": (),
        "anti-Jo-1": (),
        "pANCA": (),
    },
    "Elevated lipase (90 U/L), transaminases, and prolonged coagulation profile.": {
        "lipase": (),
        "transaminases": (),
        "coagulation profile": (),
    },
    "Coombs test negative, BP 110/70 mmHg, fasting glucose 0.9 g/L.": {
        "Coombs test": (),
        "BP": (),
        "fasting glucose": (),
    },
    "Normal hearing tests, eye exam, and echocardiogram.": {
        "hearing tests": (),
        "eye exam": (),
        "echocardiogram": (),
    },
    "Biopsy confirmed a carcinoma. Investigations ruled out an infection.": {
        "Biopsy": (),
        "Investigations": (),
    },
    "Ultrasound revealed a mass, further confirmed by CT showing a cyst.": {
        "Ultrasound": (),
        "CT": (),
    },
    "Ultrasound revealed a mass, verified on CT showing a cyst.": {"Ultrasound": (), "CT": ()},
    "Continuous bladder pressure (BP) monitoring using a catheter; on day 2, 20 mmHg.": {
        "Continuous bladder pressure monitoring": ()
    },
    "Biopsy: A carcinoma.\n  - Excluded cyst: No fluid-fluid level.": {
        "Biopsy": (),
        "Excluded cyst": (),
    },
    "Transthoracic echocardiogram: A mass; no mass on transesophageal echocardiogram.": {
        "Transthoracic echocardiogram": (),
        "transesophageal echocardiogram": (),
    },
    "Typical acylcarnitine elevations, muscle biopsy showing fat.": {
        "Ancillary tests": (),
        "muscle biopsy": (),
    },
    "Laser microdissection and mass spectrometry identified amyloid.": {
        "Laser microdissection and mass spectrometry": ()
    },
    "Estradiol/progesterone ratio of 7 (failure ruled out).": {"Estradiol/progesterone ratio": ()},
    "Gram stain of the pus was negative but auramine stain showed rods.": {
        "Gram stain of the pus": (),
        "auramine stain": (),
    },
    "Blood tests: Raised lipase. 99mTc-MDP bone scan showed two spots.": {
        "Blood tests": (),
        "99mTc-MDP bone scan": (),
    },
    "Low cortisol: 3 ug/dL.": {"cortisol": ()},
    "Routine blood tests: Normal except for mild leukopenia and low zinc.": {
        "Routine blood tests": ("zinc",)
    },
    "Labs: Raised lipase (900), leukopenia (2.1), and elevated ferritin (900) and zinc (80).": {
        "lipase": (),
        "white blood cells": (),
        "ferritin": (),
        "zinc": (),
    },
    "Labs:\n    - Severe anemia (Hb: 3 g/dL)\n    - Lipase: 90 U/L; zinc: 8\n    - Low iron: 1": {
        "hemoglobin": (),
        "Lipase": (),
        "zinc": (),
        "iron": (),
    },
    "Elevated lipase, negative urine and blood cultures, normal liver enzymes and abdominal CT.": {
        "lipase": (),
        "urine and blood cultures": (),
        "liver enzymes": (),
        "abdominal CT": (),
    },
    "Laboratory findings: Leukopenia (2.1 x 10^9/L), low zinc, normal calcium.": {
        "white blood cells": (),
        "zinc": (),
        "calcium": (),
    },
    "Elevated serum lipase (900 U/L) and stable troponins.": {"serum lipase": (), "troponins": ()},
    "16a-fluorotestosterone (FXT) PET/CT showed a nodule.": {
        "16a-fluorotestosterone PET/CT": ("FXT PET/CT",)
    },
    "Stable hemoglobin and elevated troponins.": {"hemoglobin": (), "troponins": ()},
    # How a test came out is no part of its name, and each status has tests of its own.
    "Markedly elevated chromogranin A but unremarkable urinary 5-HIAA.": {
        "chromogranin A": (),
        "urinary 5-HIAA": (),
    },
    "Unrevealing gene panel.": {"gene panel": ()},
    "Low fecal elastase and normal fecal calprotectin.": {
        "fecal elastase": (),
        "fecal calprotectin": (),
    },
    "Normal PT, APTT and fibrinogen, and absence of FLT3 and NPM1 mutations.": {
        "PT": (),
        "APTT": (),
        "fibrinogen": (),
        "FLT3": (),
        "NPM1 mutations": (),
    },
    "Radiological: Unremarkable MRI brain; chest X-ray showed an effusion.": {
        "MRI brain": (),
        "chest X-ray": (),
    },
    "Pathological examination and immunostains (PAX-8) confirmed a carcinoma.": {
        "Pathological examination": (),
        "immunostains": (),
    },
    "Preserved function on echocardiogram and stable pulmonary function tests.": {
        "echocardiogram": (),
        "pulmonary function tests": (),
    },
    # Read anew at each joint, this list would take minutes.
    f"No mass on MRI of the brain, kidney a{' and a' * 600} and CT.": {
        f"MRI of the brain, kidney a{' and a' * 600} and CT": ()
    },
    "No sign of mumps in imaging or sputum testing.": {"imaging": (), "sputum testing": ()},
    "Ultrasound with color flow imaging: A cyst.": {"Ultrasound with color flow imaging": ()},
    "Adrenal venous sampling lateralized to the left with 9:1.": {"Adrenal venous sampling": ()},
    "A slit-lamp examination showed rings, and 24-hour urinary copper was 210 µg.": {
        "Slit-lamp examination": (),
        "24-hour urinary copper": (),
    },
    "Bronchoscopy was unremarkable and bronchoalveolar lavage grew Nocardia.": {
        "Bronchoscopy": (),
        "bronchoalveolar lavage": (),
    },
    "Calcium/phosphate ratio was 3.": {"Calcium/phosphate ratio": ()},
    "Pleural fluid analysis showed an exudate. Mesothelial cells 5%.": {
        "Pleural fluid analysis": ()
    },
}


@pytest.mark.parametrize("line", MENUS)
def test_an_entry_becomes_the_tests_that_it_names(tmp_path: Path, line: str) -> None:
    case = only(
        write(
            tmp_path / "bench.json",
            bench(f"- **Chief Complaint:** Fever\n- **Ancillary Tests:**\n  - {line}\n"),
        )
    )
    assert case.structured is not None
    assert {test.name: test.aliases for test in case.structured.tests} == MENUS[line]
    assert all(part in line for test in case.structured.tests for part in test.result.splitlines())
    if not MENUS[line] or "sent home" in line:
        assert any(
            note.startswith(("left out, tells of treatment", "left out, states the diagnosis"))
            for note in case.structured.notes
        )


def test_real_medrbench_cases_are_read_or_refused_by_name() -> None:
    cases = list(medrbench.read(shared_data("medrbench/diagnosis_cases.json")))
    assert len(cases) == 352  # 343 summaries, six of which tell two to four patients apart
    assert {case.reason for case in cases if isinstance(case, BadCase)} == {"several_patients"}
    reports = [case for case in cases if isinstance(case, CaseReport)]
    assert len(reports) >= 335
    assert all(case.evaluation_only for case in reports)
    assert sum(len(case.structured.tests) >= 2 for case in reports if case.structured) >= 0.9 * len(
        reports
    )


# --- JATS -------------------------------------------------------------------------------


def test_an_article_becomes_text_with_sections_tables_and_licence(tmp_path: Path) -> None:
    case = only(write(tmp_path / "PMC1.xml", article()))
    assert case.case_id == "PMC1"
    assert case.title == "A rare fever"
    assert case.licence == "https://creativecommons.org/licenses/by/4.0/"
    assert (
        "Case\n\nA man of 40 years had fever and 9 × 10^9/L leukocytes (see Figure 1). Then he was"
        " better." in case.text
    )
    assert "Table 1\n\nTests\n\nTest | Result\n\nCRP | 120 mg/L" in case.text


def test_what_is_no_case_report_is_refused(tmp_path: Path) -> None:
    assert (
        refusal(write(tmp_path / "a.xml", article("research-article"))).reason
        == "not_a_case_report"
    )
    empty = re.sub(
        r"<body>.*</body>", "<body><p>See the PDF.</p></body>", article(), flags=re.DOTALL
    )
    assert refusal(write(tmp_path / "a.xml", empty)).reason == "empty_body"


DATES = {
    '<pub-date pub-type="ppub"><year>2016</year></pub-date>': "2016",
    '<pub-date pub-type="ppub"><month>2</month><year>2016</year></pub-date>': "2016-02",
    '<pub-date pub-type="collection"><year>2015</year></pub-date>'
    '<pub-date pub-type="epub"><day>3</day><month>1</month>'
    "<year>2016</year></pub-date>": "2016-01-03",
    '<pub-date date-type="pub"><day>31</day><month>2</month>'
    "<year>2016</year></pub-date>": "2016-02",
    '<pub-date pub-type="ppub"><season>Spring</season><year>2016</year></pub-date>': "2016",
    '<pub-date pub-type="pmc-release"><day>3</day><month>1</month>'
    "<year>2017</year></pub-date>": None,
    "": None,
}


@pytest.mark.parametrize("dates", DATES)
def test_the_date_is_as_precise_as_known(tmp_path: Path, dates: str) -> None:
    case = only(
        write(tmp_path / "PMC1.xml", article().replace("<permissions>", f"{dates}<permissions>"))
    )
    assert case.meta.get("date") == DATES[dates]


def test_what_is_told_of_the_publication_is_kept(tmp_path: Path) -> None:
    ids = (
        '<article-id pub-id-type="pmcid">12</article-id><article-id'
        ' pub-id-type="doi">10.1/x</article-id><title-group>'
    )
    text = (
        article()
        .replace("<title-group>", ids)
        .replace("<article-meta>", f"{JOURNAL}<article-meta>")
    )
    assert only(write(tmp_path / "a.xml", text)).meta == {
        "pmcid": "PMC12",
        "doi": "10.1/x",
        "journal": "Fevers",
        "article_type": "case-report",
    }


JOURNAL = (
    "<journal-meta><journal-title-group><journal-title>Fevers</journal-title>"
    "</journal-title-group></journal-meta>"
)
NAMESPACED = article().replace(
    "<article ", '<article xmlns="https://jats.nlm.nih.gov/ns/archiving/1.4/" '
)


def test_names_of_a_namespace_and_efetch_answers_are_read_alike(tmp_path: Path) -> None:
    plain = only(write(tmp_path / "a.xml", article()))
    head, root, rest = article().partition("<article ")
    wrapped = f"{head}<pmc-articleset>{root}{rest}</pmc-articleset>"
    for text in (NAMESPACED, wrapped):
        case = only(write(tmp_path / "b.nxml", text))
        assert (case.text, case.licence, case.title) == (plain.text, plain.licence, plain.title)


def test_a_licence_told_as_an_element_is_found(tmp_path: Path) -> None:
    text = re.sub(r"<license .*?</license>", LICENCE_REF, article(), flags=re.DOTALL)
    assert (
        only(write(tmp_path / "a.xml", text)).licence
        == "https://creativecommons.org/licenses/by/4.0/"
    )


LICENCE_REF = (
    "<license><ali:license_ref"
    ' xmlns:ali="http://www.niso.org/schemas/ali/1.0/">https://creativecommons.org/licenses/by/4.0/'
    "</ali:license_ref><license-p>Open.</license-p></license>"
)

NO_LICENCE = re.sub(r"<permissions>.*</permissions>", "", article(), flags=re.DOTALL)
RETRACTED = {
    "the notice": article("retraction"),
    "a link to the notice": article().replace(
        "<permissions>", '<related-article related-article-type="retraction-forward"/><permissions>'
    ),
    "a word before the title": article().replace("A <italic>rare", "RETRACTED: A <italic>rare"),
}


def test_a_case_without_a_licence_needs_leave(tmp_path: Path) -> None:
    write(tmp_path / "a.xml", NO_LICENCE)
    write(
        tmp_path / "b.json", {key: value for key, value in STRUCTURED.items() if key != "licence"}
    )
    write(tmp_path / "c.json", STRUCTURED | {"case_id": "blank", "licence": " "})
    for case in read_cases(tmp_path):
        assert isinstance(case, BadCase)
        assert case.reason == "no_licence"
        assert "--allow unlicensed" in case.message
        assert case.path in case.message
    allowed = list(read_cases(tmp_path, frozenset({"unlicensed"})))
    assert len(allowed) == 3
    assert all(isinstance(case, CaseReport) for case in allowed)


def test_another_article_needs_leave(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", article("research-article"))
    assert "--allow any-article" in refusal(path).message
    (case,) = read_cases(path, frozenset({"any-article"}))
    assert isinstance(case, CaseReport)
    assert case.meta["article_type"] == "research-article"


@pytest.mark.parametrize("mark", RETRACTED)
def test_a_retracted_article_is_refused_whatever_is_allowed(tmp_path: Path, mark: str) -> None:
    path = write(tmp_path / "a.xml", RETRACTED[mark])
    (bad,) = read_cases(path, frozenset({"unlicensed", "any-article"}))
    assert isinstance(bad, BadCase)
    assert bad.reason == "retracted"


def test_a_title_about_retracting_is_no_retraction(tmp_path: Path) -> None:
    text = article().replace(
        "A <italic>rare</italic> fever", "Retracted nipples and withdrawn patients: a fever"
    )
    assert only(write(tmp_path / "a.xml", text)).title.startswith("Retracted nipples")


def test_an_unknown_leave_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="any-article"):
        list(read_cases(tmp_path, frozenset({"unlicenced"})))


def test_text_in_nested_paragraphs_comes_once(tmp_path: Path) -> None:
    nested = "<p>Outer <disp-quote><p>inner</p></disp-quote> and <p>deeper</p> words.</p><p>More"
    case = only(write(tmp_path / "a.xml", article().replace("<p>More", nested, 1)))
    assert "Outer and words.\n\ninner\n\ndeeper" in case.text


def test_real_articles_have_title_licence_sections_and_body() -> None:
    *cases, folder = read_cases(shared_data("pmc_jats"))
    assert len(cases) == 33  # 32 articles, one of which has two patients
    assert "not_case_reports" in str(folder)
    for case in cases:
        assert isinstance(case, CaseReport)
        assert case.title
        assert case.licence
        assert "Creative Commons" in case.licence or "creativecommons" in case.licence
        assert len(case.text) > 4000
        assert case.case_id.partition("-")[0] == case.meta["pmcid"]
        assert re.fullmatch(r"2016-\d\d-\d\d", case.meta["date"])
        assert case.meta["doi"].startswith("10.")
        assert case.meta["journal"]
        assert case.text.count("\n\n") >= 5
        assert "</" not in case.text


def test_real_research_articles_are_refused() -> None:
    cases = list(read_cases(shared_data("pmc_jats/not_case_reports")))
    assert len(cases) == 6
    assert all(isinstance(case, BadCase) and case.reason == "not_a_case_report" for case in cases)


def test_the_structured_part_beside_an_article_is_used(tmp_path: Path) -> None:
    write(tmp_path / "PMC1.xml", article())
    write(tmp_path / "PMC1.json", STRUCTURED)
    case = only(tmp_path)
    assert case.source == "jats"
    assert case.structured is not None
    assert case.structured.synonyms == ("Malta fever",)
    assert case.text.startswith("A rare fever")


HOSTILE = {
    "billion laughs": (
        '<!DOCTYPE article [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
        + "".join(
            f'<!ENTITY {chr(c + 1)} "{f"&{chr(c)};" * 10}">' for c in range(ord("b"), ord("k"))
        )
        + ']><article article-type="case-report"><body><p>&k;</p></body></article>'
    ),
    "external entity": (
        '<!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        '<article article-type="case-report"><body><p>&x;</p></body></article>'
    ),
    "deep nesting": '<article article-type="case-report">'
    + "<sec>" * 10_000
    + "</sec>" * 10_000
    + "</article>",
    "not XML": "GIF89a",
    "truncated": article()[:600],
    "wrong root": "<html><body>case report</body></html>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_refused_fast(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "PMC1.xml", HOSTILE[name])
    start = time.thread_time()
    bad = refusal(path)
    assert time.thread_time() - start < 1
    assert bad.reason == ("hostile_xml" if "ENTITY" in HOSTILE[name] else "bad_xml")
    assert bad.path == str(path)
    assert "root:" not in str(bad)


def test_entities_in_utf16_are_seen_too(tmp_path: Path) -> None:
    path = tmp_path / "PMC1.xml"
    path.write_bytes(HOSTILE["external entity"].encode("utf-16"))
    assert refusal(path).reason == "hostile_xml"


def test_an_oversized_article_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "PMC1.xml"
    with path.open("wb") as file:
        file.truncate(jats.MAX_ARTICLE_BYTES + 1)
    start = time.thread_time()
    assert refusal(path).reason == "too_large"
    assert time.thread_time() - start < 0.5


def test_a_file_s_name_becomes_an_id_that_can_name_files(tmp_path: Path) -> None:
    write(tmp_path / "PMC 1;rm.xml", article())
    write(tmp_path / "..PMC2.xml", article())
    bad, good = read_cases(tmp_path)
    assert isinstance(bad, BadCase)
    assert bad.reason == "unsafe_id"
    assert isinstance(good, CaseReport)
    assert good.case_id == "PMC-1-rm"


# --- our own form, and what is at a path ------------------------------------------------

STRUCTURED = {
    "case_id": "case-1",
    "title": "A fever",
    "licence": "CC BY 4.0",
    "initial_observation": "A 41-year-old cheesemaker has had evening fevers for five weeks.",
    "diagnosis": "Brucellosis",
    "diagnosis_synonyms": ["Malta fever"],
    "tests": [
        {
            "name": "Blood culture",
            "category": "laboratory",
            "result": "Brucella melitensis after 9 days.",
            "aliases": ["BC"],
        },
        {"name": "MRI lumbar spine", "result": "Edema of the L4 end plate."},
    ],
}


def test_a_lone_structured_case_is_a_case(tmp_path: Path) -> None:
    case = only(write(tmp_path / "any.json", STRUCTURED))
    assert case.case_id == "case-1"
    assert case.structured is not None
    assert [test.category for test in case.structured.tests] == ["laboratory", "imaging"]
    assert case.structured.tests[0].aliases == ("BC",)
    assert "Brucella melitensis after 9 days." in case.text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"tests": {}}, "list"),
        ({"tests": [{"name": "CT"}]}, "result"),
        ({"tests": [{"name": "CT", "result": "x", "category": "magic"}]}, "category"),
        ({"diagnosis": 7}, "diagnosis"),
        ({"dignosis_synonyms": []}, "dignosis_synonyms"),
        ({"case_id": "../../etc"}, "case id"),
    ],
)
def test_a_faulty_structured_case_names_its_field(
    tmp_path: Path, change: dict[str, object], word: str
) -> None:
    bad = refusal(write(tmp_path / "any.json", STRUCTURED | change))
    assert bad.reason in ("bad_field", "unsafe_id")
    assert word in bad.message


def test_duplicate_ids_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.json", STRUCTURED)
    write(tmp_path / "b.json", STRUCTURED)
    first, second = read_cases(tmp_path)
    assert isinstance(first, CaseReport)
    assert isinstance(second, BadCase)
    assert second.reason == "duplicate_id"
    assert second.path.endswith("b.json")


def test_rows_of_two_files_with_equal_numbers_are_two_cases(tmp_path: Path) -> None:
    """AgentClinic's own folder holds several files of rows without ids."""
    other = json.loads(json.dumps(OSCE).replace("Heavy periods", "Pale skin"))
    write(tmp_path / "medqa.jsonl", json.dumps(OSCE))
    write(tmp_path / "medqa_extended.jsonl", "\n".join(map(json.dumps, (other, OSCE))))
    write(tmp_path / "medqa_extended_2.jsonl", json.dumps(OSCE))
    *cases, copy = read_cases(tmp_path)
    ids = [case.case_id for case in cases if isinstance(case, CaseReport)]
    assert ids == ["agentclinic-0000", "agentclinic-0000-medqa_extended", "agentclinic-0001"]
    assert isinstance(copy, BadCase)
    assert copy.reason == "duplicate_id"


def test_an_unknown_file_in_a_folder_does_not_stop_the_others(tmp_path: Path) -> None:
    write(tmp_path / "a.json", [1, 2])
    write(tmp_path / "b.json", STRUCTURED)
    (tmp_path / "c.json").write_bytes(b"\xff\xfe\x00broken")
    write(tmp_path / "d.json", "[" * 100_000)
    reasons = [
        case.reason if isinstance(case, BadCase) else case.case_id for case in read_cases(tmp_path)
    ]
    assert reasons == ["unknown_format", "case-1", "bad_encoding", "bad_json"]


def test_nothing_to_read_is_said_clearly(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadCase, match="no_cases"):
            list(read_cases(path))
    with pytest.raises(BadCase, match=r"unknown_format.*case-format"):
        list(read_cases(write(tmp_path / "notes.csv", "hello")))


@pytest.mark.parametrize("name", ["agentclinic", "medrbench", "pmc_jats"])
def test_real_data_needs_no_leave(name: str) -> None:
    refused = [case.reason for case in read_cases(shared_data(name)) if isinstance(case, BadCase)]
    # 'not_read': the folder of articles that are no case reports.
    assert set(refused) <= {"several_patients", "not_read"}


def test_a_folder_holds_articles_archives_and_cases_alike(tmp_path: Path) -> None:
    write(tmp_path / "PMC1.nxml", article())
    write(tmp_path / "b.json", STRUCTURED)
    write(tmp_path / "c.jsonl", json.dumps(OSCE))
    with tarfile.open(tmp_path / "d.tar.gz", "w:gz") as archive:
        archive.add(write(tmp_path / "PMC2.part", article()), "PMC000xxxxxx/PMC2.xml")
    assert [case.case_id for case in read_cases(tmp_path)] == [
        "PMC1",
        "case-1",
        "agentclinic-0000",
        "PMC2",
        "",  # PMC2.part is of no form that is read
    ]


def test_a_text_is_a_case_and_a_note_on_the_folder_is_none(tmp_path: Path) -> None:
    report = "licence: CC BY 4.0\n\n# A fever\n\n" + "A man of 40 years had fever. " * 20
    for name in ("case.md", "case2.txt", "README.md", "LICENSE.txt"):
        write(tmp_path / name, report)
    assert [case.case_id for case in read_cases(tmp_path)] == ["case", "case2"]
    assert only(tmp_path / "case.md").licence == "CC BY 4.0"


def test_cases_in_lines_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    row = {
        "id": 7,
        "question": "What is the most likely diagnosis?",
        "context": [
            "A man of 40 years has had fever for two weeks.",
            "He keeps goats and drinks their milk raw.",
        ]
        * 4,
        "options": {"A": "Brucellosis", "B": "Gout"},
        "answer": "Brucellosis",
        "answer_idx": "A",
    }
    assert only(write(tmp_path / "a.jsonl", "\n" + json.dumps(row))).source == "mediq"
    assert only(write(tmp_path / "b.jsonl", json.dumps(OSCE))).source == "agentclinic"


def test_a_phenopacket_is_told_from_other_json(tmp_path: Path) -> None:
    disease = {"id": "MONDO:0005683", "label": "brucellosis"}
    packet = {
        "id": "p",
        "subject": {"id": "s", "sex": "MALE"},
        "phenotypicFeatures": [{"type": {"id": "HP:0001945", "label": "Fever"}}],
        "diseases": [{"term": disease}],
        "metaData": {"phenopacketSchemaVersion": "2.0"},
    }
    path = write(tmp_path / "p.json", packet)
    (case,) = read_cases(path, frozenset({"unlicensed"}))
    assert case.case_id == "p"
    assert not isinstance(case, BadCase), case
    assert case.source == "phenopackets"


def test_an_article_of_an_archive_is_called_by_its_pmcid(tmp_path: Path) -> None:
    numbered = article().replace(
        "<title-group>", '<article-id pub-id-type="pmc">PMC77</article-id><title-group>'
    )
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(write(tmp_path / "part", numbered), "PMC77/main (1).nxml")
    assert only(tmp_path / "a.tar.gz").case_id == "PMC77"


def test_the_shipped_samples_are_read() -> None:
    cases = list(read_cases(SAMPLES))
    assert cases
    assert all(isinstance(case, CaseReport) and case.structured for case in cases)
    assert case_json.is_case(json.loads(next(SAMPLES.glob("*.json")).read_text(encoding="utf-8")))
