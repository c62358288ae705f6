"""Graphs of PrimeKG's and ClinGraph's size with heavy-tailed degrees, generated: nothing in them
means anything.

Node and row counts by type and relation are those that the graphs' authors publish; who is joined
to whom is drawn at random, each end by a power law, so that hubs are as frequent as in such graphs.
Files are in the official schemas.
"""

from pathlib import Path

import numpy as np
import polars as pl

GRAPH_SIZES = pl.read_csv(Path(__file__).with_suffix(".csv"))
"""Nodes by their type, and rows by their relation and the types that they join; nodes have no
relation."""
_NODES, _ROWS = GRAPH_SIZES.filter(pl.col("relation").is_null()), GRAPH_SIZES.drop_nulls("relation")
_WORDS = (
    "acute", "chronic", "hereditary", "renal", "cardiac", "hepatic", "type", "deficiency",
    "syndrome", "disorder", "response",
    "pathway", "of", "the",
)  # fmt: skip


def write_primekg(path: Path, seed: int = 0, share: float = 1.0) -> int:
    """Write a `kg.csv` (comma, each edge in both directions) with this share of the relations'
    rows; returns how many rows."""
    rng = np.random.default_rng(seed)
    nodes = _nodes("PrimeKG", rng)
    parts = []
    for _, relation, left, right, rows in _ROWS.filter(graph="PrimeKG").iter_rows():
        x, y = _pairs(nodes, left, right, round(rows * share / 2), rng).T
        both = {"x_index": np.concatenate([x, y]), "y_index": np.concatenate([y, x])}
        parts.append(pl.DataFrame(both).with_columns(relation=pl.lit(relation)))
    id_ = pl.col("index").add(10_000).cast(pl.String).alias("id")
    ends = nodes.select("index", id_, "type", "name", pl.lit("GENERATED").alias("source"))
    sides = [ends.rename({column: f"{side}_{column}" for column in ends.columns}) for side in "xy"]
    frame = pl.concat(parts).with_columns(display_relation=pl.col("relation").str.slice(0, 12))
    for side, table in zip("xy", sides, strict=True):
        frame = frame.join(table, on=f"{side}_index", how="left", maintain_order="left")
    columns = [
        f"{side}_{column}" for side in "xy" for column in ("index", "id", "type", "name", "source")
    ]
    frame.select("relation", "display_relation", *columns).write_csv(path)
    return frame.height


def write_clingraph(folder: Path, seed: int = 1, share: float = 1.0) -> int:
    """Write `ClinGraph_nodes.csv` and `ClinGraph_edges.csv` (TAB) with this share of the edges;
    returns how many edges."""
    rng = np.random.default_rng(seed)
    nodes = _nodes("ClinGraph", rng).with_columns(node_id=pl.format("{}.0:{}", "index", "type"))
    table = nodes.select(
        "node_id",
        pl.col("name").alias("node_name"),
        pl.col("type").alias("ntype"),
        pl.col("index").alias("node_index"),
    )
    table.write_csv(folder / "ClinGraph_nodes.csv", separator="\t")
    count = round(_ROWS.filter(graph="ClinGraph")["count"].item() * share)
    x, y = _distinct(
        lambda size: (_draw(nodes.height, size, rng), _draw(nodes.height, size, rng)), count
    ).T
    frame = pl.DataFrame({"node_index_x": x, "node_index_y": y}).with_row_index("index")
    for side in "xy":
        named = table.rename({column: f"{column}_{side}" for column in table.columns})
        frame = frame.join(named, on=f"node_index_{side}", how="left", maintain_order="left")
    frame.select(
        "index", "node_id_x", "node_name_x", "ntype_x", pl.lit("related_to").alias("relationship"),
        "node_id_y", "node_name_y",
        "ntype_y", "node_index_x", "node_index_y", pl.col("index").alias("edge_index"),
    ).write_csv(folder / "ClinGraph_edges.csv", separator="\t")  # fmt: skip
    return frame.height


def _nodes(graph: str, rng: np.random.Generator) -> pl.DataFrame:
    """Columns index, type, name; the types mixed, names of three words and a number, some with a
    comma."""
    counts = _NODES.filter(graph=graph)
    types = rng.permutation(np.repeat(counts["x_type"].to_list(), counts["count"].to_list()))
    words = np.array(_WORDS)[rng.integers(0, len(_WORDS), (3, len(types)))]
    index = pl.Series("index", np.arange(len(types)))
    comma = pl.select(pl.when(index % 9 == 0).then(pl.lit(", ")).otherwise(pl.lit(" "))).to_series()
    name = pl.select(
        pl.format("{} {} {}{}{}", *(pl.Series(row) for row in words), comma, index)
    ).to_series()
    return pl.DataFrame({"index": index, "type": types, "name": name})


def _pairs(
    nodes: pl.DataFrame, left: str, right: str, count: int, rng: np.random.Generator
) -> np.ndarray:
    """`count` distinct pairs (x, y), x of type `left` and y of type `right`, x != y: shape (count,
    2)."""
    xs, ys = (nodes.filter(pl.col("type") == kind)["index"].to_numpy() for kind in (left, right))
    return _distinct(
        lambda size: (xs[_draw(len(xs), size, rng)], ys[_draw(len(ys), size, rng)]), count
    )


def _distinct(draw, count: int) -> np.ndarray:
    """`count` distinct unordered pairs without self-loops, from as many draws as that takes."""
    keys = np.empty(0, dtype=np.int64)
    while len(keys) < count:
        x, y = draw(count + 1000)
        fresh = ((np.minimum(x, y) << 32) | np.maximum(x, y))[x != y]
        keys = np.sort(np.concatenate([keys, fresh]))
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
    keys = np.random.default_rng(count).permutation(keys)[:count]
    return np.column_stack([keys >> 32, keys & 0xFFFFFFFF])


def _draw(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Positions 0..count-1 with chances of a power law: the expected degree of the k-th node falls
    as (k + 20) ** -0.6."""
    chances = np.cumsum((np.arange(count) + 20.0) ** -0.6)
    return np.searchsorted(chances, rng.random(size) * chances[-1])
