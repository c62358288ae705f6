"""The main job end to end: a real Prefect server, a real Ray, real files; killed, rerun,
retried."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import httpx
import polars as pl
import pytest
import yaml

from medaction.trajectories.store import Store
from tests.conftest import SAMPLES, shared_data
from tests.openai_server import openai_server
from tests.other_servers import WAYS
from tests.runs import TEACHERS, medaction, rows, sample_cases


def played(out: Path) -> list[tuple]:
    """Everything that was played, without when and in which run."""
    return rows(out, "select turns.* exclude (seconds) from turns order by trajectory_id, number")


def test_a_run_leaves_a_dataset_of_both_teachers(finished: tuple[Path, Path]) -> None:
    _, out = finished
    frame = pl.concat(
        [pl.read_parquet(file) for file in sorted((out / "dataset").glob("*.parquet"))]
    )
    assert set(frame["teacher"]) == {"kg-screening", "kg-targeted"}
    assert frame["id"].is_unique().all()
    lines = [
        json.loads(line)
        for file in sorted((out / "dataset").glob("*.jsonl"))
        for line in file.open()
    ]
    assert lines == frame.to_dicts()
    for record in lines:
        assert [message["role"] for message in record["messages"]] == [
            "system",
            "user",
            "assistant",
        ]
        assert json.loads(record["messages"][-1]["content"])["differential"]


def test_every_result_in_a_prompt_is_documented(finished: tuple[Path, Path]) -> None:
    _, out = finished
    with Store(out / "trajectories.duckdb") as store:
        documented = {
            (world.case_id, test.result) for world in store.environments() for test in world.menu
        }
        told = store.rows(
            "select distinct case_id, result.text from (select case_id, unnest(answer.results) as"
            " result from"
            " (select case_id, unnest(answers) as answer from turns join trajectories using"
            " (trajectory_id)))"
        )
    assert told
    assert set(told) <= documented


def test_the_funnel_adds_up(finished: tuple[Path, Path]) -> None:
    _, out = finished
    from medaction.flows.summary import REPORT_QUERIES

    count = {step.strip(): number for step, number in rows(out, REPORT_QUERIES["Funnel"].sql)}
    assert count["cases read"] == count["environments"] + count["refused"] == 3
    fates = (count["kept"], count["truncated"], count["discarded"], count["unscorable"])
    assert count["trajectories played"] == sum(fates) == 3 * 2 * 4
    records = count["kept (records of the dataset)"]
    repeats = count["kept, but the repeat of a record"]
    assert count["turns played"] == records + repeats + count["not kept"]
    assert records == sum(
        len(pl.read_parquet(file)) for file in sorted((out / "dataset").glob("*.parquet"))
    )


def test_the_queries_in_the_summary_give_its_numbers(finished: tuple[Path, Path]) -> None:
    _, out = finished
    text = (out / "summary.md").read_text()
    queries = text.split("```sql\n")[1:]
    assert len(queries) >= 8
    with duckdb.connect(str(out / "trajectories.duckdb"), read_only=True) as db:
        for query in queries:
            table = db.sql(query.split("\n```")[0]).pl()
            for value in table.row(0):
                assert value is None or str(value).split("\n")[0][:40] in text


def test_a_rerun_of_a_finished_run_plays_nothing(
    finished: tuple[Path, Path], run_environment: dict[str, str]
) -> None:
    cases, out = finished
    before, dataset = played(out), (out / "dataset/train.parquet").read_bytes()
    again = medaction(run_environment, "distill", "--cases", cases, "--out", out, *TEACHERS)
    assert again.returncode == 0, again.stderr
    assert played(out) == before
    assert len(rows(out, "select distinct run_id from trajectories")) == 1
    assert (out / "dataset/train.parquet").read_bytes() == dataset


@pytest.mark.slow
def test_killed_half_way_and_started_again_it_ends_as_if_never_killed(
    finished: tuple[Path, Path],
    tmp_path: Path,
    run_environment: dict[str, str],
    prefect_server: str,
) -> None:
    cases, reference = finished
    out = tmp_path / "out"
    command = [
        sys.executable,
        *("-m", "medaction.cli.main", "distill", "--cases", cases, "--out", out, *TEACHERS),
        *("--in-flight", "1"),
    ]
    with subprocess.Popen(
        list(map(str, command)), env=run_environment, stderr=subprocess.DEVNULL
    ) as run:
        stored = wait_for_second_case(prefect_server, out, run)
        run.send_signal(signal.SIGKILL)
    survived = dict(rows(out, "select trajectory_id, run_id from trajectories"))
    assert stored
    assert 0 < len(survived) < 24

    done = medaction(run_environment, *command[3:])
    assert done.returncode == 0, done.stderr
    now = dict(rows(out, "select trajectory_id, run_id from trajectories"))
    assert survived.items() <= now.items(), "what had finished was played again"
    assert played(out) == played(reference)
    assert rows(out, "select count(*) from runs where state = 'interrupted'") == [(1,)]
    assert (out / "dataset/train.parquet").read_bytes() == (
        reference / "dataset/train.parquet"
    ).read_bytes()


def wait_for_second_case(api: str, out: Path, run: subprocess.Popen[bytes]) -> bool:
    """Wait until two cases have been played; one at a time is under way, so the first is stored
    then."""
    query = {
        "flow_runs": {"name": {"like_": str(out)}},
        "task_runs": {"name": {"like_": "rollouts:"}, "state": {"type": {"any_": ["COMPLETED"]}}},
    }
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and run.poll() is None:
        if len(httpx.post(f"{api}/task_runs/filter", json=query).json()) >= 2:
            return True
        time.sleep(0.1)
    return False


def test_a_bad_case_is_named_and_retry_runs_just_that_one(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    cases, out = sample_cases(tmp_path / "cases", 3, 4), tmp_path / "out"
    good = (cases / "medaction-04.json").read_text()
    broken = json.loads(good)
    broken["initial_observation"] = (
        f"This is {broken['diagnosis']}. {broken['initial_observation']}"
    )
    (cases / "medaction-04.json").write_text(json.dumps(broken))
    (cases / "medaction-99.xml").write_text("<article><front>")
    first = medaction(
        run_environment, "distill", "--cases", cases, "--out", out, "--teacher", "kg-screening"
    )
    assert first.returncode == 0, first.stderr
    assert "medaction-04" in first.stderr
    assert "medaction-99" in first.stderr
    assert "Cases not read or refused: 2" in first.stdout
    assert rows(out, "select case_id from cases where environment_id is null") == [
        ("medaction-04",)
    ]
    before = rows(out, "select * from trajectories order by all")
    assert {row[2] for row in before} == {"medaction-03"}

    (cases / "medaction-04.json").write_text(good)
    second = medaction(run_environment, "retry", "--out", out, "--case", "medaction-04")
    assert second.returncode == 0, second.stderr
    assert (
        rows(out, "select * from trajectories where case_id = 'medaction-03' order by all")
        == before
    )
    assert rows(out, "select count(*) from trajectories where case_id = 'medaction-04'") == [(4,)]
    assert rows(
        out, "select count(*) from failures where stage = 'environment' and resolved is null"
    ) == [(0,)]

    wrong = medaction(run_environment, "retry", "--out", out, "--case", "no-such-case")
    assert wrong.returncode == 2
    assert "no open failure of no-such-case" in wrong.stderr


def test_benchmark_cases_are_never_exported(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    cases, out = shared_data("medrbench/diagnosis_cases.json"), tmp_path / "out"
    done = medaction(
        run_environment,
        *("distill", "--cases", cases, "--out", out, "--teacher", "kg-targeted", "--limit", 2),
    )
    assert done.returncode == 0, done.stderr
    assert not (out / "dataset").exists()
    assert rows(out, "select count(*) > 0 from trajectories") == [(True,)]
    refused = medaction(run_environment, "export", "--out", out)
    assert refused.returncode == 1
    assert "evaluation-only" in refused.stderr
    mixed = medaction(
        run_environment,
        *("distill", "--cases", SAMPLES, "--out", out, "--teacher", "kg-targeted", "--limit", 1),
    )
    assert mixed.returncode == 1
    assert "another output folder" in mixed.stderr


def test_prefect_shows_a_task_for_each_case_and_stage(
    finished: tuple[Path, Path], prefect_server: str
) -> None:
    _, out = finished
    (flow_run_id,) = rows(out, "select flow_run_id from runs order by started limit 1")[0]
    query = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
    tasks = httpx.post(f"{prefect_server}/task_runs/filter", json=query).json()
    names = {task["name"]: task["state_type"] for task in tasks}
    for number in ("01", "03", "07"):
        assert names[f"environment: medaction-{number}"] == "COMPLETED"
        assert names[f"rollouts: medaction-{number}"] == "COMPLETED"
    artifacts = httpx.post(f"{prefect_server}/artifacts/filter", json=query).json()
    assert {"funnel", "teachers", "summary", "environments", "rollouts"} <= {
        artifact["key"] for artifact in artifacts
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "o", "--teacher", "kg-screening"], "--cases: Field required"),
        (["--cases", "c", "--out", "o"], "--teacher: Field required"),
        (
            ["--cases", "c", "--out", "o", "--teacher", "kg-screening", "--rollouts", "0"],
            "--rollouts",
        ),
        (
            [
                *("--cases", "c", "--out", "o", "--teacher", "kg-screening"),
                *("--teacher", "kg-screening"),
            ],
            "same name",
        ),
        (["--preset", "no-such"], "no preset 'no-such': there are demo, paper"),
    ],
)
def test_bad_settings_are_refused_in_the_words_of_the_command_line(
    arguments: list[str], said: str, run_environment: dict[str, str]
) -> None:
    refused = medaction(run_environment, "distill", *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_a_server_says_again_for_every_seed_stands_once_in_the_dataset(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    """Three rollouts of four turns and a branch of two, from a server that ignores the seed."""
    with openai_server(WAYS["ok"].answer) as server:
        teacher = tmp_path / "preset.yaml"
        model = {"model": f"openai/m@{server.url}", "free_form": 0}
        teacher.write_text(yaml.safe_dump({"teachers": [model], "strategy": "none"}))
        out = tmp_path / "out"
        done = medaction(
            run_environment, "distill", "--preset", teacher, "--out", out,
            "--cases", sample_cases(tmp_path / "cases", 1),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [(turns,)] = rows(out, "select count(*) from turns")
    frame = pl.concat(
        [pl.read_parquet(file) for file in sorted((out / "dataset").glob("*.parquet"))]
    )
    assert len(frame) == 4
    assert frame["messages"].n_unique() == 4
    assert turns > 12
    manifest = json.loads((out / "dataset" / "manifest.json").read_text())
    assert manifest["repeats_left_out"] == {"m (schema)": turns - 4}
    repeated = f"{turns - 4} turns of m (schema, 1 cases) repeat a record to the letter"
    assert repeated in (out / "dataset" / "README.md").read_text()
    assert f"kept, but the repeat of a record | {turns - 4} |" in (out / "summary.md").read_text()
    assert "the repeat of a record" in done.stdout
