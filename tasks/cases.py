"""The units of retry: one Prefect task a case and stage, named after both; its work is one Ray
task.

The Prefect task only waits for Ray (143 tasks a second were measured this way, against 10 with
Prefect's own Ray task runner), takes records and returns records, and touches no file: the flow's
process is the only writer.
"""

import asyncio
from typing import Any

import ray
from prefect import task
from prefect.states import Failed, State
from prefect.utilities.annotations import quote

from medaction.envs.records import Built
from medaction.tasks.engine import Unit, WorkerLost
from medaction.tasks.ledger import RayLedger
from medaction.trajectories.records import Failure
from medaction.trajectories.rollout import Played

# A Ray worker that dies takes its case with it; Ray starts the case again by itself, this often.
WORKER_RESTARTS = 3


@ray.remote(max_retries=WORKER_RESTARTS)
def _in_a_worker(unit: Unit) -> Any:
    return asyncio.run(unit.work(*unit.arguments))


def _lost_its_worker(_task: Any, _run: Any, state: State) -> bool:
    """Retry only what the case is not to blame for."""
    return isinstance(state.result(raise_on_failure=False), WorkerLost)


@task(
    task_run_name="{stage}: {case_id}",
    retries=2,
    retry_delay_seconds=[2, 10],
    retry_condition_fn=_lost_its_worker,
    persist_result=False,
)
def stage_of_case(stage: str, case_id: str, unit: Any) -> Any:
    """Run the `Unit` on Ray. It comes in `quote`: Prefect neither walks through it nor links
    tasks by it. The task has failed where the work says so; what it brought is with its state."""
    try:
        result = ray.get(_in_a_worker.options(num_cpus=unit.cpus).remote(unit))
    except ray.exceptions.RayTaskError as error:
        # An error of our own code comes as itself, not wrapped in a page of Ray's.
        if isinstance(error.cause, ray.exceptions.RayError):
            raise WorkerLost(str(error.cause)) from error
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise WorkerLost(str(error)) from error
    message = fault_of(result)
    return Failed(message=message[:500], data=result) if message else result


def fault_of(result: Any) -> str:
    """Why a stage's result is a failure of its task; empty: it is none."""
    match result:
        case Played(failures=(failure, *_) as failures, trajectories=trajectories):
            reason = f"{failure.teacher}: {failure.error_class}: {failure.message}"
            count = len(failures) + len(trajectories)
            return f"{len(failures)} of {count} rollouts failed; {reason}"
        case Failure(message=message):
            return message
        case (Built(refusal=refusal), _) if refusal:
            return str(refusal)
    return ""


class RayEngine:
    """Runs units on the Ray that this process has joined, each as a task of the Prefect flow run
    that is under way."""

    start_ledger = staticmethod(RayLedger.start)

    def submit(self, unit: Unit) -> Any:
        return stage_of_case.submit(unit.stage, unit.case_id, quote(unit))

    @staticmethod
    def result(future: Any) -> Any:
        return future.result(raise_on_failure=False)
