"""`medaction labels`: what clinicians said in the viewer, and how well the judges agree with it."""

import csv
import json
import sys
from dataclasses import asdict, fields
from pathlib import Path

import click

from medaction.cli.options import OUT
from medaction.words.errors import typed


@click.command()
@OUT
@click.option("--json", "as_json", is_flag=True, help="Lines of JSON instead of CSV.")
@click.option("--all", "every", is_flag=True, help="Earlier labels of the same thing, too.")
def labels(out: Path, as_json: bool, every: bool) -> None:
    """Print the labels of a run as CSV; on stderr how often clinicians accepted a judge's
    verdict."""
    from medaction.evaluation.clinicians import judge_agreement
    from medaction.trajectories.labels import Label, history
    from medaction.trajectories.labels import labels as newest

    rows = list(history(out)) if every else newest(out)
    if as_json:
        for label in rows:
            click.echo(json.dumps(asdict(label), ensure_ascii=False))
    else:
        writer = csv.DictWriter(sys.stdout, [field.name for field in fields(Label)])
        writer.writeheader()
        writer.writerows(asdict(label) for label in rows)
    for row in judge_agreement(out):
        click.echo(
            f"{row.judge}: clinicians accepted {row.accepted} of {row.labelled} verdicts (95 %"
            f" interval {row.low:.2f} to {row.high:.2f}); too kind {row.too_kind}, too strict"
            f" {row.too_strict}",
            err=True,
        )
    if not rows:
        click.echo(f"no label yet: medaction view --out {typed(out)}", err=True)
