"""The paper's ablations (section 5.2, Figure 4) as one flow: every cell distils, trains and
evaluates; one table and one figure come out.

Run as: medaction ablate --preset tiny
"""

import functools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import polars as pl
from prefect import flow
from pydantic import BaseModel, Field, ValidationError
from rich.table import Table

from medaction.evaluation.ablation import CellRow, ablation_table, write_ablation
from medaction.evaluation.plots import save
from medaction.evaluation.results import read_result
from medaction.evaluation.scaling import draw_scaling, scaling
from medaction.flows.artifacts import publish_artifact
from medaction.flows.distill import distill
from medaction.flows.evaluate import evaluate
from medaction.flows.pipeline import with_base
from medaction.flows.pipeline_settings import PipelineSettings
from medaction.flows.progress import console
from medaction.flows.services import ray_joined
from medaction.flows.settings import DistillSettings, EvaluationSettings
from medaction.flows.train import train
from medaction.flows.unseen import shown
from medaction.llm.teacher import FREE_FORM, Teacher
from medaction.training.base import resolve
from medaction.training.curves import read_log
from medaction.training.publish import summarize
from medaction.training.settings import TrainSettings, installed
from medaction.words.versions import version_of

log = logging.getLogger("medaction")

Question = Literal["RQ1", "RQ2", "RQ3", "RQ4", "scaling"]
STRATEGIES = {"none": "no filter", "correctness": "correct only", "dtc_rac": "DTC + RAC"}

NOTE = "settings.json"
"""In the folder of a cell's stage: the settings with which it was begun."""


