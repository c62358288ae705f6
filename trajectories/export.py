"""The SFT dataset: one record a kept turn, its rebuilt context as the prompt, the turn's reply as
the only target."""

import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from medaction.envs.records import ClinicalEnvironment
from medaction.envs.turns import Turn
from medaction.trajectories.damage import checksum_of_manifest, checksums, damage_of_version
from medaction.trajectories.labels import rejected
from medaction.trajectories.quarantine import QUARANTINED
from medaction.trajectories.records import Trajectory, path_of
from medaction.trajectories.store import IN, Store, StoreError
from medaction.trajectories.stored_trees import trees_of
from medaction.trajectories.table_rows import plain_row
from medaction.words.versions import version_of

Prompt = Callable[[ClinicalEnvironment, Trajectory, Sequence[Turn]], list[dict[str, str]]]
"""(environment, trajectory, turns so far) -> chat messages: how the context of a turn is
rebuilt."""

log = logging.getLogger("medaction")

_STRING, _INT = pl.String(), pl.Int32()
MESSAGE = pl.Struct({"role": _STRING, "content": _STRING})
REPLY = pl.Struct({"role": _STRING, "content": _STRING, "reasoning_content": _STRING})
"""A message that may be an assistant's, with what it thought before it; null: nothing."""
SWITCH = pl.Struct({"enable_thinking": pl.Boolean()})
"""What TRL hands to the chat template. Else templates that can think open a reply without thoughts
by an empty block of them, and TRL would put the loss on it."""
SCHEMA = pl.Schema({
    "id": _STRING, "messages": pl.List(REPLY), "prompt": pl.List(MESSAGE),
    "completion": pl.List(REPLY), "chat_template_kwargs": SWITCH,
    # what was played
    "case_id": _STRING, "teacher": _STRING, "style": _STRING, "turn": _INT,
    "trajectory_turns": _INT, "final": pl.Boolean(),
    "trajectory_id": _STRING, "parent_id": _STRING, "branch_turn": _INT, "sample": _INT,
    # what pruning made of it
    "status": _STRING, "dtc": _INT, "rac": pl.Float64(),
    # where it is from
    "diagnosis": _STRING, "source": _STRING, "licence": _STRING, "environment_id": _STRING,
    "seed": pl.Int64(), "settings_hash": _STRING, "prompt_version": _STRING,
    "code_version": _STRING, "split": _STRING,
})  # fmt: skip

SPLITS = ("train", "validation")


def split_of(case_id: str, validation_percent: int) -> str:
    """'train' or 'validation', by a hash of the case: all turns of a case stay together, and a case
    never changes sides."""
    # A hash, not a draw: more cases or another run leave each case on its side.
    place = int(hashlib.sha256(case_id.encode()).hexdigest()[:8], 16) % 100
    return "validation" if place < validation_percent else "train"


def dataset_records(
    store: Store, prompt: Prompt, validation_percent: int
) -> Iterator[dict[str, Any]]:
    """A record for every stored turn that at least one path through it keeps, in the order of case,
    trajectory and turn.

    A turn that branches share is one record, under the trajectory that played it, and so is one
    that several rollouts of a teacher wrote to the letter (`repeated_turns` in schema.sql): counted
    three times it would weigh three times in the loss. A turn that
    pruning removed is no record, but what its tests returned stays in the later turns' context:
    that evidence was on the table when they were played. What a clinician rejected, a turn or a
    whole environment, is no record either (`medaction.trajectories.labels`).
    """
    rejected_cases, rejected_turns = rejected(store.path.parent)
    repeats = set(store.rows("select trajectory_id, number from repeated_turns"))
    store.db.execute(KEPT_TURNS)
    for batch in trees_of(store):
        sql = f"select trajectory_id, number, status, dtc, rac from kept_turns where {IN}"
        kept = store.rows(sql, [[world.environment_id for world, _ in batch]])
        scores_of = {
            (id_, number): {"status": status, "dtc": dtc, "rac": rac}
            for id_, number, status, dtc, rac in kept
        }
        for environment, tree in batch:
            if environment.case_id in rejected_cases:
                continue
            by_id = {trajectory.trajectory_id: trajectory for trajectory in tree}
            # In one order, so that an unchanged dataset has unchanged files.
            for trajectory in sorted(tree, key=lambda branch: branch.trajectory_id):
                path = path_of(trajectory, by_id)
                for turn in trajectory.turns:
                    place = (trajectory.trajectory_id, turn.number)
                    if place not in scores_of or place in repeats or place in rejected_turns:
                        continue
                    context = prompt(environment, trajectory, path[: turn.number - 1])
                    record = _record(environment, trajectory, turn, len(path), context)
                    split = split_of(environment.case_id, validation_percent)
                    yield record | scores_of[place] | {"split": split}
    # A temporary table belongs to the connection, which may go on to something else.
    store.db.execute("drop table kept_turns")


