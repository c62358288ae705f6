"""The loss a few targets at a time is the loss of all logits at once, gradients included; a model
that changes its logits afterwards is noticed."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training is not installed (pip install 'medaction[train]')")

import torch

from medaction.training import attention, loss
from medaction.training.loss import LossHead, chunked, liger_loads, summed
from medaction.training.rows import NO_TARGET, Layout, tensors
from tests.test_training_packing import SAMPLES
from tests.tiny_model import tiny_model

pytestmark = pytest.mark.train


def whole(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return summed(hidden @ weight.T, targets)


def draw(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    hidden = torch.randn(300, 32, generator=noise).to(dtype).requires_grad_()
    weight = torch.randn(700, 32, generator=noise).to(dtype).requires_grad_()
    targets = torch.randint(700, [300], generator=noise)
    targets[::7] = NO_TARGET
    return hidden, weight, targets


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 700 * 70)  # 300 targets in five parts


def test_loss_and_gradients_are_those_of_all_logits_at_once() -> None:
    results = []
    for way in (chunked, whole):
        hidden, weight, targets = draw()
        value = way(hidden, weight, targets) / 57
        results.append((value, *torch.autograd.grad(value, (hidden, weight))))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_under_autocast_too_and_the_sum_over_targets_is_in_32_bits() -> None:
    """Against 64 bits: no further off than all logits at once, whose products are rounded alike."""
    hidden, weight, targets = draw()
    exact = [part.detach().double().requires_grad_() for part in (hidden, weight)]
    expected = torch.autograd.grad(
        torch.nn.functional.cross_entropy(
            exact[0] @ exact[1].T, targets, ignore_index=NO_TARGET, reduction="sum"
        ),
        exact,
    )
    errors = []
    for way in (chunked, whole):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = way(hidden, weight, targets)
        got = torch.autograd.grad(value, (hidden, weight))
        assert value.dtype == torch.float32
        assert [part.dtype for part in got] == [torch.float32, torch.float32]
        errors.append([(a - b).abs().max() for a, b in zip(got, expected, strict=True)])
    for ours, of_all in zip(*errors, strict=True):
        assert ours <= 1.5 * of_all


def test_nothing_is_computed_for_a_head_that_is_not_trained_or_without_gradients() -> None:
    hidden, weight, targets = draw()
    weight.requires_grad_(False)
    value = chunked(hidden, weight, targets)
    assert value.grad_fn.saved_tensors[1] is None  # type: ignore[union-attr]
    value.backward()
    assert hidden.grad is not None
    with torch.no_grad():
        assert not chunked(hidden, weight, targets).requires_grad


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def trained_once(folder: Path, fused: bool, change: bool = False) -> tuple[float, Any, LossHead]:
    from transformers import AutoModelForCausalLM

    attention.register()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention.implementation("per_sequence")
    )
    if change:
        capped(model)
    head = LossHead(model, chunked)
    head.active &= fused
    value = head.loss_of(model, tensors(SAMPLES[:5], Layout("per_sequence", padded=True)))
    value.backward()
    return (value.item(), {name: weight.grad for name, weight in model.named_parameters()}, head)


def capped(model: Any) -> None:
    """As Gemma 2 does: its logits pass through a tanh."""
    plain = model.forward

    def forward(**inputs: Any) -> Any:
        output = plain(**inputs)
        output.logits = 3 * torch.tanh(output.logits / 3)
        return output

    model.forward = forward


@pytest.mark.parametrize("change", [False, True], ids=["plain", "capped"])
def test_a_model_learns_the_same_with_the_loss_in_its_head(
    folder: Path, change: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    value, gradients, head = trained_once(folder, True, change)
    expected, of_all, _ = trained_once(folder, False, change)
    assert head.active is not change
    assert ("the model changes its logits" in capsys.readouterr().out) is change
    assert value == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, of_all[name], atol=1e-4, rtol=1e-4)


def test_a_liger_that_cannot_be_imported_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert liger_loads() == (find_spec("liger_kernel") is not None)
    for name in [*sys.modules]:
        if name.startswith("liger_kernel"):
            monkeypatch.delitem(sys.modules, name)
    package = tmp_path / "liger_kernel/transformers"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("from transformers import gone_with_a_release")
    monkeypatch.syspath_prepend(tmp_path)
    assert not liger_loads()
