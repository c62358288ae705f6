"""What a run needs on this machine: an engine that plays its cases, local models, and the ledger of
limits. Each is started at its first use, on loopback, and stopped again."""

import atexit
import functools
import json
import logging
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

from medaction.flows.artifacts import flow_run_id
from medaction.flows.orphans import members_of
from medaction.flows.settings import EnvironmentSettings
from medaction.llm.calls import CallSettings
from medaction.llm.local_server import start_local
from medaction.llm.teacher import Teacher
from medaction.tasks.engine import Engine
from medaction.tasks.local import LocalEngine
from medaction.training.serving import SERVER_ENVIRONMENT, command
from medaction.trajectories.store import Store
from medaction.words.errors import EngineLost
from medaction.words.processes import free_port, stop, wait_ready

log = logging.getLogger("medaction")


@dataclass(frozen=True, slots=True)
class Services:
    """What stages call when they have work: a rerun that finds nothing to do starts nothing."""

    engine: Callable[[], Engine]
    """What runs the cases: this process, or Ray."""
    reach: Callable[[Teacher], Teacher]
    """A model of the settings -> the same as it can be reached: a local one is started on loopback,
    one server a file."""
    calls: Callable[[], CallSettings]
    """How models are called: with the call cache, and one ledger of limits and budgets for all
    processes of the engine."""


@contextmanager
def services(settings: EnvironmentSettings, store: Store) -> Iterator[Services]:
    """The engine of the settings, local models and the ledger, started at their first use and
    stopped at the end.

    What earlier runs spent on each model counts towards its budget. What this one did is kept in
    the store when it ends, unless it is killed: then only the teachers' turns are known.
    """
    with ExitStack() as started:
        # First in, so last out: models end after the engine whose cases ask them.
        reach = started.enter_context(local_models())

        @functools.cache
        def engine() -> Engine:
            # Left to choose, this process plays where no flow run of Prefect's shows the cases.
            auto = settings.engine == "auto" and not flow_run_id()
            if settings.engine == "local" or auto:
                local = LocalEngine()
                started.callback(local.close)
                return local
            from medaction.tasks.cases import RayEngine

            started.enter_context(ray_joined(settings.workers))
            cluster = RayEngine()
            started.callback(cluster.close)
            return cluster

        @functools.cache
        def calls() -> CallSettings:
            ledger = engine().start_ledger(spent_usd(store))
            # Runs before the engine's own end, which takes the ledger along.
            started.callback(lambda: keep_spent(store, ledger.spent_usd()))
            return CallSettings(settings.call_cache, ledger=ledger)

        yield Services(engine, reach, calls)


def spent_usd(store: Store) -> dict[str, float]:
    """What each model has cost so far, failed rollouts included: a teacher by its turns or by the
    ledgers of ended runs, whichever is more; all others (extractor, oracle, judges), whose costs
    stand at cases without their names, by the ledgers."""
    rows = store.rows(
        "select teacher, sum(cost_usd) from ("
        " select teacher, cost_usd from turns join trajectories using (trajectory_id)"
        " union all select teacher, cost_usd from failures where teacher is not null) group by"
        " teacher"
    )
    spent = json.loads(store.meta("spent_usd") or "{}")
    # Neither is whole: a killed run has told no ledger's sum, and calls of a lost turn stand in no
    # row.
    return spent | {name: max(usd, spent.get(name, 0.0)) for name, usd in rows}


def keep_spent(store: Store, usd: Mapping[str, float]) -> None:
    """Keep what every model has cost by the ledger of a run that ends."""
    # Infinite: the keeper was lost, and what it knew with it.
    known = {name: spent for name, spent in usd.items() if math.isfinite(spent)}
    store.set_meta("spent_usd", json.dumps(spent_usd(store) | known))


@contextmanager
def local_models() -> Iterator[Callable[[Teacher], Teacher]]:
    """`Services.reach`: its servers are started at their first use and end with the block."""
    servers: dict[Path | None, Teacher] = {}
    with ExitStack() as started:

        def reach(teacher: Teacher) -> Teacher:
            if not teacher.local:
                return teacher
            # A teacher and a judge of the same file share one server.
            weights = teacher.folder or teacher.gguf
            if weights not in servers:
                servers[weights] = started.enter_context(
                    serve_folder(teacher) if teacher.folder else start_local(teacher)
                )
            server = servers[weights]
            waits = {"in_flight", "timeout_s"} - teacher.model_fields_set
            reached = {"model", "api_base", "gguf", *waits}
            return teacher.model_copy(update={name: getattr(server, name) for name in reached})

        yield reach


