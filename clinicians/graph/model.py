"""Naive Bayes over the hypotheses: log P(d | findings) = log prior + sum of log P(finding | d), in
natural logarithms.

P(term | d) is the annotated share of patients, the largest over the term's descendants (who has
'Microcytic anemia' has 'Anemia'); for a term more specific than the annotation itself, that share
less what information is lost on the way up the is-a tree. Every disease also shows any term by
chance (the leak), the more easily the more common the term is.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from scipy import sparse

from medaction.clinicians.graph.cache import built
from medaction.clinicians.graph.findings import DISEASE, Finding, ancestors, key_of
from medaction.clinicians.graph.hypotheses import (
    OUTSIDE,
    Disease,
    Patient,
    demographics,
    disease_names,
    hypotheses,
)
from medaction.kg.tests_table import tests_table
from medaction.words.names import normalise

LEAK, LEAK_OF_PATIENTS, LEAK_OF_DISEASES = 0.003, 0.4, 0.5
"""P(term | no reason) = LEAK + LEAK_OF_PATIENTS * (share of patients, by prior, who show it) +
LEAK_OF_DISEASES * (share of diseases that list it): what many diseases show is in few of them a
reason to doubt, since the lists of findings are short."""

INFORMATION_LOST = 0.5
"""Credit of a term for an annotated ancestor: exp(-INFORMATION_LOST * (IC(term) - IC(ancestor))).
"""

LEAST_INFORMATION = 1.5
"""An ancestor with less information content than this (in nats) is too general to earn credit."""

SENSITIVITY = 0.9
"""An absent finding was looked for with this sensitivity."""

ALMOST_ALWAYS = 0.98
"""No finding is so certain that missing it would exclude a disease outright."""

SILENCE = 0.12
"""A bedside finding that is there is told with this chance at least; what is untold speaks a little
against its diseases."""

EXPLAINS, UNEXPLAINED = 0.7, -2.5
"""A disease by which the present findings are not even this much likelier (nats) than by chance is
hardly the cause: log penalty."""

NAMED, NOT_NAMED = math.log(0.6 / 0.004), math.log(0.15)
"""Log likelihood ratio of a result that names the disease, and of one that rules it out by name."""

TEMPER = 0.65
"""Exponent on the evidence, because findings of one disease are not independent."""


@dataclass(frozen=True, eq=False)
class Model:
    """Arrays over D diseases, T terms, and F findings that tests can show.

    shares: D x T, P(term | disease) by annotation of the term or a descendant. direct: D x T, by
    annotation of the term itself. silent: D x T, log chance that an annotated bedside finding goes
    untold. silence: D, its row sums. leak, information: T. log_prior: D. features: finding -> row
    of feature_shares (F x D), whose least value in a row is what the finding has by chance alone.
    """

    diseases: tuple[Disease, ...]
    position: dict[str, int]
    column: dict[str, int]
    shares: sparse.csc_matrix
    direct: sparse.csc_matrix
    silent: sparse.csc_matrix
    silence: np.ndarray
    leak: np.ndarray
    information: np.ndarray
    log_prior: np.ndarray
    features: dict[str, int]
    feature_shares: np.ndarray
    feature_least: np.ndarray


@cache
def load_model() -> Model:
    """The model, once per process."""
    folder = built("model", _build)
    terms, features = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("terms", "features")
    )
    vectors = np.load(folder / "vectors.npz", allow_pickle=False)
    feature_shares = np.load(folder / "feature_shares.npy", allow_pickle=False)
    arrays = {
        name: sparse.csc_matrix(sparse.load_npz(folder / f"{name}.npz"))
        for name in ("shares", "direct", "silent")
    }
    return Model(
        diseases=hypotheses(),
        position={disease.name: at for at, disease in enumerate(hypotheses())},
        column={term: at for at, term in enumerate(terms)},
        **arrays,
        silence=np.asarray(arrays["silent"].sum(axis=1)).ravel(),
        **{name: vectors[name] for name in ("leak", "information", "log_prior")},
        features={key: at for at, key in enumerate(features)},
        feature_shares=feature_shares,
        feature_least=feature_shares.min(axis=1),
    )


def _build(folder: Path) -> None:
    """Write the arrays of a Model. About five seconds."""
    diseases = hypotheses()
    shown = list(dict.fromkeys(key_of(name) for test in tests_table() for name in test.finds))
    own = dict.fromkeys(term for disease in diseases for term in disease.findings)
    terms = sorted(
        {
            above
            for term in (*own, *shown)
            if not term.startswith(DISEASE)
            for above in (term, *ancestors(term))
        }
    )
    column = {term: at for at, term in enumerate(terms)}
    shares, direct = (
        _matrix(diseases, column, propagate=True),
        _matrix(diseases, column, propagate=False),
    )
    log_prior = np.log([disease.weight for disease in diseases])
    log_prior -= np.logaddexp.reduce(log_prior)
    marginal = np.asarray(shares.T @ np.exp(log_prior)).ravel()
    bearers = np.asarray((shares > 0).sum(axis=0)).ravel()
    vectors = {
        "leak": LEAK + LEAK_OF_PATIENTS * marginal + LEAK_OF_DISEASES * bearers / len(diseases),
        "information": -np.log((bearers + 1) / (len(diseases) + 1)),
        "log_prior": log_prior,
    }
    features = [key for key in shown if not key.startswith(DISEASE)]
    np.savez(folder / "vectors.npz", **vectors)  # type: ignore[arg-type]  # NumPy types its options and the arrays alike
    sparse.save_npz(folder / "shares.npz", shares)
    sparse.save_npz(folder / "direct.npz", direct)
    sparse.save_npz(folder / "silent.npz", _silent(diseases, column, set(features)))
    rows = [
        _chances(shares, direct, column, vectors["leak"], vectors["information"], key)
        for key in features
    ]
    np.save(folder / "feature_shares.npy", np.array(rows, dtype=np.float32))
    for name, values in (("terms", terms), ("features", features)):
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")


def _matrix(
    diseases: Sequence[Disease], column: dict[str, int], propagate: bool
) -> sparse.csc_matrix:
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for row, disease in enumerate(diseases):
        largest: dict[str, float] = {}
        for term, share in disease.findings.items():
            for above in (term, *(ancestors(term) if propagate else ())):
                largest[above] = max(share, largest.get(above, 0.0))
        rows += [row] * len(largest)
        columns += [column[term] for term in largest]
        values += largest.values()
    return sparse.csc_matrix(
        (np.array(values, dtype=np.float32), (rows, columns)), shape=(len(diseases), len(column))
    )


def _silent(
    diseases: Sequence[Disease], column: dict[str, int], shown_by_tests: set[str]
) -> sparse.csc_matrix:
    """What no test shows is seen or told at the bedside."""
    found = [
        (row, column[term], math.log(1 - SILENCE * share))
        for row, disease in enumerate(diseases)
        for term, share in disease.findings.items()
        if term not in shown_by_tests and not ancestors(term) & shown_by_tests
    ]
    rows, columns, values = zip(*found, strict=True)
    return sparse.csc_matrix(
        (np.array(values, dtype=np.float32), (rows, columns)), shape=(len(diseases), len(column))
    )


def _chances(
    shares: sparse.csc_matrix,
    direct: sparse.csc_matrix,
    column: dict[str, int],
    leak: np.ndarray,
    information: np.ndarray,
    key: str,
) -> np.ndarray:
    """P(key is found | d) for every disease; a term outside the arrays is known through its
    ancestors only."""
    own = column.get(key)
    above = [
        column[term]
        for term in ancestors(key)
        if term in column and information[column[term]] >= LEAST_INFORMATION
    ]
    content = (
        information[own]
        if own is not None
        else max((information[at] for at in above), default=0.0) + 1
    )
    by_annotation = np.zeros(shares.shape[0], dtype=np.float32)
    columns = [(shares, own, 1.0)] if own is not None else []
    columns += [
        (direct, at, math.exp(-INFORMATION_LOST * max(0.0, content - information[at])))
        for at in above
    ]
    for matrix, at, credit in columns:
        start, end = matrix.indptr[at], matrix.indptr[at + 1]
        rows = matrix.indices[start:end]
        by_annotation[rows] = np.maximum(by_annotation[rows], credit * matrix.data[start:end])
    chance = leak[own] if own is not None else LEAK
    return 1 - (1 - np.minimum(by_annotation, ALMOST_ALWAYS)) * (1 - chance)


@lru_cache(maxsize=2048)
def chances(key: str) -> np.ndarray:
    """P(finding present | d) for every hypothesis, shape (D,), values in (0, 1)."""
    model = load_model()
    if key in model.features:
        return np.asarray(model.feature_shares[model.features[key]])
    return _chances(model.shares, model.direct, model.column, model.leak, model.information, key)


def log_likelihood(finding: Finding) -> np.ndarray:
    """log P(finding | d) up to a constant, shape (D,), weighted."""
    if finding.key.startswith(DISEASE):
        effect = np.zeros(len(load_model().diseases))
        effect[load_model().position[finding.label]] = NAMED if finding.present else NOT_NAMED
        return finding.weight * effect
    share = chances(finding.key)
    return finding.weight * np.log(share if finding.present else 1 - SENSITIVITY * share)


def explained(finding: Finding) -> np.ndarray:
    """How much likelier (nats) a present finding of the present illness is by each disease than by
    chance, shape (D,)."""
    if not finding.present or finding.weight < 1:
        return np.zeros(len(load_model().diseases))
    if finding.key.startswith(DISEASE):
        return log_likelihood(finding)
    share = chances(finding.key)
    return np.log(share / share.min())


def prior(patient: Patient) -> np.ndarray:
    """log P(d | age and sex), up to a constant."""
    model = load_model()
    log_prior = model.log_prior.copy()
    for name, usual in demographics().items():
        if not usual.fits(patient):
            log_prior[model.position[name]] += math.log(OUTSIDE)
    return log_prior


def silence(told: Iterable[str]) -> np.ndarray:
    """What speaks against diseases whose bedside findings the history and examination do not tell,
    given the keys that they do."""
    model = load_model()
    known = {
        model.column[term]
        for key in told
        for term in (key, *ancestors(key))
        if term in model.column
    }
    return model.silence - np.asarray(model.silent[:, sorted(known)].sum(axis=1)).ravel()


def confirmed_by(diseases: Sequence[str]) -> list[int]:
    """Positions of the hypotheses among these names of diseases."""
    names = (disease_names().get(normalise(name)) for name in diseases)
    return sorted({load_model().position[name] for name in names if name})
