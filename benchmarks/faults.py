"""Rollouts against a server that fails in all the usual ways, end to end through the real flow:
what was injected, what is on record.

    python -m benchmarks.faults [--cases 200] [--rollouts 3] [--seed 1] [--timeout-s 10]

The teacher is `tests.simulated_teacher`: five turns a rollout, every request with the chances of
`FAULTS`. Prints how many rollouts finished, each fault as it was injected against how often it is
on record, and whether the counts conserve. Exit status 1 when not.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store
from tests.runs import medaction_process
from tests.simulated_teacher import FAULTS, cases_in, requests_of, simulated_teacher

# What every attempt that failed says of itself, stored turns and failures together.
RECORDED = """
with everything as (select faults, calls from turns union all select faults, calls from failures),
each as (select unnest(faults) as fault from everything)
select case
    when fault.error_class like 'Model%' and fault.message like '429%' then '429'
    when fault.error_class like 'Model%' and fault.message like '500%' then '500'
    when fault.error_class like 'Model%' and fault.message like '503 Connection%' then 'dropped'
    when fault.error_class like 'Model%' and fault.message like '408%' then 'stalled'
    when fault.message like '%cut off%' then 'cut off'
    when fault.message like '%is empty%' then 'empty'
    else 'invalid' end as kind, count(*)
from each where fault.error_class not in ('Mended', 'ParameterRefused') group by kind
"""
CALLS = "select sum(calls) from (select calls from turns union all select calls from failures)"


def recorded(out: Path) -> tuple[dict[str, int], int, int, list[tuple]]:
    """(faults on record by kind, answered calls, rollouts that finished, rollouts that failed by
    class) of a run."""
    with Store(out / STORE) as store:
        faults = dict(store.rows(RECORDED))
        [(calls,)] = store.rows(CALLS)
        [(finished,)] = store.rows("select count(*) from trajectories")
        failed = store.rows(
            "select error_class, count(*) from failures"
            " where stage = 'rollout' and resolved is null group by all order by all"
        )
    return faults, int(calls), int(finished), failed


def teacher_file(folder: Path, api_base: str, **fields: object) -> Path:
    """A preset with the simulated teacher, whose few replies are those to many cases."""
    teacher = {"name": "simulated", "model": "openai/simulated", "api_base": api_base, **fields}
    preset = folder / "simulated.yaml"
    preset.write_text(yaml.safe_dump({"teachers": [teacher], "quarantine": False}))
    return preset


def distilling(cases: Path, out: Path, preset: Path, rollouts: int, *more: object) -> list[str]:
    """The words of a distillation without branches."""
    words = ["distill", "--cases", cases, "--out", out, "--preset", preset, *more]
    return [*map(str, words), "--rollouts", str(rollouts), "--launch-points", "0"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--rollouts", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--timeout-s", type=float, default=10.0, help="of the teacher; a stall takes 30 s"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases, log, out = cases_in(folder / "cases", given.cases), folder / "log", folder / "out"
        started = time.monotonic()
        with simulated_teacher(log, "--faults", given.seed) as (_, api_base):
            preset = teacher_file(folder, api_base, timeout_s=given.timeout_s)
            arguments = distilling(cases, out, preset, given.rollouts)
            with medaction_process(folder, *arguments) as run:
                # 1: some rollouts failed, of which the share is judged below.
                assert run.wait() in (0, 1), (folder / "medaction.log").read_text()[-3000:]
        wall = time.monotonic() - started
        asked = requests_of(log)
        injected = Counter(kind for _, kind in asked)
        faults, calls, finished, failed = recorded(out)
    wanted, lost = given.cases * given.rollouts, sum(count for _, count in failed)
    table = Table("fault", "share", "injected", "on record")
    for kind, share in FAULTS.items():
        table.add_row(kind, f"{share:.0%}", str(injected[kind]), str(faults.get(kind, 0)))
    table.add_row("answered", "", str(injected["answered"]), "")
    console = Console(width=120)
    console.print(table)
    without_reply = sum(faults.get(kind, 0) for kind in ("429", "500", "dropped", "stalled"))
    console.print(
        f"rollouts asked for {wanted} = finished {finished} + failed {lost} {failed}: "
        f"{finished / wanted:.2%} finished"
    )
    console.print(
        f"requests {len(asked)} = calls answered {calls} + attempts without a reply "
        f"{without_reply}; {wall:.0f} s"
    )
    # A request on a connection that the server has just closed as idle never arrives: it is on
    # record as dropped, and not the server's.
    never_arrived = calls + without_reply - len(asked)
    console.print(f"of these {never_arrived} never arrived")
    conserved = wanted == finished + lost and 0 <= never_arrived <= max(
        0, faults.get("dropped", 0) - injected["dropped"]
    )
    return 0 if conserved and finished >= 0.995 * wanted and all(name for name, _ in failed) else 1


if __name__ == "__main__":
    sys.exit(main())
