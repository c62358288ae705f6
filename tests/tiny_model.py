"""A tiny language model for tests of training: a byte-level tokenizer made here and random weights,
with the structure of a real one; and a dataset of a few short records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from medaction.flows.tiny_base import CHATML
from tests.conftest import SAMPLES

ASKED = [
    {"role": "system", "content": "You diagnose."},
    {"role": "user", "content": "Fever for a week."},
]
REPLY = {"role": "assistant", "content": '{"pivot": "which fever"}'}


def tiny_tokenizer(
    template: str | None = CHATML,
    marks: Sequence[str] = ("<|im_start|>", "<|im_end|>"),
    vocabulary: int = 2000,
) -> Any:
    """A byte-level BPE of so many tokens, learnt from the sample cases. `marks` are its special
    tokens, the last one ends a turn."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    learnt = ByteLevelBPETokenizer()
    learnt.train(
        [str(file) for file in sorted(SAMPLES.glob("*.json"))],
        vocab_size=vocabulary,
        special_tokens=[*marks],
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=learnt._tokenizer,
        eos_token=marks[-1],
        additional_special_tokens=[*marks[:-1]],
    )
    made.chat_template = template
    return made


def tiny_model(folder: Path) -> Path:
    """A Llama of two layers with grouped keys and a tied head, saved with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16_384,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def dataset(
    folder: Path, cases: int = 8, teachers: tuple[str, ...] = ("a", "b"), **change: Any
) -> Path:
    """Two records a teacher and case, the last two cases held out."""
    rows = [
        {
            "id": f"{folder.name}-{case}-{teacher}-{turn}",
            "messages": [*ASKED, REPLY | {"content": f"reply {case} {teacher} {turn}"}],
            "case_id": f"case-{case}",
            "teacher": teacher,
            "style": "schema",
            "source": "pmc",
            "thinking": "",
        }
        | change
        for case in range(cases)
        for teacher in teachers
        for turn in range(2)
    ]
    folder.mkdir(parents=True)
    frame = (
        pl.DataFrame(rows)
        if rows
        else pl.DataFrame(schema=["id", "messages", "case_id", "teacher", "style", "source"])
    )
    held_out = frame["case_id"].is_in([f"case-{cases - 1}", f"case-{cases - 2}"])
    frame.filter(~held_out).write_parquet(folder / "train.parquet")
    frame.filter(held_out).write_parquet(folder / "validation.parquet")
    return folder
