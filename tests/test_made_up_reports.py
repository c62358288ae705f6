"""Reports made up to show one kind of fault each: what must be told early, what must stay, and what
is a result."""

from pathlib import Path

import pytest

from medaction.envs.build import build_environment
from medaction.envs.categories import category_of
from medaction.envs.records import Built, CaseReport, DocumentedTest, StructuredCase
from medaction.envs.sources import read_cases

REPORTS = Path(__file__).parent / "made_up_reports"


def built(name: str) -> tuple[CaseReport, Built]:
    (report,) = read_cases(REPORTS / f"{name}.json")
    assert isinstance(report, CaseReport)
    return report, build_environment(report)


@pytest.mark.parametrize(
    ("name", "leak", "stays"),
    [
        ("leak-adjective-hides-the-name", "perilymph", "Romberg"),
        ("leak-gene-of-a-test", "GAA", "Shoulder blades"),
        ("leak-gene-of-the-diagnosis", "TAZX1", "Gait is wide"),
        ("leak-modality-in-other-words", "lytic", "No swelling"),
        ("leak-organism-before-the-name", "empyema", "Breath sounds"),
        ("leak-qualifier-hides-the-name", "Meckel", "rigid"),
        ("leak-result-that-the-menu-lacks", "AFP", "plays and eats well"),
        ("leak-short-name-before-type", "HSP", "Tone in the legs"),
        ("leak-value-before-the-name", "elevated ALT", "Spider naevi"),
        ("refused-relative", "Crohn", "right iliac fossa"),
        ("script-ruleak", "саркоидоз", "пульс 92"),
        ("script-zhleak2", "结节病", "脉搏92次"),
    ],
)
def test_what_tells_too_early_is_taken_out_and_the_rest_stays(
    name: str, leak: str, stays: str
) -> None:
    report, outcome = built(name)
    assert outcome.environment, outcome.refusal
    assert report.structured
    assert leak in report.structured.initial_observation
    assert leak not in outcome.environment.initial_observation
    assert stays in outcome.environment.initial_observation


@pytest.mark.parametrize(
    "name",
    [
        "cut-a-denied-history",
        "cut-a-place-of-the-body",
        "cut-the-culprit-drug",
        "cut-the-habit",
        "cut-the-known-tumour",
        "cut-the-old-operation",
        "cut-the-place",
        "refused-complaint-of-an-induced-disease",
        "refused-exposure",
        "lost-no-x-due-to-y",
        "lost-sodium-first",
        "script-ru",
        "script-zh",
    ],
)
def test_history_exposure_place_and_every_result_stay(name: str) -> None:
    report, outcome = built(name)
    assert outcome.environment, outcome.refusal
    assert report.structured
    assert outcome.environment.initial_observation == report.structured.initial_observation
    assert [(test.name, test.result) for test in outcome.environment.menu] == [
        (test.name, test.result) for test in report.structured.tests
    ]


@pytest.mark.parametrize(
    ("name", "entry", "passage"),
    [
        ("leak-gene-of-a-test", "Genetic testing", "two mutations in the GAA gene"),
        ("leak-modality-in-other-words", "Radiographs", "growing lytic focus"),
        ("leak-modality-in-other-words", "Bone scan", "elevated uptake there"),
        ("leak-organism-before-the-name", "CT", "findings of empyema"),
        ("leak-result-that-the-menu-lacks", "AFP", "812 ng/mL"),
        ("leak-result-that-the-menu-lacks", "Ultrasound", "solid mass"),
    ],
)
def test_a_result_that_was_told_early_is_in_the_menu(name: str, entry: str, passage: str) -> None:
    _, outcome = built(name)
    assert outcome.environment
    results = {test.name: test.result for test in outcome.environment.menu}
    assert passage in results[entry]


def test_only_a_result_is_an_entry() -> None:
    _, outcome = built("kept-not-done")
    assert outcome.environment
    assert [test.name for test in outcome.environment.menu] == ["Enzyme testing"]


def test_an_animal_is_refused_by_name() -> None:
    _, outcome = built("animal")
    assert outcome.refusal
    assert outcome.refusal.reason == "not_human"


