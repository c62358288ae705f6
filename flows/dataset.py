"""The dataset of a run: what pruning kept, as numbered versions, each with its card, plots,
checksums and licences."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from medaction.envs.prompts import messages
from medaction.envs.turns import Style, Turn
from medaction.flows.settings import DistillSettings
from medaction.flows.summary import REPORT_QUERIES, notes_of
from medaction.flows.versions import versions
from medaction.llm.calls import Message
from medaction.llm.teacher import CONTEXT_TOKENS
from medaction.trajectories.export import Version, export_dataset
from medaction.trajectories.records import now
from medaction.trajectories.store import Store
from medaction.words.errors import MedactionError

DATASET_CARD = Path(__file__).with_name("dataset_card.md.j2")


def write_dataset(store: Store, settings: DistillSettings) -> Version:
    """Write the next version of `out/dataset` from the store, if anything has changed. Raises
    StoreError for an evaluation-only store."""
    budgets = {teacher.name: teacher.context_tokens for teacher in settings.teachers}

    def prompt(
        teacher: str, observation: str, turns: Sequence[Turn], t_max: int, style: Style
    ) -> list[Message]:
        """The prompt that the teacher was given, within the budget that it had."""
        return messages(observation, turns, t_max, style, budgets.get(teacher) or CONTEXT_TOKENS)

    def card(folder: Path, records: pl.DataFrame, version: int) -> dict[str, Any]:
        packages = versions()
        settings_json = json.loads(settings.model_dump_json(exclude={"out", "only", "limit"}))
        text = _card(store, folder, records, version, settings, packages)
        (folder / "README.md").write_text(text, encoding="utf-8")
        repeats = {f"{teacher} ({style})": count for teacher, style, count, _ in _repeats(store)}
        about = {"made": now(), "settings": settings_json, "versions": packages}
        return about | {"repeats_left_out": repeats}

    return export_dataset(store, settings.out, prompt, settings.validation_percent, card)


def _repeats(store: Store) -> list[tuple[str, str, int, int]]:
    """(teacher, style, repeats, cases) of what was written several times and stands once."""
    return store.rows(REPORT_QUERIES["Repeats"].sql)


def _card(
    store: Store,
    folder: Path,
    records: pl.DataFrame,
    version: int,
    settings: DistillSettings,
    packages: dict[str, str],
) -> str:
    rows = records.group_by("teacher", "style", "split").agg(
        pl.len().alias("records"),
        pl.col("case_id").n_unique().alias("cases"),
        pl.col("final").sum(),
    )
    licences = records.group_by(pl.col("licence").fill_null("not stated")).agg(
        pl.col("case_id").n_unique().alias("cases")
    )
    used = set(records["case_id"])
    worlds = [world for world in store.environments() if world.case_id in used]
    if any(world.menu for world in worlds):
        # Matplotlib takes a second to import, which a run with nothing new does not need.
        from medaction.evaluation.composition import composition, draw_pruned, plot_composition
        from medaction.evaluation.plots import save

        plot_composition(composition(worlds), folder / "plots")
        parts = store.frame(REPORT_QUERIES["Composition of the pruned trees"].sql)
        save(draw_pruned(parts), folder / "plots", "pruned")
    size = next((name for limit, name in SIZES if len(records) < limit), "1M<n<10M")
    return jinja2.Template(DATASET_CARD.read_text()).render(
        version=version,
        records=len(records),
        cases=len(used),
        size=size,
        plots=(folder / "plots").exists(),
        splits=[split for split in ("train", "validation") if (records["split"] == split).any()],
        rows=rows.sort("teacher", "style", "split").to_dicts(),
        funnel=store.rows(REPORT_QUERIES["Funnel"].sql),
        repeats=_repeats(store),
        notes=notes_of(store),
        endings=store.frame(REPORT_QUERIES["Endings"].sql).to_dicts(),
        licences=[
            {"licence": re.sub(r"\s+", " ", row["licence"])[:120], "cases": row["cases"]}
            for row in licences.sort("licence").to_dicts()
        ],
        settings=settings,
        versions=packages,
    )


SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The size classes of the Hugging Face hub's cards."""


def push(dataset: Path, repository: str, really: bool) -> list[str]:
    """What goes to the dataset `repository` of a hub, one line a file; it goes there only when
    `really`.

    The hub is the one of HF_ENDPOINT, the key that of HF_TOKEN. A new repository is private:
    whoever pushes decides who may see it. Raises MedactionError with the hub's words.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    folder = dataset.resolve()
    files = [
        f"{path.relative_to(folder)}  {path.stat().st_size:,} bytes"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    if really:
        try:
            api = HfApi()
            api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
            api.upload_folder(
                folder_path=folder,
                repo_id=repository,
                repo_type="dataset",
                commit_message=f"Version {folder.name.removeprefix('v')}",
            )
        except (HfHubHTTPError, OSError) as error:
            raise MedactionError(f"{repository} could not be written: {error}") from error
    return files
