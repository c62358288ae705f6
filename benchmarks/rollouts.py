"""The speed of rollouts beside other clients in the same run. Faults and kills have benchmarks of
their own (benchmarks.faults, benchmarks.kills).

Run as: python benchmarks/rollouts.py --out results/ The model is a server on loopback
(`benchmarks/rollouts/server.py`) in a process of its own, whose CPU time is not counted. Peers are
installed on demand, each into an environment of its own under --venvs (with uv); one that cannot be
installed or run is said to be missing. 'engine': this project in one asyncio process, store and
call cache included. 'distill': the whole flow with Prefect and Ray; its start-up is reported apart.
Ideal: calls / 64 x seconds a call, or the longest chain of dependent calls where that is more.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from rich.console import Console
from rich.table import Table

from benchmarks.watch import Watch

HERE = Path(__file__).parent
IN_FLIGHT, TURNS, CALL_S = 64, 5, 0.2
PEERS = {
    "aiohttp": None,
    "litellm": None,
    "bespokelabs-curator": "bespokelabs-curator",
    "inspect-ai": "inspect-ai openai",
    "distilabel": "distilabel[openai]",
}
"""A peer and what its environment is made of; None: this one."""
FLAT = {"teachers": 1, "rollouts": 1, "launch_points": 0, "branches": 0}
TREE = {"teachers": 2, "rollouts": 3, "launch_points": 1, "branches": 1}
Row = dict[str, Any]
console = Console(width=140)


def write_cases(folder: Path, count: int) -> dict[str, list[str]]:
    """`count` case reports made of the sample cases, each with a number of its own, and the menu of
    each by that number."""
    folder.mkdir(parents=True)
    samples = sorted((HERE.parent / "examples" / "cases").glob("*.json"))
    menus = {}
    for visit in range(count):
        case = json.loads(samples[visit % len(samples)].read_text())
        case |= {
            "case_id": f"visit-{visit:05}",
            "initial_observation": f"Visit {visit}. {case['initial_observation']}",
        }
        menus[str(visit)] = [test["name"] for test in case["tests"]]
        (folder / f"visit-{visit:05}.json").write_text(json.dumps(case))
    return menus


@contextmanager
def model_server(menus: Path) -> Iterator[str]:
    command = [sys.executable, str(HERE / "rollouts" / "server.py"), str(menus)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def log_of(url: str) -> dict[str, Any]:
    with build_opener(ProxyHandler({})).open(f"{url}/log", timeout=60) as answer:
        return json.load(answer)


def play(name: str, python: str, folder: Path, menus: Path, work: Row) -> Row:
    """One client in a process of its own, against a new server."""
    folder.mkdir(parents=True)
    (folder / "work.json").write_text(json.dumps(work | {"folder": str(folder)}))
    command = [python, str(HERE / "rollouts" / "play.py"), name, str(folder / "work.json")]
    path = {"PYTHONPATH": str(HERE.parent)} if name == "engine" else {}
    with model_server(menus) as url, (folder / "log.txt").open("w") as errors:
        watch = Watch([*command, url], stdout=subprocess.PIPE, stderr=errors, env=os.environ | path)
        said, _ = watch.process.communicate()
        watch.stop()
        log = log_of(url)
    if watch.process.returncode:
        last = (folder / "log.txt").read_text().strip().splitlines()[-1:]
        return {"client": name, "missing": " ".join(last)[:100]}
    took = json.loads(said.strip().splitlines()[-1])
    return _row(name, log, took["wall_s"], took["cpu_s"], watch, work) | {
        "rss": [(at, mib) for at, _, mib in watch.samples]
    }


def _row(name: str, log: Row, wall_s: float, cpu_s: float, watch: Watch, work: Row) -> Row:
    calls = sum(log["answered"].values())
    chain = TURNS + (TURNS - 1 if work["branches"] else 0)
    return {
        "client": name,
        "calls": calls,
        "wall_s": wall_s,
        "wall_over_ideal": wall_s / (max(-(-calls // IN_FLIGHT), chain) * CALL_S),
        "cpu_ms_a_call": 1000 * cpu_s / calls,
        "peak_mib": watch.peak_mib,
        "most_in_flight": log["most"],
        "repeated": calls - len(log["answered"]),
        "load": os.getloadavg()[0],
    }


def preset(folder: Path, url: str, work: Row) -> Path:
    """The settings of `medaction distill` for the tree; YAML is JSON's superset."""
    teacher = {"model": "openai/bench", "api_base": f"{url}/v1", "free_form": 0}
    teacher["in_flight"] = IN_FLIGHT
    teachers = [teacher | {"name": f"t{i}"} for i in range(work["teachers"])]
    shape = {name: work[name] for name in ("rollouts", "launch_points", "branches")}
    settings = {
        "teachers": teachers,
        "t_max": TURNS,
        "in_flight": work["cases_at_once"],
        "strategy": "none",
        "quarantine": False,  # its replies are the same for many cases
    } | shape
    file = folder / "settings.yaml"
    file.write_text(json.dumps(settings | {"cases": work["reports"], "out": str(folder / "out")}))
    return file


