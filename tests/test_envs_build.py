"""Building environments, and the checks that refuse them."""

import re
import time
from collections import Counter
from dataclasses import replace

import pytest

from medaction.envs import checks
from medaction.envs.build import build_environment, tidy
from medaction.envs.checks import is_told
from medaction.envs.documented import asserted, is_documented
from medaction.envs.records import BadCase, Built, CaseReport, DocumentedTest, StructuredCase
from medaction.envs.sources import read_cases
from tests.conftest import shared_data
from tests.records import environment_of, refusal_of

TESTS = (
    DocumentedTest("CT chest", "imaging", "A 3 cm mass in the right upper lobe."),
    DocumentedTest("Hemoglobin", "laboratory", "9.1 g/dL"),
)
CASE = StructuredCase(
    "A 60-year-old smoker has coughed up blood for two weeks and lost 5 kg.",
    TESTS,
    "Lung adenocarcinoma",
)


def report(case: StructuredCase | None = CASE, text: str = "") -> CaseReport:
    lines = [case.initial_observation] if case else []
    lines += [f"{test.name}: {test.result}" for test in case.tests] if case else []
    return CaseReport(
        "case-1",
        "case_json",
        "A title",
        text or "\n".join(lines),
        path="case-1.json",
        structured=case,
    )


def refused(case: StructuredCase, text: str = "") -> str:
    refusal = refusal_of(report(case, text))
    assert refusal.case_id == "case-1"
    return refusal.reason


LONG = (
    "A 60-year-old smoker has coughed up blood for two weeks and lost 5 kg. He has "
    "worked in a shipyard for thirty years and lives "
    "with his wife. He takes ramipril for high blood pressure. The left lung base is "
    "dull to percussion and the fingers are clubbed. "
    "Temperature is 37.1 degrees, pulse 88 a minute and blood pressure 132 over 84."
)


def what_is_cut(case: StructuredCase) -> str:
    """What a leak in the last sentence of LONG comes to: it is cut whole, and noted."""
    environment = environment_of(report(case))
    assert environment.initial_observation == LONG
    mark = "cut from the initial observation: "
    notes = [
        warning.removeprefix(mark) for warning in environment.warnings if warning.startswith(mark)
    ]
    assert f"{LONG} {' '.join(notes)}" == case.initial_observation.replace("\u200b", "")
    return " ".join(notes)


def test_a_good_case_becomes_an_environment() -> None:
    environment = environment_of(report())
    assert environment.menu == TESTS
    assert environment.diagnosis == "Lung adenocarcinoma"
    assert environment.warnings == ()
    assert environment.environment_id == environment_of(report()).environment_id
    changed = environment_of(
        report(replace(CASE, initial_observation=CASE.initial_observation + " No fever."))
    )
    assert changed.environment_id != environment.environment_id


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (replace(CASE, diagnosis="?"), "has_diagnosis"),
        (replace(CASE, initial_observation="A man."), "has_initial_observation"),
        (replace(CASE, initial_observation=""), "has_initial_observation"),
        (replace(CASE, tests=()), "min_tests"),
        (
            replace(CASE, initial_observation="CT: a 3 cm mass in the right upper lobe of a man"),
            "no_result_in_o1",
        ),
        (replace(CASE, diagnosis="Саркоидоз"), "readable_script"),
    ],
)
def test_a_failed_check_is_the_reason(case: StructuredCase, reason: str) -> None:
    assert refused(case) == reason


def test_the_smallest_menu_is_a_parameter() -> None:
    assert len(environment_of(report(replace(CASE, tests=TESTS[:1])), min_tests=1).menu) == 1
    assert refusal_of(report(), min_tests=3).reason == "min_tests"


@pytest.mark.parametrize(
    ("diagnosis", "synonyms", "leak"),
    [
        ("Asthma", (), "He was told that it is not asthma"),
        ("Asthma", (), "Past history of ASTHMA"),
        ("Hirschsprung disease", (), "A brother has Hirschsprung's"),
        ("Acute myeloid leukemia", (), "an acute leukaemia of the myeloid kind was feared"),
        ("Systemic lupus erythematosus (SLE)", (), "her mother has SLE"),
        ("Multiple system atrophy", (), "MSA?"),
        (
            "Septic arthritis of the knee",
            (),
            "the knee was thought to have arthritis, septic in kind",
        ),
        ("Quadriparesis due to primary hyperaldosteronism", (), "hyperaldosteronism was found"),
        ("Brucellosis", ("Malta fever",), "an uncle had Malta fever"),
        ("Granulomatosis with polyangiitis", (), "granulomatosis"),
        ("Cystic fibrosis", (), "cystic  fibrosis"),
        ("Pulmonary sparganosis", (), "he was told of sparganosis"),
        ("Febuxostat-induced agranulocytosis", (), "agranulocytosis came after febuxostat"),
        (
            "Recurrent *Elizabethkingia anophelis* bacteremia of a device",
            (),
            "Elizabethkingia anophelis grew before",
        ),
        ("Metastatic papillary thyroid carcinoma", (), "a thyroid carcinoma was removed"),
        ("Sarcoidosis (Besnier-Boeck disease)", (), "Besnier-Boeck disease was named"),
        (
            "Lung adenocarcinoma",
            (),
            "a lung adeno\u200bcarcinoma and a lung adeno-carcinoma were seen",
        ),
        ("Lung adenocarcinoma", (), "pulmonary adenocarcinoma runs in the family"),
        ("Pulmonary embolism", ("PE",), "he feared a PE"),
        ("Gastrointestinal stromal tumor (GIST)", (), "an uncle had GISTs"),
        ("Pleural tuberculosis", (), "tuberculous pleurisy in childhood"),
        ("Sarcoidosis", (), "sarcoid was suspected"),
        ("Tuberculosis of the spine", (), "antituberculosis tablets were given"),
        ("EGFR-mutant lung adenocarcinoma", (), "EGFR was spoken of"),
        ("Pancreatic adenocarcinoma", (), "his sister died of pancreatic cancer"),
        ("KCNQ2 encephalopathy", (), "his brother carries a variant of KCNQ2"),
        ("Legionella pneumophila pneumonia", (), "a pneumonia was suspected"),
        ("Left-sided isolated ovarian torsion", (), "an ovarian torsion was feared"),
        ("Autosomal dominant polycystic kidney disease type 1", (), "his mother has ADPKD"),
        (
            "Pulmonary tuberculosis",
            (),
            "he had pulmonary tuberculosis and left against medical advice",
        ),
        ("Pulmonary tuberculosis", (), "drugs for pulmonary tuberculosis, he reports no relief"),
        ("Pulmonary tuberculosis", (), "he mentions not feeling well with pulmonary tuberculosis"),
    ],
)
def test_a_name_of_the_diagnosis_in_the_observation_is_a_leak(
    diagnosis: str, synonyms: tuple[str, ...], leak: str
) -> None:
    case = replace(CASE, diagnosis=diagnosis, synonyms=synonyms)
    assert environment_of(report(case)).diagnosis == diagnosis
    leaking = replace(case, initial_observation=f"{leak}. {CASE.initial_observation}")
    assert not checks.no_diagnosis_in_o1(report(leaking), leaking).passed
    assert refused(leaking) == "no_diagnosis_in_o1", "the first sentence is never cut"
    assert what_is_cut(replace(case, initial_observation=f"{LONG} {leak}.")) == f"{leak}.".replace(
        "\u200b", ""
    )


