"""How others read a run while it is being written: from a snapshot, which the writer publishes
beside the store.

DuckDB gives a file to one process. So the flow alone opens `trajectories.duckdb`, and everybody
else, the viewer, an analyst's `duckdb -readonly`, a backup, reads `snapshot.duckdb`: a whole,
consistent copy, replaced by rename. A reader never waits and never keeps a run from starting; what
it sees is a little old while a run goes on and complete when it has ended.
"""

import logging
import subprocess
import time
from pathlib import Path

import duckdb

from medaction.trajectories.files import SNAPSHOT
from medaction.words.errors import MedactionError, typed

log = logging.getLogger("medaction")

SHARE = 0.05
"""At most this share of a run's time goes into snapshots, so a store of many gigabytes has them
less often."""

SEALED = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "enable_external_access": False,
}
"""How store and snapshot are opened: neither fetches or loads an extension, nor reads or writes
another file, whatever stands in a file from elsewhere or in a query."""

EVERY_S = 15.0
"""At least so long between two snapshots of a run under way."""


class Publisher:
    """Publishes the store's state at `path` while a run writes, in a rhythm that costs at most
    `SHARE` of the time."""

    def __init__(self, db: duckdb.DuckDBPyConnection, path: Path):
        self._db, self._path = db, path
        self._next = time.monotonic() + EVERY_S

    def if_due(self) -> None:
        if time.monotonic() >= self._next:
            self.now()

    def now(self) -> None:
        """Publish, outside of transactions only: DuckDB refuses a checkpoint within one. A copy
        that cannot be written is logged: the run matters more. Raises duckdb.FatalException when
        the store itself cannot."""
        began = time.monotonic()
        try:
            self.copy_to(self._path.with_name(SNAPSHOT))
        # DuckDB takes no further write after it: the run has to end.
        except duckdb.FatalException:
            raise
        except (OSError, duckdb.Error) as error:
            words = "no snapshot of %s could be written, readers see an older one: %s"
            log.warning(words, self._path, error)
        ended = time.monotonic()
        # The slower a copy, the rarer.
        self._next = ended + max(EVERY_S, (ended - began) / SHARE)

    def copy_to(self, path: Path) -> None:
        """A whole copy of the store at `path`, which appears by a rename. Raises OSError when it
        cannot be written."""
        # Everything is in the one file then, none of it in the log beside it.
        self._db.execute("checkpoint")
        building = path.with_name(f".{path.name}.building")
        # By a child: were this process to open and close the file itself, POSIX would take DuckDB's
        # lock on it away.
        command = ["cp", "--reflink=auto", "--", str(self._path), str(building)]
        copied = subprocess.run(command, capture_output=True, text=True)
        if copied.returncode:
            building.unlink(missing_ok=True)
            raise OSError(copied.stderr.strip())
        building.rename(path)


def open_snapshot(out: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the newest snapshot of the run in `out`. Raises FileNotFoundError
    naming the remedy when there is none, and MedactionError when it is no DuckDB file."""
    path = out / SNAPSHOT
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: it is written by a run; start or repeat `medaction distill"
            f" --out {typed(out)} ...`"
        )
    remedy = f"`medaction doctor --out {typed(out)} --repair` writes it anew"
    try:
        db = duckdb.connect(str(path), read_only=True, config=dict(SEALED))
    except duckdb.Error as error:
        line = f"{path} cannot be opened as a DuckDB file: {remedy}"
        raise MedactionError(line) from error
    # The file holds times with a zone, which would be shown in that of the machine.
    db.execute("set timezone = 'UTC'")
    if not holds_runs(db):
        db.close()
        raise MedactionError(f"{path} is a database of something else: {remedy}")
    return db


def holds_runs(db: duckdb.DuckDBPyConnection) -> bool:
    """Whether a database is a store or its copy, and not something else's."""
    tables = {name for (name,) in db.sql("select table_name from duckdb_tables()").fetchall()}
    return {"meta", "runs"} <= tables
