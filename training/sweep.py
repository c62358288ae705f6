"""A learning-rate finder (Smith 2017, "Cyclical learning rates", section 3.3): one short run in
which the rate rises from LOWEST to HIGHEST. The loss falls fastest at a rate that is good to train
with, and shoots up where the rate is too high.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medaction.training.settings import TrainError

LOWEST, HIGHEST = 1e-7, 1.0
DIVERGED = 4.0
"""Times the lowest loss: the sweep ends there (fastai's rule)."""
SMOOTHING = 0.7
"""Weight of what came before in the running mean of the loss: a step's records differ."""
SWEEP_STEPS = 100
"""Of a sweep, where the data has so many."""


def sweep_steps(planned: int, most: int | None) -> int:
    """How many of a run's planned steps a sweep takes; `most`: of --max-steps."""
    return min(planned, most or SWEEP_STEPS, SWEEP_STEPS)


def rate_at(step: int, steps: int) -> float:
    """The learning rate of a step, from 0."""
    return LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1))


def has_diverged(losses: Sequence[float]) -> bool:
    return losses[-1] > DIVERGED * min(losses)


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """The running mean, without the bias to its start (Adam's correction)."""
    return pl.Series(losses, dtype=pl.Float64).ewm_mean(alpha=1 - SMOOTHING).to_numpy()


def best_rate(log: Sequence[dict[str, Any]]) -> float:
    """The rate at which the smoothed loss fell fastest before it was lowest. Raises TrainError
    where it never fell."""
    steps = [line for line in log if "loss" in line]
    losses = smoothed([line["loss"] for line in steps])
    lowest = int(losses.argmin())
    # A slope needs three points.
    if lowest < 2:
        raise TrainError(
            f"the loss fell at none of {len(steps)} learning rates: give the sweep more steps"
            " (more records, a smaller --batch)"
        )
    rates = np.array([line["learning_rate"] for line in steps[: lowest + 1]])
    # Not at the lowest point itself, where the slope is that of one side, and the loss turns.
    slopes = np.gradient(losses[: lowest + 1], np.log(rates))[:-1]
    return float(rates[int(slopes.argmin())])


def draw_sweep(log: Sequence[dict[str, Any]], file: Path) -> None:
    """Loss over learning rate, with the one that `best_rate` takes."""
    from matplotlib.figure import Figure

    steps = [line for line in log if "loss" in line]
    rates, losses = ([line[name] for line in steps] for name in ("learning_rate", "loss"))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, color="#7a9cc6", linewidth=1, label="a step")
    axes.plot(rates, smoothed(losses), color="#b3412e", label="running mean")
    axes.axvline(best_rate(log), color="#444444", linestyle=":", label=f"{best_rate(log):.1e}")
    axes.set_xscale("log")
    # By the first third: where the loss shoots up it would flatten the rest to a line.
    axes.set_ylim(0, 1.5 * max(losses[: 1 + math.ceil(len(losses) / 3)]))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss a target token")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)
