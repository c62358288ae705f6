"""The end of a distillation: score, write the dataset, sum up. Without Prefect and Ray, so that a
run that lacks nothing needs no server."""

from typing import Any

from medaction.flows.dataset import write_dataset
from medaction.flows.missing import is_finished
from medaction.flows.settings import DistillSettings
from medaction.flows.summary import write_summary
from medaction.flows.versions import versions
from medaction.trajectories.export import Version
from medaction.trajectories.scoring import Aids, score_store
from medaction.trajectories.store import Store


def aids_of(settings: DistillSettings) -> Aids:
    return Aids(settings.links, settings.encoder, settings.maxo, settings.loinc2hpo)


def score_and_export(store: Store, settings: DistillSettings) -> Version | None:
    """Stage 3, and the next version of the dataset; None: an evaluation-only store has none."""
    score_store(
        store,
        settings.strategy,
        settings.rac_threshold,
        settings.disease_graph,
        settings.test_graph,
        aids_of(settings),
    )
    return None if store.evaluation_only else write_dataset(store, settings)


def finish_at_once(settings: DistillSettings) -> dict[str, Any] | None:
    """The summary of a run that lacks nothing; None: there is something to play."""
    if not (settings.out / "trajectories.duckdb").exists():
        return None
    with Store(settings.out / "trajectories.duckdb") as store:
        if not is_finished(store, settings):
            return None
        with store.run("distill", settings.model_dump_json(), None, versions()):
            score_and_export(store, settings)
        return write_summary(store, settings)
