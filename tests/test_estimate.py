"""Projecting a run from a few of its cases."""

from pathlib import Path

import yaml

from medaction.envs.turns import Hypothesis, Turn
from medaction.flows.estimate import SAMPLE, hours, project
from tests.conftest import SAMPLES
from tests.openai_server import openai_server
from tests.runs import medaction, rows


def test_a_figure_is_projected_with_its_range() -> None:
    calls = project("calls", [10.0, 20.0, 60.0], 100)
    assert (calls.low, calls.expected, calls.high) == (1000, 3000, 6000)


def test_hours_lie_between_all_in_flight_and_no_faster_than_the_sample() -> None:
    wall = hours(wall_s=360, sample=3, cases=300, in_flight=30)
    assert wall.low == 1.0
    assert wall.high == 10.0
    assert wall.low < wall.expected < wall.high
    few = hours(wall_s=360, sample=3, cases=3, in_flight=30)
    assert few.low <= few.expected <= few.high


def test_three_cases_are_played_and_the_rest_is_projected(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    from medaction.envs.reply import render

    commit = render(
        Turn(1, "It fits.", (Hypothesis("Anemia", 90),), "None is left.", (), "Anemia", raw="")
    )
    with openai_server(lambda _asked, _number: commit) as server:
        preset = tmp_path / "preset.yaml"
        teacher = {
            "model": "openai/x",
            "api_base": server.url,
            "free_form": 0,
            "usd_per_million_prompt_tokens": 1000,
        }
        preset.write_text(
            yaml.safe_dump({"cases": str(SAMPLES), "teachers": [teacher], "rollouts": 2})
        )
        done = medaction(
            run_environment, "distill", "--preset", preset, "--out", tmp_path / "out", "--estimate"
        )
    assert done.returncode == 0, done.stderr
    assert len(server.asked) == SAMPLE * 2, (
        "branches need an intermediate turn, and these rollouts have one turn"
    )
    assert rows(
        tmp_path / "out" / "estimate", "select count(distinct case_id) from trajectories"
    ) == [(SAMPLE,)]
    assert not (tmp_path / "out" / "trajectories.duckdb").exists()
    assert "12 cases" in done.stdout
    assert "prompt_tokens" in done.stdout
    calls = next(line for line in done.stdout.splitlines() if "calls" in line)
    assert calls.count("24") == 3, calls
    dollars = next(line for line in done.stdout.splitlines() if "cost_usd" in line)
    assert dollars.count("2.4") == 3, dollars
