"""Every file that a run leaves, damaged, missing or edited: noticed, named, made good, never a
traceback. On what a run wrote."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest
from click.testing import CliRunner

from medaction.cli.main import medaction
from medaction.flows.dataset import write_dataset
from medaction.flows.settings import DistillSettings
from medaction.trajectories import damage
from medaction.trajectories.damage import damage_of_run
from medaction.trajectories.store import Store, StoreError
from tests.conftest import SAMPLES


@pytest.fixture
def run(run_here: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_here, tmp_path / "run", symlinks=True))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    for place in (*range(64), *range(middle, min(middle + 64, len(content)))):
        content[place] ^= 0xA5
    file.write_bytes(content)


def edit(file: Path) -> None:
    """As somebody would who mends a word by hand."""
    file.write_bytes(file.read_bytes().replace(b"a", b"e", 1))


def remove(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def replace_by_something_else(file: Path) -> None:
    file.unlink()
    with duckdb.connect(str(file)) as db:
        db.execute("create table shop (name varchar)")


def replace_by_another_run_s(file: Path) -> None:
    other = file.parent / "other"
    with Store(other / "trajectories.duckdb") as store, store.run("distill", "{}", None, {}):
        pass
    shutil.copy(other / file.name, file)


def link_elsewhere(folder: Path) -> None:
    folder.rename(folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("mine")


FILES = [
    *(
        (f"datasets/v1/{name}", harm)
        for name in ("train.parquet", "train.jsonl", "README.md", "manifest.json")
        for harm in (truncate, garble, remove)
    ),
    *((f"datasets/v1/{name}", edit) for name in ("train.jsonl", "manifest.json")),
    ("datasets/v1", link_elsewhere),
    ("datasets", replace_by_a_file),
    ("snapshot.duckdb", truncate),
    ("snapshot.duckdb", garble),
    ("trajectories.duckdb", truncate),
    ("trajectories.duckdb", garble),
    ("trajectories.duckdb", remove),
    *((name, replace_by_something_else) for name in ("snapshot.duckdb", "trajectories.duckdb")),
    ("snapshot.duckdb", replace_by_another_run_s),
    ("trajectories.duckdb", empty),
    *(("summary.md", harm) for harm in (truncate, garble, edit, remove, empty)),
]


def doctor(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(medaction, ["doctor", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output.replace("\n", "")


def export(run: Path) -> None:
    with Store(run / "trajectories.duckdb") as store:
        settings = DistillSettings.model_validate_json(store.last_run()[1])
        write_dataset(store, settings.model_copy(update={"out": run}))


def records(run: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(file) for file in (run / "dataset").glob("*.parquet"))


def test_a_sound_run_is_in_order(run: Path) -> None:
    assert doctor("--out", run)[0] == 0
    assert list(damage_of_run(run, repair=True)) == []


@pytest.mark.long
@pytest.mark.parametrize(("name", "harm"), FILES, ids=lambda part: getattr(part, "__name__", part))
def test_damage_is_named_and_made_good(
    run: Path, run_here: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(run / name)
    status, words = doctor("--out", run)
    assert status == 1
    assert Path(name).name in words.replace(" ", "")
    doctor("--out", run, "--repair")
    export(run)
    assert doctor("--out", run)[0] == 0
    assert records(run).equals(records(run_here))


def test_a_summary_is_looked_at_where_its_checksum_was_noted(run: Path) -> None:
    """Not by earlier programs, nor by a run that was killed before it."""
    (run / "summary.md").unlink()
    with Store(run / "trajectories.duckdb") as store, store.transaction():
        store.db.execute("delete from meta where key = 'summary.md'")
    assert doctor("--out", run)[0] == 0
    checks = ["envs", "build", "--cases", str(SAMPLES), "--out", str(run), "--limit", "1"]
    CliRunner().invoke(medaction, checks, catch_exceptions=False)
    edit(run / "checks.md")
    status, words = doctor("--out", run)
    assert status == 1
    assert "checks.md" in words
    assert "summary.md" not in words
    doctor("--out", run, "--repair")
    assert doctor("--out", run)[0] == 0


@pytest.mark.parametrize("harm", [remove, empty, replace_by_something_else])
def test_no_new_store_takes_the_place_of_a_lost_one(
    run: Path, harm: Callable[[Path], None]
) -> None:
    """At its end it would replace the copy too, with all that was played."""
    copy = (run / "snapshot.duckdb").read_bytes()
    harm(run / "trajectories.duckdb")
    with pytest.raises(StoreError, match="--repair"):
        export(run)
    for command in (["retry"], ["export"], ["envs", "check"]):
        done = CliRunner().invoke(medaction, [*command, "--out", str(run)])
        assert "--repair" in str(done.exception)
    assert (run / "snapshot.duckdb").read_bytes() == copy


def test_a_block_that_cannot_be_read_is_named_by_whoever_reads_it(run: Path) -> None:
    """The store opens: DuckDB compares a block's checksum when it reads the block."""
    file, named = run / "trajectories.duckdb", 0
    whole = file.read_bytes()
    for block in range(3 * 4096, len(whole), 2**18):  # behind DuckDB's three heads
        file.write_bytes(whole[: block + 100] + b"\xa5" * 8 + whole[block + 108 :])
        try:
            store = Store(file)
        except StoreError:
            continue
        try:
            with store:
                for table in ("cases", "environments", "trajectories", "turns"):
                    store.rows(f"select sum(hash(row)) from {table} as row")
        except StoreError as error:
            named += "--repair" in str(error)
    assert named > 0


