"""Where the knowledge-graph clinician keeps what is slow to build, next to the graphs. Built once
per version of data and code."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from medaction.kg.cache import filled
from medaction.kg.open_graphs import cache_folder, sources_hash

HERE = Path(__file__).parent
SOURCES = ("analytes.py", "findings.py", "hypotheses.py", "model.py")


@cache
def version() -> str:
    """Changes with the graphs' data and with the code and tables of this folder that the cached
    arrays are made of."""
    digest = hashlib.sha256(sources_hash().encode())
    for path in [*(HERE / name for name in SOURCES), *sorted((HERE / "data").iterdir())]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def built(name: str, build: Callable[[Path], None]) -> Path:
    """The cached folder `name`, which `build` fills if it is not there."""
    return filled(cache_folder() / f"clinician-{version()}" / name, build)
