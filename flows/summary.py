"""A run's summary: every number is a query over the store, and the query stands beside its table.

The queries are in summary.sql.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medaction.flows.settings import DistillSettings
from medaction.trajectories.damage import Damage, aside
from medaction.trajectories.files import STORE
from medaction.trajectories.quarantine import QUARANTINED, quarantined
from medaction.trajectories.queries import Query, read_queries
from medaction.trajectories.records import WORKER_LOST
from medaction.trajectories.store import Store, StoreError
from medaction.words.errors import MedactionError, typed
from medaction.words.markdown import markdown_table
from medaction.words.versions import checksum

REPORT_QUERIES = read_queries(Path(__file__).with_name("summary.sql"))
CHECKS = ("Cases", "Checks", "Ledger", "Second opinions", "Refused cases", "Failures")
"""The tables of stage 1."""
REPORT = tuple(title for title in REPORT_QUERIES if title not in ("Ledger", "Refused cases"))
CELL = 200
"""Characters of a cell in a report: messages of errors and titles of cases may be long."""
SHOWN = 50
"""Refused cases that the terminal shows: of 10,000 reports hundreds may be refused."""


def write_summary(store: Store, settings: DistillSettings) -> dict[str, Any]:
    """Write summary.md; returns {'out': folder, 'funnel', 'teachers', 'cost', 'failures': rows},
    small enough to be a flow run's result."""
    parts = [f"# Distillation of {settings.cases}", ""]
    notes = [*notes_of(store), *cache_notes(store)]
    about = []
    if store.evaluation_only:
        about.append(
            "**Evaluation-only store: these cases are a benchmark. No dataset is written and"
            " export refuses.**"
        )
    if any(teacher.embedded for teacher in settings.teachers):
        about.append(
            "The teachers named `kg-…` are the knowledge-graph clinician: no language model. They"
            " play on the graph on which DTC and RAC are measured, so their scores say nothing"
            " about the metrics."
        )
    parts += [line for note in (*about, *notes) for line in (note, "")]
    tables = {title: store.frame(REPORT_QUERIES[title].sql) for title in REPORT}
    for title, frame in tables.items():
        if not frame.is_empty():
            parts += _section(REPORT_QUERIES[title], frame)
    parts += ["## Settings", "", f"```json\n{settings.model_dump_json(indent=2)}\n```", ""]
    _write(store, settings.out / "summary.md", parts)
    return {"out": str(settings.out), "notes": notes} | {
        title.lower(): rows_of(tables[title])
        for title in ("Funnel", "Teachers", "Cost", "Failures")
    }


def notes_of(store: Store) -> list[str]:
    """What the filter did, in sentences: how much RAC removed and how much it would have removed at
    random, and how many of the dataset's commitments are wrong."""
    notes = []
    # Steps are indented below the one that they are a part of.
    counts = {step.strip(): count for step, count in store.rows(REPORT_QUERIES["Funnel"].sql)}
    if unlinked := counts["not played: truth is no node"]:
        notes.append(
            f"Environments that were not played, because their true diagnosis is no node of the"
            f" disease graph and nothing could be kept of them: {unlinked} of"
            f" {counts['environments']} (`--links` gives it a node, `--no-skip-unlinkable` plays"
            " them all the same)."
        )
    for row in store.frame(REPORT_QUERIES["RAC filter"].sql).iter_rows(named=True):
        note = (
            f"RAC removed {row['removed']} of {row['turns']} turns"
            f" ({row['turns_with_a_rac']} of them have a RAC)"
        )
        if row["random_orders_removed"] is not None:
            note += (
                f"; a random order would be removed in {row['random_orders_removed']:.0%}, a random"
                f" change of the differential in {row['random_changes_removed']:.0%}"
            )
        note += f" (threshold {row['threshold']:g} hops: {row['origin']})."
        if row["turns"] and not row["removed"]:
            note += (
                " **The RAC filter did nothing here**: `medaction kg calibrate` measures the"
                " threshold of this graph."
            )
        notes.append(note)
    if store.rows("select 1 from verdicts where reason = ? limit 1", [QUARANTINED]):
        notes += [
            f"**Nothing that {teacher} played is in the dataset**: {why}. If that is as it should"
            " be: `--no-quarantine`."
            for teacher, why in quarantined(store).items()
        ]
    endings = store.frame(REPORT_QUERIES["Endings"].sql)
    right, wrong, unknown, dropped = (
        int(endings[name].sum())
        for name in ("right_kept", "wrong_kept", "unknown_kept", "wrong_dropped")
    )
    if total := right + wrong + unknown:
        notes.append(
            f"Of {total} kept turns that commit to a diagnosis {right} are right, {wrong} wrong and"
            f" {unknown} of unknown distance to the truth; {dropped} wrong ones were taken out"
            " (`--wrong-endings`)."
        )
    return notes


