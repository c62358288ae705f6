"""`medaction evaluate` and `medaction compare`: score a model on benchmark cases, and put results
beside each other."""

import json
from pathlib import Path
from typing import Any

import click

from medaction.cli.options import (
    AS_JSON,
    PRESET,
    QUIET,
    check_settings,
    options_of,
    run,
    settings_of,
)
from medaction.flows.settings import EvaluationSettings, Retry
from medaction.trajectories.files import STORE
from medaction.words.errors import MedactionError, typed


@click.command()
@click.argument("cases", required=False)
@PRESET
@click.option(
    "--model", "--teacher", "model", help=EvaluationSettings.model_fields["model"].description
)
@click.option("--retry-failed", is_flag=True, help="Play rollouts again that failed before.")
@QUIET
@AS_JSON
@options_of(EvaluationSettings, without=("cases", "model"))
def evaluate(
    cases: str | None,
    preset: str | None,
    retry_failed: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Play CASES with a model, judge what it did, and write OUT/result.json. A rerun does only what
    is missing."""
    settings = settings_of(EvaluationSettings, preset, {"cases": cases} | options)
    from medaction.evaluation.judging import FAULT
    from medaction.evaluation.results import result_table

    check_settings(settings)
    # An empty `Retry` wants every failure.
    result = run("evaluate", settings, Retry() if retry_failed else None)
    if not result["cases"]["environments"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in result["cases"]["refused"])
        raise MedactionError(
            f"no case can be played ({reasons}):"
            f" `medaction envs check --out {typed(settings.out)}` says"
            " why"
        )
    if as_json:
        click.echo(json.dumps(result, default=str, ensure_ascii=False))
    elif not quiet:
        # The whole table stands in result.md.
        click.echo(result_table(result).split("\n## Subsets")[0].rstrip() + "\n")
    click.echo(f"In {settings.out}: result.json, result.md, {STORE}", err=as_json)
    click.echo(f"Look at it: medaction view --out {typed(settings.out)}", err=as_json)
    if not any(measure["scored"] for measure in result["scores"]):
        raise MedactionError(
            f"nothing was scored: `medaction view --out {typed(settings.out)}` shows what failed;"
            " mend it,"
            " then run this again with --retry-failed"
        )
    # A rollout has two verdicts, on the diagnosis and on the tests; either may be missing.
    halves = ("correct", "precision")
    unscored = [row for row in result["rows"] if None in [row[half] for half in halves]]
    failed = [row for row in unscored if not row["trajectory_id"]]
    unjudged = [row for row in unscored if row["trajectory_id"] and FAULT in row["note"]]
    if failed or unjudged:
        why = f" ({unjudged[0]['note'][:200]})" if unjudged else ""
        raise MedactionError(
            f"of {len(result['rows'])} rollouts {len(failed)} failed and {len(unjudged)} were not"
            f" judged{why}: run this again with --retry-failed"
        )


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--published", is_flag=True, help="Add the rows of the paper's Table 2, marked as published."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the comparison to this Markdown file too.",
)
def compare(results: tuple[Path, ...], published: bool, out: Path | None) -> None:
    """Put RESULTS (files or folders of `medaction evaluate`) side by side, with paired tests of
    their differences."""
    from medaction.evaluation.compare import comparison, draw_costs
    from medaction.evaluation.plots import save
    from medaction.evaluation.results import read_result

    try:
        read = [read_result(path) for path in results]
        text = comparison(read, published)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    click.echo(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
        save(draw_costs(read), out.parent, f"{out.stem}-costs")