class AblationSettings(PipelineSettings):
    """A pipeline that is varied. A and B of the paper are its first two teachers; `distill.gold`
    writes the gold trajectories."""

    questions: list[Question] = Field(
        default=["RQ1", "RQ2", "RQ3", "RQ4"],
        min_length=1,
        description="RQ1: gold and distilled. RQ2: free-form share. RQ3: teachers, branches,"
        " filter. RQ4: pruning. scaling: the three filters at every scale.",
    )
    scales: list[int] = Field(
        default=[1000, 3200, 10_000, 17_800, 32_000],
        description="Training records of the cells of `scaling`.",
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """One configuration: what it distils, trains and evaluates, as it runs. `train` None: the base
    model itself is evaluated.

    Cells with the same settings have the same folders, so that what they share runs once. left_out:
    why it cannot run.
    """

    question: Question | Literal["experiment"]
    name: str
    distill: DistillSettings | None = None
    train: TrainSettings | None = None
    evaluate: EvaluationSettings | None = None
    left_out: str = ""


@flow(name="ablate", flow_run_name="ablate to {settings.out}", persist_result=False)
def ablate(settings: AblationSettings) -> dict[str, Any]:
    """Run every cell, one after the other, and write ablation.md, .csv, .png and .svg into
    `settings.out`, anew after each cell.

    A cell that fails is reported there, and the others go on. A rerun does what is missing: a cell
    with a result is left alone.
    """
    installed()
    # Before the cells: all of them train on the same base, and it is part of their keys.
    base = with_base(settings.stages()[1], settings).base
    planned = cells(settings, base, base_folder(base, settings.out / "base"))
    rows: list[CellRow] = []
    # One Ray for all cells, so that its processes load graphs once.
    with ExitStack() as started:

        @functools.cache
        def join_ray() -> None:
            # At the first cell that lacks something: a finished ablation starts no Ray.
            started.enter_context(ray_joined(settings.distill.workers))

        for place, cell in enumerate(planned, 1):
            console.print(f"cell {place} of {len(planned)}: {cell.question}, {cell.name}")
            rows.append(run_cell(cell, join_ray))
            # Cells still to come stand in the table too, so that it is never taken for the whole.
            waiting = [
                CellRow(later.question, later.name, "waiting", "not run yet")
                for later in planned[place:]
            ]
            files = write_ablation([*rows, *waiting], settings.evaluate.judges[0], settings.out)
    files += write_scaling(rows, settings.out)
    publish_artifact(
        key="ablation", markdown=f"# Ablation in {settings.out}\n\n{ablation_table(rows)}"
    )
    return {"rows": rows, "files": [str(file) for file in files]}


def write_scaling(rows: Sequence[CellRow], folder: Path) -> list[Path]:
    """Figure 5c of the cells of `scaling`: the points, a law a filter and measure, what more data
    is predicted to bring, two figures."""
    cells = [row for row in rows if row.question == "scaling" and row.records]
    files = []
    for measure, name in (("f1", "F1 of tests"), ("accuracy", "accuracy of diagnoses")):
        points = [
            (row.cell.rpartition(", ")[0], row.records, getattr(row, measure))
            for row in cells
            if getattr(row, measure) is not None
        ]
        if points:
            frame = pl.DataFrame(points, ["series", "records", "value"], orient="row")
            laws = folder / f"scaling_{measure}.csv"
            scaling(frame).write_csv(laws)
            files += [laws, *save(draw_scaling(frame, name), folder, f"scaling_{measure}")]
    return files


def run_cell(cell: Cell, join_ray: Callable[[], None]) -> CellRow:
    """Do what the cell lacks, and read its result. What goes wrong is the row's reason."""
    if cell.left_out or cell.evaluate is None:
        return CellRow(cell.question, cell.name, "left out", cell.left_out)
    try:
        # Told by files, so that the folder alone decides what a rerun does.
        if not (cell.evaluate.out / "result.json").exists():
            join_ray()
            if cell.distill and not (cell.distill.out / "dataset").exists():
                shown(distill, noted(cell.distill))
            if cell.train and not (cell.train.out / "model").exists():
                shown(train, noted(cell.train))
            shown(evaluate, noted(cell.evaluate))
        return scored(cell, cell.evaluate)
    except Exception as error:  # whatever it is, the other cells are to go on
        log.warning("cell %s, %s failed", cell.question, cell.name, exc_info=error)
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        return CellRow(cell.question, cell.name, "failed", why)


def scored(cell: Cell, evaluated: EvaluationSettings) -> CellRow:
    """The row of a cell that has a result."""
    result = read_result(evaluated.out)
    measures = {measure["name"]: measure for measure in result["scores"]}
    trained: dict[str, Any] = {}
    if cell.train:
        report = json.loads((cell.train.out / "report.json").read_text())
        trained = {
            "records": report["train"],
            "held_out": summarize(read_log(cell.train.out / "log.jsonl"))["held_out_after"],
        }
    names = {"precision": "precision", "recall": "recall", "f1": "f1_of_means"}
    scores = {name: measures[key]["mean"] for name, key in names.items()}
    accuracy = measures["accuracy"]
    for name, measure in (("f1", measures["f1_of_means"]), ("accuracy", accuracy)):
        scores |= {f"{name}_low": measure["low"], f"{name}_high": measure["high"]}
    return CellRow(
        cell.question, cell.name, "scored", **trained, **scores, accuracy=accuracy["mean"],
        scored=accuracy["scored"], of=accuracy["of"], unreadable=accuracy.get("unreadable"),
        folder=str(evaluated.out),
    )  # fmt: skip


# --- the cells --------------------------------------------------------------------------


def base_folder(base: str, converted: Path) -> Path:
    """The folder with the base model's weights: from the hub or converted from GGUF where it is
    none. Raises TrainError."""
    folder = Path(resolve(base, converted).path)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    # Only what training reads: hubs hold the weights in several formats, each gigabytes.
    return Path(
        snapshot_download(
            base, allow_patterns=["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]
        )
    )


def cells(settings: AblationSettings, base: str, weights: Path) -> list[Cell]:
    """All cells of the wanted questions. `base`: the base model by the name that training takes;
    `weights`: its folder."""
    makers = {"RQ1": _gold, "RQ2": _free_form, "RQ3": _diversity, "RQ4": _pruning}
    makers["scaling"] = _scaling
    maker, questions = Maker(settings, base, weights), dict.fromkeys(settings.questions)
    return [cell for question in questions for cell in makers[question](maker)]


class Maker:
    """Makes cells out of the settings that they vary."""

    def __init__(self, settings: AblationSettings, base: str, weights: Path):
        self.settings = settings
        self.stages = settings.stages()
        self.base = base
        self.weights = weights
        self.a, *others = settings.distill.teachers
        self.b = others[0] if others else None

    def cell(
        self, question: Question, name: str, teachers: Sequence[Teacher | None], **change: Any
    ) -> Cell:
        """A cell that distils from `teachers`; `change`: of the distillation, and `styles` and
        `scale` of the training."""
        if None in teachers:
            why = "there is one teacher: give a second one in distill.teachers"
            return Cell(question, name, left_out=why)
        of_training = change.keys() & {"styles", "scale"}
        training: dict[str, Any] = {key: change.pop(key) for key in of_training}
        out = self.settings.out
        change["teachers"] = list(teachers)
        distilled = placed(self.stages[0].model_copy(update=change), out / "distill")
        training |= {"base": self.base, "data": [str(distilled.out)]}
        # The distillation's folder is part of the training's key, and so of the model's folder.
        trained = placed(self.stages[1].model_copy(update=training), out / "models")
        evaluation = evaluation_of(self.settings, trained.out)
        return Cell(question, name, distilled, trained, evaluation)


def evaluation_of(settings: PipelineSettings, model: Path) -> EvaluationSettings:
    """The evaluation of the weights in a folder, all else as the settings have it."""
    served = {"model": "local", "folder": model, "gguf": None, "api_base": None}
    served["name"] = f"{model.parent.name}-{model.name}"
    tested = settings.evaluate.model.model_copy(update=served)
    evaluation = settings.stages()[2].model_copy(update={"model": tested})
    return placed(evaluation, settings.out / "evaluations")


def placed(stage: Any, folder: Path) -> Any:
    """The stage's settings with the folder that these settings have: by their key, or one of an
    earlier version, whose settings say the same once those that it did not know have their
    defaults."""
    key = settings_key(stage)
    earlier = [] if (folder / key).exists() else sorted(folder.glob(f"*/{NOTE}"))
    for note in earlier:
        with suppress(ValidationError):  # settings that are no longer there
            if settings_key(type(stage).model_validate_json(note.read_text())) == key:
                return stage.model_copy(update={"out": note.parent})
    return stage.model_copy(update={"out": folder / key})


def noted(stage: Any) -> Any:
    """The stage's settings, which from now on stand in its folder, for `placed`."""
    stage.out.mkdir(parents=True, exist_ok=True)
    (stage.out / NOTE).write_text(stage.model_dump_json(indent=1), encoding="utf-8")
    return stage


def settings_key(stage: BaseModel) -> str:
    """The same for the same work, wherever it is written and in whatever way it is computed."""
    # Else a cell would be played again on a machine with more cores.
    how = {"out", "workers", "in_flight", "call_cache", "compile"}
    return version_of(stage.model_dump(mode="json", exclude=how))


def _gold(maker: Maker) -> Iterator[Cell]:
    """RQ1: what gold trajectories teach, alone and with distilled ones."""
    untrained = evaluation_of(maker.settings, maker.weights)
    yield Cell("RQ1", "base model", evaluate=untrained)
    a, b = maker.a, maker.b
    pair = f"{a.name} + {b.name if b else 'B'}"
    if maker.settings.distill.gold is None:
        why = "no `distill.gold` is set; gold trajectories need a language model"
        yield Cell("RQ1", "gold", left_out=why)
        yield maker.cell("RQ1", f"{a.name}, without gold", [a])
        yield maker.cell("RQ1", f"{pair}, without gold", [a, b])
        return
    yield maker.cell("RQ1", "gold", [a], styles=["gold"])
    yield maker.cell("RQ1", f"gold + {a.name}", [a])
    yield maker.cell("RQ1", f"gold + {pair}", [a, b])


def _free_form(maker: Maker) -> Iterator[Cell]:
    """RQ2: without free-form rollouts, and with the paper's share of them."""
    teachers = maker.settings.distill.teachers
    for share in (0.0, FREE_FORM):
        name = f"{share:.0%} free-form"
        if all(teacher.embedded for teacher in teachers):
            why = "embedded teachers write no free-form rollouts; they need a language model"
            yield Cell("RQ2", name, left_out=why)
            continue
        changed = [
            one if one.embedded else one.model_copy(update={"free_form": share}) for one in teachers
        ]
        yield maker.cell("RQ2", name, changed)


def _diversity(maker: Maker) -> Iterator[Cell]:
    """RQ3: teachers x branches x filter."""
    a, b = maker.a, maker.b
    b_name, points = b.name if b else "B", maker.settings.distill.launch_points or 1
    pair: list[Teacher | None] = [a, b]
    groups = ((a.name, pair[:1]), (b_name, pair[1:]), (f"{a.name} + {b_name}", pair))
    branches = ((0, "no branches"), (points, "branches"))
    for strategy in ("none", "correctness"):
        for (name, teachers), (count, how) in product(groups, branches):
            label = f"{name}, {how}, {STRATEGIES[strategy]}"
            change = {"gold": None, "launch_points": count, "strategy": strategy}
            yield maker.cell("RQ3", label, teachers, **change)


def _pruning(maker: Maker) -> Iterator[Cell]:
    """RQ4: the filters on the same pool of rollouts with branches."""
    for strategy, label in STRATEGIES.items():
        yield maker.cell("RQ4", label, **_pool(maker, strategy))


def _pool(maker: Maker, strategy: str) -> dict[str, Any]:
    """What all filters are compared on: rollouts with branches of both teachers, or of the one that
    there is, without gold."""
    points = maker.settings.distill.launch_points or 1
    teachers = [maker.a, *([maker.b] if maker.b else [])]
    return {"teachers": teachers, "gold": None, "launch_points": points, "strategy": strategy}


def _scaling(maker: Maker) -> Iterator[Cell]:
    """Figure 5c: the same pool under each filter, at every scale."""
    for (strategy, label), scale in product(STRATEGIES.items(), maker.settings.scales):
        name, pool = f"{label}, {scale:,} records", _pool(maker, strategy)
        yield maker.cell("scaling", name, scale=scale, **pool)


def print_ablation(ablation: dict[str, Any]) -> bool:
    """Print the table; returns whether every cell that could run has a score."""
    table = Table("", "cell", "records", "F1", "accuracy", "scored", title="Ablation")
    for row in ablation["rows"]:
        figures = [f"{value:.3f}" if value is not None else "" for value in (row.f1, row.accuracy)]
        why = f"{row.scored} of {row.of}" if row.state == "scored" else f"{row.state}: {row.why}"
        table.add_row(row.question, row.cell, str(row.records or ""), *figures, why)
    console.print(table)
    for file in ablation["files"]:
        console.print(file)
    return all(row.state != "failed" for row in ablation["rows"])
