"""The stages that fan out per case. Each stores what a case gave as soon as the case has finished."""

import hashlib
import itertools
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefect.utilities.annotations import quote

from medaction.clinicians.gold import GOLD_VERSION
from medaction.clinicians.make import prompt_version
from medaction.envs.records import BadCase, Built, CaseReport, ClinicalEnvironment
from medaction.envs.sources import read_cases
from medaction.envs.turns import Style
from medaction.flows.fan_out import fan_out
from medaction.flows.progress import Progress
from medaction.flows.services import Services
from medaction.flows.settings import DistillSettings, EnvironmentSettings, Retry
from medaction.flows.versions import code_version
from medaction.llm.calls import CallSettings
from medaction.llm.teacher import Teacher
from medaction.llm.usage import Usage
from medaction.tasks.cases import (
    cpus_of_case,
    distance_of,
    environment_of_case,
    gold_of_case,
    rollouts_of_case,
)
from medaction.trajectories.records import Failure, RolloutSpec, Trajectory, now
from medaction.trajectories.rollout import Played
from medaction.trajectories.scoring import OPEN, disease_linker, label, with_link
from medaction.trajectories.store import EnvironmentKey, Known, OpenFailure, Store, report_hash
from medaction.trajectories.tree import Place, TreePlan, branch_specs, finished, initial_specs

log = logging.getLogger("medaction")


def build_environments(
    store: Store, settings: EnvironmentSettings, ready: Services, run_id: str, retry: Retry | None
) -> None:
    """Stage 1: an environment, or a refusal with its reason, of every new or changed report."""
    built_with = stage_1_hash(settings)
    reports = _reports_to_build(store, settings, built_with, run_id, retry)
    first = next(reports, None)
    if first is None:
        return
    ready.ray()
    extractor = ready.reach(settings.extractor) if settings.extractor else None
    calls = ready.calls() if extractor else CallSettings()
    taken = itertools.count()

    def waiting() -> Iterator[CaseReport]:
        """Read as places become free: never more reports at hand than are under way."""
        for report in itertools.chain([first], reports):
            next(taken)
            yield report
        progress.ends(next(taken))

    def submit(report: CaseReport):
        return environment_of_case.submit(
            report.case_id, quote((report, extractor, settings.min_tests, calls))
        )

    with Progress("environments", None) as progress:
        for report, result in fan_out(submit, waiting(), settings.in_flight):
            lost = Built(None, BadCase(type(result).__name__, str(result)[:2000])), Usage()
            built, usage = result if isinstance(result, tuple) else lost
            built = with_link(built, report.structured is None, settings.disease_graph)
            store.add_built(report, built, built_with, run_id, usage)
            if built.refusal:
                log.warning("case %s refused: %s", report.case_id, built.refusal)
            progress.advance(failed=built.refusal is not None)


def stage_1_hash(settings: EnvironmentSettings) -> str:
    """What an environment is built with, besides its report: under other settings a case is built
    again."""
    extractor = settings.extractor.identity() if settings.extractor else None
    # Whether the diagnosis is linkable is one of the checks; the open graph is left out so that
    # stores from before stay as they are.
    graph = (
        []
        if settings.disease_graph == OPEN
        else [label(disease_linker(settings.disease_graph).graph)]
    )
    return identity_hash([settings.min_tests, extractor, *graph])


def _reports_to_build(
    store: Store, settings: EnvironmentSettings, built_with: str, run_id: str, retry: Retry | None
) -> Iterator[CaseReport]:
    known = store.known_cases()
    again = {
        failure.case_id
        for failure in store.open_failures("environment")
        if retry and retry.wants(failure)
    }
    for report in reports_of(settings):
        if isinstance(report, BadCase):
            store.add_unreadable(report, run_id)
            log.warning("%s: %s", report.path, report)
            continue
        if (
            known.get(report.case_id) != Known(report_hash(report), built_with)
            or report.case_id in again
        ):
            yield report


