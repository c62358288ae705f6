"""Sets of cases wherever they lie: stores of runs, exported datasets, hard sets, files of case
reports; each case as what is compared."""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from medaction.envs.records import (
    BadCase,
    CaseReport,
    ClinicalEnvironment,
    DocumentedTest,
    StructuredCase,
)
from medaction.envs.sources import ANY_ARTICLE, UNLICENSED, read_cases
from medaction.trajectories.export import manifest_of, note_in_manifest
from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store

log = logging.getLogger(__name__)

_PMCID = re.compile(r"PMC\d{5,}", re.IGNORECASE)  # 'pmc1' may be anything
_PRESENTED = re.compile(r"<initial_observation>\s*(.*?)\s*</initial_observation>", re.DOTALL)
_RESULTS = re.compile(r"<(test_record|new_results)>\s*(.*?)\s*</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SetCase:
    """One case of a set.

    texts: what tells the patient, each whole: the published report, its summary, the environment
    made of it. presentation: the initial observation, '' where the set has none. names: the true
    diagnosis and its synonyms. ids: 'pmcid:PMC1', 'doi:10.1/x'.
    """

    case_id: str
    source: str
    title: str
    texts: tuple[str, ...]
    presentation: str
    names: tuple[str, ...]
    ids: frozenset[str]
    licence: str | None = None


def read_set(path: str | Path) -> list[SetCase]:
    """The cases of a set, in the order of their ids: a run's folder or its store, a dataset's
    folder, or whatever `medaction.envs.sources` reads.

    A folder with both a store and a dataset is read as its store, which tells more. What cannot be
    read as a case is left out, with a warning. Raises BadCase('no_cases' | 'unknown_format') when
    there is nothing to read.
    """
    location = Path(path)
    store = location / STORE if location.is_dir() else location
    if store.suffix == ".duckdb" and store.is_file():
        set_cases = _from_store(store)
    elif (location / "train.parquet").is_file():
        set_cases = _from_dataset(location)
    elif (location / "dataset" / "train.parquet").is_file():
        set_cases = _from_dataset(location / "dataset")
    else:
        path = location / "cases" if (location / "cases").is_dir() else path  # a hard set
        set_cases = _from_files(path)
    cases = sorted(set_cases, key=lambda case: case.case_id)
    if not cases:
        raise BadCase("no_cases", f"{path}: there is no case that can be compared", path=str(path))
    return cases


def ids_of(case_id: str, publication: dict[str, str]) -> frozenset[str]:
    """What names the publication itself: its PMCID (a field, or in the case's id) and its DOI."""
    # MedR-Bench names its cases by it.
    pmcid = publication.get("pmcid") or next(iter(_PMCID.findall(case_id)), "")
    # One DOI is written as an address, with 'doi:', or bare; its case does not matter.
    stated = publication.get("doi", "").strip().casefold()
    doi = re.sub(r"^(?:https?://(?:dx\.)?doi\.org/|doi:\s*)", "", stated)
    ids = {f"pmcid:PMC{pmcid.upper().removeprefix('PMC')}"} if pmcid else set()
    return frozenset(ids | {f"doi:{doi}"} if doi else ids)


def _from_files(path: str | Path) -> Iterator[SetCase]:
    """Comparing two texts keeps neither, so that no licence is asked for, and any article counts.
    What cannot be read is told: it was compared with nothing."""
    for case in read_cases(path, frozenset({UNLICENSED, ANY_ARTICLE})):
        if isinstance(case, BadCase):
            log.warning("not compared: %s: %s", case.path, case)
        else:
            yield _from_report(case)


def _from_store(path: Path) -> Iterator[SetCase]:
    with Store(path) as store:
        rows = store.rows('select case_id, source, title, publication, "text", licence from cases')
        worlds = {world.case_id: world for world in store.environments()}
    for case_id, source, title, publication, text, licence in rows:
        case = SetCase(case_id, source, title, (), "", (), frozenset(), licence)
        world = worlds.get(case_id)
        facts = (world, world.menu) if world else None
        yield _with_texts(case, text, json.loads(publication), facts)


def _from_report(report: CaseReport) -> SetCase:
    structured = report.structured
    facts = (structured, structured.tests) if structured else None
    about = (report.case_id, report.source, report.title)
    case = SetCase(*about, (), "", (), frozenset(), report.licence)
    return _with_texts(case, report.text, dict(report.meta), facts)


def _with_texts(
    case: SetCase,
    text: str,
    publication: dict[str, str],
    facts: tuple[ClinicalEnvironment | StructuredCase, Iterable[DocumentedTest]] | None,
) -> SetCase:
    """The case with what its report and, where there is one, its environment tell."""
    # Report and summary stand in one text; a copy may have been made of either.
    at = int(publication.get("summary_at", 0))
    texts = [text[:at], text[at:]] if at else [text]
    ids, presentation = ids_of(case.case_id, publication), ""
    names: tuple[str, ...] = ()
    if facts:
        world, tests = facts
        presentation, names = world.initial_observation, (world.diagnosis, *world.synonyms)
        texts.append(_patient(presentation, tests))
    return replace(case, texts=_non_empty(texts), presentation=presentation, names=names, ids=ids)


def _from_dataset(folder: Path) -> Iterator[SetCase]:
    """Of each case the record with the most results: the initial observation and the record of
    tests stand in its prompt."""
    parts = [
        pl.read_parquet(file)
        for file in (folder / "train.parquet", folder / "validation.parquet")
        if file.is_file()
    ]
    # Datasets of different versions may lack columns. By turn: the last record knows the most.
    frame = pl.concat(parts, how="diagonal_relaxed").sort("case_id", "turn")
    for (case_id,), records in frame.group_by(["case_id"], maintain_order=True):
        row = records.row(-1, named=True)
        # Without the system's words and the reply, which are no part of the patient.
        prompt = "\n".join(message["content"] for message in row["messages"][1:-1])
        presented = _PRESENTED.search(prompt)
        # A dataset of before the tags, or another tool's, has its prompt compared whole.
        presentation = presented[1] if presented else prompt
        results = "\n".join(match[1] for match in _RESULTS.findall(prompt))
        names = (row["diagnosis"],) if row.get("diagnosis") else ()
        yield SetCase(
            str(case_id),
            row["source"],
            "",
            _non_empty([f"{presentation}\n{results}"]),
            presentation,
            names,
            ids_of(str(case_id), {}),
            row.get("licence"),
        )


def _patient(presentation: str, tests: Iterable[DocumentedTest]) -> str:
    return "\n".join([presentation, *(f"{test.name}: {test.result}" for test in tests)])


def set_of(world: ClinicalEnvironment) -> SetCase:
    """An environment alone, without the report that it was made of."""
    return SetCase(
        world.case_id,
        world.source,
        world.title,
        _non_empty([_patient(world.initial_observation, world.menu)]),
        world.initial_observation,
        (world.diagnosis, *world.synonyms),
        ids_of(world.case_id, {}),
        world.licence,
    )


def _non_empty(texts: Iterable[str]) -> tuple[str, ...]:
    # A report of which the environment is the whole is compared once.
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))


def mark_dataset(dataset: str | Path, against: str | Path, case_ids: list[str]) -> bool:
    """Note in a dataset's manifest which of its cases are contaminated against a set; what was
    noted of that set before is replaced.

    False: `dataset` is no dataset's folder. `medaction.training.data` refuses the cases that are
    noted.
    """
    # A run's folder holds its dataset one level below.
    folders = (Path(dataset), Path(dataset) / "dataset")
    folder = next((folder for folder in folders if (folder / "train.parquet").is_file()), None)
    if folder is None or not (folder / "manifest.json").is_file():
        return False
    noted = manifest_of(folder).get("contaminated", {})
    note_in_manifest(folder, contaminated=noted | {str(against): case_ids})
    return True


def about(path: str | Path, cases: list[SetCase]) -> dict[str, Any]:
    """What a report says of a set."""
    return {
        "path": str(path),
        "cases": len(cases),
        "sources": sorted({case.source for case in cases}),
    }
