"""From settings to running processes: check and prepare, start, watch, and what to do when they
end.

`prepare_run` and `fit` are the two halves that the flow retries apart: a fit that died goes on
from its newest whole checkpoint.
"""

import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError

from medaction.training import estimate
from medaction.training.base import Base, positions_of, resolve
from medaction.training.checkpoints import REFUSAL, TRAINED, drop_torn_checkpoints
from medaction.training.data import (
    Prepared,
    prepare_samples,
    read_datasets,
    refuse_bent,
    refuse_beyond,
    repeats_noted,
    thinned,
    without_repeats,
    write_samples,
)
from medaction.training.packing import plan_run
from medaction.training.preference_data import (
    better_sides,
    largest_pair,
    preferences_report,
    read_preferences,
    whole_pairs,
    write_pairs,
)
from medaction.training.schedule import schedule
from medaction.training.settings import ProcessDied, TrainError, TrainSettings
from medaction.training.sweep import sweep_steps
from medaction.training.templates import Renderer
from medaction.words.processes import end_process, memory_available
from medaction.words.versions import file_hash

# Bytes of the log's end that an error shows.
LAST_WORDS = 3000

FULL_DISK = 2**24
"""Bytes that are free at most where a run that died is blamed on the disk: our choice, far below
any file of a checkpoint that could fail for it."""

PROGRAMS = {"grpo": "medaction.hub.grpo_process", "episodes": "medaction.hub.looks_process"}
"""What a training process runs where a model plays; other runs share `medaction.training.process`.
"""


@contextmanager
def lock(out: Path, node_rank: int) -> Iterator[None]:
    """One run a folder and machine. Raises TrainError when another process is at it."""
    out.mkdir(parents=True, exist_ok=True)
    # By machine: nodes share the folder, and locks over network file systems cannot be relied on.
    with (out / f"lock-{node_rank}").open("w") as file:
        try:
            # The system lets go of it when the process dies, however it dies.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainError(
                f"{out} is being trained by another process: wait for it, or take another --out"
            ) from None
        yield


def devices() -> tuple[str, int, int]:
    """('gpu' or 'cpu', how many, bytes of memory free on the fullest), without opening a GPU. Only
    GPUs that CUDA_VISIBLE_DEVICES leaves count."""
    # Not by torch: a process that has opened a GPU keeps some of its memory.
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
    free: list[int] = []
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=30)
        if listing.returncode == 0:
            free = free_memory(listing.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))
    except (FileNotFoundError, subprocess.TimeoutExpired):
        pass  # no GPU
    if free:
        return "gpu", len(free), min(free)
    return "cpu", 1, memory_available()


def free_memory(listing: str, visible: str | None) -> list[int]:
    """Bytes free on each GPU of nvidia-smi's listing (index, uuid, MiB) that `visible` names, as
    CUDA reads it: indices or the beginnings of uuids, up to the first that is neither."""
    rows = [[cell.strip() for cell in line.split(",")] for line in listing.splitlines()]
    memory = {(index, uuid): int(free) * 2**20 for index, uuid, free in rows if free.isdigit()}
    if visible is None:
        return list(memory.values())
    visible_memory = []
    for name in filter(None, map(str.strip, visible.split(","))):
        matches = [
            free
            for (index, uuid), free in memory.items()
            if name == index or (not name.isdigit() and uuid.startswith(name))
        ]
        # CUDA reads the list so: '0,x,1' is GPU 0 alone.
        if not matches:
            break
        visible_memory.append(matches[0])
    return visible_memory


