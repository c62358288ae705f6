"""The dataset of a run: what pruning kept, with its card."""

import re

import jinja2
import polars as pl

from clinicians.prompts import messages
from flows.settings import DistillSettings
from flows.versions import versions
from trajectories.export import export_dataset
from trajectories.store import Store

CARD = jinja2.Template(
    """---
license: other
language: [en]
task_categories: [text-generation]
tags: [medical, diagnosis, multi-turn, distillation, medaction]
size_categories: [{{ size }}]
configs:
- config_name: default
  data_files:
  - {split: train, path: train.parquet}
{% if validation %}  - {split: validation, path: validation.parquet}
{% endif %}---

# Multi-turn diagnostic turns

{{ records }} turn records from {{ cases }} cases, distilled by MedAction {{ versions.medaction }} (the open implementation of
arXiv 2605.07305) and pruned by `{{ settings.strategy }}`{% if settings.strategy == "dtc_rac" %} with a RAC threshold of {{ settings.rac_threshold }} hops{% endif %}.
One record is one turn: `messages` holds the rebuilt context (system, user) and the turn's reply (assistant), which is the only
target. Turns that pruning removed are no records; what their tests returned stays in later contexts.

| teacher | split | records | cases | turns that commit |
|---|---|---|---|---|
{% for row in rows %}| {{ row.teacher }} | {{ row.split }} | {{ row.records }} | {{ row.cases }} | {{ row.final }} |
{% endfor %}
Splits are by case. Teachers named `kg-…` are a program that reasons over a knowledge graph, not a language model: their
records teach the protocol, not medicine.

## Columns
`messages`, and for each record its `case_id`, `teacher`, `style`, `turn` of `trajectory_turns`, whether it is `final`,
`trajectory_id` (with `parent_id` and `branch_turn` for a branch), the verdict's `status`, `dtc` and `rac` (hops; empty: unknown),
the true `diagnosis`, the case's `source` and `licence`, and `environment_id`, `seed`, `settings_hash`, `prompt_version`,
`code_version`.

## Licences of the cases
{% for row in licences %}- {{ row.licence }}: {{ row.cases }} cases
{% endfor %}
## Load
```python
from datasets import load_dataset

train = load_dataset("parquet", data_files="train.parquet", split="train")
```
The `messages` column is what TRL's `SFTTrainer` takes as it is; set `assistant_only_loss=True` there.

Not for clinical use.
""",
    trim_blocks=False,
)


def write_dataset(store: Store, settings: DistillSettings) -> int:
    """Write `out/dataset/` from the store; returns the number of records. Raises StoreError for an evaluation-only store."""
    return export_dataset(store, settings.out / "dataset", messages, settings.validation_percent, lambda frame: _card(frame, settings))


def _card(frame: pl.DataFrame, settings: DistillSettings) -> str:
    rows = frame.group_by("teacher", "split").agg(
        pl.len().alias("records"), pl.col("case_id").n_unique().alias("cases"), pl.col("final").sum()
    )
    licences = frame.group_by(pl.col("licence").fill_null("not stated")).agg(pl.col("case_id").n_unique().alias("cases"))
    return CARD.render(
        records=len(frame),
        cases=frame["case_id"].n_unique(),
        size="n<1K" if len(frame) < 1000 else "1K<n<10K" if len(frame) < 10_000 else "10K<n<100K",
        validation=(frame["split"] == "validation").any(),
        rows=rows.sort("teacher", "split").to_dicts(),
        licences=[
            {"licence": re.sub(r"\s+", " ", row["licence"])[:120], "cases": row["cases"]} for row in licences.sort("licence").to_dicts()
        ],
        settings=settings,
        versions=versions(),
    )
