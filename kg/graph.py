"""A knowledge graph and hop distances on it: the h of the paper's equations 3 and 4."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medaction.kg.cache import filled

if TYPE_CHECKING:
    import polars as pl
    import rustworkx as rx

NODE_COLUMNS = ["node", "node_id", "node_type", "name", "source"]
RIMS = 10_000
"""Of how many nodes a graph keeps its neighbours in Python: all diagnoses of a run."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected graph without self-loops or parallel edges.

    nodes: columns node (0..n-1, the row's own number), node_id, node_type, name, source. names:
    columns node and name: every other name of a node (synonyms), for linking. offsets, targets:
    int32 of shape (n+1,) and (2m,): targets[offsets[i]:offsets[i+1]] are the neighbours of node i,
    sorted. version: a hash; together with `name` it identifies the graph and everything that links
    to it.
    """

    name: str
    description: str
    nodes: pl.DataFrame
    names: pl.DataFrame
    offsets: np.ndarray
    targets: np.ndarray
    version: str

    @cached_property
    def net(self) -> rx.PyDiGraph:
        """The edges as a PyDiGraph in both directions, inserted in order of their source.

        rustworkx walks an adjacency as a linked list, and in this order a breadth-first search is
        up to twenty times faster than in arbitrary order. It reads the edges one by one from the
        arrays: 8 million take 0.7 s and no memory but its own.
        """
        import rustworkx as rx

        net = rx.PyDiGraph(node_count_hint=self.nodes.height, edge_count_hint=len(self.targets))
        net.add_nodes_from(range(self.nodes.height))
        net.extend_from_edge_list(zip(self.sources.data, self.targets.data, strict=True))
        return net

    @cached_property
    def rim(self) -> Callable[[int], Sequence[int]]:
        """A node's neighbours, hubs first, kept for the last `RIMS` nodes: a diagnosis is the
        target of hundreds of tests."""
        degrees = self.degrees

        def neighbours(node: int) -> Sequence[int]:
            nodes = np.array(self.net.successor_indices(node), dtype=np.int32)
            return tuple(nodes[np.argsort(-degrees[nodes])].tolist())

        return lru_cache(RIMS)(neighbours)

    @cached_property
    def is_open(self) -> bool:
        """Whether this is one of the graphs that come with the install: the curated tables' nodes
        are in it, under the ids that they have there."""
        curated = self.nodes.filter(self.nodes["source"] == "curated")["node_id"]
        # By the ids, too: a user's own graph may call its source 'curated'.
        return bool(curated.str.contains("^(COMMON|TEST):").any())

    @property
    def sources(self) -> np.ndarray:
        """int32 of shape (2m,): the node at the other end of each of `targets`."""
        return np.repeat(np.arange(self.nodes.height, dtype=np.int32), np.diff(self.offsets))

    def neighbours(self, node: int) -> np.ndarray:
        """int32 of shape (d,): who shares an edge with the node."""
        return self.targets[self.offsets[node] : self.offsets[node + 1]]

    @property
    def degrees(self) -> np.ndarray:
        """Number of neighbours of every node, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def edges(self) -> pl.DataFrame:
        """Columns x and y with x < y, sorted: each edge once."""
        import polars as pl

        sources = self.sources
        once = sources < self.targets
        return pl.DataFrame({"x": sources[once], "y": self.targets[once]})


def build_graph(
    name: str,
    nodes: pl.DataFrame,
    edges: Iterable[tuple[int, int]] | np.ndarray,
    names: Iterable[tuple[int, str]] = (),
    version: str = "",
    description: str = "",
) -> Graph:
    """A graph from its nodes and pairs of node numbers, in any order and direction; repeats and
    self-loops are dropped.

    Without a `version` it is the hash of the content. Raises ValueError when `node` is not 0..n-1
    or an edge leaves that range.
    """
    count = nodes.height
    import polars as pl

    if not np.array_equal(nodes["node"].to_numpy(), np.arange(count)):
        raise ValueError(f"{name}: the column 'node' must number the rows from 0")
    # An array stays one: 8 million tuples would take a gigabyte.
    pairs = (
        edges
        if isinstance(edges, np.ndarray)
        else np.array(list(edges), dtype=np.int64).reshape(-1, 2)
    )
    if pairs.size and (pairs.min() < 0 or pairs.max() >= count):
        raise ValueError(f"{name}: an edge names a node outside 0..{count - 1}")
    offsets, targets = _adjacency(count, pairs)
    synonyms = pl.DataFrame(list(names), schema={"node": pl.Int64, "name": pl.String}, orient="row")
    tables = (nodes.select(NODE_COLUMNS), synonyms)
    return Graph(
        name, description, *tables, offsets, targets, version or _hash(tables, (offsets, targets))
    )


def _adjacency(count: int, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs in both directions as `offsets` and `targets`. One integer a pair, since sorting
    those is fast and small."""
    # In 64 bits: 153,166 nodes squared do not fit into 32.
    keys = np.minimum(pairs[:, 0], pairs[:, 1]).astype(np.int64)
    keys *= count
    keys += np.maximum(pairs[:, 0], pairs[:, 1])
    keys = _distinct(keys)
    x, y = np.divmod(keys, max(count, 1))  # no node, no division by 0
    proper = x != y
    # Sorted by source, then target: this is the adjacency already, row after row.
    keys = np.concatenate([keys[proper], (y * count + x)[proper]])
    keys.sort()
    offsets = np.searchsorted(keys, np.arange(count + 1) * count).astype(np.int32)
    keys %= max(count, 1)  # leaves the target; in place, to save a copy
    return offsets, keys.astype(np.int32)


def _distinct(keys: np.ndarray) -> np.ndarray:
    """Sorted (in place) and without repeats."""
    keys.sort()
    first = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]


def _hash(tables: Iterable[pl.DataFrame], arrays: Iterable[np.ndarray]) -> str:
    # Names and edges alike: a synonym more changes where texts lead.
    digest = hashlib.sha256("".join(table.write_csv() for table in tables).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]


def save_graph(graph: Graph, folder: Path, **about: Any) -> None:
    """Write the graph into `folder`, whole or not at all; a folder that is there is left as it is.

    `about` is kept beside it as JSON, for `about_graph`.
    """

    def write(draft: Path) -> None:
        for table in ("nodes", "names"):
            getattr(graph, table).write_parquet(draft / f"{table}.parquet", compression="zstd")
        for array in ("offsets", "targets"):
            np.save(draft / f"{array}.npy", getattr(graph, array))
        known = {"name": graph.name, "version": graph.version, "description": graph.description}
        (draft / "about.json").write_text(json.dumps(about | known), encoding="utf-8")

    # Whole or not at all: other processes may look for it meanwhile.
    filled(folder, write)


def about_graph(folder: Path) -> dict[str, Any]:
    """Name, version, description, and what else `save_graph` was told. Raises FileNotFoundError."""
    return json.loads((folder / "about.json").read_text(encoding="utf-8"))


def load_graph(folder: Path) -> Graph:
    """Read what `save_graph` wrote; the edges stay on disk until they are used. Raises
    FileNotFoundError."""
    import polars as pl

    about = about_graph(folder)
    nodes, names = (pl.read_parquet(folder / f"{table}.parquet") for table in ("nodes", "names"))
    mapped = (np.load(folder / f"{array}.npy", mmap_mode="r") for array in ("offsets", "targets"))
    # Plain arrays on the same files: NumPy's memmap is slow to index.
    offsets, targets = map(np.asarray, mapped)
    return Graph(
        about["name"], about["description"], nodes, names, offsets, targets, about["version"]
    )


def hops(graph: Graph, a: int, b: int) -> int | None:
    """Length of the shortest path between nodes `a` and `b`; 0 for a node and itself, None where no
    path exists."""
    return hops_from(graph, a, [b])[b]


def hops_from(graph: Graph, a: int, targets: Iterable[int]) -> dict[int, int | None]:
    """`hops(graph, a, b)` for every b in `targets`: the ball around `a` is grown once and serves
    them all.

    Two balls of radius r and s meet exactly when the distance is at most r + s, so as they grow one
    hop at a time their first meeting tells it. Hubs make most pairs closer than five and the ball
    around a hub large; what is farther has small surroundings, and the smaller side grows.
    """
    balls = [{a}, {a, *graph.rim(a)}]  # nodes within 0, 1, 2, ... hops of `a`
    # `balls` grows on from target to target: that is why targets of one node come together.
    return {b: _meeting(graph, balls, b) for b in targets}


def _meeting(graph: Graph, balls: list[set[int]], b: int) -> int | None:
    """Hops from the centre of `balls` to `b`. Grows `balls` where that is cheaper, for the targets
    that come after, too."""
    for r, ball in enumerate(balls):
        if b in ball:
            return r
    if len(balls[r]) == len(balls[r - 1]):  # its whole component: no path
        return None
    neighbours = graph.net.successor_indices
    rim, within, s = graph.rim(b), {b}, 1  # nodes at exactly s hops from b, and nearer ones
    if not balls[r].isdisjoint(rim):
        return r + 1
    while rim:  # neither ball has met the other so far: the distance is more than r + s
        # The ball grows at its first hop, which all targets share, or where its rim is the smaller
        # one.
        if r == 1 or len(balls[r]) - len(balls[r - 1]) <= len(rim):
            balls.append(balls[r].union(*(neighbours(node) for node in balls[r] - balls[r - 1])))
            r += 1
            if len(balls[r]) == len(balls[r - 1]):
                return None
            if not balls[r].isdisjoint(rim):
                return r + s
        else:
            # Asked before the next rim is built, and left at the first hit: a hub makes it large,
            # and comes last.
            if any(not balls[r].isdisjoint(neighbours(node)) for node in reversed(rim)):
                return r + s + 1
            within.update(rim)
            rim = tuple(set().union(*(neighbours(node) for node in rim)) - within)
            s += 1
    return None
