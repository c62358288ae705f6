"""Disk and memory that a run will need, reckoned before it starts."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from medaction.training.base import Base
from medaction.training.settings import TrainError, TrainSettings

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes: on disk in all, a process's memory for weights, gradients and optimizer, and its
    activations and logits (roughly)."""

    disk: int
    checkpoint: int
    state: int
    activations: int


def needs(
    base: Base, settings: TrainSettings, processes: int, bf16: bool, target_share: float
) -> Needs | None:
    """None where the base model's size is not known yet.

    State (mixed precision with AdamW): 12 bytes a parameter for fp32 weights and two moments, 4 for
    gradients (2 in bf16), and 2 for bf16 weights; ZeRO 1 shares the first among processes, 2 the
    gradients too, 3 everything. Only adapters have the first two under LoRA: about 2 x rank /
    hidden of the weights. Activations: about 34 numbers of the hidden size a token and layer, 1
    with checkpointing plus one layer's; logits and their gradient in fp32 for the target tokens of
    a row.
    """
    if base.parameters is None:
        return None
    trained = base.parameters
    if settings.method == "lora":
        trained = int(base.parameters * min(1.0, 2 * settings.lora_rank / max(base.hidden, 1)))
    if settings.method == "prompt":
        trained = settings.prompt_tokens * base.hidden
    wide = 2 if bf16 else 4
    shared = dict.fromkeys(range(settings.zero + 1), processes)
    master = 12 * trained if bf16 or settings.method != "full" else 8 * trained
    state = (
        master // shared.get(1, 1)
        + wide * trained // shared.get(2, 1)
        + wide * base.parameters // shared.get(3, 1)
    )
    layers = 1 + 34 / max(base.layers, 1) if settings.gradient_checkpointing else 34
    activations = int(wide * settings.row * base.hidden * base.layers * layers)
    activations += int(8 * settings.row * target_share * base.vocabulary)
    checkpoint = wide * (trained if settings.method != "full" else base.parameters) + 12 * trained
    # While a checkpoint is written, the one that it replaces is still there; the model itself comes
    # at the end.
    return Needs(
        (settings.keep + 1) * checkpoint + wide * base.parameters, checkpoint, state, activations
    )


def check_resources(
    estimate: Needs, settings: TrainSettings, processes: int, device_memory: int, device: str
) -> None:
    """Raises TrainError with the remedy when the disk or the memory cannot hold the run."""
    free = shutil.disk_usage(_existing(settings.out)).free
    if estimate.disk > free:
        raise TrainError(
            f"{settings.out}: the run needs about {estimate.disk / GIB:.1f} GiB of disk"
            f" ({settings.keep + 1} checkpoints of"
            f" {estimate.checkpoint / GIB:.1f} and the model), {free / GIB:.1f} are free: lower"
            " --keep, or put --out elsewhere"
        )
    a_process = estimate.state + estimate.activations
    on_this_machine = a_process * (processes if device == "cpu" else 1)
    if settings.offload == "none" and on_this_machine > device_memory:
        raise TrainError(
            f"the run needs about {on_this_machine / GIB:.1f} GiB of memory on the {device},"
            f" {device_memory / GIB:.1f} are free. A process takes"
            f" {estimate.state / GIB:.1f} for weights, gradients and optimizer,"
            f" {estimate.activations / GIB:.1f} for a row of {settings.row}"
            " tokens: lower --row-tokens and --max-length, raise --zero or --processes, or take"
            " --offload optimizer or --method lora"
        )


def _existing(path: Path) -> Path:
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)