KEPT_TURNS = """
create or replace temporary table kept_turns as
select trajectories.environment_id, fates.trajectory_id, fates.number, fates.status, scores.dtc,
    scores.rac
from turn_fates as fates join trajectories using (trajectory_id)
left join turn_scores as scores
    on scores.trajectory_id = fates.trajectory_id and scores.number = fates.number
where fates.kept
"""
"""Made once an export: the view `turn_fates` goes through the whole store each time."""


def _record(
    environment: ClinicalEnvironment,
    trajectory: Trajectory,
    turn: Turn,
    path_turns: int,
    prompt: list[dict[str, str]],
) -> dict[str, Any]:
    reply = reply_message(turn)
    return plain_row(trajectory.spec) | {
        "id": f"{trajectory.trajectory_id}-{turn.number}",
        "messages": [*prompt, reply],
        "prompt": prompt,
        "completion": [reply],
        "chat_template_kwargs": {"enable_thinking": bool(turn.thinking)},
        "turn": turn.number,
        "trajectory_turns": path_turns,
        "final": turn.final_diagnosis is not None,
        "trajectory_id": trajectory.trajectory_id,
        "diagnosis": environment.diagnosis,
        "source": environment.source,
        "licence": environment.licence,
        "seed": trajectory.spec.seed,
        "prompt_version": trajectory.prompt_version,
        "code_version": trajectory.code_version,
    }


def reply_message(turn: Turn) -> dict[str, str | None]:
    """A turn as the assistant's message."""
    return {"role": "assistant", "content": turn.raw, "reasoning_content": turn.thinking or None}


@dataclass(frozen=True, slots=True)
class Version:
    """A version of the dataset of a run: its number from 1, its folder, its records, and what it
    changes against the one before.

    `changes` has a row for every case and teacher with a difference: case_id, teacher, and how many
    records were `added`, `removed` and `changed`. `is_new`: it was written just now; False: nothing
    has changed since it was.
    """

    number: int
    folder: Path
    records: int
    changes: tuple[dict[str, Any], ...]
    is_new: bool

    def sum_of(self, change: str) -> int:
        return sum(row[change] for row in self.changes)


Card = Callable[[Path, pl.DataFrame, int], dict[str, Any]]
"""(folder, the records without their messages, version) -> what the manifest says besides; writes
README.md and its plots there."""

BATCH = 500
"""Records rendered at a time: prompts are long, and a dataset may have hundreds of thousands of
them. 2,000 of the demo's took 250 MiB, 500 take 140."""


def export_dataset(
    store: Store,
    out: Path,
    prompt: Prompt,
    validation_percent: int,
    card: Card,
    rendered_by: object = None,
) -> Version:
    """Write the next version of the dataset to `out/datasets/vN/` and let `out/dataset` be it; an
    unchanged dataset stays as it is.

    A version has `<split>.parquet` and `<split>.jsonl` of each split with records, the card
    README.md, and manifest.json with a SHA-256 of every file. It appears whole or not at all, and
    older ones stay. `rendered_by` is data that tells how prompts are rendered: with it nothing is
    rendered where the store is as it was for the newest version. Raises StoreError when the store
    is marked evaluation-only.
    """
    if store.evaluation_only:
        raise StoreError(
            f"{store.path} holds evaluation-only cases (a benchmark): they are never exported as"
            " training data"
        )
    link, versions = out / "dataset", out / "datasets"
    versions.mkdir(parents=True, exist_ok=True)
    names = (folder.name[1:] for folder in versions.glob("v*"))
    numbers = sorted(int(name) for name in names if name.isdecimal())
    if link.is_dir() and not link.is_symlink():
        if not (link / "train.parquet").is_file():
            fault = "is a folder, not the link to the newest version: move it away"
            raise StoreError(f"{link} {fault}")
        # A dataset of before there were versions becomes the next one.
        numbers.append(numbers[-1] + 1 if numbers else 1)
        link.rename(versions / f"v{numbers[-1]}")
    last = _newest_sound(versions, numbers)
    former = manifest_of(versions / f"v{last}") if last else {}
    inputs = _inputs(store, validation_percent, rendered_by) if rendered_by else None
    # Where the newest version is damaged, a whole one follows it, however few records changed.
    is_newest = bool(last) and last == numbers[-1]
    if inputs and is_newest and former.get("inputs") == inputs:
        _point(link, versions / f"v{last}")
        return Version(last, versions / f"v{last}", former["records"], (), is_new=False)
    # A dot: neither a version nor found by its pattern; what a killed export left is thrown away.
    building = versions / ".building"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    _write_records(dataset_records(store, prompt, validation_percent), building)
    light = _light(building)
    # Without an earlier version all records are added.
    before = _light(versions / f"v{last}") if last else light.clear()
    changes = tuple(_changes(before, light))
    replies = _version_of_replies(store)
    # After the newest, also where that is damaged: a number never means two datasets.
    number = numbers[-1] + 1 if numbers else 1
    version = Version(number, versions / f"v{number}", len(light), changes, is_new=True)
    may_stay = is_newest and not changes
    is_unchanged = may_stay and former.get("replies", replies) == replies
    if not is_unchanged:
        # Only now: the card's plots and preferences cost more than to see that nothing changed.
        about = card(building, light, version.number)
        files = checksums(building)
        is_unchanged = may_stay and _preferences_in(files) == _preferences_in(former["files"])
    if is_unchanged:
        shutil.rmtree(building)
        noted = {"replies": replies, "inputs": inputs}  # so that it is not compared again
        if any(former.get(name) != value for name, value in noted.items()):
            note_in_manifest(versions / f"v{last}", **noted)
        version = Version(last, versions / f"v{last}", len(light), (), is_new=False)
        _point(link, version.folder)
        return version
    manifest: dict[str, Any] = {
        "version": version.number,
        "records": len(light),
        "changes_against": last or None,  # a damaged version in between is passed over
        "changes": changes,
        "replies": replies,
        "inputs": inputs,
        "contaminated": former.get("contaminated", {}),
        "files": files,
    } | about
    _write_manifest(building, manifest)
    # The last step: from here on the version is there, whole.
    building.rename(version.folder)
    _point(link, version.folder)
    return version


