"""One process of fine-tuning on records that also plays episodes: at every look the model plays the
held-out cases as it is then, with greedy replies.

What is played changes nothing of the training: the looks' loss alone decides which model is best.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

# First, for what it sets in the environment.
from medaction.training.process import leaving_refusals, run_process  # isort: skip

import torch
from torch import distributed

from medaction.hub.episodes import scorer_of
from medaction.hub.grpo import play_of, play_to_end, write_episode
from medaction.hub.played_looks import held_out_cases
from medaction.training.attention import implementation
from medaction.training.curves import EPISODES
from medaction.training.job import Job
from medaction.training.run import train_records


def write_replies(
    model: Any, tokenizer: Any, prompts: list[list[int]], reply_tokens: int, **sampling: Any
) -> list[list[int]]:
    """The token ids that the model writes behind each prompt, side by side."""
    width, mark = max(map(len, prompts)), tokenizer.pad_token_id or tokenizer.eos_token_id
    # Generation goes on from the end of the prompt: padding must stand before it.
    ids = torch.tensor([[mark] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    # With --compile each layer, whose cache is its own, would be compiled anew up to torch's limit,
    # and the rows of the training would then not be compiled at all.
    with torch.compiler.set_stance("force_eager"):
        written = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=reply_tokens,
            pad_token_id=mark,
            use_cache=True,
            **sampling,
        )
    replies: list[list[int]] = written[:, width:].tolist()
    return replies


def played_by(job: Job, trainer: Any) -> Callable[[], dict[str, float]]:
    """What the trainer does at every look: its model plays this process's share of the cases."""
    worlds = held_out_cases(job.out)[job.rank :: job.processes]
    scorer, settings, tokenizer = scorer_of(), job.settings, trainer.processing_class

    def write(turns: list[tuple[int, list[int]]]) -> list[list[int]]:
        prompts = [prompt for _, prompt in turns]
        model, written = trainer.model, []
        # No more tokens at a time than training has in a row.
        at_once = max(1, settings.row // (max(map(len, prompts)) + settings.reply_tokens))
        was = model.config._attn_implementation
        model.set_attn_implementation(implementation("sdpa"))  # the others are for rows
        try:
            for start in range(0, len(prompts), at_once):
                part = prompts[start : start + at_once]
                with trainer.compute_loss_context_manager():
                    reply_tokens = settings.reply_tokens
                    written += write_replies(model, tokenizer, part, reply_tokens, do_sample=False)
        finally:
            model.set_attn_implementation(was)
        return written

    def play() -> dict[str, float]:
        plays = [play_of(world, settings) for world in worlds]
        texts = play_to_end(plays, tokenizer, write)
        sums = torch.zeros(len(EPISODES) + 1, dtype=torch.float64, device=trainer.args.device)
        for one, replies in zip(plays, texts, strict=True):
            credit = asyncio.run(scorer.credit(one))
            file = job.out / f"episodes-{job.rank}.jsonl"
            write_episode(file, one, credit, replies, step=trainer.state.global_step, held_out=True)
            rewards = {name: value or 0.0 for name, value in credit.rewards.items()}
            measures = rewards | {"reward": credit.total, "well_formed": credit.well_formed}
            values = [measures[name.removeprefix("eval_")] for name in EPISODES]
            sums += torch.tensor([*values, 1.0], dtype=sums.dtype)
        if distributed.is_initialized():
            distributed.all_reduce(sums)
        *totals, count = sums.tolist()
        return {name: total / count for name, total in zip(EPISODES, totals, strict=True)}

    return play


if __name__ == "__main__":
    run_process(lambda out: leaving_refusals(partial(train_records, played_by=played_by), out))
