"""The paper's analyses of what models played, over evaluation stores: DTC by turn (Figure 5a), RAC
pass rate (5b), the length of work-ups (appendix B), and how well stated confidences are calibrated.
Each table is a query; unknown values are counted, never averaged. Gold trajectories count nowhere:
they were written with the report at hand."""

from collections.abc import Iterator
from itertools import compress

import polars as pl
from matplotlib.figure import Figure

from medaction.evaluation.plots import canvas, hue_of, line
from medaction.kg.pruning import THRESHOLD
from medaction.trajectories.queries import SCORES_BY_JUDGE
from medaction.trajectories.store import Store

BINS = 10
"""Of the reliability diagram, by stated confidence."""

# A trajectory that has ended keeps its last DTC, so that every turn's mean is over the same
# trajectories. The turns that a branch shares with its parent count once, as the parent's.
DTC_BY_TURN = """
with ends as (select trajectory_id, max(number) as last from turn_scores group by all),
places as (
    select teacher as model, trajectory_id, last, unnest(range(branch_turn + 1, t_max + 1)) as
        turn
    from current_trajectories join ends using (trajectory_id) where style <> 'gold'
)
select model, turn, avg(dtc) as mean_dtc, count(dtc) as known, count(*) - count(dtc) as unknown,
    count(*) filter (where last >= turn) as playing
from places left join turn_scores on turn_scores.trajectory_id = places.trajectory_id and number =
    least(turn, last)
group by model, turn order by model, turn
"""

RAC_PASS_RATE = """
select teacher as model, count(*) filter (where rac <= {threshold}) / nullif(count(rac), 0) as
    pass_rate,
    count(rac) as known, count(*) - count(rac) as unknown_or_unchanged
from turn_scores join current_trajectories using (trajectory_id)
where number >= 2 and number > branch_turn and style <> 'gold' group by model order by model
"""

WORK_UP = """
with per_case as (
    select teacher, path_id, count(*) as turns, sum(len(tests)) as tests,
        sum(len(tests)) filter (where owner_id = path_id) as own_tests,
        count(*) filter (where len(tests) > 0 and owner_id = path_id) as ordering
    from paths join turns on turns.trajectory_id = owner_id and turns.number = paths.number
        join current_trajectories as played on played.trajectory_id = path_id
    where style <> 'gold' group by all
)
select teacher as model, avg(turns) as turns_a_case, sum(own_tests) / nullif(sum(ordering), 0) as
    tests_an_ordering_turn,
    avg(tests) as tests_a_case, count(*) as trajectories
from per_case group by model order by model
"""

CONFIDENCES = f"""
with last as (
    select trajectory_id, arg_max(differential, number) as differential,
        arg_max(turns.final_diagnosis, number) as said
    from turns group by trajectory_id
), stated as (
    select teacher as model, judge, protocol, correct,
        list_filter(differential, lambda line: lower(line.diagnosis) = lower(said))[1].confidence
            as confidence
    from last join current_trajectories using (trajectory_id)
        join ({SCORES_BY_JUDGE}) using (trajectory_id) where style <> 'gold'
)
select * from stated where correct is not null
"""


def dtc_by_turn(store: Store) -> pl.DataFrame:
    """model, turn, mean_dtc (hops), known, unknown, playing (trajectories that had not ended
    before; a branch from its first own turn on). Needs `score_store` first."""
    return store.frame(DTC_BY_TURN)


def rac_pass_rate(store: Store, threshold: float = THRESHOLD) -> pl.DataFrame:
    """model, pass_rate (share of the turns from the second on whose RAC is known and at most
    `threshold`), known, unknown_or_unchanged."""
    # `float`, since it becomes part of the query's text.
    return store.frame(RAC_PASS_RATE.format(threshold=float(threshold)))


def work_up(store: Store) -> pl.DataFrame:
    """model, turns_a_case and tests_a_case (of whole work-ups, with what a branch shares),
    tests_an_ordering_turn (each turn once), trajectories."""
    return store.frame(WORK_UP)


