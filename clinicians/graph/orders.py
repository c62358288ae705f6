"""Which tests to order: by what their results are expected to tell about the leading hypotheses,
against what they cost."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from medaction.clinicians.graph.findings import DATA, DISEASE, ancestors, key_of, label_of, symptoms
from medaction.clinicians.graph.model import confirmed_by, load_model
from medaction.kg.tables import rows
from medaction.kg.tests_table import TestEntry, tests_table
from medaction.words.names import normalise

Style = Literal["kg-screening", "kg-targeted"]

COST = {"laboratory": 1.0, "physiologic": 1.2, "imaging": 1.5, "procedure": 3.0, "pathology": 4.0}
"""Relative burden of a test's category: a venepuncture is 1."""

ACCESS = {"routine": 0.6, "": 1.0, "special": 2.5}
"""What any hospital does on the day costs less, what one orders on a particular suspicion only
costs more."""

COSTLY = re.compile(
    r"\b(?:MRI|PET|CT|angiography|catheterization|exome|karyotype|microarray|genetic)\b",
    re.IGNORECASE,
)

CONFIRMS = {
    "laboratory": 0.5,
    "physiologic": 0.4,
    "imaging": 0.7,
    "procedure": 0.7,
    "pathology": 0.8,
}
ALSO_CONFIRMS = 0.02
"""P(a result names the disease that its test confirms): by category for patients with it; without
it per disease that the test is for. Routine measurements name none."""

DETECTS = re.compile(r"culture|HIV|toxicology|smear", re.IGNORECASE)
"""Routine laboratory tests that find a cause, not a value."""

CONSIDERED = {"kg-screening": 20, "kg-targeted": 6}
"""Hypotheses that a choice is about."""

UNLISTED = 0.35
"""A finding that is not listed for a disease is not thereby absent in it: how far its share is
drawn to the hypotheses' mean."""

SIGNS_PER_TEST = 3
"""A test's result is modelled by its most telling findings: eight outcomes."""

LEAST_TOLD = 0.02
"""Expected information (nats) below which a test is not worth ordering."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A test worth ordering: what it is expected to tell (nats), its score against cost, and its
    telling findings, best first."""

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
    return (
        COST[entry.category]
        * ACCESS[access().get(entry.name, "")]
        * (1.5 if COSTLY.search(entry.name) else 1.0)
    )


@dataclass(frozen=True, slots=True)
class Signs:
    """What one test can show: rows of the model's features with their keys, and positions of the
    hypotheses that it confirms."""

    rows: np.ndarray
    keys: tuple[str, ...]
    confirms: frozenset[int]


@cache
def signs_of_tests() -> list[tuple[TestEntry, Signs]]:
    """Every test with its signs; what is too general to be a result is left out."""
    features = load_model().features
    found = []
    for entry in tests_table():
        shown = [name for name in entry.finds if not name.startswith(("Abnormal", "Recurrent"))]
        keys = tuple(
            dict.fromkeys(key_of(name) for name in shown if normalise(name) not in symptoms())
        )
        keys = tuple(key for key in keys if key in features)
        measures = (
            bool(keys)
            and access().get(entry.name) == "routine"
            and entry.category in ("laboratory", "physiologic")
        )
        confirms = frozenset(
            () if measures and not DETECTS.search(entry.name) else confirmed_by(entry.diseases)
        )
        found.append(
            (entry, Signs(np.array([features[key] for key in keys], dtype=int), keys, confirms))
        )
    return found


@dataclass(frozen=True, eq=False)
class Outlook:
    """The hypotheses considered (positions and weights, shape K), and P(feature | hypothesis) (F x
    K) with what each would tell."""

    top: np.ndarray
    weights: np.ndarray
    shares: np.ndarray
    told: np.ndarray


def outlook(log_posterior: np.ndarray, known: frozenset[str], considered: int) -> Outlook:
    """What the tests' findings would tell now; nothing, where the finding is known already."""
    model = load_model()
    top = np.argsort(-log_posterior)[:considered]
    weights = np.exp(log_posterior[top] - log_posterior[top[0]])
    weights /= weights.sum()
    shares = model.feature_shares[:, top].astype(float)
    mean, least = shares @ weights, shares.min(axis=1)
    unlisted = shares <= 1.05 * model.feature_least[:, None]
    shares = np.where(unlisted, shares + (UNLISTED * np.maximum(0, mean - least))[:, None], shares)
    told = _entropy(shares @ weights) - _entropy(shares) @ weights
    settled = known.union(*(ancestors(key) for key in known))
    told[[row for key, row in model.features.items() if key in settled]] = 0.0
    return Outlook(top, weights, shares, told)


