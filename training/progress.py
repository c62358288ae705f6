"""How a run is going: one JSON line a step in `log.jsonl`."""

import json
import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from medaction.training.data import Sample
from medaction.training.settings import TrainError

OF_DATASET = "eval_loss/"
"""Before a dataset's folder in the name of its own held-out loss."""

BF16_PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bf16 operations a second that the makers state; other devices are measured (see `peak`)."""


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second that a process's device is capable of: the maker's number, or a matrix
    product measured now."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        for name, stated in BF16_PEAKS.items():
            if name in torch.cuda.get_device_name(device):
                return stated
    size = 8192 if device.type == "cuda" else 1024
    factor = torch.randn(size, size, device=device, dtype=dtype)
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        product = factor @ factor
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def memory(device: torch.device) -> int:
    """The most bytes that this process has held so far: on the GPU, or without one of the machine's
    memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """Parameters in products with every token (without embeddings), those of the head, layers,
    hidden size."""

    body: int
    head: int
    layers: int
    hidden: int


@dataclass(frozen=True, slots=True)
class Work:
    """What a step takes: its records' tokens and targets, and the operations that are really done
    for them."""

    tokens: int
    targets: int
    operations: float

    @classmethod
    def of(
        cls, step: Sequence[Sequence[int]], samples: Sequence[Sample], prefix: int, shape: Shape
    ) -> "Work":
        """A forward and backward pass is 6 operations a parameter and token, at the head only for
        targets, and 6 x layers x hidden x length^2 for causal attention. Tokens that a row's
        records share count once; recomputation (gradient checkpointing) does not count."""
        members = [samples[index] for row in step for index in row]
        targets = sum(sample.targets for sample in members)
        computed = sum(
            prefix + sum(len(samples[index].tokens) - prefix for index in row)
            for row in step
            if row
        )
        attention = (
            6 * shape.layers * shape.hidden * sum(len(sample.tokens) ** 2 for sample in members)
        )
        operations = 6 * shape.body * computed + 6 * shape.head * targets + attention
        return cls(sum(len(sample.tokens) for sample in members), targets, float(operations))


class TrainingLog(TrainerCallback):
    """Writes the log, on the first process only; stops a run whose loss is no number."""

    def __init__(self, file: Path, work: Sequence[Work], steps_per_epoch: int, peak: float):
        """`work`: of every step; `peak`: operations a second of all processes together."""
        self.file, self.work, self.steps_per_epoch, self.peak = file, work, steps_per_epoch, peak
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
        if not state.is_world_process_zero:
            return
        line: dict[str, Any] = {"step": state.global_step, "steps": state.max_steps}
        line["epoch"] = round(state.global_step / self.steps_per_epoch, 4)
        if "eval_loss" in logs:
            line["eval_loss"] = logs["eval_loss"]
            if of_dataset := {
                key.removeprefix(OF_DATASET): loss
                for key, loss in logs.items()
                if key.startswith(OF_DATASET)
            }:
                line["eval_losses"] = of_dataset
        elif "loss" in logs:
            seconds = self.spent[-1]
            work = self.work[state.global_step - 1]
            recent = self.spent[-20:]
            line |= {
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "grad_norm": round(logs.get("grad_norm", float("nan")), 4),
                "tokens": work.tokens,
                "targets": work.targets,
                "seconds": round(seconds, 3),
                "tokens_per_s": round(work.tokens / seconds, 1),
                "mfu": round(work.operations / seconds / self.peak, 4),
                "memory_gib": round(memory(args.device) / 2**30, 2),
                "eta_s": round((state.max_steps - state.global_step) * sum(recent) / len(recent)),
            }
        else:
            return
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line | {"time": time.strftime("%Y-%m-%dT%H:%M:%S")}) + "\n")
