"""Training on one GPU, measured in under ten minutes: ways of attention, the loss, torch.compile,
whole steps of 0.6 to 8 billion parameters, and TRL packed with Liger on the same records.

Every part runs in a process of its own under a time limit and prints one JSON line; what fails or
takes too long says so on its line, and the next part runs. Parts begin with what matters most;
those for which no time is left are named. Records are made here, as long as real ones: about 2,100
tokens, 840 of them common, a seventh of them targets; `--data` takes a dataset instead.
It wants 90 GiB of the GPU's memory and 20 GiB of disk; what does not fit says so on its line.

    python -m benchmarks.gpu | tee gpu.jsonl      # pip install trl datasets liger-kernel
    python -m benchmarks.gpu --tiny               # the same parts on a CPU, in tiny shapes
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl

from benchmarks.training import SHAPES, ours, random_model, trl

BUDGET_S = 570

Made = SimpleNamespace
"""What a part is given: folder, data, tiny, records, batch, row_tokens."""

Part = tuple[int, Callable[[Made], dict[str, Any]]]


def device(given: Made) -> dict[str, Any]:
    """The card, the packages that decide, and what it does in a product of bf16 matrices."""
    import torch

    size = 256 if given.tiny else 8192
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    factor = torch.randn(size, size, device=kind, dtype=torch.bfloat16)
    seconds = timed(lambda: factor @ factor)
    packages = ("flash_attn", "flash_attn_interface", "liger_kernel", "trl", "deepspeed")
    return {
        "device": torch.cuda.get_device_name() if kind == "cuda" else "CPU",
        "torch": torch.__version__,
        "packages": [name for name in packages if find_spec(name)],
        "tflops": 2 * size**3 / seconds / 1e12,
    }


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds of `work`, until the device has done it."""
    import torch

    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def timed(work: Callable[[], Any], times: int = 5) -> float:
    """Seconds of `work`, the median of several times after one that is not counted."""
    return sorted([seconds_of(work) for _ in range(times + 1)][1:])[times // 2]


def qwen3(given: Made, **change: Any) -> Any:
    """The configuration of a layer of the 8B shape."""
    from transformers import Qwen3Config

    heads, groups, size, hidden, inner = (
        (4, 2, 16, 64, 128) if given.tiny else (32, 8, 128, 4096, 12_288)
    )
    return Qwen3Config(
        num_attention_heads=heads, num_key_value_heads=groups, head_dim=size, hidden_size=hidden,
        intermediate_size=inner, **change,
    )  # fmt: skip


def new_rows(given: Made, way: str, device: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """(positions, borders between records) of rows whose records have new lengths each time."""
    import torch

    from medaction.training.data import Sample
    from medaction.training.rows import Layout, tensors

    draw = random.Random(0)
    common, longest = (64, 150) if given.tiny else (840, 2400)
    for _ in range(3 if given.tiny else 8):
        lengths = [draw.randint(longest * 3 // 4, longest) for _ in range(6)]
        records = [(*range(common), *[n] * (length - common)) for n, length in enumerate(lengths)]
        samples = [
            Sample("s", "c", "t", "schema", "d", tokens, len(tokens) - 9) for tokens in records
        ]
        row = tensors(samples, Layout(way, padded=True))
        for name in ("input_ids", "logits_to_keep", "targets"):
            row.pop(name)
        yield (
            row.pop("position_ids").to(device),
            {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in row.items()
            },
        )


def attention(given: Made, way: str) -> dict[str, Any]:
    """A layer of the 8B shape, forward and backward, on rows whose records have new lengths each
    time: milliseconds of a row, and of the same row again."""
    import torch

    from medaction.training.attention import ATTENTION, check, lacking

    kind = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = kind.type == "cuda"
    config = qwen3(given)
    if obstacle := lacking(way, kind, bf16=True) or (check(way, config, kind) if cuda else ""):
        return {"obstacle": obstacle}
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    spent, again, shapes = [], [], set()
    for positions, borders in new_rows(given, way, kind):
        tokens = positions.shape[1]
        dtype = torch.bfloat16 if cuda else torch.float32
        parts = [
            torch.randn(
                1, count, tokens, config.head_dim, device=kind, dtype=dtype, requires_grad=True
            )
            for count in (heads, groups, groups)
        ]

        def once(parts: Any = parts, borders: Any = borders) -> None:
            ATTENTION[way](None, *parts, None, **borders)[0].float().sum().backward()

        spent.append(seconds_of(once))
        again.append(timed(once, 3))
        shapes.add(tokens)
    return {
        "ms_new": 1000 * sorted(spent[1:])[len(spent[1:]) // 2],
        "ms_again": 1000 * sorted(again)[len(again) // 2],
        "ms_first": 1000 * spent[0],
        "distinct_rows": len(shapes),
    }


def loss(given: Made, way: str) -> dict[str, Any]:
    """The loss of 2,048 targets and its gradients: milliseconds and the memory that it takes."""
    import torch

    from medaction.training.loss import choose_loss, chunked, summed

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    count, vocabulary, size = (96, 512, 32) if given.tiny else (2048, 151_936, 2048)
    hidden = torch.randn(count, size, device=kind, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, size, device=kind, dtype=dtype, requires_grad=True)
    targets = torch.randint(vocabulary, [count], device=kind)
    chosen, words = choose_loss(torch.device(kind))
    if way == "liger" and words != "Liger's":
        return {"obstacle": words}
    compute = {
        "whole": lambda *parts: summed(parts[0] @ parts[1].T, parts[2]),
        "chunked": chunked,
        "liger": chosen,
    }[way]

    def once() -> None:
        torch.autograd.grad(compute(hidden, weight, targets), (hidden, weight))

    before = torch.cuda.memory_allocated() if kind == "cuda" else 0
    seconds = timed(once)
    peak = torch.cuda.max_memory_allocated() - before if kind == "cuda" else 0
    return {"ms": 1000 * seconds, "peak_gib": peak / 2**30}


def steps(
    given: Made, shape: str, method: str, way: str = "auto", compiled: bool = False
) -> dict[str, Any]:
    """Whole steps of ours: tokens a second, MFU, memory beside its estimate."""
    write_model(given, shape)
    settings = arguments(given, method, way)
    settings.compile = compiled
    out = given.folder / f"{shape}-{method}-{way}{'-compiled' * compiled}"
    return ours(settings, model_of(given, shape), out)


def against(given: Made, shape: str, method: str) -> dict[str, Any]:
    """TRL packed, with Liger where it is installed, on the records that ours had."""
    if find_spec("trl") is None:
        return {"obstacle": "trl is not installed"}
    samples = given.folder / f"{shape}-{method}-auto" / "samples.parquet"
    if not samples.is_file():
        return {"obstacle": "ours did not run"}
    model, out = model_of(given, shape), given.folder / f"trl-{shape}-{method}"
    return trl(arguments(given, method), model, out, samples, packed=True)


def arguments(given: Made, method: str, way: str = "auto") -> Any:
    return SimpleNamespace(
        data=given.data, records=given.records, batch=given.batch, micro=1, zero=None,
        method=method, max_length=given.row_tokens, row_tokens=given.row_tokens,
        checkpointing=None, attention=way, compile=False,
    )  # fmt: skip


def model_of(given: Made, shape: str) -> Path:
    return given.folder / ("tiny" if given.tiny else shape)


def write_model(given: Made, shape: str) -> dict[str, Any]:
    """The weights of a shape, if they are not there; the disk need not hold those of another."""
    folder = model_of(given, shape)
    for other in (name for name in SHAPES if name != shape):
        for earlier in given.folder.glob(f"{other}*"):
            if earlier != folder:
                shutil.rmtree(earlier)
    if not folder.is_dir():
        random_model("tiny" if given.tiny else shape, given.folder / "tokenizer", folder)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return {"gib": size / 2**30}


def make_records(folder: Path, tiny: bool, records: int) -> Path:
    """A dataset of records as long as real ones, in words of the prompts, by a fixed seed."""
    from transformers import AutoTokenizer

    from medaction.flows.tiny_base import tiny_base

    tiny_base(folder / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    draw = random.Random(0)
    words = [word for word in map(tokenizer.decode, range(300, 4000)) if word.strip().isalpha()]

    def text(tokens: int) -> str:
        return " ".join(draw.choice(words).strip() for _ in range(tokens))

    # A word and its space are about 1.2 tokens.
    scale = 0.05 if tiny else 0.8
    system = text(int(840 * scale))
    rows = [
        {
            "id": f"r{number}",
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": text(int(draw.uniform(600, 1300) * scale))},
                {"role": "assistant", "content": text(int(draw.uniform(200, 400) * scale))},
            ],
            "case_id": f"case-{number // 4}", "teacher": "a", "style": "schema", "source": "pmc",
            "thinking": "",
        }
        for number in range(records + 16)
    ]  # fmt: skip
    data = folder / "data"
    data.mkdir()
    frame = pl.DataFrame(rows)
    frame[:-8].write_parquet(data / "train.parquet")
    frame[-8:].write_parquet(data / "validation.parquet")
    return data


def training(shape: str, method: str, seconds: int) -> dict[str, Part]:
    """The parts for one model: its weights, ours, TRL's."""
    return {
        f"model {shape}": (seconds, lambda given: write_model(given, shape)),
        f"steps {shape} {method}": (seconds, lambda given: steps(given, shape, method)),
        f"trl {shape} {method}": (seconds, lambda given: against(given, shape, method)),
    }


WAYS = ("flash_attention_3", "flash_attention_2", "varlen", "flex", "per_sequence")
PARTS: dict[str, Part] = {
    "device": (40, device),
    **training("qwen3-0.6b", "full", 70),
    **training("qwen3-1.7b", "full", 80),
    **training("qwen3-8b", "lora", 100),
    **training("qwen3-4b", "lora", 80),
    **{
        # Flex attention is compiled, for about a minute.
        f"attention {way}": (
            80 if way == "flex" else 40,
            lambda given, way=way: attention(given, way),
        )
        for way in WAYS
    },
    **{
        f"loss {way}": (25, lambda given, way=way: loss(given, way))
        for way in ("chunked", "liger", "whole")
    },
    "steps qwen3-0.6b per_sequence": (
        60,
        lambda given: steps(given, "qwen3-0.6b", "full", "per_sequence"),
    ),
    "compile qwen3-0.6b": (90, lambda given: steps(given, "qwen3-0.6b", "full", compiled=True)),
}
"""Name -> (seconds that it may take, the part), in the order in which they run."""


def run_part(name: str, folder: Path, tiny: bool, limit: float) -> dict[str, Any]:
    """The part's line, from a process group of its own that is ended with it."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--folder", str(folder)]
    with subprocess.Popen(
        [*command, *(["--tiny"] if tiny else [])],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return {"failed": f"ended after {limit:.0f} s"}
        finally:  # Ctrl+C too does not reach another group
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    if process.returncode:
        # What the kernel kills for its memory says nothing.
        return {"failed": f"status {process.returncode}: {errors.strip()[-600:]}"}
    return json.loads(output.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, for a CPU")
    parser.add_argument("--data", type=Path, help="a dataset's folder, or its run's")
    parser.add_argument("--only", nargs="*", help="parts whose names begin so")
    parser.add_argument("--seconds", type=float, default=BUDGET_S, help="for all parts together")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    # Packages greet on standard output, and take leave there: theirs goes to standard error.
    lines_out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=lines_out, flush=True)

    sizes = (8, 4, 512) if asked.tiny else (96, 32, 16_384)
    records, batch, row_tokens = sizes
    if asked.part:
        data = Path((asked.folder / "data.txt").read_text())
        given = Made(
            folder=asked.folder, data=data, tiny=asked.tiny, records=records, batch=batch,
            row_tokens=row_tokens,
        )  # fmt: skip
        tell(PARTS[asked.part][1](given))
        return
    end = time.monotonic() + asked.seconds
    lines: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_records(folder, asked.tiny, records)
        (folder / "data.txt").write_text(str(asked.data or data))
        for part, (limit, _) in PARTS.items():
            if asked.only and not part.startswith(tuple(asked.only)):
                continue
            left = end - time.monotonic()
            started = time.monotonic()
            lines[part] = (
                run_part(part, folder, asked.tiny, left if asked.tiny else min(limit, left))
                if left > 5
                else {"failed": "no time left"}
            )
            seconds = round(time.monotonic() - started, 1)
            tell({"part": part, "seconds": seconds, **lines[part]})
            speeds = [
                lines.get(part.replace("trl", name), {}).get("tokens_per_s")
                for name in ("steps", "trl")
            ]
            # At once: whoever has the card for minutes may not reach the end.
            if part.startswith("trl") and all(speeds):
                ratio = speeds[0] / speeds[1]
                tell({"part": part.replace("trl", "ratio"), "to_trl_packed": ratio})


if __name__ == "__main__":
    main()
