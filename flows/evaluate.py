"""An evaluation: the model under test plays benchmark cases, and judges score what it played."""

from prefect import flow

from medaction.flows.evaluation import run_evaluate

evaluate = flow(
    name="evaluate",
    flow_run_name="evaluate {settings.model.name} to {settings.out}",
    persist_result=False,
)(run_evaluate)
