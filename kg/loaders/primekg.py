"""PrimeKG's `kg.csv`: one row an edge, with both nodes written out (Chandak et al. 2023; schema in
docs/graphs.md)."""

from array import array
from pathlib import Path

import numpy as np
import polars as pl

from medaction.kg.loaders.files import Table, TableRow, opened
from medaction.kg.loaders.parts import LARGEST_INDEX, Parts, out_of_range

PRIMEKG_COLUMNS = [
    f"{side}_{column}" for side in "xy" for column in ("index", "id", "type", "name", "source")
]
_KINDS = {name: pl.Int32 if name.endswith("index") else pl.String for name in PRIMEKG_COLUMNS}
RENAMED_TYPES = {"effect/phenotype": "phenotype"}


def read_primekg(path: Path) -> Parts:
    """Nodes in the order of their index, and edges. Raises BadTable.

    One pass: of each batch only the nodes that were not met before are kept, and the edges as pairs
    of indices. A node whose name or type differs between rows is refused.
    """
    with opened(path, PRIMEKG_COLUMNS, separators=",") as table:
        seen = np.zeros(0, dtype=np.uint64)
        nodes: list[pl.DataFrame] = []
        edges = array("i")  # grows without being copied
        for batch in table.batches(_KINDS):
            # The last column is there when no row of the batch was cut short.
            if batch.select("x_index", "y_index", "y_source").null_count().sum_horizontal().item():
                raise table.blame(_missing, "x_index, y_index or y_source is missing")
            pairs = batch.select("x_index", "y_index").to_numpy()
            low, high = (int(pairs.min()), int(pairs.max())) if pairs.size else (0, 0)
            if low < 0 or high >= LARGEST_INDEX:
                raise table.blame(
                    lambda row: out_of_range(row, "x_index", "y_index"),
                    f"x_index and y_index must number the nodes, from 0 to below {LARGEST_INDEX}",
                )
            if high >= len(seen):
                # At least doubled: few copies, whatever the order of the indices.
                seen = np.concatenate(
                    [seen, np.zeros(max(high + 1, 2 * len(seen)) - len(seen), dtype=np.uint64)]
                )
            edges.frombytes(pairs.tobytes())
            for side in "xy":
                nodes.append(_fresh(table, batch, side, seen))
        found = (
            pl.concat(nodes).sort("index") if nodes else pl.DataFrame(schema={"index": pl.Int32})
        )
        position = np.full(len(seen), -1, dtype=np.int32)
        position[found["index"].to_numpy()] = np.arange(found.height)
        ends = np.frombuffer(edges, dtype=np.int32).reshape(-1, 2)
        # In place: a second array of 8 million edges would double the peak.
        for column in ends.T:
            column[:] = position[column]
        return Parts(found.drop("index"), ends, path)


def _fresh(table: Table, batch: pl.DataFrame, side: str, seen: np.ndarray) -> pl.DataFrame:
    """The nodes on one side of the batch that `seen` (index -> hash of name and type, 0: not met)
    lacks; they are noted there."""
    named = batch.select(
        index=f"{side}_index", node_id=f"{side}_id",
        node_type=pl.col(f"{side}_type").replace(RENAMED_TYPES),
        name=pl.col(f"{side}_name").fill_null(""), source=pl.col(f"{side}_source").fill_null(""),
    )  # fmt: skip
    index = named["index"].to_numpy()
    # Two seeds, since equal hashes of name and type would cancel out; never 0, which is 'not met'.
    hashes = (named["name"].hash(1) ^ named["node_type"].hash(2)).to_numpy() | np.uint64(1)
    unmet = seen[index] == 0
    seen[index[unmet]] = hashes[unmet]
    # Of a node's rows within one batch the last was noted: any other one differs from it here.
    if not np.array_equal(seen[index], hashes):
        raise table.blame(_Names(), "a node has two names or types")
    return named.filter(pl.Series(unmet)).unique("index", keep="first", maintain_order=True)


class _Names:
    """Which row gives a node another name or type than an earlier row did."""

    def __init__(self) -> None:
        self.known: dict[str | None, tuple[str | None, str | None]] = {}

    def __call__(self, row: TableRow) -> str | None:
        for side in "xy":
            index, named = row[f"{side}_index"], (row[f"{side}_name"], row[f"{side}_type"])
            before = self.known.setdefault(index, named)
            if before != named:
                return (
                    f"node {index} is {named[0]!r} ({named[1]}) here"
                    f" and {before[0]!r} ({before[1]}) before"
                )
        return None


def _missing(row: TableRow) -> str | None:
    empty = [name for name in ("x_index", "y_index", "y_source") if not row[name]]
    return f"{', '.join(empty)} is empty" if empty else None
