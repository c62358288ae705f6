"""Projecting a run from a few of its cases."""

from pathlib import Path

import yaml

from medaction.envs.turns import Hypothesis, Turn
from medaction.flows.estimate import CASES_PLAYED, hours, project, rounded
from medaction.flows.summary import cache_notes
from medaction.trajectories.store import Store
from tests.conftest import SAMPLES
from tests.openai_server import openai_server
from tests.other_servers import WAYS, error, unless
from tests.runs import medaction, rows
from tests.test_store import fill


def test_a_figure_is_projected_with_its_range() -> None:
    assert project([10.0, 20.0, 60.0], 100) == (1000, 3000, 6000)
    assert [rounded(value) for value in (41640, 999.6, 0.00496)] == ["41,640", "1,000", "0.00496"]


def test_hours_lie_between_all_in_flight_and_no_faster_than_the_sample() -> None:
    low, expected, high = hours(wall_s=360, sample=3, cases=300, in_flight=30)
    assert (low, high) == (1.0, 10.0)
    assert low < expected < high
    few = hours(wall_s=360, sample=3, cases=3, in_flight=30)
    assert [*few] == sorted(few)


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
        requests = len(server.asked)
        # Its replies are in the call cache now; what they cost is projected all the same.
        anew = medaction(
            run_environment, "distill", "--preset", preset, "--out", tmp_path / "two", "--estimate"
        )
    assert done.returncode == 0, done.stderr
    assert requests == 1 + CASES_PLAYED * 2, (
        "one question before the run; branches need an intermediate turn, and these rollouts have"
        " one turn"
    )
    assert rows(
        tmp_path / "out" / "estimate", "select count(distinct case_id) from trajectories"
    ) == [(CASES_PLAYED,)]
    assert not (tmp_path / "out" / "trajectories.duckdb").exists()
    assert "12 cases" in done.stdout
    assert "prompt_tokens" in done.stdout
    calls = next(line for line in done.stdout.splitlines() if "calls" in line)
    assert calls.count("24") == 3, calls
    # In words: how wide a column is depends on the seconds in its other rows.
    dollars, dollars_anew = (
        next(line.split() for line in run.stdout.splitlines() if "cost_usd" in line)
        for run in (done, anew)
    )
    assert dollars.count("2.4") == 3, dollars
    assert dollars_anew == dollars


def test_a_run_after_the_estimate_says_who_paid_for_its_calls(tmp_path: Path) -> None:
    with Store(tmp_path / "trajectories.duckdb") as store:
        fill(store)
        assert cache_notes(store) == []
        store.db.execute("update turns set calls = 0, cached_calls = 2")
        [(turns,)] = store.rows("select count(*) from turns")
        (note,) = cache_notes(store)
    assert note.startswith(f"{2 * turns} of {2 * turns} calls were answered by the call cache")


def test_a_model_that_cannot_play_ends_the_estimate_before_anything_is_asked_of_it(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    with (
        openai_server(WAYS["ok"].answer) as server,
        openai_server(WAYS["no_such_model"].answer) as other,
    ):
        done = medaction(
            run_environment, "distill", "--cases", SAMPLES, "--out", tmp_path / "out",
            "--teacher", f"openai/good@{server.url}", "--teacher", f"openai/absent@{other.url}",
            "--estimate",
        )  # fmt: skip
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if "absent" in line]
    assert "teacher absent: 404 The model does not exist" in line
    assert line.endswith("there are good-model")
    assert len(server.asked) == len(other.asked) == 1
    assert not (tmp_path / "out" / "trajectories.duckdb").exists()


def test_nothing_is_projected_where_nothing_was_played(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    account_is_empty_after_the_question = unless(
        lambda asked: len(server.asked) > 1, error(402, "Insufficient Balance")
    )
    with openai_server(account_is_empty_after_the_question) as server:
        done = medaction(
            run_environment, "distill", "--cases", SAMPLES, "--out", tmp_path / "out",
            "--teacher", f"openai/poor@{server.url}", "--estimate",
        )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be projected" in done.stderr
    assert "402 Insufficient Balance" in done.stderr
    assert "projected from" not in done.stdout
    assert "cost_usd" not in done.stdout
