"""Whether the open test graph puts a test nearer to what it is for than to other diseases.

    python benchmarks/linking/test_graph.py [--maxo FOLDER] [--loinc2hpo FOLDER]

Measured by the pairs of procedure and disorder in Synthea's modules, on the graph built without
them, so that none of them is an edge. Every other combination of these procedures and disorders is
a negative, among them unlabelled positives: figures are harsh. AUC: the chance that a pair is
nearer than a negative, ties counted as half; its interval is over resampled disorders.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.auc import auc, auc_interval
from medaction.kg.graph import hops_from
from medaction.kg.linking import Linker
from medaction.kg.open_graphs import open_test_graph_without_reasons
from medaction.kg.synthea import load_reasons


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--maxo", type=Path)
    parser.add_argument("--loinc2hpo", type=Path)
    given = parser.parse_args()
    graph = open_test_graph_without_reasons(given.maxo, given.loinc2hpo)
    tests, diseases = Linker(graph, ("test",)), Linker(graph, ("disease", "phenotype"))
    named = [
        (test, disorder)
        for test, disorder in load_reasons()
        if tests.knows(test) and diseases.knows(disorder)
    ]
    links = [(tests.link([test])[0], diseases.link([disorder])[0]) for test, disorder in named]
    pairs = {
        (test.node, disorder.node)
        for test, disorder in links
        if "broader" not in (test.method, disorder.method)
    }
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
