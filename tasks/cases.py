"""The engine of large runs: Prefect shows and counts the cases, Ray plays them.

Each CPU of the cluster has one worker process with an event loop (`Player`), in which many cases
wait for models beside each other. Prefect's tasks only wait: they take records and return records,
and touch no file: the flow's process is the only writer. A case is a task of its own up to
`CASES_SHOWN` cases of a run; from then on one task stands for `CASES_A_TASK` of them, because a
task run costs the server and the flow 0.1 s of CPU time together, as much as thirty calls.
"""

import asyncio
import math
import os
import threading
import time
from collections import Counter
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psutil
import ray
from prefect import task
from prefect.states import Failed, State
from prefect.utilities.annotations import quote
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from medaction.envs.records import Built
from medaction.tasks.engine import Unit, WorkerLost
from medaction.tasks.ledger import RayLedger
from medaction.tasks.local import THREADS
from medaction.trajectories.records import Failure, Played
from medaction.words.errors import EngineLost

CASES_SHOWN = 256
"""Stages of cases that are Prefect tasks of their own."""
CASES_A_TASK = 64

WORKER_RESTARTS = 3
"""How often a case is begun again whose worker process died while it was alone in it."""
SERVERS_LOOKED_AT_S = 1.0
CLUSTER_LOOKED_AT_S = 30.0
"""Nodes may join a run under way: the CPUs are counted so often."""
# Also the most threads that wait for them in the flow: each is blocked, and costs little.
MOST_AT_ONCE = 10_000
"""Cases in one `Player`. The flow's `in_flight` is the limit; Ray's own one is 1,000."""


class Player:
    """A worker process that plays many cases in one event loop, as `tasks.local` does."""

    def __init__(self) -> None:
        self._has_threads = False

    async def run(self, unit: Unit) -> Any:
        if not self._has_threads:
            # Not in __init__, which Ray runs before the actor's event loop.
            threads = ThreadPoolExecutor(THREADS, "medaction")
            asyncio.get_running_loop().set_default_executor(threads)
            self._has_threads = True
        return await unit.work(*unit.arguments)


# A task, not an actor: Ray gives it a process and begins it again by itself.
@ray.remote(max_retries=WORKER_RESTARTS)
def play_alone(unit: Unit) -> Any:
    return asyncio.run(unit.work(*unit.arguments))


class Players:
    """A `Player` for each CPU of the cluster. One whose process has died is replaced.

    A Ray that this process has started is watched: without its raylet Ray waits for ever, and
    without its GCS it ends this process after a minute.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        self._waiting_lock = threading.Lock()
        self._end: Exception | None = None
        self._closed = threading.Event()
        self._servers = ray_servers()
        # A cluster that was joined is watched by whoever runs it.
        if self._servers:
            threading.Thread(target=self._watch, daemon=True).start()
        self._under_way: dict[Any, int] = {}
        self._node_of: dict[Any, str] = {}
        self._node_ids, self._looked = [""], float("-inf")

    def run(self, unit: Unit) -> Any:
        """Wait for the unit's result. Whoever dies takes all its cases along, and one of them may
        be the reason: each of them is begun again in a process of its own. Raises WorkerLost when
        it was lost there too, EngineLost when all are, and what the unit raises."""
        if self._end:
            raise self._end
        player = self._take()
        try:
            return self._result(player.run.remote(unit))
        except ray.exceptions.RayError:
            with self._lock:
                # Its other cases come here too, each by its own thread; the next `_take` makes a
                # new player.
                self._under_way.pop(player, None)
                self._node_of.pop(player, None)
        finally:
            with self._lock:
                if player in self._under_way:
                    self._under_way[player] -= 1
        try:
            return self._result(play_alone.options(num_cpus=unit.cpus).remote(unit))
        except ray.exceptions.RayError as error:
            raise WorkerLost(str(error)) from error

    def _result(self, reference: Any) -> Any:
        """Raises what the unit raised as itself, and RayError when its process was lost."""
        future = reference.future()
        with self._waiting_lock:
            if self._end:
                raise self._end
            # In one lock with the look at `_end`: else a future added meanwhile would wait for
            # ever.
            self._waiting.add(future)
        try:
            return future.result()
        except ray.exceptions.RayTaskError as error:
            # The store records an error by its class: Ray's wrapper, a page long, would hide it.
            is_lost = isinstance(error.cause, ray.exceptions.RayError)
            raise (WorkerLost(str(error.cause)) if is_lost else error.cause) from error
        finally:
            with self._waiting_lock:
                self._waiting.discard(future)

    def _watch(self) -> None:
        while not self._closed.wait(SERVERS_LOOKED_AT_S):
            alive = {name for server, name in self._servers.items() if not has_ended(server)}
            # One of several nodes may end: the others play on.
            if ended := sorted({*self._servers.values()} - alive):
                line = f"Ray has ended in the middle of the run (its {' and '.join(ended)})"
                self.end(EngineLost(line, can_go_on=GCS not in ended))

    def end(self, reason: Exception) -> None:
        """Whoever waits for a result, now or later, gets this instead."""
        self._closed.set()
        with self._waiting_lock:
            self._end = reason
            for future in self._waiting:
                with suppress(InvalidStateError):  # its result has just come
                    future.set_exception(reason)

    def _take(self) -> Any:
        """The player that has the fewest cases; a new one where there are fewer than CPUs."""
        with self._lock:
            if time.monotonic() - self._looked > CLUSTER_LOOKED_AT_S:
                self._node_ids = node_ids_of_cpus()
                # A Ray of our own does not grow, and its GCS may be gone.
                self._looked = math.inf if self._servers else time.monotonic()
            if len(self._under_way) < len(self._node_ids):
                taken = Counter(self._node_of[player] for player in self._under_way)
                [(node_id, _)] = (Counter(self._node_ids) - taken).most_common(1)
                # Ray's own ways put two players on one CPU: an actor that waits takes none. Soft:
                # elsewhere, where the node has just died.
                place = NodeAffinitySchedulingStrategy(node_id, soft=True)
                actor: Any = ray.remote(Player)
                player = actor.options(
                    max_concurrency=MOST_AT_ONCE, scheduling_strategy=place
                ).remote()
                self._under_way[player], self._node_of[player] = 0, node_id
            else:
                player = min(self._under_way, key=lambda one: self._under_way[one])
            self._under_way[player] += 1
            return player


def node_ids_of_cpus() -> list[str]:
    """The id of the node of each CPU of the cluster; one, where no node has a CPU to give."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    of_cpus = [n["NodeID"] for n in nodes for _ in range(int(n["Resources"].get("CPU", 0)))]
    return of_cpus or [nodes[0]["NodeID"]]


