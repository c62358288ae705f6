"""Reading files that others wrote: bounded in size, and every fault named with its file."""

import json
from pathlib import Path
from typing import Any

from envs.records import BadCase

MAX_BYTES = 64 * 2**20
"""The largest file that is read: MedR-Bench's 957 cases are 16 MB."""


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """The file's text as UTF-8. Raises BadCase('unreadable' | 'too_large' | 'bad_encoding')."""
    try:
        if (size := path.stat().st_size) > limit:
            raise BadCase(
                "too_large", f"{path.name} has {size / 2**20:.0f} MB, at most {limit / 2**20:.0f} are read", path=str(path)
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path.name} is not UTF-8 (byte {error.start}); convert it, e.g. with iconv"
        raise BadCase("bad_encoding", message, path=str(path)) from error
    except OSError as error:
        raise BadCase("unreadable", f"{path.name}: {error.strerror}", path=str(path)) from error


def parse_json(text: str, path: Path, where: str = "") -> Any:
    """The value of JSON text from `path`; `where` names the row. Raises BadCase('bad_json')."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadCase("bad_json", f"{path.name}{where}: {reason}", path=str(path)) from error


def text_at(value: Any, key: str, path: Path, where: str = "") -> str:
    """The string `value[key]`. Raises BadCase('bad_field') naming file, row and field when it is missing or no string."""
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, str):
        raise BadCase("bad_field", f"{path.name}{where}: {key!r} must be a string, not {type(found).__name__}", path=str(path))
    return found


def object_at(value: Any, key: str, path: Path, where: str = "") -> dict[str, Any]:
    """The object `value[key]`. Raises BadCase('bad_field') naming file, row and field when it is missing or no object."""
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise BadCase("bad_field", f"{path.name}{where}: {key!r} must be an object, not {type(found).__name__}", path=str(path))
    return found
