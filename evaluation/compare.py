"""Several results side by side, as in the paper's Table 2, with paired tests of their
differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy.stats import permutation_test

from medaction.evaluation.costs import usd_a_case
from medaction.evaluation.plots import canvas, hue_of, mark_of
from medaction.evaluation.results import unreadable_of
from medaction.evaluation.scores import Score, measures
from medaction.kg.bootstrap import interval
from medaction.words.markdown import markdown_table, number, section, span

PERMUTATIONS = 9999

_MEASURES_SHOWN = ("precision", "recall", "f1_of_means", "mean_f1", "accuracy")
TABLE_2 = {"precision": "Prec", "recall": "Rec", "f1_of_means": "F1", "accuracy": "Diag Acc"}
"""The measures of the paper's Table 2 and what it calls them."""

CAPTION = (
    "Mean ± standard deviation over runs. Corrected: for the judge's measured errors"
    " (Rogan-Gladen, 95 % interval); empty for a judge that nobody measured. Floor: the F1 of"
    " the best orders that are the same for every patient."
)

_ABOUT_TABLE_2 = (
    "Recomputed from the rows of the results: means over runs, F1 of mean precision and mean"
    " recall, with 95 % bootstrap intervals over cases."
)
_ABOUT_DIFFERENCES = (
    "Over the cases that both scored, each with the mean of its runs: second minus first;"
    f" 95 % paired bootstrap interval; p of a two-sided paired permutation test ({PERMUTATIONS}"
    " permutations), not corrected for the number of comparisons."
)
_ABOUT_PUBLISHED = (
    "From the paper's Table 2 (arXiv 2605.07305): its authors' oracle, cases and judge (GPT-4o)."
    " Its F1 is that of the mean precision and the mean recall. Nothing here was rerun: a"
    " difference from the table above can come from any of these."
)

