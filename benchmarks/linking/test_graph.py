"""Whether the open test graph puts a test nearer to what it is for than to other diseases.

    python benchmarks/linking/test_graph.py [--maxo FOLDER] [--loinc2hpo FOLDER]

Measured by the pairs of procedure and disorder in Synthea's modules, on the graph without them, so
that none of them is an edge, but for those that the table of tests has, too. Every other
combination of these procedures and disorders is a negative, among them unlabelled positives:
figures are harsh. AUC: the chance that a pair is nearer than a negative, ties counted as half; its
interval is over resampled disorders.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.auc import auc, auc_interval
from medaction.kg.graph import Graph, build_graph, hops_from
from medaction.kg.linking import Linker
from medaction.kg.open_graphs import open_test_graph
from medaction.kg.synthea import load_reasons
from medaction.kg.tests_table import tests_table


def pairs_in(graph: Graph, names: Iterable[tuple[str, str]]) -> set[tuple[int, int]]:
    """(node of a test, node of a disorder) of those names that the graph knows."""
    tests, disorders = Linker(graph, ("test",)), Linker(graph, ("disease", "phenotype"))
    links = [
        (tests.link([test])[0], disorders.link([disorder])[0])
        for test, disorder in names
        if tests.knows(test) and disorders.knows(disorder)
    ]
    return {
        (test.node, disorder.node)
        for test, disorder in links
        if test.node is not None
        and disorder.node is not None
        and "broader" not in (test.method, disorder.method)
    }


def without(graph: Graph, pairs: set[tuple[int, int]]) -> Graph:
    """The graph without the edges between these nodes."""
    edges = [
        (x, y)
        for x, y in graph.edges.select("x", "y").iter_rows()
        if (x, y) not in pairs and (y, x) not in pairs
    ]
    return build_graph(f"{graph.name}-without", graph.nodes, edges, graph.names.rows())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--maxo", type=Path)
    parser.add_argument("--loinc2hpo", type=Path)
    options = parser.parse_args()
    full = open_test_graph(options.maxo, options.loinc2hpo)
    curated = [(test.name, disorder) for test in tests_table() for disorder in test.diseases]
    pairs = pairs_in(full, load_reasons())
    graph = without(full, pairs - pairs_in(full, curated))
    orders, disorders = {test for test, _ in pairs}, sorted({disorder for _, disorder in pairs})
    distances = {test: hops_from(graph, test, disorders) for test in orders}
    rows = [
        (disorder, distance, (test, disorder) in pairs)
        for test in orders
        for disorder, distance in distances[test].items()
        if distance is not None
    ]
    near, far = (
        [distance for _, distance, positive in rows if positive is kind] for kind in (True, False)
    )
    low, high = auc_interval(
        [
            [(distance, positive) for other, distance, positive in rows if other == disorder]
            for disorder in disorders
        ]
    )
    print(
        f"{graph.nodes.height} nodes, {graph.edges.height} edges,"
        f" {(graph.nodes['node_type'] == 'test').sum()} tests"
    )
    print(
        f"{len(near)} pairs, {len(far)} negatives over {len(orders)} tests and {len(disorders)}"
        " disorders"
    )
    print(f"mean hops {np.mean(near):.2f} against {np.mean(far):.2f}")
    print(
        f"at most 3 hops: {np.mean(np.array(near) <= 3):.0%} against"
        f" {np.mean(np.array(far) <= 3):.0%}"
    )
    print(f"AUC {auc(near, far):.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
