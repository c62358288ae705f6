"""The graph clinician: a seeded Bayesian diagnostician over the open disease graph. It is no
language model.

A turn: read the findings of every source, update the hypotheses, order the tests that tell most
about them or commit, and say so in plain sentences. Thresholds were set on AgentClinic's cases
(benchmarks/graph_clinician.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medaction.clinicians.graph.findings import DISEASE, Finding, ancestors, findings_in, label_of
from medaction.clinicians.graph.hypotheses import Patient, patient_of
from medaction.clinicians.graph.model import TEMPER, chances, load_model, log_likelihood, log_prior
from medaction.clinicians.graph.orders import Choice, Style, choices
from medaction.clinicians.graph.prose import (
    description,
    listed,
    listed_findings,
    percent,
    plain,
    sentence,
    shows,
)
from medaction.envs.loops import must_commit
from medaction.envs.reply import render
from medaction.envs.turns import Hypothesis, Observation, Turn
from medaction.envs.turns import Style as ReplyStyle

SURE: dict[Style, float] = {"kg-screening": 0.97, "kg-targeted": 0.9}
"""Posterior of the leader at which the work-up ends. At 0.95 and 0.9, with at most four tests and
GOOD_ENOUGH 0.35, screening finds 0.50 of the documented tests, at these values 0.55."""

PATIENCE = 0.03
"""How much less sure it has to be with every turn."""

MOST_TESTS: dict[Style, int] = {"kg-screening": 5, "kg-targeted": 3}
"""Tests in a turn; of some turns one less."""

GOOD_ENOUGH = 0.2
"""A test is ordered along with the best one if its score is at least this share of that one's."""

FRUITLESS = 3
"""After so many turns in a row without any documented result the work-up ends."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one source told: the history (turn 0, test None), or one result of one turn."""

    turn: int
    test: str | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The hypotheses before a turn: `leader` and `rival` are positions in the model, `chance` the
    leader's posterior; posteriors[n] is log P(d | evidence[: n + 1]), shape (D,)."""

    evidence: Sequence[Evidence]
    posteriors: Sequence[np.ndarray]
    order: np.ndarray

    @property
    def leader(self) -> int:
        return int(self.order[0])

    @property
    def rival(self) -> int:
        return int(self.order[1])

    def chance(self, at: int) -> float:
        return float(np.exp(self.posteriors[-1][at]))

    @property
    def names(self) -> dict[str, str]:
        """The leader and the rival as fields of a sentence."""
        diseases = load_model().diseases
        leader, rival = diseases[self.leader].name, diseases[self.rival].name
        chance = percent(self.chance(self.leader))
        return {"leader": plain(leader), "rival": plain(rival), "chance": chance}


class KgClinician:
    """Plays one style. Deterministic: the same observation, turns and seed give the same reply."""

    prompt_versions: Mapping[ReplyStyle, str] = {"schema": "kg-2"}

    def __init__(self, style: Style):
        if style not in SURE:
            styles = ", ".join(SURE)
            raise ValueError(f"{style!r} is no style of the graph clinician; use one of {styles}")
        self.style: Style = style
        self.name: str = style

    async def decide(self, observation: Observation, seed: int) -> Turn:
        """The next turn: tests to order, or a final diagnosis once it is sure, at a loss, or at
        turn `t_max`.

        It writes in the schema only; raises ValueError for another style.
        """
        if observation.style not in self.prompt_versions:
            raise ValueError(f"{self.name} writes in the schema only, not {observation.style!r}")
        turns = observation.turns
        rng = np.random.default_rng([seed, len(turns)])
        patient = patient_of(observation.initial_observation)
        # a rollout counts its seed up with the turns, so all of them share this much trust in the
        # evidence
        trust = np.exp(0.1 * np.random.default_rng(abs(seed - len(turns))).standard_normal())
        evidence = evidence_of(observation.initial_observation, turns, patient.adult)
        ranking = _rank(evidence, patient, TEMPER * float(trust))
        options = _options(ranking, turns, self.style, rng)
        end = self._end(turns, observation.t_max, ranking.chance(ranking.leader), options)
        most = 0 if end else MOST_TESTS[self.style] - int(rng.integers(2))
        good = [option for option in options if option.score >= GOOD_ENOUGH * options[0].score]
        orders = good[:most]
        if end:
            outlook = sentence(end, rng, **ranking.names)
        else:
            aims = [
                f"{plain(order.entry.name)} (for {plain(label_of(order.signs[0]))})"
                for order in orders
            ]
            outlook = sentence(self.style, rng, tests=listed(aims))
        reasons = [*_opening(ranking, patient, turns, rng), *_comparison(ranking, turns, rng)]
        names = [load_model().diseases[at].name for at in ranking.order[:6]]
        turn = Turn(
            number=len(turns) + 1,
            reasoning=" ".join([*reasons, outlook]),
            differential=_differential(names, np.exp(ranking.posteriors[-1][ranking.order[:6]])),
            pivot=_pivot(ranking, orders or options[:3], rng),
            tests=tuple(order.entry.name for order in orders),
            final_diagnosis=names[0] if end else None,
            raw="",
        )
        return replace(turn, raw=render(turn))

    def _end(
        self, turns: Sequence[Turn], t_max: int, chance: float, options: Sequence[Choice]
    ) -> str:
        """'' to go on, else why the work-up ends. The first turn ends it only if it is the last."""
        if len(turns) + 1 >= t_max:
            return "last turn"
        if not options or must_commit(turns, t_max):
            return "exhausted"
        if turns and chance >= SURE[self.style] - PATIENCE * (len(turns) - 1):
            return "sure"
        answers = [answer for turn in turns[-FRUITLESS:] for answer in turn.answers]
        fruitless = len(turns) >= FRUITLESS and not any(answer.results for answer in answers)
        return "exhausted" if fruitless else ""


