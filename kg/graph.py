"""A knowledge graph and hop distances on it: the h of the paper's equations 3 and 4."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import rustworkx as rx

from kg.cache import filled

NODE_COLUMNS = ["node", "node_id", "node_type", "name", "source"]
TABLES = ("nodes", "edges", "names")


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph without self-loops or parallel edges.

    nodes: columns node (0..n-1, the row's own number), node_id, node_type, name, source.
    edges: columns x and y with x < y, sorted.
    names: columns node and name: every other name of a node (synonyms), for linking.
    net: the same edges as a PyDiGraph in both directions, inserted in order of their source: rustworkx walks an adjacency
        as a linked list, and in this order a breadth-first search is up to twenty times faster than in arbitrary order.
    version: a hash; together with `name` it identifies the graph and everything that links to it.
    """

    name: str
    description: str
    nodes: pl.DataFrame
    edges: pl.DataFrame
    names: pl.DataFrame
    net: rx.PyDiGraph
    version: str


def build_graph(
    name: str,
    nodes: pl.DataFrame,
    edges: Iterable[tuple[int, int]],
    names: Iterable[tuple[int, str]] = (),
    version: str = "",
    description: str = "",
) -> Graph:
    """A graph from its nodes and pairs of node numbers, in any order and direction; repeats and self-loops are dropped.

    Without a `version` it is the hash of the content. Raises ValueError when `node` is not 0..n-1 or an edge leaves that range.
    """
    count = nodes.height
    if nodes["node"].to_list() != list(range(count)):
        raise ValueError(f"{name}: the column 'node' must number the rows from 0")
    pairs = np.array(list(edges), dtype=np.int64).reshape(-1, 2)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= count):
        raise ValueError(f"{name}: an edge names a node outside 0..{count - 1}")
    pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    tables = (
        nodes.select(NODE_COLUMNS),
        pl.DataFrame({"x": pairs[:, 0], "y": pairs[:, 1]}),
        pl.DataFrame(list(names), schema={"node": pl.Int64, "name": pl.String}, orient="row"),
    )
    return Graph(name, description, *tables, _net(count, tables[1]), version or _hash(tables))


def _net(count: int, edges: pl.DataFrame) -> rx.PyDiGraph:
    net = rx.PyDiGraph()
    net.add_nodes_from(range(count))
    both = np.concatenate([edges.to_numpy(), edges.to_numpy()[:, ::-1]])
    order = np.lexsort((both[:, 1], both[:, 0]))
    net.extend_from_edge_list([(x, y) for x, y in both[order].tolist()])
    return net


def _hash(tables: Iterable[pl.DataFrame]) -> str:
    return hashlib.sha256("".join(table.write_csv() for table in tables).encode()).hexdigest()[:12]


def save_graph(graph: Graph, folder: Path) -> None:
    """Write the graph into `folder`, whole or not at all; a folder that is there is left as it is."""

    def write(draft: Path) -> None:
        for table in TABLES:
            getattr(graph, table).write_parquet(draft / f"{table}.parquet", compression="zstd")
        (draft / "about.txt").write_text(f"{graph.name}\n{graph.version}\n{graph.description}", encoding="utf-8")

    filled(folder, write)


def load_graph(folder: Path) -> Graph:
    """Read what `save_graph` wrote. Raises FileNotFoundError."""
    name, version, description = (folder / "about.txt").read_text(encoding="utf-8").split("\n", 2)
    nodes, edges, names = (pl.read_parquet(folder / f"{table}.parquet") for table in TABLES)
    return Graph(name, description, nodes, edges, names, _net(nodes.height, edges), version)


def hops(graph: Graph, a: int, b: int) -> int | None:
    """Length of the shortest path between nodes `a` and `b`; 0 for a node and itself, None where no path exists."""
    return hops_from(graph, a, [b])[b]


def hops_from(graph: Graph, a: int, targets: Iterable[int]) -> dict[int, int | None]:
    """`hops(graph, a, b)` for every b in `targets`, at the price of about one look-up each.

    The neighbourhoods of `a` up to two hops meet those of `b` for any distance up to four; only targets farther than
    that need a full breadth-first search from `a`, made once.
    """
    neighbours = graph.net.successor_indices
    near = set(neighbours(a))
    ball = near.union(*(neighbours(node) for node in near))
    found: dict[int, int | None] = {}
    far: list[int] = []
    for b in targets:
        distance = _within_four(neighbours, a, near, ball, b)
        if distance is None:
            far.append(b)
        found[b] = distance
    return found | _by_search(graph, a, far) if far else found


def _within_four(neighbours: Callable[[int], Iterable[int]], a: int, near: set[int], ball: set[int], b: int) -> int | None:
    """The distance if it is at most 4. `near`: nodes at 1 hop from `a`; `ball`: nodes at 1 or 2 hops (and `a` itself)."""
    if b == a:
        return 0
    if b in near:
        return 1
    around = list(neighbours(b))
    if not near.isdisjoint(around):
        return 2
    if not ball.isdisjoint(around):
        return 3
    return 4 if any(not ball.isdisjoint(neighbours(node)) for node in around) else None


def _by_search(graph: Graph, a: int, targets: list[int]) -> dict[int, int | None]:
    wanted = set(targets)
    distances: dict[int, int | None] = dict.fromkeys(targets)
    for depth, layer in enumerate(rx.bfs_layers(graph.net, [a])):
        distances |= dict.fromkeys(wanted.intersection(layer), depth)
    return distances
