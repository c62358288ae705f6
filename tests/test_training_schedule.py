"""Looks, checkpoints and stopping: what they cost at the paper's size, and that the best model is
published beside the last."""

import json
import shutil
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip(
    "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
)

from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState
from transformers.trainer_utils import rotate_checkpoints

from medaction.flows.train import print_results
from medaction.training.base import Base
from medaction.training.checkpoints import (
    COMPLETE,
    TRAINED,
    Writes,
    refuse_changed,
    where_it_begins,
)
from medaction.training.curves import read_log
from medaction.training.data import Sample
from medaction.training.estimate import Load, needs
from medaction.training.launch import fitting_the_machine, same_run
from medaction.training.looks import Looks
from medaction.training.publish import publish
from medaction.training.schedule import LOOK_SHARE, schedule
from medaction.training.settings import TrainError, TrainSettings
from medaction.training.trainer_arguments import shared_arguments
from tests.test_training_run import settings, trained
from tests.tiny_model import dataset, tiny_model

pytestmark = pytest.mark.train

PAPERS_RECORDS = 32_681
TOKENS = 2100
"""A record, by the median of the datasets that were measured."""


def samples(count: int) -> list[Sample]:
    sample = Sample("", "", "", "", "", tuple(range(TOKENS)), TOKENS - 400)
    return [replace(sample, id=str(number)) for number in range(count)]


@pytest.fixture(scope="module")
def papers() -> TrainSettings:
    return TrainSettings(data=["d"], out=Path("out"))


def test_at_the_papers_size_looks_and_checkpoints_cost_little(papers: TrainSettings) -> None:
    held_out = PAPERS_RECORDS // 10
    looked_at = samples(min(held_out, papers.validation_records))
    planned = schedule(papers, samples(PAPERS_RECORDS - held_out), looked_at)
    assert planned.looks == 13  # before, four an epoch, the last of them after the last step
    assert planned.share < LOOK_SHARE
    short = papers.model_copy(update={"save_every": 40, "evaluate_every": 60, "max_steps": 200})
    planned_short = schedule(short, samples(PAPERS_RECORDS - held_out), looked_at)
    assert planned_short.looks == 5  # before, after 60, 120, 180 and 200 steps
    assert planned_short.checkpoints == 6  # after 40, 60, 80, 120, 160 and 180
    eight = Base("", 8_000_000_000, hidden=4096, layers=36, vocabulary=151_936)
    estimate = needs(eight, papers, 8, True, Load(1, 1))
    assert estimate is not None
    written = planned.checkpoints * estimate.checkpoint
    assert planned.checkpoints == 11
    assert written < 1.3e12  # 6.7 TiB before
    assert estimate.disk < 4 * estimate.checkpoint  # what lies there at once
    before = papers.model_copy(update={"evaluate_every": 50})
    assert schedule(before, samples(29_413), samples(3_268)).share > 0.5


@pytest.mark.parametrize(("train", "held_out"), [(40, 40), (300, 30), (3000, 300)])
def test_small_data_is_looked_at_less_often_than_it_could_be(
    papers: TrainSettings, train: int, held_out: int
) -> None:
    planned = schedule(papers, samples(train), samples(held_out))
    per_epoch = planned.share * papers.epochs / planned.looks
    assert planned.looks == 1 + papers.epochs or planned.share <= LOOK_SHARE + per_epoch


def test_the_best_model_lies_beside_the_last_and_training_stops_without_gain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_model(tmp_path / "base")
    data = dataset(tmp_path / "data")
    asked = settings(
        base, data, tmp_path / "out", save_every=None, evaluate_every=6, patience=3, epochs=60
    )
    log = trained(asked)
    looks = {line["step"]: line["eval_loss"] for line in log if "eval_loss" in line}
    last, best = max(looks), min(looks, key=lambda step: looks[step])
    assert last == best + 3 * 6 < asked.epochs * 3  # stopped early
    assert json.loads((asked.out / "trained.json").read_text())["best_step"] == best
    kept = asked.out / f"checkpoints/checkpoint-{best}"
    assert (kept / "optimizer.pt").is_file() or any(kept.glob("global_step*"))  # resumable
    weights = load_file(asked.out / "best/model.safetensors")
    assert all(
        weight.equal(weights[name])
        for name, weight in load_file(kept / "model.safetensors").items()
    )
    assert not weights["model.norm.weight"].equal(
        load_file(asked.out / "model/model.safetensors")["model.norm.weight"]
    )
    assert not (asked.out / f"checkpoints/checkpoint-{last}").exists()
    assert len(list((asked.out / "checkpoints").glob("checkpoint-*"))) <= asked.keep
    assert read_log(asked.out / "best/training_log.jsonl") == log
    print_results(asked.out, {})
    assert "lowest held-out loss: medaction serve" in " ".join(capsys.readouterr().err.split())

    # Without the checkpoint the last model is not published as the best.
    (asked.out / "model").rename(asked.out / ".model.building")
    shutil.rmtree(kept)
    publish(asked, json.loads((asked.out / "report.json").read_text()), {"medaction": "test"})
    assert (asked.out / "model").is_dir()
    assert not (asked.out / "best").exists()


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_whole_checkpoint_stays_while_another_is_written(
    papers: TrainSettings, tmp_path: Path, keep: int
) -> None:
    """The trainer's own rotation runs before it is whole: of the best, the newest whole one, and
    the one that is being written, all must stay."""
    folders = {f"checkpoint-{step}" for step in (2, 4, 6)}
    for folder in folders:
        (tmp_path / folder).mkdir()
    arguments = shared_arguments(tmp_path, papers.model_copy(update={"keep": keep}), cuda=False)
    best = str(tmp_path / "checkpoint-2")
    rotate_checkpoints(str(tmp_path), arguments["save_total_limit"], best)
    assert {folder.name for folder in tmp_path.iterdir()} == folders


