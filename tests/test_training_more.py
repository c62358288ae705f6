"""What users of trainers expect: trackers, and going on with another number of processes."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip(
    "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
)

from medaction.training.curves import read_log
from medaction.training.launch import fit, prepare_run
from medaction.training.settings import TrainError
from tests.test_training_run import same_curve, settings, trained
from tests.tiny_model import dataset, tiny_model


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
    (alone.out / "log.jsonl").write_text("\n".join(lines[:8]) + "\n")
    both = alone.model_copy(update={"processes": 2})
    prepare_run(both)
    fit(both, lambda line: None)
    same_curve(log, read_log(both.out / "log.jsonl"))


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
