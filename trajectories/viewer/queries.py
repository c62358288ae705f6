"""What the viewer's pages show: each a query over the store's snapshot, rows as dicts."""

from dataclasses import dataclass
from typing import Any

import duckdb

from medaction.envs.ledger import Passage, passages

PAGE = 50
"""Rows a page of the tables."""

# Views that walk every path of every tree are computed once a snapshot, not once a page.
PREPARE = """
create temp table fates as select * from turn_fates;
create temp table leaves as
select trajectory_id, case_id, environment_id, teacher, style, sample, outcome,
    played.final_diagnosis, parent_id, branch_turn,
    coalesce(verdicts.status, 'not scored') as status, coalesce(verdicts.reason, '') as reason,
        verdicts.removed_turns,
    verdicts.last_turn, turn.turns, coalesce(turn.kept, 0) as kept, turn.cost_usd, turn.tokens,
        last.dtc, duplicates.first_id
from current_trajectories as played
left join verdicts using (trajectory_id)
left join (
    select turns.trajectory_id, count(*) as turns, count(*) filter (where fates.kept) as kept,
        sum(cost_usd) as cost_usd,
        sum(prompt_tokens + completion_tokens)::bigint as tokens
    from turns left join fates on fates.trajectory_id = turns.trajectory_id
        and fates.number = turns.number group by all
) as turn using (trajectory_id)
left join (select trajectory_id, arg_max(dtc, number) as dtc from turn_scores
    group by all) as last using (trajectory_id)
left join duplicates using (trajectory_id);
"""
# `arg_max` leaves nulls out: `dtc` is that of the last turn whose distance is known.


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a table: its rows, how many there are in all, and its number from 1."""

    rows: list[dict[str, Any]]
    total: int
    number: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // PAGE))


def rows(
    db: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | None = None
) -> list[dict[str, Any]]:
    cursor = db.execute(sql, parameters or [])
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _page(
    db: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any], order: str, number: int
) -> Page:
    (total,) = db.execute(f"select count(*) from ({sql})", parameters).fetchone() or (0,)
    number = min(max(number, 1), max(1, -(-total // PAGE)))
    return Page(
        rows(db, f"{sql} order by {order} limit {PAGE} offset {(number - 1) * PAGE}", parameters),
        total,
        number,
    )


def _condition(conditions: dict[str, Any]) -> tuple[str, list[Any]]:
    """SQL of the conditions that have a value. The keys are ours; the values, a user's, are
    parameters."""
    active = {sql: value for sql, value in conditions.items() if value not in (None, "")}
    return " and ".join(active) or "true", [
        value for sql, value in active.items() for _ in range(sql.count("?"))
    ]


def overview(db: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Everything on the first page but the charts."""
    totals = rows(
        db,
        """
        select (select count(*) from cases) as cases, (select count(*) from cases
            where environment_id is not null) as environments,
            (select count(*) from cases where environment_id is null) as refused,
                count(*) as trajectories,
            count(*) filter (where kept > 0) as kept_trajectories, coalesce(sum(turns),
                0)::bigint as turns,
            coalesce(sum(kept), 0)::bigint as kept_turns,
            (select count(*) from failures where resolved is null) as failures,
                coalesce(sum(tokens), 0)::bigint as tokens,
            (select coalesce(sum(cost_usd), 0) from turns) + (select coalesce(sum(cost_usd), 0)
                from failures)
                + (select coalesce(sum(cost_usd), 0) from cases) as cost_usd
        from leaves
        """,
    )[0]
    fates = rows(
        db,
        "select coalesce(fate, 'not scored') as fate, count(*) as turns from fates group by all"
        " order by turns desc, fate",
    )
    verdicts = rows(
        db,
        "select status, reason, count(*) as trajectories from leaves group by all order by"
        " trajectories desc, status, reason",
    )
    teachers = rows(
        db,
        """
        select teacher, style, count(*) as trajectories,
            count(*) filter (where status = 'kept') as kept,
            count(*) filter (where status = 'truncated') as truncated,
                count(*) filter (where status = 'discarded') as discarded,
            count(*) filter (where status = 'unscorable') as unscorable,
                sum(turns)::bigint as turns, sum(kept)::bigint as kept_turns,
            count(*) filter (where outcome = 'diagnosed' and dtc = 0) as truth,
                count(dtc) as known, avg(turns) as mean_turns,
            count(first_id) as duplicates, sum(tokens)::bigint as tokens, sum(cost_usd) as cost_usd
        from leaves group by all order by all
        """,
    )
    failures = rows(
        db,
        "select stage, error_class, count(*) as failures, count(distinct case_id) as cases from"
        " failures where resolved is null group by all order by failures desc, stage, error_class",
    )
    runs = rows(
        db,
        "select flow, state, started, ended, settings, versions from runs order by started desc"
        " limit 8",
    )
    return totals | {
        "fates": fates,
        "verdicts": verdicts,
        "teachers": teachers,
        "open_failures": failures,
        "runs": runs,
    }


