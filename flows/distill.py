"""The main job: case reports in, pruned SFT dataset out.

    medaction distill --cases examples/cases --out runs/demo --teacher kg-screening

What it does, step by step, is `medaction.flows.runs.run_distill`.
"""

from prefect import flow

from medaction.flows.runs import run_distill

distill = flow(
    name="distill", flow_run_name="distill {settings.cases} to {settings.out}", persist_result=False
)(run_distill)
