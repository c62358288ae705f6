"""The command line. The options of `distill` and `envs build` are the fields of their settings.

Prefect and Ray are imported by what runs them, so that help and wrong usage are answered at once.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from medaction.cli.analyse import analyse
from medaction.cli.evaluate import compare, evaluate
from medaction.cli.kg import kg
from medaction.cli.options import OUT, PRESET, options_of, prefect, settings_of
from medaction.cli.pipeline import ablate, pipeline
from medaction.cli.sets import contamination, hard_set
from medaction.cli.train import serve, train
from medaction.envs.records import BadCase
from medaction.flows.settings import DistillSettings, EnvironmentSettings, Retry
from medaction.kg.tables import BadTable
from medaction.trajectories.store import Store, StoreError, publish_if_missing


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `medaction`. Errors that a user can mend are one line on stderr and exit
    status 1; bad usage is 2."""
    logging.getLogger("medaction").addHandler(logging.StreamHandler())
    try:
        medaction.main(arguments, prog_name="medaction", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (StoreError, BadCase, BadTable, RuntimeError) as error:
        click.echo(f"medaction: {error}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "medaction: interrupted; what had finished is stored, the same command goes on from there",
            err=True,
        )
        sys.exit(130)


@click.group()
@click.version_option(package_name="medaction")
def medaction() -> None:
    """From case reports to multi-turn diagnostic training data."""


@medaction.command()
@PRESET
@click.option(
    "--estimate",
    is_flag=True,
    help="Play three cases only, and project calls, tokens, dollars and hours of the run.",
)
@options_of(DistillSettings)
def distill(preset: str | None, estimate: bool, **options: Any) -> None:
    """Build environments, play trees, prune, and write the dataset. A rerun does only what is
    missing."""
    settings = settings_of(DistillSettings, preset, options)
    if estimate:
        _estimate(settings)
    else:
        _distill(settings)


@medaction.command()
@OUT
@click.option("--case", "cases", multiple=True, help="Only the failures of these cases.")
@click.option(
    "--stage",
    "stages",
    multiple=True,
    type=click.Choice(["environment", "gold", "rollout"]),
    help="Only of these stages.",
)
@click.option("--teacher", "teachers", multiple=True, help="Only of these teachers, by name.")
@click.option("--rollout", "rollouts", multiple=True, help="Only these rollouts, by trajectory id.")
@click.option(
    "--error",
    "errors",
    multiple=True,
    help="Only errors of these classes, such as ModelUnavailable.",
)
def retry(out: Path, **narrow: tuple[str, ...]) -> None:
    """Run again what failed, with the settings of the run; nothing else is touched."""
    from medaction.flows.retry import retry_failed, settings_for
    from medaction.flows.summary import print_checks, print_summary

    wanted = Retry.model_validate({name: list(values) for name, values in narrow.items()})
    try:
        settings = settings_for(out, wanted)  # said at once, without a Prefect server
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if settings is None:
        click.echo("nothing to retry: no such failure is open")
        return
    with prefect(out):
        done = retry_failed(out, wanted)
    if done:
        (print_summary if "funnel" in done else print_checks)(done)


medaction.add_command(kg)
medaction.add_command(evaluate)
medaction.add_command(compare)
medaction.add_command(analyse)
medaction.add_command(contamination)
medaction.add_command(hard_set)


@medaction.group()
def envs() -> None:
    """Clinical environments: build them alone, see what the checks found, and draw what they are
    made of."""


@envs.command()
@PRESET
@options_of(EnvironmentSettings)
def build(preset: str | None, **options: Any) -> None:
    """Build the environments of case reports and stop there; `distill` on the same --out goes on."""
    _environments(settings_of(EnvironmentSettings, preset, options))


@envs.command()
@OUT
def check(out: Path) -> None:
    """Print every check with its figures, and every refused case with its reason."""
    from medaction.flows.summary import check_tables, print_checks

    with Store(out / "trajectories.duckdb") as store:
        print_checks(check_tables(store))


@envs.command()
@OUT
def plot(out: Path) -> None:
    """Draw body systems, disease types and tests (the paper's Figures 6 and 7) into OUT/plots."""
    from medaction.evaluation.composition import composition, plot_composition

    with Store(out / "trajectories.duckdb") as store:
        environments = store.environments()
    if not environments:
        raise click.UsageError(
            f"{out} has no environment to draw: see `medaction envs check --out {out}`"
        )
    for drawn in plot_composition(composition(environments), out / "plots"):
        click.echo(drawn)


@medaction.command()
@OUT
@click.option(
    "--push",
    "repository",
    metavar="OWNER/NAME",
    help="Show what would go to this dataset repository of a hub.",
)
@click.option("--really", is_flag=True, help="With --push: send it. The key comes from HF_TOKEN.")
def export(out: Path, repository: str | None, really: bool) -> None:
    """Write the dataset of a run from its store: a new version when anything has changed, else the
    one that is there."""
    from medaction.flows.dataset import push, write_dataset

    with Store(out / "trajectories.duckdb") as store:
        flow, last = store.last_run()
        if flow != "distill":
            raise StoreError(
                f"{store.path} holds environments only: run `medaction distill --out {out} ...` first"
            )
        version = write_dataset(
            store, DistillSettings.model_validate_json(last).model_copy(update={"out": out})
        )
    was = "" if version.is_new else ", unchanged"
    click.echo(f"{version.records} records in {version.folder}, version {version.number}{was}")
    if repository:
        for line in push(version.folder, repository, really):
            click.echo(f"  {line}")
        click.echo(
            f"sent to {repository}"
            if really
            else f"would go to {repository}; send it with --really"
        )


HOME = click.option(
    "--home", type=click.Path(path_type=Path, file_okay=False), default=Path(".medaction"), show_default=True,
    help="Where the server keeps its database, logs and what `down` has to end.",
)  # fmt: skip


@medaction.command()
@HOME
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=4200,
    show_default=True,
    help="The UI's port on 127.0.0.1.",
)
@click.option(
    "--runs", type=click.IntRange(2), default=2, show_default=True,
    help="Flow runs that go on at the same time; a pipeline and the stage that it waits for are two.",
)  # fmt: skip
def up(home: Path, port: int, runs: int) -> None:
    """Start a Prefect server, its worker and all deployments on this machine: then runs are
    started, scheduled and retried in the UI."""
    from medaction.flows.stack import up as start

    url = start(home, port, runs, click.echo)
    click.echo(
        f"Prefect is on {url}/deployments; for the command line: export PREFECT_API_URL={url}/api; end with `medaction down`"
    )


