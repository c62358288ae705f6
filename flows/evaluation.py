"""An evaluation: the model under test plays benchmark cases in the same environments as teachers
do, and judges score what it played."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import chain, product
from typing import Any

from medaction.clinicians.make import prompt_version
from medaction.envs.records import ClinicalEnvironment
from medaction.evaluation.dialogue import DIALOGUE_VERSION
from medaction.evaluation.floor import constant_orders
from medaction.evaluation.free_text import FREE_TEXT_VERSION
from medaction.evaluation.judges import OFFLINE, judge_key
from medaction.evaluation.judging import (
    Judgement,
    failed_score,
    is_complete,
    judgement_json,
    judgement_of,
    score_of,
)
from medaction.evaluation.protocol import Protocol, protocol
from medaction.evaluation.results import QUERY, ResultRow, result_of, write_result
from medaction.flows.artifacts import flow_run_id, note_ended
from medaction.flows.fan_out import fan_out
from medaction.flows.missing import ChosenCases, chosen_cases, skips, trees_to_play
from medaction.flows.progress import Progress
from medaction.flows.services import Services, services
from medaction.flows.settings import EvaluationSettings, Retry
from medaction.flows.stages import build_environments, play_cases
from medaction.flows.versions import code_version, versions
from medaction.llm.calls import CallSettings
from medaction.llm.teacher import Teacher
from medaction.tasks.engine import Unit
from medaction.tasks.evaluation import EvaluatedModels, JudgePass, judge_case, play_benchmark_case
from medaction.tasks.work import cpus_of
from medaction.trajectories.files import STORE
from medaction.trajectories.records import Failure, Trajectory, failure_of, now
from medaction.trajectories.scoring import disease_linker
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import tree_of
from medaction.trajectories.tree import TreePlan, initial_specs
from medaction.words.versions import version_of


def run_evaluate(settings: EvaluationSettings, retry: Retry | None = None) -> dict[str, Any]:
    """Build the environments, play the runs, judge them, and write result.json and result.md into
    `settings.out`.

    Does only what the store there lacks, so a finished evaluation is only scored again. What failed
    before is left alone, but for what `retry` names; judgements that a judge failed to give are
    always asked for again. The store is marked evaluation-only. Raises StoreError (the store is in
    use, or holds training cases) and BadCase (no case can be read).
    """
    with Store(settings.out / STORE) as store:
        # So that `export` refuses it: what is played on a benchmark must never be trained on.
        store.claim(evaluation_only=True)
        with store.run("evaluate", settings.model_dump_json(), flow_run_id(), versions()) as run_id:
            note_ended(store)
            with services(settings, store) as ready:
                build_environments(store, settings, ready, run_id, retry)
                chosen = chosen_cases(settings)
                environments = chosen_environments(store, chosen)
                play_runs(store, settings, environments, ready, run_id, retry)
                judge_runs(store, settings, environments, ready, run_id)
        # Behind the run's end, so that the store says that it has ended before anything is
        # reported.
        result = collect(store, settings, chosen, environments)
        write_result(result, settings.out)
        return result


def protocol_of(settings: EvaluationSettings) -> Protocol:
    return protocol(settings.protocol, settings.mode, settings.t_max)


def plan_of(settings: EvaluationSettings) -> TreePlan:
    """`runs` rollouts from o1, without branches; a change of anything that a rollout depends on is
    a new rollout."""
    rules, model = protocol_of(settings), settings.model
    helpers = [
        helper.identity() if helper else None for helper in (settings.oracle, settings.examiner)
    ]
    prompts = prompt_version(model)
    played_by: list[Any] = []
    if rules.dialogue:
        prompts = prompts if model.embedded else DIALOGUE_VERSION
        played_by = [rules.rules, rules.mode]
    elif reader := settings.read_by:
        prompts, played_by = FREE_TEXT_VERSION, [reader.identity()]
    # `played_by` is empty under our own schema: rollouts played before it was added keep their ids.
    identity = [model.identity(), prompts, helpers, rules.t_max, settings.seed, *played_by]
    return TreePlan(
        {model.name: version_of(identity)},
        settings.runs,
        0,
        0,
        rules.t_max,
        # MedR-Bench's own dialogue lets a model go round in circles.
        ends_loops=not rules.dialogue,
    )


def chosen_environments(store: Store, chosen: ChosenCases | None) -> list[ClinicalEnvironment]:
    """Of the chosen cases: a benchmark's few hundred, so whole."""
    return [one for one in store.environments() if chosen is None or one.case_id in chosen.ids]