@pytest.mark.parametrize(
    ("diagnosis", "harmless"),
    [
        ("Hypothyroidism", "No sign of hyperthyroidism"),
        ("Parkinson disease", "no parkinsonism"),
        ("Gonococcal urethritis", "a urethral discharge"),
        ("Bacterial meningitis", "meningeal signs"),
        ("Subacute thyroiditis", "a firm, tender thyroid"),
        ("Situational syncope", "She had one syncope"),
        ("Kidney disease", "Kidney size is normal"),
        ("Lung cancer", "No cancer in the family; lungs clear"),
        ("Thalassemia", "A tall man"),
        ("Acute lymphoblastic leukemia", "all went well"),
        ("Gout", "gouty habits? no"),
        ("Reactive arthritis", "Her mother has rheumatoid arthritis"),
        ("Neonatal respiratory distress syndrome", "Respiratory distress since birth"),
        ("Febuxostat-induced agranulocytosis", "takes febuxostat"),
        ("Septic arthritis of the sacroiliac joint (SIJ)", "The SIJ is tender"),
        ("Benign paroxysmal positional vertigo", "She has position dependent vertigo"),
    ],
)
def test_another_word_is_no_leak(diagnosis: str, harmless: str) -> None:
    case = replace(
        CASE, diagnosis=diagnosis, initial_observation=f"{CASE.initial_observation} {harmless}."
    )
    assert environment_of(report(case)).diagnosis == diagnosis


@pytest.mark.parametrize(
    ("sentence", "stays", "cut"),
    [
        # an item of a list, an aside, a line of its own with its label
        (
            "Physical Examination: Clubbed, as in lung adenocarcinoma, no edema.",
            "Physical Examination: Clubbed, no edema.",
            1,
        ),
        (
            "Chief Complaint: Hemoptysis (lung adenocarcinoma) for two weeks.",
            "Chief Complaint: Hemoptysis for two weeks.",
            1,
        ),
        ("Family History: Lung adenocarcinoma in a brother.", "", 1),
        (
            "Course: He had headaches without signs of lung adenocarcinoma.",
            "Course: He had headaches.",
            1,
        ),
        ("Course: He was discharged home on day five.", "", 1),
        (
            "Imaging: a 3 cm mass in the right upper lobe. He was told to come back.",
            "Imaging: He was told to come back.",
            1,
        ),
        ("Before: Hemoglobin was 9.1 g/dL. He felt tired.", "Before: He felt tired.", 1),
        ("Course: He was pronounced dead at noon.", "", 1),
        # what is no leak stays as it is
        ("Before: Hemoglobin was known to be low.", None, 0),
        (
            "Family History: His father died of a stroke; his brother was discharged "
            "from the army.",
            None,
            0,
        ),
        ("Past Medical History: Cataract surgery with an uneventful recovery.", None, 0),
        ("Past Medical History: Diagnosis: asthma at school.", None, 0),
        ("Before: He was born at term and discharged home after two days.", None, 0),
        ("Before: The wound on his leg grew larger.", None, 0),
        ("Before: For a year he had anemia with no identified cause.", None, 0),
        ("Present Illness: She was discovered weak, with a distended bowel.", None, 0),
        ("Diagnoses: asthma and gout since 2010.", None, 0),
        (
            "Before: Two years ago, he was told of gout, without signs of lung adenocarcinoma.",
            "Before: Two years ago, he was told of gout.",
            1,
        ),
    ],
)
def test_what_must_not_be_told_is_cut_whole(sentence: str, stays: str | None, cut: int) -> None:
    environment = environment_of(report(replace(CASE, initial_observation=f"{LONG}\n{sentence}")))
    assert (
        environment.initial_observation == f"{LONG}\n{sentence if stays is None else stays}".strip()
    )
    assert sum(warning.startswith("cut from") for warning in environment.warnings) == cut
    assert environment.menu == TESTS


def test_a_leaking_complaint_or_too_many_leaks_are_refused() -> None:
    leak = (
        "Lung adenocarcinoma was known from a biopsy taken elsewhere, where it had been "
        "treated with tablets for a year or more."
    )
    for passage in (
        f"{LONG}\nChief Complaint: Follow-up of lung adenocarcinoma.",
        f"{LONG} {leak} {leak} {leak} {leak}",
    ):
        built = build_environment(report(replace(CASE, initial_observation=passage)))
        assert built.refusal is not None
        assert built.refusal.reason == "no_diagnosis_in_o1"
    figures = {check.name: check.figure for check in built.checks}
    assert figures["redaction"] > 0.5


def test_vital_signs_that_the_observation_tells_are_no_test() -> None:
    passage = "Temperature is 37.1 degrees, pulse 88 a minute and blood pressure 132 over 84"
    vitals = DocumentedTest("Vital signs at presentation", "physiologic", passage)
    environment = environment_of(
        report(replace(CASE, initial_observation=LONG, tests=(*TESTS, vitals)))
    )
    assert environment.menu == TESTS


def test_a_quote_holds_the_numbers_of_its_result() -> None:
    quoted = replace(TESTS[1], quote="Hemoglobin: 9.1 g/dL")
    assert environment_of(report(replace(CASE, tests=(TESTS[0], quoted)))).menu[1].quote
    for wrong in ("Hemoglobin was low", "The hemoglobin stood at 9.1 on the day after that"):
        assert (
            refused(replace(CASE, tests=(TESTS[0], replace(quoted, quote=wrong))))
            == "quotes_grounded"
        )