def manifest_of(version: Path) -> dict[str, Any]:
    """What a sound version says of itself."""
    about: dict[str, Any] = json.loads((version / "manifest.json").read_text(encoding="utf-8"))
    return about


def note_in_manifest(version: Path, **facts: Any) -> None:
    """Replace facts of a version's manifest."""
    _write_manifest(version, manifest_of(version) | facts)


def _write_manifest(version: Path, manifest: dict[str, Any]) -> None:
    """With a checksum of its own, and all at once for whoever reads it."""
    # As it is read again: a date is a text then.
    manifest = json.loads(json.dumps(manifest, default=str))
    manifest["checksum"] = checksum_of_manifest(manifest)
    # By a rename: the viewer or a training run may read it meanwhile.
    draft = version / "manifest.part"
    draft.write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    draft.replace(version / "manifest.json")


def _version_of_replies(store: Store) -> str:
    """Of everything that the preferences compare: replies that are no record are among it."""
    # A sum over whole rows: in `bit_xor(hash(one, two))` two rows that change alike cancel out.
    rows = "select sum(hash(row({})::varchar))::varchar from {}"
    scores = rows.format("trajectory_id, number, dtc", "turn_scores")
    # A hypothesis below the first has no DTC, and counts in the gain of information.
    links = rows.format('graph, kind, "text", node', "links")
    cases, turns = rejected(store.path.parent)
    sql = "select trajectory_id from verdicts where reason = ? order by all"
    left_out = [sorted(cases), sorted(turns), *store.rows(sql, [QUARANTINED])]
    return version_of([store.rows(scores), store.rows(links), *left_out])


def _inputs(store: Store, validation_percent: int, rendered_by: object) -> str:
    """Of everything that a version is made of, so that what is as it was need not be rendered."""
    sums = [
        store.rows(f"select sum(hash(row)) from {table} as row")
        for table in ("cases", "environments", "trajectories", "turns", "verdicts")
    ]
    return version_of([str(sums), _version_of_replies(store), validation_percent, rendered_by])


def _preferences_in(files: dict[str, Any]) -> dict[str, Any]:
    return {name: sum_ for name, sum_ in files.items() if name.startswith("preferences/")}


def _newest_sound(versions: Path, numbers: Sequence[int]) -> int:
    """The newest version whose files are what was written, 0: none. A damaged one is passed over
    with a warning: the dataset is then written anew, from the store."""
    # From the newest on: most often it is sound, and no other has to be hashed.
    for number in reversed(numbers):
        damage = damage_of_version(versions / f"v{number}")
        if not damage:
            return number
        for file, fact in damage:
            log.warning("%s %s: the dataset is written anew", file, fact)
    return 0


def _write_records(records: Iterator[dict[str, Any]], folder: Path) -> None:
    """The files of each split that has a record; without any record an empty train.parquet, so
    that the dataset can be read."""
    columns = pl.Schema({name: kind for name, kind in SCHEMA.items() if name != "split"})
    with SplitFiles(folder, "", columns) as files:
        for record in records:
            files.add(record)
    if not (folder / "train.parquet").exists():
        empty = pa.table(columns.to_frame().to_arrow()).cast(_arrow_schema(columns))
        pq.write_table(empty, folder / "train.parquet")


