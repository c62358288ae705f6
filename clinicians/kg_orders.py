"""Which tests to order: by what their results are expected to tell about the leading hypotheses, against what they cost."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from clinicians.findings import DATA, DISEASE, ancestors, key_of, label_of, symptoms
from clinicians.kg_model import chances, confirmed_by, load_model
from kg.names import normalise
from kg.tables import rows
from kg.tests_table import TestEntry, tests_table

Style = Literal["kg-screening", "kg-targeted"]

COST = {"laboratory": 1.0, "physiologic": 1.2, "imaging": 1.5, "procedure": 3.0, "pathology": 4.0}
"""Relative burden of a test's category: a venepuncture is 1."""

ACCESS = {"routine": 0.6, "": 1.0, "special": 2.5}
"""What any hospital does on the day costs less, what one orders on a particular suspicion only costs more."""

COSTLY = re.compile(r"\b(?:MRI|PET|CT|angiography|catheterization|exome|karyotype|microarray|genetic)\b", re.IGNORECASE)

CONFIRMS = {"laboratory": 0.5, "physiologic": 0.4, "imaging": 0.7, "procedure": 0.7, "pathology": 0.8}
ALSO_CONFIRMS = 0.02
"""P(a result names the disease that its test confirms): by category for patients with it; without it per disease that the test
is for. Routine laboratory tests name none."""

CONSIDERED = {"kg-screening": 20, "kg-targeted": 6}
"""Hypotheses that a choice is about."""

UNLISTED = 0.35
"""A finding that is not listed for a disease is not thereby absent in it: how far its share is drawn to the hypotheses' mean."""

SIGNS_PER_TEST = 3
"""A test's result is modelled by its most telling findings: eight outcomes."""

LEAST_TOLD = 0.02
"""Expected information (nats) below which a test is not worth ordering."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A test worth ordering: what it is expected to tell (nats), its score against cost, and its telling findings, best first."""

    entry: TestEntry
    told: float
    score: float
    signs: tuple[str, ...]

    @property
    def sign(self) -> str:
        return self.signs[0]


@cache
def _by_name() -> dict[str, TestEntry]:
    return {normalise(name): entry for entry in tests_table() for name in entry.names}


def entry_of(name: str) -> TestEntry | None:
    """The table's test of this name or synonym."""
    return _by_name().get(normalise(name))


@cache
def access() -> dict[str, str]:
    """Test -> 'routine' or 'special', for those that are either."""
    return {row["test"]: row["access"] for _, row in rows(DATA / "access.csv", ["test", "access"])}


def cost(entry: TestEntry) -> float:
    """Relative burden of a test: its category's, more for large machines, less for what is at hand."""
    return COST[entry.category] * ACCESS[access().get(entry.name, "")] * (1.5 if COSTLY.search(entry.name) else 1.0)


