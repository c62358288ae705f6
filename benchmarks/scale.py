"""How each part of a run grows with its cases, on stores of several sizes.

    python -m benchmarks.scale runs/demo [--cases 1000 4000 16000]

The store of a finished run is copied over until it has so many cases, under ids as the product
gives them. On each, in a process of its own: what a rerun needs to find what is missing, scoring
anew, the dataset, a snapshot, `doctor`, the viewer's first page, and storing one more case, with
seconds, CPU seconds and the peak of memory. The exponent is that of the last two sizes: 1 is
linear, 2 breaks.

    python -m benchmarks.scale --played out [--cases 1000 4000 20000]

plays such a run instead, in one process: made-up cases, a simulated teacher on loopback, one
rollout of two turns a case. Then the same command again, when nothing is missing and when one case
in a hundred is. Ctrl-C ends it; the same command goes on from there.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.faults import distilling, teacher_file
from benchmarks.viewer import grow, viewer
from medaction.flows.finish import score, score_and_export
from medaction.flows.missing import is_finished
from medaction.flows.settings import DistillSettings
from medaction.trajectories.damage import damage_of_run
from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import tree_of
from tests.simulated_teacher import cases_in, simulated_teacher

MIB = 1024


def settings_of(store: Store, out: Path) -> DistillSettings:
    settings = DistillSettings.model_validate_json(store.last_run()[1])
    return settings.model_copy(update={"out": out})


def one_more(store: Store) -> None:
    """Store ten of the cases again, as the flow does as each ends."""
    for key in store.environment_keys()[:10]:
        tree = tree_of(store, key.environment_id)
        store.add_rollouts("rollout", key.case_id, tree, [], "run")


def score_anew(store: Store, out: Path) -> None:
    store.set_meta("scored", "")  # else nothing is done: nothing has changed
    score(store, settings_of(store, out))


def first_page(out: Path) -> None:
    with viewer(out) as url:
        httpx.get(url, timeout=600).raise_for_status()


PARTS: dict[str, Callable[[Store, Path], object]] = {
    "what a rerun lacks, but for the reports": lambda store, out: is_finished(
        store, settings_of(store, out).model_copy(update={"cases": str(out), "limit": 0})
    ),
    "ten cases stored": lambda store, out: one_more(store),
    "snapshot": lambda store, out: store.publish(),
    "score": score_anew,
    "dataset": lambda store, out: score_and_export(store, settings_of(store, out)),
}
OUTSIDE: dict[str, Callable[[Path], object]] = {
    "doctor": lambda out: list(damage_of_run(out)),
    "viewer, first page": first_page,
}


def cost_of(part: str, out: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory in MiB of one part, in this process."""
    began, cpu = time.monotonic(), time.process_time()
    if part in OUTSIDE:
        OUTSIDE[part](out)
    else:
        with Store(out / STORE) as store:
            PARTS[part](store, out)
    # Not of `getrusage`: a child begins with its parent's peak there.
    [peak] = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return {
        "s": time.monotonic() - began,
        "cpu_s": time.process_time() - cpu,
        "mib": int(peak) / MIB,
    }


def played(home: Path, counts: list[int]) -> None:
    """Play runs of so many cases in folders of `home`, and print what each part of them cost."""
    for count in counts:
        folder = home / f"played-{count}"
        cases = cases_in(folder / "cases", count)
        with simulated_teacher(folder / "log", "--turns", 2) as (_, api_base):
            preset = teacher_file(folder, api_base)
            more = ("--engine", "local", "--in-flight", 64, "--call-cache", "off", "--quiet")
            command = [sys.executable, "-m", "medaction"]
            command += distilling(cases, folder / "out", preset, 1, *more)
            print(count, "cases, played:", cost_of_command(command), flush=True)
            size = (folder / "out" / STORE).stat().st_size
            print(count, "cases, store:", f"{size / 2**20:.0f} MiB", flush=True)
            print(count, "cases, nothing missing:", cost_of_command(command), flush=True)
            _lose(folder / "out", count // 100)
            print(count, "cases, 1 % missing:", cost_of_command(command), flush=True)


def cost_of_command(command: list[str]) -> str:
    """Seconds, CPU seconds and peak memory of a command. One that is ended ends this program too:
    given again it goes on from there."""
    began = time.monotonic()
    process = subprocess.Popen(command)
    _, wait_status, used = os.wait4(process.pid, 0)
    status, wall = os.waitstatus_to_exitcode(wait_status), time.monotonic() - began
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / MIB
    cost = f"{wall:.1f} s, {cpu:.1f} CPU s, {peak:.0f} MiB, status {status}"
    if status not in (0, 1):
        sys.exit(f"not at its end after {cost}")
    return cost


def _lose(out: Path, count: int) -> None:
    """Delete the trajectories of so many cases."""
    with Store(out / STORE) as store:
        ids = [
            row[0] for row in store.rows("select trajectory_id from trajectories limit ?", [count])
        ]
        for table in ("turns", "trajectories"):
            store.db.execute(f"delete from {table} where list_contains(?, trajectory_id)", [ids])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="the folder of a finished run")
    parser.add_argument("--played", type=Path, help="play runs in this folder instead")
    parser.add_argument("--cases", type=int, nargs="+", default=[1000, 4000, 16_000])
    parser.add_argument("--out", type=Path, help="keep the stores here")
    parser.add_argument("--parts", nargs="+", default=[*PARTS, *OUTSIDE])
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(cost_of(options.part, options.run)))
        return
    if options.played:
        played(options.played, options.cases)
        return
    table = Table("part", *(f"{count} cases" for count in options.cases), "exponent")
    with tempfile.TemporaryDirectory() as temporary:
        folders = {count: (options.out or Path(temporary)) / str(count) for count in options.cases}
        for count, folder in folders.items():
            if not folder.exists():
                grow(options.run, folder, count)
        sizes = [(folder / STORE).stat().st_size / 2**20 for folder in folders.values()]
        table.add_row("store, MiB", *(f"{size:.0f}" for size in sizes))
        for part in options.parts:
            costs = [_cost_in_a_process(part, folder) for folder in folders.values()]
            cells = [
                f"{cost['s']:.1f} s, {cost['cpu_s']:.1f} CPU s, {cost['mib']:.0f} MiB"
                if cost
                else "not within the time"
                for cost in costs
            ]
            table.add_row(part, *cells, _exponent(options.cases, costs))
    Console(width=150).print(table)


MOST_S = 500


def _cost_in_a_process(part: str, out: Path) -> dict[str, float] | None:
    command = [sys.executable, "-m", "benchmarks.scale", str(out), "--part", part]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=MOST_S)
    except subprocess.TimeoutExpired:
        return None
    cost: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    print(out.name, part, cost, flush=True)
    return cost


def _exponent(counts: list[int], costs: list[dict[str, float] | None]) -> str:
    if len(counts) < 2 or not (costs[-1] and costs[-2]):
        return ""
    ratio = math.log(costs[-1]["cpu_s"] / costs[-2]["cpu_s"]) / math.log(counts[-1] / counts[-2])
    return f"{ratio:.2f}"


if __name__ == "__main__":
    main()