@medaction.command()
@HOME
def down(home: Path) -> None:
    """End what `medaction up` started, and nothing else."""
    from medaction.flows.stack import down as end

    click.echo(f"{end(home, click.echo)} ended")


@medaction.command()
@click.option(
    "--preset",
    help="Also look at the teachers and the folder of a preset: demo, paper, or the path of a YAML file.",
)
def doctor(preset: str | None) -> None:
    """Look at versions, machine, servers, graphs and teachers; say what is wrong and how to mend
    it. Ends with 1 when something is."""
    from medaction.flows.doctor import examine
    from medaction.flows.summary import print_findings

    settings = settings_of(DistillSettings, preset, {}) if preset else None
    if not print_findings(examine(settings)):
        sys.exit(1)


@medaction.command()
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


@medaction.command()
@OUT
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=4280,
    show_default=True,
    help="The port on 127.0.0.1; 0: any.",
)
@click.option(
    "--export",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one HTML file instead.",
)
@click.option(
    "--case", "cases", multiple=True, help="A case that the file shows whole; may be given again."
)
def view(out: Path, port: int, file: Path | None, cases: tuple[str, ...]) -> None:
    """Look at a run in a browser: funnel, DTC and RAC, teachers, cases, every tree with its turns.
    Also while it runs."""
    from medaction.trajectories.viewer.pages import Run, export
    from medaction.trajectories.viewer.server import serve

    publish_if_missing(out)
    if file is None:
        serve(out, port, lambda url: click.echo(f"{out} is shown on {url}; end with Ctrl+C"))
        return
    try:
        file.write_text(export(Run(out), list(cases)), encoding="utf-8")
    except KeyError as unknown:
        raise click.UsageError(f"{out} has no case {unknown}") from unknown
    click.echo(file)


def _distill(settings: DistillSettings) -> None:
    from medaction.flows.distill import distill as flow
    from medaction.flows.summary import print_summary

    with prefect(settings.out):
        print_summary(flow(settings))


def _estimate(settings: DistillSettings) -> None:
    from medaction.flows.estimate import estimate
    from medaction.flows.summary import print_estimate

    with prefect(settings.out / "estimate"):
        print_estimate(estimate(settings))


def _environments(settings: EnvironmentSettings) -> None:
    from medaction.flows.environments import environments as flow
    from medaction.flows.summary import print_checks

    with prefect(settings.out):
        print_checks(flow(settings))


medaction.add_command(train)
medaction.add_command(serve)
medaction.add_command(pipeline)
medaction.add_command(ablate)


if __name__ == "__main__":
    main()
