"""An ablation's table and figure (the paper's Figure 4): a row and a pair of bars for every cell,
those without a score included."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from textwrap import fill

import polars as pl
from matplotlib.figure import Figure

from medaction.evaluation.plots import GREY, HUES, dress, save
from medaction.words.markdown import markdown_table, number, span

TITLES = {
    "RQ1": "RQ1  gold and distilled trajectories",
    "RQ2": "RQ2  share of free-form rollouts",
    "RQ3": "RQ3  teachers, branches, filter",
    "RQ4": "RQ4  pruning",
    "scaling": "Scaling  training records under each filter",
}

# Light and hatched: the two bars can be told apart in print without colour, too.
F1 = {"color": HUES[5]}
ACCURACY = {"color": "white", "edgecolor": HUES[0], "hatch": "////"}


@dataclass(frozen=True, slots=True)
class CellRow:
    """A cell of an ablation and what came of it.

    state: 'scored', 'left out', 'failed' or, until its turn comes, 'waiting'; `why` says why.
    records: training records; None for the base model. held_out: loss on the held-out cases after
    training. f1: of mean precision and mean recall. low, high: 95 % bootstrap intervals over cases.
    scored, of: rollouts with a judged diagnosis, and those that should have been played.
    unreadable: those of them that no reply could be read of, which score 0.
    """

    question: str
    cell: str
    state: str
    why: str = ""
    records: int | None = None
    held_out: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    f1_low: float | None = None
    f1_high: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    scored: int = 0
    of: int = 0
    unreadable: int | None = None
    folder: str = ""


def ablation_table(rows: Sequence[CellRow]) -> str:
    """The rows as Markdown, a section a question."""
    lines = []
    measures = ["held-out loss", "precision", "recall", "F1", "95 %", "accuracy", "95 %"]
    headings = ["cell", "records", *measures, "scored", "unreadable", "evaluation"]
    for question in dict.fromkeys(row.question for row in rows):
        cells = [_row_cells(row) for row in rows if row.question == question]
        lines += [f"## {TITLES[question]}", "", *markdown_table(headings, cells), ""]
    return "\n".join(lines)


def _row_cells(row: CellRow) -> list[str]:
    if row.state != "scored":
        return [row.cell, *[""] * 10, f"{row.state}: {row.why}"]  # one cell says why
    records = "none" if row.records is None else f"{row.records:,}"
    tests = [*map(number, (row.held_out, row.precision, row.recall, row.f1))]
    intervals = span(row.f1_low, row.f1_high), span(row.accuracy_low, row.accuracy_high)
    measures = [*tests, intervals[0], number(row.accuracy), intervals[1]]
    rollouts = [f"{row.scored} of {row.of}", number(row.unreadable, "d")]
    return [row.cell, records, *measures, *rollouts, row.folder]


def draw_ablation(rows: Sequence[CellRow], judge: str) -> Figure:
    """A panel a question. Left: F1 of tests in the light bars, accuracy of diagnoses in the hatched
    ones, with their intervals. Right: the held-out loss, each on the cell's own held-out cases."""
    groups = {
        question: [row for row in rows if row.question == question]
        for question in dict.fromkeys(r.question for r in rows)
    }
    # 1.2 rows more for title and axis: bars are equally thick in panels of any length.
    heights = [len(group) + 1.2 for group in groups.values()]
    figure = Figure(figsize=(11, 1.2 + 0.44 * sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(groups), 2, sharex="col", squeeze=False, height_ratios=heights, width_ratios=(3.2, 1)
    )
    ends = ((row.f1_high, row.accuracy_high, row.f1, row.accuracy) for row in rows)
    top = max(filter(None, chain.from_iterable(ends)), default=0.0)
    for (scores, losses), (question, group) in zip(panels, groups.items(), strict=True):
        dress(scores, TITLES[question], "", "")
        dress(losses, "", "", "")
        for place, row in enumerate(group):
            if row.state != "scored":
                words = fill(f"{row.state}: {row.why}", 62, max_lines=2, placeholder=" ...")
                hue = "#B00020" if row.state == "failed" else GREY
                scores.text(0.005, place, words, va="center", color=hue, size=8)
                continue
            _bar(scores, place - 0.19, (row.f1, row.f1_low, row.f1_high), F1)
            accuracy = (row.accuracy, row.accuracy_low, row.accuracy_high)
            _bar(scores, place + 0.19, accuracy, ACCURACY)
            if row.held_out is not None:
                losses.plot([row.held_out], [place], "o", color="#333333", markersize=5)
                label, point = f"{row.held_out:.2f}", (row.held_out, place)
                losses.annotate(label, point, (6, 0), None, "offset points", va="center", size=8)
        counts = ["" if row.records is None else f"  [{row.records:,}]" for row in group]
        labels = [row.cell + count for row, count in zip(group, counts, strict=True)]
        scores.set_yticks(range(len(group)), labels)
        losses.set_yticks([])
        for axes in (scores, losses):
            axes.set_ylim(len(group) - 0.4, -0.6)  # the first cell on top
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color="#E6E6E6", linewidth=0.7)
            axes.set_axisbelow(True)
        losses.margins(x=0.5)
        losses.set_visible(any(row.held_out is not None for row in rows))
    # Some room behind the longest bar for its number; never past 1, a score's limit.
    panels[-1][0].set_xlim(0, min(1.0, max(0.1, 1.15 * top)) if top else 1.0)
    panels[-1][0].set_xlabel(f"score; lines: 95 % intervals over cases; judge: {judge}")
    panels[-1][1].set_xlabel("held-out loss")
    entries = [
        panels[0][0].barh([0], [0], **F1, label="F1 of tests"),  # an empty bar, for the legend
        panels[0][0].barh([0], [0], **ACCURACY, label="accuracy of diagnoses"),
    ]
    figure.suptitle("Ablation  [training records]", x=0.01, ha="left", size=11)
    figure.legend(handles=entries, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _bar(axes, at: float, measured: tuple[float | None, ...], look: dict[str, str]) -> None:
    value, low, high = measured
    if value is None:
        axes.text(0, at, " not scored", va="center", size=8, color=GREY)
        return
    axes.barh(at, value, height=0.36, linewidth=0.8, **look)
    if low is not None and high is not None and high > low:  # a point has no line
        axes.plot([low, high], [at, at], color="#333333", linewidth=1)
    axes.text(max(value, high or 0.0), at, f" {value:.2f}", va="center", size=8)


def write_ablation(rows: Sequence[CellRow], judge: str, folder: Path) -> list[Path]:
    """Write ablation.md, ablation.csv and the figure ablation.png and .svg into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "ablation.md", folder / "ablation.csv"]
    files[0].write_text(ablation_table(rows), encoding="utf-8")
    # The type of a column may show late: the first cells can all be without a score.
    pl.DataFrame(rows, infer_schema_length=None).write_csv(files[1])
    return [*files, *save(draw_ablation(rows, judge), folder, "ablation")]
