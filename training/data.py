"""SFT data: a dataset's records chosen and mixed, each rendered with the base model's chat
template, the loss on the reply alone.

A record is one turn (trajectories.export): the rebuilt context and the turn's reply. Turns that
pruning removed are no records, so they can be context but never targets. Lengths are in tokens
everywhere.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medaction.training.settings import TrainError, TrainSettings
from medaction.trajectories.export import split_of

COLUMNS = ("id", "messages", "case_id", "teacher", "style", "source")
EVALUATION_ONLY = frozenset({"medrbench"})
"""Sources that are benchmarks. Export refuses them already; a dataset made by hand is refused here.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """A record as token ids; the reply begins at `prompt` and is the only target."""

    id: str
    case_id: str
    teacher: str
    style: str
    dataset: str
    tokens: tuple[int, ...]
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
    frame = pl.concat(frames).unique("id", keep="first", maintain_order=True)
    train = frame.filter(pl.col("split") == "train")
    if train.is_empty():
        raise TrainError(
            f"{', '.join(settings.data)}: no training record is left: see --teacher, --style and"
            " the dataset's card"
        )
    overlap = set(train["case_id"]) & set(frame.filter(pl.col("split") == "validation")["case_id"])
    if overlap:
        raise TrainError(
            f"{len(overlap)} cases stand on both sides of the split, {min(overlap)} first: export"
            " the"
            " datasets with the same validation_percent"
        )
    return frame


def without_repeats(frame: pl.DataFrame) -> pl.DataFrame:
    """The records with each text once: prompt, thinking and reply of one teacher in one style. A
    dataset that was exported before repeats were left out has them, and so have two of one run."""
    text = pl.struct("teacher", "style", "messages", "thinking").hash()
    return frame.filter(text.is_first_distinct())


def repeats_noted(settings: TrainSettings) -> int:
    """How many turns the manifests of the datasets say were left out as repeats of a record."""
    noted = 0
    for folder, _ in datasets_and_shares(settings):
        manifest = _folder(folder) / "manifest.json"
        if manifest.is_file():
            about = json.loads(manifest.read_text(encoding="utf-8"))
            noted += sum(about.get("repeats_left_out", {}).values())
    return noted


def datasets_and_shares(settings: TrainSettings) -> list[tuple[Path, float | None]]:
    """(folder, share) of every dataset. Raises TrainError when only some have a share."""
    datasets = [_with_share(text) for text in settings.data]
    shares = [share for _, share in datasets if share is not None]
    if shares and (len(shares) < len(datasets) or abs(sum(shares) - 1) > 1e-6):
        raise TrainError(
            f"--data {' '.join(settings.data)}: give every dataset a share, together 1"
        )
    return datasets


def _with_share(text: str) -> tuple[Path, float | None]:
    match = re.fullmatch(r"(?P<folder>.+)=(?P<share>0?\.\d+|1|0|1\.0+)", text)
    return (Path(match["folder"]), float(match["share"])) if match else (Path(text), None)


def _dataset(folder: Path, validation_percent: int, without: frozenset[str]) -> pl.DataFrame:
    """Both splits of a dataset; where it holds no case out, some are held out here by a hash of the
    case."""
    folder = _folder(folder)
    if not (folder / "train.parquet").is_file():
        raise TrainError(
            f"{folder} is no dataset: there is no train.parquet; `medaction distill` and `medaction"
            " export` write one"
        )
    parts = [_part(folder / f"{split}.parquet", split) for split in ("train", "validation")]
    frame = pl.concat([part for part in parts if part is not None]).with_columns(
        dataset=pl.lit(str(folder))
    )
    if frame.is_empty():
        raise TrainError(f"{folder} is empty: see the run's summary.md for why no turn was kept")
    marked = sorted(EVALUATION_ONLY.intersection(frame["source"].unique()))
    if marked:
        raise TrainError(
            f"{folder} holds cases of {', '.join(marked)}, a benchmark: they are for evaluation"
            " only, never for training"
        )
    _refuse_contaminated(folder, set(frame["case_id"]) - without)
    if validation_percent and not (frame["split"] == "validation").any():
        splits = [split_of(case, validation_percent) for case in frame["case_id"]]
        frame = frame.with_columns(split=pl.Series(splits, dtype=pl.String))
    return frame


def _refuse_contaminated(folder: Path, cases: set[str]) -> None:
    """Cases that `medaction contamination` found in a benchmark stand in the dataset's manifest."""
    manifest = folder / "manifest.json"
    noted = (
        json.loads(manifest.read_text(encoding="utf-8")).get("contaminated", {})
        if manifest.is_file()
        else {}
    )
    for benchmark, marked in noted.items():
        if cases_in_both := sorted(cases.intersection(marked)):
            raise TrainError(
                f"{folder} holds {len(cases_in_both)} cases of {benchmark}"
                f" ({', '.join(cases_in_both[:5])}):"
                " training on them would make every score there"
                " worthless; leave them out with --without, one by one"
            )


