"""Do filters make a better model? The arms of an experiment on one pool of records: which cases
tell the filters apart, what can be found before anything runs, and what was found.

Records that all filters keep teach all models the same. So cases are taken in the order of how much
the filters disagree on them, known before any model is trained, until each arm has its records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from medaction.evaluation.compare import Difference
from medaction.evaluation.plots import canvas, hue_of
from medaction.evaluation.power import POWER, detectable, sd_of_difference
from medaction.kg.bootstrap import interval
from medaction.words.errors import MedactionError
from medaction.words.markdown import markdown_table, number, section, span

Scores = Mapping[int, Mapping[str, float]]
"""seed -> case -> the mean of its rollouts."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The cases that are taken, records an arm, and for each pair of arms the share of their
    records that both have."""

    cases: tuple[str, ...]
    records: int
    shared: Mapping[tuple[str, str], float]


def disagreement(kept: Mapping[str, pl.DataFrame]) -> dict[str, float]:
    """case -> share of the case's records that not every filter keeps, 0 to 1. `kept`: arm ->
    records (id, case_id)."""
    by_case = pl.concat(
        frame.select("case_id", "id").with_columns(arm=pl.lit(arm)) for arm, frame in kept.items()
    )
    # By the arms that keep a record: one that all keep tells no filter from another.
    counts = by_case.group_by("case_id", "id").agg(pl.col("arm").n_unique().alias("arms"))
    shares = counts.group_by("case_id").agg((pl.col("arms") < len(kept)).mean().alias("share"))
    return dict(shares.iter_rows())


def choose_pool(kept: Mapping[str, pl.DataFrame], records: int | None) -> Pool:
    """The cases on which the filters disagree most, as few as give each arm `records` records;
    None: all cases on which they disagree at all, and as many records as every arm has of them.

    Where `records` is more than those cases have, the others follow: the share of records that arms
    have in common tells. Raises MedactionError when all cases have fewer.
    """
    shares = disagreement(kept)
    # Cases without disagreement only fill up, where a number of records is asked for.
    order = sorted(
        (case for case in shares if shares[case] or records), key=lambda case: (-shares[case], case)
    )
    counts = {arm: dict(frame["case_id"].value_counts().iter_rows()) for arm, frame in kept.items()}
    totals = dict.fromkeys(kept, 0)
    cases: list[str] = []
    for case in order:
        # Until the smallest arm has enough: all arms train on as many records.
        if records and min(totals.values()) >= records:
            break
        cases.append(case)
        for arm in kept:
            totals[arm] += counts[arm].get(case, 0)
    fewest = min(totals.values())
    if not fewest or (records and fewest < records):
        sizes = ", ".join(f"{count} records under {arm}" for arm, count in totals.items())
        raise MedactionError(
            f"the filters disagree on {sum(map(bool, shares.values()))} of {len(shares)} cases;"
            f" {'there' if records else 'in those'} are {sizes}:"
            f" {'lower `records`, or ' if records else ''}distil from more cases or weaker teachers"
        )
    return Pool(tuple(cases), records or fewest, {})


def shared_records(taken: Mapping[str, frozenset[str]]) -> dict[tuple[str, str], float]:
    """Pair of arms -> share of their training records that both have."""
    return {
        (one, other): len(taken[one] & taken[other]) / max(1, len(taken[one]))
        for one, other in combinations(taken, 2)
    }


def power_statement(pool: Pool, cases: int, seeds: int, runs: int) -> str:
    """What the experiment can find, as Markdown, before it runs: `cases` held-out cases, each
    played `runs` times by a model of each of `seeds` seeds."""
    sd = sd_of_difference(seeds * runs)
    smallest = detectable(sd, cases)

    def words(size: float) -> str:
        return number(size) if size < 1 else "none: an accuracy cannot differ by so much"

    rows = [
        # Arms that share every record cannot differ: the effect needed is then larger than any.
        [f"{one} and {other}", f"{share:.0%}", words(smallest / max(1e-9, 1 - share))]
        for (one, other), share in pool.shared.items()
    ]
    about = (
        f"{cases} held-out cases, {seeds} seeds, {runs} rollouts each. Difference in accuracy that"
        f" is found with a power of {POWER:.0%}: {words(smallest)} (two-sided, 5 %; paired t test;"
        f" sd of a case's difference {sd:.2f}: Miller 2024, section 5, with his example's"
        " variances). What whole models of different seeds differ in is not known before, and not"
        f" in it: it is a lower bound.\nEach arm learns {pool.records} records of"
        f" {len(pool.cases)} cases. Records that two arms share teach both the same, so the last"
        " column is what the effect of the others must be, if it grows with their share."
    )
    if min(pool.shared.values(), default=0) >= 1:
        about += (
            "\nAll arms learn the same records, so no filter can be told from another: take other"
            " `records`, or distil from more cases or weaker teachers."
        )
    table = markdown_table(["arms", "records shared", "effect that is found"], rows)
    return "\n".join([*section("Before it ran", about, table)[1:], ""])


def mean_score(scores: Scores) -> tuple[float | None, float | None, float | None]:
    """(mean over seeds and the cases that all have, low, high); None without such a case."""
    cases = sorted(set.intersection(*({*of_seed} for of_seed in scores.values())))
    if not cases:
        return None, None, None
    values = _score_matrix(scores, cases)
    low, high = interval(lambda drawn: _resampled(values, drawn, 0), len(cases))
    return float(values.mean()), low, high


def effect(arms: Mapping[str, Scores], first: str, second: str) -> Difference:
    """Second arm minus first, in one measure; 95 % interval over cases and seeds. Cases are drawn
    for both arms together, because they are the same cases, and the seeds of each arm by
    themselves, because a seed is shared by nothing."""
    seeds = [of_seed for arm in (first, second) for of_seed in arms[arm].values()]
    # Only cases that every seed has: else a seed's luck with its cases would be its score.
    cases = sorted(set.intersection(*({*of_seed} for of_seed in seeds)))
    if len(cases) < 2:
        return Difference(len(cases), None, None, None)
    before, after = _score_matrix(arms[first], cases), _score_matrix(arms[second], cases)
    # Other streams of seeds for the two arms, the same cases for both.
    low, high = interval(
        lambda drawn: _resampled(after, drawn, 1) - _resampled(before, drawn, 2), len(cases)
    )
    return Difference(len(cases), float(after.mean() - before.mean()), low, high)


def _score_matrix(scores: Scores, cases: Sequence[str]) -> np.ndarray:
    """seeds x cases"""
    return np.array([[of_seed[case] for case in cases] for of_seed in scores.values()])


def _resampled(values: np.ndarray, drawn: np.ndarray, stream: int) -> np.ndarray:
    """The mean of each resample: its cases (`drawn`: cases x resamples), and seeds with
    replacement."""
    seeds, resamples = len(values), drawn.shape[1]
    picks = np.random.default_rng(stream).integers(seeds, size=(seeds, resamples))
    # The same seeds for all cases of a resample: a seed's luck is shared by its whole model.
    return values[picks[:, None, :], drawn[None]].mean(axis=(0, 1))


def experiment_report(
    measures: Mapping[str, Mapping[str, Scores]], unreadable: Mapping[str, str]
) -> str:
    """`measures`: measure -> arm -> scores. The arms' means and every pair's difference, as
    Markdown. `unreadable`: arm -> 'n of m' rollouts of which no reply could be read."""
    means, effects = [], []
    for measure, arms in measures.items():
        for arm, scores in arms.items():
            mean, low, high = mean_score(scores)
            means.append([arm, measure, str(len(scores)), number(mean), span(low, high)])
        for first, second in combinations(arms, 2):
            seen = effect(arms, first, second)
            change = number(seen.difference, "+.3f")
            apart = ""
            if seen.low is not None and seen.high is not None:
                # The interval does not hold 0: both ends have one sign.
                apart = "yes" if seen.low * seen.high > 0 else "no"
            verdict = [span(seen.low, seen.high), apart]
            effects.append([first, second, measure, str(seen.cases), change, *verdict])
    headings = ["first", "second", "measure", "cases", "second - first", "95 %", "told apart"]
    arms_table = markdown_table(["arm", "measure", "seeds", "mean", "95 %"], means)
    counts = ", ".join(f"{arm} {count}" for arm, count in unreadable.items())
    form = f"Rollouts without a reply that could be read, which score 0: {counts or 'none'}."
    note = (
        "Percentile bootstrap over cases and seeds together; not corrected for the number of"
        " comparisons. With one seed, its own luck is in no interval. An interval without width"
        " says that all these cases scored alike, and nothing of others."
    )
    lines = [
        *section("Arms", form, arms_table),
        *section("Differences", note, markdown_table(headings, effects)),
    ]
    return "\n".join([*lines[1:], ""])


def draw_experiment(measures: Mapping[str, Mapping[str, Scores]]) -> Figure:
    """Each arm's mean with its interval, its seeds as dots, a column a measure."""
    figure, axes = canvas("Filters at equal numbers of records", "", "score", (7.2, 4.4))
    names = list(measures)
    # An arm whose judge failed has the other measure alone.
    arms = list(dict.fromkeys(arm for of_arm in measures.values() for arm in of_arm))
    for place, arm in enumerate(arms):
        at = np.arange(len(names)) + (place - (len(arms) - 1) / 2) * min(0.18, 0.9 / len(arms))
        for x, measure in zip(at, names, strict=True):
            scores = measures[measure].get(arm, {})
            mean, low, high = mean_score(scores) if scores else (None, None, None)
            if mean is None:
                continue
            if low is not None and high is not None:
                axes.plot([x, x], [low, high], color=hue_of(place), linewidth=2)
            label = None if arm in axes.get_legend_handles_labels()[1] else arm
            axes.plot([x], [mean], "o", color=hue_of(place), markersize=7, label=label)
            for of_seed in scores.values():
                axes.plot([x + 0.05], [np.mean([*of_seed.values()])], ".", color="#555555", ms=4)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.1)
    for line in axes.lines:
        line.set_clip_on(False)  # a score of 0 is a whole dot
    axes.legend(frameon=False, fontsize=8)
    return figure
