"""Stage 1 alone: case reports in, checked clinical environments out. `distill` on the same folder
goes on from there."""

from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from medaction.flows.artifacts import publish_checks
from medaction.flows.services import mark_crashed, services
from medaction.flows.settings import EnvironmentSettings, Retry
from medaction.flows.stages import build_environments
from medaction.flows.summary import write_checks
from medaction.flows.versions import versions
from medaction.trajectories.store import Store


@flow(
    name="environments",
    flow_run_name="environments {settings.cases} to {settings.out}",
    persist_result=False,
)
def environments(settings: EnvironmentSettings, retry: Retry | None = None) -> dict[str, Any]:
    """Build an environment of every case that the store in `settings.out` lacks, or name the check
    that refuses it. What was refused before is built again under other settings, or when `retry`
    names it.

    Raises StoreError (the store is in use, or of the other purpose) and BadCase (no case can be
    read from `settings.cases`).
    """
    with Store(settings.out / "trajectories.duckdb") as store:
        with store.run(
            "environments", settings.model_dump_json(), flow_run.get_id(), versions()
        ) as run:
            mark_crashed(run.interrupted)
            with services(settings, store.spent_usd()) as ready:
                build_environments(store, settings, ready, run.run_id, retry)
        checks = write_checks(store, settings.out)
    if flow_run.get_id():
        publish_checks(checks)
    return checks