GCS = "gcs_server"


def ray_servers() -> dict[psutil.Process, str]:
    """The servers of a Ray that this process has started, GCS and a raylet for each node, with
    their names, which cannot be read any more when they have ended; none of one that it has
    joined."""
    # Ray offers no such question; a local Ray is started as children of this process.
    children = psutil.process_iter(["name", "ppid"])
    return {
        child: name
        for child in children
        if child.info["ppid"] == os.getpid() and (name := child.info["name"]) in ("raylet", GCS)
    }


def has_ended(server: psutil.Process) -> bool:
    try:
        # Asked both: a number may have become another process's.
        return not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _lost_its_worker(_task: Any, _run: Any, state: State) -> bool:
    """Retry only what the case is not to blame for."""
    return isinstance(state.result(raise_on_failure=False), WorkerLost)


@task(
    task_run_name="{stage}: {case_id}",
    retries=2,
    retry_delay_seconds=[2, 10],
    retry_condition_fn=_lost_its_worker,
    # The store has the result; Prefect would write it to disk a second time.
    persist_result=False,
)
def stage_of_case(stage: str, case_id: str, work: Any) -> Any:
    """Run a `Unit` by `Players`. Both come in `quote`: Prefect neither walks through them nor links
    tasks by them. The task has failed where the work says so; what it brought is with its state."""
    players, unit = work
    result = players.run(unit)
    message = fault_of(result)
    return Failed(message=message[:500], data=result) if message else result


class Shard:
    """Up to `CASES_A_TASK` cases of one stage, and how they fare."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.faults: list[str] = []
        self.begun = self.ended = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def is_full(self) -> bool:
        return self.begun >= CASES_A_TASK

    def add(self, future: "Future[Any]", case_id: str) -> None:
        def note(done: "Future[Any]") -> None:
            # The run was ended: the case has not failed.
            if done.cancelled():
                fault = ""
            elif error := done.exception():
                fault = str(error) or type(error).__name__
            else:
                fault = fault_of(done.result())
            with self._changed:
                self.ended += 1
                self.faults += [f"{case_id}: {fault}"] if fault else []
                self._changed.notify_all()

        # Before the callback is set, which runs at once where the future has ended already.
        self.begun += 1
        future.add_done_callback(note)

    def close(self) -> None:
        """There will be no more cases."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(
                # A shard that is neither may still get cases.
                lambda: (self._closed or self.is_full) and self.ended == self.begun
            )


@task(task_run_name="{stage}: {first_case} and those after it", persist_result=False)
def stage_of_shard(stage: str, first_case: str, shard: Any) -> Any:
    """Stands for the cases of a `Shard`, in `quote`, until the last of them has ended. Failed: some
    case did; the store has each, and `retry` runs them by case."""
    shard.wait()
    if shard.faults:
        count = f"{len(shard.faults)} of {shard.begun} cases with failures"
        return Failed(message=f"{count}; {shard.faults[0]}"[:500])
    return None


def fault_of(result: Any) -> str:
    """Why a stage's result is a failure of its task; empty: it is none."""
    match result:
        case Played(failures=(failure, *_) as failures, trajectories=trajectories):
            reason = f"{failure.teacher}: {failure.error_class}: {failure.message}"
            count = len(failures) + len(trajectories)
            return f"{len(failures)} of {count} rollouts failed; {reason}"
        case Failure(message=message):
            return message
        # What `build_case` returns: the environment and what its models used.
        case (Built(refusal=refusal), _) if refusal:
            return str(refusal)
    return ""


class RayEngine:
    """Runs units on the Ray that this process has joined, shown by the Prefect flow run that is
    under way. End it with `close`."""

    start_ledger = staticmethod(RayLedger.start)

    def __init__(self) -> None:
        self._players = Players()
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, "medaction")  # made as they are needed
        self._count = 0
        self._shard: Shard | None = None

    def submit(self, unit: Unit) -> Any:
        self._count += 1
        if self._count <= CASES_SHOWN:
            work = quote((self._players, unit))
            return stage_of_case.submit(unit.stage, unit.case_id, work)
        shard = self._shard
        if shard is None or shard.is_full or shard.stage != unit.stage:
            self._end_shard()
            shard = self._shard = Shard(unit.stage)
            stage_of_shard.submit(unit.stage, unit.case_id, quote(shard))
        future = self._threads.submit(self._players.run, unit)
        shard.add(future, unit.case_id)
        return future

    @staticmethod
    def result(future: Any) -> Any:
        if isinstance(future, Future):
            return future.exception() or future.result()
        return future.result(raise_on_failure=False)

    def _end_shard(self) -> None:
        if self._shard:
            self._shard.close()

    def close(self) -> None:
        # Threads that wait for Ray cannot be cancelled: this wakes them.
        self._players.end(EngineLost("the run has ended", can_go_on=True))
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._end_shard()
