"""Reinforcement learning on episodes, with a tiny model that knows three replies: it comes to
prefer the one that earns most."""

import asyncio
import json
import os
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from medaction.envs.records import BadCase
from medaction.flows.tiny_base import random_llama
from medaction.hub.episodes import Play, environments_of, scorer_of
from medaction.hub.grpo import played_cases, prepare_episodes
from medaction.hub.played_looks import prepare_looks
from medaction.training.data import read_samples
from medaction.training.launch import prepare_run
from medaction.training.settings import TrainError, TrainSettings
from tests.conftest import SAMPLES
from tests.runs import medaction
from tests.tiny_model import dataset, tiny_tokenizer, trained

pytestmark = pytest.mark.train
CASE = "medaction-06"
STEPS = 8


def reply(action: dict[str, Any], diagnosis: str) -> str:
    differential = [{"diagnosis": diagnosis, "confidence": 90}]
    turn = {"reasoning": "So it is.", "differential": differential, "pivot": "Which of them?"}
    return json.dumps(turn | {"action": action})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one layer whose vocabulary has three whole replies. After any prompt it says each
    of them equally often, and nothing else: of a token it sees only which one it is."""
    pytest.importorskip("trl", reason="the extra `train` is not installed")
    import torch

    truth = environments_of(SAMPLES, training=True)[CASE].diagnosis
    replies = [
        reply({"final_diagnosis": truth}, truth),
        reply({"final_diagnosis": "Influenza"}, "Influenza"),
        reply({"order_tests": ["Iron studies"]}, "Influenza"),
    ]
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(replies)
    folder = tmp_path_factory.mktemp("base")
    tokenizer.save_pretrained(folder)
    model = random_llama(tokenizer, hidden=32, inner=32, layers=1, heads=2, tied=False)
    layer = model.model.layers[0]
    last = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], add_generation_prompt=True, return_dict=False
    )[-1]
    seen, said = model.model.embed_tokens.weight, model.lm_head.weight
    ids = [len(tokenizer) - 3 + number for number in range(3)]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        said.zero_()
        seen[ids] = torch.randn(32)
        said[ids] = seen[last] / seen[last].norm()
        said[tokenizer.eos_token_id] = 2 * seen[ids[0]] / seen[ids[0]].norm()
        said.mul_(3)
    model.save_pretrained(folder)
    return folder


def settings(base: Path, out: Path, **change: Any) -> TrainSettings:
    usual = {
        "objective": "grpo",
        "batch": 8,
        "group": 8,
        "epochs": STEPS,
        "learning_rate": 1e-2,
        "max_length": 4096,
        "reply_tokens": 16,
        "t_max": 2,
        "only": [CASE],
        "gradient_checkpointing": False,
        "save_every": 3,
        "evaluate_every": STEPS,
        "processes": 1,
    }
    values = {"data": [str(SAMPLES)], "base": str(base), "out": out} | usual | change
    return TrainSettings.model_validate(values)


@pytest.mark.slow
def test_rewards_rise_and_a_run_that_stopped_goes_on(base: Path, tmp_path: Path) -> None:
    asked = settings(base, tmp_path / "out", max_steps=4)
    assert [line["step"] for line in trained(asked, prepare_episodes) if "loss" in line][-1] == 4
    (asked.out / "trained.json").unlink()
    (asked.out / "model").rename(tmp_path / "after-4")
    log = trained(asked.model_copy(update={"max_steps": None}), prepare_episodes)
    steps = [line for line in log if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    before, *_, after = (line for line in log if "eval_loss" in line)
    assert (before["step"], after["step"]) == (0, STEPS)
    first, last = (mean(line["reward"] for line in part) for part in (steps[:2], steps[-2:]))
    assert last > first + 0.1, "three replies equally often, and then the right one"
    episodes = [json.loads(line) for line in (asked.out / "episodes-0.jsonl").open()]
    assert {episode["case_id"] for episode in episodes if not episode["held_out"]} == {CASE}
    assert max(len(episode["replies"]) for episode in episodes) > 1, "turns, and asked again"
    card = (asked.out / "model" / "README.md").read_text()
    assert "in episodes of 1 cases" in card
    assert f"{after['eval_reward']:.4f}" in card
    assert (asked.out / "model" / "model.safetensors").is_file()
    assert (asked.out / "curves.png").stat().st_size > 10_000


@pytest.mark.long
def test_the_command_line_trains_on_case_reports(
    base: Path, prefect_server: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ["--objective", "grpo", "--data", SAMPLES, "--case", CASE, "--base", base]
    sizes = ["--batch", 8, "--max-length", 4096, "--reply-tokens", 16, "--t-max", 2]
    steps = ["--max-steps", 1, "--processes", 1, "--out", out]
    environment = os.environ | {"PREFECT_API_URL": prefect_server}
    done = medaction(environment, "train", *options, *sizes, *steps)
    assert not done.returncode, done.stderr
    episodes = [json.loads(line) for line in (out / "episodes-0.jsonl").open()]
    assert [episode["case_id"] for episode in episodes if not episode["held_out"]] == [CASE] * 8
    assert "in episodes of 1 cases" in (out / "model" / "README.md").read_text()


def test_a_models_episodes_are_measured_as_they_were_played(base: Path) -> None:
    from benchmarks.own_episodes import measured, play

    world = environments_of(SAMPLES, training=False)[CASE]
    plays = [Play(world, t_max=2) for _ in range(4)]
    texts = play(plays, base, reply_tokens=16)
    scorer = scorer_of()
    for one, replies in zip(plays, texts, strict=True):
        row = asyncio.run(measured(one, scorer))
        assert one.ended
        final = json.loads(replies[-1])["action"].get("final_diagnosis")
        assert row["right"] == (final == world.diagnosis)
        assert row["ended"] == (final is not None)
        assert row["readable"] == len(one.episode.turns) / len(replies)


def test_what_cannot_be_played_is_refused(base: Path, tmp_path: Path) -> None:
    case = json.loads((SAMPLES / f"{CASE}.json").read_text())
    (tmp_path / "case.json").write_text(json.dumps(case | {"evaluation_only": True}))
    with pytest.raises(BadCase, match="no model may be trained"):
        played_cases(settings(tmp_path, tmp_path / "out", data=[str(tmp_path / "case.json")]))
    with pytest.raises(TrainError, match="1 cases are left to train on, and a step plays 2"):
        played_cases(settings(tmp_path, tmp_path / "out", batch=16))
    with pytest.raises(ValueError, match="no whole groups of 8"):
        settings(tmp_path, tmp_path / "out", batch=12)
    with pytest.raises(TrainError, match="8 episodes a step are no equal shares for 3 processes"):
        prepare_episodes(settings(base, tmp_path / "out", processes=3))
    with pytest.raises(ValueError, match="leave no room for a prompt"):
        settings(tmp_path, tmp_path / "out", reply_tokens=4096)
    with pytest.raises(ValueError, match="with grpo take method full, lora or qlora"):
        settings(tmp_path, tmp_path / "out", method="prompt")


def test_held_out_cases_are_never_trained_on(tmp_path: Path) -> None:
    half = played_cases(settings(tmp_path, tmp_path / "out", validation_percent=50, only=[]))
    assert len(half.train) + len(half.held_out) == 12
    assert half.held_out
    assert not half.train.keys() & half.held_out.keys()
    few = settings(tmp_path, tmp_path / "out", validation_percent=50, validation_records=16)
    assert [*played_cases(few).train] == [CASE]
    assert len(played_cases(few).held_out) == 2, "16 episodes in groups of 8"


@pytest.mark.slow
def test_held_out_cases_are_played_while_records_are_learnt_and_change_nothing(
    base: Path, run_here: Path, tmp_path: Path
) -> None:
    """Losses, weights and random states are those of a run that plays nothing, also where it was
    stopped and went on."""
    usual: dict[str, Any] = {
        "objective": "sft",
        "data": [str(run_here)],
        "validation_percent": 50,
        "max_length": 16_000,
        "batch": 2,
        "epochs": 2,
        "learning_rate": 1e-3,
        "max_steps": 4,
        "evaluate_every": 2,
        "save_every": 1,
        "only": [],
    }
    plain = settings(base, tmp_path / "plain", **usual)
    playing = settings(base, tmp_path / "playing", **usual, episodes=3)

    def prepared(asked: TrainSettings) -> dict[str, Any]:
        report = prepare_run(asked)
        prepare_looks(asked)
        return report

    log = trained(plain)
    stopped = playing.model_copy(update={"max_steps": 2})
    trained(stopped, prepared)
    (playing.out / "trained.json").unlink()
    (playing.out / "model").rename(tmp_path / "after-2")
    played = trained(playing, prepared)
    names = ("loss", "eval_loss", "grad_norm")
    losses = [
        [(line["step"], line[name]) for line in lines for name in names if name in line]
        for lines in (log, played)
    ]
    assert losses[0] == losses[1]
    for name in ("checkpoints/checkpoint-3/rng_state.pth", "model/model.safetensors"):
        assert (plain.out / name).read_bytes() == (playing.out / name).read_bytes(), name
    looks = [line for line in played if "eval_loss" in line]
    held_out = {sample.case_id for sample in read_samples(plain.out / "samples.parquet").validation}
    episodes = [json.loads(line) for line in (playing.out / "episodes-0.jsonl").open()]
    assert [one["step"] for one in episodes] == [0, 2, 2, 4], "one case a look"
    assert {one["case_id"] for one in episodes} == held_out
    for look in looks:
        one = next(one for one in episodes if one["step"] == look["step"])
        assert look["eval_reward"] == pytest.approx(one["total"])
        assert look["eval_test_f1"] == pytest.approx(one["rewards"]["test_f1"])
        assert look["eval_well_formed"] == one["well_formed"]
    assert looks[0]["eval_well_formed"] == 1, "whole replies are all that the base knows"
    assert "eval_reward" not in [*log[0]]


def test_cases_that_have_no_environments_are_not_played(base: Path, tmp_path: Path) -> None:
    sft: dict[str, Any] = {"objective": "sft", "episodes": 2, "only": []}
    alone = dataset(tmp_path / "data")
    asked = settings(base, tmp_path / "out", data=[str(alone)], **sft)
    asked.out.mkdir()
    prepare_run(asked)
    with pytest.raises(TrainError, match="lies in no run's folder"):
        prepare_looks(asked)
    for change in ({"objective": "dpo"}, {"sharding": "fsdp"}, {"zero": 3}, {"offload": "all"}):
        with pytest.raises(ValueError, match="episodes"):
            settings(base, tmp_path / "out", **sft | change)