class SplitFiles:
    """`with SplitFiles(folder, prefix, columns) as files: files.add(record)` writes records, which
    name their `split`, to `folder/<prefix><split>.parquet` and .jsonl; a split without records has
    no file."""

    def __init__(self, folder: Path, prefix: str, columns: pl.Schema):
        self._folder, self._prefix, self._columns = folder, prefix, columns
        self._arrow = _arrow_schema(columns)
        self._waiting: list[dict[str, Any]] = []
        self._tables: dict[str, pq.ParquetWriter] = {}
        self._lines: dict[str, Any] = {}
        self._open = ExitStack()

    def add(self, record: dict[str, Any]) -> None:
        self._waiting.append(record)
        if len(self._waiting) == BATCH:
            self._write()

    def _write(self) -> None:
        # With the schema: a batch may hold nothing but nulls in a column.
        frame = pl.DataFrame(self._waiting, schema=self._columns | {"split": _STRING})
        self._waiting.clear()
        for split in SPLITS:
            part = frame.filter(pl.col("split") == split).drop("split")
            if part.is_empty():
                continue
            # Opened at its first record: a split without records has no file.
            if split not in self._tables:
                file = self._folder / f"{self._prefix}{split}.parquet"
                table = pq.ParquetWriter(file, self._arrow)
                self._tables[split] = self._open.enter_context(table)
                lines = file.with_suffix(".jsonl").open("wb")
                self._lines[split] = self._open.enter_context(lines)
            self._tables[split].write_table(part.to_arrow().cast(self._arrow))
            part.write_ndjson(self._lines[split])

    def __enter__(self) -> "SplitFiles":
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        with self._open:
            # After an error the rest is not worth writing: the folder is thrown away.
            if error is None:
                self._write()


def _arrow_schema(columns: pl.Schema) -> pa.Schema:
    """The columns with Arrow's common types: polars' own lists and strings are large ones, which
    some readers take for another type."""
    return pa.schema(_plain_fields(columns.to_frame().to_arrow().schema))


def _plain_fields(fields: Iterable[pa.Field]) -> list[pa.Field]:
    return [pa.field(field.name, _plain_type(field.type)) for field in fields]


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct(_plain_fields(kind))
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    # polars has several forms of text, by version.
    is_text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pa.string() if is_text else kind


def _light(folder: Path) -> pl.DataFrame:
    """The records of a version without their texts, with a `content` hash of everything in each.
    Read `BATCH` at a time: the prompts of a dataset do not fit into memory."""
    parts = []
    for split in SPLITS:
        if not (file := folder / f"{split}.parquet").exists():
            continue
        with pq.ParquetFile(file) as records:
            none = records.schema_arrow.empty_table()  # of a version without records: its columns
            for batch in itertools.chain([none], records.iter_batches(BATCH)):
                of_split = pl.lit(split).alias("split")
                content = pl.DataFrame(batch).with_columns(of_split).select(ALL_OF_A_RECORD)
                # Of the chosen columns alone: polars would keep the whole batch for one of them.
                names = [name for name in batch.schema.names if name not in TEXT_COLUMNS]
                light = pl.DataFrame(batch.select(names)).with_columns(of_split)
                parts.append(light.hstack(content))
    return pl.concat(parts)


ALL_OF_A_RECORD = pl.struct(pl.all()).hash().alias("content")
TEXT_COLUMNS = ("messages", "prompt", "completion", "chat_template_kwargs", "thinking")


def _changes(before: pl.DataFrame, after: pl.DataFrame) -> list[dict[str, Any]]:
    # Joined by id: a turn that was kept before and is kept now is the same record.
    columns = ["id", "case_id", "teacher", "content"]
    joined = before.select(columns).join(
        after.select(columns), on="id", how="full", suffix="_after", coalesce=True
    )
    gone, fresh = pl.col("content_after").is_null(), pl.col("content").is_null()
    other = ~fresh & ~gone & (pl.col("content") != pl.col("content_after"))
    kinds = {"added": fresh, "removed": gone, "changed": other}
    keys = ("case_id", "teacher")
    counts = (
        joined.with_columns(pl.coalesce(f"{name}_after", name).alias(name) for name in keys)
        .group_by(keys)
        .agg(kind.sum().alias(name) for name, kind in kinds.items())
    )
    return counts.filter(pl.sum_horizontal(*kinds) > 0).sort(keys).to_dicts()


def _point(link: Path, folder: Path) -> None:
    """Let `link` be `folder`, by a rename: whoever reads it has the one version or the other."""
    fresh = link.with_name(f".{link.name}.link")
    fresh.unlink(missing_ok=True)
    # Relative: a run's folder may be moved or mounted elsewhere.
    fresh.symlink_to(folder.relative_to(link.parent))
    fresh.rename(link)
