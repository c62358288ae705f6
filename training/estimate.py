"""Disk and memory that a run will need, reckoned before it starts.

Within 15 % of what was measured on one GPU (tests/test_training_estimate.py holds the rows).
Counted is what transformers' Qwen3 keeps; other models differ a little, a fused kernel keeps less.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medaction.training.base import Base
from medaction.training.settings import TrainError, TrainSettings

GIB = 2**30

FITS = 0.8
"""Share of the free memory up to which activations are kept instead of computed again: the estimate
may be 15 % too low, and memory in pieces is lost."""


FOUR_BITS = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits: half of one, a scale of one byte for 64 weights, and one in fp32 for
256 such scales (Dettmers et al. 2023, section 3)."""


EIGHT_BIT_MOMENTS = 2 * (1 + 4 / 256)
"""Bytes of both moments in 8 bits, with a scale in fp32 for 256 of them (Dettmers et al. 2022,
8-bit Optimizers via Block-wise Quantization). Those of embeddings stay in fp32, as transformers has
it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What goes through a process at once: the tokens and the targets of the largest row."""

    tokens: int
    targets: int


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes: on disk in all, of a checkpoint; of a process: weights, gradients and optimizer on its
    device, activations and loss, and the machine's memory that an offload takes; of a machine: what
    a checkpoint takes of its memory while it is written and the training goes on, and what
    merging adapters takes when the training has ended."""

    disk: int
    checkpoint: int
    state: int
    activations: int
    offloaded: int = 0
    copied: int = 0
    merged: int = 0

    def on_device(self, processes: int, device: str) -> int:
        """A GPU is one process's own; on a CPU all share the memory."""
        return (self.state + self.activations) * (processes if device == "cpu" else 1)


def needs(
    base: Base,
    settings: TrainSettings,
    processes: int,
    bf16: bool,
    load: Load,
    chunked_loss: bool = True,
) -> Needs | None:
    """None where the base model's size is not known yet.

    Without DeepSpeed weights, gradients and both moments are fp32, 16 bytes a trained parameter,
    and autocast keeps a copy of the weights in bf16. ZeRO (Rajbhandari et al. 2020) has fp32 master
    weights and moments, 12 bytes, and the model's own weights and gradients in the run's precision;
    stage 1 shares out the first among processes, 2 the gradients too, 3 everything. FSDP2 shares
    out the 16 bytes and frozen weights; head, embeddings and a layer before and behind the one that
    is computed are there whole, in the run's precision, under stage 3 too.

    Several processes without either have the gradients twice: torch gathers them in buckets.
    """
    if base.parameters is None:
        return None
    # Whatever is trained beside the base model's weights: adapters, or a soft prompt.
    lora, zero = settings.method != "full", settings.zero or 0
    trained = adapters(base, settings.lora_rank) if lora else base.parameters
    if settings.method == "prompt":
        trained = settings.prompt_tokens * base.hidden
    wide = 2 if bf16 else 4
    frozen = wide * base.parameters
    if settings.method == "qlora":
        frozen -= round((wide - FOUR_BITS) * linear_weights(base))
    offloaded = copied = at_step = 0
    moments = 8 * trained
    if settings.optimizer == "adamw-8bit":
        wide_moments = 0 if lora else base.vocabulary * base.hidden
        moments = 8 * wide_moments + round(EIGHT_BIT_MOMENTS * (trained - wide_moments))
    if settings.sharding == "fsdp":
        state = (16 * trained + (frozen if lora else 0)) // processes + wide * _gathered(base)
        saved = 4 * (trained if lora else base.parameters)
        checkpoint = 12 * trained + saved  # torch's copy, and the model's
        copied = 12 * trained // settings.nodes + saved  # the model is whole on the first machine
    elif not zero:
        state = 8 * trained + moments + (2 * trained if bf16 else 0) + (frozen if lora else 0)
        state += 4 * trained if processes > 1 else 0
        checkpoint = 4 * trained + moments
        saved = 4 * (trained if lora else base.parameters)
    else:
        shares = [processes if zero >= stage else 1 for stage in (1, 2, 3)]
        summed = 4 if settings.sums_in_fp32 else wide
        optimizer, gradients = 12 * trained // shares[0], summed * trained // shares[1]
        weights = wide * base.parameters // shares[2]
        state = optimizer + gradients + weights + 2 * wide * min(trained, BUCKET)
        if zero == 3:
            state += wide * min(_gathered(base), MOST_GATHERED)
        in_fp32 = 4 * trained // shares[0]  # the gradients that the optimizer reads
        if settings.offload != "none":
            offloaded = optimizer + in_fp32
            state -= optimizer
            if zero > 1:  # they leave the GPU as they are summed up (Ren et al. 2021)
                offloaded += gradients
                state -= gradients
        elif bf16:
            at_step = min(in_fp32, 4 * MOST_GATHERED) if zero == 3 else in_fp32
        if settings.offload == "all":
            offloaded += weights
            state -= weights
        saved = wide * (trained if lora else base.parameters)
        checkpoint = 12 * trained + 2 * saved  # DeepSpeed's copy, and the model's
    merged = 4 * base.parameters if lora else 0  # adapters are merged in fp32
    # The model itself comes at the end.
    disk = checkpoints_at_once(settings) * checkpoint + saved + merged
    # Autocast: weights in fp32, products in bf16. DeepSpeed and FSDP2 have bf16 throughout.
    mixed = bf16 and not zero and settings.sharding != "fsdp"
    activations = _activations(base, load, wide, mixed, lora, settings.gradient_checkpointing)
    loss = _loss(base, load, wide, lora, chunked_loss)
    kept, a_layer = activations
    # The loss and a layer's recomputation are never in memory at the same time; nothing of a step
    # is there when episodes are played.
    passing = max(kept + max(loss, a_layer), at_step, _keys_and_values(base, settings, wide))
    return Needs(disk, checkpoint, state, passing, offloaded, copied, merged)


