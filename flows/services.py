"""What a run needs on this machine and does not find: a Prefect server, a local Ray, a local model.
Started on loopback, stopped again."""

import functools
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from uuid import UUID

import httpx
import ray
from prefect._internal.concurrency.threads import get_global_loop, get_run_sync_loop
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed

from medaction.llm.call_cache import CacheMode, default_folder
from medaction.llm.calls import CallSettings
from medaction.llm.local_server import start_local
from medaction.llm.teacher import Teacher
from medaction.tasks.ledger import RayLedger
from medaction.training.serving import QUIET, command
from medaction.words.errors import MedactionError

log = logging.getLogger("medaction")

READY_WITHIN_S = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def prefect_api(home: Path) -> Iterator[str]:
    """The URL of the Prefect API: the configured one, or a server of our own with its database in
    `home`.

    The ephemeral API is never used: it loses task records at exit. Raises MedactionError with the
    server's log when it does not start.
    """
    if configured := PREFECT_API_URL.value():
        yield str(configured)
        return
    # Attached: whoever kills this process ends its server too.
    server, url = spawn_server(
        home, free_port(), [sys.executable, "-m", "medaction.flows.attached"]
    )
    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
    except httpx.TransportError as error:
        raise MedactionError(
            f"the Prefect server was lost ({error}); its log is {home / 'server.log'}. What had"
            " finished is stored: the same command goes on from there"
        ) from error
    finally:
        try:
            # Log lines still to be sent would otherwise wait for a server that is gone.
            APILogWorker.drain_all(timeout=5)
        finally:
            _stop(server)


def end_loops() -> None:
    """End Prefect's two threads and wait for them. Being daemons they would outlive the
    interpreter's teardown and keep alive what DuckDB's binding then lists on stderr as leaked,
    below the summary of a run."""
    for loop in (get_global_loop(), get_run_sync_loop()):
        loop.shutdown()
        loop.thread.join(timeout=5)


