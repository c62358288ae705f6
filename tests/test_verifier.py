"""The second opinion: verdicts with the passages that they quote, checked word for word; a scripted
OpenAI-compatible server gives them to the command itself."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from medaction.envs.build import build_environment
from medaction.envs.records import Built, CaseReport, DocumentedTest, StructuredCase
from medaction.envs.verifier import QUESTIONS, stands_in, with_second_opinion
from tests.openai_server import Asked, openai_server
from tests.runs import medaction

O1 = "A 60-year-old smoker has coughed up blood for two weeks and lost 5 kg."
TEST = DocumentedTest("CT chest", "imaging", "A 3 cm mass in the right upper lobe.")
TEXT = f"{O1} CT chest: {TEST.result} Sputum cytology showed squamous cells. A mare in the field."
REPORT = CaseReport(
    "case-1",
    "jats",
    "A cough",
    TEXT,
    licence="CC0",
    structured=StructuredCase(O1, (TEST,), "Lung carcinoma"),
)
AGREED = {"answer": "yes", "quote": "", "comment": ""}
WHO = AGREED | {"quote": "A 60-year-old smoker has coughed up blood"}


def opinion(**changed: dict[str, str]) -> str:
    verdicts = dict.fromkeys(QUESTIONS, AGREED) | {"one_patient": WHO, "human": WHO}
    return json.dumps(verdicts | changed)


def judged(*replies: str) -> tuple[Built, list[list[dict[str, str]]]]:
    """The environment with what a model that gives these replies, one after the other, says."""
    waiting = list(replies)
    requests: list[list[dict[str, str]]] = []

    def model(messages: list[dict[str, str]], _schema: dict[str, Any] | None) -> str:
        requests.append(messages)
        return waiting.pop(0)

    built = build_environment(REPORT)
    assert built.environment, built.refusal
    return with_second_opinion(model, REPORT, built), requests


def states(built: Built) -> dict[str, tuple[bool, bool]]:
    """Question -> (applicable, passed)."""
    return {
        check.name.removeprefix("second_opinion: "): (check.applicable, check.passed)
        for check in built.checks
        if check.name.startswith("second_opinion: ")
    }


def test_a_model_that_agrees_changes_nothing() -> None:
    built, requests = judged(opinion())
    assert states(built) == dict.fromkeys(QUESTIONS, (True, True))
    before = build_environment(REPORT).environment
    assert built.environment == before
    assert TEST.result in requests[0][1]["content"]
    assert O1 in requests[0][1]["content"]


def test_a_disagreement_that_quotes_the_report_is_a_warning_and_no_refusal() -> None:
    missing = {
        "answer": "No",
        "quote": "sputum  cytology showed squamous cells",
        "comment": "The cytology is missing.",
    }
    built, _ = judged(opinion(menu_complete=missing))
    assert states(built)["menu_complete"] == (True, False)
    assert built.environment
    assert built.environment.menu == (TEST,)
    (warning,) = [text for text in built.environment.warnings if "second_opinion" in text]
    assert "The cytology is missing." in warning
    assert "squamous cells" in warning


@pytest.mark.parametrize(
    ("question", "verdict"),
    [
        ("menu_complete", {"answer": "no", "quote": "PET showed no metastasis", "comment": "x"}),
        ("menu_complete", {"answer": "no", "quote": "", "comment": "Something is missing."}),
        ("menu_complete", {"answer": "no", "quote": "CT", "comment": "Too short to prove."}),
        ("human", {"answer": "yes", "quote": "A woman of nowhere", "comment": ""}),
    ],
)
def test_what_is_not_quoted_word_for_word_counts_for_nothing(
    question: str, verdict: dict[str, str]
) -> None:
    built, _ = judged(opinion(**{question: verdict}))
    assert states(built)[question] == (False, False)
    assert built.environment == build_environment(REPORT).environment


MISSING = {"answer": "no", "quote": "Sputum cytology showed squamous cells", "comment": "x"}
AT_LENGTH = MISSING | {"comment": "It is missing. " * 40}
GAPS = MISSING | {"quote": "Sputum cytology [...] squamous cells. A mare"}
BEGINNING = MISSING | {"quote": "(...) Sputum cytology (...) squamous cells [...]"}
SHORT = MISSING | {"quote": "Sputum cytology ... a mare"}
MARKED = MISSING | {"quote": "The report: 'Sputum cytology showed squamous cells' (at its end)"}
PASSAGES = MISSING | {"quote": ["squamous cells. A mare", "in the right upper lobe"]}

QUOTING = (AT_LENGTH, GAPS, BEGINNING, SHORT, MARKED, PASSAGES)


@pytest.mark.parametrize(
    "reply",
    [
        *(opinion(menu_complete=verdict) for verdict in QUOTING),  # type: ignore[arg-type]
        opinion(menu_complete=MISSING | {"answer": False}),  # type: ignore[arg-type,dict-item]
        opinion(menu_complete=MISSING | {"answer": "No, the cytology is missing."}),
        opinion(menu_complete=MISSING | {"answer": "False"}),
        opinion(menu_complete=MISSING, nothing_told_too_early="yes"),  # type: ignore[arg-type]
        opinion(menu_complete=MISSING, nothing_told_too_early={"answer": "Yes.", "quote": None}),  # type: ignore[arg-type,dict-item]
        json.dumps(
            [
                {"question": name, **verdict}
                for name, verdict in json.loads(opinion(menu_complete=MISSING)).items()
            ]
        ),
    ],
)
def test_an_opinion_in_another_form_is_read(reply: str) -> None:
    built, requests = judged(reply)
    assert states(built) == dict.fromkeys(QUESTIONS, (True, True)) | {
        "menu_complete": (True, False)
    }
    assert len(requests) == 1


@pytest.mark.parametrize("answer", [WHO | {"answer": "cannot be told"}, None])
def test_an_unclear_answer_leaves_the_others(answer: dict[str, str]) -> None:
    built, _ = judged(opinion(human=answer))
    assert states(built) == dict.fromkeys(QUESTIONS, (True, True)) | {"human": (False, False)}


def test_a_faulty_reply_is_asked_again_and_then_there_is_no_opinion() -> None:
    built, requests = judged("I think it is fine.", opinion())
    assert len(requests) == 2
    assert states(built) == dict.fromkeys(QUESTIONS, (True, True))
    without, requests = judged("no", "no", "no")
    assert len(requests) == 3
    assert states(without) == dict.fromkeys(QUESTIONS, (False, False))
    assert without.environment


def test_a_quotation_stands_there_but_for_case_spaces_and_signs() -> None:
    assert stands_in("“the  Patient’s blood – pressure”", "so the patient's blood - pressure fell")
    assert not stands_in("blood pressure rose", "so the patient's blood pressure fell")
    lavage = "the lavage fluid held 58 % lymphocytes - ratio 0.6 (low)"
    assert stands_in("lavage fluid held 58% lymphocytes–ratio 0.6", lavage)
    assert stands_in("«lavage fluid held … ratio 0.6»", lavage)
    assert not stands_in("lavage fluid held ... ratio 6.0", lavage)
    # What is too short to prove anything is looked for close behind what is not.
    assert not stands_in("lavage fluid held ... it rose", f"{lavage}{' and so on' * 40} it rose")


def test_a_question_left_out_is_unclear_and_takes_no_other_answer_away() -> None:
    given = json.loads(opinion(menu_complete=MISSING))
    del given["results_under_their_tests"]
    built, requests = judged(json.dumps(given))
    assert len(requests) == 1
    assert states(built) == dict.fromkeys(QUESTIONS, (True, True)) | {
        "menu_complete": (True, False),
        "results_under_their_tests": (False, False),
    }
    # An object of none of the questions is no opinion.
    assert len(judged('{"error": "too long"}', opinion())[1]) == 2


def test_the_command_builds_again_for_a_verifier_and_lists_its_disagreements(
    tmp_path: Path,
) -> None:
    samples = Path(__file__).parents[1] / "examples" / "cases"
    cases, out = tmp_path / "cases", tmp_path / "out"
    cases.mkdir()
    shutil.copy(samples / "medaction-01.json", cases)
    case = json.loads((cases / "medaction-01.json").read_text())
    environment = os.environ | {"MEDACTION_CALL_CACHE": str(tmp_path / "calls")}
    quote = case["tests"][0]["result"][:80]

    def script(_request: Asked, number: int) -> str:
        if number == 0:
            return ""  # asked again
        told = {"answer": "no", "quote": quote, "comment": "This stands under another test."}
        return opinion(results_under_their_tests=told)

    with openai_server(script) as server:
        plain = ("envs", "build", "--engine", "local", "--cases", cases, "--out", out)
        runs = [
            medaction(environment, *plain),
            medaction(environment, *plain, "--verifier", f"openai/v@{server.url}"),
            medaction(environment, *plain, "--verifier", f"openai/v@{server.url}"),
        ]
        assert len(server.asked) == 2
    assert [run.returncode for run in runs] == [0, 0, 0], runs[1].stderr
    assert "Second opinions" not in runs[0].stdout
    listed = medaction(environment, "envs", "check", "--out", out)
    assert "results_under_their_tests" in listed.stdout
    assert "This stands under another test." in " ".join(listed.stdout.split())
