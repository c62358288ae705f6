"""Reports made up to show one kind of fault each: what must be told early, what must stay, and what
is a result."""

from pathlib import Path

import pytest

from medaction.envs.build import build_environment
from medaction.envs.records import Built, CaseReport
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
