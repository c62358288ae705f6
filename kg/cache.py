"""Folders of things that are slow to build, filled whole or not at all, however many processes
build at once."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Where graphs and indices are kept: $MEDACTION_CACHE/kg or ~/.cache/medaction/kg."""
    return Path(os.environ.get("MEDACTION_CACHE") or "~/.cache/medaction").expanduser() / "kg"


def filled(folder: Path, fill: Callable[[Path], None]) -> Path:
    """`folder`, which `fill` writes (into a draft beside it) if it is not there. Of several
    processes the first one's stands."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(draft)
        os.replace(draft, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder
