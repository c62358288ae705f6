"""How difficult a case is for a model: how often its own rollouts miss the diagnosis. From it, a
curriculum: the hardest cases first."""

import math

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medaction.evaluation.analyses import series_of
from medaction.evaluation.played import endings
from medaction.evaluation.plots import canvas, hue_of
from medaction.trajectories.store import Store


def difficulty(store: Store) -> pl.DataFrame:
    """model, case_id, rollouts (from the initial observation), missed, unknown, difficulty (missed
    of those known; null where none is)."""
    # A branch begins where another rollout stood: it says less of the case than of that turn.
    rollouts = endings(store).filter(pl.col("branch_turn") == 0)
    is_scored = pl.col("wrong").is_not_null()
    return (
        rollouts.group_by("model", "case_id")
        .agg(
            pl.len().cast(pl.Int64).alias("rollouts"),
            pl.col("wrong").sum().cast(pl.Int64).alias("missed"),
            (~is_scored).sum().cast(pl.Int64).alias("unknown"),
            pl.col("wrong").mean().alias("difficulty"),
        )
        .sort("model", "case_id")
    )


def hardest(frame: pl.DataFrame, share: float = 0.5) -> list[str]:
    """The ids of the hardest `share` of the cases (rounded up), hardest first: by the mean over
    models, then by id. Cases of unknown difficulty are neither hard nor easy and left out."""
    # The mean over models first, so that a model with more rollouts does not decide.
    cases = frame.drop_nulls("difficulty").group_by("case_id").agg(pl.col("difficulty").mean())
    ranked = cases.sort("difficulty", "case_id", descending=[True, False])["case_id"].to_list()
    return ranked[: math.ceil(share * len(ranked))]


def draw_difficulty(frame: pl.DataFrame) -> Figure:
    """How many cases each model misses how often, each run apart."""
    figure, axes = canvas(
        "Difficulty of cases", "share of a case's rollouts that miss the diagnosis", "cases"
    )
    series = list(series_of(frame))
    # Bins around 0, 0.1, ... 1: shares of 10 or 5 rollouts lie in their middle.
    edges = [place / 10 - 0.05 for place in range(12)]
    values = [rows["difficulty"].drop_nulls().to_list() for _, rows in series]
    labels = [
        f"{label} ({len(value)} cases, {rows['difficulty'].null_count()} unknown)"
        for (label, rows), value in zip(series, values, strict=True)
    ]
    axes.hist(
        values, bins=edges, label=labels, color=[hue_of(place) for place in range(len(series))]
    )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if series:
        axes.legend(frameon=False)
    return figure
