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
from pathlib import Path
from typing import Any

# Before transformers and deepspeed are imported: no look-ups on the net for local folders, no CUDA
# probing where there is none.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import distributed
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from medaction.training.checkpoints import COMPLETE, REFUSAL, TRAINED, newest_checkpoint
from medaction.training.data import Sample, read_samples
from medaction.training.packing import (
    PER_SEQUENCE,
    Layout,
    Plan,
    Rows,
    packed,
    plan,
    register_attention,
    shared_prefix,
)
from medaction.training.progress import Shape, TrainingLog, Work, peak
from medaction.training.settings import TrainError, TrainSettings


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
    attention = _attention(settings, cuda)
    prefix = (
        shared_prefix((*prepared.train, *prepared.validation)) if attention == PER_SEQUENCE else 0
    )
    planned = plan(
        prepared.train,
        settings.batch,
        settings.epochs,
        processes,
        settings.row,
        settings.seed,
        prefix,
    )
    arguments = _arguments(out, settings, planned, cuda)

    register_attention()
    # After TrainingArguments: under ZeRO 3 these make from_pretrained share out the weights as they
    # are loaded.
    model = load_model(job["base"], settings, cuda, attention)
    shape = _shape(model)
    if settings.method == "lora":
        model = _with_adapters(model, settings)

    layout = Layout(attention, prefix)
    precision = torch.bfloat16 if arguments.bf16 else torch.float32
    trainer = PackedTrainer(
        model=model,
        args=arguments,
        train_dataset=Rows.of(prepared.train, planned, layout),
        data_collator=lambda rows: rows[0],
        processing_class=AutoTokenizer.from_pretrained(job["base"]),
        callbacks=[
            MarkComplete(),
            TrainingLog(
                out / "log.jsonl",
                [Work.of(step, prepared.train, prefix, shape) for step in planned.steps],
                planned.steps_per_epoch,
                processes * peak(arguments.device, precision),
            ),
        ],
    )
    trainer.hold_out(prepared.validation, settings.row, layout)
    trainer.add_callback(Looks(trainer, settings))
    checkpoint = newest_checkpoint(out)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    # On all processes: under ZeRO 3 each has a part of the weights.
    trainer.save_model(str(out / ".model.building"))
    mark_trained(trainer, out, attention=attention)


def mark_trained(trainer: Trainer, out: Path, **about: str) -> None:
    """The last step is done and the weights are written, by all processes."""
    if trainer.is_world_process_zero():
        (out / TRAINED).write_text(json.dumps({"step": trainer.state.global_step, **about}))
    if distributed.is_initialized():
        distributed.barrier()


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
    # On a CPU torch's own AdamW: DeepSpeed's would be compiled at the first use, two minutes.
    adam = {} if cuda else {"torch_adam": True}
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
    if not cuda and settings.offload != "none":
        config["zero_force_ds_cpu_optimizer"] = False
    return config


def uses_bf16(settings: TrainSettings, cuda: bool) -> bool:
    return settings.precision == "bf16" or (settings.precision == "auto" and cuda)


def load_model(base: str, settings: TrainSettings, cuda: bool, attention: str) -> Any:
    """The base model's weights, from safetensors alone; fp32 unless DeepSpeed keeps the master
    weights."""
    bf16 = uses_bf16(settings, cuda) and settings.zero
    model: Any = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16 if bf16 else torch.float32,
        attn_implementation=attention,
        use_safetensors=True,
        trust_remote_code=False,
    )
    model.config.use_cache = False
    return model


def common_arguments(out: Path, settings: TrainSettings, cuda: bool) -> dict[str, Any]:
    """The arguments of transformers' trainer that are the same for every objective."""
    return {
        "output_dir": str(out / "checkpoints"),
        "per_device_train_batch_size": 1,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "weight_decay": settings.weight_decay,
        "bf16": uses_bf16(settings, cuda),
        "use_cpu": not cuda,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "deepspeed": deepspeed_config(settings, cuda) if settings.zero else None,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "save_total_limit": settings.keep,
        "eval_strategy": "no",  # `Looks` says when
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "dataloader_num_workers": 0,
        "report_to": [],
        "disable_tqdm": True,
        "seed": settings.seed,
        "ddp_find_unused_parameters": False,
    }


