"""Stage 1 alone: case reports in, checked clinical environments out. `distill` on the same folder
goes on from there."""

from prefect import flow

from medaction.flows.runs import run_environments

environments = flow(
    name="environments",
    flow_run_name="environments {settings.cases} to {settings.out}",
    persist_result=False,
)(run_environments)
