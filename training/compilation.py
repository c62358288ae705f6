"""A model's layers by torch.compile: what stands between two products of matrices (norms,
rotations, activations, sums) becomes a few kernels.

Attention stays as it is. Its borders are others in every row, for which a layer would be compiled
anew, and on a GPU it is one kernel already. Compiled once for all lengths: a model of this kind has
equal layers, which share what is compiled.
"""

from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from medaction.training.settings import TrainError


def compile_layers(model: Any, apart: bool) -> None:
    """Compile every layer of `model` at its first row; names of weights stay.

    `apart`: norms and the feed-forward part each by itself. Where a layer is computed again for its
    gradients, or FSDP2 hooks itself into it, a compiled layer cannot have attention inside that is
    not compiled.
    Raises TrainError where torch.compile does not work on this machine."""
    device = next(model.parameters()).device
    try:
        torch.compile(torch.nn.functional.silu, dynamic=True)(torch.zeros(8, device=device))
    # Whatever a foreign compiler raises.
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0]
        raise TrainError(
            f"--compile: torch.compile fails here ({type(error).__name__}: {first_line})."
            " It needs a C++ compiler, and on a GPU Triton; or leave --compile out"
        ) from error
    print("layers are compiled at their first rows: a minute or two", flush=True)
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            for part in _without_attention(layer) if apart else [layer]:
                part.compile(dynamic=True)


def _without_attention(layer: torch.nn.Module) -> list[torch.nn.Module]:
    # By the name of its class, as transformers itself has it in all its models.
    return [part for part in layer.children() if "Attention" not in type(part).__name__]
