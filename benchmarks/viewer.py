"""How quick the viewer is on a large store: a finished run, copied over until it has so many
cases. The time is that of the whole answer over HTTP, from a `medaction view` of its own,
and beside it the CPU seconds of that process, which a busy machine leaves alone.

Run as: python -m benchmarks.viewer runs/demo --cases 8000
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import httpx
import polars as pl
import psutil

from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import tree_of

PAGES = (
    *("/", "/", "/cases", "/cases?q=fever", "/cases?q=night sweats&sort=-turns", "/trajectories"),
    *("/trajectories?status=discarded", "/failures", "/as-of"),
)
BY_CASE = ("cases", "checks", "ledger", "failures")
BY_TRAJECTORY = ("trajectories", "turns", "verdicts", "turn_scores")


def grow(run: Path, out: Path, count: int) -> None:
    """A store in `out` with the cases of the store in `run` over and over, until it has `count`."""
    with Store(run / STORE) as source:
        worlds = source.environments()
        trees = {world.case_id: tree_of(source, world.environment_id) for world in worlds}
    cases, environments, trajectories = [], [], []
    for number in range(count):
        world = worlds[number % len(worlds)]
        copy = replace(world, case_id=f"case-{number:06}")
        environment_id, new_ids = copy.environment_id, dict[str | None, str]()
        cases.append((world.case_id, copy.case_id))
        environments.append((world.environment_id, environment_id, copy.case_id))
        for trajectory in trees[world.case_id]:
            spec = replace(
                trajectory.spec,
                environment_id=environment_id,
                case_id=copy.case_id,
                parent_id=new_ids.get(trajectory.spec.parent_id),
            )
            new_ids[trajectory.trajectory_id] = spec.trajectory_id
            ids = (trajectory.trajectory_id, spec.trajectory_id, environment_id, copy.case_id)
            trajectories.append((*ids, spec.parent_id))
    out.mkdir(parents=True)
    with Store(out / STORE):
        pass  # the schema; the store itself reads no other file
    with duckdb.connect(out / STORE) as db:
        db.execute(f"attach '{run / STORE}' as small (read_only)")
        of_case = pl.DataFrame(cases, schema=["old", "case_id"], orient="row")
        of_world = pl.DataFrame(
            environments, schema=["old", "environment_id", "case_id"], orient="row"
        )
        of_tree = pl.DataFrame(
            trajectories,
            schema=["old", "trajectory_id", "environment_id", "case_id", "parent_id"],
            schema_overrides={"parent_id": pl.String},
            orient="row",
        )
        world_of_case = of_world.select("case_id", "environment_id")
        db.register("of_case", of_case.join(world_of_case, on="case_id", how="left"))
        db.register("of_world", of_world)
        db.register("of_tree", of_tree)
        for table, ids, key in (
            *((table, "of_case", "case_id") for table in BY_CASE),
            ("environments", "of_world", "environment_id"),
            *((table, "of_tree", "trajectory_id") for table in BY_TRAJECTORY),
        ):
            names = [row[0] for row in db.execute(f"describe {table}").fetchall()]
            new = {row[0] for row in db.execute(f"describe {ids}").fetchall()} - {"old"}
            chosen = ", ".join(f'{ids if name in new else "old"}."{name}"' for name in names)
            db.execute(
                f"insert into {table} select {chosen} from {ids}"
                f" join small.{table} as old on old.{key} = {ids}.old order by {ids}.case_id"
            )
        for table in ("runs", "links"):
            db.execute(f"insert or ignore into {table} select * from small.{table}")
        purpose = "select * from small.meta where key = 'purpose'"
        db.execute(f"insert or ignore into meta {purpose}")
        db.execute("detach small")
    with Store(out / STORE) as store:
        store.publish()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--cases", type=int, default=8_000)
    parser.add_argument("--out", type=Path, help="keep the large store here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary) / "large"
        began = time.perf_counter()
        grow(options.run, out, options.cases)
        size = (out / STORE).stat().st_size / 1e6
        print(f"{options.cases} cases, {size:.0f} MB, made in {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        with viewer(out) as url:
            print(f"{'ready':40} {time.perf_counter() - began:7.3f} s")
            (server,) = psutil.Process().children()
            case = (
                httpx.get(f"{url}/cases", timeout=60).text.split('<td><a href="')[1].split('"')[0]
            )
            for page in (*PAGES, case, case):
                before, began = sum(server.cpu_times()[:2]), time.perf_counter()
                answer = httpx.get(url + page, timeout=60).raise_for_status()
                wall, after = time.perf_counter() - began, sum(server.cpu_times()[:2])
                print(
                    f"{page:40} {wall:7.3f} s {after - before:7.3f} s of CPU"
                    f" {len(answer.content) / 1000:9.0f} kB"
                )


@contextmanager
def viewer(out: Path, against: Path | None = None) -> Iterator[str]:
    """The URL of a `medaction view` that runs until the block ends."""
    command = [sys.executable, "-m", "medaction", "view", "--out", str(out), "--port", "0"]
    if against:
        command += ["--against", str(against)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield next(
                word for word in process.stdout.readline().split() if word.startswith("http")
            ).rstrip(";")
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
