"""The names of a run's files, for those who only look whether they are there: opening a store takes
DuckDB, which takes a second to import."""

from pathlib import Path

STORE = "trajectories.duckdb"
"""The store: one writer at a time (`trajectories.store`)."""
RESULT = "result.json"
"""The result of an evaluation (`medaction.evaluation.results`)."""
SNAPSHOT = "snapshot.duckdb"
"""A whole copy of it, which anybody may read (`trajectories.snapshot`)."""


def is_run(folder: Path) -> bool:
    """Whether it is the folder of a run, also of one whose store is lost: opening that says what
    brings it back."""
    return any((folder / name).is_file() for name in (STORE, SNAPSHOT))
