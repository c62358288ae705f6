"""How well the graph clinician plays: every case of a file, in both styles, with several seeds.

It plays on the graph on which DTC is measured, so these figures compare versions of this clinician
with each other and say nothing about the metrics.

Run as: python benchmarks/graph_clinician.py agentclinic_medqa.jsonl [--seeds 3] [--turns out.jsonl]
"""

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medaction.clinicians.graph.clinician import SURE, KgClinician
from medaction.envs.build import build_environment
from medaction.envs.episode import Episode
from medaction.envs.oracle import Oracle
from medaction.envs.records import CaseReport, ClinicalEnvironment
from medaction.envs.rewards import true_name
from medaction.envs.sources.agentclinic import read
from medaction.envs.turns import Turn
from medaction.kg.graph import hops
from medaction.kg.tests_table import aliases_of_tests
from medaction.trajectories.scoring import disease_linker


@dataclass(frozen=True, slots=True)
class Score:
    """One rollout. dtc: hops from the final diagnosis to the truth; None: the truth is no node, or
    no path. recall: share of the documented tests that the orders brought out."""

    dtc: int | None
    recall: float
    turns: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--turns", type=Path, help="write every turn to this file, to read them")
    options = parser.parse_args()
    environments = list(environments_of(options.cases))
    print(f"{len(environments)} environments, {options.seeds} seeds")
    print(f"{'style':14} {'right':>7} {'mean DTC':>9} {'no DTC':>7} {'recall':>7} {'turns':>6}")
    turns_file = options.turns.open("w", encoding="utf-8") if options.turns else None
    started = time.process_time()
    for style in SURE:
        scores = []
        for environment in environments:
            for seed in range(options.seeds):
                turns = play(environment, style, 1000 * seed + 1)
                scores.append(score(environment, turns))
                if turns_file:
                    for turn in turns:
                        line = {"case": environment.environment_id, "style": style, "seed": seed}
                        line |= {"truth": environment.diagnosis, "reply": turn.raw}
                        turns_file.write(json.dumps(line) + "\n")
        distances = [score.dtc for score in scores if score.dtc is not None]
        print(
            f"{style:14} {sum(distance == 0 for distance in distances) / len(scores):7.3f}"
            f" {np.mean(distances):9.2f} {len(scores) - len(distances):7}"
            f" {np.mean([score.recall for score in scores]):7.3f}"
            f" {np.mean([score.turns for score in scores]):6.2f}",
            flush=True,
        )
    print(f"{time.process_time() - started:.0f} s of CPU")


def environments_of(path: Path) -> Iterator[ClinicalEnvironment]:
    for report in read(path):
        if isinstance(report, CaseReport):
            built = build_environment(report)
            if built.environment:
                yield built.environment


def play(environment: ClinicalEnvironment, style: str, seed: int) -> tuple[Turn, ...]:
    """Seeds count up with the turns, as in a run."""
    clinician = KgClinician(style)  # type: ignore[arg-type]
    episode = Episode(environment, Oracle(environment.menu, aliases_of_tests()))
    while not episode.ended:
        observation = episode.observation
        episode.step(asyncio.run(clinician.decide(observation, seed + observation.number)))
    return episode.turns


def score(environment: ClinicalEnvironment, turns: tuple[Turn, ...]) -> Score:
    linker = disease_linker()
    truth, final = linker.link([true_name(environment, linker), turns[-1].leader])
    dtc = None
    if truth.node is not None and final.node is not None:
        dtc = hops(linker.graph, truth.node, final.node)
    results = {result for turn in turns for answer in turn.answers for result in answer.results}
    return Score(dtc, len(results) / len(environment.menu), len(turns))


if __name__ == "__main__":
    main()
