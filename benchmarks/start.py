"""What a command costs before its work: seconds and CPU seconds of small jobs, in one run.

    python -m benchmarks.start [--repeat 3]

The sample cases are played by the embedded teachers in this process and on Ray; then come a rerun
that finds nothing to do, the help, and a mistake. CPU is that of the process and of all that it
started, looked at ten times a second. A first run, whose cost is not counted, fills the caches.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.watch import Watch
from tests.conftest import SAMPLES
from tests.runs import TEACHERS


def cost_of(arguments: Sequence[object]) -> tuple[float, float, int]:
    """Run `medaction` with these arguments, without a Prefect or a Ray of the user's: wall-clock
    seconds, CPU seconds of all its processes, and how many there were."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "RAY_", "PYTHONDONTWRITEBYTECODE"))
    }
    begun, command = time.monotonic(), [sys.executable, "-m", "medaction", *map(str, arguments)]
    nowhere = subprocess.DEVNULL
    watch = Watch(command, 0.1, env=environment, stdout=nowhere, stderr=nowhere)
    watch.process.wait()
    wall_s = time.monotonic() - begun
    watch.stop()
    return wall_s, sum(watch.cpu.values()), len(watch.cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    table = Table("command", "wall s", "CPU s", "processes", title=f"Medians of {repeat}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = ("distill", "--cases", SAMPLES, *TEACHERS)
        cost_of([*run, "--out", folder / "first"])
        commands: dict[str, list[list[object]]] = {
            f"12 cases, --engine {engine}": [
                [*run, "--engine", engine, "--out", folder / f"{engine}-{number}"]
                for number in range(repeat)
            ]
            for engine in ("local", "ray")
        }
        commands["rerun of a finished run"] = [[*run, "--out", folder / "first"]] * repeat
        commands["distill --help"] = [["distill", "--help"]] * repeat
        wrong = ["distill", "--cases", folder / "none", "--out", folder / "wrong", *TEACHERS]
        commands["a path that does not exist"] = [wrong] * repeat
        for words, runs in commands.items():
            walls, cpus, processes = zip(*map(cost_of, runs), strict=True)
            medians = (f"{statistics.median(seconds):.1f}" for seconds in (walls, cpus))
            table.add_row(words, *medians, str(max(processes)))
    Console().print(table)


if __name__ == "__main__":
    main()
