"""SFT data: a dataset's records chosen and mixed, each rendered with the base model's chat
template, the loss on the reply alone.

A record is one turn (trajectories.export): the rebuilt context and the turn's reply. Turns that
pruning removed are no records, so they can be context but never targets. Lengths are in tokens
everywhere.
"""

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from medaction.training.settings import MissingInput, TrainError, TrainSettings
from medaction.training.templates import Renderer, Tokens
from medaction.trajectories.export import manifest_of, split_of

COLUMNS = ("id", "messages", "case_id", "teacher", "style", "source")
OPTIONAL = {"thinking": "", "turn": 0, "final": False}
"""Columns that a dataset made by hand may lack, and what they hold then."""

SAMPLE_COLUMNS = ("id", "case_id", "teacher", "style", "dataset")
"""The columns of a record that its sample has too."""

RECORDS_AT_ONCE = 512
"""Records that are tokenized, written and read at a time."""

EVALUATION_ONLY = frozenset({"diagbench", "medrbench"})
"""Sources that are benchmarks. Export refuses them already; a dataset made by hand is refused here.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """A record as token ids, 4 bytes each; the reply begins at `prompt` and is the only target."""

    id: str
    case_id: str
    teacher: str
    style: str
    dataset: str
    tokens: Tokens
    prompt: int

    @property
    def targets(self) -> int:
        return len(self.tokens) - self.prompt


def read_datasets(settings: TrainSettings) -> pl.DataFrame:
    """The records of all datasets by the wanted teachers and in the wanted styles, with the columns
    `dataset` and `split` ('train' or 'validation'); without the cases that the settings leave out.

    Raises TrainError: no such dataset, empty, evaluation-only, contaminated, a case on both sides
    of the split.
    """
    without = frozenset(settings.without)
    frames = [
        _selected(_dataset(folder, settings.validation_percent, without), settings)
        for folder, _ in datasets_and_shares(settings)
    ]
    # Two versions of one dataset may be named: their records have the same ids.
    frame = pl.concat(frames).unique("id", keep="first", maintain_order=True)
    # The oldest last: what stands in several is counted to the first that taught it.
    for folder in reversed(settings.earlier):
        earlier = _dataset(Path(folder), settings.validation_percent, without)
        frame = _with_earlier(frame, _chosen(earlier, settings))
    train = frame.filter(pl.col("split") == "train")
    if train.is_empty():
        raise TrainError(
            f"{', '.join(settings.data)}: no training record is left: see --teacher, --style and"
            " the dataset's card"
        )
    # Each dataset is split by itself: of two with other shares a case may fall on both sides.
    overlap = set(train["case_id"]) & set(frame.filter(pl.col("split") == "validation")["case_id"])
    if overlap:
        raise TrainError(
            f"{len(overlap)} cases stand on both sides of the split, {min(overlap)} first: export"
            " the"
            " datasets with the same validation_percent"
        )
    return frame


def _with_earlier(frame: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    """The records of `frame` and of an earlier dataset; what stands in both to the letter is the
    earlier one's. What the newer one has changed is new, and what a newer version of the same
    dataset no longer has is gone: it was taken out."""
    text = pl.struct("messages", "thinking").hash().alias("text")
    was = earlier.select("id", text, pl.col("dataset").alias("earlier"))
    frame = frame.with_columns(text).join(was, on=["id", "text"], how="left")
    frame = frame.with_columns(dataset=pl.coalesce("earlier", "dataset")).drop("earlier", "text")
    if earlier.is_empty() or _run_of(earlier["dataset"][0]) in set(map(_run_of, frame["dataset"])):
        return frame
    return pl.concat([frame, earlier.join(frame, on="id", how="anti")])


def _run_of(dataset: str) -> Path:
    """The folder with all versions of a run's dataset; of one that stands alone, itself."""
    folder = Path(dataset).resolve()
    return folder.parent if folder.parent.name == "datasets" else folder


def without_repeats(frame: pl.DataFrame) -> pl.DataFrame:
    """The records with each text once: prompt, thinking and reply of one teacher in one style. A
    dataset that was exported before repeats were left out has them, and so have two of one run."""
    text = pl.struct("teacher", "style", "messages", "thinking").hash()
    return frame.filter(text.is_first_distinct())