@pytest.mark.parametrize(
    ("diagnosis", "passage"),
    [
        (
            "Pancreatic metastasis from renal cell carcinoma",
            "Renal cell carcinoma was resected two years ago.",
        ),
        (
            "Coronary vasospasm secondary to eosinophilic vasculitis",
            "Past Medical History: Eosinophilic vasculitis.",
        ),
        (
            "Cardiac arrest due to a ruptured coronary aneurysm",
            "Chief Complaint: Cardiac arrest while rowing.",
        ),
        ("Left rib fracture and sternal fracture", "A sternal fracture was known."),
        (
            "Paradoxical tuberculosis immune reconstitution inflammatory syndrome",
            "Three months ago tuberculosis was diagnosed.",
        ),
    ],
)
def test_what_the_patient_brings_along_is_not_what_is_asked(diagnosis: str, passage: str) -> None:
    case = replace(CASE, diagnosis=diagnosis, initial_observation=f"{LONG}\n{passage}")
    environment = environment_of(report(case))
    assert environment.initial_observation == case.initial_observation
    assert any(warning.startswith("no_known_disease_in_o1") for warning in environment.warnings)
    answer_part = re.split(r" (?:from|secondary to|due to|and) ", diagnosis)[
        -1 if "arrest" in diagnosis else 0
    ]
    assert refused(
        replace(
            case,
            initial_observation=f"It was said to be {answer_part.lower()}."
            f" {case.initial_observation}",
        )
    )


@pytest.mark.parametrize(
    ("diagnosis", "passage"),
    [
        ("Recurrent volvulus of the cecum", "She had had a volvulus of the cecum a year ago."),
        ("Recurrent Crohn disease", "Known Crohn disease since childhood."),
        (
            "Relapse of lymphoma with progression to infiltrative optic neuropathy",
            "In 2021 the loss of his sight was progressing to optic neuropathy.",
        ),
        ("Lobar pneumonia and empyema", "He was thought to have lobar pneumonia."),
    ],
)
def test_a_disease_that_is_the_answer_is_cut_though_it_was_known(
    diagnosis: str, passage: str
) -> None:
    environment = environment_of(
        report(replace(CASE, diagnosis=diagnosis, initial_observation=f"{LONG} {passage}"))
    )
    assert environment.initial_observation == LONG


@pytest.mark.parametrize(
    ("diagnosis", "passage", "remainder"),
    [
        (
            "Drug-induced chylothorax",
            "No history of trauma or other known causes of chylothorax.",
            " No history of trauma.",
        ),
        (
            "Catamenial pneumothorax",
            "She denies trauma, surgery or other reasons for a pneumothorax.",
            " She denies trauma, surgery.",
        ),
        ("Limb ischemia", "He takes drugs for ischemic cardiomyopathy.", None),
        ("Crohn disease", "He lives with HIV, and his CD4 cells fell.", None),
        ("Multiple endocrine neoplasia type 1", "His mother has MEN1.", ""),
        ("Tophi and gout", "Given his gout, he was offered cherries.", ""),
    ],
)
def test_what_stands_beside_the_answer_stays(
    diagnosis: str, passage: str, remainder: str | None
) -> None:
    case = replace(CASE, diagnosis=diagnosis, initial_observation=f"{LONG} {passage}")
    right = f" {passage}" if remainder is None else remainder
    assert environment_of(report(case)).initial_observation == f"{LONG}{right}"


def test_an_abbreviation_that_the_report_declares_is_a_leak() -> None:
    case = replace(
        CASE,
        diagnosis="Undifferentiated nasopharyngeal carcinoma",
        initial_observation=f"{LONG} No signs of NPC.",
    )
    assert environment_of(report(case)).initial_observation == case.initial_observation
    text = f"{report(case).text}\nNasopharyngeal carcinoma (NPC) is rare here."
    assert environment_of(report(case, text)).initial_observation == LONG


def test_a_result_in_other_words_is_cut() -> None:
    mri = DocumentedTest(
        "MRI of the brain",
        "imaging",
        "Two enhancing nodules in the left cerebellum with surrounding edema.",
    )
    passage = "An MRI had revealed cerebellar nodules that took up contrast, and edema."
    case = replace(CASE, tests=(*TESTS, mri), initial_observation=f"{LONG} {passage}")
    assert environment_of(report(case)).initial_observation == LONG
    planned = replace(case, initial_observation=f"{LONG} An MRI had been planned.")
    assert environment_of(report(planned)).initial_observation == planned.initial_observation


TRIPLE = {"ALT": 0, "Creatinine": 0, "Ferritin": 0}


