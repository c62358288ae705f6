"""Tokens a second, memory and share of useful tokens: our trainer against TRL's SFTTrainer, with
its defaults and with packed rows, one after the other.

Both see the same records, model, precision and batch in one run, each in a process of its own; only
ratios mean anything on a machine with other work. Tokens are the records' own, without padding.
`loss`: the mean over the pass at a learning rate of nearly nothing, which is equal where the work
is; TRL has one target more a record, the line break behind the end mark. `loss_share`: the share of
the tokens that the loss is on; `padding`: the share of what went through the model that was
padding. TRL is no dependency: pip install trl datasets.

    python -m benchmarks.training --data runs/demo --model SmolLM2/ --records 32
    python -m benchmarks.training --data runs/demo --shape qwen3-8b --tokenizer Qwen3-8B/

On a GPU: benchmarks/gpu.py.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
SHAPES = {
    "qwen3-0.6b": (1024, 3072, 28, 16, 8, 128, 151_936, True),
    "qwen3-1.7b": (2048, 6144, 28, 16, 8, 128, 151_936, True),
    "qwen3-4b": (2560, 9728, 36, 32, 8, 128, 151_936, True),
    "qwen3-8b": (4096, 12_288, 36, 32, 8, 128, 151_936, False),
    "small": (256, 768, 4, 4, 2, 64, 4096, True),  # head to body as in SmolLM2-135M
    "tiny": (64, 128, 2, 2, 1, 32, 4096, True),
}
"""Published shapes, filled with random weights: speed does not depend on what a model knows."""


STILL = 1e-12
"""A learning rate that changes no digit of a loss, whatever order the records come in."""


def random_model(shape: str, tokenizer: Path, folder: Path) -> Path:
    """A Qwen3 of a shape with random bf16 weights, and the tokenizer (with its chat template) in
    `tokenizer`."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    sizes = dict(zip(SIZES, SHAPES[shape], strict=True))
    config = Qwen3Config(**sizes, max_position_embeddings=40_960, eos_token_id=loaded.eos_token_id)
    torch.set_default_dtype(torch.bfloat16)
    building = folder.with_name(f".{folder.name}.building")
    loaded.save_pretrained(building)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        Qwen3ForCausalLM(config).save_pretrained(building)
    building.rename(folder)
    return folder


def ours(given: argparse.Namespace, model: Path, out: Path) -> dict[str, Any]:
    from medaction.training import estimate
    from medaction.training.curves import read_log
    from medaction.training.launch import fit, prepare_run
    from medaction.training.settings import TrainSettings

    names = ("max_length", "row_tokens", "batch", "zero", "attention", "method", "compile")
    settings = TrainSettings(
        data=[str(given.data)], base=str(model), out=out, scale=given.records,
        gradient_checkpointing=given.checkpointing,
        **{name: getattr(given, name) for name in names},
        # One pass in one process, without a look, a checkpoint or a warm-up in between.
        epochs=1, processes=1, validation_records=1, save_every=10**6, evaluate_every=10**6,
        warmup=0.0, learning_rate=STILL,
    )  # fmt: skip
    out.mkdir()
    # No checkpoint is written and no adapter merged: a disk of 64 GiB would be refused for 1.7
    # billion parameters. What does not fit the memory is to fail.
    with mock.patch.object(estimate, "check_resources"):
        report = prepare_run(settings)
    fit(settings, lambda line: print(json.dumps(line), file=sys.stderr))
    steps = [line for line in read_log(out / "log.jsonl") if "loss" in line]
    warm = steps[1:] or steps
    seconds = sum(line["seconds"] for line in warm)
    return {
        "tokens_per_s": sum(line["tokens"] for line in warm) / seconds,
        "targets_per_s": sum(line["targets"] for line in warm) / seconds,
        "steps": len(steps),
        "loss": mean_loss((line["loss"], line["targets"]) for line in steps),
        "loss_share": report["target_share"],
        "padding": 0.0,
        "peak_gib": steps[-1]["memory_gib"],
        "mfu": sum(line["mfu"] * line["seconds"] for line in warm) / seconds,
        "estimated_gib": (report["needs"]["state"] + report["needs"]["activations"]) / 2**30,
        "notes": [
            line["note"]
            for line in map(json.loads, (out / "log.jsonl").read_text().splitlines())
            if "note" in line
        ],
    }


def mean_loss(steps: Iterable[tuple[float, int]]) -> float:
    """The mean over all targets, of (a step's mean, its targets)."""
    counted = list(steps)
    return sum(loss * targets for loss, targets in counted) / sum(count for _, count in counted)


