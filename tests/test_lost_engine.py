"""A Ray whose raylet dies in the middle: Ray itself would wait for ever."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray

from medaction.tasks import cases
from medaction.tasks.engine import Unit
from medaction.words.errors import EngineLost


async def _long() -> None:
    await asyncio.sleep(600)


def test_all_that_wait_for_a_ray_that_has_died_are_told_so() -> None:
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        players, unit = cases.Players(), Unit("rollouts", "case", 0.25, _long, ())
        with ThreadPoolExecutor(3) as threads:
            under_way = [threads.submit(players.run, unit) for _ in range(3)]
            [raylet] = [server for server in cases.ray_servers() if server.name() == "raylet"]
            raylet.kill()
            assert all(
                isinstance(future.exception(timeout=120), EngineLost) for future in under_way
            )
        with pytest.raises(EngineLost):
            players.run(unit)
    finally:
        ray.shutdown()
