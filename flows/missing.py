"""What a run still has to do, told by its store and its settings; without Prefect and Ray.

So a wrong path is an error, and a finished run is known to be finished, before a server starts.
"""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from medaction.clinicians.gold import GOLD_VERSION
from medaction.clinicians.make import prompt_version
from medaction.envs.build import RULES
from medaction.envs.records import BadCase, CaseReport
from medaction.envs.sources import read_cases
from medaction.envs.turns import Style
from medaction.flows.settings import DistillSettings, EnvironmentSettings, Retry
from medaction.llm.calls import api_key
from medaction.llm.teacher import Teacher
from medaction.trajectories.files import STORE, is_run
from medaction.trajectories.records import WORKER_LOST, OpenFailure, RolloutSpec
from medaction.trajectories.scoring import Aids, disease_linker, distance_of, unlinkable
from medaction.trajectories.store import EnvironmentKey, Store, StoreError
from medaction.trajectories.stored_trees import tree_of
from medaction.trajectories.table_rows import report_hash
from medaction.trajectories.tree import TreePlan, branch_specs, finished, initial_specs
from medaction.words.versions import constants_of, version_of


def check_inputs(settings: EnvironmentSettings) -> None:
    """What can be checked before anything starts: there is a case to read, keys and model files
    are there. Raises BadCase or MedactionError with the remedy."""
    # Reading raises where there is nothing to read; the first case is enough to know.
    next(reports_of(settings), None)
    for _, model in settings.models():
        if model.local:
            _ = model.model_folder if model.folder else model.model_file
        elif not model.embedded:
            api_key(model)


def unknown_cases(settings: EnvironmentSettings) -> list[str]:
    """The ids of `settings.only` that no case bears; reading stops when all are found."""
    missing = set(settings.only)
    if missing:
        for case in read_cases(settings.cases, frozenset(settings.allow)):
            missing.discard(case.case_id)
            if not missing:
                break
    return sorted(missing)


SMALL = 64
"""Cases of a run that this process plays by itself: starting Prefect and Ray costs more than they
save (docs/rollouts.md has the measurement)."""


def is_small(settings: EnvironmentSettings) -> bool:
    """Whether starting Prefect and Ray would not pay. Reports are read only where neither a limit
    nor named cases tell: `retry` names its cases, and would read all the others to count them.

    A run without models only reads reports, by rules. The flow's own part (reading, linking,
    storing) is as long as what workers could take over, and they cost as much CPU again.
    """
    if not any(settings.models()):
        return True
    at_most = [count for count in (len(settings.only), settings.limit) if count]
    if at_most and min(at_most) <= SMALL:
        return True
    return sum(1 for _ in itertools.islice(reports_of(settings), SMALL + 1)) <= SMALL


def is_finished(store: Store, settings: DistillSettings) -> bool:
    """Whether the store has all that the settings ask for, but for failures left to `retry`."""
    reports, gold = reports_to_build(store, settings, None), gold_to_write(store, settings, None)
    plan, left_out = tree_plan(settings), cases_without_truth(store, settings)
    trees = trees_to_play(store, settings, plan, skips(store, None), left_out)
    # Lazily: the first thing that is missing ends the search.
    return all(next(iter(items), None) is None for items in (reports, gold, trees))


def settings_for(out: Path, retry: Retry) -> EnvironmentSettings | None:
    """The settings of the last run in `out`, for just the cases whose failures `retry` wants; None:
    no such failure is open.

    Raises StoreError when there is no run in `out` or it is in use, and ValueError when `retry`
    names a case without an open failure.
    """
    path = out / STORE
    if not is_run(out):
        raise StoreError(f"{out} is not the folder of a run: it has no {STORE}")
    with Store(path) as store:
        flow_name, last = store.last_run()
        open_ = store.open_failures("environment", "gold", "rollout")
    if flow_name == "evaluate":
        raise ValueError(
            f"{out} is an evaluation: run `medaction evaluate` on it again with --retry-failed"
        )
    failing = {failure.case_id for failure in open_}
    if unknown := sorted(set(retry.cases) - failing):
        raise ValueError(
            f"no open failure of {', '.join(unknown)}; there are:"
            f" {', '.join(sorted(failing)) or 'none'}"
        )
    # A refused case comes out as before, unless a model extracts it anew: it must be named.
    named = retry.cases or retry.stages or retry.errors
    chosen = [failure for failure in open_ if retry.wants(failure)]
    case_ids = sorted({failure.case_id for failure in chosen if named or not failure.is_refusal})
    if not case_ids:
        return None
    kind = DistillSettings if flow_name == "distill" else EnvironmentSettings
    # The folder may have moved, and a limit was of the first run: the cases are named now.
    change = {"out": out, "only": case_ids, "limit": None}
    return kind.model_validate_json(last).model_copy(update=change)


