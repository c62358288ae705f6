"""A run's log read back, and the curves drawn from it. Needs no torch: pipelines and cards read it
too."""

import json
from pathlib import Path
from typing import Any


def read_log(file: Path) -> list[dict[str, Any]]:
    """The log's lines in the order of steps, without its notes. Steps done twice, after a kill,
    count as the last time; a torn last line is dropped."""
    newest: dict[tuple[int, bool], dict[str, Any]] = {}
    if file.is_file():
        for text in file.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:  # the process was killed while it wrote
                continue
            if "note" not in line:
                newest[line["step"], "eval_loss" in line] = line
    return [newest[key] for key in sorted(newest)]


def draw_curves(log: list[dict[str, Any]], file: Path) -> None:
    """Training and held-out loss, learning rate and speed over steps, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [line for line in log if "loss" in line]
    held_out = [line for line in log if "eval_loss" in line]
    figure, (loss, rate, speed) = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    at = [line["step"] for line in steps]
    loss.plot(at, [line["loss"] for line in steps], color="#7a9cc6", linewidth=1, label="training")
    loss.plot(
        [line["step"] for line in held_out],
        [line["eval_loss"] for line in held_out],
        "o-",
        color="#b3412e",
        label="held-out cases",
    )
    loss.set_title("loss a target token")
    loss.legend(frameon=False)
    rate.plot(at, [line["learning_rate"] for line in steps], color="#444444")
    rate.set_title("learning rate")
    speed.plot(at, [line["tokens_per_s"] for line in steps], color="#3c7d5a")
    speed.set_title("tokens a second")
    speed.set_ylim(bottom=0)
    for panel in (loss, rate, speed):
        panel.set_xlabel("step")
        panel.spines[["top", "right"]].set_visible(False)
    building = file.with_suffix(".building.png")
    figure.savefig(building, dpi=120)
    pyplot.close(figure)
    building.replace(file)
