"""A model shared out among processes by torch's FSDP2: weights, gradients and moments in fp32,
products in the run's precision, gradients summed in fp32. A layer is put together when it is
computed.

A checkpoint has the weights as others load them, and `STATE`: the trained weights and the moments
as torch's distributed checkpoint, which any number of processes reads. Both are copied to the
machine's memory and written while the training goes on.
"""

from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import Trainer

from medaction.training.checkpoints import Writes
from medaction.training.settings import TrainError

STATE = "state"
SCHEDULER = "scheduler.pt"
TRAINED_ONLY = StateDictOptions(ignore_frozen_params=True, strict=False)
WHOLE = StateDictOptions(ignore_frozen_params=True, full_state_dict=True, cpu_offload=True)


def share_out(model: Any, bf16: bool) -> None:
    """Leave this process its part of every weight: of each layer by itself, and of the rest. Raises
    TrainError for a model that does not say what its layers are."""
    policy = MixedPrecisionPolicy(torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32)
    names = model._no_split_modules or ()
    layers = [part for part in model.modules() if type(part).__name__ in names]
    if not layers:
        raise TrainError("FSDP2 finds no layers in this model: take --zero 3 instead")
    # Layers first: what of the model belongs to none is shared out as the rest.
    for part in (*layers, model):
        fully_shard(part, mp_policy=policy)


def whole_weights(model: Any) -> dict[str, torch.Tensor]:
    """The trained weights, whole, on the first process in its machine's memory; the training goes
    on without changing them."""
    weights = get_model_state_dict(model, options=WHOLE)
    if next(model.parameters()).device.type == "cpu":
        # Those of one process alone would be the model's own.
        weights = {name: weight.clone() for name, weight in weights.items()}
    return weights


class ShardedTrainer(Trainer):
    """transformers' Trainer, for a model that `share_out` was applied to: its checkpoints are
    `writes` in the background, one at a time. With any other model it is the trainer as ever."""

    def __init__(self, *, writes: Writes, **options: Any):
        self.writes = writes
        super().__init__(**options)
        if self.shared_out:
            # Their own, because a write meets the other processes while the training does.
            self.writers = distributed.new_group(backend="gloo")

    @property
    def shared_out(self) -> bool:
        return isinstance(self.model, FSDPModule)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        accelerator: Any = self.accelerator
        prepare = accelerator.prepare_model

        def prepare_model(model: Any, **options: Any) -> Any:
            # As for an evaluation: the model is shared out, and nothing else is to sum gradients.
            alone = {"device_placement": False, "evaluation_mode": True} if self.shared_out else {}
            return prepare(model, **options | alone)

        accelerator.prepare_model = prepare_model

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.writes.finish()
        super()._save_checkpoint(model, trial)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not self.shared_out or output_dir is None:
            super().save_model(output_dir, _internal_call)
            return
        weights = whole_weights(self.model)
        if self.args.should_save:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            self.writes.then(self._save, output_dir, weights)
        if not _internal_call:  # the model at the end, no part of a checkpoint
            self.writes.finish()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.shared_out:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state, folder = self._state(), Path(output_dir) / STATE
        writing = dcp.async_save(state, checkpoint_id=folder, process_group=self.writers)
        self.writes.then(writing.result)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.shared_out:  # else the weights come with the moments, once these exist
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.shared_out or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = self._state()
        dcp.load(state, checkpoint_id=Path(checkpoint) / STATE)
        set_state_dict(
            self.model,
            self.optimizer.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=TRAINED_ONLY,
        )
        scheduler = torch.load(Path(checkpoint) / SCHEDULER, weights_only=True)
        self.lr_scheduler.load_state_dict(scheduler)

    def _state(self) -> dict[str, Any]:
        model, moments = get_state_dict(self.model, self.optimizer.optimizer, options=TRAINED_ONLY)
        return {"model": model, "optimizer": moments}
