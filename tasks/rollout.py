"""Stage 2 without any machinery: plan the rollouts of a tree, play one, play a case (paper, section 3.3, stage 2)."""

import asyncio
import hashlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from envs.oracle import Oracle
from envs.records import ClinicalEnvironment
from trajectories.records import Failure, Outcome, RolloutSpec, Trajectory, Turn, now, path_of


class Clinician(Protocol):
    """Whoever plays: sees the initial observation and the turns so far (with the oracle's answers), returns the next turn."""

    name: str
    prompt_version: str

    async def decide(self, initial_observation: str, turns: Sequence[Turn], t_max: int, seed: int) -> Turn: ...


@dataclass(frozen=True, slots=True)
class TreePlan:
    """The shape of a tree: `rollouts` (K) from o1 per teacher, `launch_points` a tree, `branches` per teacher at each of them.

    `teachers` maps a teacher's name to the hash of all settings that its rollouts depend on.
    """

    teachers: Mapping[str, str]
    rollouts: int
    launch_points: int
    branches: int
    t_max: int


def initial_specs(environment: ClinicalEnvironment, plan: TreePlan, _tree: Sequence[Trajectory] = ()) -> Iterator[RolloutSpec]:
    """The K independent rollouts from o1 of every teacher; they depend on nothing that was played."""
    for teacher, settings_hash in plan.teachers.items():
        for sample in range(plan.rollouts):
            yield RolloutSpec(environment.environment_id, environment.case_id, teacher, "schema", sample, settings_hash)


def branch_specs(environment: ClinicalEnvironment, plan: TreePlan, tree: Sequence[Trajectory]) -> Iterator[RolloutSpec]:
    """The branches: new rollouts launched from an intermediate turn of a trajectory of the tree, sharing its prefix.

    Launch points are drawn uniformly over the intermediate turns of the initial rollouts, by a seed of the environment
    and the plan. A launch point that the store already has is kept, so that a retry does not grow another one.
    """
    by_id = {trajectory.trajectory_id: trajectory for trajectory in tree}
    hashes = set(plan.teachers.values())
    ours = [trajectory for trajectory in tree if trajectory.spec.settings_hash in hashes]
    points = sorted({(t.spec.parent_id, t.spec.branch_turn) for t in ours if t.spec.parent_id in by_id})
    candidates = sorted(
        (trajectory.trajectory_id, turn.number)
        for trajectory in ours
        if trajectory.spec.parent_id is None
        for turn in trajectory.turns[:-1]
        if (trajectory.trajectory_id, turn.number) not in points
    )
    draw = random.Random(hashlib.sha256(f"{environment.environment_id} {sorted(hashes)}".encode()).digest())
    missing = max(0, plan.launch_points - len(points))
    points += draw.sample(candidates, min(missing, len(candidates)))
    for parent_id, turn in points:
        for teacher, settings_hash in plan.teachers.items():
            for sample in range(plan.branches):
                yield RolloutSpec(
                    environment.environment_id, environment.case_id, teacher, "schema", sample, settings_hash, parent_id, turn
                )


class RolloutFailed(Exception):
    """A rollout that could not go on: the turn that failed, and why (`__cause__`)."""

    def __init__(self, turn: int):
        super().__init__(f"turn {turn}")
        self.turn = turn


async def play(
    spec: RolloutSpec,
    environment: ClinicalEnvironment,
    oracle: Oracle,
    clinician: Clinician,
    t_max: int,
    prefix: Sequence[Turn] = (),
    code_version: str = "",
) -> Trajectory:
    """Play one rollout to its end: o_t -> b_t -> p_t -> a_t -> r_t, until a definitive diagnosis or turn `t_max`.

    `prefix` is the shared part of a branch: the turns 1..branch_turn of its parent, with their answers.
    Raises RolloutFailed from whatever the clinician raised.
    """
    turns = list(prefix)
    while len(turns) < t_max and not (turns and turns[-1].final_diagnosis):
        number, started = len(turns) + 1, time.monotonic()
        try:
            turn = await clinician.decide(environment.initial_observation, turns, t_max, seed=spec.seed + number)
        except Exception as error:
            raise RolloutFailed(number) from error
        usage = replace(turn.usage, seconds=time.monotonic() - started)
        turns.append(replace(turn, answers=oracle.answer(turn.tests), usage=usage))
    outcome: Outcome = "diagnosed" if turns[-1].final_diagnosis else "turn_limit"
    return Trajectory(spec, tuple(turns[len(prefix) :]), outcome, t_max, clinician.prompt_version, code_version)


@dataclass(frozen=True, slots=True)
class Played:
    """What the rollouts of one case gave."""

    case_id: str
    trajectories: tuple[Trajectory, ...]
    failures: tuple[Failure, ...]


async def play_tree(
    environment: ClinicalEnvironment,
    plan: TreePlan,
    tree: Sequence[Trajectory],
    skip: frozenset[str],
    clinicians: Mapping[str, Clinician],
    oracle: Oracle,
    code_version: str = "",
) -> Played:
    """Play what is missing of a case's tree: first the initial rollouts, then the branches, each group concurrently.

    `tree` is what the store has already; `skip` are rollouts that failed before and are left to `retry`.
    A rollout that fails becomes a Failure; the others go on.
    """
    trajectories, failures = list(tree), []
    for specs in (initial_specs, branch_specs):
        done = {trajectory.trajectory_id for trajectory in trajectories} | skip
        by_id = {trajectory.trajectory_id: trajectory for trajectory in trajectories}
        wanted = [spec for spec in specs(environment, plan, trajectories) if spec.trajectory_id not in done]
        results = await asyncio.gather(
            *(
                play(spec, environment, oracle, clinicians[spec.teacher], plan.t_max, _prefix(spec, by_id), code_version)
                for spec in wanted
            ),
            return_exceptions=True,
        )
        for spec, result in zip(wanted, results, strict=True):
            if isinstance(result, Trajectory):
                trajectories.append(result)
            elif isinstance(result, RolloutFailed):
                failures.append(_failure(spec, result))
            else:
                raise result
    return Played(environment.case_id, tuple(trajectories[len(tree) :]), tuple(failures))


def _prefix(spec: RolloutSpec, by_id: dict[str, Trajectory]) -> tuple[Turn, ...]:
    return path_of(by_id[spec.parent_id], by_id)[: spec.branch_turn] if spec.parent_id else ()


def _failure(spec: RolloutSpec, failed: RolloutFailed) -> Failure:
    cause = failed.__cause__ or failed
    return Failure(
        "rollout",
        spec.case_id,
        type(cause).__name__,
        str(cause)[:2000],
        now(),
        teacher=spec.teacher,
        trajectory_id=spec.trajectory_id,
        turn=failed.turn,
        raw=getattr(cause, "raw", None),
    )
