"""The units of retry: one Prefect task a case and stage, named after the case; its work is one Ray
task.

The Prefect task only waits for Ray (143 tasks a second were measured this way, against 10 with
Prefect's own Ray task runner), takes records and returns records, and touches no file: the flow's
process is the only writer.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from prefect import task
from prefect.states import Failed, State

from medaction.clinicians.gold import GOLD_VERSION, reconstruct
from medaction.clinicians.make import make_clinician
from medaction.envs.build import build_environment
from medaction.envs.extraction import make_extractor
from medaction.envs.make_oracle import oracle_of
from medaction.envs.records import BadCase, Built, CaseReport, ClinicalEnvironment
from medaction.llm.calls import CallSettings, ModelError, complete, configure, forget, on_trial
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import Teacher
from medaction.llm.usage import Usage
from medaction.trajectories.records import Failure, RolloutSpec, Trajectory, now
from medaction.trajectories.rollout import Played, play_tree
from medaction.trajectories.scoring import distance_of
from medaction.trajectories.tree import TreePlan

# A Ray worker that dies takes its case with it; Ray starts the case again by itself, this often.
RESTARTS = 3


def _worker_trouble(_task: Any, _run: Any, state: State) -> bool:
    """Retry only what the case is not to blame for: lost workers and nodes."""
    return is_machine_error(state.result(raise_on_failure=False))


def is_machine_error(error: object) -> bool:
    """Whether Ray lost a worker, a node or the cluster."""
    return isinstance(error, ray.exceptions.RayError)


RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_condition_fn": _worker_trouble,
    "persist_result": False,
}


def ray_result(reference: ray.ObjectRef) -> Any:
    """The Ray task's result. An error of our own code comes as itself, not wrapped in a page of
    Ray's."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


class CountingModel:
    """A model as a plain function of messages and schema, that adds up what its calls used.

    Called from a thread beside a running event loop it is given that loop: a process has one
    ledger, for one loop at a time.
    """

    def __init__(self, model: Teacher, loop: asyncio.AbstractEventLoop | None = None):
        self.model = model
        self.loop = loop
        self.usage = Usage()

    def __call__(self, messages: list[dict[str, str]], schema: dict[str, Any] | None) -> str:
        call = complete(self.model, messages, schema)
        try:
            text, used = (
                asyncio.run_coroutine_threadsafe(call, self.loop).result()
                if self.loop
                else asyncio.run(call)
            )
        except (ModelError, MalformedReply) as error:
            self.usage += error.usage
            raise
        self.usage += used
        return text


@ray.remote(max_retries=RESTARTS)
def _build(
    report: CaseReport, extractor: Teacher | None, min_tests: int, calls: CallSettings
) -> tuple[Built, Usage]:
    if extractor is None:
        return build_environment(report, None, min_tests), Usage()
    configure(calls)
    counting_model = CountingModel(extractor)
    try:
        with on_trial() as calls_on_trial:
            built = build_environment(report, make_extractor(counting_model), min_tests)
        if built.refusal:  # a retry must not get the same replies from the call cache
            forget(calls_on_trial)
    except (ModelError, MalformedReply) as error:
        built = Built(
            None, BadCase(type(error).__name__, str(error)[:2000], report.case_id, report.path)
        )
    return built, counting_model.usage


@task(task_run_name="environment: {case_id}", **RETRIES)
def environment_of_case(case_id: str, work: tuple) -> Any:
    """Stage 1 for one case. `work` are the arguments of `_build`, in `quote`: Prefect neither walks
    through them nor links tasks by them.

    The result is (Built, Usage of the extractor); a refused case is a failed task with the refusal
    as its message.
    """
    built, usage = ray_result(_build.remote(*work))
    return (
        Failed(message=str(built.refusal), data=(built, usage)) if built.refusal else (built, usage)
    )


@ray.remote(max_retries=RESTARTS)
def _play(
    environment: ClinicalEnvironment,
    plan: TreePlan,
    teachers: Sequence[Teacher],
    oracle: Teacher | None,
    tree: Sequence[Trajectory],
    skip: frozenset[str],
    code_version: str,
    calls: CallSettings,
) -> Played:
    configure(calls)
    clinicians = {teacher.name: make_clinician(teacher) for teacher in teachers}
    distance = distance_of(environment, plan)

    async def play_it() -> Played:
        counting_model = CountingModel(oracle, asyncio.get_running_loop()) if oracle else None
        answers = oracle_of(environment, counting_model)
        result = await play_tree(
            environment, plan, tree, skip, clinicians, answers, code_version, distance
        )
        return replace(result, oracle_usage=counting_model.usage) if counting_model else result

    return asyncio.run(play_it())


@task(task_run_name="rollouts: {case_id}", **RETRIES)
def rollouts_of_case(case_id: str, cpus: float, work: tuple) -> Any:
    """Stage 2 for one case: everything missing of its tree, as Played; failed if any of its
    rollouts failed.

    `work` are the arguments of `_play`, submitted in `quote`.
    """
    return state_of(ray_result(_play.options(num_cpus=cpus).remote(*work)))


def state_of(result: Played) -> Any:
    """A case's rollouts as the state of its task: failed, with the first reason, if any of them
    failed; what did succeed is with it."""
    if result.failures:
        failure, count = result.failures[0], len(result.failures)
        reason = f"{failure.teacher}: {failure.error_class}: {failure.message}"
        message = f"{count} of {count + len(result.trajectories)} rollouts failed; {reason}"
        return Failed(message=message[:500], data=result)
    return result


def cpus_of_case(teachers: Sequence[Teacher]) -> float:
    """A language model answers elsewhere, so that many cases can wait on one CPU; the
    knowledge-graph clinician computes here."""
    return 1.0 if any(teacher.embedded for teacher in teachers) else 0.25


@ray.remote(max_retries=RESTARTS)
def _reconstruct(
    environment: ClinicalEnvironment,
    text: str,
    spec: RolloutSpec,
    writer: Teacher,
    t_max: int,
    code_version: str,
    calls: CallSettings,
) -> Trajectory | Failure:
    configure(calls)
    try:
        with on_trial():
            turns = asyncio.run(reconstruct(writer, text, environment, t_max, spec.seed))
    except (ModelError, MalformedReply) as error:
        return Failure(
            "gold",
            spec.case_id,
            type(error).__name__,
            str(error)[:2000],
            now(),
            spec.teacher,
            spec.trajectory_id,
            raw=getattr(error, "raw", None),
        )
    return Trajectory(spec, turns, "diagnosed", t_max, GOLD_VERSION, code_version)


@task(task_run_name="gold: {case_id}", **RETRIES)
def gold_of_case(case_id: str, work: tuple) -> Any:
    """The gold trajectory of one case, reconstructed from its report; a Failure fails the task.
    `work`: arguments of `_reconstruct`."""
    gold: Trajectory | Failure = ray_result(_reconstruct.remote(*work))
    return Failed(message=gold.message[:500], data=gold) if isinstance(gold, Failure) else gold