def play_runs(
    store: Store,
    settings: EvaluationSettings,
    environments: Sequence[ClinicalEnvironment],
    ready: Services,
    run_id: str,
    retry: Retry | None,
) -> None:
    """Play what is missing of every case's runs."""
    plan, rules, skip = plan_of(settings), protocol_of(settings), skips(store, retry)
    lacking = {place.environment_id for place in trees_to_play(store, settings, plan, skip)}
    unfinished = [world for world in environments if world.environment_id in lacking]
    if not unfinished:
        return
    engine = ready.engine()
    model = ready.reach(settings.model)
    oracle = ready.reach(settings.oracle) if settings.oracle else None
    examiner = ready.reach(settings.examiner) if settings.examiner else None
    reader = ready.reach(settings.read_by) if settings.read_by else None
    players = EvaluatedModels(model, oracle, examiner, reader)
    # No model is called: no cache, no ledger.
    calls = CallSettings() if model.embedded and not (oracle or examiner) else ready.calls()
    summaries = summaries_of(store)

    def unit_of(environment: ClinicalEnvironment) -> Unit:
        tree = tree_of(store, environment.environment_id)
        summary = summaries.get(environment.case_id, "")
        ids = skip.get(environment.case_id) or frozenset()
        arguments = (environment, summary, rules, plan, players, tree, ids, code_version(), calls)
        case_id, cpus = environment.case_id, cpus_of([model])
        return Unit("rollouts", case_id, cpus, play_benchmark_case, arguments)

    play_cases(store, engine, unit_of, unfinished, settings.in_flight, run_id)


def summaries_of(store: Store) -> dict[str, str]:
    """The case summary of every MedR-Bench case, with which its report ends."""
    rows = store.rows(
        "select case_id, substr(\"text\", (publication->>'$.summary_at')::integer + 1) from cases"
        " where publication->>'$.summary_at' is not null"
    )
    return dict(rows)


def passes_of(settings: EvaluationSettings, ready: Services | None = None) -> list[JudgePass]:
    """Every judge, as often as it judges, in the order of the settings. Its temperature is 0, and 1
    for repeats, unless it is set."""
    passes = []
    for name in settings.judges:
        if name == OFFLINE:
            graph = settings.disease_graph
            version = disease_linker(graph).version
            # Once: it gives the same verdict every time.
            passes.append(JudgePass(judge_key(None, version), None, disease_graph=graph))
            continue
        model = Teacher.parse(name)
        # Repeats at 0 would agree with themselves and say nothing of how sure the judge is.
        if "temperature" not in model.model_fields_set:
            model = model.model_copy(update={"temperature": 0.0 if settings.repeats == 1 else 1.0})
        key, server = judge_key(model, ""), ready.reach(model) if ready else model
        passes += [JudgePass(key, server, repeat) for repeat in range(settings.repeats)]
    return passes


Judging = tuple[JudgePass, Trajectory]


def judgings_to_do(
    store: Store, settings: EvaluationSettings, environments: Sequence[ClinicalEnvironment]
) -> dict[str, tuple[ClinicalEnvironment, list[Judging]]]:
    """By case, what every judge has not judged yet."""
    plan, passes = plan_of(settings), passes_of(settings)
    complete, stored = set(_judgements(store, settings)), store.trajectory_ids()
    work = {}
    for environment in environments:
        ids = {spec.trajectory_id for spec in initial_specs(environment, plan)} & stored
        if all(judge.place(id_) in complete for id_ in ids for judge in passes):
            continue  # its turns need not even be read
        tree = tree_of(store, environment.environment_id)
        judgings = [
            (judge, trajectory)
            for judge, trajectory in product(passes, tree)
            if trajectory.trajectory_id in ids
            and judge.place(trajectory.trajectory_id) not in complete
        ]
        work[environment.case_id] = environment, judgings
    return work


