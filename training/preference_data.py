"""Preference pairs as samples: of each pair two records with one prompt, the better reply and the
worse, rendered and tokenized as records of supervised training are."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from medaction.training.data import (
    Prepared,
    Sample,
    datasets_and_shares,
    for_training,
    in_seeded_order,
    of_cases,
)
from medaction.training.data import dataset_folder as folder_of_dataset
from medaction.training.estimate import Load
from medaction.training.settings import TrainError, TrainSettings

BETTER, WORSE = "/chosen", "/rejected"
"""What a sample's id ends with: the pair's id stands before it."""


def read_preferences(settings: TrainSettings) -> pl.DataFrame:
    """Two records a pair, in the columns of `data.read_datasets`, and `better_by`.

    Raises TrainError: no preferences, evaluation-only or contaminated cases, shares.
    """
    if any(share is not None for _, share in datasets_and_shares(settings)):
        raise TrainError("--objective dpo takes all pairs of its datasets: leave the shares out")
    frames = [_pairs_of(folder, settings) for folder, _ in datasets_and_shares(settings)]
    # Datasets of earlier versions have fewer columns.
    pairs = pl.concat(frames, how="diagonal").unique("id", keep="first", maintain_order=True)
    if settings.teachers:
        by_teachers = [
            pl.col(f"{side}_teacher").is_in(settings.teachers) for side in ("chosen", "rejected")
        ]
        pairs = pairs.filter(*by_teachers)
    pairs = of_cases(pairs, settings)
    if pairs.filter(pl.col("split") == "train").is_empty():
        raise TrainError(
            f"{', '.join(settings.data)}: no training pair is left: see --teacher, --without and"
            " the dataset's card"
        )
    return pl.concat([_side(pairs, "chosen", BETTER), _side(pairs, "rejected", WORSE)])


def _pairs_of(folder: Path, settings: TrainSettings) -> pl.DataFrame:
    folder = folder_of_dataset(folder)
    files = {
        split: file
        for split in ("train", "validation")
        if (file := folder / "preferences" / f"dpo-{split}.parquet").is_file()
    }
    if not files:
        raise TrainError(
            f"{folder} has no preferences/dpo-train.parquet: no prompt of it has two replies of"
            " which one was better; more rollouts and branches make some (--rollouts, --branches)"
        )
    parts = [
        pl.read_parquet(file).with_columns(split=pl.lit(split), dataset=pl.lit(str(folder)))
        for split, file in files.items()
    ]
    without = frozenset(settings.without)
    return for_training(pl.concat(parts), folder, settings.validation_percent, without)


def _side(pairs: pl.DataFrame, side: str, ending: str) -> pl.DataFrame:
    """A record of each pair's `side`."""
    element = pl.element().struct
    message = pl.struct(element.field("role"), element.field("content"))
    reply = pl.col(side).list
    return pairs.select(
        (pl.col("id") + ending).alias("id"),
        pl.concat_list("prompt", reply.eval(message)).alias("messages"),
        "case_id",
        pl.col(f"{side}_teacher").alias("teacher"),
        pl.lit("schema").alias("style"),
        "source",
        reply.first().struct.field("reasoning_content").fill_null("").alias("thinking"),
        "turn",
        reply.first().struct.field("content").str.contains("final_diagnosis").alias("final"),
        "split",
        "dataset",
        "better_by",
    )


def pairs_of(samples: tuple[Sample, ...]) -> Iterator[tuple[Sample, Sample]]:
    """(better, worse) of the pairs of which both sides are there, with the same tokens before the
    reply: one that was thought over first is rendered otherwise by templates that can think."""
    by_id = {sample.id: sample for sample in samples}
    for sample in samples:
        if sample.id.endswith(BETTER):
            worse = by_id.get(sample.id.removesuffix(BETTER) + WORSE)
            if worse and worse.tokens[: worse.prompt] == sample.tokens[: sample.prompt]:
                yield sample, worse


def better_sides(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """One sample a pair, which stands for it in counts and in the schedule."""
    return tuple(better for better, _ in pairs_of(samples))


def whole_pairs(prepared: Prepared, settings: TrainSettings) -> Prepared:
    """The samples of pairs that are whole, as many as the scale and `validation_records` take.
    Raises TrainError when there are fewer than the scale."""
    train = _sides(prepared.train, settings.scale, settings.seed)
    if len(train) < 2 * (settings.scale or 1):
        raise TrainError(
            f"{len(train) // 2} pairs have two replies of at most {settings.max_length} tokens and"
            f" one prompt, {settings.scale or 1} are wanted: lower --scale or raise --max-length"
        )
    held_out = _sides(prepared.validation, settings.validation_records, settings.seed)
    return replace(prepared, train=train, validation=held_out)


def _sides(samples: tuple[Sample, ...], most: int | None, seed: int) -> tuple[Sample, ...]:
    pairs = list(pairs_of(samples))
    worse_of = {better.id: worse for better, worse in pairs}
    order = in_seeded_order([better for better, _ in pairs], seed)[:most]
    return tuple(side for better in order for side in (better, worse_of[better.id]))


def write_pairs(prepared: Prepared, out: Path) -> None:
    """The pairs in the columns of token ids that TRL's collator reads: `pairs-train.parquet`, and
    `pairs-validation.parquet` where cases are held out."""
    for split, samples in (("train", prepared.train), ("validation", prepared.validation)):
        file = out / f"pairs-{split}.parquet"
        file.unlink(missing_ok=True)
        if pairs := list(pairs_of(samples)):
            columns = {
                "prompt_ids": [better.tokens[: better.prompt] for better, _ in pairs],
                "chosen_ids": [better.tokens[better.prompt :] for better, _ in pairs],
                "rejected_ids": [worse.tokens[worse.prompt :] for _, worse in pairs],
            }
            frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.List(pl.Int32)))
            building = file.with_suffix(".building")
            frame.write_parquet(building)
            building.replace(file)


def largest_pair(prepared: Prepared, settings: TrainSettings, processes: int) -> Load:
    """What goes through a process at once: two sequences, padded to the longer. Raises TrainError
    when a step's pairs cannot be shared out."""
    # DPO's batches are counted in whole pairs a process; packed rows are shared out freely.
    if settings.batch % processes:
        raise TrainError(
            f"--batch {settings.batch} pairs cannot be shared out among {processes} processes: take"
            " a multiple"
        )
    pairs = list(pairs_of(prepared.train))
    longest = max(len(side.tokens) for pair in pairs for side in pair)
    return Load(2 * longest, max(better.targets + worse.targets for better, worse in pairs))


def preferences_report(prepared: Prepared, records: pl.DataFrame) -> dict[str, Any]:
    """Counts of pairs instead of records, and of what told their replies apart."""
    ids = [better.id for better, _ in pairs_of(prepared.train)]
    reasons = records.filter(pl.col("id").is_in(ids))["better_by"].value_counts()
    better_records = records.filter(pl.col("id").str.ends_with(BETTER))
    return {
        "train": len(ids),
        "validation": len(prepared.validation) // 2,
        "better_by": dict(reasons.sort("count", descending=True).iter_rows()),
        "pairs_in_the_data": len(better_records),
    }