def prepare_run(settings: TrainSettings) -> dict[str, Any]:
    """Check everything, tokenize, write `samples.parquet` (for dpo the pairs too) and `job.json`;
    returns the report, which `report.json` holds too.

    Raises TrainError with the remedy: data, base model, template, disk, memory, or a folder that
    holds another run.
    """
    out, prefers = settings.out, settings.objective == "dpo"
    records = read_preferences(settings) if prefers else read_datasets(settings)
    frame = records if prefers else without_repeats(records)
    base, tokenizer = base_and_tokenizer(settings)
    if settings.method == "prompt":
        from medaction.training.soft_prompt import add_soft_prompt

        tokenizer = add_soft_prompt(tokenizer, settings.prompt_tokens)
    samples = prepare_samples(frame, Renderer(tokenizer, settings.thinking), settings.max_length)
    if not settings.allow_dropped:
        refuse_bent(samples, settings.max_length, base.positions)
    refuse_beyond(samples, base.positions)
    prepared = whole_pairs(samples, settings) if prefers else thinned(samples, settings)
    processes = (settings.processes or devices()[1]) * settings.nodes
    report = prepared.report()
    if prefers:
        load = largest_pair(prepared, settings, processes)
        units = better_sides(prepared.train), better_sides(prepared.validation)
        report |= preferences_report(prepared, records)
    else:
        load = _largest_row(prepared, settings, processes)
        units = prepared.train, prepared.validation
    settings, resources = fitting_the_machine(settings, base, load)
    write_samples(prepared, out / "samples.parquet")
    if prefers:
        write_pairs(prepared, out)
    steps = settings.epochs * -(-len(units[0]) // settings.batch)
    report |= {
        "schedule": asdict(schedule(settings, *units)),
        "repeats_left_out": repeats_noted(settings) + len(records) - len(frame),
        "steps": sweep_steps(steps, settings.max_steps) if settings.find_learning_rate else steps,
        "overlong": [{"id": id_, "tokens": count} for id_, count in prepared.overlong.items()],
        "data_version": file_hash(out / "samples.parquet")[:16],
    }  # fmt: skip
    return leave_job(settings, base, report | resources)


def base_and_tokenizer(settings: TrainSettings) -> tuple[Base, Any]:
    """Raises TrainError for a base model or a tracker that is not there, and on other nodes than
    the first, which prepares for all."""
    from transformers import AutoConfig, AutoTokenizer

    if settings.node_rank:
        raise TrainError("only node 0 prepares")
    if lacking := [name for name in settings.report_to if find_spec(name) is None]:
        raise TrainError(
            f"--report-to {lacking[0]}: its package is not installed: pip install {lacking[0]}"
        )
    if settings.needs_bitsandbytes and find_spec("bitsandbytes") is None:
        raise TrainError(
            "--method qlora and --optimizer adamw-8bit need bitsandbytes, which is not installed:"
            " pip install -e '.[train]'"
        )
    base = resolve(settings.base, settings.out / "base")
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.path, trust_remote_code=False)
        config = AutoConfig.from_pretrained(base.path, trust_remote_code=False)
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise TrainError(
            f"--base {settings.base}: its tokenizer or configuration cannot be loaded"
            f" ({' '.join(str(error).split())[:300]}): the folder must have both, of a kind that"
            " transformers knows"
        ) from error
    return replace(base, positions=positions_of(config)), tokenizer