@pytest.mark.parametrize(
    ("observation", "entries"),
    [
        ("Ultrasound elsewhere had revealed a cyst of the liver.", {"Ultrasound": 0}),
        ("AFP was 812 ng/mL and a solid mass was seen on MRI.", {"AFP": 0, "MRI": 0}),
        ("A serum quintozyme of 812 ng/mL was noted.", {"Serum quintozyme": 0}),
        ("He was found to carry a variant of MYH7.", {"Genetic testing": 0}),
        ("He carries a variant of MYH7, like his aunt.", {"Genetic testing": 0}),
        ("He had coughed before, CT had shown nodules, and he slept badly.", {"CT": 0}),
        ("There were no abnormalities on plain X-rays.", {"Plain X-rays": 0}),
        ("Many cysts were observed on imaging.", {"Imaging": 0}),
        ("Blood tests had shown anemia.", {"Laboratory tests": 0}),
        ("He has a cyst, with biopsy suggesting a benign one.", {"Biopsy": 0}),
        ("A chest radiograph was notable for a mass.", {"Chest radiograph": 0}),
        ("Bloods taken before showed a CK of 12,000 U/L.", {"CK": 0}),
        ("His sputum grew acid-fast bacilli.", {"Sputum culture": 0}),
        ("An EEG two weeks ago had spikes.", {"EEG": 0}),
        ("On ultrasound the gallbladder had stones.", {"Ultrasound": 0}),
        ("Investigations elsewhere had revealed lesions.", {"Investigations": 0}),
        ("Intraoperatively, a firm cyst was identified.", {"Operative findings": 0}),
        (
            "Laboratory tests at that time did not reveal anemia, or a decreased renal function.",
            {"Renal function": 0},
        ),
        ("Eosinophilia was seen in blood tests.", {"Laboratory tests": 0}),
        ("He has normal median nerve evoked potentials.", {"Median nerve evoked potentials": 0}),
        ("He has asthma with elevated hs-QZ3 levels.", {"Hs-QZ3": 0}),
        ("A culture later grew a mould.", {"Culture": 0}),
        ("She has gout with a QZ-1/RTF ratio of 77 on admission.", {"QZ-1/RTF ratio": 0}),
        ("He took tablets for Shigella-positive stool.", {"Stool laboratory tests": 0}),
        ("She was told of a 46,XY pattern.", {"Karyotype": 0}),
        ("Bacteria were isolated from two wound cultures.", {"Culture": 0}),
        ("Sodium, taken by her doctor the week before, was 121 mmol/L.", {"Sodium": 0}),
        ("Intraoperative findings of a firm, whitish cyst.", {"Operative findings": 0}),
        (
            "Two fibroids were felt and a third was seen during cesarean section.",
            {"Operative findings": 0},
        ),
        (
            "He has more eosinophils (a kind of white blood cell) on a blood smear.",
            {"Blood smear": 0, "Eosinophils": 0},
        ),
        ("A sister carries the same variant.", {"Genetic testing": 0}),
        ("A sister has the same variant of asthma.", {}),
        ("A sister has the same mutation of exon 3.", {"Genetic testing": 0}),
        ("A sister has the same variant of unknown significance.", {"Genetic testing": 0}),
        ("Sodium, taken by her doctor, had been 121 mmol/L.", {"Sodium": 0}),
        ("A plain film showed a sunburst of the femur.", {"Plain film": 0}),
        ("The aspirate was turbid with 68,000 cells/uL.", {"Aspirate": 0}),
        ("During one of them, a glucose of 31 mg/dL was seen.", {"Glucose": 0}),
        ("He had had a scan that revealed a cyst.", {"Imaging": 0}),
        ("He had had a swab that was positive for MRSA.", {"Laboratory tests": 0}),
        ("Swabs from the throat came back negative.", {"Swabs": 0}),
        ("His HbA1c of 9 % was above the target set for him.", {"HbA1c": 0}),
        ("An abnormal blood smear with target cells led to this visit.", {"Blood smear": 0}),
        ("He has an elevated PSA for which no drug was advised.", {"PSA": 0}),
        ("ALT was high when a drug was advised.", {"ALT": 0}),
        ("ALT, creatinine, as well as ferritin, were all within normal limits.", TRIPLE),
        ("A stool occult blood test was positive.", {"Stool occult blood test": 0}),
        ("Anti-GAD antibodies were negative.", {"Anti-GAD antibodies": 0}),
        ("A CT scan was ordered by his doctor, which was unremarkable.", {"CT scan": 0}),
        ("An ultrasound (at home) was done and no stone was seen.", {"Ultrasound": 0}),
        ("A CT two years ago excluded a bleeding.", {"CT": 0}),
        ("Many giant cells were present in the biopsy sample.", {"Biopsy": 0}),
        ("QZTS13 activity was above 50 %.", {"QZTS13": 0}),
        ("The mass was isodense and had a rim.", {"CT": 0}),
        ("Microscopically, the cyst has a thick wall.", {"Microscopy": 0}),
        ("The pathology report described a cyst.", {"Pathology report": 0}),
        ("However, it was negative for a thrombus.", {"Investigations": 0}),
        ("Causes of severe anemia were ruled out.", {}),
        ("After the platelet count was taken, the dose was increased.", {}),
        ("Her infection can result in sepsis.", {}),
        ("Lachman test was positive, and the gait was normal.", {}),
        ("She had had a CT scan in 2015.", {}),
        ("Had the scan shown a mass, she would know.", {}),
        ("Once the scan shows a mass, she will stay.", {}),
        ("She can go provided that the MRI shows no mass.", {}),
        ("Once the scan had shown a mass, she stayed.", {"Scan": 0}),
        ("Had a CT that showed a cyst of the liver.", {"CT": 0}),
        ("She tested positive for HIV two weeks ago.", {"HIV": 0}),
    ],
)
def test_a_result_that_the_observation_tells_moves_into_the_menu(
    observation: str, entries: dict[str, int]
) -> None:
    environment = environment_of(report(replace(CASE, initial_observation=f"{LONG} {observation}")))
    assert {test.name for test in environment.menu[len(TESTS) :]} == set(entries)
    for test in environment.menu[len(TESTS) :]:
        assert test.result.strip(" .") in observation
        assert test.result not in environment.initial_observation


@pytest.mark.parametrize(
    "seen",
    [
        "Uneven wall with two cysts found at laparotomy; clear ascites.",
        "Atrial flutter with a rapid rate on ECG.",
        "Postoperative findings included thrombocytopenia, anemia, and poor kidney function.",
    ],
)
def test_what_an_operation_or_a_test_has_shown_moves_up_to_its_end(seen: str) -> None:
    observation = f"{LONG}\nPhysical Examination: {seen} Calm."
    environment = environment_of(report(replace(CASE, initial_observation=observation)))
    assert environment.initial_observation == f"{LONG}\nPhysical Examination: Calm."
    assert seen.replace("; ", "\n").strip(".") in environment.menu[-1].result


def test_a_urine_test_is_not_told_by_an_entry_of_the_blood() -> None:
    told = "A urine pregnancy test was positive."
    case = replace(
        CASE,
        initial_observation=f"{LONG} {told}",
        tests=(*TESTS, DocumentedTest("β-hCG", "laboratory", "β-hCG 900 mIU/mL")),
    )
    environment = environment_of(report(case))
    assert environment.menu[-1].name == "Urine pregnancy test"
    assert told in environment.menu[-1].result
    assert told not in environment.initial_observation


@pytest.mark.parametrize(
    ("entry", "observation", "result"),
    [
        # The referring clinic's value beside the own one, under one name.
        (
            "CK: 11,400 U/L",
            "CK was 9,870 U/L elsewhere.",
            "11,400 U/L\nCK was 9,870 U/L elsewhere.",
        ),
        ("Labs: CK 11,400 U/L", "CK was 9,870 U/L.", "CK 11,400 U/L\nCK was 9,870 U/L."),
        ("CA-125: 13 U/mL", "Serum CA-125 was 12 U/mL.", "13 U/mL\nSerum CA-125 was 12 U/mL."),
        ("CK: CK 11,400 U/L", "CK was 11,400 U/L.", "CK 11,400 U/L"),
        ("CBC: Hb 9.1 g/dL", "Hemoglobin was 12.0 g/dL.", "Hb 9.1 g/dL\nHemoglobin was 12.0 g/dL."),
    ],
)
def test_a_further_value_goes_to_the_entry_of_its_test(
    entry: str, observation: str, result: str
) -> None:
    name, _, value = entry.partition(": ")
    case = replace(
        CASE,
        initial_observation=f"{LONG} {observation}",
        tests=(DocumentedTest(name, "laboratory", value),),
    )
    assert [test.result for test in environment_of(report(case)).menu] == [result]


