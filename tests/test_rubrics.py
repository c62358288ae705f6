"""Rubrics: published files are read, verdicts become points, and what fails is a row's reason."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from medaction.envs.records import BadCase
from medaction.evaluation.rubrics import (
    Criterion,
    RubricRow,
    read_rubrics,
    rubric_score,
    rubric_table,
)
from tests.openai_server import Asked, Reply, openai_server
from tests.runs import medaction

AXES = ("axis:accuracy", "axis:completeness")


def row(number: int, *points: float, theme: str = "theme:emergency") -> dict[str, Any]:
    return {
        "prompt_id": f"case-{number}",
        "prompt": [
            {"role": "user", "content": "My chest hurts."},
            {"role": "assistant", "content": "Since when?"},
            {"role": "user", "content": f"Since {number} hours."},
        ],
        "rubrics": [
            {"criterion": f"criterion {place}", "points": each, "tags": [AXES[place % 2]]}
            for place, each in enumerate(points)
        ],
        "example_tags": [theme],
        "ideal_completions_data": None,
    }


def published(folder: Path, *rows: Any) -> Path:
    path = folder / "healthbench.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def test_points_are_those_of_the_criteria_met_by_those_that_can_be_had() -> None:
    criteria = [Criterion(criterion="a", points=p) for p in (5, 3, -4)]
    assert rubric_score(criteria, [True, False, False]) == 5 / 8
    assert rubric_score(criteria, [True, True, True]) == 4 / 8
    assert rubric_score(criteria, [False, False, True]) == -4 / 8
    assert rubric_score(criteria[2:], [True]) is None


def test_a_published_file_is_read_and_bad_lines_are_named(tmp_path: Path) -> None:
    no_points = row(2, -5)
    no_prompt = {name: value for name, value in row(3, 5).items() if name != "prompt"}
    read = list(read_rubrics(published(tmp_path, row(1, 5, -2), "{", no_points, no_prompt)))
    assert not isinstance(read[0], BadCase)
    assert read[0].messages[-1] == {"role": "user", "content": "Since 1 hours."}
    assert [criterion.points for criterion in read[0].rubrics] == [5, -2]
    lines = [each.message for each in read[1:] if isinstance(each, BadCase)]
    assert len(lines) == 3
    assert all(f"line {number}" in line for number, line in enumerate(lines, 2))
    assert "no criterion has points above 0" in lines[1]
    assert "prompt" in lines[2]


def test_a_mean_below_nothing_is_nothing_and_axes_have_their_own_criteria(tmp_path: Path) -> None:
    cases = [c for c in read_rubrics(published(tmp_path, row(1, 4, 4, -8), row(2, 4, 4, -8)))
             if not isinstance(c, BadCase)]  # fmt: skip
    rows = [RubricRow("case-1", "", met, rubric_score(cases[0].rubrics, met))
            for met in ((False, True, True), (False, False, True))]  # fmt: skip
    lines = {line.split(" | ")[0].strip("| "): line for line in rubric_table(cases, rows)}
    assert "| 0.000 |" in lines["all"]  # -1/2 and -1
    assert "| 0.500 |" in lines["axis:completeness"]
    assert "| 0.000 |" in lines["axis:accuracy"]
    assert lines["theme:emergency"].endswith("| 2 |")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"MEDACTION_CALL_CACHE": str(tmp_path / "calls")}


def answer(asked: Asked, number: int) -> Reply | str:
    """The model under test, and a judge whose verdicts are the criteria of even numbers."""
    if asked.body["model"] == "tested":
        if "Since 9 hours" in asked.body["messages"][-1]["content"]:
            return Reply("the prompt is refused", status=400)
        return "<think>It may be the heart.</think>Call an ambulance."
    data = json.loads(asked.body["messages"][-1]["content"])
    assert data["reply"] == "Call an ambulance."
    return json.dumps({"answer": "met" if int(data["criterion"][-1]) % 2 == 0 else "not met"})


def test_the_command_scores_a_file_and_a_rerun_asks_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    path = published(tmp_path, row(1, 5, 5), row(2, 3, 1, -2, theme="theme:other"))
    with openai_server(answer) as server:
        models = ("--model", f"openai/tested@{server.url}", "--judge", f"openai/j@{server.url}")
        command = ("rubrics", path, *models, "--out", tmp_path / "out")
        done = medaction(environment, *command)
        assert done.returncode == 0, done.stderr
        calls = len(server.asked)
        assert calls == 2 + 5
        again = medaction(environment, *command, "--json")
        assert len(server.asked) == calls
    assert [each["score"] for each in json.loads(again.stdout)] == [0.5, 0.25]
    table = (tmp_path / "out/rubrics.md").read_text()
    assert "| all | 0.375 |" in table
    assert "| theme:other | 0.250 |" in table
    rows = [json.loads(line) for line in (tmp_path / "out/rubrics.jsonl").read_text().splitlines()]
    assert rows[1]["met"] == [True, False, True]


def test_what_is_not_scored_is_counted_and_ends_with_1(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    path = published(tmp_path, row(1, 5, 5), row(9, 5), "{")
    with openai_server(answer) as server:
        models = ("--model", f"openai/tested@{server.url}", "--judge", f"openai/j@{server.url}")
        done = medaction(environment, "rubrics", path, *models, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "1 cases are not scored and 1 lines are left out" in done.stderr
    assert "the prompt is refused" in done.stderr
    assert "| all | 0.500 |" in (tmp_path / "out/rubrics.md").read_text()


@pytest.mark.parametrize("models", [("kg-screening", "openai/x"), ("openai/x", "kg-screening")])
def test_a_model_that_cannot_reply_is_refused(
    tmp_path: Path, environment: dict[str, str], models: tuple[str, str]
) -> None:
    path = published(tmp_path, row(1, 5))
    options = ("--model", models[0], "--judge", models[1], "--out", tmp_path / "out")
    done = medaction(environment, "rubrics", path, *options)
    assert done.returncode == 2
    assert "kg-screening" in done.stderr
