"""Causal attention within each record of a packed row, in several ways that give the same numbers.

| way | is | calls a layer and row | needs |
|---|---|---|---|
| flash_attention_3, _2 | these packages' kernels for variable lengths | 1 | a GPU, 16 bits |
| varlen | torch's own, `torch.nn.attention.varlen` | 1 | a GPU, 16 bits |
| flex | torch's flex attention, compiled, with a mask by blocks | 1 | a GPU |
| per_sequence | scaled_dot_product_attention, record by record | one a record | nothing |
| sdpa | transformers' own, a dense mask, no common beginnings | 1 | nothing |

On a GPU one call a layer and shapes that repeat matter more than the kernel: on an H200 every
record length that was new took 0.2 s, four fifths of the time (docs/training.md).
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from inspect import signature
from typing import Any, cast

import torch
from torch.nn.functional import scaled_dot_product_attention

from medaction.training.packing import segments_of, share
from medaction.training.rows import BORDERS, Spans
from medaction.training.settings import TrainError

Kernel = Callable[..., torch.Tensor]

CLOSE = 0.03
"""Largest difference, relative to the largest number, that a kernel may have from the check's
reference: bf16 has 8 bits, 0.4 %, and a sum of many is a few of these off."""


def choose_attention(choice: str, config: Any, device: torch.device, bf16: bool) -> tuple[str, str]:
    """(the way of attention, why), of `auto` the first that this machine has and that computes
    rightly here. Raises TrainError when what is asked for cannot be had."""
    if choice == "auto" and device.type != "cuda":
        return "per_sequence", "no GPU"
    why_not: list[str] = []
    # The quickest first; torch's kernel has no cap on the scores (Gemma 2).
    kernels = [] if getattr(config, "attn_logit_softcapping", None) else ["varlen"]
    # `per_sequence` needs nothing and is always there.
    ways = ["flash_attention_3", "flash_attention_2", *kernels, "flex", "per_sequence"]
    for way in ways if choice == "auto" else [choice]:
        obstacle = lacking(way, device, bf16) or (
            check(way, config, device) if device.type == "cuda" else ""
        )
        if not obstacle:
            return way, "; ".join(why_not) or "the first choice"
        why_not.append(f"{way}: {obstacle}")
    raise TrainError(f"--attention {choice}: {'; '.join(why_not)}: leave it at auto")


def lacking(way: str, device: torch.device, bf16: bool) -> str:
    """What is missing for this way of attention, or nothing."""
    if way in ("per_sequence", "sdpa"):
        return ""
    if device.type != "cuda":
        return "needs a GPU"
    if way == "flex":
        return ""
    if not bf16:
        return "computes in 16 bits, and --precision is fp32"
    major, _minor = torch.cuda.get_device_capability(device)
    package, generation = {
        "flash_attention_3": ("flash_attn_interface", 9),
        "flash_attention_2": ("flash_attn", 8),
        "varlen": ("torch.nn.attention.varlen", 8),
    }[way]
    # FlashAttention 3 is made for Hopper alone, 2 for Ampere and later.
    if major < generation or (way == "flash_attention_3" and major != generation):
        return f"is not made for compute capability {major}"
    return "" if find_spec(package) else f"{package} is not installed"


def check(way: str, config: Any, device: torch.device) -> str:
    """Try the kernel on three short records that share a beginning, forward and backward, against
    plain products in fp32: what is wrong, or nothing.

    A kernel's build may lack this card, or may align a causal mask the other way: seen here in
    milliseconds, it costs a line of the log, and unseen a model.
    """
    if way in ("per_sequence", "sdpa"):
        return ""
    text = config.get_text_config()
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    # Two grains: what the records share must be laid out once, or nothing is tried of it.
    beginning = list(range(128))
    segments = segments_of(
        share([[*beginning, *([number] * (40 + 30 * number))] for number in range(3)])
    )
    borders = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in BORDERS[way](segments).items()
    }
    noise = torch.Generator(device).manual_seed(0)
    shapes = [(1, count, segments[-1].end, size) for count in (heads, groups, groups)]
    inputs = [
        torch.randn(shape, generator=noise, device=device, dtype=torch.bfloat16) for shape in shapes
    ]
    try:
        output = _with_gradients(ATTENTION[way], inputs, borders)
    # Whatever a foreign kernel raises, the next way is tried and the log says why.
    except Exception as error:
        return f"fails here ({type(error).__name__}: {str(error).splitlines()[0]})"
    reference = _with_gradients(
        ATTENTION["per_sequence"],
        [tensor.float() for tensor in inputs],
        BORDERS["per_sequence"](segments),
    )
    for got, expected in zip(output, reference, strict=True):
        if (got.float() - expected).abs().max() > CLOSE * expected.abs().max():
            return "computes other numbers here"
    return ""


def _with_gradients(
    attend: Kernel, inputs: Sequence[torch.Tensor], borders: dict[str, Any]
) -> list[torch.Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    output = attend(None, *leaves, None, **borders)[0]
    # Any loss in which every number counts.
    output.float().square().sum().backward()
    return [output.detach(), *(cast(torch.Tensor, leaf.grad) for leaf in leaves)]


def register() -> None:
    """Make these ways known to transformers, each by `implementation(way)`."""
    from transformers import AttentionInterface

    for way, attend in ATTENTION.items():
        # A compiled layer breaks off here: see compilation.py.
        AttentionInterface.register(implementation(way), torch.compiler.disable(attend))


def implementation(way: str) -> str:
    """The name in transformers. Not its own names: with those it would build masks and look for
    packages itself."""
    return way if way == "sdpa" else f"medaction_{way.replace('flash_attention_', 'fa')}"


def _same_type(*parts: torch.Tensor) -> list[torch.Tensor]:
    """Under autocast, norms and rotations leave queries and keys in fp32, values not; a kernel that
    is no operator of torch's wants one type."""
    kind = parts[0].device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else parts[-1].dtype
    return [part.to(dtype) for part in parts]


