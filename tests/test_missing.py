"""What a run still has to do is told by its store; what a run has to show decides how it ends."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from medaction.cli.main import medaction
from medaction.clinicians.make import make_clinician
from medaction.envs.build import build_environment
from medaction.envs.oracle import Oracle
from medaction.envs.records import BadCase, CaseReport
from medaction.envs.sources import pmc
from medaction.flows.finish import finish_at_once
from medaction.flows.missing import (
    cases_without_truth,
    check_inputs,
    is_finished,
    left_alone,
    reports_of,
    reports_to_build,
    skips,
    stage_1_hash,
    tree_plan,
    trees_to_play,
)
from medaction.flows.settings import DistillSettings, Retry
from medaction.flows.stages import readable_reports
from medaction.flows.summary import (
    REPORT_QUERIES,
    check_tables,
    notes_of,
    print_checks,
    print_summary,
    table_of_frame,
    trouble_of,
)
from medaction.kg.open_graphs import open_disease_graph
from medaction.trajectories.records import WORKER_LOST, Failure, now
from medaction.trajectories.rollout import play_tree
from medaction.trajectories.scoring import with_link
from medaction.trajectories.store import Store
from medaction.trajectories.table_rows import BuiltCase
from medaction.words.errors import MedactionError
from tests.conftest import SAMPLES
from tests.ncbi_server import Deposit, ncbi_server
from tests.test_envs_pmc import XML
from tests.test_envs_sources import article
from tests.test_envs_sources_lists import package


def settings_of(out: Path, **changes: Any) -> DistillSettings:
    values = {"cases": str(SAMPLES), "out": out, "limit": 1, "rollouts": 1, "launch_points": 0}
    values |= {"teachers": ["kg-targeted"]}
    return DistillSettings.model_validate(values | changes)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one case, built and played without Prefect and Ray."""
    out = tmp_path_factory.mktemp("run")
    settings = settings_of(out)
    [report] = reports_of(settings)
    assert isinstance(report, CaseReport)
    built = with_link(build_environment(report, None, settings.min_tests), False)
    assert built.environment is not None
    clinicians = {teacher.name: make_clinician(teacher) for teacher in settings.teachers}
    oracle = Oracle(built.environment.menu)
    tree = play_tree(built.environment, tree_plan(settings), (), frozenset(), clinicians, oracle)
    result = asyncio.run(tree)
    assert not result.failures
    with Store(out / "trajectories.duckdb") as store:
        store.add_built_cases([BuiltCase(report, built)], stage_1_hash(settings), "run-1")
        store.add_rollouts("rollout", report.case_id, result.trajectories, [], "run-1")
    return out


@pytest.mark.long
def test_a_run_that_lacks_nothing_is_summed_up_without_a_server(played: Path) -> None:
    summary = finish_at_once(settings_of(played))
    assert summary is not None
    assert {row["step"].strip(): row["count"] for row in summary["funnel"]}["cases read"] == 1
    assert (played / "dataset" / "manifest.json").exists()
    assert trouble_of(summary) == ""


@pytest.mark.parametrize(
    "changes", [{"rollouts": 2}, {"limit": 2}, {"min_tests": 2}, {"seed": 1}, {"t_max": 7}]
)
def test_a_run_that_asks_for_more_is_not_finished(played: Path, changes: dict[str, Any]) -> None:
    assert finish_at_once(settings_of(played, **changes)) is None


def test_a_run_that_has_not_begun_is_not_finished(tmp_path: Path) -> None:
    assert finish_at_once(settings_of(tmp_path)) is None
    assert not (tmp_path / "trajectories.duckdb").exists()


def test_what_is_wrong_with_the_inputs_is_an_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_inputs(settings_of(tmp_path))
    with pytest.raises(BadCase, match="there is nothing at"):
        check_inputs(settings_of(tmp_path, cases=str(tmp_path / "no-such-folder")))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(RuntimeError, match="OPENAI_API_KEY is not set"):
        check_inputs(settings_of(tmp_path, teachers=["openai/gpt-5"]))
    lost = {"name": "lost", "model": "local", "gguf": str(tmp_path / "lost.gguf")}
    with pytest.raises(RuntimeError, match="there is no file"):
        check_inputs(settings_of(tmp_path, oracle=lost))


def test_a_limit_holds_for_what_the_store_has_too(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limit=3)
    with Store(tmp_path / "trajectories.duckdb") as store:
        for report in reports_of(settings):
            assert isinstance(report, CaseReport)
            built = with_link(build_environment(report, None, 1), False)
            store.add_built_cases([BuiltCase(report, built)], stage_1_hash(settings), "run-1")
        for changes, ids in (
            ({"limit": 2}, ["medaction-01", "medaction-02"]),
            ({"limit": 1, "only": ["medaction-03", "medaction-02"]}, ["medaction-02"]),
            ({"limit": None}, ["medaction-01", "medaction-02", "medaction-03"]),
        ):
            asked = settings_of(tmp_path, **changes)
            places = trees_to_play(store, asked, tree_plan(asked), {})
            assert [place.case_id for place in places] == ids