@contextmanager
def ray_joined(workers: int | None) -> Iterator[None]:
    """A Ray to run on: the one already joined, the cluster that RAY_ADDRESS names, or a local one
    with `workers` CPUs that ends with the block."""
    import ray

    # An ablation joins once for all of its cells.
    if ray.is_initialized():
        yield
        return
    over = ExitStack()
    # By its folder the processes of this Ray are known among all others (`members_of`).
    folder = tempfile.mkdtemp(prefix="ray-")
    with _token_of_its_own():
        try:
            with _without_handlers_of_ray():
                if os.environ.get("RAY_ADDRESS"):
                    _in_a_thread(functools.partial(ray.init, log_to_driver=False), over)
                else:
                    _start_ray(workers, folder, over)
        except Exception:
            _end_ray(folder)
            raise
        except BaseException:  # an interruption, for which Prefect has a class of its own
            _abandon_ray(folder)
            raise
        try:
            yield
        finally:
            _end_ray(folder)
            over.close()


@contextmanager
def _token_of_its_own() -> Iterator[None]:
    """A Ray that starts in the block refuses whoever does not know its secret, which stands in the
    environment of its processes alone: what listens on loopback is open to every user of the
    machine. What the user has set for a Ray stays."""
    import ray

    raylet: Any = ray._raylet
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    if any(map(os.environ.get, (*secret, "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"))):
        yield
        return

    def read_again() -> None:
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()

    os.environ |= secret
    read_again()
    try:
        yield
    finally:
        for name in secret:
            os.environ.pop(name, None)
        read_again()


@contextmanager
def _without_handlers_of_ray() -> Iterator[None]:
    """Ray puts handlers of its own for SIGTERM, which end this process with the store open."""
    import ray

    # Private: another release of Ray may have none, and go on as it is.
    setter: Any = getattr(ray._private.utils, "set_sigterm_handler", None)
    ray._private.utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = setter


def _end_ray(folder: str) -> None:
    """Leave Ray, and end the one whose files are in `folder`. Without its GCS its client would wait
    a minute for it, and its processes wait for ever."""
    import ray

    from medaction.tasks.cases import GCS, has_ended, ray_servers

    # Before the end: orphans could not be found as children any more.
    processes = members_of(folder, psutil.Process().children())
    if any(name == GCS and has_ended(server) for server, name in ray_servers().items()):
        # Ray would call it when Python ends, and wait.
        atexit.unregister(ray.shutdown)
    else:
        ray.shutdown()
    for process in psutil.wait_procs(processes, timeout=ENDS_WITHIN_S)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _abandon_ray(folder: str) -> None:
    """Leave a Ray in the middle of its start, in which another thread still is. Without its servers
    that thread would hold Python's lock for a minute, then abort this process: so a process of its
    own ends them after this one."""
    command = [sys.executable, "-m", "medaction.flows.orphans", str(os.getpid()), folder]
    subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    # The last that was registered comes first: Ray's own would wait for that thread.
    atexit.register(os._exit, 128 + signal.SIGINT)


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
            [sys.executable, "-m", "medaction.flows.attached", "0", *served],
            env=os.environ | SERVER_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,
        )
        try:
            trouble = f"the server of {teacher.folder} did not start; its last words:"
            wait_ready(server, url, Path(words.name), trouble)
            yield teacher.model_copy(update={"model": f"openai/{name}", "api_base": f"{url}/v1"})
        finally:
            stop(server)


def _in_a_thread(work: Callable[[], object], over: ExitStack) -> None:
    """Do the work in another thread: Ray's start waits in C++, where this one heard no signal for
    seconds. That thread lives until `over`: without it Ray crashes at its end."""
    end: Future[object] = Future()
    ended = Event()

    def run() -> None:
        try:
            end.set_result(work())
        except BaseException as error:  # whatever it is, it is for who waits
            end.set_exception(error)
        ended.wait()

    thread = Thread(target=run, daemon=True)
    over.callback(thread.join)
    over.callback(ended.set)
    thread.start()
    end.result()


RAY_ATTEMPTS = 2
ENDS_WITHIN_S = 3.0


def _start_ray(workers: int | None, folder: str, over: ExitStack) -> None:
    """A local Ray. Its raylet gives up when an agent of its takes 15 s to start, which no setting
    changes and a busy machine may exceed: then it is started once more. Raises EngineLost."""
    import ray

    # What its servers say goes to our standard output, a page when one of them is killed.
    ray._private.worker._worker_logs_enabled = False
    for attempt in range(1, RAY_ATTEMPTS + 1):
        try:
            _in_a_thread(
                functools.partial(
                    ray.init,
                    address="local",
                    num_cpus=workers,
                    _temp_dir=folder,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                ),
                over,
            )
            return
        except Exception as error:  # Ray raises plain Exception here
            ray.shutdown()
            reason = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
            if "timed out" not in reason or attempt == RAY_ATTEMPTS:
                remedy = "is the machine busy, its memory or /tmp full?"
                raise EngineLost(f"Ray did not start ({reason}; {remedy})", True) from error
            log.warning("Ray did not start in time (attempt %d of %d)", attempt, RAY_ATTEMPTS)