def judge_runs(
    store: Store,
    settings: EvaluationSettings,
    environments: Sequence[ClinicalEnvironment],
    ready: Services,
    run_id: str,
) -> None:
    """Let every judge judge what it has not judged yet."""
    rules, cases = protocol_of(settings), judgings_to_do(store, settings, environments)
    if not cases:
        return
    engine = ready.engine()
    # Local judges are started here, once it is known that there is something to judge.
    servers = {(judge.key, judge.repeat): judge.model for judge in passes_of(settings, ready)}
    offline = None in servers.values()
    calls = CallSettings() if set(servers.values()) == {None} else ready.calls()
    summaries = summaries_of(store)

    def unit_of(case_id: str) -> Unit:
        environment, judgings = cases[case_id]
        judgings = [
            (replace(judge, model=servers[judge.key, judge.repeat]), trajectory)
            for judge, trajectory in judgings
        ]
        arguments = (environment, summaries.get(case_id, ""), rules, judgings, calls)
        # The offline judge computes; a model is only waited for.
        return Unit("judge", case_id, 1.0 if offline else 0.25, judge_case, arguments)

    with Progress("judging", len(cases)) as progress:
        results = fan_out(engine, unit_of, list(cases), settings.in_flight)
        for case_id, result in chain.from_iterable(results):
            if isinstance(result, list):
                rows, failures = _judgement_rows(rules, cases[case_id][1], result)
            else:
                lost = failure_of("judge", case_id, result)
                rows, failures = [], [replace(lost, protocol=rules.name)]
            store.add_judgements(rows, failures, run_id)
            progress.advance(failed=bool(failures))


