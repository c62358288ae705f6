"""What the knowledge-graph clinician can diagnose: the curated common diseases and Orphanet's rare
ones, with priors.

OMIM's entries are left out: most are genetic subtypes of one clinical picture, which no bedside
finding tells apart.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from medaction.kg.hpo import load_hpo
from medaction.kg.tables import common_diseases
from medaction.words.names import normalise

Sex = Literal["female", "male"]

RARE_WEIGHT = 0.02
"""Prior weight of a rare disease, on the scale of the common diseases' weights (1 to 100)."""

UNSTATED = 0.5
"""Share of patients with a finding, where the annotation states none."""

ALSO_SHOWN = 0.5
"""What remains of a rare disease's annotation in the common disease of the same name: the curated
findings come first."""

OUTSIDE = 0.02
"""Factor on the prior of a disease outside its usual age or sex: unlikely, yet never impossible."""

TODDLER = 3.0
"""Age in years below which a common disease without an entry in the table of ages is outside its
usual age."""

DEMOGRAPHICS = Path(__file__).parent / "data" / "demographics.csv"


@dataclass(frozen=True, slots=True)
class Disease:
    """A possible diagnosis. `findings`: HPO id -> share of patients in 0..1; `never`: findings that
    speak against it."""

    name: str
    synonyms: tuple[str, ...]
    weight: float
    findings: dict[str, float]
    never: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Patient:
    """Age in years and sex, where the text tells them."""

    age: float | None
    sex: Sex | None

    @property
    def adult(self) -> bool:
        return self.age is None or self.age >= 14


@cache
def phenotype_ids() -> dict[str, str]:
    """Normalised HPO label or exact synonym -> HPO id; labels win over synonyms."""
    phenotypes = load_hpo().phenotypes.values()
    ids = {normalise(term.name): term.id for term in phenotypes}
    for term in phenotypes:
        for synonym in term.synonyms:
            ids.setdefault(normalise(synonym), term.id)
    return ids


@cache
def hypotheses() -> tuple[Disease, ...]:
    """All diseases: the common ones in the order of their table, then the rare ones that are none
    of them."""
    hpo, ids = load_hpo(), phenotype_ids()
    rare = {
        code: name
        for code, name in hpo.diseases.items()
        if code.startswith("ORPHA:") and code in hpo.annotations
    }
    by_name = {normalise(name): code for code, name in rare.items()}
    diseases, merged = [], set()
    for common in common_diseases():
        names = [normalise(name) for name in (common.name, *common.synonyms)]
        same = [by_name[name] for name in names if name in by_name]
        merged.update(same)
        findings = {
            ids[name]: 0.95 for name in names if name in ids
        }  # the disease is itself a finding in HPO
        findings |= {ids[normalise(label)]: share for label, share in common.findings.items()}
        for code in same:
            findings = {
                term: ALSO_SHOWN * share for term, share in _annotated(code).items()
            } | findings
        diseases.append(Disease(common.name, common.synonyms, common.weight, findings))
    rare_names = set(by_name)
    diseases += [
        Disease(name, (), RARE_WEIGHT, _annotated(code), hpo.negated.get(code, frozenset()))
        for code, name in rare.items()
        if code not in merged
        and normalise(name.partition(" due to ")[0]) not in rare_names - {normalise(name)}
    ]
    return tuple(diseases)


def _annotated(code: str) -> dict[str, float]:
    return {
        term: UNSTATED if share is None else share
        for term, share in load_hpo().annotations[code].items()
    }


@cache
def disease_names() -> dict[str, str]:
    """Normalised name or synonym -> the disease's own name."""
    own = {normalise(disease.name): disease.name for disease in hypotheses()}
    others = {
        normalise(synonym): disease.name for disease in hypotheses() for synonym in disease.synonyms
    }
    return others | own


_AGE = re.compile(
    r"(\d+(?:\.\d+)?|newborn|neonate|infant)[\s-]*(year|yr|month|week|day|hour)?s?[\s-]*(?:old|-old|of age)?",
    re.I,
)
_UNITS = {"year": 1.0, "yr": 1.0, "month": 1 / 12, "week": 1 / 52, "day": 1 / 365, "hour": 1 / 8760}
_FEMALE = re.compile(r"\b(female|woman|girl|lady|mrs|she|her)\b", re.I)
_MALE = re.compile(r"\b(male|man|boy|gentleman|mr|he|his)\b", re.I)


def patient_of(text: str) -> Patient:
    """Age and sex as the first words that name them say: '8-month-old boy' is 0.67 years, male."""
    age = next((age for found in _AGE.finditer(text) if (age := _years(found)) is not None), None)
    female, male = _FEMALE.search(text), _MALE.search(text)
    if female and male:
        return Patient(age, "female" if female.start() < male.start() else "male")
    return Patient(age, "female" if female else "male" if male else None)


def _years(found: re.Match[str]) -> float | None:
    number, unit = found[1].lower(), (found[2] or "").lower()
    if number in ("newborn", "neonate"):
        return 0.01
    if number == "infant":
        return 0.5
    return float(number) * _UNITS[unit] if unit and "old" in found[0].lower() else None


@dataclass(frozen=True, slots=True)
class Range:
    """Who usually gets a disease: sex (None: both) and ages in years."""

    sex: Sex | None
    youngest: float
    oldest: float

    def fits(self, patient: Patient) -> bool:
        right_age = patient.age is None or self.youngest <= patient.age <= self.oldest
        return right_age and (self.sex is None or patient.sex in (None, self.sex))


@cache
def demographics() -> dict[str, Range]:
    """Common disease -> who usually gets it. Raises ValueError for an unknown name."""
    table = dict(_read_demographics(DEMOGRAPHICS))
    names = {common.name for common in common_diseases()}
    if unknown := table.keys() - names:
        raise ValueError(
            f"{DEMOGRAPHICS}: not among the common diseases: {', '.join(sorted(unknown))}"
        )
    return dict.fromkeys(names, Range(None, TODDLER, 130)) | table


def _read_demographics(path: Path) -> Iterator[tuple[str, Range]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            sex: Sex | None = (
                "female" if row["sex"] == "female" else "male" if row["sex"] == "male" else None
            )
            yield row["name"], Range(sex, float(row["youngest"] or 0), float(row["oldest"] or 130))