def _folder(path: Path) -> Path:
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
    fields = frame["messages"].explode().struct.fields
    if "thinking" in frame.columns:  # of a dataset before the thinking stood in the message
        thinking = pl.col("thinking")
    elif "reasoning_content" in fields:
        thinking = pl.col("messages").list.last().struct.field("reasoning_content")
    else:
        thinking = pl.lit("")
    element = pl.element().struct
    plain = pl.struct(element.field("role"), element.field("content"))
    return frame.select(
        *COLUMNS, thinking.fill_null("").alias("thinking"), pl.lit(split).alias("split")
    ).with_columns(pl.col("messages").list.eval(plain))


def _selected(frame: pl.DataFrame, settings: TrainSettings) -> pl.DataFrame:
    for column, values in (("teacher", settings.teachers), ("style", settings.styles)):
        present = frame[column].unique()
        if unknown := sorted(set(values) - set(present)):
            raise TrainError(
                f"no record of the {column} {', '.join(unknown)}: there are"
                f" {', '.join(sorted(present))}"
            )
        if values:
            frame = frame.filter(pl.col(column).is_in(values))
    return frame.filter(~pl.col("case_id").is_in(settings.without))


def thinned(prepared: "Prepared", settings: TrainSettings) -> "Prepared":
    """The training records that the scale and the datasets' shares take, and the held-out ones that
    are looked at.

    Which these are depends on the records' ids and the seed alone, so a smaller number is a subset
    of a larger one. Raises TrainError when there are fewer than asked for.
    """
    datasets = datasets_and_shares(settings)
    shuffled = _shuffled(prepared.train, settings.seed)
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
            [sample for sample in shuffled if sample.dataset == str(_folder(folder))]
            for folder, _ in datasets
        ]
        shares = [share or 0.0 for _, share in datasets]
        total = settings.scale or int(
            min(len(of) / share for of, share in zip(by_dataset, shares, strict=True) if share)
        )
        train = []
        for (folder, share), of in zip(datasets, by_dataset, strict=True):
            want = round(total * (share or 0))
            if len(of) < want:
                raise TrainError(
                    f"{folder} has {len(of)} training records, its share is {want}: lower --scale"
                    " or its share"
                )
            train += of[:want]
    held_out = _shuffled(prepared.validation, settings.seed)[: settings.validation_records]
    return Prepared(
        tuple(sorted(train, key=_id)), tuple(sorted(held_out, key=_id)), prepared.overlong
    )


def _id(sample: "Sample") -> str:
    return sample.id


def _shuffled(samples: Sequence["Sample"], seed: int) -> list["Sample"]:
    return sorted(
        samples, key=lambda sample: hashlib.sha256(f"{seed}/{sample.id}".encode()).digest()
    )


