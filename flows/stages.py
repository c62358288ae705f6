"""The stages that fan out per case. Each stores what a case gave as soon as the case has ended."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from medaction.envs.records import BadCase, Built, CaseReport
from medaction.flows.fan_out import fan_out
from medaction.flows.missing import (
    Mended,
    cases_without_truth,
    chosen_environments,
    gold_to_write,
    reports_to_build,
    skips,
    stage_1_hash,
    tree_plan,
    trees_to_play,
)
from medaction.flows.progress import Progress
from medaction.flows.services import Services
from medaction.flows.settings import DistillSettings, EnvironmentSettings, Retry
from medaction.flows.versions import code_version
from medaction.llm.calls import CallSettings
from medaction.llm.usage import Usage
from medaction.tasks.engine import Engine, Unit
from medaction.tasks.work import build_case, cpus_of, gold_of_case, play_case
from medaction.trajectories.batch import EnvironmentBatch
from medaction.trajectories.records import Failure, Played, RolloutSpec, Trajectory, failure_of
from medaction.trajectories.scoring import with_link
from medaction.trajectories.store import EnvironmentKey, Store
from medaction.trajectories.stored_trees import tree_of
from medaction.trajectories.table_rows import BuiltCase

log = logging.getLogger("medaction")


def build_environments(
    store: Store, settings: EnvironmentSettings, ready: Services, run_id: str, retry: Retry | None
) -> None:
    """Stage 1: an environment, or a refusal with its reason, of every new or changed report."""
    # The first one tells whether there is work, before anything is started.
    reports = readable_reports(store, reports_to_build(store, settings, retry), run_id)
    report = next(reports, None)
    if report is None:
        return
    engine = ready.engine()
    extractor = ready.reach(settings.extractor) if settings.extractor else None
    verifier = ready.reach(settings.verifier) if settings.verifier else None
    # Without a model no ledger is started, which on Ray is an actor.
    calls = ready.calls() if extractor or verifier else CallSettings()
    reports = itertools.chain([report], reports)
    count = itertools.count()

    def waiting() -> Iterator[CaseReport]:
        """Read as places become free: never more reports at hand than are under way."""
        for report in reports:
            next(count)
            yield report
        progress.ends(next(count))

    def unit_of(report: CaseReport) -> Unit:
        arguments = (report, extractor, settings.min_tests, calls, verifier)
        return Unit("environment", report.case_id, 1.0, build_case, arguments)

    built_with = stage_1_hash(settings)
    with (
        Progress("environments", None, "without one") as progress,
        EnvironmentBatch(store, built_with, run_id) as batch,
    ):
        results = fan_out(engine, unit_of, waiting(), settings.in_flight)
        for report, result in itertools.chain.from_iterable(results):
            if not isinstance(result, tuple):  # the unit ended with an exception
                result = Built(None, BadCase(type(result).__name__, str(result)[:2000])), Usage()
            built, usage = result
            # In the flow's process, which has the linker in memory already.
            built = with_link(built, report.structured is None, settings.disease_graph)
            batch.add(BuiltCase(report, built, usage))
            if built.refusal:
                log.warning("case %s refused: %s", report.case_id, built.refusal)
            progress.advance(failed=built.refusal is not None)


def readable_reports(
    store: Store, reports: Iterator[CaseReport | BadCase | Mended], run_id: str
) -> Iterator[CaseReport]:
    """The reports; what could not be read is put on record, and what is mended taken off it."""
    for report in reports:
        if isinstance(report, CaseReport):
            yield report
        elif isinstance(report, Mended):
            store.resolve_unreadable(report.case_id, report.path, report.reason)
        else:
            store.add_unreadable(report, run_id)
            log.warning("%s: %s", report.path, report)


def reconstruct_gold(
    store: Store, settings: DistillSettings, ready: Services, run_id: str, retry: Retry | None
) -> None:
    """The gold trajectory of every environment that has none, from the text of its report (RQ1)."""
    specs = gold_to_write(store, settings, retry)
    if not specs or settings.gold is None:
        return
    engine = ready.engine()
    writer, calls = ready.reach(settings.gold), ready.calls()

    def unit_of(spec: RolloutSpec) -> Unit:
        environment = store.environment(spec.environment_id)
        # Read as its turn comes: the texts of all reports would fill the memory.
        [(text,)] = store.rows('select "text" from cases where case_id = ?', [spec.case_id])
        arguments = (environment, text, spec, writer, settings.t_max, code_version(), calls)
        return Unit("gold", spec.case_id, 1.0, gold_of_case, arguments)

    with Progress("gold", len(specs)) as progress:
        results = fan_out(engine, unit_of, specs, settings.in_flight)
        for spec, result in itertools.chain.from_iterable(results):
            if not isinstance(result, Trajectory | Failure):
                result = failure_of("gold", spec.case_id, result, spec)
            if failed := isinstance(result, Failure):
                store.add_rollouts("gold", spec.case_id, [], [result], run_id)
                _warn(result)
            else:
                store.add_rollouts("gold", spec.case_id, [result], [], run_id)
            progress.advance(failed=failed)


def _warn(failure: Failure) -> None:
    player = f"{failure.stage}, {failure.teacher or 'all teachers'}"
    message = f"{failure.error_class}: {failure.message[:300]}"
    log.warning("case %s, %s: %s", failure.case_id, player, message)


def play_trees(
    store: Store,
    settings: DistillSettings,
    ready: Services,
    run_id: str,
    retry: Retry | None,
    pairs: Mapping[str, tuple[RolloutSpec, ...]] | None = None,
) -> None:
    """Stage 2: play what is missing of every environment's tree; or with `pairs` these branches, by
    environment (`flows.pairs`)."""
    plan, skip = tree_plan(settings), skips(store, retry)
    # Whoever names a failure wants it played, whatever becomes of it.
    left_out = frozenset[str]() if retry else cases_without_truth(store, settings)
    if left_out:
        log.warning(
            "cases that are not played, because their true diagnosis is no node of the disease"
            " graph and nothing of them could be kept: %d (--links gives it a node,"
            " --no-skip-unlinkable plays them all the same)",
            len(left_out),
        )
    branches = pairs or {}
    if pairs is None:
        places = list(trees_to_play(store, settings, plan, skip, left_out))
    else:
        chosen = chosen_environments(store, settings)
        places = [place for place in chosen if place.environment_id in pairs]
    if not places:
        return
    engine = ready.engine()
    teachers = [ready.reach(teacher) for teacher in settings.teachers]
    oracle = ready.reach(settings.oracle) if settings.oracle else None
    embedded = oracle is None and all(teacher.embedded for teacher in teachers)
    calls = CallSettings() if embedded else ready.calls()
    # One query: on a first run no tree needs to be asked for at all.
    begun = {id_ for (id_,) in store.rows("select distinct environment_id from trajectories")}

    def unit_of(place: EnvironmentKey) -> Unit:
        environment = store.environment(place.environment_id)
        has_tree = place.environment_id in begun
        tree = tree_of(store, place.environment_id) if has_tree else []
        ids = skip.get(place.case_id) or frozenset()
        whole = replace(plan, pair_branches=branches.get(place.environment_id, ()))
        arguments = (environment, whole, teachers, oracle, tree, ids, code_version(), calls)
        return Unit("rollouts", place.case_id, cpus_of(teachers), play_case, arguments)

    play_cases(store, engine, unit_of, places, settings.in_flight, run_id)


def play_cases(
    store: Store,
    engine: Engine,
    unit_of: Callable[[Any], Unit],
    places: Iterable[Any],
    in_flight: int,
    run_id: str,
) -> None:
    """Play and store what is missing of every case, each as it ends, until a budget is spent.
    `unit_of` makes the unit that returns `Played` from one of `places`, which has a `case_id`."""
    places = list(places)
    budget_spent: list[str] = []
    # Lazy: it ends as soon as a case says that the budget is spent.
    waiting = itertools.takewhile(lambda _: not budget_spent, places)
    with Progress("rollouts", len(places)) as progress:
        for ended in fan_out(engine, unit_of, waiting, in_flight):
            cases = [_played(place.case_id, result) for place, result in ended]
            store.add_played("rollout", cases, run_id)
            for case in cases:
                for failure in case.failures:
                    _warn(failure)
                progress.advance(failed=bool(case.failures))
            if any(case.not_started for case in cases):
                log.warning(
                    "the budget is spent: what has not begun is left for a run with a larger one"
                )
                budget_spent.append(cases[0].case_id)


def _played(case_id: str, result: object) -> Played:
    """What a unit ended with; whatever is no result of ours is the case's failure."""
    if isinstance(result, Played):
        return result
    return Played(case_id, (), (failure_of("rollout", case_id, result),))
