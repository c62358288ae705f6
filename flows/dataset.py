"""The dataset of a run: what pruning kept, as numbered versions, each with its card, plots,
checksums and licences."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from medaction.envs.prompts import messages
from medaction.envs.records import ClinicalEnvironment
from medaction.envs.rewards import true_name
from medaction.envs.turns import Turn
from medaction.flows.repositories import upload
from medaction.flows.settings import DistillSettings
from medaction.flows.summary import REPORT_QUERIES, notes_of
from medaction.flows.versions import versions
from medaction.llm.calls import Message
from medaction.llm.teacher import CONTEXT_TOKENS
from medaction.trajectories.export import Prompt, Version, export_dataset
from medaction.trajectories.preferences import State, states, write_preferences
from medaction.trajectories.records import Trajectory, now
from medaction.trajectories.scoring import disease_linker
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import each_environment

DATASET_CARD = Path(__file__).with_name("dataset_card.md.j2")


def write_dataset(store: Store, settings: DistillSettings) -> Version:
    """Write the next version of `out/dataset` from the store, if anything has changed. Raises
    StoreError for an evaluation-only store."""
    prompt = prompt_of(settings)

    def card(folder: Path, records: pl.DataFrame, version: int) -> dict[str, Any]:
        # One reply alone has nothing to be preferred to.
        compared = (state for state in answered(store, settings) if len(state.candidates) > 1)
        write_preferences(compared, folder / "preferences", settings.validation_percent)
        # Where and how much of it was run at a time decides nothing of a record.
        settings_json = json.loads(settings.model_dump_json(exclude={"out", "only", "limit"}))
        # (teacher, style, repeats, cases) of what was written several times and stands once.
        repeats = store.rows(REPORT_QUERIES["Repeats"].sql)
        text = _card(store, folder, records, version, settings, packages, repeats)
        (folder / "README.md").write_text(text, encoding="utf-8")
        about = {"made": now(), "settings": settings_json, "versions": packages}
        counts = {f"{teacher} ({style})": count for teacher, style, count, _ in repeats}
        return about | {"repeats_left_out": counts}

    budgets = {teacher.name: teacher.context_tokens for teacher in settings.teachers}
    packages = versions()
    # Neither uncommitted changes ('+') nor a folder without git have a version of their own.
    has_version = "-" in packages["medaction"] and not packages["medaction"].endswith("+")
    rendered_by = [packages, budgets] if has_version else None
    return export_dataset(
        store, settings.out, prompt, settings.validation_percent, card, rendered_by
    )


def prompt_of(settings: DistillSettings) -> Prompt:
    """The prompt that a teacher was given, within the budget that it had."""
    budgets = {teacher.name: teacher.context_tokens for teacher in settings.teachers}

    def prompt(
        environment: ClinicalEnvironment, trajectory: Trajectory, turns: Sequence[Turn]
    ) -> list[Message]:
        observation, spec = environment.initial_observation, trajectory.spec
        # A teacher of an earlier run may be in the store and not in these settings.
        budget = budgets.get(spec.teacher) or CONTEXT_TOKENS
        return messages(observation, turns, trajectory.t_max, spec.style, budget)

    return prompt


def answered(store: Store, settings: DistillSettings) -> Iterator[State]:
    """Every prompt of a scored store with the replies to it."""
    linker = disease_linker(settings.disease_graph)
    sql = 'select "text", node from links where graph = ? and kind = ?'
    nodes: dict[str, int | None] = dict(store.rows(sql, [linker.label, "diagnosis"]))
    return states(
        store, prompt_of(settings), nodes, lambda world: nodes.get(true_name(world, linker))
    )


def _preferences(folder: Path) -> dict[str, Any]:
    """What the card says of the preference data: the files, and the pairs by what told them apart
    and by turn 1 or later."""
    files = sorted(folder.glob("*.parquet"))
    pairs = [
        pl.read_parquet(file, columns=["better_by", "turn"])
        for file in folder.glob("dpo-*.parquet")
    ]
    if not pairs:
        return {"files": [], "counts": []}
    counts = (
        pl.concat(pairs)
        .group_by("better_by")
        .agg(pl.len().alias("pairs"), (pl.col("turn") == 1).sum().alias("first_turn"))
        .sort("pairs", descending=True)
    )
    return {"files": [file.stem for file in files], "counts": counts.to_dicts()}


def _card(
    store: Store,
    folder: Path,
    records: pl.DataFrame,
    version: int,
    settings: DistillSettings,
    packages: dict[str, str],
    repeats: list[tuple[Any, ...]],
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
    # Without a documented test there is nothing to draw.
    tests = store.rows("select 1 from environments where len(menu) > 0 limit 1")
    if used and tests:
        # Matplotlib takes a second to import, which a run with nothing new does not need.
        from medaction.evaluation.composition import composition, draw_pruned, plot_composition
        from medaction.evaluation.plots import save

        # One at a time: whole environments of a large run do not fit the memory.
        worlds = (world for world in each_environment(store) if world.case_id in used)
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
        repeats=repeats,
        notes=notes_of(store),
        endings=store.frame(REPORT_QUERIES["Endings"].sql).to_dicts(),
        licences=[
            # Whole sentences stand there too ('This is an open access article distributed
            # under...').
            {"licence": re.sub(r"\s+", " ", row["licence"])[:120], "cases": row["cases"]}
            for row in licences.sort("licence").to_dicts()
        ],
        preferences=_preferences(folder / "preferences"),
        card_licences=_card_licences(licences[licences.columns[0]].to_list()),
        settings=settings,
        versions=packages,
    )


HUB_LICENCES = frozenset({"apache-2.0", "mit", "unlicense", "odc-by", "odbl", "cc0-1.0"}).union(
    f"cc-{kind}-{version}"
    for kind in ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd")
    for version in ("2.0", "2.5", "3.0", "4.0")
)
"""The licences that a card of the Hugging Face hub may name, of those that case reports have."""


def _card_licences(stated: Sequence[str]) -> list[str]:
    """The cases' licences as the hub names them, from their names or Creative Commons' addresses;
    [] where it has no name for one of them."""
    names = set()
    for text in stated:
        if address := _CREATIVE_COMMONS.search(text.lower()):
            kind, version = address.groups()
            names.add(f"cc0-{version}" if kind == "zero" else f"cc-{kind}-{version}")
        else:
            names.add("-".join(text.lower().split()))
    # Naming some of them would say that the others are as free.
    return sorted(names) if names <= HUB_LICENCES else []


_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/(\d\.\d)(?:/|\b)"
)

SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""The size classes of the Hugging Face hub's cards."""


def push(dataset: Path, repository: str, really: bool) -> list[str]:
    """What goes to the dataset `repository` of a hub, one line a file; it goes there only when
    `really`.

    Raises MedactionError with the hub's words.
    """
    folder = dataset.resolve()
    files = [
        f"{path.relative_to(folder)}  {path.stat().st_size:,} bytes"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    if really:
        upload(folder, repository, "dataset", f"Version {folder.name.removeprefix('v')}")
    return files
