"""The training flow: a dataset and a base model in, a fine-tuned model with its card and curves
out.

Run as: medaction train --data runs/demo --base SmolLM2/ --out runs/model
"""

import base64
import json
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from rich.table import Table

from medaction.flows.artifacts import publish_artifact
from medaction.flows.held_out import refuse_contaminated
from medaction.flows.progress import ProgressArtifact, console
from medaction.flows.repositories import CheckpointUploads, upload
from medaction.flows.versions import versions
from medaction.hub.grpo import prepare_episodes
from medaction.hub.played_looks import prepare_looks
from medaction.training.curves import read_log
from medaction.training.data import dataset_folder
from medaction.training.launch import fit, lock, prepare_run
from medaction.training.publish import publish
from medaction.training.settings import NEEDED, TRL, ProcessDied, TrainSettings, installed
from medaction.training.sweep import best_rate, draw_sweep
from medaction.words.errors import MedactionError

RETRIES = 2
"""How often processes that died are started again, each time from the newest whole checkpoint."""


@flow(name="train", flow_run_name="train {settings.base} to {settings.out}", persist_result=False)
def train(settings: TrainSettings) -> dict[str, Any]:
    """Check and tokenize, train, write the model. A rerun on the same folder goes on from the
    newest whole checkpoint.

    Raises TrainError with the remedy for what is refused, and ProcessDied when the processes die
    again and again.
    """
    installed(settings.objective)
    if settings.find_learning_rate:
        # A folder of its own, so that the run itself finds none of it; ZeRO has its own schedules.
        change = {"out": settings.out / "learning-rate", "zero": 0}
        settings = settings.model_copy(update=change)
    with lock(settings.out, settings.node_rank):
        # The other machines only train: what is prepared and published is machine 0's, on the
        # shared disk.
        if settings.node_rank:
            fitting(settings, {})
            return {}
        report = preparing(settings)
        fitting(settings, report)
        if settings.find_learning_rate:
            log = read_log(settings.out / "log.jsonl")
            draw_sweep(log, settings.out / "learning-rate.png")
            return {"learning_rate": best_rate(log)}
        return publishing(settings, report)


@task(name="prepare")
def preparing(settings: TrainSettings) -> dict[str, Any]:
    with console.status("checking and tokenizing"):
        # Before anything is tokenized: it is the quickest reason to stop.
        refuse_contaminated(settings)
        plays = settings.objective == "grpo"
        report = prepare_episodes(settings) if plays else prepare_run(settings)
        played = prepare_looks(settings) if settings.episodes else 0
    if plays:
        cases, held_out, steps = report["train"], report["validation"], report["steps"]
        console.print(f"{cases} cases to play, {held_out} held out; {steps} steps")
        return report
    unit = "pairs" if settings.objective == "dpo" else "records"
    rows = [
        {"": name, unit: report[name], "cases": report[f"{name}_cases"]}
        for name in ("train", "validation")
    ]
    publish_artifact(
        key="training-data",
        table=rows,
        description=f"Tokens a record: {json.dumps(report['record'])}",
    )
    console.print(
        f"{report['train']} {unit} of {report['train_cases']} cases, {report['validation']} held"
        f" out; {report['tokens']} tokens, {100 * report['target_share']:.0f} % of them"
        f" targets; {report['steps']} steps"
    )
    if settings.earlier:
        # Fewer than asked for, where the earlier datasets have no more.
        earlier = {str(dataset_folder(Path(folder))) for folder in settings.earlier}
        count = sum(number for name, number in report["datasets"].items() if name in earlier)
        console.print(
            f"{count} records are replayed from earlier datasets,"
            f" {100 * count / report['train']:.0f} % (--replay: {100 * settings.replay:.0f} %)"
        )
    looks = report["schedule"]
    if looks["looks"] and not settings.find_learning_rate:
        console.print(
            f"{looks['looks']} looks at the held-out cases, for {100 * looks['share']:.1f} % of the"
            f" compute; at most {looks['checkpoints']} checkpoints"
            f"{'' if settings.save_every else ', and one each half hour'}"
        )
    if played:
        console.print(f"{played} held-out cases are played at each look")
    if report["repeats_left_out"]:
        console.print(
            f"{report['repeats_left_out']} turns repeat a record to the letter and are left out"
        )
    if report["overlong"]:
        console.print(
            f"[yellow]{len(report['overlong'])} records are longer than {settings.max_length}"
            " tokens and left out: report.json"
        )
        for part in report["dropped"]:
            console.print(
                f"[yellow]  {part['kind']} {part['value']}: {part['dropped']} of {part['records']}"
            )
    return report


