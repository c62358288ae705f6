"""The viewer's two charts as SVG text: DTC by turn (the paper's Figure 5a) and the distribution of
RAC."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#65a30d", "#db2777")
INK = "#475569"


def lines_of_dtc(rows: list[dict[str, Any]]) -> str:
    """Lines of mean DTC over turns, one a teacher, with the 95 % interval of each mean as a band;
    below each turn the number of trajectories, which a point's size tells too."""
    figure, axes = _canvas("turn, and trajectories with a known DTC", "mean DTC (hops)")
    most = max((row["known"] for row in rows), default=1)
    for colour, (teacher, points) in zip(_colours(), _by_teacher(rows).items(), strict=False):
        turns, means = [row["number"] for row in points], [row["mean"] for row in points]
        axes.plot(turns, means, color=colour, label=teacher, linewidth=2)
        sizes = [10 + 60 * row["known"] / most for row in points]
        axes.scatter(turns, means, s=sizes, color=colour, zorder=3, clip_on=False)
        # No distance is below 0, though the normal interval may be.
        low = [max(0.0, row["mean"] - row["half"]) for row in points]
        high = [row["mean"] + row["half"] for row in points]
        axes.fill_between(turns, low, high, color=colour, alpha=0.15, linewidth=0)
    if rows:
        # Turns without a known DTC stand on the axis, with n=0.
        counts = dict.fromkeys(range(1, max(row["number"] for row in rows) + 1), 0)
        for row in rows:
            counts[row["number"]] += row["known"]
        axes.set_xticks(list(counts), [f"{turn}\nn={count}" for turn, count in counts.items()])
        axes.set_ylim(bottom=0)
    return _svg(figure, axes)


def rac_distribution(rows: list[dict[str, Any]], threshold: float | None) -> str:
    """Bars of how many turns have which RAC, stacked by teacher; the dashed line is the threshold
    of pruning."""
    figure, axes = _canvas("RAC (hops)", "turns")
    axes.xaxis.set_major_locator(MultipleLocator(0.5))  # as the bars are wide
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    floor: dict[float, int] = {}
    for colour, (teacher, bars) in zip(_colours(), _by_teacher(rows).items(), strict=False):
        values, heights = [row["rac"] for row in bars], [row["turns"] for row in bars]
        bottoms = [floor.get(value, 0) for value in values]
        axes.bar(values, heights, 0.4, bottoms, color=colour, label=teacher)
        for value, height in zip(values, heights, strict=True):
            floor[value] = floor.get(value, 0) + height
    if threshold is not None and rows:
        axes.axvline(threshold, color="#dc2626", linestyle="--", linewidth=1.2)
        axes.margins(y=0.15)  # room for the words above the bars
        top, words = axes.get_ylim()[1], " removed beyond"
        axes.text(threshold, top, words, color="#dc2626", va="top", fontsize=8)
    return _svg(figure, axes)


def _colours() -> list[str]:
    # More teachers than colours begin again.
    return list(COLOURS) * 8


def _by_teacher(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["teacher"], []).append(row)
    return grouped


def _canvas(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 2.7), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#cbd5e1")
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, axes: Axes) -> str:
    if not axes.has_data():
        axes.set_axis_off()
        words, inside = "nothing measured yet", axes.transAxes
        axes.text(0.5, 0.5, words, ha="center", transform=inside, color=INK)
    elif len(axes.get_legend_handles_labels()[1]) > 0:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    picture = io.StringIO()
    # Letters as paths: a teacher's name is never markup of the page.
    unsaid = {"Date": None, "Creator": None}
    figure.savefig(picture, format="svg", transparent=True, metadata=unsaid)
    text = picture.getvalue()
    # Without the XML declaration, which must not stand inside a page.
    return text[text.index("<svg") :]
