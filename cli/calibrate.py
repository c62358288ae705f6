"""`medaction kg calibrate`: which RAC threshold the graph of a run asks for."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from medaction.kg.calibration import Calibration, ScoredPath

SCORED_PATHS = """
with ends as (
    select trajectory_id, max(number) as last, arg_max(dtc, number) as dtc
    from turn_scores group by trajectory_id
)
select case_id, final_diagnosis is not null as committed, ends.dtc,
    list(rac order by number) filter (where rac is not null) as rac,
    count(*) filter (where number > 1 and rac is null) as unknown
from current_trajectories join ends using (trajectory_id) join turn_scores using (trajectory_id)
where style <> 'gold'
group by trajectory_id, case_id, final_diagnosis, ends.dtc order by trajectory_id
"""
"""A gold trajectory is no play and is left out."""


@click.command()
@click.argument("store", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the plot goes.  [default: plots/ of the run]",
)
def calibrate(store: Path, out: Path | None) -> None:
    """Propose a RAC threshold from the trajectories of a run (its folder, or a file in it) that
    reach the truth."""
    from medaction.kg.calibration import calibrate as calibration_of
    from medaction.kg.calibration import draw
    from medaction.trajectories.snapshot import open_snapshot

    run = store if store.is_dir() else store.parent
    try:
        with open_snapshot(run) as db:
            paths, graph = scored_paths(db), test_graph_of(db)
        calibration = calibration_of(paths)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    except ValueError as error:
        raise click.ClickException(
            f"{run}: {error}; play more cases, or a better teacher"
        ) from error
    click.echo(table(calibration, graph))
    picture = draw(calibration, graph, (out or run / "plots") / "rac_calibration.png")
    click.echo(f"drawn in {picture}")


def scored_paths(db: "DuckDBPyConnection") -> "list[ScoredPath]":
    """The scored trajectories of the run. One that did not commit has not reached the truth; of one
    that committed to a diagnosis without a known distance it is not known."""
    from medaction.kg.calibration import ScoredPath

    def reached(committed: bool, dtc: int | None) -> bool | None:
        if not committed:
            return False
        return None if dtc is None else dtc == 0

    return [
        ScoredPath(case_id, reached(committed, dtc), tuple(rac or ()), unknown)
        for case_id, committed, dtc, rac, unknown in db.execute(SCORED_PATHS).fetchall()
    ]


def test_graph_of(db: "DuckDBPyConnection") -> str:
    """The name of the graph on which the run's tests were linked."""
    row = db.execute("select any_value(graph) from links where kind = 'test'").fetchone()
    return str(row[0]).partition("@")[0] if row and row[0] else "the test graph"


def table(calibration: "Calibration", graph: str) -> str:
    """What was measured, in lines; the last one is what to do."""
    from medaction.kg.calibration import FEW

    values = sorted(calibration.reached)
    quantiles = ", ".join(
        f"{values[min(len(values) - 1, int(share * len(values)))]:.2f}"
        for share in (0.1, 0.25, 0.5, 0.75, 0.9)
    )
    limits = "no interval: one case"
    if calibration.low is not None and calibration.high is not None:
        limits = f"95 % interval over cases {calibration.low:.2f} to {calibration.high:.2f}"
    lines = [
        f"RAC on {graph}, turns from the second on",
        f"trajectories that reach the truth: {calibration.paths} of {calibration.cases} cases,"
        f" {len(values)} turns with a RAC, {calibration.unknown} without; of"
        f" {calibration.unscorable} trajectories it is not known",
        f"mean {calibration.mean:.2f} hops ({limits}); 10, 25, 50, 75 and 90 %: {quantiles}",
        f"{'threshold':>10}{'kept of them':>15}{'of the others':>15}",
    ]
    for threshold in range(1, int(max(calibration.threshold + 2, 5)) + 1):
        share, share_elsewhere = calibration.kept(threshold)
        cell = "-" if share_elsewhere != share_elsewhere else f"{share_elsewhere:.0%}"
        mark = "   proposed" if threshold == calibration.threshold else ""
        lines.append(f"{threshold:>10}{share:>15.0%}{cell:>15}{mark}")
    if len(values) < FEW:
        lines.append(
            f"{len(values)} values are few: with fewer than {FEW} the proposal is hardly more than"
            " a guess"
        )
    lines.append(
        "the whole number nearest to the mean, as the paper's 3 is to its 3.3:"
        f" --rac-threshold {calibration.threshold:g}"
    )
    return "\n".join(lines)
