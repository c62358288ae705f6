"""Reading files that others wrote: bounded in size, and every fault named with its file."""

import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from medaction.envs.records import BadCase, Loss, sample_of
from medaction.words.html_text import without_html

MAX_BYTES = 20 * 2**20
"""The largest file that is read whole: MedR-Bench's 957 cases are 16 MB."""

MAX_LINE_BYTES = 2**20
"""The longest line of a file that is read line by line; AgentClinic's longest case has 8 kB."""

MAX_JSON_PARTS = 1_500_000
"""Bound on brackets and commas in one JSON text: each may become an object of a hundred bytes.
MedR-Bench has 0.2 million."""

MAX_ROW_PARTS = 100_000
"""The same in one line of JSON Lines, of which several are read to know their form: our choice. A
case of MedR-Bench has 735 at most."""


_NO_TEXT = {
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive, as .docx and .odt are",
    b"\xd0\xcf\x11\xe0": "an old Word file",
    b"{\\rtf": "RTF",
}
"""The first bytes of files that people take for text."""


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a plain file of at most `limit` bytes; a pipe or device is never opened.

    Raises BadCase('unreadable' | 'too_large').
    """
    try:
        size = _plain_size(path)
        if size > limit:
            sizes = f"{size / 2**20:.0f} MB, at most {limit / 2**20:.0f} are read"
            raise BadCase("too_large", f"{path.name} has {sizes}; split it", path=str(path))
        with path.open("rb") as file:
            return file.read(limit)  # a file that grows meanwhile is cut, never read on
    except OSError as error:
        raise BadCase("unreadable", f"{path.name}: {error.strerror}", path=str(path)) from error


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """The file's text as UTF-8, line ends as '\\n'. Raises BadCase('unreadable' | 'too_large' |
    'bad_encoding')."""
    text = _decoded(read_bytes(path, limit), path)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, limit: int = MAX_LINE_BYTES) -> Iterator[tuple[int, str | BadCase]]:
    """Number from 1 and UTF-8 text of each line that is not blank, with its line end; one line is
    in memory at a time.

    A line over `limit` bytes ('too_large') or one that is no text ('bad_encoding') comes as BadCase
    and the others go on. Raises BadCase('unreadable').
    """
    try:
        _plain_size(path)
        with path.open("rb") as file:
            number = 0
            # One byte over the limit tells a longest line from one that is too long.
            while data := file.readline(limit + 1):
                number += 1
                place = f" line {number}"
                try:
                    if len(data) > limit:
                        # Read away in small pieces, so that the next line begins where it does.
                        while data and not data.endswith(b"\n"):
                            data = file.readline(2**16)
                        message = f"{path.name}{place} has more than {limit / 2**20:.0f} MB"
                        raise BadCase("too_large", message, path=str(path))
                    if (text := _decoded(data, path, place)).strip():
                        yield number, text
                except BadCase as bad:
                    yield number, bad
    except OSError as error:
        raise BadCase("unreadable", f"{path.name}: {error.strerror}", path=str(path)) from error


def read_rows(path: Path) -> Iterator[tuple[int, Any | BadCase]]:
    """Number from 1 and value of each line of JSON Lines; a bad line comes as BadCase and the
    others go on.

    Raises BadCase('unreadable').
    """
    for number, line in read_lines(path):
        try:
            if isinstance(line, BadCase):
                raise line
            yield number, parse_json(line, path, f" line {number}", MAX_ROW_PARTS)
        except BadCase as bad:
            yield number, bad


def _plain_size(path: Path) -> int:
    """Bytes of a plain file; a pipe or device would hold the reader up. Raises
    BadCase('unreadable'), OSError."""
    # `stat` does not open: opening a pipe would wait for its writer.
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadCase("unreadable", f"{path.name} is no plain file", path=str(path))
    return status.st_size


def _decoded(data: bytes, path: Path, place: str = "") -> str:
    for beginning, form in _NO_TEXT.items():
        if not place and data.startswith(beginning):
            message = f"{path.name} is {form}, whatever its name says; export it as plain text"
            raise BadCase("unknown_format", message, path=str(path))
    try:
        # 'utf-8-sig': Windows' editors put a mark before the text.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        fault = f"is not UTF-8 (byte {error.start}); convert it, e.g. with iconv"
        raise BadCase("bad_encoding", f"{path.name}{place} {fault}", path=str(path)) from error
    # NUL is valid UTF-8; UTF-16 that is read as such is full of it.
    if "\0" in text:
        fault = "holds NUL bytes: no text, or UTF-16; convert it"
        raise BadCase("bad_encoding", f"{path.name}{place} {fault}", path=str(path))
    return text


def parse_json(text: str, path: Path, place: str = "", limit: int = MAX_JSON_PARTS) -> Any:
    """The value of JSON text from `path`, its strings without HTML; `place` names the row.

    Raises BadCase('bad_json' | 'too_large').
    """
    # Before parsing: afterwards the memory is used.
    if sum(map(text.count, ",[{")) > limit:
        message = f"{path.name}{place}: more than {limit:,} values; split it"
        raise BadCase("too_large", message, path=str(path))
    try:
        value = json.loads(text)
        # Only where a sign of HTML stands in the file: most files have none.
        if re.search(r"[<&]|\\u00(?:3[cC]|26)", text):
            value = _without_html(value)
        # Half a surrogate pair or a NUL passes the parser and breaks whoever writes the text later.
        if re.search(r"\\u(?:[dD][89a-fA-F]|0000)", text):
            canonical = json.dumps(value, ensure_ascii=False)
            canonical.encode()
            if re.search(r"(?<!\\)(?:\\\\)*\\u0000", canonical):
                raise ValueError("a string holds a NUL character")
    except (ValueError, RecursionError) as error:
        # A hundred thousand brackets end Python's parser, not the file's syntax.
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:300]
        raise BadCase("bad_json", f"{path.name}{place}: {reason}", path=str(path)) from error
    return value


def _without_html(value: Any) -> Any:
    """The value with the text of its strings: exports of web forms hold '&lt;' and '<br>'."""
    if isinstance(value, str):
        return without_html(value, keeps_lines="\n" in value)
    if isinstance(value, list):
        return [_without_html(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_html(item) for key, item in value.items()}
    return value


def inside(file: Path, folder: Path) -> bool:
    """Whether `file`, links followed, is in `folder` or below: a link in a folder of cases must not
    lead out of it."""
    # realpath takes a loop of links as it is, where resolve() raises.
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))


def bad_field(path: Path, place: str, message: str) -> BadCase:
    """The refusal of a row for one of its fields; `place` names the row in its file."""
    return BadCase("bad_field", f"{path.name}{place}: {message}", path=str(path))


def text_at(value: Any, key: str, path: Path, place: str = "") -> str:
    """The string `value[key]`. Raises BadCase('bad_field') naming file, row and field when it is
    missing or no string."""
    entry = value.get(key) if isinstance(value, dict) else None
    if not isinstance(entry, str):
        raise bad_field(path, place, f"{key!r} must be a string, not {type(entry).__name__}")
    return entry


def object_at(value: Any, key: str, path: Path, place: str = "") -> dict[str, Any]:
    """The object `value[key]`. Raises BadCase('bad_field') naming file, row and field when it is
    missing or no object."""
    entry = value.get(key) if isinstance(value, dict) else None
    if not isinstance(entry, dict):
        raise bad_field(path, place, f"{key!r} must be an object, not {type(entry).__name__}")
    return entry


def unread_fields(
    row: Mapping[str, Any], read: Collection[str], place: str = ""
) -> tuple[Loss, ...]:
    """What a row holds beside the fields that its source reads: a loss each, empty fields none.

    `place` names the object inside the case. What is lost is counted (design: loss has a ledger).
    """
    return tuple(
        Loss("field", 1, f"{f'{place}.' if place else ''}{key}: not read", sample_of(value))
        for key, value in row.items()
        if key not in read and value not in (None, "", [], {})
    )
