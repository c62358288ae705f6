"""Trees without any machinery: which rollouts there are, how one is played, and what a failing one leaves."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from envs.oracle import Oracle
from envs.records import UNAVAILABLE
from tasks.rollout import TreePlan, branch_specs, initial_specs, play, play_tree
from tests.records import MENU, environment, small_tree, turn
from trajectories.records import RolloutSpec, Turn

PLAN = TreePlan({"a": "hash-a", "b": "hash-b"}, rollouts=3, launch_points=1, branches=1, t_max=4)


class Scripted:
    """A clinician that plays a script: orders CBC, orders PET, then commits; raises from turn `fails_at` on."""

    name = "a"
    prompt_version = "scripted"

    def __init__(self, fails_at: int | None = None, commits_at: int = 3):
        self.fails_at, self.commits_at = fails_at, commits_at
        self.seeds: list[int] = []

    async def decide(self, initial_observation: str, turns: Sequence[Turn], t_max: int, seed: int) -> Turn:
        number = len(turns) + 1
        self.seeds.append(seed)
        if self.fails_at and number >= self.fails_at:
            raise ValueError(f"no reply in turn {number}")
        if number == self.commits_at:
            return turn(number, "Sarcoidosis", (), "Sarcoidosis")
        return replace(turn(number, "Lymphoma", ("CBC",) if number == 1 else ("PET scan of the moon",)), answers=())


def played(clinician: Scripted, prefix: Sequence[Turn] = (), t_max: int = 4):
    world = environment()
    spec = next(initial_specs(world, PLAN))
    return asyncio.run(play(spec, world, Oracle(world.menu), clinician, t_max, prefix))


def test_a_rollout_gets_documented_results_verbatim_or_unavailable() -> None:
    first, second, last = played(Scripted()).turns
    assert first.answers[0].results[0].text == MENU[0].result
    assert second.answers[0].text.endswith(UNAVAILABLE)
    assert last.final_diagnosis == "Sarcoidosis"
    assert last.answers == ()


def test_a_rollout_ends_at_t_max() -> None:
    trajectory = played(Scripted(commits_at=99), t_max=2)
    assert len(trajectory.turns) == 2
    assert trajectory.outcome == "turn_limit"


def test_a_branch_plays_on_from_its_prefix() -> None:
    prefix = played(Scripted()).turns[:1]
    trajectory = played(Scripted(), prefix)
    assert [turn.number for turn in trajectory.turns] == [2, 3]


def test_every_turn_has_its_own_seed_and_the_same_rollout_the_same_seeds() -> None:
    one, two = Scripted(), Scripted()
    played(one)
    played(two)
    assert len(set(one.seeds)) == 3
    assert one.seeds == two.seeds


def test_the_id_depends_on_everything_that_a_rollout_is() -> None:
    base = RolloutSpec("env", "case", "a", "schema", 0, "hash", None, 0)
    changes = {
        "environment_id": "x",
        "teacher": "b",
        "style": "free",
        "sample": 1,
        "settings_hash": "y",
        "parent_id": "p",
        "branch_turn": 2,
    }
    ids = {base.trajectory_id, *(replace(base, **{name: value}).trajectory_id for name, value in changes.items())}
    assert len(ids) == 1 + len(changes)


def tree_of(world, clinicians, tree=(), skip=frozenset()):
    return asyncio.run(play_tree(world, PLAN, tree, skip, clinicians, Oracle(world.menu)))


def test_a_tree_is_k_rollouts_a_teacher_and_a_branch_by_each_from_one_launch_point() -> None:
    result = tree_of(environment(), {"a": Scripted(), "b": Scripted()})
    roots = [t for t in result.trajectories if t.spec.parent_id is None]
    branches = [t for t in result.trajectories if t.spec.parent_id]
    assert len(roots) == 6
    assert sorted(t.spec.teacher for t in branches) == ["a", "b"]
    assert len({(t.spec.parent_id, t.spec.branch_turn) for t in branches}) == 1
    assert all(1 <= t.spec.branch_turn < 3 for t in branches)
    assert not result.failures


def test_a_finished_tree_has_nothing_left_to_play() -> None:
    world = environment()
    first = tree_of(world, {"a": Scripted(), "b": Scripted()})
    again = tree_of(world, {"a": Scripted(fails_at=1), "b": Scripted(fails_at=1)}, first.trajectories)
    assert again.trajectories == ()
    assert again.failures == ()


def test_one_teacher_failing_leaves_the_other_alone_and_retry_completes_the_tree() -> None:
    world = environment()
    first = tree_of(world, {"a": Scripted(), "b": Scripted(fails_at=2)})
    assert {t.spec.teacher for t in first.trajectories} == {"a"}
    assert {(f.teacher, f.error_class) for f in first.failures} == {("b", "ValueError")}
    assert len(first.failures) == 3 + 1, "its three rollouts and its branch"
    assert all(f.message == f"no reply in turn {f.turn}" for f in first.failures)

    failed = frozenset(f.trajectory_id for f in first.failures if f.trajectory_id)
    left_alone = tree_of(world, {"a": Scripted(), "b": Scripted()}, first.trajectories, failed)
    assert left_alone.trajectories == ()

    retried = tree_of(world, {"a": Scripted(), "b": Scripted()}, first.trajectories)
    whole = [*first.trajectories, *retried.trajectories]
    assert len(whole) == 8
    assert len({(t.spec.parent_id, t.spec.branch_turn) for t in whole if t.spec.parent_id}) == 1


def test_no_branch_without_an_intermediate_turn() -> None:
    world, root, _ = small_tree()
    short = replace(root, turns=root.turns[:1], spec=replace(root.spec, teacher="a", settings_hash="hash-a"))
    assert list(branch_specs(world, PLAN, [short])) == []
