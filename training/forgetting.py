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


def forgetting_table(log: Sequence[dict[str, Any]]) -> str:
    """The losses as Markdown."""
    rows = [
        [name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"]
        for name, (before, after) in forgetting(log).items()
    ]
    headings = ["held-out cases first seen in", "loss before", "loss after", "change"]
    note = "A rise on earlier cases is forgetting; the last row is what was learnt now."
    return "\n".join(["# Forgetting", "", *markdown_table(headings, rows), "", note, ""])
