"""How training by preferences or rewards goes, where supervised training has its loss: the measures
by objective, their summary and their curves. Needs no torch."""

from pathlib import Path
from statistics import fmean
from typing import Any

from medaction.training.curves import CURVES, draw_curves

TRL_MEASURES: dict[str, dict[str, str]] = {
    "dpo": {"loss": "loss", "margin": "rewards/margins", "accuracy": "rewards/accuracies"},
    "grpo": {
        "loss": "loss",
        "reward": "reward",
        "spread": "reward_std",
        "diagnosis": "diagnosis",
        "well_formed": "well_formed",
    },
}
"""By objective: our name of a measure, in the log and in the card, and TRL's."""

PANEL_TITLES = {
    "loss": "loss",
    "reward": "reward of an episode",
    "spread": "its spread within a group",
    "diagnosis": "share of right diagnoses",
    "well_formed": "share of replies in the grammar",
    "margin": "reward margin: better reply over worse",
    "accuracy": "share of pairs ranked right",
}


def summarize_measures(log: list[dict[str, Any]], objective: str) -> dict[str, Any]:
    """Each measure at both ends: its mean over the first and the last quarter of the steps, because
    single steps vary; and on the held-out cases before the first step and after the last (None
    without any)."""
    steps = [line for line in log if "loss" in line]
    looks = [line for line in log if "eval_loss" in line]
    quarter = max(1, len(steps) // 4)
    results: dict[str, Any] = {"steps": steps[-1]["step"]}
    for name in TRL_MEASURES[objective]:
        results[f"{name}_first"] = fmean(line[name] for line in steps[:quarter])
        results[f"{name}_last"] = fmean(line[name] for line in steps[-quarter:])
        results[f"{name}_held_out_before"] = looks[0][f"eval_{name}"] if looks else None
        results[f"{name}_held_out_after"] = looks[-1][f"eval_{name}"] if looks else None
    return results | {"seconds": round(sum(line["seconds"] for line in steps), 1)}


def draw_measures(log: list[dict[str, Any]], file: Path) -> None:
    """Each measure over steps, in training and on held-out cases, as a PNG."""
    training, held_out = CURVES["loss a target token"].values()
    panels = {
        title: {name: training, f"eval_{name}": held_out}
        for name, title in PANEL_TITLES.items()
        if any(name in line for line in log)
    }
    draw_curves(log, file, panels)
