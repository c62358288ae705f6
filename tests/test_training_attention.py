"""All ways of attention give the numbers of each record alone; on a GPU a row takes one call a
layer, of a shape that comes again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training is not installed (pip install 'medaction[train]')")

import torch
from torch.nn.attention.flex_attention import create_mask

from medaction.hub.looks_process import write_replies
from medaction.training import attention
from medaction.training.attention import ATTENTION, FlexAttention, sees, variable_lengths
from medaction.training.compilation import compile_layers
from medaction.training.data import Sample
from medaction.training.packing import GRAIN, plan
from medaction.training.rows import Layout, Rows, Spans, tensors
from medaction.training.settings import TrainError
from tests.test_training_packing import PREFIX, SAMPLES
from tests.tiny_model import tiny_model

pytestmark = pytest.mark.train

LAYERS = 2


def branch(number: int) -> Sample:
    """Records of one case: the system prompt, the case, then turns of different lengths."""
    case = (number % 2, *range(500, 500 + 2 * GRAIN - 1))
    turns = tuple(range(700 + number, 700 + number + 9 * number + 6))
    tokens = (*range(100, 100 + PREFIX), *case, *turns)
    return Sample(f"b{number}", "c", "t", "schema", "d", tokens, len(tokens) - 4)


TREE = tuple(branch(number) for number in range(5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


class Calls:
    """A kernel of variable lengths as its makers document it, in plain torch, that counts its calls
    and the shapes that it was given. It stands for those that need a GPU."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(
        self, query: Any, key: Any, value: Any, query_ends: Any, key_ends: Any, longest_query: int,
        longest_key: int, scale: float | None, window: tuple[int, int], softcap: float | None,
    ) -> torch.Tensor:  # fmt: skip
        self.shapes.append((len(query), longest_query, longest_key))
        assert query_ends.dtype == key_ends.dtype == torch.int32
        assert max(query_ends.diff()) <= longest_query
        assert max(key_ends.diff()) <= longest_key
        outputs = []
        for (q0, q1), (k0, k1) in zip(
            query_ends.unfold(0, 2, 1).tolist(), key_ends.unfold(0, 2, 1).tolist(), strict=True
        ):
            # Bottom right: the last query sees the last key.
            mask = torch.ones(q1 - q0, k1 - k0).tril(k1 - k0 - (q1 - q0))
            if window[0] >= 0:
                mask = mask.triu(k1 - k0 - (q1 - q0) - window[0])
            outputs.append(
                torch.nn.functional.scaled_dot_product_attention(
                    query[q0:q1].transpose(0, 1), key[k0:k1].transpose(0, 1),
                    value[k0:k1].transpose(0, 1), attn_mask=mask.bool(), scale=scale,
                    enable_gqa=True,
                ).transpose(0, 1)
            )  # fmt: skip
        return torch.cat(outputs)


class DenseFlex(FlexAttention):
    """Flex attention's mask, all of it in memory: flex attention has no backward pass on a CPU."""

    def mask(self, visible_until: Any, depths: Any, window: int | None) -> Any:
        length = len(depths)
        return create_mask(sees(visible_until, depths, window), 1, 1, length, length, "cpu")

    def kernel(self, device: torch.device) -> Callable[..., torch.Tensor]:
        def dense(
            query: Any, key: Any, value: Any, *, block_mask: Any, scale: Any, **_: Any
        ) -> Any:
            return torch.nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=block_mask, scale=scale, enable_gqa=True
            )

        return dense


def run(
    folder: Path, row: dict[str, Any], way: str, gradients: bool = True, **config: Any
) -> tuple[Any, dict[str, Any]]:
    """(logits at the targets, gradients of the summed loss)."""
    from transformers import AutoModelForCausalLM

    attention.register()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention.implementation(way), **config
    )
    targets = row.pop("targets")
    with torch.set_grad_enabled(gradients):
        logits = model(**row, use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    if not gradients:
        return logits, {}
    loss.backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters()}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in ("varlen", "flash_attention_2", "flash_attention_3"):
        monkeypatch.setitem(ATTENTION, way, variable_lengths(Calls))
    monkeypatch.setitem(ATTENTION, "flex", DenseFlex())


