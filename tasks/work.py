"""What is to be done for one case in each stage: coroutines from records to records. They touch no
file and know neither Prefect nor Ray, so that any engine can run them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from medaction.clinicians.gold import GOLD_VERSION, reconstruct
from medaction.clinicians.make import make_clinician
from medaction.envs.build import build_environment
from medaction.envs.extraction import make_extractor
from medaction.envs.make_oracle import oracle_of
from medaction.envs.records import BadCase, Built, CaseReport, ClinicalEnvironment
from medaction.envs.verifier import with_second_opinion
from medaction.llm.calls import CallSettings, ModelError, complete, configure, forget, on_trial
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import Teacher
from medaction.llm.usage import Usage
from medaction.trajectories.records import Failure, Played, RolloutSpec, Trajectory, failure_of
from medaction.trajectories.rollout import play_tree
from medaction.trajectories.scoring import distance_of
from medaction.trajectories.tree import TreePlan


class CountingModel:
    """A model as a plain function of messages and schema, that adds up what its calls used.

    It is called from threads beside the event loop in which it was made, and its calls run in that
    loop: a process has one ledger of limits, for one loop at a time.
    """

    def __init__(self, model: Teacher):
        self.model = model
        self.loop = asyncio.get_running_loop()
        self.usage = Usage()

    def __call__(self, messages: list[dict[str, str]], schema: dict[str, Any] | None) -> str:
        call = complete(self.model, messages, schema)
        try:
            text, used = asyncio.run_coroutine_threadsafe(call, self.loop).result()
        except (ModelError, MalformedReply) as error:
            # A refused reply was paid for too.
            self.usage += error.usage
            raise
        self.usage += used
        return text


async def build_case(
    report: CaseReport,
    extractor: Teacher | None,
    min_tests: int,
    calls: CallSettings,
    verifier: Teacher | None = None,
) -> tuple[Built, Usage]:
    """Stage 1: the environment of a report with the verifier's opinion of it, or its refusal, and
    what the models used."""
    if extractor is None and verifier is None:
        # Without a model nothing waits: no thread and no cache are needed.
        return build_environment(report, None, min_tests), Usage()
    configure(calls)
    reading = CountingModel(extractor) if extractor else None
    judging = CountingModel(verifier) if verifier else None
    try:
        # Threads and the loop get copies of this context, so that their calls are noted here.
        with on_trial() as calls_on_trial:
            extract = make_extractor(reading) if reading else None
            built = await asyncio.to_thread(build_environment, report, extract, min_tests)
            if judging:
                built = await asyncio.to_thread(with_second_opinion, judging, report, built)
        if built.refusal:  # a retry must not get the same replies from the call cache
            forget(calls_on_trial)
    except (ModelError, MalformedReply) as error:
        built = Built(
            None, BadCase(type(error).__name__, str(error)[:2000], report.case_id, report.path)
        )
    used = [model.usage for model in (reading, judging) if model]
    return built, sum(used, Usage())


async def play_case(
    environment: ClinicalEnvironment,
    plan: TreePlan,
    teachers: Sequence[Teacher],
    oracle: Teacher | None,
    tree: Sequence[Trajectory],
    skip: frozenset[str],
    code_version: str,
    calls: CallSettings,
) -> Played:
    """Stage 2: everything missing of a case's tree."""
    configure(calls)
    clinicians = {teacher.name: make_clinician(teacher) for teacher in teachers}
    counting_model = CountingModel(oracle) if oracle else None
    answers, distance = oracle_of(environment, counting_model), distance_of(environment, plan)
    result = await play_tree(
        environment, plan, tree, skip, clinicians, answers, code_version, distance
    )
    return replace(result, oracle_usage=counting_model.usage) if counting_model else result


async def gold_of_case(
    environment: ClinicalEnvironment,
    text: str,
    spec: RolloutSpec,
    writer: Teacher,
    t_max: int,
    code_version: str,
    calls: CallSettings,
) -> Trajectory | Failure:
    """The gold trajectory of a case, reconstructed by `writer` from the report's text."""
    configure(calls)
    try:
        with on_trial():
            turns = await reconstruct(writer, text, environment, t_max, spec.seed)
    except (ModelError, MalformedReply) as error:
        return failure_of("gold", spec.case_id, error, spec)
    return Trajectory(spec, turns, "diagnosed", t_max, GOLD_VERSION, code_version)


def cpus_of(teachers: Sequence[Teacher]) -> float:
    """CPUs that a case occupies. A language model answers elsewhere, so that many cases can wait on
    one CPU; the knowledge-graph clinician computes here."""
    return 1.0 if any(teacher.embedded for teacher in teachers) else 0.25