def dtc_by_turn(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Mean DTC of every teacher at every turn, over the trajectories of which it is known, and how
    many these are (Figure 5a)."""
    return rows(
        db,
        "select teacher, number, avg(scores.dtc) as mean, count(scores.dtc) as known"
        " from turn_scores as scores join leaves using (trajectory_id)"
        " where number <= 12 group by all having count(scores.dtc) > 0 order by all",
    )


def rac_values(db: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """How often each RAC, rounded to half a hop, was measured, by teacher."""
    return rows(
        db,
        "select teacher, round(rac * 2) / 2 as rac, count(*) as turns from turn_scores join leaves"
        " using (trajectory_id)"
        " where rac is not null group by all order by all",
    )


def choices(db: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """What the filters offer."""
    columns = ("teacher", "style", "status", "outcome")
    values = {
        name: [row[name] for row in rows(db, f"select distinct {name} from leaves order by 1")]
        for name in columns
    }
    return values | {
        "source": [
            row["source"] for row in rows(db, "select distinct source from cases order by 1")
        ]
    }


def cases(db: duckdb.DuckDBPyConnection, filters: dict[str, str], number: int) -> Page:
    """The cases with how their trees came out; `wanted`: q (text in id, title or diagnosis),
    source, state."""
    text = f"%{filters['q']}%" if filters.get("q") else None
    condition, parameters = _condition(
        {
            "(cases.case_id ilike ? or cases.title ilike ? or environments.diagnosis ilike"
            " ?)": text,
            "cases.source = ?": filters.get("source"),
            "(case when cases.environment_id is null then 'refused' when open > 0 then 'failures'"
            " when truth > 0 then 'truth reached' else 'truth not reached' end) = ?": filters.get(
                "state"
            ),
        }
    )
    sql = f"""
        select cases.case_id, cases.title, cases.source, cases.reason, environments.diagnosis,
            len(environments.menu) as tests,
            coalesce(trajectories, 0) as trajectories, coalesce(truth, 0) as truth,
                coalesce(kept_turns, 0) as kept_turns,
            coalesce(turns, 0) as turns, nearest, coalesce(open, 0) as open
        from cases left join environments using (environment_id)
        left join (
            select case_id, count(*) as trajectories, count(*) filter (where outcome = 'diagnosed'
                and dtc = 0) as truth,
                sum(kept)::bigint as kept_turns, sum(turns)::bigint as turns, min(dtc) as nearest
                    from leaves group by all
        ) as played on played.case_id = cases.case_id
        left join (select case_id, count(*) as open from failures where resolved is null
            group by all) as failed
            on failed.case_id = cases.case_id
        where {condition}
    """
    return _page(db, sql, parameters, "case_id", number)


def trajectories(db: duckdb.DuckDBPyConnection, filters: dict[str, str], number: int) -> Page:
    """Trajectories by teacher, style, status, outcome, and text in the case's id or the final
    diagnosis."""
    text = f"%{filters['q']}%" if filters.get("q") else None
    conditions = {
        f"{name} = ?": filters.get(name) for name in ("teacher", "style", "status", "outcome")
    }
    condition, parameters = _condition(
        {"(case_id ilike ? or final_diagnosis ilike ?)": text} | conditions
    )
    return _page(
        db,
        f"select * from leaves where {condition}",
        parameters,
        "case_id, teacher, style, sample, trajectory_id",
        number,
    )


def failures(db: duckdb.DuckDBPyConnection, number: int) -> Page:
    """Every failure, open ones first."""
    return _page(
        db,
        "select * from failures where true",
        [],
        "resolved is not null, time desc, case_id, trajectory_id",
        number,
    )


def case(db: duckdb.DuckDBPyConnection, case_id: str) -> dict[str, Any] | None:
    """A case whole: report, environment, checks, failures, and its tree with every turn of every
    trajectory; None: unknown."""
    details = rows(
        db,
        'select cases.case_id, cases.title, cases.source, cases.licence, cases.path, cases."text",'
        " cases.reason, cases.message,"
        " initial_observation, menu, diagnosis, synonyms, warnings, body_system, disease_type,"
        " evaluation_only"
        " from cases left join environments using (environment_id) where cases.case_id = ?",
        [case_id],
    )
    if not details:
        return None
    tree = rows(
        db,
        "select * from leaves where case_id = ? order by branch_turn, teacher, style, sample,"
        " trajectory_id",
        [case_id],
    )
    turns = rows(
        db,
        "select turns.*, scores.dtc, scores.rac, fates.kept, fates.fate from turns"
        " join leaves using (trajectory_id) left join fates on fates.trajectory_id ="
        " turns.trajectory_id and fates.number = turns.number"
        " left join turn_scores as scores on scores.trajectory_id = turns.trajectory_id and"
        " scores.number = turns.number"
        " where leaves.case_id = ? order by turns.trajectory_id, turns.number",
        [case_id],
    )
    turns_of: dict[str, list[dict[str, Any]]] = {}
    for turn in turns:
        turns_of.setdefault(turn["trajectory_id"], []).append(turn)
    for trajectory in tree:
        trajectory["own"] = turns_of.get(trajectory["trajectory_id"], [])
    checks = rows(
        db, 'select * from checks where case_id = ? order by required desc, "name"', [case_id]
    )
    failed = rows(db, "select * from failures where case_id = ? order by time", [case_id])
    return details[0] | {
        "tree": in_tree_order(tree),
        "checks": checks,
        "failures": failed,
        "passages": _passages(details[0]),
    }


def _passages(case: dict[str, Any]) -> list[Passage]:
    """The report's text with what the environment took over marked; of a refused case plain."""
    results = [f"{test['name']}: {test['result']}\n{test['quote']}" for test in case["menu"] or []]
    observation, diagnosis = case["initial_observation"] or "", case["diagnosis"] or ""
    return list(passages(case["text"], observation, results, diagnosis, case["warnings"] or ()))


def in_tree_order(leaves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each trajectory followed by its branches, with its `depth`: 0 for a rollout from o1."""
    children: dict[str | None, list[dict[str, Any]]] = {}
    ids = {trajectory["trajectory_id"] for trajectory in leaves}
    for trajectory in leaves:
        parent = trajectory["parent_id"] if trajectory["parent_id"] in ids else None
        children.setdefault(parent, []).append(trajectory)

    def below(parent: str | None, depth: int) -> list[dict[str, Any]]:
        placed = []
        for trajectory in children.get(parent, []):
            placed += [
                trajectory | {"depth": depth},
                *below(trajectory["trajectory_id"], depth + 1),
            ]
        return placed

    return below(None, 0)