def test_an_entry_of_another_culture_or_specimen_does_not_cover_a_result() -> None:
    for entry, observation in (
        (("Sputum culture", "Sputum culture grew Pseudomonas."), "Culture later grew Klebsiella."),
        (("Urine", "Urine sodium 84 mmol/L."), "Sodium was 121 mmol/L."),
        (("CSF", "Glucose 20 mg/dL."), "Glucose was 310 mg/dL."),
    ):
        case = replace(
            CASE,
            initial_observation=f"{LONG} {observation}",
            tests=(DocumentedTest(entry[0], "laboratory", entry[1]),),
        )
        assert observation in [test.result for test in environment_of(report(case)).menu]


@pytest.mark.parametrize(
    ("observation", "rest"),
    [
        (
            "A 55-year-old man in whom two attacks of pain had occurred and an ECG showed a block.",
            "A 55-year-old man in whom two attacks of pain had occurred.",
        ),
        ("A 55-year-old man in whom a CT had shown a nodule and a mass.", "A 55-year-old man."),
        (
            "A 55-year-old retired man in whom a CT had shown a nodule.",
            "A 55-year-old retired man.",
        ),
        (
            "A 55-year-old married woman referred after a mammogram revealed clusters.",
            "A 55-year-old married woman.",
        ),
        ("A 17-year-old boy who was well until an EEG showed spikes.", "A 17-year-old boy."),
        ("A 55-year-old man with a lung adenocarcinoma for two days.", "A 55-year-old man."),
    ],
)
def test_the_first_sentence_ends_before_the_result(observation: str, rest: str) -> None:
    case = replace(CASE, initial_observation=f"{observation} {LONG}")
    assert environment_of(report(case)).initial_observation == f"{rest} {LONG}"


def test_a_sentence_with_a_verb_of_its_own_stays_without_its_result() -> None:
    told = "He had fever for a week, was found on CT to have nodules, and took antibiotics."
    case = replace(CASE, initial_observation=f"{LONG} {told}")
    assert "He had fever for a week." in environment_of(report(case)).initial_observation


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("in whom a routine chest radiograph had shown a nodule of 3 cm.", "Chest radiograph"),
        ("referred after a mammogram revealed clustered microcalcifications.", "Mammogram"),
    ],
)
def test_the_first_sentence_tells_the_patient_without_the_result(told: str, name: str) -> None:
    case = replace(CASE, initial_observation=f"A 55-year-old woman {told} {LONG}")
    environment = environment_of(report(case))
    assert environment.initial_observation.startswith("A 55-year-old woman. ")
    assert environment.menu[-1].name == name


@pytest.mark.parametrize(
    "history",
    [
        "He takes 500 mg of paracetamol a day.",
        "He was vaccinated against influenza.",
        "A CT is planned.",
        "His target INR is 2.5.",
        "The swabs got lost.",
        "He was seen by the radiologist.",
        "An echo has been arranged for May.",
        "Blood pressure is 132/84 mmHg and vital signs are normal.",
        "His mother carries a variant of MYH7.",
        "Otoscopy showed a red drum.",
        "He has a history of high cholesterol.",
        "The lithium gave him a tremor.",
        "The insulin made him gain weight.",
        "Her potassium ran out last week.",
        "The MRI took an hour.",
        "The colonoscopy left her sore for days.",
        "The culture shocked him.",
        "He has a history of migraine with the GAA variant.",
        "Two neighbours tested positive for cholera.",
        "The bat that bit him tested positive for rabies.",
        "The well of his village tested high for arsenic.",
        "Her pregnancy was her second. It was unremarkable.",
        "His school results were low.",
        "He is hyperattentive at night.",
        "An ultrasound was done, and the pain was noted to be worse on the right.",
    ],
)
def test_history_and_examination_are_no_results(history: str) -> None:
    case = replace(CASE, initial_observation=f"{LONG} {history}")
    environment = environment_of(report(case))
    assert environment.initial_observation == case.initial_observation
    assert environment.menu == TESTS


@pytest.mark.parametrize(
    ("diagnosis", "history"),
    [
        ("Tuberculosis", "He denied contact with tuberculosis."),
        ("Tuberculosis", "There is no history of tuberculosis."),
        ("Histoplasmosis", "He lives in Ohio, where histoplasmosis is endemic."),
        ("Measles", "He was never vaccinated against measles."),
        ("Toxic hepatitis due to kava", "He drinks kava each evening."),
        ("Metastatic melanoma of the heart", "A melanoma was removed two years ago."),
        ("Liver failure secondary to melanoma", "He had a melanoma two years ago."),
        ("Stump appendicitis", "He had an appendicitis nine years ago."),
        ("Salmonella-induced diarrhea", "Chief complaint: diarrhea."),
        ("Coronary vasospasm due to cocaine", "He snorted cocaine two hours before."),
        ("Cardiac sarcoidosis", "There is no personal or family history of sarcoidosis."),
    ],
)
def test_history_exposure_and_denial_stay(diagnosis: str, history: str) -> None:
    case = replace(CASE, diagnosis=diagnosis, initial_observation=f"{LONG}\n{history}")
    environment = environment_of(report(case))
    assert environment.initial_observation == case.initial_observation
    assert any(warning.startswith("no_known_disease_in_o1") for warning in environment.warnings)


def test_a_symptom_of_the_first_sentence_is_the_complaint() -> None:
    observation = f"A 22-year-old man with diarrhea and hiccups. {LONG}"
    diagnosis = "Diarrhea due to Salmonella enterica"
    case = replace(CASE, diagnosis=diagnosis, initial_observation=observation)
    assert environment_of(report(case)).initial_observation == observation


def test_a_kind_of_test_is_no_gene_that_was_tested() -> None:
    variant = DocumentedTest("Brain scan", "imaging", "a normal variant in MRI, else no lesion")
    fear = f"{LONG}\nCourse: He is afraid of MRI."
    case = replace(CASE, initial_observation=fear, tests=(*CASE.tests, variant))
    assert environment_of(report(case)).initial_observation == fear


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        ("A 4-year-old spayed cat has lost weight and vomits for a week or two.", "not_human"),
        ("An 8-year-old mare with colic since the morning, sweating and rolling.", "not_human"),
        (
            "Patient 1: fever and rash. Patient 2: fever and headache for a week.",
            "several_patients",
        ),
        (
            "P1 had fever at 2 years; P2 had fever and a large spleen at 5 years.",
            "several_patients",
        ),
        ("Two brothers, aged 4 and 6, were brought with fever and rash.", "several_patients"),
        ("Dizygotic twins, a boy and a girl, with a large head and fever.", "several_patients"),
    ],
)
def test_only_one_human_patient_is_built(observation: str, reason: str) -> None:
    assert refused(replace(CASE, initial_observation=observation)) == reason


