"""The knowledge-graph clinician: a seeded Bayesian diagnostician over the open disease graph. It is
no language model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medaction.clinicians.graph.findings import (
    DISEASE,
    IMPLIED,
    Finding,
    ancestors,
    findings_in,
    findings_in_result,
    label_of,
    most_specific,
)
from medaction.clinicians.graph.hypotheses import Patient, patient_of
from medaction.clinicians.graph.model import (
    EXPLAINS,
    TEMPER,
    UNEXPLAINED,
    chances,
    explained,
    load_model,
    log_likelihood,
    prior,
    silence,
)
from medaction.clinicians.graph.orders import Choice, Style, choices, entry_of, order_name
from medaction.clinicians.graph.prose import (
    Case,
    Move,
    Question,
    committing,
    ordering,
    pivot,
    reasoning,
)
from medaction.envs.loops import must_commit
from medaction.envs.reply import render
from medaction.envs.turns import Hypothesis, Observation, Turn
from medaction.envs.turns import Style as Written
from medaction.words.names import normalise

SURE = {"kg-screening": 0.9, "kg-targeted": 0.8}
"""Posterior of the leader at which the work-up ends."""

MOST_TESTS = {"kg-screening": 4, "kg-targeted": 3}

FRUITLESS = 3
"""After so many turns in a row without any documented result the work-up ends."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one source told: the history (test None), or one result of one turn."""

    turn: int
    test: str | None
    findings: tuple[Finding, ...]
    effect: np.ndarray
    """Sum of log P(finding | d) over its findings, shape (D,)."""


class KgClinician:
    """Plays one style. Deterministic: the same observation, turns and seed give the same reply."""

    prompt_versions: Mapping[Written, str] = {"schema": "kg-1"}

    def __init__(self, style: Style):
        if style not in SURE:
            raise ValueError(
                f"{style!r} is no style of the knowledge-graph clinician; use one of {', '.join(SURE)}"
            )
        self.style: Style = style
        self.name: str = style

    async def decide(self, observation: Observation, seed: int) -> Turn:
        """The next turn: tests to order, or a final diagnosis once it is sure, at a loss, or at
        turn `t_max`.

        It writes in the schema only; raises ValueError for another style.
        """
        if observation.style not in self.prompt_versions:
            raise ValueError(
                f"{self.name} writes in the schema only, not in the style {observation.style!r}"
            )
        turns, t_max = observation.turns, observation.t_max
        rng = np.random.default_rng([seed, len(turns)])
        patient = patient_of(observation.initial_observation)
        pieces = evidence(observation.initial_observation, turns, patient)
        temper = TEMPER * trust(seed - len(turns))
        posteriors = _posteriors(pieces, patient, temper)
        log_posterior = posteriors[-1]
        ranked = np.argsort(-log_posterior)
        chance = np.exp(log_posterior[ranked])
        found = self._choices(pieces, log_posterior, turns, rng)
        end = self._end(turns, t_max, float(chance[0]), found)
        case = _case(patient, pieces, posteriors, ranked, turns)
        names = [load_model().diseases[at].name for at in ranked[:6]]
        orders = [] if end else self._orders(found, case, rng)
        questions = _questions(
            ranked, [choice for choice, _ in orders] or found[:3], dict(_named(orders))
        )
        outlook = (
            committing(names[0], float(chance[0]), end, rng)
            if end
            else ordering(
                [(name, label_of(choice.sign)) for choice, name in orders], self.style, rng
            )
        )
        turn = Turn(
            number=len(turns) + 1,
            reasoning=reasoning(case, outlook, rng),
            differential=_differential(names, chance),
            pivot=pivot(names[0], names[1], questions, rng),
            tests=tuple(name for _, name in orders),
            final_diagnosis=names[0] if end else None,
            raw="",
        )
        return replace(turn, raw=render(turn))

    def _choices(
        self,
        pieces: Sequence[Piece],
        log_posterior: np.ndarray,
        turns: Sequence[Turn],
        rng: np.random.Generator,
    ) -> list[Choice]:
        known = frozenset(finding.key for piece in pieces for finding in piece.findings)
        answered = {answer.order: bool(answer.results) for turn in turns for answer in turn.answers}
        ordered = {test: False for turn in turns for test in turn.tests}
        return choices(log_posterior, known, ordered | answered, self.style, rng)

    def _end(
        self, turns: Sequence[Turn], t_max: int, chance: float, found: Sequence[Choice]
    ) -> str:
        """'' to go on, else why the work-up ends. The first turn ends it only where it is the last."""
        if len(turns) + 1 >= t_max:
            return "last turn"
        if not turns:
            return "" if found else "exhausted"
        if must_commit(turns, t_max):
            return "exhausted"
        sure = SURE[self.style] - 0.03 * (len(turns) - 1)
        if chance >= sure:
            return "sure"
        fruitless = len(turns) >= FRUITLESS and not any(
            answer.results for turn in turns[-FRUITLESS:] for answer in turn.answers
        )
        return "exhausted" if fruitless or not found else ""

    def _orders(
        self, found: Sequence[Choice], case: Case, rng: np.random.Generator
    ) -> list[tuple[Choice, str]]:
        """The tests of this turn with the names they are ordered by: those not much worse than the
        best."""
        most = MOST_TESTS[self.style] - int(rng.integers(2))
        good = _mixed([choice for choice in found if choice.score >= 0.35 * found[0].score])[:most]
        present = [finding.label for finding in case.key_findings]
        named = {order_name(choice, case.leader, present): choice for choice in reversed(good)}
        return [(choice, name) for name, choice in reversed(named.items())]


