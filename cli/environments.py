"""`medaction envs`: build environments alone, look at their checks, draw what they are made of."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from medaction.cli.options import (
    AS_JSON,
    CASES_PATH,
    DRY_RUN,
    OUT,
    PRESET,
    QUIET,
    case_counts,
    check_settings,
    options_of,
    run,
    settings_of,
)
from medaction.flows.settings import EnvironmentSettings
from medaction.trajectories.files import STORE
from medaction.words.errors import MedactionError, typed


@click.command()
@PRESET
@DRY_RUN
@QUIET
@AS_JSON
@options_of(EnvironmentSettings)
def build(preset: str | None, dry_run: bool, quiet: bool, as_json: bool, **options: Any) -> None:
    """Build the environments of case reports and stop there; `distill` on the same --out goes
    on."""
    from medaction.trajectories.store import Store

    settings = settings_of(EnvironmentSettings, preset, options)
    check_settings(settings)
    if dry_run:
        counts = case_counts(settings)
        shown = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        click.echo(json.dumps(counts) if as_json else f"nothing was begun: {shown}")
        return
    show_checks(run("environments", settings), settings.out, quiet, as_json)
    if as_json:
        return
    # Under other ones the cases would be built again, and a verifier's opinions lost.
    extras = [name for name in ("extractor", "verifier", "allow") if getattr(settings, name)]
    again = f", and the same {' and '.join(f'--{name}' for name in extras)}" if extras else ""
    with Store(settings.out / STORE) as store:
        is_benchmark = store.evaluation_only
    # A benchmark's cases never become a dataset.
    command = "evaluate" if is_benchmark else "distill --cases"
    player = "--model" if is_benchmark else "--teacher"
    place = f"{typed(settings.cases)} --out {typed(settings.out)}"
    click.echo(f"Play: medaction {command} {place} {player} ...{again}")


def show_checks(checks: dict[str, Any], out: Path, quiet: bool, as_json: bool) -> None:
    """The end of stage 1. Raises MedactionError where every case was refused, or a case is neither
    built nor refused because a model did not answer."""
    from medaction.flows.summary import print_checks

    if as_json:
        click.echo(json.dumps(checks, default=str, ensure_ascii=False))
    elif not quiet:
        print_checks(checks)
    if all(row["outcome"] != "environment" for row in checks["cases"]):
        # One reason for all, such as articles without an extractor, says what to do.
        reasons = {row["message"] for row in checks["refused cases"] if row["case_id"]}
        why = f" ({min(reasons)})" if len(reasons) == 1 else ""
        raise MedactionError(
            f"every case was refused{why}: `medaction envs check --out {typed(out)}` lists them"
        )
    if not as_json:
        click.echo(f"In {out}: {STORE}, checks.md; no trajectory yet")
    failures = [row for row in checks["failures"] if row["stage"] == "environment"]
    if cases := sum(row["open"] for row in failures):
        raise MedactionError(
            f"no environment of {cases} case{'s' if cases > 1 else ''}"
            f" ({failures[0]['for_example'][:200]}): mend that, then run this again"
        )


@click.command()
@OUT
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def check(out: Path, as_json: bool) -> None:
    """Print every check with its figures, and every refused case with its reason."""
    from medaction.flows.summary import check_tables, print_checks
    from medaction.trajectories.store import Store

    with Store(out / STORE) as store:
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

    with Store(out / STORE) as store:
        environments = store.environments()
    if not environments:
        raise click.UsageError(
            f"{out} has no environment to draw: see `medaction envs check --out {typed(out)}`"
        )
    for file in plot_composition(composition(environments), out / "plots"):
        click.echo(file)


@click.command()
@click.option(
    "--cases", type=CASES_PATH, required=True, help="The case reports, in any form that is read."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a finding, no table.")
def lint(cases: str, as_json: bool) -> None:
    """Count what may name a person in CASES: names, dates, numbers, addresses. Ends with 1 where
    something is found, or a file could not be read.

    It removes nothing, and a report without a finding can still name its patient.
    """
    from medaction.envs.identifiers import identifiers_in
    from medaction.envs.records import BadCase
    from medaction.envs.sources import ANY_ARTICLE, UNLICENSED, read_cases

    places: dict[str, list[str]] = {}
    flagged: set[str] = set()
    reports = unread = 0
    try:
        # Licence and kind of article do not matter here: names may stand in any of them.
        for report in read_cases(cases, frozenset({UNLICENSED, ANY_ARTICLE})):
            if isinstance(report, BadCase):
                unread += 1
                click.echo(f"not looked at: {report.path}: {report}", err=True)
                continue
            reports += 1
            for place in identifiers_in(report.text):
                flagged.add(report.case_id)
                where = f"{report.case_id}, line {place.line}: {place.words}"
                places.setdefault(place.kind, []).append(where)
                if as_json:
                    line = {"case_id": report.case_id, "path": report.path} | asdict(place)
                    click.echo(json.dumps(line, ensure_ascii=False))
    except BadCase as error:
        raise click.UsageError(f"--cases: {error.message}") from error
    for kind, found in sorted(places.items()):
        # With --json stdout is JSON alone.
        click.echo(f"{kind}: {len(found)}; the first: {found[0]}", err=as_json)
    if not reports:
        raise click.UsageError(f"--cases: there is no report at {cases} that can be read")
    click.echo(f"{len(flagged)} of {reports} reports have a finding", err=as_json)
    if unread:
        raise MedactionError(f"what could not be read was not looked at: {unread} of the files")
    if flagged:
        raise MedactionError(
            "look at each: de-identify the reports (docs/deidentification.md), or know that they"
            " are published as they are"
        )
