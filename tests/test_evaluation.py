"""`medaction evaluate` and `compare` end to end: a real Prefect server, a real Ray, a real judge
server; killed, resumed, recomputed."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from medaction.cli.main import medaction as command
from medaction.evaluation.results import read_result
from medaction.trajectories.store import Store, StoreError
from medaction.trajectories.stored_trees import tree_of
from tests.openai_server import Asked, openai_server
from tests.runs import medaction, rows, sample_cases


def judge_script(request: Asked, number: int) -> str:
    """A judge that finds every diagnosis right and matches the first tests with each other."""
    data = json.loads(request.body["messages"][1]["content"])
    return (
        '{"matches": [{"requested": 1, "documented": 1}]}'
        if "requested" in data
        else '{"answer": "correct"}'
    )


def test_an_evaluation_is_killed_resumed_and_recomputed_without_a_call(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    cases, out = sample_cases(tmp_path / "cases", 1, 3), tmp_path / "out"
    with openai_server(judge_script) as server:
        arguments = [
            "evaluate", cases, "--model", "kg-screening", "--out", out, "--rollouts", 2,
            "--workers", 2, "--judge", "offline", "--judge", f"openai/judge@{server.url}",
        ]  # fmt: skip
        first = subprocess.Popen(
            [sys.executable, "-m", "medaction.cli.main", *map(str, arguments)], env=run_environment
        )
        store, deadline = out / "trajectories.duckdb", time.monotonic() + 200
        while not store.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        first.send_signal(signal.SIGKILL)
        first.wait()
        done = medaction(run_environment, *arguments)
        assert done.returncode == 0, done.stderr
        calls = len(server.asked)
        assert calls > 0
        written = (out / "result.json").read_text()
        again = medaction(run_environment, *arguments)
        assert again.returncode == 0, again.stderr
        assert len(server.asked) == calls
    recomputed_result, first_result = (
        json.loads((out / "result.json").read_text()),
        json.loads(written),
    )
    assert recomputed_result | {"versions": {}} == first_result | {"versions": {}}
    result = read_result(out)
    assert [(row["case_id"], row["run"]) for row in result["rows"]] == [
        (case_id, run) for case_id in ("medaction-01", "medaction-03") for run in (0, 1)
    ]
    assert rows(out, "select count(*) from trajectories") == [(4,)]
    assert rows(out, "select count(*) from judgements") == [(8,)]
    assert result["judge"].startswith("offline@")
    assert {found["on"]: found["items"] for found in result["agreement"]}["diagnosis"] == 4
    accuracy = {found["name"]: found for found in result["scores"]}["accuracy"]
    assert (accuracy["scored"], accuracy["of"]) == (4, 4)
    recomputed = rows(out, result["query"])
    by_run = [[row for row in result["rows"] if row["run"] == run] for run in (0, 1)]
    for (_, precision, recall, right, judged), own in zip(recomputed, by_run, strict=True):
        assert judged == 2
        assert precision == pytest.approx(sum(row["precision"] for row in own) / 2)
        assert recall == pytest.approx(sum(row["recall"] for row in own) / 2)
        assert right == pytest.approx(sum(row["correct"] for row in own) / 2)
    with Store(out / "trajectories.duckdb") as kept:
        assert kept.evaluation_only
        with pytest.raises(StoreError, match="evaluation"):
            kept.claim(evaluation_only=False)


def test_a_result_under_a_limit_counts_its_own_cases_alone(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    cases, out = sample_cases(tmp_path / "cases", 1, 3), tmp_path / "out"
    (cases / "0-broken.json").write_text("{")
    arguments = ["evaluate", cases, "--model", "kg-screening", "--out", out, "--rollouts", 1]
    for limit, environments in ((None, 2), (2, 1)):
        done = medaction(run_environment, *arguments, *(["--limit", limit] if limit else []))
        assert done.returncode == 0, done.stderr
        result = read_result(out)
        assert result["cases"] == {
            "read": environments + 1,
            "environments": environments,
            "refused": [["unreadable", 1]],
        }
        assert len(rows(out, result["query"])) == 1
    nothing = medaction(run_environment, *arguments, "--limit", 1)
    assert nothing.returncode == 1
    assert "no case can be played (1 unreadable)" in nothing.stderr


def free_words(request: Asked, number: int) -> str:
    """A model that writes as it likes (its third message as JSON), its reader, and a judge."""
    system, user = (message["content"] for message in request.body["messages"][:2])
    if "put on record" in system:
        text = json.loads(user)["message"]
        committed = "sarcoidosis is my diagnosis" in text.casefold()
        return json.dumps(
            {
                "tests": [] if committed else ["Chest radiograph", "Serum calcium"],
                "leading_diagnosis": "Sarcoidosis",
                "final_diagnosis": "Sarcoidosis" if committed else "",
            }
        )
    if "judge whether" in system:
        return '{"answer": "correct"}'
    if "match two lists" in system:
        return '{"matches": [{"requested": 1, "documented": 1}]}'
    if "This is turn 1" in user:
        return "I think of Sarcoidosis, less of lymphoma. Order a Chest radiograph, Serum calcium."
    assert "Chest radiograph" in user  # the record of all tests, not the chat
    return '{"reasoning": "nodes", "answer": "Sarcoidosis is my diagnosis."}'


def test_the_papers_protocol_takes_free_text_and_reads_it_afterwards(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    with openai_server(free_words) as server:
        arguments = [
            "evaluate", sample_cases(tmp_path / "cases", 1), "--out", tmp_path / "out",
            "--protocol", "paper", "--rollouts", 1, "--model", f"openai/m@{server.url}",
        ]  # fmt: skip
        refused = medaction(run_environment, *arguments)
        assert refused.returncode == 2
        assert "free text, which a language model must read" in refused.stderr
        done = medaction(run_environment, *arguments, "--judge", f"openai/judge@{server.url}")
        assert done.returncode == 0, done.stderr
        asked_in_a_form = [
            request for request in server.asked
            if request.body["model"] == "m" and "response_format" in request.body
        ]  # fmt: skip
    assert not asked_in_a_form
    result = read_result(tmp_path / "out")
    assert result["protocol"] == "paper free-turn"
    [row] = result["rows"]
    assert (row["correct"], row["diagnosis"]) == (True, "Sarcoidosis")
    assert row["precision"] == 0.5
    with Store(tmp_path / "out" / "trajectories.duckdb") as store:
        [world] = store.environments()
        [trajectory] = tree_of(store, world.environment_id)
    assert [turn.tests for turn in trajectory.turns] == [("Chest radiograph", "Serum calcium"), ()]


def test_two_results_are_compared(tmp_path: Path) -> None:
    from tests.test_evaluation_scores import result

    paths = []
    for model, correct in (("a", [True] * 9), ("b", [False] * 9)):
        path = tmp_path / f"{model}.json"
        path.write_text(json.dumps(result(model, correct)))
        paths.append(str(path))
    done = CliRunner().invoke(
        command, ["compare", *paths, "--published", "--out", str(tmp_path / "both.md")]
    )
    assert done.exit_code == 0, done.output
    assert "| a | b | diagnosis accuracy | 9 | -1.000 |" in (tmp_path / "both.md").read_text()
    assert (tmp_path / "both-costs.svg").read_text().count("a case") == 3  # the axis and two lines
    shutil.copy(paths[0], tmp_path / "copy.json")
    wrong = CliRunner().invoke(command, ["compare", paths[0], str(tmp_path / "copy.json")])
    assert wrong.exit_code == 2
    assert "same model, protocol and judge" in wrong.output


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--model", "kg-screening", "--mode", "one-turn", "--t-max", "5"], "leave t_max out"),
        (["--model", "kg-screening", "--examiner", "openai/gpt-4o"], "has an oracle, no examiner"),
        (["--model", "kg-screening", "--judge", "offline", "--judge", "offline"], "named twice"),
        (["--model", "kg-screening", "--judge", "kg-targeted"], "no language model"),
        (["--model", "kg-screening", "--judge", "gpt"], "unknown teacher"),
        ([], "Field required"),
    ],
)
def test_wrong_usage_is_told(options: list[Any], complaint: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["evaluate", "cases", "--out", str(tmp_path), *options])
    assert done.exit_code == 2
    assert complaint in done.output
