"""The call cache as a file: many processes at once, one killed in the middle, a damaged one."""

import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medaction.llm.call_cache import CallCache, default_folder, reply_key

WRITER = """
import sys
from pathlib import Path
from medaction.llm.call_cache import CallCache
cache, name, count = CallCache(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for number in range(count):
    cache.put(f"{name}-{number}", {"text": "x" * 2000, "number": number})
    assert cache.get(f"{name}-{number}")["number"] == number
    if number == 50:
        print("under way", flush=True)
"""


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_many_processes_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "calls"
    writers = [writer(folder, f"w{number}", 150) for number in range(6)]
    assert [one.wait(60) for one in writers] == [0] * 6
    cache = CallCache(folder)
    assert all(cache.get(f"w{number}-{place}") for number in range(6) for place in range(150))


def test_a_killed_process_leaves_it_whole(tmp_path: Path) -> None:
    for attempt in range(3):
        one = writer(tmp_path, f"killed{attempt}", 10**6)
        assert one.stdout is not None
        assert one.stdout.readline() == "under way\n"
        time.sleep(0.05 * attempt)
        one.send_signal(signal.SIGKILL)
        one.wait()
        cache = CallCache(tmp_path)
        assert all(cache.get(f"killed{attempt}-{number}") for number in range(50))
        assert cache._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        cache.close()


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    CallCache(tmp_path / "calls")
    assert stat.S_IMODE((tmp_path / "calls").stat().st_mode) == 0o700


def test_a_damaged_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "calls.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(
        RuntimeError,
        match=r"calls\.sqlite cannot be used .* remove it, name another folder in "
        r"MEDACTION_CALL_CACHE",
    ):
        CallCache(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match="cannot be used"):
        CallCache(tmp_path / "file" / "calls")


def test_a_damaged_row_is_a_miss_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = CallCache(tmp_path)
    cache.put("k", {"text": "x"})
    with sqlite3.connect(cache.file) as database:
        database.execute("UPDATE replies SET reply = substr(reply, 1, 5)")
    assert cache.get("k") is None
    assert "cannot be read" in caplog.text


def test_a_reply_is_not_lost_when_it_cannot_be_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = CallCache(tmp_path)
    cache._database.execute("PRAGMA max_page_count = 1")  # a full disk, to SQLite
    for number in range(20):
        cache.put(f"k{number}", {"text": "x" * 10_000})
    [line] = caplog.messages
    assert "not stored" in line


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEDACTION_CALL_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("MEDACTION_CALL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "medaction" / "calls"


def test_a_key_does_not_depend_on_order() -> None:
    request = {"b": 1, "a": [{"role": "user", "content": "é"}]}
    assert reply_key("s", request) == reply_key("s", dict(reversed(request.items())))
    assert reply_key("s", request) != reply_key("t", request)
