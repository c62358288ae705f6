"""What a dataset is made of (the paper's Figures 6 and 7): body systems, disease types and test
categories, counted and drawn."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from medaction.envs.categories import MINOR_CATEGORIES, minor_category_of
from medaction.envs.records import ClinicalEnvironment, DocumentedTest
from medaction.evaluation.plots import canvas, save
from medaction.kg.disease_classes import classes_of
from medaction.words.tests import Category

NOT_TOLD = "not told"
"""Where neither the source nor the diagnosis tells the body system or the disease type."""

CATEGORY_NAMES: dict[Category, str] = {
    "laboratory": "Laboratory",
    "imaging": "Imaging",
    "procedure": "Procedure / invasive",
    "physiologic": "Physiologic / functional",
    "pathology": "Pathology / cytology",
}


@dataclass(frozen=True, slots=True)
class Composition:
    """Counts over the environments of a dataset; each frame's counts add up to `cases` or to
    `tests`, the largest first.

    body_systems: columns body_system, cases. disease_types: disease_type, cases. Both may have a
    row NOT_TOLD. categories: category, tests; all five. minor_categories: category, minor, tests;
    in the order of `categories`.
    """

    cases: int
    tests: int
    body_systems: pl.DataFrame
    disease_types: pl.DataFrame
    categories: pl.DataFrame
    minor_categories: pl.DataFrame


def classes_of_case(environment: ClinicalEnvironment) -> tuple[str, str]:
    """(body system, disease type), told by the source or, where it does not, by the diagnosis."""
    system, kind = environment.body_system, environment.disease_type
    if system and kind:
        return system, kind
    by_graph = classes_of((environment.diagnosis, *environment.synonyms))
    return system or by_graph[0], kind or by_graph[1]


def composition(environments: Iterable[ClinicalEnvironment]) -> Composition:
    """Count them. What a source leaves empty is told from the diagnosis
    (`medaction.kg.disease_classes`), a minor category from the name."""
    systems: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    minors: Counter[tuple[Category, str]] = Counter()
    for environment in environments:
        system, kind = classes_of_case(environment)
        systems[system or NOT_TOLD] += 1
        kinds[kind or NOT_TOLD] += 1
        minors.update((test.category, _minor(test)) for test in environment.menu)
    # All five, those without a test too: an empty category is a finding.
    majors = Counter(dict.fromkeys(get_args(Category), 0))
    for (category, _), count in minors.items():
        majors[category] += count
    rank = {category: place for place, (category, _) in enumerate(majors.most_common())}
    rows = [(category, minor, count) for (category, minor), count in minors.items()]
    rows.sort(key=lambda row: (rank[row[0]], -row[2], row[1]))
    return Composition(
        systems.total(),
        majors.total(),
        _frame(("body_system", "cases"), _largest_first(systems)),
        _frame(("disease_type", "cases"), _largest_first(kinds)),
        _frame(("category", "tests"), majors.most_common()),
        _frame(("category", "minor", "tests"), rows),
    )


def _minor(test: DocumentedTest) -> str:
    """The source's own minor category, in the words of MINOR_CATEGORIES."""
    if test.minor in MINOR_CATEGORIES[test.category]:
        return test.minor
    # The source's own word is read with the name: 'Hematology' may say what the name does not.
    return minor_category_of(f"{test.minor} {test.name}", test.category)


def _largest_first(counts: Counter[str]) -> list[tuple[str, int]]:
    # What is not told comes last, however large; equal ones by name, for equal figures.
    return sorted(counts.items(), key=lambda item: (item[0] == NOT_TOLD, -item[1], item[0]))


