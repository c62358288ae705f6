"""Whether the files of a run are what was written: a damaged, missing or edited one is named, and
made again from the store or from its copy where that is possible."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from medaction.trajectories.files import RESULT, SNAPSHOT, STORE
from medaction.trajectories.snapshot import open_snapshot
from medaction.trajectories.store import Store, StoreError
from medaction.words.errors import MedactionError, typed
from medaction.words.versions import checksum, json_hash


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of a run that is not what was written. `remedy` says what makes it good again;
    `mended`: that has been done."""

    file: Path
    fact: str
    remedy: str
    mended: bool = False


def checksums(folder: Path) -> dict[str, str]:
    """Path below `folder` -> SHA-256, of every file in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): checksum(path) for path in files}


def checksum_of_manifest(manifest: dict[str, Any]) -> str:
    """SHA-256 of all that it says besides."""
    return json_hash({name: fact for name, fact in manifest.items() if name != "checksum"})


def damage_of_version(folder: Path) -> list[tuple[Path, str]]:
    """The files of a dataset's version that are not what its manifest says, each with the fact;
    empty: it is sound. A file that the manifest does not name is nobody's damage."""
    manifest = folder / "manifest.json"
    try:
        written = json.loads(manifest.read_text(encoding="utf-8"))
        names = dict(written["files"])
        # None stands in those of earlier programs.
        if written.get("checksum") not in (None, checksum_of_manifest(written)):
            return [(manifest, "was changed since it was written")]
    except FileNotFoundError:
        return [(manifest, "is missing")]
    # JSON of another form, or brackets without end: a file that was overwritten may hold anything.
    except (ValueError, KeyError, TypeError, RecursionError):
        return [(manifest, "cannot be read as a manifest")]
    present = checksums(folder)
    return [
        (folder / name, "is missing" if name not in present else "was changed since it was written")
        for name, checksum in names.items()
        if present.get(name) != checksum
    ]


def damage_of_run(out: Path, repair: bool = False) -> Iterator[Damage]:
    """Look at the store, the copy that others read, the dataset's versions and the result of the
    run in `out`. Nothing is changed without `repair`; with it, what is damaged is moved aside,
    never deleted. Raises StoreError when another process has the store or it may not be written."""
    yield from _store_and_copy(out, repair)
    yield from _versions(out, repair)
    yield from _result(out)


def aside(file: Path) -> Path:
    """Move a damaged file or folder to a free name beside it."""
    number = 1
    while (target := file.with_name(f"{file.name}.damaged-{number}")).exists():
        number += 1
    file.rename(target)
    return target


def _store_and_copy(out: Path, repair: bool) -> Iterator[Damage]:
    store, copy = out / STORE, out / SNAPSHOT
    if not store.exists() and not copy.exists():
        return
    # Each is read to its end once: a store may hold many gigabytes.
    fault = _fault_of_store(store) if store.exists() else "is missing"
    fault_of_copy = _fault_of_snapshot(out)
    if not (fault or fault_of_copy):
        sql = "select run_id from runs"
        with closing(open_snapshot(out)) as of_copy, Store(store) as of_store:
            strange = set(of_copy.sql(sql).fetchall()) - set(of_store.rows(sql))
        if strange:
            fault_of_copy = (
                "knows a run that the store does not: one of the two is another folder's"
            )
    if fault and fault_of_copy:
        yield Damage(
            store, fault, "no copy of it can be read: start the run anew in another folder"
        )
    elif fault:
        remedy = f"put {SNAPSHOT}, its last whole copy, in its place"
        if repair:
            # The log, too: DuckDB would play it into the copy, to which it does not belong.
            for damaged in (store, store.with_name(f"{STORE}.wal")):
                if damaged.exists():
                    aside(damaged)
            # By a rename, so that a kill leaves no half copy under the store's name.
            draft = store.with_name(f".{STORE}.building")
            shutil.copyfile(copy, draft)
            os.replace(draft, store)
            remedy += "; a rerun plays what came after it"
        yield Damage(store, fault, remedy, repair)
    if fault_of_copy and copy.exists():
        # Where the store is gone, or can't be opened, an empty one must not take the copy's place.
        mends = repair and not fault
        if mends:
            aside(copy)
            with Store(store) as whole:
                whole.publish()
        yield Damage(copy, fault_of_copy, "write it anew from the store", mends)


def _fault_of_store(file: Path) -> str:
    try:
        with Store(file) as store:
            return _unreadable(store.db)
    except StoreError as error:
        # A run has it open, the disk is full, the file somebody else's: that is no damage.
        if "in use" in str(error) or "cannot be written" in str(error):
            raise
        return str(error.__cause__ or error).partition("\n")[0][:200]
    except duckdb.Error as error:  # it was closed with a block that could not be read
        return str(error).partition("\n")[0][:200]


def _unreadable(db: duckdb.DuckDBPyConnection) -> str:
    """What goes wrong when every value is read; empty: nothing. A file that was cut short opens:
    DuckDB compares the checksum of a block only when it reads it."""
    try:
        for (table,) in db.sql("select table_name from duckdb_tables()").fetchall():
            # Any function that reads every value will do; this one needs no memory.
            db.sql(f'select bit_xor(hash(row)) from "{table}" as row').fetchall()
    except duckdb.Error as error:
        return str(error).partition("\n")[0][:200]
    return ""


def _fault_of_snapshot(out: Path) -> str:
    try:
        with closing(open_snapshot(out)) as db:
            return _unreadable(db)
    except FileNotFoundError:
        return "is missing"
    except MedactionError:
        return "cannot be opened as a copy of the store"


def _versions(out: Path, repair: bool) -> Iterator[Damage]:
    """A version that is damaged is moved aside: `medaction export` writes the newest anew."""
    if (out / "datasets").is_file():
        if repair:
            aside(out / "datasets")
        remedy = f"move it away, then: medaction export --out {typed(out)}"
        yield Damage(out / "datasets", "is no folder of versions", remedy, repair)
    for folder in sorted((out / "datasets").glob("v*")):
        if not folder.name[1:].isdecimal():  # 'v3.damaged-1'
            continue
        damage = (
            [(folder, "is a link to somewhere else")]
            if folder.is_symlink()
            else damage_of_version(folder)
        )
        if damage and repair:
            aside(folder)
        for file, fact in damage:
            remedy = f"write the dataset anew: medaction export --out {typed(out)}"
            yield Damage(file, fact, remedy, repair)
    link = out / "dataset"
    # An earlier dataset, or a folder of the user's: it is not ours to move.
    if link.exists() and not link.is_symlink():
        fact = "is no link to the newest version, but something of its own"
        yield Damage(link, fact, "move it away, then `medaction export`")
    elif link.is_symlink() and not link.exists():
        yield Damage(link, "leads nowhere", f"medaction export --out {typed(out)}")


def _result(out: Path) -> Iterator[Damage]:
    file = out / RESULT
    if not file.exists():
        return
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        remedy = "run `medaction evaluate` again: it is written from the store, without a call"
        yield Damage(file, "is no JSON", remedy)