def _arguments(out: Path, settings: TrainSettings, planned: Plan, cuda: bool) -> TrainingArguments:
    return TrainingArguments(
        **common_arguments(out, settings, cuda),  # a batch is a row
        gradient_accumulation_steps=planned.accumulation,
        train_sampling_strategy="sequential",  # the plan has every epoch's order
        num_train_epochs=1,
        warmup_steps=round(settings.warmup * len(planned.steps)),
        use_liger_kernel=cuda and _installed("liger_kernel"),
        # The loss is computed at the targets only (PackedTrainer), so Liger's own is not wanted.
        liger_kernel_config={"fused_linear_cross_entropy": False, "cross_entropy": False},
        remove_unused_columns=False,
    )


def _attention(settings: TrainSettings, cuda: bool) -> str:
    if settings.attention == "auto":
        return "flash_attention_2" if cuda and _installed("flash_attn") else PER_SEQUENCE
    if settings.attention == "flash_attention_2" and not (cuda and _installed("flash_attn")):
        raise TrainError(
            "--attention flash_attention_2 needs a GPU and the package flash-attn: leave it at auto"
        )
    return settings.attention


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _shape(model: Any) -> Shape:
    """ZeRO 3 leaves empty tensors, with their true size in ds_numel."""
    sizes = {
        name: getattr(parameter, "ds_numel", parameter.numel())
        for name, parameter in model.named_parameters()
    }
    config = model.config.get_text_config()
    head = config.vocab_size * config.hidden_size
    embeddings = head * (1 if config.tie_word_embeddings else 2)
    return Shape(
        sum(sizes.values()) - embeddings, head, config.num_hidden_layers, config.hidden_size
    )


def adapter_config(settings: TrainSettings) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules="all-linear",
    )


def _with_adapters(model: Any, settings: TrainSettings) -> Any:
    from peft import get_peft_model

    if settings.gradient_checkpointing:
        model.enable_input_require_grads()
    return get_peft_model(model, adapter_config(settings))


class PackedTrainer(Trainer):
    """transformers' Trainer on packed rows: the loss of a step is the mean over its target tokens,
    on whatever processes they are."""

    loss_is_scaled_for_ga = True

    def hold_out(self, samples: tuple[Sample, ...], row_tokens: int, layout: Layout) -> None:
        """What `evaluate` looks at."""
        rows = packed(samples, row_tokens, self.args.world_size, layout.prefix)
        self.held_out = Rows(samples, rows, [1] * len(rows), layout)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        step_targets = inputs.pop("step_targets")
        loss = (
            _summed_loss(model, inputs) * self.args.world_size / step_targets
        )  # gradients are averaged over processes
        return (loss, None) if return_outputs else loss

    def evaluate(self, *unused: Any, **also_unused: Any) -> dict[str, float]:
        """Mean loss over the target tokens of the held-out cases."""
        self.model_wrapped.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for number in range(self.args.process_index, len(self.held_out), self.args.world_size):
                row = self._prepare_inputs(self.held_out[number])
                row.pop("step_targets")
                total[1] += (row["targets"] != -100).sum()
                with self.compute_loss_context_manager():
                    total[0] += _summed_loss(self.model_wrapped, row)
        if distributed.is_initialized():
            distributed.all_reduce(total)
        metrics = {"eval_loss": (total[0] / total[1]).item()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def _summed_loss(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Cross entropy summed over the row's targets; `inputs` as `packing.tensors` makes them."""
    targets = inputs.pop("targets")
    logits = model(**inputs, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(
        logits.float(), targets, ignore_index=-100, reduction="sum"
    )


class Looks(TrainerCallback):
    """When the held-out cases are looked at: before the first step, every so many steps, and after
    the last."""

    def __init__(self, trainer: Any, settings: TrainSettings):
        """`trainer` has what is looked at as `held_out`."""
        self.trainer, self.settings = trainer, settings

    def on_train_begin(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        if state.global_step == 0 and len(self.trainer.held_out):
            self.trainer.evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **_options: Any) -> Any:
        last = state.global_step == min(self.settings.max_steps or state.max_steps, state.max_steps)
        if len(self.trainer.held_out) and (
            last or state.global_step % self.settings.evaluate_every == 0
        ):
            control.should_evaluate = True
        control.should_training_stop |= last
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
