"""Stage 2 without any machinery: plan the rollouts of a tree, play one, play a case (paper, section
3.3, stage 2)."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from medaction.envs.episode import Answers, Episode
from medaction.envs.records import ClinicalEnvironment
from medaction.envs.turns import Observation, Style, Turn
from medaction.llm.calls import BudgetSpent
from medaction.llm.usage import Usage
from medaction.trajectories.records import (
    Failure,
    Played,
    RolloutSpec,
    Trajectory,
    failure_of,
    path_of,
)
from medaction.trajectories.tree import Distance, TreePlan, branch_specs, initial_specs


class Clinician(Protocol):
    """Whoever plays: sees an observation, returns the next turn, without answers.

    `prompt_versions` names the styles that it can play, and the version of what it is told in each.
    """

    name: str
    prompt_versions: Mapping[Style, str]

    async def decide(self, observation: Observation, seed: int) -> Turn: ...


class RolloutFailed(Exception):
    """A rollout that could not go on: the turn that failed, what the rollout had spent by then, and
    why (`__cause__`)."""

    def __init__(self, turn: int, usage: Usage):
        super().__init__(f"turn {turn}")
        self.turn = turn
        self.usage = usage


async def play(
    spec: RolloutSpec, episode: Episode, clinician: Clinician, code_version: str = ""
) -> Trajectory:
    """Play one rollout to its end. The episode's turns so far are the shared part of a branch: the
    turns 1..branch_turn of its parent.

    Raises RolloutFailed from whatever the clinician or the oracle raised.
    """
    shared = len(episode.turns)
    while not episode.ended:
        observation, started = episode.observation, time.monotonic()
        spent = sum((turn.usage for turn in episode.turns[shared:]), Usage())
        try:
            # Each turn has a seed of its own: with one for all a model would repeat itself.
            turn = await clinician.decide(observation, spec.seed + observation.number)
        except Exception as error:
            # Errors of calls bring what the failed turn had cost by then.
            usage = spent + (getattr(error, "usage", None) or Usage())
            raise RolloutFailed(observation.number, usage) from error
        # By the clock: waiting for a place at the server is part of what a turn took.
        turn = replace(turn, usage=replace(turn.usage, seconds=time.monotonic() - started))
        try:
            if episode.oracle.asks_model:  # the other rollouts go on meanwhile
                await asyncio.to_thread(episode.step, turn)
            else:
                episode.step(turn)
        except Exception as error:
            raise RolloutFailed(observation.number, spent + turn.usage) from error
    assert episode.outcome is not None
    turns, prompts = episode.turns[shared:], clinician.prompt_versions[spec.style]
    return Trajectory(spec, turns, episode.outcome, episode.t_max, prompts, code_version)


async def play_tree(
    environment: ClinicalEnvironment,
    plan: TreePlan,
    tree: Sequence[Trajectory],
    skip: frozenset[str],
    clinicians: Mapping[str, Clinician],
    oracle: Answers,
    code_version: str = "",
    distance: Distance | None = None,
) -> Played:
    """Play what is missing of a case's tree: first the initial rollouts, then the branches, each
    group concurrently.

    `tree` is what the store has already; `skip` are rollouts that failed before and are left to
    `retry`. A rollout that fails becomes a Failure; the others go on. When the budget is spent, a
    rollout under way (one that has cost something) is a Failure of class BudgetSpent, so that what
    it cost is on record; one that had not begun is neither played nor failed, only missing, and so
    are the branches: the next run with a larger budget plays them unasked.
    """
    trajectories, failures, not_started, budget_spent = list(tree), list[Failure](), 0, False

    def episode_of(spec: RolloutSpec, by_id: dict[str, Trajectory]) -> Episode:
        shared: tuple[Turn, ...] = ()
        if spec.parent_id:
            shared = path_of(by_id[spec.parent_id], by_id)[: spec.branch_turn]
        return Episode(environment, oracle, plan.t_max, spec.style, shared, plan.ends_loops)

    async def play_all(specs: Iterable[RolloutSpec]) -> None:
        nonlocal not_started, budget_spent
        stored = {trajectory.trajectory_id for trajectory in trajectories} | skip
        # What was played by now: branches share the turns of rollouts that have just ended.
        by_id = {trajectory.trajectory_id: trajectory for trajectory in trajectories}
        todo = [spec for spec in specs if spec.trajectory_id not in stored]
        rollouts = (
            play(spec, episode_of(spec, by_id), clinicians[spec.teacher], code_version)
            for spec in todo
        )
        # One that fails must not cancel the others.
        results = await asyncio.gather(*rollouts, return_exceptions=True)
        for spec, result in zip(todo, results, strict=True):
            if isinstance(result, Trajectory):
                trajectories.append(result)
                continue
            # Cancelled, or a fault outside of a turn: that is no failure of a rollout.
            if not isinstance(result, RolloutFailed):
                raise result
            unpaid = isinstance(result.__cause__, BudgetSpent)
            budget_spent |= unpaid
            # Nothing was spent: it is only missing, and the next run plays it unasked.
            if unpaid and not result.usage.calls:
                not_started += 1
            else:
                error, spent = result.__cause__ or result, (result.turn, result.usage)
                failures.append(failure_of("rollout", spec.case_id, error, spec, *spent))

    await play_all(initial_specs(environment, plan))
    if not budget_spent:
        branches = branch_specs(environment, plan, trajectories, distance)
        await play_all([*branches, *plan.pair_branches])
    return Played(
        environment.case_id, tuple(trajectories[len(tree) :]), tuple(failures), not_started
    )
