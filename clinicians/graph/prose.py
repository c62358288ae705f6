"""What the knowledge-graph clinician writes: sentences that say what was computed, in several
wordings."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medaction.clinicians.graph.findings import DISEASE, Finding
from medaction.clinicians.graph.hypotheses import Patient


@dataclass(frozen=True, slots=True)
class Move:
    """What one result did: the hypothesis that it moved most, and that hypothesis's posterior
    before and after (0..1)."""

    test: str
    shown: tuple[Finding, ...]
    hypothesis: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Case:
    """All that the reasoning of one turn is about. Findings come strongest first; shares are
    P(finding | leader, runner-up)."""

    patient: Patient
    key_findings: tuple[Finding, ...]
    missing: tuple[Finding, ...]
    leader: str
    runner_up: str
    chance: float
    supports: tuple[tuple[Finding, float, float], ...]
    against: tuple[Finding, ...]
    commoner: bool
    moves: tuple[Move, ...]
    silent_results: tuple[str, ...]
    unavailable: tuple[str, ...]
    previous_leader: str | None
    nothing_new: bool


_PROPER = frozenset(
    (
        "Clostridioides",
        "Helicobacter",
        "Legionella",
        "Lyme",
        "Brucella",
        "Gram",
        "Coombs",
        "Schirmer",
    )
)

SMALL = 0.02
"""A change of posterior that is not worth a figure."""

_SAID_BETTER = {
    "Addictive alcohol use": "alcohol misuse",
    "Addictive opioid use": "opioid misuse",
    "Increased body weight": "weight gain",
    "Elevated circulating hepatic transaminase concentration": "raised transaminases",
    "Elevated erythrocyte sedimentation rate": "a raised ESR",
    "Inappropriate crying": "crying",
    "Bowel irritability": "altered bowel habits",
    "Pain in head and neck region": "facial pain",
    "Sneeze": "sneezing",
    "Hyperhidrosis": "sweating",
    "Antalgic gait": "a limp",
    "Increased circulating pancreatic triacylglycerol lipase level": "elevated lipase",
    "Localized soft-tissue swelling on extremity": "soft-tissue swelling",
    "Decreased proportion of CD4-positive helper T cells": "a low CD4 count",
}
"""HPO's wording where no clinician would say it so."""

_EPONYMS = re.compile(
    r"(?:Crohn|Hodgkin|Kayser|Murphy|Babinski|Raynaud|Gottron|Heberden|Kaposi|Cushing|Horner|Budd|Wolff|Meckel|Legg|Hashimoto|Graves"
    r"|Burkitt|Ewing|Wilms|Barrett|Bell|Lyme|Howell|Auer|Bence|Chiari|Lewy|Lisch|Gowers|Brushfield|Kawasaki|Q fever|Rocky|Waldenstrom"
    r"|Turner|Down|Von)\b"
)
_NOT_EPONYMS = re.compile(
    r"(?:Celiac|Nephrotic|Peptic|Polycystic|Chronic|Acute|Hepatic|Peripheral|Pelvic|Heart|Coronary|Renal|Liver|Lung|Serum|Toxic|Dumping"
    r"|Stable|Mixed|Gastroesophageal|Irritable|Antiphospholipid|Sickle|Hemolytic|Obstructive|Tumor|Restless|Carpal|Cauda|Serotonin|Carcinoid"
    r"|Hand|Inflammatory|Neuroleptic|Myelodysplastic|Autoimmune|Congenital|Idiopathic|Rare|Genetic|Metabolic|Mitochondrial)\b"
)


def plain(name: str) -> str:
    """A label as it stands in the middle of a sentence: 'Elevated circulating ferritin
    concentration' is 'elevated ferritin'."""
    name = name.removeprefix(DISEASE)
    if name in _SAID_BETTER:
        return _SAID_BETTER[name]
    name = (
        re.sub(r"\b(?:circulating|serum) ", "", name)
        if re.match(r"(?:Elevated|Increased|Decreased|Reduced|Low)", name)
        else name
    )
    name = re.sub(r"(?<=\w) (?:concentration|level)$", "", name)
    first = name.split(" ")[0]
    eponym = _EPONYMS.match(name) or (
        re.match(r"\S+ (?:disease|syndrome)\b", name) and not _NOT_EPONYMS.match(name)
    )
    return name if eponym or not first[1:].islower() else name[0].lower() + name[1:]


