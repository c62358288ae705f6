"""The log of training by TRL: the lines of `log.jsonl`, with the objective's measures."""

from pathlib import Path
from typing import Any

from medaction.training.measures import TRL_MEASURES
from medaction.training.progress import StepLog


class MeasureLog(StepLog):
    """The log of an objective: its measures, of steps and of held-out pairs."""

    def __init__(self, file: Path, objective: str):
        super().__init__(file)
        self.measures = TRL_MEASURES[objective]

    def line(self, args: Any, state: Any, logs: dict[str, float]) -> dict[str, Any] | None:
        if not {"loss", "eval_loss"} & logs.keys():
            return None
        before = "eval_" if "eval_loss" in logs else ""
        measures = {before + name: logs[before + trls] for name, trls in self.measures.items()}
        pace = {} if before else self.pace(args, state, logs)
        return {"epoch": round(state.epoch or 0.0, 4)} | measures | pace
