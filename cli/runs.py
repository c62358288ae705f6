"""`medaction distill`, `retry`, `export` and `view`: a run, and what comes of it."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from medaction.cli.environments import show_checks
from medaction.cli.options import (
    AS_JSON,
    DRY_RUN,
    OUT,
    PRESET,
    QUIET,
    RUN_FOLDER,
    case_counts,
    check_settings,
    options_of,
    run,
    settings_of,
)
from medaction.flows.configured import configured_prefect
from medaction.flows.settings import DistillSettings, Retry
from medaction.trajectories.files import STORE
from medaction.words.errors import MedactionError, typed


@click.command()
@PRESET
@click.option(
    "--estimate",
    is_flag=True,
    help="Play three cases only, and project calls, tokens, dollars and hours of the run.",
)
@DRY_RUN
@QUIET
@AS_JSON
@options_of(DistillSettings)
def distill(
    preset: str | None, estimate: bool, dry_run: bool, quiet: bool, as_json: bool, **options: Any
) -> None:
    """Build environments, play trees, prune, and write the dataset. A rerun does only what is
    missing."""
    settings = settings_of(DistillSettings, preset, options)
    if preset == "paper" and (other := unlike_the_paper(settings)):
        click.echo(f"not as in the paper: {other}", err=True)
    from medaction.flows.finish import finish_at_once
    from medaction.flows.summary import print_estimate

    check_settings(settings)
    if dry_run:
        plan = planned_counts(settings)
        shown = (f"{count} {name.replace('_', ' ')}" for name, count in plan.items())
        click.echo(json.dumps(plan) if as_json else f"nothing was begun: {', '.join(shown)}")
        return
    if estimate:
        from medaction.flows.estimate import estimate as project
        from medaction.flows.model_checks import require_models

        # Asked first: three cases of a model that cannot answer project to nothing.
        require_models(settings)

        projection = project(settings, run)
        if as_json:
            click.echo(json.dumps(projection))
        else:
            print_estimate(projection)
        return
    # A Prefect server of the user's shows every run, also one that finds nothing to do.
    summary = None if configured_prefect() else finish_at_once(settings)
    if summary is None:
        summary = run("distill", settings)
    show_summary(summary, quiet, as_json)


def show_summary(summary: dict[str, Any], quiet: bool, as_json: bool) -> None:
    """The end of a distillation. Raises MedactionError where it has nothing to show or is not
    complete."""
    from medaction.flows.summary import print_summary, trouble_of

    if not as_json:
        print_summary(summary, tables=not quiet)
        return
    click.echo(json.dumps(summary, default=str, ensure_ascii=False))
    if trouble := trouble_of(summary):
        raise MedactionError(trouble)


def planned_counts(settings: DistillSettings) -> dict[str, int]:
    """What a run would play at most: cases that can be read and such that cannot, and rollouts,
    branches and gold of every tree included. What checks refuse, and where pairs are missing, is
    not known before."""
    counts, teachers = case_counts(settings), len(settings.teachers)
    # Launch points are chosen per teacher then, else in the whole tree.
    branching = teachers if settings.branch_by == "every" else 1
    branches = settings.launch_points * settings.branches * branching
    a_tree = teachers * settings.rollouts + branches + bool(settings.gold)
    return counts | {"rollouts": counts["cases"] * a_tree}


def unlike_the_paper(settings: DistillSettings) -> str:
    """Which graphs and encoder of the settings are not those that the paper measures with, and what
    follows; empty: none."""
    from medaction.kg.thresholds import is_papers, threshold_of
    from medaction.trajectories.scoring import linkers

    ruler = linkers(settings.disease_graph, settings.test_graph)
    graphs = {"PrimeKG": ruler.diseases.graph, "ClinGraph": ruler.tests.graph}
    others = {name: graph for name, graph in graphs.items() if not is_papers(graph)}
    parts = [f"{graph.name} in place of {name}" for name, graph in others.items()]
    if not settings.encoder.startswith("medcpt"):
        parts.append(f"encoder {settings.encoder} in place of MedCPT")
    # The paper's 3 hops are of its own graph; on another one the threshold is another.
    if parts and settings.rac_threshold is None:
        hops, origin, _ = threshold_of(ruler.tests.graph)
        parts.append(f"RAC threshold {hops:g} ({origin}) where the paper has 3 on ClinGraph")
    return "; ".join(parts)


@click.command()
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
@DRY_RUN
@QUIET
@AS_JSON
def retry(out: Path, dry_run: bool, quiet: bool, as_json: bool, **lists: tuple[str, ...]) -> None:
    """Run again what failed, with the settings of the run; nothing else is touched."""
    from medaction.flows.missing import settings_for

    choice = Retry.model_validate({name: list(values) for name, values in lists.items()})
    try:
        settings = settings_for(out, choice)  # a mistake is an error before a server starts
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if dry_run or settings is None:
        cases = settings.only if settings else []
        line = f"nothing was begun: failures of {len(cases)} cases: {', '.join(cases)}"
        nothing = "nothing to retry: no such failure is open"
        click.echo(json.dumps({"cases": cases}) if as_json else line if cases else nothing)
        return
    if isinstance(settings, DistillSettings):
        show_summary(run("distill", settings, choice), quiet, as_json)
    else:
        show_checks(run("environments", settings, choice), settings.out, quiet, as_json)


def repository_name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Raises click.BadParameter for what no hub takes as the name of a repository."""
    if value and (value.count("/") != 1 or not all(value.split("/"))):
        raise click.BadParameter(f"{value!r} is not of the form OWNER/NAME")
    return value


