"""What the graph clinician writes: sentences that say what was computed.

The wordings stand in data/wordings.csv: the place in the reasoning where a sentence belongs, and
the sentence, with fields in braces. Of several wordings for one place the seed chooses.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np

from medaction.clinicians.graph.analytes import TABLES
from medaction.clinicians.graph.findings import Finding, name_of_key
from medaction.clinicians.graph.hypotheses import DISEASE, hypotheses
from medaction.clinicians.graph.model import Ranking, chances, log_likelihood
from medaction.clinicians.graph.orders import Choice
from medaction.envs.turns import Turn
from medaction.kg.tables import rows

SUPPORTS, DOUBTS = 0.5, 0.9
"""Difference of log likelihood (nats) from which a finding is named for the leader, or against.
They decide what is written, not what is done."""


@cache
def wordings() -> dict[str, list[str]]:
    """Place -> its sentences. Raises BadTable."""
    places = defaultdict(list)
    for _, row in rows(TABLES / "wordings.csv", ["place", "wording"]):
        places[row["place"]].append(row["wording"])
    return dict(places)


def sentence(place: str, rng: np.random.Generator, **fields: str) -> str:
    """One sentence for a place. Raises KeyError for an unknown place or a missing field."""
    choice = wordings()[place]
    text = choice[int(rng.integers(len(choice)))].format(**fields)
    return text[0].upper() + text[1:]


def reasoning(ranking: Ranking, turns: Sequence[Turn], rng: np.random.Generator) -> Iterator[str]:
    """What is new, the picture at the first turn and later the effect of each result; why the
    leader leads, and what speaks against it."""
    # What came with the last turn's results; at turn 1 the history.
    new = [at for at, source in enumerate(ranking.evidence) if source.turn == len(turns)]
    if turns:
        yield from (_effect(ranking, at, rng) for at in new)
        unanswered = [answer.order for answer in turns[-1].answers if not answer.results]
        if unanswered:
            yield sentence("unavailable", rng, tests=listed(map(in_a_sentence, unanswered)))
    elif ranking.findings:
        yield sentence("picture", rng, findings=listed_findings(ranking.findings[:9]))
    leader, rival = ranking.order[:2]
    effects = {finding: log_likelihood(finding) for finding in ranking.findings}
    difference = {finding: effect[leader] - effect[rival] for finding, effect in effects.items()}
    findings = sorted(difference, key=lambda finding: -difference[finding])
    supports = [finding for finding in findings if difference[finding] > SUPPORTS][:3]
    doubts = [finding for finding in findings if difference[finding] < -DOUBTS][-2:]
    is_news = any(ranking.evidence[at].findings for at in new)
    # Without news nothing 'speaks for' the leader anew: it is only ahead.
    place = "leads" if is_news and supports else "ahead"
    yield sentence(place, rng, findings=listed_findings(supports), **names_of_leaders(ranking))
    if is_news and doubts:
        yield sentence("doubt", rng, findings=listed_findings(doubts), **names_of_leaders(ranking))


def names_of_leaders(ranking: Ranking) -> dict[str, str]:
    """The leader, its chance and the rival as fields of a sentence."""
    leader, rival = (in_a_sentence(hypotheses()[at].name) for at in ranking.order[:2])
    return {"leader": leader, "rival": rival, "chance": percent(ranking.chance)}


def _effect(ranking: Ranking, at: int, rng: np.random.Generator) -> str:
    """What one result did to the hypothesis whose posterior it changed most."""
    source = ranking.evidence[at]
    if not source.findings:
        return sentence("no influence", rng, test=in_a_sentence(source.test))
    before, after = (np.exp(ranking.posteriors[place]) for place in (at - 1, at))
    # The most moved hypothesis, not the leader: a result may rule another one out.
    moved = int(np.argmax(np.abs(after - before)))
    telling = sorted(source.findings, key=lambda finding: -abs(log_likelihood(finding)[moved]))
    disease, findings = hypotheses()[moved].name, listed_findings(telling[:3])
    chances_of = {"before": percent(before[moved]), "after": percent(after[moved])}
    names = {"test": in_a_sentence(source.test), "disease": in_a_sentence(disease)}
    return sentence("result", rng, findings=findings, **names, **chances_of)


def pivot(ranking: Ranking, options: Sequence[Choice], rng: np.random.Generator) -> str:
    """The pivot: the open sign that best tells the two leading hypotheses apart."""
    names, pair = names_of_leaders(ranking), ranking.order[:2]
    shares = {option.sign: chances(option.sign)[pair] for option in options}
    sign = max(shares, key=lambda key: abs(shares[key][0] - shares[key][1]), default=None)
    if sign is None:
        return sentence("no question", rng, **names)
    likelier, rarer = names["leader"], names["rival"]
    if shares[sign][0] < shares[sign][1]:
        likelier, rarer = rarer, likelier
    low, high = map(percent, sorted(shares[sign]))
    fields = {"likelier": likelier, "rarer": rarer, "high": high, "low": low}
    # A test that names the disease asks for it outright.
    place = "direct question" if sign.startswith(DISEASE) else "question"
    return sentence(place, rng, sign=in_a_sentence(name_of_key(sign)), **fields, **names)


EPONYM_NOUNS = {"disease", "syndrome", "sign", "phenomenon", "lymphoma", "sarcoma", "palsy"}
"""Words before which an unknown word with a capital is taken for somebody's name."""


def in_a_sentence(name: str) -> str:
    """A label or a test's name in the middle of a sentence: 'Elevated circulating ferritin
    concentration' is 'elevated ferritin'; 'ECG', 'Anti-Ro' and 'Crohn disease' stay."""
    name = name.removeprefix(DISEASE).replace(" circulating ", " ")
    words = name.removesuffix(" concentration").removesuffix(" level").split()
    # 'Addison disease' keeps its capital, 'Acute pancreatitis' does not.
    if words[0][1:].islower() and not EPONYM_NOUNS.intersection(words[1:2]):
        words[0] = words[0].lower()
    return " ".join(words)


def listed(names: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'; each name once."""
    *earlier, last = dict.fromkeys(names) or [""]
    return f"{', '.join(earlier)} and {last}" if earlier else last


def listed_findings(findings: Iterable[Finding]) -> str:
    """'fever, no cough and evidence of gout'."""
    names = []
    for finding in findings:
        subject = "evidence of " if finding.key.startswith(DISEASE) else ""
        names.append(f"{'' if finding.present else 'no '}{subject}{in_a_sentence(finding.label)}")
    return listed(names)


def percent(chance: float) -> str:
    # Never 100: a posterior of 0.999 is no certainty.
    return "less than 1%" if chance < 0.005 else f"{min(99, round(100 * chance))}%"