def fitting_the_machine(
    settings: TrainSettings, base: Base, load: estimate.Load
) -> tuple[TrainSettings, dict[str, Any]]:
    """The settings with what they leave open, and what the report says of the machine. Raises
    TrainError when disk or memory cannot hold the run."""
    _job_before(settings.out)  # refused for what it is, not for what would fit
    kind, count, memory = devices()
    on_machine = settings.processes or count
    processes = on_machine * settings.nodes
    a_process = memory if kind == "gpu" else memory // on_machine
    available = memory_available()

    def trial(
        candidate: TrainSettings, row: int = load.tokens
    ) -> tuple[TrainSettings, estimate.Needs | None]:
        bf16 = candidate.uses_bf16(kind == "gpu")
        part = estimate.Load(row, load.targets * row // load.tokens)
        chosen = resolved(candidate, base, processes, bf16, part, a_process)
        needs = estimate.needs(base, chosen, processes, bf16, part)
        if needs is not None:
            estimate.check_resources(needs, chosen, on_machine, memory, kind, available, row)
        return chosen, needs

    def on_device(candidate: TrainSettings, row: int) -> int:
        _, needs = trial(candidate, row)
        return needs.on_device(on_machine, kind) if needs else 0

    try:
        chosen, needs = trial(settings)
    except TrainError as error:
        fitting = estimate.what_fits(settings, load.tokens, on_device)
        raise TrainError(f"{error}. {fitting}") from None
    return chosen, {
        "processes": processes,
        "device": kind,
        "parameters": base.parameters,
        "needs": asdict(needs) if needs else None,
    }


def leave_job(settings: TrainSettings, base: Base, report: dict[str, Any]) -> dict[str, Any]:
    """Write `job.json`, which the processes read, and `report.json`; returns the report. Raises
    TrainError when the folder holds another run."""
    out, processes = settings.out, report["processes"]
    # Before job.json is replaced, which tells of the run that is there.
    same_run(out, settings, report["data_version"], processes)
    job = {
        "settings": settings.model_dump(mode="json"),
        "base": base.path,
        "thinking": bool(report["thinking"]),
        "data_version": report["data_version"],
        "processes": processes,
    }
    building = out / "job.json.building"
    building.write_text(json.dumps(job, indent=1))
    building.replace(out / "job.json")  # a kill leaves the one before, or this one
    (out / "report.json").write_text(json.dumps(report, indent=1))
    return report


def _largest_row(prepared: Prepared, settings: TrainSettings, processes: int) -> estimate.Load:
    """Of the rows that training will pack."""
    samples = prepared.train
    planned, prefix = plan_run(prepared, settings, processes, settings.attention != "sdpa")
    rows = [row for step in planned.steps for row in step if row]
    return estimate.Load(
        max(prefix + sum(len(samples[index].tokens) - prefix for index in row) for row in rows),
        max(sum(samples[index].targets for index in row) for row in rows),
    )


def resolved(
    settings: TrainSettings,
    base: Base,
    processes: int,
    bf16: bool,
    load: estimate.Load,
    memory: int,
) -> TrainSettings:
    """The settings with what they leave open: ZeRO's stage, and whether activations are computed
    again. `memory`: bytes free for a process.

    A run with checkpoints goes on in its own stage.
    """
    zero = 0 if settings.sharding == "fsdp" else settings.zero
    if zero is None:
        several = processes > 1 and not settings.needs_bitsandbytes
        zero = {"none": 2 if several else 0, "optimizer": 2, "all": 3}[settings.offload]
        # Its checkpoints are sharded by that stage, which may since have another default.
        if (job := _job_before(settings.out)) and _has_checkpoints(settings.out):
            zero = job["settings"]["zero"]
    settings = settings.model_copy(update={"zero": zero})
    if settings.gradient_checkpointing is None:
        keeping = settings.model_copy(update={"gradient_checkpointing": False})
        needs = estimate.needs(base, keeping, processes, bf16, load)
        fits = needs and needs.state + needs.activations < estimate.FITS * memory
        settings = settings.model_copy(update={"gradient_checkpointing": not fits})
    return settings


def same_run(out: Path, settings: TrainSettings, data_version: str, processes: int) -> None:
    """Raises TrainError when checkpoints in `out` were made with other settings or data, or sharded
    for other processes.

    What another run without checkpoints left is forgotten.
    """
    before = _job_before(out)
    if before is None:
        _forget(out)
        return
    old = TrainSettings.model_validate(before["settings"]).decides() | {
        "data version": before["data_version"]
    }
    new = settings.decides() | {"data version": data_version}
    if settings.zero:
        old["processes"], new["processes"] = before["processes"], processes
    # Another objective may have other settings.
    changed = [name for name in new if old.get(name) != new[name]]
    steps = [one or math.inf for one in (before["settings"].get("max_steps"), settings.max_steps)]
    if changed and _has_checkpoints(out):
        changes = ", ".join(f"{name} was {old.get(name)}, is {new[name]}" for name in changed)
        raise TrainError(
            f"{out} holds checkpoints of another run ({changes}): take another --out, or the"
            " settings"
            " of that run"
        )
    if steps[0] < steps[1]:
        (out / TRAINED).unlink(missing_ok=True)  # it stopped where it now goes on
    if changed:
        _forget(out)


def _has_checkpoints(out: Path) -> bool:
    return any((out / "checkpoints").glob("checkpoint-*"))


def _job_before(out: Path) -> dict[str, Any] | None:
    """What was begun in `out`; None where nothing says so. Raises TrainError where there are
    checkpoints all the same: they may be of any run."""
    try:
        job: dict[str, Any] = json.loads((out / "job.json").read_text())
    except (OSError, ValueError) as error:
        if _has_checkpoints(out):
            raise TrainError(
                f"{out} holds checkpoints, and nothing says of which run ({error}): take another"
                f" --out, or remove {out / 'checkpoints'} to begin anew"
            ) from None
        return None
    return job


def _forget(out: Path) -> None:
    """Of a run that left no checkpoint."""
    for remainder in (TRAINED, "log.jsonl"):
        (out / remainder).unlink(missing_ok=True)


def fit(settings: TrainSettings, tell: Callable[[dict[str, Any]], None]) -> None:
    """Start the training processes and wait; every new line of the log goes to `tell`. Goes on from
    the newest whole checkpoint; what is trained to the end is left alone.

    Raises TrainError: what a process refused. Raises ProcessDied with its last words when it died.
    """
    out = settings.out
    if settings.node_rank == 0 and (out / TRAINED).is_file():
        return
    kind, count, _ = devices()
    processes = settings.processes or count
    (out / REFUSAL).unlink(missing_ok=True)
    if settings.node_rank == 0:
        drop_torn_checkpoints(out)
    log = out / f"processes-{settings.node_rank}.txt"
    # torchrun would give each process one thread, and a process alone all of them.
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TENSORBOARD_LOGGING_DIR": str(out / "tensorboard"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{out.absolute() / 'mlflow.db'}",
        "WANDB_PROJECT": "medaction",
        "WANDB_DIR": str(out),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    } | os.environ  # what the user has set wins
    # By it a process sees that this one was killed (`process.end_with`).
    environment["MEDACTION_RUN_PID"] = str(os.getpid())
    lines = _Tail(out / "log.jsonl")  # an earlier start's lines were told by that one
    start = log.stat().st_size if log.is_file() else 0
    with log.open("ab") as words:
        command = _command(settings, kind, processes)
        running = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env=environment
        )
    try:
        while running.poll() is None:
            time.sleep(0.5)
            for line in lines.new():
                tell(line)
    finally:
        end_process(running, 20)  # should it still run: its starter is being ended
    for line in lines.new():
        tell(line)
    if running.returncode == 0:
        return
    # What a process refused is no reason to start it again.
    if (out / REFUSAL).is_file():
        raise TrainError((out / REFUSAL).read_text(encoding="utf-8"))
    # By what is free, not by words: every writer of a checkpoint has an error of its own.
    if shutil.disk_usage(out).free < FULL_DISK:
        raise TrainError(
            f"the disk of {out} is full: make room, and the same command goes on from the newest"
            " checkpoint"
        )
    with log.open("rb") as words:
        words.seek(max(start, log.stat().st_size - LAST_WORDS))
        raise ProcessDied(
            f"training ended with status {running.returncode}; the same command goes on from the"
            f" newest checkpoint. The end of {log}:\n"
            + words.read().decode(errors="replace").strip()
        )


