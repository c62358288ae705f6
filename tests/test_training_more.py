"""What users of trainers expect: trackers, going on with another number of processes, and a finder
of the learning rate."""

import json
import math
import shutil
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip(
    "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
)

from transformers import AutoTokenizer

from medaction.flows.tiny_base import random_llama
from medaction.training.curves import read_log
from medaction.training.data import read_samples
from medaction.training.launch import fit, prepare_run
from medaction.training.settings import TrainError
from medaction.training.sweep import best_rate, draw_sweep, has_diverged, rate_at
from tests.test_training_run import same_curve, settings, trained
from tests.test_training_templates import QWEN3
from tests.tiny_model import ASKED, dataset, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.train


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    base, data = tiny_model(tmp_path / "base"), dataset(tmp_path / "data")
    alone = settings(
        base, data, tmp_path / "out", zero=0, epochs=4, save_every=3, evaluate_every=6, keep=9
    )
    log = trained(alone)
    # As a kill after step 6 leaves it.
    (alone.out / "trained.json").unlink()
    shutil.rmtree(alone.out / "checkpoints/checkpoint-9")
    lines = (alone.out / "log.jsonl").read_text().splitlines()
    done = [line for line in lines if json.loads(line).get("step", 0) <= 6]
    (alone.out / "log.jsonl").write_text("\n".join(done) + "\n")
    both = alone.model_copy(update={"processes": 2})
    prepare_run(both)
    fit(both, lambda line: None)
    same_curve(log, read_log(both.out / "log.jsonl"))
    assert (both.out / "log.jsonl").read_text().count("it goes on from checkpoint-6") == 1


def test_a_checkpoint_is_served_with_the_prompts_that_were_trained_on(tmp_path: Path) -> None:
    base, data = tiny_model(tmp_path / "base"), dataset(tmp_path / "data")
    tiny_tokenizer(QWEN3).save_pretrained(base)
    asked = settings(base, data, tmp_path / "out", zero=0, save_every=2, max_steps=3)
    trained(asked)
    sample = read_samples(asked.out / "samples.parquet").train[0]
    for folder in ("checkpoints/checkpoint-2", "model"):
        served = AutoTokenizer.from_pretrained(asked.out / folder)
        prompt = served.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
        assert prompt == served.decode(sample.tokens[: sample.prompt]), folder


def test_generation_ends_at_the_mark_that_was_trained(tmp_path: Path) -> None:
    """Of a base whose own end is another one: a server would write on behind every reply."""
    base, data = tiny_model(tmp_path / "base"), dataset(tmp_path / "data")
    tokenizer = tiny_tokenizer(marks=("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
    tokenizer.save_pretrained(base)
    random_llama(tokenizer, hidden=32, inner=64).save_pretrained(base)
    asked = settings(base, data, tmp_path / "out", zero=0, save_every=2, max_steps=3)
    trained(asked)
    ends = {tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_end|>", "<|endoftext|>")}
    for folder in ("checkpoints/checkpoint-2", "model"):
        decoding = json.loads((asked.out / folder / "generation_config.json").read_text())
        assert {*decoding["eos_token_id"]} == ends, folder


def test_every_step_is_in_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    base, data = tiny_model(tmp_path / "base"), dataset(tmp_path / "data")
    asked = settings(
        base, data, tmp_path / "out", zero=0, epochs=1, report_to=["tensorboard"], save_every=None
    )
    log = trained(asked)
    events = EventAccumulator(str(asked.out / "tensorboard")).Reload()
    for tag, name in (("train/loss", "loss"), ("eval/loss", "eval_loss")):
        shown = {event.step: event.value for event in events.Scalars(tag)}
        assert shown == pytest.approx({line["step"]: line[name] for line in log if name in line})


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="mlflow is installed")
def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path) -> None:
    base, data = tiny_model(tmp_path / "base"), dataset(tmp_path / "data")
    with pytest.raises(TrainError, match="--report-to mlflow: its package is not installed"):
        prepare_run(settings(base, data, tmp_path / "out", report_to=["mlflow"]))


def test_the_best_rate_is_where_the_loss_falls_fastest(tmp_path: Path) -> None:
    def loss(rate: float) -> float:
        """Falls around 1e-3, shoots up above 0.1."""
        return 3 - 2 / (1 + (1e-3 / rate) ** 2) + (rate / 0.1) ** 2

    log = [
        {"step": step, "loss": loss(rate_at(step, 80)), "learning_rate": rate_at(step, 80)}
        for step in range(80)
    ]
    assert (rate_at(0, 80), rate_at(79, 80)) == pytest.approx((1e-7, 1))
    assert 3e-4 < best_rate(log) < 3e-3
    draw_sweep(log, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 5000
    turns = [{"loss": loss, "learning_rate": 10.0**at} for at, loss in enumerate((3, 3, 2.9, 1, 9))]
    assert best_rate(turns) == 100, "the step before the last good one"
    assert has_diverged([2.0, 1.0, 4.5])
    assert not has_diverged([2.0, 1.0, 3.5])
    with pytest.raises(TrainError, match="fell at none of 80"):
        best_rate([line | {"loss": float(line["step"])} for line in log])


def test_a_sweep_finds_a_rate_and_leaves_no_model(tmp_path: Path) -> None:
    base, data = tiny_model(tmp_path / "base"), dataset(tmp_path / "data")
    asked = settings(
        base,
        data,
        tmp_path / "out",
        zero=0,
        epochs=20,
        find_learning_rate=True,
        max_steps=30,
        validation_percent=0,
    )
    asked.out.mkdir()
    report = prepare_run(asked)
    fit(asked, lambda line: None)
    log = read_log(asked.out / "log.jsonl")
    rates = [line["learning_rate"] for line in log]
    assert len(rates) <= 30
    # What is shown of the way to go is the sweep's, not the whole plan's.
    assert {line["steps"] for line in log} == {report["steps"]} == {30}
    assert all(
        math.isclose(later / before, rates[1] / rates[0], rel_tol=1e-3)
        for before, later in pairwise(rates)
    )
    assert 1e-5 < best_rate(log) < 0.5
    assert not (asked.out / "checkpoints").exists() or not any(
        (asked.out / "checkpoints").iterdir()
    )
    assert not (asked.out / ".model.building").exists()
