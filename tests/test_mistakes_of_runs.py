"""Mistakes that come out when a run has begun: a server that is down, a cache that cannot be read,
reports that are all refused, an interruption."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medaction.cli.options import require_servers
from medaction.words.errors import MedactionError
from tests.conftest import SAMPLES
from tests.openai_server import Asked, Reply, openai_server
from tests.runs import medaction, rows, sample_cases
from tests.stand_in import DISCHARGE_LETTER


def one_line(process: subprocess.CompletedProcess[str]) -> str:
    """The line that names the mistake: the last one, and nothing of a traceback before it."""
    assert "Traceback" not in process.stderr
    return process.stderr.splitlines()[-1]


def test_a_server_that_is_down_ends_with_1(tmp_path: Path, run_environment: dict[str, str]) -> None:
    cases, out = sample_cases(tmp_path / "cases", 1), tmp_path / "out"
    teacher = "openai/m@http://127.0.0.1:9/v1"
    done = medaction(
        run_environment, "distill", "--cases", cases, "--out", out, "--teacher", teacher
    )
    assert done.returncode == 1
    assert one_line(done).startswith("medaction: ")
    assert "127.0.0.1:9" in done.stderr or "nothing was played" in done.stderr


def test_reports_that_are_all_refused_end_with_1(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    """A refusal is a result: it is not retried unasked, and a second run counts it once."""
    cases, out = tmp_path / "cases", tmp_path / "out"
    cases.mkdir()
    case = json.loads((SAMPLES / "medaction-01.json").read_text())
    (cases / "x.json").write_text(json.dumps(case | {"tests": []}))
    command = ("distill", "--cases", cases, "--out", out, "--teacher", "kg-targeted")
    for _ in range(2):
        done = medaction(run_environment, *command)
        assert done.returncode == 1
        assert f"medaction envs check --out {out}" in one_line(done)
        assert "retry" not in done.stdout + done.stderr
    retried = medaction(run_environment, "retry", "--out", out)
    assert (retried.returncode, retried.stdout.strip()) == (
        0,
        "nothing to retry: no such failure is open",
    )
    scored = medaction(
        run_environment, "evaluate", cases, "--model", "kg-targeted", "--out", tmp_path / "eval"
    )
    assert scored.returncode == 1
    assert "no case can be played" in one_line(scored)
    analysed = medaction(run_environment, "analyse", out, "--out", tmp_path / "figures")
    assert analysed.returncode == 1
    assert "nothing was played here" in one_line(analysed)
    unread = tmp_path / "unread"
    unread.mkdir()
    (unread / "x.json").write_text(json.dumps(case | {"name": "x"}))
    known = ("--cases", unread, "--out", tmp_path / "other", "--teacher", "kg-targeted")
    estimated = medaction(run_environment, "distill", *known, "--estimate")
    assert estimated.returncode == 1
    assert "cannot be projected from these reports: no case" in one_line(estimated)
    assert "Accuracy" not in scored.stdout, "there is no table of nothing"


def test_a_judge_that_gives_no_verdict_ends_with_1(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    cases = sample_cases(tmp_path / "cases", 2)

    def judge(asked: Asked, _: int) -> str:
        text = asked.body["messages"][1]["content"]
        if '"requested"' in text:
            return '{"matches": []}'
        return '{"answer": "correct"}' if "olyangiitis" in text else "I would not say."

    with openai_server(judge) as server:
        done = medaction(
            run_environment, "evaluate", cases, "--model", "kg-targeted", "--rollouts", 1,
            "--judge", f"openai/judge@{server.url}", "--out", tmp_path / "out",
        )  # fmt: skip
    assert done.returncode == 1
    assert "of 1 rollouts 0 failed and 1 were not judged (judge: " in one_line(done)


def test_a_call_cache_that_is_none_ends_with_1(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    (tmp_path / "cache").write_text("a file")
    environment = run_environment | {"MEDACTION_CALL_CACHE": str(tmp_path / "cache")}
    cases, out = sample_cases(tmp_path / "cases", 1), tmp_path / "out"
    teacher = "openai/m@http://127.0.0.1:9/v1"
    done = medaction(environment, "distill", "--cases", cases, "--out", out, "--teacher", teacher)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "MEDACTION_CALL_CACHE" in done.stderr


@pytest.mark.parametrize(
    ("words", "hangs"),
    [
        (("distill", "--cases", SAMPLES, "--teacher", "kg-targeted"), False),
        (("distill", "--cases", SAMPLES, "--teacher", "kg-targeted"), True),
        pytest.param(("pipeline", "--preset", "tiny"), True, marks=pytest.mark.train),
        pytest.param(("ablate", "--preset", "tiny"), True, marks=pytest.mark.train),
    ],
)
def test_a_prefect_server_that_is_down_or_hangs_ends_with_1(
    tmp_path: Path, words: tuple[object, ...], hangs: bool
) -> None:
    if words[0] != "distill":
        pytest.importorskip("deepspeed", reason="training is not installed")
    # The system takes connections for a process that is stopped: nobody answers them.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if hangs else 9
        environment = os.environ | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
        done = medaction(environment, *words, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert f"http://127.0.0.1:{port}/api does not answer" in one_line(done)


def test_a_deployment_without_a_server_is_wrong_use(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if "PREFECT" not in key}
    done = medaction(environment, "deploy", folder=tmp_path)
    assert done.returncode == 2
    assert "PREFECT_API_URL is not set" in one_line(done)


@pytest.mark.parametrize("after_s", [0.0, 1.5])
def test_an_interruption_ends_with_130_and_says_how_to_go_on(
    tmp_path: Path, run_environment: dict[str, str], after_s: float
) -> None:
    """Ctrl+C reaches every process of the terminal's group, as here: while the store is made, and
    while cases are under way."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "medaction", "distill", "--preset", "demo", "--out", str(out)]
    log = tmp_path / "words"
    with log.open("wb") as words:
        process = subprocess.Popen(
            command,
            env=run_environment,
            stdout=words,
            stderr=words,
            start_new_session=True,
            # What a shell starts in the background does not hear of Ctrl+C, its children neither.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            while process.poll() is None and not (out / "trajectories.duckdb").exists():
                time.sleep(0.05)
            time.sleep(after_s)
            os.killpg(process.pid, signal.SIGINT)
            status = process.wait(240)
        finally:
            process.kill()
    text = log.read_text()
    # Python ends itself by the signal, which a shell calls 130 too, where it came in an import.
    assert status in (130, -signal.SIGINT), text
    assert text.splitlines()[-1].startswith("medaction: interrupted; what had finished is stored")
    assert "Traceback" not in text
    if after_s:
        assert rows(out, "select state from runs") == [("failed",)]


@pytest.mark.parametrize("address", ["127.0.0.1:9"])
def test_a_ray_that_is_down_ends_with_1(
    tmp_path: Path, run_environment: dict[str, str], address: str
) -> None:
    cases, out = sample_cases(tmp_path / "cases", 1), tmp_path / "out"
    environment = run_environment | {"RAY_ADDRESS": address}
    done = medaction(
        environment, "distill", "--cases", cases, "--out", out, "--teacher", "kg-targeted"
    )
    assert done.returncode == 1
    assert f"{address} does not answer" in one_line(done)


def test_what_needs_no_ray_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    require_servers(with_ray=False)  # training by torchrun
    with pytest.raises(MedactionError, match="does not answer"):
        require_servers()


def test_a_report_that_no_model_could_read_ends_with_1(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    """The other cases are built; what is missing is named, for a refusal is something else."""
    cases, out = sample_cases(tmp_path / "cases", 1), tmp_path / "out"
    (cases / "letter.txt").write_text(DISCHARGE_LETTER)
    with openai_server(lambda asked, number: Reply("no such model", status=404)) as server:
        extractor = f"openai/m@{server.url}"
        command = ("envs", "build", "--cases", cases, "--out", out, "--allow", "unlicensed")
        done = medaction(run_environment, *command, "--extractor", extractor)
    assert done.returncode == 1
    assert one_line(done).startswith("medaction: no environment of 1 case (")
    assert "no such model" in one_line(done)
    assert rows(out, "select count(*) from cases where environment_id is not null") == [(1,)]
