"""What a run shows on its page of Prefect is never a reason to end it."""

import logging
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from medaction.flows import artifacts
from medaction.flows import progress as progress_module
from medaction.flows.prefect_server import server_answers
from medaction.flows.progress import ProgressArtifact
from medaction.words.processes import free_port
from tests.conftest import REPOSITORY


def test_a_server_that_is_away_costs_one_notice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "00000000-0000-0000-0000-000000000000")
    monkeypatch.setattr(artifacts, "ANSWERED_WITHIN_S", 0.0)
    monkeypatch.setattr(progress_module, "ARTIFACT_EVERY_S", 0.0)  # it asks at every step
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
import os, signal, sys
from pathlib import Path
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from medaction.flows.prefect_server import IMPATIENT, spawn_server
from medaction.flows.unseen import Unseen, aborting_unseen
from medaction.words.processes import free_port

server, url = spawn_server(Path(sys.argv[1]), free_port())

@flow
def work(number):
    os.killpg(server.pid, signal.SIGSTOP)
    return number + 1

work.fn = aborting_unseen(work.fn)
try:
    with temporary_settings({PREFECT_API_URL: url, **IMPATIENT}):
        work(1)
except Unseen as ending:
    print("unseen:", ending.result, flush=True)
finally:
    os.killpg(server.pid, signal.SIGKILL)
    os._exit(0)
"""


@pytest.mark.slow
def test_a_flow_whose_server_hangs_at_its_end_is_not_waited_for(tmp_path: Path) -> None:
    """Prefect's client asked it for the flow's state for a minute, then the run was done anew."""
    command = [sys.executable, "-c", HANGS, str(tmp_path)]
    assert "unseen: 2" in subprocess.run(command, capture_output=True, text=True).stdout
