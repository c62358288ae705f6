"""The whole way as one flow: case reports to a dataset, the dataset to a model, the model to a
score.

Run as: medaction pipeline --preset tiny
"""

from typing import Any

from prefect import flow, task
from prefect.deployments import run_deployment
from prefect.runtime import deployment
from pydantic import BaseModel
from rich.table import Table

from medaction.evaluation.results import read_result, result_table
from medaction.flows.artifacts import publish_artifact
from medaction.flows.distill import distill
from medaction.flows.evaluate import evaluate
from medaction.flows.pipeline_settings import PipelineSettings
from medaction.flows.progress import console
from medaction.flows.tiny_base import TINY, tiny_base
from medaction.flows.train import train
from medaction.flows.unseen import shown
from medaction.training.curves import read_log
from medaction.training.publish import summarize
from medaction.training.settings import TrainSettings, installed
from medaction.trajectories.export import manifest_of
from medaction.words.errors import MedactionError
from medaction.words.markdown import number

STAGES: dict[str, Any] = {"distill": distill, "train": train, "evaluate": evaluate}

# `tiny_base` itself knows no Prefect: redistill and tests call it plainly.
_tiny_base = task(name="tiny base model")(tiny_base)


@flow(name="pipeline", flow_run_name="pipeline to {settings.out}", persist_result=False)
def pipeline(settings: PipelineSettings) -> dict[str, Any]:
    """Distil, train, evaluate, each as a flow run of its own that is linked to this one. A rerun
    does only what is missing.

    Where this flow was started from its deployment, the stages are started from theirs: a worker
    takes them, with this run waiting in one place of the worker and the stage in another. Started
    from the command line or Python, they run in this process. Raises RuntimeError naming the stage
    that did not complete, and, in this process, what the stage itself raises.
    """
    installed()
    distilling, training, evaluating = settings.stages()
    # Prefect sets it in runs that were started from a deployment only.
    deployed = deployment.id  # once: it asks the server
    run = _downstream if deployed else lambda stage, chosen: shown(STAGES[stage], chosen)
    links = [run("distill", distilling)]
    links += [run("train", with_base(training, settings))]
    links += [run("evaluate", evaluating)]
    results = summary(settings)
    publish_artifact(
        key="pipeline", markdown=_markdown(settings, results, links if deployed else [])
    )
    return results


def _downstream(stage: str, settings: BaseModel) -> str:
    """Run the deployment of a stage and wait for it; returns a Markdown link to its run."""
    run: Any = run_deployment(
        f"{stage}/{stage}",
        parameters={"settings": settings.model_dump(mode="json")},
        # Prefect's own is 5 s.
        poll_interval=2,
    )
    if run.state is None or not run.state.is_completed():
        ending = f"{run.state.name}: {run.state.message}" if run.state else "no state"
        raise MedactionError(
            f"{stage} did not complete (flow run {run.id}, {ending}): mend what it says, then start"
            " this again"
        )
    return f"[{stage}](/runs/flow-run/{run.id})"


def with_base(training: TrainSettings, settings: PipelineSettings) -> TrainSettings:
    """The training settings with the tiny base model made, where it is asked for."""
    if training.base != TINY:
        return training
    return training.model_copy(update={"base": str(_tiny_base(settings.out / "base"))})


def summary(settings: PipelineSettings) -> dict[str, Any]:
    """What the stages left on disk: the dataset's version, the training's result and the
    evaluation's."""
    distilling, training, evaluating = settings.stages()
    # From disk, because stages that a worker took ran in other processes.
    folder = distilling.out / "dataset"
    manifest, log = manifest_of(folder), read_log(training.out / "log.jsonl")
    dataset = {"folder": str(folder)} | {name: manifest[name] for name in ("version", "records")}
    model = {"folder": str(training.out / "model")} | summarize(log)
    return {"dataset": dataset, "model": model, "result": read_result(evaluating.out)}


def _markdown(settings: PipelineSettings, results: dict[str, Any], links: list[str]) -> str:
    dataset, model = results["dataset"], results["model"]
    runs = f"Runs: {', '.join(links)}.\n\n" if links else ""
    return (
        f"# Pipeline to {settings.out}\n\n{runs}"
        f"Dataset version {dataset['version']} with {dataset['records']} records; {model['steps']}"
        " steps of training, loss"
        f" {model['loss_first']:.3f} to {model['loss_last']:.3f}; the model is in"
        f" `{model['folder']}`.\n\n" + result_table(results["result"]).split("\n## Subsets")[0]
    )


def print_pipeline(results: dict[str, Any]) -> None:
    table = Table("stage", "result", title="Pipeline")
    dataset, model, result = results["dataset"], results["model"], results["result"]
    records = f"{dataset['records']} records in {dataset['folder']}, version {dataset['version']}"
    table.add_row("distill", records)
    losses = f"loss {model['loss_first']:.3f} to {model['loss_last']:.3f}"
    steps = f"{model['steps']} steps in {model['seconds']:.0f} s, {losses}: {model['folder']}"
    table.add_row("train", steps)
    for measure in result["scores"]:
        score = number(measure["mean"]) or "not scored"
        counts = f"({measure['scored']} of {measure['of']} rollouts scored)"
        table.add_row("evaluate", f"{measure['name']} {score} {counts}")
    console.print(table)
