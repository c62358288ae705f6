"""Hop distances against a plain breadth-first search, and graphs that survive a round trip to
disk.
"""

from collections import deque

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medaction.kg.graph import Graph, build_graph, hops, hops_from, load_graph, save_graph


def graph_of(count: int, edges: list[tuple[int, int]], **more) -> Graph:
    rows = [
        {
            "node": i,
            "node_id": f"N{i}",
            "node_type": "disease",
            "name": f"node {i}",
            "source": "here",
        }
        for i in range(count)
    ]
    return build_graph("small", pl.DataFrame(rows), edges, **more)


def plain_search(count: int, edges: list[tuple[int, int]], start: int) -> dict[int, int | None]:
    """The textbook algorithm on an adjacency list."""
    adjacent: dict[int, set[int]] = {i: set() for i in range(count)}
    for x, y in edges:
        adjacent[x].add(y)
        adjacent[y].add(x)
    found: dict[int, int | None] = dict.fromkeys(range(count))
    found[start] = 0
    queue = deque([start])
    while queue:
        here = queue.popleft()
        for there in adjacent[here]:
            if found[there] is None:
                found[there] = (found[here] or 0) + 1
                queue.append(there)
    return found


@st.composite
def graphs(draw):
    """Sparse graphs, so that distances beyond four hops and missing paths occur."""
    count = draw(st.integers(1, 24))
    ends = st.integers(0, count - 1)
    return count, draw(st.lists(st.tuples(ends, ends), max_size=count + 4))


@settings(max_examples=300, deadline=None)
@given(graphs())
def test_hops_equal_plain_breadth_first_search(drawn):
    count, edges = drawn
    graph = graph_of(count, edges)
    for start in range(count):
        assert hops_from(graph, start, range(count)) == plain_search(count, edges, start)


def test_a_long_path_is_measured_to_its_end():
    path = graph_of(12, [(i, i + 1) for i in range(11)])
    assert [hops(path, 0, b) for b in range(12)] == list(range(12))


def test_no_path_is_none_and_never_a_number():
    assert hops(graph_of(3, [(0, 1)]), 0, 2) is None


def test_repeats_directions_and_self_loops_are_dropped():
    graph = graph_of(3, [(0, 1), (1, 0), (0, 1), (2, 2)])
    assert graph.edges.rows() == [(0, 1)]
    assert graph.net.num_edges() == 2  # one in each direction


@pytest.mark.parametrize(("count", "edges"), [(2, [(0, 2)]), (2, [(-1, 0)])])
def test_an_edge_out_of_range_is_refused(count, edges):
    with pytest.raises(ValueError, match="names a node outside"):
        graph_of(count, edges)


def test_nodes_must_be_numbered_from_zero():
    rows = pl.DataFrame(
        [{"node": 1, "node_id": "N1", "node_type": "disease", "name": "one", "source": "here"}]
    )
    with pytest.raises(ValueError, match="number the rows from 0"):
        build_graph("small", rows, [])


def test_the_version_follows_the_content():
    assert graph_of(3, [(0, 1)]).version == graph_of(3, [(1, 0)]).version
    assert graph_of(3, [(0, 1)]).version != graph_of(3, [(0, 2)]).version
    assert graph_of(3, [(0, 1)]).version != graph_of(3, [(0, 1)], names=[(2, "other")]).version


def test_a_graph_survives_the_disk(tmp_path):
    graph = graph_of(
        4, [(0, 1), (1, 2)], names=[(0, "nought")], description="four nodes\nin two lines"
    )
    save_graph(graph, tmp_path / "kept" / "small")
    again = load_graph(tmp_path / "kept" / "small")
    assert (again.name, again.version, again.description) == (
        graph.name,
        graph.version,
        graph.description,
    )
    assert again.nodes.equals(graph.nodes)
    assert again.names.equals(graph.names)
    assert hops(again, 0, 2) == 2


def test_saving_over_another_process_graph_leaves_one_whole_graph(tmp_path):
    save_graph(graph_of(2, [(0, 1)]), tmp_path / "small")
    save_graph(graph_of(2, [(0, 1)]), tmp_path / "small")
    assert load_graph(tmp_path / "small").edges.height == 1
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
