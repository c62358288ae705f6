"""What the trainers are given whatever the objective: the base model, adapters, and the arguments
that follow from the settings."""

import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from medaction.training.checkpoints import SPARE_CHECKPOINTS
from medaction.training.estimate import BUCKET
from medaction.training.settings import TrainSettings
from medaction.training.templates import served_as_taught

NEVER = 2**62
"""Steps: the trainer's own clock for checkpoints is off."""


def load_base(base: str, settings: TrainSettings, cuda: bool, attention: str) -> Any:
    """The base model from its safetensors. `attention`: an implementation that transformers knows.

    Frozen weights need no more than 16 bits; of trained ones DeepSpeed has masters in fp32.
    """
    narrow = settings.uses_bf16(cuda) and (settings.zero or settings.method != "full")
    model: Any = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16 if narrow else torch.float32,
        attn_implementation=attention,
        use_safetensors=True,
        trust_remote_code=False,
        **(four_bits(settings, cuda) if settings.method == "qlora" else {}),
    )
    # Keys and values of past tokens are for generation; recomputation does not go with them.
    model.config.use_cache = False
    if settings.method == "qlora" and not cuda:
        # At the first look bitsandbytes would repack the weights for inference on a CPU, in a form
        # through which no gradient goes and which small layers cannot have.
        for layer in model.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
    return model


def load_tokenizer(base: str, thinking: bool) -> Any:
    """The base's tokenizer. Checkpoints are served with it as the model will be."""
    return served_as_taught(AutoTokenizer.from_pretrained(base), thinking)


def four_bits(settings: TrainSettings, cuda: bool) -> dict[str, Any]:
    """How the frozen linear layers are loaded in 4 bits; embeddings and head stay as they are.
    The kind of numbers, and their scales in 8 bits: Dettmers et al. 2023 (QLoRA), section 3."""
    computed_in = torch.bfloat16 if settings.uses_bf16(cuda) else torch.float32
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=computed_in,
        ),
        "device_map": {"": int(os.environ.get("LOCAL_RANK", "0")) if cuda else "cpu"},
    }


def adapter_config(settings: TrainSettings) -> LoraConfig:
    """The adapters of `--method lora` and `qlora`."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        # Twice the rank: a common rule, which keeps the update's size when the rank is changed.
        lora_alpha=2 * settings.lora_rank,
        target_modules="all-linear",
    )


def shared_arguments(out: Path, settings: TrainSettings, cuda: bool) -> dict[str, Any]:
    """The arguments of transformers' trainer that depend on no objective."""
    return {
        "output_dir": str(out / "checkpoints"),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "weight_decay": settings.weight_decay,
        "optim": "adamw_torch_fused" if settings.optimizer == "adamw" else "adamw_bnb_8bit",
        "bf16": settings.uses_bf16(cuda) and settings.sharding != "fsdp",  # its own policy has it
        "use_cpu": not cuda,
        "gradient_checkpointing": settings.gradient_checkpointing,
        # torch's older way does not go with frozen inputs and DDP.
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "deepspeed": deepspeed_config(settings, cuda) if settings.zero else None,
        "save_strategy": "steps",
        "save_steps": NEVER,  # `Looks` says when
        "save_total_limit": settings.keep + SPARE_CHECKPOINTS,
        "eval_strategy": "no",  # `Looks` says when
        "logging_steps": 1,
        # A loss that is no number must be seen: `StepLog` stops the run.
        "logging_nan_inf_filter": False,
        "report_to": settings.report_to or "none",
        "run_name": settings.out.name,
        "disable_tqdm": True,
        "seed": settings.seed,
    }


def deepspeed_config(settings: TrainSettings, cuda: bool) -> dict[str, Any]:
    """What DeepSpeed is told; 'auto' values are filled in from the trainer's arguments."""
    zero: dict[str, Any] = {
        "stage": settings.zero,
        "contiguous_gradients": True,
        "overlap_comm": cuda,
        "reduce_bucket_size": BUCKET,
    }
    if settings.zero == 3:
        # Else a checkpoint has shards only, which nothing but DeepSpeed reads.
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
    if settings.uses_bf16(cuda) and settings.sums_in_fp32:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    if settings.offload != "none":
        config["zero_force_ds_cpu_optimizer"] = False
    return config