def _refuse_others(options: dict[str, Any]) -> None:
    """Attention that a way does not compute is refused, never left out."""
    for option, feature in (("softcap", "a cap"), ("s_aux", "a sink")):
        if options.get(option) is not None:
            raise TrainError(
                f"this model's attention has {feature}, which this way does not compute: train it"
                " with another --attention: sdpa, or on a GPU flex"
            )


def _per_sequence(
    module: torch.nn.Module | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    spans: Spans | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """query, key, value: 1 x heads x tokens x head size, keys and values with fewer heads where
    these are shared. Without `spans` the row is one record."""
    _refuse_others(options)
    arguments: dict[str, Any] = {
        "scale": scaling, "dropout_p": dropout, "enable_gqa": query.shape[1] != key.shape[1],
    }  # fmt: skip
    outputs = []
    with _without_cudnn(query.device):
        for start, end, before in spans.parts if spans else ((0, query.shape[2], ()),):
            length, depth = end - start, sum(stop - begin for begin, stop in before)
            queries, keys, values = (
                torch.cat(
                    [part[:, :, begin:stop] for begin, stop in (*before, (start, end))], dim=2
                )
                for part in (query, key, value)
            )
            # Deep in a tree the pairs of a query and a key are fewer than in a triangle over all.
            if length < depth or sliding_window:
                mask = torch.ones(length, depth + length, dtype=torch.bool, device=query.device)
                mask = mask.tril(depth)
                if sliding_window:
                    mask = mask.triu(depth - sliding_window + 1)
                output = scaled_dot_product_attention(
                    queries[:, :, depth:], keys, values, attn_mask=mask, **arguments
                )
            else:
                output = scaled_dot_product_attention(
                    queries, keys, values, is_causal=True, **arguments
                )[:, :, depth:]
            outputs.append(output)
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _without_cudnn(device: torch.device) -> Any:
    """cuDNN builds a plan for every new length; MATH is for what the two others do not take."""
    if device.type != "cuda":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )


def variable_lengths(kernel: Callable[[], Kernel]) -> Callable[..., tuple[torch.Tensor, None]]:
    """Attention by a kernel that takes (query, key, value, query ends, key ends, longest query,
    longest key, scale, window, softcap), tokens x heads x head size; `kernel()` imports it."""

    def attend(
        module: torch.nn.Module | None,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        query_ends: torch.Tensor,
        key_ends: torch.Tensor,
        key_places: torch.Tensor | None,
        longest_query: int,
        longest_key: int,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        _refuse_others(options)
        query, key, value = _same_type(query, key, value)
        queries, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))
        if key_places is not None:
            keys, values = keys.index_select(0, key_places), values.index_select(0, key_places)
        # A window of w sees the token itself and w - 1 before it.
        window = (-1 if sliding_window is None else sliding_window - 1, 0)
        output = kernel()(
            queries.contiguous(), keys.contiguous(), values.contiguous(), query_ends, key_ends,
            longest_query, longest_key, scaling, window, softcap,
        )  # fmt: skip
        return output[None], None

    return attend