@pytest.mark.parametrize(
    "observation",
    [
        "A 40-year-old dog breeder has had fever and back pain for five weeks.",
        "A 40-year-old man was bitten by a cat and has had fever for five weeks.",
        "A 9-year-old girl, one of two sisters, has had fever for five weeks.",
        "A 3-year-old boy, a patient of two hospitals, has a hard testis.",
        "A woman with a BMI of 30 and a heart rate of 110 has had fever for five weeks.",
        "Her siblings are healthy. A girl of 5 has had fever and a rash for five weeks.",
        "A couple of weeks of fever have made a man of 40 weak and thin.",
        "A man diagnosed with asthma aged 4 and with eczema aged 6 has had fever for weeks.",
    ],
)
def test_animals_and_others_in_the_history_are_no_patients(observation: str) -> None:
    assert environment_of(report(replace(CASE, initial_observation=observation)))


def test_an_article_of_several_patients_or_an_animal_is_refused_before_a_model_reads_it() -> None:
    def extract(_report: CaseReport) -> StructuredCase:
        raise AssertionError("a model was asked")

    several = "2. Case Presentation\n\n2.1. Case 1\n\nA man.\n\n2.2. Case 2\n\nA woman."
    refusal = refusal_of(report(None, text=several), extract)
    assert refusal.reason == "several_patients"
    assert "Case 1, Case 2" in refusal.message
    animal = replace(report(None, text="A case."), title="Lymphoma in a young dog")
    assert refusal_of(animal, extract).reason == "not_human"


def test_a_check_that_cannot_look_says_so() -> None:
    built = build_environment(report())
    states = {check.name: (check.applicable, check.passed) for check in built.checks}
    assert states["results_grounded"] == (False, False)
    assert built.environment
    assert built.environment.warnings == ()
    beside_an_article = replace(report(), source="jats")
    states = {check.name: check.passed for check in build_environment(beside_an_article).checks}
    assert states["results_grounded"]


@pytest.mark.parametrize(
    ("observation", "diagnosis"),
    [
        ("Un homme de 61 ans tousse. Le scanner montrait une masse. Il est guéri.", "Carcinome"),
        ("Мужчина 59 лет с болью в груди. На ЭКГ подъём сегмента. Выписан.", "Инфаркт"),
    ],
)
def test_what_only_english_words_show_is_not_passed_in_another_language(
    observation: str, diagnosis: str
) -> None:
    case = replace(CASE, initial_observation=observation, diagnosis=diagnosis)
    built = build_environment(report(case))
    states = {check.name: (check.applicable, check.passed) for check in built.checks}
    assert states["no_outcome_in_o1"] == (False, False)
    assert states["readable_language"] == (True, False)
    assert built.environment
    assert any("common in English" in warning for warning in built.environment.warnings)


def test_what_hangs_on_a_cut_sentence_goes_with_it() -> None:
    passage = (
        "Lung adenocarcinoma had been suspected. Treated with two courses of tablets. His "
        "sleep is good."
    )
    environment = environment_of(report(replace(CASE, initial_observation=f"{LONG} {passage}")))
    assert environment.initial_observation == f"{LONG} His sleep is good."


def test_that_nothing_is_told_is_not_told() -> None:
    passage = (
        f"{LONG}\nFamily History: None provided.\nPersonal History: Not detailed in the "
        f"case.\nAllergies: None."
    )
    tests = (
        *TESTS,
        DocumentedTest("ECG", "physiologic", "Sinus rhythm. No further details provided."),
    )
    environment = environment_of(report(replace(CASE, initial_observation=passage, tests=tests)))
    assert environment.initial_observation == f"{LONG}\nAllergies: None."
    assert environment.menu[-1].result == "Sinus rhythm."


def test_what_tells_the_writer_what_to_write_is_no_word_of_the_case() -> None:
    passage = (
        f"Please describe the patient's history and all tests in this format.\n{LONG}\n"
        'Family History: If there is none, state "None."\nAllergies: None.'
    )
    environment = environment_of(report(replace(CASE, initial_observation=passage)))
    assert environment.initial_observation == f"{LONG}\nAllergies: None."


@pytest.mark.parametrize("unit", ["\n", ". ", "; ", "7", "a", "CT showed a mass, ", "pain ("])
def test_a_long_observation_takes_a_time_that_grows_with_its_length(unit: str) -> None:
    start = time.process_time()
    text = f"{LONG} {unit * (20_000 // len(unit))}"
    build_environment(report(replace(CASE, initial_observation=text)))
    assert time.process_time() - start < 3


def test_a_list_of_what_a_scan_showed_goes_whole() -> None:
    passage = f"{LONG}\nPhysical Examination: Pale. CT showed a mass, fluid in the chest, and air."
    environment = environment_of(report(replace(CASE, initial_observation=passage)))
    assert environment.initial_observation == f"{LONG}\nPhysical Examination: Pale."
    assert environment.menu[-1].result.startswith("CT showed a mass, fluid in the chest, and air")


@pytest.mark.parametrize(
    ("finding", "test"), [("thrombocytopenia", "Platelets"), ("proteinuria", "Urine analysis")]
)
@pytest.mark.parametrize("label", ["Physical Examination:", "Physical Examination:\n  - Later:"])
def test_what_only_a_laboratory_tells_is_no_finding_of_the_examination(
    label: str, finding: str, test: str
) -> None:
    passage = f"{LONG}\n{label} Pale, {finding}. Soft abdomen."
    environment = environment_of(report(replace(CASE, initial_observation=passage)))
    assert environment.initial_observation == f"{LONG}\n{label} Pale. Soft abdomen."
    assert environment.menu[-1].name == test


def test_two_results_of_a_list_are_two_entries() -> None:
    seen = "Flutter on ECG, effusion on a chest X-ray"
    passage = f"{LONG}\nPhysical Examination: Pale, {seen}."
    environment = environment_of(report(replace(CASE, initial_observation=passage)))
    assert environment.initial_observation == f"{LONG}\nPhysical Examination: Pale."
    results = {test.name: test.result.strip(".") for test in environment.menu[-2:]}
    assert results == dict(zip(("ECG", "Chest X-ray"), seen.split(", "), strict=True))


