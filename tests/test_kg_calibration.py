"""The RAC threshold that a graph asks for, and where it is kept."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from medaction.cli.calibrate import calibrate as command
from medaction.kg.calibration import Change, calibrate, changes_of, null_of, share_within, values_of
from medaction.kg.graph import Graph, build_graph
from medaction.kg.metrics import Course, TurnNodes
from medaction.kg.open_graphs import open_test_graph
from medaction.kg.tables import BadTable
from medaction.kg.thresholds import OPEN_THRESHOLD, is_papers, keep_threshold, threshold_of
from tests.runs import rows


def wards(count: int) -> Graph:
    """Wards in a row: ward w has a test 2w and a disease 2w + 1, one hop apart, and the tests of
    neighbouring wards are one hop apart."""
    numbers = range(2 * count)
    nodes = pl.DataFrame(
        {
            "node": list(numbers),
            "node_id": [f"n{number}" for number in numbers],
            "node_type": ["disease" if number % 2 else "test" for number in numbers],
            "name": [f"n{number}" for number in numbers],
            "source": ["made up"] * 2 * count,
        }
    )
    edges = [(2 * ward, 2 * ward + 1) for ward in range(count)]
    return build_graph("wards", nodes, edges + [(at, at + 2) for at in range(0, 2 * count - 2, 2)])


def change(ward: int, of: int, reached: bool | None = True) -> Change:
    """A change of the disease of one ward after the test of another."""
    return Change(f"case {ward}", reached, (2 * ward + 1,), (2 * of,))


def test_a_threshold_keeps_what_is_right_and_not_what_is_random():
    # right turns lie 1 or 2 hops from their tests, random ones mostly farther
    changes = [change(ward, ward) for ward in range(40)]
    changes += [change(ward, ward + 1) for ward in range(30)]
    changes += [change(ward, ward - 20, False) for ward in range(20, 40)]
    found = calibrate(changes, wards(41))
    assert found.mean == pytest.approx((40 * 1 + 30 * 2) / 70)
    assert found.low <= found.mean <= found.high
    assert found.threshold == 2.0
    assert set(found.right) == {1.0, 2.0}
    assert set(found.wrong) == {21.0}
    assert share_within(found.null.orders, found.threshold) < 0.2
    assert share_within(found.null.changes, found.threshold) < 0.2
    assert (found.cases, found.unknown) == (40, 0)


def test_random_orders_are_those_of_other_cases_as_many_as_there_were():
    changes = [change(0, 0), replace(change(5, 5), tests=(10, 12)), change(9, 9)]
    null = null_of(changes, wards(10))
    assert len(null.orders) == len(null.changes) == 30
    assert min(null.orders) > 1  # a case's own test would be 1 hop away
    assert null_of(changes[:1], wards(10)).orders == ()


def test_of_one_case_the_threshold_is_what_is_nearest_to_the_mean_of_what_is_right():
    far = [replace(change(0, of), case_id="a") for of in (0, 0, 2)]
    assert calibrate(far, wards(4)).threshold == 1.5  # mean (1 + 1 + 3) / 3
    assert calibrate([change(0, 0)], wards(4)).threshold == 1.0


def test_without_a_trajectory_that_reaches_the_truth_nothing_is_proposed():
    with pytest.raises(ValueError, match="none of 2 turns"):
        calibrate([change(0, 0, False), change(1, 1, None)], wards(3))


def test_a_turn_that_branches_share_is_counted_once_and_a_change_needs_a_test_that_is_a_node():
    turns = (
        TurnNodes(1, 1, (1, 3), (0,)),
        TurnNodes(2, 1, (1, 5), (None,)),
        TurnNodes(3, 1, (1, 7), (2,)),
        TurnNodes(4, 1, (1, 7), ()),
    )
    course = Course(turns, 1)
    own = [*changes_of("a", course, 0, 0)]
    assert own == [Change("a", True, (3, 5), (0,))]  # turn 3 follows no node, turn 4 no change
    assert [*changes_of("a", course, 0, 2)] == []
    assert [row.reached for row in changes_of("a", course, 2, 0)] == [False]
    assert [row.reached for row in changes_of("a", course, None, 0)] == [None]
    assert [row.reached for row in changes_of("a", Course(turns[:3], 1), 0, 0)] == [False]
    assert values_of(own, wards(4)) == [(2 + 3) / 2]


def test_a_graph_has_what_was_measured_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDACTION_CACHE", str(tmp_path))
    graph = wards(4)
    hops, origin, known = threshold_of(graph)
    assert (hops, known) == (3.0, False)
    assert "not calibrated for wards" in origin
    users = replace(graph, nodes=graph.nodes.with_columns(source=pl.lit("curated")))
    assert not threshold_of(users).known, "a user's own word for a source is not the install's"
    file = keep_threshold(graph, 1.5, "demo, 12 cases")
    assert threshold_of(graph)[:2] == (1.5, "calibrated on demo, 12 cases")
    assert threshold_of(wards(5)).hops == 3.0  # another graph
    file.write_text("{")
    with pytest.raises(BadTable, match="kg calibrate"):
        threshold_of(graph)


def test_the_papers_threshold_is_for_clingraph_whole_and_the_open_graph_has_its_own():
    assert threshold_of(open_test_graph()).hops == OPEN_THRESHOLD
    part = replace(wards(4), description="ClinGraph's schema, from ClinGraph_nodes")
    assert not is_papers(part)
    whole = replace(part, nodes=pl.DataFrame({"node": range(153_166), "source": "LNC"}))
    assert is_papers(whole)
    assert threshold_of(whole)[:] == (3.0, "the paper's, for this graph", True)


def test_a_run_is_calibrated_from_its_store(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, out = finished
    done = CliRunner().invoke(command, [str(out), "--out", str(tmp_path), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "reach the truth" in done.output
    assert "threshold of open-tests: " in done.output
    assert "kept in" not in done.output
    assert (tmp_path / "rac_calibration.png").read_bytes().startswith(b"\x89PNG")
    assert rows(out, "select distinct threshold from verdicts") == [(OPEN_THRESHOLD,)]
    monkeypatch.setattr("medaction.kg.calibration.FEW", 100_000)
    monkeypatch.setenv("MEDACTION_CACHE", str(tmp_path / "cache"))
    guess = CliRunner().invoke(command, [str(out), "--out", str(tmp_path)])
    assert str(guess.exception).startswith("not kept: every later run would go by a guess")
    assert not (tmp_path / "cache" / "kg" / "thresholds").exists()


def test_a_folder_without_a_run_is_named(tmp_path: Path):
    done = CliRunner().invoke(command, [str(tmp_path)])
    assert done.exit_code == 2
    assert "is not the folder of a run" in done.output
