"""Where case reports come from. Each source is one file with one function: `read(path) -> Iterator[CaseReport | BadCase]`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from envs.records import BadCase, CaseReport
from envs.sources import agentclinic, case_json, jats, medrbench
from envs.sources.files import parse_json, read_text

Reader = Callable[[Path], Iterator[CaseReport | BadCase]]


def read_cases(path: str | Path) -> Iterator[CaseReport | BadCase]:
    """All cases at a path: a file of a known form, or a folder of such files (not of folders), by name.

    A case that cannot be read is yielded as BadCase and the others go on; so is the second case with an id already seen
    ('duplicate_id'). Raises BadCase('no_cases' | 'unknown_format') when there is nothing at `path` that can be read.
    """
    seen: set[str] = set()
    for case in _all(Path(path)):
        if isinstance(case, CaseReport):
            if case.case_id in seen:
                case = BadCase("duplicate_id", f"a case {case.case_id!r} came before; ids must differ", case.case_id, case.path)
            else:
                seen.add(case.case_id)
        yield case


def _all(path: Path) -> Iterator[CaseReport | BadCase]:
    if not path.exists():
        raise BadCase("no_cases", f"there is nothing at {path}", path=str(path))
    if path.is_file():
        yield from _reader(path)(path)
        return
    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in (".xml", ".json", ".jsonl")]
    if not files:
        raise BadCase(
            "no_cases", f"{path} holds no .xml, .json or .jsonl file (folders inside it are not searched)", path=str(path)
        )
    for file in files:
        if file.suffix.lower() == ".json" and file.with_suffix(".xml").exists():
            continue  # the structured part of the article beside it
        try:
            yield from _reader(file)(file)
        except BadCase as bad:
            yield bad


def _reader(path: Path) -> Reader:
    """The source that can read a file. Raises BadCase('unknown_format') with what is understood."""
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return jats.read
    if suffix == ".jsonl" and _first_keys(path) >= {"OSCE_Examination"}:
        return agentclinic.read
    if suffix == ".json":
        value = parse_json(read_text(path), path)
        if case_json.is_case(value):
            return case_json.read
        if isinstance(value, dict) and any(isinstance(case, dict) and "generate_case" in case for case in value.values()):
            return medrbench.read
    raise BadCase(
        "unknown_format",
        f"{path.name} is none of: PMC article (JATS .xml), AgentClinic OSCE cases (.jsonl), MedR-Bench cases (.json), "
        "a structured case (.json, docs/case-format.md)",
        path=str(path),
    )


def _first_keys(path: Path) -> set[str]:
    """The keys of the first line that is a JSON object; later lines are judged one by one when they are read."""
    for line in read_text(path).splitlines():
        try:
            value = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return set(value)
    return set()
