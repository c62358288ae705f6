"""Queries that stand in SQL files, by their titles."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Query:
    title: str
    note: str
    sql: str


def read_queries(path: Path) -> dict[str, Query]:
    """The queries of a file. Each begins with a line `-- title: ...`; the comment lines below that
    are its note."""
    queries = {}
    for section in path.read_text(encoding="utf-8").split("-- title: ")[1:]:
        title, *lines = section.strip().removesuffix(";").splitlines()
        note = " ".join(line.removeprefix("-- ") for line in lines if line.startswith("-- "))
        sql = "\n".join(line for line in lines if not line.startswith("-- "))
        queries[title] = Query(title, note, sql)
    return queries
