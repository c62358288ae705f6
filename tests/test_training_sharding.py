"""FSDP2 in real processes: the losses of one process that shares nothing out, whatever number of
processes goes on after a kill, also a kill while a checkpoint is being written."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
)

import torch
from torch import distributed

from medaction.flows.tiny_base import random_llama
from medaction.training.checkpoints import Writes, newest_checkpoint
from medaction.training.curves import read_log
from medaction.training.launch import prepare_run, resolved, same_run
from medaction.training.settings import TrainError, TrainSettings
from medaction.training.sharding import share_out, whole_weights
from tests.test_training_estimate import SHARED, SMALL
from tests.test_training_run import FIT, losses, settings
from tests.tiny_model import dataset, tiny_model, tiny_tokenizer, trained

pytestmark = pytest.mark.train

# In every process of a run: the weights' file of a checkpoint is a pipe that nobody reads, so that
# its writing does not end.
PIPE = """
import os, sys

def pipe(event, arguments):
    if event == "open" and str(arguments[0]).endswith("checkpoint-{step}/state/__0_0.distcp"):
        if not os.path.exists(arguments[0]):
            os.mkfifo(arguments[0])

sys.addaudithook(pipe)
"""


def killed_while_it_writes(asked: TrainSettings, step: int) -> int:
    """Kill a run while its checkpoint of `step` is being written; returns the last step that it
    took."""
    asked.out.mkdir(parents=True)
    prepare_run(asked)
    site = asked.out.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(PIPE.format(step=step))
    paths = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", FIT, asked.model_dump_json()]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}) as run:
        deadline = time.monotonic() + 500
        last = 0
        while last < step + 2:
            assert run.poll() is None
            assert time.monotonic() < deadline
            last = max((line["step"] for line in read_log(asked.out / "log.jsonl")), default=0)
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    return last


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("before", "after", "change"),
    [(2, 1, {}), (1, 2, {"method": "lora", "lora_rank": 8, "learning_rate": 2e-2})],
    ids=["full, 2 to 1 process", "adapters, 1 to 2 processes"],
)
def test_any_number_of_processes_goes_on_after_a_kill_in_the_middle_of_a_checkpoint(
    before: int, after: int, change: dict[str, Any], tmp_path: Path
) -> None:
    base, data = tiny_model(tmp_path / "base"), dataset(tmp_path / "data")
    usual = {"epochs": 8, "save_every": 8, "evaluate_every": 24, "keep": 1} | change
    alone = losses(trained(settings(base, data, tmp_path / "alone", **usual)))
    asked = settings(
        base, data, tmp_path / "out", **usual, sharding="fsdp", processes=before, row_tokens=600
    )
    last = killed_while_it_writes(asked, 16)
    # The training did not wait for the writing, and the first checkpoint is still there.
    assert last >= 18
    assert (newest_checkpoint(asked.out) or Path()).name == "checkpoint-8"
    curve = losses(trained(asked.model_copy(update={"processes": after})))
    assert curve.keys() == alone.keys()
    assert max(abs(curve[key] - alone[key]) for key in alone) < 1e-4
    assert [folder.name for folder in (asked.out / "checkpoints").iterdir()] == ["checkpoint-16"]
    said = (asked.out / "processes-0.txt").read_text()
    assert "loss: chunked; FSDP2; activations: kept" in said


def test_a_checkpoint_is_whole_only_once_everything_before_is_written(tmp_path: Path) -> None:
    writes, mark, written = Writes(), tmp_path / "complete", threading.Event()
    writes.then(written.wait)
    writes.then(mark.touch)
    assert not mark.exists()
    written.set()
    writes.finish()
    assert mark.exists()

    def full() -> None:
        raise OSError("no space left")

    writes.then(full)
    writes.then((tmp_path / "other").touch)
    with pytest.raises(OSError, match="no space left"):
        writes.finish()
    assert not (tmp_path / "other").exists()


def test_weights_that_are_being_written_are_not_those_that_are_trained() -> None:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model = random_llama(tiny_tokenizer(), hidden=32, inner=64)
        share_out(model, bf16=False)
        weights = whole_weights(model)
        before = {name: weight.clone() for name, weight in weights.items()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
    finally:
        distributed.destroy_process_group()
    for name, weight in weights.items():
        assert torch.equal(weight, before[name])


def test_the_processes_may_change_and_the_way_of_sharing_may_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "checkpoints/checkpoint-4").mkdir(parents=True)
    asked = settings(tmp_path, tmp_path, out, sharding="fsdp", zero=0)
    job = {"settings": asked.model_dump(mode="json"), "data_version": "d", "processes": 2}
    (out / "job.json").write_text(json.dumps(job))
    same_run(out, asked, "d", 1)
    with pytest.raises(TrainError, match="sharding was fsdp, is zero"):
        same_run(out, asked.model_copy(update={"sharding": "zero"}), "d", 2)


@pytest.mark.parametrize(
    "change",
    [{"zero": 2}, {"offload": "all"}, {"objective": "grpo"}, {"method": "qlora"},
     {"optimizer": "adamw-8bit"}],
)  # fmt: skip
def test_what_fsdp_does_not_share_out_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="sharding fsdp is for objective sft or dpo"):
        settings(Path("b"), Path("d"), Path("o"), sharding="fsdp", **change)


def test_fsdp_starts_no_deepspeed() -> None:
    asked = settings(Path("b"), Path("d"), Path("o"), sharding="fsdp")
    assert resolved(asked, SMALL, 4, True, SHARED, 2**40).zero == 0
