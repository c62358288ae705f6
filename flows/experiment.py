"""Do the filters make a better model? The base model, and models of three filters at equal numbers
of records of one pool, several seeds each, played on held-out cases.

Run as: medaction experiment --preset tiny
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from prefect import flow
from pydantic import Field

from medaction.evaluation.case_sets import read_set
from medaction.evaluation.plots import save
from medaction.evaluation.results import read_result
from medaction.flows.ablate import (
    STRATEGIES,
    Cell,
    base_folder,
    evaluation_of,
    noted,
    placed,
    run_cell,
)
from medaction.flows.artifacts import publish_artifact
from medaction.flows.distill import distill
from medaction.flows.pipeline import with_base
from medaction.flows.pipeline_settings import PipelineSettings
from medaction.flows.progress import console
from medaction.flows.services import ray_joined
from medaction.flows.unseen import shown
from medaction.training.data import (
    Prepared,
    prepare_samples,
    read_datasets,
    thinned,
    without_repeats,
)
from medaction.training.launch import base_and_tokenizer
from medaction.training.settings import TrainSettings, installed
from medaction.training.templates import Renderer
from medaction.words.errors import MedactionError

if TYPE_CHECKING:
    from medaction.evaluation.experiment import Pool

BASE = "base model"
SCORE_TITLES = {"correct": "accuracy", "f1": "F1 of tests"}
"""A row's field in a result -> the measure's name."""


class ExperimentSettings(PipelineSettings):
    """A pipeline whose filter is varied, all else being equal."""

    seeds: list[int] = Field(
        default=[0, 1, 2],
        min_length=1,
        description="A model is trained on each arm's records for each seed, which also chooses and"
        " orders them.",
    )
    records: int | None = Field(
        default=None,
        ge=1,
        description="Training records of each arm; fewer take only the cases on which the filters"
        " disagree most. [as many as every arm has of the cases on which they disagree]",
    )


@flow(name="experiment", flow_run_name="experiment in {settings.out}", persist_result=False)
def experiment(settings: ExperimentSettings, plan: bool = False) -> list[str]:
    """Distil the pool, choose its cases, say what can be found, then train and play every cell;
    `plan`: stop before the training. Writes experiment.md and .png into `settings.out`, anew after
    each cell; returns the cells that failed.

    A rerun does what is missing.
    """
    installed()
    # Here, because scipy does not start where torch is lacking: a server has the flow all the same.
    from medaction.evaluation.compare import by_case
    from medaction.evaluation.experiment import experiment_report, power_statement

    held_out = held_out_cases(settings)
    base = with_base(settings.stages()[1], settings).base
    weights = base_folder(base, settings.out / "base")
    # Before the pool is played, which may take days.
    common = settings.stages()[1].model_copy(update={"base": str(weights)})
    renderer = Renderer(base_and_tokenizer(common)[1], common.thinking)
    datasets = filtered(settings)
    pool, arms = planned(settings, datasets, base, renderer)
    words = [
        "# Filters at equal numbers of records\n",
        power_statement(pool, held_out, len(settings.seeds), settings.evaluate.runs),
    ]
    (settings.out / "experiment.md").write_text("\n".join(words), encoding="utf-8")
    console.print(words[-1])
    if plan:
        return []
    # The base model is trained on nothing, so that it has one seed.
    cells = {(BASE, 0): Cell("experiment", BASE, evaluate=evaluation_of(settings, weights))}
    for (arm, seed), training in arms.items():
        evaluation = evaluation_of(settings, training.out / "model")
        cells[arm, seed] = Cell("experiment", f"{arm}, seed {seed}", None, training, evaluation)
    scores: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    unreadable: dict[str, tuple[int, int]] = {}
    failed: list[str] = []
    # One Ray for all cells, so that its processes load graphs once.
    with ExitStack() as started:
        if settings.evaluate.engine != "local":
            started.enter_context(ray_joined(settings.evaluate.workers))
        for (arm, seed), cell in cells.items():
            console.print(f"{cell.name} ({len(cells)} cells in all)")
            # Ray is joined already, above.
            row = run_cell(cell, lambda: None)
            if row.state == "scored" and cell.evaluate:
                result = read_result(cell.evaluate.out)
                before, of = unreadable.get(arm, (0, 0))
                unreadable[arm] = (before + (row.unreadable or 0), of + row.of)
                for field, measure in SCORE_TITLES.items():
                    if of_case := by_case(result, field):
                        scores.setdefault(measure, {}).setdefault(arm, {})[seed] = of_case
                    else:
                        failed.append(f"{cell.name}: no case has a score of {measure}")
            else:
                failed.append(f"{cell.name}: {row.why}")
            counts = {name: f"{count} of {of}" for name, (count, of) in unreadable.items()}
            report = experiment_report(scores, counts)
            _write_report(settings, [*words, report], scores, failed)
    return failed


def _write_report(
    settings: ExperimentSettings,
    words: list[str],
    scores: Mapping[str, Mapping[str, Mapping[int, Mapping[str, float]]]],
    failed: list[str],
) -> None:
    from medaction.evaluation.experiment import draw_experiment

    if failed:
        words = [*words, "## Failed", "", *(f"* {line}" for line in failed), ""]
    (settings.out / "experiment.md").write_text("\n".join(words), encoding="utf-8")
    if scores:
        save(draw_experiment(scores), settings.out, "experiment")
    publish_artifact(key="experiment", markdown="\n".join(words))


def filtered(settings: ExperimentSettings) -> dict[str, Path]:
    """filter -> the version of the pool's dataset with what it keeps. The rollouts are the same
    ones: they are played once, and scored again for each filter."""
    # No filter is applied to a gold trajectory: it would make the arms alike.
    pool = settings.stages()[0].model_copy(update={"gold": None})
    # A folder a pool: one that other settings played would be exported with it.
    pool = placed(pool, settings.out / "pool")
    # Each filter makes a new version of one dataset: which one is whose is noted here.
    file, key = settings.out / "pool.json", pool.out.name
    earlier = json.loads(file.read_text()) if file.is_file() else {}
    if earlier.get("settings") == key:
        return {arm: Path(folder) for arm, folder in earlier["datasets"].items()}
    folders = {}
    noted(pool)
    for strategy in STRATEGIES:
        shown(distill, pool.model_copy(update={"strategy": strategy}))
        # `dataset` is a link to the newest version, and points elsewhere after the next filter.
        folders[strategy] = (pool.out / "dataset").resolve()
    datasets = {arm: str(folder) for arm, folder in folders.items()}
    file.write_text(json.dumps({"settings": key, "datasets": datasets}, indent=1))
    return folders


def planned(
    settings: ExperimentSettings, datasets: Mapping[str, Path], base: str, renderer: Renderer
) -> tuple["Pool", dict[tuple[str, int], TrainSettings]]:
    """The pool, and how each (arm, seed) is trained."""
    from medaction.evaluation.experiment import choose_pool, shared_records

    # Without the scale: the pool is chosen from all records of the arms.
    common = settings.stages()[1].model_copy(update={"base": base, "scale": None})
    prepared: dict[str, Prepared] = {}
    for arm, folder in datasets.items():
        frame = read_datasets(common.model_copy(update={"data": [str(folder)]}))
        prepared[arm] = prepare_samples(without_repeats(frame), renderer, common.max_length)
    kept = {
        arm: pl.DataFrame(
            [(s.id, s.case_id) for s in samples.train], ["id", "case_id"], orient="row"
        )
        for arm, samples in prepared.items()
    }
    pool = choose_pool(kept, settings.records)
    # Training names the cases that it leaves out, so the pool's are said by all others.
    others = {case for frame in kept.values() for case in frame["case_id"]} - {*pool.cases}
    arms: dict[tuple[str, int], TrainSettings] = {}
    for arm, folder in datasets.items():
        for seed in settings.seeds:
            change = {"data": [str(folder)], "scale": pool.records, "seed": seed}
            training = common.model_copy(update=change | {"without": sorted(others)})
            arms[arm, seed] = placed(training, settings.out / "models")
    # By the first seed: the arms differ only as far as the records that they train on do.
    taken = {}
    for arm, samples in prepared.items():
        of_pool = tuple(sample for sample in samples.train if sample.case_id not in others)
        learnt = thinned(replace(samples, train=of_pool), arms[arm, settings.seeds[0]])
        taken[arm] = frozenset(sample.id for sample in learnt.train)
    return replace(pool, shared=shared_records(taken)), arms


def held_out_cases(settings: ExperimentSettings) -> int:
    """How many cases the models will play, as far as that is known before stage 1 has checked
    them. Raises MedactionError for too few to compare models on."""
    asked = settings.evaluate
    cases = {case.case_id for case in read_set(Path(asked.cases))}
    # `only` empty: all.
    cases &= {*asked.only} or cases
    count = min(len(cases), asked.limit or len(cases))
    if count < 2:
        raise MedactionError(
            f"{asked.cases}: {count} held-out cases are left to play, and a difference of models"
            " needs two at least: see `only` and `limit` of the evaluation"
        )
    return count
