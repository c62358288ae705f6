"""Held-out cases that a model plays while it is fine-tuned on records (`medaction train --episodes
N`): which, and whether they can be played. The training processes run `hub.looks_process`."""

import random
from pathlib import Path

import polars as pl
from pydantic import TypeAdapter

from medaction.envs.records import ClinicalEnvironment
from medaction.hub.grpo import refuse_without_room
from medaction.training.launch import base_and_tokenizer
from medaction.training.settings import TrainError, TrainSettings
from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store

WORLDS = "held_out_cases.json"
"""In the run's folder: the environments that are played."""
_WORLDS = TypeAdapter(list[ClinicalEnvironment])


def prepare_looks(settings: TrainSettings) -> int:
    """Write the environments that are played, after the records were prepared; returns how many.

    Raises TrainError where the datasets have no held-out case or no environments.
    """
    samples = pl.read_parquet(
        settings.out / "samples.parquet", columns=["split", "case_id", "dataset"]
    )
    cases = samples.filter(pl.col("split") == "validation").unique("case_id").sort("case_id")
    worlds: list[ClinicalEnvironment] = []
    for (dataset,), held_out in cases.group_by("dataset", maintain_order=True):
        folder = Path(str(dataset)).absolute()
        # A dataset lies in its run's folder, or there in `datasets/`.
        run = next((place for place in folder.parents[:2] if (place / STORE).is_file()), None)
        if run is None:
            raise TrainError(
                f"--episodes plays the environments of the run that wrote the dataset, and {folder}"
                f" lies in no run's folder (with {STORE}): name the run's folder as --data"
            )
        with Store(run / STORE) as store:
            worlds += [
                world for world in store.environments() if world.case_id in {*held_out["case_id"]}
            ]
    if not worlds:
        raise TrainError("--episodes plays held-out cases, and there is none: leave it out")
    # Of several datasets the first would else be all that is played.
    random.Random(settings.seed).shuffle(worlds)
    worlds = worlds[: settings.episodes]
    refuse_without_room(worlds, base_and_tokenizer(settings)[1], settings)
    (settings.out / WORLDS).write_bytes(_WORLDS.dump_json(worlds))
    return len(worlds)


def held_out_cases(out: Path) -> list[ClinicalEnvironment]:
    """What `prepare_looks` wrote, for the training processes."""
    return _WORLDS.validate_json((out / WORLDS).read_bytes())