# --- stage 1 --------------------------------------------------------------------------------------


def reports_of(settings: EnvironmentSettings) -> Iterator[CaseReport | BadCase]:
    """The cases that the settings name, as far as `only` and `limit` leave them; what cannot be
    read counts towards the limit too."""
    cases = read_cases(settings.cases, frozenset(settings.allow))
    reports = (case for case in cases if not settings.only or case.case_id in settings.only)
    if settings.evaluation:
        reports = (
            case if isinstance(case, BadCase) else replace(case, evaluation_only=True)
            for case in reports
        )
    return itertools.islice(reports, settings.limit)


@dataclass(frozen=True)
class Mended:
    """Something that could not be read before, and now can be or is no longer there."""

    case_id: str
    path: str
    reason: str


def reports_to_build(
    store: Store, settings: EnvironmentSettings, retry: Retry | None
) -> Iterator[CaseReport | BadCase | Mended]:
    """Reports that are new, changed, built under other settings, or to be tried again; what could
    not be read and is not on record yet; and, last, what is on record and can be read now."""
    built_with = stage_1_hash(settings)
    rows = store.rows("select case_id, report_hash, built_with from cases")
    stored = {case_id: built_from for case_id, *built_from in rows}
    of_reading = "from failures where stage = 'read' and resolved is null"
    unreadable = set(store.rows(f"select case_id, path, error_class {of_reading}"))
    still: set[tuple[str, str, str]] = set()
    unread = {path for _, path, _ in unreadable}
    read: set[str] = set()
    again = {failure.case_id for failure in store.open_failures("environment")} - {
        failure.case_id for failure in left_alone(store, "environment", retry)
    }
    for report in reports_of(settings):
        if isinstance(report, BadCase):
            fault = (report.case_id, report.path, report.reason)
            still.add(fault)
            # The same fault of the same file is not put on record at every rerun.
            if fault not in unreadable:
                yield report
            continue
        read |= {report.path} & unread
        is_stored = stored.get(report.case_id) == [report_hash(report), built_with]
        if not is_stored or report.case_id in again:
            yield report
    if not settings.only and not settings.limit:  # these leave files unread
        cases = Path(settings.cases)
        for fault in sorted(unreadable - still):
            mended = Mended(*fault)
            # Of 'package.tar.gz!member' the package; what is read by its id has no place at all.
            places = (mended.path, mended.path.partition("!")[0])
            if mended.path in read or any(Path(place).is_relative_to(cases) for place in places):
                yield mended  # and not of other reports


def stage_1_hash(settings: EnvironmentSettings) -> str:
    """What an environment is built with, besides its report: settings, questions and thresholds of
    the rules, and what the diagnosis is linked with. Under others a case is built again."""
    extractor = settings.extractor.identity() if settings.extractor else None
    linker = disease_linker(settings.disease_graph)
    inputs = [settings.min_tests, extractor, linker.version, constants_of(*RULES)]
    if settings.verifier:
        inputs += [settings.verifier.identity(), constants_of("medaction.envs.verifier")]
    return version_of(inputs)


# --- stage 2 --------------------------------------------------------------------------------------


def left_alone(store: Store, stage: str, retry: Retry | None) -> list[OpenFailure]:
    """What failed before and is not to be tried now. A rerun does what is missing, and what was
    lost with its worker, for which the case is not to blame; `retry` does what it names."""
    return [
        failure
        for failure in store.open_failures(stage)
        if failure.error_class != WORKER_LOST and (retry is None or not retry.wants(failure))
    ]


def skips(store: Store, retry: Retry | None) -> dict[str, frozenset[str] | None]:
    """By case, the rollouts that are left alone; None: all of them, as the whole case failed."""
    ids = defaultdict[str, set[str | None]](set)
    for failure in left_alone(store, "rollout", retry):
        ids[failure.case_id].add(failure.trajectory_id)
    return {
        # A failure without a rollout is the whole case's: a lost worker, say.
        case_id: None if None in failed else frozenset(id_ for id_ in failed if id_)
        for case_id, failed in ids.items()
    }


@dataclass(frozen=True, slots=True)
class ChosenCases:
    """The cases that `only` and `limit` leave. ids: of those that can be read, and of all that are
    named; unreadable: case_id and path of those within the limit that cannot."""

    ids: frozenset[str]
    unreadable: frozenset[tuple[str, str]] = frozenset()