def test_a_run_that_is_past_its_last_step_stops(papers: TrainSettings) -> None:
    """A checkpoint of step 8, gone on from with --max-steps 6."""
    state, control = TrainerState(global_step=9, max_steps=30), TrainerControl()
    asked = papers.model_copy(update={"max_steps": 6, "save_every": 4})
    Looks(SimpleNamespace(eval_dataset=None), asked, every=5).on_step_end(None, state, control)
    assert control.should_training_stop
    assert not control.should_save


def test_a_run_that_stopped_at_max_steps_goes_on_with_more(tmp_path: Path) -> None:
    asked = TrainSettings(data=["d"], out=tmp_path, max_steps=6, zero=0)
    job = {"settings": asked.model_dump(mode="json"), "data_version": "d", "processes": 1}
    (tmp_path / "job.json").write_text(json.dumps(job))
    for steps, done in ((6, True), (4, True), (9, False)):
        (tmp_path / TRAINED).write_text("{}")
        same_run(tmp_path, asked.model_copy(update={"max_steps": steps}), "d", 1)
        assert (tmp_path / TRAINED).exists() == done
    (tmp_path / TRAINED).write_text("{}")
    (tmp_path / "checkpoints" / "checkpoint-6").mkdir(parents=True)
    other = asked.model_copy(update={"max_steps": 9, "learning_rate": 1.0})
    with pytest.raises(TrainError, match="another run"):
        same_run(tmp_path, other, "d", 1)
    with pytest.raises(TrainError, match="objective was sft, is grpo"):
        same_run(tmp_path, asked.model_copy(update={"objective": "grpo"}), "d", 1)
    assert (tmp_path / TRAINED).exists(), "what was refused is still trained"
    # Replies at looks that took too long: the records are learnt as before.
    shorter = asked.model_copy(update={"episodes": 2, "reply_tokens": 512, "t_max": 4})
    same_run(tmp_path, shorter, "d", 1)


def test_checkpoints_of_which_nothing_says_what_run_they_are_of_are_refused(tmp_path: Path) -> None:
    """A full disk or a hand leaves the folder without a whole job.json."""
    asked = TrainSettings(data=["d"], out=tmp_path)
    (tmp_path / TRAINED).write_text("{}")
    folder = tmp_path / "checkpoints" / "checkpoint-6"
    folder.mkdir(parents=True)
    for text in ('{"settings": {"out', None):
        (tmp_path / "job.json").write_text(text) if text else (tmp_path / "job.json").unlink()
        with pytest.raises(TrainError, match="nothing says of which run"):
            same_run(tmp_path, asked, "d", 1)
    with pytest.raises(TrainError, match=r"to begin anew$"):
        fitting_the_machine(asked, Base("a/b", None), Load(1, 1))
    folder.rmdir()
    same_run(tmp_path, asked, "d", 1)
    assert not (tmp_path / TRAINED).exists(), "whatever was trained, it is trained anew"
    folder.mkdir()
    (folder / COMPLETE).write_text('{"optimizer.pt": ')
    with pytest.raises(TrainError, match=r"changed after it was written \(complete\)"):
        refuse_changed(folder)
    assert where_it_begins(tmp_path) == "; it goes on from checkpoint-6"
    (folder / COMPLETE).unlink()
    assert where_it_begins(tmp_path) == "", "nothing was begun"
    (tmp_path / "log.jsonl").touch()
    assert where_it_begins(tmp_path).endswith("it begins again")


def test_what_kept_a_checkpoint_from_being_written_ends_the_training_at_the_next() -> None:
    writes = Writes()
    writes.then(Path("/nowhere/complete").touch)
    wait(writes.running)
    with pytest.raises(FileNotFoundError):
        writes.then(print)


def test_a_best_model_that_is_the_last_is_the_same_folder(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    asked = settings(
        base, dataset(tmp_path / "data"), tmp_path / "out", epochs=1, method="lora", lora_rank=4
    )
    trained(asked.model_copy(update={"learning_rate": 1e-3, "save_every": None}))
    assert (asked.out / "best").resolve() == (asked.out / "model").resolve()
    assert (asked.out / "adapter/adapter_model.safetensors").is_file()
