"""ClinGraph's `ClinGraph_nodes.csv` and `ClinGraph_edges.csv`, both separated by TAB (Johnson et
al. 2024; schema in docs/graphs.md)."""

from array import array
from pathlib import Path

import numpy as np
import polars as pl

from medaction.kg.loaders.files import TableRow, opened
from medaction.kg.loaders.parts import LARGEST_INDEX, Parts, checked_nodes, out_of_range

COLUMNS_OF_NODES = ["node_id", "node_name", "ntype", "node_index"]
COLUMNS_OF_EDGES = ["node_index_x", "node_index_y", "edge_index"]
TYPES_OF_CODES = {
    "ICD10CM": "disease", "ICD9CM": "disease", "PHECODE": "disease", "LNC": "test", "CPT": "test",
    "RXNORM": "drug", "ATC": "drug",
    "SNOMEDCT_US": "concept", "UMLS_CUI": "concept",
}  # fmt: skip
"""Vocabulary -> node type. SNOMED CT and UMLS name diseases, tests and much else alike, so their
nodes are 'concept'."""


def read_clingraph(nodes: Path, edges: Path) -> Parts:
    """Nodes in the order of the file, with their vocabulary as the source, and edges. Raises
    BadTable."""
    with opened(nodes, COLUMNS_OF_NODES, separators="\t") as table:
        kinds = {name: pl.Int32 if name == "node_index" else pl.String for name in COLUMNS_OF_NODES}
        read = table.read(kinds)
        found = checked_nodes(
            table,
            read.select(
                "node_id", node_type=pl.col("ntype").replace(TYPES_OF_CODES),
                name=pl.col("node_name").fill_null(""),
                source="ntype", index="node_index",
            ),
            "node_index", "node_name", "ntype",
        )  # fmt: skip
        low, high = found["index"].min(), found["index"].max()
        if found.height and not 0 <= low <= high < LARGEST_INDEX:  # type: ignore[operator]
            message = f"node_index must number the nodes, from 0 to below {LARGEST_INDEX}"
            raise table.blame(lambda row: out_of_range(row, "node_index"), message)
    index = found["index"].to_numpy()
    # `node_index` need not be the row's number, and may skip some.
    position = np.full(int(index.max(initial=-1)) + 1, -1, dtype=np.int32)
    position[index] = np.arange(found.height)
    ends = array("i")  # grows without being copied
    with opened(edges, COLUMNS_OF_EDGES, separators="\t") as table:

        def unknown(row: TableRow) -> str | None:
            lost = [row[name] for name in COLUMNS_OF_EDGES[:2] if row[name] not in known]
            return f"node {lost[0]!r} is not in {nodes.name}" if lost else None

        for batch in table.batches(dict.fromkeys(COLUMNS_OF_EDGES, pl.Int32)):
            pairs = batch.select(COLUMNS_OF_EDGES[:2]).to_numpy()
            # The last column is there when no row of the batch was cut short.
            whole = not batch.null_count().sum_horizontal().item()
            inside = whole and (not pairs.size or 0 <= pairs.min() <= pairs.max() < len(position))
            # -1 is the number of no node; a row that was cut short has no pair to look up.
            if not inside or (placed := position[pairs]).min(initial=0) < 0:
                known = {str(number) for number in index.tolist()}
                raise table.blame(unknown, "an edge names no node of the other file")
            ends.frombytes(placed.tobytes())
    return Parts(found.drop("index"), np.frombuffer(ends, dtype=np.int32).reshape(-1, 2), edges)