def listed(names: Sequence[str], joint: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {joint} {names[-1]}"


def _labels(found: Sequence[Finding]) -> str:
    return listed(list(dict.fromkeys(map(_as_said, found))))


def _as_said(finding: Finding) -> str:
    if finding.key.startswith(DISEASE):
        return f"a report {'naming' if finding.present else 'ruling out'} {plain(finding.label)}"
    return ("" if finding.present else "the absence of ") + plain(finding.label)


def percent(chance: float) -> str:
    return "less than 1%" if chance < 0.005 else f"{min(99, round(100 * chance))}%"


def about(chance: float) -> str:
    """'about 40%', 'less than 1%'."""
    return percent(chance) if chance < 0.005 else f"about {percent(chance)}"


def who(patient: Patient) -> str:
    """'A 35-year-old woman', 'An 8-month-old boy', 'The patient'."""
    if patient.age is None:
        return {"female": "The woman", "male": "The man", None: "The patient"}[patient.sex]
    child, adult = {"female": ("girl", "woman"), "male": ("boy", "man"), None: ("child", "adult")}[
        patient.sex
    ]
    if patient.age < 0.08:
        return "The newborn"
    months = round(12 * patient.age)
    age = f"{months}-month-old" if patient.age < 1.5 else f"{int(patient.age)}-year-old"
    article = "An" if age.startswith(("8", "11-", "18-")) else "A"
    return f"{article} {age} {child if patient.age < 17 else adult}"


def _one(rng: np.random.Generator, wordings: Sequence[str]) -> str:
    return wordings[int(rng.integers(len(wordings)))]


def reasoning(case: Case, outlook: str, rng: np.random.Generator) -> str:
    """The reasoning of a turn: the picture or the new results, why the leader leads, what speaks
    against it, what follows."""
    opening = (
        _results(case, rng)
        if case.moves or case.silent_results or case.unavailable
        else _picture(case, rng)
    )
    parts = [
        opening,
        *([_stands(case, rng)] if case.nothing_new else [_why(case, rng), _doubts(case, rng)]),
        outlook,
    ]
    return " ".join(part for part in parts if part)


def _picture(case: Case, rng: np.random.Generator) -> str:
    if not case.key_findings:
        return _one(
            rng,
            [
                "The presentation holds few findings that I can place, so the differential is still set by how common diseases are.",
                "Little in the history is specific; for now how common each disease is decides most of the ranking.",
            ],
        )
    found = _labels(case.key_findings)
    patient = who(case.patient)
    inside = patient[0].lower() + patient[1:]
    text = _one(
        rng,
        [
            f"{patient} presents with {found}.",
            f"The picture is one of {found} in {inside}.",
            f"What has to be explained in {inside}: {found}.",
            f"{patient}: the findings that carry weight are {found}.",
        ],
    )
    if case.missing:
        gone = listed([plain(finding.label) for finding in case.missing], "or")
        text += _one(
            rng,
            [
                f" There is no {gone}.",
                f" The absence of {gone} narrows the field.",
                f" Asked for and not found: {gone}.",
            ],
        )
    return text


def _lower(name: str) -> str:
    """A name in the middle of a sentence: 'Complete Blood Count' is 'complete blood count'; 'ECG',
    'Anti-Ro', 'Na' and 'X-ray' stay."""

    def said(word: str) -> str:
        abbreviated = len(word) < 4 and word.lower() not in _SHORT_WORDS
        return (
            word
            if abbreviated or word in _PROPER or not (word.isalpha() and word[1:].islower())
            else word.lower()
        )

    return " ".join(map(said, name.split(" ")))


_SHORT_WORDS = frozenset(
    ["arm", "ear", "eye", "gut", "hip", "jaw", "leg", "lip", "of", "rib", "toe", "the", "and"]
)


def _results(case: Case, rng: np.random.Generator) -> str:
    sentences = [_move(move, rng) for move in case.moves]
    if case.silent_results:
        tests = listed([_lower(test) for test in case.silent_results])
        sentences.append(
            _one(
                rng,
                [
                    f"{_cap(tests)}: nothing in the report shifts the hypotheses.",
                    f"From {tests} I read nothing that separates the leading hypotheses.",
                    f"The report of {tests} leaves the ranking as it was.",
                ],
            )
        )
    if case.unavailable:
        tests = listed([_lower(test) for test in case.unavailable])
        sentences.append(
            _one(
                rng,
                [
                    f"No result is documented for {tests}; that neither supports nor excludes anything.",
                    f"{_cap(tests)} came back unavailable, which counts neither way.",
                    f"The record has nothing on {tests}, so that question has to be answered differently.",
                ],
            )
        )
    return " ".join(sentences)


def _move(move: Move, rng: np.random.Generator) -> str:
    shown = [finding for finding in move.shown if finding.present][:3]
    gone = [finding for finding in move.shown if not finding.present][:3]
    named = [finding for finding in shown if finding.key.startswith(DISEASE)]
    if shown:
        what = f"{'names' if named else 'shows'} {listed(list(dict.fromkeys(plain(f.label) for f in named or shown)))}"
    else:
        what = f"shows no {listed([plain(finding.label) for finding in gone], 'or')}"
    up = move.after > move.before
    change = f"from {percent(move.before)} to {percent(move.after)}"
    if abs(move.before - move.after) < SMALL:
        return f"{_cap(move.test)} {what}, which changes little."
    return _one(
        rng,
        [
            f"{_cap(move.test)} {what}, which {'raises' if up else 'lowers'} {plain(move.hypothesis)} {change}.",
            f"{_cap(move.test)} {what}: {plain(move.hypothesis)} {'rises' if up else 'falls'} {change}.",
            f"{_cap(plain(move.hypothesis))} goes {change}, because {_lower(move.test)} {what}.",
        ],
    )


def _stands(case: Case, rng: np.random.Generator) -> str:
    leader, other, chance = plain(case.leader), plain(case.runner_up), percent(case.chance)
    because = (
        f", as {_labels([support[0] for support in case.supports])} suggested"
        if case.supports
        else ""
    )
    return _one(
        rng,
        [
            f"Without new findings the ranking stands: {leader} at {chance}, then {other}.",
            f"{_cap(leader)} stays first at {chance}{because}, with {other} next.",
            f"So I still think of {leader} first ({chance}) and of {other} second.",
            f"The question between {leader} ({chance}) and {other} is as open as before.",
        ],
    )


def _why(case: Case, rng: np.random.Generator) -> str:
    leader, other = plain(case.leader), plain(case.runner_up)
    if not case.supports:
        reason = (
            "it is the commoner of the two"
            if case.commoner
            else "the findings as a whole fit it slightly better"
        )
        return _one(
            rng,
            [
                f"{_cap(leader)} stays ahead of {other} mainly because {reason}.",
                f"Between {leader} and {other} no single finding decides; {leader} is ahead because {reason}.",
            ],
        )
    finding, with_leader, with_other = case.supports[0]
    names = _labels([support[0] for support in case.supports])
    text = _one(
        rng,
        [
            f"{_cap(leader)} ({percent(case.chance)}) leads over {other}, which accounts less well for {names}.",
            f"On the strength of {names} I put {leader} first at {percent(case.chance)}, ahead of {other}.",
            f"I rank {leader} first at {percent(case.chance)}, before {other}, because of {names}.",
            f"The leading hypothesis is {leader} ({percent(case.chance)}): next to {other} it explains {names} better.",
        ],
    )
    if finding.present and with_leader > 2 * with_other and with_leader >= 0.1:
        text += (
            f" {_cap(plain(finding.label))} is expected in {about(with_leader)} of patients with {leader},"
            f" in {about(with_other)} with {other}."
        )
    if case.previous_leader and case.previous_leader != case.leader:
        text += _one(
            rng,
            [
                f" This displaces {plain(case.previous_leader)}, which led before.",
                f" My earlier first choice, {plain(case.previous_leader)}, falls behind.",
            ],
        )
    return text


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]


