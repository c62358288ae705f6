"""`medaction rubrics`: a model's replies to conversations, held against physicians' criteria."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import click

from medaction.cli.options import AS_JSON, FOLDER, QUIET, language_model
from medaction.words.errors import MedactionError


@click.command()
@click.argument("cases", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--model", required=True, help="The model under test: any language model.")
@click.option("--judge", required=True, help="The language model that decides on each criterion.")
@click.option(
    "--out",
    type=FOLDER,
    required=True,
    help="Where rubrics.jsonl (a case a line) and rubrics.md are written.",
)
@click.option("--limit", type=click.IntRange(min=1), help="The first so many cases only.")
@QUIET
@AS_JSON
def rubrics(
    cases: Path, model: str, judge: str, out: Path, limit: int | None, quiet: bool, as_json: bool
) -> None:
    """Let a model reply to the conversations of CASES, HealthBench's published file, and score each
    reply by its criteria. A rerun asks only for what is missing from the call cache."""
    from medaction.envs.records import BadCase
    from medaction.evaluation.rubrics import RubricCase, read_rubrics, rubric_table, score_cases
    from medaction.flows.progress import Progress
    from medaction.flows.services import local_models
    from medaction.llm.calls import CallSettings, configure

    tested, deciding = language_model("--model", model), language_model("--judge", judge)
    # A verdict on the same reply should be the same.
    deciding = deciding.model_copy(update={"temperature": 0.0})
    chosen: list[RubricCase] = []
    bad_lines = 0
    for case in read_rubrics(cases):
        if isinstance(case, BadCase):
            bad_lines += 1
            click.echo(f"left out: {case.message}", err=True)
        # Read on to the end: a bad line counts wherever it stands.
        elif limit is None or len(chosen) < limit:
            chosen.append(case)
    if not chosen:
        raise MedactionError(f"{cases}: no case can be read; {bad_lines} lines are left out")
    out.mkdir(parents=True, exist_ok=True)
    configure(CallSettings("on"))
    with local_models() as reach, Progress("rubrics", len(chosen), "not scored") as progress:
        models = reach(tested), reach(deciding)
        work = score_cases(chosen, *models, lambda row: progress.advance(row.score is None))
        rows = asyncio.run(work)
    lines = [json.dumps(asdict(row), ensure_ascii=False) for row in rows]
    (out / "rubrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    unscored = [row for row in rows if row.score is None]
    notes = [f"Model {model}, judge {judge}, {len(rows)} cases of {cases.name}."]
    notes += [f"{len(unscored)} cases are not scored: rubrics.jsonl says why."] if unscored else []
    notes += [f"{bad_lines} lines could not be read."] if bad_lines else []
    text = "\n".join(["# Rubrics", "", " ".join(notes), "", *rubric_table(chosen, rows), ""])
    (out / "rubrics.md").write_text(text, encoding="utf-8")
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], ensure_ascii=False))
    elif not quiet:
        click.echo(text)
    click.echo(f"In {out}: rubrics.jsonl, rubrics.md", err=as_json)
    if unscored or bad_lines:
        raise MedactionError(
            f"{len(unscored)} cases are not scored and {bad_lines} lines are left out, first:"
            f" {unscored[0].reason if unscored else 'see above'}; mend it and run this again"
        )
