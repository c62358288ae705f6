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
from medaction.evaluation.diagnoses import is_same_diagnosis
from medaction.evaluation.scores import share
from medaction.kg.encoder import load_encoder
from medaction.trajectories.scoring import disease_linker


def half(case_id: str) -> str:
    """'development' or 'test'."""
    return "test" if hashlib.sha256(case_id.encode()).digest()[0] % 2 else "development"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--half", default="test", choices=("test", "development"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.answers.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if half(row["case_id"]) == options.half]
    linker, encode = disease_linker(), load_encoder().encode
    verdicts = [is_same_diagnosis(row["answer"], [row["truth"]], linker, encode) for row in rows]
    for judge in ("gpt", "gemma"):
        truth = [row[judge] for row in rows]
        agreed = agreement([verdicts, truth])
        pairs = list(zip(verdicts, truth, strict=True))
        print(
            f"{options.half}, {len(rows)} answers, beside {judge}: raw {agreed.raw:.3f}, "
            f"alpha {agreed.alpha:.3f}, "
            f"sensitivity {share([verdict for verdict, right in pairs if right]):.3f}, "
            f"specificity {share([not verdict for verdict, right in pairs if not right]):.3f}"
        )


if __name__ == "__main__":
    main()