_PAIRED = {
    "precision": "precision", "recall": "recall", "f1": "F1 (mean over cases)",
    "correct": "diagnosis accuracy",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two results in one measure, over the cases that both have scored; each case counts with
    the mean of its runs.

    difference: mean of second minus first. low, high: 95 % paired bootstrap interval. p: two-sided
    paired permutation test (signs of the cases' differences flipped at random); 1 where no case
    differs, None where nothing was tested. All None with fewer than two common cases.
    """

    cases: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None = None


def paired_difference(before: Mapping[str, float], after: Mapping[str, float]) -> Difference:
    """The difference of two measures by case."""
    common = sorted(before.keys() & after.keys())
    # One case has neither an interval nor a test.
    if len(common) < 2:
        return Difference(len(common), None, None, None)
    change = np.array([after[case] - before[case] for case in common])
    low, high = interval(lambda cases: change[cases].mean(axis=0), len(change))
    p = 1.0
    if change.any():  # else every flip of signs gives the same
        tested = permutation_test(
            (change,),
            np.mean,
            permutation_type="samples",  # flips the signs of single cases
            vectorized=True,
            n_resamples=PERMUTATIONS,
            rng=np.random.default_rng(0),  # the same p at every call
        )
        p = float(tested.pvalue)
    return Difference(len(common), float(change.mean()), low, high, p)


def by_case(result: Mapping[str, Any], measure: str) -> dict[str, float]:
    """case -> mean over its scored runs."""
    values: dict[str, list[float]] = {}
    for row in result["rows"]:
        if row[measure] is not None:
            values.setdefault(row["case_id"], []).append(float(row[measure]))
    return {case_id: fmean(values_of_case) for case_id, values_of_case in values.items()}


def published_rows() -> pl.DataFrame:
    """The paper's Table 2: group, model, benchmark, precision, recall, f1, accuracy. Measured by
    its authors, with GPT-4o as the judge."""
    return pl.read_csv(files("medaction.evaluation").joinpath("data", "published.csv").read_bytes())


def comparison(results: Sequence[Mapping[str, Any]], published: bool = False) -> str:
    """The results as Markdown: the table, what makes them incomparable, and every pair's
    differences.

    Raises ValueError when two results have nothing to tell them apart.
    """
    names = _names_of_results(results)
    lines = ["# Comparison", "", *_table(results, names)]
    lines += section("As in the paper's Table 2", _ABOUT_TABLE_2, table_2(results))
    if warnings := _incomparable(results, names):
        lines += ["", "**Not comparable without care:**", ""]
        lines += [f"- {warning}" for warning in warnings]
    if len(results) > 1:
        lines += section("Differences", _ABOUT_DIFFERENCES, _differences(results, names))
    if published:
        headings = ["Group", "Model", "Benchmark", "Precision", "Recall", "F1", "Accuracy"]
        rows = [
            [value if isinstance(value, str) else f"{value:.2f}" for value in row]
            for row in published_rows().iter_rows()
        ]
        table = markdown_table(headings, rows)
        lines += section("Published, not measured here", _ABOUT_PUBLISHED, table)
    return "\n".join(lines)


def _names_of_results(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells the results apart: the model, and where that is not enough the benchmark, the
    protocol and the judge."""
    parts_of_a_name = ("model", "benchmark", "protocol", "judge")
    # The shortest name that is enough: two runs of one model differ by judge or protocol.
    for parts in (parts_of_a_name[:count] for count in (1, 2, 3, 4)):
        names = [", ".join(str(result[part]) for part in parts) for result in results]
        if len(set(names)) == len(names):
            return names
    raise ValueError(
        "two results are of the same model, protocol and judge on one benchmark: name each"
        " evaluation once"
    )


def _table(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    rows = []
    for name, result in zip(names, results, strict=True):
        scores = {score["name"]: score for score in result["scores"]}
        values = [
            f"{number(scores[key]['mean'])} ± {number(scores[key]['sd']) or '?'}"
            if scores[key]["mean"] is not None
            else ""
            for key in _MEASURES_SHOWN
        ]
        accuracy = scores["accuracy"]
        cells = [result["benchmark"], result["protocol"], result["judge"].split("@")[0]]
        # `get`: results written before these figures existed are compared, too.
        corrected, floor = result.get("accuracy_corrected"), result.get("floor")
        corrected_cell = ""
        if corrected and corrected["accuracy"] is not None:
            interval = span(corrected["low"], corrected["high"])
            corrected_cell = f"{number(corrected['accuracy'])} ({interval})"
        values += [corrected_cell, number(floor["f1_of_means"]) if floor else ""]
        counts = [f"{accuracy['scored']} of {accuracy['of']}", unreadable_of(accuracy)]
        rows.append([name, *cells, *values, *counts])
    about = ["Model", "Benchmark", "Protocol", "Judge"]
    headings = ["Prec", "Rec", "F1 of means", "Mean F1", "Diag Acc", "Acc corrected", "floor F1"]
    table = markdown_table([*about, *headings, "scored of n", "unreadable"], rows)
    return [*table, "", CAPTION]


def table_2(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The results in the shape of the paper's Table 2, as Markdown: a line a model (with protocol
    and judge, where one model has several), four columns a benchmark."""
    benchmarks = list(dict.fromkeys(result["benchmark"] for result in results))
    players: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for result in results:
        # Without the hash of its rules: a line is for a reader, who knows a judge by its name.
        judge = result["judge"].split("@")[0]
        player = (result["model"], result["protocol"], judge)
        if result["benchmark"] in players.get(player, {}):  # judged twice, by two of one name
            player = (result["model"], result["protocol"], result["judge"])
        players.setdefault(player, {})[result["benchmark"]] = result
    models = [model for model, _, _ in players]
    rows = [
        [
            player[0] if models.count(player[0]) == 1 else ", ".join(player),
            *(cell for name in benchmarks for cell in _cells_of_table_2(by_benchmark.get(name))),
        ]
        for player, by_benchmark in players.items()
    ]
    headings = [f"{name} {column}" for name in benchmarks for column in TABLE_2.values()]
    return markdown_table(["Model", *headings], rows)


def _cells_of_table_2(result: Mapping[str, Any] | None) -> list[str]:
    if result is None:
        return [""] * len(TABLE_2)
    # From the rows, not from the stored means: so both have been computed by the same code.
    scores = [
        Score(row["case_id"], row["run"], row["precision"], row["recall"], row["correct"])
        for row in result["rows"]
    ]
    cases = sorted({row["case_id"] for row in result["rows"]})
    by_name = {measure.name: measure for measure in measures(scores, cases, result["runs"])}
    return [
        "" if (measure := by_name[name]).mean is None
        else f"{measure.mean:.2f}" if measure.low is None  # of one case
        else f"{measure.mean:.2f} ({measure.low:.2f} to {measure.high:.2f})"
        for name in TABLE_2
    ]  # fmt: skip


def draw_costs(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy against cost, a line a result: the share of all judged rollouts that are right and
    whose tests cost at most so many dollars. A line ends at its result's accuracy."""
    figure, axes = canvas("Accuracy by what the tests cost", "dollars a case", "share right")
    for place, (name, result) in enumerate(zip(_names_of_results(results), results, strict=True)):
        judged = sorted(
            (row["usd"], row["correct"]) for row in result["rows"] if row["correct"] is not None
        )
        if not judged:
            continue
        # In the order of cost: the running sum of right ones is the curve.
        dollars, right = np.array(judged, dtype=float).T
        hue = hue_of(place)
        label = f"{name} ({usd_a_case(result['rows']) or 0:,.0f} $ a case)"
        axes.step(dollars, right.cumsum() / len(right), where="post", color=hue, label=label)
        axes.plot(dollars[-1], right.mean(), mark_of(place), color=hue)
    # A work-up without tests costs 0, which a logarithm has no place for.
    axes.set_xscale("symlog", linthresh=10)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def _incomparable(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    reasons = []
    for key, condition in (
        ("benchmark", "benchmarks"),
        ("protocol", "protocols"),
        ("judge", "judges"),
        ("t_max", "turn limits"),
        ("answers", "oracles or readers"),
    ):
        # As text: `t_max` is a number, the others are names.
        values = {str(result[key]) for result in results}
        if len(values) > 1:
            reasons.append(f"different {condition}: {', '.join(sorted(values))}")
    # The same number of cases may be other cases.
    cases = [frozenset(row["case_id"] for row in result["rows"]) for result in results]
    if len(set(cases)) > 1:
        counts = (f"{name}: {len(ids)}" for name, ids in zip(names, cases, strict=True))
        reasons.append(f"different cases: {', '.join(counts)}")
    return reasons


def _differences(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    rows = []
    for (first, one), (second, other) in combinations(zip(names, results, strict=True), 2):
        for measure, called in _PAIRED.items():
            found = paired_difference(by_case(one, measure), by_case(other, measure))
            change, p = number(found.difference, "+.3f"), number(found.p, ".4f")
            interval = span(found.low, found.high, "+.3f")
            rows.append([first, second, called, str(found.cases), change, interval, p])
    headings = ["First", "Second", "Measure", "cases", "difference", "95 % interval", "p"]
    return markdown_table(headings, rows)
