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
                # A step may have two lines: its own, and a look at the held-out cases.
                newest[line["step"], "eval_loss" in line] = line
    return [newest[key] for key in sorted(newest)]


BLUE, RED, GREEN = "#7a9cc6", "#b3412e", "#3c7d5a"

CURVES: dict[str, dict[str, Any]] = {
    "loss a target token": {
        "loss": {"color": BLUE, "linewidth": 1, "label": "training"},
        "eval_loss": {"color": RED, "marker": "o", "label": "held-out cases"},
    },
    "learning rate": {"learning_rate": {"color": "#444444"}},
    "tokens a second": {"tokens_per_s": {"color": GREEN}},
}
"""Of fine-tuning: panel's title -> name in the log -> how its curve looks."""

EPISODES: dict[str, dict[str, Any]] = {
    "eval_reward": {"color": RED, "marker": "o", "label": "reward"},
    "eval_diagnosis": {"color": BLUE, "marker": "o", "label": "right diagnoses"},
    "eval_test_f1": {"color": GREEN, "marker": "o", "label": "F1 of the tests"},
    "eval_well_formed": {"color": "#444444", "marker": "o", "label": "readable replies"},
}
"""What is measured where held-out cases are played at every look (`--episodes`): means of 0 to 1.
"""


def draw_curves(
    log: list[dict[str, Any]], file: Path, panels: dict[str, dict[str, Any]] | None = None
) -> None:
    """The curves of every panel over steps, as a PNG."""
    from matplotlib.figure import Figure

    if panels is None:
        played = any(name in line for line in log for name in EPISODES)
        panels = CURVES | ({"episodes of held-out cases": EPISODES} if played else {})
    figure = Figure(figsize=(4.4 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, look in curves.items():
            lines = [line for line in log if name in line]
            axis.plot([line["step"] for line in lines], [line[name] for line in lines], **look)
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.spines[["top", "right"]].set_visible(False)
        if any("label" in look for look in curves.values()):
            axis.legend(frameon=False)
    # matplotlib takes the format from the ending.
    building = file.with_suffix(".building.png")
    figure.savefig(building, dpi=120)
    building.replace(file)