class Renderer:
    """Messages -> token ids with the place where the reply begins, by the tokenizer's own chat
    template.

    The prompt is what the template renders before an assistant's turn, tokenized by itself, as it
    will be when the model is served; the target is what the template adds for the reply, to its end
    mark. Raises TrainError when the template leaves no such cut.
    """

    def __init__(self, tokenizer: Any):
        if not getattr(tokenizer, "chat_template", None):
            raise TrainError(
                "the base model's tokenizer has no chat template: take an instruct model, or put"
                " chat_template.jinja into its folder"
            )
        self.tokenizer = tokenizer
        self.special = set(tokenizer.all_special_ids)

    def __call__(
        self, messages: Sequence[dict[str, str]], thinking: str = ""
    ) -> tuple[tuple[int, ...], int]:
        """(token ids, where the reply begins)."""
        prompt, target = self.texts(messages, thinking)
        before = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        reply = self.tokenizer(target, add_special_tokens=False)["input_ids"]
        if not reply or reply[-1] not in self.special:
            raise TrainError(
                f"the chat template ends an assistant's turn with {target[-20:]!r}, no special"
                " token: a model trained so would not learn"
                " to stop; take a base model whose template has an end mark"
            )
        return (*before, *reply), len(before)

    def texts(self, messages: Sequence[dict[str, str]], thinking: str = "") -> tuple[str, str]:
        """(prompt, target) as text. With `thinking`, the target begins with it, between <think> and
        </think>."""
        *context, reply = messages
        if reply["role"] != "assistant" or not reply["content"].strip():
            raise TrainError(
                "the last message is no assistant's reply, so there is no target: write the dataset"
                " again with `medaction export`"
            )
        content = (
            f"<think>\n{thinking}\n</think>\n\n{reply['content']}" if thinking else reply["content"]
        )
        prompt = self.tokenizer.apply_chat_template(
            context, tokenize=False, add_generation_prompt=True
        )
        conversation = self.tokenizer.apply_chat_template(
            [*context, {"role": "assistant", "content": content}], tokenize=False
        )
        body = reply["content"].strip()
        if not conversation.startswith(prompt):
            # A template that opens <think> for the model, and leaves thinking out of what it
            # renders afterwards.
            opened = re.search(r"<think>\s*$", prompt)
            if (
                opened is None
                or not conversation.startswith(prompt[: opened.start()])
                or body not in conversation[opened.start() :]
            ):
                raise TrainError(
                    "the chat template renders the prompt differently once the reply follows, so"
                    " the reply's tokens cannot be told from"
                    " the prompt's and cannot be masked: take a base model whose template only"
                    " appends"
                )
            end = conversation[conversation.rindex(body) + len(body) :]
            return prompt, f"{thinking}\n</think>\n\n{body}{end.rstrip()}"
        target = conversation[len(prompt) :]
        if body not in target or (thinking and thinking not in target):
            raise TrainError(
                "the chat template changes or drops the assistant's words: a model cannot be"
                " trained on them with it"
            )
        return prompt, target.rstrip()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Samples in their order, and the records left out because they are longer than allowed: (id,
    tokens)."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    overlong: tuple[tuple[str, int], ...]

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
            "tokens": total,
            "target_share": sum(sample.targets for sample in train) / total,
            "prompt": _quantiles(sample.prompt for sample in train),
            "target": _quantiles(sample.targets for sample in train),
            "record": _quantiles(len(sample.tokens) for sample in train),
            "teachers": {
                name: sum(sample.teacher == name for sample in train)
                for name in sorted({s.teacher for s in train})
            },
            "styles": {
                name: sum(sample.style == name for sample in train)
                for name in sorted({s.style for s in train})
            },
        }


def _quantiles(lengths: Iterable[int]) -> dict[str, int]:
    quantiles = np.quantile(np.fromiter(lengths, dtype=np.int64), [0, 0.5, 0.95, 1])
    return dict(zip(("min", "median", "p95", "max"), map(int, quantiles), strict=True))


def prepare(frame: pl.DataFrame, renderer: Renderer, max_length: int) -> Prepared:
    """Render and tokenize every record. Raises TrainError naming the record; and when no training
    record is short enough."""
    parts: dict[str, list[Sample]] = {"train": [], "validation": []}
    overlong: list[tuple[str, int]] = []
    for record in frame.sort("id").iter_rows(named=True):
        try:
            tokens, prompt = renderer(record["messages"], record["thinking"] or "")
        except TrainError as error:
            raise TrainError(f"record {record['id']}: {error}") from None
        if len(tokens) > max_length:
            overlong.append((record["id"], len(tokens)))
        else:
            fields = {
                name: record[name] for name in ("id", "case_id", "teacher", "style", "dataset")
            }
            parts[record["split"]].append(Sample(**fields, tokens=tokens, prompt=prompt))
    if not parts["train"]:
        shortest = min(length for _, length in overlong)
        raise TrainError(
            f"every record is longer than --max-length {max_length}: the shortest has {shortest}"
            " tokens"
        )
    return Prepared(tuple(parts["train"]), tuple(parts["validation"]), tuple(overlong))


def write_samples(prepared: Prepared, file: Path) -> None:
    """The samples as one parquet file, which the training processes read; it appears whole or not
    at all."""
    rows = [
        (split, sample) for split in ("train", "validation") for sample in getattr(prepared, split)
    ]
    frame = pl.DataFrame(
        {
            "split": [split for split, _ in rows],
            "id": [sample.id for _, sample in rows],
            "case_id": [sample.case_id for _, sample in rows],
            "teacher": [sample.teacher for _, sample in rows],
            "style": [sample.style for _, sample in rows],
            "dataset": [sample.dataset for _, sample in rows],
            "prompt": [sample.prompt for _, sample in rows],
            "tokens": pl.Series(
                [list(sample.tokens) for _, sample in rows], dtype=pl.List(pl.Int32)
            ),
        }
    )
    building = file.with_suffix(".building")
    frame.write_parquet(building)
    building.replace(file)


def read_samples(file: Path) -> Prepared:
    """What `write_samples` wrote (the list of overlong records stays with whoever prepared)."""
    parts: dict[str, list[Sample]] = {"train": [], "validation": []}
    for row in pl.read_parquet(file).iter_rows(named=True):
        fields = {name: row[name] for name in ("id", "case_id", "teacher", "style", "dataset")}
        parts[row["split"]].append(
            Sample(**fields, tokens=tuple(row["tokens"]), prompt=row["prompt"])
        )
    return Prepared(tuple(parts["train"]), tuple(parts["validation"]), ())
