"""DTC, RAC and pruning on a graph small enough to measure by hand; each corner by name."""

from collections import Counter
from functools import partial

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medaction.kg.graph import Graph, build_graph, hops
from medaction.kg.metrics import Course, Measured, Rac, TurnNodes, dtc, measure, rac
from medaction.kg.pruning import Verdict, prune_correctness, prune_dtc_rac, prune_none

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


@pytest.fixture(scope="module")
def distance(line):
    return partial(hops, line)


def turn(
    number: int,
    top: int | None,
    differential: tuple[int | None, ...] = (),
    tests: tuple[int | None, ...] = (TEST,),
) -> TurnNodes:
    return TurnNodes(number, top, differential, tests)


def measured(line: Graph, turns: list[TurnNodes], truth: int | None) -> tuple[Course, Measured]:
    course = Course(tuple(turns), truth)
    return course, measure([course], line, line)[0]


def dtc_rac(
    line: Graph, turns: list[TurnNodes], truth: int | None, threshold: float = 3.0
) -> Verdict:
    return prune_dtc_rac(*measured(line, turns, truth), threshold)


# --- DTC, equation 3


def test_dtc_counts_hops_to_the_truth(distance):
    assert [dtc(distance, top, D1) for top in (D1, D2, D5)] == [0, 1, 4]


def test_dtc_of_an_unlinked_top_hypothesis_is_unknown(distance):
    assert dtc(distance, None, D1) is None


def test_dtc_to_an_unlinked_truth_is_unknown_even_from_an_unlinked_hypothesis(distance):
    assert dtc(distance, D1, None) is None
    assert dtc(distance, None, None) is None


def test_dtc_without_a_path_is_unknown(distance):
    assert dtc(distance, FAR, D1) is None


# --- RAC, equation 4


def test_rac_is_the_mean_over_added_and_removed_diagnoses(distance):
    # D1 leaves (1 hop from TEST), D4 comes (4 hops), D2 stays and does not count: (1 + 4) / 2
    assert rac(distance, (D1, D2), (D2, D4), (TEST,)) == Rac(2.5, 2, 0)


def test_rac_takes_the_nearest_of_several_tests(distance):
    assert rac(distance, (), (D1, FAR), (TEST, FAR_TEST)) == Rac(1.0, 2, 0)


def test_rac_of_an_empty_differential_change_has_no_value(distance):
    assert rac(distance, (D1,), (D1,), (TEST,)) == Rac(None, 0, 0)
    assert rac(distance, (), (), (TEST,)) == Rac(None, 0, 0)


def test_a_new_order_of_the_same_diagnoses_is_no_change(distance):
    assert rac(distance, (D1, D5), (D5, D1), (TEST,)) == Rac(None, 0, 0)


def test_diagnoses_that_link_to_the_same_node_are_one(distance):
    # 'PE' gives way to 'pulmonary embolism': the same node D4, so nothing was added or removed
    assert rac(distance, (D4, D1), (D1, D4), (TEST,)).changed == 0


def test_a_differential_that_repeats_a_node_counts_it_once(distance):
    assert rac(distance, (D1,), (D1, D2, D4, D4, D4), (TEST,)) == Rac(3.0, 2, 0)


def test_rac_leaves_unlinked_tests_out(distance):
    assert rac(distance, (), (D3,), (None, TEST)) == Rac(3.0, 1, 0)


def test_repeated_tests_are_one(distance):
    assert (
        rac(distance, (), (D3, FAR), (TEST, TEST, TEST))
        == rac(distance, (), (D3, FAR), (TEST,))
        == Rac(3.0, 2, 1)
    )


@pytest.mark.parametrize("tests", [(None,), (None, None)])
def test_rac_without_a_linked_test_is_unknown(distance, tests):
    assert rac(distance, (D1,), (D2,), tests) == Rac(None, 2, 2)


def test_rac_after_an_empty_action_is_unknown(distance):
    assert rac(distance, (D1,), (D2,), ()) == Rac(None, 2, 2)


def test_rac_without_a_path_is_unknown(distance):
    assert rac(distance, (), (FAR,), (TEST,)) == Rac(None, 1, 1)


def test_rac_is_the_mean_over_the_known_only(distance):
    assert rac(distance, (), (D2, FAR), (TEST,)) == Rac(2.0, 2, 1)


