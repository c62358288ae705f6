"""`medaction contamination` and `medaction hard-set`: what sets of cases have in common, and a hard
set drawn from a pool."""

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medaction.cli.options import CASES_PATH, FOLDER, language_model
from medaction.trajectories.files import STORE, is_run

if TYPE_CHECKING:
    import polars as pl

    from medaction.evaluation.case_sets import SetCase

VALIDATOR = click.option(
    "--validator",
    metavar="MODEL",
    help="A language model that reviews every pair that was found; it can clear a pair.",
)


@click.command()
@click.argument("cases", type=CASES_PATH)
@click.argument("against", nargs=-1, type=CASES_PATH)
@click.option(
    "--out",
    type=FOLDER,
    help="Where the report and the pairs are written.  [default: contamination/ of the run, which"
    " `medaction view` shows]",
)
@VALIDATOR
def contamination(
    cases: str, against: tuple[str, ...], out: Path | None, validator: str | None
) -> None:
    """Look for cases of CASES in the sets AGAINST; without these, for copies within CASES.

    A set is a run's folder, a dataset's folder, a hard set, or case files in any form that is read
    (docs/sources.md). Where CASES is a dataset, what is found is noted in its manifest, and
    training on it is refused.
    """
    from medaction.envs.records import BadCase
    from medaction.evaluation.case_sets import about, mark_dataset, read_set
    from medaction.evaluation.contamination import (
        find_pairs,
        remembering,
        report_of,
        review,
        write_report,
    )
    from medaction.evaluation.judges import LlmJudge
    from medaction.flows.services import local_models
    from medaction.kg.encoder import load_encoder
    from medaction.trajectories.scoring import disease_linker
    from medaction.trajectories.viewer.contamination import COMPARISONS, TEXTS

    if out is None:
        if not (Path(cases) / STORE).is_file():
            raise click.UsageError(f"--out: {cases} is no run, which has a place for the report")
        out = Path(cases) / COMPARISONS
    if Path(cases).resolve() in [Path(benchmark).resolve() for benchmark in against]:
        raise click.UsageError(f"AGAINST: {cases} is CASES: leave it out to find copies within it")

    def set_at(argument: str, path: str) -> "list[SetCase]":
        try:
            return read_set(path)
        except BadCase as error:
            raise click.UsageError(f"{argument}: {error.message}") from error

    cases_of_set = set_at("CASES", cases)
    encode, linker = remembering(load_encoder().encode), disease_linker()
    out = out.resolve()
    # Built beside its place, and moved at the end: an interrupted call leaves the earlier report.
    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    with ExitStack() as stack:
        judge = None
        if validator:
            model = language_model("--validator", validator)
            reach = stack.enter_context(local_models())
            judge = LlmJudge(reach(model.model_copy(update={"temperature": 0.0})))
        for place, benchmark in enumerate(against or (None,)):
            second = set_at("AGAINST", benchmark) if benchmark else None
            pairs = find_pairs(cases_of_set, second, encode, linker)
            if judge and len(pairs):
                pairs = asyncio.run(review(pairs, cases_of_set, second, judge))
            size = len(cases_of_set)
            # Within one set each pair counts once.
            compared = size * len(second) if second else size * (size - 1) // 2
            sets = {
                "cases": about(cases, cases_of_set),
                "against": about(benchmark, second) if benchmark and second else None,
            }
            report = report_of(sets | {"validator": validator}, pairs, compared)
            folder = building / f"{place + 1}" if len(against) > 1 else building
            write_report(report, pairs, folder)
            texts_of(pairs, cases_of_set, second or cases_of_set).write_parquet(folder / TEXTS)
            _print_pairs(report, benchmark)
            if benchmark and mark_dataset(cases, benchmark, report["contaminated"]):
                copies = report["contaminated"]
                note = "training on these cases is refused" if copies else "no case is a copy"
                click.echo(f"noted in the manifest of {cases}: {note}")
    for file in _publish(building, out):
        click.echo(file)


