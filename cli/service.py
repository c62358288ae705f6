"""`medaction up`, `down`, `deploy` and `doctor`: the service on this machine, and what it needs."""

import sys
from pathlib import Path

import click

from medaction.cli.options import FOLDER, settings_of
from medaction.flows.settings import (
    DistillSettings,
    EnvironmentSettings,
    EvaluationSettings,
    load_preset,
)
from medaction.llm.teacher import EMBEDDED, Teacher

HOME = click.option(
    "--home",
    type=FOLDER,
    default=Path(".medaction"),
    help="Where the server keeps its database, logs and what `down` has to end.",
)


@click.command()
@HOME
@click.option(
    "--port", type=click.IntRange(1, 65535), default=4200, help="The UI's port on 127.0.0.1."
)
@click.option(
    "--at-once",
    "runs",
    type=click.IntRange(2),
    default=2,
    help="Flow runs that go on at the same time; a pipeline and the stage that it waits for are"
    " two.",
)
def up(home: Path, port: int, runs: int) -> None:
    """Start a Prefect server, its worker and all deployments on this machine: then runs are
    started, scheduled and retried in the UI."""
    from medaction.flows.stack import up as start

    url = start(home, port, runs, click.echo)
    click.echo(
        f"Prefect is on {url}/deployments; for the command line: export PREFECT_API_URL={url}/api;"
        " end with `medaction down`"
    )


@click.command()
@HOME
def down(home: Path) -> None:
    """End what `medaction up` started, and nothing else."""
    from medaction.flows.stack import down as end

    count = end(home, click.echo)
    click.echo(f"{count} ended" if count else "nothing of `medaction up` is running")


@click.command()
def deploy() -> None:
    """Put the deployments on the Prefect server that PREFECT_API_URL names; their runs work in the
    present folder."""
    from prefect.settings import PREFECT_API_URL

    from medaction.flows.stack import deploy as put

    if not (url := PREFECT_API_URL.value()):
        raise click.UsageError(
            "PREFECT_API_URL is not set: name your Prefect server, or start one with `medaction up`"
        )
    put(str(url), Path.cwd())
    click.echo(f"deployed to {url}")


@click.command()
@click.option(
    "--preset",
    help="Also ask every model of a preset one question, and look at its folder: demo, paper, or"
    " the path of a YAML file of a distillation, an evaluation or a pipeline.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Look at the files of this run instead: is each of them what was written?",
)
@click.option(
    "--repair",
    is_flag=True,
    help="With --out: make good what can be; what is damaged is moved aside, never deleted.",
)
def doctor(preset: str | None, out: Path | None, repair: bool) -> None:
    """Look at versions, machine, servers, graphs and models, or at the files of a run; say what is
    wrong and how to mend it. Ends with 1 when something is."""
    from medaction.flows.doctor import examine, run_files
    from medaction.flows.inspections import print_inspections

    if repair and out is None:
        raise click.UsageError("--repair mends the files of a run: name it with --out")
    if out is not None:
        if not print_inspections(run_files(out, repair)):
            sys.exit(1)
        return
    if not print_inspections(examine(*_stages(preset) if preset else ())):
        sys.exit(1)


def _stages(preset: str) -> list[EnvironmentSettings]:
    """The settings of a preset whichever command it is for. Raises click.UsageError."""
    from medaction.flows.pipeline_settings import PipelineSettings

    try:
        values = load_preset(preset)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    # A pipeline's preset has a section for each stage.
    if "distill" in values:
        names = PipelineSettings.model_fields
        pipeline = {name: value for name, value in values.items() if name in names}
        distilling, _, evaluating = settings_of(PipelineSettings, None, pipeline).stages()
        # The model that is evaluated is yet to be trained.
        return [distilling, evaluating.model_copy(update={"model": Teacher(model=EMBEDDED[0])})]
    kind = EvaluationSettings if "model" in values else DistillSettings
    # Cases and folder are often given on the command line of the run.
    unset = {"cases": "cases", "out": Path("runs")}
    return [settings_of(kind, preset, {key: unset[key] for key in unset.keys() - values.keys()})]
