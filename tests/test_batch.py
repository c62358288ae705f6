"""Environments and rollouts are stored several in a transaction, and what must not wait does not
wait."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from medaction.envs.build import build_environment
from medaction.envs.sources import SAMPLES, read_cases
from medaction.flows.fan_out import fan_out
from medaction.llm.usage import Usage
from medaction.tasks.engine import Engine, Unit
from medaction.trajectories import batch as batches
from medaction.trajectories.batch import EnvironmentBatch
from medaction.trajectories.records import Failure, Played, RolloutSpec, Trajectory, now
from medaction.trajectories.store import Store
from medaction.trajectories.table_rows import BuiltCase
from medaction.words.errors import EngineLost
from tests.records import turn

TABLES = ("cases", "checks", "ledger", "environments", "failures")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "trajectories.duckdb") as opened:
        yield opened


@pytest.fixture(scope="module")
def cases() -> list[BuiltCase]:
    """Environments of the sample cases, in the order of their ids."""
    reports = read_cases(SAMPLES)
    return [BuiltCase(report, build_environment(report)) for report in reports]


def trajectory(case_id: str, sample: int) -> Trajectory:
    spec = RolloutSpec(f"e-{case_id}", case_id, "a", "schema", sample, "settings")
    return Trajectory(
        spec, (turn(1, "Flu", ("CBC",)), turn(2, "Flu", (), "Flu")), "diagnosed", 8, "p", "c"
    )


def refused(case: BuiltCase) -> BuiltCase:
    return replace(case, built=build_environment(case.report, min_tests=99))


def stored(store: Store) -> list[str]:
    return [case_id for (case_id,) in store.rows("select case_id from cases order by case_id")]


def contents(store: Store) -> dict[str, list[tuple]]:
    """All rows but the times of failures."""
    return {
        table: store.rows(
            f"select * {'exclude (time, resolved)' if table == 'failures' else ''} from {table}"
            " order by all"
        )
        for table in TABLES
    }


def test_cases_wait_for_others_and_are_stored_at_the_end(
    store: Store, cases: list[BuiltCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_CASES", 3)
    monkeypatch.setattr(batches, "MOST_S", float("inf"))
    counts = []
    with EnvironmentBatch(store, "settings", "run-1") as batch:
        for case in cases[:7]:
            batch.add(case)
            counts.append(len(stored(store)))
    assert counts == [0, 0, 3, 3, 3, 6, 6]
    assert stored(store) == [case.report.case_id for case in cases[:7]]


@pytest.mark.parametrize("kind", ["refusal", "paid"])
def test_a_refusal_and_what_was_paid_for_are_stored_at_once(
    kind: str, store: Store, cases: list[BuiltCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_S", float("inf"))
    case = refused(cases[1]) if kind == "refusal" else replace(cases[1], usage=Usage(calls=1))
    with EnvironmentBatch(store, "settings", "run-1") as batch:
        batch.add(cases[0])
        assert stored(store) == []
        batch.add(case)
        assert stored(store) == [cases[0].report.case_id, cases[1].report.case_id]
        assert len(store.open_failures("environment")) == (kind == "refusal")


def test_what_ends_the_run_loses_no_case(
    store: Store, cases: list[BuiltCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_S", float("inf"))

    def interrupted() -> None:
        with EnvironmentBatch(store, "settings", "run-1") as batch:
            batch.add(cases[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stored(store) == [cases[0].report.case_id]


def test_many_cases_are_stored_as_each_alone_would_be(
    store: Store, cases: list[BuiltCase], tmp_path: Path
) -> None:
    """New cases, and cases that were refused or built before, with what they had cost."""
    few = cases[:6]
    earlier = [refused(few[0]), replace(few[1], usage=Usage(calls=2, cost_usd=0.5))]
    with Store(tmp_path / "single.duckdb") as single:
        for case in earlier:
            for each in (store, single):
                each.add_built_cases([case], "earlier", "run-1")
        mixed = [few[0], replace(few[1], usage=Usage(calls=1)), *few[2:5], refused(few[5])]
        for case in mixed:
            single.add_built_cases([case], "settings", "run-2")
        store.add_built_cases(mixed, "settings", "run-2")
        assert contents(store) == contents(single)
    assert store.rows("select calls, cost_usd from cases where calls > 0") == [(3, 0.5)]
    assert [failure.case_id for failure in store.open_failures("environment")] == [
        few[5].report.case_id
    ]


def test_rollouts_of_many_cases_are_stored_as_each_alone_would_be(tmp_path: Path) -> None:
    player_lost = Failure("rollout", "c1", "WorkerLost", "gone", now())
    cases = [
        Played("c0", (trajectory("c0", 0), trajectory("c0", 1)), ()),
        Played("c1", (), (player_lost,)),
        Played("c2", (trajectory("c2", 0),), (), oracle_usage=Usage(calls=2)),
        Played("c1", (trajectory("c1", 0),), ()),
    ]
    tables = []
    for name, batches_of in (("one", [[case] for case in cases]), ("all", [cases[:2], cases[2:]])):
        with Store(tmp_path / name / "trajectories.duckdb") as store:
            for together in batches_of:
                store.add_played("rollout", together, "run-1")
            store.add_played("rollout", cases[:1], "run-2")  # there already: left as it is
            tables.append(
                [
                    store.rows("select * exclude (stored) from trajectories order by all"),
                    store.rows("select * from turns order by all"),
                    store.rows("select case_id, attempt, resolved is null from failures"),
                ]
            )
    assert tables[0] == tables[1]
    assert len(tables[0][0]) == 4
    assert tables[0][2] == [("c1", 1, False)]


class Finished:
    """An engine whose units have all ended when they are asked for; the second lost its engine."""

    def submit(self, unit: Unit) -> "Future[object]":
        future: Future[object] = Future()
        future.set_result(
            EngineLost("Ray", can_go_on=False) if unit.case_id == "1" else unit.case_id
        )
        return future

    @staticmethod
    def result(future: "Future[object]") -> object:
        return future.result()


def test_what_has_ended_comes_together_and_is_not_lost_with_the_engine() -> None:
    def unit_of(case_id: str) -> Unit:
        return Unit("rollouts", case_id, 1.0, unit_of, ())

    engine = cast(Engine, Finished())
    assert list(fan_out(engine, unit_of, "abcde", 3)) == [
        [("a", "a"), ("b", "b"), ("c", "c")],
        [("d", "d"), ("e", "e")],
    ]
    results = fan_out(engine, unit_of, "012", 3)
    assert next(results) == [("0", "0"), ("2", "2")]
    with pytest.raises(EngineLost):
        next(results)
