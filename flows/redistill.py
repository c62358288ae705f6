"""Distilling on a schedule, and training on: every new version of the dataset is learnt from where
the last model stood, with some of the earlier versions' records among the new ones.

Run as: medaction redistill --preset my.yaml
"""

from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import Field

from medaction.flows.artifacts import publish_artifact
from medaction.flows.pipeline_settings import Training
from medaction.flows.progress import console
from medaction.flows.runs import run_distill
from medaction.flows.settings import DistillSettings
from medaction.flows.tiny_base import TINY, tiny_base
from medaction.flows.train import train
from medaction.flows.unseen import shown
from medaction.training.curves import read_log
from medaction.training.forgetting import forgetting_table
from medaction.training.settings import TrainSettings
from medaction.trajectories.export import manifest_of


class RedistillSettings(DistillSettings):
    """A distillation that is repeated, and how its new records are learnt."""

    train: Training | None = Field(
        default=None,
        description="How a model is trained on from the last one at every new version of the"
        " dataset, into `models/` of the folder. Nothing: no model is trained. Data, folder and the"
        " earlier versions are filled in.",
    )


@flow(
    name="redistill",
    flow_run_name="redistill {settings.cases} to {settings.out}",
    persist_result=False,
)
def redistill(settings: RedistillSettings) -> dict[str, Any]:
    """Distil what is new; where that changed the dataset, train the last model on.

    The model of version N lies in `models/vN`. `forgetting.md` there compares the held-out loss on
    each version's own held-out cases before and after.
    """
    # The store records settings of a distillation alone, with which `retry` and `export` go on.
    values = settings.model_dump(exclude={"train"})
    summary = run_distill(DistillSettings.model_validate(values))
    training = next_training(settings)
    if training is None:
        if settings.train:
            console.print("No new version of the dataset: no model was trained")
        return summary
    shown(train, training)
    console.print(f"The model of this version is in {training.out / 'model'}")
    if not training.earlier:
        return summary  # the first version has nothing to forget
    log = read_log(training.out / "log.jsonl")
    if not any("eval_losses" in line for line in log):
        console.print("What it forgot is not measured: no version has held-out cases")
        return summary
    table = forgetting_table(log, "/".join(Path(training.data[0]).parts[-2:]))
    (training.out / "forgetting.md").write_text(table, encoding="utf-8")
    publish_artifact(key="forgetting", markdown=table)
    console.print(table, markup=False)
    return summary


def next_training(settings: RedistillSettings) -> TrainSettings | None:
    """How the newest version of the dataset is learnt; None: nothing is to be trained, or it was.

    The base is the model of the last version that was learnt, and the versions that it and its own
    bases learnt are the earlier ones. A training that was stopped goes on.
    """
    dataset = settings.out / "dataset"
    if settings.train is None or not (dataset / "manifest.json").is_file():
        return None
    number = manifest_of(dataset)["version"]
    models = settings.out / "models"
    # `model` is written last: a training that was stopped has none.
    learnt = sorted(
        int(folder.parent.name[1:]) for folder in models.glob("v*/model") if folder.is_dir()
    )
    if number in learnt:
        return None
    base = settings.train.base
    if learnt:
        base = str(models / f"v{learnt[-1]}" / "model")
    elif base == TINY:
        base = str(tiny_base(models / "base"))
    # Validated anew, because model_copy would check nothing.
    newest, *earlier = (f"{settings.out / 'datasets'}/v{version}" for version in (number, *learnt))
    change = {"base": base, "data": [newest], "earlier": earlier, "out": models / f"v{number}"}
    return TrainSettings.model_validate(settings.train.model_dump() | change)
