"""A soft prompt is all that is trained: the base model's weights stay, and any server can play what
comes out."""

from pathlib import Path

import pytest

pytest.importorskip(
    "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
)

from safetensors.torch import load_file
from transformers import AutoTokenizer

from medaction.training.soft_prompt import add_soft_prompt, soft_prompt_ids
from medaction.training.templates import Renderer
from tests.test_training_run import settings, trained
from tests.tiny_model import ASKED, CHATML, REPLY, dataset, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.train

COUNT = 16


@pytest.mark.parametrize("begin", ["", "<|im_start|>"])
def test_every_prompt_begins_with_the_soft_prompt(begin: str) -> None:
    plain = tiny_tokenizer("{{ bos_token }}" + CHATML if begin else CHATML)
    plain.bos_token = begin or None
    before, target = Renderer(plain).texts([*ASKED, REPLY])
    tokenizer = add_soft_prompt(plain, COUNT)
    prompt, same_target = Renderer(tokenizer).texts([*ASKED, REPLY])
    marks = "".join(f"<|soft-prompt-{number}|>" for number in range(COUNT))
    assert prompt == begin + marks + before.removeprefix(begin)
    assert same_target == target
    [(tokens, _)] = Renderer(tokenizer).tokenize([(prompt, same_target)])
    start = 1 if begin else 0
    assert tokens[start : start + COUNT].tolist() == soft_prompt_ids(tokenizer, COUNT)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prompt_tuning_learns_and_leaves_the_base_models_weights_alone(
    tmp_path: Path, precision: str
) -> None:
    base = tiny_model(tmp_path / "base")
    asked = settings(
        base, dataset(tmp_path / "data"), tmp_path / "out", method="prompt", prompt_tokens=COUNT,
        learning_rate=1.0, epochs=8, zero=0, save_every=None, precision=precision,
    )  # fmt: skip
    held_out = [line["eval_loss"] for line in trained(asked) if "eval_loss" in line]
    # A random model listens little to its prompt: 0.035 measured.
    assert held_out[-1] < held_out[0] - 0.01
    before, after = (load_file(at / "model.safetensors") for at in (base, asked.out / "model"))
    name = "model.embed_tokens.weight"
    old = before.pop(name)
    assert after[name][: len(old)].equal(old)
    assert len(after[name]) == len(old) + COUNT
    assert all(weight.equal(after[key]) for key, weight in before.items())
    served = AutoTokenizer.from_pretrained(asked.out / "model")
    ids = served.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    assert ids[:COUNT] == soft_prompt_ids(served, COUNT) == [*range(len(old), len(old) + COUNT)]
