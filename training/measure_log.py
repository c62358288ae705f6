"""The log of training by TRL: the lines of `log.jsonl`, with the objective's measures."""

import json
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from medaction.training.measures import TRL_MEASURES
from medaction.training.progress import memory
from medaction.training.settings import TrainError


class MeasureLog(TrainerCallback):
    """Writes the log, on the first process only; stops a run whose loss is no number."""

    def __init__(self, file: Path, objective: str):
        self.file, self.measures = file, TRL_MEASURES[objective]
        self.spent: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        self.spent.append(time.perf_counter() - self.started)

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: dict[str, float] | None = None,
        **_options: Any,
    ) -> None:
        logs = logs or {}
        if "loss" in logs and not math.isfinite(logs["loss"]):
            raise TrainError(
                f"the loss is {logs['loss']} at step {state.global_step}: lower --learning-rate or"
                " lengthen --warmup"
            )
        if not state.is_world_process_zero or not {"loss", "eval_loss"} & logs.keys():
            return
        before = "eval_" if "eval_loss" in logs else ""
        line: dict[str, Any] = {"step": state.global_step, "steps": state.max_steps}
        line["epoch"] = round(state.epoch or 0.0, 4)
        line |= {before + name: logs[before + trls] for name, trls in self.measures.items()}
        if not before:
            recent = self.spent[-20:]
            line |= {
                "learning_rate": logs["learning_rate"],
                "grad_norm": round(logs.get("grad_norm", math.nan), 4),
                "seconds": round(self.spent[-1], 3),
                "memory_gib": round(memory(args.device) / 2**30, 2),
                "eta_s": round((state.max_steps - state.global_step) * sum(recent) / len(recent)),
            }
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line | {"time": time.strftime("%Y-%m-%dT%H:%M:%S")}) + "\n")