def _mixed(found: Sequence[Choice]) -> list[Choice]:
    """At most two of a category, so that a turn is not all laboratory."""
    return [choice for at, choice in enumerate(found) if _same_category(found[:at], choice) < 2]


def _same_category(before: Sequence[Choice], choice: Choice) -> int:
    return sum(other.entry.category == choice.entry.category for other in before)


def trust(rollout: int) -> float:
    """How much a rollout trusts its evidence: about 1. A rollout counts its seed up with the turns,
    so all of them share this."""
    return float(np.exp(0.1 * np.random.default_rng(abs(rollout)).standard_normal()))


def _named(orders: Sequence[tuple[Choice, str]]) -> list[tuple[str, str]]:
    return [(choice.sign, name) for choice, name in orders]


def evidence(initial_observation: str, turns: Sequence[Turn], patient: Patient) -> list[Piece]:
    """What is known, source by source. A finding counts once, the most specific of its line;
    UNAVAILABLE tells nothing."""
    sources: list[tuple[int, str | None, tuple[Finding, ...]]] = [
        (0, None, findings_in(initial_observation, "history", patient.adult))
    ]
    for turn in turns:
        for answer in turn.answers:
            for result in answer.results:
                entry = entry_of(result.test) or entry_of(answer.order)
                sources.append(
                    (
                        turn.number,
                        result.test,
                        findings_in_result(entry, result.test, result.text, patient.adult),
                    )
                )
    shown = {finding.key for _, _, found in sources for finding in found if finding.present}
    present = shown.union(*map(ancestors, shown))
    first: dict[str, tuple[int, Finding]] = {}
    for at, (_, _, found) in enumerate(sources):
        for finding in found:
            if finding.present or finding.key not in present:
                first.setdefault(finding.key, (at, finding))
    kept = set(map(id, most_specific(finding for _, finding in first.values())))
    counted = [(at, finding) for at, finding in first.values() if id(finding) in kept]
    pieces = []
    for at, (turn_number, test, _) in enumerate(sources):
        own = tuple(finding for source, finding in counted if source == at)
        pieces.append(Piece(turn_number, test, own, _effect(own)))
    return pieces


def _effect(found: Sequence[Finding]) -> np.ndarray:
    """What one normal result implies is one piece of evidence, however many findings it excludes."""
    total = np.zeros(len(load_model().diseases))
    implied = [
        log_likelihood(finding)
        for finding in found
        if finding.weight == IMPLIED and not finding.present
    ]
    for finding in found:
        if finding.weight != IMPLIED or finding.present:
            total += log_likelihood(finding)
    return total + np.min(implied, axis=0) if implied else total


def _posteriors(pieces: Sequence[Piece], patient: Patient, temper: float) -> list[np.ndarray]:
    """log P(d | pieces[: n + 1]) for every n, each normalised, shape (D,)."""
    told = [finding.key for finding in pieces[0].findings]
    total = prior(patient) + temper * silence(told)
    support = np.zeros_like(total)
    found = []
    for piece in pieces:
        total = total + temper * piece.effect
        support = support + sum(map(explained, piece.findings))
        cause = np.where(support < EXPLAINS, UNEXPLAINED, 0.0) + total if support.any() else total
        found.append(cause - np.logaddexp.reduce(cause))
    return found


def _differential(names: Sequence[str], chance: np.ndarray) -> tuple[Hypothesis, ...]:
    """Three to six hypotheses in whole percents: as many as it takes to cover nine tenths."""
    percents = [min(99, max(1, round(100 * float(share)))) for share in chance[: len(names)]]
    covered = np.cumsum(chance[: len(names)])
    count = int(np.clip(1 + np.searchsorted(covered, 0.9), 3, len(names)))
    return tuple(
        Hypothesis(name, share) for name, share in zip(names[:count], percents[:count], strict=True)
    )


