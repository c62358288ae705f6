"""A Ray whose raylet dies in the middle: Ray itself would wait for ever."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from medaction.flows.orphans import members_of
from medaction.flows.services import _without_handlers_of_ray
from medaction.tasks import cases
from medaction.tasks.engine import Unit
from medaction.words.errors import EngineLost
from tests.runs import local_ray


async def _long() -> None:
    await asyncio.sleep(600)


def test_all_that_wait_for_a_ray_that_has_died_are_told_so() -> None:
    with local_ray(1):
        players, unit = cases.Players(), Unit("rollouts", "case", 0.25, _long, ())
        with ThreadPoolExecutor(3) as threads:
            under_way = [threads.submit(players.run, unit) for _ in range(3)]
            [raylet] = [server for server, name in cases.ray_servers().items() if name == "raylet"]
            raylet.kill()
            assert all(
                isinstance(future.exception(timeout=120), EngineLost) for future in under_way
            )
        with pytest.raises(EngineLost):
            players.run(unit)


def test_a_server_has_ended_whoever_waited_for_it() -> None:
    with local_ray(1):
        servers = cases.ray_servers()
        assert sorted(servers.values()) == ["gcs_server", "raylet"]
        assert not any(map(cases.has_ended, servers))
    assert all(map(cases.has_ended, servers))  # Ray has taken what they left


TERMINATED = """
import os, signal
from medaction.flows.services import ray_joined

def ours(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, ours)
try:
    with ray_joined(1):
        os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_run_on_ray_hears_sigterm_as_it_does_without() -> None:
    """Ray's own handlers printed a page, and the process aborted with the store open."""
    done = subprocess.run([sys.executable, "-c", TERMINATED], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_a_ray_without_that_private_function_is_started_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("ray._private.utils.set_sigterm_handler")
    with _without_handlers_of_ray():
        pass


ALONE = """
import os, subprocess, sys
import ray
from medaction.flows.services import ray_joined

GUEST = "import sys; from ray._raylet import GcsClient; GcsClient(sys.argv[1]).get_all_job_info()"
with ray_joined(1):
    command = [sys.executable, "-c", GUEST, ray.get_runtime_context().gcs_address]
    guests = os.environ, os.environ | {"RAY_AUTH_TOKEN": sys.argv[1]}
    print([subprocess.run(command, env=env, capture_output=True).returncode for env in guests])
print([name for name in os.environ if name.startswith("RAY_AUTH")])
"""


def test_a_ray_of_the_run_takes_orders_from_its_own_processes_alone(tmp_path: Path) -> None:
    """Not from whoever may read the token that Ray writes to the home."""
    written = tmp_path / ".ray" / "auth_token"
    written.parent.mkdir()
    written.write_text("0" * 64)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "0" * 64],
        env={name: value for name, value in os.environ.items() if "RAY_AUTH" not in name}
        | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[0, 1]\n[]\n", done.stderr


INTERRUPTED = """
import os, signal, sys, tempfile, threading, time
import psutil
from medaction.flows import services
from medaction.flows.orphans import members_of

tempfile.tempdir = sys.argv[1]

def interrupts(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupts)

def when_it_starts():
    while not members_of(sys.argv[1], psutil.Process().children()):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=when_it_starts, daemon=True).start()
try:
    with services.ray_joined(1):
        print("started")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_a_run_that_is_interrupted_while_ray_starts_leaves_nothing() -> None:
    """It waited for Ray's C++, and then for a Ray that was half there."""
    with tempfile.TemporaryDirectory() as folder:  # short: the paths of sockets are
        command = [sys.executable, "-c", INTERRUPTED, folder]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (130, "interrupted\n"), done.stderr
        while any(Path(folder).iterdir()) or members_of(folder, psutil.process_iter()):
            time.sleep(0.1)