def evidence_of(
    initial_observation: str, turns: Sequence[Turn], adult: bool = True
) -> list[Evidence]:
    """What is known, source by source. A finding counts once, the most specific of its line;
    UNAVAILABLE tells nothing."""
    sources = [Evidence(0, None, findings_in(initial_observation, "history", adult))]
    for turn in turns:
        for result in (result for answer in turn.answers for result in answer.results):
            findings = findings_in(f"{result.test}: {result.text}", "result", adult)
            sources.append(Evidence(turn.number, result.test, findings))
    all_findings = [finding for source in sources for finding in source.findings]
    present = {finding.key for finding in all_findings if finding.present}
    absent = {finding.key for finding in all_findings if not finding.present}
    general = frozenset().union(*map(ancestors, present))
    counted: set[str] = set()
    evidence = []
    for source in sources:
        specific = []
        for finding in source.findings:
            key = finding.key
            # 'polyarticular arthritis' says 'arthritis' already, 'no arthritis' the reverse
            stated = (
                key in general
                if finding.present
                else key in present | general or absent & ancestors(key)
            )
            if not stated and key not in counted:
                counted.add(key)
                specific.append(finding)
        evidence.append(replace(source, findings=tuple(specific)))
    return evidence


def _rank(evidence: Sequence[Evidence], patient: Patient, temper: float) -> Ranking:
    total = log_prior(patient)
    posteriors = []
    for source in evidence:
        for finding in source.findings:
            total = total + temper * log_likelihood(finding)
        posteriors.append(total - np.logaddexp.reduce(total))
    return Ranking(evidence, posteriors, np.argsort(-posteriors[-1], kind="stable"))


def _options(
    ranking: Ranking, turns: Sequence[Turn], style: Style, rng: np.random.Generator
) -> list[Choice]:
    known = frozenset(finding.key for source in ranking.evidence for finding in source.findings)
    answers = {order: False for turn in turns for order in turn.tests}
    answers |= {answer.order: bool(answer.results) for turn in turns for answer in turn.answers}
    return choices(ranking.posteriors[-1], known, answers, style, rng)


def _differential(names: Sequence[str], posteriors: np.ndarray) -> tuple[Hypothesis, ...]:
    """Three to six hypotheses in whole percents: as many as it takes to cover nine tenths."""
    count = int(np.clip(1 + np.searchsorted(np.cumsum(posteriors), 0.9), 3, len(names)))
    percents = np.clip(np.round(100 * posteriors[:count]), 1, 99)
    return tuple(
        Hypothesis(name, int(share)) for name, share in zip(names[:count], percents, strict=True)
    )


# --- what is written ----------------------------------------------------------------------

SMALL = 0.02
"""A change of posterior that is not worth a figure."""

SUPPORTS, DOUBTS = 0.5, 0.9
"""Difference of log likelihood (nats) from which a finding is named for the leader, or against."""


def _opening(
    ranking: Ranking, patient: Patient, turns: Sequence[Turn], rng: np.random.Generator
) -> Iterator[str]:
    """The picture at the first turn, later what each new result did."""
    if not turns:
        history = ranking.evidence[0].findings
        present = sorted(
            (finding for finding in history if finding.present), key=_rarity, reverse=True
        )
        absent = [finding for finding in history if not finding.present][:3]
        name = description(patient)
        if not present:
            yield sentence("no picture", rng)
            return
        fields = {"patient": name, "a_patient": name[0].lower() + name[1:]}
        yield sentence("picture", rng, findings=listed_findings(present[:6]), **fields)
        if absent:
            names = listed((plain(finding.label) for finding in absent), "or")
            yield sentence("absent", rng, findings=names)
        return
    new = [at for at, source in enumerate(ranking.evidence) if source.turn == len(turns)]
    telling = {at: str(ranking.evidence[at].test) for at in new if ranking.evidence[at].findings}
    for at in telling:
        yield _effect(ranking, at, rng)
    tests = {str(ranking.evidence[at].test) for at in new} - set(telling.values())
    if tests:
        yield sentence("no influence", rng, tests=listed(map(plain, sorted(tests))))
    unavailable = [answer.order for answer in turns[-1].answers if not answer.results]
    if unavailable:
        yield sentence("unavailable", rng, tests=listed(map(plain, unavailable)))


