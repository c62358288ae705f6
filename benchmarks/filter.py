"""The whole filter at the paper's size: DTC, RAC and verdicts of 32,681 trajectories on graphs as
large as PrimeKG and ClinGraph. The paper's 32,681 are more likely turns (docs/design.md); as
trajectories they are the harder task.

Graphs (benchmarks/synthetic.py) and trajectories are generated; linking is not part of it. The same
run measures what one search a look-up costs in other libraries, from a sample. CPU seconds of one
process and its peak memory; nothing runs in parallel.

Run as: python benchmarks/filter.py [--peers]      --peers needs networkx and igraph (the optional
group `bench`)
"""

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import rustworkx as rx

from benchmarks.synthetic import write_clingraph, write_primekg
from medaction.kg.graph import Graph, load_graph
from medaction.kg.loaders import import_graph
from medaction.kg.metrics import Course, Measured, TurnNodes, dtc_pairs, measure, rac_pairs
from medaction.kg.pruning import Verdict, prune_dtc_rac
from medaction.trajectories.scoring import COURSES_AT_ONCE

CASES, TRAJECTORIES = 2_896, 32_681
CASE_DIAGNOSES, CASE_TESTS = 25, 14
DIAGNOSES, TESTS = 6_000, 1_500
"""How many different nodes the diagnoses and tests of a case, and of all cases, are drawn from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peers",
        action="store_true",
        help="measure networkx, igraph, scipy and one bfs_layers a source, too",
    )
    given = parser.parse_args()
    diseases, tests = graphs()
    rng = np.random.default_rng(7)
    courses = list(workload(diseases, tests, rng))
    print(
        f"{TRAJECTORIES:,} trajectories of {CASES:,} cases,"
        f" {sum(len(course.turns) for course in courses):,} turns"
    )
    Path("/proc/self/clear_refs").write_text("5")  # or the peak may be that of the trajectories
    before = peak_mib()
    start = time.process_time()
    _ = diseases.net, tests.net
    built = time.process_time() - start
    start = time.process_time()
    measured, verdicts = list[Measured](), list[Verdict]()
    for begin in range(0, TRAJECTORIES, COURSES_AT_ONCE):  # as `score_store` does
        some = courses[begin : begin + COURSES_AT_ONCE]
        measured += measure(some, diseases, tests)
        verdicts += map(prune_dtc_rac, some, measured[begin:])
    ours = time.process_time() - start
    print(f"\nwhole filter {ours:.1f} s CPU; both graphs into rustworkx before that {built:.1f} s")
    print(
        f"peak {peak_mib():,.0f} MiB, of them {before:,.0f} held before: both graphs and all"
        " trajectories"
    )
    print("verdicts", dict(Counter(verdict.status for verdict in verdicts).most_common()))
    assert len(verdicts) == TRAJECTORIES
    for course, verdict in zip(courses, verdicts, strict=True):
        after = sum(turn.number > (verdict.last_turn or 0) for turn in course.turns)
        assert len(verdict.kept_turns) + len(verdict.removed_turns) + after == len(course.turns)

    lookups = {
        "DTC": (diseases, list(dtc_pairs(courses))),
        "RAC": (tests, list(rac_pairs(courses))),
    }
    for metric, (graph, pairs) in lookups.items():
        sources = len({a for a, _ in pairs})
        print(
            f"{metric}: {len(pairs):,} look-ups, {len(set(pairs)):,} different pairs from"
            f" {sources:,} nodes, on {graph.nodes.height:,}"
            f" nodes and {len(graph.targets) // 2:,} edges"
        )
    if given.peers:
        compare(lookups, ours + built, rng)


def graphs() -> tuple[Graph, Graph]:
    """The generated graphs, from the cache as in a run: another process reads their text."""
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        diseases, tests = other.submit(cached_graphs).result()
    return load_graph(diseases), load_graph(tests)


def cached_graphs() -> tuple[Path, Path]:
    """The folders in the cache of the generated graphs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_primekg(folder / "kg.csv")
        write_clingraph(folder)
        return import_graph(folder / "kg.csv"), import_graph(folder / "ClinGraph_nodes.csv")


def workload(diseases: Graph, tests: Graph, rng: np.random.Generator) -> Iterator[Course]:
    """Trajectories of 3 to 8 turns. A turn's differential is five of the case's diagnoses, of which
    one or two are replaced from turn to turn; it orders one to three of the case's tests."""
    spots = rng.choice(_of_type(diseases, "disease"), DIAGNOSES, replace=False)
    other = rng.choice(
        _of_type(tests, "disease"), DIAGNOSES, replace=False
    )  # the same diagnoses on the test graph
    menu = rng.choice(_of_type(tests, "test"), TESTS, replace=False)
    shares = rng.multinomial(TRAJECTORIES, np.full(CASES, 1 / CASES))
    for share in shares.tolist():
        known = rng.choice(DIAGNOSES, CASE_DIAGNOSES, replace=False)
        ordered = menu[rng.choice(TESTS, CASE_TESTS, replace=False)]
        for _ in range(share):
            yield Course(tuple(_turns(known, spots, other, ordered, rng)), int(spots[known[0]]))