def distill(folder: Path, menus: Path, work: Row) -> Row:
    """The whole flow."""
    folder.mkdir(parents=True)
    environment = os.environ | {"MEDACTION_CALL_CACHE": str(folder / "calls")}
    with model_server(menus) as url, (folder / "log.txt").open("w") as errors:
        settings = str(preset(folder, url, work))
        command = [sys.executable, "-m", "medaction.cli.main", "distill", "--preset", settings]
        began = time.time()
        watch = Watch(command, stdout=errors, stderr=errors, env=environment, cwd=HERE.parent)
        watch.process.wait()
        watch.stop()
        log = log_of(url)
    if watch.process.returncode:
        last = (folder / "log.txt").read_text().strip().splitlines()[-1:]
        return {"client": "distill", "missing": " ".join(last)[:100]}
    cpu_s = watch.cpu_at(log["last"]) - watch.cpu_at(log["first"])
    return _row("distill", log, log["last"] - log["first"], cpu_s, watch, work) | {
        "start_s": log["first"] - began,
        "end_s": time.time() - log["last"],
        "rss": [(at, mib) for at, _, mib in watch.samples],
    }


def python_of(peer: str, venvs: Path) -> str | None:
    """The interpreter that has the peer, made with uv if need be. None: it cannot be had."""
    wanted = PEERS.get(peer)
    if wanted is None:
        return sys.executable
    python = venvs / peer / "bin" / "python"
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if not python.exists():
        if uv is None:
            return None
        subprocess.run([uv, "venv", "-q", "--python", "3.11", str(venvs / peer)], check=False)
        made = subprocess.run(
            [uv, "pip", "install", "-q", "--python", str(python), *wanted.split()], check=False
        )
        if made.returncode:
            shutil.rmtree(venvs / peer, ignore_errors=True)
            return None
    return str(python)


def work_for(reports: Path, cases: int, shape: Row) -> Row:
    """What the clients are to do. Peers get a prompt about as long as ours, and the same schema."""
    from medaction.envs.prompts import messages
    from medaction.envs.reply import reply_schema

    observation = json.loads(next(iter(sorted(reports.glob("*.json")))).read_text())[
        "initial_observation"
    ]
    system = messages(observation, (), TURNS)[0]["content"]
    form = {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": reply_schema(False), "strict": True},
    }
    text = observation.split(". ", 1)[1]
    texts = {"system": system, "observation": text, "format": form}
    return texts | {"reports": str(reports), "cases": cases, "cases_at_once": 100} | shape


COLUMNS = (
    ("calls", "calls", ""), ("wall s", "wall_s", ".1f"), ("wall / ideal", "wall_over_ideal", ".2f"),
    ("CPU ms a call", "cpu_ms_a_call", ".2f"), ("peak MiB", "peak_mib", ".0f"),
    ("in flight", "most_in_flight", ""), ("repeated", "repeated", ""), ("load", "load", ".0f"),
)  # fmt: skip
"""Of the table: the heading, the figure, and its form."""


def table_of(title: str, rows: list[Row]) -> Table:
    table = Table(title=title)
    table.add_column("client")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for row in rows:
        if "missing" in row:
            table.add_row(row["client"], f"not measured: {row['missing']}")
        else:
            table.add_row(row["client"], *(f"{row[name]:{form}}" for _, name, form in COLUMNS))
    return table


def medians(rows: list[Row]) -> list[Row]:
    """One row a client: the median of every figure over its repetitions."""
    names = list(dict.fromkeys(row["client"] for row in rows))
    middle = []
    for name in names:
        good = [row for row in rows if row["client"] == name and "missing" not in row]
        if not good:
            middle.append(next(row for row in rows if row["client"] == name))
            continue
        figures = {
            key: statistics.median([row[key] for row in good])
            for key, value in good[0].items()
            if isinstance(value, int | float)
        }
        middle.append(good[0] | figures)
    return middle


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="an empty or new folder for the results and the runs themselves",
    )
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        help="how often every client plays the five dependent turns, in turn",
    )
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument(
        "--venvs", type=Path, default=Path.home() / ".cache" / "medaction" / "peers"
    )
    options = parser.parse_args()
    out, cases = options.out.resolve(), options.cases
    menus, reports = out / "menus.json", out / "cases"
    menus.write_text(json.dumps(write_cases(reports, cases)))
    rows = []
    for repeat in range(options.repeats):
        for name in [*options.peers, "engine"]:
            console.print(f"five dependent turns, repetition {repeat + 1}: {name}")
            python = python_of(name, options.venvs.expanduser())
            if python is None:
                rows.append({"client": name, "missing": "it could not be installed"})
                continue
            folder = out / f"flat-{repeat}-{name}"
            rows.append(play(name, python, folder, menus, work_for(reports, cases, FLAT)))
    flat = medians(rows)
    title = f"{cases} cases x {TURNS} dependent turns, medians of {options.repeats}"
    console.print(table_of(title, flat))
    console.print("the tree: bare clients with as many calls, engine, then the whole flow")
    # As many calls of bare clients: over 500 calls their start-up weighs more than their work.
    as_many = work_for(reports, cases, FLAT) | {"cases": 7 * cases}
    tree = work_for(reports, cases, TREE)
    bare = [
        play(name, sys.executable, out / f"tree-{name}", menus, as_many)
        for name in ("aiohttp", "litellm")
    ]
    engine = play("engine", sys.executable, out / "tree-engine", menus, tree)
    flow = distill(out / "tree-distill", menus, tree)
    whole = [*bare, engine, flow]
    console.print(table_of(f"{cases} cases x 2 teachers x (3 + branch) x {TURNS} turns", whole))
    if "start_s" in flow:
        console.print(
            f"distill: {flow['start_s']:.0f} s before the first call, "
            f"{flow['end_s']:.0f} s after the last"
        )
    about = {
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "litellm": version("litellm"),
        "cases": cases,
    }
    results = about | {"flat": flat, "tree": whole}
    (out / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
