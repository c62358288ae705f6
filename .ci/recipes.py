"""The recipes of a dataset's card, run as they are printed there: each tool's own code loads and
tokenizes the demo's dataset, in an environment of its own, and the tokens that its loss is on are
those of `medaction train`.

Run as: python .ci/recipes.py [--as-far-as-they-install] [trl] [trl-dpo] [trl-kto] [llama-factory]
[axolotl] [ms-swift]. Exit status 1: a tool could not be installed (only said with the option),
or reads anything else; the others are tried all the same.
uv's variables choose the build of torch: UV_TORCH_BACKEND=cpu saves the download of CUDA.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import polars as pl
from transformers import AutoTokenizer

from medaction.flows.tiny_base import tiny_base
from medaction.training.data import prepare_samples, read_datasets
from medaction.training.preference_data import read_preferences
from medaction.training.settings import TrainSettings
from medaction.training.templates import Renderer

FOLDER = Path(__file__).resolve().parent.parent / "build" / "recipes"
READERS = Path(__file__).with_name("recipe_readers.py")
PACKAGES = {
    "trl": "trl",
    "trl-dpo": "trl",
    "trl-kto": "trl",
    "llama-factory": "llamafactory",
    "axolotl": "axolotl",
    "ms-swift": "ms-swift",
}
LINE_BREAK = {tool: "read" if tool == "axolotl" else "learnt" for tool in PACKAGES}
"""What a tool does with the line break that ChatML writes behind an end mark: its loss is on it, or
it is read without. `medaction train` leaves it out: servers stop at the mark."""

Sample = tuple[list[int], int]
"""A record's token ids, and where its reply begins."""


class NotInstalled(Exception):
    """The packages of a tool are not to be had."""


def try_out(tool: str, dataset: Path, samples: list[Sample], line_break: list[int]) -> str:
    """Says what was equal. Raises NotInstalled, CalledProcessError (the tool failed) and ValueError
    (it reads anything else)."""
    environment, out = FOLDER / PACKAGES[tool], FOLDER / "out" / tool
    python = environment / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--allow-existing", environment], check=True)
    install = [*uv, "pip", "install", "--quiet", "--python", python, PACKAGES[tool]]
    if subprocess.run(install).returncode:
        raise NotInstalled(f"{PACKAGES[tool]} cannot be installed here")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    reading = [python, READERS, tool, dataset, FOLDER / "base", out]
    subprocess.run(reading, check=True, cwd=dataset, env=offline, stdout=subprocess.DEVNULL)
    rows = json.loads((out / f"{tool}.json").read_text())
    compare(rows, samples, line_break, LINE_BREAK[tool])
    number = subprocess.check_output(
        [python, "-c", f"import importlib.metadata as m; print(m.version('{PACKAGES[tool]}'))"],
        text=True,
    )
    return f"{tool} {number.strip()}: {len(rows)} records, the targets of `medaction train`"


def compare(rows: list, samples: list[Sample], line_break: list[int], break_is: str) -> None:
    """Raises ValueError with the first difference. Tools may read records in any order."""
    if len(rows) != len(samples):
        raise ValueError(f"{len(rows)} of {len(samples)} records were read")
    breaks: Counter[str] = Counter()
    for (ids, labels), (tokens, prompt) in zip(sorted(rows), sorted(samples), strict=True):
        end = len(tokens)
        if ids[:end] != tokens or ids[end:] not in ([], line_break):
            raise ValueError(f"token ids {ids}, and {tokens} in `medaction train`")
        if labels[:end] != [-100] * prompt + tokens[prompt:]:
            raise ValueError(f"labels {labels}; the loss should begin at {prompt}, end at {end}")
        breaks["absent" if not ids[end:] else "read" if labels[end] == -100 else "learnt"] += 1
    if set(breaks) != {break_is}:
        raise ValueError(f"line breaks behind end marks should be {break_is}, and are {breaks}")


def samples_of(records: pl.DataFrame, renderer: Renderer) -> list[Sample]:
    train = prepare_samples(records, renderer, 16_384).train  # the recipes' limit
    return [(list(sample.tokens), sample.prompt) for sample in train]


def single_replies(dataset: Path, renderer: Renderer) -> list[Sample]:
    rows = pl.read_parquet(dataset / "preferences" / "kto-train.parquet").to_dicts()
    thoughts = [row["completion"][0]["reasoning_content"] or "" for row in rows]
    messages = [row["prompt"] + row["completion"] for row in rows]
    texts = map(renderer.texts, messages, thoughts)
    return [(list(tokens), prompt) for tokens, prompt in renderer.tokenize([*texts])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tools", nargs="*", default=list(PACKAGES))
    parser.add_argument("--as-far-as-they-install", action="store_true")
    options = parser.parse_args()
    if not (FOLDER / "demo" / "dataset").exists():
        demo = ["-m", "medaction", "distill", "--preset", "demo", "--out", FOLDER / "demo"]
        subprocess.run([sys.executable, *demo], check=True)
    dataset = (FOLDER / "demo" / "dataset").resolve()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base(FOLDER / "base"))
    # A template that can think: a reply without thoughts has an empty block of them in its prompt.
    qwen3 = files("trl") / "chat_templates" / "qwen3.jinja"
    tokenizer.chat_template = qwen3.read_text(encoding="utf-8")
    tokenizer.save_pretrained(FOLDER / "base")
    renderer = Renderer(tokenizer)
    records = read_datasets(TrainSettings(data=(str(dataset),), out=FOLDER / "out"))
    pairs = read_preferences(TrainSettings(data=(str(dataset),), out=FOLDER / "out"))
    preferences = {
        "trl-dpo": samples_of(pairs, renderer),
        "trl-kto": single_replies(dataset, renderer),
    }
    samples = samples_of(records, renderer)
    line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
    failed = False
    for tool in options.tools:
        try:
            expected = preferences.get(tool, samples)
            print(try_out(tool, dataset, expected, line_break), flush=True)
        except NotInstalled as obstacle:
            print(f"{tool}: {obstacle}", file=sys.stderr, flush=True)
            failed = failed or not options.as_far_as_they_install
        except (subprocess.CalledProcessError, ValueError) as error:
            print(f"{tool}: {error}", file=sys.stderr, flush=True)
            failed = True
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
