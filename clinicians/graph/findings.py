"""Free clinical text to findings: HPO terms present or absent, and diseases that a result names.

Three readers share one text: phrases (longest match over HPO labels, synonyms and lay words, with
negation in the manner of NegEx), laboratory values (kg/data/analytes.csv), and, for a wholly normal
result, what that test would have shown.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from medaction.clinicians.graph.analytes import analytes, lab_statuses
from medaction.clinicians.graph.cache import built
from medaction.clinicians.graph.hypotheses import disease_names, hypotheses, phenotype_ids
from medaction.kg.hpo import ROOT, load_hpo
from medaction.kg.tables import rows
from medaction.kg.tests_table import TestEntry
from medaction.words.names import normalise
from medaction.words.negation import DENIAL, DENIAL_AFTER, DENIAL_AT_START, DENIAL_OF_A_LIST

DATA = Path(__file__).parent / "data"
LAY_WORDS, SYMPTOMS, TOO_GENERAL = (
    DATA / "lay_words.csv",
    DATA / "symptoms.txt",
    DATA / "too_general.txt",
)
LONGEST = 7
"""Words of the longest phrase that is looked up."""

PAST = 0.25
"""Weight of a finding that the patient's past history tells: it need not belong to the present
illness."""

IMPLIED = 0.5
"""Weight of an absent finding that only a test's normal result implies."""

DISEASE = "disease:"
"""Prefix of the key of a finding that names a disease: 'disease:Hodgkin lymphoma'."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `key`: HPO id, or DISEASE + name. `evidence`: the words it was read from.
    `weight`: 0..1."""

    key: str
    label: str
    present: bool
    evidence: str
    weight: float = 1.0


@cache
def symptoms() -> frozenset[str]:
    """Normalised labels that tests.csv lists as what a test is ordered for: the patient shows them,
    the test does not, and a normal result does not take them away."""
    return frozenset(map(normalise, SYMPTOMS.read_text(encoding="utf-8").splitlines()))


Source = Literal["history", "result"]


@lru_cache(maxsize=4096)
def findings_in(text: str, source: Source = "history", adult: bool = True) -> tuple[Finding, ...]:
    """What the text says, each key once: laboratory values win over phrases, and present wins over
    absent.

    A disease's name counts in a result ('consistent with Crohn disease'), not in a history
    ('treated for Crohn disease'). A result is 'name: text'; its name is a phrase only if the text
    is a mere status ('Rubella IgM: positive').
    """
    found: dict[str, Finding] = {}
    tail = text.partition(":")[2]
    words = tail if source == "result" and not _STATUS.match(tail) else text
    for finding in (*_phrases(words, source), *_labs(text, source, adult)):
        earlier = found.get(finding.key)
        if earlier is None or (finding.present, finding.weight) >= (
            earlier.present,
            earlier.weight,
        ):
            found[finding.key] = finding
    return tuple(found.values())


def label_of(key: str) -> str:
    """The finding's name as a reader wants it."""
    return key.removeprefix(DISEASE) if key.startswith(DISEASE) else load_hpo().phenotypes[key].name


# --- phrases ----------------------------------------------------------------------------

