"""`medaction kg calibrate`: which RAC threshold the graph of a run asks for."""

from pathlib import Path

import click
from duckdb import DuckDBPyConnection

from medaction.kg.calibration import FEW, Calibration, ScoredPath, draw
from medaction.kg.calibration import calibrate as calibrated

SCORED_PATHS = """
with ends as (
    select trajectory_id, max(number) as last, arg_max(dtc, number) as dtc from turn_scores group by trajectory_id
)
select case_id, final_diagnosis is not null as committed, ends.dtc,
    list(rac order by number) filter (where rac is not null) as rac,
    count(*) filter (where number > 1 and rac is null) as unknown
from current_trajectories join ends using (trajectory_id) join turn_scores using (trajectory_id)
where style <> 'gold'
group by trajectory_id, case_id, final_diagnosis, ends.dtc order by trajectory_id
"""


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
    from medaction.trajectories.snapshot import open_snapshot

    run = store if store.is_dir() else store.parent
    try:
        with open_snapshot(run) as db:
            paths, graph = scored_paths(db), test_graph_of(db)
        found = calibrated(paths)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.ClickException(
            f"{run}: {error}; play more cases, or a better teacher"
        ) from error
    click.echo(table(found, graph))
    click.echo(f"drawn in {draw(found, graph, (out or run / 'plots') / 'rac_calibration.png')}")


def scored_paths(db: DuckDBPyConnection) -> list[ScoredPath]:
    """The scored trajectories of the run; a gold one is no play and is left out. One that did not
    commit has not reached the truth."""
    return [
        ScoredPath(
            case_id,
            dtc == 0 if committed and dtc is not None else (None if committed else False),
            tuple(rac or ()),
            unknown,
        )
        for case_id, committed, dtc, rac, unknown in db.execute(SCORED_PATHS).fetchall()
    ]


def test_graph_of(db: DuckDBPyConnection) -> str:
    """The name of the graph on which the run's tests were linked."""
    row = db.execute("select any_value(graph) from links where kind = 'test'").fetchone()
    return str(row[0]).partition("@")[0] if row and row[0] else "the test graph"


def table(found: Calibration, graph: str) -> str:
    """What was found, in lines; the last one is what to do."""
    few = len(found.reached) < FEW
    quantiles = sorted(found.reached)
    at = [
        quantiles[min(len(quantiles) - 1, int(share * len(quantiles)))]
        for share in (0.1, 0.25, 0.5, 0.75, 0.9)
    ]
    lines = [
        f"RAC on {graph}, turns from the second on",
        f"trajectories that reach the truth: {found.paths} of {found.cases} cases, {len(found.reached)} turns with a RAC,"
        f" {found.unknown} without; of {found.unscorable} trajectories it is not known",
        f"mean {found.mean:.2f} hops (95 % interval over cases {found.low:.2f} to {found.high:.2f});"
        f" 10, 25, 50, 75 and 90 %: {', '.join(f'{value:.2f}' for value in at)}",
        f"{'threshold':>10}{'kept of them':>15}{'of the others':>15}",
    ]
    for threshold in range(1, int(max(found.threshold + 2, 5)) + 1):
        kept, others = found.kept(threshold)
        mark = "   proposed" if threshold == found.threshold else ""
        lines.append(
            f"{threshold:>10}{kept:>15.0%}{'-' if others != others else f'{others:.0%}':>15}{mark}"
        )
    if few:
        lines.append(
            f"{len(found.reached)} values are few: with fewer than {FEW} the proposal is hardly more than a guess"
        )
    lines.append(
        f"the whole number nearest to the mean, as the paper's 3 is to its 3.3: --rac-threshold {found.threshold:g}"
    )
    return "\n".join(lines)