def _torchs_kernel() -> Kernel:
    """Torch 2.10's `varlen_attn` knows `is_causal` alone, 2.11's scale and window, later ones fewer
    heads of keys than of queries."""
    from torch.nn.attention.varlen import varlen_attn

    accepted = signature(varlen_attn).parameters

    def kernel(query, key, value, query_ends, key_ends, longest_query, longest_key, scale, window,
               softcap):  # fmt: skip
        _refuse_others({"softcap": softcap})
        options: dict[str, Any] = {"scale": scale, "window_size": window}
        if "window_size" not in accepted:
            usual = scale is None or math.isclose(scale, query.shape[-1] ** -0.5)
            if window != (-1, 0) or not usual:
                raise TrainError(
                    "this torch's varlen_attn has no window and no scale: take torch 2.11 or later"
                )
            options = {"is_causal": True}
        ratio = query.shape[1] // key.shape[1]
        if "enable_gqa" in accepted:
            options["enable_gqa"] = ratio > 1
        elif ratio > 1:
            key, value = (part.repeat_interleave(ratio, dim=1) for part in (key, value))
        return varlen_attn(
            query, key, value, query_ends, key_ends, longest_query, longest_key, **options
        )

    return kernel


def _flash_kernel(package: str) -> Callable[[], Kernel]:
    """flash_attn's and flash_attn_interface's function take these arguments by the same names."""

    def load() -> Kernel:
        from importlib import import_module

        function = import_module(package).flash_attn_varlen_func

        def kernel(query, key, value, query_ends, key_ends, longest_query, longest_key, scale,
                   window, softcap):  # fmt: skip
            output = function(
                query, key, value, query_ends, key_ends, longest_query, longest_key,
                softmax_scale=scale, causal=True, window_size=window, softcap=softcap or 0.0,
            )  # fmt: skip
            return output[0] if isinstance(output, tuple) else output

        return kernel

    return load


def sees(
    visible_until: torch.Tensor, depths: torch.Tensor, window: int | None
) -> Callable[..., torch.Tensor]:
    """The mask of flex attention: which key a query of a row may see (see rows.visibility)."""

    def mask(batch, head, query, key):
        # A segment's descendants stand directly behind it: up to where they end, its tokens are
        # seen.
        visible = (key <= query) & (query < visible_until[key])
        # By depth, not by place in the row: siblings lie between.
        return visible if window is None else visible & (depths[query] - depths[key] < window)

    return mask


class FlexAttention:
    """Flex attention: the kernel compiled once, and the block masks of the newest row, which its
    layers share."""

    def __init__(self) -> None:
        self.row: torch.Tensor | None = None
        self.masks: dict[int | None, Any] = {}
        self.compiled: Kernel | None = None

    def mask(self, visible_until: torch.Tensor, depths: torch.Tensor, window: int | None) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        # The same tensor for all layers of a row, so that its identity tells a new row.
        if self.row is not visible_until:
            self.row, self.masks = visible_until, {}
        if window not in self.masks:
            length = len(visible_until)
            self.masks[window] = create_block_mask(
                sees(visible_until, depths, window),
                None,
                None,
                length,
                length,
                device=visible_until.device,
            )
        return self.masks[window]

    def kernel(self, device: torch.device) -> Kernel:
        from torch.nn.attention.flex_attention import flex_attention

        if device.type != "cuda":  # tests only: its forward pass alone runs on a CPU
            return cast(Kernel, flex_attention)
        if self.compiled is None:
            print("flex attention is compiled at its first use: about a minute", flush=True)
            self.compiled = torch.compile(flex_attention)
        return self.compiled

    def __call__(
        self,
        module: torch.nn.Module | None,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        visible_until: torch.Tensor,
        depths: torch.Tensor,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        _refuse_others(options)
        query, key, value = _same_type(query, key, value)
        # A power of two of queries' heads to each of the keys', as the kernel wants it; heads are
        # repeated otherwise.
        ratio = query.shape[1] // key.shape[1]
        if not math.log2(ratio).is_integer():
            key, value = (part.repeat_interleave(ratio, dim=1) for part in (key, value))

        def capped(score, batch, head, query_place, key_place):
            return softcap * torch.tanh(score / softcap)

        output = self.kernel(query.device)(
            query, key, value,
            score_mod=capped if softcap else None,
            block_mask=self.mask(visible_until, depths, sliding_window),
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
        return output.transpose(1, 2).contiguous(), None


ATTENTION: dict[str, Kernel] = {
    "per_sequence": _per_sequence,
    "varlen": variable_lengths(_torchs_kernel),
    "flash_attention_2": variable_lengths(_flash_kernel("flash_attn")),
    "flash_attention_3": variable_lengths(_flash_kernel("flash_attn_interface")),
    "flex": FlexAttention(),
}