def cache_notes(store: Store) -> list[str]:
    """How many calls cost this run nothing, in a sentence; none where all were asked."""
    costs = store.frame(REPORT_QUERIES["Cost"].sql)
    cached, calls = int(costs["cached"].sum()), int(costs["calls"].sum())
    if not cached:
        return []
    return [
        f"{cached} of {cached + calls} calls were answered by the call cache: an earlier run or"
        " `--estimate` has paid for them, and their tokens and dollars are not counted here."
    ]


def write_checks(store: Store, out: Path) -> dict[str, Any]:
    """Write checks.md; returns {'out': folder} with the tables of `check_tables`."""
    parts = [f"# Environments of {out}", ""]
    for title in CHECKS:
        parts += _section(REPORT_QUERIES[title], store.frame(REPORT_QUERIES[title].sql))
    _write(store, out / "checks.md", parts)
    return {"out": str(out), **check_tables(store)}


def check_tables(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Rows by title: what became of the cases, every check with its figures, the refused cases."""
    return {title.lower(): rows_of(store.frame(REPORT_QUERIES[title].sql)) for title in CHECKS}


def trouble_of(summary: dict[str, Any], wants_records: bool = True) -> str:
    """Why a distillation has nothing to show or is not complete, in one line with the remedy;
    empty when all is well. A refused case is a result, no trouble, as long as others remain.
    `wants_records`: a dataset without a record is trouble, too."""
    count = {row["step"].strip(): row["count"] for row in summary["funnel"]}
    out = summary["out"]
    if not count["cases read"]:
        return (
            f"no case could be read: `medaction envs check --out {typed(out)}` names file and fault"
        )
    if not count["environments"]:
        return (
            f"every case was refused ({count['refused']} of {count['cases read']}):"
            f" `medaction envs check --out {typed(out)}` says why"
        )
    unlinked = count.get("not played: truth is no node", 0)
    # Told apart from failures: nothing is broken, and `retry` would not help.
    if not count["trajectories played"] and unlinked and not count["rollouts failed"]:
        return (
            f"nothing was played: the true diagnoses of {unlinked} of {count['environments']}"
            " environments are no nodes of the disease graph, so that nothing could be kept;"
            " --links FILE gives them nodes, --no-skip-unlinkable plays them all the same"
        )
    if not count["trajectories played"]:
        return (
            f"nothing was played: {count['rollouts failed']} rollouts failed; mend what the table"
            f" of failures says, then `medaction retry --out {typed(out)}`"
        )
    played = {row["teacher"] for row in summary["teachers"]}
    for row in summary["failures"]:
        # One teacher's failure must not hide behind the other's success.
        if row["stage"] == "rollout" and row["open"] and row["teacher"] not in {*played, None}:
            return (
                f"{row['teacher']} played nothing ({row['for_example'][:300]}): mend that, then"
                f" `medaction retry --out {typed(out)}`"
            )
    if lost := sum(row["open"] for row in summary["failures"] if row["error_class"] == WORKER_LOST):
        return f"{lost} cases were lost with their worker: the same command plays them again"
    if count["rollouts failed"]:
        return (
            f"{count['rollouts failed']} rollouts failed, the rest is in {out}; run again what"
            f" failed: medaction retry --out {typed(out)}"
        )
    # A benchmark's run has no dataset.
    has_dataset = wants_records and (Path(out) / "dataset").exists()
    if has_dataset and not count["kept (records of the dataset)"]:
        return (
            f"nothing was kept of the {count['trajectories played']} trajectories played:"
            f" {out}/summary.md says why"
        )
    return ""


# --- as a file ------------------------------------------------------------------------------------


def _write(store: Store, file: Path, parts: Sequence[str]) -> None:
    file.write_text("\n".join(parts), encoding="utf-8")
    store.set_meta(file.name, checksum(file))


def _fault_of(file: Path, written: str) -> str:
    """Empty: it has the checksum with which it was written."""
    try:
        return "" if checksum(file) == written else "was changed since it was written"
    except FileNotFoundError:
        return "is missing"
    except OSError:
        return "cannot be read"


def damage_of_reports(out: Path, repair: bool) -> Iterator[Damage]:
    """Look at summary.md and checks.md, as far as the runs in `out` wrote them and noted their
    checksums, which earlier programs did not; with `repair` they are written anew from the store,
    and what was there is moved aside. A store that cannot be read has been named."""
    with suppress(StoreError, duckdb.Error):
        if not (out / STORE).exists():
            return
        with Store(out / STORE) as store:
            for file in (out / "summary.md", out / "checks.md"):
                written = store.meta(file.name)
                fault = _fault_of(file, written) if written else ""
                if fault and repair:
                    if file.exists():
                        aside(file)
                    if file.name == "checks.md":
                        write_checks(store, out)
                    else:
                        settings = DistillSettings.model_validate_json(store.last_run("distill")[1])
                        write_summary(store, settings.model_copy(update={"out": out}))
                if fault:
                    yield Damage(file, fault, "write it anew from the store", repair)


# --- in the terminal ------------------------------------------------------------------------------


def print_checks(tables: dict[str, Any]) -> None:
    """The tables of `check_tables` in the terminal. What could not be read stands among the refused
    cases, and not once more among the failures."""
    failures = [row for row in tables["failures"] if row["stage"] != "read"]
    titles = tuple(title.lower() for title in CHECKS)
    refused = tables["refused cases"]
    short = {"failures": failures, "refused cases": refused[:SHOWN]}
    console = _console()
    _print_tables(console, tables | short, titles)
    if len(refused) > SHOWN:
        console.print(f"{len(refused) - SHOWN} more refused cases: checks.md, or --json")


def print_summary(summary: dict[str, Any], tables: bool = True) -> None:
    """The main tables in the terminal, and what to look at; without `tables` that alone. Raises
    MedactionError with what `trouble_of` says."""
    console = _console()
    if tables:
        _print_tables(console, summary, ("funnel", "teachers", "cost", "failures"))
    out, count = summary["out"], {row["step"].strip(): row["count"] for row in summary["funnel"]}
    dataset = (Path(out) / "dataset").exists()
    unread = sum(row["open"] for row in summary["failures"] if row["stage"] == "read")
    if lost := count["refused"] + unread:
        console.print(
            f"Cases not read or refused: {lost}; why: medaction envs check --out {typed(out)}"
        )
    if trouble := trouble_of(summary):
        raise MedactionError(trouble)
    for note in summary.get("notes", ()):
        # Notes are written for summary.md.
        console.print(note.replace("**", "").replace("`", ""), highlight=False)
    records = count["kept (records of the dataset)"]
    held = f"dataset/ with {records} records" if dataset else "no dataset: evaluation-only cases"
    console.print(f"In {out}: {STORE}, summary.md, {held}")
    console.print(f"Look at it: medaction view --out {typed(out)}")


def print_estimate(projection: dict[str, Any]) -> None:
    """The projection in the terminal, with the cases that it rests on."""
    console = _console()
    sample = ", ".join(projection["sample"]) or "none"
    console.print(f"{projection['cases']} cases, projected from {sample}")
    _print_tables(console, {"estimate": projection["rows"]}, ("estimate",))
    console.print(
        "Low and high: as if every case were like the cheapest, or the dearest, of these."
        " Hours: see --in-flight."
    )


def _console() -> Console:
    """As wide as the terminal; into a file or a pipe wide enough for names and reasons."""
    return Console() if sys.stdout.isatty() else Console(width=150)


def _print_tables(console: Console, tables: dict[str, Any], titles: tuple[str, ...]) -> None:
    for title in titles:
        if rows := tables[title]:
            label, *names = rows[0]
            table = Table(title=title.capitalize(), title_justify="left")
            table.add_column(label, no_wrap=True)
            for name in names:
                table.add_column(name, overflow="fold")
            for row in rows:
                cells = ("" if value is None else escape(str(value)) for value in row.values())
                table.add_row(*cells)
            console.print(table)


# --- as Markdown ----------------------------------------------------------------------------------


def rows_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """A table's rows with values that JSON knows."""
    # Through JSON: dates and paths become text as a flow run's result has them.
    rows: list[dict[str, Any]] = json.loads(json.dumps(frame.to_dicts(), default=str))
    return rows


def _section(query: Query, frame: pl.DataFrame) -> list[str]:
    note = [query.note, ""] if query.note else []
    sql = f"<details><summary>query</summary>\n\n```sql\n{query.sql}\n```\n</details>"
    return [f"## {query.title}", "", table_of_frame(frame), "", *note, sql, ""]


def indented(text: str) -> str:
    """Text in one line, with its indent as a character that Markdown keeps."""
    indent = "&emsp;" if text.startswith("  ") else ""
    return indent + " ".join(text.split())


def table_of_frame(frame: pl.DataFrame) -> str:
    """Text of models and cases is shown as text: no table breaks, no HTML."""
    # Steps of the funnel stand below each other by their indent, which Markdown would drop.
    cells = [
        ["" if value is None else indented(str(value))[:CELL].replace("<", "&lt;") for value in row]
        for row in frame.iter_rows()
    ]
    return "\n".join(markdown_table(frame.columns, cells))