def test_a_case_whose_truth_is_no_node_is_played_only_on_demand(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limit=2)
    with Store(tmp_path / "trajectories.duckdb") as store:
        for report, diagnosis in zip(
            reports_of(settings), ("Sarcoidosis", "Gremlins"), strict=True
        ):
            assert isinstance(report, CaseReport)
            built = build_environment(report, None, 1)
            assert built.environment is not None
            world = replace(built.environment, diagnosis=diagnosis, synonyms=())
            built = with_link(replace(built, environment=world), False)
            store.add_built_cases([BuiltCase(report, built)], stage_1_hash(settings), "run-1")
        linked, unlinked = (key.case_id for key in store.environment_keys())

        def to_play(**changes: Any) -> list[str]:
            asked = settings_of(tmp_path, limit=2, **changes)
            left_out = cases_without_truth(store, asked)
            places = trees_to_play(store, asked, tree_plan(asked), {}, left_out)
            return [place.case_id for place in places]

        assert to_play() == [linked]
        assert to_play(only=[unlinked]) == []
        assert is_finished(store, settings_of(tmp_path, limit=2, only=[unlinked]))
        assert to_play(skip_unlinkable=False) == [linked, unlinked]
        assert to_play(strategy="none") == [linked, unlinked]  # nothing is pruned
        links = tmp_path / "links.csv"
        node_id = open_disease_graph().nodes.filter(pl.col("name") == "Sarcoidosis")["node_id"][0]
        links.write_text(f"text,node_id\nGremlins,{node_id}\n")
        assert to_play(links=links) == [linked, unlinked]
        counts = {step.strip(): count for step, count in store.rows(REPORT_QUERIES["Funnel"].sql)}
        assert counts["not played: truth is no node"] == 1
        assert notes_of(store)[0].startswith("Environments that were not played")


def failure(case_id: str, error_class: str, trajectory_id: str | None, stage: str) -> Failure:
    return Failure(stage, case_id, error_class, "message", now(), "teacher", trajectory_id)


def test_a_rerun_plays_what_was_lost_with_its_worker_and_leaves_other_failures(
    tmp_path: Path,
) -> None:
    with Store(tmp_path / "trajectories.duckdb") as store:
        for case_id, error_class, trajectory_id in (
            ("a", "MalformedReply", "t1"),
            ("a", "ModelUnavailable", "t2"),
            ("b", WORKER_LOST, None),
            ("c", "KeyError", None),
        ):
            failures = [failure(case_id, error_class, trajectory_id, "rollout")]
            store.add_rollouts("rollout", case_id, [], failures, "run-1")
        assert skips(store, None) == {"a": frozenset({"t1", "t2"}), "c": None}
        assert skips(store, Retry(cases=["a"])) == {"c": None}
        assert [open_.case_id for open_ in left_alone(store, "rollout", Retry())] == []


def test_a_case_that_was_lost_with_its_worker_is_built_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limit=2)
    lost, refused = reports_of(settings)
    assert isinstance(lost, CaseReport)
    assert isinstance(refused, CaseReport)
    built_with = stage_1_hash(settings)
    with Store(tmp_path / "trajectories.duckdb") as store:
        for report, reason in ((lost, WORKER_LOST), (refused, "no_tests")):
            built = build_environment(report, None, 1)
            refusal = BadCase(reason, "message", report.case_id)
            store.add_built_cases(
                [BuiltCase(report, type(built)(None, refusal))], built_with, "run-1"
            )
        assert list(reports_to_build(store, settings, None)) == [lost]
        assert list(reports_to_build(store, settings, Retry())) == [lost, refused]


def test_a_file_that_was_mended_or_taken_away_is_no_longer_named_as_unread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    for name in ("mended", "gone", "broken"):
        (cases / f"{name}.json").write_text("{")
    settings = settings_of(tmp_path / "run", cases=str(cases), limit=None)
    with Store(tmp_path / "trajectories.duckdb") as store:

        def unread() -> list[str]:
            rows = store.rows("select path from failures where resolved is null order by path")
            return [Path(path).name for (path,) in rows]

        assert list(reports_of_run(store, settings)) == []
        tables = check_tables(store)
        assert [row["open"] for row in tables["failures"]] == [3], "each file counts"
        print_checks(tables)
        assert capsys.readouterr().out.count("bad_json") == 4, "in one table of cases, not in two"
        assert unread() == ["broken.json", "gone.json", "mended.json"]
        text = (SAMPLES / "medaction-01.json").read_text()
        (cases / "mended.json").write_text(text)
        (cases / "gone.json").unlink()
        elsewhere = settings.model_copy(update={"cases": str(SAMPLES)})
        assert len(list(reports_of_run(store, elsewhere))) == 12
        assert len(unread()) == 3
        assert [report.case_id for report in reports_of_run(store, settings)] == ["medaction-01"]
        assert unread() == ["broken.json"]
        (cases / "gone.json").write_text("{")
        assert next(reports_to_build(store, settings, None)).path == str(cases / "gone.json")


