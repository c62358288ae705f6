"""The main job: case reports in, pruned SFT dataset out.

    medaction distill --cases examples/cases --out runs/demo --teacher kg-screening
    python -m medaction.flows.distill demo      (a preset as it stands)

What it does, step by step, is `medaction.flows.runs.run_distill`.
"""

from prefect import flow

from medaction.flows.runs import run_distill
from medaction.flows.summary import print_summary

distill = flow(
    name="distill", flow_run_name="distill {settings.cases} to {settings.out}", persist_result=False
)(run_distill)


if __name__ == "__main__":
    import sys

    from medaction.flows.prefect_server import prefect_api
    from medaction.flows.settings import DistillSettings, load_preset

    preset = DistillSettings.model_validate(load_preset(sys.argv[1]))
    with prefect_api(preset.out / "prefect"):
        print_summary(distill(preset))
