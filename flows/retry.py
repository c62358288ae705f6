"""Run again what failed in a run: everything, or by stage, case, teacher, rollout or class of
error. Nothing else is touched."""

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from medaction.flows.distill import distill
from medaction.flows.environments import environments
from medaction.flows.settings import DistillSettings, EnvironmentSettings, Retry
from medaction.trajectories.store import Store, StoreError


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
    return (
        distill(settings, retry)
        if isinstance(settings, DistillSettings)
        else environments(settings, retry)
    )


def settings_for(out: Path, retry: Retry) -> EnvironmentSettings | None:
    """The settings of the last run in `out`, for just the cases whose failures `retry` wants; None:
    no such failure is open.

    Raises StoreError as `retry_failed` does.
    """
    path = out / "trajectories.duckdb"
    if not path.exists():
        raise StoreError(f"{out} is not the folder of a run: it has no trajectories.duckdb")
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
    case_ids = sorted(
        {
            failure.case_id
            for failure in open_
            if retry.wants(failure) and (named or not failure.is_refusal)
        }
    )
    if not case_ids:
        return None
    kind = DistillSettings if flow_name == "distill" else EnvironmentSettings
    return kind.model_validate_json(last).model_copy(
        update={"out": out, "only": case_ids, "limit": None}
    )
