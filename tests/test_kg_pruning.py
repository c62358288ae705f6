"""DTC, RAC and pruning on a graph small enough to measure by hand; each corner by name."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg.graph import Graph, build_graph
from kg.metrics import Rac, dtc, rac
from kg.pruning import TurnNodes, prune_correctness, prune_dtc_rac, prune_none

# One line of diseases with a test at its head, and an island:
#   TEST - D1 - D2 - D3 - D4 - D5      FAR - FAR_TEST
TEST, D1, D2, D3, D4, D5, FAR, FAR_TEST = range(8)


@pytest.fixture(scope="module")
def line() -> Graph:
    kinds = ["test", *["disease"] * 6, "test"]
    rows = [
        {"node": i, "node_id": f"N{i}", "node_type": kind, "name": f"node {i}", "source": "here"}
        for i, kind in enumerate(kinds)
    ]
    return build_graph("line", pl.DataFrame(rows), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7)])


def turn(
    number: int, top: int | None, differential: set[int] = frozenset(), tests: tuple[int | None, ...] = (TEST,)
) -> TurnNodes:
    return TurnNodes(number, top, frozenset(differential), tests)


# --- DTC, equation 3


def test_dtc_counts_hops_to_the_truth(line):
    assert [dtc(line, top, D1) for top in (D1, D2, D5)] == [0, 1, 4]


@pytest.mark.parametrize(("top", "truth"), [(None, D1), (D1, None), (None, None)])
def test_dtc_of_an_unlinked_end_is_unknown(line, top, truth):
    assert dtc(line, top, truth) is None


def test_dtc_without_a_path_is_unknown(line):
    assert dtc(line, FAR, D1) is None


# --- RAC, equation 4


def test_rac_is_the_mean_over_added_and_removed_diagnoses(line):
    # D1 leaves (1 hop from TEST), D4 comes (4 hops), D2 stays and does not count: (1 + 4) / 2
    assert rac(line, {D1, D2}, {D2, D4}, [TEST]) == Rac(2.5, 2, 0)


def test_rac_takes_the_nearest_of_several_tests(line):
    assert rac(line, set(), {D1, FAR}, [TEST, FAR_TEST]) == Rac(1.0, 2, 0)


def test_rac_of_an_unchanged_differential_has_no_value(line):
    assert rac(line, {D1}, {D1}, [TEST]) == Rac(None, 0, 0)


def test_rac_leaves_unlinked_tests_out(line):
    assert rac(line, set(), {D3}, [None, TEST]) == Rac(3.0, 1, 0)


@pytest.mark.parametrize("tests", [[], [None], [None, None]])
def test_rac_without_a_linked_test_is_unknown(line, tests):
    assert rac(line, {D1}, {D2}, tests) == Rac(None, 2, 2)


def test_rac_without_a_path_is_unknown(line):
    assert rac(line, set(), {FAR}, [TEST]) == Rac(None, 1, 1)


def test_rac_is_the_mean_over_the_known_only(line):
    assert rac(line, set(), {D2, FAR}, [TEST]) == Rac(2.0, 2, 1)


def test_a_changed_diagnosis_that_is_the_test_itself_is_at_zero_hops(line):
    assert rac(line, set(), {TEST}, [TEST]) == Rac(0.0, 1, 0)


# --- DTC pruning


def test_a_converging_trajectory_is_kept_whole(line):
    verdict = prune_dtc_rac([turn(1, D5), turn(2, D3), turn(3, D1)], D1, line, line)
    assert (verdict.status, verdict.reason, verdict.last_turn, verdict.kept_turns) == ("kept", "whole", 3, (1, 2, 3))
    assert verdict.dtc == (4, 2, 0)


def test_what_follows_the_latest_close_turn_is_cut(line):
    verdict = prune_dtc_rac([turn(1, D3), turn(2, D2), turn(3, D4), turn(4, D5)], D1, line, line)
    assert (verdict.status, verdict.reason, verdict.last_turn, verdict.kept_turns) == ("truncated", "cut", 2, (1, 2))


def test_a_tie_with_the_first_turn_counts_as_close(line):
    assert prune_dtc_rac([turn(1, D3), turn(2, D4), turn(3, D3)], D1, line, line).last_turn == 3


def test_a_diverging_trajectory_is_discarded(line):
    verdict = prune_dtc_rac([turn(1, D2), turn(2, D3), turn(3, D4)], D1, line, line)
    assert (verdict.status, verdict.reason, verdict.last_turn, verdict.kept_turns) == ("discarded", "no_convergence", None, ())


def test_leaving_a_right_first_hypothesis_for_good_is_divergence(line):
    assert prune_dtc_rac([turn(1, D1), turn(2, D2)], D1, line, line).reason == "no_convergence"


@pytest.mark.parametrize("turns", [[], [turn(1, D1, tests=())]])
def test_one_turn_is_discarded_for_that_reason(line, turns):
    verdict = prune_dtc_rac(turns, D1, line, line)
    assert (verdict.status, verdict.reason) == ("discarded", "one_turn")


@pytest.mark.parametrize(
    ("tops", "truth", "reason"),
    [
        ((D1, D1), None, "truth_unlinked"),
        ((None, D1), D1, "first_hypothesis_unlinked"),
        ((FAR, D1), D1, "first_hypothesis_without_path"),
        ((D2, None, None), D1, "later_hypotheses_unknown"),
        ((D2, FAR), D1, "later_hypotheses_unknown"),
    ],
)
def test_what_cannot_be_measured_is_unscorable(line, tops, truth, reason):
    verdict = prune_dtc_rac([turn(i + 1, top) for i, top in enumerate(tops)], truth, line, line)
    assert (verdict.status, verdict.reason, verdict.kept_turns) == ("unscorable", reason, ())


def test_a_turn_of_unknown_dtc_is_not_the_last_one_kept(line):
    assert prune_dtc_rac([turn(1, D2), turn(2, D2), turn(3, None)], D1, line, line).last_turn == 2


def test_a_turn_of_unknown_dtc_in_between_stays(line):
    assert prune_dtc_rac([turn(1, D2), turn(2, None), turn(3, D1)], D1, line, line).kept_turns == (1, 2, 3)


# --- RAC pruning


def test_the_turn_before_a_far_change_is_removed(line):
    # turn 2 orders TEST, then D4 appears 4 hops from it: turn 2 goes, turn 3 stays
    turns = [turn(1, D3, {D1}), turn(2, D2, {D1, D2}), turn(3, D1, {D1, D2, D4})]
    verdict = prune_dtc_rac(turns, D1, line, line)
    assert verdict.rac == (None, 2.0, 4.0)
    assert (verdict.status, verdict.reason, verdict.removed_turns, verdict.kept_turns) == ("truncated", "pruned", (2,), (1, 3))


def test_rac_at_the_threshold_removes_nothing(line):
    turns = [turn(1, D1, set()), turn(2, D1, {D3})]
    assert prune_dtc_rac(turns, D1, line, line, threshold=3.0).removed_turns == ()
    assert prune_dtc_rac(turns, D1, line, line, threshold=2.9).removed_turns == (1,)


def test_unknown_rac_removes_nothing(line):
    turns = [turn(1, D1, {D1}, (None,)), turn(2, D1, {FAR})]
    assert prune_dtc_rac(turns, D1, line, line).kept_turns == (1, 2)


def test_a_far_change_after_the_cut_removes_nothing(line):
    turns = [turn(1, D2, {D1}), turn(2, D1, {D1}), turn(3, D5, {D1, D5})]
    verdict = prune_dtc_rac(turns, D1, line, line)
    assert (verdict.rac[2], verdict.kept_turns, verdict.reason) == (5.0, (1, 2), "cut")


def test_one_pass_removes_every_turn_before_a_far_change_but_never_the_last(line):
    turns = [turn(1, D2, set()), turn(2, D2, {D5}), turn(3, D1, {D4}), turn(4, D5, {D1})]
    verdict = prune_dtc_rac(turns, D1, line, line)
    assert (verdict.reason, verdict.removed_turns, verdict.kept_turns) == ("cut_and_pruned", (1, 2), (3,))


# --- the baselines


def test_no_filter_keeps_everything(line):
    for turns in ([turn(1, D5), turn(2, None)], [turn(1, D1)], []):
        verdict = prune_none(turns, None, line, line)
        assert (verdict.status, verdict.kept_turns) == ("kept", tuple(t.number for t in turns))


def test_the_correctness_filter_keeps_what_ends_on_the_truth(line):
    verdict = prune_correctness([turn(1, D5), turn(2, D1, tests=())], D1, line, line)
    assert (verdict.status, verdict.kept_turns, verdict.dtc) == ("kept", (1, 2), (4, 0))


@pytest.mark.parametrize(
    ("last", "truth", "status", "reason"),
    [
        (turn(2, D2, tests=()), D1, "discarded", "wrong_final_diagnosis"),
        (turn(2, D1), D1, "discarded", "no_final_diagnosis"),
        (turn(2, None, tests=()), D1, "unscorable", "final_diagnosis_unlinked"),
        (turn(2, FAR, tests=()), D1, "unscorable", "final_diagnosis_without_path"),
        (turn(2, D1, tests=()), None, "unscorable", "truth_unlinked"),
    ],
)
def test_the_correctness_filter_names_its_reason(line, last, truth, status, reason):
    verdict = prune_correctness([turn(1, D1), last], truth, line, line)
    assert (verdict.status, verdict.reason, verdict.kept_turns) == (status, reason, ())


nodes = st.one_of(st.none(), st.integers(D1, FAR))
some_turns = st.lists(
    st.tuples(nodes, st.frozensets(st.integers(D1, FAR)), st.lists(st.sampled_from([None, TEST, FAR_TEST]))), max_size=6
)


@settings(max_examples=300, deadline=None)
@given(some_turns, nodes, st.floats(0, 5))
def test_every_turn_is_kept_removed_or_cut_and_the_last_kept_is_close(line, drawn, truth, threshold):
    turns = [TurnNodes(i + 1, top, differential, tuple(tests)) for i, (top, differential, tests) in enumerate(drawn)]
    verdict = prune_dtc_rac(turns, truth, line, line, threshold)
    assert len(verdict.dtc) == len(verdict.rac) == len(turns)
    if verdict.last_turn is None:
        assert verdict.status in ("discarded", "unscorable")
        assert verdict.kept_turns == verdict.removed_turns == ()
    else:
        assert sorted(verdict.kept_turns + verdict.removed_turns) == list(range(1, verdict.last_turn + 1))
        assert verdict.kept_turns[-1] == verdict.last_turn >= 2
        assert (verdict.status == "kept") == (verdict.kept_turns == tuple(range(1, len(turns) + 1)))
        assert verdict.dtc[verdict.last_turn - 1] <= verdict.dtc[0]
