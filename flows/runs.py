"""What the flows of the same names do. Without Prefect they are called as they are."""

from collections.abc import Callable
from typing import Any

from medaction.flows.artifacts import (
    flow_run_id,
    note_ended,
    publish_checks,
    publish_summary,
    publish_version,
)
from medaction.flows.evaluation import run_evaluate
from medaction.flows.finish import score, score_and_export
from medaction.flows.missing import aids_of
from medaction.flows.pairs import branches_for_pairs
from medaction.flows.services import services
from medaction.flows.settings import DistillSettings, EnvironmentSettings, Retry
from medaction.flows.stages import build_environments, play_trees, reconstruct_gold
from medaction.flows.summary import write_checks, write_summary
from medaction.flows.versions import versions
from medaction.trajectories.files import STORE
from medaction.trajectories.scoring import linkers
from medaction.trajectories.store import Store


def run_distill(settings: DistillSettings, retry: Retry | None = None) -> dict[str, Any]:
    """Build an environment of every case, play its tree, prune by the knowledge graphs, write the
    dataset and the summary.

    Does only what the store in `settings.out` lacks. What failed before is left alone, but for what
    `retry` names. Raises StoreError (the store is in use, or of the other purpose) and BadCase (no
    case can be read from `settings.cases`).
    """
    # What cannot be read fails now, not when all has been played.
    linkers(settings.disease_graph, settings.test_graph, aids_of(settings))
    with Store(settings.out / STORE) as store:
        with store.run("distill", settings.model_dump_json(), flow_run_id(), versions()) as run_id:
            note_ended(store)
            with services(settings, store) as ready:
                build_environments(store, settings, ready, run_id, retry)
                reconstruct_gold(store, settings, ready, run_id, retry)
                play_trees(store, settings, ready, run_id, retry)
                for _ in range(settings.pair_branches):  # branches have states of their own
                    score(store, settings)  # what came of a reply tells which pairs there are
                    pairs = branches_for_pairs(store, settings, retry)
                    if not pairs:
                        break
                    play_trees(store, settings, ready, run_id, retry, pairs)
            version = score_and_export(store, settings)
        # Behind the run's end, whose time is part of it.
        summary = write_summary(store, settings)
    if version:
        publish_version(version)
    publish_summary(summary)
    return summary


def run_environments(settings: EnvironmentSettings, retry: Retry | None = None) -> dict[str, Any]:
    """Build an environment of every case that the store in `settings.out` lacks, or name the check
    that refuses it. What was refused before is built again under other settings, or when `retry`
    names it.

    Raises StoreError (the store is in use, or of the other purpose) and BadCase (no case can be
    read from `settings.cases`).
    """
    with Store(settings.out / STORE) as store:
        with store.run(
            "environments", settings.model_dump_json(), flow_run_id(), versions()
        ) as run_id:
            note_ended(store)
            with services(settings, store) as ready:
                build_environments(store, settings, ready, run_id, retry)
        checks = write_checks(store, settings.out)
    publish_checks(checks)
    return checks


RUNS: dict[str, Callable[..., dict[str, Any]]] = {
    "distill": run_distill,
    "environments": run_environments,
    "evaluate": run_evaluate,
}