def _died(task: Any, run: Any, state: Any) -> bool:
    """Only processes that died are started again; what is refused stays refused."""
    return isinstance(state.result(raise_on_failure=False), ProcessDied)


@task(name="fit", retries=RETRIES, retry_delay_seconds=10, retry_condition_fn=_died)
def fitting(settings: TrainSettings, report: dict[str, Any]) -> None:
    progress = ProgressArtifact("training")
    progress.show(0.0, f"{settings.base}: {report.get('steps', '?')} steps")
    # To Prefect as well as to the terminal: a deployed run has no terminal.
    log = get_run_logger()

    def tell(line: dict[str, Any]) -> None:
        words = _words_of_line(line)
        log.info(words)
        console.print(words)
        progress.show(100 * line["step"] / line["steps"], words)

    if settings.push is None:
        fit(settings, tell)
        return
    uploads = CheckpointUploads(settings.out, settings.push)

    def tell_and_send(line: dict[str, Any]) -> None:
        tell(line)
        uploads.look()

    try:
        fit(settings, tell_and_send)
    finally:
        uploads.close()


def _words_of_line(line: dict[str, Any]) -> str:
    if "note" in line:
        return str(line["note"])
    head = f"step {line['step']}/{line['steps']}, epoch {line['epoch']:.2f}: "
    held_out = any(name.startswith("eval_") for name in line)
    before, where = ("eval_", "held-out ") if held_out else ("", "")
    if before + "reward" in line:
        reward, right, readable = (
            line[before + name] for name in ("reward", "diagnosis", "well_formed")
        )
        words = (
            f"{where}reward {reward:.4f}, {100 * right:.0f} % right,"
            f" {100 * readable:.0f} % of the replies readable"
        )
        if "eval_test_f1" in line:  # beside the loss, of fine-tuning
            words = f"held-out loss {line['eval_loss']:.4f}, {words}, F1 {line['eval_test_f1']:.4f}"
        return head + words
    if before + "margin" in line:
        loss, margin, accuracy = (line[before + name] for name in ("loss", "margin", "accuracy"))
        words = f"{where}loss {loss:.4f}, margin {margin:.4f}, {100 * accuracy:.0f} % ranked right"
        return head + words
    if "eval_loss" in line:
        return f"{head}held-out loss {line['eval_loss']:.4f}"
    minutes, seconds = divmod(line["eta_s"], 60)
    speed = f"{line['tokens_per_s']:.0f} tokens/s, MFU {100 * line['mfu']:.0f} %"
    return f"{head}loss {line['loss']:.4f}, {speed}, {minutes}:{seconds:02} to go"


@task(name="publish")
def publishing(settings: TrainSettings, report: dict[str, Any]) -> dict[str, Any]:
    results = publish(settings, report, versions((*NEEDED, *TRL)))
    publish_artifact(
        key="training-result", table=[{"": name, "value": value} for name, value in results.items()]
    )
    # Inside the page: Prefect's UI cannot read files of this machine.
    picture = base64.b64encode((settings.out / "curves.png").read_bytes()).decode()
    publish_artifact(key="training-curves", markdown=f"![curves](data:image/png;base64,{picture})")
    if settings.push:
        model = settings.out / "model"
        try:
            upload(model, settings.push, "model", f"Model of {results['steps']} steps")
        except MedactionError as error:
            raise MedactionError(
                f"{error} (the model is in {model}; the same command sends it again)"
            ) from error
    return results


def print_results(out: Path, results: dict[str, Any]) -> None:
    if "learning_rate" in results:
        rate, folder = results["learning_rate"], out / "learning-rate"
        console.print(f"The loss falls fastest at --learning-rate {rate:.1e} ({folder})")
        return
    table = Table("result", "value", title="Training")
    for name, value in results.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    console.print(table)
    console.print(f"The model is in {out / 'model'}. Serve it: medaction serve {out}")
    best = out / "best"
    # A link is the same model.
    if best.is_dir() and not best.is_symlink():
        console.print(f"Before, at its lowest held-out loss: medaction serve {best}")
