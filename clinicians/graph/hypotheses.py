"""What the graph clinician can diagnose: the curated common diseases and Orphanet's rare ones.

OMIM's entries are left out: most are genetic subtypes of one clinical picture, which no bedside
finding tells apart.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from medaction.clinicians.graph.cues import DATA
from medaction.kg.hpo import load_hpo, phenotype_ids
from medaction.kg.tables import BadTable, common_diseases, rows
from medaction.words.names import normalise

Sex = Literal["female", "male"]

RARE_WEIGHT = 0.02
"""Prior weight of a rare disease, on the scale of the common diseases' weights (1 to 100)."""

UNSTATED = 0.5
"""Share of patients with a finding, where the annotation states none."""

ALSO_SHOWN = 0.5
"""What remains of a rare disease's annotation in the common disease of the same name: the curated
findings come first."""

YOUNGEST = 3
"""Years from which a common disease is expected, where the table of ages is silent."""


@dataclass(frozen=True, slots=True)
class Patient:
    """Age in years and sex, where the text tells them."""

    age: float | None
    sex: Sex | None


@dataclass(frozen=True, slots=True)
class Disease:
    """A possible diagnosis. `findings`: HPO id -> share of patients in 0..1. sex (None: both),
    youngest, oldest (years): who usually gets it."""

    name: str
    synonyms: tuple[str, ...]
    weight: float
    findings: dict[str, float]
    sex: Sex | None = None
    youngest: float = 0
    oldest: float = 130

    def fits(self, patient: Patient) -> bool:
        right_age = patient.age is None or self.youngest <= patient.age <= self.oldest
        return right_age and (self.sex is None or patient.sex in (None, self.sex))


@cache
def hypotheses() -> tuple[Disease, ...]:
    """The common diseases in the order of their table, then the rare ones that are none of them.
    Raises BadTable."""
    hpo, ids, usual = load_hpo(), phenotype_ids(), demographics()
    rare = {
        code: name
        for code, name in hpo.diseases.items()
        if code.startswith("ORPHA:") and code in hpo.annotations
    }
    code_of = {normalise(name): code for code, name in rare.items()}
    diseases, common_codes = [], set()
    for common in common_diseases():
        names = [normalise(name) for name in (common.name, *common.synonyms)]
        codes = [code_of[name] for name in names if name in code_of]
        common_codes.update(codes)
        findings: dict[str, float] = {}
        for code in codes:
            findings |= {term: ALSO_SHOWN * share for term, share in _annotated(code).items()}
        # where the disease is itself a finding in HPO, whoever has the one has the other
        findings |= {ids[name]: 0.95 for name in names if name in ids}
        findings |= {ids[normalise(label)]: share for label, share in common.findings.items()}
        who = usual.get(common.name, (None, YOUNGEST, 130))
        diseases.append(Disease(common.name, common.synonyms, common.weight, findings, *who))
    for code, name in rare.items():
        general = normalise(name.partition(" due to ")[0])
        is_subtype = general in code_of and general != normalise(name)
        if code not in common_codes and not is_subtype:
            diseases.append(Disease(name, (), RARE_WEIGHT, _annotated(code)))
    return tuple(diseases)


def _annotated(code: str) -> dict[str, float]:
    annotations = load_hpo().annotations[code]
    return {term: UNSTATED if share is None else share for term, share in annotations.items()}


@cache
def disease_names() -> dict[str, str]:
    """Normalised name or synonym -> the disease's own name."""
    synonyms = {normalise(name): item.name for item in hypotheses() for name in item.synonyms}
    return synonyms | {normalise(disease.name): disease.name for disease in hypotheses()}


@cache
def demographics() -> dict[str, tuple[Sex | None, float, float]]:
    """Common disease -> sex, youngest and oldest of those who usually get it. Raises BadTable for
    an unknown disease or sex.

    Without it 1.5 to 2.4 of 100 diagnoses of AgentClinic's cases are lost (104 cases, 4 seeds).
    """
    path, usual = DATA / "demographics.csv", {}
    names = {disease.name for disease in common_diseases()}
    sexes: dict[str, Sex | None] = {"female": "female", "male": "male", "": None}
    for line, row in rows(path, ["name", "sex", "youngest", "oldest"]):
        if row["name"] not in names or row["sex"] not in sexes:
            message = f"{row['name']!r} is no common disease, or a sex is misspelt"
            raise BadTable(path, line, message)
        ages = (float(row["youngest"] or 0), float(row["oldest"] or 130))
        usual[row["name"]] = (sexes[row["sex"]], *ages)
    return usual


_AGE = re.compile(
    r"(\d+(?:\.\d+)?)[\s-]*(year|yr|month|week|day|hour)s?[\s-]*(?:old|of age)"
    r"|newborn|neonate|infant",
    re.IGNORECASE,
)
_YEARS = {"year": 1.0, "yr": 1.0, "month": 1 / 12, "week": 1 / 52, "day": 1 / 365, "hour": 1 / 8760}
_SEX = re.compile(
    r"\b(?:(female|woman|girl|lady|mrs|she|her)|male|man|boy|gentleman|mr|he|his)\b", re.IGNORECASE
)


def patient_of(text: str) -> Patient:
    """Age and sex by the first words that tell them: '8-month-old boy' is 0.67 years, male."""
    age, sex = _AGE.search(text), _SEX.search(text)
    years = None
    if age:
        newborn = 0.5 if age[0].lower() == "infant" else 0.01
        years = float(age[1]) * _YEARS[age[2].lower()] if age[1] else newborn
    return Patient(years, None if sex is None else "female" if sex[1] else "male")