def _command(settings: TrainSettings, kind: str, processes: int) -> list[str]:
    """What starts the training processes of this machine; with Ray, those of the cluster."""
    python, out = [sys.executable, "-m"], str(settings.out)
    program = PROGRAMS.get(
        "episodes" if settings.episodes else settings.objective, "medaction.training.process"
    )
    if settings.launcher == "ray":
        return [*python, "medaction.tasks.ray_training", out, str(processes), kind]
    if processes * settings.nodes == 1:
        return [*python, program, out]
    host, _, port = settings.rendezvous.partition(":")
    rendezvous = [
        f"--nnodes={settings.nodes}",
        f"--node-rank={settings.node_rank}",
        f"--master-addr={host}",
        f"--master-port={port}",
    ]
    return [
        *python,
        "torch.distributed.run",
        *(rendezvous if settings.nodes > 1 else ["--standalone"]),
        f"--nproc-per-node={processes}",
        "-m",
        program,
        out,
    ]


class _Tail:
    """The lines of a growing JSONL file from now on."""

    def __init__(self, file: Path):
        self.file = file
        self.place = file.stat().st_size if file.is_file() else 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self.file.is_file():
            return
        with self.file.open("rb") as data:
            data.seek(self.place)
            for line in data:
                if not line.endswith(b"\n"):
                    return  # being written
                # Only whole lines count: the rest of one is read at the next look.
                self.place += len(line)
                yield json.loads(line)