def _turns(
    known: np.ndarray,
    spots: np.ndarray,
    other: np.ndarray,
    ordered: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[TurnNodes]:
    differential = rng.choice(known, 5, replace=False)
    count = int(rng.integers(3, 9))
    for number in range(1, count + 1):
        asked = (
            rng.choice(ordered, int(rng.integers(1, 4)), replace=False) if number < count else []
        )
        yield TurnNodes(
            number,
            int(spots[differential[0]]),
            tuple(other[differential].tolist()),
            tuple(int(test) for test in asked),
        )
        fresh = rng.choice(
            np.setdiff1d(known, differential), 2 if rng.random() < 0.775 else 1, replace=False
        )
        differential = rng.permutation(np.concatenate([differential[len(fresh) :], fresh]))


def _of_type(graph: Graph, kind: str) -> np.ndarray:
    return graph.nodes.filter(pl.col("node_type") == kind)["node"].to_numpy()


def compare(
    lookups: dict[str, tuple[Graph, list[tuple[int, int]]]], ours: float, rng: np.random.Generator
) -> None:
    """What each library's own search would take for the same different pairs, extrapolated from a
    sample, and all building."""
    print(
        "\nCPU seconds for all different pairs, EXTRAPOLATED from a sample (ours: measured, with"
        " every look-up, mean and verdict)"
    )
    print(f"{'':46} {'build':>7} {'DTC':>9} {'RAC':>9} {'total':>9} {'ratio':>7}")
    print(
        f"{'grouped balls over rustworkx (this project)':46} {'':>7} {'':>9} {'':>9} {ours:9.1f}"
        f" {1:7.1f}"
    )
    for name, way in PEERS.items():
        built, spent = 0.0, []
        for graph, pairs in lookups.values():
            start = time.process_time()
            search, by_source = way(graph)
            built += time.process_time() - start
            different = sorted(set(pairs))
            units = sorted({a for a, _ in different}) if by_source else different
            sample = [
                units[at]
                for at in rng.choice(
                    len(units), min(len(units), 15 if by_source else 40), replace=False
                )
            ]
            start = time.process_time()
            for unit in sample:
                search(unit)
            spent.append((time.process_time() - start) / len(sample) * len(units))
            del search
        total = built + sum(spent)
        print(
            f"{name:46} {built:7.1f} {spent[0]:9.1f} {spent[1]:9.1f} {total:9.1f}"
            f" {total / ours:7.1f}",
            flush=True,
        )


def _networkx(graph: Graph) -> tuple[Callable, bool]:
    import networkx as nx

    net = nx.Graph()
    net.add_nodes_from(range(graph.nodes.height))
    net.add_edges_from(graph.edges.iter_rows())
    return lambda pair: nx.bidirectional_shortest_path(net, *pair), False


def _networkx_by_source(graph: Graph) -> tuple[Callable, bool]:
    import networkx as nx

    net = nx.Graph(graph.edges.iter_rows())
    return lambda source: nx.single_source_shortest_path_length(net, source), True


def _igraph(graph: Graph) -> tuple[Callable, bool]:
    import igraph

    net = igraph.Graph(n=graph.nodes.height, edges=graph.edges.to_numpy())
    return lambda source: net.distances(source=source), True


def _scipy(graph: Graph) -> tuple[Callable, bool]:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    matrix = csr_array(
        (np.ones(len(graph.targets), dtype=np.int8), graph.targets, graph.offsets),
        shape=(graph.nodes.height,) * 2,
    )
    return lambda source: dijkstra(matrix, unweighted=True, indices=source), True


def _layers(graph: Graph) -> tuple[Callable, bool]:
    net = graph.net
    return lambda source: {
        node: depth for depth, layer in enumerate(rx.bfs_layers(net, [source])) for node in layer
    }, True


PEERS: dict[str, Callable[[Graph], tuple[Callable, bool]]] = {
    "rustworkx bfs_layers, once a source": _layers,
    "scipy dijkstra unweighted, once a source": _scipy,
    "igraph distances, once a source": _igraph,
    "networkx bidirectional, once a pair": _networkx,
    "networkx single source, once a source": _networkx_by_source,
}


def peak_mib() -> float:
    """Peak of this process's memory since it was last reset."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]


if __name__ == "__main__":
    main()
