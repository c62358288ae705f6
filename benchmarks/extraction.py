"""What becomes of case reports when a language model extracts their environments: how many pass the
checks, and which check fails most.

Run as: python benchmarks/extraction.py CASES --extractor local:/path/to/model.gguf --limit 10 --out
extracted/

With --replies FOLDER a person's replies stand in for the model: <case id>.json there holds
{presentation, menu} as the two questions ask for them. Printed is which of its tests were lost:
what a perfect extractor could not bring into the menu. The folder holds the
reports' words: it stays with them.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medaction.envs.build import build_environment
from medaction.envs.extraction import make_extractor
from medaction.envs.records import BadCase, Built, CaseReport
from medaction.envs.sources import read_cases
from medaction.llm.calls import ModelError, complete
from medaction.llm.local_server import start_local
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import Teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--extractor", type=Teacher.parse)
    model.add_argument("--replies", type=Path)
    parser.add_argument(
        "--limit", type=int, default=None, help="only so many reports, the shortest first"
    )
    parser.add_argument("--max-tokens", type=int, default=2000)
    parser.add_argument(
        "--out", type=Path, default=None, help="write every environment there as JSON"
    )
    options = parser.parse_args()
    reports = sorted(
        (case for case in read_cases(options.cases) if isinstance(case, CaseReport)),
        key=lambda case: len(case.text),
    )
    if options.replies:
        for report in reports:
            if (path := options.replies / f"{report.case_id}.json").exists():
                _replay(report, json.loads(path.read_text(encoding="utf-8")))
        return
    with ExitStack() as servers:
        teacher = options.extractor.model_copy(
            update={"max_tokens": options.max_tokens, "timeout_s": 3600.0}
        )
        if teacher.local:
            teacher = servers.enter_context(start_local(teacher))
        outcomes = [_extract(teacher, report, options.out) for report in reports[: options.limit]]
    print(json.dumps(Counter(outcomes).most_common(), indent=1))


def _replay(report: CaseReport, replies: dict[str, Any]) -> None:
    def ask(_messages: list[dict[str, str]], schema: dict[str, Any]) -> str:
        question = "menu" if "tests" in schema["properties"] else "presentation"
        return json.dumps(replies[question])

    built = build_environment(report, make_extractor(ask))
    if built.environment is None:
        print(f"{report.case_id}  {built.refusal}")
        return
    menu = {test.name for test in built.environment.menu}
    names = [test["name"] for test in replies["menu"]["tests"]]
    lost = [name for name in names if name not in menu]
    print(f"{report.case_id}  {len(names) - len(lost)} of {len(names)} tests; lost: {lost}")


def _extract(teacher: Teacher, report: CaseReport, out: Path | None) -> str:
    calls = 0

    def ask(messages: list[dict[str, str]], schema: dict[str, Any]) -> str:
        nonlocal calls
        calls += 1
        text, _ = asyncio.run(complete(teacher, messages, schema))
        return text

    started = time.monotonic()
    try:
        built = build_environment(report, make_extractor(ask))
    except (ModelError, MalformedReply) as error:
        built = Built(None, BadCase(type(error).__name__, str(error)))
    seconds = time.monotonic() - started
    outcome = built.refusal.reason if built.refusal else "passed"
    detail = (
        built.refusal.message[:200] if built.refusal else f"{len(built.environment.menu)} tests"
    )  # type: ignore[union-attr]
    print(
        f"{report.case_id}  {len(report.text):6} characters  {calls} calls  "
        f"{seconds:5.0f} s  {outcome}: {detail}",
        flush=True,
    )
    if out and built.environment:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{report.case_id}.json").write_text(
            json.dumps(asdict(built.environment), indent=1, ensure_ascii=False)
        )
    return outcome


if __name__ == "__main__":
    main()