def _judgement_rows(
    rules: Protocol, judgings: Sequence[Judging], judgements: Sequence[Judgement]
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """What the judges gave, as rows of the store, and a failure for each that gave no verdict."""
    rows, failures = [], []
    for (judge, trajectory), judgement in zip(judgings, judgements, strict=True):
        id_, key, repeat = judge.place(trajectory.trajectory_id)
        row = {"trajectory_id": id_, "protocol": rules.name, "judge": key, "repeat": repeat}
        rows.append(row | {"judgement": judgement_json(judgement)})
        if not is_complete(judgement):
            notes, case_id = "; ".join(judgement.notes)[:2000], trajectory.spec.case_id
            failed = Failure("judge", case_id, "NoVerdict", notes, now(), key, id_)
            failures.append(replace(failed, protocol=rules.name, repeat=repeat))
    return rows, failures


def _judgements(
    store: Store, settings: EvaluationSettings, complete: bool = True
) -> dict[tuple[str, str, int], Judgement]:
    """By trajectory, judge and repeat, under the rules of the settings."""
    rows = store.rows(
        "select trajectory_id, judge, repeat, judgement from judgements where protocol = ?",
        [protocol_of(settings).name],
    )
    judgements = (((id_, judge, repeat), judgement_of(text)) for id_, judge, repeat, text in rows)
    return {key: verdicts for key, verdicts in judgements if is_complete(verdicts) or not complete}


def collect(
    store: Store,
    settings: EvaluationSettings,
    chosen: ChosenCases | None,
    environments: Sequence[ClinicalEnvironment],
) -> dict[str, Any]:
    """The result, from the store alone."""
    rules, plan, passes = protocol_of(settings), plan_of(settings), passes_of(settings)
    judgements = _judgements(store, settings, complete=False)
    # All that the store has, as in QUERY: also where these settings ask for fewer repeats.
    repeats: dict[tuple[str, str], list[Judgement]] = {}
    for (id_, key, _), judgement in judgements.items():
        repeats.setdefault((id_, key), []).append(judgement)
    failures = store.open_failures("rollout")
    errors = {failure.trajectory_id: failure.error_class for failure in failures}
    rows = []
    by_rater: dict[str, dict[tuple[str, int], Judgement]] = {judge.rater: {} for judge in passes}
    for environment in environments:
        trajectories = tree_of(store, environment.environment_id)
        tree = {trajectory.trajectory_id: trajectory for trajectory in trajectories}
        for spec in initial_specs(environment, plan):
            id_, place = spec.trajectory_id, (spec.case_id, spec.sample)
            if id_ not in tree:
                score = failed_score(*place, errors.get(id_, "not played"), rules)
                rows.append(ResultRow(score, None))
                continue
            for judge in passes:
                if judge.place(id_) in judgements:
                    by_rater[judge.rater][place] = judgements[judge.place(id_)]
            scored = repeats.get((id_, passes[0].key), [])  # the first judge's make the table
            rows.append(ResultRow(score_of(scored, *place), tree[id_]))
    about = _facts_about(store, settings, plan, passes, chosen, len(environments))
    # What the same orders for every case would score: a model has to be better than that.
    floor = constant_orders(environments)
    return result_of(about, environments, rows, settings.runs, by_rater, floor)


def _facts_about(
    store: Store,
    settings: EvaluationSettings,
    plan: TreePlan,
    passes: list[JudgePass],
    chosen: ChosenCases | None,
    environments: int,
) -> dict[str, Any]:
    rules = protocol_of(settings)
    rows = store.rows("select case_id, source, reason, environment_id from cases")
    cases = [
        (source, reason if environment_id is None else None)
        for case_id, source, reason, environment_id in rows
        if chosen is None or case_id in chosen.ids
    ]
    # Within a limit by id and path: several files that cannot be read may share an id.
    unreadable = sum(
        chosen is None or case_id in chosen.ids or (case_id, path) in chosen.unreadable
        for case_id, path in store.rows(
            "select case_id, path from failures where stage = 'read' and resolved is null"
        )
    )
    refused = Counter(reason for _, reason in cases if reason is not None)
    refused += Counter(unreadable=unreadable)
    # What the result and the query that gives it again are of.
    played: dict[str, Any] = {"model": settings.model.name, "protocol": rules.name}
    played |= {"judge": passes[0].key, "runs": settings.runs}
    conditions = {
        "settings_hash": plan.teachers[settings.model.name],
        "cases": _condition_of(chosen.ids if chosen else None),
    }
    return played | {
        "model_settings": settings.model.identity(),
        "t_max": rules.t_max,
        "benchmark": ", ".join(sorted({source for source, _ in cases})),
        "judges": [judge.rater for judge in passes],
        "answers": _oracle_and_reader(settings),
        "cases": {
            "read": len(cases) + unreadable,
            "environments": environments,
            "refused": refused.most_common(),
        },
        "settings": settings.model_dump(mode="json"),
        "versions": versions(),
        "query": QUERY.format(**played, **conditions),
    }


def _oracle_and_reader(settings: EvaluationSettings) -> str:
    """Who answers the orders, and who reads a reply in free text."""
    oracle = f"oracle with {settings.oracle.name}" if settings.oracle else "oracle"
    answers = f"examiner {settings.examiner.name}" if settings.examiner else oracle
    return f"{answers}, read by {settings.read_by.name}" if settings.read_by else answers


def _condition_of(case_ids: Collection[str] | None) -> str:
    """The part of the query that says which cases the result is of; '' for all (None)."""
    if not case_ids:
        return "" if case_ids is None else " and false"
    # The query is printed to be copied, so its values stand in it, quoted.
    quoted = ("'" + case_id.replace("'", "''") + "'" for case_id in sorted(case_ids))
    return f" and case_id in ({', '.join(quoted)})"
