"""A run's summary: every number is a query over the store, and the query stands beside its table."""

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medaction.flows.doctor import Finding
from medaction.flows.settings import DistillSettings
from medaction.trajectories.export import Version
from medaction.trajectories.store import Store


@dataclass(frozen=True, slots=True)
class Query:
    title: str
    sql: str
    note: str = ""


FUNNEL = Query(
    "Funnel",
    """
    select 'cases read' as step, count(*) as "count" from cases
    union all select '  environments', count(*) from cases where environment_id is not null
    union all select '  refused', count(*) from cases where environment_id is null
    union all select 'trajectories played', count(*) from current_trajectories
    union all select '  kept', count(*) from current_trajectories join verdicts using (trajectory_id) where status = 'kept'
    union all select '  truncated', count(*) from current_trajectories join verdicts using (trajectory_id) where status = 'truncated'
    union all select '  discarded', count(*) from current_trajectories join verdicts using (trajectory_id) where status = 'discarded'
    union all select '  unscorable', count(*) from current_trajectories join verdicts using (trajectory_id) where status = 'unscorable'
    union all select 'rollouts failed', count(distinct trajectory_id) from failures where stage in ('rollout', 'gold') and resolved is null
    union all select 'turns played', count(*) from turn_fates
    union all select '  kept (records of the dataset)', count(*) from turn_fates where kept
    union all select '  not kept', count(*) from turn_fates where not coalesce(kept, false)
    """,
    "Refused + environments = cases; kept + truncated + discarded + unscorable = trajectories; kept + not kept = turns.",
)

OUTCOMES = Query(
    "Cases",
    """
        select coalesce('refused: ' || reason, 'environment') as outcome, count(*) as cases from cases group by all
        union all select 'not readable: ' || error_class, count(*) from failures where stage = 'read' and resolved is null group by all
        order by cases desc, outcome
    """,
)

CHECKS = Query(
    "Checks",
    """
    select name as "check", case when required then 'refuses' else 'warns' end as failing, count(*) as cases,
           count(*) filter (where passed) as passed, count(*) filter (where not passed) as failed, any_value(threshold) as threshold,
           format('{:.4g} / {:.4g} / {:.4g}', min(figure), median(figure), max(figure)) as "lowest / median / highest"
    from checks group by name, required order by required desc, name
    """,
    "Figures and thresholds are explained in docs/environments.md. A case is refused under the first required check that it fails.",
)

REFUSED = Query(
    "Refused cases",
    """
    select case_id, reason, message, path from cases where environment_id is null
    union all
    select case_id, error_class, message, path from failures where stage = 'read' and resolved is null
    order by reason, case_id
    """,
)

