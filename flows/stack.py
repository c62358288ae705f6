"""`medaction up` and `down`: a Prefect server, its worker and our deployments on this machine; only
these are ended again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from medaction.flows.prefect_server import spawn_server
from medaction.words.errors import MedactionError
from medaction.words.processes import require_free

REPOSITORY = Path(__file__).resolve().parent.parent
POOL = "medaction"


@dataclass(frozen=True, slots=True)
class Started:
    """A process that was started: its number and the time of its birth, so that another one with
    the same number is never ended."""

    name: str
    pid: int
    born: float

    def process(self) -> psutil.Process | None:
        """The process, if it is still that one."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            # A second's tolerance: the time is computed from the machine's start, and wanders with
            # its clock.
            if process.is_running() and abs(process.create_time() - self.born) < 1:
                return process
        return None


def up(home: Path, port: int, runs: int, say: Callable[[str], None]) -> str:
    """Start what is not running yet of server and worker, with state and logs in `home`; returns
    the URL of Prefect's UI.

    The server listens on 127.0.0.1:`port` and sends nothing anywhere; at most `runs` flow runs go
    on at a time. Raises MedactionError with the log's end when one of them does not start.
    """
    home.mkdir(parents=True, exist_ok=True)
    started = {process.name: process for process in running(home)}
    url = f"http://127.0.0.1:{port}/api"
    if "server" not in started:
        require_free(port)
        say("starting the Prefect server")
        server, url = spawn_server(home, port)
        _note(home, started, "server", server.pid)
    else:
        url = (home / "url").read_text()
    (home / "url").write_text(url)
    say("putting the flows on it")
    deploy(url, Path.cwd())
    if "worker" not in started:
        say("starting the worker")
        _note(home, started, "worker", _start_worker(home, url, runs).pid)
    return url.removesuffix("/api")


def down(home: Path, say: Callable[[str], None]) -> int:
    """End what `up` started and has in `home` on record, the worker with its flow runs first;
    returns how many processes that were."""
    # The worker first, while there is a server to tell that its flow runs have ended.
    processes = sorted(running(home), key=lambda process: process.name != "worker")
    for process in processes:
        say(f"ending the {process.name}")
        _end(process)
    (home / "processes.json").unlink(missing_ok=True)
    return len(processes)


def running(home: Path) -> list[Started]:
    """Which of the processes that `up` started still run."""
    record = home / "processes.json"
    rows = json.loads(record.read_text()) if record.exists() else []
    return [process for row in rows if (process := Started(**row)).process()]


def deploy(url: str, folder: Path) -> None:
    """Put every deployment of deployments/prefect.yaml on the server at `url`; their runs work in
    `folder`.

    Raises MedactionError with what Prefect said when it refuses one.
    """
    environment = _environment(url) | {
        "MEDACTION_FOLDER": str(folder.resolve()),
        "MEDACTION_EXAMPLES": str(REPOSITORY / "examples" / "cases"),
    }
    file = str(REPOSITORY / "deployments" / "prefect.yaml")
    for arguments in (
        ["work-pool", "create", POOL, "--type", "process", "--overwrite"],
        ["--no-prompt", "deploy", "--all", "--prefect-file", file],
    ):
        command = [sys.executable, "-m", "prefect", *arguments]
        result = subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=300
        )
        if result.returncode:
            words = (result.stdout + result.stderr)[-2000:]
            raise MedactionError(f"prefect {' '.join(arguments[:2])} failed:\n{words}")


def _start_worker(home: Path, url: str, runs: int) -> subprocess.Popen[bytes]:
    options = ["--pool", POOL, "--limit", str(runs), "--name", POOL]
    command = [sys.executable, "-m", "prefect", "worker", "start", *options]
    log = home / "worker.log"
    with log.open("ab") as output:
        # The log is appended to: an earlier worker's 'started' does not count.
        began = output.tell()
        worker = subprocess.Popen(
            command, env=_environment(url), stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and worker.poll() is None:
        if b"started" in log.read_bytes()[began:]:
            return worker
        time.sleep(0.3)
    raise MedactionError(f"the worker did not start; its last words:\n{log.read_text()[-1500:]}")


def _environment(url: str) -> dict[str, str]:
    # New runs are looked for every two seconds: who presses a button wants to see something happen.
    return os.environ | {"PREFECT_API_URL": url, "PREFECT_WORKER_QUERY_SECONDS": "2"}


def _note(home: Path, started: dict[str, Started], name: str, pid: int) -> None:
    started[name] = Started(name, pid, psutil.Process(pid).create_time())
    (home / "processes.json").write_text(json.dumps([*map(asdict, started.values())]))


def _end(target: Started) -> None:
    process = target.process()
    if process is None:
        return
    # Before the first signal: children of an ended process cannot be found.
    family = [process, *process.children(recursive=True)]
    for ask, patience in ((signal.SIGTERM, 15), (signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        # A worker waits at the first SIGTERM for its flow runs, and ends them at the second.
        for member in family:
            if member.is_running():
                member.send_signal(ask)
        _, family = psutil.wait_procs(family, timeout=patience)
        if not family:
            return
