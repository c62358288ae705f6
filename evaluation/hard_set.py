"""A hard set such as MedAction-300-Hard (paper, section 5.1): cases of rare diseases with long
work-ups, drawn from a pool and stratified.

Rare: the source says so, or the true diagnosis is a disease that the open disease graph has from
Orphanet or OMIM (or a form of one), or one that Orphanet knows by the same name. Long: many
documented tests and, where the pool's stores have rollouts, many turns and many tests a turn in
them. Drawn by strata of body system and disease type, so that a set is made up like the rare cases
of its pool.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import rankdata

from medaction.envs.composition import BODY_SYSTEMS, DISEASE_TYPES
from medaction.envs.records import BadCase, ClinicalEnvironment
from medaction.evaluation.case_sets import SetCase, about, read_set, set_of
from medaction.evaluation.composition import classes_of_case, composition, plot_composition
from medaction.evaluation.contamination import find_pairs, remembering
from medaction.evaluation.diagnoses import names_of_truth
from medaction.kg.encoder import load_encoder
from medaction.kg.hpo import load_hpo
from medaction.kg.linking import Linker
from medaction.trajectories.files import STORE
from medaction.trajectories.scoring import disease_linker
from medaction.trajectories.store import Store
from medaction.words.errors import WrongUse
from medaction.words.names import normalise
from medaction.words.versions import checksum

HARD_SET_FORMAT = "medaction-hard-set/1"
RARE_SOURCES = ("ORPHA:", "OMIM:")
"""Prefixes of the ids of rare diseases in the open disease graph. Its hand-written diseases have
other ids, rare ones among them too: of those Orphanet's names tell (OMIM's would not: it has type 2
diabetes)."""

# Of trajectories of the pool: how long models took, whoever they were (gold is no model's play). A
# rollout that failed has no row.
WORK_UPS = """
select environment_id, avg(turns) as turns, avg(tests / nullif(ordering, 0)) as tests_a_turn,
    count(*) as rollouts
