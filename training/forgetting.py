"""What a model forgot while it learnt: the held-out loss on each dataset's own held-out cases,
before the first step and after the last.

Backward transfer (Lopez-Paz and Ranzato 2017) with a loss in the place of an accuracy: a rise on
the earlier cases is forgetting.
"""

from collections.abc import Sequence
from typing import Any

from medaction.training.settings import TrainError
from medaction.words.markdown import markdown_table


def forgetting(log: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """dataset -> (held-out loss before, after), in nats a target token. Raises TrainError without
    two looks."""
    looks = [line["eval_losses"] for line in log if "eval_losses" in line]
    if len(looks) < 2:
        raise TrainError(
            "forgetting is the held-out loss before and after: the run looked at held-out cases"
            f" {len(looks)} times"
        )
    return {name: (looks[0][name], looks[-1][name]) for name in looks[-1]}


def forgetting_table(log: Sequence[dict[str, Any]], learnt: str) -> str:
    """The losses as Markdown, those of the dataset that was `learnt` now in the last row."""
    losses = forgetting(log)
    rows = [
        [name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"]
        # 'v10' comes after 'v9'.
        for name, (before, after) in sorted(
            losses.items(), key=lambda item: (item[0] == learnt, len(item[0]), item[0])
        )
    ]
    headings = ["held-out cases first seen in", "loss before", "loss after", "change"]
    last = "the last row is what was learnt now" if learnt in losses else "no new one is held out"
    note = f"A rise on earlier cases is forgetting; {last}."
    return "\n".join(["# Forgetting", "", *markdown_table(headings, rows), "", note, ""])
