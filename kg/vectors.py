"""Vectors of names, and the FAISS index of a graph's names, both kept on disk.

Vectors are kept by name, so that after a change of tables or graphs only new names are encoded; an
index by graph and names.
"""

import json
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medaction.kg.cache import cache_folder, filled
from medaction.kg.encoder import LinkingEncoder
from medaction.words.versions import version_of

if TYPE_CHECKING:
    import faiss

log = logging.getLogger("medaction")

_CHUNK = 2048  # names between two lines of the log; decides no vector


def index_of(graph: str, names: list[str], encoder: LinkingEncoder) -> "faiss.Index":
    """The index of these names, row for row, read from disk if it is there. `graph`: the name under
    which it is kept."""
    import faiss

    key = version_of([encoder.key, names])

    def write(draft: Path) -> None:
        # Exact, so that a link is the same in every run; of unit vectors the product is the cosine.
        index = faiss.IndexFlatIP(encoder.dimension)
        index.add(cached_vectors(names, encoder))
        faiss.write_index(index, str(draft / "names.faiss"))
        (draft / "names.json").write_text(json.dumps(names), encoding="utf-8")

    # The graph's name may be the user's.
    part_of_path = re.sub(r"[^A-Za-z0-9_-]+", "-", graph)[:60]
    folder = filled(cache_folder() / "indices" / f"{part_of_path}-{key}", write)
    return faiss.read_index(str(folder / "names.faiss"))


def cached_vectors(names: list[str], encoder: LinkingEncoder) -> np.ndarray:
    """The names' vectors, float32 (len(names), dimension), row for row. Names not yet in the cache
    are encoded and added to it."""
    path = cache_folder() / f"vectors-{encoder.key}.npz"
    vectors: dict[str, np.ndarray] = {}
    if path.exists():
        with np.load(path) as file:
            vectors = dict(zip(file["names"].tolist(), file["vectors"], strict=True))
    new_names = [name for name in dict.fromkeys(names) if name not in vectors]
    if new_names:
        log.info("encoding %d names for linking (once; kept in %s)", len(new_names), path)
        for start in range(0, len(new_names), _CHUNK):
            # float16 halves the file.
            chunk = new_names[start : start + _CHUNK]
            vectors |= zip(chunk, encoder.names(chunk).astype(np.float16), strict=True)
            log.info("encoded %d of %d names", start + len(chunk), len(new_names))
        _write_vectors(path, vectors)
    # Reshaped, so that no name at all is still a table of two dimensions.
    return np.array([vectors[name] for name in names], dtype=np.float32).reshape(
        -1, encoder.dimension
    )


def _write_vectors(path: Path, vectors: dict[str, np.ndarray]) -> None:
    """Whole or not at all. Of two processes that write at once the later one stands; what the other
    added is encoded again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as draft:
        np.savez(draft, names=np.array(list(vectors)), vectors=np.array(list(vectors.values())))
    os.replace(draft.name, path)