@pytest.mark.parametrize(
    ("observation", "diagnosis", "tests", "leak", "stays"),
    [
        (  # a disease named after persons, without the noun
            "A boy of 9 years limps. A clinic wrote Legg-Calvé-Perthes. Abduction is limited.",
            "Legg-Calvé-Perthes disease",
            {"Pelvic radiograph": "Flat, dense left epiphysis."},
            ("Perthes",),
            ("Abduction is limited.",),
        ),
        (  # the organism of the disease; the sick animal that is a contact stays
            "A shepherd of 45 years has fever. Two goats aborted with proven brucellosis. Brucella"
            " was thought of. The spine is tender.",
            "Spinal brucellosis",
            {"Rose Bengal test": "Positive 1:320."},
            ("Brucella",),
            ("Two goats aborted with proven brucellosis.", "The spine is tender."),
        ),
        (  # a finding of the menu in a list of the present illness, without verb or test
            "- Chief Complaint: Faints.\n- History of Present Illness: Two faints this year,"
            " progressive left ventricular trabeculation, and tiredness.",
            "Noncompaction",
            {"Echocardiography": "Ventricular recesses, ratio of trabeculation 2.6."},
            ("trabeculation",),
            ("Two faints this year", "tiredness"),
        ),
        (  # a test by its noun, among what the patient tells
            "A man of 38 years has no child. Pain for 8 months, semen analysis showed few cells.",
            "Zinner syndrome",
            {"MRI": "Cyst of the right seminal vesicle."},
            ("few cells",),
            ("Pain for 8 months.",),
        ),
        (  # shorthand: a test is the label of its finding, a symbol stands before its value
            "67F, breathless for 3 weeks. JVP +5. ECG: LBBB. CXR: big heart. Na+ 112. HR 104.",
            "Heart failure",
            {"Echocardiogram": "LVEF 25 %"},
            ("LBBB", "big heart", "112"),
            ("JVP +5.", "HR 104."),
        ),
        (  # a letter speaks to its reader, and still of the patient
            "Thank you for referring this 54 year old man with tremor. His pulse is 112.",
            "Graves' disease",
            {"TSH": "<0.01 mU/l"},
            (),
            ("54 year old man with tremor",),
        ),
        (  # a test of the menu by its name, in another language
            "Un homme de 62 ans a une dysphagie. Il fume. L'endoscopie a montré une tumeur.",
            "Carcinome de l'œsophage",
            {"Endoscopie": "Tumeur bourgeonnante à 28 cm"},
            ("tumeur",),
            ("Il fume.",),
        ),
        (  # a number of the laboratory's with a word of its result
            "A boy of 3 years has bruised easily for 10 days. Blast cells of 78 % on the film.",
            "Leukemia",
            {"Blood smear": "78 % blasts"},
            ("78 %",),
            ("bruised easily",),
        ),
        (  # the name of the diagnosis without its place, and misread by a scanner
            "A man of 61 years has red urine, weight loss and pain in the left flank for two weeks;"
            " he smokes and worked with dyes. Transiti0nal cell carcin0ma will be found.",
            "Transitional cell carcinoma of the bladder",
            {"Cystoscopy": "A 2 cm papillary tumour"},
            ("Transiti0nal",),
            ("worked with dyes",),
        ),
        (  # what only a laboratory tells, in the history; the symptom between stays
            "- Chief Complaint: Fever and sores\n- History of Present Illness: She developed"
            " leukopenia, joint pain, and thrombocytopenia.",
            "Histoplasmosis",
            {"Blood culture": "Negative"},
            ("leukopenia", "thrombocytopenia"),
            ("Joint pain",),
        ),
        (  # a germ's load without its germ beside a count
            "A man of 44 years has diarrhea for two weeks. HIV was known with a CD4 count of 88"
            " cells/mm3 and a viral load of 71,000 copies/mL.",
            "Cryptosporidiosis",
            {"Viral load": "71,000 copies/mL"},
            ("71,000",),
            ("HIV was known",),
        ),
        (  # what only an image shows, by its name in the ontology; of the past it is history
            "- Chief Complaint: Cough\n- History of Present Illness: She has known pulmonary"
            " nodules since 2015. She had chills and lung infiltrates in spite of amoxicillin.",
            "Histoplasmosis",
            {"Blood culture": "Negative"},
            ("infiltrates",),
            ("She had chills.", "pulmonary nodules since 2015"),
        ),
    ],
)
def test_a_strangers_report_tells_no_result_early(
    observation: str,
    diagnosis: str,
    tests: dict[str, str],
    leak: tuple[str, ...],
    stays: tuple[str, ...],
) -> None:
    menu = tuple(DocumentedTest(name, category_of(name), text) for name, text in tests.items())
    case = StructuredCase(observation, menu, diagnosis)
    text = "\n".join([observation, *tests.values()])
    report = CaseReport("a", "text", "A case", text, "a.json", "CC0", structured=case)
    environment = build_environment(report).environment
    assert environment
    assert not [words for words in leak if words in environment.initial_observation]
    assert not [words for words in stays if words not in environment.initial_observation]
