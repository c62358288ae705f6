"""Training on as cases come: what a later version of a dataset is learnt with, and what is
forgotten."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

pytest.importorskip(
    "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
)

from medaction.training.curves import read_log
from medaction.training.data import prepare_samples, read_datasets, read_samples, thinned
from medaction.training.forgetting import forgetting, forgetting_table
from medaction.training.settings import TrainError, TrainSettings
from medaction.training.templates import Renderer
from tests.runs import medaction, sample_cases
from tests.tiny_model import dataset, tiny_model, tiny_tokenizer, trained

pytestmark = pytest.mark.train


def rewritten(folder: Path, change: Any) -> None:
    file = folder / "train.parquet"
    change(pl.read_parquet(file)).write_parquet(file)


def taken(newest: Path, *earlier: Path, **change: Any) -> dict[str, list[str]]:
    """dataset -> ids of the training records that a run would learn."""
    asked = TrainSettings.model_validate(
        {"data": [str(newest)], "out": "out", "earlier": [*map(str, earlier)]} | change
    )
    everything = prepare_samples(read_datasets(asked), Renderer(tiny_tokenizer()), 512)
    by_dataset: dict[str, list[str]] = {}
    for sample in thinned(everything, asked).train:
        by_dataset.setdefault(Path(sample.dataset).name, []).append(sample.id)
    return by_dataset


def test_a_later_version_is_learnt_with_a_share_of_what_stood_in_the_earlier(
    tmp_path: Path,
) -> None:
    versions = tmp_path / "datasets"  # of one run
    first, second = dataset(versions / "v1", cases=12), dataset(versions / "v2", cases=16)
    for folder in (first, second):  # a record's id is the same in every version
        for split in ("train", "validation"):
            file = folder / f"{split}.parquet"
            frame = pl.read_parquet(file)
            frame.with_columns(pl.col("id").str.replace("^v[12]", "r")).write_parquet(file)
    moved = {f"case-{case}" for case in (10, 11)}  # held out in the first alone
    rewritten(second, lambda frame: frame.filter(~pl.col("case_id").is_in(moved)))
    gone, changed = "r-0-a-0", "r-0-a-1"
    text = pl.when(pl.col("id") == changed).then(pl.lit("thought again")).otherwise("thinking")
    rewritten(second, lambda frame: frame.with_columns(text.alias("thinking")))
    rewritten(second, lambda frame: frame.filter(pl.col("id") != gone))
    learnt = taken(second, first, replay=0.5)
    assert sorted(learnt) == ["v1", "v2"]
    cases = {id_.split("-")[1] for id_ in learnt["v2"]}
    assert cases == {"0", "12", "13"}  # new cases, and the record that was changed
    assert [id_ for id_ in learnt["v2"] if id_.startswith("r-0-")] == [changed]
    assert len(learnt["v1"]) == len(learnt["v2"])
    everything = taken(second, first, replay=0.95)["v1"]
    assert gone not in everything  # what the newer version no longer has is not replayed
    assert len(everything) == 12 * 4 - 2 * 4 - 2
    assert "v1" not in taken(second, first, replay=0)
    with pytest.raises(TrainError, match="nothing is new"):
        taken(second, second)


def test_what_is_left_out_is_left_out_of_earlier_datasets_too(tmp_path: Path) -> None:
    first, second = dataset(tmp_path / "first", cases=6), dataset(tmp_path / "second", cases=6)
    other_cases = pl.col("case_id").str.replace("case", "other")
    for split in ("train", "validation"):
        file = first / f"{split}.parquet"
        pl.read_parquet(file).with_columns(other_cases).write_parquet(file)
    everything = taken(second, first, replay=0.5)
    assert everything["first"], "a dataset beside another is no version of it"
    frame = read_datasets(
        TrainSettings(
            data=[str(second)], out=tmp_path, earlier=[str(first)], without=["other-1"],
            teachers=["a"],
        )
    )  # fmt: skip
    assert "other-0" in frame["case_id"]
    assert "other-1" not in frame["case_id"]
    assert frame["teacher"].unique().to_list() == ["a"]


def test_forgetting_is_the_loss_on_each_versions_own_cases() -> None:
    log = [
        {"step": 0, "eval_loss": 2.0, "eval_losses": {"v1": 1.0, "v2": 3.0}},
        {"step": 5, "loss": 1.0},
        {"step": 9, "eval_loss": 1.5, "eval_losses": {"v1": 1.25, "v2": 2.0}},
    ]
    assert forgetting(log) == {"v1": (1.0, 1.25), "v2": (3.0, 2.0)}
    assert "| v1 | 1.0000 | 1.2500 | +0.2500 |" in forgetting_table(log, "v2")
    with pytest.raises(TrainError, match="1 times"):
        forgetting(log[:1])
    looks = [{"eval_losses": dict.fromkeys(("v10", "v2", "v9"), 1.0)}] * 2
    table = forgetting_table(looks, "v10")
    assert re.findall(r"^\| (v\d+)", table, re.MULTILINE) == ["v2", "v9", "v10"]
    assert "no new one is held out" in forgetting_table(looks, "v11")


@pytest.mark.long
def test_forgetting_is_measured_where_no_new_case_is_held_out(tmp_path: Path) -> None:
    first, second = dataset(tmp_path / "first"), dataset(tmp_path / "second")
    other_cases = pl.col("case_id").str.replace("case", "other")
    rewritten(second, lambda frame: frame.with_columns(other_cases))
    (second / "validation.parquet").unlink()
    asked = TrainSettings.model_validate(
        {
            "data": [str(second)], "earlier": [str(first)], "out": tmp_path / "out",
            "base": str(tiny_model(tmp_path / "base")), "batch": 8, "max_length": 512,
            "max_steps": 1, "validation_percent": 0, "processes": 1,
        }
    )  # fmt: skip
    (name,) = forgetting(trained(asked))
    assert name.endswith("first")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["full", "prompt"])
def test_cases_that_come_later_are_learnt_from_the_last_model(
    tmp_path: Path, run_environment: dict[str, str], method: str
) -> None:
    cases, out = sample_cases(tmp_path / "inbox", 1, 2, 3, 4), tmp_path / "out"
    training = {
        "base": "tiny", "max_length": 6000, "epochs": 1, "batch": 4, "learning_rate": 0.01,
        "zero": 0, "processes": 1, "gradient_checkpointing": False, "method": method,
    }  # fmt: skip
    asked = {
        "cases": str(cases), "out": str(out), "teachers": ["kg-targeted"], "rollouts": 1,
        "launch_points": 0, "engine": "local", "validation_percent": 40, "train": training,
    }  # fmt: skip
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump(asked))
    command = ("redistill", "--preset", tmp_path / "asked.yaml")
    done = medaction(run_environment, *command)
    assert done.returncode == 0, done.stderr
    sample_cases(cases, 5, 6, 7, 8, 9, 10)
    again = medaction(run_environment, *command)
    assert again.returncode == 0, again.stderr
    assert str(out / "models/v2/model") in again.stderr.replace("\n", "")
    assert "A rise on earlier cases is forgetting" in again.stderr
    job = json.loads((out / "models/v2/job.json").read_text())
    assert job["base"] == str(out / "models/v1/model")
    before, after = (read_samples(out / f"models/v{n}/samples.parquet") for n in (1, 2))
    old = {sample.id for sample in before.train}
    of_second = {Path(s.dataset).name: set[str]() for s in after.train}
    for sample in after.train:
        of_second[Path(sample.dataset).name].add(sample.id)
    replayed = rf"\b{len(of_second['v1'])} records are replayed from earlier datasets, \d+ %"
    assert re.search(replayed, again.stderr.replace("\n", " "))
    assert of_second["v1"] <= old
    assert not of_second["v2"] & old
    assert abs(len(of_second["v1"]) / len(after.train) - 0.2) < 0.1
    table = (out / "models/v2/forgetting.md").read_text()
    losses = forgetting(read_log(out / "models/v2/log.jsonl"))
    assert [Path(name).name for name in losses] == ["v1", "v2"]
    assert all(f"{value:.4f}" in table for pair in losses.values() for value in pair)
    born = (out / "models/v2/model/model.safetensors").stat().st_mtime_ns
    third = medaction(run_environment, *command)  # nothing new
    assert third.returncode == 0, third.stderr
    assert (out / "models/v2/model/model.safetensors").stat().st_mtime_ns == born
    assert "no model was trained" in third.stderr
    assert not (out / "models/v3").exists()