def repeats_noted(settings: TrainSettings) -> int:
    """How many turns the manifests of the datasets say were left out as repeats of a record."""
    return sum(
        sum(_noted(dataset_folder(folder), "repeats_left_out").values())
        for folder, _ in datasets_and_shares(settings)
    )


def _noted(folder: Path, fact: str) -> dict[str, Any]:
    """A fact of the dataset's manifest; one made by hand has none."""
    noted = manifest_of(folder) if (folder / "manifest.json").is_file() else {}
    return noted.get(fact, {})


def datasets_and_shares(settings: TrainSettings) -> list[tuple[Path, float | None]]:
    """(folder, share) of every dataset. Raises TrainError when only some have a share."""
    datasets = [_with_share(text) for text in settings.data]
    shares = [share for _, share in datasets if share is not None]
    # A tolerance: 0.7 + 0.2 + 0.1 is 0.9999999999999999.
    if shares and (len(shares) < len(datasets) or abs(sum(shares) - 1) > 1e-6):
        raise TrainError(
            f"--data {' '.join(settings.data)}: give every dataset a share, together 1"
        )
    return datasets


def _with_share(text: str) -> tuple[Path, float | None]:
    match = re.fullmatch(r"(?P<folder>.+)=(?P<share>0?\.\d+|1|0|1\.0+)", text)
    return (Path(match["folder"]), float(match["share"])) if match else (Path(text), None)


def require_dataset(folder: Path) -> Path:
    """The folder that holds the dataset's files. Raises MissingInput where there are none."""
    folder = dataset_folder(folder)
    if not (folder / "train.parquet").is_file():
        raise MissingInput(
            f"{folder} is no dataset: there is no train.parquet; `medaction distill` and `medaction"
            " export` write one"
        )
    return folder


def _dataset(folder: Path, validation_percent: int, without: frozenset[str]) -> pl.DataFrame:
    """Both splits of a dataset; where it holds no case out, some are held out here by a hash of the
    case."""
    folder = require_dataset(folder)
    parts = [_part(folder / f"{split}.parquet", split) for split in ("train", "validation")]
    frame = pl.concat([part for part in parts if part is not None]).with_columns(
        dataset=pl.lit(str(folder))
    )
    if frame.is_empty():
        raise TrainError(f"{folder} is empty: see the run's summary.md for why no turn was kept")
    return for_training(frame, folder, validation_percent, without)


def for_training(
    frame: pl.DataFrame, folder: Path, validation_percent: int, without: frozenset[str]
) -> pl.DataFrame:
    """The rows of a dataset with cases held out by a hash where it holds out none. Raises
    TrainError for cases of benchmarks, and for those that are known to stand in one."""
    marked = sorted(EVALUATION_ONLY.intersection(frame["source"].unique()))
    if marked:
        raise TrainError(
            f"{folder} holds cases of {', '.join(marked)}, a benchmark: they are for evaluation"
            " only, never for training"
        )
    cases = set(frame["case_id"]) - without
    # What `medaction contamination` found stands in the dataset's manifest.
    for benchmark, copies in _noted(folder, "contaminated").items():
        if cases_in_both := sorted(cases.intersection(copies)):
            raise TrainError(
                f"{folder} holds {len(cases_in_both)} cases of {benchmark}"
                f" ({', '.join(cases_in_both[:5])}): training on them would make every score there"
                " worthless; leave them out with --without, one by one"
            )
    if validation_percent and not (frame["split"] == "validation").any():
        splits = [split_of(case, validation_percent) for case in frame["case_id"]]
        frame = frame.with_columns(split=pl.Series(splits, dtype=pl.String))
    return frame


def dataset_folder(path: Path) -> Path:
    return path / "dataset" if (path / "dataset").is_dir() else path


def _part(file: Path, split: str) -> pl.DataFrame | None:
    if not file.is_file():
        return None
    try:
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TrainError(
            f"{file} cannot be read ({error}): write the dataset again with `medaction export`"
        ) from error
    if lacking := [name for name in COLUMNS if name not in frame.columns]:
        raise TrainError(
            f"{file} lacks the columns {', '.join(lacking)}: write the dataset again with"
            " `medaction export`"
        )
    # In the reply; datasets exported earlier have a column of their own for it.
    if "reasoning_content" in frame["messages"].explode().struct.fields:
        last = pl.col("messages").list.last().struct
        thought = last.field("reasoning_content").fill_null("")
        frame = frame.with_columns(thought.alias("thinking"))
    optional = [
        (pl.col(name) if name in frame.columns else pl.lit(default)).alias(name)
        for name, default in OPTIONAL.items()
    ]
    # Of a message only what datasets of every age have, so that they can be put together.
    element = pl.element().struct
    message = pl.struct(element.field("role"), element.field("content"))
    return frame.select(*COLUMNS, *optional, pl.lit(split).alias("split")).with_columns(
        pl.col("messages").list.eval(message)
    )


