"""What the viewer's pages show, rows as dicts. The queries are in queries.sql."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from medaction.envs.ledger import passages
from medaction.envs.prompts import PromptTooLong, messages
from medaction.llm.calls import Message
from medaction.trajectories.queries import (
    SCORES_BY_JUDGE,
    judge_of_result,
    named_rows,
    read_queries,
)
from medaction.trajectories.table_rows import turns_of

QUERIES = read_queries(Path(__file__).with_name("queries.sql"))
PAGE = 50
"""Rows a page of the tables."""

Database = duckdb.DuckDBPyConnection
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a table: its rows, how many there are in all, and its number from 1."""

    rows: list[Row]
    total: int
    number: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // PAGE))


def prepare(db: Database) -> None:
    """Make the tables that the other queries read."""
    sql = f"select * rename (judge as judge_key) from ({SCORES_BY_JUDGE})"
    db.execute(f"create temp view scores as {sql}")
    for title in ("open_failures", "fates", "leaves", "judged", "judged_rollouts", "judged_cases"):
        db.execute(QUERIES[f"prepare {title}"].sql)


def rows(db: Database, title: str, parameters: list[Any] | None = None) -> list[Row]:
    """The rows of the query of this title."""
    return _rows(db, QUERIES[title].sql, parameters or [])


def _rows(db: Database, sql: str, parameters: list[Any] | dict[str, Any]) -> list[Row]:
    return named_rows(db.execute(sql, parameters))


