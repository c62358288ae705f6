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
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np

from medaction.clinicians.graph.findings import Finding, findings_in
from medaction.clinicians.graph.hypotheses import hypotheses
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


@cache
def log_prior() -> np.ndarray:
    """log P(d), shape (D,), in the order of `hypotheses`."""
    weights = np.array([disease.weight for disease in hypotheses()])
    return np.log(weights / weights.sum())


@cache
def _bearers(implied: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Term -> positions of the diseases annotated with it and, if `implied`, with a descendant;
    and their P(term | disease). Made once per process in about a second."""
    cells = defaultdict[str, dict[int, float]](dict)
    for at, disease in enumerate(hypotheses()):
        for term, share in disease.findings.items():
            for general in (term, *ancestors(term)) if implied else (term,):
                cells[general][at] = max(share, cells[general].get(at, 0.0))
    return {
        term: (np.array(list(of_term)), np.array(list(of_term.values()), np.float32))
        for term, of_term in cells.items()
    }


def _shares(term: str, implied: bool) -> np.ndarray:
    """P(term | d) by annotation for every hypothesis, shape (D,)."""
    shares = np.zeros(len(hypotheses()), np.float32)
    if term in _bearers(implied):
        positions, of_term = _bearers(implied)[term]
        shares[positions] = of_term
    return shares


def _information(term: str) -> float:
    """In nats; finite for a term that no disease shows."""
    bearers, _ = _bearers(True).get(term, ((), ()))
    return -math.log((len(bearers) + 1) / (len(hypotheses()) + 1))


@lru_cache(maxsize=4096)
def chances(key: str) -> np.ndarray:
    """P(finding present | d) for every hypothesis, shape (D,), values in (0, 1). A term that no
    disease shows is known through its ancestors only."""
    above = {term: _information(term) for term in ancestors(key)}
    # 'Abnormality of the nervous system' says next to nothing.
    above = {term: nats for term, nats in above.items() if nats >= LEAST_CREDITED}
    share = _shares(key, implied=True)
    patients, bearers = share @ np.exp(log_prior()), np.count_nonzero(share) / len(share)
    leak = LEAK + LEAK_OF_PATIENTS * patients + LEAK_OF_DISEASES * bearers
    for ancestor, information in above.items():
        # Never negative: a term may be commoner among the diseases than its ancestor is directly.
        credit = math.exp(-INFORMATION_LOST * max(0.0, _information(key) - information))
        # By itself alone: what its descendants are credited for is no reason for this one.
        share = np.maximum(share, credit * _shares(ancestor, implied=False))
    # By chance or by the disease, whichever happens: the complement of neither.
    return 1 - (1 - np.minimum(share, ALMOST_ALWAYS)) * (1 - leak)


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
            findings = findings_in(f"{result.test}: {result.text}", is_result=True)
            sources.append(Evidence(turn.number, result.test, findings))
    place_of: dict[str, int] = {}
    for at, source in enumerate(sources):
        new = (finding for finding in source.findings if place_of.setdefault(finding.key, at) == at)
        sources[at] = replace(source, findings=tuple(new))
    return sources


def rank(initial_observation: str, turns: Sequence[Turn]) -> Ranking:
    """The hypotheses by their posterior, updated source by source."""
    evidence = evidence_of(initial_observation, turns)
    total = log_prior()
    posteriors = []
    for source in evidence:
        # Tempered here, not in the likelihood, so that the prose can name whole effects.
        total = total + TEMPER * sum(map(log_likelihood, source.findings))
        posteriors.append(total - np.logaddexp.reduce(total))
    # 'stable': equal posteriors keep the table's order on every machine.
    order = np.argsort(-posteriors[-1], kind="stable")
    return Ranking(evidence, posteriors, order)