from (
    select environment_id, trajectory_id, count(*) as turns, sum(len(tests)) as tests, count(*)
        filter (where len(tests) > 0) as ordering
    from turns join current_trajectories using (trajectory_id) where parent_id is null
        and style <> 'gold' group by all
)
group by environment_id
"""


@dataclass(frozen=True, slots=True)
class HardCase:
    """An environment of the pool with its figures; None: not known.

    rare_by: 'source', the id of a node of the graph, or '' (nothing says that it is rare). turns,
    tests_a_turn: means over `rollouts`. hardness: mean of its ranks (0 to 1) among the candidates
    in tests, turns and tests a turn, as far as they are known.
    """

    environment: ClinicalEnvironment
    pool: str
    rare_by: str
    tests: int
    turns: float | None
    tests_a_turn: float | None
    rollouts: int
    body_system: str
    disease_type: str
    hardness: float = 0.0

    @property
    def stratum(self) -> tuple[str, str]:
        return self.body_system or "not told", self.disease_type or "not told"


@dataclass(frozen=True, slots=True)
class HardSet:
    """A set drawn from a pool, with all that its manifest tells of the draw.

    candidates: the pool. fit: those that are rare and long. cases: the set. compared: the sets that
    `fit` was compared with, with how many pairs were found; pairs: these
    (`medaction.evaluation.contamination`). excluded: case id -> the copy that it was left out for.
    """

    candidates: list[HardCase]
    fit: list[HardCase]
    cases: list[HardCase]
    criteria: dict[str, Any]
    compared: list[dict[str, Any]]
    pairs: list[pl.DataFrame]
    excluded: dict[str, str]


def draw_hard_set(
    pool: Sequence[Path], against: Sequence[str], cases: int, min_tests: int, seed: int
) -> HardSet:
    """Draw so many cases from `pool` (folders of runs, or their stores). None of them is in a set
    of `against`, in whatever words, and none twice.

    Raises BadCase('too_few_cases').
    """
    # The pool is compared with several sets: each of its texts is encoded once.
    linker, encode = disease_linker(), remembering(load_encoder().encode)
    candidates = candidates_of([path / STORE if path.is_dir() else path for path in pool], linker)
    fit = rare_and_long(candidates, min_tests)
    # Only what may be drawn is compared: the pool may be far larger.
    fit_cases = [set_of(candidate.environment) for candidate in fit]
    sets: list[tuple[dict[str, Any], list[SetCase] | None]] = []
    for path in against:
        benchmark = read_set(path)
        sets.append((about(path, benchmark), benchmark))
    # At last the pool with itself: one patient may be in it under two ids.
    sets.append(({"path": "the pool itself", "cases": len(fit)}, None))
    excluded: dict[str, str] = {}
    compared: list[dict[str, Any]] = []
    pairs: list[pl.DataFrame] = []
    for source, other_cases in sets if fit else ():
        pairs_of_set = find_pairs(fit_cases, other_cases, encode, linker)
        compared.append(source | {"pairs_found": len(pairs_of_set)})
        pairs.append(pairs_of_set.with_columns(against=pl.lit(source["path"])))
        for row in pairs_of_set.iter_rows(named=True):
            copy, original = row["case_id"], row["other_id"]
            if other_cases is None:  # of two copies within the pool the one read first stays
                copy, original = original, copy
            signals = " ".join(row["found_by"])
            # The first reason stays: a copy may be in several sets.
            excluded.setdefault(copy, f"{original} of {source['path']}: {signals}")
    others = [case for case in candidates if case.environment.case_id not in excluded]
    criteria = {
        "rare": "source, or Orphanet or OMIM in the open disease graph",
        "min_tests": min_tests,
        "cases": cases,
        "seed": seed,
        "strata": ["body_system", "disease_type"],
        "pool": [str(path) for path in pool],
    }
    hard_cases = draw_cases(others, cases, min_tests, seed)
    return HardSet(candidates, fit, hard_cases, criteria, compared, pairs, excluded)


def candidates_of(stores: Sequence[Path], linker: Linker) -> list[HardCase]:
    """Every environment of the stores, in the order of stores and cases. A case that an earlier
    store has is not taken again."""
    candidates: dict[str, HardCase] = {}
    for path in stores:
        with Store(path) as store:
            worlds = store.environments()
            work_ups = {row[0]: row[1:] for row in store.rows(WORK_UPS)}
        for world in worlds:
            turns, tests_a_turn, rollouts = work_ups.get(world.environment_id, (None, None, 0))
            work_up = (len(world.menu), turns, tests_a_turn, rollouts)
            rare = rare_by(world, linker)
            candidate = HardCase(world, str(path), rare, *work_up, *classes_of_case(world))
            candidates.setdefault(world.case_id, candidate)
    return list(candidates.values())


def rare_by(world: ClinicalEnvironment, linker: Linker) -> str:
    """What says that the disease is rare; ''. A source that says it is not is believed."""
    if world.rare is not None:
        return "source" if world.rare else ""
    names = [part for name in (world.diagnosis, *world.synonyms) for part in names_of_truth(name)]
    ids, evidence = [], names.copy()
    for link in linker.link([name for name in names if linker.knows(name)]):
        if link.node is not None:
            ids.append(str(linker.graph.nodes.item(link.node, "node_id")))
            evidence += [link.name] if link.method != "broader" else []
    # Last: the id of the linked node is surer than a likeness of names.
    ids += [_orphanet()[name] for name in map(normalise, evidence) if name in _orphanet()]
    return next((node_id for node_id in ids if node_id.startswith(RARE_SOURCES)), "")


@cache
def _orphanet() -> dict[str, str]:
    """Normalised name -> id of Orphanet's diseases, as HPO's annotations have them."""
    return {
        normalise(name): id_
        for id_, name in load_hpo().diseases.items()
        if id_.startswith("ORPHA:")
    }


def rare_and_long(candidates: Sequence[HardCase], min_tests: int) -> list[HardCase]:
    return [case for case in candidates if case.rare_by and case.tests >= min_tests]


def draw_cases(
    candidates: Sequence[HardCase], cases: int, min_tests: int, seed: int
) -> list[HardCase]:
    """The hardest rare candidates of each stratum, as many as its share among the rare candidates
    with `min_tests` tests, in the order of their case ids.

    Raises BadCase('too_few_cases') with the numbers when there are not so many.
    """
    fit = rare_and_long(candidates, min_tests)
    if len(fit) < cases:
        rare = sum(bool(candidate.rare_by) for candidate in candidates)
        raise BadCase(
            "too_few_cases",
            f"{cases} cases are wanted, and of the pool's {len(candidates)} only {rare} are of a"
            f" rare disease, {len(fit)} of these with"
            f" {min_tests} documented tests or more: ask for fewer, lower --min-tests, or give a"
            " larger pool",
        )
    order = random.Random(seed)
    # Drawn in the order of ids, so that the lot does not depend on the order of the pool.
    fit = sorted(fit, key=lambda candidate: candidate.environment.case_id)
    ranks = [
        _ranks([getattr(candidate, name) for candidate in fit])
        for name in ("tests", "turns", "tests_a_turn")
    ]
    # Ranks, not values: tests and turns have no common unit. Unknown ones are left out.
    means = np.nanmean(np.stack(ranks), axis=0).tolist()
    ranked = [replace(one, hardness=round(mean, 4)) for one, mean in zip(fit, means, strict=True)]
    lots = [(-candidate.hardness, order.random(), candidate) for candidate in ranked]
    strata: dict[tuple[str, str], list[HardCase]] = defaultdict(list)
    # The hardest first; the lot only decides between equals.
    for _, _, candidate in sorted(lots, key=lambda lot: lot[:2]):
        strata[candidate.stratum].append(candidate)
    seats = _seats({stratum: len(of) for stratum, of in strata.items()}, cases, order)
    selection = [candidate for stratum, of in strata.items() for candidate in of[: seats[stratum]]]
    return sorted(selection, key=lambda candidate: candidate.environment.case_id)


def _ranks(values: Sequence[float | None]) -> np.ndarray:
    """The share of the others that each value is above, ties half; NaN for what is not known."""
    figures = np.array(values, dtype=float)  # None is NaN
    others = max(int(np.isfinite(figures).sum()) - 1, 1)
    return (rankdata(figures, nan_policy="omit") - 1) / others


def _seats(
    sizes: Mapping[tuple[str, str], int], seats: int, order: random.Random
) -> dict[tuple[str, str], int]:
    """`seats` shared out in proportion to the strata's sizes, the largest remainders first (equal
    ones by lot)."""
    total = sum(sizes.values())
    exact = {stratum: seats * size / total for stratum, size in sizes.items()}
    # Hamilton's method: whole seats first, then the largest remainders.
    places = {stratum: int(share) for stratum, share in exact.items()}
    lot = {stratum: order.random() for stratum in sorted(sizes)}
    by_remainder = sorted(
        sizes, key=lambda stratum: (places[stratum] - exact[stratum], lot[stratum])
    )
    for stratum in by_remainder[: seats - sum(places.values())]:
        places[stratum] += 1
    return places


# --- the files --------------------------------------------------------------------------


def write_hard_set(hard_set: HardSet, folder: Path, versions: Mapping[str, str]) -> list[Path]:
    """Write `folder`/cases/ID.json (docs/case-format.md), contamination.csv, manifest.json and
    plots; returns the paths of the last two. The cases of a hard set that was there are replaced.

    Raises WrongUse where `folder`/cases has other cases.
    """
    cases = folder / "cases"
    cases.mkdir(parents=True, exist_ok=True)
    # The cases of the hard set that was written here before, if there was one.
    path = folder / "manifest.json"
    about = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows = about["rows"] if about.get("format") == HARD_SET_FORMAT else []
    former = {folder / row["file"] for row in rows}
    # A folder of somebody's own cases is never emptied.
    if foreign := sorted(set(cases.glob("*.json")) - former):
        raise WrongUse(f"{foreign[0]} is of no hard set: draw the set into another folder")
    for file in former:
        file.unlink(missing_ok=True)  # the user may have deleted some
    rows = []
    for candidate in hard_set.cases:
        file = cases / f"{candidate.environment.case_id}.json"
        file.write_text(
            json.dumps(_as_case(candidate), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        world, facts = candidate.environment, asdict(candidate)
        del facts["environment"]
        names = ("case_id", "environment_id", "source", "licence", "diagnosis")
        row = {name: getattr(world, name) for name in names} | facts
        rows.append(row | {"file": f"cases/{file.name}", "sha256": checksum(file)})
    manifest = {
        "format": HARD_SET_FORMAT,
        "purpose": "evaluation only: never train on these cases",
        "cases": len(rows),
        "criteria": hard_set.criteria | {"pool_figures": summary_of(hard_set.candidates)},
        "versions": dict(versions),
        "licences": dict(Counter(str(row["licence"]) for row in rows).most_common()),
        "figures": summary_of(hard_set.cases),
        "contamination": {"checked_against": hard_set.compared, "excluded": hard_set.excluded},
        "rows": rows,
    }
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pl.concat(hard_set.pairs).with_columns(pl.col("found_by").list.join(" ")).write_csv(
        folder / "contamination.csv"
    )
    figures = composition(candidate.environment for candidate in hard_set.cases)
    return [path, *plot_composition(figures, folder / "plots")]


def summary_of(candidates: Sequence[HardCase]) -> dict[str, Any]:
    """Means over cases of what is known, with the number of cases that it is known of; and the
    strata's sizes."""

    def mean(name: str) -> dict[str, float | int | None]:
        figures = (getattr(candidate, name) for candidate in candidates)
        values = [value for value in figures if value is not None]
        mean_of_known = round(sum(values) / len(values), 3) if values else None
        return {"mean": mean_of_known, "cases": len(values)}

    return {
        **{name: mean(name) for name in ("tests", "turns", "tests_a_turn")},
        "rare": sum(bool(member.rare_by) for member in candidates),
        "body_systems": dict(Counter(member.stratum[0] for member in candidates).most_common()),
        "disease_types": dict(Counter(member.stratum[1] for member in candidates).most_common()),
    }


def _as_case(candidate: HardCase) -> dict[str, Any]:
    world, system, kind = candidate.environment, candidate.body_system, candidate.disease_type
    tests = []
    for test in world.menu:
        row = {"name": test.name, "category": test.category, "result": test.result}
        also = {"aliases": list(test.aliases), "minor": test.minor}
        tests.append(row | {name: value for name, value in also.items() if value})
    case = {
        "case_id": world.case_id,
        "title": world.title,
        "licence": world.licence or None,
        "initial_observation": world.initial_observation,
        "diagnosis": world.diagnosis,
        "diagnosis_synonyms": list(world.synonyms),
        # A source's own word may be none that the case format takes.
        "body_system": system if system in BODY_SYSTEMS else None,
        "disease_type": kind if kind in DISEASE_TYPES else None,
        "rare": True,
        "evaluation_only": True,  # read again as a case, it is never trained on
        "tests": tests,
    }
    return {name: value for name, value in case.items() if value is not None}
