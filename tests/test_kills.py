"""SIGKILL of the flow, of a Ray process and of the model server, in the middle of one run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.kills import KINDS, compare
from medaction.words.processes import free_port


@pytest.mark.slow
def test_a_run_that_is_killed_in_three_ways_ends_as_if_left_in_peace(
    tmp_path: Path, prefect_server: str
) -> None:
    its_own_ray = os.environ | {"PREFECT_API_URL": prefect_server}
    calm, killed, told, again = compare(tmp_path, 20, 3, seed=3, away_s=3, environment=its_own_ray)
    assert sorted(what.split(":")[0] for what, *_ in told) == sorted(KINDS)
    assert len(calm.hashes) == 20 * 4
    assert not calm.failures
    assert killed == calm
    assert again <= 3 * 16 * 3, "more than what was under way was asked again"


def test_a_service_ends_with_the_process_that_started_it_even_when_that_is_killed(
    tmp_path: Path,
) -> None:
    told = tmp_path / "pid"
    child = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    starts = (
        "import subprocess, sys; subprocess.run([sys.executable, '-m', 'medaction.flows.attached',"
        f" '0', sys.executable, '-c', {child!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", starts], start_new_session=True) as parent:
        _until(lambda: told.exists() and bool(told.read_text()))
        parent.kill()
    _until(lambda: not Path(f"/proc/{told.read_text()}").exists())


def test_a_service_that_is_killed_is_started_again_and_ends_when_it_is_told_to(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    child = f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(100)"
    command = [sys.executable, "-m", "medaction.flows.attached", "0", sys.executable, "-c", child]
    with subprocess.Popen(command, start_new_session=True) as service:
        _until(lambda: pids.exists() and len(pids.read_text().split()) == 1)
        os.kill(int(pids.read_text()), signal.SIGKILL)
        _until(lambda: len(pids.read_text().split()) == 2)
        os.killpg(service.pid, signal.SIGTERM)
        service.wait(timeout=60)
    assert len(pids.read_text().split()) == 2


HANGS = """
import http.server, os, signal, sys, threading
open(sys.argv[2], "a").write(f"{os.getpid()} ")
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        threading.Timer(1, os.kill, [os.getpid(), signal.SIGSTOP]).start()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""


def test_a_server_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    pids, port = tmp_path / "pids", str(free_port())
    hurried = (
        "from medaction.flows import attached; attached.ASKED_EVERY_S = 0.2;"
        " attached.ANSWERS_WITHIN_S = attached.HANGS_AFTER_S = 1.0; attached.main()"
    )
    command = [sys.executable, "-c", hurried, port, sys.executable, "-c", HANGS, port, str(pids)]
    with subprocess.Popen(command, start_new_session=True) as service:
        _until(lambda: pids.exists() and len(pids.read_text().split()) >= 2)
        os.killpg(service.pid, signal.SIGKILL)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