def _selected(frame: pl.DataFrame, settings: TrainSettings) -> pl.DataFrame:
    for column, values in (("teacher", settings.teachers), ("style", settings.styles)):
        present = frame[column].unique()
        if unknown := sorted(set(values) - set(present)):
            raise TrainError(
                f"no record of the {column} {', '.join(unknown)}: there are"
                f" {', '.join(sorted(present))}"
            )
    return _chosen(frame, settings)


def _chosen(frame: pl.DataFrame, settings: TrainSettings) -> pl.DataFrame:
    for column, values in (("teacher", settings.teachers), ("style", settings.styles)):
        if values:
            frame = frame.filter(pl.col(column).is_in(values))
    return of_cases(frame, settings)


def of_cases(frame: pl.DataFrame, settings: TrainSettings) -> pl.DataFrame:
    """The rows of the cases that the settings leave; `only` chooses among those trained on."""
    if settings.only:
        # Held-out cases stay: losses on other ones could not be compared.
        selection = pl.col("case_id").is_in(settings.only)
        frame = frame.filter(selection | (pl.col("split") == "validation"))
    return frame.filter(~pl.col("case_id").is_in(settings.without))


def thinned(prepared: "Prepared", settings: TrainSettings) -> "Prepared":
    """The training records that the scale and the datasets' shares take, and the held-out ones that
    are looked at.

    Which these are depends on the records' ids and the seed alone, so a smaller number is a subset
    of a larger one. Raises TrainError when there are fewer than asked for.
    """
    datasets = datasets_and_shares(settings)
    earlier = {str(dataset_folder(Path(folder))) for folder in settings.earlier}
    ordered = in_seeded_order(prepared.train, settings.seed)
    shuffled = [sample for sample in ordered if sample.dataset not in earlier]
    if not shuffled:
        raise TrainError("every training record stands in an earlier dataset: nothing is new")
    if datasets[0][1] is None:
        count = settings.scale or len(shuffled)
        if count > len(shuffled):
            raise TrainError(
                f"--scale {count}: there are {len(shuffled)} training records of at most"
                f" {settings.max_length} tokens"
            )
        train = shuffled[:count]
    else:
        by_dataset = [
            [sample for sample in shuffled if sample.dataset == str(dataset_folder(folder))]
            for folder, _ in datasets
        ]
        shares = [share or 0.0 for _, share in datasets]
        # As many as the dataset that is soonest used up by its share allows.
        total = settings.scale or int(
            min(len(of) / share for of, share in zip(by_dataset, shares, strict=True) if share)
        )
        # Rounded at the borders between the shares, so that together they are the total.
        borders = [round(total * share) for share in (0.0, *accumulate(shares))]
        wanted = [end - start for start, end in pairwise(borders)]
        train = []
        for (folder, _), of, want in zip(datasets, by_dataset, wanted, strict=True):
            if len(of) < want:
                raise TrainError(
                    f"{folder} has {len(of)} training records, its share is {want}: lower --scale"
                    " or its share"
                )
            train += of[:want]
    # `replay` is its share of the whole, not of the new records.
    replayed = round(len(train) * settings.replay / (1 - settings.replay))
    train += [sample for sample in ordered if sample.dataset in earlier][:replayed]
    held_out = _evenly(in_seeded_order(prepared.validation, settings.seed))[
        : settings.validation_records
    ]
    by_id = attrgetter("id")
    return replace(
        prepared,
        train=tuple(sorted(train, key=by_id)),
        validation=tuple(sorted(held_out, key=by_id)),
    )


def _evenly(samples: Sequence["Sample"]) -> list["Sample"]:
    """One of each dataset, again and again, so that a few of them show every dataset."""
    ranks: Counter[str] = Counter()
    places: list[tuple[int, int]] = []
    for sample in samples:
        places.append((ranks[sample.dataset], len(places)))
        ranks[sample.dataset] += 1
    return [samples[place] for _, place in sorted(places)]


