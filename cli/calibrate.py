"""`medaction kg calibrate`: the RAC threshold of a run's test graph, measured and kept."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medaction.cli.options import FOLDER, RUN_FOLDER
from medaction.trajectories.files import STORE
from medaction.words.errors import MedactionError

if TYPE_CHECKING:
    from medaction.kg.calibration import Calibration, Change
    from medaction.kg.graph import Graph
    from medaction.trajectories.store import Store


@click.command()
@click.argument("run", type=RUN_FOLDER)
@click.option("--out", type=FOLDER, help="Where the plot goes.  [default: plots/ of the run]")
@click.option("--dry-run", is_flag=True, help="Show the threshold, and keep what there is.")
def calibrate(run: Path, out: Path | None, dry_run: bool) -> None:
    """Measure which RAC threshold the test graph of a run asks for, and keep it beside the cached
    graphs: later runs on this graph use it. From too few turns it is shown and not kept."""
    from medaction.kg.calibration import FEW, draw
    from medaction.kg.calibration import calibrate as calibration_of
    from medaction.kg.thresholds import keep_threshold
    from medaction.trajectories.store import Store

    with Store(run / STORE) as store:
        changes, graph = changes_in(store)
    try:
        calibration = calibration_of(changes, graph)
    except ValueError as error:
        line = f"{run}: {error}; play more cases, or a better teacher"
        raise click.ClickException(line) from error
    click.echo(table(calibration, graph.name))
    picture = draw(calibration, graph.name, (out or run / "plots") / "rac_calibration.png")
    click.echo(f"drawn in {picture}")
    if not dry_run:
        if len(calibration.right) < FEW:
            raise MedactionError(
                f"not kept: every later run would go by a guess; play more cases, for {FEW} right"
                f" turns, or give one run --rac-threshold {calibration.threshold:g}"
            )
        origin = f"{run.resolve().name}, {calibration.cases} cases"
        click.echo(f"kept in {keep_threshold(graph, calibration.threshold, origin)}")


def changes_in(store: "Store") -> "tuple[list[Change], Graph]":
    """The changes that the run's teachers made, each turn once, and the test graph. Of a store
    without scores they are measured first."""
    from medaction.evaluation.played import paths
    from medaction.flows.finish import links_of
    from medaction.kg.calibration import changes_of
    from medaction.kg.metrics import dtc, looked_up

    links = links_of(store)
    played = list(paths(store, links))
    ends = [(path.course.truth, path.course.turns[-1].top) for path in played]
    known = [(truth, top) for truth, top in ends if truth is not None and top is not None]
    # All at once: one search from each true diagnosis, not one for every path.
    hops = looked_up(links.disease_graph, known)
    changes: list[Change] = []
    for path, (truth, top) in zip(played, ends, strict=True):
        spec, distance = path.trajectory.spec, dtc(hops, top, truth)
        changes += changes_of(spec.case_id, path.course, distance, spec.branch_turn)
    return changes, links.test_graph


def table(calibration: "Calibration", graph: str) -> str:
    """What was measured, in lines; the last one is the threshold."""
    from medaction.kg.calibration import FEW, STEP, share_within

    limits = "no interval: one case"
    if calibration.low is not None and calibration.high is not None:
        limits = f"95 % interval over cases {calibration.low:.2f} to {calibration.high:.2f}"
    parts = {
        "right turns": calibration.right,
        "other turns": calibration.wrong,
        "random orders": calibration.null.orders,
        "random changes": calibration.null.changes,
    }
    lines = [
        f"RAC on {graph} of turns that changed the differential after tests that are nodes,"
        " each turn once",
        f"right turns (of trajectories that reach the truth): {len(calibration.right)} of"
        f" {calibration.cases} cases; without a known distance: {calibration.unknown} of all",
        f"their mean: {calibration.mean:.2f} hops ({limits}); the paper's was 3.3, its threshold 3",
        f"{'kept at':>10}" + "".join(f"{name:>16}" for name in parts),
    ]
    # From 1 hop to a little beyond the threshold, so that its maximum is seen.
    for step in range(round(1 / STEP), round((calibration.threshold + 1.5) / STEP) + 1):
        threshold = STEP * step
        shares = (f"{share_within(v, threshold):.0%}" if v else "-" for v in parts.values())
        cells = "".join(f"{share:>16}" for share in shares)
        mark = "   <- threshold" if threshold == calibration.threshold else ""
        lines.append(f"{threshold:>10g}{cells}{mark}")
    if len(calibration.right) < FEW:
        lines.append(
            f"{len(calibration.right)} right turns are few: with fewer than {FEW} this is hardly"
            " more than a guess"
        )
    if not calibration.null.orders:
        lines.append("one case has no null: the threshold is the multiple nearest to the mean")
    lines.append(
        f"threshold of {graph}: {calibration.threshold:g} hops, which keeps the most of the right"
        " turns over what it keeps of random ones"
    )
    return "\n".join(lines)
