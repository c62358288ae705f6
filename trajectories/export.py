"""The SFT dataset: one record a kept turn, its rebuilt context as the prompt, the turn's reply as the only target."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from envs.records import ClinicalEnvironment
from trajectories.records import Style, Trajectory, Turn, path_of
from trajectories.store import Store, StoreError

Prompt = Callable[[str, str, Sequence[Turn], int, Style], list[dict[str, str]]]
"""(teacher, initial observation, turns so far, t_max, style) -> chat messages: how the context of a turn is rebuilt."""

_STRING, _INT = pl.String(), pl.Int32()
SCHEMA = pl.Schema(
    {
        "id": _STRING, "messages": pl.List(pl.Struct({"role": _STRING, "content": _STRING})), "thinking": _STRING,
        "case_id": _STRING, "teacher": _STRING, "style": _STRING, "turn": _INT, "trajectory_turns": _INT,
        "final": pl.Boolean(), "trajectory_id": _STRING, "parent_id": _STRING, "branch_turn": _INT, "sample": _INT,
        "status": _STRING, "dtc": _INT, "rac": pl.Float64(), "diagnosis": _STRING, "source": _STRING,
        "licence": _STRING, "environment_id": _STRING, "seed": pl.Int64(), "settings_hash": _STRING,
        "prompt_version": _STRING, "code_version": _STRING, "split": _STRING,
    }
)  # fmt: skip


def split_of(case_id: str, validation_percent: int) -> str:
    """'train' or 'validation', by a hash of the case: all turns of a case stay together, and a case never changes sides."""
    place = int(hashlib.sha256(case_id.encode()).hexdigest()[:8], 16) % 100
    return "validation" if place < validation_percent else "train"


def dataset_records(store: Store, prompt: Prompt, validation_percent: int) -> Iterator[dict[str, Any]]:
    """A record for every stored turn that at least one path through it keeps, in the order of case, trajectory and turn.

    A turn that branches share is one record, under the trajectory that played it. A turn that pruning removed is no
    record, but what its tests returned stays in the later turns' context: that evidence was on the table when they were played.
    """
    for environment in store.environments():
        tree = store.trajectories(environment.environment_id)
        by_id = {trajectory.trajectory_id: trajectory for trajectory in tree}
        kept = _kept_turns(store, environment.environment_id)
        for trajectory in sorted(tree, key=lambda played: played.trajectory_id):
            path = path_of(trajectory, by_id)
            for turn in trajectory.turns:
                if (trajectory.trajectory_id, turn.number) in kept:
                    scores = kept[trajectory.trajectory_id, turn.number]
                    messages = [
                        *prompt(
                            trajectory.spec.teacher,
                            environment.initial_observation,
                            path[: turn.number - 1],
                            trajectory.t_max,
                            trajectory.spec.style,
                        ),
                        {"role": "assistant", "content": turn.raw},
                    ]
                    split = split_of(environment.case_id, validation_percent)
                    yield _record(environment, trajectory, turn, len(path), messages, scores) | {"split": split}


def _kept_turns(store: Store, environment_id: str) -> dict[tuple[str, int], tuple[str, int | None, float | None]]:
    rows = store.rows(
        "select fates.trajectory_id, fates.number, fates.status, scores.dtc, scores.rac"
        " from turn_fates as fates join trajectories using (trajectory_id)"
        " left join turn_scores as scores on scores.trajectory_id = fates.trajectory_id and scores.number = fates.number"
        " where fates.kept and trajectories.environment_id = ?",
        [environment_id],
    )
    return {(id_, number): (status, dtc, rac) for id_, number, status, dtc, rac in rows}


def _record(
    environment: ClinicalEnvironment,
    trajectory: Trajectory,
    turn: Turn,
    path_turns: int,
    messages: list[dict[str, str]],
    scores: tuple[str, int | None, float | None],
) -> dict[str, Any]:
    spec = trajectory.spec
    return {
        "id": f"{trajectory.trajectory_id}-{turn.number}",
        "messages": messages,
        "thinking": turn.thinking,
        "case_id": environment.case_id,
        "teacher": spec.teacher,
        "style": spec.style,
        "turn": turn.number,
        "trajectory_turns": path_turns,
        "final": turn.final_diagnosis is not None,
        "trajectory_id": trajectory.trajectory_id,
        "parent_id": spec.parent_id,
        "branch_turn": spec.branch_turn,
        "sample": spec.sample,
        "status": scores[0],
        "dtc": scores[1],
        "rac": scores[2],
        "diagnosis": environment.diagnosis,
        "source": environment.source,
        "licence": environment.licence,
        "environment_id": environment.environment_id,
        "seed": spec.seed,
        "settings_hash": spec.settings_hash,
        "prompt_version": trajectory.prompt_version,
        "code_version": trajectory.code_version,
    }


def export_dataset(
    store: Store, folder: Path, prompt: Prompt, validation_percent: int, card: Callable[[pl.DataFrame], str]
) -> int:
    """Write `folder` anew: `<split>.parquet`, `<split>.jsonl` and the card README.md. Returns the number of records.

    The folder appears whole or not at all. Raises StoreError when the store is marked evaluation-only.
    """
    if store.evaluation_only:
        raise StoreError(f"{store.path} holds evaluation-only cases (a benchmark): they are never exported as training data")
    frame = pl.DataFrame(list(dataset_records(store, prompt, validation_percent)), schema=SCHEMA)
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for split in ("train", "validation"):
        part = frame.filter(pl.col("split") == split).drop("split")
        part.write_parquet(building / f"{split}.parquet")
        part.write_ndjson(building / f"{split}.jsonl")
    (building / "README.md").write_text(card(frame), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    return len(frame)