def _doubts(case: Case, rng: np.random.Generator) -> str:
    if not case.against:
        return ""
    here = [finding for finding in case.against if finding.present]
    gone = [finding for finding in case.against if not finding.present]
    leader = plain(case.leader)
    if here:
        return _one(
            rng,
            [
                f"Less well does {leader} explain {_labels(here)}.",
                f"What {leader} leaves unexplained is {_labels(here)}.",
                f"Against it: {_labels(here)}, which {leader} does not account for.",
            ],
        )
    names = listed([plain(finding.label) for finding in gone], "or")
    return _one(
        rng,
        [
            f"That there is no {names} speaks against it.",
            f"I would have expected {names}, which is missing.",
        ],
    )


@dataclass(frozen=True, slots=True)
class Question:
    """What separates the leader from the runner-up: a finding not yet known, with its share in
    both, and the test that shows it."""

    finding: str
    with_leader: float
    with_other: float
    test: str | None


def pivot(leader: str, other: str, questions: Sequence[Question], rng: np.random.Generator) -> str:
    """The pivot: which findings would tell the two leading hypotheses apart."""
    a, b = plain(leader), plain(other)
    if not questions:
        return _one(
            rng,
            [
                f"No open finding separates {a} from {b} any further.",
                f"{_cap(a)} against {b}: I know of no open finding that would tell them apart.",
            ],
        )
    first = questions[0]
    sign = plain(first.finding)
    naming = first.finding.startswith(DISEASE) or sign in (a, b)
    if naming:
        text = _one(
            rng,
            [
                f"Is it {a} or {b}? {first.test or 'Direct evidence'} would settle it.",
                f"{_cap(a)} versus {b}: direct evidence of {sign} decides.",
            ],
        )
    else:
        likelier, rarer = (a, b) if first.with_leader > first.with_other else (b, a)
        high, low = sorted((first.with_leader, first.with_other), reverse=True)
        text = _one(
            rng,
            [
                f"Is there {sign}? It is expected in {about(high)} with {likelier} and {about(low)} with {rarer}.",
                f"{_cap(a)} versus {b} turns on {sign}: {about(high)} of patients with {likelier} show it,"
                f" {about(low)} with {rarer}.",
                f"To tell {a} from {b}, look for {sign}, which belongs to {likelier} ({percent(high)} against {percent(low)}).",
            ],
        )
    second = next(
        (
            q
            for q in questions[1:]
            if not q.finding.startswith(DISEASE) and plain(q.finding) not in (a, b, sign)
        ),
        None,
    )
    if second:
        text += f" {_cap(plain(second.finding))} would point to {a if second.with_leader > second.with_other else b}."
    return text