def _case(
    patient: Patient,
    pieces: Sequence[Piece],
    posteriors: Sequence[np.ndarray],
    ranked: np.ndarray,
    turns: Sequence[Turn],
) -> Case:
    """What the reasoning tells, read off the computation."""
    model = load_model()
    leader, other = int(ranked[0]), int(ranked[1])
    everything = [finding for piece in pieces for finding in piece.findings]
    new = [(piece, at) for at, piece in enumerate(pieces) if turns and piece.turn == len(turns)]
    moves = [
        _moved(piece, posteriors[at - 1], posteriors[at]) for piece, at in new if piece.findings
    ]
    telling = {
        piece.test for piece in pieces if piece.findings
    }  # two orders may bring one result: it is told of once
    weight = {id(finding): log_likelihood(finding)[[leader, other]] for finding in everything}
    gap = sorted(everything, key=lambda finding: weight[id(finding)][1] - weight[id(finding)][0])
    supports = [
        finding for finding in gap if weight[id(finding)][0] - weight[id(finding)][1] > 0.5
    ][:3]
    against = [
        finding
        for finding in reversed(gap)
        if weight[id(finding)][1] - weight[id(finding)][0] > 0.9
    ][:2]
    return Case(
        patient=patient,
        key_findings=tuple(
            _telling([finding for finding in pieces[0].findings if finding.present])[:6]
        ),
        missing=tuple(
            _asked([finding for finding in pieces[0].findings if not finding.present])[:3]
        ),
        leader=model.diseases[leader].name,
        runner_up=model.diseases[other].name,
        chance=float(np.exp(posteriors[-1][leader])),
        supports=tuple((finding, *_shares(finding, leader, other)) for finding in supports),
        against=tuple(finding for finding in against if finding.present == against[0].present),
        commoner=bool(model.log_prior[leader] > model.log_prior[other] + 0.3),
        moves=tuple(move for move in moves if move),
        silent_results=tuple(
            dict.fromkeys(
                piece.test for piece, _ in new if piece.test and piece.test not in telling
            )
        ),
        unavailable=tuple(answer.order for answer in turns[-1].answers if not answer.results)
        if turns
        else (),
        nothing_new=bool(turns) and not any(piece.findings for piece, _ in new),
        previous_leader=turns[-1].differential[0].diagnosis if turns else None,
    )


def _shares(finding: Finding, leader: int, other: int) -> tuple[float, float]:
    if finding.key.startswith(DISEASE):
        return 0.0, 0.0
    share = chances(finding.key)
    return float(share[leader]), float(share[other])


def _moved(piece: Piece, before: np.ndarray, after: np.ndarray) -> Move:
    """The hypothesis whose posterior one result changed most."""
    at = int(np.argmax(np.abs(np.exp(after) - np.exp(before))))
    telling = sorted(
        piece.findings,
        key=lambda finding: (not finding.present, -abs(float(log_likelihood(finding)[at]))),
    )
    name = load_model().diseases[at].name
    return Move(
        piece.test or "", tuple(telling), name, float(np.exp(before[at])), float(np.exp(after[at]))
    )


def _telling(found: Sequence[Finding]) -> list[Finding]:
    """Rare findings of the present illness first."""
    model = load_model()

    def rarity(finding: Finding) -> float:
        at = model.column.get(finding.key)
        return finding.weight * (float(-np.log(model.leak[at])) if at is not None else 5.0)

    return sorted(found, key=rarity, reverse=True)


_VITALS = frozenset(
    map(
        normalise,
        [
            "Hypothermia",
            "Bradycardia",
            "Hypotension",
            "Hypertension",
            "Tachycardia",
            "Tachypnea",
            "Hypoxemia",
            "Fever",
        ],
    )
)


def _asked(found: Sequence[Finding]) -> list[Finding]:
    """Absent findings that somebody asked or looked for, not the normal vital signs."""
    return [finding for finding in found if normalise(finding.label) not in _VITALS]


def _questions(
    ranked: np.ndarray, found: Sequence[Choice], names: dict[str, str]
) -> list[Question]:
    """The signs of the tests in question that tell the two leaders apart, the most telling first."""
    leader, other = int(ranked[0]), int(ranked[1])
    model = load_model()
    questions = []
    for choice in found:
        if choice.sign.startswith(DISEASE):
            position = model.position[choice.sign.removeprefix(DISEASE)]
            if position in (leader, other):
                questions.append(
                    Question(
                        choice.sign,
                        float(position == leader),
                        float(position == other),
                        names.get(choice.sign),
                    )
                )
            continue
        share = chances(choice.sign)
        if abs(float(share[leader] - share[other])) > 0.1:
            questions.append(
                Question(
                    label_of(choice.sign),
                    float(share[leader]),
                    float(share[other]),
                    names.get(choice.sign),
                )
            )
    return sorted(questions, key=lambda question: -abs(question.with_leader - question.with_other))
