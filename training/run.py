"""Supervised training in one process: reads a job, trains on packed rows, leaves checkpoints and
the model."""

import os
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import distributed
from transformers import AutoConfig, TrainerCallback, TrainingArguments

from medaction.training import attention as attention_ways
from medaction.training.checkpoints import Writes, where_it_begins
from medaction.training.compilation import compile_layers
from medaction.training.data import Prepared, Sample, read_samples
from medaction.training.job import Job, MarkComplete, mark_trained, open_job, train_to_end
from medaction.training.looks import Looks
from medaction.training.loss import LossHead, choose_loss, liger_loads
from medaction.training.packing import PackedRow, Plan, packed, plan_run
from medaction.training.progress import (
    OF_DATASET,
    Shape,
    TrainingLog,
    Work,
    peak,
    shape_of,
    write_note,
)
from medaction.training.rows import NO_TARGET, Layout, Rows
from medaction.training.schedule import schedule
from medaction.training.settings import TrainSettings
from medaction.training.sharding import ShardedTrainer, share_out
from medaction.training.soft_prompt import add_soft_prompt, trained_prompt
from medaction.training.sweep import has_diverged, rate_at, sweep_steps
from medaction.training.templates import stop_at
from medaction.training.trainer_arguments import (
    adapter_config,
    load_base,
    load_tokenizer,
    shared_arguments,
)


def train_records(
    out: Path, played_by: Callable[[Job, Any], Callable[[], dict[str, float]]] | None = None
) -> None:
    """Train as the job in `out` says, from its newest whole checkpoint if there is one. `played_by`
    makes what else is measured at every look, where anything is."""
    job = open_job(out)
    settings = job.settings
    prepared = read_samples(out / "samples.parquet")
    attention, why = _attention(job)
    layout = Layout(attention, shared=attention != "sdpa", padded=job.cuda)
    planned, prefix = plan_run(prepared, settings, job.processes, layout.shared)
    if settings.find_learning_rate:
        count = sweep_steps(len(planned.steps), settings.max_steps)
        planned = replace(planned, steps=planned.steps[:count])
    arguments = _arguments(out, settings, planned, job.cuda)
    # After TrainingArguments: under ZeRO 3 these make from_pretrained share out the weights as they
    # are loaded.
    model, tokenizer = _model_and_tokenizer(job, attention, prepared.end_marks)
    compute, loss_way = choose_loss(arguments.device)
    write_note(
        out / "log.jsonl",
        len(planned.steps),
        f"attention: {attention} ({why}); loss: {loss_way}; {settings.shared_out_by};"
        f" activations: {'recomputed' if settings.gradient_checkpointing else 'kept'}"
        + ("; layers: compiled" if settings.compile else "")
        + where_it_begins(out),
    )
    writes = Writes()
    trainer = PackedTrainer(
        writes=writes,
        head=LossHead(model, compute),
        model=model,
        args=arguments,
        train_dataset=Rows.of(prepared.train, planned, layout),
        # A row is a batch already.
        data_collator=lambda rows: rows[0],
        processing_class=tokenizer,
        callbacks=[
            MarkComplete(writes),
            _log(job, prepared, planned, layout, shape_of(model), arguments.device),
        ],
    )
    trainer.hold_out(prepared.validation, settings.row, layout, prefix)
    trainer.measures_forgetting = bool(settings.earlier)
    if settings.find_learning_rate:
        sweep(trainer, len(planned.steps))
        mark_trained(trainer, job, attention)
        return
    if played_by:
        trainer.played = played_by(job, trainer)
    interval = schedule(settings, prepared.train, prepared.validation).every
    trainer.add_callback(Looks(trainer, settings, interval))
    train_to_end(trainer, job, attention)


def _attention(job: Job) -> tuple[str, str]:
    """(the way of attention, why)."""
    config = AutoConfig.from_pretrained(job.base, trust_remote_code=False)
    gpu = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    bf16 = job.settings.uses_bf16(job.cuda)
    device = gpu if job.cuda else torch.device("cpu")
    return attention_ways.choose_attention(job.settings.attention, config, device, bf16)


def _model_and_tokenizer(job: Job, attention: str, end_marks: AbstractSet[int]) -> tuple[Any, Any]:
    """The base model with what is trained on it."""
    settings = job.settings
    attention_ways.register()
    model = load_base(job.base, settings, job.cuda, attention_ways.implementation(attention))
    generation = model.generation_config
    generation.eos_token_id = stop_at(end_marks, generation.eos_token_id)
    tokenizer = load_tokenizer(job.base, job.thinking)
    if settings.trains_adapters:
        if settings.gradient_checkpointing:
            # Recomputation needs an input with a gradient; frozen embeddings give none.
            model.enable_input_require_grads()
        model = get_peft_model(model, adapter_config(settings))
    if settings.method == "prompt":
        tokenizer = add_soft_prompt(tokenizer, settings.prompt_tokens)
        model = trained_prompt(model, tokenizer, settings)
    if settings.compile:
        apart = settings.gradient_checkpointing or settings.sharding == "fsdp"
        compile_layers(model, bool(apart))
    if settings.sharding == "fsdp":
        share_out(model, settings.uses_bf16(job.cuda))
    return model, tokenizer


