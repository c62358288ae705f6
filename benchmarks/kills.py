"""A run that is killed again and again, against the same run left in peace: nothing that had
finished is lost, nothing is double.

    python -m benchmarks.kills [--cases 200] [--kills 10] [--seed 1]

At random points (by how many requests the simulated teacher has had) the flow's process, a Ray
process or the model server gets SIGKILL. A flow is started again with the same command, a server at
the same port some seconds later; Ray is left to itself. Prints what was killed when, and what the
store then had. Exit status 1 when the run does not end as the undisturbed one did.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.damage import command_of
from benchmarks.faults import teacher_file
from medaction.flows.prefect_server import prefect_api
from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store
from tests.runs import medaction_process
from tests.simulated_teacher import cases_in, requests_of, simulated_teacher

KINDS = ("flow", "ray", "server")

# All that was played: everything of a turn but what it took.
PLAYED = """
select trajectory_id, number, reasoning, differential, "pivot", tests, answers,
    turns.final_diagnosis, raw, thinking, outcome
from turns join trajectories using (trajectory_id) order by trajectory_id, number
"""


@dataclass(frozen=True)
class Left:
    """What a store has: a hash of every trajectory's turns by its id, the number of turns, and
    failures that are open."""

    hashes: dict[str, str]
    turns: int
    failures: list[tuple]


def left_in(out: Path) -> Left:
    """Opens the store, so nobody else may have it. Raises AssertionError when a turn or an id is
    there twice."""
    with Store(out / STORE) as store:
        rows = store.rows(PLAYED)
        [(ids, distinct)] = store.rows(
            "select count(*), count(distinct trajectory_id) from trajectories"
        )
        failures = store.rows(
            "select stage, error_class, count(*) from failures where resolved is null group by "
            "all order by all"
        )
    assert ids == distinct == len({row[0] for row in rows}), (
        "a trajectory is there twice, or without turns"
    )
    assert len({row[:2] for row in rows}) == len(rows), "a turn is there twice"
    told: dict[str, list[str]] = {}
    for row in rows:
        told.setdefault(row[0], []).append(json.dumps(row[1:], default=str))
    hashes = {
        id_: hashlib.sha256("\n".join(turns).encode()).hexdigest() for id_, turns in told.items()
    }
    return Left(hashes, len(rows), failures)


def run(
    home: Path,
    cases: Path,
    kills: list[tuple[str, int]],
    away_s: float,
    environment: Mapping[str, str],
    drawn: random.Random,
) -> tuple[Left, list[tuple[str, int, int]]]:
    """(what is left, [(killed, after requests, trajectories stored where the store could be looked
    at or -1)]) of a run.

    `kills` are (kind, number of requests after which). `away_s` is how long the server stays away.
    """
    home.mkdir()
    log, out, told = home / "log", home / "out", []
    with ExitStack() as servers:
        server, api_base = servers.enter_context(simulated_teacher(log, "--after-s", 0.05))
        preset = teacher_file(home, api_base)
        command = ("distill", "--cases", cases, "--out", out, "--preset", preset)
        waiting, stored = list(kills), set[str]()
        while True:
            with medaction_process(home, *command, environment=environment) as flow:
                while flow.poll() is None:
                    if not waiting or len(requests_of(log)) < waiting[0][1]:
                        time.sleep(0.05)
                        continue
                    kind, after = waiting.pop(0)
                    if kind == "flow":
                        told.append((kind, after, -1))
                        break
                    if kind == "ray":
                        victim = drawn.choice(_ray_processes(flow.pid))
                        os.kill(victim[0], signal.SIGKILL)
                        told.append((f"ray: {victim[1]}", after, -1))
                    else:
                        server.kill()
                        server.wait()
                        time.sleep(away_s)
                        port = re.findall(r":(\d+)/", api_base)[0]
                        server, _ = servers.enter_context(
                            simulated_teacher(log, "--after-s", 0.05, "--port", port)
                        )
                        told.append((kind, after, -1))
            if flow.returncode != -signal.SIGKILL:
                assert flow.returncode == 0, (home / "medaction.log").read_text()[-3000:]
                return left_in(out), told
            now = left_in(out).hashes if (out / STORE).exists() else {}
            assert stored <= set(now), "what had been stored is gone"
            stored = set(now)
            told[-1] = (*told[-1][:2], len(now))


def _ray_processes(flow: int) -> list[tuple[int, str]]:
    """(pid, name) of the flow's Ray workers that play, and of the keeper of limits and budgets."""
    members = psutil.Process(flow).children(recursive=True)
    names = [(member.pid, command_of(member)) for member in members]
    return [named for named in names if named[1].startswith(("ray::Player", "ray::_Keeper"))]


def kill_points(kills: int, requests: int, seed: int) -> list[tuple[str, int]]:
    """So many (kind, after how many requests), spread evenly over the kinds and at random over a
    run of so many requests."""
    drawn = random.Random(seed)
    kinds = [KINDS[number % len(KINDS)] for number in range(kills)]
    drawn.shuffle(kinds)
    return list(
        zip(
            kinds,
            sorted(drawn.sample(range(requests // 20, requests * 9 // 10), kills)),
            strict=True,
        )
    )


def compare(
    folder: Path, count: int, kills: int, seed: int, away_s: float, environment: Mapping[str, str]
) -> tuple[Left, Left, list[tuple[str, int, int]], int]:
    """(undisturbed, disturbed, what was killed, requests that were made again although they had
    been answered)."""
    cases = cases_in(folder / "cases", count)
    drawn = random.Random(seed)
    calm, _ = run(folder / "calm", cases, [], 0, environment, drawn)
    points = kill_points(kills, len(requests_of(folder / "calm" / "log")), seed)
    killed, told = run(folder / "killed", cases, points, away_s, environment, drawn)
    asked = requests_of(folder / "killed" / "log")
    return calm, killed, told, len(asked) - len({key for key, _ in asked})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--away-s", type=float, default=8.0, help="seconds that a killed server stays away"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, prefect_api(Path(name) / "prefect") as server:
        names = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")
        environment = os.environ | dict(zip(names, server, strict=True))
        calm, killed, told, again = compare(
            Path(name), given.cases, given.kills, given.seed, given.away_s, environment
        )
    console = Console(width=120)
    table = Table("killed", "after requests", "rollouts stored then")
    for what, after, stored in told:
        table.add_row(what, str(after), str(stored) if stored >= 0 else "")
    console.print(table)
    console.print(
        f"undisturbed: {len(calm.hashes)} rollouts, {calm.turns} turns, failures {calm.failures}"
    )
    console.print(
        f"killed:      {len(killed.hashes)} rollouts, {killed.turns} turns, failures "
        f"{killed.failures}"
    )
    missing, extra = (
        calm.hashes.keys() - killed.hashes.keys(),
        killed.hashes.keys() - calm.hashes.keys(),
    )
    differing = sum(
        killed.hashes[id_] != hash_ for id_, hash_ in calm.hashes.items() if id_ in killed.hashes
    )
    console.print(
        f"missing {len(missing)}, extra {len(extra)}, of other content {differing}; requests "
        f"made again {again}"
    )
    return 0 if calm == killed and len(told) == given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
