"""One training process: what torchrun or Ray start, as many as there are devices. Reads a job,
trains, leaves checkpoints and the model.

Run by hand: torchrun --nproc_per_node 2 -m medaction.training.run OUT
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

# Before transformers and deepspeed are imported: no look-ups on the net for local folders, no CUDA
# probing where there is none.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import distributed
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from medaction.training import attention as attention_ways
from medaction.training.checkpoints import COMPLETE, REFUSAL, TRAINED, newest_checkpoint
from medaction.training.data import Sample, read_samples
from medaction.training.looks import Looks
from medaction.training.loss import LossHead
from medaction.training.loss import choose as choose_loss
from medaction.training.packing import PackedRow, Plan, packed, plan, shared_prefix
from medaction.training.progress import OF_DATASET, TrainingLog, Work, note, peak, shape_of
from medaction.training.rows import Layout, Rows
from medaction.training.schedule import schedule
from medaction.training.settings import TrainError, TrainSettings
from medaction.training.soft_prompt import add_soft_prompt, trained_prompt
from medaction.training.sweep import STEPS, has_diverged, rate_at

NEVER = 2**62
"""Steps: the trainer's own clock for checkpoints is off."""


def work(out: Path) -> None:
    """Train as the job in `out` says, from its newest whole checkpoint if there is one."""
    job = json.loads((out / "job.json").read_text())
    settings = TrainSettings.model_validate(job["settings"])
    cuda = torch.cuda.is_available()
    torch.manual_seed(settings.seed)
    if settings.zero:
        init_deepspeed(cuda)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    prepared = read_samples(out / "samples.parquet")
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and cuda)
    attention, why = attention_ways.choose(
        settings.attention,
        AutoConfig.from_pretrained(job["base"], trust_remote_code=False),
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if cuda
        else torch.device("cpu"),
        bf16,
    )
    layout = Layout(attention, shared=attention != "sdpa", padded=cuda)
    everything = (*prepared.train, *prepared.validation)
    prefix = shared_prefix(everything) if layout.shared else 0
    planned = plan(
        prepared.train,
        settings.batch,
        settings.epochs,
        processes,
        settings.row,
        settings.seed,
        prefix,
    )
    arguments = _arguments(out, settings, planned, cuda, bf16)

    attention_ways.register()
    # After TrainingArguments: under ZeRO 3 these make from_pretrained share out the weights as they
    # are loaded.
    # Frozen weights need no more than 16 bits; of trained ones DeepSpeed has masters in fp32.
    sixteen = bf16 and (settings.zero or settings.method == "lora")
    model = AutoModelForCausalLM.from_pretrained(
        job["base"],
        dtype=torch.bfloat16 if sixteen else torch.float32,
        attn_implementation=attention_ways.implementation(attention),
        use_safetensors=True,
        trust_remote_code=False,
    )
    model.config.use_cache = False
    if settings.method == "lora":
        model = _with_adapters(model, settings)
    tokenizer: Any = AutoTokenizer.from_pretrained(job["base"])
    if settings.method == "prompt":
        tokenizer = add_soft_prompt(tokenizer, settings.prompt_tokens)
        model = trained_prompt(model, tokenizer, settings)
    shape = shape_of(model)
    compute, loss_way = choose_loss(arguments.device)
    note(
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
                processes * peak(arguments.device, torch.bfloat16 if bf16 else torch.float32),
            ),
        ],
    )
    trainer.hold_out(prepared.validation, settings.row, layout, prefix)
    if settings.find_learning_rate:
        sweep(trainer, min(STEPS, len(planned.steps)))
        mark_trained(trainer, out, attention)
        return
    every = schedule(settings, prepared.train, prepared.validation).every
    trainer.add_callback(Looks(trainer, settings, every))
    checkpoint = newest_checkpoint(out)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # On all processes: under ZeRO 3 each has a part of the weights.
    trainer.save_model(str(out / ".model.building"))
    mark_trained(trainer, out, attention)


def mark_trained(trainer: Trainer, out: Path, attention: str) -> None:
    """The last step is done and the weights are written, by all processes."""
    if trainer.is_world_process_zero():
        (out / TRAINED).write_text(
            json.dumps(
                {
                    "step": trainer.state.global_step,
                    "best_step": trainer.state.best_global_step,
                    "attention": attention,
                }
            )
        )
    if distributed.is_initialized():
        distributed.barrier()