TRL = """
import json, sys, time
import polars as pl, torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer
from benchmarks.training import mean_loss
from medaction.training.progress import memory

job = json.loads(sys.argv[1])
cuda = torch.cuda.is_available()
frame = pl.read_parquet(job["data"] + "/dataset/train.parquet" if job["run"] else job["data"] + \
"/train.parquet")
samples = pl.read_parquet(job["samples"]).filter(pl.col("split") == "train")
chosen = frame.filter(pl.col("id").is_in(samples["id"].implode()))
spent, targets = [], []

class Trainer(SFTTrainer):
    def get_batch_samples(self, *given, **options):
        samples, count = super().get_batch_samples(*given, **options)
        targets.append(int(count))
        return samples, count

def now():
    if cuda: torch.cuda.synchronize()
    return time.perf_counter()

class Clock(TrainerCallback):
    def on_step_begin(self, *_, **__): self.started = now()
    def on_step_end(self, *_, **__): spent.append(now() - self.started)

rows = max(1, round(samples["tokens"].list.len().mean() * job["batch"] / job["row_tokens"]))
batches = {
    "packing": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": rows,
    "max_length": job["row_tokens"], "use_liger_kernel": job["liger"],
} if job["packed"] else {
    "per_device_train_batch_size": job["micro"], "max_length": job["max_length"],
    "gradient_accumulation_steps": job["batch"] // job["micro"],
}
adapters = None
if job["method"] == "lora":
    from peft import LoraConfig
    adapters = LoraConfig(task_type="CAUSAL_LM", r=64, lora_alpha=128, target_modules="all-linear")
trainer = Trainer(
    model=job["model"],
    args=SFTConfig(
        output_dir=job["out"], num_train_epochs=1, bf16=cuda, use_cpu=not cuda, **batches,
        learning_rate=job["learning_rate"], logging_steps=1,
        **({} if job["checkpointing"] is None else \
{"gradient_checkpointing": job["checkpointing"]}),
        model_init_kwargs={"dtype": "bfloat16" if cuda else "float32"}, report_to=[], \
save_strategy="no", disable_tqdm=True,
    ),
    train_dataset=Dataset.from_list([
        {"prompt": row[:-1], "completion": row[-1:]} for row in chosen["messages"].to_list()
    ]),
    processing_class=AutoTokenizer.from_pretrained(job["model"]),
    callbacks=[Clock()], peft_config=adapters,
)
trainer.train()
batches = list(trainer.get_train_dataloader())
fed = sum(row["input_ids"].numel() for row in batches)
real = sum(int(row["attention_mask"].sum()) if "attention_mask" in row else \
row["input_ids"].numel() for row in batches)
learnt = sum(int((row["labels"] != -100).sum()) for row in batches)
counted = sum(len(row["input_ids"]) for row in trainer.train_dataset)
steps = len(spent)
warm = spent[1:] or spent
share = len(warm) / steps
speed = counted * share / sum(warm)
losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
told = {"loss": mean_loss(zip(losses, targets, strict=True)), "loss_share": learnt / real,
        "padding": 1 - real / fed, "peak_gib": memory(trainer.args.device) / 2**30}
print(json.dumps({"tokens_per_s": speed, "steps": steps, **told}))
"""


def trl(
    given: argparse.Namespace, model: Path, out: Path, samples: Path, packed: bool = False
) -> dict[str, float]:
    """TRL's figures on the records of `samples`: with its defaults, or `packed` into rows as long
    as ours, with Liger's kernels on a GPU where they are installed."""
    import torch

    from medaction.training.loss import liger_loads

    names = ("row_tokens", "method", "batch", "micro", "max_length", "checkpointing")
    job = {name: getattr(given, name) for name in names}
    places = {"data": given.data, "samples": samples, "model": model, "out": out}
    job |= {name: str(place) for name, place in places.items()}
    job |= {
        "learning_rate": STILL,
        "packed": packed,
        "liger": torch.cuda.is_available() and liger_loads(),
    }
    job["run"] = (given.data / "dataset").is_dir()
    command = [sys.executable, "-c", TRL, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True)
    # Not `check`: its error is the whole command, behind which the cause is lost.
    if done.returncode:
        raise RuntimeError(f"TRL ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a dataset's folder, or its run's")
    parser.add_argument("--model", type=Path, help="a folder of safetensors")
    parser.add_argument("--shape", choices=SHAPES, help="random weights instead")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        help="with --shape: a folder with a tokenizer and its chat template",
    )
    parser.add_argument("--records", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--micro", type=int, default=8, help="TRL's records at once (its default is 8)"
    )
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--row-tokens", type=int, default=8192)
    parser.add_argument("--zero", type=int, help="DeepSpeed's ZeRO stage of ours")
    parser.add_argument("--attention", default="auto", help="ours")
    parser.add_argument("--compile", action="store_true", help="the layers of ours")
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    checkpointing = "gradient checkpointing in all [each as it is by itself]"
    parser.add_argument(
        "--checkpointing", action=argparse.BooleanOptionalAction, help=checkpointing
    )
    parser.add_argument("--only", choices=["ours"], help="without TRL")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model = given.model or random_model(given.shape, given.tokenizer, folder / "model")
        packages = (
            ("torch", "transformers") if given.only == "ours" else ("torch", "transformers", "trl")
        )
        result: dict[str, dict] = {"versions": {name: version(name) for name in packages}}
        result["ours"] = ours(given, model, folder / "ours")
        if given.only != "ours":
            samples = folder / "ours/samples.parquet"
            for name, packed in (("trl", False), ("trl_packed", True)):
                result[name] = trl(given, model, folder / name, samples, packed)
                result[f"ratio_to_{name}"] = {
                    figure: result["ours"][figure] / result[name][figure]
                    for figure in ("tokens_per_s", "peak_gib")
                }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
