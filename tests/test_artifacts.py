"""What a run shows on its page of Prefect is never a reason to end it."""

import logging
import re
import subprocess
import sys
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running

from medaction.flows import artifacts
from medaction.flows.configured import Silence
from medaction.flows.prefect_server import prefect_api, server_answers
from medaction.flows.progress import ProgressArtifact
from medaction.flows.unseen import shown
from medaction.trajectories.store import Store
from medaction.words.processes import free_port
from tests.conftest import REPOSITORY


def test_a_server_that_is_away_costs_one_notice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "00000000-0000-0000-0000-000000000000")
    monkeypatch.setattr(artifacts, "ANSWERED_WITHIN_S", 0.0)
    monkeypatch.setattr(artifacts, "prefect_silence", Silence(length_s=0.0))  # asks every time
    caplog.set_level(logging.WARNING, "medaction")
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        artifacts.publish_artifact(key="curves", markdown="# Curves")
        progress = ProgressArtifact("training")
        progress.show(10.0, "step 1")
        progress.show(20.0, "step 2")
    [line] = caplog.messages
    assert "Prefect does not answer" in line


def test_what_a_server_does_not_take_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers, and refuses the artifact: it has no such flow run."""
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "00000000-0000-0000-0000-000000000001")
    caplog.set_level(logging.WARNING, "medaction")

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/health") else 404)
            self.end_headers()
            self.wfile.write(b"true")

        def do_POST(self) -> None:
            self.send_error(413)

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            artifacts.publish_artifact(key="curves", markdown="# Curves")
        server.shutdown()
    assert any("does not take 'curves'" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("status", "answers"), [(200, True), (401, True), (404, True), (502, False)]
)
def test_a_server_that_tells_its_health_to_few_is_no_server_that_is_away(
    status: int, answers: bool
) -> None:
    """A finished run was aborted, and Prefect showed it as running for ever."""

    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
            assert server_answers() == answers
        server.shutdown()


def test_every_flow_shows_its_results_so() -> None:
    """A training of hours ended with the server that it only reported to."""
    direct = {
        file.name
        for file in (REPOSITORY / "flows").glob("*.py")
        if re.search(r"prefect\.artifacts", file.read_text())
    }
    assert direct == {"artifacts.py", "progress.py"}


HANGS = """
import logging, os, signal, sys
from pathlib import Path
from prefect import flow
from pydantic import BaseModel
from prefect.settings import PREFECT_API_URL, temporary_settings
from medaction.flows.prefect_server import IMPATIENT, spawn_server
from medaction.flows.unseen import shown
from medaction.words.processes import free_port

logging.getLogger("medaction").addHandler(logging.StreamHandler())
server, url = spawn_server(Path(sys.argv[1]), free_port())

class Settings(BaseModel):
    number: int = 1

@flow
def stage(settings: Settings):
    print("stage", settings.number, flush=True)
    os.killpg(server.pid, signal.SIGSTOP)
    return Settings(number=settings.number + 1)

@flow
def everything(settings: Settings):
    return shown(stage, shown(stage, settings))

try:
    with temporary_settings({PREFECT_API_URL: url, **IMPATIENT}):
        print("everything", shown(everything, Settings()).number, flush=True)
finally:
    os.killpg(server.pid, signal.SIGKILL)
    os._exit(0)
"""


def test_no_page_of_another_site_may_ask_the_server(prefect_server: str) -> None:
    """Prefect's own default lets every site."""
    asks = {"Access-Control-Request-Method": "POST", "Origin": "https://example.org"}
    preflight = httpx.options(f"{prefect_server}/flows/filter", headers=asks)
    assert "access-control-allow-origin" not in preflight.headers


@flow
def double(number: int) -> int:
    return 2 * number


def test_a_server_of_the_run_answers_nobody_without_its_password(tmp_path: Path) -> None:
    with prefect_api(tmp_path) as (url, password):
        assert shown(double, 2) == 4
        question = f"{url}/flow_runs/filter"
        assert httpx.post(question, json={}).status_code == 401
        assert httpx.post(question, json={}, auth=("admin", "pass")).status_code == 401
        header = f"Basic {b64encode(password.encode()).decode()}"
        (run,) = httpx.post(question, json={}, headers={"Authorization": header}).json()
        assert run["state_type"] == "COMPLETED"
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(password.encode() in text for text in written)


@pytest.mark.slow
def test_flows_whose_server_hangs_do_their_work_once_and_do_not_wait_for_it(tmp_path: Path) -> None:
    """Prefect's client asked it for each flow's state for a minute, and the pipeline failed."""
    command = [sys.executable, "-c", HANGS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["stage 1", "stage 2", "everything 3"]
    assert done.stderr.count("Prefect does not answer") == 1


def test_what_ended_while_its_server_was_away_is_shown_so_by_the_next_run(
    tmp_path: Path, prefect_server: str
) -> None:
    """It was shown as running for ever, as one whose process was killed was once."""
    states = ("completed", "failed", "interrupted", "running")
    with (
        temporary_settings({PREFECT_API_URL: prefect_server}),
        get_client(sync_client=True) as client,
        Store(tmp_path / "s.duckdb") as store,
    ):
        ids = [client.create_flow_run(noting, state=Running()).id for _ in states]
        for id_, state in zip(ids, states, strict=True):
            store.db.execute(
                "insert into runs values (?, 'distill', ?, 1, now(), null, ?, '{}', '{}')",
                [str(id_), str(id_), state],
            )
        noting(store)
        types = [client.read_flow_run(id_).state_type for id_ in ids]
    assert types == ["COMPLETED", "FAILED", "CRASHED", "RUNNING"]


@flow(validate_parameters=False, persist_result=False)
def noting(store: Store) -> None:
    artifacts.note_ended(store)


@flow
def refused_by_a_hub(words: str) -> None:
    raise httpx.HTTPError(words)  # without its request, as huggingface_hub's own class is


def test_what_a_hub_refuses_is_no_fault_of_prefects_server(prefect_server: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: prefect_server}),
        pytest.raises(httpx.HTTPError, match="no such model"),
    ):
        shown(refused_by_a_hub, "no such model")
