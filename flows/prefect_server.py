"""Prefect's API for a run: the configured one, or a server on loopback that ends with the run."""

import logging
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import UUID

import httpx
from prefect._internal.concurrency.threads import get_global_loop, get_run_sync_loop
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from prefect.states import Completed, Crashed, Failed, State

from medaction.flows.attached import ANSWERS_WITHIN_S
from medaction.flows.configured import prefect_silence
from medaction.llm.call_cache import default_folder
from medaction.words.errors import MedactionError
from medaction.words.processes import free_port, spare_loopback, stop, wait_ready

log = logging.getLogger("medaction")

IMPATIENT = {PREFECT_CLIENT_MAX_RETRIES: 3, PREFECT_API_REQUEST_TIMEOUT: 5.0}
"""A run goes on without Prefect: it shall not wait for a lost server. Prefect's own values, five
more tries and 60 s each, kept one waiting for five minutes. Three more tries take 14 s: a busy
server, whose database is locked for a while, has answered by then. On two cores under a load of 15
it answered within 2 s; one that hangs is waited for this long at each of four tries."""
EVENTS_WITHIN_S = 5.0


@contextmanager
def prefect_api(home: Path) -> Iterator[tuple[str, str]]:
    """The URL of the Prefect API and its password: the configured one, whose password stays where
    it is, or a server of our own with its database in `home`. What listens on loopback is open to
    every user of the machine, and whoever may write to a Prefect server may start runs.

    The ephemeral API is never used: it loses task records at exit. Raises MedactionError with the
    server's log when it does not start.
    """
    spare_loopback()
    if configured := PREFECT_API_URL.value():
        with temporary_settings(IMPATIENT):
            yield str(configured), ""
        return
    # Short enough to be typed; a guess is a request, and there are 2 ** 72.
    port, password = free_port(), secrets.token_urlsafe(9)
    # Attached: whoever kills this process ends its server too.
    by = [sys.executable, "-m", "medaction.flows.attached", str(port)]
    server, url = spawn_server(home, port, by, password)
    try:
        known = {PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: password}
        with temporary_settings({**known, **IMPATIENT}):
            yield url, password
    except httpx.TransportError as error:
        raise MedactionError(
            f"the Prefect server was lost ({error}); its log is {home / 'server.log'}. What had"
            " finished is stored: the same command goes on from there"
        ) from error
    finally:
        try:
            # Log lines still to be sent would otherwise wait for a server that is gone.
            APILogWorker.drain_all(timeout=0 if prefect_silence.until else 5)
        finally:
            stop(server, patience=1 if prefect_silence.until else 5)


def server_answers(within_s: float = 0.0) -> bool:
    """Whether Prefect's API answers, now or `within_s`: one that was killed is being started anew.
    Asked by Prefect's client, which has the certificates and the key."""
    deadline = time.monotonic() + within_s
    # Without an address the client would start a server of its own.
    while PREFECT_API_URL.value():
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client({"timeout": ANSWERS_WITHIN_S}, sync_client=True) as client,
        ):
            error = client.api_healthcheck()
        # One that tells only those who may know (401, 404) is there; a proxy before one that is
        # away says 502.
        if error is None or (
            isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
        ):
            return True
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return False


def end_loops() -> None:
    """End Prefect's two threads and wait for them. Being daemons they would outlive the
    interpreter's teardown and keep alive what DuckDB's binding then lists on stderr as leaked,
    below the summary of a run. With a server that is away they would wait for it."""
    if prefect_silence.until:
        return
    _end_events()
    for loop in (get_global_loop(), get_run_sync_loop()):
        loop.shutdown()
        loop.thread.join(timeout=5)


def _end_events() -> None:
    """Send the events that wait, for `EVENTS_WITHIN_S`, and drop what then still waits for a server
    that is gone: each would be tried for 10 s, and the end of the process waits for all."""
    workers: list[Any] = list(EventsWorker._instances.values())  # type: ignore[misc]
    EventsWorker.drain_all(timeout=EVENTS_WITHIN_S)
    for worker in workers:
        with suppress(Empty):
            while True:
                worker._queue.get_nowait()
        worker._queue.put(None)  # its sign to end


def spawn_server(
    home: Path, port: int, by: Sequence[str] = (), password: str = ""
) -> tuple[subprocess.Popen[bytes], str]:
    """A Prefect server on 127.0.0.1:`port`, with its database and log in `home`, once it answers;
    and the URL of its API.

    It lives in a session of its own until it is ended; `by` is the command that starts it, if any.
    With a password its API answers nobody who does not know it.
    Raises MedactionError with the server's log when it does not start.
    """
    home.mkdir(parents=True, exist_ok=True)
    database, template = (
        home / "prefect.db",
        default_folder().parent / f"prefect-{version('prefect')}.db",
    )
    fresh = not database.exists()
    # Of the same version of Prefect, by its name: nothing is to be migrated.
    if fresh and template.exists():
        shutil.copyfile(template, database)
    url = f"http://127.0.0.1:{port}/api"
    log_file = home / "server.log"
    # A home of its own: the user's profiles and database are not touched.
    environment = os.environ | {
        "PREFECT_HOME": str(home.resolve()),
        "PREFECT_API_URL": url,
        # Prefect's default lets the page of any site that a browser here shows read and start runs.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
    }
    if password:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = password
    command = [*by, sys.executable, "-m", "prefect", "server", "start"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with log_file.open("ab") as output:
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        trouble = "the Prefect server did not start; its last words:"
        wait_ready(server, url, log_file, trouble)
    # Ctrl-C too: nobody else knows of the server yet.
    except BaseException:
        stop(server)
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
            # The server has the database open: SQLite's own copy is whole, a file's copy may not
            # be.
            source.backup(copy)
        # Two runs may start at once: a rename is whole, whoever comes last.
        building.rename(template)
    except (OSError, sqlite3.Error) as error:
        log.info("no copy of Prefect's empty database could be kept: %s", error)


ENDS: Mapping[str, State[Any]] = {
    "completed": Completed(message="it ended while the Prefect server was away"),
    "failed": Failed(message="it failed while the Prefect server was away"),
    "interrupted": Crashed(message="its process was killed"),
}
"""By a run's state in its store."""


def mark_ended(states: Mapping[str, str]) -> None:
    """Flow runs (id -> state of the run in its store) that have ended: those that Prefect shows as
    running get their state."""
    if not states:
        return
    chosen = FlowRunFilter(
        id=FlowRunFilterId(any_=[UUID(id_) for id_ in states]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
    )
    try:
        with get_client(sync_client=True) as client:
            for run in client.read_flow_runs(flow_run_filter=chosen):
                client.set_flow_run_state(run.id, ENDS[states[str(run.id)]], force=True)
    except httpx.HTTPError as error:
        log.info("what has ended could not be shown in Prefect: %s", error)
