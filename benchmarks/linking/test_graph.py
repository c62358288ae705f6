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
    low, high = interval(rows, disorders)
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


def auc(near: list[int], far: list[int]) -> float:
    """The share of (near, far) combinations in which the first is smaller, ties counted as half."""
    a, b = np.array(near)[:, None], np.array(far)[None, :]
    return float(((a < b) + 0.5 * (a == b)).mean())


def interval(
    rows: list[tuple[int, int, bool]], disorders: list[int], samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % bootstrap interval of the AUC."""
    rng = np.random.default_rng(seed)
    of = {
        disorder: [(distance, kind) for other, distance, kind in rows if other == disorder]
        for disorder in disorders
    }
    values = []
    for _ in range(samples):
        drawn = [
            row for disorder in rng.choice(disorders, len(disorders)) for row in of[int(disorder)]
        ]
        near, far = (
            [distance for distance, positive in drawn if positive is kind] for kind in (True, False)
        )
        if near and far:
            values.append(auc(near, far))
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))


if __name__ == "__main__":
    main()
