"""What a run will cost: a few of its cases are played for real, and the rest is projected from
them."""

import random
from collections.abc import Callable
from statistics import fmean
from typing import Any

from medaction.envs.records import CaseReport
from medaction.flows.missing import reports_of
from medaction.flows.settings import DistillSettings
from medaction.flows.summary import trouble_of
from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store
from medaction.words.errors import MedactionError

CASES_PLAYED = 3
"""Cases that are played. What they cost is not lost: the run itself finds their replies in the call
cache."""

FIGURES = ("calls", "prompt_tokens", "completion_tokens", "cost_usd", "model_seconds")


Projection = tuple[float, float, float]
"""One figure over all cases: low, expected and high."""


def estimate(
    settings: DistillSettings, run: Callable[[str, DistillSettings], Any]
) -> dict[str, Any]:
    """Play CASES_PLAYED cases, drawn by the settings' seed, into `out/estimate`, and project to all
    cases. `run` runs a flow, by name, with its settings.

    Hours are wall-clock: at best all cases in flight are as fast as those of the sample were side
    by side; at worst the servers are no faster together than they were for the sample. Returns
    {'cases', 'sample', 'rows': a projection each}. Raises BadCase when no case can be read, and
    MedactionError when a teacher finished no rollout: what it costs to fail projects to nothing.
    """
    ids = [report.case_id for report in reports_of(settings) if isinstance(report, CaseReport)]
    # By the seed: a second estimate plays the same cases, and finds them played.
    sample = random.Random(settings.seed).sample(ids, min(CASES_PLAYED, len(ids)))
    # What the call cache would answer costs nothing and takes no time: it says nothing.
    cache = {"on": "refresh", "read": "off"}.get(settings.call_cache, settings.call_cache)
    change = {"only": sorted(sample), "limit": None, "call_cache": cache}
    tried = settings.model_copy(update={"out": settings.out / "estimate", **change})
    # What is played costs the same whether pruning keeps it or not.
    if trouble := trouble_of(run("distill", tried), wants_records=False):
        names = ", ".join(sorted(sample)) or "these reports"
        raise MedactionError(f"cannot be projected from {names}: {trouble}")
    with Store(tried.out / STORE) as store:
        spent = [[float(value or 0) for value in row] for row in store.rows(_SPENT)]
        # A run that was killed has no end, and says nothing of the time.
        sql = "select sum(epoch(ended - started)) from runs where ended is not null"
        [(wall,)] = store.rows(sql)
    per_case = zip(*spent, strict=True) if spent else [()] * len(FIGURES)
    projections = {
        name: project(list(values), len(ids))
        for name, values in zip(FIGURES, per_case, strict=True)
    } | {"hours": hours(float(wall), len(spent), len(ids), settings.in_flight)}
    rows = [
        {"figure": name, "low": rounded(low), "expected": rounded(middle), "high": rounded(high)}
        for name, (low, middle, high) in projections.items()
    ]
    return {"cases": len(ids), "sample": sorted(sample), "rows": rows}


# Everything that a case used, over all stages, failed attempts included; a case that used nothing
# counts with zeros.
_SPENT = """
with spent as (
    select case_id, calls, prompt_tokens, completion_tokens, cost_usd, seconds from cases
    union all
    select case_id, calls, prompt_tokens, completion_tokens, cost_usd, seconds from turns
        join trajectories using (trajectory_id)
    union all
    select case_id, calls, prompt_tokens, completion_tokens, cost_usd, 0 from failures
)
select sum(calls), sum(prompt_tokens), sum(completion_tokens), sum(cost_usd), sum(seconds)
    from spent group by case_id
"""


def rounded(value: float) -> str:
    """As people write it: 41,640 and 0.00496."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def project(per_case: list[float], cases: int) -> Projection:
    """From what each case of the sample used to all `cases`: its cheapest case, the mean and its
    dearest times their number."""
    if not per_case:
        return 0.0, 0.0, 0.0
    return min(per_case) * cases, fmean(per_case) * cases, max(per_case) * cases


def hours(wall_s: float, sample: int, cases: int, in_flight: int) -> Projection:
    """Wall-clock hours from the `wall_s` seconds that `sample` cases took side by side; expected is
    the geometric middle."""
    if not sample:
        return 0.0, 0.0, 0.0
    slowest = wall_s / sample * cases / 3600
    # `in_flight` cases side by side take as long as the sample did.
    fastest = wall_s * cases / max(in_flight, sample) / 3600
    return min(fastest, slowest), (fastest * slowest) ** 0.5, slowest