def test_unlinked_diagnoses_are_no_change_and_counted(distance):
    assert rac(distance, (None, D1), (None, None, D2), (TEST,)) == Rac(1.5, 2, 0, unlinked=3)


def test_a_changed_diagnosis_that_is_the_test_itself_is_at_zero_hops(distance):
    assert rac(distance, (), (TEST,), (TEST,)) == Rac(0.0, 1, 0)


# --- both, over a store


def test_the_first_turn_has_no_rac_and_a_one_turn_trajectory_only_a_dtc(line):
    assert measured(line, [turn(1, D3, (D3,))], D1)[1] == Measured((2,), (None,))
    assert measured(line, [], D1)[1] == Measured((), ())


def test_a_batch_measures_what_each_trajectory_measures_alone(line):
    courses = [
        Course(
            (
                turn(1, D5, (D5, None)),
                turn(2, D3, (D3, D1), (FAR_TEST, TEST)),
                turn(3, FAR, (FAR,)),
            ),
            D1,
        ),
        Course((turn(1, None, (D2,), (None,)), turn(2, D4, (D4,))), None),
        Course((turn(1, D1, (D1, FAR)), turn(2, D2, (D2,))), FAR),
    ]
    together = measure(courses, line, line)
    assert together == [measure([course], line, line)[0] for course in courses]
    assert together[0] == Measured((4, 2, None), (None, Rac(3.0, 3, 0, 1), Rac(5 / 3, 3, 0)))


# --- DTC pruning


def test_a_converging_trajectory_is_kept_whole(line):
    verdict = dtc_rac(line, [turn(1, D5), turn(2, D3), turn(3, D1)], D1)
    assert (verdict.status, verdict.reason, verdict.last_turn, verdict.kept_turns) == (
        "kept",
        "whole",
        3,
        (1, 2, 3),
    )


def test_what_follows_the_latest_close_turn_is_cut(line):
    verdict = dtc_rac(line, [turn(1, D3), turn(2, D2), turn(3, D4), turn(4, D5)], D1)
    assert (verdict.status, verdict.reason, verdict.last_turn, verdict.kept_turns) == (
        "truncated",
        "cut",
        2,
        (1, 2),
    )


def test_a_tie_with_the_first_turn_counts_as_close(line):
    assert dtc_rac(line, [turn(1, D3), turn(2, D4), turn(3, D3)], D1).last_turn == 3


def test_a_diverging_trajectory_is_discarded(line):
    verdict = dtc_rac(line, [turn(1, D2), turn(2, D3), turn(3, D4)], D1)
    assert (verdict.status, verdict.reason, verdict.last_turn, verdict.kept_turns) == (
        "discarded",
        "no_convergence",
        None,
        (),
    )


def test_leaving_a_right_first_hypothesis_for_good_is_divergence(line):
    assert dtc_rac(line, [turn(1, D1), turn(2, D2)], D1).reason == "no_convergence"


@pytest.mark.parametrize("turns", [[], [turn(1, D1, tests=())]])
def test_one_turn_is_discarded_for_that_reason(line, turns):
    verdict = dtc_rac(line, turns, D1)
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
    verdict = dtc_rac(line, [turn(i + 1, top) for i, top in enumerate(tops)], truth)
    assert (verdict.status, verdict.reason, verdict.kept_turns) == ("unscorable", reason, ())


def test_a_turn_of_unknown_dtc_is_not_the_last_one_kept(line):
    assert dtc_rac(line, [turn(1, D2), turn(2, D2), turn(3, None)], D1).last_turn == 2


def test_a_turn_of_unknown_dtc_in_between_stays(line):
    assert dtc_rac(line, [turn(1, D2), turn(2, None), turn(3, D1)], D1).kept_turns == (1, 2, 3)


# --- RAC pruning


def test_the_turn_before_a_far_change_is_removed(line):
    # turn 2 orders TEST, then D4 appears 4 hops from it: turn 2 goes, turn 3 stays
    turns = [turn(1, D3, (D1,)), turn(2, D2, (D1, D2)), turn(3, D1, (D1, D2, D4))]
    verdict = dtc_rac(line, turns, D1)
    found = measured(line, turns, D1)[1].rac
    assert [value and value.value for value in found] == [None, 2.0, 4.0]
    assert (verdict.status, verdict.reason, verdict.removed_turns, verdict.kept_turns) == (
        "truncated",
        "pruned",
        (2,),
        (1, 3),
    )


