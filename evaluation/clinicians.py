"""Judges measured by clinicians: where a verdict has a label, the label is the truth."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medaction.evaluation.scores import wilson
from medaction.trajectories.labels import labels
from medaction.trajectories.snapshot import open_snapshot


@dataclass(frozen=True, slots=True)
class JudgeAgreement:
    """How often clinicians accepted what a judge said. `low` and `high`: Wilson's 95 % interval.
    `too_kind`: it called right what they call wrong; `too_strict`: the other way."""

    judge: str
    labelled: int
    accepted: int
    low: float
    high: float
    too_kind: int
    too_strict: int


def judge_agreement(out: Path) -> Sequence[JudgeAgreement]:
    """One row a judge with labelled verdicts. A verdict without a yes or no is left out, and so are
    those of two protocols that differ: a label does not say which it is of."""
    of_verdicts = [label for label in labels(out) if label.kind == "verdict"]
    if not of_verdicts:  # a run under way may have no snapshot yet
        return []
    with open_snapshot(out) as db:
        sql = (
            "select trajectory_id, judge || ' #' || repeat, judge, any_value(correct) from ("
            " select *, (judgement->>'$.correct')::boolean as correct from judgements"
            ") where correct is not null"
            # One key for two protocols: only verdicts on which both are at one can be labelled.
            " group by all having count(distinct correct) = 1"
        )
        verdicts = {(id_, key): (judge, right) for id_, key, judge, right in db.sql(sql).fetchall()}
    rows = defaultdict[str, list[tuple[bool, bool]]](list)
    for label in of_verdicts:
        judge, right = verdicts.get((label.trajectory_id, label.judge), ("", None))
        # A comment is no opinion; what a label is of may no longer be in the store.
        if label.opinion != "comment" and right is not None:
            rows[judge].append((right, label.opinion == "accept"))
    agreements = []
    for judge, pairs in sorted(rows.items()):
        accepted = sum(yes for _, yes in pairs)
        # Wilson's, since clinicians label few verdicts, and may accept all of them.
        low, high = wilson(accepted / len(pairs), len(pairs))
        kind = sum(right and not yes for right, yes in pairs)
        strict = sum(not right and not yes for right, yes in pairs)
        row = JudgeAgreement(judge, len(pairs), accepted, low, high, kind, strict)
        agreements.append(row)
    return agreements
