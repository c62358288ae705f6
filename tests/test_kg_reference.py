"""DTC and RAC against a reference written from the paper's equations 3 and 4 alone, on networkx."""

import math
import random

import networkx as nx
import polars as pl

from medaction.kg.graph import build_graph
from medaction.kg.metrics import Course, TurnNodes, measure

NODES, EDGES = 60, 66
"""Sparse, so that some pairs have no path."""


def random_graph(rng: random.Random):
    pairs = [(rng.randrange(NODES), rng.randrange(NODES)) for _ in range(EDGES)]
    nodes = pl.DataFrame(
        {
            "node": range(NODES),
            "node_id": [f"n{node}" for node in range(NODES)],
            "node_type": ["disease"] * NODES,
            "name": [f"node {node}" for node in range(NODES)],
            "source": ["test"] * NODES,
        }
    )
    net = nx.Graph()
    net.add_nodes_from(range(NODES))
    net.add_edges_from((a, b) for a, b in pairs if a != b)
    return build_graph("random", nodes, pairs), dict(nx.all_pairs_shortest_path_length(net))


def random_course(rng: random.Random) -> Course:
    def node() -> int | None:
        return None if rng.random() < 0.1 else rng.randrange(NODES)

    turns = []
    for number in range(1, rng.randint(1, 8) + 1):
        differential = tuple(node() for _ in range(rng.randint(1, 6)))
        if turns and rng.random() < 0.5:
            differential = turns[-1].differential[rng.randint(0, 1) :]
        tests = tuple(node() for _ in range(rng.randint(0, 3)))
        turns.append(TurnNodes(number, node(), differential, tests))
    return Course(tuple(turns), node())


def mean_distance(distances, before: TurnNodes, after: TurnNodes) -> float | None:
    """Equation 4 by the letter: over the symmetric difference, the nearest test's distance."""
    old, new = set(before.differential) - {None}, set(after.differential) - {None}
    nearest = [
        min(distances[test].get(node, math.inf) for test in before.tests if test is not None)
        for node in (old - new) | (new - old)
        if any(test is not None for test in before.tests)
    ]
    reachable = [distance for distance in nearest if distance < math.inf]
    return sum(reachable) / len(reachable) if reachable else None


def test_dtc_and_rac_of_5000_random_trajectories_equal_the_reference():
    rng = random.Random(2026)
    values = 0
    for _ in range(50):
        diseases, disease_distances = random_graph(rng)
        tests, test_distances = random_graph(rng)
        courses = [random_course(rng) for _ in range(100)]
        for course, measured in zip(courses, measure(courses, diseases, tests), strict=True):
            for at, turn in enumerate(course.turns):
                expected = None
                if turn.top is not None and course.truth is not None:
                    expected = disease_distances[turn.top].get(course.truth)
                assert measured.dtc[at] == expected
                rac = measured.rac[at]
                if at == 0:
                    assert rac is None
                    continue
                assert rac is not None
                assert rac.value == mean_distance(test_distances, course.turns[at - 1], turn)
                values += expected is not None and rac.value is not None
    assert values > 1000