def reports_of(settings: EnvironmentSettings) -> Iterator[CaseReport | BadCase]:
    """The cases that the settings name, as far as `only` and `limit` leave them; what cannot be
    read counts towards the limit too."""
    cases = read_cases(settings.cases, frozenset(settings.allow))
    wanted = (case for case in cases if not settings.only or case.case_id in settings.only)
    if settings.evaluation:
        wanted = (
            case if isinstance(case, BadCase) else replace(case, evaluation_only=True)
            for case in wanted
        )
    return itertools.islice(wanted, settings.limit)


def reconstruct_gold(
    store: Store, settings: DistillSettings, ready: Services, run_id: str, retry: Retry | None
) -> None:
    """The gold trajectory of every environment that has none, from the text of its report (RQ1)."""
    if settings.gold is None:
        return
    done = store.trajectory_ids() | {
        failure.trajectory_id for failure in left_alone(store, "gold", retry)
    }
    specs = [gold_spec(place, settings) for place in _chosen(store, settings)]
    wanted = [spec for spec in specs if spec.trajectory_id not in done]
    if not wanted:
        return
    ready.ray()
    writer, calls = ready.reach(settings.gold), ready.calls()

    def submit(spec: RolloutSpec):
        environment = store.environment(spec.environment_id)
        work = quote(
            (
                environment,
                store.report_text(environment.case_id),
                spec,
                writer,
                settings.t_max,
                code_version(),
                calls,
            )
        )
        return gold_of_case.submit(environment.case_id, work)

    with Progress("gold", len(wanted)) as progress:
        for spec, written in fan_out(submit, wanted, settings.in_flight):
            if isinstance(written, Trajectory):
                store.add_rollouts("gold", spec.case_id, [written], [], run_id)
            else:
                failure = (
                    written
                    if isinstance(written, Failure)
                    else lost_failure("gold", spec.case_id, written, spec)
                )
                store.add_rollouts("gold", spec.case_id, [], [failure], run_id)
                log.warning(
                    "case %s, gold: %s: %s",
                    failure.case_id,
                    failure.error_class,
                    failure.message[:300],
                )
            progress.advance(failed=not isinstance(written, Trajectory))


def gold_spec(environment: Place, settings: DistillSettings) -> RolloutSpec:
    """The one gold trajectory of an environment: its writer, prompt, t_max and seed are its
    identity."""
    assert settings.gold is not None
    identity = [settings.gold.identity(), GOLD_VERSION, settings.t_max, settings.seed]
    return RolloutSpec(
        environment.environment_id,
        environment.case_id,
        settings.gold.name,
        "gold",
        0,
        identity_hash(identity),
    )


def _chosen(store: Store, settings: EnvironmentSettings) -> list[EnvironmentKey]:
    only = frozenset(settings.only)
    return [found for found in store.environment_keys() if not only or found.case_id in only]


def left_alone(store: Store, stage: str, retry: Retry | None) -> list[OpenFailure]:
    """What failed before and is not asked for now: a rerun does what is missing, `retry` what
    failed."""
    return [
        failure
        for failure in store.open_failures(stage)
        if retry is None or not retry.wants(failure)
    ]


def lost_failure(
    stage: str, case_id: str, error: object, spec: RolloutSpec | None = None
) -> Failure:
    """What a task ended with when it brought no result of ours: a lost worker, say."""
    teacher, trajectory_id = (spec.teacher, spec.trajectory_id) if spec else (None, None)
    return Failure(
        stage, case_id, type(error).__name__, str(error)[:2000], now(), teacher, trajectory_id
    )


def play_trees(
    store: Store, settings: DistillSettings, ready: Services, run_id: str, retry: Retry | None
) -> None:
    """Stage 2: play what is missing of every environment's tree."""
    plan = tree_plan(settings)
    failed = left_alone(store, "rollout", retry)
    skip = defaultdict[str, frozenset[str]](frozenset)
    for earlier in failed:
        if earlier.trajectory_id:
            skip[earlier.case_id] |= {earlier.trajectory_id}
    left = {earlier.case_id for earlier in failed if earlier.trajectory_id is None}
    chosen = [found for found in _chosen(store, settings) if found.case_id not in left]
    unfinished = list(_unfinished(store, chosen, plan, skip))
    if not unfinished:
        return
    ready.ray()
    teachers = [ready.reach(teacher) for teacher in settings.teachers]
    oracle = ready.reach(settings.oracle) if settings.oracle else None
    calls = (
        CallSettings()
        if oracle is None and all(teacher.embedded for teacher in teachers)
        else ready.calls()
    )

    def submit(place: EnvironmentKey):
        environment, tree = (
            store.environment(place.environment_id),
            store.trajectories(place.environment_id),
        )
        work = quote(
            (environment, plan, teachers, oracle, tree, skip[place.case_id], code_version(), calls)
        )
        return rollouts_of_case.submit(place.case_id, cpus_of_case(teachers), work)

    play_cases(store, submit, unfinished, settings.in_flight, run_id)


