"""How a run is going: one JSON line a step in `log.jsonl`."""

import json
import math
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from medaction.training.curves import EPISODES
from medaction.training.data import Sample
from medaction.training.packing import segments_of, share
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
    # Large enough to keep all of the device busy.
    size = 8192 if device.type == "cuda" else 1024
    factor = torch.randn(size, size, device=device, dtype=dtype)
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        product = factor @ factor
        product[0, 0].item()  # waits for the device
        # The first products warm up, and other work may disturb.
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
    """What decides the operations of a token: trained and frozen parameters in products with every
    token, those of the head and whether they are trained, and layers x heads x head size."""

    trained: int
    frozen: int
    head: int
    head_trained: bool
    attention: int


def shape_of(model: Any) -> Shape:
    """ZeRO 3 leaves empty tensors, with their true size in ds_numel."""
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        packed = getattr(parameter, "quant_state", None)  # two weights in 4 bits are one number
        size = packed.shape.numel() if packed else parameter.numel()
        sizes[parameter.requires_grad] += getattr(parameter, "ds_numel", size)
    config = model.config.get_text_config()
    head = config.vocab_size * config.hidden_size
    embeddings = head * (1 if config.tie_word_embeddings else 2)
    head_trained = model.get_output_embeddings().weight.requires_grad
    # Embeddings are looked up, not multiplied; the head is counted at the targets alone
    # (`Work.of`).
    sizes[head_trained] -= embeddings
    head_size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    attention = config.num_hidden_layers * config.num_attention_heads * head_size
    return Shape(sizes[True], sizes[False], head, head_trained, attention)


@dataclass(frozen=True, slots=True)
class Work:
    """What a step takes: its records' tokens and targets, and the operations that are really done
    for them."""

    tokens: int
    targets: int
    operations: float

    @classmethod
    def of(
        cls, step: Sequence[Sequence[int]], samples: Sequence[Sample], shared: bool, shape: Shape
    ) -> "Work":
        """A forward pass is 2 operations a parameter and token, its backward pass 4 for a trained
        parameter and 2 for a frozen one, at the head only for targets. Attention takes 12 a pair of
        a token and one that it sees. What a row's records share counts once; padding and
        recomputation (gradient checkpointing) do not count."""
        members = [samples[index] for row in step for index in row]
        targets = sum(sample.targets for sample in members)
        computed = pairs = 0
        for row in filter(None, step):
            leaves = share([samples[index].tokens for index in row], shared)
            for part in segments_of(leaves):
                length = part.end - part.start
                computed += length
                pairs += length * part.depth + length * length // 2
        operations = (
            (6 * shape.trained + 4 * shape.frozen) * computed
            + (6 if shape.head_trained else 4) * shape.head * targets
            + 12 * shape.attention * pairs
        )
        return cls(sum(len(sample.tokens) for sample in members), targets, float(operations))


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given: it works behind Python's back."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def write_note(file: Path, steps: int, text: str) -> None:
    """A sentence for whoever follows the run, in its log and in what the processes said."""
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"step": 0, "steps": steps, "note": text}) + "\n")


class StepLog(TrainerCallback):
    """Writes a line a step to the log, on the first process only; stops a run whose loss is no
    number. What an objective's lines say is its own (`line`)."""

    ends_with_loss = False
    """Whether a loss that is no number is the run's end, not an error: a search for the learning
    rate goes on until there is none."""

    def __init__(self, file: Path):
        self.file = file
        self.spent: list[float] = []

    def line(self, args: Any, state: Any, logs: dict[str, float]) -> dict[str, Any] | None:
        """Of what the trainer logs, what the log says; None: no line."""
        raise NotImplementedError

    def pace(self, args: Any, state: Any, logs: dict[str, float]) -> dict[str, float]:
        """What every line of a step says of how the run is going."""
        # Steps differ in length, and the first is slow: kernels are chosen and compiled.
        recent = self.spent[-20:]
        return {
            "learning_rate": logs["learning_rate"],
            "grad_norm": round(logs.get("grad_norm", math.nan), 4),
            "seconds": round(self.spent[-1], 3),
            "memory_gib": round(memory(args.device) / 2**30, 2),
            "eta_s": round((state.max_steps - state.global_step) * sum(recent) / len(recent)),
        }

    def on_step_begin(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        wait_for(args.device)
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        wait_for(args.device)
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
            if self.ends_with_loss:
                control.should_training_stop = True
                return
            raise TrainError(
                f"the loss is {logs['loss']} at step {state.global_step}: lower --learning-rate or"
                " lengthen --warmup"
            )
        if not state.is_world_process_zero or (line := self.line(args, state, logs)) is None:
            return
        step = {"step": state.global_step, "steps": state.max_steps}
        with self.file.open("a", encoding="utf-8") as out:
            stamp = {"time": time.strftime("%Y-%m-%dT%H:%M:%S")}
            out.write(json.dumps(step | line | stamp) + "\n")


class TrainingLog(StepLog):
    """The log of fine-tuning: tokens, targets and what of the device is used."""

    def __init__(
        self,
        file: Path,
        work: Callable[[int], Work],
        steps_per_epoch: int,
        peak: float,
        ends_with_loss: bool = False,
    ):
        """`work`: of a step, counted from 0; `peak`: operations a second of all processes."""
        super().__init__(file)
        self.ends_with_loss = ends_with_loss
        self.work, self.steps_per_epoch, self.peak = work, steps_per_epoch, peak

    def line(self, args: Any, state: Any, logs: dict[str, float]) -> dict[str, Any] | None:
        line: dict[str, Any] = {"epoch": round(state.global_step / self.steps_per_epoch, 4)}
        if "eval_loss" in logs:
            line |= {name: logs[name] for name in ("eval_loss", *EPISODES) if name in logs}
            if of_dataset := {
                "/".join(Path(key.removeprefix(OF_DATASET)).parts[-2:]): loss
                for key, loss in logs.items()
                if key.startswith(OF_DATASET)
            }:
                line["eval_losses"] = of_dataset
            return line
        if "loss" not in logs:
            return None
        seconds, work = self.spent[-1], self.work(state.global_step - 1)
        return (
            line
            | {"loss": logs["loss"], "tokens": work.tokens, "targets": work.targets}
            | self.pace(args, state, logs)
            | {
                "tokens_per_s": round(work.tokens / seconds, 1),
                "mfu": round(work.operations / seconds / self.peak, 4),
            }
        )