_INVASIVE = re.compile(
    r"biops|laparo|scop(?:y|ic)\b|angiogra|cathet|punctur|centesis|aspirat|explorat", re.IGNORECASE
)


def ordering(tests: Sequence[tuple[str, str]], style: str, rng: np.random.Generator) -> str:
    """Why these tests: (test, finding it may show) pairs."""
    aims = listed([f"{_lower(test)} (for {plain(sign)})" for test, sign in tests])
    if style == "kg-screening" and any(_INVASIVE.search(name) for name, _ in tests):
        return _one(
            rng, [f"What divides the open hypotheses next is {aims}.", f"I now go further: {aims}."]
        )
    if style == "kg-screening":
        return _one(
            rng,
            [
                f"Several hypotheses are open, so I start with what divides most of them at little cost: {aims}.",
                f"The next step should split the field broadly: {aims}.",
                f"Before anything invasive I want {aims}.",
                f"Broad and inexpensive first: {aims}.",
            ],
        )
    return _one(
        rng,
        [
            f"To confirm or refute the leader I order {aims}.",
            f"The most direct way to settle it: {aims}.",
            f"This calls for a decisive test: {aims}.",
            f"I go straight for the evidence that would make or break it: {aims}.",
        ],
    )


def committing(leader: str, chance: float, why: str, rng: np.random.Generator) -> str:
    """Why the work-up ends here. why: 'sure', 'exhausted' or 'last turn'."""
    name = plain(leader)
    if why == "sure":
        return _one(
            rng,
            [
                f"At {percent(chance)} no test that I could add is likely to overturn {name}, so I commit to it.",
                f"The evidence is sufficient: {name}.",
                f"I regard {name} as established.",
            ],
        )
    if why == "exhausted":
        return _one(
            rng,
            [
                f"What could still be ordered would hardly move the ranking, or is not documented; {name} remains the best explanation.",
                f"Further tests promise little here, so I settle for {name}, at {percent(chance)}.",
            ],
        )
    return _one(
        rng,
        [
            f"The work-up has to end here; {name} is the best explanation of what is known, at {percent(chance)}.",
            f"This is the last turn, and {name} ({percent(chance)}) explains the findings best.",
        ],
    )