def test_rac_at_the_threshold_removes_nothing(line):
    turns = [turn(1, D1, ()), turn(2, D1, (D3,))]
    assert dtc_rac(line, turns, D1, 3.0).removed_turns == ()
    assert dtc_rac(line, turns, D1, 2.9).removed_turns == (1,)


def test_unknown_rac_removes_nothing(line):
    turns = [turn(1, D1, (D1,), (None,)), turn(2, D1, (FAR,))]
    assert dtc_rac(line, turns, D1).kept_turns == (1, 2)


def test_a_far_change_after_the_cut_removes_nothing(line):
    turns = [turn(1, D2, (D1,)), turn(2, D1, (D1,)), turn(3, D5, (D1, D5))]
    verdict = dtc_rac(line, turns, D1)
    assert measured(line, turns, D1)[1].rac[2] == Rac(5.0, 1, 0)
    assert (verdict.kept_turns, verdict.reason) == ((1, 2), "cut")


def test_one_pass_removes_every_turn_before_a_far_change_but_never_the_last(line):
    turns = [turn(1, D2, ()), turn(2, D2, (D5,)), turn(3, D1, (D4,)), turn(4, D5, (D1,))]
    verdict = dtc_rac(line, turns, D1)
    assert (verdict.reason, verdict.removed_turns, verdict.kept_turns) == (
        "cut_and_pruned",
        (1, 2),
        (3,),
    )


# --- the baselines


def test_no_filter_keeps_everything(line):
    for turns in ([turn(1, D5), turn(2, None)], [turn(1, D1)], []):
        verdict = prune_none(*measured(line, turns, None))
        assert (verdict.status, verdict.kept_turns) == ("kept", tuple(t.number for t in turns))


def test_the_correctness_filter_keeps_what_ends_on_the_truth(line):
    verdict = prune_correctness(*measured(line, [turn(1, D5), turn(2, D1, tests=())], D1))
    assert (verdict.status, verdict.kept_turns) == ("kept", (1, 2))


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
    verdict = prune_correctness(*measured(line, [turn(1, D1), last], truth))
    assert (verdict.status, verdict.reason, verdict.kept_turns) == (status, reason, ())


# --- nothing is lost or counted twice

nodes = st.one_of(st.none(), st.integers(D1, FAR))
some_turns = st.lists(
    st.tuples(
        nodes,
        st.lists(nodes, max_size=4),
        st.lists(st.sampled_from([None, TEST, FAR_TEST]), max_size=3),
    ),
    max_size=6,
)


def course_of(drawn: list, truth: int | None) -> Course:
    return Course(
        tuple(
            TurnNodes(i, top, tuple(b), tuple(tests)) for i, (top, b, tests) in enumerate(drawn, 1)
        ),
        truth,
    )


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(some_turns, nodes, st.floats(0, 5))
def test_every_turn_is_kept_removed_or_cut_and_the_last_kept_is_close(
    line, drawn, truth, threshold
):
    course = course_of(drawn, truth)
    (found,) = measure([course], line, line)
    verdict = prune_dtc_rac(course, found, threshold)
    assert len(found.dtc) == len(found.rac) == len(course.turns)
    if verdict.last_turn is None:
        assert verdict.status in ("discarded", "unscorable")
        assert verdict.kept_turns == verdict.removed_turns == ()
    else:
        assert sorted(verdict.kept_turns + verdict.removed_turns) == list(
            range(1, verdict.last_turn + 1)
        )
        assert verdict.kept_turns[-1] == verdict.last_turn >= 2
        assert (verdict.status == "kept") == (
            verdict.kept_turns == tuple(range(1, len(course.turns) + 1))
        )
        assert found.dtc[verdict.last_turn - 1] <= found.dtc[0]
        for before in verdict.removed_turns:
            assert found.rac[before].value > threshold  # position `before` is turn before + 1


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(some_turns, nodes), max_size=8))
def test_counts_of_trajectories_and_turns_conserve_under_every_strategy(line, drawn):
    courses = [course_of(turns, truth) for turns, truth in drawn]
    found = measure(courses, line, line)
    for prune in (prune_none, prune_correctness, prune_dtc_rac):
        verdicts = [
            prune(course, measured) for course, measured in zip(courses, found, strict=True)
        ]
        assert Counter(verdict.status for verdict in verdicts).total() == len(courses)
        for course, verdict in zip(courses, verdicts, strict=True):
            after = [turn.number for turn in course.turns if turn.number > (verdict.last_turn or 0)]
            fates = Counter([*verdict.kept_turns, *verdict.removed_turns, *after])
            assert fates == Counter(turn.number for turn in course.turns)
    assert (
        measure(courses, line, line) == found
    )  # a verdict changes nothing: any other can be asked for afterwards


