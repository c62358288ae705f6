"""What the figures share: one style, colours that can be told apart by the colour-blind, and PNG
and SVG of each."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# As many as hues: in print without colour a line is told by its mark.
MARKS = ("o", "s", "^", "D", "v", "P")
GREY = "#8A8A8A"


def hue_of(place: int) -> str:
    """The colour of the place-th series: they come round again, as a figure may have any number."""
    return HUES[place % len(HUES)]


def mark_of(place: int) -> str:
    return MARKS[place % len(MARKS)]


def line(axes: Axes, place: int, x: Any, y: Any, label: str) -> None:
    """The place-th series as a line with its own colour and mark."""
    axes.plot(x, y, color=hue_of(place), marker=mark_of(place), label=label)


def canvas(
    title: str, x: str, y: str, size: tuple[float, float] = (6.4, 4.4)
) -> tuple[Figure, Axes]:
    """A figure with one set of axes, titled at the left."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    dress(axes, title, x, y)
    return figure, axes


def dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, folder: Path, name: str, salt: str = "analyses") -> list[Path]:
    """Write FOLDER/NAME.png and .svg, the same bytes for the same figure; returns both. `salt`: of
    the ids within the SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    # Text stays text; ids are salted and no date is written, so that bytes can be compared.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        for file in files:
            figure.savefig(
                file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else None
            )
    return files
