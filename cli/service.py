"""`medaction up`, `down`, `deploy` and `doctor`: the service on this machine, and what it needs."""

import sys
from pathlib import Path

import click

from medaction.cli.options import settings_of

HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".medaction"),
    show_default=True,
    help="Where the server keeps its database, logs and what `down` has to end.",
)


@click.command()
@HOME
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=4200,
    show_default=True,
    help="The UI's port on 127.0.0.1.",
)
@click.option(
    "--runs",
    type=click.IntRange(2),
    default=2,
    show_default=True,
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

    click.echo(f"{end(home, click.echo)} ended")


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
    help="Also look at the teachers and the folder of a preset: demo, paper, or the path of a YAML"
    " file.",
)
def doctor(preset: str | None) -> None:
    """Look at versions, machine, servers, graphs and teachers; say what is wrong and how to mend
    it. Ends with 1 when something is."""
    from medaction.flows.doctor import examine, print_findings
    from medaction.flows.settings import DistillSettings

    settings = settings_of(DistillSettings, preset, {}) if preset else None
    if not print_findings(examine(settings)):
        sys.exit(1)
