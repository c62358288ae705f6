"""One ledger for the worker processes of a run, on a real local Ray and a real server."""

import asyncio
import os
import pickle
from collections.abc import Iterator

import pytest
import ray

from medaction.llm.calls import BudgetSpent, CallSettings, call, configure
from medaction.llm.limits import Ask, Bounds, Ended
from medaction.llm.teacher import Teacher
from medaction.tasks.ledger import RayLedger
from tests.openai_server import Reply, openai_server
from tests.runs import local_ray

BOUNDS = Bounds("t", "openai/m", ("a",), 4, None, None, None)


@pytest.fixture(scope="module", autouse=True)
def ray_of_the_module() -> Iterator[None]:
    with local_ray(4):
        yield


def play(settings: CallSettings, teacher: Teacher, case: int, rounds: int) -> tuple[int, int, int]:
    """(replies, calls that were refused for the budget, this process)"""

    async def rollout(number: int) -> tuple[int, int]:
        done = spent = 0
        for turn in range(rounds):
            try:
                await call(
                    teacher, [{"role": "user", "content": f"{case} {number} {turn}"}], None, turn
                )
                done += 1
            except BudgetSpent:
                spent += 1
        return done, spent

    async def tree() -> list[tuple[int, int]]:
        return await asyncio.gather(*(rollout(number) for number in range(3)))

    configure(settings)
    counts = asyncio.run(tree())
    return sum(done for done, _ in counts), sum(spent for _, spent in counts), os.getpid()


def play_all(
    settings: CallSettings, teacher: Teacher, cases: int, rounds: int
) -> tuple[int, int, int]:
    task = ray.remote(num_cpus=1, max_retries=0)(play)
    results = ray.get([task.remote(settings, teacher, case, rounds) for case in range(cases)])
    return (
        sum(done for done, _, _ in results),
        sum(spent for _, spent, _ in results),
        len({pid for _, _, pid in results}),
    )


def test_a_budget_and_the_calls_under_way_are_the_whole_runs() -> None:
    ledger = RayLedger.start({"t": 2.0})
    with openai_server(
        lambda _, n: Reply("x", after_s=0.4, prompt_tokens=1000, completion_tokens=0)
    ) as server:
        teacher = Teacher.model_validate(
            {
                "name": "t",
                "model": "openai/m",
                "api_base": server.url,
                "in_flight": 5,
                "budget_usd": 32,
            }
            | {"usd_per_million_prompt_tokens": 1000}
        )
        done, spent, processes = play_all(CallSettings(ledger=ledger), teacher, cases=4, rounds=6)
        assert done + spent == 4 * 3 * 6
        assert 30 <= done <= 30 + 4  # one dollar a call, two spent before
        assert len(server.asked) == done
        assert max(asked.under_way for asked in server.asked) == 5
        assert processes > 1
        assert ledger.spent_usd() == {"t": 2.0 + done}
        raised = teacher.model_copy(update={"budget_usd": 1000})
        assert play_all(CallSettings(ledger=ledger), raised, cases=2, rounds=2)[:2] == (12, 0)


def test_a_ledger_that_was_lost_spends_no_more() -> None:
    ledger = RayLedger.start()
    with openai_server(lambda _, n: "x") as server:
        free = Teacher(name="free", model="openai/m", api_base=server.url)
        paid = Teacher(name="paid", model="openai/m", api_base=server.url, budget_usd=5)
        assert play_all(CallSettings(ledger=ledger), paid, cases=1, rounds=2)[:2] == (6, 0)
        ray.kill(ledger._keeper, no_restart=False)
        assert play_all(CallSettings(ledger=ledger), paid, cases=1, rounds=2)[:2] == (0, 6)
        assert play_all(CallSettings(ledger=ledger), free, cases=1, rounds=2)[:2] == (6, 0)


def test_a_copy_is_the_same_ledger() -> None:
    ledger = RayLedger.start()
    copy = pickle.loads(pickle.dumps(ledger))  # noqa: S301
    assert copy == ledger != RayLedger.start()
    assert CallSettings(ledger=copy) == CallSettings(ledger=ledger)


@pytest.mark.parametrize("answered", [False, True])
def test_who_asks_and_is_cancelled_keeps_no_place(answered: bool) -> None:
    ledger = RayLedger.start()

    async def scene() -> int:
        await ledger.ask(Ask("reply", BOUNDS, 1))
        await ledger.end(Ended("reply", BOUNDS, "a", "good"))
        waiting = asyncio.create_task(ledger.ask(Ask("cancelled", BOUNDS, 1)))
        await asyncio.sleep(0)
        [(_, answer)] = ledger._asks
        # The answer is there, and who waits for it has not gone on yet.
        while answered and not answer.done():
            await asyncio.sleep(0)
        waiting.cancel()
        answers = [await ledger.ask(Ask(str(number), BOUNDS, 1)) for number in range(5)]
        free = sum(answer.server is not None for answer in answers)
        for number in range(free):
            await ledger.end(Ended(str(number), BOUNDS, "a", "good"))
        return free

    assert asyncio.run(scene()) == 4