def calibration(store: Store) -> pl.DataFrame:
    """model, judge, protocol, bin (0 to BINS - 1), stated (mean confidence, 0 to 1), right (share),
    cases; of the confidence that the last turn states for the final diagnosis. Diagnoses without a
    stated confidence (0, or not in the differential) are left out."""
    stated = store.frame(CONFIDENCES).filter(pl.col("confidence") > 0)
    binned = stated.with_columns(
        (pl.col("confidence") / 100).alias("stated"),
        # Bins are closed above: 10 % is in the first, 100 % in the last one.
        ((pl.col("confidence") - 1) * BINS // 100).cast(pl.Int64).alias("bin"),
    )
    keys = ["model", "judge", "protocol", "bin"]
    return (
        binned.group_by(keys)
        .agg(
            pl.col("stated").mean(),
            pl.col("correct").mean().alias("right"),
            pl.len().cast(pl.Int64).alias("cases"),
        )
        .sort(keys)
    )


def calibration_error(bins: pl.DataFrame) -> float | None:
    """Expected calibration error of one model's bins by one judge: mean of |stated - right|,
    weighted by cases; None without cases."""
    errors, cases = (bins["stated"] - bins["right"]).abs(), bins["cases"]
    return float((errors * cases).sum()) / float(cases.sum()) if cases.sum() else None


def series_of(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """(label, rows) of what is drawn apart: each model, in each run, by each judge and protocol.
    The label names the model, and of the others what differs within the table."""
    keys = [name for name in ("model", "run", "judge", "protocol") if name in frame.columns]
    differing = [frame[name].n_unique() > 1 or name == "model" for name in keys]
    # In the table's order, which is that of the models' names: so are the colours.
    for values, rows in frame.group_by(keys, maintain_order=True):
        yield ", ".join(map(str, compress(values, differing))), rows


def unknown_share(rows: pl.DataFrame) -> str:
    """Of a table's rows, the share of what they count that is unknown."""
    unknown, known = int(rows["unknown"].sum()), int(rows["known"].sum())
    return f"{unknown / max(1, unknown + known):.0%} unknown"


def draw_dtc(frame: pl.DataFrame) -> Figure:
    """Mean DTC over turns, a line a model and run."""
    figure, axes = canvas("DTC of the top hypothesis by turn", "turn", "mean DTC (hops)")
    for place, (label, rows) in enumerate(series_of(frame)):
        line(axes, place, rows["turn"], rows["mean_dtc"], f"{label} ({unknown_share(rows)})")
    axes.margins(y=0.1)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def draw_rac(frame: pl.DataFrame) -> Figure:
    """The RAC pass rate, a bar a model and run."""
    figure, axes = canvas("Turns that pass the RAC filter", "", "share of turns with a known RAC")
    models = [label for label, _ in series_of(frame)]
    bars = axes.bar(
        range(len(models)),
        frame["pass_rate"].fill_null(0.0),  # no RAC is known: its label says 'of 0'
        color=[hue_of(at) for at in range(len(models))],
        width=0.6,
    )
    counts = frame.select("pass_rate", "known").iter_rows()
    axes.bar_label(bars, [f"{rate or 0:.3f}\nof {scored}" for rate, scored in counts], padding=2)
    axes.set_xticks(range(len(models)), models)
    axes.set_ylim(0, 1.15)  # room for the numbers above the bars
    axes.set_xlim(-0.8, len(models) - 0.2)
    return figure


def draw_calibration(frame: pl.DataFrame) -> Figure:
    """The reliability diagram, a line a model, run, judge and protocol, each with its expected
    calibration error."""
    figure, axes = canvas("Stated confidence and accuracy", "stated confidence", "share right")
    # What a model would have whose stated 70 % is right in 7 of 10 cases.
    axes.plot([0, 1], [0, 1], color="#B8B8B8", linestyle="--", label="calibrated")
    for place, (label, rows) in enumerate(series_of(frame)):
        error = calibration_error(rows)
        label = f"{label} (ECE {error:.2f}, {rows['cases'].sum()} rollouts)"
        line(axes, place, rows["stated"], rows["right"], label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)
    return figure