def _entropy(chance: np.ndarray) -> np.ndarray:
    return -chance * np.log(chance) - (1 - chance) * np.log(1 - chance)


def choices(
    log_posterior: np.ndarray,
    known: frozenset[str],
    answered: Mapping[str, bool],
    style: Style,
    rng: np.random.Generator,
) -> list[Choice]:
    """The tests worth ordering, best first, each once and none of those ordered before.

    Screening weighs the information about the twenty leading hypotheses, targeted the separation of
    the first from the rest. `known`: keys of findings that are present or absent already, which no
    test has to show again. `answered`: order -> whether the record had a result; categories of
    tests that it documents are preferred.
    """
    past = [(entry, had) for name, had in answered.items() if (entry := entry_of(name))]
    done = {entry.line for entry, _ in past}
    documented = {
        category: _documented([had for entry, had in past if entry.category == category])
        for category in COST
    }
    view = outlook(log_posterior, known, CONSIDERED[style])
    noise = np.exp(0.2 * rng.gumbel(size=len(signs_of_tests())))
    found = []
    for (entry, signs), luck in zip(signs_of_tests(), noise, strict=True):
        choice = None if entry.line in done else _worth(entry, signs, view, style)
        if choice:
            found.append(
                replace(choice, score=choice.score * float(luck) * documented[entry.category])
            )
    return _diverse(sorted(found, key=lambda choice: -choice.score)[:25])


def _documented(had: Sequence[bool]) -> float:
    """Chance that a further test of a category is documented, after what the record had so far
    (Laplace's rule of succession)."""
    return (1 + sum(had)) / (2 + len(had))


def _worth(entry: TestEntry, signs: Signs, view: Outlook, style: Style) -> Choice | None:
    """What the test is worth by its most telling signs, None if it would tell next to nothing."""
    found = {
        key: (float(view.told[row]), view.shares[row])
        for key, row in zip(signs.keys, signs.rows, strict=True)
    }
    for position in signs.confirms.intersection(view.top.tolist()):
        share = np.where(
            view.top == position,
            CONFIRMS[entry.category],
            min(0.3, ALSO_CONFIRMS * len(entry.diseases)),
        )
        found[DISEASE + load_model().diseases[position].name] = (
            _told(share[None], view.weights),
            share,
        )
    best = sorted((key for key in found if found[key][0] > 0), key=lambda key: -found[key][0])[
        :SIGNS_PER_TEST
    ]
    if sum(found[key][0] for key in best) < LEAST_TOLD:
        return None
    everything = _told(np.array([found[key][1] for key in best]), view.weights)
    if style == "kg-screening":
        return Choice(entry, everything, everything / cost(entry) ** 0.7, tuple(best))
    separation = {key: _separation(found[key][1], view.weights) for key in best}
    decisive = tuple(sorted(best, key=lambda key: -separation[key]))
    return Choice(
        entry,
        everything,
        (max(separation.values()) + 0.3 * everything) / cost(entry) ** 0.3,
        decisive,
    )


def _told(shares: np.ndarray, weights: np.ndarray) -> float:
    """Mutual information (nats) of hypothesis and outcome, for findings (S x K) independent given
    the hypothesis."""
    outcomes = np.ones((1, shares.shape[1]))
    for share in shares:
        outcomes = np.concatenate([outcomes * share, outcomes * (1 - share)])
    marginal = outcomes @ weights
    return float(np.sum(weights * outcomes * np.log(outcomes / marginal[:, None])))


def _separation(share: np.ndarray, weights: np.ndarray) -> float:
    """How far a finding is expected to move the odds of the leader against the others (symmetric
    divergence, nats)."""
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
            choice.score
            * (0.2 + 0.8 * sum(s not in covered for s in choice.signs) / len(choice.signs))
            for choice in left
        ]
        best = int(np.argmax(worth))
        chosen.append(replace(left.pop(best), score=worth[best]))
        covered.update(chosen[-1].signs)
    return chosen


# --- names ------------------------------------------------------------------------------

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
    """The name to order a test by: of an umbrella entry the synonym that fits the patient best
    ('X-ray knee' for knee pain)."""
    wanted = _words(label_of(choice.sign)) | _words(leader)
    wanted |= {word for label in present for word in _words(label)}
    names = choice.entry.names
    if not _UMBRELLA.match(choice.entry.name):
        return choice.entry.name
    best = max(names[1:], key=lambda name: len(_words(name) & wanted), default=choice.entry.name)
    return best[0].upper() + best[1:]


def _words(text: str) -> set[str]:
    """Stems of five letters: 'Brucellosis' meets 'Brucella serology'."""
    return {
        word[:5] for word in normalise(text).split() if word not in _COMMON_WORDS and len(word) > 2
    }
