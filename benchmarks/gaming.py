"""What policies without knowledge of the patient get out of a judge, beside honest players.

Run as: python -m benchmarks.gaming CASES [--most N] [--judge MODEL]
CASES: any cases that `medaction evaluate` reads. Accuracy is the share of cases whose judge is
convinced. Honest: the truth itself, the truth among its own complications, and the truth in a list.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from medaction.envs.build import build_environment
from medaction.envs.episode import Episode
from medaction.envs.make_oracle import oracle_of
from medaction.envs.records import BadCase, ClinicalEnvironment
from medaction.envs.sources import read_cases
from medaction.evaluation.diagnoses import likeness
from medaction.evaluation.floor import constant_orders
from medaction.evaluation.gaming import COMMON, POLICIES
from medaction.evaluation.judges import Judge, LlmJudge
from medaction.evaluation.offline_judge import OfflineJudge
from medaction.evaluation.protocol import Protocol, protocol
from medaction.kg.encoder import load_encoder
from medaction.llm.teacher import Teacher
from medaction.trajectories.scoring import disease_linker, linkers
from tests.policies import GAMING, played, worker

PAPER = protocol("medaction")
AIM = 0.05
"""Accuracy that no policy without knowledge of the patient may exceed."""


PLAYED = 24
"""Cases of which whole episodes are played: each takes seconds."""

REWARDS = ("diagnosis", "test_f1", "dtc", "rac", "information", "cost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--most", type=int, default=400, help="cases")
    parser.add_argument("--judge", type=Teacher.parse, help="a language model; default: offline")
    options = parser.parse_args()
    encode = load_encoder().encode
    judge: Judge = (
        LlmJudge(options.judge) if options.judge else OfflineJudge(disease_linker(), encode)
    )
    reports = [report for report in read_cases(options.cases) if not isinstance(report, BadCase)]
    built = (build_environment(report).environment for report in reports[: options.most])
    environments = [environment for environment in built if environment]
    print(
        f"{len(environments)} cases, judge {'offline' if not options.judge else options.judge.name}"
    )
    print("| policy | knows | accuracy |\n|---|---|---|")
    for name, policy in POLICIES.items():
        statements = [policy(environment.initial_observation) for environment in environments]
        accuracy = share_convinced(judge, statements, environments)
        print(f"| {name} | nothing | {accuracy:.3f}{' **' if accuracy > AIM else ''} |", flush=True)
    truths = [environment.diagnosis for environment in environments]
    shifted = [*truths[1:], *truths[:1]]
    others = "; ".join(COMMON[:9])
    for name, statements in {
        "another case's truth": shifted,
        "the truth": truths,
        "the truth, worded": [f"Final diagnosis: {truth}" for truth in truths],
        "the truth with a complication": [f"{truth.strip(' .')}, sepsis" for truth in truths],
        "the truth as the last of ten": [f"{others}; {truth}" for truth in truths],
        "the truth and two others": [
            f"{COMMON[0]}, {COMMON[6]}, {truth.strip(' .')}" for truth in truths
        ],
        "one other and the truth": [f"{COMMON[1]} and {truth.strip(' .')}" for truth in truths],
        "one other + the truth": [f"{COMMON[1]} + {truth.strip(' .')}" for truth in truths],
        "one other due to the truth": [
            f"{COMMON[1]} due to {truth.strip(' .')}" for truth in truths
        ],
    }.items():
        accuracy = share_convinced(judge, statements, environments)
        print(f"| {name} | the truth | {accuracy:.3f} |", flush=True)
    _print_players(environments[:PLAYED])
    floor = constant_orders(environments, encode)
    print(
        f"\nconstant orders: {', '.join(floor.orders)}: precision {floor.precision:.3f}, recall"
        f" {floor.recall:.3f}, F1 of means {floor.f1_of_means:.3f}"
    )


def _print_players(environments: Sequence[ClinicalEnvironment]) -> None:
    """The mean rewards of policies that play whole episodes, beside one that works."""
    ruler, encode = linkers(), load_encoder().encode

    def is_right(said: str, world: ClinicalEnvironment) -> bool:
        return bool(likeness(said, (world.diagnosis, *world.synonyms), ruler.diseases, encode))

    print(f"\n| plays | {' | '.join(REWARDS)} | total |\n|{'---|' * (len(REWARDS) + 2)}")
    for policy in (worker, *GAMING):
        credits = [
            played(Episode(world, oracle_of(world)), policy).credit(is_right, ruler)
            for world in environments
        ]
        means = [
            mean([c.rewards[name] for c in credits if c.rewards[name] is not None] or [0])
            for name in REWARDS
        ]
        total = mean(credit.total for credit in credits)
        cells = " | ".join(f"{value:.3f}" for value in (*means, total))
        print(f"| {policy.__name__} | {cells} |", flush=True)


def share_convinced(
    judge: Judge,
    statements: Sequence[str],
    environments: Sequence[ClinicalEnvironment],
    rules: Protocol = PAPER,
) -> float:
    """The share of cases whose judge takes the case's statement for its diagnosis."""

    async def verdicts() -> list[bool]:
        return [
            await judge.diagnosis(statement, environment, rules)
            for statement, environment in zip(statements, environments, strict=True)
        ]

    return sum(asyncio.run(verdicts())) / len(environments)


if __name__ == "__main__":
    main()
