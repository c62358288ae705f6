"""`medaction analyse`: the paper's analyses of runs, and more, as tables and plots."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medaction.cli.options import FOLDER, RUN_FOLDER, language_model
from medaction.trajectories.files import STORE
from medaction.words.errors import MedactionError

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from medaction.evaluation.played import Linked
    from medaction.llm.teacher import Teacher
    from medaction.trajectories.store import Store


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN_FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Where the plots and tables go.")
@click.option(
    "--rac-threshold",
    type=float,
    help="Hops above which a turn fails the RAC filter.  [default: the test graph's own]",
)
@click.option(
    "--judge",
    help="Any LiteLLM model, or local: it says which failure modes the wrong trajectories show,"
    " beside our rules.",
)
@click.option(
    "--hardest",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    help="Share of the cases that OUT/hardest.txt lists, for `distill --case @OUT/hardest.txt`.",
)
def analyse(
    runs: tuple[Path, ...],
    out: Path,
    rac_threshold: float | None,
    judge: str | None,
    hardest: float,
) -> None:
    """DTC by turn, RAC pass rate, work-ups, calibration, failure modes, information gain and
    difficulty of RUNS, as tables and plots.

    RUNS are folders of evaluations or distillations.
    """
    import polars as pl

    from medaction.evaluation import analyses, difficulty, failure_modes, information
    from medaction.evaluation.plots import save
    from medaction.flows.finish import links_of
    from medaction.kg.thresholds import threshold_of
    from medaction.trajectories.store import Store

    judging = language_model("--judge", judge) if judge else None
    frames_of: dict[str, list[pl.DataFrame]] = {}
    for run in runs:
        with Store(run / STORE) as store:
            if not store.rows("select 1 from trajectories limit 1"):
                click.echo(f"{run}: nothing was played here", err=True)
                continue
            links = links_of(store)
            # What the run was pruned by, so that its pass rate is the one of its dataset.
            used = store.rows("select max(threshold) from verdicts")[0][0]
            threshold = used if rac_threshold is None else rac_threshold
            if threshold is None:
                threshold = threshold_of(links.test_graph).hops
            tables = {
                "dtc": analyses.dtc_by_turn(store),
                "rac": analyses.rac_pass_rate(store, threshold),
                "work_up": analyses.work_up(store),
                "calibration": analyses.calibration(store),
                "failure_modes": failure_modes.failure_modes(store, links, threshold),
                "information_gain": information.gains(store, links),
                "difficulty": difficulty.difficulty(store),
            }
            if judging:
                tables["failure_modes_judged"] = _judged(store, links, judging)
        for name, frame in tables.items():
            # One model may have several runs: what is drawn as one line must be of one run.
            frames_of.setdefault(name, []).append(frame.with_columns(run=pl.lit(str(run))))
    if not frames_of:
        raise MedactionError("nothing was played here that could be analysed")
    tables_of_all = {name: pl.concat(frames) for name, frames in frames_of.items()}
    modes, gained = tables_of_all["failure_modes"], tables_of_all["information_gain"]
    tables_of_all["failure_mode_shares"] = failure_modes.shares(modes)
    tables_of_all["information_gain_by_turn"] = information.gain_by_turn(gained)
    tables_of_all["information_gain_by_result"] = information.gain_by_result(gained)
    # CSV has no lists.
    texts = {"information_gain": gained.with_columns(pl.col("results").list.join("; "))}
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in (tables_of_all | texts).items():
        frame.write_csv(out / f"{name}.csv")
        click.echo(out / f"{name}.csv")
    draw_modes = failure_modes.draw_failure_modes
    figures: dict[str, Callable[[pl.DataFrame], Figure]] = {
        "dtc": analyses.draw_dtc,
        "rac": analyses.draw_rac,
        "calibration": analyses.draw_calibration,
        "failure_modes": partial(draw_modes, how="by rule"),
        "information_gain": information.draw_gain,
        "difficulty": difficulty.draw_difficulty,
        "failure_modes_judged": partial(draw_modes, how=f"judged by {judge}"),
    }
    for name, draw in figures.items():
        if name in tables_of_all and not tables_of_all[name].is_empty():
            for file in save(draw(tables_of_all[name]), out, name):
                click.echo(file)
    ids = difficulty.hardest(tables_of_all["difficulty"], hardest)
    (out / "hardest.txt").write_text("".join(f"{id_}\n" for id_ in ids))
    click.echo(f"{out / 'hardest.txt'}: {len(ids)} cases")


def _judged(store: "Store", links: "Linked", judge: "Teacher") -> "pl.DataFrame":
    from medaction.evaluation.failure_judge import judge_failures
    from medaction.flows.services import local_models
    from medaction.llm.calls import CallSettings, configure

    # A local judge is served while it is asked, and no longer.
    with local_models() as reach:
        configure(CallSettings("on"))
        frame, without = asyncio.run(judge_failures(store, links, reach(judge)))
    if without:
        click.echo(
            f"{without} wrong trajectories got no verdict from the judge: run this again to ask for"
            " them anew"
        )
    return frame