def test_no_word_is_left_hanging_where_a_result_goes() -> None:
    passage = f"{LONG}\nPlan: He has gout, along with cysts seen on ultrasound."
    environment = environment_of(report(replace(CASE, initial_observation=passage)))
    assert environment.initial_observation == f"{LONG}\nPlan: He has gout."


@pytest.mark.parametrize(
    ("passage", "stays"),
    [
        ("Elevated AFP (524 U/mL) and a firm node.", "A firm node."),
        ("A firm node and elevated AFP (524 U/mL).", "A firm node."),
        ("A firm liver with a mass on ultrasound.", "A firm liver."),
        ("No edema, normal gait, and no effusion on a chest X-ray.", "No edema, normal gait."),
        (
            "Soft belly, stiff neck during his nasal carcinoma, pale.",
            "Soft belly, stiff neck, pale.",
        ),
    ],
)
def test_a_sign_stays_beside_what_must_go(passage: str, stays: str) -> None:
    case = replace(
        CASE,
        diagnosis="Nasal carcinoma",
        initial_observation=f"{LONG}\nPhysical Examination: {passage}",
    )
    environment = environment_of(report(case))
    assert environment.initial_observation == f"{LONG}\nPhysical Examination: {stays}"


def test_a_result_of_another_place_is_not_told_by_the_tests_name_alone() -> None:
    mri = DocumentedTest(
        "Radiographs", "imaging", "Radiographs and MRI showed lesions of the heel."
    )
    passage = f"{LONG} No brain tumour was found on MRI."
    case = replace(CASE, tests=(*TESTS, mri), initial_observation=passage)
    environment = environment_of(report(case))
    assert environment.menu[-1].result == "No brain tumour was found on MRI."
    mri = replace(mri, name="MRI", result="Lesions of the ankle.")
    for told in (passage, f"{LONG} MRI showed no tumour of the brain."):
        case = replace(case, tests=(*TESTS, mri), initial_observation=told)
        assert environment_of(report(case)).menu[-1].name == "Brain MRI"


def test_numbers_of_the_summary_alone_and_joined_diagnoses_are_warnings() -> None:
    case = replace(CASE, diagnosis="Septic shock due to pyelonephritis")
    summarised = replace(report(case), original="A mass of 3 cm, hemoglobin 8.1 g/dL.")
    warnings = environment_of(summarised).warnings
    assert [warning.split(":")[0] for warning in warnings] == ["numbers_in_report", "one_diagnosis"]
    assert "9.1 (Hemoglobin)" in warnings[0]


def test_treatment_told_is_a_warning() -> None:
    environment = environment_of(
        report(replace(CASE, initial_observation=f"{LONG} He was started on amoxicillin."))
    )
    assert [warning.split(":")[0] for warning in environment.warnings] == ["no_treatment_in_o1"]


def test_what_the_diagnosis_comes_with_is_a_warning_only() -> None:
    case = replace(
        CASE,
        diagnosis="Mesenteric panniculitis with chylous ascites",
        initial_observation=CASE.initial_observation + " Chylous ascites.",
    )
    (warning,) = environment_of(report(case)).warnings
    assert warning.startswith("no_manifestation_in_o1")


def test_a_result_that_the_report_does_not_tell_is_refused() -> None:
    text = report().text
    invented = replace(
        CASE,
        tests=(*TESTS, DocumentedTest("MRI brain", "imaging", "Two metastases in the cerebellum.")),
    )
    assert refused(invented, text) == "results_grounded"
    changed = replace(CASE, tests=(TESTS[0], replace(TESTS[1], result="9.7 g/dL")))
    assert refused(changed, text) == "results_grounded"


def test_grounding_sees_through_typography() -> None:
    text = (
        "HEMOGLOBIN was 9.1\u00a0g/dL. WBC 11,500/µL – a  “mild”\nrise. "
        + CASE.initial_observation
        + " A 3 cm mass in the right upper lobe."
    )
    case = replace(
        CASE, tests=(*TESTS, DocumentedTest("WBC", "laboratory", '11500/μL - a "mild" rise'))
    )
    assert checks.results_grounded(report(case, text), case).passed


VOID = (
    "Was planned but the patient refused.",
    "Expected to reveal details of the ligaments.",
    "MRI unavailable due to a pacemaker.",
    "It was not mentioned whether the culture grew.",
    "Not carried out due to lack of funds.",
    "To be repeated in six weeks.",
    "The report does not state the result.",
    "Could not be performed because of a pacemaker.",
    "Omitted for lack of time",
    "Recommended: lumbar puncture",
    "Stress echo booked for 3 May",
    "Glucose tolerance test planned but not conducted because she worsened.",
    "Bronchoscopy was not conducted.",
    "Cytology not performed.",
    "MRI pelvis.",
    "Levels not mentioned, but the context suggests normal.",
    "Note: consider based on clinical findings.",
    "Results are pending, scheduled for next week.",
    "It mentions a marrow sample but does not provide the outcome.",
    "Sweat chloride test planned but not conducted.",
    "CT abdomen/pelvis.",
    "Pending",
    "Pending at the time of examination",
    "Quantitative fluorescent PCR analysis was also performed.",
    "No liver biopsy due to bleeding risk.",
    "No abdominal CT scan was done",
    "Unavailable due to x",
    "Was done",
    "N/A",
    "n/a",
    "Optional: can be considered",
    "Optional and not typically necessary. Could show inclusion bodies.",
    "Not typically necessary",
    "No data available",
    "no results available",
    "Awaited.",
    "EEG findings were not explicitly detailed in this case.",
    "Not applicable.",
    "Ultrasound of the abdomen was scheduled.",
    "The sample was sent to the laboratory",
    "Echocardiography.",
    "Chest X-ray (PA view)",
    "Not done as the patient refused",
    "Declined by the patient",
    "Cancelled",
    "Test was cancelled.",
    "Refused",
    "To be done next month",
    "To be done after the holidays",
    "Pending on discharge",
    "Lead level outstanding on Friday",
    "Ward culture in process at transfer",
    "- to follow",
    "Serum lead - to follow",
    "Incubating.",
    "Still in the laboratory",
    "sent to Leeds, report awaited",
)
RESULTS = (
    "Nil",
    "Eyes unable to follow",
    "Child fails to follow",
    "Healing in progress",
    "sent to Leeds, positive",
    "Not elevated (value not provided)",
    "No evidence of tumour due to necrosis",
    "Pending: 3 of 4; the first grew yeast",
    "Glucocerebrosidase 8 % of normal.",
    "No flow in the left testis due to torsion.",
    "None detected.",
    "Unknown significance variant c.1A>G in MYH7.",
    "None of four bottles grew.",
    "Growth: None after 5 days.",
    "No results after 48 hours.",
    "None on three occasions",
    "Pending before surgery, then normal",
    "Outstanding mass of 3 cm in the left breast",
    "Abscess in process of healing",
    "Gallstone in transit in the common bile duct",
    "Blood cultures were outstanding at first and later grew Brucella.",
    "Na 121 mmol/L, K 6.1 mmol/L",
    "Low (specific reference range not provided)",
    "No lesion",
    "Normal",
    "Positive",
    "Not elevated",
    "Culture: no growth",
    "Sinus rhythm.",
    "No growth because of antibiotics",
    "X-ray was performed and showed a mass",
    "Nabothian cysts",
    "Serum IgE against ragweed: Negative",
    "None seen",
    "Nonreactive",
    "Unknown primary tumor of the liver",
    "Chlamydia not detected",
    "Malignant cells were not noted.",
    "HIV not detected",
    "Not reactive",
    "blasts not noted",
    "Pending confirmation, culture grew Brucella",
    "Fundus not visible due to cataract",
    "Fungal culture not obtained; bacterial culture grew MRSA",
    "Bilateral decreased hearing sensitivity, details not specified.",
    "Normal chest CT",
    "Biopsy: granulomas",
    "CT: normal",
    "Nasal swab negative",
    "Narrow joint space.",
    "No stenosis due to collateral flow",
    "No uptake in the thyroid because of iodine load",
    "Optional biopsy showed sarcoid",
    "None of the markers expressed",
    "Pendular nystagmus",
    "Unknown mass in abdomen",
    "12 years 2 months.",
    "Patent",
    "Open",
    "Fine",
    "No free air",
    "Ejection fraction estimated at 35",
    "When upright gradient is 30 mmHg",
    "No se hizo evidente ninguna lesión",
    "Не определялся патологический кровоток",
)


