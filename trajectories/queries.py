"""Queries that stand in SQL files, by their titles; which verdicts of a store count, and how."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from medaction.trajectories.files import RESULT

SCORES_BY_JUDGE = """\
select trajectory_id, protocol, judge,
    avg(case when len(requested) = 0 then 0 else len(list_filter(requested, lambda t:
        t[2]::boolean)) / len(requested) end) as precision,
    avg(case when len(documented) = 0 then 0 else len(list_filter(documented, lambda t:
        t[2]::boolean)) / len(documented) end) as recall,
    avg(correct::integer) > 0.5 as correct
from (
    select trajectory_id, protocol, judge,
        from_json(judgement->'$.tests.requested', '[["JSON"]]') as requested,
        from_json(judgement->'$.tests.documented', '[["JSON"]]') as documented,
        (judgement->>'$.correct')::boolean as correct
    from judgements
)
group by trajectory_id, protocol, judge"""
"""A row a trajectory, protocol and judge, over all repeats that the store has: the mean of the
shares, and the majority of the verdicts (a tie is no), as `medaction.evaluation.judging.score_of`
has it. Whatever shows or uses a judge's verdict reads it here."""


@dataclass(frozen=True, slots=True)
class Query:
    title: str
    note: str
    sql: str


def read_queries(path: Path) -> dict[str, Query]:
    """The queries of a file. Each begins with a line `-- title: ...`; the comment lines below that
    are its note."""
    queries = {}
    for section in path.read_text(encoding="utf-8").split("-- title: ")[1:]:
        title, *lines = section.strip().removesuffix(";").splitlines()
        note = " ".join(line.removeprefix("-- ") for line in lines if line.startswith("-- "))
        sql = "\n".join(line for line in lines if not line.startswith("-- "))
        queries[title] = Query(title, note, sql)
    return queries


def named_rows(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """What a query brought, each row by the names of its columns."""
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def judge_of_result(out: Path, db: duckdb.DuckDBPyConnection) -> tuple[str, str]:
    """(protocol, judge) whose verdicts make the table of the result in the run's folder; without a
    result that can be read those of the newest verdict, ('', '') without one.

    A store keeps the verdicts of every judge and protocol that it ever had, also of judges whose
    rules have changed since: the table's alone are not mixed with them.
    """
    try:
        result = json.loads((out / RESULT).read_text(encoding="utf-8"))
        return result["protocol"], result["judge"]
    # No result, or one of another form: the newest verdict is what somebody last asked for.
    except (OSError, ValueError, TypeError, KeyError):
        newest = db.execute(
            "select protocol, judge from judgements where judgement->>'$.correct' is not null"
            " order by rowid desc limit 1"
        ).fetchall()  # a result that is not read to its end keeps the connection busy
    return newest[0] if newest else ("", "")
