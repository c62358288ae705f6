"""What every training process does, whatever its objective: read the job, join the other processes,
train from the newest whole checkpoint, and leave the weights and a mark."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from medaction.training.checkpoints import (
    SPARE_CHECKPOINTS,
    TRAINED,
    Writes,
    mark_whole,
    newest_checkpoint,
    refuse_changed,
)
from medaction.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Job:
    """`thinking`: whether any is taught. `processes`: how many train together, one a device.
    `rank`: which of them this one is."""

    out: Path
    settings: TrainSettings
    base: str
    thinking: bool
    cuda: bool
    processes: int
    rank: int


def open_job(out: Path) -> Job:
    """The job in `out`; seeds torch, and joins the other processes where weights are shared out."""
    job = json.loads((out / "job.json").read_text())
    settings = TrainSettings.model_validate(job["settings"])
    cuda = torch.cuda.is_available()
    torch.manual_seed(settings.seed)
    if settings.zero:
        init_deepspeed(cuda)
    elif settings.sharding == "fsdp" and not distributed.is_initialized():  # Ray has done it
        os.environ.update(ALONE | os.environ)
        distributed.init_process_group("nccl" if cuda else "gloo")
    # torchrun's and Ray's words; a process that nobody launched is alone.
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    return Job(out, settings, job["base"], job["thinking"], cuda, processes, rank)


def train_to_end(trainer: Trainer, job: Job, attention: str) -> None:
    """From the newest whole checkpoint if there is one, to the model's weights."""
    checkpoint = newest_checkpoint(job.out)
    if checkpoint:
        refuse_changed(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # On all processes: under ZeRO 3 each has a part of the weights.
    trainer.save_model(str(job.out / ".model.building"))
    mark_trained(trainer, job, attention)


def mark_trained(trainer: Trainer, job: Job, attention: str) -> None:
    """The last step is done and the weights are written, by all processes."""
    if trainer.is_world_process_zero():
        state = trainer.state
        steps = {"step": state.global_step, "best_step": state.best_global_step}
        (job.out / TRAINED).write_text(json.dumps(steps | {"attention": attention}))
    if distributed.is_initialized():
        distributed.barrier()


class MarkComplete(TrainerCallback):
    """A checkpoint counts once every process has written its part of it. Only then older ones go:
    a kill before that would leave none that is whole."""

    def __init__(self, writes: Writes | None = None):
        self.writes = writes or Writes()

    def on_save(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        if distributed.is_initialized():
            distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            keep = args.save_total_limit - SPARE_CHECKPOINTS
            best = state.best_model_checkpoint
            self.writes.then(mark_whole, folder)
            self.writes.then(rotate_checkpoints, args.output_dir, keep, best)

    def on_train_end(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        self.writes.finish()


ALONE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}
"""What a launcher tells a process, for one that none has started."""


def init_deepspeed(cuda: bool) -> None:
    """Join the other processes in DeepSpeed's way, alone too, without compiling any extension on a
    CPU."""
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.update(ALONE | os.environ)
    import deepspeed
    import deepspeed.ops

    if not cuda:
        # Shared-memory communication would be compiled at the first use, half a minute and more.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", verbose=False)
