"""Runs of the command line in processes of their own, and what they leave in the store."""

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from medaction.trajectories.store import Store
from tests.conftest import REPOSITORY, SAMPLES

TEACHERS = ("--teacher", "kg-screening", "--teacher", "kg-targeted")


def medaction(
    environment: dict[str, str], *arguments: object, folder: Path | None = None, timeout: int = 400
) -> subprocess.CompletedProcess[str]:
    """The command run to its end, in `folder` if that is given."""
    command = [sys.executable, "-m", "medaction.cli.main", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout
    )


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """A Ray of this test's own."""
    import ray

    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def environment_server(cases: Path, *options: object) -> Iterator[str]:
    """`medaction serve-env` in a process of its own; yields its URL once it is healthy."""
    command = [sys.executable, "-m", "medaction", "serve-env", "--cases", str(cases)]
    with subprocess.Popen(
        [*command, *map(str, options)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    ) as process:
        try:
            assert process.stderr
            line = process.stderr.readline()
            address = re.search(r"http://\S+", line)
            assert address, line
            # A machine that is busy with other tests may need a minute until it listens.
            for _ in range(600):
                with suppress(httpx.TransportError):
                    httpx.get(f"{address[0]}/health")
                    break
                time.sleep(0.1)
            yield address[0]
        finally:
            process.kill()


def sample_cases(folder: Path, *numbers: int) -> Path:
    """A folder with the sample cases of these numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        for file in SAMPLES.glob(f"medaction-{number:02}.*"):
            shutil.copy(file, folder)
    return folder


def rows(out: Path, sql: str) -> list[tuple]:
    with Store(out / "trajectories.duckdb") as store:
        return store.rows(sql)


def hashes(out: Path, table: str) -> dict[str, list[str]]:
    """Hashes of a table's rows, by case."""
    found: dict[str, list[str]] = {}
    source = "turns join trajectories using (trajectory_id)" if table == "turns" else table
    for row in rows(out, f"select case_id, to_json({table}) from {source} order by all"):
        found.setdefault(row[0], []).append(hashlib.sha256(row[1].encode()).hexdigest())
    return found


@contextmanager
def medaction_process(
    home: Path, *arguments: object, environment: Mapping[str, str] = os.environ
) -> Iterator[subprocess.Popen[bytes]]:
    """A `medaction` process under way, with its call cache in `home` and its words in
    `home`/medaction.log; killed at the end."""
    environment = {**environment, "MEDACTION_CALL_CACHE": str(home / "calls")}
    command = [sys.executable, "-m", "medaction.cli.main", *map(str, arguments)]
    with (
        (home / "medaction.log").open("ab") as words,
        subprocess.Popen(command, env=environment, stdout=words, stderr=words) as run,
    ):
        try:
            yield run
        finally:
            run.kill()
