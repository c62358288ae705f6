"""One training process: what torchrun or Ray start, as many as there are devices. The job's
objective says what it does; grpo, which plays episodes, has a program of its own
(`medaction.hub.grpo_process`).

Run by hand: torchrun --nproc_per_node 2 -m medaction.training.process OUT
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

# Before transformers is imported: its tokenizers' threads do not survive a fork, and warn of it.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import record

from medaction.training.checkpoints import REFUSAL
from medaction.training.settings import TrainError, TrainSettings


def train_as_job_says(out: Path) -> None:
    """Train in `out`, from its newest whole checkpoint if there is one. Raises TrainError."""
    settings = TrainSettings.model_validate(json.loads((out / "job.json").read_text())["settings"])
    # Only here: TRL takes seconds to import, and supervised training needs none of it.
    if settings.objective == "dpo":
        from medaction.training.preference_run import train_pairs

        leaving_refusals(train_pairs, out)
    else:
        from medaction.training.run import train_records

        leaving_refusals(train_records, out)


def leaving_refusals(train: Callable[[Path], None], out: Path) -> None:
    """Train in `out`. A TrainError is raised, and left in the folder for whoever started the
    process; so is a memory that is full: starting again would end the same way."""
    try:
        train(out)
    except TrainError as refusal:
        (out / REFUSAL).write_text(str(refusal), encoding="utf-8")
        raise
    except torch.OutOfMemoryError as error:
        remedy = "--gradient-checkpointing, a smaller --row-tokens and --max-length, --method lora"
        words = f"the GPU's memory is full ({str(error).split(' GPU ')[0]}): take {remedy}"
        (out / REFUSAL).write_text(words, encoding="utf-8")
        raise


def end_with(parent_pid: int) -> None:
    """When the run's own process was killed, nobody is left to stop this one."""

    def watch() -> None:
        # Not getppid: torchrun or Ray stand between.
        while Path(f"/proc/{parent_pid}").exists():
            time.sleep(0.5)
        os._exit(1)

    if Path("/proc/self").exists():
        threading.Thread(target=watch, daemon=True).start()


def run_process(train: Callable[[Path], None]) -> None:
    """Train in the folder that the command line names, as one of the processes of a run."""
    if "MEDACTION_RUN_PID" in os.environ:
        end_with(int(os.environ["MEDACTION_RUN_PID"]))
    try:
        # Torchrun, where it started this process, ends its own words with what was raised here.
        record(train)(Path(sys.argv[1]))
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


if __name__ == "__main__":
    run_process(train_as_job_says)
