"""One tool reads a dataset by the recipe on the dataset's card: the half of recipes.py that runs in
the tool's own environment.

Run as: python .ci/recipe_readers.py trl DATASET BASE OUT; writes OUT/trl.json, a list of pairs
(token ids, labels), the labels -100 where there is no loss.
"""

import json
import re
import shlex
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

Rows = Iterable[dict[str, Any]]


def recipe(dataset: Path, tool: str) -> list[str]:
    """The code blocks that the card has under the tool's heading."""
    card = dataset / "README.md"
    for section in card.read_text(encoding="utf-8").split("\n### ")[1:]:
        if section.partition("\n")[0].casefold() == tool:
            return re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)
    raise SystemExit(f"{card}: no recipe for {tool}: its heading should be '### {tool}'")


def with_trl(blocks: list[str], dataset: Path, base: Path, out: Path) -> Rows:
    import trl

    # The recipe is for a GPU; TRL's arguments refuse a machine without one.
    trl.SFTConfig = partial(trl.SFTConfig, use_cpu=True, bf16=False, output_dir=str(out))
    names: dict[str, Any] = {"model": str(base)}
    exec("\n".join(blocks), names)
    return names["trainer"].train_dataset


def with_trl_dpo(blocks: list[str], dataset: Path, base: Path, out: Path) -> Rows:
    """Two rows a pair: the better reply's and the worse one's."""
    import trl

    trl.DPOConfig = partial(trl.DPOConfig, use_cpu=True, bf16=False, output_dir=str(out))
    names: dict[str, Any] = {"model": str(base)}
    exec("\n".join(blocks), names)
    for pair in names["trainer"].train_dataset:
        for side in ("chosen_ids", "rejected_ids"):
            yield labelled(pair["prompt_ids"], pair[side])


def with_trl_kto(blocks: list[str], dataset: Path, base: Path, out: Path) -> Rows:
    import trl

    trl.KTOConfig = partial(trl.KTOConfig, use_cpu=True, bf16=False, output_dir=str(out))
    names: dict[str, Any] = {"model": str(base)}
    exec("\n".join(blocks), names)
    for row in names["trainer"].train_dataset:
        yield labelled(row["prompt_ids"], row["completion_ids"])


def labelled(prompt: list[int], reply: list[int]) -> dict[str, Any]:
    return {"input_ids": prompt + reply, "labels": [-100] * len(prompt) + reply}


def with_llama_factory(blocks: list[str], dataset: Path, base: Path, out: Path) -> Rows:
    import yaml
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    entries, configuration = blocks
    # A copy of the dataset beside dataset_info.json, as the tool wants it: links to its files.
    for file in dataset.glob("*.jsonl"):
        (out / file.name).unlink(missing_ok=True)
        (out / file.name).symlink_to(file)
    (out / "dataset_info.json").write_text(entries, encoding="utf-8")
    run = {"model_name_or_path": str(base), "stage": "sft", "do_train": True}
    folders = {"dataset_dir": str(out), "output_dir": str(out / "run")}
    model, data, training, *_ = get_train_args(run | folders | yaml.safe_load(configuration))
    parts = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(parts["tokenizer"], data)
    return get_dataset(template, model, data, training, stage="sft", **parts)["train_dataset"]


def with_axolotl(blocks: list[str], dataset: Path, base: Path, out: Path) -> Rows:
    import yaml
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets

    # What it insists on beside the recipe, and its cache, which must be a new one.
    steps = {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 1e-4}
    folders = {"dataset_prepared_path": str(out / "prepared"), "output_dir": str(out / "run")}
    run = steps | folders | {"base_model": str(base)}
    configuration = out / "axolotl.yaml"
    configuration.write_text(yaml.safe_dump(run | yaml.safe_load("\n".join(blocks))))
    return load_datasets(cfg=load_cfg(str(configuration))).train_dataset


def with_ms_swift(blocks: list[str], dataset: Path, base: Path, out: Path) -> Rows:
    from swift.pipelines import SwiftSft

    swift, sft, *options = shlex.split(" ".join(blocks))
    assert (swift, sft) == ("swift", "sft")
    # It knows published models by their names, and has to be told what ours is.
    model = ["--model", str(base), "--model_type", "llama", "--template", "qwen3"]
    rows, _ = SwiftSft([*options, *model, "--output_dir", str(out / "run")])._prepare_dataset()
    return [rows[number] for number in range(len(rows))]


READERS = {
    "trl": with_trl,
    "trl-dpo": with_trl_dpo,
    "trl-kto": with_trl_kto,
    "llama-factory": with_llama_factory,
    "axolotl": with_axolotl,
    "ms-swift": with_ms_swift,
}

if __name__ == "__main__":
    tool, (dataset, base, out) = sys.argv[1], map(Path, sys.argv[2:])
    rows = READERS[tool](recipe(dataset, tool), dataset, base, out)
    pairs = [[list(row["input_ids"]), list(row["labels"])] for row in rows]
    (out / f"{tool}.json").write_text(json.dumps(pairs))
