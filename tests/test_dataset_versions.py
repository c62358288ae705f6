"""Versions of a dataset: written when something has changed, with checksums, and with what changed;
older stores are brought up to date."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

from medaction.evaluation.case_sets import mark_dataset
from medaction.flows.dataset import push, write_dataset
from medaction.flows.repositories import upload
from medaction.flows.settings import DistillSettings
from medaction.trajectories import export
from medaction.trajectories.labels import Label, add_label
from medaction.trajectories.migrations import MIGRATIONS, SCHEMA_VERSION
from medaction.trajectories.store import Store
from medaction.words.errors import MedactionError


@pytest.fixture
def run(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[1], tmp_path / "run", symlinks=True))


def settings_of(store: Store, out: Path) -> DistillSettings:
    return DistillSettings.model_validate_json(store.last_run()[1]).model_copy(update={"out": out})


def records(folder: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(file) for file in sorted(folder.glob("*.parquet")))


def preferences(run: Path) -> pl.DataFrame:
    return pl.read_parquet(run / "dataset" / "preferences" / "dpo-*.parquet")


def test_a_version_has_a_checksum_of_every_file_and_what_it_was_made_with(run: Path):
    manifest = json.loads((run / "dataset" / "manifest.json").read_text())
    there = {
        str(path.relative_to(run / "dataset"))
        for path in (run / "dataset").rglob("*")
        if path.is_file()
    }
    assert set(manifest["files"]) == there - {"manifest.json"}
    for name, checksum in manifest["files"].items():
        assert hashlib.sha256((run / "dataset" / name).read_bytes()).hexdigest() == checksum
    assert manifest["version"] == 1
    assert (
        manifest["records"]
        == len(records(run / "dataset"))
        == sum(row["added"] for row in manifest["changes"])
    )
    assert manifest["settings"]["strategy"] == "dtc_rac"
    assert {"plots/cases.png", "plots/tests.png", "README.md"} <= there


def test_an_unchanged_dataset_stays_the_version_that_it_is(run: Path):
    before = {path: path.stat().st_mtime_ns for path in (run / "datasets").rglob("*")}
    with Store(run / "trajectories.duckdb") as store:
        version = write_dataset(store, settings_of(store, run))
    assert (version.number, version.is_new) == (1, False)
    assert {
        path: path.stat().st_mtime_ns
        for path in (run / "datasets").rglob("*")
        if path != run / "datasets"
    } == {path: time for path, time in before.items() if path != run / "datasets"}


@pytest.mark.parametrize(
    "change",
    [
        "update turns set raw = raw || ' '",
        "update environments set licence = 'CC0-1.0'",
        "update cases set environment_id = null where case_id = (select min(case_id) from cases)",
        "update verdicts set kept_turns = []",
        "update turn_scores set dtc = dtc + 1",
        None,
    ],
)
def test_nothing_is_rendered_where_nothing_has_changed(
    run: Path, change: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_version = "medaction.flows.versions.code_version"
    monkeypatch.setattr(code_version, lambda: "0.1.0-0123456789")
    rendered = []
    write = export._write_records
    monkeypatch.setattr(
        export, "_write_records", lambda *given: (rendered.append(1), write(*given))
    )
    with Store(run / "trajectories.duckdb") as store:
        settings = settings_of(store, run)
        first = write_dataset(store, settings)
        assert len(rendered) == 1, "another program wrote it"
        again = write_dataset(store, settings)
        assert len(rendered) == 1
        assert again == first
        if change:
            store.db.execute(change)
        changed = settings.model_copy(update={"validation_percent": 10 + (not change)})
        write_dataset(store, changed)
        assert len(rendered) == 2
        # Of which code these are nobody knows.
        for version in ("0.1.0", "0.1.0-0123456789+"):
            monkeypatch.setattr(code_version, lambda version=version: version)
            write_dataset(store, changed)
    assert len(rendered) == 4


def test_what_changed_is_told_by_case_and_teacher_and_the_version_before_stays(run: Path):
    before = records(run / "datasets" / "v1")
    with Store(run / "trajectories.duckdb") as store:
        gone, edited = (
            row[0]
            for row in store.rows(
                "select distinct case_id from turn_fates join trajectories using (trajectory_id)"
                " where kept and teacher = 'kg-targeted' order by 1 limit 2"
            )
        )
        (reply,) = store.rows(
            "select trajectory_id, number from turn_fates join trajectories using (trajectory_id)"
            " where kept and case_id = ? and teacher = 'kg-targeted' order by all limit 1",
            [edited],
        )
        store.db.execute(
            "update turns set raw = raw || ' ' where trajectory_id = ? and number = ?", list(reply)
        )
        store.db.execute("update cases set environment_id = null where case_id = ?", [gone])
        version = write_dataset(store, settings_of(store, run))
    assert (version.number, version.is_new) == (2, True)
    lost = before.filter(pl.col("case_id") == gone)
    assert version.sum_of("removed") == len(lost) > 0
    assert version.sum_of("added") == 0
    assert [row for row in version.changes if row["changed"]] == [
        {"case_id": edited, "teacher": "kg-targeted", "added": 0, "removed": 0, "changed": 1}
    ]
    assert (run / "dataset").resolve() == (run / "datasets" / "v2").resolve()
    assert records(run / "datasets" / "v1").equals(before)
    assert len(records(run / "dataset")) == len(before) - len(lost)


def test_what_is_rejected_is_no_reply_and_contamination_stays_noted(run: Path):
    pairs = preferences(run)
    trajectory_id, _, number = pairs["rejected_id"][0].rpartition("-")
    case_id = pairs["case_id"][0]
    with Store(run / "trajectories.duckdb") as store:
        settings = settings_of(store, run)
        store.db.execute(
            "update verdicts set kept_turns = [] where trajectory_id in"
            " (select trajectory_id from trajectories where case_id = ?)",
            [case_id],
        )
        assert write_dataset(store, settings).number == 2, "its turns are no records"
        assert preferences(run).equals(pairs)
        assert mark_dataset(run, "bench.json", ["medaction-01"])
        time = "2026-01-01T00:00:00+00:00"
        add_label(run, Label("turn", case_id, "reject", time, trajectory_id, int(number)))
        version, again = (write_dataset(store, settings) for _ in range(2))
    assert (version.number, version.is_new, version.changes) == (3, True, ())
    assert (again.number, again.is_new) == (3, False)
    left = preferences(run)
    assert 0 < len(left) < len(pairs)
    assert f"{trajectory_id}-{number}" not in {*left["rejected_id"], *left["chosen_id"]}
    manifest = json.loads((run / "dataset" / "manifest.json").read_text())
    assert manifest["contaminated"] == {"bench.json": ["medaction-01"]}


def test_what_is_quarantined_and_was_no_record_leaves_the_preferences(run: Path):
    case_id = preferences(run)["case_id"][0]
    of_case = "where trajectory_id in (select trajectory_id from trajectories where case_id = ?)"
    with Store(run / "trajectories.duckdb") as store:
        for change in ("kept_turns = []", "reason = 'teacher_quarantined'"):
            assert case_id in {*preferences(run)["case_id"]}
            store.db.execute(f"update verdicts set {change} {of_case}", [case_id])
            version = write_dataset(store, settings_of(store, run))
    assert (version.number, version.is_new, version.changes) == (3, True, ())
    assert case_id not in {*preferences(run)["case_id"]}


def test_a_link_of_a_lower_hypothesis_that_changed_makes_other_preferences(run: Path):
    pairs = preferences(run)
    assert "information" in {*pairs["better_by"]}
    with Store(run / "trajectories.duckdb") as store:
        # Whatever does not lead has no DTC: no score and no record changes with it.
        store.db.execute(
            "update links set node = null where kind = 'diagnosis' and \"text\" not in"
            " (select unnest([diagnosis, synonyms[1]]) from environments)"
        )
        version = write_dataset(store, settings_of(store, run))
    assert (version.number, version.is_new, version.changes) == (2, True, ())
    assert not preferences(run).equals(pairs)


def test_a_dataset_from_before_there_were_versions_becomes_one(run: Path):
    (run / "dataset").unlink()
    (run / "datasets" / "v1").rename(run / "dataset")
    with Store(run / "trajectories.duckdb") as store:
        write_dataset(store, settings_of(store, run))
    assert (run / "dataset").is_symlink()
    assert (run / "dataset" / "manifest.json").exists()


def test_the_card_loads_and_its_header_names_what_is_there(run: Path):
    import yaml

    _, header, text = (run / "dataset" / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(header)
    for file in told["configs"][0]["data_files"]:
        assert (run / "dataset" / file["path"]).exists()
    for word in (
        "SFTTrainer",
        "LLaMA-Factory",
        "Axolotl",
        "ms-swift",
        "Licences of the cases",
        "plots/cases.png",
    ):
        assert word in text


def test_a_hub_that_does_not_answer_is_named_and_not_taken_for_prefect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "v1").mkdir()
    with pytest.raises(MedactionError, match=r"a/b could not be written at http://127.0.0.1:9: "):
        push(tmp_path / "v1", "a/b", really=True)


def test_pushing_is_shown_before_it_is_done(run: Path):
    shown = push(run / "dataset", "somebody/something", really=False)
    assert any(line.startswith("train.parquet") for line in shown)
    assert not any(str(run) in line for line in shown)


def test_a_store_of_an_earlier_schema_is_brought_up_to_date_and_kept_beside(run: Path):
    store_file = run / "trajectories.duckdb"
    with duckdb.connect(str(store_file)) as db:  # as version 2 had it
        turns = db.execute("select count(*) from turns").fetchone()
        for view in ("duplicates", "turn_fates", "paths", "current_trajectories"):
            db.execute(f"drop view {view}")
        for table in ("cases", "turns", "failures"):
            db.execute(f"create table old as select * exclude (faults) from {table}")
            db.execute(f"drop table {table}")
            db.execute(f"alter table old rename to {table}")
        db.execute("update meta set value = '2' where key = 'schema_version'")
    with Store(store_file) as store:
        assert store.meta("schema_version") == SCHEMA_VERSION
        assert store.rows("select count(*) from turns where faults = []") == [turns]
        assert store.environments()
    assert set(MIGRATIONS) == {str(number) for number in range(2, int(SCHEMA_VERSION))}
    with duckdb.connect(str(run / "trajectories.schema-2.duckdb"), read_only=True) as db:
        assert db.execute("select value from meta where key = 'schema_version'").fetchone() == (
            "2",
        )
    command = [sys.executable, "-m", "medaction.cli.main", "export", "--out", str(run)]
    assert "unchanged" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_name_that_no_hub_takes_is_one_line(run: Path):
    with pytest.raises(MedactionError, match="could not be written"):
        upload(run / "dataset", "me/-bad-", "dataset", "a version")
