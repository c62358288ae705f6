"""The knowledge-graph clinician: its tables, how it reads text, and how it plays on real graphs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from medaction.clinicians.graph.analytes import (
    ANALYTES,
    COLUMNS_OF_ANALYTES,
    TABLES,
    analytes,
    levels,
)
from medaction.clinicians.graph.clinician import KgClinician
from medaction.clinicians.graph.findings import PAST, Finding, findings_in, key_of
from medaction.clinicians.graph.hypotheses import DISEASE, hypotheses
from medaction.clinicians.graph.model import chances, evidence_of
from medaction.clinicians.graph.orders import access
from medaction.clinicians.graph.prose import in_a_sentence, wordings
from medaction.envs.build import build_environment
from medaction.envs.oracle import Oracle
from medaction.envs.records import Answer, CaseReport, DocumentedResult, DocumentedTest
from medaction.envs.reply import parse_reply
from medaction.envs.sources import read_cases
from medaction.envs.sources.agentclinic import read
from medaction.envs.turns import Observation, Turn
from medaction.kg import tests_table as curated
from medaction.kg.hpo import phenotype_ids
from medaction.kg.tables import common_diseases, rows
from medaction.words.names import normalise
from tests.conftest import SAMPLES, shared_data

STYLES = ("kg-screening", "kg-targeted")


def play(
    style: str, observation: str, menu: Sequence[DocumentedTest], seed: int = 1, t_max: int = 8
) -> list[Turn]:
    clinician, oracle, turns = KgClinician(style), Oracle(menu), []  # type: ignore[arg-type]
    while len(turns) < t_max and not (turns and turns[-1].final_diagnosis):
        turn = asyncio.run(
            clinician.decide(Observation(observation, tuple(turns), t_max), seed + len(turns) + 1)
        )
        turns.append(replace(turn, answers=oracle.answer(turn.tests)))
    return turns


def first_turn(style: str, observation: str, seed: int = 1, t_max: int = 8) -> Turn:
    clinician = KgClinician(style)  # type: ignore[arg-type]
    return asyncio.run(clinician.decide(Observation(observation, (), t_max), seed))


# --- tables -----------------------------------------------------------------------------


def test_every_finding_of_a_common_disease_is_known_to_hpo():
    table = common_diseases()
    unknown = [
        (d.name, label)
        for d in table
        for label in d.findings
        if normalise(label) not in phenotype_ids()
    ]
    assert unknown == []
    assert len(table) >= 150
    assert all(0 < d.weight <= 100 and len(d.findings) >= 5 for d in table)


def test_analytes_name_known_findings_and_known_tests():
    for analyte in analytes():
        for name in filter(None, (analyte.low_finding, analyte.high_finding)):
            key_of(name)  # raises KeyError
        assert not analyte.low >= analyte.high
    tests = (*curated.tests_by_name(), "vital signs", "physical examination")
    assert all(normalise(row["test"]) in tests for _, row in rows(ANALYTES, COLUMNS_OF_ANALYTES))


def test_the_clinicians_own_tables_name_what_exists():
    for _, row in rows(TABLES / "lay_words.csv", ["phrase", "finding"]):
        key_of(row["finding"])
    assert access().keys() <= {entry.name for entry in curated.tests_table()}


def test_hypotheses_have_distinct_names_and_some_findings():
    names = [normalise(disease.name) for disease in hypotheses()]
    assert len(set(names)) == len(names)
    assert all(disease.findings for disease in hypotheses())


# --- reading ----------------------------------------------------------------------------


def read_phrases(text: str) -> tuple[set[str], set[str]]:
    found = findings_in(text)
    return {f.label for f in found if f.present}, {f.label for f in found if not f.present}


@pytest.mark.parametrize(
    ("text", "present", "absent"),
    [
        (
            "The patient denies fever, chills, or weight loss.",
            set(),
            {"Fever", "Chills", "Weight loss"},
        ),
        ("No rash, but he has a cough.", {"Cough"}, {"Skin rash"}),
        ("Headache without photophobia.", {"Headache"}, {"Photophobia"}),
        ("No fever, cough for two weeks.", {"Cough"}, {"Fever"}),
        ("Wheezing: None", set(), {"Wheezing"}),
        ("Ascites was not seen.", set(), {"Ascites"}),
        ("Her mother has diabetes mellitus. She reports joint pain.", {"Arthralgia"}, set()),
        ("CT was done to rule out pulmonary embolism. Dyspnea persists.", {"Dyspnea"}, set()),
        ("Shortness of breath and yellowing of the skin", {"Dyspnea", "Jaundice"}, set()),
        ("She is febrile with haemoptysis.", {"Fever", "Hemoptysis"}, set()),
    ],
)
def test_phrases_are_read_with_their_negation(text: str, present: set[str], absent: set[str]):
    assert read_phrases(text) == (present, absent)


def test_what_the_past_history_tells_weighs_less_than_the_present_illness():
    found = findings_in(
        "History of present illness: abdominal pain for 3 days.\n"
        "Past Medical History: gout, abdominal pain."
    )
    assert {f.label: f.weight for f in found} == {"Abdominal pain": 1.0, "Gout": PAST}


def test_the_longest_phrase_wins():
    present, _ = read_phrases("Difficulty climbing stairs and upper limb weakness")
    assert present == {"Difficulty climbing stairs", "Upper limb muscle weakness"}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Hemoglobin 7.9 g/dL (reference 12-15.5)", "low"),
        ("Hemoglobin: 14 g/dL", "normal"),
        ("Hemoglobin: 79 g/L", "low"),
        ("Hb 11.0 g/dL (normal range: 10-14)", "normal"),  # the printed range wins over the table
        ("WBC: 13,400/mm3", "high"),
        ("White  blood cell\tcount: 13,400/mm3", "high"),
        ("Platelets: 27 x 10^9/L", "low"),
        ("Platelet count 280,000/µL", "normal"),
        ("Potassium 6.1 H", "high"),
        ("Sodium 128 mEq/L (L)", "low"),
        ("Alkaline phosphatase: 460 U/L", "high"),
        ("D-dimer: 3.1 mg/L (reference below 0.5)", "high"),
        ("Ferritin: markedly decreased", "low"),
        ("TSH within normal limits", "normal"),
        ("Temperature: 102.2°F", "high"),
        ("Blood pressure: 85/50 mmHg", "low"),
        ("Glucose 16 mmol/L", "high"),
    ],
)
def test_laboratory_values(text: str, status: str):
    assert [level for _, level in levels(text)] == [status]


@pytest.mark.parametrize(
    "text",
    [
        *["Hemoglobin: pending", "Semen analysis: pH 7.2"],
        *["Potaſſium 3.0", "HEMOGLOBİN 7.9", "Hemoglobın 7.9"],  # no letters of ours
    ],
)
def test_what_is_pending_or_of_no_known_analyte_says_nothing(text: str):
    assert list(levels(text)) == []


def test_cells_of_another_specimen_are_no_blood_cells():
    found = {
        f.label
        for f in findings_in_result("Urinalysis", "WBC: 40/hpf; Glucose: Negative; Protein: 3+")
        if f.present
    }
    assert found == {"Pyuria", "Proteinuria"}


def test_qualitative_results():
    positive = findings_in_result("Acetylcholine receptor antibodies", "Positive")
    negative = findings_in_result("Antinuclear antibody", "Negative")
    assert [(f.label, f.present) for f in positive] == [
        ("Anti-acetylcholine receptor antibody positivity", True)
    ]
    assert [(f.label, f.present) for f in negative] == [("Antinuclear antibody positivity", False)]


def test_a_disease_is_evidence_in_a_result_and_none_in_a_history():
    text = "consistent with Guillain-Barre syndrome"
    assert DISEASE + "Guillain-Barre syndrome" in {
        f.key for f in findings_in_result("Impression", text)
    }
    assert findings_in("Treated for Guillain-Barre syndrome as a child.") == ()


def findings_in_result(name: str, text: str) -> tuple[Finding, ...]:
    return findings_in(f"{name}: {text}", is_result=True)


def test_a_finding_counts_once_where_it_is_first_told():
    result = DocumentedResult("Complete blood count", "Anemia and thrombocytopenia.")
    turn = Turn(1, "", (), "", ("CBC",), None, "", (Answer("CBC", (result,)),))
    history, blood = evidence_of("A patient with anemia.", [turn])
    assert [finding.label for finding in history.findings] == ["Anemia"]
    assert [finding.label for finding in blood.findings] == ["Thrombocytopenia"]


def test_a_result_that_names_a_disease_speaks_for_that_one():
    share = chances(DISEASE + "Sarcoidosis")
    assert hypotheses()[int(np.argmax(share))].name == "Sarcoidosis"
    assert np.sort(share)[-1] > 20 * np.sort(share)[-2]


# --- the model --------------------------------------------------------------------------


def test_a_general_finding_is_entailed_by_a_specific_annotation():
    at = next(
        i for i, disease in enumerate(hypotheses()) if disease.name == "Hereditary spherocytosis"
    )
    anemia, hemolytic = (chances(key_of(name)) for name in ("Anemia", "Hemolytic anemia"))
    assert anemia[at] >= hemolytic[at] > 5 * np.median(hemolytic)


def test_a_sibling_of_an_annotated_finding_earns_nothing():
    at = next(i for i, disease in enumerate(hypotheses()) if disease.name == "Acute pancreatitis")
    assert chances(key_of("Neoplasm of the pancreas"))[at] < 0.05


def test_an_unavailable_result_is_no_evidence():
    turn = Turn(1, "", (), "", ("Chest radiograph",), None, "", (Answer("Chest radiograph"),))
    assert len(evidence_of("A 40-year-old man with cough and fever.", [turn])) == 1


def test_results_move_the_posterior():
    observation = "A 58-year-old man with chest pain and diaphoresis."
    before = first_turn("kg-targeted", observation, seed=2)
    result = DocumentedResult("Troponin I", "4.2 ng/mL (reference below 0.04)")
    ecg = DocumentedResult("Electrocardiogram", "ST-segment elevation in leads II, III and aVF.")
    turn = replace(
        before, answers=(Answer("Troponin", (result,)), Answer("Electrocardiogram", (ecg,)))
    )
    after = asyncio.run(KgClinician("kg-targeted").decide(Observation(observation, (turn,), 8), 3))

    def confidence(turn: Turn) -> int:
        return max(
            (
                h.confidence
                for h in turn.differential
                if h.diagnosis == "Acute myocardial infarction"
            ),
            default=0,
        )

    assert confidence(after) > confidence(before)
    assert "troponin I" in after.reasoning


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("Elevated circulating ferritin concentration", "elevated ferritin"),
        ("Crohn disease", "Crohn disease"),
        ("ECG", "ECG"),
        ("Diplopia", "diplopia"),
        ("Babinski sign", "Babinski sign"),
    ],
)
def test_labels_inside_a_sentence(label: str, words: str):
    assert in_a_sentence(label) == words


def test_every_place_in_the_reasoning_has_two_wordings():
    assert all(len(texts) >= 2 for texts in wordings().values())


# --- playing ----------------------------------------------------------------------------

COUGH = """A 34-year-old woman presents with a dry cough and shortness of breath for three months.
She reports fatigue and painful
red nodules on her shins. She denies fever, weight loss or hemoptysis. She does not smoke."""


@pytest.mark.parametrize("style", STYLES)
def test_the_same_seed_gives_the_same_reply(style: str):
    assert first_turn(style, COUGH, seed=5) == first_turn(style, COUGH, seed=5)


@pytest.mark.parametrize("style", STYLES)
def test_seeds_vary_what_is_ordered_and_how_it_is_said(style: str):
    replies = [first_turn(style, COUGH, seed) for seed in range(0, 300, 50)]
    assert len({turn.tests for turn in replies}) > 1
    assert len({turn.reasoning for turn in replies}) > 3


@pytest.mark.parametrize("style", STYLES)
def test_a_reply_is_in_the_grammar(style: str):
    for last in (False, True):
        turn = first_turn(style, COUGH, t_max=1 if last else 8)
        parsed = parse_reply(turn.raw, 1, last)
        assert (parsed.reasoning, parsed.differential, parsed.pivot) == (
            turn.reasoning,
            turn.differential,
            turn.pivot,
        )
        assert (parsed.tests, parsed.final_diagnosis) == (turn.tests, turn.final_diagnosis)
        assert 3 <= len(turn.differential) <= 6
        percents = [h.confidence for h in turn.differential]
        assert percents == sorted(percents, reverse=True)
        assert sum(percents) <= 104  # whole percents, each at least 1


@pytest.mark.parametrize("style", STYLES)
def test_the_first_turn_orders_however_sure_it_is(style: str):
    """Of a history from which one diagnosis is all but certain."""
    report = next(read_cases(SAMPLES / "medaction-01.json"))
    assert isinstance(report, CaseReport)
    environment = build_environment(report).environment
    assert environment is not None
    assert first_turn(style, environment.initial_observation).tests


@pytest.mark.parametrize("style", STYLES)
def test_the_first_turn_orders_unless_it_is_the_last(style: str):
    assert first_turn(style, COUGH).final_diagnosis is None
    assert first_turn(style, COUGH, t_max=1).final_diagnosis is not None


@pytest.mark.parametrize("style", STYLES)
def test_nothing_is_ordered_twice_and_the_last_turn_commits(style: str):
    for seed in (1, 20, 300):
        turns = play(style, COUGH, [], seed, t_max=5)
        tests = [test for turn in turns for test in turn.tests]
        entries = [curated.tests_by_name().get(normalise(test)) for test in tests]
        assert len(turns) <= 5
        assert turns[-1].final_diagnosis
        assert all(1 <= len(turn.tests) <= 5 for turn in turns[:-1])
        assert None not in entries
        assert len({entry.line for entry in entries if entry}) == len(entries)


def test_an_unknown_style_is_refused():
    with pytest.raises(ValueError, match="no style"):
        KgClinician("kg-lucky")  # type: ignore[arg-type]


def lab(name: str, result: str) -> DocumentedTest:
    return DocumentedTest(name, "laboratory", result)


def imaging(name: str, result: str) -> DocumentedTest:
    return DocumentedTest(name, "imaging", result)


VIGNETTES = {
    "Sarcoidosis": (
        COUGH,
        [
            imaging("Chest radiograph", "Bilateral hilar lymphadenopathy."),
            imaging("Chest CT", "Bilateral hilar lymphadenopathy and mediastinal lymphadenopathy."),
            lab("Angiotensin-converting enzyme level", "112 U/L (reference 8-53)"),
            DocumentedTest("Lung biopsy", "pathology", "Noncaseating granulomas."),
            DocumentedTest(
                "Lymph node biopsy", "pathology", "Noncaseating granulomas, no acid-fast bacilli."
            ),
        ],
    ),
    "Diabetic ketoacidosis": (
        """A 19-year-old man with polyuria, polydipsia and weight loss for two weeks, and vomiting
        and abdominal pain since
        yesterday. Heart rate 122/min, respiratory rate 30/min. He is confused and dehydrated.""",
        [
            lab("Blood glucose", "512 mg/dL"),
            lab("Arterial blood gas", "pH 7.08, HCO3 8 mEq/L, PaCO2 20 mm Hg"),
            lab("Serum ketones", "Strongly positive"),
            lab("Urinalysis", "Glucose: 4+; Ketones: 4+"),
            lab(
                "Basic metabolic panel",
                "Glucose: 512 mg/dL; Bicarbonate: 8 mEq/L; Potassium: 5.6 mEq/L",
            ),
        ],
    ),
    "Graves disease": (
        """A 29-year-old woman with palpitations, heat intolerance, tremor and weight loss over
        two months. Examination shows
        proptosis and a diffuse goiter. Heart rate 118/min. She denies chest pain and cough.""",
        [
            lab(
                "Thyroid function tests",
                "TSH: <0.01 mIU/L (reference 0.4-4.0); Free T4: 4.2 ng/dL (reference 0.8-1.8)",
            ),
            lab("TSH receptor antibody", "Positive"),
            imaging("Thyroid scintigraphy", "Diffusely increased uptake."),
        ],
    ),
    "Myasthenia gravis": (
        """A 35-year-old female reports double vision and weakness of the arms that worsens with
        sustained upward gaze and
        improves with rest. Ptosis of the right eyelid. Reflexes are normal.""",
        [
            lab("Acetylcholine receptor antibody", "Positive"),
            DocumentedTest(
                "Electromyography",
                "physiologic",
                "Decremental response to repetitive nerve stimulation.",
            ),
            imaging("Chest CT", "No thymoma."),
        ],
    ),
    "Acute pancreatitis": (
        """A 47-year-old man with severe epigastric pain radiating to the back, nausea and
        vomiting since last night, after
        heavy drinking. Temperature 38.1°C.""",
        [
            lab("Serum lipase", "2,140 U/L (reference 13-60)"),
            lab("Complete blood count", "WBC 15,200/mm3"),
            imaging("Abdominal CT", "Findings consistent with acute pancreatitis; no gallstones."),
        ],
    ),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("truth", VIGNETTES)
def test_plain_vignettes_end_in_their_diagnosis(truth: str, style: str):
    observation, menu = VIGNETTES[truth]
    finals = [play(style, observation, menu, seed)[-1].final_diagnosis for seed in (1, 40, 900)]
    assert finals.count(truth) >= 2


@pytest.mark.parametrize("style", STYLES)
def test_it_plays_real_cases_to_an_end(style: str):
    reports = [
        case
        for case in read(shared_data("agentclinic/agentclinic_medqa.jsonl"))
        if hasattr(case, "structured")
    ][:6]
    for report in reports:
        assert report.structured is not None
        turns = play(style, report.structured.initial_observation, report.structured.tests)
        assert turns[-1].final_diagnosis
        assert all(turn.reasoning and turn.pivot for turn in turns)