@cache
def _signs(line: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """(finding keys, positions of the hypotheses confirmed) of the test in this line of the table."""
    entry = next(entry for entry in tests_table() if entry.line == line)
    shown = (
        key_of(name)
        for name in entry.finds
        if normalise(name) not in symptoms() and not name.startswith(("Abnormal", "Recurrent"))
    )
    return tuple(dict.fromkeys(shown)), tuple(confirmed_by(entry.diseases))


def choices(
    log_posterior: np.ndarray,
    known: frozenset[str],
    answered: Mapping[str, bool],
    style: Style,
    rng: np.random.Generator,
) -> list[Choice]:
    """The tests worth ordering, best first, each once and none of those ordered before.

    Screening weighs the information about the twenty leading hypotheses, targeted the separation of the first from the rest.
    `known`: keys of findings that are present or absent already, which no test has to show again. `answered`: order -> whether the
    record had a result; categories of tests that it documents are preferred.
    """
    past = [(entry, had) for name, had in answered.items() if (entry := entry_of(name))]
    done = {entry.line for entry, _ in past}
    top = np.argsort(-log_posterior)[: CONSIDERED[style]]
    weights = np.exp(log_posterior[top] - log_posterior[top[0]])
    weights /= weights.sum()
    settled = known.union(*(ancestors(key) for key in known))
    found = [
        choice
        for entry in tests_table()
        if entry.line not in done and (choice := _worth(entry, top, weights, settled, style, rng)) is not None
    ]
    documented = {category: _documented([had for entry, had in past if entry.category == category]) for category in COST}
    ranked = sorted(found, key=lambda choice: -choice.score * documented[choice.entry.category])
    return _diverse([replace(choice, score=choice.score * documented[choice.entry.category]) for choice in ranked[:25]])


def _documented(had: Sequence[bool]) -> float:
    """Chance that a further test of a category is documented, after what the record had so far (Laplace's rule of succession)."""
    return (1 + sum(had)) / (2 + len(had))


def _worth(
    entry: TestEntry, top: np.ndarray, weights: np.ndarray, settled: frozenset[str], style: Style, rng: np.random.Generator
) -> Choice | None:
    signs = _signs_left(entry, top, weights, settled)
    noise = float(np.exp(0.2 * rng.gumbel()))
    if not signs:
        return None
    told = {sign: _told(np.array([share]), weights) for sign, share in signs.items()}
    best = sorted(told, key=lambda sign: -told[sign])[:SIGNS_PER_TEST]
    shares = np.array([signs[sign] for sign in best])
    everything = _told(shares, weights)
    if everything < LEAST_TOLD:
        return None
    if style == "kg-screening":
        return Choice(entry, everything, noise * everything / cost(entry) ** 0.7, tuple(best))
    separation = {sign: _separation(signs[sign], weights) for sign in best}
    decisive = tuple(sorted(best, key=lambda sign: -separation[sign]))
    return Choice(entry, everything, noise * (max(separation.values()) + 0.3 * everything) / cost(entry) ** 0.3, decisive)


def _signs_left(entry: TestEntry, top: np.ndarray, weights: np.ndarray, settled: frozenset[str]) -> dict[str, np.ndarray]:
    """Finding -> P(finding | hypothesis) over the hypotheses considered, for what is not known yet."""
    keys, confirmed = _signs(entry.line)
    left = {}
    for key in keys:
        if key not in settled and not key.startswith(DISEASE):
            share = chances(key)[top]
            mean = float(share @ weights)
            left[key] = np.where(
                share <= 1.05 * chances(key).min(), share + UNLISTED * max(0.0, mean - float(share.min())), share
            )
    names_none = access().get(entry.name) == "routine" and entry.category in ("laboratory", "physiologic")
    unproven = min(0.3, ALSO_CONFIRMS * len(entry.diseases))
    for position in () if names_none else set(confirmed) & set(top.tolist()):
        left[DISEASE + load_model().diseases[position].name] = np.where(top == position, CONFIRMS[entry.category], unproven)
    return left


def _told(shares: np.ndarray, weights: np.ndarray) -> float:
    """Mutual information (nats) of hypothesis and outcome, for findings (S x K) independent given the hypothesis."""
    outcomes = np.ones((1, shares.shape[1]))
    for share in shares:
        outcomes = np.concatenate([outcomes * share, outcomes * (1 - share)])
    marginal = outcomes @ weights
    return float(np.sum(weights * outcomes * np.log(outcomes / marginal[:, None])))


def _separation(share: np.ndarray, weights: np.ndarray) -> float:
    """How far a finding is expected to move the odds of the leader against the others (symmetric divergence, nats)."""
    if len(weights) < 2 or weights[1:].sum() == 0:
        return 0.0
    leader, others = share[0], float(share[1:] @ weights[1:] / weights[1:].sum())
    odds = np.log(leader / (1 - leader)) - np.log(others / (1 - others))
    return float((leader - others) * odds)


def _diverse(ranked: Sequence[Choice]) -> list[Choice]:
    """Ranked anew one by one: what would show the same as a test before it counts for less."""
    left, chosen, covered = list(ranked), [], set[str]()
    while left:
        worth = [
            choice.score * (0.2 + 0.8 * sum(s not in covered for s in choice.signs) / len(choice.signs)) for choice in left
        ]
        best = int(np.argmax(worth))
        chosen.append(replace(left.pop(best), score=worth[best]))
        covered.update(chosen[-1].signs)
    return chosen


# --- names -----------------------------------------------------------------------------------------------------------

_UMBRELLA = re.compile(
    r"plain radiograph of bone|contrast enema|breast imaging|fungal markers|pelvic examination|vestibular|vasculitis and|zoonosis"
    r"|dengue and|tick-borne|bone and joint|bone and soft|somatostatin|edrophonium",
    re.IGNORECASE,
)
_COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "acute chronic disease syndrome pain test testing serum blood level abnormal elevated increased decreased circulating concentration"
        " of the and for with antibody antibodies positivity imaging ray mri ct scan study analysis infection primary joint bone",
    )
)


def order_name(choice: Choice, leader: str, present: Iterable[str]) -> str:
    """The name to order a test by: of an umbrella entry the synonym that fits the patient best ('X-ray knee' for knee pain)."""
    wanted = _words(label_of(choice.sign)) | _words(leader)
    wanted |= {word for label in present for word in _words(label)}
    names = choice.entry.names
    if not _UMBRELLA.match(choice.entry.name):
        return choice.entry.name
    best = max(names[1:], key=lambda name: len(_words(name) & wanted), default=choice.entry.name)
    return best[0].upper() + best[1:]


def _words(text: str) -> set[str]:
    """Stems of five letters: 'Brucellosis' meets 'Brucella serology'."""
    return {word[:5] for word in normalise(text).split() if word not in _COMMON_WORDS and len(word) > 2}
