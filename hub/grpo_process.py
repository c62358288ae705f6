"""One process of reinforcement learning on episodes (Group Relative Policy Optimization, Shao et
al. 2024, section 4.1), through TRL's trainer: settings, checkpoints and log are those of
`medaction.training.job`. It is started by `medaction train --objective grpo`.

The model plays as `medaction evaluate` lets it play: replies in the grammar, the context rebuilt
each turn, asked again for what cannot be read. An episode's advantage is its total reward
(`medaction.envs.credit`) against the mean of its group, the `group` episodes of one case.

An episode so has several prompts, and TRL takes one prompt and one reply a member. Of each episode
one reply, drawn evenly, is trained on, refused ones among them: over the steps every reply of an
episode counts the same.
"""

import asyncio
import random
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# First, for what it sets in the environment.
from medaction.training.process import leaving_refusals, run_process  # isort: skip

from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from medaction.envs.records import ClinicalEnvironment
from medaction.hub.episodes import Scorer, scorer_of
from medaction.hub.grpo import (
    TEMPERATURE,
    play_of,
    play_to_end,
    played_cases,
    steps_per_epoch,
    write_episode,
)
from medaction.training.job import MarkComplete, open_job, train_to_end
from medaction.training.looks import Looks
from medaction.training.measure_log import MeasureLog
from medaction.training.settings import TrainSettings
from medaction.training.trainer_arguments import adapter_config, load_base, shared_arguments


@dataclass(frozen=True, slots=True)
class SampledReply:
    """Token ids of a prompt and of the reply to it; log-probabilities where vLLM wrote it."""

    prompt: list[int]
    reply: list[int]
    logprobs: list[float] | None


class Rollouts:
    """Plays the episodes of a step side by side, and writes each of them to `log`.

    TRL calls it with the prompts of a step, which are the ids of cases, `group` times each.
    """

    def __init__(
        self,
        worlds: dict[str, ClinicalEnvironment],
        settings: TrainSettings,
        tokenizer: Any,
        scorer: Scorer,
        log: Path,
    ):
        self.worlds, self.settings, self.log = worlds, settings, log
        self.tokenizer, self.scorer = tokenizer, scorer

    def __call__(self, case_ids: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        plays = [play_of(self.worlds[name], self.settings) for name in case_ids]
        replies: list[list[SampledReply]] = [[] for _ in plays]

        def write(turns: list[tuple[int, list[int]]]) -> list[list[int]]:
            prompts = [prompt for _, prompt in turns]
            # TRL's own generation, with vLLM or without: it has no public name.
            written, logprobs = trainer._generate_single_turn(prompts, None, {}, 1)
            rows = zip(turns, written, logprobs or [None] * len(turns), strict=True)
            for (number, prompt), reply, logprob in rows:
                replies[number].append(SampledReply(prompt, reply, logprob))
            return written

        texts = play_to_end(plays, self.tokenizer, write)
        step, process = trainer.state.global_step, trainer.accelerator.process_index
        # All of the episode's turns are credited, also those whose reply is not drawn below.
        credits = [asyncio.run(self.scorer.credit(play)) for play in plays]
        for play, credit, of_play in zip(plays, credits, texts, strict=True):
            # TRL calls this in looks at held-out cases too, with the model in evaluation mode.
            held_out = not trainer.model.training
            write_episode(self.log, play, credit, of_play, step=step, held_out=held_out)
        # By step: a training that goes on draws as an undisturbed one would.
        draw = random.Random(f"{self.settings.seed}/{step}/{process}")
        samples = [draw.choice(of_play) for of_play in replies]
        # Without vLLM TRL computes the log-probabilities itself.
        written_by_vllm = all(reply.logprobs is not None for reply in samples)
        return {
            "prompt_ids": [reply.prompt for reply in samples],
            "completion_ids": [reply.reply for reply in samples],
            "logprobs": [reply.logprobs for reply in samples] if written_by_vllm else None,
            "total": [credit.total for credit in credits],
            "right": [credit.rewards["diagnosis"] or 0.0 for credit in credits],
            "readable": [credit.well_formed for credit in credits],
        }


def episode_total(
    total: list[float], right: list[float], readable: list[float], log_metric: Any, **_: Any
) -> list[float]:
    """TRL's reward function: the episodes' totals, which `Rollouts` has reckoned."""
    log_metric("diagnosis", sum(right) / len(right))
    log_metric("well_formed", sum(readable) / len(readable))
    return total


def train_episodes(out: Path) -> None:
    """Train as the job in `out` says, from its newest whole checkpoint if there is one."""
    job = open_job(out)
    settings, cuda = job.settings, job.cuda
    cases = played_cases(settings)
    steps = steps_per_epoch(cases, settings)
    a_process = settings.batch // job.processes
    arguments = GRPOConfig(
        **shared_arguments(out, settings, cuda),
        per_device_train_batch_size=1,  # a reply
        gradient_accumulation_steps=a_process,
        num_train_epochs=settings.epochs,
        warmup_steps=round(settings.warmup * settings.epochs * steps),
        # Whole groups: TRL asks that it be a multiple of `num_generations`.
        per_device_eval_batch_size=a_process,
        num_generations=settings.group,
        max_completion_length=settings.reply_tokens,
        temperature=TEMPERATURE,
        use_vllm=cuda and find_spec("vllm") is not None,
        vllm_mode="colocate",
        vllm_max_model_length=settings.max_length,
    )
    # Generation goes on from the end of the prompt: padding must stand before it.
    tokenizer: Any = AutoTokenizer.from_pretrained(job.base, padding_side="left")
    trainer = GRPOTrainer(
        load_base(job.base, settings, cuda, "sdpa"),
        episode_total,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [*cases.train]}),
        eval_dataset=Dataset.from_dict({"prompt": [*cases.held_out]}) if cases.held_out else None,
        processing_class=tokenizer,
        callbacks=[MarkComplete(), MeasureLog(out / "log.jsonl", "grpo")],
        peft_config=adapter_config(settings) if settings.trains_adapters else None,
        rollout_func=Rollouts(
            cases.train | cases.held_out, settings, tokenizer, scorer_of(),
            out / f"episodes-{job.rank}.jsonl",
        ),
    )  # fmt: skip
    trainer.add_callback(Looks(trainer, settings, settings.evaluate_every or steps))
    train_to_end(trainer, job, "sdpa")


if __name__ == "__main__":
    run_process(lambda out: leaving_refusals(train_episodes, out))