REPORT = (
    OUTCOMES,
    CHECKS,
    Query(
        "Trajectories, by verdict",
        """
        select status, reason, count(*) as trajectories
        from current_trajectories join verdicts using (trajectory_id) group by all order by trajectories desc, status, reason
        """,
    ),
    Query(
        "Turns, by fate",
        "select fate, count(*) as turns from turn_fates group by all order by turns desc, fate",
    ),
    Query(
        "Teachers",
        """
        with turn_counts as (
            select trajectory_id, count(*) as turns, count(*) filter (where kept) as kept from turn_fates group by all
        ),
        failures_open as (
            select teacher, case stage when 'gold' then 'gold' else 'schema' end as style, count(distinct trajectory_id) as failed
            from failures where resolved is null group by all
        )
        select teacher, style, count(*) as trajectories, count(*) filter (where status = 'kept') as kept,
               count(*) filter (where status = 'truncated') as truncated,
               count(*) filter (where status = 'discarded') as discarded,
               count(*) filter (where status = 'unscorable') as unscorable,
               coalesce(any_value(failed), 0) as failed,
               sum(turn_counts.turns)::bigint as turns, sum(turn_counts.kept)::bigint as kept_turns
        from current_trajectories join turn_counts using (trajectory_id)
        left join verdicts using (trajectory_id) left join failures_open using (teacher, style)
        group by teacher, style order by teacher, style
        """,
    ),
    Query(
        "Cost",
        """
        select 'environments' as stage, 'extractor, oracle' as model, sum(calls)::bigint as calls,
               sum(cached_calls)::bigint as cached, null as repaired_turns, sum(prompt_tokens)::bigint as prompt_tokens,
               sum(completion_tokens)::bigint as completion_tokens, round(sum(cost_usd), 4) as cost_usd, round(sum(seconds), 1) as seconds
        from cases having sum(calls + cached_calls) > 0
        union all
        select case style when 'gold' then 'gold' else 'rollouts' end, teacher, sum(calls)::bigint, sum(cached_calls)::bigint,
               count(*) filter (where repaired), sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint,
               round(sum(cost_usd), 4), round(sum(seconds), 1)
        from turns join trajectories using (trajectory_id) group by all
        union all
        select stage || ' that failed', teacher, sum(calls)::bigint, sum(cached_calls)::bigint, null, sum(prompt_tokens)::bigint,
               sum(completion_tokens)::bigint, round(sum(cost_usd), 4), round(sum(seconds), 1)
        from failures where calls > 0 group by all
        order by stage, model
        """,
        "Everything that was stored. Seconds are time spent deciding, summed over turns: rollouts run side by side.",
    ),
    Query(
        "Endings, by teacher",
        """
        with last as (
            select trajectory_id, arg_max_null(dtc, number) as dtc, max(number) as turns from turn_scores group by all
        )
        select teacher, style, count(*) as trajectories, count(*) filter (where final_diagnosis is not null) as diagnosed,
               count(*) filter (where outcome = 'loop') as after_a_loop,
               count(*) filter (where dtc = 0) as reach_the_truth,
               count(*) filter (where dtc between 1 and 2) as within_2_hops,
               count(*) filter (where dtc > 2) as farther, count(*) filter (where dtc is null) as unknown,
               round(avg(turns), 2) as mean_turns
        from current_trajectories left join last using (trajectory_id) group by all order by teacher, style
        """,
    ),
    Query(
        "DTC and RAC, by turn",
        """
        select number as turn, count(*) as turns, round(avg(dtc), 2) as mean_dtc, count(*) filter (where dtc is null) as dtc_unknown,
               round(avg(rac), 2) as mean_rac, count(*) filter (where changed = 0) as nothing_changed,
               count(*) filter (where rac is null and changed > 0) as rac_unknown,
               sum(changed)::bigint as changes, sum(unknown)::bigint as changes_unknown, sum(unlinked)::bigint as unlinked_diagnoses
        from turn_scores join current_trajectories using (trajectory_id) group by all order by turn
        """,
        "DTC: hops from the top hypothesis to the truth (equation 3). RAC: hops from what changed in the differential to the"
        " tests ordered before (equation 4), over those changes whose distance is known. An unlinked diagnosis is no change.",
    ),
    Query(
        "Orders",
        """
        select teacher, count(*) as ordered, count(*) filter (where len(answer.results) > 0) as answered,
               count(*) filter (where len(answer.results) = 0) as unavailable,
               count(*) filter (where answer.method = 'exact') as by_exact_name,
               count(*) filter (where answer.method = 'synonym') as by_synonym,
               count(*) filter (where answer.method = 'words') as by_words,
               count(*) filter (where answer.method = 'panel') as by_panel,
               count(*) filter (where answer.method = 'encoder') as by_encoder,
               count(*) filter (where answer.method = 'llm') as by_llm
        from (select trajectory_id, unnest(answers) as answer from turns) join current_trajectories using (trajectory_id)
        group by all order by teacher
        """,
    ),
    Query(
        "Siblings that played the same",
        """
        select teacher, style, count(*) as trajectories, count(*) filter (where same_replies) as with_the_same_replies
        from duplicates join trajectories using (trajectory_id) group by all order by all
        """,
        "The same tests and leading hypotheses turn by turn, from the same start: little is learnt from the second one.",
    ),
    Query(
        "Linking",
        'select kind, graph, "method", count(*) as texts from links group by all order by all',
    ),
    Query(
        "Failures",
        """
        select stage, teacher, error_class, count(*) as attempts,
               count(*) filter (where resolved is null) as open, min(message) as for_example
        from failures group by all order by attempts desc, stage, teacher, error_class
        """,
    ),
    Query(
        "Runs",
        """
        select run_id, started, state, round(epoch(coalesce(ended, started) - started), 1) as wall_seconds,
               (select count(*) from trajectories where trajectories.run_id = runs.run_id) as trajectories_played
        from runs order by started
        """,
    ),
)


