"""What the graph clinician writes: sentences that say what was computed.

The wordings stand in data/wordings.csv: the place in the reasoning where a sentence belongs, and
the sentence, with fields in braces. Of several wordings for one place the seed chooses.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from medaction.clinicians.graph.cues import DATA
from medaction.clinicians.graph.findings import DISEASE, Finding
from medaction.clinicians.graph.hypotheses import Patient, hypotheses
from medaction.kg.hpo import load_hpo
from medaction.kg.tables import rows


@cache
def wordings() -> dict[str, list[str]]:
    """Place -> its sentences. Raises BadTable."""
    places = defaultdict(list)
    for _, row in rows(DATA / "wordings.csv", ["place", "wording"]):
        places[row["place"]].append(row["wording"])
    return dict(places)


def sentence(place: str, rng: np.random.Generator, **fields: str) -> str:
    """One sentence for a place. Raises KeyError for an unknown place or a missing field."""
    choice = wordings()[place]
    text = choice[int(rng.integers(len(choice)))].format(**fields)
    return text[0].upper() + text[1:]


AFTER_EPONYMS = {"disease", "syndrome", "sign", "phenomenon", "lymphoma", "sarcoma", "palsy"}
"""Words before which an unknown word with a capital is taken for somebody's name."""


@cache
def _ordinary_words() -> frozenset[str]:
    """Words that some label or synonym writes small: 'acute' is one, 'Crohn' is not."""
    terms = load_hpo().phenotypes.values()
    labels = [name for term in terms for name in (term.name, *term.synonyms)]
    labels += [disease.name for disease in hypotheses()]
    words = (word for label in labels for word in label.split()[1:])
    return frozenset(word for word in words if word.islower() and len(word) > 1)


def plain(name: str) -> str:
    """A label or a test's name in the middle of a sentence: 'Elevated circulating ferritin
    concentration' is 'elevated ferritin'; 'ECG', 'Anti-Ro' and 'Crohn disease' stay."""
    name = name.removeprefix(DISEASE).replace(" circulating ", " ")
    for ending in (" concentration", " level"):
        name = name.removesuffix(ending)
    words = name.split()
    if words[0][1:].islower() and not AFTER_EPONYMS.intersection(words[1:2]):
        words[0] = words[0].lower()
    ordinary = _ordinary_words()
    return " ".join(word.lower() if word.lower() in ordinary else word for word in words)


def listed(names: Iterable[str], joint: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'; each name once."""
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} {joint} {last}" if others else last


def listed_findings(findings: Iterable[Finding]) -> str:
    """'fever, the absence of cough and a report naming gout'."""
    names = []
    for finding in findings:
        name = plain(finding.label)
        if finding.key.startswith(DISEASE):
            names.append(f"a report {'naming' if finding.present else 'ruling out'} {name}")
        else:
            names.append(name if finding.present else f"the absence of {name}")
    return listed(names)


def shows(findings: Sequence[Finding]) -> str:
    """What a result did: 'names gout', 'shows fever and cough', 'shows no pneumothorax'."""
    present = [finding for finding in findings if finding.present][:3]
    diseases = [finding for finding in present if finding.key.startswith(DISEASE)]
    if present:
        names = listed(plain(finding.label) for finding in diseases or present)
        return f"{'names' if diseases else 'shows'} {names}"
    return f"shows no {listed((plain(finding.label) for finding in findings[:3]), 'or')}"


def percent(chance: float) -> str:
    return "less than 1%" if chance < 0.005 else f"{min(99, round(100 * chance))}%"


def description(patient: Patient) -> str:
    """'A 35-year-old woman', 'An 8-month-old boy', 'The patient'."""
    child, adult = ("girl", "woman") if patient.sex == "female" else ("boy", "man")
    if patient.sex is None:
        child, adult = "child", "patient"
    if patient.age is None:
        return f"The {adult}"
    months = round(12 * patient.age)
    if months == 0:
        return "The newborn"
    age = f"{months}-month-old" if patient.age < 1.5 else f"{int(patient.age)}-year-old"
    article = "An" if age.startswith(("8", "11-", "18-")) else "A"
    return f"{article} {age} {child if patient.age < 17 else adult}"
