"""Faults of a model's server end to end: rollouts finish all the same, what failed is typed and
kept, and `retry` runs just that again."""

import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from benchmarks.faults import recorded, teacher_file
from medaction.flows.summary import REPORT_QUERIES
from medaction.llm.limits import EQUAL_REFUSALS
from tests.openai_server import Asked, Reply, openai_server
from tests.runs import hashes, medaction, medaction_process, rows
from tests.simulated_teacher import (
    Failing,
    Simulated,
    answer,
    cases_in,
    mark,
    requests_of,
    simulated_teacher,
)


def test_every_fault_is_on_record_and_the_rollouts_finish(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    """The faults are drawn by a seed from the requests themselves: the same ones in every run,
    whatever the order."""
    cases, out, log = cases_in(tmp_path / "cases", 12), tmp_path / "out", tmp_path / "log"
    with openai_server(Simulated(log, faults=7, stall_s=24)) as server:
        preset = teacher_file(tmp_path, server.url, timeout_s=12)
        done = medaction(
            run_environment,
            *("distill", "--cases", cases, "--out", out, "--preset", preset),
            *("--launch-points", 0),
        )
    assert done.returncode == 0, done.stderr
    faults, calls, finished, failed = recorded(out)
    asked = requests_of(log)
    injected = Counter(kind for _, kind in asked)
    del injected["answered"]
    assert finished == 12 * 3
    assert not failed
    assert len(injected) >= 6
    # A request on a connection that was just closed as idle never arrives: on record, and not the
    # server's.
    never_arrived = faults.get("dropped", 0) - injected["dropped"]
    assert never_arrived >= 0
    assert {**faults, "dropped": injected["dropped"]} == {"dropped": 0, **injected}
    without_reply = sum(faults.get(kind, 0) for kind in ("429", "500", "dropped", "stalled"))
    assert len(asked) == calls + without_reply - never_arrived


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_whose_teacher_hangs(tmp_path: Path, number: int) -> None:
    """polars' handler of Ctrl-C let the run wait for the teacher's next reply."""
    cases, log = cases_in(tmp_path / "cases", 2), tmp_path / "log"
    with simulated_teacher(log, "--after-s", 600) as (_, api_base):
        preset = teacher_file(tmp_path, api_base)
        arguments = ("distill", "--cases", cases, "--out", tmp_path / "out", "--preset", preset)
        with medaction_process(tmp_path, *arguments, "--engine", "local") as run:
            while not requests_of(log):
                assert run.poll() is None
                time.sleep(0.1)
            time.sleep(1)
            run.send_signal(number)
            assert run.wait(timeout=120) == 130
    assert "interrupted" in (tmp_path / "medaction.log").read_text()


def test_retry_runs_just_the_failures_that_are_named_and_leaves_every_other_row_as_it_was(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    cases, out = cases_in(tmp_path / "cases", 5), tmp_path / "out"
    marks = {number: mark(cases, number) for number in (1, 2, 3)}
    ways = {
        marks[1]: Reply("the prompt is refused", status=400),
        marks[2]: Reply("no JSON"),
        marks[3]: Reply("no such quota", status=500),
    }
    script = Failing(ways)
    with openai_server(script) as server:
        preset = teacher_file(tmp_path, server.url, free_form=0)
        run = (
            *("distill", "--cases", cases, "--out", out, "--preset", preset, "--rollouts", 1),
            *("--launch-points", 0),
        )
        first = medaction(run_environment, *run)
        assert first.returncode == 1, first.stderr
        assert "3 rollouts failed" in first.stderr
        open_ = (
            "select case_id, error_class from failures where stage = 'rollout' and resolved "
            "is null order by all"
        )
        broken = [f"simulated-{number:05}" for number in (1, 2, 3)]
        assert rows(out, open_) == list(
            zip(broken, ["ModelRefused", "MalformedReply", "ModelUnavailable"], strict=True)
        )
        assert len(rows(out, "select * from trajectories")) == 2
        history = rows(
            out, "select case_id, error_class, message, raw, faults from failures order by all"
        )

        script.broken = False
        for number, narrow in (
            (1, ("--error", "ModelRefused")),
            (2, ("--case", broken[1])),
            (
                3,
                (
                    "--rollout",
                    rows(out, f"select trajectory_id from failures where case_id = '{broken[2]}'")[
                        0
                    ][0],
                ),
            ),
        ):
            before = {
                table: hashes(out, table)
                for table in ("cases", "environments", "trajectories", "turns", "failures")
            }
            script.asked_about.clear()
            again = medaction(run_environment, "retry", "--out", out, *narrow)
            assert again.returncode == (number != 3), again.stderr
            assert Counter(script.asked_about) == {marks[number]: 5}, (
                "five turns of this case, and nothing else"
            )
            for table, by_case in before.items():
                now = hashes(out, table)
                assert {case: now[case] for case in by_case if case != broken[number - 1]} == {
                    case: by_case[case] for case in by_case if case != broken[number - 1]
                }, table
        assert rows(out, open_) == []
        assert (
            rows(
                out, "select case_id, error_class, message, raw, faults from failures order by all"
            )
            == history
        )
        assert rows(out, "select count(*), count(distinct trajectory_id) from trajectories") == [
            (5, 5)
        ]

        script.asked_about.clear()
        nothing = medaction(run_environment, "retry", "--out", out)
        assert "nothing to retry" in nothing.stdout
        assert not script.asked_about


def test_a_teacher_that_is_refused_everything_stops_and_the_run_says_so(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    """The other teacher goes on; what its replies lacked in form is counted."""

    def script(asked: Asked, number: int) -> Reply:
        if asked.body["model"] == "poor":
            return Reply("Insufficient Balance", status=402)
        if "seed" in asked.body:
            return Reply("Unrecognized request argument supplied: seed", status=400)
        return Reply(f"Here you are:\n```json\n{answer(asked.body | {'seed': number})}\n```")

    cases, out = cases_in(tmp_path / "cases", 4), tmp_path / "out"
    with openai_server(script) as server:
        preset = tmp_path / "two.yaml"
        teachers = [
            {"name": name, "model": f"openai/{name}", "api_base": server.url, "free_form": 0}
            for name in ("poor", "rich")
        ]
        teachers[0]["in_flight"] = 2
        preset.write_text(yaml.safe_dump({"teachers": teachers}))
        run = ("distill", "--cases", cases, "--out", out, "--preset", preset)
        done = medaction(run_environment, *run, "--rollouts", 4, "--launch-points", 0)
        calls_of_the_poor = sum(asked.body["model"] == "poor" for asked in server.asked)
    assert done.returncode == 1
    assert "poor played nothing" in done.stderr
    assert "402 Insufficient Balance" in done.stderr
    # One call more may be under way when the last of the equal refusals comes.
    assert EQUAL_REFUSALS <= calls_of_the_poor <= EQUAL_REFUSALS + 1
    assert sum("seed" in asked.body for asked in server.asked if asked.body["model"] == "rich") == 1
    assert rows(out, "select teacher, count(*) from trajectories group by all") == [("rich", 16)]
    forms = rows(out, REPORT_QUERIES["Other forms"].sql)
    assert ("rich", "Mended", "words around the object", 80) in forms
    assert ("rich", "ParameterRefused", "seed is refused and left out", 1) in forms