def in_seeded_order(samples: Sequence["Sample"], seed: int) -> list["Sample"]:
    # By a hash, not a shuffle: one record more or less leaves the order of the others.
    return sorted(
        samples, key=lambda sample: hashlib.sha256(f"{seed}/{sample.id}".encode()).digest()
    )


@dataclass(frozen=True, slots=True)
class DroppedShare:
    """How many of the records of one kind are too long: of a split, a turn, a teacher, or an
    ending."""

    kind: str
    value: str
    dropped: int
    records: int

    @property
    def share(self) -> float:
        return self.dropped / self.records


MOST_DROPPED = 0.05
"""Share of a kind of records that `--max-length` may leave out without being allowed to. Later
turns are the longer ones, so a limit bends the data: one that kept all first turns kept 11 % of the
second ones and none of the third."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Samples in their order, and the records left out whole because they are longer than allowed,
    by id with their tokens."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    overlong: dict[str, int]
    shares: tuple[DroppedShare, ...] = ()
    thinking: frozenset[str] = frozenset()
    """The ids of the records whose target has thinking."""

    @property
    def end_marks(self) -> frozenset[int]:
        """The tokens that the targets end with."""
        return frozenset(sample.tokens[-1] for sample in self.train)

    def report(self) -> dict[str, Any]:
        """Lengths in tokens (prompt, target, record), the share of tokens that the loss is on, and
        what was left out."""
        train = self.train
        total = sum(len(sample.tokens) for sample in train)
        return {
            "train": len(train),
            "train_cases": len({sample.case_id for sample in train}),
            "validation": len(self.validation),
            "validation_cases": len({sample.case_id for sample in self.validation}),
            "left_out_as_too_long": len(self.overlong),
            "dropped": [asdict(share) for share in self.shares if share.dropped],
            "thinking": sum(sample.id in self.thinking for sample in train),
            "end_marks": sorted(self.end_marks),
            "tokens": total,
            "target_share": sum(sample.targets for sample in train) / total,
            "prompt": _quantiles(sample.prompt for sample in train),
            "target": _quantiles(sample.targets for sample in train),
            "record": _quantiles(len(sample.tokens) for sample in train),
            "datasets": dict(Counter(sample.dataset for sample in train)),
            "teachers": dict(sorted(Counter(sample.teacher for sample in train).items())),
            "styles": dict(sorted(Counter(sample.style for sample in train).items())),
        }


def _quantiles(lengths: Iterable[int]) -> dict[str, int]:
    quantiles = np.quantile(np.fromiter(lengths, dtype=np.int64), [0, 0.5, 0.95, 1])
    return dict(zip(("min", "median", "p95", "max"), map(int, quantiles), strict=True))


def prepare_samples(frame: pl.DataFrame, renderer: Renderer, max_length: int) -> Prepared:
    """Render and tokenize every record. Raises TrainError naming the record; and when no training
    record is short enough."""
    parts: dict[str, list[Sample]] = {"train": [], "validation": []}
    overlong: dict[str, int] = {}
    thinking: set[str] = set()
    # Sorted, so that the file and its hash do not depend on the order of the datasets.
    for batch in frame.sort("id").iter_slices(RECORDS_AT_ONCE):
        records = batch.to_dicts()
        for record, (tokens, prompt) in zip(records, _tokenized(records, renderer), strict=True):
            if len(tokens) > max_length:
                overlong[record["id"]] = len(tokens)
                continue
            fields = {name: record[name] for name in SAMPLE_COLUMNS}
            parts[record["split"]].append(Sample(**fields, tokens=tokens, prompt=prompt))
            reply, thoughts = record["messages"][-1]["content"], record["thinking"] or ""
            if renderer.taught_thinking(reply, thoughts):
                thinking.add(record["id"])
    if not parts["train"]:
        of_training = set(frame.filter(pl.col("split") == "train")["id"])
        shortest = min(tokens for record, tokens in overlong.items() if record in of_training)
        raise TrainError(
            f"every training record is longer than --max-length {max_length}: the shortest has"
            f" {shortest} tokens"
        )
    shares = tuple(_shares_dropped(frame, set(overlong)))
    train, validation = tuple(parts["train"]), tuple(parts["validation"])
    return Prepared(train, validation, overlong, shares, frozenset(thinking))


def _tokenized(records: Sequence[dict[str, Any]], renderer: Renderer) -> list[tuple[Tokens, int]]:
    texts = []
    for record in records:
        try:
            texts.append(renderer.texts(record["messages"], record["thinking"] or ""))
        except TrainError as error:
            raise TrainError(f"record {record['id']}: {error}") from None
    return renderer.tokenize(texts)


def _shares_dropped(frame: pl.DataFrame, dropped: set[str]) -> Iterator[DroppedShare]:
    marked = frame.with_columns(
        pl.col("id").is_in(dropped).alias("dropped"),
        pl.when("final").then(pl.lit("diagnosis")).otherwise(pl.lit("orders")).alias("ending"),
    )
    # What a limit of length may bend: what is held out, late turns, a wordy teacher, diagnoses.
    for kind in ("split", "turn", "teacher", "ending"):
        groups = marked.group_by(kind).agg(pl.col("dropped").sum(), pl.len()).sort(kind)
        for value, count, records in groups.iter_rows():
            yield DroppedShare(kind, str(value), count, records)


def refuse_bent(prepared: Prepared, max_length: int, positions: int) -> None:
    """Raises TrainError where --max-length leaves out so much of one kind of record that the data
    is another. `positions`: see refuse_beyond."""
    if bent := [share for share in prepared.shares if share.share > MOST_DROPPED]:
        longest = max(prepared.overlong.values())
        kinds = "; ".join(
            f"{item.dropped} of {item.records} records of {item.kind} {item.value}" for item in bent
        )
        remedy = f"--max-length {longest} takes them all"
        if 0 < positions < longest:
            remedy = (
                f"The longest has {longest} tokens, and the base model is made for {positions}:"
                " take another --base"
            )
        raise TrainError(
            f"--max-length {max_length} leaves out {kinds}: the model would learn from other turns"
            f" than the dataset has. {remedy}; or accept it with --allow-dropped"
        )


def refuse_beyond(prepared: Prepared, positions: int) -> None:
    """Raises TrainError where a record is longer than the base model's longest text (0: it has no
    limit): training would run all the same, on positions that mean nothing to the model."""
    lengths = [len(sample.tokens) for sample in (*prepared.train, *prepared.validation)]
    beyond = sum(length > positions for length in lengths)
    if positions and beyond:
        shorter = f"--max-length {positions} leaves them out, or " if beyond < len(lengths) else ""
        raise TrainError(
            f"{beyond} of {len(lengths)} records are longer than the {positions} tokens that the"
            f" base model is made for: {shorter}take another --base"
        )


def write_samples(prepared: Prepared, file: Path) -> None:
    """The samples as one parquet file, which the training processes read; it appears whole or not
    at all."""
    samples = [*prepared.train, *prepared.validation]
    splits = ["train"] * len(prepared.train) + ["validation"] * len(prepared.validation)
    ends = np.cumsum([0, *(len(sample.tokens) for sample in samples)])
    tokens = np.concatenate([np.frombuffer(sample.tokens, np.int32) for sample in samples])
    table = pa.table(
        {
            "split": splits,
            **{name: [getattr(sample, name) for sample in samples] for name in SAMPLE_COLUMNS},
            "prompt": [sample.prompt for sample in samples],
            "tokens": pa.LargeListArray.from_arrays(pa.array(ends), pa.array(tokens)),
        }
    )
    building = file.with_suffix(".building")
    pq.write_table(table, building, row_group_size=RECORDS_AT_ONCE)
    building.replace(file)


def read_samples(file: Path) -> Prepared:
    """What `write_samples` wrote (the list of overlong records stays with whoever prepared), a
    batch at a time."""
    parts: dict[str, list[Sample]] = {"train": [], "validation": []}
    with pq.ParquetFile(file) as samples:
        for batch in samples.iter_batches(RECORDS_AT_ONCE):
            lists = batch.column("tokens")
            rows = batch.drop_columns("tokens").to_pylist()
            for number, row in enumerate(rows):
                # Not to_pylist: Python's integers take ten times the memory.
                tokens = array("i", lists[number].values.to_numpy().tobytes())
                parts[row.pop("split")].append(Sample(**row, tokens=tokens))
    return Prepared(tuple(parts["train"]), tuple(parts["validation"]), {})