def _rarity(finding: Finding) -> float:
    """Rare findings of the present illness come first."""
    model = load_model()
    at = model.column.get(finding.key)
    return finding.weight * (float(model.information[at]) if at is not None else 5.0)


def _effect(ranking: Ranking, at: int, rng: np.random.Generator) -> str:
    """What one result did to the hypothesis whose posterior it changed most."""
    source = ranking.evidence[at]
    before, after = (np.exp(ranking.posteriors[place]) for place in (at - 1, at))
    moved = int(np.argmax(np.abs(after - before)))
    change = float(after[moved] - before[moved])
    telling = sorted(
        source.findings, key=lambda finding: -abs(float(log_likelihood(finding)[moved]))
    )
    return sentence(
        "result" if abs(change) >= SMALL else "small result",
        rng,
        test=plain(str(source.test)),
        shows=shows(telling),
        moves="raises" if change > 0 else "lowers",
        disease=plain(load_model().diseases[moved].name),
        before=percent(float(before[moved])),
        after=percent(float(after[moved])),
    )


def _comparison(ranking: Ranking, turns: Sequence[Turn], rng: np.random.Generator) -> Iterator[str]:
    """Why the leader leads, and what speaks against it."""
    names, leader, rival = ranking.names, ranking.leader, ranking.rival
    sources = [source for source in ranking.evidence if source.turn == len(turns)]
    if turns and not any(source.findings for source in sources):
        yield sentence("unchanged", rng, **names)
        return
    difference = {}
    for finding in (finding for source in ranking.evidence for finding in source.findings):
        effect = log_likelihood(finding)
        difference[finding] = float(effect[leader] - effect[rival])
    findings = sorted(difference, key=lambda finding: -difference[finding])
    supports = [finding for finding in findings if difference[finding] > SUPPORTS][:3]
    doubts = [finding for finding in reversed(findings) if difference[finding] < -DOUBTS]
    priors = load_model().log_prior
    if supports:
        yield sentence("leads", rng, findings=listed_findings(supports), **names)
    else:
        commoner = priors[leader] > priors[rival] + 0.3
        yield sentence("commoner" if commoner else "fits better", rng, **names)
    before = turns[-1].leader if turns else None
    if before and before != load_model().diseases[leader].name:
        yield sentence("displaced", rng, disease=plain(before))
    if doubts and doubts[0].present:
        present = [finding for finding in doubts if finding.present][:2]
        yield sentence("present doubt", rng, findings=listed_findings(present), **names)
    elif doubts:
        absent = [plain(finding.label) for finding in doubts if not finding.present][:2]
        yield sentence("absent doubt", rng, findings=listed(absent, "or"), **names)


def _pivot(ranking: Ranking, options: Sequence[Choice], rng: np.random.Generator) -> str:
    """The pivot: the open finding that best tells the two leading hypotheses apart."""
    leader, rival, names = ranking.leader, ranking.rival, ranking.names
    shares: dict[str, tuple[float, float]] = {}
    for key in (option.signs[0] for option in options):
        if key.startswith(DISEASE):
            position = load_model().position[key.removeprefix(DISEASE)]
            shares[key] = (float(position == leader), float(position == rival))
        else:
            shares[key] = (float(chances(key)[leader]), float(chances(key)[rival]))
    sign = max(shares, key=lambda key: abs(shares[key][0] - shares[key][1]), default=None)
    if sign is None or abs(shares[sign][0] - shares[sign][1]) < 0.1:
        return sentence("no question", rng, **names)
    label = plain(label_of(sign))
    if sign.startswith(DISEASE) or label in (names["leader"], names["rival"]):
        return sentence("direct question", rng, sign=label, **names)
    likelier, rarer = names["leader"], names["rival"]
    if shares[sign][0] < shares[sign][1]:
        likelier, rarer = rarer, likelier
    low, high = sorted(shares[sign])
    fields = {"likelier": likelier, "rarer": rarer, "high": percent(high), "low": percent(low)}
    return sentence("question", rng, sign=label, **fields, **names)