def _publish(building: Path, out: Path) -> list[Path]:
    """Move the reports from `building` to `out`, in place of those of an earlier call. A report is
    the first to go and the last to come: none ever stands beside the texts of another."""
    from medaction.evaluation.contamination import REPORT_FILES
    from medaction.trajectories.viewer.contamination import COMPARISON_FILE, TEXTS

    former = [file.parent for file in out.glob(f"*/{COMPARISON_FILE}")]
    former = [folder for folder in former if folder.name.isdecimal()]
    for name in (*REPORT_FILES, TEXTS):
        for folder in (out, *former):
            (folder / name).unlink(missing_ok=True)
    for folder in former:
        with suppress(OSError):  # it holds more than a report
            folder.rmdir()
    files = []
    for name in (TEXTS, *reversed(REPORT_FILES)):
        for file in sorted(building.rglob(name)):
            files.append(out / file.relative_to(building))
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            file.replace(files[-1])
    shutil.rmtree(building)
    return sorted(files)


def texts_of(
    pairs: "pl.DataFrame", first: "Sequence[SetCase]", second: "Sequence[SetCase]"
) -> "pl.DataFrame":
    """Of each pair the diagnoses, and those of both cases' texts that have the most in common."""
    import polars as pl

    from medaction.evaluation.contamination import shingles_of

    ours, theirs = ({case.case_id: case for case in cases} for cases in (first, second))
    rows = []
    for case_id, other_id in pairs.select("case_id", "other_id").iter_rows():
        both = ours[case_id], theirs[other_id]
        # A case may have several texts (report, observation): the pair that shows the likeness
        # best.
        texts = max(
            product(*(case.texts or ("",) for case in both)),
            key=lambda texts: len(shingles_of(texts[0]) & shingles_of(texts[1])),
        )
        rows.append((*texts, *(case.names[0] if case.names else "not told" for case in both)))
    columns = ("text", "other_text", "diagnosis", "other_diagnosis")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _print_pairs(report: dict[str, Any], benchmark: str | None) -> None:
    compared = f"{report['against']['cases']} of {benchmark}" if benchmark else "each other"
    click.echo(
        f"{report['cases']['cases']} cases compared with {compared}: {report['pairs_found']} pairs"
        " found"
    )
    for row in report["pairs"]:
        figures = ", ".join(f"{name} {row[name]:.2f}" for name in row["found_by"])
        verdict = f" [{row['verdict']}]" if row.get("verdict") else ""
        click.echo(f"  {row['case_id']} - {row['other_id']}: {figures}{verdict}")


@click.command("hard-set")
@click.argument("pool", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out", type=FOLDER, required=True, help="Where the cases and the manifest are written."
)
@click.option("--size", type=click.IntRange(1), default=300, help="So many cases.")
@click.option(
    "--min-tests",
    type=click.IntRange(1),
    default=4,
    help="Documented tests that a case must have at least.",
)
@click.option(
    "--against",
    type=CASES_PATH,
    multiple=True,
    help="A set that shares no case with the hard set: a benchmark, a dataset, a run.",
)
@click.option("--seed", type=int, default=0, help="Decides between cases that are equally hard.")
def hard_set(
    pool: tuple[Path, ...],
    out: Path,
    size: int,
    min_tests: int,
    against: tuple[str, ...],
    seed: int,
) -> None:
    """Draw a hard set from POOL, folders of runs: rare diseases with long work-ups, stratified by
    body system and disease type.

    Cases that are, in whatever words, in a set given with --against or twice in the pool are left
    out. `medaction evaluate OUT/cases` plays the set.
    """
    from medaction.evaluation.hard_set import draw_hard_set, summary_of, write_hard_set
    from medaction.flows.versions import versions

    for path in pool:
        if path.is_dir() and not is_run(path):
            raise click.UsageError(f"{path} is not the folder of a run: it has no {STORE}")
    drawn = draw_hard_set(pool, against, size, min_tests, seed)
    files = write_hard_set(drawn, out, versions())
    parts = {"pool": drawn.candidates, "rare and long": drawn.fit, "chosen": drawn.cases}
    for kind, cases in parts.items():
        figures, names = summary_of(cases), ("tests", "turns", "tests_a_turn")
        means = ", ".join(f"{name} {figures[name]['mean']}" for name in names)
        click.echo(f"{kind}: {len(cases)} cases; means: {means}")
    click.echo(f"left out as contaminated: {len(drawn.excluded)}")
    for file in files:
        click.echo(file)