def publish_summary(store: Store, settings: DistillSettings) -> dict[str, Any]:
    """Write summary.md, put funnel, teachers and the whole text on the flow run's page, and return
    the main tables.

    Returns {'out': folder, 'funnel': rows, 'teachers': rows}, small enough to be a flow run's
    result.
    """
    tables = {query.title: store.frame(query.sql) for query in (FUNNEL, *REPORT)}
    text = _markdown(tables, store, settings)
    (settings.out / "summary.md").write_text(text, encoding="utf-8")
    create_table_artifact(key="funnel", table=_plain(tables["Funnel"]), description=FUNNEL.note)
    create_table_artifact(
        key="teachers",
        table=_plain(tables["Teachers"]),
        description="What became of each teacher's trajectories",
    )
    create_markdown_artifact(key="summary", markdown=text)
    return {
        "out": str(settings.out),
        "funnel": _plain(tables["Funnel"]),
        "teachers": _plain(tables["Teachers"]),
        "cost": _plain(tables["Cost"]),
        "failures": _plain(tables["Failures"]),
    }


def publish_version(version: Version) -> None:
    """Put the dataset's version and what it changes against the one before on the flow run's page."""
    if version.is_new:
        told = ", ".join(
            f"{version.sum_of(what)} {what}" for what in ("added", "removed", "changed")
        )
        head = f"**Version {version.number}** in `{version.folder}`: {version.records} records; against the version before: {told}."
    else:
        head = f"**Version {version.number}** in `{version.folder}`: {version.records} records, unchanged."
    table = [_table(pl.DataFrame(version.changes[:SHOWN_CHANGES]))] if version.changes else []
    left = len(version.changes) - SHOWN_CHANGES
    more = [f"... and {left} more rows in its manifest.json"] if left > 0 else []
    create_markdown_artifact(key="dataset", markdown="\n\n".join([head, *table, *more]))


SHOWN_CHANGES = 200


def publish_checks(store: Store, out: Path) -> dict[str, Any]:
    """Write checks.md, put the tables on the flow run's page, and return them: {'out', 'outcomes',
    'checks', 'refused'}."""
    tables = {query.title: store.frame(query.sql) for query in (OUTCOMES, CHECKS, REFUSED)}
    parts = [f"# Environments of {out}", ""]
    for query in (OUTCOMES, CHECKS, REFUSED):
        parts += _section(query, tables[query.title])
    text = "\n".join(parts)
    (out / "checks.md").write_text(text, encoding="utf-8")
    create_table_artifact(key="checks", table=_plain(tables["Checks"]), description=CHECKS.note)
    create_markdown_artifact(key="refused", markdown=text)
    return {"out": str(out), **check_tables(store)}


def check_tables(store: Store) -> dict[str, list[dict[str, Any]]]:
    """What became of the cases, every check with its figures, and the refused cases."""
    return {
        "outcomes": _plain(store.frame(OUTCOMES.sql)),
        "checks": _plain(store.frame(CHECKS.sql)),
        "refused": _plain(store.frame(REFUSED.sql)),
    }


def print_checks(tables: dict[str, Any]) -> None:
    """The tables of `check_tables` in the terminal."""
    _print_tables(_console(), tables, ("outcomes", "checks", "refused"))