@pytest.mark.parametrize("void", VOID)
def test_that_a_test_was_made_or_not_is_no_documented_result(void: str) -> None:
    assert not is_documented(void)


@pytest.mark.parametrize("result", RESULTS)
def test_a_result_stays_one_whatever_it_begins_with(result: str) -> None:
    assert is_documented(result)


def test_a_long_row_of_spaces_is_read_once() -> None:
    # Tried from each of them it would take hours.
    assert asserted(f"CT{' ' * 200_000}should be done.") == "CT."


def test_tests_without_result_are_left_out_and_same_names_merged() -> None:
    twice = replace(TESTS[1], name="hemoglobin", result="8.0 g/dL")
    pending = DocumentedTest("Blood culture", "laboratory", "Pending at the time of examination")
    case, notes = tidy(replace(CASE, tests=(*TESTS, twice, TESTS[0], pending)))
    assert [(test.name, test.result) for test in case.tests] == [
        ("CT chest", TESTS[0].result),
        ("Hemoglobin", "9.1 g/dL\n8.0 g/dL"),
    ]
    assert len(notes) == 3
    assert any("Blood culture" in note for note in notes)


def test_a_report_without_sections_needs_an_extractor() -> None:
    unstructured = report(None, text=report().text)
    assert refusal_of(unstructured).reason == "needs_extraction"
    assert environment_of(unstructured, lambda _report: CASE).menu == TESTS


@pytest.mark.parametrize(
    ("name", "count", "built", "reasons"),
    [
        ("agentclinic/agentclinic_medqa.jsonl", 107, 104, {"min_tests"}),
        (
            "medrbench/diagnosis_cases.json",
            352,  # 343 summaries, six of which tell two to four patients apart
            341,
            {"min_tests", "several_patients", "not_human"},
        ),
    ],
)
def test_every_real_case_is_an_environment_or_a_named_refusal(
    name: str, count: int, built: int, reasons: set[str]
) -> None:
    environments, refusals = [], Counter[str]()
    for case in read_cases(shared_data(name)):
        outcome = Built(None, case) if isinstance(case, BadCase) else build_environment(case)
        if outcome.refusal:
            refusals[outcome.refusal.reason] += 1
        else:
            environments.append((case, outcome.environment))
    assert len(environments) + sum(refusals.values()) == count
    assert len(environments) >= built
    assert set(refusals) <= reasons
    for case, environment in environments:
        assert all(
            line.strip() in re.sub(r"\*\*", "", case.text)
            for test in environment.menu
            for line in test.result.splitlines()
        )
        is_told = environment.diagnosis.casefold() in environment.initial_observation.casefold()
        as_history = any(w.startswith("no_known_disease_in_o1") for w in environment.warnings)
        assert not is_told or as_history


def test_a_result_that_only_repeats_words_of_the_complaint_is_found_when_copied():
    test = DocumentedTest("CT", "imaging", "CT and MRI confirmed orbital myositis without abscess.")
    complaint = "Orbital myositis of the left eye was suspected"
    assert is_told(test, f"{complaint}. CT and MRI confirmed orbital myositis.", complaint)
    assert not is_told(test, f"{complaint}. A CT and an MRI were planned.", complaint)


@pytest.mark.parametrize(
    ("result", "is_one"),
    [
        ("the reagent had run out", False),
        ("not enough serum was left", False),
        ("his parents would not allow it", False),
        ("her pacemaker precluded it", False),
        ("no pathogens were grown", True),
        ("the right pupil does not react", True),
        ("loss of the red reflex", True),
    ],
)
def test_what_came_to_nothing_and_what_found_nothing_are_told_apart(
    result: str, is_one: bool
) -> None:
    assert is_documented(result) is is_one


@pytest.mark.parametrize(
    ("name", "result", "sentence"),
    [
        ("D-dimer test", "normal", "The D-dimer test was normal."),
        ("Troponin T level", "raised", "Troponin was raised."),
        ("Chest X-ray", "nodules", "Chest radiography showed several nodules."),
        ("ECG", "tachycardia", "Electrocardiogram traces showed a tachycardia."),
    ],
)
def test_a_result_that_an_entry_quotes_is_not_in_the_menu_twice(
    name: str, result: str, sentence: str
) -> None:
    """As an extractor gives it: the sentence in the observation, and the test with its quote."""
    case = replace(
        CASE,
        initial_observation=f"{CASE.initial_observation} {sentence}",
        tests=(*TESTS, DocumentedTest(name, "laboratory", result, quote=sentence)),
    )
    environment = environment_of(report(case))
    assert sentence not in environment.initial_observation
    assert [test.name for test in environment.menu] == [*(t.name for t in TESTS), name]
