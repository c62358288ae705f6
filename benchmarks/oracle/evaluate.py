"""How often the oracle answers an order rightly, against orders that were labelled by reading them.

    python benchmarks/oracle/evaluate.py --data FOLDER

FOLDER holds agentclinic/agentclinic_medqa.jsonl and medrbench/diagnosis_cases.json. Measured is the
configuration that rollouts play with: the aliases of the table of tests and the small encoder, no
language model.

Precision: of the returned entries that a label speaks of, how many are expected ('acceptable' ones
count neither way). Recall: of the expected entries, how many are returned.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medaction.envs.build import build_environment
from medaction.envs.make_oracle import oracle_of
from medaction.envs.records import CaseReport, ClinicalEnvironment
from medaction.envs.sources import read_cases
from medaction.kg.encoder import load_encoder

LABELS = Path(__file__).parent / "labels.jsonl"
METHODS = ("exact", "synonym", "words", "panel", "encoder")
SPLITS = ("dev", "held_out", *(f"held_out_{number}" for number in range(2, 16)))


@dataclass(frozen=True, slots=True)
class Label:
    """One order to the menu of one case, and the names of the entries that answer it; none
    expected: UNAVAILABLE."""

    case_id: str
    source: str
    order: str
    expected: frozenset[str]
    acceptable: frozenset[str]
    split: str
    note: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What the oracle returned for a label: entry name -> the method that found it."""

    label: Label
    returned: dict[str, str]
    seconds: float

    @property
    def wrong(self) -> set[str]:
        return set(self.returned) - self.label.expected - self.label.acceptable

    @property
    def missed(self) -> set[str]:
        return set(self.label.expected - set(self.returned))


def read_labels(path: Path = LABELS) -> Iterator[Label]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        names = frozenset(row["expected"]), frozenset(row["acceptable"])
        yield Label(
            row["case_id"], row["source"], row["order"], *names, row["split"], row.get("note", "")
        )


def read_environments(data: Path) -> dict[str, ClinicalEnvironment]:
    """All cases that become environments, by case id."""
    paths = (data / "agentclinic" / "agentclinic_medqa.jsonl", data / "medrbench")
    reports = (
        report for path in paths for report in read_cases(path) if isinstance(report, CaseReport)
    )
    built = (build_environment(report, min_tests=1).environment for report in reports)
    return {environment.case_id: environment for environment in built if environment}


def judge(
    labels: Iterable[Label], environments: dict[str, ClinicalEnvironment]
) -> Iterator[Judged | str]:
    """Each label judged; a sentence for one whose case or entries are gone."""
    load_encoder().encode(["warm"])
    for label in labels:
        if label.case_id not in environments:
            yield f"{label.case_id} is no environment any more: {label.order!r}"
            continue
        environment = environments[label.case_id]
        menu = environment.menu
        gone = (label.expected | label.acceptable) - {test.name for test in menu}
        if gone:
            yield f"{label.case_id} has no entry {sorted(gone)} any more: {label.order!r}"
            continue
        start = time.perf_counter()
        found = list(oracle_of(environment).matches(label.order))
        seconds = time.perf_counter() - start
        yield Judged(
            label,
            {
                menu[entry].name: match.method
                for match in reversed(found)
                for entry in match.entries
            },
            seconds,
        )


def row(name: str, judged: list[Judged]) -> str:
    right = sum(len(set(j.returned) & j.label.expected) for j in judged)
    wrong, missed = sum(len(j.wrong) for j in judged), sum(len(j.missed) for j in judged)
    flawless = sum(not j.wrong and not j.missed for j in judged)
    precision = f"{right / (right + wrong):9.3f}" if right + wrong else f"{'-':>9}"
    recall = f"{right / (right + missed):7.3f}" if right + missed else f"{'-':>7}"
    counts = f"{right:6} {wrong:6} {missed:7} {flawless / max(1, len(judged)):9.3f}"
    return f"{name:34} {len(judged):6} {precision} {recall} {counts}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the case files")
    parser.add_argument(
        "--errors",
        nargs="*",
        default=list(SPLITS),
        help="splits whose errors are listed (default: all)",
    )
    arguments = parser.parse_args()
    outcomes = list(judge(read_labels(), read_environments(arguments.data)))
    judged = [outcome for outcome in outcomes if isinstance(outcome, Judged)]
    print(f"{'':34} orders precision  recall  right  wrong  missed all right")
    for split in SPLITS:
        of_split = [j for j in judged if j.label.split == split]
        if not of_split:
            continue
        print(row(split, of_split))
        for source in sorted({j.label.source for j in of_split}):
            print(row(f"  {source}", [j for j in of_split if j.label.source == source]))
        counts = Counter(
            (m, n in j.label.expected, n in j.label.acceptable)
            for j in of_split
            for n, m in j.returned.items()
        )
        for method in METHODS:
            right, wrong = counts[method, True, False], counts[method, False, False]
            if right + wrong:
                share = right / (right + wrong)
                print(f"  by {method:29} {'':6} {share:9.3f} {'':7} {right:6} {wrong:6}")
    slowest = max(judged, key=lambda j: j.seconds)
    mean = sum(j.seconds for j in judged) / len(judged)
    print(
        f"mean {1000 * mean:.1f} ms an order with a new menu's first; "
        f"slowest {1000 * slowest.seconds:.1f} ms"
    )
    for outcome in outcomes:
        if isinstance(outcome, str):
            print("GONE", outcome)
        elif outcome.label.split in arguments.errors and (outcome.wrong or outcome.missed):
            returned = {name: outcome.returned[name] for name in sorted(outcome.wrong)}
            place = f"{outcome.label.split} {outcome.label.case_id} {outcome.label.order!r}"
            print(f"{place}: wrong {returned}, missed {sorted(outcome.missed)}")


if __name__ == "__main__":
    main()