def chosen_cases(settings: EnvironmentSettings) -> ChosenCases | None:
    """None: all that the store has."""
    # A limit counts cases as they are read, so that they must be read to know which.
    if settings.limit is None:
        return ChosenCases(frozenset(settings.only)) if settings.only else None
    ids, unreadable = set(), set()
    for report in reports_of(settings):
        if isinstance(report, BadCase):
            unreadable.add((report.case_id, report.path))
        else:
            ids.add(report.case_id)
    return ChosenCases(frozenset(ids), frozenset(unreadable))


def chosen_environments(store: Store, settings: EnvironmentSettings) -> list[EnvironmentKey]:
    chosen = chosen_cases(settings)
    return [key for key in store.environment_keys() if chosen is None or key.case_id in chosen.ids]


def gold_to_write(
    store: Store, settings: DistillSettings, retry: Retry | None
) -> list[RolloutSpec]:
    """The gold trajectory of every environment that has none (RQ1)."""
    if settings.gold is None:
        return []
    stored = store.trajectory_ids() | {
        failure.trajectory_id for failure in left_alone(store, "gold", retry)
    }
    # An environment has one: its writer, prompt, t_max and seed are its identity.
    made_by = version_of([settings.gold.identity(), GOLD_VERSION, settings.t_max, settings.seed])
    writer, places = settings.gold.name, chosen_environments(store, settings)
    specs = [
        RolloutSpec(place.environment_id, place.case_id, writer, "gold", 0, made_by)
        for place in places
    ]
    return [spec for spec in specs if spec.trajectory_id not in stored]


def tree_plan(settings: DistillSettings) -> TreePlan:
    """The tree's shape, with a hash per teacher and style of everything its rollouts depend on: a
    change of any of it is a new rollout."""
    oracle = settings.oracle.identity() if settings.oracle else None

    def rollout_hash(teacher: Teacher, style: Style) -> str:
        prompts = prompt_version(teacher, style)
        return version_of([teacher.identity(), prompts, oracle, settings.t_max, settings.seed])

    language_models = [teacher for teacher in settings.teachers if not teacher.embedded]
    return TreePlan(
        {teacher.name: rollout_hash(teacher, "schema") for teacher in settings.teachers},
        settings.rollouts,
        settings.launch_points,
        settings.branches,
        settings.t_max,
        settings.launch,
        settings.branch_by,
        settings.disease_graph,
        free_form={teacher.name: teacher.free_form or 0.0 for teacher in language_models},
        # Free-form rollouts have prompts of their own, and change with these alone.
        free_hashes={teacher.name: rollout_hash(teacher, "free") for teacher in language_models},
    )


def cases_without_truth(store: Store, settings: DistillSettings) -> frozenset[str]:
    """Cases that `skip_unlinkable` leaves out: their true diagnosis is no node of the disease
    graph, so that pruning could keep none of their rollouts. Without pruning every case counts."""
    if not settings.skip_unlinkable or settings.strategy == "none":
        return frozenset()
    return unlinkable(store, settings.disease_graph, settings.test_graph, aids_of(settings))


def aids_of(settings: DistillSettings) -> Aids:
    return Aids(settings.links, settings.encoder, settings.maxo, settings.loinc2hpo)


def trees_to_play(
    store: Store,
    settings: EnvironmentSettings,
    plan: TreePlan,
    skip: Mapping[str, frozenset[str] | None],
    left_out: Collection[str] = (),
) -> Iterator[EnvironmentKey]:
    """Environments whose tree lacks something, but for the cases `left_out`. Turns are read only
    where ids cannot tell."""
    # Ids and shapes alone: turns are most of a store.
    specs = store.specs()
    for place in chosen_environments(store, settings):
        if place.case_id in left_out:
            continue
        ids = skip.get(place.case_id, frozenset())
        if ids is None or finished(place, plan, specs.get(place.environment_id, []), ids):
            continue
        if place.environment_id not in specs and not ids:  # most of a first run: nothing to read
            yield place
            continue
        environment = store.environment(place.environment_id)
        tree = tree_of(store, place.environment_id)
        stored = {trajectory.trajectory_id for trajectory in tree} | ids
        # Lazily: while initial rollouts are missing it does not matter where branches will start,
        # which may be dear to find out.
        planned = itertools.chain(
            initial_specs(environment, plan),
            branch_specs(environment, plan, tree, distance_of(environment, plan)),
        )
        if any(spec.trajectory_id not in stored for spec in planned):
            yield place