def _keys_and_values(base: Base, settings: TrainSettings, wide: int) -> int:
    """Keys and values of every layer, of the episodes that are played side by side: no more tokens
    than a row has, or one episode's."""
    if not settings.episodes:
        return 0
    return 2 * wide * base.layers * base.keys * max(settings.row, settings.max_length)


def checkpoints_at_once(settings: TrainSettings) -> int:
    """The newest and the best are always kept; while one is written, the one that it replaces is
    still there."""
    return max(settings.keep, 2) + 1


def linear_weights(base: Base) -> int:
    """Weights of the linear layers, without embeddings and head: what QLoRA keeps in 4 bits."""
    attention = 2 * base.hidden * (base.queries + base.keys)
    return base.layers * (attention + 3 * base.hidden * base.inner)


BUCKET = 2**26
"""Gradients that DeepSpeed sends at a time, 128 MiB in bf16: our choice. It has two buffers for
them, by default of 5e8 each: 1.9 GiB, whatever the model's size."""

MOST_GATHERED = 10**9
"""Weights that stage 3 has whole, and weights whose gradients it turns into fp32, at a time:
DeepSpeed's defaults (stage3_max_live_parameters, sub_group_size)."""


def _gathered(base: Base) -> int:
    """Weights that are whole at a time where all are shared out: embeddings, head, two layers."""
    return 2 * base.vocabulary * base.hidden + 2 * linear_weights(base) // max(1, base.layers)


def adapters(base: Base, rank: int) -> int:
    """Parameters of low-rank adapters on every linear layer: rank x (inputs + outputs) each."""
    attention = 2 * (base.hidden + base.queries) + 2 * (base.hidden + base.keys)
    return base.layers * rank * (attention + 3 * (base.hidden + base.inner))


def _activations(
    base: Base, load: Load, wide: int, mixed: bool, lora: bool, checkpointing: bool | None
) -> tuple[int, int]:
    """(bytes kept for the backward pass, bytes of a layer that is computed again there).

    A token and layer: both norms keep their input, what they made of it, and a copy for each
    product that follows (autocast casts anew for each); queries and keys are kept before, within
    and after their own norm, values once, the attention's result twice; the two big products keep
    their results, the activation's and the product of both.
    """
    residual = 4 if mixed or wide == 4 else 2
    queries_keys = base.queries + base.keys
    if mixed:
        norms = (4 + 4) * 2 + 2 * (3 + 2)
        heads = 8 * queries_keys + 2 * base.keys + 4 * base.queries
    elif wide == 2:
        norms = (2 + 4 + 2 + 2) * 2
        heads = 8 * queries_keys + 2 * base.keys + 4 * base.queries
    else:
        norms = (4 + 4 + 4) * 2
        heads = 12 * queries_keys + 4 * base.keys + 8 * base.queries
    a_layer = norms * base.hidden + heads + 4 * wide * base.inner
    if lora and mixed:  # adapters in fp32 see their inputs cast once more
        a_layer += 2 * (5 * base.hidden + base.queries + base.inner)
    if checkpointing:
        return residual * load.tokens * base.hidden * base.layers, load.tokens * a_layer
    return load.tokens * a_layer * base.layers, 0


CHUNK_LOGITS = 2**26
"""Logits that the loss has in memory at a time (loss.py): 256 MiB in fp32, 441 targets with Qwen3's
vocabulary, still a large product."""


def _loss(base: Base, load: Load, wide: int, lora: bool, chunked: bool) -> int:
    """Logits in fp32, and their slopes in the run's precision, of a chunk, with the gradient of the
    head's weight in fp32; or of all targets the softmax and two gradients in fp32."""
    if not chunked:
        return 12 * load.targets * base.vocabulary
    at_once = min(load.targets * base.vocabulary, CHUNK_LOGITS)
    head = base.vocabulary * base.hidden
    return (8 + wide) * at_once + (0 if lora else 4 * head) + wide * head


