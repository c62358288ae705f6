"""How well the offline judge's verdicts agree with a language model's, on 100 real GPT-5 runs of
AgentClinic that GPT-4o-mini judged.

Run as: python benchmarks/judging.py AGENTCLINIC_GPT5_RUNS.jsonl AGENTCLINIC_MEDQA.jsonl [--judge
MODEL] With --judge a language model judges the same diagnoses, and its agreement with both is told
too.
"""

import argparse
import asyncio
from pathlib import Path

from benchmarks.agentclinic_runs import Transcript, read_transcripts
from medaction.envs.build import build_environment
from medaction.envs.records import BadCase, ClinicalEnvironment
from medaction.envs.sources import read_cases
from medaction.evaluation.agreement import agreement
from medaction.evaluation.diagnoses import likeness
from medaction.evaluation.judges import LlmJudge, documented_text
from medaction.evaluation.judging import orders_of
from medaction.evaluation.offline_judge import OfflineJudge
from medaction.evaluation.protocol import Requested, protocol
from medaction.evaluation.scores import hit_share
from medaction.kg.encoder import load_encoder
from medaction.llm.calls import ModelError
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import Teacher
from medaction.trajectories.scoring import disease_linker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transcripts", type=Path)
    parser.add_argument("cases", type=Path, help="the AgentClinic cases that were played")
    parser.add_argument("--judge", type=Teacher.parse, help="a language model that judges too")
    given = parser.parse_args()
    runs = [run for run in read_transcripts(given.transcripts) if isinstance(run, Transcript)]
    raters = {"their judge": [run.verdict for run in runs]}
    linker = disease_linker()
    encode = load_encoder().encode
    raters["offline judge"] = [
        bool(likeness(run.diagnosis, [run.truth], linker, encode)) for run in runs
    ]
    if given.judge:
        raters[given.judge.name] = [_verdict(given.judge, run) for run in runs]
    print(
        f"{len(runs)} runs; right: "
        + ", ".join(f"{name} {sum(map(bool, column))}" for name, column in raters.items())
    )
    names = list(raters)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            agreed = agreement([raters[one], raters[other]])
            print(
                f"{one} / {other}: raw {agreed.raw:.3f}, Krippendorff's alpha {agreed.alpha:.3f},"
                f" {agreed.items} verdicts"
            )
    print("\ndisagreements (their verdict | ours | truth | stated):")
    for run, verdict in zip(runs, raters["offline judge"], strict=True):
        if verdict != run.verdict:
            print(f"  {run.verdict} | {verdict} | {run.truth} | {run.diagnosis}")
    _tests(runs, given.cases)


def _verdict(judge: Teacher, run: Transcript) -> bool | None:
    world = ClinicalEnvironment(str(run.number), "", "", "", (), run.truth)
    try:
        return asyncio.run(LlmJudge(judge).diagnosis(run.diagnosis, world, protocol("fixed")))
    except (MalformedReply, ModelError):
        return None


def _tests(runs: list[Transcript], cases: Path) -> None:
    """The ordered tests against the documented tests of the cases, which are found by their
    diagnosis."""
    reports = [report for report in read_cases(cases) if not isinstance(report, BadCase)]
    built = {report.case_id: build_environment(report).environment for report in reports}
    refused = sum(world is None for world in built.values())
    by_number = {number: built[report.case_id] for number, report in enumerate(reports)}
    encoder = load_encoder()
    scores, missing, ordered, answered = [], 0, 0, 0
    for run in runs:
        world = by_number.get(run.number)
        if world is None or world.diagnosis.casefold() != run.truth.casefold():
            missing += 1
            continue
        trajectory = run.trajectory(world)
        asked = Requested("", "", orders_of(trajectory))
        judging = OfflineJudge(disease_linker(), encoder.encode)
        verdicts = asyncio.run(
            judging.tests(asked, world, documented_text(world), protocol("medaction"))
        )
        ordered += len(verdicts.requested)
        answered += sum(
            bool(answer.results) for turn in trajectory.turns for answer in turn.answers
        )
        scores.append(
            [
                hit_share([hit for _, hit in side])
                for side in (verdicts.requested, verdicts.documented)
            ]
        )
    precision, recall = (sum(column) / len(column) for column in zip(*scores, strict=True))
    print(
        f"\ntests: {len(scores)} runs whose case is there ({missing} are not; {refused} of"
        f" {len(built)} cases were refused)"
    )
    print(
        f"precision {precision:.3f}, recall {recall:.3f}; {ordered} tests ordered, {answered}"
        " answered by AgentClinic's examiner"
    )


if __name__ == "__main__":
    main()
