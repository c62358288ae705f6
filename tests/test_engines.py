"""A run plays in this process or on Ray: the same records, byte for byte."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from medaction.flows.missing import SMALL, is_small
from medaction.flows.settings import DistillSettings, EnvironmentSettings
from medaction.tasks.engine import Unit
from medaction.tasks.local import THREADS, LocalEngine
from tests.conftest import SAMPLES
from tests.runs import TEACHERS, hashes, medaction, rows


async def _length(text: str) -> int:
    if not text:
        raise ValueError("no text")
    return len(text)


async def _meeting(others: threading.Barrier) -> str:
    await asyncio.to_thread(others.wait, 60)
    return threading.current_thread().name


def _unit(work, *arguments: object) -> Unit:
    return Unit("environment", "case", 1.0, work, arguments)


def test_a_unit_that_fails_leaves_the_others_alone() -> None:
    engine = LocalEngine()
    futures = [engine.submit(_unit(_length, text)) for text in ("abc", "", "de")]
    results = [engine.result(future) for future in futures]
    engine.close()
    assert results[0::2] == [3, 2]
    assert isinstance(results[1], ValueError)


def test_units_that_wait_in_threads_wait_beside_each_other() -> None:
    """None of them goes on before all are there."""
    engine, others = LocalEngine(), threading.Barrier(THREADS)
    futures = [engine.submit(_unit(_meeting, others)) for _ in range(THREADS)]
    names = {engine.result(future) for future in futures}
    engine.close()
    assert len(names) == 1  # one event loop


def test_closing_cancels_what_is_under_way() -> None:
    engine = LocalEngine()
    future = engine.submit(Unit("rollouts", "case", 0.25, asyncio.sleep, (600,)))
    engine.close()
    assert future.cancelled()


def test_a_run_is_small_up_to_a_number_of_cases(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    for number in range(SMALL + 1):
        (reports / f"{number}.txt").write_text(
            f"A {20 + number}-year-old woman came with fever and a cough for three days."
        )
    everything = DistillSettings(cases=str(reports), out=tmp_path, teachers=["kg-screening"])
    assert not is_small(everything)
    assert is_small(everything.model_copy(update={"limit": SMALL}))


def test_a_run_without_models_is_small_whatever_it_reads(tmp_path: Path) -> None:
    unread = EnvironmentSettings(cases=str(tmp_path / "none"), out=tmp_path)
    assert is_small(unread)


def test_cases_that_are_named_are_counted_without_reading_the_others(tmp_path: Path) -> None:
    unread = EnvironmentSettings(cases=str(tmp_path / "none"), out=tmp_path, only=["0", "1"])
    assert is_small(unread)


@pytest.fixture(scope="module")
def played_here(tmp_path_factory: pytest.TempPathFactory, finished: tuple[Path, Path]) -> Path:
    """The run of `finished` once more, with no Prefect and no Ray to be had."""
    out = tmp_path_factory.mktemp("here") / "out"
    alone = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    alone |= {"MEDACTION_CALL_CACHE": str(out.parent / "calls")}
    done = medaction(alone, "distill", "--cases", finished[0], "--out", out, *TEACHERS)
    assert done.returncode == 0, done.stderr
    return out


def test_both_engines_write_the_same_dataset(
    played_here: Path, finished: tuple[Path, Path]
) -> None:
    tables, others = (
        {file.name: file.read_bytes() for file in (out / "dataset").glob("*.*") if is_data(file)}
        for out in (played_here, finished[1])
    )
    assert tables == others
    assert {"train.parquet", "train.jsonl"} <= set(tables)


def is_data(file: Path) -> bool:
    return file.suffix in (".parquet", ".jsonl")


def test_both_engines_store_the_same_turns(played_here: Path, finished: tuple[Path, Path]) -> None:
    sql = "select turns.* exclude (seconds) from turns order by trajectory_id, number"
    assert rows(played_here, sql) == rows(finished[1], sql)
    assert hashes(played_here, "environments") == hashes(finished[1], "environments")


def test_a_small_run_starts_no_server(played_here: Path) -> None:
    assert not (played_here / "prefect").exists()
    assert rows(played_here, "select flow_run_id from runs") == [(None,)]


def test_the_sample_cases_are_a_small_run() -> None:
    assert is_small(EnvironmentSettings(cases=str(SAMPLES), out=Path("runs/none")))
