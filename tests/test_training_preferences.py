"""Training on preference pairs, in real processes: the better replies win, a run that stopped goes
on as if nothing had happened, and what is no pair is refused."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("deepspeed", reason="training is not installed")
pytest.importorskip("trl", reason="TRL is not installed (pip install 'medaction[train]')")

from medaction.training.data import read_samples
from medaction.training.launch import prepare_run
from medaction.training.preference_data import pairs_of
from medaction.training.settings import TrainError, TrainSettings
from medaction.trajectories.preferences import PAIRS
from tests.tiny_model import ASKED, tiny_model, trained

pytestmark = pytest.mark.train

STEPS = 12


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


def reply(text: str, thinking: str | None = None) -> list[dict[str, str | None]]:
    return [{"role": "assistant", "content": text, "reasoning_content": thinking}]


def preferences(folder: Path, cases: int = 8, **change: Any) -> Path:
    """Two pairs a case: the better reply orders a chest radiograph, the worse one nothing. The last
    two cases are held out."""
    rows = [
        {
            "id": f"{case}-{number}",
            "prompt": [*ASKED[:1], ASKED[1] | {"content": f"Cough for {case} weeks."}],
            "chosen": reply(f'{{"order_tests": ["Chest radiograph {number}"]}}'),
            "rejected": reply(f'{{"order_tests": [], "because": "case {case}"}}'),
            "better_by": "outcome",
            "chosen_id": f"a-{case}-{number}",
            "rejected_id": f"b-{case}-{number}",
            "chosen_teacher": "a",
            "rejected_teacher": "b",
            "case_id": f"case-{case}",
            "turn": 1,
            "source": "pmc",
            "licence": "CC0-1.0",
        }
        | change
        for case in range(cases)
        for number in range(2)
    ]
    frame = pl.DataFrame(rows, schema=PAIRS)
    (folder / "preferences").mkdir(parents=True)
    held_out = frame["case_id"].is_in([f"case-{cases - 1}", f"case-{cases - 2}"])
    frame.filter(~held_out).write_parquet(folder / "preferences/dpo-train.parquet")
    frame.filter(held_out).write_parquet(folder / "preferences/dpo-validation.parquet")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return preferences(tmp_path_factory.mktemp("data") / "d")


def settings(base: Path, data: Path, out: Path, **change: Any) -> TrainSettings:
    usual = {
        "objective": "dpo",
        "batch": 4,
        "epochs": 4,
        "learning_rate": 5e-3,
        "max_length": 256,
        "save_every": 4,
        "evaluate_every": 6,
        "gradient_checkpointing": False,
        "processes": 1,
        "zero": 0,
    }
    values = {"data": [str(data)], "base": str(base), "out": out} | usual | change
    return TrainSettings.model_validate(values)


@pytest.fixture(scope="module")
def finished(
    base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainSettings, list[dict[str, Any]]]:
    asked = settings(base, data, tmp_path_factory.mktemp("finished") / "out")
    return asked, trained(asked)


@pytest.mark.long
def test_the_better_replies_win_on_held_out_cases_too(
    finished: tuple[TrainSettings, list[dict[str, Any]]],
) -> None:
    asked, log = finished
    steps = [line for line in log if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-3), "log 2: no margin yet"
    assert steps[-1]["loss"] < 0.5
    assert steps[-1]["margin"] > steps[0]["margin"] + 0.5
    looks = [line for line in log if "eval_loss" in line]
    assert [line["step"] for line in looks] == [0, 6, 12]
    assert looks[-1]["eval_margin"] > looks[0]["eval_margin"] + 0.5
    assert looks[-1]["eval_accuracy"] == 1
    card = (asked.out / "model" / "README.md").read_text()
    assert f"{looks[-1]['eval_margin']:.4f}" in card
    assert "12 pairs of replies to 6 cases" in card
    assert (asked.out / "model" / "model.safetensors").is_file()
    assert (asked.out / "curves.png").stat().st_size > 10_000


@pytest.mark.long
def test_a_run_that_stopped_goes_on_with_the_same_losses(
    finished: tuple[TrainSettings, list[dict[str, Any]]], tmp_path: Path
) -> None:
    asked, log = finished
    again = asked.model_copy(update={"out": tmp_path / "out", "max_steps": 5})
    assert [line["step"] for line in trained(again) if "loss" in line][-1] == 5
    for left in ("trained.json", "model"):
        path = again.out / left
        path.rename(again.out / f"first-{left}")
    whole = trained(again.model_copy(update={"max_steps": None}))
    assert len([line for line in whole if "loss" in line]) == STEPS
    for before, after in zip(
        [line for line in log if "loss" in line],
        [line for line in whole if "loss" in line],
        strict=True,
    ):
        assert after["loss"] == pytest.approx(before["loss"], abs=1e-4)
        assert after["margin"] == pytest.approx(before["margin"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"zero": 2},
        {"zero": 3, "processes": 2, "gradient_checkpointing": True},
        {"method": "lora", "lora_rank": 8, "learning_rate": 2e-2},
    ],
)
def test_deepspeed_and_adapters_raise_the_margin_too(
    base: Path, data: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    asked = settings(base, data, tmp_path / "out", **change)
    log = trained(asked)
    looks = [line["eval_margin"] for line in log if "eval_loss" in line]
    assert looks[-1] > looks[0] + 0.3
    assert (asked.out / "model" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({}, 1e-4),
        # Adapters in fp32 over frozen weights in bf16, as on a GPU. A product in bf16 has 8 bits,
        # and which sums it rounds depends on the CPU and its threads: 0.008 where it has
        # instructions for bf16.
        ({"method": "lora", "lora_rank": 8, "learning_rate": 2e-2, "precision": "bf16"}, 0.03),
    ],
    ids=["fp32", "adapters over bf16"],
)
def test_pairs_shared_out_by_fsdp_have_the_losses_of_one_process_after_a_stop_too(
    base: Path, data: Path, tmp_path: Path, change: dict[str, Any], tolerance: float
) -> None:
    def curve(log: list[dict[str, Any]]) -> dict[tuple[int, str], float]:
        names = ("loss", "margin", "eval_loss", "eval_margin")
        return {(line["step"], name): line[name] for line in log for name in names if name in line}

    alone = curve(trained(settings(base, data, tmp_path / "alone", **change)))
    shared = settings(
        base, data, tmp_path / "out", **change, sharding="fsdp", processes=2, max_steps=5
    )
    trained(shared)
    log = trained(shared.model_copy(update={"max_steps": None, "processes": 1}))
    assert curve(log).keys() == alone.keys() | {(5, "eval_loss"), (5, "eval_margin")}
    assert max(abs(curve(log)[key] - alone[key]) for key in alone) < tolerance
    # Far more than the tolerance is learnt.
    assert max(alone.values()) - min(alone.values()) > 10 * tolerance
    assert {path.name for path in (shared.out / "checkpoints").glob("*/state")} == {"state"}


def test_pairs_have_one_prompt_and_thinking_on_one_side_alone_is_left_out(
    base: Path, tmp_path: Path
) -> None:
    asked = settings(base, preferences(tmp_path / "d"), tmp_path / "out")
    earlier = preferences(tmp_path / "earlier")  # of a version with fewer columns
    for file in earlier.glob("preferences/*"):
        pl.read_parquet(file).drop("chat_template_kwargs").write_parquet(file)
    asked = asked.model_copy(update={"data": (*asked.data, str(earlier))})
    asked.out.mkdir()
    report = prepare_run(asked)
    assert (report["train"], report["validation"]) == (12, 4)
    assert report["better_by"] == {"outcome": 12}
    for better, worse in pairs_of(read_samples(asked.out / "samples.parquet").train):
        prompts = [side.tokens[: side.prompt] for side in (better, worse)]
        assert prompts[0] == prompts[1]
        assert better.tokens != worse.tokens


def test_what_is_no_pair_is_refused(base: Path, tmp_path: Path) -> None:
    benchmark = preferences(tmp_path / "benchmark", source="medrbench")
    with pytest.raises(TrainError, match="evaluation only, never for training"):
        prepare_run(settings(base, benchmark, tmp_path / "out"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(TrainError, match="no prompt of it has two replies"):
        prepare_run(settings(base, empty, tmp_path / "out"))
    noted = preferences(tmp_path / "noted")
    contaminated = {"contaminated": {"hard": ["case-1"]}}
    (noted / "manifest.json").write_text(json.dumps(contaminated))
    with pytest.raises(TrainError, match="holds 1 cases of hard"):
        prepare_run(settings(base, noted, tmp_path / "out"))
    fine = preferences(tmp_path / "fine")
    with pytest.raises(TrainError, match="leave the shares out"):
        prepare_run(settings(base, Path(f"{fine}=1.0"), tmp_path / "out"))
    with pytest.raises(TrainError, match="no training pair is left"):
        prepare_run(settings(base, fine, tmp_path / "out", teachers=["a"]))
    with pytest.raises(ValueError, match="leave these out"):
        settings(base, fine, tmp_path / "out", styles=["free"])
    assert settings(base, fine, tmp_path, learning_rate=1e-3).learning_rate == 1e-3
    with pytest.raises(ValueError, match="with dpo take method full, lora or qlora"):
        settings(base, fine, tmp_path / "out", method="prompt")


def test_the_rate_and_passes_of_an_objective_hold_where_none_are_stated() -> None:
    stated = {"data": ["d"], "out": "o"}
    records = TrainSettings.model_validate(stated)
    pairs = TrainSettings.model_validate(stated | {"objective": "dpo"})
    assert (records.learning_rate, records.epochs) == (2e-4, 3)
    assert (pairs.learning_rate, pairs.epochs) == (1e-6, 1)
    papers = {"objective": "dpo", "learning_rate": 2e-4, "epochs": 3}
    assert TrainSettings.model_validate(stated | papers).learning_rate == 2e-4, "stated"


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="mlflow is installed")
def test_a_tracker_that_is_not_installed_is_named(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="--report-to mlflow: its package is not installed"):
        prepare_run(settings(base, data, tmp_path / "out", report_to=["mlflow"]))


@pytest.mark.long
def test_trackers_get_the_steps_of_pairs_too(base: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    asked = settings(base, data, tmp_path / "out", report_to=["tensorboard"], epochs=1)
    log = trained(asked)
    events = EventAccumulator(str(asked.out / "tensorboard")).Reload()
    margins = {event.step: event.value for event in events.Scalars("train/rewards/margins")}
    steps = {line["step"]: line["margin"] for line in log if "loss" in line}
    assert margins == pytest.approx(steps)
