"""Environments are stored several in a transaction, and what must not wait does not wait."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from medaction.envs.build import build_environment
from medaction.envs.sources import SAMPLES, read_cases
from medaction.llm.usage import Usage
from medaction.trajectories import batch as batches
from medaction.trajectories.batch import EnvironmentBatch
from medaction.trajectories.store import Store
from medaction.trajectories.table_rows import BuiltCase

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