def sweep(trainer: "PackedTrainer", steps: int) -> None:
    """Train with rates that rise, until the loss shoots up; nothing is saved but the log."""
    trainer.sweep_steps = steps
    trainer.add_callback(EndSweep(steps))
    trainer.train()


def init_deepspeed(cuda: bool) -> None:
    """Join the other processes in DeepSpeed's way, alone too, without compiling any extension on a
    CPU."""
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for name, alone in (
        ("RANK", "0"),
        ("LOCAL_RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "0"),
    ):
        os.environ.setdefault(name, alone)
    import deepspeed
    import deepspeed.ops

    if not cuda:
        # Shared-memory communication would be compiled at the first use, half a minute and more.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", verbose=False)


def deepspeed_config(settings: TrainSettings, cuda: bool) -> dict[str, Any]:
    """What DeepSpeed is told; 'auto' values are filled in from the trainer's arguments."""
    zero: dict[str, Any] = {
        "stage": settings.zero,
        "contiguous_gradients": True,
        "overlap_comm": cuda,
    }
    if settings.zero == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if settings.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": cuda}
    if settings.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": cuda}
    # Torch's own AdamW, on the GPU or where the optimizer is kept: DeepSpeed's would be compiled at
    # the first use, a minute or two, and without nvcc hung there.
    adam = {"torch_adam": True, "fused": True}
    config: dict[str, Any] = {
        "zero_optimization": zero,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": "auto",
                "betas": "auto",
                "eps": "auto",
                "weight_decay": "auto",
                **adam,
            },
        },
        "bf16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
    if settings.offload != "none":
        config["zero_force_ds_cpu_optimizer"] = False
    return config


def _arguments(
    out: Path, settings: TrainSettings, planned: Plan, cuda: bool, bf16: bool
) -> TrainingArguments:
    steps = len(planned.steps)
    return TrainingArguments(
        output_dir=str(out / "checkpoints"),
        per_device_train_batch_size=1,  # a row
        gradient_accumulation_steps=planned.accumulation,
        train_sampling_strategy="sequential",  # the plan has every epoch's order
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup * steps),
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        bf16=bf16,
        use_cpu=not cuda,
        gradient_checkpointing=settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_liger_kernel=cuda and _installed("liger_kernel"),
        # The loss is computed at the targets only (PackedTrainer), so Liger's own is not wanted.
        liger_kernel_config={"fused_linear_cross_entropy": False, "cross_entropy": False},
        deepspeed=deepspeed_config(settings, cuda) if settings.zero else None,
        save_strategy="steps",
        save_steps=NEVER,  # `Looks` says when
        save_total_limit=settings.keep,
        eval_strategy="no",  # `Looks` says when
        logging_steps=1,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        report_to=settings.report_to or "none",
        run_name=settings.out.name,
        disable_tqdm=True,
        seed=settings.seed,
        ddp_find_unused_parameters=False,
    )


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _with_adapters(model: Any, settings: TrainSettings) -> Any:
    from peft import LoraConfig, get_peft_model

    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules="all-linear",
    )
    return get_peft_model(model, config)


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


class MarkComplete(TrainerCallback):
    """A checkpoint counts once every process has written its part of it."""

    def on_save(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        if distributed.is_initialized():
            distributed.barrier()
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def end_with(parent_pid: int) -> None:
    """When the run's own process was killed, nobody is left to stop this one."""

    def watch() -> None:
        while Path(f"/proc/{parent_pid}").exists():
            time.sleep(0.5)
        os._exit(1)

    if Path("/proc/self").exists():
        threading.Thread(target=watch, daemon=True).start()


def run_process(train: Callable[[Path], None]) -> None:
    """The life of a training process: `train` in the folder of the command line; what it refuses is
    left there for whoever started it."""
    folder = Path(sys.argv[1])
    end_with(int(os.environ["MEDACTION_RUN_PID"])) if "MEDACTION_RUN_PID" in os.environ else None
    try:
        train(folder)
    except TrainError as refusal:
        (folder / REFUSAL).write_text(str(refusal), encoding="utf-8")
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


if __name__ == "__main__":
    run_process(work)
