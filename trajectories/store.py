"""The DuckDB store: one file a run, one writer. Everything that a case produced is stored in one
transaction: a rollout as its case finishes, an environment with others (`trajectories.batch`)."""

import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from pydantic import TypeAdapter

from medaction.envs.records import BadCase, ClinicalEnvironment
from medaction.llm.usage import Usage
from medaction.trajectories.files import SNAPSHOT, STORE
from medaction.trajectories.migrations import MIGRATIONS, SCHEMA_VERSION
from medaction.trajectories.queries import named_rows
from medaction.trajectories.records import (
    Failure,
    OpenFailure,
    Played,
    RolloutSpec,
    Trajectory,
    now,
)
from medaction.trajectories.snapshot import SEALED, Publisher, holds_runs
from medaction.trajectories.table_rows import (
    BuiltCase,
    case_row,
    plain_row,
    refused,
    trajectory_row,
    turn_row,
)
from medaction.words.errors import MedactionError, typed

log = logging.getLogger("medaction")

WRITE_ERRORS = (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException)
"""What DuckDB raises when a file cannot be written: at an insert, at a commit, and from then on."""
UNWRITABLE = ("Permission denied", "Read-only file system", "No space left", "File too large")
"""The system's words in DuckDB's errors for a file that may be sound and cannot be written."""
CORRUPT = "Corrupt database file"
"""In DuckDB's error for a block whose checksum is wrong, which it sees when it reads the block."""
IN = "environment_id in (select unnest(?))"
"""Of these environments: a hash join, where `list_contains` compares each row with each id."""
_ENVIRONMENTS = TypeAdapter(list[ClinicalEnvironment])
_USAGE = TypeAdapter(Usage)


