"""A Ray cluster of two nodes on this machine, in a process of its own: Ray allows one a process."""

import json
import subprocess
import sys

import pytest

PLAYED = """
import asyncio, json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
import ray
from ray.cluster_utils import Cluster
from medaction.tasks.cases import Players
from medaction.tasks.engine import Unit

async def node_id(seconds):
    await asyncio.sleep(seconds)
    return ray.get_runtime_context().get_node_id()

def played(players):
    with ThreadPoolExecutor(12) as threads:
        units = [Unit("rollouts", "case", 0.25, node_id, (1.0,))] * 12
        return Counter(threads.map(players.run, units))

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=2)
ray.init(address=cluster.address, log_to_driver=False)
players = Players()
both = played(players)
cluster.remove_node(second, allow_graceful=False)
first = played(players)
print(json.dumps([sorted(both.values()), [*first.values()], both.keys() >= first.keys()]))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_each_cpu_of_each_node_plays_and_a_node_that_dies_loses_no_case() -> None:
    command = [sys.executable, "-c", PLAYED]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    [counts] = [json.loads(line) for line in lines if line.startswith("[[")]
    assert counts == [[4, 8], [12], True]
