"""Training end to end, in real processes: the model learns, a killed run goes on as if nothing had
happened, bad input is refused."""

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

pytest.importorskip(
    "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
)

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medaction.cli.train import train
from medaction.envs.reply import reply_schema
from medaction.hub.grpo import prepare_episodes
from medaction.llm.calls import call
from medaction.llm.teacher import Teacher
from medaction.training.base import resolve
from medaction.training.checkpoints import newest_checkpoint
from medaction.training.curves import read_log
from medaction.training.data import read_samples
from medaction.training.launch import fit, prepare_run
from medaction.training.process import leaving_refusals
from medaction.training.serving import command
from medaction.training.settings import MissingInput, TrainError, TrainSettings
from medaction.training.trainer_arguments import deepspeed_config
from medaction.words.processes import free_port
from tests.conftest import SAMPLES
from tests.runs import medaction
from tests.tiny_model import dataset, tiny_model, trained

pytestmark = pytest.mark.train

STEPS = 24


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data") / "d")


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def settings(base: Path, data: Path, out: Path, **change: Any) -> TrainSettings:
    usual = {
        "batch": 8,
        "epochs": 8,
        "learning_rate": 1e-2,
        "max_length": 512,
        "save_every": 8,
        "evaluate_every": 12,
        "gradient_checkpointing": False,
        "processes": 1,
    }
    return TrainSettings.model_validate(
        {"data": [str(data)], "base": str(base), "out": out} | usual | change
    )


def losses(log: list[dict[str, Any]]) -> dict[tuple[int, str], float]:
    return {
        (line["step"], kind): line[kind]
        for line in log
        for kind in ("loss", "eval_loss")
        if kind in line
    }


def same_curve(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    expected = losses(one)
    found = losses(other)
    assert found.keys() == expected.keys()
    assert max(abs(found[key] - expected[key]) for key in expected) < 1e-3


FIT = (
    "import sys; from medaction.training.launch import fit; from medaction.training.settings import"
    " TrainSettings\n"
    "fit(TrainSettings.model_validate_json(sys.argv[1]), lambda line: None)\n"
)


def killed_midway(asked: TrainSettings) -> int:
    """Start the run in a process, kill it once a checkpoint is whole; returns the step that it had
    come to."""
    asked.out.mkdir(parents=True)
    prepare_run(asked)
    with subprocess.Popen([sys.executable, "-c", FIT, asked.model_dump_json()]) as run:
        deadline = time.monotonic() + 300
        while newest_checkpoint(asked.out) is None:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    return read_log(asked.out / "log.jsonl")[-1]["step"]


@pytest.fixture(scope="module")
def finished_model(
    base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainSettings, list[dict[str, Any]]]:
    asked = settings(base, data, tmp_path_factory.mktemp("finished_model") / "out")
    return asked, trained(asked)


def test_it_learns_and_leaves_a_model_that_says_so(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]],
) -> None:
    asked, log = finished_model
    assert [line["step"] for line in log if "loss" in line] == list(range(1, STEPS + 1))
    held_out = [line["eval_loss"] for line in log if "eval_loss" in line]
    assert held_out[-1] < held_out[0] / 2
    rates = [line["learning_rate"] for line in log if "loss" in line]
    # One step of warm-up (3 % of 24), then a cosine down to zero.
    halves = [math.pi * step / (STEPS - 1) / 2 for step in range(STEPS)]
    assert rates == pytest.approx([0, *(1e-2 * math.cos(half) ** 2 for half in halves)][:STEPS])
    folder = asked.out / "model"
    decoding = json.loads((folder / "generation_config.json").read_text())
    assert decoding["do_sample"]
    assert decoding["temperature"] == 0.6, "the paper's, appendix C"
    names = {file.name for file in folder.iterdir()}
    assert {
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
        "curves.png",
        "training_log.jsonl",
    } <= names
    assert not [name for name in names if name.endswith((".bin", ".pt"))]
    card = (folder / "README.md").read_text()
    assert f"{held_out[-1]:.4f}" in card
    assert json.loads((asked.out / "job.json").read_text())["data_version"] in card

    # What was saved is what was trained: loaded by itself, it has the loss that the log ends with.
    assert (
        AutoTokenizer.from_pretrained(folder).chat_template
        == AutoTokenizer.from_pretrained(asked.base).chat_template
    )
    assert held_out_loss(asked) == pytest.approx(held_out[-1], abs=1e-4)