def check_resources(
    estimate: Needs, settings: TrainSettings, processes: int, device_memory: int, device: str,
    machine_memory: int, row: int,
) -> None:  # fmt: skip
    """Raises TrainError with all that cannot hold the run: disk, the device's memory, the
    machine's. `row`: tokens of its largest row."""
    lacking = []
    free = shutil.disk_usage(existing_folder(settings.out)).free
    if estimate.disk > free:
        lacking.append(
            f"about {estimate.disk / GIB:.1f} GiB of disk"
            f" ({checkpoints_at_once(settings)} checkpoints of"
            f" {estimate.checkpoint / GIB:.1f} and the model), {free / GIB:.1f} are free:"
            f"{' lower --keep, or' if settings.keep > 2 else ''} put --out elsewhere"
        )
    on_device = estimate.on_device(processes, device)
    if on_device > device_memory:
        each = f", in each of {processes} processes" if processes > 1 else ""
        lacking.append(
            f"about {on_device / GIB:.1f} GiB of memory on the {device},"
            f" {device_memory / GIB:.1f} are free: {estimate.state / GIB:.1f} for weights,"
            f" gradients and optimizer, {estimate.activations / GIB:.1f} for a row of"
            f" {row} tokens{each}"
        )
    beside = estimate.offloaded * processes + estimate.copied
    needed = beside + (on_device if device == "cpu" else 0)
    if beside and needed > machine_memory:
        cause = (
            f"for --offload {settings.offload}"
            if estimate.offloaded
            else "to copy each checkpoint before it is written (--sharding fsdp)"
        )
        lacking.append(
            f"about {beside / GIB:.1f} GiB in the machine's memory {cause}, {needed / GIB:.1f} with"
            f" what else is there, {machine_memory / GIB:.1f} are free"
        )
    if estimate.merged > machine_memory:
        lacking.append(
            f"about {estimate.merged / GIB:.1f} GiB in the machine's memory to merge what was"
            f" trained with the base model in fp32 at the end, {machine_memory / GIB:.1f} are free"
        )
    if lacking:
        raise TrainError(f"the run needs {'; and '.join(lacking)}")


REMEDIES: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": True},
    {"sharding": "fsdp"},
    {"zero": 3},
    {"offload": "optimizer"},
    {"offload": "all"},
    {"optimizer": "adamw-8bit"},
    {"method": "lora"},
    {"method": "lora", "precision": "bf16"},
    {"method": "qlora"},
    {"method": "prompt"},
)
"""Of the settings, from those that change least of what is learnt to those that change most, as far
as they take less memory or disk."""

MOST_NAMED = 3
"""Changes that a refusal names: our choice, a line or two."""


ROW_STEP = 256
"""Tokens by which shorter rows are tried: our choice, a ninth of the demo's mean record."""


def what_fits(
    settings: TrainSettings, row: int, on_device: Callable[[TrainSettings, int], int]
) -> str:
    """What would fit instead, as a sentence. `row`: tokens of the largest row. `on_device`:
    settings and a row -> bytes on the device; raises TrainError where they do not fit either."""
    fitting: list[str] = []
    known: list[set[tuple[str, Any]]] = []
    for change in REMEDIES:
        if any(set(change.items()) > smaller for smaller in known):
            continue
        with suppress(TrainError, ValidationError):  # a change may not go with the other settings
            changed, dropped = _changed(settings, change)
            words = [
                f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
                for name, value in change.items()
            ] + [f"without --{name}" for name in dropped]
            fitting.append(f"{' '.join(words)} ({on_device(changed, row) / GIB:.1f} GiB)")
            known.append(set(change.items()))
    tokens = row
    while tokens >= 2 * ROW_STEP:
        tokens -= ROW_STEP
        with suppress(TrainError):
            on_device(settings, tokens)
            fitting.insert(0, f"rows of {tokens} tokens (--row-tokens, --max-length)")
            break
    if not fitting:
        return "No change of one setting makes it fit: take a smaller --base, or a larger machine"
    return f"What would fit: {'; '.join(fitting[:MOST_NAMED])}"


def _changed(settings: TrainSettings, change: dict[str, Any]) -> tuple[TrainSettings, list[str]]:
    """The settings with a change, and those that it does not go with, which are left out. Raises
    ValidationError where others are in its way."""
    stated = settings.model_dump()
    with suppress(ValidationError):
        return TrainSettings.model_validate(stated | change), []
    shared_out = {"zero": None, "sharding": "zero", "offload": "none"}
    left_out = {name: value for name, value in shared_out.items() if name not in change}
    dropped = [name for name, value in left_out.items() if stated[name] != value]
    return TrainSettings.model_validate(stated | left_out | change), dropped


def existing_folder(path: Path) -> Path:
    """The path, or the nearest of its parents that is there."""
    path = path.resolve()
    return path if path.exists() else existing_folder(path.parent)
