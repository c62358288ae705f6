"""A base model of a third of a million random weights, made on the spot: with it a pipeline can be
tried out where there is no GPU.

It knows nothing, and learns next to nothing in a few steps: its scores say that the way is whole,
and nothing about data or methods.
"""

import shutil
from pathlib import Path
from typing import Any

TINY = "tiny"
"""Names this model where a base model is asked for."""

PACKAGE = Path(__file__).parent.parent
# Its words are those of prompts and of our own tables of tests and diseases, so that a name is a
# few tokens.
TOKENIZER_TEXTS = (
    "examples/cases/*.json",
    "envs/prompts/*.md",
    "kg/data/tests.csv",
    "kg/data/common_diseases.csv",
)
VOCABULARY = 4096

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_base(folder: Path) -> Path:
    """Write the model (safetensors, tokenizer, chat template) to `folder`, the same one every time;
    leaves one that is there alone."""
    if (folder / "config.json").is_file():
        return folder
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    learnt = ByteLevelBPETokenizer()
    files = [str(file) for pattern in TOKENIZER_TEXTS for file in sorted(PACKAGE.glob(pattern))]
    learnt.train(files, vocab_size=VOCABULARY, special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learnt._tokenizer,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHATML
    # Renamed when whole: a folder that is there is taken for the model.
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    random_llama(tokenizer, hidden=64, inner=192).save_pretrained(building)
    tokenizer.save_pretrained(building)
    building.rename(folder)
    return folder


def random_llama(
    tokenizer: Any, hidden: int, inner: int, layers: int = 2, heads: int = 4, tied: bool = True
) -> Any:
    """A Llama of seeded random weights with the tokenizer's vocabulary; two heads share a key."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=16_384,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)
