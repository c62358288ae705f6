"""`medaction pipeline`, `ablate`, `experiment` and `redistill`: everything from reports to a score,
once, in every cell of an ablation, or again and again as cases come."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from medaction.cli.options import FOLDER, check_settings, prefect, readable, settings_of
from medaction.flows.pipeline_settings import PIPELINES, PipelineSettings
from medaction.flows.settings import load_preset
from medaction.training.settings import installed

AnyPipeline = TypeVar("AnyPipeline", bound=PipelineSettings)

OF_ONE_COMMAND = {"questions", "scales", "seeds", "records"}
"""What a preset may hold beside the stages, for the command that has such a setting."""

PIPELINE_OUT = click.option("--out", type=FOLDER, help="The folder; by default the preset's.")
CASES = click.option("--cases", help="The reports to distil from, instead of the preset's.")


def of_a_pipeline(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that runs a pipeline."""
    benchmark = click.option(
        "--benchmark", help="The cases to evaluate on, instead of the preset's."
    )
    preset = click.option(
        "--preset",
        required=True,
        help="tiny, paper, or the path of a YAML file with the sections distill, train, evaluate.",
    )
    return preset(PIPELINE_OUT(CASES(benchmark(command))))


def pipeline_settings(
    kind: type[AnyPipeline], preset: str, out: Path | None, cases: str | None, benchmark: str | None
) -> AnyPipeline:
    """The settings of a preset with what the options change. Raises click.UsageError in the words
    of the command line."""
    try:
        given: dict[str, Any] = load_preset(preset, PIPELINES)
        others = OF_ONE_COMMAND - kind.model_fields.keys()
        given = {name: value for name, value in given.items() if name not in others}
        if out:
            given["out"] = out
        for stage, value in (("distill", cases), ("evaluate", benchmark)):
            # What is no section is left to the validation, which says so.
            if value and isinstance(section := given.get(stage) or {}, dict):
                given[stage] = section | {"cases": value}
        return kind.model_validate(given)
    except (ValidationError, ValueError) as error:
        raise click.UsageError(readable(error, kind)) from error


@click.command()
@of_a_pipeline
def pipeline(preset: str, **options: Any) -> None:
    """Distil, train and evaluate. A rerun does only what is missing."""
    settings = pipeline_settings(PipelineSettings, preset, **options)
    installed()
    from medaction.flows.pipeline import pipeline as flow
    from medaction.flows.pipeline import print_pipeline
    from medaction.flows.unseen import shown

    with prefect(settings.out):
        print_pipeline(shown(flow, settings))


@click.command()
@of_a_pipeline
def ablate(preset: str, **options: Any) -> None:
    """Run the paper's ablations: every cell distils, trains and evaluates. A rerun does only what
    is missing."""
    from medaction.flows.ablate import AblationSettings, print_ablation
    from medaction.flows.ablate import ablate as flow
    from medaction.flows.unseen import shown

    settings = pipeline_settings(AblationSettings, preset, **options)
    installed()
    with prefect(settings.out):
        complete = print_ablation(shown(flow, settings))
    if not complete:
        sys.exit(1)


@click.command()
@of_a_pipeline
@click.option("--plan", is_flag=True, help="Distil, say what can be found, and stop.")
def experiment(preset: str, plan: bool, **options: Any) -> None:
    """Do the filters make a better model? The base model and models of three filters at equal
    numbers of records, several seeds each, on held-out cases. What it can find is said first."""
    from medaction.flows.experiment import ExperimentSettings
    from medaction.flows.experiment import experiment as flow
    from medaction.flows.unseen import shown

    settings = pipeline_settings(ExperimentSettings, preset, **options)
    installed()
    with prefect(settings.out):
        failed = shown(flow, settings, plan)
    click.echo((settings.out / "experiment.md").read_text())
    if failed:
        sys.exit(1)


@click.command()
@click.option(
    "--preset",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A YAML file with the settings of a distillation and a section train.",
)
@PIPELINE_OUT
@CASES
def redistill(preset: Path, **options: Any) -> None:
    """Distil what is new; where that changed the dataset, train the last model on. Meant to be run
    again and again."""
    from medaction.flows.redistill import RedistillSettings
    from medaction.flows.redistill import redistill as flow
    from medaction.flows.summary import print_summary
    from medaction.flows.unseen import shown

    settings = settings_of(RedistillSettings, str(preset), options)
    if settings.train:
        installed()
    check_settings(settings)
    with prefect(settings.out):
        print_summary(shown(flow, settings))
