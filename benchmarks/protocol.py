"""How often a model keeps to the protocol by itself: replies to held-out prompts, generated freely
(no grammar), that parse.

    python benchmarks/protocol.py --data runs/demo SmolLM2/ runs/tiny/model

The same prompts for every model, greedy, all at once. For each: replies that are one JSON object,
replies in the whole grammar, and what was wrong with the others.
"""

import argparse
import hashlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medaction.envs.reply import parse_reply
from medaction.llm.replies import MalformedReply, split_thinking


def prompts(data: Path, records: int, turn: int | None) -> list[list[dict[str, str]]]:
    """Of held-out records, at most one a case and turn, in an order that their ids draw."""
    folder = data / "dataset" if (data / "dataset").is_dir() else data
    frame = pl.read_parquet(folder / "validation.parquet")
    if turn is not None:
        frame = frame.filter(pl.col("turn") == turn)
    rows = frame.unique(["case_id", "turn"], keep="first", maintain_order=True).to_dicts()
    rows.sort(key=lambda row: hashlib.sha256(row["id"].encode()).digest())
    return [row["messages"][:-1] for row in rows[:records]]


def replies(model: Path, asked: list[list[dict[str, str]]], most: int) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    cuda = torch.cuda.is_available()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.bfloat16 if cuda else torch.float32
    )
    loaded.to("cuda" if cuda else "cpu").eval()
    texts = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for messages in asked
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(
        loaded.device
    )
    with torch.inference_mode():
        written = loaded.generate(
            **batch, max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    return tokenizer.batch_decode(
        written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
    )


def measure(texts: list[str]) -> dict[str, Any]:
    one_object = in_grammar = 0
    faults: Counter[str] = Counter()
    for text in texts:
        try:
            json.loads(split_thinking(text)[1])
            one_object += 1
        except ValueError:
            pass
        try:
            parse_reply(text, 1, False)
            in_grammar += 1
        except MalformedReply as fault:
            faults[fault.message.splitlines()[0][:100]] += 1
    return {
        "replies": len(texts),
        "one_json_object": one_object,
        "in_the_grammar": in_grammar,
        "faults": dict(faults.most_common(5)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, help="folders with safetensors")
    parser.add_argument("--data", type=Path, required=True, help="a dataset's folder, or its run's")
    parser.add_argument("--records", type=int, default=20)
    parser.add_argument("--turn", type=int, help="only prompts of this turn")
    parser.add_argument("--most", type=int, default=600, help="most tokens of a reply")
    parser.add_argument("--show", action="store_true", help="print the first reply of each model")
    given = parser.parse_args()
    asked = prompts(given.data, given.records, given.turn)
    for model in given.models:
        started = time.perf_counter()
        texts = replies(model, asked, given.most)
        print(
            json.dumps(
                {"model": str(model)}
                | measure(texts)
                | {"seconds": round(time.perf_counter() - started)},
                indent=1,
            )
        )
        if given.show:
            print(texts[0])


if __name__ == "__main__":
    main()
