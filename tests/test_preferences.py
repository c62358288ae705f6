"""Preference data: pairs of replies to one prompt, better by what came of them and by nothing
else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medaction.envs.prompts import messages
from medaction.envs.records import ClinicalEnvironment
from medaction.envs.turns import Hypothesis, Turn
from medaction.flows.finish import finish_at_once
from medaction.flows.runs import run_distill
from medaction.flows.settings import DistillSettings
from medaction.trajectories.preferences import (
    Candidate,
    State,
    better,
    missing_pairs,
    states,
    write_preferences,
)
from medaction.trajectories.records import RolloutSpec, Trajectory
from medaction.trajectories.store import Store
from medaction.trajectories.tree import FIRST_PAIR_SAMPLE, TreePlan, pair_specs
from tests.conftest import SAMPLES
from tests.records import add_environment, environment, put_derived, report, trajectory, turn

NODES = {"Sarcoidosis": 1, "Lymphoma": 2, "Tuberculosis": 3}


def candidate(
    name: str, outcome: float | None = None, dtc: int | None = None, gain: float | None = None
) -> Candidate:
    return Candidate(name, "teacher-a", turn(1, "Lymphoma", ("CBC",)), outcome, dtc, gain)


def test_the_first_measure_that_differs_decides() -> None:
    right, wrong = candidate("right", 1.0, 4, 0.0), candidate("wrong", 0.0, 0, 0.9)
    assert better(wrong, right) == ("outcome", right, wrong)
    near, far = candidate("near", 1.0, 0, -0.5), candidate("far", 1.0, 2, 0.5)
    assert better(far, near) == ("dtc", near, far)
    learnt, idle = candidate("learnt", None, 2, 0.3), candidate("idle", 1.0, 2, 0.0)
    assert better(idle, learnt) == ("information", learnt, idle)


def test_what_is_unknown_or_equal_decides_nothing() -> None:
    assert better(candidate("a"), candidate("b", 1.0, 0, 0.5)) is None
    assert better(candidate("a", 1.0, 0, 0.5), candidate("b", 1.0, 0, 0.5)) is None
    assert better(candidate("a", 1.0, 0, 0.5), candidate("b", 1.0, 0, 0.46)) is None
    assert better(candidate("a", 1.0, 0, 0.5), candidate("b", 1.0, 0, 0.45)) is not None


VALUES = st.tuples(
    st.none() | st.sampled_from([0.0, 0.5, 1.0]),
    st.none() | st.integers(0, 4),
    st.none() | st.sampled_from([-0.5, 0.0, 0.5]),
)


@given(VALUES, VALUES)
def test_which_side_comes_first_does_not_matter(one: Any, other: Any) -> None:
    left, right = candidate("left", *one), candidate("right", *other)
    assert better(left, right) == better(right, left)


def with_tests(played: Turn, tests: Sequence[str], documented: bool) -> Turn:
    answers = turn(1, "Lymphoma", ("CBC",)).answers
    return replace(
        played,
        tests=tuple(tests),
        answers=tuple(
            replace(answers[0], order=test, results=answers[0].results if documented else ())
            for test in tests
        ),
        raw=f"{played.raw}: {', '.join(tests)}",
    )


def rollout(sample: int, *turns: Turn, parent: str | None = None, at: int = 0) -> Trajectory:
    world = environment()
    spec = RolloutSpec(
        world.environment_id, world.case_id, "teacher-a", "schema", sample, "h", parent, at
    )
    return trajectory(spec, *turns)


def found(
    folder: Path,
    tree: Sequence[Trajectory],
    dtc: dict[str, list[int]],
    held: Sequence[Trajectory] = (),
) -> list[State]:
    def prompt(world: ClinicalEnvironment, played: Trajectory, turns: Sequence[Turn]) -> Any:
        return messages(world.initial_observation, turns, played.t_max, played.spec.style)

    with Store(folder / "trajectories.duckdb") as store:
        add_environment(store, report(), environment())
        store.add_rollouts("distill", "case-1", tree, [], "run-1")
        scores = [
            {
                "trajectory_id": id_,
                "number": number,
                "dtc": hops,
                "rac": None,
                "changed": None,
                "unknown": None,
                "unlinked": None,
            }
            for id_, path in dtc.items()
            for number, hops in enumerate(path, 1)
        ]
        put_derived(store, turn_scores=scores)
        verdict = {"strategy": "none", "threshold": None, "status": "discarded", "last_turn": None}
        verdict |= {"reason": "teacher_quarantined", "removed_turns": [], "kept_turns": []}
        put_derived(store, verdicts=[verdict | {"trajectory_id": it.trajectory_id} for it in held])
        return list(states(store, prompt, NODES, lambda world: 1))


def siblings() -> tuple[Trajectory, Trajectory]:
    """A rollout that ends on lymphoma, and a branch after its first turn that ends on the truth."""
    root = rollout(
        0,
        turn(1, "Tuberculosis", ("CBC",)),
        turn(2, "Lymphoma", ("PET",)),
        turn(3, "Lymphoma", (), "Lymphoma"),
    )
    branch = rollout(
        0,
        turn(2, "Sarcoidosis", ("Chest radiograph",)),
        turn(3, "Sarcoidosis", (), "Sarcoidosis"),
        parent=root.trajectory_id,
        at=1,
    )
    return root, branch


def test_what_a_quarantined_teacher_played_is_compared_to_nothing(tmp_path: Path) -> None:
    root, branch = siblings()
    dtc = {root.trajectory_id: [3, 2, 2], branch.trajectory_id: [3, 0, 0]}
    every = found(tmp_path, [root, branch], dtc, [branch])
    assert [state.candidates[0].turn for state in every] == list(root.turns)
    assert all(len(state.candidates) == 1 for state in every)


def test_branches_of_one_turn_are_a_pair_with_one_prompt(tmp_path: Path) -> None:
    root, branch = siblings()
    thought = replace(branch.turns[0], thinking="Granulomas?")
    branch = replace(branch, turns=(thought, *branch.turns[1:]))
    dtc = {root.trajectory_id: [3, 2, 2], branch.trajectory_id: [3, 0, 0]}
    every = found(tmp_path, [root, branch], dtc)
    compared = [state for state in every if len(state.candidates) > 1]
    write_preferences(compared, tmp_path / "preferences", 0)
    (pair,) = pl.read_parquet(tmp_path / "preferences" / "dpo-train.parquet").to_dicts()
    assert (pair["better_by"], pair["turn"]) == ("outcome", 2)
    assert pair["chosen"][0]["content"] == branch.turns[0].raw
    assert pair["rejected"][0]["content"] == root.turns[1].raw
    asked = messages(environment().initial_observation, root.turns[:1], 8)
    assert pair["prompt"] == asked, "the very prompt of both"
    labels = pl.read_parquet(tmp_path / "preferences" / "kto-train.parquet").to_dicts()
    assert {row["completion"][0]["content"]: row["label"] for row in labels} == {
        branch.turns[0].raw: True,
        root.turns[1].raw: False,
    }
    # Else TRL would have an empty block of thoughts learnt, by templates that can think.
    for row in labels:
        assert row["chat_template_kwargs"] == {"enable_thinking": row["label"]}
    assert pair["chat_template_kwargs"] == {"enable_thinking": True}
    assert {row["prompt"][1]["content"] for row in labels} == {asked[1]["content"]}
    assert sorted(file.name for file in (tmp_path / "preferences").iterdir()) == [
        *("dpo-train.jsonl", "dpo-train.parquet", "kto-train.jsonl", "kto-train.parquet")
    ], "nothing was held out, and no file is empty"


@pytest.mark.parametrize("counts", [(1, 6), (6, 1), (2, 3)])
def test_more_documented_tests_are_no_preference(tmp_path: Path, counts: tuple[int, int]) -> None:
    names = ("CBC", "ESR", "CRP", "Ferritin", "Copper", "Zinc")
    last = turn(2, "Lymphoma", (), "Lymphoma")
    tree = [
        rollout(
            sample,
            with_tests(turn(1, "Lymphoma"), names[:count], documented=sample == 0),
            replace(last, raw=f"end {sample}"),
        )
        for sample, count in enumerate(counts)
    ]
    every = found(tmp_path, tree, {member.trajectory_id: [2, 2] for member in tree})
    (first,) = (state for state in every if len(state.candidates) > 1)
    assert better(*first.candidates) is None


def test_the_outcome_of_a_reply_is_over_all_rollouts_that_gave_it(tmp_path: Path) -> None:
    """Whatever seconds each took; other thinking is another reply."""
    truth, wrong = turn(2, "Sarcoidosis", (), "Sarcoidosis"), turn(2, "Lymphoma", (), "Lymphoma")
    first = turn(1, "Tuberculosis", ("CBC",))

    def after(sample: int, last: Turn, thinking: str = "") -> Trajectory:
        usage = replace(first.usage, seconds=1.0 + sample)
        return rollout(sample, replace(first, usage=usage, thinking=thinking), last)

    tree = [after(sample, truth if sample == 3 else wrong) for sample in range(4)]
    tree.append(after(4, truth, "Granulomas."))
    dtc = {member.trajectory_id: [3, 0 if member.spec.sample > 2 else 2] for member in tree}
    tree.append(after(5, turn(2, "Lymphoma", ("PET",))))  # commits to nothing, at no known distance
    opening = next(s for s in found(tmp_path, tree, dtc) if s.candidates[0].turn.number == 1)
    assert {c.turn.thinking: c.outcome for c in opening.candidates} == {"": 0.2, "Granulomas.": 1}


def test_information_is_what_the_results_did_for_the_truth(tmp_path: Path) -> None:
    def ending(sure: int, name: str) -> Turn:
        ranked = (Hypothesis("Lymphoma", 90 - sure), Hypothesis("Sarcoidosis", sure))
        return replace(turn(2, "Lymphoma", (), "Lymphoma"), differential=ranked, raw=name)

    tree = [
        rollout(0, turn(1, "Lymphoma", ("CBC",)), ending(40, "learnt")),
        rollout(1, replace(turn(1, "Lymphoma", ("PET",)), raw="other"), ending(5, "idle")),
    ]
    every = found(tmp_path, tree, {member.trajectory_id: [2, 2] for member in tree})
    (first,) = (state for state in every if len(state.candidates) > 1)
    verdict = better(*first.candidates)
    assert verdict
    assert verdict[0] == "information"
    assert verdict[1].turn.raw == tree[0].turns[0].raw


def test_states_without_a_pair_are_where_to_branch_next(tmp_path: Path) -> None:
    root, branch = siblings()
    dtc = {root.trajectory_id: [3, 2, 2], branch.trajectory_id: [3, 0, 0]}
    points = missing_pairs(found(tmp_path, [root, branch], dtc))
    assert points == sorted([(root.trajectory_id, 2), (branch.trajectory_id, 2)])


def test_a_branch_for_a_pair_keeps_teacher_and_style_and_trees_have_at_most_so_many() -> None:
    root, branch = siblings()
    free = replace(root, spec=replace(root.spec, style="free", sample=1, settings_hash="f"))
    plan = TreePlan({"teacher-a": "h"}, 1, 1, 1, 8, free_hashes={"teacher-a": "f"})
    tree = [root, branch, free]
    points = [(member.trajectory_id, 2) for member in tree]
    specs = pair_specs(tree, points, plan, 2)
    assert len(specs) == 2
    assert pair_specs(tree, points[:1] * 2, plan, 2) == pair_specs(tree, points[:1], plan, 2)
    assert pair_specs(tree, points, plan, 3)[:2] == specs, "a larger number adds to them"
    for spec in pair_specs(tree, points, plan, 3):
        parent = next(member for member in tree if member.trajectory_id == spec.parent_id)
        assert (spec.teacher, spec.style) == (parent.spec.teacher, parent.spec.style)
        assert (spec.branch_turn, spec.sample) == (2, FIRST_PAIR_SAMPLE)
    grown = [*tree, replace(branch, spec=specs[0])]
    assert pair_specs(grown, points, plan, 2) == specs[1:], "one a point, two a tree"
    early = pair_specs(tree, [*points, (root.trajectory_id, 1)], plan, 1)
    assert [spec.branch_turn for spec in early] == [1]
    old = replace(plan, teachers={"teacher-a": "other"}, free_hashes={})
    assert pair_specs(tree, points, old, 2) == (), "not from what other settings played"


@pytest.mark.long
def test_branches_where_pairs_are_missing_make_pairs_and_are_played_once(tmp_path: Path) -> None:
    """By the graph clinician on the sample cases: states after turn 1 that had no pair get one."""

    def later_pairs(branches: int) -> tuple[int, int]:
        settings = DistillSettings(
            cases=str(SAMPLES),
            out=tmp_path,
            teachers=["kg-screening", "kg-targeted"],
            rollouts=2,
            validation_percent=0,
            pair_branches=branches,
            engine="local",
        )
        if finish_at_once(settings) is None:
            run_distill(settings)
        file = tmp_path / "dataset" / "preferences" / "dpo-train.parquet"
        later = pl.read_parquet(file).filter(pl.col("turn") > 1)
        with Store(tmp_path / "trajectories.duckdb") as store:
            (played,) = store.rows("select count(*) from trajectories")
        return later.height, played[0]

    before, rollouts = later_pairs(0)
    after, more = later_pairs(4)
    assert rollouts < more <= rollouts + 12 * 4
    assert after > before
    assert later_pairs(4) == (after, more), "a rerun plays nothing"
    assert later_pairs(0) == (after, more), "and no planned branch starts where these do"