def _frame(columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> pl.DataFrame:
    """Texts, and in the last column a count."""
    schema = dict.fromkeys(columns, pl.String()) | {columns[-1]: pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


# The drawing. Hues are Okabe and Ito's, which readers with any colour vision can tell apart; no
# slice relies on its hue alone: each has a name or a number, and a white edge.
_HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
_MAJOR_HUES: dict[str, str] = {
    "laboratory": "#0072B2", "imaging": "#E69F00", "procedure": "#D55E00",
    "physiologic": "#009E73", "pathology": "#CC79A7",
}  # fmt: skip
_GREY = "#B8B8B8"
_INK = "#222222"
_SMALL = 0.012
"""Share of all below which slices are drawn as one, '7 other types'."""
_LEGIBLE = 0.018
"""Share of all from which a number has room in a slice of the inner ring."""
_KEPT = 2
"""So many minor categories of each major one are drawn for themselves, however small."""
_WIDTH, _HEIGHT = (-2.36, 4.27), (-1.36, 1.36)
_BOTTOM, _TOP = -1.28, 1.3
_OUTER, _MIDDLE, _INNER = 1.0, 0.72, 0.44
_LABEL_X, _LEGEND_X, _GAP = 1.2, 2.5, 0.092
_LINE_START, _LINE_BEND = 1.01, 1.07
_TURN = 50
"""Degrees left of the top at which the largest slice begins, so that the small ones come to lie
where labels have room."""

Slice = tuple[str, int, str]
"""Label, count and colour."""


def plot_composition(counted: Composition, folder: Path) -> list[Path]:
    """Draw both figures into `folder`, each as PNG and SVG (its text as text); returns the files
    written.

    cases.*: outer ring body systems, inner ring disease types, two views that do not belong to each
    other. tests.*: inner ring the major test categories, outer ring their minor ones, each beside
    its major one. Raises ValueError when there is nothing to draw.
    """
    if not counted.cases or not counted.tests:
        raise ValueError(f"nothing to draw: {counted.cases} cases with {counted.tests} tests")
    figures = {"cases": _draw_cases(counted), "tests": _draw_tests(counted)}
    pictures = (save(figure, folder, name, "composition") for name, figure in figures.items())
    return [*chain.from_iterable(pictures)]


def draw_pruned(parts: pl.DataFrame) -> Figure:
    """What pruning made of the turns (the retained, truncated and rejected of the paper's Figure
    3): a bar for each row of `parts` (part, turns). Wrong commitments stand out."""
    figure, axes = canvas("Turns of the pruned trees", "turns", "", (8.4, 0.6 + 0.36 * len(parts)))
    names, counts = parts["part"].to_list(), parts["turns"].to_list()
    colours = {"kept: commits, wrong": "#D55E00", "kept: commits, unknown": "#E69F00"}
    bars = axes.barh(
        range(len(names)),
        counts,
        color=[colours.get(name, "#0072B2" if "kept: " in name else _GREY) for name in names],
    )
    total = sum(counts)
    axes.bar_label(bars, [f"{count:,} ({count / total:.1%})" for count in counts], padding=3)
    axes.set_yticks(range(len(names)), names)
    # The first row on top, as in the table.
    axes.invert_yaxis()
    axes.margins(x=0.2)
    return figure


def _draw_cases(counted: Composition) -> Figure:
    cases = counted.cases
    systems = _coloured(_grouped(counted.body_systems.rows(), cases, "{} other systems"), 0, 0.0)
    kinds = _coloured(_grouped(counted.disease_types.rows(), cases, "{} other types"), 3, 0.35)
    title = "Cases by body system (outer ring) and disease type (inner ring)"
    figure, axes = _ring_chart(title, f"{cases:,}", "cases")
    _ring(axes, systems, _OUTER, _MIDDLE)
    _ring(axes, kinds, _MIDDLE - 0.02, _INNER)
    _name_outside(axes, systems, cases)
    entries: list[str] = []
    for (label, count, colour), middle in zip(kinds, _middles(kinds), strict=True):
        entries.append(f"{len(entries) + 1}  {_described(label, count, cases)}")
        if count / cases >= _LEGIBLE:
            _write_inside(axes, middle, (_MIDDLE + _INNER) / 2, str(len(entries)), colour)
    _legend(axes, "Disease type", entries, [colour for _, _, colour in kinds])
    return figure


def _draw_tests(counted: Composition) -> Figure:
    majors: list[Slice] = []
    minors: list[Slice] = []
    for category, count in counted.categories.filter(pl.col("tests") > 0).iter_rows():
        hue, unspecific = _MAJOR_HUES[category], MINOR_CATEGORIES[category][-1]
        rows = (
            counted.minor_categories.filter(pl.col("category") == category)
            .select("minor", "tests")
            .rows()
        )
        groups = _grouped(
            # Stable: the largest first, as in the rows, and what tells nothing apart at the end.
            sorted(rows, key=lambda row: row[0] == unspecific),
            counted.tests,
            f"{category}, {{}} others",
            _KEPT,
        )
        majors.append((CATEGORY_NAMES[category], count, hue))
        # Never the full hue, which is the major category's, nor so pale that it is white.
        tints = np.linspace(0.15, 0.7, len(groups))
        minors += [
            (label, part, _GREY if label == unspecific else _tint(hue, tint))
            for (label, part), tint in zip(groups, tints, strict=True)
        ]
    figure, axes = _ring_chart(
        "Tests by major (inner ring) and minor category (outer ring)", f"{counted.tests:,}", "tests"
    )
    _ring(axes, minors, _OUTER, _MIDDLE)
    _ring(axes, majors, _MIDDLE, _INNER)
    _name_outside(axes, minors, counted.tests)
    for (_, count, colour), middle in zip(majors, _middles(majors), strict=True):
        share = count / counted.tests
        if share >= 2 * _LEGIBLE:  # '37 %' needs more room than '7'
            _write_inside(axes, middle, (_MIDDLE + _INNER) / 2, f"{share:.0%}", colour)
    entries = [_described(label, count, counted.tests) for label, count, _ in majors]
    _legend(axes, "Major category", entries, [colour for _, _, colour in majors])
    return figure


def _grouped(
    rows: Sequence[tuple[str, int]], total: int, group_label: str, keep: int = 0
) -> list[tuple[str, int]]:
    """The rows with those below _SMALL as one, if they are several, behind the others but before
    what tells nothing apart.

    The first `keep` rows stand for themselves, however small.
    """
    small = [row for row in rows[keep:] if row[1] / total < _SMALL and row[0] != NOT_TOLD]
    if len(small) < 2:  # 'one other type' would say less than its name
        return list(rows)
    large = [row for row in rows if row not in small]
    # The group stands before 'other' and 'not told', which end the ring.
    at = len(large) - (bool(large) and large[-1][0] in _UNSPECIFIC)
    return [
        *large[:at],
        (group_label.format(len(small)), sum(count for _, count in small)),
        *large[at:],
    ]


_UNSPECIFIC = {NOT_TOLD, *(minors[-1] for minors in MINOR_CATEGORIES.values())}


def _coloured(rows: Sequence[tuple[str, int]], start_hue: int, tint: float) -> list[Slice]:
    """Hues in turn from the `first`, paler with every turn, so that neighbours differ."""
    turns = [tint + 0.4 * (i // len(_HUES)) * (1 - tint) for i in range(len(rows))]
    colours = [_tint(_HUES[(start_hue + i) % len(_HUES)], turn) for i, turn in enumerate(turns)]
    return [
        (label, count, _GREY if label == NOT_TOLD else colour)
        for (label, count), colour in zip(rows, colours, strict=True)
    ]


def _tint(colour: str, share: float) -> str:
    """`colour` mixed with this share of white."""
    return "#" + "".join(
        f"{round(255 * (part + (1 - part) * share)):02X}" for part in to_rgb(colour)
    )


def _described(label: str, count: int, total: int) -> str:
    return f"{label} ({count:,}, {count / total:.1%})"


def _ring_chart(title: str, number: str, unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(18.8, 8.2), facecolor="white")
    # Fixed, not a layout engine: labels are placed in the ring's own units.
    axes = figure.add_axes((0.0, 0.0, 1.0, 0.94))
    axes.axis("off")
    figure.text(0.03, 0.955, title, fontsize=18, color=_INK, weight="bold", va="center")
    axes.text(0, 0.05, number, fontsize=30, color=_INK, weight="bold", ha="center", va="center")
    axes.text(0, -0.14, unit, fontsize=15, color=_INK, ha="center", va="center")
    return figure, axes


def _ring(axes: Axes, slices: Sequence[Slice], outer: float, inner: float) -> None:
    axes.pie(
        [count for _, count, _ in slices],
        radius=outer,
        colors=[colour for _, _, colour in slices],
        startangle=90 + _TURN,  # 90: the top
        counterclock=False,
        wedgeprops={"width": outer - inner, "edgecolor": "white", "linewidth": 1.2},
    )
    axes.set(xlim=_WIDTH, ylim=_HEIGHT, aspect="equal")  # `pie` sets limits of its own


def _middles(slices: Sequence[Slice]) -> list[float]:
    """The angle of each slice's middle, in radians from the top, clockwise."""
    counts = np.array([count for _, count, _ in slices], dtype=float)
    return list(
        (2 * math.pi * (np.cumsum(counts) - counts / 2) / counts.sum() - math.radians(_TURN))
        % (2 * math.pi)
    )


def _write_inside(axes: Axes, angle: float, radius: float, text: str, colour: str) -> None:
    red, green, blue = to_rgb(colour)
    # Luma by ITU-R BT.601: white on dark slices, ink on light ones.
    ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else _INK
    place = radius * math.sin(angle), radius * math.cos(angle)
    axes.text(*place, text, fontsize=11, color=ink, ha="center", va="center")


def _name_outside(axes: Axes, slices: Sequence[Slice], total: int) -> None:
    """Labels in a column on each side, as near to their slices as they go without touching, with a
    line to each."""
    middles = _middles(slices)
    for side in (1, -1):
        on_side = sorted(
            (i for i in range(len(slices)) if (middles[i] < math.pi) == (side == 1)),
            key=lambda i: math.cos(middles[i]),
        )
        heights_wished = np.array([1.12 * math.cos(middles[i]) for i in on_side])
        steps = min(_GAP, (_TOP - _BOTTOM) / max(len(on_side), 1)) * np.arange(len(on_side))
        # Isotonic regression: the heights nearest to those wished that are a step apart at least.
        spread = (
            isotonic_regression(heights_wished - steps).x + steps if on_side else heights_wished
        )
        # Steps from each end stay free, so that labels pushed in do not touch.
        heights = np.clip(spread, _BOTTOM + steps, _TOP - steps[::-1])
        for i, height in zip(on_side, heights, strict=True):
            label, count, _ = slices[i]
            across, up = math.sin(middles[i]), math.cos(middles[i])
            xs = [_LINE_START * across, _LINE_BEND * across, side * (_LABEL_X - 0.03)]
            ys = [_LINE_START * up, _LINE_BEND * up, height]
            axes.plot(xs, ys, color="#888888", linewidth=0.7)
            text, edge = _described(label, count, total), "left" if side == 1 else "right"
            x = side * _LABEL_X
            axes.text(x, height, text, fontsize=11, color=_INK, ha=edge, va="center")


def _legend(axes: Axes, title: str, entries: Sequence[str], colours: Sequence[str]) -> None:
    top = 0.055 * len(entries)
    axes.text(_LEGEND_X, top + 0.13, title, fontsize=13, weight="bold", color=_INK, va="center")
    for row, (entry, colour) in enumerate(zip(entries, colours, strict=True)):
        axes.text(_LEGEND_X, top - 0.11 * row, "■", fontsize=12, color=colour, va="center")
        axes.text(_LEGEND_X + 0.1, top - 0.11 * row, entry, fontsize=11, color=_INK, va="center")