_STOP = frozenset(
    re.findall(
        r"\w+",
        "of the a an in on to with at his her their is are was were be been has had have some very my",
    )
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a phrase stands for. `named`: it is a disease's own name, which in a history is no
    evidence."""

    key: str
    named: bool = False


@cache
def phrase_book() -> dict[str, Meaning]:
    """Sorted stemmed words of a phrase -> meaning. Signs and lay words win over HPO's labels, those
    over disease names."""
    book = json.loads(
        (built("phrases", _build_phrase_book) / "phrases.json").read_text(encoding="utf-8")
    )
    return {words: Meaning(key, named) for words, (key, named) in book.items()}


def _build_phrase_book(folder: Path) -> None:
    book: dict[str, tuple[str, bool]] = {}
    too_general = set(
        TOO_GENERAL.read_text(encoding="utf-8").splitlines()
    )  # labels that in running text mostly mean something else
    entries = [
        *(
            (phrase, Meaning(key))
            for phrase, key in (*_signs(), *_lay_words(), *phenotype_ids().items())
        )
    ]
    entries += [
        (name, Meaning(DISEASE + disease, True))
        for name, disease in disease_names().items()
        if len(name) > 4
    ]
    for phrase, meaning in entries:
        words = _content(phrase)
        if 0 < len(words) <= LONGEST and phrase not in too_general and meaning.key != ROOT:
            book.setdefault(" ".join(sorted(words)), (meaning.key, meaning.named))
    (folder / "phrases.json").write_text(json.dumps(book), encoding="utf-8")


def _signs() -> Iterator[tuple[str, str]]:
    """What is either there or not ('Murphy sign', 'Antinuclear antibody'): the qualitative rows of
    the table of analytes."""
    for analyte in analytes():
        if analyte.is_sign:
            for name in (analyte.name, *analyte.synonyms):
                yield normalise(name), key_of(analyte.high_finding, analyte.name)


def _lay_words() -> Iterator[tuple[str, str]]:
    """Raises ValueError for a finding that is neither HPO's nor a disease's."""
    for line, row in rows(LAY_WORDS, ["phrase", "finding"]):
        yield normalise(row["phrase"]), key_of(row["finding"], f"{LAY_WORDS}:{line}")


@cache
def key_of(name: str, where: str = "") -> str:
    """The key of an HPO label or synonym, else of a disease. Raises ValueError."""
    plain = normalise(name)
    if plain in phenotype_ids():
        return phenotype_ids()[plain]
    if plain in disease_names():
        return DISEASE + disease_names()[plain]
    raise ValueError(f"{where}: neither HPO nor the diseases know {name!r}")


def _content(phrase: str) -> list[str]:
    return [_stem(word) for word in phrase.split() if word not in _STOP]


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-3] + "y" if word.endswith("ies") else word[:-1]
    return word


_CLAUSE = re.compile(
    r"(?<!\b[A-Z])(?<!\bvs)\.(?=\s|$)|[;\n!?]|\b(?:but|however|although|except|though|whereas|apart from)\b",
    re.IGNORECASE,
)
_SEGMENT = re.compile(r"([,:()/]|\s-\s|\b(?:and|or|nor|as well as|plus)\b)", re.IGNORECASE)
_STATUS = re.compile(
    r"\s*(?:strongly |weakly |markedly |slightly |moderately )?(?:positive|negative|present|absent|elevated|high|low|normal|increased"
    r"|decreased|reactive|non-?reactive|detected|not detected|confirmed|reduced|raised|none)\b",
    re.IGNORECASE,
)
_AFFIRMS = re.compile(
    r"^\s*(?:but|with|has|reports?|presents?|there (?:is|are|was|were)|shows?|is|are|was|were|does have|only|positive|complains)\b",
    re.I,
)
_CONCLUDES = re.compile(
    r"\b(?:consistent with|suggest\w*|compatible with|confirm\w*|diagnos\w*|indicat\w*|characteristic|typical of|in keeping)\b",
    re.IGNORECASE,
)
"""Where a result draws a conclusion, a finding that is a disease's name ('testicular torsion')
names that disease."""
_NOT_THE_PATIENT = re.compile(
    r"\b(?:family history|mother|father|sister|brother|sibling|uncle|aunt|grand\w+|cousin|parents?|husband|wife|roommate|coworkers?)\b",
    re.IGNORECASE,
)
_HYPOTHETICAL = re.compile(
    r"\b(?:to rule out|rule out|concern(?:ed)? (?:for|about)|risk (?:of|for|factors?)|suspicion|(?:can|could|should|may) be considered"
    r"|could show|would show|expected to|pending|screening for|if (?:performed|present|needed)|not specified|not performed|optional"
    r"|to exclude|prophylaxis|vaccin\w+|immuniz\w+)\b",
    re.IGNORECASE,
)
_PAST_LINE = re.compile(
    r"\s*(?:past|medical|surgical|social|obstetric\w*|other)\b[^:]{0,30}history\s*:", re.IGNORECASE
)
_HISTORY = re.compile(
    r"\b(?:past (?:medical|surgical)|medical history|(?<!hour )(?<!day )(?<!week )(?<!month )(?<!year )history of(?! present)"
    r"|known|previous(?:ly)?|diagnosed with)\b",
    re.IGNORECASE,
)


def _phrases(text: str, source: Source) -> Iterator[Finding]:
    for line in text.replace("_", " ").splitlines():
        past_line = source == "history" and _PAST_LINE.match(line)
        for clause in _CLAUSE.split(line):
            if _NOT_THE_PATIENT.search(clause) or _HYPOTHETICAL.search(clause):
                continue
            past = past_line or (source == "history" and _HISTORY.search(clause))
            concludes = source == "result" and _CONCLUDES.search(clause) is not None
            for meaning, present, words in _clause(clause):
                if source == "result" or not meaning.named:
                    yield Finding(
                        meaning.key, label_of(meaning.key), present, words, PAST if past else 1.0
                    )
                if (
                    concludes
                    and present
                    and (disease := disease_names().get(normalise(label_of(meaning.key))))
                ):
                    yield Finding(DISEASE + disease, disease, True, words)


def _clause(clause: str) -> Iterator[tuple[Meaning, bool, str]]:
    """(meaning, present, words) for every phrase of a clause, its segments read from left to right."""
    parts = _SEGMENT.split(clause)
    segments, separators = parts[0::2], [*parts[1::2], ""]
    negated = False
    for at, segment in enumerate(segments):
        if negated and (
            _AFFIRMS.search(segment)
            or not _carries(clause, separators[at - 1], segments[at:], separators[at:])
        ):
            negated = False
        cue = DENIAL.search(segment)
        follows = separators[at] == ":" and bool(DENIAL_AT_START.match(segments[at + 1]))
        late = DENIAL_AFTER.search(segment) is not None  # 'ascites was not seen'
        first, last = (
            (len(_words(segment[: cue.start()])), len(_words(segment[: cue.end()])))
            if cue
            else (LONGEST**3, LONGEST**3)
        )
        for start, end, words, meaning in _longest_matches(segment):
            spans = (
                start < last and end > first
            )  # the phrase has the negation in itself: 'absent reflexes', 'no appetite'
            yield meaning, spans or (end <= first and not (negated or follows or late)), words
        negated = negated or cue is not None


def _carries(clause: str, separator: str, rest: list[str], separators: list[str]) -> bool:
    """Whether a negation reaches over the last separator: 'denies fever, chills', 'no rash, fever
    or cough', 'no A or B'."""
    if DENIAL_OF_A_LIST.search(clause):
        return separator != ":"
    last_joint = next(
        (s for s in reversed([separator, *separators[: len(rest)]]) if s.strip().isalpha()), ""
    )
    return last_joint.lower() in ("or", "nor") and separator != ":"


def _words(segment: str) -> list[str]:
    return [word for word in normalise(segment).split() if word not in _STOP]


def _longest_matches(segment: str) -> Iterator[tuple[int, int, str, Meaning]]:
    """(first word, end, words, meaning) of the phrases in a segment, longest first at every word,
    in any order of their words."""
    book, words = phrase_book(), _words(segment)
    stems = [_stem(word) for word in words]
    at = 0
    while at < len(words):
        for length in range(min(LONGEST, len(words) - at), 0, -1):
            meaning = book.get(" ".join(sorted(stems[at : at + length])))
            if meaning:
                yield at, at + length, " ".join(words[at : at + length]), meaning
                at += length
                break
        else:
            at += 1
    for found in _ACRONYM.finditer(segment):
        if found[0] in acronyms():
            at = len(_words(segment[: found.start()]))
            yield at, at + 1, found[0], Meaning(DISEASE + acronyms()[found[0]], True)


_ACRONYM = re.compile(r"\b[A-Z][A-Za-z]*[A-Z]\b")


@cache
def acronyms() -> dict[str, str]:
    """'CLL' -> 'Chronic lymphocytic leukemia': names of diseases that are read in their own case
    only."""
    return {
        name: disease.name
        for disease in hypotheses()
        for name in disease.synonyms
        if _ACRONYM.fullmatch(name) and len(name) < 6
    }


# --- laboratory values and whole results ------------------------------------------------


def _labs(text: str, source: Source, adult: bool) -> Iterator[Finding]:
    for line in text.splitlines():
        weight = (
            PAST
            if source == "history" and (_PAST_LINE.match(line) or _HISTORY.search(line))
            else 1.0
        )
        for finding in _labs_of_line(line, adult):
            yield replace(finding, weight=weight)


def _labs_of_line(line: str, adult: bool) -> Iterator[Finding]:
    for lab in lab_statuses(line):
        if (
            lab.analyte.test == "Vital signs"
            and not adult
            and lab.analyte.name not in ("Temperature",)
        ):
            continue  # the table's pulse and pressure are adults'
        for name, meaning in ((lab.analyte.low_finding, "low"), (lab.analyte.high_finding, "high")):
            if name:
                key = key_of(name)
                yield Finding(key, label_of(key), lab.status == meaning, lab.evidence)


_NORMAL = re.compile(
    r"\b(?:normal|unremarkable|negative|clear|no (?:acute |significant |evidence|abnormal\w*|masses|fractures?|lesions?|growth|signs?))\b",
    re.I,
)
_ABNORMAL = re.compile(
    r"\b(?:abnormal(?!ities)|elevated|positive|increased|decreased|enlarged|suggest\w*|consistent with|reveals)\b",
    re.I,
)


def findings_in_result(
    test: TestEntry | None, name: str, text: str, adult: bool = True
) -> tuple[Finding, ...]:
    """What a documented result says. A wholly normal one also says that what the test shows is
    absent."""
    found = findings_in(f"{name}: {text}", "result", adult)
    if (
        test is None
        or any(finding.present for finding in found)
        or not _NORMAL.search(text)
        or _ABNORMAL.search(text)
    ):
        return found
    known = {finding.key for finding in found}
    implied = (key_of(shown) for shown in test.finds if normalise(shown) not in symptoms())
    evidence = f"{name} normal"
    return (
        *found,
        *(
            Finding(key, label_of(key), False, evidence, IMPLIED)
            for key in dict.fromkeys(implied)
            if key not in known
        ),
    )


def most_specific(findings: Iterable[Finding]) -> list[Finding]:
    """Of present findings on one line of descent only the most specific: 'Polyarticular arthritis'
    says 'Arthritis' already.

    Absent findings: only the most general, for the same reason.
    """
    found = list(findings)
    keys = {(finding.key, finding.present) for finding in found}
    return [finding for finding in found if not _implied_by_another(finding, keys)]


def _implied_by_another(finding: Finding, keys: set[tuple[str, bool]]) -> bool:
    if finding.present:
        return any(
            present and finding.key in ancestors(key) for key, present in keys if key != finding.key
        )
    return any((ancestor, False) in keys for ancestor in ancestors(finding.key))


@cache
def ancestors(key: str) -> frozenset[str]:
    """All ancestors of an HPO term, without itself and the root; empty for a disease."""
    term = load_hpo().phenotypes.get(key)
    parents = [parent for parent in term.parents if parent != ROOT] if term else []
    return frozenset(parents).union(*(ancestors(parent) for parent in parents))
