"""Run again what failed in a run: everything, or by stage, case, teacher, rollout or class of
error. Nothing else is touched."""

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from medaction.flows.distill import distill
from medaction.flows.environments import environments
from medaction.flows.missing import settings_for
from medaction.flows.settings import DistillSettings, Retry


@flow(name="retry-failed", flow_run_name="retry {out}", persist_result=False)
def retry_failed(
    out: Annotated[Path, Field(description="The folder of the run whose failures are run again.")],
    retry: Annotated[
        Retry, Field(description="Which of its open failures; empty lists mean all of them.")
    ] = Retry(),  # noqa: B008
) -> dict[str, Any] | None:
    """Run the chosen open failures of the run in `out` again, with the run's own settings; None
    when there is none to run.

    Raises StoreError when there is no run in `out` or it is in use, and ValueError when `retry`
    names a case without an open failure.
    """
    settings = settings_for(out, retry)
    if settings is None:
        return None
    if isinstance(settings, DistillSettings):
        return distill(settings, retry)
    return environments(settings, retry)
