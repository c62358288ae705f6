"""A tiny language model for tests of training: a byte-level tokenizer made here and random weights,
with the structure of a real one; and a dataset of a few short records."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from medaction.flows.tiny_base import CHATML, random_llama
from medaction.training.settings import TrainSettings
from tests.conftest import SAMPLES

ASKED = [
    {"role": "system", "content": "You diagnose."},
    {"role": "user", "content": "Fever for a week."},
]
Prepare = Callable[[TrainSettings], dict[str, Any]]
REPLY = {"role": "assistant", "content": '{"pivot": "which fever"}'}


def tiny_tokenizer(
    template: str | dict[str, str] | None = CHATML,
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
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    random_llama(tokenizer, hidden=32, inner=64).save_pretrained(folder)
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


def trained(settings: TrainSettings, prepare: Prepare | None = None) -> list[dict[str, Any]]:
    """The log of a run, without Prefect; its model is written."""
    from medaction.training.curves import read_log
    from medaction.training.launch import fit, prepare_run
    from medaction.training.publish import publish

    settings.out.mkdir(parents=True, exist_ok=True)
    report = (prepare or prepare_run)(settings)
    fit(settings, lambda line: None)
    publish(settings, report, {"medaction": "test"})
    return read_log(settings.out / "log.jsonl")
