"""The trained model as a folder that others can load: safetensors, tokenizer, chat template, and a
card with data, settings and curves."""

import json
import shutil
from pathlib import Path
from typing import Any

import jinja2

from medaction.training.base import resolve
from medaction.training.checkpoints import TRAINED
from medaction.training.curves import draw_curves, read_log
from medaction.training.measures import TRL_MEASURES, draw_measures, summarize_measures
from medaction.training.settings import TrainError, TrainSettings
from medaction.training.templates import served_as_taught, stop_at

MODEL_CARD = Path(__file__).with_name("model_card.md.j2")


def publish(
    settings: TrainSettings, report: dict[str, Any], versions: dict[str, str]
) -> dict[str, Any]:
    """Write OUT/model from what the processes saved (adapters are merged and kept in OUT/adapter
    too), and OUT/best from the checkpoint with the lowest held-out loss, a link to the model where
    that is the last step; returns the run's results.

    Each folder appears whole or not at all. Raises TrainError when the saved weights are not whole.
    """
    out = settings.out
    job = json.loads((out / "job.json").read_text())
    saved = out / ".model.building"
    log = read_log(out / "log.jsonl")
    is_sft = settings.objective == "sft"
    results = summarize(log) if is_sft else summarize_measures(log, settings.objective)
    if not saved.is_dir() and (out / "model").is_dir():
        return results  # published before
    trained = json.loads((out / TRAINED).read_text())
    best = out / "checkpoints" / f"checkpoint-{trained.get('best_step')}"
    # A folder or a link: each of the two ways removes one of them.
    shutil.rmtree(out / "best", ignore_errors=True)
    (out / "best").unlink(missing_ok=True)
    if best.is_dir() and trained["best_step"] < trained["step"]:
        weights = out / ".best.building"
        shutil.rmtree(weights, ignore_errors=True)
        shutil.copytree(best, weights, ignore=_but_weights)
        if settings.method != "full":
            weights = _merged(weights, job["base"], out / ".best-merged.building", settings)
        _complete(weights, settings, report, results, versions)
        weights.rename(out / "best")
        shutil.rmtree(out / ".best.building", ignore_errors=True)
    elif trained.get("best_step") == trained["step"]:
        (out / "best").symlink_to("model")
    if settings.method != "full":
        shutil.rmtree(out / "adapter", ignore_errors=True)
        shutil.copytree(saved, out / "adapter", ignore=_but_weights)
        saved = _merged(saved, job["base"], out / ".merged.building", settings)
    _complete(saved, settings, report, results, versions)
    shutil.rmtree(out / "model", ignore_errors=True)
    saved.rename(out / "model")
    shutil.rmtree(out / ".model.building", ignore_errors=True)
    return results


def _but_weights(_folder: str, names: list[str]) -> list[str]:
    """What of a checkpoint is no part of a model: optimizer, states, shards, pickles."""
    kinds = (".safetensors", ".json", ".jinja", ".txt", ".model")
    return [name for name in names if not name.endswith(kinds) or name == "trainer_state.json"]


def _complete(
    building: Path,
    settings: TrainSettings,
    report: dict[str, Any],
    results: dict[str, Any],
    versions: dict[str, str],
) -> None:
    """Make saved weights a model that others can load: configuration, template, log and card."""
    from transformers import AutoTokenizer

    out = settings.out
    for pickle in building.glob("*.bin"):  # the trainer's arguments
        pickle.unlink()
    saved = resolve(str(building), out / "unused")
    # A tied head may be written out as a tensor of its own, or left out.
    untied = int(report["parameters"] or 0) + saved.vocabulary * saved.hidden
    sizes = (report["parameters"], untied)
    # A soft prompt may have widened the vocabulary.
    if sizes[0] is not None and saved.parameters not in sizes and settings.method != "prompt":
        raise TrainError(
            f"{building} holds {saved.parameters} parameters, the base model"
            f" {report['parameters']}: train again"
        )
    config = json.loads((building / "config.json").read_text())
    # Training switches it off; without it a server computes every token's past anew.
    config["use_cache"] = True
    (building / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    # Otherwise servers that read it decode greedily, and all rollouts of a case are the same.
    # Temperature: the paper's (appendix C).
    generation = building / "generation_config.json"
    decoding = json.loads(generation.read_text()) if generation.is_file() else {}
    # Of grpo the base's own marks are right: it was played with them.
    ends = stop_at(report.get("end_marks", ()), decoding.get("eos_token_id"))
    decoding |= {"do_sample": True, "temperature": 0.6} | ({"eos_token_id": ends} if ends else {})
    generation.write_text(json.dumps(decoding, indent=2) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(building)
    served_as_taught(tokenizer, bool(report["thinking"])).save_pretrained(building)
    shutil.copy(out / "log.jsonl", building / "training_log.jsonl")
    draw = draw_curves if settings.objective == "sft" else draw_measures
    draw(read_log(out / "log.jsonl"), building / "curves.png")
    shutil.copy(building / "curves.png", out / "curves.png")
    card = jinja2.Template(MODEL_CARD.read_text(), trim_blocks=True).render(
        settings=settings,
        settings_json=settings.model_dump_json(indent=1, exclude={"out", "data"}),
        report=report,
        results=results,
        versions=versions,
        measures=TRL_MEASURES.get(settings.objective, ()),
    )
    (building / "README.md").write_text(card, encoding="utf-8")


def _merged(adapter: Path, base: str, building: Path, settings: TrainSettings) -> Path:
    """The base model with the adapter's weights in it, written to `building`."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # In fp32: an adapter added to weights in bf16 would mostly be rounded away.
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, use_safetensors=True
    )
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    if settings.method == "prompt":
        from medaction.training.soft_prompt import add_soft_prompt, widen

        tokenizer = add_soft_prompt(tokenizer, settings.prompt_tokens)
        first_id = min(widen(model, tokenizer, settings))
        tables = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
        vocabulary = [table[:first_id].detach().clone() for table in tables]
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    if settings.method == "prompt":
        # Beside the vectors peft saves a widened table whole, in the precision of the training.
        tables = (merged.get_input_embeddings().weight, merged.get_output_embeddings().weight)
        with torch.no_grad():
            for table, rows in zip(tables, vocabulary, strict=True):
                table[:first_id] = rows
    shutil.rmtree(building, ignore_errors=True)
    merged.save_pretrained(building)
    tokenizer.save_pretrained(building)
    return building


def summarize(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses at both ends, and the speed over all steps. `held_out_*` are None without held-out
    cases."""
    steps = [line for line in log if "loss" in line]
    held_out = [line["eval_loss"] for line in log if "eval_loss" in line]
    looks = {
        line["step"]: line["eval_loss"] for line in log if line.get("eval_loss") and line["step"]
    }
    seconds = sum(line["seconds"] for line in steps)
    return {
        "steps": steps[-1]["step"],
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "held_out_before": held_out[0] if held_out else None,
        "held_out_after": held_out[-1] if held_out else None,
        "held_out_best": min(held_out[1:], default=None),
        "best_step": min(looks, default=None, key=lambda step: looks[step]),
        "tokens": sum(line["tokens"] for line in steps),
        "targets": sum(line["targets"] for line in steps),
        "seconds": round(seconds, 1),
        "tokens_per_s": round(sum(line["tokens"] for line in steps) / seconds, 1),
        "mfu": round(sum(line["mfu"] * line["seconds"] for line in steps) / seconds, 4),
    }
