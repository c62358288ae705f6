"""Replies kept on disk, so that a run that is repeated or was killed pays for no call twice.

One SQLite file a machine, in write-ahead mode: many processes read and write it at once, and one
that is killed leaves it whole. (diskcache with JSON values is as safe and takes twice the CPU time:
docs/rollouts.md.) The folder must be on a local disk: SQLite's write-ahead log does not work over
network file systems.

What is stored is what came back, never the prompt (only its hash) and no key. The folder is
readable by its owner alone.
"""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from medaction.words.errors import MedactionError
from medaction.words.versions import json_hash

log = logging.getLogger("medaction")

CacheMode = Literal["on", "off", "read", "refresh"]
"""on: read and store. off: neither. read: what is not there is asked and not stored. refresh: all
is asked anew and stored."""

# Part of every key: a new number makes all replies stored so far unread.
_VERSION = 1
# Another process may be writing its checkpoint to a slow disk.
_LOCKED_FOR_S = 30


def default_folder() -> Path:
    """MEDACTION_CALL_CACHE, or medaction/calls in the user's cache folder (XDG)."""
    if folder_name := os.environ.get("MEDACTION_CALL_CACHE"):
        return Path(folder_name).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medaction" / "calls"


def reply_key(server: str, request: dict[str, Any]) -> str:
    """The hash of everything that a reply depends on: where it comes from, and the whole request
    with messages, sampling, seed and response format."""
    return json_hash([_VERSION, server, request])


class CallCache:
    """Replies by key, as JSON objects. Raises MedactionError with the remedy when the folder cannot
    be used.

    Trouble that comes later (a full disk, say) is logged and costs no reply: what was paid for is
    not lost for want of a copy.
    """

    def __init__(self, folder: Path):
        self.file = folder / "calls.sqlite"
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = self._open()
        except (OSError, sqlite3.Error) as error:
            raise MedactionError(
                f"the call cache {self.file} cannot be used ({error}): remove it, name another "
                "folder in MEDACTION_CALL_CACHE,"
                " or switch the cache off"
            ) from error

    def _open(self) -> sqlite3.Connection:
        deadline = time.monotonic() + _LOCKED_FOR_S
        while True:
            # Every statement commits by itself; one connection serves all threads, by the lock.
            database = sqlite3.connect(
                self.file, timeout=_LOCKED_FOR_S, isolation_level=None, check_same_thread=False
            )
            try:
                database.execute("PRAGMA journal_mode=WAL")
                # A power cut may lose the last replies, which are then asked for again; never the
                # file.
                database.execute("PRAGMA synchronous=NORMAL")
                database.execute(
                    "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, stored REAL, "
                    "reply TEXT)"
                )
                # A checkpoint writes to the disk while the calls wait: not every 1,000 pages.
                database.execute("PRAGMA wal_autocheckpoint=10000")
            except sqlite3.OperationalError as error:
                # The switch to write-ahead mode does not wait for other processes that are opening
                # the file.
                database.close()
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            except sqlite3.Error:
                database.close()
                raise
            else:
                return database

    def get(self, key: str) -> dict[str, Any] | None:
        try:
            question = "SELECT reply FROM replies WHERE key = ?"
            with self._lock, closing(self._database.execute(question, [key])) as cursor:
                row = cursor.fetchone()
            return json.loads(row[0]) if row else None
        except (sqlite3.Error, ValueError) as error:
            self._warn("a reply cannot be read and is asked for anew", error)
            return None

    def put(self, key: str, reply: dict[str, Any]) -> None:
        self._write(
            # 'refresh' stores a reply anew below a key that is there.
            "INSERT OR REPLACE INTO replies VALUES (?, ?, ?)",
            [(key, time.time(), json.dumps(reply))],
        )

    def forget(self, keys: Iterable[str]) -> None:
        self._write("DELETE FROM replies WHERE key = ?", [(key,) for key in keys])

    def _write(self, statement: str, rows: list[tuple]) -> None:
        try:
            with self._lock:
                for row in rows:
                    self._database.execute(statement, row)
        except sqlite3.Error as error:
            self._warn("replies are not stored", error)

    def _warn(self, trouble: str, error: Exception) -> None:
        """Once: a full disk fails at every reply."""
        if trouble not in self._warned:
            self._warned.add(trouble)
            log.warning("call cache %s: %s: %s", self.file, trouble, error)

    def close(self) -> None:
        with self._lock:
            self._database.close()
