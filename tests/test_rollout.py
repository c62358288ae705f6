"""Trees without any machinery: which rollouts there are, how one is played, and what a failing one
leaves."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from medaction.envs.episode import Episode
from medaction.envs.oracle import Oracle
from medaction.envs.records import UNAVAILABLE, ClinicalEnvironment
from medaction.envs.turns import Hypothesis, Observation, Turn
from medaction.llm.calls import BudgetSpent
from medaction.llm.replies import MalformedReply
from medaction.llm.usage import Usage
from medaction.trajectories.records import Played, RolloutSpec, Trajectory
from medaction.trajectories.rollout import play, play_tree
from medaction.trajectories.tree import TreePlan, branch_specs, entropy, initial_specs
from tests.records import MENU, environment, small_tree, trajectory, turn

PLAN = TreePlan({"a": "hash-a", "b": "hash-b"}, rollouts=3, launch_points=1, branches=1, t_max=4)


class Scripted:
    """A clinician that plays a script: orders CBC, orders something new each turn, then commits;
    raises from turn `fails_at` on."""

    name = "a"
    prompt_versions = {"schema": "scripted", "free": "scripted freely"}  # noqa: RUF012

    def __init__(
        self, fails_at: int | None = None, commits_at: int = 3, error: Exception | None = None
    ):
        self.fails_at, self.commits_at, self.error = fails_at, commits_at, error
        self.seeds: list[int] = []

    async def decide(self, observation: Observation, seed: int) -> Turn:
        number = observation.number
        self.seeds.append(seed)
        if self.fails_at and number >= self.fails_at:
            raise self.error or ValueError(f"no reply in turn {number}")
        if number == self.commits_at:
            return turn(number, "Sarcoidosis", (), "Sarcoidosis")
        order = "CBC" if number == 1 else f"PET scan of moon {number}"
        return replace(turn(number, "Lymphoma", (order,)), answers=())


def played(clinician: Scripted, prefix: Sequence[Turn] = (), t_max: int = 4):
    world = environment()
    spec = next(initial_specs(world, PLAN))
    return asyncio.run(
        play(spec, Episode(world, Oracle(world.menu), t_max, turns=prefix), clinician)
    )


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
    assert len({spec.seed for spec in initial_specs(environment(), PLAN)}) == 6, (
        "siblings are sampled apart"
    )


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
    ids = {
        base.trajectory_id,
        *(replace(base, **{name: value}).trajectory_id for name, value in changes.items()),
    }
    assert len(ids) == 1 + len(changes)


def tree_of(
    world: ClinicalEnvironment,
    clinicians: dict[str, Scripted],
    tree: Sequence[Trajectory] = (),
    skip: frozenset[str] = frozenset(),
    plan: TreePlan = PLAN,
) -> Played:
    return asyncio.run(play_tree(world, plan, tree, skip, clinicians, Oracle(world.menu)))


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
    again = tree_of(
        world, {"a": Scripted(fails_at=1), "b": Scripted(fails_at=1)}, first.trajectories
    )
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


def test_a_rollout_that_fails_leaves_on_record_what_it_had_spent() -> None:
    error = MalformedReply("no JSON", "raw text")
    error.usage = Usage(2, 30, 4, 0.5)
    failed = tree_of(
        environment(), {"a": Scripted(), "b": Scripted(fails_at=3, error=error)}
    ).failures[0]
    assert (failed.turn, failed.raw) == (3, "raw text")
    earlier = turn(1, "Lymphoma").usage
    assert failed.usage.calls == 2 * earlier.calls + 2
    assert failed.usage.prompt_tokens == 2 * earlier.prompt_tokens + 30
    assert failed.usage.cost_usd == pytest.approx(2 * earlier.cost_usd + 0.5)
    branch = tree_of(environment(), {"a": Scripted(), "b": Scripted(fails_at=2)}).failures[-1]
    assert branch.usage.calls <= 1, "the turns that it shares were spent by another rollout"


def test_an_oracle_that_fails_fails_the_rollout_not_the_case() -> None:
    world = environment()

    def choose(order: str, names: Sequence[str]) -> Sequence[int]:
        raise BudgetSpent("the oracle's model has no budget left", 402)

    plan = replace(PLAN, teachers={"a": "hash-a"}, rollouts=1)
    oracle = Oracle(world.menu, choose=choose)
    played = asyncio.run(play_tree(world, plan, (), frozenset(), {"a": Scripted()}, oracle))
    [failed] = played.failures
    assert (failed.error_class, failed.turn, failed.usage.calls) == ("BudgetSpent", 2, 2)


def test_a_spent_budget_ends_the_tree_and_leaves_what_had_not_begun() -> None:
    world = environment()
    not_begun = tree_of(
        world, {"a": Scripted(), "b": Scripted(fails_at=1, error=BudgetSpent("spent", 402))}
    )
    assert len(not_begun.trajectories) == 3, "no branches"
    assert (not_begun.failures, not_begun.not_started) == ((), 3)

    under_way = tree_of(
        world, {"a": Scripted(), "b": Scripted(fails_at=2, error=BudgetSpent("spent", 402))}
    )
    assert Counter(failure.error_class for failure in under_way.failures) == {"BudgetSpent": 3}
    assert {failure.usage.calls for failure in under_way.failures} == {1}
    assert all(played.spec.parent_id is None for played in under_way.trajectories)
    assert under_way.not_started == 0

    later = tree_of(world, {"a": Scripted(), "b": Scripted()}, not_begun.trajectories)
    assert len(later.trajectories) == 3 + 2


class Circling(Scripted):
    """Orders what `orders` says for each turn, whatever it is told; commits in turn
    `commits_at`."""

    def __init__(self, *orders: tuple[str, ...], commits_at: int = 99):
        super().__init__(commits_at=commits_at)
        self.orders = orders

    async def decide(self, observation: Observation, seed: int) -> Turn:
        played = await super().decide(observation, seed)
        if played.final_diagnosis:
            return played
        return replace(played, tests=self.orders[len(observation.turns)])


@pytest.mark.parametrize(
    ("orders", "t_max", "played", "outcome"),
    [
        (
            ["CBC", " cbc. ", "Complete blood count", "CT", "MRI"],
            8,
            4,
            "loop",
        ),  # by its name, then by what the record has
        (["PET", "PET", "pet", "CT", "MRI"], 8, 4, "loop"),  # UNAVAILABLE again
        (["PET", "PET", "CT", "PET", "PET", "CT", "MRI"], 8, 6, "loop"),
        (["PET", "PET", "pet", "CT"], 4, 4, "turn_limit"),  # its end has come anyway
        (["PET", "PET-CT", "MRI", "CT"], 4, 4, "turn_limit"),
        (["PET", "PET", "CT", "PET", "EEG"], 5, 5, "turn_limit"),
    ],
)
def test_a_rollout_that_goes_in_circles_has_one_turn_more(
    orders: list[str], t_max: int, played: int, outcome: str
) -> None:
    world = environment()
    spec = next(initial_specs(world, PLAN))
    script = Circling(*((order,) for order in orders))
    done = asyncio.run(play(spec, Episode(world, Oracle(world.menu), t_max), script))
    assert (len(done.turns), done.outcome) == (played, outcome)


def test_a_turn_with_one_new_test_is_no_circle_and_a_diagnosis_before_it_is_demanded_is_none() -> (
    None
):
    world = environment()
    spec = next(initial_specs(world, PLAN))

    def outcome(*orders: tuple[str, ...], commits_at: int) -> str:
        return asyncio.run(
            play(spec, Episode(world, Oracle(world.menu)), Circling(*orders, commits_at=commits_at))
        ).outcome

    assert outcome(("CBC",), ("CBC",), ("CBC", "PET"), ("CBC",), commits_at=5) == "diagnosed"
    assert outcome(("CBC",), ("CBC",), commits_at=3) == "diagnosed"
    assert outcome(("CBC",), ("CBC",), ("CBC",), commits_at=4) == "loop"


def root_of(world: ClinicalEnvironment, sample: int, *turns: Turn) -> Trajectory:
    return trajectory(
        RolloutSpec(world.environment_id, world.case_id, "a", "schema", sample, "hash-a"), *turns
    )


def believing(number: int, *confidences: int, leader: str = "Lymphoma") -> Turn:
    lines = tuple(
        Hypothesis(leader if not at else f"disease {at}", share)
        for at, share in enumerate(confidences)
    )
    return replace(turn(number, leader, ("CBC",)), differential=lines)


def launched(
    world: ClinicalEnvironment, tree: Sequence[Trajectory], **plan: object
) -> list[tuple[str | None, int]]:
    specs = branch_specs(world, replace(PLAN, **plan), tree, DTC.get)  # type: ignore[arg-type]
    return list(dict.fromkeys((spec.parent_id, spec.branch_turn) for spec in specs))


DTC = {"Tuberculosis": 3, "Lymphoma": 2, "Sarcoidosis": 0}


def test_entropy_is_of_the_normalised_differential() -> None:
    assert (
        entropy([Hypothesis("a", 50), Hypothesis("b", 50)])
        == entropy([Hypothesis("a", 2), Hypothesis("b", 2)])
        == 1.0
    )
    assert entropy([Hypothesis("a", 40), Hypothesis("b", 0)]) == 0.0
    assert entropy([Hypothesis("a", 0)]) is None


def test_launch_points_by_entropy_are_where_least_is_settled() -> None:
    world = environment()
    first = root_of(world, 0, believing(1, 90, 10), believing(2, 0, 0), believing(3, 30, 30, 30))
    second = root_of(world, 1, believing(1, 50, 50), believing(2, 40, 30, 30), believing(3, 99))
    best = [
        (second.trajectory_id, 2),
        (second.trajectory_id, 1),
        (first.trajectory_id, 1),
        (first.trajectory_id, 2),
    ]
    for count in range(
        1, 6
    ):  # the last turn of a rollout is never one; no confidence at all comes last
        assert sorted(
            launched(world, [first, second], launch="entropy", launch_points=count)
        ) == sorted(best[:count])


def test_launch_points_by_dtc_are_where_it_changes_most() -> None:
    world = environment()
    first = root_of(
        world,
        0,
        turn(1, "Tuberculosis", ("CBC",)),
        turn(2, "Lymphoma", ("CT",)),
        turn(3, "Lymphoma", ("MRI",)),
    )
    second = root_of(
        world,
        1,
        turn(1, "Unheard of", ("CBC",)),
        turn(2, "Tuberculosis", ("CT",)),
        turn(3, "Lymphoma", (), "Sarcoidosis"),
    )
    best = [
        (second.trajectory_id, 2),
        (first.trajectory_id, 1),
        (first.trajectory_id, 2),
        (second.trajectory_id, 1),
    ]
    for count in range(1, 6):
        assert sorted(
            launched(world, [first, second], launch="dtc", launch_points=count)
        ) == sorted(best[:count])
    with pytest.raises(ValueError, match="need the distance"):
        list(branch_specs(world, replace(PLAN, launch="dtc"), [first, second]))


@pytest.mark.parametrize("launch", ["uniform", "entropy", "dtc"])
def test_ties_are_drawn_the_same_in_every_order_and_differently_by_seed(launch: str) -> None:
    world = environment()

    def drawn(settings: str, *, backwards: bool = False) -> tuple[int, int]:
        plan = replace(PLAN, teachers={"a": settings}, launch=launch)  # type: ignore[arg-type]
        specs = [
            RolloutSpec(world.environment_id, world.case_id, "a", "schema", sample, settings)
            for sample in range(3)
        ]
        tree = [
            trajectory(spec, *(turn(number, "Lymphoma", ("CBC",)) for number in range(1, 5)))
            for spec in specs
        ]
        [branch] = branch_specs(world, plan, tree[::-1] if backwards else tree, DTC.get)
        return [spec.trajectory_id for spec in specs].index(
            branch.parent_id or ""
        ), branch.branch_turn

    assert all(drawn(str(seed)) == drawn(str(seed), backwards=True) for seed in range(5))
    counts = Counter(drawn(str(seed)) for seed in range(300))
    assert len(counts) == 9, "every intermediate turn of every rollout"
    assert max(counts.values()) < 70


def test_a_launch_point_of_the_store_stays_when_another_is_added_beside_it() -> None:
    world = environment()
    first = tree_of(world, {"a": Scripted(), "b": Scripted()})
    [kept] = {
        (t.spec.parent_id, t.spec.branch_turn) for t in first.trajectories if t.spec.parent_id
    }
    larger = replace(PLAN, rollouts=9, launch_points=3)
    grown = tree_of(world, {"a": Scripted(), "b": Scripted()}, first.trajectories, plan=larger)
    points = {
        (t.spec.parent_id, t.spec.branch_turn)
        for t in (*first.trajectories, *grown.trajectories)
        if t.spec.parent_id
    }
    assert kept in points
    assert len(points) == 3
    assert not tree_of(
        world, {}, [*first.trajectories, *grown.trajectories], plan=larger
    ).trajectories


def test_only_the_teacher_of_the_parent_branches_when_asked() -> None:
    world = environment()
    plan = replace(PLAN, launch_points=4, branches=2, branch_by="same")
    played = tree_of(world, {"a": Scripted(), "b": Scripted()}, plan=plan).trajectories
    teachers = {t.trajectory_id: t.spec.teacher for t in played}
    branches = [t for t in played if t.spec.parent_id]
    assert len(branches) == 4 * 2
    assert {t.spec.teacher for t in branches} == {"a", "b"}
    assert all(teachers[t.spec.parent_id or ""] == t.spec.teacher for t in branches)


FREE = replace(PLAN, free_form={"a": 0.1}, free_hashes={"a": "hash-free"}, rollouts=64)


def worlds(count: int) -> list[ClinicalEnvironment]:
    return [environment(f"case-{number}") for number in range(count)]


def test_the_share_of_free_form_rollouts_is_drawn_by_their_identity() -> None:
    specs = [spec for world in worlds(50) for spec in initial_specs(world, FREE)]
    free = [spec for spec in specs if spec.style == "free"]
    assert {spec.teacher for spec in free} == {"a"}
    assert 0.085 < len(free) / (64 * 50) < 0.115
    assert {spec.settings_hash for spec in free} == {"hash-free"}
    assert free == [
        spec for world in worlds(50) for spec in initial_specs(world, FREE) if spec.style == "free"
    ]

    more = replace(FREE, free_form={"a": 0.3})
    assert {spec.trajectory_id for spec in free} < {
        spec.trajectory_id for world in worlds(50) for spec in initial_specs(world, more)
    }
    assert all(
        spec.style == "free"
        for spec in initial_specs(environment(), replace(FREE, free_form={"a": 1.0}))
        if spec.teacher == "a"
    )


def test_other_free_form_prompts_leave_the_rollouts_in_the_schema_alone() -> None:
    world = environment()
    before = {spec.trajectory_id: spec.style for spec in initial_specs(world, FREE)}
    after = {
        spec.trajectory_id: spec.style
        for spec in initial_specs(world, replace(FREE, free_hashes={"a": "other"}))
    }
    assert {id_ for id_, style in before.items() if style == "schema"} == {
        id_ for id_, style in after.items() if style == "schema"
    }
    assert not {id_ for id_, style in before.items() if style == "free"} & set(after)


def test_a_free_form_rollout_is_played_and_stored_as_one_and_can_be_branched_from() -> None:
    plan = replace(FREE, free_form={"a": 1.0}, rollouts=1)
    played = tree_of(environment(), {"a": Scripted(), "b": Scripted()}, plan=plan).trajectories
    assert Counter((t.spec.style, t.prompt_version) for t in played) == {
        ("free", "scripted freely"): 2,
        ("schema", "scripted"): 2,
    }


def test_no_branch_without_an_intermediate_turn() -> None:
    world, root, _ = small_tree()
    short = replace(
        root, turns=root.turns[:1], spec=replace(root.spec, teacher="a", settings_hash="hash-a")
    )
    assert list(branch_specs(world, PLAN, [short])) == []
