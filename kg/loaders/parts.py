"""What every loader reads a file into."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from medaction.kg.loaders.files import Table, TableRow

LARGEST_INDEX = 50_000_000  # PrimeKG numbers about 130,000 nodes; more is no number of a row


def out_of_range(row: TableRow, *columns: str) -> str | None:
    """What is wrong with a row whose numbers of nodes are none: a fault for `Table.blame`."""
    for name in columns:
        number = row[name] or ""
        if not number.isdecimal() or int(number) >= LARGEST_INDEX:
            return f"{name} {row[name]!r} is no number from 0 to below {LARGEST_INDEX}"
    return None


@dataclass(frozen=True, slots=True)
class Parts:
    """A graph as it was read.

    nodes: columns node_id, node_type, name, source. edges: shape (m, 2), rows of `nodes`, in any
    order and direction, repeats and self-loops among them. path: the file that an error about the
    whole names. names: (row of `nodes`, another name).
    """

    nodes: pl.DataFrame
    edges: np.ndarray
    path: Path
    names: list[tuple[int, str]] = field(default_factory=list)


def checked_nodes(
    table: Table, nodes: pl.DataFrame, key: str, name: str, kind: str
) -> pl.DataFrame:
    """The nodes of a file of nodes, without those that are written twice alike.

    `key`, `name` and `kind` are the file's columns of identity, name and type. Raises BadTable for
    a node without a key or a type, and for a key that comes again with anything else.
    """
    # A node that is written twice alike is one node; only a second meaning is a contradiction.
    found = nodes.unique(maintain_order=True)
    # ClinGraph's edges name nodes by an index of their own.
    index = "index" if "index" in nodes.columns else "node_id"
    if (
        not found[index].is_duplicated().any()
        and not found.select(index, "node_type").null_count().sum_horizontal().item()
    ):
        return found
    # Only a wrong file is read again, row by row, for the line to name.
    known: dict[str | None, TableRow] = {}

    def wrong(row: TableRow) -> str | None:
        if not row[key] or not row[kind]:
            return f"{key} or {kind} is empty"
        before = known.setdefault(row[key], row)
        if dict(before) == dict(row):
            return None
        return (
            f"{key} {row[key]!r} is {row[name]!r} ({row[kind]}) here"
            f" and {before[name]!r} ({before[kind]}) before"
        )

    raise table.blame(wrong, f"{key} is empty or not unique")
