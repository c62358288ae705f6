"""The end of a distillation: score, write the dataset, sum up. Without Prefect and Ray, so that a
run that lacks nothing needs no server."""

from typing import TYPE_CHECKING, Any

from medaction.flows.dataset import write_dataset
from medaction.flows.missing import aids_of, is_finished
from medaction.flows.pairs import branches_for_pairs
from medaction.flows.settings import DistillSettings, EvaluationSettings
from medaction.flows.summary import write_summary
from medaction.flows.versions import versions
from medaction.trajectories.export import Version
from medaction.trajectories.files import STORE
from medaction.trajectories.scoring import OPEN, Aids, score_store
from medaction.trajectories.store import Store

if TYPE_CHECKING:
    from medaction.evaluation.played import Linked


def score(store: Store, settings: DistillSettings) -> Aids:
    """Stage 3: DTC, RAC and verdicts, as the settings say. Returns what helped linking."""
    aids, graphs = aids_of(settings), (settings.disease_graph, settings.test_graph)
    pruned_by = settings.strategy, settings.rac_threshold
    more = settings.wrong_endings, settings.idle_turns
    score_store(store, *pruned_by, *graphs, aids, *more, quarantine=settings.quarantine)
    return aids


def score_and_export(store: Store, settings: DistillSettings) -> Version | None:
    """Stage 3, and the next version of the dataset; None: an evaluation-only store has none."""
    score(store, settings)
    return None if store.evaluation_only else write_dataset(store, settings)


def finish_at_once(settings: DistillSettings) -> dict[str, Any] | None:
    """The summary of a run that lacks nothing; None: there is something to play."""
    if not (settings.out / STORE).exists():
        return None
    with Store(settings.out / STORE) as store:
        if not is_finished(store, settings):
            return None
        # Which pairs are missing is known only of a scored store.
        if settings.pair_branches:
            score(store, settings)
            if branches_for_pairs(store, settings):
                return None
        with store.run("distill", settings.model_dump_json(), None, versions()):
            score_and_export(store, settings)
        return write_summary(store, settings)


def links_of(store: Store) -> "Linked":
    """Score the store as its own run did, which changes nothing in a distillation; what was not
    distilled is measured without pruning. Returns the graphs and what the texts are there."""
    from medaction.evaluation.played import linked

    flow, settings_json = store.last_run()
    if flow == "distill":
        settings = DistillSettings.model_validate_json(settings_json)
        return linked(store, settings.disease_graph, settings.test_graph, score(store, settings))
    graph = OPEN
    if flow == "evaluate":
        graph = EvaluationSettings.model_validate_json(settings_json).disease_graph
    score_store(store, "none", None, graph)
    return linked(store, graph)
