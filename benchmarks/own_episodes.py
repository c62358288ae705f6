"""Trained models in episodes of held-out cases, by transformers alone: no server, no grammar.

Run as: python -m benchmarks.own_episodes CASES MODEL ... [--case ID or @FILE] [--out FILE]

All episodes of a model are played side by side, as training by reinforcement plays them
(medaction.hub.episodes). Intervals: 95 %, cases drawn with replacement. `--out` takes every episode
with its replies, a line each.
"""

import argparse
import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medaction.hub.episodes import Play, Scorer, environments_of, scorer_of
from medaction.hub.grpo import TEMPERATURE, play_to_end
from medaction.hub.looks_process import write_replies
from medaction.kg.bootstrap import interval
from medaction.words.id_lists import listed_ids

MEASURES = ("readable", "ended", "right", "f1", "reward")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("models", nargs="+", type=Path, help="folders with safetensors")
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--rollouts", type=int, default=1)
    parser.add_argument("--t-max", type=int, default=2)
    parser.add_argument("--reply-tokens", type=int, default=450)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    worlds = environments_of(options.cases, training=False)
    chosen = listed_ids(options.case) or [*worlds]
    print("| model | episodes | " + " | ".join(MEASURES) + " |")
    print("|---" * (2 + len(MEASURES)) + "|")
    scorer = scorer_of()
    for model in options.models:
        plays = [
            Play(worlds[case_id], options.t_max)
            for case_id in chosen
            for _ in range(options.rollouts)
        ]
        started = time.process_time()
        texts = play(plays, model, options.reply_tokens)
        rows = [asyncio.run(measured(one, scorer)) for one in plays]
        cells = [cell([row[name] for row in rows], options.rollouts) for name in MEASURES]
        print(f"| {model} | {len(rows)} | {' | '.join(cells)} |", flush=True)
        if options.out:
            seconds = {"model": str(model), "cpu_seconds": round(time.process_time() - started)}
            with options.out.open("a", encoding="utf-8") as file:
                for row, replies in zip(rows, texts, strict=True):
                    file.write(json.dumps(seconds | row | {"replies": replies}) + "\n")


def play(plays: list[Play], model: Path, reply_tokens: int) -> list[list[str]]:
    """Plays all to their end; returns the replies of each."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # In bf16 products took twice the time of fp32 on a CPU without AMX (SmolLM2, 2 threads).
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    loaded.to(device).eval()
    torch.manual_seed(0)

    def write(turns: list[tuple[int, list[int]]]) -> list[list[int]]:
        prompts = [prompt for _, prompt in turns]
        sampling = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0}
        return write_replies(loaded, tokenizer, prompts, reply_tokens, **sampling)

    return play_to_end(plays, tokenizer, write)


async def measured(one: Play, scorer: Scorer) -> dict[str, Any]:
    """`readable` is the share of replies in the grammar; an episode that has not ended is wrong."""
    score, credit = await scorer.score(one), await scorer.credit(one)
    return {
        "case_id": one.episode.environment.case_id,
        "readable": credit.well_formed,
        "ended": float(one.episode.ended),
        "right": float(bool(score.correct)),
        "f1": score.f1 or 0.0,
        "reward": credit.total,
        "credit": asdict(credit),
    }


def cell(values: list[float], rollouts: int) -> str:
    """The mean with its interval; the rollouts of a case stand side by side."""
    by_case = np.array(values).reshape(-1, rollouts).mean(axis=1)
    low, high = interval(lambda drawn: by_case[drawn].mean(axis=0), len(by_case))
    between = "" if low is None else f" ({low:.2f} to {high:.2f})"
    return f"{by_case.mean():.2f}{between}"


if __name__ == "__main__":
    main()