def test_a_store_that_may_not_be_written_is_no_damage(run: Path) -> None:
    """A file of somebody else's, or a full disk: an older copy was put in a sound store's place."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0));"
        " from medaction.cli.main import main; main(['doctor', '--out', sys.argv[1], '--repair'])"
    )
    command = [sys.executable, "-c", script, str(run)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, "cannot be written" in done.stderr) == (1, True)
    assert not [*run.glob("*.damaged-*")]


def test_a_store_of_another_run_is_named(run: Path) -> None:
    replace_by_another_run_s(run / "trajectories.duckdb")
    status, words = doctor("--out", run)
    assert (status, "another folder's" in words) == (1, True)


def test_a_damaged_version_is_kept_aside_and_the_dataset_written_anew(run: Path) -> None:
    truncate(run / "datasets" / "v1" / "train.parquet")
    export(run)
    assert json.loads((run / "dataset" / "manifest.json").read_text())["version"] == 2
    assert (run / "datasets" / "v1").exists()


def test_a_folder_in_place_of_the_link_is_left_alone(run: Path) -> None:
    (run / "dataset").unlink()
    (run / "dataset").mkdir()
    (run / "dataset" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="move it away"):
        export(run)
    assert (run / "dataset" / "notes.txt").read_text() == "mine"
    status, words = doctor("--out", run)
    assert (status, "move it away" in words) == (1, True)


@pytest.mark.parametrize("begin", [0, 60, 5000])
def test_a_damaged_log_is_left_out_or_named(run: Path, begin: int) -> None:
    """DuckDB leaves a log out whose head it cannot read, as one that a kill cut short; what stood
    in it is played again."""
    killed = (
        "import duckdb, os, sys; db = duckdb.connect(sys.argv[1]);"
        " [db.execute('insert into meta values (?, ?)', [f'k{n}', 'v' * 500]) for n in range(99)];"
        " os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", killed, str(run / "trajectories.duckdb")], check=False)
    log = run / "trajectories.duckdb.wal"
    content = bytearray(log.read_bytes())
    content[begin : begin + 40] = b"\xa5" * 40
    log.write_bytes(content)
    try:
        with Store(run / "trajectories.duckdb") as store:
            fault, turns = "", store.rows("select count(*) from turns")[0][0]
    except StoreError as error:
        fault, turns = str(error), 0
    assert turns or "snapshot.duckdb" in fault
    doctor("--out", run, "--repair")
    assert doctor("--out", run)[0] == 0


@pytest.mark.parametrize("name", ["snapshot.duckdb", "trajectories.duckdb"])
def test_store_and_copy_are_read_once_each(
    run: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    for reader in (damage._fault_of_store, damage._fault_of_snapshot):
        monkeypatch.setattr(
            damage, reader.__name__, lambda path, reader=reader: read.append(reader) or reader(path)
        )
    garble(run / name)
    assert [item.mended for item in damage_of_run(run, repair=True)] == [True]
    assert len(read) == 2


def test_repair_needs_a_run() -> None:
    status, words = doctor("--repair")
    assert (status, "--out" in words) == (2, True)


def test_a_damaged_copy_stays_where_no_store_could_write_it_anew(run: Path) -> None:
    (run / "trajectories.duckdb").unlink()
    garble(run / "snapshot.duckdb")
    for _ in range(2):
        assert doctor("--out", run, "--repair")[0] == 1
    assert not (run / "trajectories.duckdb").exists(), "an empty store would hide the loss"
    assert (run / "snapshot.duckdb").exists()
    (run / "trajectories.duckdb").write_bytes(b"no database" * 1000)
    assert doctor("--out", run, "--repair")[0] == 1


def test_a_garbled_store_without_a_copy_is_named(run: Path) -> None:
    (run / "snapshot.duckdb").unlink()
    (run / "trajectories.duckdb").write_bytes(b"no database" * 1000)
    assert "trajectories.duckdb" in doctor("--out", run)[1].replace(" ", "")
