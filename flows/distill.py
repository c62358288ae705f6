"""The main job: case reports in, pruned SFT dataset out.

Run as: medaction distill --cases examples/cases --out runs/demo --teacher kg-screening --teacher
kg-targeted or, a preset as it stands: python -m medaction.flows.distill demo
"""

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from medaction.flows.artifacts import publish_summary, publish_version
from medaction.flows.finish import aids_of, score_and_export
from medaction.flows.services import mark_crashed, services
from medaction.flows.settings import DistillSettings, Retry
from medaction.flows.stages import build_environments, play_trees, reconstruct_gold
from medaction.flows.summary import print_summary, write_summary
from medaction.flows.versions import versions
from medaction.trajectories.scoring import linkers
from medaction.trajectories.store import Store


@flow(
    name="distill", flow_run_name="distill {settings.cases} to {settings.out}", persist_result=False
)
def distill(settings: DistillSettings, retry: Retry | None = None) -> dict[str, Any]:
    """Build an environment of every case, play its tree, prune by the knowledge graphs, write the
    dataset and the summary.

    Does only what the store in `settings.out` lacks. What failed before is left alone, but for what
    `retry` names. Raises StoreError (the store is in use, or of the other purpose) and BadCase (no
    case can be read from `settings.cases`).
    """
    # What cannot be read fails now, not when all has been played.
    linkers(settings.disease_graph, settings.test_graph, aids_of(settings))
    with Store(settings.out / "trajectories.duckdb") as store:
        with store.run("distill", settings.model_dump_json(), flow_run.get_id(), versions()) as run:
            mark_crashed(run.interrupted)
            with services(settings, store.spent_usd()) as ready:
                build_environments(store, settings, ready, run.run_id, retry)
                reconstruct_gold(store, settings, ready, run.run_id, retry)
                play_trees(store, settings, ready, run.run_id, retry)
            version = score_and_export(store, settings)
        summary = write_summary(store, settings)
    if flow_run.get_id():
        if version:
            publish_version(version)
        publish_summary(summary)
    return summary


if __name__ == "__main__":
    import sys

    from medaction.flows.services import prefect_api
    from medaction.flows.settings import load_preset

    preset = DistillSettings.model_validate(load_preset(sys.argv[1]))
    with prefect_api(preset.out / "prefect"):
        print_summary(distill(preset))
