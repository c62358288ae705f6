"""Scaling curves (the paper's Figure 5c): a measure over the number of training records, a power
law fitted to each series, and what more data of each would be worth under it."""

from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from scipy.optimize import curve_fit

from medaction.evaluation.plots import canvas, hue_of, mark_of

LEAST = 4
"""Distinct sizes below which no law is fitted: three points lie on every law of three parameters,
whatever they are, so that its rmse is 0 and says nothing."""


@dataclass(frozen=True, slots=True)
class Law:
    """value(n) = limit - scale * n ** -exponent: a score that rises to its limit.

    rmse: root of the mean squared residual at the points that it was fitted to.
    """

    limit: float
    scale: float
    exponent: float
    rmse: float

    def at(self, records: np.ndarray | float) -> np.ndarray:
        return self.limit - self.scale * np.asarray(records, dtype=float) ** -self.exponent


def fit_law(records: np.ndarray, values: np.ndarray) -> Law | None:
    """The law nearest to the points by least squares, with limit in 0 to 1, scale >= 0 and
    exponent in 0 to 2; None for fewer than LEAST distinct sizes. Scores that do not rise get a law
    that is flat, whose rmse tells how little it says."""
    records, values = np.asarray(records, dtype=float), np.asarray(values, dtype=float)
    if len(set(records.tolist())) < LEAST:
        return None
    smallest = records.min()

    def law(n: np.ndarray, limit: float, drop: float, exponent: float) -> np.ndarray:
        # In units of the smallest size, so that all three parameters are of the order of one.
        return limit - drop * (n / smallest) ** -exponent

    spread = float(np.ptp(values))
    # The fit starts within the bounds, and with limit and scale where the points lie.
    start = (float(np.clip(values.max(), 0.0, 1.0)), spread, 0.5)
    bounds = ([0.0, 0.0, 1e-3], [1.0, np.inf, 2.0])
    # Within bounds: free, a few points would be fitted by a limit above 1.
    (limit, drop, exponent), _ = curve_fit(
        law, records, values, p0=start, bounds=bounds, maxfev=20_000
    )
    residual = values - law(records, limit, drop, exponent)
    return Law(
        float(limit),
        # Back from units of the smallest size to records.
        float(drop * smallest**exponent),
        float(exponent),
        float(np.sqrt(np.mean(residual**2))),
    )


def scaling(points: pl.DataFrame) -> pl.DataFrame:
    """The law of every series in `points` (series, records, value), and what more data is predicted
    to bring.

    series, sizes (distinct), records (the most there is), value (the law's there), limit, scale,
    exponent, rmse, twice (the law's at twice the records), gain (twice - value), per_1000 (of the
    next 1,000 records). Null where there are too few sizes.
    """
    rows = []
    for (series,), of_series in points.group_by(["series"], maintain_order=True):
        law = fit_law(of_series["records"].to_numpy(), of_series["value"].to_numpy())
        row = {
            "series": series,
            "sizes": of_series["records"].n_unique(),
            "records": int(np.max(of_series["records"].to_numpy())),
        }
        if law:
            now, twice, next_1000 = (
                float(law.at(n))
                for n in (row["records"], 2 * row["records"], row["records"] + 1000)
            )
            gains = {"twice": twice, "gain": twice - now, "per_1000": next_1000 - now}
            row |= {"value": now} | asdict(law) | gains
        rows.append(row)
    numbers = ("value", "limit", "scale", "exponent", "rmse", "twice", "gain", "per_1000")
    schema = {
        "series": pl.String(),
        "sizes": pl.Int64(),
        "records": pl.Int64(),
        **{name: pl.Float64() for name in numbers},
    }
    return pl.DataFrame(rows, schema=schema)


def draw_scaling(points: pl.DataFrame, measure: str) -> Figure:
    """The points, their laws, and dashed what the laws predict up to four times the records."""
    figure, axes = canvas("Scaling over training data", "training records", measure, (7.2, 4.6))
    axes.set_xscale("log")
    for place, ((series,), of_series) in enumerate(
        points.group_by(["series"], maintain_order=True)
    ):
        hue, mark = hue_of(place), mark_of(place)
        sizes = of_series["records"].to_numpy()
        law = fit_law(sizes, of_series["value"].to_numpy())
        label = f"{series}: too few points for a law ({len(set(sizes.tolist()))} of {LEAST})"
        if law:
            power = f"{law.scale:.2g} n^-{law.exponent:.2f}"
            label = f"{series}: {law.limit:.2f} - {power} (rmse {law.rmse:.3f})"
            for low, high, look in (
                (sizes.min(), sizes.max(), "-"),
                (sizes.max(), 4 * sizes.max(), "--"),
            ):
                # Even steps on the logarithmic axis.
                n = np.geomspace(low, high, 60)
                axes.plot(n, law.at(n), look, color=hue, linewidth=1.4)
        axes.plot(sizes, of_series["value"], mark, color=hue, label=label)
    axes.margins(y=0.15)
    axes.legend(frameon=False, fontsize=8)
    return figure