@click.command()
@OUT
@click.option(
    "--push",
    "repository",
    metavar="OWNER/NAME",
    callback=repository_name,
    help="Show what would go to this dataset repository of a hub.",
)
@click.option("--really", is_flag=True, help="With --push: send it. The key comes from HF_TOKEN.")
def export(out: Path, repository: str | None, really: bool) -> None:
    """Write the dataset of a run from its store: a new version when anything has changed, else the
    one that is there."""
    if really and not repository:
        raise click.UsageError("--really sends what --push names: give both")
    from medaction.flows.dataset import push, write_dataset
    from medaction.trajectories.store import Store, StoreError

    with Store(out / STORE) as store:
        flow, json = store.last_run()
        if flow != "distill":
            raise StoreError(
                f"{store.path} holds environments only:"
                f" run `medaction distill --out {typed(out)} ...`"
                " first"
            )
        # The folder may have been moved since the run.
        settings = DistillSettings.model_validate_json(json).model_copy(update={"out": out})
        version = write_dataset(store, settings)
    note = "" if version.is_new else ", unchanged"
    click.echo(f"{version.records} records in {version.folder}, version {version.number}{note}")
    if repository:
        for line in push(version.folder, repository, really):
            click.echo(f"  {line}")
        note = f"would go to {repository}; send it with --really"
        click.echo(f"sent to {repository}" if really else note)


@click.command()
@OUT
@click.option(
    "--port", type=click.IntRange(0, 65535), default=4280, help="The port on 127.0.0.1; 0: any."
)
@click.option(
    "--export",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one HTML file instead, with every case or with those of --case.",
)
@click.option(
    "--against", type=RUN_FOLDER, help="Another evaluation, shown beside this one: what changed."
)
@click.option("--case", "cases", multiple=True, help="A case for the file; may be given again.")
def view(
    out: Path, port: int, file: Path | None, against: Path | None, cases: tuple[str, ...]
) -> None:
    """Look at a run in a browser: funnel, DTC and RAC, teachers, cases, every tree with its turns.
    Also while it runs."""
    if cases and file is None:
        raise click.UsageError("--case chooses the cases of the file: give --export too")
    if against and file:
        raise click.UsageError("--export writes one run: leave out --against")
    from medaction.trajectories.store import publish_if_missing
    from medaction.trajectories.viewer.pages import ShownRun, export
    from medaction.trajectories.viewer.server import serve

    # The viewer reads the snapshot only; a run that was killed early may have none.
    publish_if_missing(out)
    if file is None:
        if against:
            publish_if_missing(against)
        shown = f"{out} beside {against} is shown on" if against else f"{out} is shown on"
        with suppress(KeyboardInterrupt):  # Ctrl+C is how it ends
            serve(out, port, lambda url: click.echo(f"{shown} {url}; end with Ctrl+C"), against)
        return
    if not file.parent.is_dir():
        raise click.UsageError(f"--export: there is no folder {file.parent}")
    try:
        file.write_text(export(ShownRun(out), list(cases)), encoding="utf-8")
    except KeyError as unknown:
        raise click.UsageError(f"{out} has no case {unknown}") from unknown
    click.echo(file)