def _page(db: Database, source: str, conditions: dict[str, Any], order: str, number: int) -> Page:
    """A page of `source` under the conditions that have a value. The keys of `conditions` are ours;
    the values, a user's, are parameters."""
    active = {sql: value for sql, value in conditions.items() if value}
    # One value for every '?' of its condition: a search looks in several columns.
    parameters = [value for sql, value in active.items() for _ in range(sql.count("?"))]
    sql = f"select * from ({source}) where {' and '.join(active) or 'true'}"
    (total,) = db.execute(f"select count(*) from ({sql})", parameters).fetchone() or (0,)
    # An old address may name a page that there is no longer.
    number = min(max(number, 1), max(1, -(-total // PAGE)))
    sql = f"{sql} order by {order} limit {PAGE} offset {(number - 1) * PAGE}"
    return Page(_rows(db, sql, parameters), total, number)


def page_of(rows: list[Row], number: int) -> Page:
    """A page of rows that are all at hand."""
    number = min(max(number, 1), max(1, -(-len(rows) // PAGE)))
    return Page(rows[(number - 1) * PAGE : number * PAGE], len(rows), number)


def overview_row(db: Database) -> Row:
    """Everything on the first page but the charts."""
    titles = (
        *("fates", "endings", "verdicts", "teachers", "open_failures", "runs", "evaluation"),
        *("right runs", "refusals", "texts"),
    )
    return rows(db, "totals")[0] | {title.replace(" ", "_"): rows(db, title) for title in titles}


def choices(db: Database) -> dict[str, list[str]]:
    """What the filters offer."""
    columns = dict.fromkeys(("teacher", "style", "status", "outcome"), "leaves")
    offers = {}
    for name, table in (columns | {"source": "cases"}).items():
        values = db.execute(f"select distinct {name} from {table} order by 1").fetchall()
        offers[name] = [value for (value,) in values]
    return offers


def cases(db: Database, filters: dict[str, str], number: int) -> Page:
    """The cases with how their trees came out. `filters`: q (text in id, title, diagnosis or
    report), source, state. A row has a `passage` where q stands in its report alone."""
    # Lines break anywhere. Over 4,000 reports `replace` takes 0.02 s of CPU, a regular
    # expression 0.5 s.
    matching = "select case_id from cases where contains(lower(replace(\"text\", chr(10), ' ')), ?)"
    report = f"case_id in ({matching})"
    conditions = {
        f"({_HAS_WORDS.format('case_id, title, diagnosis')} or {report})": _words(filters),
        "source = ?": filters.get("source"),
        "state = ?": filters.get("state"),
    }
    page = _page(db, QUERIES["cases"].sql, conditions, _order(filters, "case_id"), number)
    words = filters.get("q", "").lower()
    # A passage is shown only where the row itself does not hold the words.
    in_sight = [
        row["case_id"]
        for row in page.rows
        if words in f"{row['case_id']} {row['title']} {row['diagnosis'] or ''}".lower()
    ]
    apart = [row["case_id"] for row in page.rows if row["case_id"] not in in_sight]
    passages_of = {
        row["case_id"]: row["passage"] for row in rows(db, "passages of reports", [words, apart])
    }
    for row in page.rows:
        row["passage"] = passages_of.get(row["case_id"], "")
    return page


def trajectories(db: Database, filters: dict[str, str], number: int) -> Page:
    """Trajectories by teacher, style, status, outcome, and text in the case's id or the final
    diagnosis."""
    conditions = {_HAS_WORDS.format("case_id, final_diagnosis"): _words(filters)} | {
        f"{name} = ?": filters.get(name) for name in ("teacher", "style", "status", "outcome")
    }
    order = _order(filters, "case_id, teacher, style, sample, trajectory_id")
    return _page(db, "select * from leaves", conditions, order, number)


JUDGED = ("right", "wrong", "no verdict")
"""What a judge says of a final diagnosis."""


def judged(db: Database, filters: dict[str, str], number: int) -> Page:
    """What the judges found, a row a trajectory, judge and repeat. `filters`: q (text in case,
    diagnosis or truth), teacher, judge, verdict (one of JUDGED)."""
    verdict = {"right": "correct", "wrong": "not correct", "no verdict": "correct is null"}
    conditions = {
        _HAS_WORDS.format("case_id, final_diagnosis, truth"): _words(filters),
        "teacher = ?": filters.get("teacher"),
        "judge = ?": filters.get("judge"),
    }
    condition = verdict.get(filters.get("verdict", ""), "true")
    order = _order(filters, "case_id, sample, trajectory_id, judge_key, repeat")
    return _page(db, f"select * from judged where {condition}", conditions, order, number)


def verdicts_of(db: Database, out: Path) -> dict[tuple[str, int], Row]:
    """What the judge of the run's result says by case and run (sample), for a comparison of two
    runs. out: the run's folder."""
    sql = (
        "select * from judged_rollouts where protocol = ? and judge_key = ? order by trajectory_id"
    )
    judged_rows = _rows(db, sql, [*judge_of_result(out, db)])
    return {(row["case_id"], row["sample"]): row for row in judged_rows}


SORTED = {
    *("case_id", "title", "diagnosis", "tests", "trajectories", "truth", "nearest", "kept_turns"),
    *("open", "right", "teacher", "style", "sample", "status", "final_diagnosis", "dtc", "kept"),
    *("judge", "correct", "matched", "found", "turns", "tokens", "cost_usd"),
}
"""Columns by which a table can be sorted; '-' before one: the other way."""


def _order(filters: dict[str, str], default: str) -> str:
    column = filters.get("sort", "").removeprefix("-")
    # Names of columns cannot be parameters: none but these becomes part of the query.
    if column not in SORTED:
        return default
    way = "desc" if filters["sort"].startswith("-") else "asc"
    # The default last: rows with equal values keep their order from page to page.
    return f'"{column}" {way} nulls last, {default}'


def turn_prompt(db: Database, trajectory_id: str, number: int) -> tuple[Row, list[Message]] | None:
    """Of a turn: what its trajectory is, and the prompt as it is built today from the record; None:
    unknown."""
    details = rows(db, "trajectory of a turn", [trajectory_id])
    if not details:
        return None
    record = details[0]
    turns = turns_of(rows(db, "turns of a path", [trajectory_id, number]))
    observation, t_max = record["initial_observation"], record["t_max"]
    try:
        return record, messages(observation, turns, t_max, record["style"])
    except PromptTooLong:  # it was played with more room: a teacher's `context_tokens`
        return record, messages(observation, turns, t_max, record["style"], sys.maxsize)


_HAS_WORDS = "contains(lower(concat_ws(chr(10), {})), ?)"


def _words(filters: dict[str, str]) -> str | None:
    """What is sought, for `contains` of a text in small letters: '95%' is no wildcard."""
    return filters.get("q", "").lower() or None


def failures(db: Database, number: int) -> Page:
    """Every failure, open ones first."""
    order = "resolved is not null, time desc, case_id, trajectory_id"
    return _page(db, "select * from failures", {}, order, number)


def case(db: Database, case_id: str) -> Row | None:
    """A case whole: report, environment, checks, failures, and its tree with every turn of every
    trajectory; None: unknown."""
    details = rows(db, "case", [case_id])
    if not details:
        return None
    tree = rows(db, "trajectories of a case", [case_id])
    # One query for all turns of the case, not one a trajectory.
    turns_of: dict[str, list[Row]] = {leaf["trajectory_id"]: [] for leaf in tree}
    for turn in rows(db, "turns of a case", [case_id]):
        turns_of[turn["trajectory_id"]].append(turn)
    judged_of: dict[str, list[Row]] = {}
    for row in rows(db, "judged of a case", [case_id]):
        judged_of.setdefault(row["trajectory_id"], []).append(row)
    right = {row["trajectory_id"] for row in rows(db, "right of a case", [case_id])}
    for leaf in tree:
        leaf["judged_right"] = leaf["trajectory_id"] in right
        leaf["own"] = turns_of[leaf["trajectory_id"]]
        leaf["judged"] = judged_of.get(leaf["trajectory_id"], [])
    record = details[0]
    results = [
        f"{test['name']}: {test['result']}\n{test['quote']}" for test in record["menu"] or []
    ]
    taken_over = record["initial_observation"] or "", results, record["diagnosis"] or ""
    # As in the ledger: of MedR-Bench the summary behind the article.
    text, start = record["text"], record["summary_at"]
    return record | {
        "tree": in_tree_order(tree),
        "checks": rows(db, "checks of a case", [case_id]),
        "failures": rows(db, "failures of a case", [case_id]),
        # The report's text with what the environment took over marked; of a refused case plain.
        "passages": list(passages(text[start:], *taken_over, record["warnings"] or ())),
        "article": text[:start],
        "ledger": rows(db, "ledger of a case", [case_id]),
        "truths": truths_of(db, record),
        "neighbours": _rows(db, QUERIES["neighbours of a case"].sql, {"id": case_id})[0],
    }


def truths_of(db: Database, case: Row) -> set[str]:
    """Every wording of the true diagnosis, in small letters: the case's own and the graph's."""
    own = [case["diagnosis"], *(case["synonyms"] or ())] if case["diagnosis"] else []
    names = {name.lower() for name in own}
    for name in own:
        names |= {row["name"] for row in rows(db, "names of a truth", [name])}
    return names


def in_tree_order(leaves: list[Row], parent: str | None = None, depth: int = 0) -> list[Row]:
    """Each trajectory followed by its branches, with its `depth`: 0 for a rollout from o1, or for a
    branch whose parent is not there."""
    ids = {leaf["trajectory_id"] for leaf in leaves}
    ordered = []
    for leaf in leaves:
        # A parent of other settings is no longer shown: its branch stands on the first level.
        if (leaf["parent_id"] if leaf["parent_id"] in ids else None) == parent:
            branches = in_tree_order(leaves, leaf["trajectory_id"], depth + 1)
            ordered += [leaf | {"depth": depth}, *branches]
    return ordered