class StoreError(MedactionError):
    """The store cannot be used as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class EnvironmentKey:
    """An environment by its ids alone: a store of many is not read into memory."""

    environment_id: str
    case_id: str


class Store:
    """A run's DuckDB file. Opened by one process at a time; a second one gets a StoreError that
    says who has it."""

    def __init__(self, path: Path):
        self.path = path
        self._columns: dict[str, dict[str, str]] = {}  # a table's columns and types, once described
        self._purpose = ""  # what the store was claimed for by this process
        self._failing: set[tuple[str, str]] | None = None  # `_has_failed`
        self._has_failed_to_write = False
        path.parent.mkdir(parents=True, exist_ok=True)
        # An empty store would replace the copy, and with it all that was played.
        if not (path.exists() and path.stat().st_size) and path.with_name(SNAPSHOT).exists():
            raise StoreError(
                f"{path} is missing or empty: `medaction doctor --out {typed(path.parent)}"
                f" --repair` puts {SNAPSHOT}, its last whole copy, in its place"
            )
        try:
            self.db = duckdb.connect(str(path), config=dict(SEALED))
            # Relative and session-independent: timestamps are stored and read in UTC.
            self.db.execute("set timezone = 'UTC'")
            self._publisher = Publisher(self.db, path)
            self._create()
        except duckdb.Error as error:  # a garbled file or log ends in errors of many kinds
            if "lock on file" in str(error):
                raise StoreError(
                    f"{path} is in use by another process; wait for it or end it, then start again"
                    f" ({error})"
                ) from error
            # A full disk is no damage: `--repair` would put an old copy in a sound store's place.
            if any(words in str(error).partition("\n")[0] for words in UNWRITABLE):
                raise self._unwritable(error) from error
            raise self._damaged(error) from error

    def _create(self) -> None:
        """The schema, brought up to this program's version where an earlier one wrote the store; a
        copy of that one is kept."""
        is_new = not self.rows("select 1 from duckdb_tables()")
        if not (is_new or holds_runs(self.db)):
            raise StoreError(
                f"{self.path} is a database of something else: move it away. `medaction doctor"
                f" --out {typed(self.path.parent)} --repair` puts {SNAPSHOT}, the last whole"
                " copy, there"
            )
        version = None if is_new else self.meta("schema_version")
        if version and version != SCHEMA_VERSION and version not in MIGRATIONS:
            raise StoreError(
                f"{self.path} has schema version {version}, this program has {SCHEMA_VERSION}: use"
                " the version that wrote it"
            )
        # Whoever goes back to the earlier program needs the file as that one wrote it.
        if version in MIGRATIONS:
            self._publisher.copy_to(
                self.path.with_name(f"{self.path.stem}.schema-{version}.duckdb")
            )
        with self.transaction():
            while version in MIGRATIONS:
                # Step by step: each migration knows the version right before it alone.
                self.db.execute(MIGRATIONS[version])
                version = str(int(version) + 1)
            self.db.execute(Path(__file__).with_name("schema.sql").read_text())
            self.set_meta("schema_version", SCHEMA_VERSION)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            self.db.close()
        finally:
            # A write outside of `transaction`, as `set_meta`: the same words for the same fault.
            if isinstance(error, duckdb.Error) and CORRUPT in str(error):
                raise self._damaged(error) from error
            if isinstance(error, WRITE_ERRORS):
                raise self._unwritable(error) from error

    @contextmanager
    def transaction(self):
        """All or nothing: whatever is written inside is there after a crash as a whole or not at
        all."""
        try:
            self.db.execute("begin")
            try:
                yield
            except BaseException:  # Ctrl-C, too
                with suppress(duckdb.Error):  # the first error says more than the rollback's
                    self.db.execute("rollback")
                raise
            self.db.execute("commit")
            # Outside of the transaction: DuckDB makes no checkpoint within one.
            self._publisher.if_due()
        except WRITE_ERRORS as error:
            raise self._unwritable(error) from error

    def _damaged(self, error: duckdb.Error) -> StoreError:
        reason = str(error).partition("\n")[0].rstrip(".!")
        return StoreError(
            f"{self.path} cannot be opened as a DuckDB file: {reason}. `medaction doctor --out"
            f" {typed(self.path.parent)} --repair` puts {SNAPSHOT}, its last whole copy, in its"
            " place"
        )

    def _unwritable(self, error: duckdb.Error) -> StoreError:
        # Once a write has failed, every further one names the first failure last.
        self._has_failed_to_write = True
        reason = " ".join(str(error).rpartition("Original error: ")[2].split())[:300]
        return StoreError(
            f"{self.path} cannot be written: {reason}. Is the disk full, or the folder not yours?"
            " What had finished is stored: the same command goes on from there"
        )

    def publish(self) -> None:
        """Let readers see the store as it is now (`medaction.trajectories.snapshot`)."""
        self._publisher.now()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple]:
        return self.db.execute(sql, list(parameters)).fetchall()

    def frame(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        return self.db.sql(sql, params=list(parameters)).pl()

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append `rows` (dicts keyed by column) to one of the schema's tables in one
        statement: for the rows of a case a third of executemany's time."""
        if not rows:
            return
        if table not in self._columns:
            described = self.db.execute(f"describe {table}").fetchall()
            self._columns[table] = {name: kind for name, kind, *_ in described}
        # What the rows do not bring has a default in the schema.
        columns = {name: kind for name, kind in self._columns[table].items() if name in rows[0]}
        names = ", ".join(f'"{name}"' for name in columns)
        # JSON with the table's own types keeps nested values exact, whatever the first rows hold
        # (empty lists, nulls).
        values = ({name: row[name] for name in columns} for row in rows)
        encoded = [json.dumps(row, default=_plain) for row in values]
        source = 'select unnest(from_json("row", $shape)) from (select unnest($rows) as "row")'
        parameters = {"shape": json.dumps(columns), "rows": encoded}
        # The names are the schema's.
        self.db.execute(f"insert into {table} ({names}) {source}", parameters)

    # --- meta and runs ------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        values = self.rows("select value from meta where key = ?", [key])
        return values[0][0] if values else None

    def set_meta(self, key: str, value: str) -> None:
        self.db.execute("insert or replace into meta values (?, ?)", [key, value])

    @property
    def evaluation_only(self) -> bool:
        return self.meta("purpose") == "evaluation"

    def claim(self, evaluation_only: bool) -> None:
        """Mark the store as training data or as evaluation-only, once. Benchmark cases and training
        cases never share a store.

        Raises StoreError when the store is already marked the other way.
        """
        purpose = "evaluation" if evaluation_only else "training"
        if self._purpose == purpose:  # a write of its own for each case would double their cost
            return
        # The first mark stays; one of the other kind is refused below.
        self.db.execute("insert or ignore into meta values ('purpose', ?)", [purpose])
        if self.meta("purpose") != purpose:
            raise StoreError(
                f"{self.path} holds {self.meta('purpose')} cases and these are for {purpose}: use"
                " another output folder; of cases that lie in one folder, move the benchmark's away"
            )
        self._purpose = purpose

    @contextmanager
    def run(
        self, flow: str, settings: str, flow_run_id: str | None, versions: Mapping[str, str]
    ) -> Iterator[str]:
        """Record a run with its settings (JSON) and how it ended; yields its id. The file's lock is
        ours, so whatever still says 'running' is dead: a process that was killed noted no end."""
        self.db.execute("update runs set state = 'interrupted' where state = 'running'")
        run_id = uuid.uuid4().hex[:12]
        self.db.execute(
            "insert into runs values (?, ?, ?, ?, ?, null, 'running', ?, ?)",
            [run_id, flow, flow_run_id, os.getpid(), now(), settings, json.dumps(dict(versions))],
        )
        state = "failed"
        try:
            yield run_id
            state = "completed"
        finally:
            self._end_run(run_id, state)

    def _end_run(self, run_id: str, state: str) -> None:
        try:
            sql = "update runs set ended = ?, state = ? where run_id = ?"
            self.db.execute(sql, [now(), state, run_id])
            self.publish()
        except duckdb.Error as error:
            # The next run finds one without an end 'running', and takes it for dead.
            if not self._has_failed_to_write:  # of which the error speaks already
                log.warning("%s: the end of the run could not be stored: %s", self.path, error)

    def last_run(self, flow: str | None = None) -> tuple[str, str]:
        """Flow and settings (JSON) of the newest run, of this flow if one is named. Raises
        StoreError when there is none."""
        sql = "select flow, settings from runs where flow = coalesce(?, flow)"
        runs = self.rows(f"{sql} order by started desc limit 1", [flow])
        if not runs:
            raise StoreError(f"{self.path} has no run yet: start one with `medaction distill`")
        return runs[0]

    # --- stage 1 ------------------------------------------------------------------------

    def add_built_cases(self, cases: Sequence[BuiltCase], built_with: str, run_id: str) -> None:
        """Cases with their environments, or with their refusals, which are also on record as
        failures that can be retried: all of them in one transaction.

        What earlier attempts at a case spent is added to its usage. No two of `cases` have the
        same id.
        """
        for case in cases:
            if case.built.environment:
                self.claim(case.built.environment.evaluation_only)
        with self.transaction():
            spent = self._spent_on([case.report.case_id for case in cases])
            worlds = [case.built.environment for case in cases if case.built.environment]
            ids = {world.environment_id: world for world in worlds}
            if spent:  # cases that were built before: most tables have no index to look in
                for table in ("cases", "checks", "ledger"):
                    sql = f"delete from {table} where case_id in (select unnest(?))"
                    self.db.execute(sql, [list(spent)])
                # What was played in another environment of the case still refers to that one.
                self.db.execute(f"delete from environments where {IN}", [list(ids)])
            rows: dict[str, list[dict[str, Any]]] = {"cases": [], "checks": [], "ledger": []}
            for case in cases:
                usage = case.usage + spent.get(case.report.case_id, Usage())
                rows["cases"].append(case_row(case, built_with) | asdict(usage))
                key = {"case_id": case.report.case_id}
                rows["checks"] += [asdict(check) | key for check in case.built.checks]
                rows["ledger"] += [asdict(passage) | key for passage in case.built.ledger]
            rows["environments"] = [
                asdict(world) | {"environment_id": id_} for id_, world in ids.items()
            ]
            for table, of_table in rows.items():
                self.insert(table, of_table)
            for case in cases:
                self._resolve("read", case.report.case_id)
            for world in worlds:
                self._resolve("environment", world.case_id)
            refusals = [
                refused("environment", case.report.case_id, case.report.path, case.built.refusal)
                for case in cases
                if case.built.refusal
            ]
            self._put_failures(refusals, run_id)

    def _spent_on(self, case_ids: Sequence[str]) -> dict[str, Usage]:
        """What was spent on those of the cases that the store has."""
        names = ", ".join(Usage.__dataclass_fields__)
        rows = self.rows(
            f"select case_id, {names} from cases where case_id in (select unnest(?))",
            [list(case_ids)],
        )
        fields = Usage.__dataclass_fields__
        return {
            case_id: _USAGE.validate_python(dict(zip(fields, values, strict=True)))
            for case_id, *values in rows
        }

    def _add_spent(self, case_id: str, usage: Usage) -> None:
        spent = asdict(self._spent_on([case_id]).get(case_id, Usage()) + usage)
        change = ", ".join(f"{name} = ?" for name in spent)
        self.db.execute(f"update cases set {change} where case_id = ?", [*spent.values(), case_id])

    def add_unreadable(self, refusal: BadCase, run_id: str) -> None:
        """Something that could not be read as a case report at all."""
        with self.transaction():
            self._put_failures([refused("read", refusal.case_id, refusal.path, refusal)], run_id)

    def resolve_unreadable(self, case_id: str, path: str, reason: str) -> None:
        """What `add_unreadable` stored can be read now, or is gone."""
        condition = "stage = 'read' and case_id = ? and path = ? and error_class = ?"
        self._mark_resolved(condition, [case_id, path, reason])

    def environments(self, ids: Sequence[str] | None = None) -> list[ClinicalEnvironment]:
        """The current environment of every case, in the order of case ids; or those with these
        ids."""
        if ids is None:
            source = "cases join environments using (environment_id) order by cases.case_id"
            return self._environments(source)
        return self._environments(f"environments where {IN} order by case_id", [list(ids)])

    def _environments(
        self, source: str, parameters: Sequence[Any] = ()
    ) -> list[ClinicalEnvironment]:
        sql = f"select environments.* exclude (environment_id) from {source}"
        return _ENVIRONMENTS.validate_python(named_rows(self.db.execute(sql, list(parameters))))

    def environment_keys(self) -> list[EnvironmentKey]:
        """The ids of what `environments` gives, in the same order."""
        rows = self.rows(
            "select environment_id, environments.case_id from cases join environments using"
            " (environment_id) order by cases.case_id"
        )
        return [EnvironmentKey(*row) for row in rows]

    def environment(self, environment_id: str) -> ClinicalEnvironment:
        """Raises StoreError for an unknown environment."""
        environments = self._environments("environments where environment_id = ?", [environment_id])
        if not environments:
            raise StoreError(f"{self.path} has no environment {environment_id!r}")
        return environments[0]

    # --- stage 2 ------------------------------------------------------------------------

    def add_rollouts(
        self,
        stage: str,
        case_id: str,
        trajectories: Iterable[Trajectory],
        failures: Sequence[Failure],
        run_id: str,
    ) -> None:
        """`add_played` for one case."""
        self.add_played(stage, [Played(case_id, tuple(trajectories), tuple(failures))], run_id)

    def add_played(self, stage: str, cases: Sequence[Played], run_id: str) -> None:
        """Store what the rollouts (stage 'rollout') or gold trajectories ('gold') of cases gave, in
        one transaction. A trajectory that is already there is left as it is.

        What the oracle's model used is added to the case's own. A failure without a trajectory is
        the whole case's (its worker was lost, say); the case's next result resolves it.
        """
        stored = now()
        by_id = {member.trajectory_id: member for case in cases for member in case.trajectories}
        with self.transaction():
            # A rerun may play a case whose result came in just before it was killed.
            sql = "select trajectory_id from trajectories where trajectory_id in (select unnest(?))"
            present = {id_ for (id_,) in self.rows(sql, [list(by_id)])}
            # By id: what is stored is never overwritten, so a dataset's records keep their source.
            fresh = [trajectory for id_, trajectory in by_id.items() if id_ not in present]
            rows = [trajectory_row(trajectory, run_id, stored) for trajectory in fresh]
            self.insert("trajectories", rows)
            turns = [turn_row(played, turn) for played in fresh for turn in played.turns]
            self.insert("turns", turns)
            for case in cases:
                ids = [member.trajectory_id for member in case.trajectories]
                self._resolve(stage, case.case_id, [id_ for id_ in ids if id_ not in present])
                self._put_failures(case.failures, run_id)
                if case.oracle_usage:
                    self._add_spent(case.case_id, case.oracle_usage)

    def trajectory_ids(self) -> set[str]:
        return {id_ for (id_,) in self.rows("select trajectory_id from trajectories")}

    def specs(self) -> dict[str, list[RolloutSpec]]:
        """What was played in every environment, by its id, without the turns: a rerun asks this
        first."""
        specs: dict[str, list[RolloutSpec]] = {}
        for row in self.rows(
            "select environment_id, case_id, teacher, style, sample, settings_hash, parent_id,"
            " branch_turn from trajectories"
            " order by environment_id, branch_turn, trajectory_id"
        ):
            specs.setdefault(row[0], []).append(RolloutSpec(*row))
        return specs

    # --- failures -----------------------------------------------------------------------

    def open_failures(self, *stages: str) -> list[OpenFailure]:
        """Every failure of these stages without a later success: the newest of each case and
        rollout."""
        rows = self.rows(
            "select stage, case_id, any_value(teacher), trajectory_id, arg_max(error_class, time)"
            " from failures where list_contains(?, stage) and resolved is null group by stage,"
            " case_id, trajectory_id order by all",
            [list(stages)],
        )
        return [OpenFailure(*row) for row in rows]

    def _put_failures(self, failures: Sequence[Failure], run_id: str) -> None:
        rows = []
        for failure in failures:
            before = 0
            # The count of earlier attempts is asked only where there are any.
            if self._has_failed(failure.stage, failure.case_id):
                before = self.rows(
                    "select count(*) from failures where stage = ? and case_id = ? and"
                    " trajectory_id is not distinct from ?",
                    [failure.stage, failure.case_id, failure.trajectory_id],
                )[0][0]
            row, time = asdict(failure), failure.time.isoformat()
            about = {"run_id": run_id, "attempt": before + 1, "time": time}
            rows.append(row | row["usage"] | about)
        self.insert("failures", rows)
        if self._failing is not None:
            self._failing |= {(failure.stage, failure.case_id) for failure in failures}

    def _resolve(self, stage: str, case_id: str, trajectory_ids: Sequence[str] = ()) -> None:
        """The open failures of the case as a whole and of these trajectories had a later
        success."""
        if self._has_failed(stage, case_id):
            of_rollouts = "(trajectory_id is null or list_contains(?, trajectory_id))"
            condition = f"stage = ? and case_id = ? and {of_rollouts}"
            self._mark_resolved(condition, [stage, case_id, list(trajectory_ids)])

    def _mark_resolved(self, condition: str, values: Sequence[Any]) -> None:
        sql = f"update failures set resolved = ? where resolved is null and {condition}"
        self.db.execute(sql, [now(), *values])

    def _has_failed(self, stage: str, case_id: str) -> bool:
        """Whether the store ever had such a failure. Asked of every case, and most have none: the
        answer is kept in memory, as the failures have no index."""
        if self._failing is None:
            self._failing = set(self.rows("select distinct stage, case_id from failures"))
        return (stage, case_id) in self._failing

    # --- evaluation ---------------------------------------------------------------------

    def add_judgements(
        self, rows: Sequence[Mapping[str, Any]], failures: Sequence[Failure] = (), run_id: str = ""
    ) -> None:
        """Rows of `judgements`, whose `judgement` is JSON text, and what failed besides. A judge's
        earlier judgement of the same trajectory is replaced, and its failures are resolved: of the
        same judging, and of the case as a whole under the same protocol."""
        keys = ("trajectory_id", "protocol", "judge", "repeat")
        with self.transaction():
            for row in rows:
                values = [row[name] for name in (*keys, "judgement")]
                self.db.execute("insert or replace into judgements values (?, ?, ?, ?, ?)", values)
            if rows:
                # What is null in a failure holds for all.
                same = " and ".join(
                    f"coalesce(failures.{column}, judged.{name}) = judged.{name}"
                    for name, column in zip(keys, (*keys[:2], "teacher", "repeat"), strict=True)
                )
                self._mark_resolved(
                    "stage = 'judge' and exists (select 1 from trajectories"
                    " join (select unnest(?, recursive := true)) as judged using (trajectory_id)"
                    f" where trajectories.case_id = failures.case_id and {same})",
                    [[{name: row[name] for name in keys} for row in rows]],
                )
            self._put_failures(failures, run_id)

    # --- stage 3 ------------------------------------------------------------------------

    def empty(self, *derived: str) -> None:
        """Delete what can always be computed again. Call it, and what fills the tables anew
        (`insert`), in one transaction."""
        # Names become part of the statement, and nothing but what can be recomputed may go.
        assert set(derived) <= {"links", "verdicts", "turn_scores", "rac_null"}
        for table in derived:
            self.db.execute(f"delete from {table}")


def publish_if_missing(out: Path) -> None:
    """Give a run of earlier days, which wrote no snapshot, its first one. Raises StoreError when
    the store is in use or not there."""
    if (out / SNAPSHOT).exists():
        return
    if not (out / STORE).exists():
        raise StoreError(f"{out} is not the folder of a run: it has no {STORE}")
    with Store(out / STORE) as store:
        store.publish()


def _plain(value: Any) -> Any:
    """What JSON has no form for: a record's fields, anything else as text."""
    return plain_row(value) if is_dataclass(value) else str(value)
