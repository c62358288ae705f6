"""DTC and a distance like RAC on real runs of a language model: is either nearer to the truth where
the run was right?

    python benchmarks/transcripts.py --data FOLDER

FOLDER holds transcripts/agentclinic_gpt5_runs.jsonl: GPT-5 runs on AgentClinic cases, judged right
or wrong by a moderator model.

DTC: hops from the final diagnosis to the true one on the open disease graph (paper, equation 3).
Tests: hops from each test that the run ordered to the true diagnosis on the open test graph, their
least and their mean. That is no RAC, which is about changes of the differential; runs of this kind
do not tell their differential. What links to no node is counted and left out. AUC: the chance that
a right run is nearer than a wrong one, ties counted as half, with a 95 % bootstrap interval over
runs.

Threshold: each run as one change, the final diagnosis added after all its tests. tau_RAC is
calibrated (`medaction.kg.calibration`) on every other run, and its shares are those of the other
half.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.agentclinic_runs import Transcript, read_transcripts
from benchmarks.auc import auc, auc_interval
from medaction.kg.calibration import Change, calibrate, share_within
from medaction.kg.graph import Graph, hops, hops_from
from medaction.kg.linking import Link, Linker
from medaction.kg.open_graphs import open_disease_graph, open_test_graph
from medaction.kg.thresholds import OPEN_THRESHOLD

MEASURES = ("DTC", "nearest test", "mean of tests")


@dataclass(frozen=True, slots=True)
class Measured:
    """A run's distances by measure; None where unknown. unlinked: which of truth, diagnosis and
    tests are no node."""

    run: Transcript
    values: dict[str, float | None]
    unlinked: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    file = given.data / "transcripts" / "agentclinic_gpt5_runs.jsonl"
    runs = read_transcripts(file)
    measured = measure(runs)
    print_table(measured)
    print_threshold(runs)


def measure(runs: list[Transcript]) -> list[Measured]:
    disease_graph, test_graph = open_disease_graph(), open_test_graph()
    names = sorted({name for run in runs for name in (run.truth, run.diagnosis)})
    diagnoses = {
        link.text: link for link in Linker(disease_graph, ("disease", "phenotype")).link(names)
    }
    orders = sorted({test for run in runs for test in run.orders})
    tests = {link.text: link for link in Linker(test_graph, ("test",)).link(orders)}
    return [_measured(run, diagnoses, tests, disease_graph, test_graph) for run in runs]


def _measured(
    run: Transcript,
    diagnoses: dict[str, Link],
    tests: dict[str, Link],
    disease_graph: Graph,
    test_graph: Graph,
) -> Measured:
    truth, final = diagnoses[run.truth].node, diagnoses[run.diagnosis].node
    nodes = {node for test in run.orders if (node := tests[test].node) is not None}
    known: list[int] = []
    if truth is not None:
        known = [
            distance
            for distance in hops_from(test_graph, truth, nodes).values()
            if distance is not None
        ]
    values: dict[str, float | None] = {
        "DTC": hops(disease_graph, final, truth)
        if truth is not None and final is not None
        else None,
        "nearest test": min(known, default=None),
        "mean of tests": float(np.mean(known)) if known else None,
    }
    unlinked = ["truth"] * (truth is None) + ["diagnosis"] * (final is None)
    return Measured(
        run, values, (*unlinked, *("test" for test in run.orders if tests[test].node is None))
    )


def of(measured: list[Measured], measure: str, correct: bool) -> list[float]:
    """The known values of the right or of the wrong runs."""
    return [
        value
        for row in measured
        if row.run.verdict is correct and (value := row.values[measure]) is not None
    ]


def print_table(measured: list[Measured]) -> None:
    unlinked = Counter(kind for row in measured for kind in row.unlinked)
    orders = sum(len(row.run.orders) for row in measured)
    right = sum(row.run.verdict for row in measured)
    print(
        f"{right} right and {len(measured) - right} wrong runs;"
        f" {sum(not row.run.orders for row in measured)} ordered no test"
    )
    print(
        f"unlinked: {unlinked['truth']} truths, {unlinked['diagnosis']} final diagnoses,"
        f" {unlinked['test']} of {orders} orders"
    )
    for measure in MEASURES:
        near, far = of(measured, measure, True), of(measured, measure, False)
        print(f"\n{measure} (known of {len(near)} right and {len(far)} wrong runs)")
        print(f"{'hops':>8}{'right':>8}{'wrong':>8}")
        counts = [np.histogram(values, [*range(7), np.inf])[0] for values in (near, far)]
        for low, (right, wrong) in enumerate(zip(*counts, strict=True)):
            name = f"{low} to <{low + 1}" if measure == "mean of tests" else f"{low}"
            name = "6 or more" if low == 6 else name
            print(f"{name:>8}{right / len(near):8.0%}{wrong / len(far):8.0%}")
        groups = [[(value, True)] for value in near] + [[(value, False)] for value in far]
        low_auc, high_auc = auc_interval(groups)
        print(
            f"    mean{np.mean(near):8.2f}{np.mean(far):8.2f}    AUC {auc(near, far):.3f}"
            f" ({low_auc:.3f} to {high_auc:.3f})"
        )


def print_threshold(runs: list[Transcript]) -> None:
    """tau_RAC by one half of the runs, and what it keeps of the other half."""
    graph = open_test_graph()
    diagnoses = Linker(graph, ("disease", "phenotype")).link(run.diagnosis for run in runs)
    tests = Linker(graph, ("test",))
    changes = []
    for number, (run, diagnosis) in enumerate(zip(runs, diagnoses, strict=True)):
        nodes = {link.node for link in tests.link(run.orders) if link.node is not None}
        if diagnosis.node is not None and nodes:
            changed = (diagnosis.node,)
            changes.append(Change(str(number), run.verdict, changed, tuple(sorted(nodes))))
    found, other = (
        calibrate([row for row in changes if int(row.case_id) % 2 == half], graph)
        for half in (0, 1)
    )
    print(
        f"\ntau_RAC by {len(found.right)} right and {len(found.wrong)} wrong runs (mean of the"
        f" right {found.mean:.2f}): {found.threshold:g}. Kept of the other half, by the"
        f" paper's 3, the graph's own {OPEN_THRESHOLD:g} and this:"
    )
    for name, values in (
        ("right", other.right),
        ("wrong", other.wrong),
        ("random orders", other.null.orders),
        ("random diagnoses", other.null.changes),
    ):
        shares = [
            f"{share_within(values, bound):5.0%}"
            for bound in (3.0, OPEN_THRESHOLD, found.threshold)
        ]
        print(f"{name:>18} ({len(values)}){' '.join(shares)}")


if __name__ == "__main__":
    main()