def held_out_loss(asked: TrainSettings) -> float:
    """Of the published model, loaded by itself."""
    model = AutoModelForCausalLM.from_pretrained(asked.out / "model", dtype=torch.float32)
    validation = read_samples(asked.out / "samples.parquet").validation
    total = 0.0
    with torch.no_grad():
        for sample in validation:
            logits = model(torch.tensor([sample.tokens])).logits[0, sample.prompt - 1 : -1]
            targets = torch.tensor(sample.tokens[sample.prompt :])
            total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    return total / sum(sample.targets for sample in validation)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_run_of_two_processes_goes_on_with_the_losses_of_one_that_was_never_killed(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """ZeRO 3, whose checkpoints are sharded most, against one process without DeepSpeed;
    recomputing activations changes nothing either."""
    asked, log = finished_model
    change = {
        "out": tmp_path / "out",
        "processes": 2,
        "zero": 3,
        "row_tokens": 600,
        "gradient_checkpointing": True,
    }
    again = asked.model_copy(update=change)
    assert killed_midway(again) < STEPS
    torn = again.out / "checkpoints" / "checkpoint-999"
    shutil.copytree(newest_checkpoint(again.out) or Path(), torn)
    (torn / "complete").unlink()
    same_curve(log, trained(again))
    assert len(list((again.out / "checkpoints").iterdir())) == again.keep


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ray_starts_the_same_run(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]], tmp_path: Path
) -> None:
    asked, log = finished_model
    same_curve(
        log,
        trained(
            asked.model_copy(update={"out": tmp_path / "out", "processes": 2, "launcher": "ray"})
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_nodes_meet_and_take_the_same_steps(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Without DeepSpeed: torch's own data parallelism, a process a node."""
    asked, log = finished_model
    change = {
        "out": tmp_path / "out",
        "zero": 0,
        "max_steps": 6,
        "nodes": 2,
        "rendezvous": f"127.0.0.1:{free_port()}",
    }
    both = asked.model_copy(update=change)
    both.out.mkdir()
    prepare_run(both)
    second = both.model_copy(update={"node_rank": 1})
    with subprocess.Popen([sys.executable, "-c", FIT, second.model_dump_json()]) as other:
        fit(both, lambda line: None)
        assert other.wait(timeout=60) == 0
    found = losses(read_log(both.out / "log.jsonl"))
    assert [step for step, kind in found if kind == "loss"] == list(range(1, 7))
    assert max(abs(found[step, "loss"] - losses(log)[step, "loss"]) for step in range(1, 7)) < 1e-3


def test_the_command_trains_adapters_and_refuses(
    base: Path, data: Path, tmp_path: Path, run_environment: dict[str, str]
) -> None:
    given = (
        *("train", "--data", data, "--base", base, "--max-length", 512, "--processes", 1),
        *("--batch", 8),
    )
    lora = ("--method", "lora", "--lora-rank", 8, "--learning-rate", 2e-2, "--epochs", 8)
    done = medaction(run_environment, *given, "--out", tmp_path / "out", *lora)
    assert done.returncode == 0, done.stderr
    held_out = [
        line["eval_loss"] for line in read_log(tmp_path / "out/log.jsonl") if "eval_loss" in line
    ]
    assert held_out[-1] < held_out[0] - 0.3  # LoRA has few weights to move in 24 steps
    assert (tmp_path / "out/adapter/adapter_model.safetensors").is_file()
    adapter = json.loads((tmp_path / "out/adapter/adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (8, 16)
    assert f"{held_out[-1]:.4f}" in (tmp_path / "out/model/README.md").read_text()
    refused = medaction(run_environment, *given, "--out", tmp_path / "other", "--teacher", "nobody")
    assert refused.returncode == 1
    assert (
        "medaction: no record of the teacher nobody: there are a, b" in refused.stderr.splitlines()
    )
    wrong = CliRunner().invoke(
        train,
        [*map(str, given[1:]), "--out", str(tmp_path / "other"), "--zero", "0", "--offload", "all"],
    )
    assert wrong.exit_code == 2
    assert "offload 'all' needs ZeRO" in wrong.output


@pytest.mark.long
def test_adapters_over_weights_in_four_bits_learn_and_are_merged_into_the_base(
    base: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    asked = settings(base, data, tmp_path / "out", method="qlora", lora_rank=8, learning_rate=2e-2)
    held_out = [line["eval_loss"] for line in trained(asked) if "eval_loss" in line]
    assert held_out[-1] < held_out[0] - 0.3
    assert (asked.out / "adapter/adapter_model.safetensors").is_file()
    # The base's own weights are served, not those in 4 bits that the adapters were trained over.
    assert held_out_loss(asked) == pytest.approx(held_out[-1], abs=0.1)


@pytest.mark.long
def test_moments_in_eight_bits_take_nearly_the_same_steps(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    asked, log = finished_model
    again = asked.model_copy(update={"out": tmp_path / "out", "optimizer": "adamw-8bit"})
    curve, before = losses(trained(again)), losses(log)
    last = max(before)
    assert curve[last] == pytest.approx(before[last], abs=0.1)
    assert curve != before


def test_what_is_in_few_bits_is_not_shared_out(base: Path, data: Path) -> None:
    for few_bits in ({"method": "qlora"}, {"optimizer": "adamw-8bit"}):
        with pytest.raises(ValueError, match="leave --zero and --offload out"):
            settings(base, data, Path("out"), zero=2, **few_bits)


def test_zero_in_one_process_takes_the_same_steps_and_compiles_nothing(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Offload too; rows are short, so that a step takes several."""
    asked, log = finished_model
    change = {"out": tmp_path / "out", "offload": "optimizer", "row_tokens": 560, "max_steps": 3}
    again = asked.model_copy(update=change)
    again.out.mkdir()
    prepare_run(again)
    fit(again, lambda line: None)
    steps = losses(read_log(again.out / "log.jsonl"))
    assert max(abs(steps[step, "loss"] - losses(log)[step, "loss"]) for step in (1, 2, 3)) < 1e-3
    job = json.loads((again.out / "job.json").read_text())
    assert job["settings"]["zero"] == 2
    said = (again.out / "processes-0.txt").read_text()
    assert "loss: chunked; DeepSpeed ZeRO 2; activations: kept" in said
    assert "Gradient accumulation steps mismatch" not in said
    assert "Building extension" not in said
    assert "ninja" not in said


def test_one_process_starts_no_deepspeed(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]],
) -> None:
    asked, _ = finished_model
    said = (asked.out / "processes-0.txt").read_text()
    assert "attention: per_sequence (no GPU); loss: chunked; no DeepSpeed" in said
    assert "deepspeed" not in said


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [{}, {"gradient_checkpointing": True, "sharding": "fsdp", "processes": 2}, {"zero": 2}],
    ids=str,
)
def test_compiled_layers_take_the_same_steps(
    change: dict[str, Any],
    finished_model: tuple[TrainSettings, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    asked, log = finished_model
    again = asked.model_copy(
        update={"out": tmp_path / "out", "compile": True, "max_steps": 3, **change}
    )
    steps = losses(trained(again))
    assert max(abs(steps[step, "loss"] - losses(log)[step, "loss"]) for step in (1, 2, 3)) < 1e-3
    output = (again.out / "processes-0.txt").read_text()
    assert "layers are compiled at their first rows" in output
    assert "layers: compiled" in output


def test_a_machine_that_cannot_compile_is_said_before_the_first_step(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/no/compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "nothing is compiled yet"))
    asked = settings(base, data, tmp_path / "out", compile=True)
    asked.out.mkdir()
    prepare_run(asked)
    with pytest.raises(
        TrainError, match=r"--compile: torch\.compile fails here .*leave --compile out"
    ):
        fit(asked, lambda line: None)


def test_what_gathers_weights_as_it_runs_is_not_compiled(base: Path, data: Path) -> None:
    for change in ({"zero": 3}, {"offload": "all"}, {"objective": "dpo"}):
        with pytest.raises(ValueError, match="compile is for objective sft"):
            settings(base, data, Path("out"), compile=True, **change)


def test_another_run_is_not_gone_on_with(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]],
) -> None:
    asked, _ = finished_model
    with pytest.raises(
        TrainError, match=r"checkpoints of another run \(learning_rate was 0\.01, is 0\.001\)"
    ):
        prepare_run(asked.model_copy(update={"learning_rate": 1e-3}))


def test_a_checkpoint_that_was_changed_is_not_gone_on_from(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Without its moments transformers would go on all the same, from moments of zero."""
    asked, _ = finished_model
    shutil.copytree(asked.out, tmp_path / "out", symlinks=True)
    again = asked.model_copy(update={"out": tmp_path / "out"})
    (again.out / "trained.json").unlink()
    newest = newest_checkpoint(again.out)
    assert newest is not None
    (newest / "optimizer.pt").unlink()
    with pytest.raises(TrainError, match=r"changed after it was written \(optimizer.pt\)"):
        fit(again, lambda line: None)


def test_a_full_disk_and_a_full_memory_are_one_line(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = finished_model[0].model_copy(update={"out": tmp_path})
    # Without a job the process dies at once; what is free is read when it has.
    full = SimpleNamespace(free=2**20)
    monkeypatch.setattr("medaction.training.launch.shutil.disk_usage", lambda _: full)
    with pytest.raises(TrainError, match=r"the disk of .* is full"):
        fit(asked, lambda line: None)

    def train(out: Path) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139 GiB"
        )

    with pytest.raises(torch.OutOfMemoryError):
        leaving_refusals(train, tmp_path)
    told = (tmp_path / "refusal.txt").read_text()
    assert "Tried to allocate 2.00 GiB." in told
    assert "--row-tokens" in told
    assert "total capacity" not in told


def test_records_beyond_the_bases_longest_text_are_refused(
    base: Path, data: Path, tmp_path: Path
) -> None:
    short = tmp_path / "base"
    shutil.copytree(base, short)
    config = json.loads((short / "config.json").read_text())
    change = {"max_position_embeddings": 16}
    (short / "config.json").write_text(json.dumps(config | change))
    (tmp_path / "out").mkdir()
    with pytest.raises(TrainError, match=r"longer than the 16 tokens.*: take another"):
        prepare_run(settings(short, data, tmp_path / "out"))
    plays = {"objective": "grpo", "reply_tokens": 64}
    with pytest.raises(TrainError, match="more than the 16 tokens"):
        prepare_episodes(settings(short, SAMPLES, tmp_path / "out", **plays))
    # Configurations that state the length before it was stretched.
    for rope in (
        {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 16},
        {"rope_type": "linear", "factor": 32.0},
    ):
        change |= {"rope_parameters": rope | {"rope_theta": 1e4}}
        (short / "config.json").write_text(json.dumps(config | change))
        prepare_run(settings(short, data, tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_is_served_like_any_teacher(
    finished_model: tuple[TrainSettings, list[dict[str, Any]]],
) -> None:
    port = free_port()
    serve = [
        sys.executable,
        *("-m", "medaction.cli.main", "serve", str(finished_model[0].out), "--port", str(port)),
    ]
    with subprocess.Popen(
        serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as server:
        try:
            deadline = time.monotonic() + 600
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(1)
            teacher = Teacher.parse(
                f"openai/{finished_model[0].out / 'model'}@http://127.0.0.1:{port}/v1"
            )
            asked = teacher.model_copy(update={"max_tokens": 64})
            told = asyncio.run(
                call(
                    asked,
                    [{"role": "user", "content": "Fever for a week."}],
                    reply_schema(False),
                    1,
                )
            )
            assert told.text
            assert told.usage.completion_tokens > 0
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def test_bases_are_checked_before_they_are_loaded(base: Path, data: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04never read")
    with pytest.raises(TrainError, match="holds pickled weights only"):
        resolve(str(pickled), tmp_path)
    torn = tmp_path / "torn"
    shutil.copytree(base, torn)
    os.truncate(torn / "model.safetensors", 5000)
    with pytest.raises(TrainError, match="no whole safetensors file"):
        resolve(str(torn), tmp_path)
    for missing in (tmp_path / "nosuch", tmp_path / "nosuch.gguf"):
        # Before Prefect starts, which would take seconds to say so.
        wrong = ("train", "--base", missing, "--data", data, "--out", tmp_path)
        done = medaction({**os.environ}, *wrong)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    with pytest.raises(MissingInput, match="there is no such folder"):
        resolve(str(tmp_path / "nowhere"), tmp_path)
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    with pytest.raises(TrainError, match="cannot be read as a model"):
        resolve(str(tmp_path / "broken.gguf"), tmp_path / "converted")
    with pytest.raises(TrainError, match="holds no model"):
        command(tmp_path, 8000)


def test_the_zero_configuration_says_what_was_asked_for(
    base: Path, data: Path, tmp_path: Path
) -> None:
    asked = settings(base, data, tmp_path, zero=3, offload="all")
    zero = deepspeed_config(asked, cuda=True)["zero_optimization"]
    assert zero["stage"] == 3
    assert deepspeed_config(asked, cuda=True)["optimizer"]["params"]["torch_adam"], "no compiling"
    for change, sums in (
        ({"zero": 1}, {}), ({"zero": 2}, {"grad_accum_dtype": "fp32"}),
        ({"zero": 3}, {"grad_accum_dtype": "fp32"}), ({"zero": 3, "offload": "all"}, {}),
        ({"zero": 2, "precision": "fp32"}, {}),
    ):  # fmt: skip
        config = deepspeed_config(settings(base, data, tmp_path, **change), cuda=True)
        assert config.get("data_types", {}) == sums
    assert zero["offload_param"]["device"] == zero["offload_optimizer"]["device"] == "cpu"
    assert (
        "offload_optimizer"
        not in deepspeed_config(settings(base, data, tmp_path), cuda=True)["zero_optimization"]
    )
