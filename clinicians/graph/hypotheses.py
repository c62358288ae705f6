"""What the graph clinician can diagnose: the curated common diseases and Orphanet's rare ones.

OMIM's entries are left out: most are genetic subtypes of one clinical picture, which no bedside
finding tells apart.
"""

from dataclasses import replace
from functools import cache

from medaction.kg.hpo import load_hpo, phenotype_ids
from medaction.kg.tables import Disease, common_diseases
from medaction.words.names import normalise

RARE_WEIGHT = 0.02
"""Prior weight of a rare disease, on the scale of the common diseases' weights (1 to 100): our
choice. The higher it is, the more often a rare disease leads on few findings."""

UNSTATED = 0.5
"""Share of patients with a finding, where the annotation states none: our choice, HPO's middle
term (frequent, 30 to 79 %) rounded."""

NAMED = 0.6
"""Share of patients in whom a test that is for their disease names it: our choice."""

DISEASE = "disease:"
"""Prefix of the key of a finding that names a disease: 'disease:Hodgkin lymphoma'."""

ALSO_SHOWN = 0.5
"""What remains of a rare disease's annotation in the common disease of the same name: the curated
findings come first."""


@cache
def hypotheses() -> tuple[Disease, ...]:
    """The common diseases in the order of their table, then the rare ones that are none of them;
    keys of their findings are HPO ids, and DISEASE + their own name. Raises BadTable."""
    hpo, ids = load_hpo(), phenotype_ids()
    rare = {
        normalise(name): Disease(name, (), RARE_WEIGHT, _annotated(code) | {DISEASE + name: NAMED})
        for code, name in hpo.diseases.items()
        # Without annotated findings a disease cannot be told from any other.
        if code.startswith("ORPHA:") and code in hpo.annotations
    }
    diseases, common_names = [], set[str]()
    # The curated ones first: they carry the weights of what is common.
    for common in common_diseases():
        names = [normalise(name) for name in (common.name, *common.synonyms)]
        common_names.update(names)
        findings: dict[str, float] = {}
        for annotated in (rare[name].findings for name in names if name in rare):
            findings |= {term: ALSO_SHOWN * share for term, share in annotated.items()}
        # where the disease is itself a finding in HPO, whoever has the one has the other
        findings |= {ids[name]: 0.95 for name in names if name in ids}
        # Last, so that the curated share wins.
        findings |= {ids[normalise(label)]: share for label, share in common.findings.items()}
        findings[DISEASE + common.name] = NAMED
        diseases.append(replace(common, findings=findings))
    diseases += [disease for name, disease in rare.items() if name not in common_names]
    return tuple(diseases)


def _annotated(code: str) -> dict[str, float]:
    annotations = load_hpo().annotations[code]
    return {term: UNSTATED if share is None else share for term, share in annotations.items()}


@cache
def disease_names() -> dict[str, str]:
    """Normalised name or synonym -> the disease's own name."""
    # Names win over synonyms: one disease's synonym may be another one's name.
    synonyms = {normalise(name): item.name for item in hypotheses() for name in item.synonyms}
    return synonyms | {normalise(disease.name): disease.name for disease in hypotheses()}
