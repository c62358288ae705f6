"""Rows: nothing is learnt from a neighbour in the row, nothing is lost or doubled, and processes do
not change the steps."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training is not installed (pip install 'medaction[train]')")

import torch

from medaction.training.data import Sample
from medaction.training.packing import (
    PER_SEQUENCE,
    Layout,
    Rows,
    packed,
    plan,
    register_attention,
    shared_prefix,
    tensors,
)
from medaction.training.settings import TrainError
from tests.tiny_model import tiny_model

PREFIX = 12


def sample(number: int, length: int, targets: int = 5) -> Sample:
    """Random tokens after a beginning that all samples have."""
    drawn = torch.randint(
        2, 1500, [length], generator=torch.Generator().manual_seed(number)
    ).tolist()
    tokens = (*range(100, 100 + PREFIX), number, *drawn[PREFIX + 1 :])
    return Sample(f"s{number}", f"c{number}", "t", "schema", "d", tokens, length - targets)


SAMPLES = tuple(sample(number, 20 + 7 * (number % 9)) for number in range(53))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def run(folder: Path, row: dict[str, Any], attention: str) -> tuple[Any, dict[str, Any]]:
    """(logits at the targets, gradients of the summed loss)."""
    from transformers import AutoModelForCausalLM

    register_attention()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    )
    targets = row.pop("targets")
    logits = model(**row, use_cache=False).logits[0]
    torch.nn.functional.cross_entropy(logits, targets, reduction="sum").backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize(
    "layout", [Layout(PER_SEQUENCE), Layout(PER_SEQUENCE, PREFIX), Layout("sdpa")]
)
def test_packed_samples_have_the_logits_and_gradients_of_each_alone(
    folder: Path, layout: Layout
) -> None:
    chosen = SAMPLES[:4]
    logits, gradients = run(folder, tensors(chosen, layout), layout.attention)
    alone = [run(folder, tensors([one], Layout("sdpa")), "sdpa") for one in chosen]
    torch.testing.assert_close(
        logits, torch.cat([found for found, _ in alone]), atol=1e-5, rtol=1e-5
    )
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, sum(found[name] for _, found in alone), atol=1e-4, rtol=1e-4
        )


def test_without_the_borders_a_neighbour_would_be_seen(folder: Path) -> None:
    row = tensors(SAMPLES[:2], Layout(PER_SEQUENCE))
    row["sequence_lengths"] = (sum(row["sequence_lengths"]),)
    alone = run(folder, tensors(SAMPLES[1:2], Layout(PER_SEQUENCE)), PER_SEQUENCE)[0]
    assert (run(folder, row, PER_SEQUENCE)[0][-5:] - alone).abs().max() > 1e-3


def test_the_common_beginning_ends_where_samples_differ_and_before_any_target() -> None:
    assert shared_prefix(SAMPLES) == PREFIX
    assert shared_prefix([sample(1, 20), sample(1, 20)]) == 14


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_step_has_the_same_records_whatever_the_number_of_processes(processes: int) -> None:
    planned = plan(SAMPLES, 8, 2, processes, row_tokens=140, seed=5, prefix=PREFIX)
    steps = [sorted(index for row in step for index in row) for step in planned.steps]
    assert steps == [
        sorted(step) for step in whole(plan(SAMPLES, 8, 2, 1, row_tokens=10_000, seed=5))
    ]
    for epoch in (steps[:7], steps[7:]):
        assert sorted(index for step in epoch for index in step) == list(range(53))
    assert steps[:7] != steps[7:]
    assert planned.steps_per_epoch == 7
    for step in planned.steps:
        assert len(step) == processes * planned.accumulation
        assert all(
            PREFIX + sum(len(SAMPLES[index].tokens) - PREFIX for index in row) <= 140
            for row in step
        )


def whole(planned: Any) -> list[list[int]]:
    return [[index for row in step for index in row] for step in planned.steps]


def test_idle_rows_have_no_targets_and_every_row_knows_its_steps() -> None:
    planned = plan(SAMPLES[:9], 8, 1, 2, row_tokens=1000, seed=0)
    rows = Rows.of(SAMPLES[:9], planned, Layout(PER_SEQUENCE))
    last = [rows[number] for number in (2, 3)]
    assert sorted(int((row["targets"] != -100).sum()) for row in last) == [0, 5]
    assert [row["step_targets"] for row in (rows[0], *last)] == [40, 5, 5]


def test_held_out_samples_fill_rows_to_the_limit() -> None:
    rows = packed(SAMPLES, 200, multiple=4)
    assert [index for row in rows for index in row] == list(range(53))
    assert len(rows) % 4 == 0
    assert all(sum(len(SAMPLES[index].tokens) for index in row) <= 200 for row in rows)


def test_more_processes_than_records_in_a_step_are_refused() -> None:
    with pytest.raises(TrainError, match="9 processes share a batch of 8"):
        plan(SAMPLES, 8, 1, 9, row_tokens=100, seed=0)