def still(number: int, tests: tuple[int | None, ...]) -> TurnNodes:
    return TurnNodes(number, 2, (2, 3), tests)


def test_a_wrong_commitment_is_kept_dropped_or_takes_its_trajectory_with_it(line):
    turns = [TurnNodes(1, 2, (2,), (0,)), TurnNodes(2, 2, (2, 1), (0,)), TurnNodes(3, 1, (1,), ())]
    course = Course(tuple(turns), 0)  # DTC 2, 2, 1: nearer, and wrong
    (found,) = measure([course], line, line)
    assert prune_dtc_rac(course, found) == Verdict("kept", "whole", 3, (), (1, 2, 3))
    dropped = prune_dtc_rac(course, found, wrong_endings="drop-commit")
    assert dropped == Verdict("truncated", "commitment_dropped", 2, (), (1, 2))
    gone = prune_dtc_rac(course, found, wrong_endings="drop")
    assert gone == Verdict("discarded", "wrong_ending", None, (), ())
    # the turn before the commitment can itself be one that RAC removes
    pruned = prune_dtc_rac(course, found, 1.0, "drop-commit")
    assert pruned == Verdict("truncated", "commitment_dropped_and_pruned", 2, (2,), (1,))
    # nothing is left of a trajectory whose only other turn is removed
    short = Course((TurnNodes(1, 2, (2,), (0,)), TurnNodes(2, 2, (5,), ())), 0)
    (found,) = measure([short], line, line)
    assert prune_dtc_rac(short, found, 1.0, "drop-commit").reason == "wrong_ending"
    assert prune_dtc_rac(short, found, 1.0, "drop-commit").kept_turns == ()


def test_what_is_right_or_unknown_or_does_not_commit_is_no_wrong_ending(line):
    for last in (TurnNodes(2, 0, (0,), ()), TurnNodes(2, 2, (2,), (0,))):
        course = Course((TurnNodes(1, 2, (2,), (0,)), last), 0)
        (found,) = measure([course], line, line)
        for what in ("keep", "drop-commit", "drop"):
            assert prune_dtc_rac(course, found, 9.0, what).kept_turns == (1, 2)
    cut = Course((still(1, (0,)), still(2, (0,)), TurnNodes(3, None, (None,), ())), 0)
    (found,) = measure([cut], line, line)
    assert prune_dtc_rac(cut, found, 9.0, "drop").kept_turns == (1, 2)


def test_turns_that_moved_nothing_can_be_ineffective(line):
    course = Course((*(still(t, (0,)) for t in range(1, 5)), still(5, ())), 2)
    (found,) = measure([course], line, line)
    assert prune_dtc_rac(course, found).kept_turns == (1, 2, 3, 4, 5)  # the paper's: no RAC
    assert prune_dtc_rac(course, found, idle_turns=1).kept_turns == (5,)
    assert prune_dtc_rac(course, found, idle_turns=2).kept_turns == (4, 5)
    assert prune_dtc_rac(course, found, idle_turns=9).kept_turns == (1, 2, 3, 4, 5)
    # whether something changed cannot be told where a diagnosis is no node
    unknown = TurnNodes(2, 2, (2, 3, None), (0,))
    course = Course((still(1, (0,)), unknown, still(3, (0,)), still(4, (0,))), 2)
    (found,) = measure([course], line, line)
    assert prune_dtc_rac(course, found, idle_turns=1).kept_turns == (1, 2, 4)
