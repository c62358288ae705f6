"""How well the offline judge's verdicts agree with a language model's, on 100 real GPT-5 runs of
AgentClinic that GPT-4o-mini judged.

Run as: python -m benchmarks.judging AGENTCLINIC_GPT5_RUNS.jsonl
"""

import argparse
from pathlib import Path

from benchmarks.agentclinic_runs import read_transcripts
from medaction.evaluation.agreement import agreement
from medaction.evaluation.diagnoses import likeness
from medaction.kg.encoder import load_encoder
from medaction.trajectories.scoring import disease_linker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("transcripts", type=Path)
    runs = read_transcripts(parser.parse_args().transcripts)
    linker, encode = disease_linker(), load_encoder().encode
    theirs = [run.verdict for run in runs]
    offline = [bool(likeness(run.diagnosis, [run.truth], linker, encode)) for run in runs]
    agreed = agreement([theirs, offline])
    print(
        f"{len(runs)} runs; right by their judge {sum(map(bool, theirs))}, offline {sum(offline)};"
        f" raw agreement {agreed.raw:.3f}, Krippendorff's alpha {agreed.alpha:.3f},"
        f" {agreed.items} verdicts"
    )
    print("\ndisagreements (their verdict | offline | truth | stated):")
    for run, verdict, offline_verdict in zip(runs, theirs, offline, strict=True):
        if verdict != offline_verdict:
            print(f"  {verdict} | {offline_verdict} | {run.truth} | {run.diagnosis}")


if __name__ == "__main__":
    main()
