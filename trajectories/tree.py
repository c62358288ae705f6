"""The rollouts of a case's tree: which there are, and where branches start (paper, section 3.3,
stage 2)."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import Literal, Protocol

from medaction.envs.turns import Hypothesis
from medaction.trajectories.records import RolloutSpec, Trajectory

Launch = Literal["uniform", "entropy", "dtc"]

BranchBy = Literal["every", "same"]

FIRST_PAIR_SAMPLE = 64
"""Numbers from here on are samples of branches for preference pairs: the settings allow 64 rollouts
and 16 branches, so no planned one has such a number."""

Distance = Callable[[str], int | None]
"""The text of a diagnosis -> its DTC to the truth of the environment, in hops; None: unknown."""


class Place(Protocol):
    """Where rollouts are played: an environment, or its ids alone."""

    @property
    def environment_id(self) -> str: ...

    @property
    def case_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class TreePlan:
    """The shape of a tree: `rollouts` (K) from o1 per teacher, `launch_points` a tree, `branches`
    at each of them.

    `teachers` maps a teacher's name to the hash of all settings that its rollouts in the schema
    depend on. `free_form` maps it to the share (0 to 1) of its rollouts that are free-form (RQ2; a
    teacher that is missing plays none), and `free_hashes` to the hash of all settings that those
    depend on. `launch` says how launch points are chosen (`_ranked`). At a launch point every
    teacher plays its `branches` (several continuations from the same evidence, by several styles of
    reasoning), or only the teacher that played the parent. `disease_graph` names the graph on which
    DTC is measured, for a `launch` by DTC.
    """

    teachers: Mapping[str, str]
    rollouts: int
    launch_points: int
    branches: int
    t_max: int
    launch: Launch = "uniform"
    branch_by: BranchBy = "every"
    disease_graph: str = "open"
    free_form: Mapping[str, float] = field(default_factory=dict)
    free_hashes: Mapping[str, str] = field(default_factory=dict)
    ends_loops: bool = True
    """Whether a rollout that goes in circles must commit before `t_max` (`play`)."""
    pair_branches: tuple[RolloutSpec, ...] = ()
    """Further branches, beside the planned ones (`pair_specs`)."""

    @property
    def hashes(self) -> frozenset[str]:
        return frozenset((*self.teachers.values(), *self.free_hashes.values()))


def initial_specs(environment: Place, plan: TreePlan) -> Iterator[RolloutSpec]:
    """The K independent rollouts from o1 of every teacher. They depend on no other rollout."""
    for teacher in plan.teachers:
        # Numbered: a larger K adds rollouts, and leaves those that are stored as they are.
        for sample in range(plan.rollouts):
            yield _spec(environment, plan, teacher, sample)


def branch_specs(
    environment: Place, plan: TreePlan, tree: Sequence[Trajectory], distance: Distance | None = None
) -> Iterator[RolloutSpec]:
    """The branches: new rollouts launched from an intermediate turn of an initial rollout of the
    tree, sharing its prefix.

    A launch point that the store already has is kept, so that a rerun or a retry does not grow
    another one; hence a changed `plan.launch` is for trees that have no branches yet. `distance` is
    needed for launch points by DTC only, and called only while launch points are missing. Raises
    ValueError without it.
    """
    by_id = {trajectory.trajectory_id: trajectory for trajectory in tree}
    # Rollouts of settings that have changed since are no parents: their prompts differ.
    planned = [
        t for t in tree if t.spec.teacher in plan.teachers and t.spec.settings_hash in plan.hashes
    ]
    branches = [t.spec for t in planned if t.spec.parent_id in by_id]
    points = sorted({_launch_point(spec) for spec in branches if spec.sample < FIRST_PAIR_SAMPLE})
    lacking = plan.launch_points - len(points)  # those already stored stay
    if lacking > 0 and plan.branches:
        roots = [trajectory for trajectory in planned if trajectory.spec.parent_id is None]
        ranked = _ranked(roots, plan.launch, distance)
        points += [point for point in ranked if point not in points][:lacking]
    for parent_id, turn in points:
        parent = by_id[parent_id].spec.teacher
        for teacher in plan.teachers if plan.branch_by == "every" else [parent]:
            for sample in range(plan.branches):
                yield _spec(environment, plan, teacher, sample, parent_id, turn)


def _launch_point(spec: RolloutSpec) -> tuple[str, int]:
    """(trajectory, turn) from which a branch is launched."""
    return spec.parent_id or "", spec.branch_turn


def pair_specs(
    tree: Sequence[Trajectory], points: Iterable[tuple[str, int]], plan: TreePlan, most: int
) -> tuple[RolloutSpec, ...]:
    """A further branch at each of `points`, (trajectory, turn), by the teacher and in the style of
    the trajectory, so that the prompt stays the same: in a tree at most `most` of them, those that
    it has already counted, and one a point. Earlier turns go first, because more can still come out
    differently there; among equals a hash decides, as for `uniform`."""
    by_id = {trajectory.trajectory_id: trajectory.spec for trajectory in tree}
    played = [spec for spec in by_id.values() if spec.sample >= FIRST_PAIR_SAMPLE]
    taken = set(map(_launch_point, played))
    eligible = [
        point
        for point in dict.fromkeys(points)
        if by_id[point[0]].settings_hash in plan.hashes and point not in taken
    ]
    # `repr` of the point, hashed: the same order in every process.
    eligible.sort(key=lambda point: (point[1], hashlib.sha256(repr(point).encode()).digest()))
    return tuple(
        replace(by_id[parent_id], parent_id=parent_id, branch_turn=turn, sample=FIRST_PAIR_SAMPLE)
        for parent_id, turn in eligible[: max(0, most - len(played))]
    )


def finished(
    place: Place, plan: TreePlan, specs: Sequence[RolloutSpec], skip: frozenset[str]
) -> bool:
    """Whether ids alone show that nothing is missing of a tree: every rollout and branch is played
    or in `skip`, and so are all launch points there. False says nothing: where launch points are
    missing, only the turns tell whether there can be more.
    """
    # Without turns: `branch_specs` then only finds launch points that are stored.
    tree = [Trajectory(spec, (), "diagnosed", plan.t_max, "", "") for spec in specs]
    stored = {trajectory.trajectory_id for trajectory in tree} | skip
    planned = [
        *initial_specs(place, plan),
        # 'uniform' needs no distance, and without turns no new point is ranked anyway.
        *branch_specs(place, replace(plan, launch="uniform"), tree),
    ]
    branches = [spec for spec in specs if spec.parent_id and spec.settings_hash in plan.hashes]
    of_plan = [spec for spec in branches if spec.teacher in plan.teachers]
    points = {_launch_point(spec) for spec in of_plan if spec.sample < FIRST_PAIR_SAMPLE}
    all_launched = not plan.branches or len(points) >= plan.launch_points
    return all_launched and all(spec.trajectory_id in stored for spec in planned)


def _spec(
    environment: Place,
    plan: TreePlan,
    teacher: str,
    sample: int,
    parent_id: str | None = None,
    branch_turn: int = 0,
) -> RolloutSpec:
    """The rollout in its style. Free-form ones are drawn by the id that the rollout has in the
    schema: one by one, branches too.

    So the draw is the same in every run, a larger share adds to those already drawn, and other
    free-form prompts move none.
    """
    place = environment.environment_id, environment.case_id
    settings = plan.teachers[teacher]
    spec = RolloutSpec(*place, teacher, "schema", sample, settings, parent_id, branch_turn)
    draw = int(spec.trajectory_id[8:], 16) / 16**8  # the half of the id that is not the seed
    if draw >= plan.free_form.get(teacher, 0.0):
        return spec
    return replace(spec, style="free", settings_hash=plan.free_hashes[teacher])


def _ranked(
    roots: Iterable[Trajectory], launch: Launch, distance: Distance | None
) -> list[tuple[str, int]]:
    """(trajectory, turn) of every intermediate turn of `roots`, the best launch point first.

    A branch shares the turns 1..t of its parent, with their results, and plays turn t + 1 anew.
    'uniform': each intermediate turn is as likely as any other. 'entropy': first where the
    differential b_t, normalised to a sum of 1, has the highest Shannon entropy, so the turns at
    which least was settled. 'dtc': first where DTC changes most between turn t and turn t + 1, so
    where the results of turn t were read for better or worse. Turns whose value is missing (all
    confidences 0; a diagnosis that is not on the graph) come after all others. Ties, and 'uniform'
    as a whole, are drawn by a hash of the trajectory's id (which stands for seed and settings) and
    the turn: a tree that grew keeps the order it had.
    """
    if launch == "dtc" and distance is None:
        raise ValueError("launch points by DTC need the distance of a diagnosis from the truth")
    # The same diagnosis leads many turns: it is linked once.
    measure = cache(distance) if distance else None
    ranked = []
    for trajectory in roots:
        # Every turn but the last, after which there is nothing to play anew.
        for turn, following in pairwise(trajectory.turns):
            value: float | None = None
            if launch == "entropy":
                value = entropy(turn.differential)
            elif launch == "dtc" and measure is not None:
                before, after = measure(turn.leader), measure(following.leader)
                value = None if before is None or after is None else abs(after - before)
            point = (trajectory.trajectory_id, turn.number)
            draw = hashlib.sha256("{} {}".format(*point).encode()).digest()
            # Sorts the unknown last and high values first.
            ranked.append((value is None, -(value or 0.0), draw, point))
    return [point for *_, point in sorted(ranked)]


def entropy(differential: Sequence[Hypothesis]) -> float | None:
    """Shannon entropy, in bits, of the confidences normalised to a sum of 1; None when they are all
    0."""
    total = sum(line.confidence for line in differential)
    if not total:
        return None
    shares = [line.confidence / total for line in differential if line.confidence]
    return -sum(share * math.log2(share) for share in shares)