def _log(
    job: Job, prepared: Prepared, planned: Plan, layout: Layout, shape: Shape, device: torch.device
) -> TrainingLog:
    dtype = torch.bfloat16 if job.settings.uses_bf16(job.cuda) else torch.float32
    return TrainingLog(
        job.out / "log.jsonl",
        lambda step: Work.of(planned.steps[step], prepared.train, layout.shared, shape),
        planned.steps_per_epoch,
        job.processes * peak(device, dtype),
        ends_with_loss=job.settings.find_learning_rate,
    )


def sweep(trainer: "PackedTrainer", steps: int) -> None:
    """Train with rates that rise, until the loss shoots up; nothing is saved but the log."""
    trainer.sweep_steps = steps
    trainer.add_callback(EndSweep())
    trainer.train()


def _arguments(out: Path, settings: TrainSettings, planned: Plan, cuda: bool) -> TrainingArguments:
    return TrainingArguments(
        **shared_arguments(out, settings, cuda),
        per_device_train_batch_size=1,  # a row
        gradient_accumulation_steps=planned.accumulation,
        train_sampling_strategy="sequential",  # the plan has every epoch's order
        num_train_epochs=1,
        warmup_steps=round(settings.warmup * len(planned.steps)),
        use_liger_kernel=cuda and liger_loads() and not settings.compile,
        # The loss is computed at the targets only (PackedTrainer), so Liger's own is not wanted.
        liger_kernel_config={"fused_linear_cross_entropy": False, "cross_entropy": False},
        remove_unused_columns=False,
        dataloader_num_workers=0,
        # All trained weights are used in every row; looking for others costs a pass over the graph.
        ddp_find_unused_parameters=False,
    )


class PackedTrainer(ShardedTrainer):
    """transformers' Trainer on packed rows: the loss of a step is the mean over its target tokens,
    on whatever processes they are."""

    # transformers would divide the loss by the rows of a step; it is divided by its targets here.
    loss_is_scaled_for_ga = True
    measures_forgetting = False
    """Whether the loss of each dataset is logged, also where there is one alone."""
    sweep_steps = 0
    """Of a search for the learning rate; 0: the usual schedule."""

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if not self.sweep_steps:
            return super().create_scheduler(num_training_steps, optimizer)
        base, steps = self.args.learning_rate, self.sweep_steps
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer or self.optimizer, lambda step: rate_at(step, steps) / base
        )
        return self.lr_scheduler

    def __init__(self, *, head: LossHead, **options: Any):
        super().__init__(**options)
        self.head = head
        self.played: Callable[[], dict[str, float]] = dict

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.is_deepspeed_enabled:
            # Accelerate would take DeepSpeed's number all the same, with a warning.
            steps = self.args.gradient_accumulation_steps
            self.accelerator.gradient_accumulation_steps = steps

    def hold_out(
        self, samples: tuple[Sample, ...], row_tokens: int, layout: Layout, prefix: int
    ) -> None:
        """What `evaluate` looks at: no row holds records of two datasets."""
        rows: list[PackedRow] = []
        self.datasets: list[str] = []
        # In the order of their tokens, so that records of one case share a row and their beginning.
        ordered = sorted(samples, key=lambda sample: (sample.dataset, sample.tokens))
        for dataset, group in groupby(ordered, key=lambda sample: sample.dataset):
            start = next(n for n, sample in enumerate(ordered) if sample.dataset == dataset)
            part = packed([*group], row_tokens, self.args.world_size, prefix)
            rows += [tuple(start + index for index in row) for row in part]
            self.datasets += [dataset] * len(part)
        self.eval_dataset = Rows(ordered, rows, [1] * len(rows), layout)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        step_targets = inputs.pop("step_targets")
        loss = (
            self.head.loss_of(model, inputs) * self.args.world_size / step_targets
        )  # gradients are averaged over processes
        return (loss, None) if return_outputs else loss

    def evaluate(self, *unused: Any, **also_unused: Any) -> dict[str, float]:
        """Mean loss over the target tokens of the held-out cases: `eval_loss`, and where there are
        several datasets, or earlier ones, `eval_loss/NAME` of each."""
        self.model_wrapped.eval()
        names, looked_at = sorted({*self.datasets}), self.eval_dataset
        sums = torch.zeros(len(names), 2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for number in range(self.args.process_index, len(looked_at), self.args.world_size):
                row = self._prepare_inputs(looked_at[number])
                row.pop("step_targets")
                total = sums[names.index(self.datasets[number])]
                total[1] += (row["targets"] != NO_TARGET).sum()
                # The same precision as in training.
                with self.compute_loss_context_manager():
                    total[0] += self.head.loss_of(self.model_wrapped, row)
        if distributed.is_initialized():
            distributed.all_reduce(sums)
        loss, targets = sums.sum(dim=0)
        metrics = {"eval_loss": (loss / targets).item()}
        if len(names) > 1 or self.measures_forgetting:
            metrics |= {
                f"{OF_DATASET}{name}": (loss / targets).item()
                for name, (loss, targets) in zip(names, sums, strict=True)
            }
        # In the log alone: what is played decides neither the best model nor when to stop.
        self.log(metrics | self.played())
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


class EndSweep(TrainerCallback):
    """Ends a search for the learning rate once the loss has shot up."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> Any:
        if "loss" in (logs or {}):
            self.losses.append(logs["loss"])
            control.should_training_stop |= has_diverged(self.losses)
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_options: Any) -> Any:
        control.should_save = False
        return control
