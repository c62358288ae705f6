"""Before training on preference pairs: what `launch.prepare_run` does for records."""

import json
from dataclasses import asdict
from typing import Any

import psutil

from medaction.training import estimate
from medaction.training.base import resolve
from medaction.training.data import (
    Prepared,
    prepare_samples,
    refuse_bent,
    repeats_noted,
    write_samples,
)
from medaction.training.launch import devices, resolved, same_run
from medaction.training.preference_data import (
    better_sides,
    pairs_of,
    preferences_report,
    read_preferences,
    whole_pairs,
    write_pairs,
)
from medaction.training.schedule import schedule
from medaction.training.settings import TrainError, TrainSettings
from medaction.training.templates import Renderer
from medaction.words.versions import file_hash


def prepare_pairs(settings: TrainSettings) -> dict[str, Any]:
    """Check everything, tokenize, write the pairs and `job.json`; returns the report, which
    `report.json` holds too.

    Raises TrainError with the remedy, as `launch.prepare_run` does.
    """
    from transformers import AutoTokenizer

    out = settings.out
    records = read_preferences(settings)
    base = resolve(settings.base, out / "base")
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise TrainError(
            f"--base {settings.base}: its tokenizer cannot be loaded ({str(error).splitlines()[0]})"
        ) from error
    renderer = Renderer(tokenizer, settings.thinking)
    everything = prepare_samples(records, renderer, settings.max_length)
    if not settings.allow_dropped:
        refuse_bent(everything, settings.max_length)
    prepared = whole_pairs(everything, settings)
    kind, count, memory = devices()
    processes = (settings.processes or count) * settings.nodes
    if settings.batch % processes:
        raise TrainError(
            f"--batch {settings.batch} pairs cannot be shared out among {processes} processes: take"
            " a multiple"
        )
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and kind == "gpu")
    report = prepared.report() | preferences_report(prepared, records)
    load = largest_pair(prepared)
    on_machine = settings.processes or count
    a_process = memory if kind == "gpu" else memory // on_machine
    settings = resolved(settings, base, processes, bf16, load, a_process)
    needs = estimate.needs(base, settings, processes, bf16, load)
    if needs is not None:
        available = psutil.virtual_memory().available
        estimate.check_resources(needs, settings, on_machine, memory, kind, available)
    shown = better_sides(prepared.train), better_sides(prepared.validation)
    write_samples(prepared, out / "samples.parquet")
    write_pairs(prepared, out)
    report |= {
        "schedule": asdict(schedule(settings, *shown)),
        "repeats_left_out": repeats_noted(settings),
        "steps": settings.epochs * -(-report["train"] // settings.batch),
        "processes": processes, "device": kind, "parameters": base.parameters,
        "needs": asdict(needs) if needs else None,
        "overlong": [asdict(dropped) for dropped in prepared.overlong],
        "data_version": file_hash(out / "samples.parquet")[:16],
    }  # fmt: skip
    same_run(out, settings, report["data_version"], processes)
    job = {
        "settings": settings.model_dump(mode="json"),
        "base": base.path,
        "data_version": report["data_version"],
        "processes": processes,
    }
    (out / "job.json").write_text(json.dumps(job, indent=1))
    (out / "report.json").write_text(json.dumps(report, indent=1))
    return report


def largest_pair(prepared: Prepared) -> estimate.Load:
    """What goes through a process at once: two sequences, padded to the longer."""
    loads = [
        (max(len(pair.chosen.tokens), len(pair.rejected.tokens)), pair)
        for pair in pairs_of(prepared.train)
    ]
    return estimate.Load(
        2 * max(longest for longest, _ in loads),
        max(pair.chosen.targets + pair.rejected.targets for _, pair in loads),
    )
