"""Where the knowledge-graph clinician keeps what is slow to build, next to the graphs."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from medaction.kg.cache import filled
from medaction.kg.open_graphs import cache_folder, cache_key
from medaction.words.versions import code_of, constants_of, version_of

BUILDERS = tuple(
    f"medaction.clinicians.graph.{name}" for name in ("analytes", "findings", "hypotheses", "model")
)
DATA = tuple(sorted((Path(__file__).parent / "data").iterdir()))


@cache
def version() -> str:
    """Changes with the graphs' data and with the tables, constants and code that the arrays are
    made of."""
    return version_of([cache_key(), DATA, constants_of(*BUILDERS), code_of(*BUILDERS)])


def built(name: str, build: Callable[[Path], None]) -> Path:
    """The cached folder `name`, which `build` fills if it is not there."""
    return filled(cache_folder() / f"clinician-{version()}" / name, build)
