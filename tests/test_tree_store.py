"""What the store tells of trees: siblings that played the same, what failed rollouts cost, rollouts
that went in circles."""

from dataclasses import replace
from pathlib import Path

import pytest

from medaction.envs.loops import must_commit, turns_without_news
from medaction.envs.turns import Turn
from medaction.llm.usage import Usage
from medaction.trajectories.records import Failure, RolloutSpec, Trajectory, now
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import trees_of, trees_without_texts
from tests.records import add_environment, report, small_tree, trajectory, turn


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "trajectories.duckdb") as opened:
        yield opened


def test_siblings_that_played_the_same_are_found_beside_the_first(store: Store) -> None:
    world, root, branch = small_tree()
    add_environment(store, report(), world)

    def sibling(sample: int, *turns: Turn, of: RolloutSpec = root.spec, teacher: str = "teacher-a"):
        return trajectory(replace(of, sample=sample, teacher=teacher), *turns)

    def said(*words: str) -> tuple[Turn, ...]:
        return tuple(
            replace(played, raw=word) for played, word in zip(root.turns, words, strict=True)
        )

    letters = said("a", "b", "c")
    same_plan = sibling(1, *letters)
    to_the_letter = sibling(2, *root.turns, teacher="teacher-b")
    swapped = sibling(3, replace(root.turns[0], tests=("pet", "cbc")), *root.turns[1:])
    other_tests = sibling(4, replace(root.turns[0], tests=("CBC",)), *root.turns[1:])
    other_leader = sibling(5, *root.turns[:2], turn(3, "Lymphoma", (), "Sarcoidosis"))
    shorter = sibling(6, *root.turns[:2])
    branch_again = sibling(1, *branch.turns, of=branch.spec)
    elsewhere = sibling(0, *branch.turns, of=replace(branch.spec, branch_turn=2))
    played = [
        root,
        branch,
        same_plan,
        to_the_letter,
        swapped,
        other_tests,
        other_leader,
        shorter,
        branch_again,
        elsewhere,
    ]
    store.add_rollouts("rollout", "case-1", played, [], "run-1")
    found = {
        id_: (first, same)
        for id_, first, same in store.rows(
            "select trajectory_id, first_id, same_replies from duplicates"
        )
    }
    assert found == {
        same_plan.trajectory_id: (root.trajectory_id, False),
        to_the_letter.trajectory_id: (root.trajectory_id, True),
        swapped.trajectory_id: (root.trajectory_id, True),
        branch_again.trajectory_id: (branch.trajectory_id, True),
    }


def test_a_turn_that_a_teacher_wrote_several_times_is_one_record(store: Store) -> None:
    world, root, branch = small_tree()
    add_environment(store, report(), world)

    def again(sample: int, *turns: Turn, **spec: object) -> Trajectory:
        return trajectory(replace(root.spec, sample=sample, **spec), *turns)  # type: ignore[arg-type]

    first, second, third = root.turns
    same = again(1, *root.turns)
    as_the_root = again(2, second, third, parent_id=root.trajectory_id, branch_turn=1)
    same_branch = again(1, *branch.turns, parent_id=root.trajectory_id, branch_turn=1)
    other_thoughts = again(2, replace(first, thinking="Hm."), second)
    other_results = again(3, replace(first, answers=()), second)
    other_start = again(4, replace(first, raw="else"), second)
    other_teacher = again(0, *root.turns, teacher="teacher-b")
    played = [root, branch, same, as_the_root, same_branch, other_thoughts, other_results,
              other_start, other_teacher]  # fmt: skip
    store.add_rollouts("rollout", "case-1", played, [], "run-1")
    keep_all = (
        "insert into verdicts select trajectory_id, 'none', null, 'kept', '', max(number), [],"
        " list(number) from paths join trajectories on trajectory_id = path_id group by all"
    )
    store.db.execute(keep_all)

    def repeats() -> set[tuple[str, int]]:
        return set(store.rows("select trajectory_id, number from repeated_turns"))

    assert repeats() == {
        *((same.trajectory_id, number) for number in (1, 2, 3)),
        *((as_the_root.trajectory_id, number) for number in (2, 3)),
        (same_branch.trajectory_id, 2),
        (other_thoughts.trajectory_id, 2),  # thinking is no part of the next prompt
        (other_results.trajectory_id, 1),  # its reply is the same; what follows is not
    }
    store.db.execute("delete from verdicts where trajectory_id = ?", [root.trajectory_id])
    kept_through_a_branch = (root.trajectory_id, 1)
    assert kept_through_a_branch not in repeats()
    assert {(same.trajectory_id, 2), (same.trajectory_id, 3)}.isdisjoint(repeats())


def test_the_first_is_the_one_that_was_stored_first(store: Store) -> None:
    world, root, _ = small_tree()
    add_environment(store, report(), world)
    later = replace(root, spec=replace(root.spec, sample=1))
    for one in (later, root):
        store.add_rollouts("rollout", "case-1", [one], [], "run-1")
    assert store.rows("select trajectory_id, first_id from duplicates") == [
        (root.trajectory_id, later.trajectory_id)
    ]


def test_a_tree_without_texts_has_all_that_scoring_reads(store: Store) -> None:
    world, root, branch = small_tree()
    add_environment(store, report(), world)
    store.add_rollouts("rollout", "case-1", [root, branch], [], "run-1")
    [[(_, whole)]], [[(environment_id, bare)]] = trees_of(store), trees_without_texts(store)
    assert environment_id == world.environment_id
    assert [played.spec for played in bare] == [played.spec for played in whole]
    for played, same in zip(bare, whole, strict=True):
        for short, turn_of in zip(played.turns, same.turns, strict=True):
            assert short.differential == turn_of.differential
            assert (short.tests, short.leader) == (turn_of.tests, turn_of.leader)
            assert (short.raw, short.answers) == ("", ())


def test_a_failure_keeps_what_it_cost(store: Store) -> None:
    spent = Usage(3, 1200, 90, 0.25, 8.5, 2)
    failure = Failure("rollout", "case-1", "MalformedReply", "no", now(), "t", "id", 2, usage=spent)
    store.add_rollouts("rollout", "case-1", [], [failure], "run-1")
    columns = ", ".join(Usage.__dataclass_fields__)
    assert store.rows(f"select {columns} from failures") == [(3, 1200, 90, 0.25, 8.5, 2, [])]


def test_turns_without_news_are_counted_from_the_end() -> None:
    cbc, pet, nothing = turn(1, "x", ("CBC",)), turn(2, "x", ("PET",)), turn(3, "x", ("CBC", "pet"))
    assert turns_without_news([]) == turns_without_news([cbc, pet]) == 0
    assert turns_without_news([cbc, pet, nothing]) == 1
    assert turns_without_news([cbc, pet, nothing, nothing]) == 2
    assert turns_without_news([cbc, pet, nothing, turn(4, "x", ("CBC", "MRI"))]) == 0
    assert [
        must_commit(turns, 8) for turns in ([], [cbc, pet, nothing], [cbc, pet, nothing, nothing])
    ] == [False, False, True]
    assert must_commit([cbc], 2)
