"""`medaction envs`: build environments alone, look at their checks, draw what they are made of."""

import json
from pathlib import Path
from typing import Any

import click

from medaction.cli.options import OUT, PRESET, check_settings, options_of, run, settings_of
from medaction.flows.settings import EnvironmentSettings
from medaction.words.errors import MedactionError


@click.command()
@PRESET
@options_of(EnvironmentSettings)
def build(preset: str | None, **options: Any) -> None:
    """Build the environments of case reports and stop there; `distill` on the same --out goes
    on."""
    settings = settings_of(EnvironmentSettings, preset, options)
    from medaction.flows.summary import print_checks

    check_settings(settings)
    checks = run("environments", settings)
    print_checks(checks)
    if all(row["outcome"] != "environment" for row in checks["cases"]):
        raise MedactionError("every case was refused: the tables above say why")
    click.echo(f"In {settings.out}: trajectories.duckdb, checks.md; no trajectory yet")
    click.echo(
        f"Play: medaction distill --cases {settings.cases} --out {settings.out} --teacher ..."
    )


@click.command()
@OUT
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def check(out: Path, as_json: bool) -> None:
    """Print every check with its figures, and every refused case with its reason."""
    from medaction.flows.summary import check_tables, print_checks
    from medaction.trajectories.store import Store

    with Store(out / "trajectories.duckdb") as store:
        tables = check_tables(store)
    if as_json:
        click.echo(json.dumps(tables, ensure_ascii=False))
    else:
        print_checks(tables)


@click.command()
@OUT
def plot(out: Path) -> None:
    """Draw body systems, disease types and tests (the paper's Figures 6 and 7) into OUT/plots."""
    from medaction.evaluation.composition import composition, plot_composition
    from medaction.trajectories.store import Store

    with Store(out / "trajectories.duckdb") as store:
        environments = store.environments()
    if not environments:
        raise click.UsageError(
            f"{out} has no environment to draw: see `medaction envs check --out {out}`"
        )
    for file in plot_composition(composition(environments), out / "plots"):
        click.echo(file)
