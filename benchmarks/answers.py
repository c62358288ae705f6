"""The offline judge beside a GPT's and Gemma's verdicts on real answers, on cases that it was not
fitted to.

Run as: python benchmarks/answers.py ANSWERS.jsonl (case_id, truth, answer, gpt, gemma a line).
Cases are split by the first byte of the SHA-256 of their id: even ones are for development.
"""

import argparse
import hashlib
import json
from pathlib import Path

from medaction.evaluation.agreement import agreement
from medaction.evaluation.diagnoses import LIKELY, likeness
from medaction.evaluation.scores import share
from medaction.kg.encoder import load_encoder
from medaction.trajectories.scoring import disease_linker

CURVE = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, LIKELY, 0.75, 0.8, 0.85, 0.9)


def half(case_id: str) -> str:
    """'development' or 'test'."""
    return "test" if hashlib.sha256(case_id.encode()).digest()[0] % 2 else "development"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--half", default="test", choices=("test", "development"))
    parser.add_argument(
        "--curve", action="store_true", help="several thresholds beside the judge's"
    )
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.answers.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if half(row["case_id"]) == options.half]
    linker, encode = disease_linker(), load_encoder().encode
    likely = [likeness(row["answer"], [row["truth"]], linker, encode) for row in rows]
    thresholds = CURVE if options.curve else [LIKELY]
    print(f"{options.half}, {len(rows)} answers")
    for threshold in thresholds:
        verdicts = [answer.probability >= threshold for answer in likely]
        for judge in ("gpt", "gemma"):
            agreed = agreement([verdicts, [row[judge] for row in rows]])
            right = [verdict for verdict, row in zip(verdicts, rows, strict=True) if row[judge]]
            wrong = [not v for v, row in zip(verdicts, rows, strict=True) if not row[judge]]
            print(
                f"from {threshold}, beside {judge}: raw {agreed.raw:.3f}, alpha {agreed.alpha:.3f},"
                f" sensitivity {share(right):.3f} of {len(right)},"
                f" specificity {share(wrong):.3f} of {len(wrong)}"
            )


if __name__ == "__main__":
    main()