def spawn_server(
    home: Path, port: int, by: Sequence[str] = ()
) -> tuple[subprocess.Popen[bytes], str]:
    """A Prefect server on 127.0.0.1:`port`, with its database and log in `home`, once it answers;
    and the URL of its API.

    It lives in a session of its own until it is ended; `by` is the command that starts it, if any.
    Raises MedactionError with the server's log when it does not start.
    """
    home.mkdir(parents=True, exist_ok=True)
    database, template = (
        home / "prefect.db",
        default_folder().parent / f"prefect-{version('prefect')}.db",
    )
    fresh = not database.exists()
    if fresh and template.exists():
        shutil.copyfile(template, database)
    url = f"http://127.0.0.1:{port}/api"
    log_file = home / "server.log"
    environment = os.environ | {"PREFECT_HOME": str(home.resolve()), "PREFECT_API_URL": url}
    command = [
        *by,
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with log_file.open("ab") as output:
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_ready(server, url, log_file, "the Prefect server")
    except BaseException:
        _stop(server)
        raise
    if fresh and not template.exists():
        _copy_database(database, template)
    return server, url


def _copy_database(database: Path, template: Path) -> None:
    """Keep a database without runs: making its tables is 4 of the 11 CPU seconds of a first
    start."""
    building = template.with_name(f".{template.name}.{os.getpid()}")
    try:
        template.parent.mkdir(parents=True, exist_ok=True)
        with (
            closing(sqlite3.connect(database)) as source,
            closing(sqlite3.connect(building)) as copy,
        ):
            source.backup(copy)
        building.rename(template)
    except (OSError, sqlite3.Error) as error:
        log.info("no copy of Prefect's empty database could be kept: %s", error)


def _wait_ready(
    server: subprocess.Popen[bytes], url: str, log_file: Path, server_name: str
) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    raise MedactionError(
        f"{server_name} did not start; its last words:\n{log_file.read_text()[-1500:]}"
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its children, which share its session."""
    for way, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        try:
            os.killpg(server.pid, way)
            server.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


@dataclass(frozen=True, slots=True)
class Services:
    """What stages call when they have work: a rerun that finds nothing to do starts nothing."""

    ray: Callable[[], None]
    """Have a Ray to run on: the one already joined, the cluster that RAY_ADDRESS names, or a local
    one."""
    reach: Callable[[Teacher], Teacher]
    """A model of the settings -> the same as it can be reached: a local one is started on loopback,
    one server a file."""
    calls: Callable[[], CallSettings]
    """How worker processes call models: with the call cache, and one ledger of limits and budgets
    for all of them."""


@contextmanager
def services(
    workers: int | None, cache: CacheMode, spent_usd: Mapping[str, float]
) -> Iterator[Services]:
    """Ray (a local one gets `workers` CPUs), local models and the ledger, started at their first
    use and stopped at the end.

    `spent_usd` is what earlier runs spent, by teacher: it counts towards the budgets.
    """
    with ExitStack() as started:
        servers: dict[Path | None, Teacher] = {}

        def join_ray() -> None:
            if ray.is_initialized():
                return
            if os.environ.get("RAY_ADDRESS"):
                ray.init(log_to_driver=False)
            else:
                _start_ray(workers)
            started.callback(ray.shutdown)

        def reach(teacher: Teacher) -> Teacher:
            if not teacher.local:
                return teacher
            weights = teacher.folder or teacher.gguf
            if weights not in servers:
                servers[weights] = started.enter_context(
                    serve_folder(teacher) if teacher.folder else start_local(teacher)
                )
            server = servers[weights]
            return teacher.model_copy(
                update={"model": server.model, "api_base": server.api_base, "gguf": server.gguf}
            )

        @functools.cache
        def calls() -> CallSettings:
            return CallSettings(cache, ledger=RayLedger.start(spent_usd))

        yield Services(join_ray, reach, calls)


@contextmanager
def serve_folder(teacher: Teacher) -> Iterator[Teacher]:
    """Serve the weights in the local teacher's folder (docs/training.md) on loopback; yields the
    teacher as it can be reached.

    The server ends with the block, or with this process. Raises MedactionError when there are no
    weights, TrainError when nothing is installed that serves them, and MedactionError with the
    server's last words when it does not come up.
    """
    port = free_port()
    served, name = command(teacher.model_folder, port)
    url = f"http://127.0.0.1:{port}"
    with tempfile.NamedTemporaryFile(suffix=".log") as words:
        # Attached: whoever kills this process ends the server too.
        server = subprocess.Popen(
            [sys.executable, "-m", "medaction.flows.attached", *served],
            env=os.environ | QUIET,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,
        )
        try:
            _wait_ready(server, url, Path(words.name), f"the server of {teacher.folder}")
            yield teacher.model_copy(update={"model": f"openai/{name}", "api_base": f"{url}/v1"})
        finally:
            _stop(server)


RAY_ATTEMPTS = 3


def _start_ray(workers: int | None) -> None:
    """A local Ray. Its client waits 30 s for it, which no setting changes and a busy machine may
    exceed: then it is started once more. Raises MedactionError with Ray's reason in one line."""
    for attempt in range(1, RAY_ATTEMPTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception as error:  # Ray raises plain Exception here
            ray.shutdown()
            reason = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
            if "timed out" not in reason or attempt == RAY_ATTEMPTS:
                raise MedactionError(
                    f"Ray did not start: {reason}. Is the machine busy or its memory or /tmp full?"
                    " What had finished is stored: the same command goes on from there"
                ) from error
            log.warning("Ray did not start in time (attempt %d of %d)", attempt, RAY_ATTEMPTS)


def mark_crashed(flow_run_ids: Sequence[str]) -> None:
    """Flow runs whose process was killed: Prefect would show them as running for ever."""
    with get_client(sync_client=True) as client:
        for flow_run_id in flow_run_ids:
            try:
                client.set_flow_run_state(
                    UUID(flow_run_id), Crashed(message="its process was killed"), force=True
                )
            except ObjectNotFound:
                log.info("flow run %s is unknown to this Prefect server", flow_run_id)
