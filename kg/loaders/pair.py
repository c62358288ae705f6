"""A table of nodes and a table of edges, each CSV, TSV or parquet: the schema for any other graph
(docs/graphs.md)."""

from array import array
from pathlib import Path

import numpy as np
import polars as pl

from medaction.kg.loaders.files import TableRow, opened
from medaction.kg.loaders.parts import Parts, checked_nodes
from medaction.kg.tables import parts

NODES = ["node_id", "name", "node_type"]
EDGES = ["x", "y"]


def read_pair(nodes: Path, edges: Path) -> Parts:
    """Nodes in the order of the file, and edges. `source` and `synonyms` may be missing. Raises
    BadTable."""
    with opened(nodes, NODES) as table:
        columns = [*NODES, *(name for name in ("source", "synonyms") if name in table.columns)]
        read = table.read(dict.fromkeys(columns, pl.String))
        wanted = {"node_id", "node_type", "name", "source", "synonyms"}
        filled = read.with_columns(pl.lit("").alias(name) for name in wanted - {*columns})
        filled = filled.with_columns(pl.col("name", "source", "synonyms").fill_null(""))
        found = checked_nodes(table, filled.select(sorted(wanted)), "node_id", "name", "node_type")
    names = [(row, name) for row, field in enumerate(found["synonyms"]) for name in parts(field)]
    row_of = found.select("node_id", row=pl.int_range(pl.len(), dtype=pl.Int32))
    ends = array("i")  # grows without being copied
    with opened(edges, EDGES) as table:

        def unknown(row: TableRow) -> str | None:
            lost = [row[name] for name in EDGES if row[name] not in known]
            return f"node {lost[0]!r} is not in {nodes.name}" if lost else None

        # Large batches: each is joined with all nodes anew.
        for batch in table.batches(dict.fromkeys(EDGES, pl.String), size=500_000):
            sides = [
                # A left join in the left's order: the row of every end, null for an unknown id.
                batch.join(
                    row_of, left_on=side, right_on="node_id", how="left", maintain_order="left"
                )["row"]
                for side in EDGES
            ]
            if any(side.has_nulls() for side in sides):
                known = set(found["node_id"])
                raise table.blame(unknown, "an edge names no node of the other file")
            ends.frombytes(np.column_stack(sides).tobytes())
    return Parts(
        found.drop("synonyms"), np.frombuffer(ends, dtype=np.int32).reshape(-1, 2), edges, names
    )
