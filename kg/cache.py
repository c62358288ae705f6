"""Folders of things that are slow to build, filled whole or not at all, however many processes
build at once."""

import atexit
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger("medaction")


def cache_folder() -> Path:
    """Where graphs and indices are kept: $MEDACTION_CACHE/kg or ~/.cache/medaction/kg; where that
    cannot be made, a temporary folder of this process and of those that it starts."""
    folder = Path(os.environ.get("MEDACTION_CACHE") or "~/.cache/medaction").expanduser() / "kg"
    return _made_or_temporary(folder)


@cache
def _made_or_temporary(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning(
            "%s cannot be made (%s): graphs are built anew for this run alone; MEDACTION_CACHE"
            " names another folder",
            *(folder, error.strerror),
        )
        temporary = Path(tempfile.mkdtemp(prefix="medaction-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        os.environ["MEDACTION_CACHE"] = str(temporary)  # Ray's workers inherit it
        return cache_folder()
    return folder


def cached_json(name: str, key: str, compute: Callable[[], Any]) -> Any:
    """What `compute` returns, as JSON has it: lists for tuples. It is kept under `name` and `key`,
    and computed anew where that file is not there or cannot be read; a cache that cannot be written
    costs only time."""
    file = cache_folder() / f"{name}-{key}.json"
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):  # a file cut short is no JSON
        content = json.dumps(compute())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # The process in its name: two that compute at once do not write into one draft.
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        draft.write_text(content, encoding="utf-8")
        os.replace(draft, file)
    except OSError as error:
        log.info("%s cannot be kept: %s", file, error)
    # The first call, too, returns what a later one reads: lists for tuples.
    return json.loads(content)


def filled(folder: Path, fill: Callable[[Path], None]) -> Path:
    """`folder`, which `fill` writes (into a draft beside it) if it is not there. Of several
    processes the first one's stands."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its goal: a rename is whole or not at all on one file system only.
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(draft)
        os.replace(draft, folder)
    except OSError:
        # A folder that has content cannot be replaced: another process was faster, and its stands.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder
