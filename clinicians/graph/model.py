"""Naive Bayes over the hypotheses: log P(d | findings) = log prior + sum of log P(finding | d), in
natural logarithms.

P(term | d) is the annotated share of patients, the largest over the term's descendants (who has
'Microcytic anemia' has 'Anemia'); for a term more specific than the annotation itself, that share
less what information is lost on the way up the is-a tree. Every disease also shows any term by
chance (the leak), the more easily the more common the term is.

Constants were set on AgentClinic's cases (benchmarks/graph_clinician.py); where nothing is said
beside one, its neighbourhood is flat.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from scipy import sparse

from medaction.clinicians.graph.findings import Finding, findings_in
from medaction.clinicians.graph.hypotheses import Disease, hypotheses
from medaction.envs.turns import Turn
from medaction.kg.hpo import ancestors

LEAK, LEAK_OF_PATIENTS, LEAK_OF_DISEASES = 0.003, 0.4, 0.5
"""P(term | no reason) = LEAK + LEAK_OF_PATIENTS * (share of patients, by prior, who show it) +
LEAK_OF_DISEASES * (share of diseases that list it): what many diseases show is in few of them a
reason to doubt, since the lists of findings are short."""

INFORMATION_LOST = 0.5
"""Credit of a term for an annotated ancestor: exp(-INFORMATION_LOST * (IC(term) - IC(ancestor))).
Without any credit 2 of 100 diagnoses are lost."""

LEAST_CREDITED = 1.5
"""An ancestor with less information content than this (in nats) is too general to earn credit."""

SENSITIVITY = 0.9
"""An absent finding was looked for with this sensitivity: our choice. At 1 a denied symptom would
exclude what always shows it."""

ALMOST_ALWAYS = 0.98
"""No finding is so certain that missing it would exclude a disease outright."""

TEMPER = 0.9
"""Exponent on the evidence, because findings of one disease are not independent. Of 104 cases and
both styles 0.5 gives 29 % right, 0.65 33 %, 0.8 36 %, 1.0 36 % with fewer tests ordered."""


@dataclass(frozen=True, eq=False)
class Model:
    """Arrays over D diseases and T terms.

    shares: D x T, P(term | disease) by annotation of the term or a descendant. direct: D x T, by
    annotation of the term itself. leak, information: T. log_prior: D.
    """

    diseases: tuple[Disease, ...]
    column: dict[str, int]
    shares: sparse.csc_matrix
    direct: sparse.csc_matrix
    leak: np.ndarray
    information: np.ndarray
    log_prior: np.ndarray


@cache
def load_model() -> Model:
    """The model, made once per process in about a second."""
    diseases = hypotheses()
    terms = {term for disease in diseases for term in disease.findings}
    above = {term: (term, *ancestors(term)) for term in terms}
    column = {term: at for at, term in enumerate(sorted(terms.union(*above.values())))}
    shares = _matrix(diseases, column, above)
    weights = np.array([disease.weight for disease in diseases])
    patients = np.asarray(shares.T @ (weights / weights.sum())).ravel()
    bearers = shares.getnnz(axis=0)
    return Model(
        diseases=diseases,
        column=column,
        shares=shares,
        # By itself alone: credit for an ancestor is given by `chances`, not twice.
        direct=_matrix(diseases, column, {term: (term,) for term in terms}),
        leak=LEAK + LEAK_OF_PATIENTS * patients + LEAK_OF_DISEASES * bearers / len(diseases),
        # Plus one: a term that no disease lists has a finite information.
        information=-np.log((bearers + 1) / (len(diseases) + 1)),
        log_prior=np.log(weights / weights.sum()),
    )


def _matrix(
    diseases: tuple[Disease, ...], column: dict[str, int], above: dict[str, tuple[str, ...]]
) -> sparse.csc_matrix:
    """D x T: the largest share of a disease's findings that have the term in `above`."""
    cells: dict[tuple[int, int], float] = {}
    for row, disease in enumerate(diseases):
        for term, share in disease.findings.items():
            for cell in ((row, column[general]) for general in above[term]):
                cells[cell] = max(share, cells.get(cell, 0.0))
    positions = np.array(list(cells)).T
    shape = (len(diseases), len(column))
    return sparse.csc_matrix((np.array(list(cells.values()), np.float32), positions), shape=shape)


@lru_cache(maxsize=4096)
def chances(key: str) -> np.ndarray:
    """P(finding present | d) for every hypothesis, shape (D,), values in (0, 1). A term outside the
    arrays is known through its ancestors only."""
    model = load_model()
    above = [model.column[term] for term in ancestors(key) if term in model.column]
    # 'Abnormality of the nervous system' says next to nothing.
    above = [column for column in above if model.information[column] >= LEAST_CREDITED]
    if key in model.column:
        at = model.column[key]
        information, leak, share = model.information[at], model.leak[at], _dense(model.shares, at)
    else:
        # Taken for one nat more telling than its nearest ancestor.
        information, leak = max(model.information[above], default=0.0) + 1, LEAK
        share = np.zeros(len(model.diseases))
    for ancestor in above:
        # Never negative: a term may be commoner among the diseases than its ancestor is directly.
        lost = max(0.0, information - model.information[ancestor])
        credit = math.exp(-INFORMATION_LOST * lost)
        share = np.maximum(share, credit * _dense(model.direct, ancestor))
    # By chance or by the disease, whichever happens: the complement of neither.
    return 1 - (1 - np.minimum(share, ALMOST_ALWAYS)) * (1 - leak)


def _dense(matrix: sparse.csc_matrix, column: int) -> np.ndarray:
    # By hand: SciPy's own indexing takes 0.2 ms, for thousands of columns.
    cells = slice(*matrix.indptr[column : column + 2])
    dense = np.zeros(matrix.shape[0], matrix.dtype)
    dense[matrix.indices[cells]] = matrix.data[cells]
    return dense


def log_likelihood(finding: Finding) -> np.ndarray:
    """log P(finding | d) up to a constant, shape (D,), weighted."""
    share = chances(finding.key)
    return finding.weight * np.log(share if finding.present else 1 - SENSITIVITY * share)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one source tells: the history (turn 0, without a test), or one result of one turn."""

    turn: int
    test: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The hypotheses before a turn. posteriors[n]: log P(d | evidence[: n + 1]), shape (D,). order:
    positions in the model, the leader first."""

    evidence: Sequence[Evidence]
    posteriors: Sequence[np.ndarray]
    order: np.ndarray

    @property
    def chance(self) -> float:
        """The leader's posterior."""
        return float(np.exp(self.posteriors[-1][self.order[0]]))

    @property
    def findings(self) -> list[Finding]:
        return [finding for source in self.evidence for finding in source.findings]


def evidence_of(initial_observation: str, turns: Sequence[Turn]) -> list[Evidence]:
    """What is known, source by source. A finding counts once, where it is first told; UNAVAILABLE
    tells nothing."""
    sources = [Evidence(0, "", findings_in(initial_observation))]
    for turn in turns:
        for result in (result for answer in turn.answers for result in answer.results):
            findings = findings_in(f"{result.test}: {result.text}", "result")
            sources.append(Evidence(turn.number, result.test, findings))
    counted: set[str] = set()
    for at, source in enumerate(sources):
        new = tuple(finding for finding in source.findings if finding.key not in counted)
        counted.update(finding.key for finding in new)
        sources[at] = replace(source, findings=new)
    return sources


def rank(initial_observation: str, turns: Sequence[Turn], temper: float) -> Ranking:
    """The hypotheses by their posterior, updated source by source."""
    evidence = evidence_of(initial_observation, turns)
    total = load_model().log_prior
    posteriors = []
    for source in evidence:
        for finding in source.findings:
            # Tempered here, not in the likelihood, so that the prose can name whole effects.
            total = total + temper * log_likelihood(finding)
        posteriors.append(total - np.logaddexp.reduce(total))
    # 'stable': equal posteriors keep the table's order on every machine.
    order = np.argsort(-posteriors[-1], kind="stable")
    return Ranking(evidence, posteriors, order)
