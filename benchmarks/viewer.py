"""How quick the viewer is on a large store: a finished run, copied over until it has so many
trajectories. The time is that of the whole answer over HTTP, from a `medaction view` of its own,
and beside it the CPU seconds of that process, which a busy machine leaves alone.

Run as: python benchmarks/viewer.py runs/demo --trajectories 32000
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store

PAGES = (
    *("/", "/", "/cases", "/cases?q=fever", "/cases?q=night sweats&sort=-turns", "/trajectories"),
    *("/trajectories?status=discarded", "/failures", "/as-of"),
)


def grow(run: Path, out: Path, wanted: int) -> int:
    """A store in `out` with the cases of `run` over and over, under other ids, until it holds
    `wanted` trajectories; how many it has."""
    out.mkdir(parents=True, exist_ok=True)
    with Store(out / STORE) as store:
        store.db.execute(f"attach '{run / 'snapshot.duckdb'}' as small (read_only)")
        have = store.rows("select count(*) from small.trajectories")[0][0]
        copies = -(-wanted // have)
        other = {
            "case_id": "case_id || '-' || copy",
            "environment_id": "environment_id || '-' || copy",
            "trajectory_id": "trajectory_id || '-' || copy",
            "parent_id": "parent_id || '-' || copy",
        }
        for table in (
            "cases",
            "checks",
            "environments",
            "trajectories",
            "turns",
            "failures",
            "verdicts",
            "turn_scores",
        ):
            columns = [row[0] for row in store.rows(f"describe {table}")]
            chosen = ", ".join(other.get(name, f'"{name}"') for name in columns)
            store.db.execute(
                f"insert into {table} select {chosen} from small.{table}, range({copies}) as"
                " copies(copy)"
            )
        for table in ("meta", "runs", "links"):
            store.db.execute(f"insert or ignore into {table} select * from small.{table}")
        store.db.execute("detach small")
        store.publish()
        return store.rows("select count(*) from trajectories")[0][0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--trajectories", type=int, default=32_000)
    parser.add_argument("--out", type=Path, help="keep the large store here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        began = time.perf_counter()
        count = grow(options.run, out, options.trajectories)
        size = (out / STORE).stat().st_size / 1e6
        print(f"{count} trajectories, {size:.0f} MB, made in {time.perf_counter() - began:.1f} s")
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
