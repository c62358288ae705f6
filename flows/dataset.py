"""The dataset of a run: what pruning kept, with its card."""

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
import polars as pl

from clinicians.prompts import CONTEXT_TOKENS, Message, messages
from flows.settings import DistillSettings
from flows.versions import versions
from trajectories.export import export_dataset
from trajectories.records import Style, Turn
from trajectories.store import Store

CARD = Path(__file__).with_name("dataset_card.md.j2")


def write_dataset(store: Store, settings: DistillSettings) -> int:
    """Write `out/dataset/` from the store; returns the number of records. Raises StoreError for an evaluation-only store."""
    budgets = {teacher.name: teacher.context_tokens for teacher in settings.teachers}

    def prompt(teacher: str, observation: str, turns: Sequence[Turn], t_max: int, style: Style) -> list[Message]:
        """The prompt that the teacher was given, within the budget that it had."""
        return messages(observation, turns, t_max, style, budgets.get(teacher, CONTEXT_TOKENS))

    folder = settings.out / "dataset"
    return export_dataset(store, folder, prompt, settings.validation_percent, lambda frame: _card(frame, settings))


def _card(frame: pl.DataFrame, settings: DistillSettings) -> str:
    rows = frame.group_by("teacher", "split").agg(
        pl.len().alias("records"), pl.col("case_id").n_unique().alias("cases"), pl.col("final").sum()
    )
    licences = frame.group_by(pl.col("licence").fill_null("not stated")).agg(pl.col("case_id").n_unique().alias("cases"))
    return jinja2.Template(CARD.read_text()).render(
        records=len(frame),
        cases=frame["case_id"].n_unique(),
        size="n<1K" if len(frame) < 1000 else "1K<n<10K" if len(frame) < 10_000 else "10K<n<100K",
        validation=(frame["split"] == "validation").any(),
        rows=rows.sort("teacher", "split").to_dicts(),
        licences=[
            {"licence": re.sub(r"\s+", " ", row["licence"])[:120], "cases": row["cases"]}
            for row in licences.sort("licence").to_dicts()
        ],
        settings=settings,
        versions=versions(),
    )