def test_a_mended_article_is_known_by_its_package_or_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a path of the file system."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pmc, "INTERVAL_S", 0.0)
    bad = {"PMC1": "<article>", "PMC2": "<article>", "PMC3": "<article>"}
    by_package = settings_of(tmp_path / "run", cases=str(package(tmp_path, bad)), limit=None)
    by_id = by_package.model_copy(update={"cases": "pmc:PMC8,PMC9"})
    with Store(tmp_path / "trajectories.duckdb") as store:

        def unread() -> list[str]:
            rows = store.rows("select path from failures where resolved is null order by path")
            return [path.rpartition("PMC")[2] for (path,) in rows]

        for licence in (None, "CC BY"):
            deposits = {"PMC8": Deposit(XML, licence), "PMC9": Deposit(XML, None)}
            with ncbi_server(deposits) as server:
                monkeypatch.setenv("MEDACTION_NCBI_URL", server.url)
                list(reports_of_run(store, by_id))
            shutil.rmtree(tmp_path / "cache")
            list(reports_of_run(store, by_package))
            if licence is None:
                assert unread() == ["1.xml", "2.xml", "3.xml", "8", "9"]
                package(tmp_path, {"PMC1": article(), "PMC3": "<article>"})
        assert unread() == ["3.xml", "9"]


def reports_of_run(store: Store, settings: DistillSettings) -> Iterator[CaseReport]:
    return readable_reports(store, reports_to_build(store, settings, None), "run-1")


def summary(environments: int, refused: int, trajectories: int, failed: int) -> dict[str, Any]:
    counts = {
        "cases read": environments + refused,
        "  environments": environments,
        "  refused": refused,
        "trajectories played": trajectories,
        "rollouts failed": failed,
        "kept (records of the dataset)": trajectories,
    }
    funnel = [{"step": step, "count": count} for step, count in counts.items()]
    return {"out": "runs/a", "funnel": funnel, "teachers": [], "cost": [], "failures": []}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((0, 12, 0, 0), "every case was refused (12 of 12): `medaction envs check --out runs/a`"),
        ((3, 0, 0, 9), "nothing was played: 9 rollouts failed"),
        ((3, 0, 4, 2), "2 cases were lost with their worker: the same command plays them again"),
        ((3, 1, 5, 2), "2 rollouts failed, the rest is in runs/a; run again what failed"),
    ],
)
def test_a_run_with_nothing_to_show_ends_with_the_reason(
    counts: tuple[int, int, int, int], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error_class = WORKER_LOST if "worker" in message else "MalformedReply"
    failed = {"stage": "rollout", "teacher": None, "error_class": error_class, "open": counts[3]}
    with pytest.raises(MedactionError) as error:
        print_summary(summary(*counts) | {"failures": [failed]})
    assert message in str(error.value)
    assert "In runs/a" not in capsys.readouterr().out


def test_a_run_of_which_nothing_is_kept_ends_with_1_and_can_be_projected(tmp_path: Path) -> None:
    """A trajectory of one turn is discarded (section 3.3)."""
    fields = ("--limit", "1", "--rollouts", "1", "--launch-points", "0", "--t-max", "1", "--json")
    place = ("--cases", str(SAMPLES), "--out", str(tmp_path / "run"), "--teacher", "kg-targeted")
    done = CliRunner().invoke(medaction, ["distill", *place, *fields])
    assert str(done.exception).startswith("nothing was kept of the 1 trajectories played: ")
    assert trouble_of(json.loads(done.stdout), wants_records=False) == ""


def test_a_run_of_which_nothing_failed_says_what_is_there_and_what_comes_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_summary(summary(3, 1, 5, 0))
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines[0] == "Cases not read or refused: 1; why: medaction envs check --out runs/a"
    assert lines[1].startswith("In runs/a: trajectories.duckdb, summary.md")
    assert lines[2] == "Look at it: medaction view --out runs/a"


STORED_SETTINGS = frozenset(
    """
    allow branch_by branches call_cache cases disease_graph encoder engine extractor gold
    idle_turns in_flight launch launch_points limit links loinc2hpo maxo min_tests only
    oracle out pair_branches quarantine rac_threshold rollouts seed skip_unlinkable strategy t_max
    teachers test_graph validation_percent verifier workers wrong_endings
    """.split()  # noqa: SIM905
)
"""Of runs that are stored already. Grows with the settings; a name that goes makes those runs
unreadable, unless a migration takes it out of them."""


def test_every_setting_that_a_stored_run_holds_is_still_known() -> None:
    assert DistillSettings.model_fields.keys() >= STORED_SETTINGS


def test_a_cell_that_is_cut_ends_with_a_sign_that_is_whole() -> None:
    table = table_of_frame(pl.DataFrame({"message": ["x" * 199 + "<b>", "  a | b"]}))
    assert table.splitlines()[2:] == [f"| {'x' * 199}&lt; |", "| &emsp;a \\| b |"]