def print_summary(summary: dict[str, Any]) -> None:
    """The main tables in the terminal, and where everything lies."""
    console = _console()
    _print_tables(console, summary, ("funnel", "teachers", "cost", "failures"))
    console.print(f"Everything is in {summary['out']}: trajectories.duckdb, dataset/, summary.md")
    if any(row["open"] for row in summary["failures"] if row["stage"] != "read"):
        console.print(f"Run again what failed: medaction retry --out {summary['out']}")


def print_estimate(projected: dict[str, Any]) -> None:
    """The projection in the terminal, with the cases that it rests on."""
    console = _console()
    console.print(
        f"{projected['cases']} cases, projected from {', '.join(projected['sample']) or 'none'}"
    )
    _print_tables(console, {"estimate": projected["rows"]}, ("estimate",))
    console.print(
        "Low and high: as if every case were like the cheapest, or the dearest, of these. Hours: see --in-flight."
    )


def print_findings(findings: Iterable[Finding]) -> bool:
    """What the doctor found, each as it is found; False when something is wrong."""
    console, marks, right = (
        _console(),
        {"ok": "[green]ok[/]   ", "note": "[yellow]note[/] ", "wrong": "[red]wrong[/]"},
        True,
    )
    for finding in findings:
        console.print(
            f"{marks[finding.state]} [bold]{escape(finding.what)}[/]: {escape(finding.found)}",
            highlight=False,
        )
        if finding.remedy:
            console.print(f"      → {escape(finding.remedy)}", highlight=False)
        right = right and finding.state != "wrong"
    return right


def _console() -> Console:
    """As wide as the terminal; into a file or a pipe wide enough for names and reasons."""
    return Console() if sys.stdout.isatty() else Console(width=150)


def _print_tables(console: Console, tables: dict[str, Any], titles: tuple[str, ...]) -> None:
    for title in titles:
        if rows := tables[title]:
            first, *others = rows[0]
            table = Table(title=title.capitalize(), title_justify="left")
            table.add_column(first, no_wrap=True)
            for name in others:
                table.add_column(name, overflow="fold")
            for row in rows:
                table.add_row(
                    *("" if value is None else escape(str(value)) for value in row.values())
                )
            console.print(table)


def _plain(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return json.loads(json.dumps(frame.to_dicts(), default=str))


def _markdown(tables: dict[str, pl.DataFrame], store: Store, settings: DistillSettings) -> str:
    parts = [f"# Distillation of {settings.cases}", ""]
    if store.evaluation_only:
        parts += [
            "**Evaluation-only store: these cases are a benchmark. No dataset is written and export refuses.**",
            "",
        ]
    if any(teacher.embedded for teacher in settings.teachers):
        parts += [
            "The teachers named `kg-…` are the knowledge-graph clinician: no language model. They play on the graph on which DTC"
            " and RAC are measured, so their scores say nothing about the metrics.",
            "",
        ]
    for query in (FUNNEL, *REPORT):
        frame = tables[query.title]
        if frame.is_empty():
            continue
        parts += _section(query, frame)
    parts += ["## Settings", "", f"```json\n{settings.model_dump_json(indent=2)}\n```", ""]
    return "\n".join(parts)


def _section(query: Query, frame: pl.DataFrame) -> list[str]:
    note = [query.note, ""] if query.note else []
    sql = f"<details><summary>query</summary>\n\n```sql\n{_dedent(query.sql)}\n```\n</details>"
    return [f"## {query.title}", "", _table(frame), "", *note, sql, ""]


def _table(frame: pl.DataFrame) -> str:
    head = "| " + " | ".join(frame.columns) + " |\n|" + "---|" * len(frame.columns)
    rows = [
        "| " + " | ".join("" if value is None else _cell(str(value)) for value in row) + " |"
        for row in frame.iter_rows()
    ]
    return "\n".join([head, *rows])


def _cell(text: str) -> str:
    """Text of models and cases is shown as text: no table breaks, no HTML."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")[:200]


def _dedent(sql: str) -> str:
    lines = sql.strip("\n").splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[margin:] for line in lines).strip()