def play_cases(
    store: Store,
    submit: Callable[[Any], Any],
    unfinished: Sequence[Any],
    in_flight: int,
    run_id: str,
) -> None:
    """Play and store what is missing of every case, each as it ends, until a budget is spent.
    `submit` makes a Prefect future of `Played` from one of `unfinished`, which has a `case_id`."""
    budget_spent: list[str] = []
    waiting = itertools.takewhile(lambda _: not budget_spent, unfinished)
    with Progress("rollouts", len(unfinished)) as progress:
        for environment, played in fan_out(submit, waiting, in_flight):
            if not isinstance(played, Played):
                played = Played(
                    environment.case_id, (), (lost_failure("rollout", environment.case_id, played),)
                )
            store.add_rollouts(
                "rollout",
                played.case_id,
                played.trajectories,
                played.failures,
                run_id,
                played.oracle_usage,
            )
            for failure in played.failures:
                who = failure.teacher or "all teachers"
                log.warning(
                    "case %s, %s: %s: %s",
                    failure.case_id,
                    who,
                    failure.error_class,
                    failure.message[:300],
                )
            progress.advance(failed=bool(played.failures))
            if played.not_started:
                log.warning(
                    "the budget is spent: what has not begun is left for a run with a larger one"
                )
                budget_spent.append(environment.case_id)


def tree_plan(settings: DistillSettings) -> TreePlan:
    """The tree's shape, with a hash per teacher and style of everything its rollouts depend on: a
    change of any of it is a new rollout."""
    speaking = [teacher for teacher in settings.teachers if not teacher.embedded]
    return TreePlan(
        {teacher.name: rollout_hash(teacher, "schema", settings) for teacher in settings.teachers},
        settings.rollouts,
        settings.launch_points,
        settings.branches,
        settings.t_max,
        settings.launch,
        settings.branch_by,
        settings.disease_graph,
        free_form={teacher.name: teacher.free_form or 0.0 for teacher in speaking},
        free_hashes={teacher.name: rollout_hash(teacher, "free", settings) for teacher in speaking},
    )


def rollout_hash(teacher: Teacher, style: Style, settings: DistillSettings) -> str:
    oracle = settings.oracle.identity() if settings.oracle else None
    return identity_hash(
        [teacher.identity(), prompt_version(teacher, style), oracle, settings.t_max, settings.seed]
    )


def identity_hash(identity: object) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _unfinished(
    store: Store,
    chosen: Iterable[EnvironmentKey],
    plan: TreePlan,
    skip: Mapping[str, frozenset[str]],
) -> Iterator[EnvironmentKey]:
    """Environments whose tree lacks something. Turns are read only where ids cannot tell."""
    played = store.specs()
    for place in chosen:
        left_out = skip[place.case_id]
        if finished(place, plan, played.get(place.environment_id, []), left_out):
            continue
        environment, tree = (
            store.environment(place.environment_id),
            store.trajectories(place.environment_id),
        )
        if missing(environment, plan, tree, left_out):
            yield place


def missing(
    environment: ClinicalEnvironment,
    plan: TreePlan,
    tree: Sequence[Trajectory],
    skip: frozenset[str],
) -> bool:
    """Whether the plan asks for a rollout that the store has neither played nor on record as
    failed."""
    done = {trajectory.trajectory_id for trajectory in tree} | skip
    # While initial rollouts are missing it does not matter where branches will start: that may be
    # dear to find out.
    return any(spec.trajectory_id not in done for spec in initial_specs(environment, plan)) or any(
        spec.trajectory_id not in done
        for spec in branch_specs(environment, plan, tree, distance_of(environment, plan))
    )
