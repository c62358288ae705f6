"""What a graph is like: sizes, degrees, the largest component, and how far apart things are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import rustworkx as rx

from medaction.kg.graph import Graph

SAMPLE = 30
"""Nodes from which hops are counted; from each to all others."""


@dataclass(frozen=True, slots=True)
class Survey:
    """nodes: columns node_type, source, nodes. edges: columns x_type, y_type, edges. degrees:
    columns degree (a range), nodes.

    hops: columns from, to, hops (None: no path), pairs, share; counted from `SAMPLE` random nodes
    of a type to all of the other. largest: nodes of the largest component. isolated: nodes without
    an edge.
    """

    nodes: pl.DataFrame
    edges: pl.DataFrame
    degrees: pl.DataFrame
    hops: pl.DataFrame
    largest: int
    isolated: int


def survey(graph: Graph) -> Survey:
    """Measure the graph. A few seconds for millions of edges."""
    kinds = graph.nodes["node_type"]
    by_type = (
        graph.nodes.group_by("node_type", "source")
        .agg(pl.len().alias("nodes"))
        .sort("nodes", descending=True)
    )
    ends = graph.edges.select(
        x_type=kinds.gather(graph.edges["x"]), y_type=kinds.gather(graph.edges["y"])
    )
    low, high = pl.min_horizontal("x_type", "y_type"), pl.max_horizontal("x_type", "y_type")
    by_ends = (
        ends.group_by(low.alias("x_type"), high.alias("y_type"))
        .agg(pl.len().alias("edges"))
        .sort("edges", descending=True)
    )
    present = set(kinds)
    pairs: list[tuple[str | None, str | None]] = [("disease", "disease"), ("test", "disease")]
    # A graph without diseases or tests is surveyed as a whole.
    pairs = [pair for pair in pairs if present.issuperset(pair)] or [(None, None)]
    return Survey(
        nodes=by_type,
        edges=by_ends,
        degrees=_degrees(graph.degrees),
        hops=pl.concat([_hops(graph, *pair) for pair in pairs]),
        # `net` has every edge in both directions: weakly connected is connected.
        largest=max(map(len, rx.weakly_connected_components(graph.net)), default=0),
        isolated=int((graph.degrees == 0).sum()),
    )


def _degrees(degrees: np.ndarray) -> pl.DataFrame:
    """Nodes by degree, in ranges that double."""
    # Degree 0 is a range of its own, which a logarithm has no place for.
    ranges = np.where(degrees > 0, np.floor(np.log2(np.maximum(degrees, 1))).astype(int) + 1, 0)
    rows = []
    for k, count in enumerate(np.bincount(ranges)):
        low, high = (1 << k) >> 1, (1 << k) - 1
        if count:
            rows.append((str(low) if low >= high else f"{low} to {high}", int(count)))
    return pl.DataFrame(rows, schema={"degree": pl.String, "nodes": pl.Int64}, orient="row")


def _hops(graph: Graph, start: str | None, end: str | None) -> pl.DataFrame:
    """Hops from a sample of the nodes of type `start` to all other nodes of type `end`; None: of
    any type."""
    starts, ends = (_of_type(graph, kind) for kind in (start, end))
    counted: Counter[int | None] = Counter()
    for node in np.random.default_rng(0).permutation(starts)[:SAMPLE].tolist():
        targets = set(ends) - {node}
        for depth, layer in enumerate(rx.bfs_layers(graph.net, [node])):
            met = targets.intersection(layer)
            counted[depth] += len(met)
            targets -= met
        counted[None] += len(targets)  # never met: no path
    total = max(counted.total(), 1)
    rows = [
        (start or "any", end or "any", depth, count, f"{count / total:.2%}")
        for depth, count in sorted(counted.items(), key=lambda item: (item[0] is None, item[0]))
        if count
    ]
    schema: dict[str, type[pl.DataType]] = {"from": pl.String, "to": pl.String}
    schema |= {"hops": pl.Int64, "pairs": pl.Int64, "share": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _of_type(graph: Graph, kind: str | None) -> Sequence[int]:
    rows = graph.nodes if kind is None else graph.nodes.filter(pl.col("node_type") == kind)
    return rows["node"].to_list()
