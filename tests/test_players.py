"""Many cases in one worker process, and many cases behind one Prefect task, on a real Ray."""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.settings import PREFECT_API_URL, temporary_settings

from medaction.tasks import cases
from medaction.tasks.engine import Unit, WorkerLost
from tests.runs import local_ray


@pytest.fixture(scope="module", autouse=True)
def ray_of_the_module() -> Iterator[None]:
    with local_ray(2):
        yield


async def _process(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


async def _kills_its_process(seconds: float) -> None:
    await asyncio.sleep(seconds)
    os._exit(1)


async def _fails(reason: str) -> None:
    raise ValueError(reason)


def unit(work, argument: object, case_id: str = "case") -> Unit:
    return Unit("rollouts", case_id, 0.25, work, (argument,))


def test_as_many_processes_as_cpus_play_any_number_of_cases() -> None:
    players = cases.Players()
    with ThreadPoolExecutor(20) as threads:
        pids = list(threads.map(players.run, [unit(_process, 0.2)] * 20))
    assert len(set(pids)) == 2


def test_a_case_that_kills_its_process_takes_no_other_case_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = cases.play_alone.options(max_retries=0)
    monkeypatch.setattr(cases, "play_alone", type("once", (), {"options": lambda **_: alone}))
    players = cases.Players()
    with ThreadPoolExecutor(20) as threads:
        others = [threads.submit(players.run, unit(_process, 3)) for _ in range(2)]
        lost = threads.submit(players.run, unit(_kills_its_process, 0.5))
        assert isinstance(lost.exception(), WorkerLost)
        assert all(other.result() for other in others)
    assert players.run(unit(_process, 0))  # a new process has taken its place
    assert players._node_of.keys() == players._under_way.keys()


def test_an_error_of_a_unit_is_that_error() -> None:
    with pytest.raises(ValueError, match="no text"):
        cases.Players().run(unit(_fails, "no text"))


@pytest.mark.parametrize(("shown", "tasks"), [(3, 3 + 2 + 1), (20, 8)])
def test_after_some_cases_one_task_stands_for_many(
    shown: int, tasks: int, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "CASES_SHOWN", shown)
    monkeypatch.setattr(cases, "CASES_A_TASK", 2)
    names = [f"case {number}" for number in range(8)]

    @flow(name="players")
    def run() -> str:
        from prefect.runtime import flow_run

        engine = cases.RayEngine()
        futures = [engine.submit(unit(_process, 0, name)) for name in names[:-1]]
        futures.append(engine.submit(unit(_fails, "its fault", names[-1])))
        results = [engine.result(future) for future in futures]
        engine.close()
        assert [type(result) for result in results] == [int] * 7 + [ValueError]
        return str(flow_run.id)

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        state = run(return_state=True)
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(
                flow_run_filter=FlowRunFilter(
                    id=FlowRunFilterId(any_=[state.state_details.flow_run_id])
                )
            )
    assert len(runs) == tasks
    failed = [task for task in runs if task.state and task.state.is_failed()]
    assert len(failed) == 1
    assert "its fault" in failed[0].state.message
