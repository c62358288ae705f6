"""Supervised training in one process: reads a job, trains on packed rows, leaves checkpoints and
the model."""

import os
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from torch import distributed
from transformers import AutoConfig, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from medaction.training import attention as attention_ways
from medaction.training.data import Sample, read_samples
from medaction.training.job import MarkComplete, mark_trained, open_job, train_to_end
from medaction.training.looks import Looks
from medaction.training.loss import LossHead, choose_loss
from medaction.training.packing import PackedRow, Plan, packed, plan, shared_prefix
from medaction.training.progress import OF_DATASET, TrainingLog, Work, peak, shape_of, write_note
from medaction.training.rows import Layout, Rows
from medaction.training.schedule import schedule
from medaction.training.settings import TrainSettings
from medaction.training.soft_prompt import add_soft_prompt, trained_prompt
from medaction.training.sweep import SWEEP_STEPS, has_diverged, rate_at
from medaction.training.trainer_arguments import adapter_config, load_base, shared_arguments


def train_records(out: Path) -> None:
    """Train as the job in `out` says, from its newest whole checkpoint if there is one."""
    job = open_job(out)
    settings, cuda = job.settings, job.cuda
    prepared = read_samples(out / "samples.parquet")
    bf16 = settings.uses_bf16(cuda)
    attention, why = attention_ways.choose_attention(
        settings.attention,
        AutoConfig.from_pretrained(job.base, trust_remote_code=False),
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if cuda
        else torch.device("cpu"),
        bf16,
    )
    layout = Layout(attention, shared=attention != "sdpa", padded=cuda)
    samples = (*prepared.train, *prepared.validation)
    prefix = shared_prefix(samples) if layout.shared else 0
    planned = plan(
        prepared.train,
        settings.batch,
        settings.epochs,
        job.processes,
        settings.row,
        settings.seed,
        prefix,
    )
    arguments = _arguments(out, settings, planned, cuda)

    attention_ways.register()
    # After TrainingArguments: under ZeRO 3 these make from_pretrained share out the weights as they
    # are loaded.
    model = load_base(job.base, settings, cuda, attention_ways.implementation(attention))
    if settings.trains_adapters:
        if settings.gradient_checkpointing:
            model.enable_input_require_grads()
        model = get_peft_model(model, adapter_config(settings))
    tokenizer: Any = AutoTokenizer.from_pretrained(job.base)
    if settings.method == "prompt":
        tokenizer = add_soft_prompt(tokenizer, settings.prompt_tokens)
        model = trained_prompt(model, tokenizer, settings)
    shape = shape_of(model)
    compute, loss_way = choose_loss(arguments.device)
    write_note(
        out / "log.jsonl",
        len(planned.steps),
        f"attention: {attention} ({why}); loss: {loss_way};"
        f" {f'DeepSpeed ZeRO {settings.zero}' if settings.zero else 'no DeepSpeed'};"
        f" activations: {'recomputed' if settings.gradient_checkpointing else 'kept'}",
    )

    trainer = PackedTrainer(
        head=LossHead(model, compute),
        model=model,
        args=arguments,
        train_dataset=Rows.of(prepared.train, planned, layout),
        data_collator=lambda rows: rows[0],
        processing_class=tokenizer,
        callbacks=[
            MarkComplete(),
            TrainingLog(
                out / "log.jsonl",
                lambda step: Work.of(planned.steps[step], prepared.train, layout.shared, shape),
                planned.steps_per_epoch,
                job.processes * peak(arguments.device, torch.bfloat16 if bf16 else torch.float32),
            ),
        ],
    )
    trainer.hold_out(prepared.validation, settings.row, layout, prefix)
    if settings.find_learning_rate:
        sweep(trainer, min(SWEEP_STEPS, len(planned.steps)))
        mark_trained(trainer, job, attention)
        return
    interval = schedule(settings, prepared.train, prepared.validation).every
    trainer.add_callback(Looks(trainer, settings, interval))
    train_to_end(trainer, job, attention)


def sweep(trainer: "PackedTrainer", steps: int) -> None:
    """Train with rates that rise, until the loss shoots up; nothing is saved but the log."""
    trainer.sweep_steps = steps
    trainer.add_callback(EndSweep(steps))
    trainer.train()


def _arguments(out: Path, settings: TrainSettings, planned: Plan, cuda: bool) -> TrainingArguments:
    return TrainingArguments(
        **shared_arguments(out, settings, cuda),
        per_device_train_batch_size=1,  # a row
        gradient_accumulation_steps=planned.accumulation,
        train_sampling_strategy="sequential",  # the plan has every epoch's order
        num_train_epochs=1,
        warmup_steps=round(settings.warmup * len(planned.steps)),
        use_liger_kernel=cuda and find_spec("liger_kernel") is not None,
        # The loss is computed at the targets only (PackedTrainer), so Liger's own is not wanted.
        liger_kernel_config={"fused_linear_cross_entropy": False, "cross_entropy": False},
        remove_unused_columns=False,
        dataloader_num_workers=0,
        ddp_find_unused_parameters=False,
    )


class PackedTrainer(Trainer):
    """transformers' Trainer on packed rows: the loss of a step is the mean over its target tokens,
    on whatever processes they are."""

    loss_is_scaled_for_ga = True
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
        self.held_out = Rows(ordered, rows, [1] * len(rows), layout)

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
        several datasets `eval_loss/NAME` of each."""
        self.model_wrapped.eval()
        names = sorted({*self.datasets})
        sums = torch.zeros(len(names), 2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for number in range(self.args.process_index, len(self.held_out), self.args.world_size):
                row = self._prepare_inputs(self.held_out[number])
                row.pop("step_targets")
                total = sums[names.index(self.datasets[number])]
                total[1] += (row["targets"] != -100).sum()
                with self.compute_loss_context_manager():
                    total[0] += self.head.loss_of(self.model_wrapped, row)
        if distributed.is_initialized():
            distributed.all_reduce(sums)
        loss, targets = sums.sum(dim=0)
        metrics = {"eval_loss": (loss / targets).item()}
        if len(names) > 1:
            metrics |= {
                f"{OF_DATASET}{name}": (loss / targets).item()
                for name, (loss, targets) in zip(names, sums, strict=True)
            }
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


class EndSweep(TrainerCallback):
    """Ends a search for the learning rate after its steps, or once the loss has shot up."""

    def __init__(self, steps: int):
        self.steps = steps
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> Any:
        if "loss" in (logs or {}):
            self.losses.append(logs["loss"])
            control.should_training_stop |= has_diverged(self.losses)
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_options: Any) -> Any:
        control.should_training_stop |= state.global_step >= self.steps
        control.should_save = False
        return control
