"""The loss at the target tokens, without the logits of all of them in memory at once.

With a vocabulary of 152,000 the logits of 2,000 targets, their softmax and the gradients of both
are 12 bytes each: 3.4 GiB, the largest tensors of a step. Here they exist for a few hundred targets
at a time, and their gradients are taken at once: of the hidden states, and of the head's weight,
summed up in fp32.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from medaction.training.estimate import CHUNK_LOGITS
from medaction.training.rows import NO_TARGET

log = logging.getLogger("medaction")

SummedLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(hidden states: targets x size, weight: vocabulary x size, targets) -> summed cross entropy."""


class ChunkedLoss(torch.autograd.Function):
    """Summed cross entropy of `hidden @ weight.T` at `targets`, NO_TARGET left out."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, learning: bool
    ) -> torch.Tensor:
        kind = hidden.device.type
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else weight.dtype
        learns_hidden, learns_weight = (learning and need for need in ctx.needs_input_grad[:2])
        chunk = max(64, CHUNK_LOGITS // len(weight))
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        # Autocast would keep the weight's copy, made without a gradient, for whoever uses it next.
        with torch.autocast(kind, enabled=False):
            states, factor = hidden.to(dtype), weight.to(dtype)
            of_hidden = torch.empty_like(states) if learns_hidden else None
            of_weight = torch.zeros_like(weight, dtype=torch.float32) if learns_weight else None
            for begin in range(0, len(targets), chunk):
                part, goals = states[begin : begin + chunk], targets[begin : begin + chunk]
                counted = (goals != NO_TARGET)[:, None]
                # NO_TARGET is -100, no place of a row; `counted` takes its loss out again.
                places = goals.clamp(min=0)[:, None]
                logits = (part @ factor.T).float()
                # The loss of a target: log sum exp of all logits, less its own.
                log_sum = logits.logsumexp(1, keepdim=True)
                loss += ((log_sum - logits.gather(1, places)) * counted).sum()
                if of_hidden is None and of_weight is None:
                    continue
                # The gradient of a logit: its probability, less 1 at the target.
                # In place: the logits are a chunk's largest tensor and not needed any more.
                slope = logits.sub_(log_sum).exp_()
                slope.scatter_add_(1, places, torch.full_like(log_sum, -1.0))
                slope = slope.mul_(counted).to(dtype)
                if of_hidden is not None:
                    of_hidden[begin : begin + chunk] = slope @ factor
                if of_weight is not None:
                    # Summed in fp32: of hundreds of chunks in bf16 the small ones would be lost.
                    of_weight += slope.T @ part
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_hidden, of_weight = (
            # The gradients were taken in `forward`; here only the chain rule's factor is left.
            None if saved is None else saved.mul_(gradient).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return of_hidden, of_weight, None, None


def chunked(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ChunkedLoss.apply(hidden, weight, targets, torch.is_grad_enabled())


def summed(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        logits.float(), targets, ignore_index=NO_TARGET, reduction="sum"
    )


def liger_loads() -> bool:
    """Whether Liger's kernels are there. A release that does not go with this torch or transformers
    fails as it is imported, and the trainer would fail with it."""
    try:
        import_module("liger_kernel.transformers")
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "liger_kernel":
            log.warning("Liger is left out: %s", error)
        return False
    # Whatever a foreign package raises, training goes on without it.
    except Exception as error:
        log.warning("Liger is left out: %s", error)
        return False
    return True


def choose_loss(device: torch.device) -> tuple[SummedLoss, str]:
    """(how the loss is computed, in words): by Liger's kernel on a GPU where it is installed and
    agrees with ours."""
    if device.type != "cuda" or not liger_loads():
        return chunked, "chunked"
    noise = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(200, 128, generator=noise, device=device)
    weight = torch.randn(1000, 128, generator=noise, device=device, requires_grad=True)
    targets = torch.randint(1000, [200], generator=noise, device=device)
    try:
        # Whatever a foreign kernel raises, ours is taken and the log says why.
        from liger_kernel.transformers.fused_linear_cross_entropy import (
            LigerFusedLinearCrossEntropyLoss,
        )

        fused = LigerFusedLinearCrossEntropyLoss(
            ignore_index=NO_TARGET, reduction="sum", accum_dtype=torch.float32
        )

        def by_liger(
            hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
        ) -> torch.Tensor:
            return fused(weight, hidden, targets)

        results = []
        for way in (by_liger, chunked):
            loss = way(hidden, weight, targets)
            results.append((loss, *torch.autograd.grad(loss, weight)))
        for expected, value in zip(*results, strict=True):
            # TF32 products differ by a thousandth.
            if (expected.float() - value).abs().max() > 0.01 * value.abs().max():
                return chunked, "chunked (Liger's kernel gives other numbers here)"
    except Exception as error:
        return chunked, f"chunked (Liger's fails here: {type(error).__name__})"
    return by_liger, "Liger's"


class LossHead:
    """Takes the place of an output layer's `forward`: within `at(targets)` it returns the summed
    loss instead of logits, so that the hooks of DeepSpeed and of adapters see the layer as ever.

    A model that changes its logits afterwards (a cap, a scale) would change the loss: `loss_of`
    sees that what the model returns is no longer what this returned, and takes all logits from then
    on.
    """

    def __init__(self, model: Any, compute: SummedLoss):
        self.layer = model.get_output_embeddings()
        self.compute = compute
        self.targets: torch.Tensor | None = None
        self.storage = 0
        # A layer that is wrapped, or has a bias, is not a product with a weight alone.
        self.active = type(self.layer) is torch.nn.Linear and self.layer.bias is None
        if self.active:
            self.plain = self.layer.forward
            self.layer.forward = self.forward

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.targets is None:
            return self.plain(hidden)
        states = hidden.reshape(-1, hidden.shape[-1])
        loss = self.compute(states, self.layer.weight, self.targets).view(1, 1, 1)
        self.storage = loss.data_ptr()
        return loss

    @contextmanager
    def at(self, targets: torch.Tensor) -> Iterator[None]:
        self.targets = targets
        try:
            yield
        finally:
            self.targets = None

    def loss_of(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Cross entropy summed over a row's targets; `inputs` as `rows.tensors` makes them."""
        inputs = dict(inputs)
        targets = inputs.pop("targets")
        if self.active:
            with self.at(targets):
                output = model(**inputs, use_cache=False).logits
            if output.numel() == 1 and output.data_ptr() == self.storage:
                return output.view(())
            print("the model changes its logits: the loss takes all of them at once", flush=True)
            self.active = False
        return summed(model(**inputs, use_cache=False).logits[0], targets)
