"""The base model: which weights are taken, what they are, and what is refused. Only safetensors and
GGUF are read, never a pickle."""

import json
import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from medaction.training.settings import MissingInput, TrainError


@dataclass(frozen=True, slots=True)
class Base:
    """A base model as a folder of safetensors, or a name on the hub (then its size is unknown
    before the download: None).

    queries, keys: heads x head size of each. inner: the hidden size within a layer's two big
    products. positions: tokens of the longest text that it is made for; 0: it does not say.
    """

    path: str
    parameters: int | None
    hidden: int = 0
    layers: int = 0
    vocabulary: int = 0
    queries: int = 0
    keys: int = 0
    inner: int = 0
    positions: int = 0


def resolve(base: str, converted: Path) -> Base:
    """Find and check the base model; a GGUF file is turned into safetensors in the folder
    `converted`, once.

    Raises TrainError: pickled weights, no weights, not to be read.
    """
    path = Path(base).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise MissingInput(f"--base {base}: there is no such file")
        if not (converted / "config.json").is_file():
            from_gguf(path, converted)
        path = converted
    elif not path.is_dir():
        # A misspelt path must not be looked for on the hub.
        if path.is_absolute() or base.startswith((".", "~")) or base.count("/") != 1:
            raise MissingInput(
                f"--base {base}: there is no such folder, and it is no model's name (OWNER/NAME)"
                " either"
            )
        return Base(base, None)
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        pickles = sorted(
            file.name
            for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt")
            for file in path.glob(pattern)
        )
        if pickles:
            raise TrainError(
                f"{path} holds pickled weights only ({pickles[0]}): loading a pickle runs whatever"
                " code is in it."
                " Take the model's safetensors, or convert it where it is trusted:"
                " save_pretrained(..., safe_serialization=True)"
            )
        raise MissingInput(f"{path} holds no model: there are no *.safetensors")
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise TrainError(
            f"{path}/config.json cannot be read ({error}): the base model's folder is not whole"
        ) from error
    # A model of pictures and text keeps the sizes of its language model in a part of their own.
    text = config.get("text_config", config)
    parameters = sum(_parameters(file) for file in weights)
    hidden, heads = text.get("hidden_size", 0), text.get("num_attention_heads", 1)
    # Qwen3 states it: 128, where hidden / heads would be another number.
    head_size = text.get("head_dim") or hidden // heads
    return Base(
        str(path),
        parameters,
        hidden,
        text.get("num_hidden_layers", 0),
        text.get("vocab_size", 0),
        heads * head_size,
        (text.get("num_key_value_heads") or heads) * head_size,
        text.get("intermediate_size") or 4 * hidden,
    )


def _parameters(file: Path) -> int:
    """Of a safetensors file, from its header alone. Raises TrainError when it is cut short."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as tensors:
            names = tensors.keys()
            return sum(prod(tensors.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError) as error:
        raise TrainError(f"{file} is no whole safetensors file ({error}): copy it again") from error


def from_gguf(file: Path, folder: Path) -> None:
    """Write the model in a GGUF file as a folder of fp32 safetensors with its tokenizer.

    Quantized weights are dequantized: a fine base to try things out, not the model's original
    weights.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (ValueError, OSError, ImportError, KeyError) as error:
        raise TrainError(f"{file} cannot be read as a model: {error}") from error
    # The weights are ordinary ones by now; transformers would refuse to save them as quantized.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    model.save_pretrained(building)
    tokenizer.save_pretrained(building)
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)


def positions_of(config: Any) -> int:
    """Tokens of the longest text that a model of this configuration is made for; 0: it does not
    say."""
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None) or 0
    rope = getattr(text, "rope_parameters", None) or {}
    # Stretched, some state the length before and the factor (YaRN, and 'linear' and 'dynamic' in
    # the place of the length). One a kind of layer is nested.
    stretched = [
        (part.get("factor") or 1) * (part.get("original_max_position_embeddings") or length)
        for part in (rope, *rope.values())
        if isinstance(part, dict)
    ]
    return int(max(length, 0, *stretched))
