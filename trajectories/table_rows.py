"""Records as rows of the store's tables (schema.sql), column by column."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pydantic import TypeAdapter

from medaction.envs.records import BadCase, Built, CaseReport
from medaction.envs.turns import Turn
from medaction.llm.usage import Usage
from medaction.trajectories.records import Failure, Trajectory, now
from medaction.words.versions import json_hash

TURN_FIELDS = tuple(field.name for field in fields(Turn) if field.name != "usage")


@dataclass(frozen=True, slots=True)
class BuiltCase:
    """A report, what became of it, and what the extractor and the verifier spent on it."""

    report: CaseReport
    built: Built
    usage: Usage = field(default_factory=Usage)


def report_hash(report: CaseReport) -> str:
    """A hash of all that an environment is built from, so that a changed report is seen."""
    # Neither title nor licence: they change nothing of what is played.
    content = [report.text, asdict(report.structured) if report.structured else None]
    return json_hash(content)[:16]


def refused(stage: str, case_id: str, path: str, refusal: BadCase) -> Failure:
    return Failure(stage, case_id, refusal.reason, refusal.message, now(), path=path)


def case_row(case: BuiltCase, built_with: str) -> dict[str, Any]:
    """A row of `cases`, but for what was spent on the case."""
    report, environment, refusal = case.report, case.built.environment, case.built.refusal
    return {
        "case_id": report.case_id,
        "source": report.source,
        "title": report.title,
        "path": report.path,
        "licence": report.licence,
        "publication": dict(report.meta),
        "text": report.text,
        "report_hash": report_hash(report),
        "built_with": built_with,
        "environment_id": environment.environment_id if environment else None,
        "reason": refusal.reason if refusal else None,
        "message": refusal.message if refusal else None,
    }


def trajectory_row(trajectory: Trajectory, run_id: str, stored: Any) -> dict[str, Any]:
    # Seed and final diagnosis follow from the rest, and are there for queries.
    derived = {
        "trajectory_id": trajectory.trajectory_id,
        "seed": trajectory.spec.seed,
        "final_diagnosis": trajectory.final_diagnosis,
    }
    played = plain_row(trajectory.spec) | plain_row(trajectory) | derived
    return played | {"run_id": run_id, "stored": stored.isoformat()}


def turn_row(trajectory: Trajectory, turn: Turn) -> dict[str, Any]:
    # What a turn used has columns of its own, so that SQL can add it up.
    return {"trajectory_id": trajectory.trajectory_id} | plain_row(turn) | plain_row(turn.usage)


_TURNS = TypeAdapter(list[Turn])


def turns_of(rows: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Rows of `turns` as records."""
    turns = [{name: row[name] for name in TURN_FIELDS} for row in rows]
    usages = [{name: row[name] for name in Usage.__dataclass_fields__} for row in rows]
    records = [turn | {"usage": usage} for turn, usage in zip(turns, usages, strict=True)]
    return _TURNS.validate_python(records)


def plain_row(record: Any) -> dict[str, Any]:
    """The fields of a record as they are; `asdict` copies all that is in them, too."""
    return {field.name: getattr(record, field.name) for field in fields(record)}