@pytest.mark.parametrize("samples", [SAMPLES[:4], TREE], ids=["beginning", "tree"])
@pytest.mark.parametrize(
    "layout",
    [
        Layout("per_sequence"), Layout("per_sequence", False), Layout("per_sequence", True, True),
        Layout("sdpa", shared=False), Layout("sdpa", False, True), Layout("varlen"),
        Layout("varlen", False), Layout("varlen", True, True), Layout("flash_attention_2"),
        Layout("flex"), Layout("flex", True, True),
    ],
    ids=str,
)  # fmt: skip
def test_packed_samples_have_the_losses_and_gradients_of_each_alone(
    folder: Path, layout: Layout, samples: tuple[Sample, ...]
) -> None:
    row = tensors(samples, layout)
    logits, gradients = run(folder, row, layout.attention)
    alone = [run(folder, tensors([one], Layout("sdpa", False)), "sdpa") for one in samples]
    expected = torch.cat([of_one for of_one, _ in alone])
    torch.testing.assert_close(logits[: len(expected)], expected, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, sum(of_one[name] for _, of_one in alone), atol=1e-4, rtol=1e-4
        )


def test_flex_attention_itself_has_the_logits_of_each_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its forward pass; torch has no backward pass of it on a CPU."""
    monkeypatch.setitem(ATTENTION, "flex", FlexAttention())
    logits, _ = run(folder, tensors(TREE, Layout("flex")), "flex", gradients=False)
    alone = [
        run(folder, tensors([one], Layout("sdpa", False)), "sdpa", gradients=False)[0]
        for one in TREE
    ]
    torch.testing.assert_close(logits, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_a_window_reaches_as_far_back_in_a_tree_as_in_a_record_alone() -> None:
    """Attention alone, against a dense mask, for a window that ends inside the common beginning."""
    rows = {way: tensors(TREE, Layout(way)) for way in ("per_sequence", "varlen", "flex")}
    noise = torch.Generator().manual_seed(1)
    length = rows["flex"]["input_ids"].shape[1]
    inputs = [torch.randn(1, heads, length, 8, generator=noise) for heads in (4, 2, 2)]
    outputs = {}
    for way, row in rows.items():
        borders = {
            name: value
            for name, value in row.items()
            if name not in ("input_ids", "position_ids", "logits_to_keep", "targets")
        }
        outputs[way] = ATTENTION[way](None, *inputs, None, sliding_window=150, **borders)[0]
    torch.testing.assert_close(outputs["varlen"], outputs["per_sequence"])
    torch.testing.assert_close(outputs["flex"], outputs["per_sequence"])
    whole = ATTENTION["varlen"](None, *inputs, None, **{
        name: value for name, value in rows["varlen"].items()
        if name not in ("input_ids", "position_ids", "logits_to_keep", "targets")
    })[0]  # fmt: skip
    assert (whole - outputs["varlen"]).abs().max() > 1e-2


def torch_2_10(q: Any, k: Any, v: Any, a: Any, b: Any, m: int, n: int, is_causal: bool = False):
    assert is_causal
    return Calls()(q, k, v, a, b, m, n, None, (-1, 0), None)


def torch_2_11(
    q: Any, k: Any, v: Any, a: Any, b: Any, m: int, n: int, *, scale: Any = None,
    window_size: tuple[int, int] = (-1, -1),
):  # fmt: skip
    assert q.shape[1] == k.shape[1], "this one knows no groups of heads"
    return Calls()(q, k, v, a, b, m, n, scale, window_size, None)


def torch_2_12(
    q: Any, k: Any, v: Any, a: Any, b: Any, m: int, n: int, *, scale: Any = None,
    window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
):  # fmt: skip
    assert enable_gqa is (q.shape[1] != k.shape[1])
    return Calls()(q, k, v, a, b, m, n, scale, window_size, None)


@pytest.mark.parametrize("varlen_attn", [torch_2_10, torch_2_11, torch_2_12])
def test_every_torchs_own_kernel_is_called_as_it_is_documented(
    folder: Path, varlen_attn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    monkeypatch.setitem(ATTENTION, "varlen", variable_lengths(attention._torchs_kernel))
    logits, _ = run(folder, tensors(TREE, Layout("varlen")), "varlen", gradients=False)
    alone = [
        run(folder, tensors([one], Layout("sdpa", False)), "sdpa", gradients=False)[0]
        for one in TREE
    ]
    torch.testing.assert_close(logits, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("way", ["varlen", "flash_attention_2", "flex"])
def test_a_kernel_is_given_one_type_of_16_bits_under_autocast(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Norms of a Qwen3 leave queries and keys in fp32 there, and values in bf16."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    types = []

    class Typed(Calls):
        def __call__(self, query: Any, key: Any, value: Any, *more: Any) -> torch.Tensor:
            types.append({query.dtype, key.dtype, value.dtype})
            return super().__call__(query, key, value, *more)

    class TypedFlex(DenseFlex):
        def kernel(self, device: torch.device) -> Any:
            dense = super().kernel(device)

            def typed(query: Any, key: Any, value: Any, **options: Any) -> Any:
                types.append({query.dtype, key.dtype, value.dtype})
                return dense(query, key, value, **options)

            return typed

    monkeypatch.setitem(ATTENTION, way, TypedFlex() if way == "flex" else variable_lengths(Typed))
    attention.register()
    config = Qwen3Config(
        vocab_size=2000, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        attn_implementation=attention.implementation(way),
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    row = tensors(TREE, Layout(way))
    row.pop("targets")
    with torch.autocast("cpu", torch.bfloat16):
        model(**row, use_cache=False).logits.float().sum().backward()
    assert types == [{torch.bfloat16}] * LAYERS


@pytest.mark.long
@pytest.mark.parametrize("way", ["per_sequence", "varlen", "flex"])
def test_layers_are_compiled_once_for_all_rows(folder: Path, way: str) -> None:
    from torch._dynamo.utils import counters
    from transformers import AutoModelForCausalLM

    attention.register()
    torch.compiler.reset()
    counters.clear()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention.implementation(way)
    ).train()
    compile_layers(model, apart=False)
    graphs = []
    for samples in (SAMPLES[:4], TREE, SAMPLES[1:4], SAMPLES[:2], TREE[:3]):
        row = tensors(samples, Layout(way))
        expected = run(folder, dict(row), way)[0]
        del row["targets"]
        logits = model(**row, use_cache=False).logits[0]
        logits.sum().backward()
        assert (logits - expected).abs().max() < 1e-4
        graphs.append(counters["stats"]["unique_graphs"])
    # The trial's, and a layer's parts before and behind its attention.
    assert 3 <= graphs[-1] == graphs[1] <= 6


def test_replies_are_written_without_compiling_each_layer_anew(folder: Path) -> None:
    """Else the rows of a training whose model plays before its first step were not compiled."""
    from torch._dynamo.utils import counters
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.compiler.reset()
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    [expected] = write_replies(model, tokenizer, [[7, 8, 9]], 4, do_sample=False)
    compile_layers(model, apart=False)
    counters.clear()
    assert write_replies(model, tokenizer, [[7, 8, 9]], 4, do_sample=False) == [expected]
    assert not counters["stats"]["unique_graphs"]


def test_a_compiler_that_fails_without_a_word_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(TrainError, match=r"fails here \(AssertionError: \)"):
        compile_layers(torch.nn.Linear(1, 1), apart=False)


def test_without_the_borders_a_neighbour_would_be_seen(folder: Path) -> None:
    row = tensors(SAMPLES[:2], Layout("per_sequence", shared=False))
    row["spans"] = Spans(((0, row["input_ids"].shape[1], ()),))
    alone = run(folder, tensors(SAMPLES[1:2], Layout("per_sequence")), "per_sequence")[0]
    assert (run(folder, row, "per_sequence")[0][-5:] - alone).abs().max() > 1e-3


@pytest.mark.parametrize("way", ["per_sequence", "varlen", "flex"])
def test_attention_that_a_way_does_not_compute_is_refused(way: str) -> None:
    row = tensors(SAMPLES[:1], Layout(way))
    query = torch.zeros(1, 2, row["input_ids"].shape[1], 8)
    borders = {
        name: value
        for name, value in row.items()
        if name not in ("input_ids", "position_ids", "logits_to_keep", "targets")
    }
    with pytest.raises(TrainError, match="has a sink"):
        ATTENTION[way](None, query, query, query, None, s_aux=torch.zeros(2), **borders)


def calls_of_an_epoch(
    folder: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int, int]:
    """(rows, calls of attention in a forward pass, distinct shapes of them) over 53 records of 9
    lengths, 16 a step."""
    from transformers import AutoModelForCausalLM

    counted = Calls()
    monkeypatch.setitem(ATTENTION, "varlen", variable_lengths(lambda: counted))
    shapes: list[tuple[int, ...]] = counted.shapes
    real = torch.nn.functional.scaled_dot_product_attention

    def counting(query: Any, key: Any, *more: Any, **options: Any) -> Any:
        shapes.append((query.shape[2], key.shape[2]))
        return real(query, key, *more, **options)

    if layout.attention == "per_sequence":
        monkeypatch.setattr(attention, "scaled_dot_product_attention", counting)
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=attention.implementation(layout.attention)
    )
    planned = plan(SAMPLES, 16, 1, 1, row_tokens=1500, seed=3, prefix=PREFIX)
    rows = Rows.of(SAMPLES, planned, layout)
    with torch.no_grad():
        for number in range(len(rows)):
            row = rows[number]
            row.pop("targets"), row.pop("step_targets")
            model(**row, use_cache=False)
    return len(rows), len(shapes), len(set(shapes))


def test_a_row_takes_one_call_a_layer_and_shapes_come_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, calls, shapes = calls_of_an_epoch(folder, Layout("per_sequence"), monkeypatch)
    assert calls == LAYERS * (rows + len(SAMPLES))
    assert shapes == 10  # nine lengths and the beginning
    rows, calls, shapes = calls_of_an_epoch(folder, Layout("varlen", padded=True), monkeypatch)
    assert calls == LAYERS * rows
    assert shapes <= 3


def test_the_way_is_chosen_by_what_is_there(folder: Path) -> None:
    from transformers import AutoConfig

    config, cpu = AutoConfig.from_pretrained(folder), torch.device("cpu")
    assert attention.choose_attention("auto", config, cpu, False) == ("per_sequence", "no GPU")
    assert attention.choose_attention("sdpa", config, cpu, True)[0] == "sdpa"
    with pytest.raises(TrainError, match="--attention varlen: varlen: needs a GPU: leave it at au"):
        attention.choose_attention("varlen", config, cpu, True)


def test_a_kernel_is_tried_before_it_is_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig

    config, cpu = AutoConfig.from_pretrained(folder), torch.device("cpu")
    assert attention.check("varlen", config, cpu) == ""

    class TopLeft(Calls):
        """A kernel whose causal mask begins at the first query and the first key."""

        def __call__(self, query: Any, key: Any, value: Any, *more: Any) -> torch.Tensor:
            length = len(query)
            return super().__call__(
                query, key[:length], value[:length], more[0], more[0], more[2], more[2], *more[4:]
            )

    monkeypatch.setitem(ATTENTION, "varlen", variable_lengths(TopLeft))
    assert attention.check("varlen", config, cpu) == "computes other numbers here"

    def fails() -> Any:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(ATTENTION, "varlen", variable_lengths(fails))
    assert attention.check("varlen", config, cpu) == (
        "fails here (RuntimeError: no kernel image is available)"
    )
