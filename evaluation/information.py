"""Information gain a turn: how much the results of a turn's tests raised the truth's probability
and rank in the next differential."""

import math
from itertools import pairwise

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medaction.envs.records import UNAVAILABLE
from medaction.envs.rewards import standing
from medaction.evaluation.analyses import unknown_share
from medaction.evaluation.played import Linked, paths
from medaction.evaluation.plots import GREY, dress, hue_of, line
from medaction.trajectories.store import Store

FLOOR = 0.01
"""A probability below one percent counts as one percent where bits are told: an absent truth has
none that could be stated."""


def gains(store: Store, links: Linked) -> pl.DataFrame:
    """A row for every pair of turns: model, trajectory_id, turn (the one whose tests were
    answered), results (names of what came back, or UNAVAILABLE), probability, reciprocal_rank and
    bits (log2 of the probabilities' ratio) gained; null where unknown."""
    rows = []
    for path in paths(store, links):
        stands = [standing(turn, links.nodes.diseases, path.course.truth) for turn in path.turns]
        for turn, (before, after) in zip(path.turns, pairwise(stands), strict=False):
            if turn.number <= path.trajectory.spec.branch_turn - 1:
                continue  # both turns are the parent's, and counted there
            returned = [result.test for answer in turn.answers for result in answer.results]
            row = {
                "model": path.trajectory.spec.teacher,
                "trajectory_id": path.trajectory.trajectory_id,
                "turn": turn.number,
                "results": list(dict.fromkeys(returned)) or [UNAVAILABLE],
                # Counted, not skipped: the table says of how many turns the gain is unknown.
                "known": before is not None and after is not None,
            }
            if before and after:
                # Both floored: a truth that was named with 0 has no logarithm.
                ratio = max(after.probability, FLOOR) / max(before.probability, FLOOR)
                row |= {
                    "probability": after.probability - before.probability,
                    "reciprocal_rank": after.reciprocal_rank - before.reciprocal_rank,
                    "bits": math.log2(ratio),
                }
            rows.append(row)
    figures = ("probability", "reciprocal_rank", "bits")
    schema = {"model": pl.String(), "trajectory_id": pl.String(), "turn": pl.Int64()}
    schema |= {"results": pl.List(pl.String()), **dict.fromkeys(figures, pl.Float64())}
    return pl.DataFrame(rows, schema=schema | {"known": pl.Boolean()})


_MEANS = [pl.col(name).mean() for name in ("probability", "reciprocal_rank", "bits")]
_COUNTS = [
    pl.col("known").sum().cast(pl.Int64).alias("known"),
    (~pl.col("known")).sum().cast(pl.Int64).alias("unknown"),
]


def gain_by_turn(gains_of_turns: pl.DataFrame) -> pl.DataFrame:
    """model, turn, mean gains in probability, reciprocal_rank and bits, known, unknown."""
    return gains_of_turns.group_by("model", "turn").agg(*_MEANS, *_COUNTS).sort("model", "turn")


def gain_by_result(gains_of_turns: pl.DataFrame) -> pl.DataFrame:
    """result (a documented test, or UNAVAILABLE where nothing came back), mean gains of the turns
    that it came back in, known, unknown.

    Results that came back together share their gain: which of them did it cannot be told from one
    trajectory."""
    return (
        gains_of_turns.explode("results")
        .rename({"results": "result"})
        .group_by("result")
        .agg(*_MEANS, *_COUNTS)
        .sort("probability", "result", descending=[True, False], nulls_last=True)
    )


def draw_gain(gains_of_turns: pl.DataFrame, least: int = 3) -> Figure:
    """Left: mean gain by turn, of each model. Right: the ten results with the largest gain among
    those known `least` times or more."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    turn_axes, result_axes = figure.subplots(1, 2, width_ratios=(1, 1.15))
    gain, turn = "mean gain in stated probability", "turn whose tests were answered"
    dress(turn_axes, "What a turn's results did for the truth", turn, gain)
    for place, ((model,), of_model) in enumerate(
        gain_by_turn(gains_of_turns).group_by(["model"], maintain_order=True)
    ):
        label = f"{model} ({unknown_share(of_model)})"
        line(turn_axes, place, of_model["turn"], of_model["probability"], label)
    turn_axes.axhline(0, color="#B8B8B8", linewidth=0.8)
    turn_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if turn_axes.get_legend_handles_labels()[0]:
        turn_axes.legend(frameon=False)
    by_result = gain_by_result(gains_of_turns).filter(pl.col("known") >= least)
    rows = by_result.filter(pl.col("result") != UNAVAILABLE).head(10)
    # Always shown: what a turn without any result does is the measure for the others.
    rows = pl.concat([rows, by_result.filter(pl.col("result") == UNAVAILABLE)])
    dress(result_axes, f"By result (at least {least} turns)", gain, "")
    hues = [GREY if name == UNAVAILABLE else hue_of(0) for name in rows["result"]]
    bars = result_axes.barh(range(len(rows)), rows["probability"], color=hues, height=0.65)
    means = rows.select("probability", "known").iter_rows()
    result_axes.bar_label(bars, [f" {mean:+.2f} ({count})" for mean, count in means], size=8)
    names = [name if len(name) <= 40 else name[:38] + "…" for name in rows["result"]]
    result_axes.set_yticks(range(len(rows)), names)
    result_axes.invert_yaxis()
    result_axes.margins(x=0.2)
    return figure
