"""What TRL's trainers are given whatever the objective: the model, adapters, and the arguments that
follow from the settings."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from medaction.training.run import NEVER, deepspeed_config
from medaction.training.settings import TrainSettings


def _uses_bf16(settings: TrainSettings, cuda: bool) -> bool:
    return settings.precision == "bf16" or (settings.precision == "auto" and cuda)


def load_model(base: str, settings: TrainSettings, cuda: bool) -> Any:
    """The base model from its safetensors; in fp32 unless DeepSpeed keeps the master weights."""
    bf16 = _uses_bf16(settings, cuda) and settings.zero
    model: Any = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16 if bf16 else torch.float32,
        attn_implementation="sdpa",
        use_safetensors=True,
        trust_remote_code=False,
    )
    model.config.use_cache = False
    return model


def adapter_config(settings: TrainSettings) -> Any:
    """The adapters of `--method lora`; None where all weights are trained."""
    from peft import LoraConfig

    if settings.method != "lora":
        return None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
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
        "optim": "adamw_torch_fused",
        "bf16": _uses_bf16(settings, cuda),
        "use_cpu": not cuda,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "deepspeed": deepspeed_config(settings, cuda) if settings.zero else None,
        "save_strategy": "steps",
        "save_steps": NEVER,  # `Looks` says when
        "save_total_limit": settings.keep,
        "eval_strategy": "no",  # `Looks` says when
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "seed": settings.seed,
    }
