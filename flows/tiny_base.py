"""A base model of a third of a million random weights, made on the spot: with it a pipeline can be
tried out where there is no GPU.

It knows nothing, and learns next to nothing in a few steps: its scores say that the way is whole,
and nothing about data or methods.
"""

import shutil
from pathlib import Path

TINY = "tiny"
"""Names this model where a base model is asked for."""

PACKAGE = Path(__file__).parent.parent
# Its words are those of the prompts and of our own tables of tests and diseases, so that a name is
# a few tokens.
TOKENIZER_TEXTS = (
    "clinicians/*.py",
    "clinicians/prompts/*.md",
    "kg/data/tests.csv",
    "kg/data/common_diseases.csv",
    "envs/data/*.txt",
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
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    learnt = ByteLevelBPETokenizer()
    files = [str(file) for pattern in TOKENIZER_TEXTS for file in sorted(PACKAGE.glob(pattern))]
    learnt.train(files, vocab_size=VOCABULARY, special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learnt._tokenizer,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHATML
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16_384,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    LlamaForCausalLM(config).save_pretrained(building)
    tokenizer.save_pretrained(building)
    building.rename(folder)
    return folder
