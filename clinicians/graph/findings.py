"""Free clinical text to findings: HPO terms present or absent, and diseases that a result names.

Two readers share one text: phrases (longest match over HPO labels, synonyms and lay words, with
negation in the manner of NegEx), and laboratory values (kg/data/analytes.csv).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from medaction.clinicians.graph.analytes import analytes, lab_statuses
from medaction.clinicians.graph.cues import DATA, cue
from medaction.clinicians.graph.hypotheses import disease_names, hypotheses, phenotype_ids
from medaction.kg.hpo import ROOT, load_hpo
from medaction.kg.tables import rows
from medaction.words.names import normalise
from medaction.words.negation import DENIAL, DENIAL_AFTER, DENIAL_AT_START, DENIAL_OF_A_LIST

LONGEST = 7
"""Words of the longest phrase that is looked up."""

PAST = 0.25
"""Weight of a finding of the past history, which need not belong to the present illness. With the
weight 1, 3 to 4 of 100 diagnoses are lost (AgentClinic, 104 cases, 4 seeds)."""

DISEASE = "disease:"
"""Prefix of the key of a finding that names a disease: 'disease:Hodgkin lymphoma'."""

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "of the a an in on to with at his her their is are was were be been has had have some very"
        " my",
    )
)

Source = Literal["history", "result"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `key`: HPO id, or DISEASE + name. `weight`: 0..1."""

    key: str
    present: bool
    weight: float = 1.0

    @property
    def label(self) -> str:
        return label_of(self.key)


def label_of(key: str) -> str:
    """The finding's name as a reader wants it."""
    return key.removeprefix(DISEASE) if key.startswith(DISEASE) else load_hpo().phenotypes[key].name


@cache
def key_of(name: str, place: str = "") -> str:
    """The key of an HPO label or synonym, else of a disease. Raises ValueError."""
    plain = normalise(name)
    if plain in phenotype_ids():
        return phenotype_ids()[plain]
    if plain in disease_names():
        return DISEASE + disease_names()[plain]
    raise ValueError(f"{place}: neither HPO nor the diseases know {name!r}")


@cache
def ancestors(key: str) -> frozenset[str]:
    """All ancestors of an HPO term, without itself and the root; empty for a disease."""
    term = load_hpo().phenotypes.get(key)
    parents = [parent for parent in term.parents if parent != ROOT] if term else []
    return frozenset(parents).union(*(ancestors(parent) for parent in parents))


@lru_cache(maxsize=4096)
def findings_in(text: str, source: Source = "history", adult: bool = True) -> tuple[Finding, ...]:
    """What the text says, each key once: laboratory values win over phrases, and present wins over
    absent.

    A disease's name counts in a result ('consistent with Crohn disease'), not in a history
    ('treated for Crohn disease'). A result is 'name: text'; its name is a phrase only if the text
    is a mere status ('Rubella IgM: positive').
    """
    findings: dict[str, Finding] = {}
    words = text
    if source == "result":
        result = text.partition(":")[2]
        words = text if _is_status(result) else result
    for finding in (*_phrases(words, source), *_labs(text, source, adult)):
        before = findings.get(finding.key)
        if not before or (finding.present, finding.weight) >= (before.present, before.weight):
            findings[finding.key] = finding
    return tuple(findings.values())


def _is_status(result: str) -> bool:
    """'Positive', 'strongly positive'; an adverb may go before."""
    status = cue("status").search(result)
    before = result[: status.start()].split() if status else []
    return status is not None and (not before or (len(before) == 1 and before[0].endswith("ly")))


# --- the phrase book ---------------------------------------------------------------------


@cache
def phrase_book() -> dict[str, tuple[str, bool]]:
    """Sorted stemmed words of a phrase -> its key, and whether it is a disease's own name, which in
    a history is no evidence. Signs and lay words win over HPO's labels, those over diseases."""
    path = DATA / "lay_words.csv"
    book: dict[str, tuple[str, bool]] = {}
    entries: list[tuple[str, str, bool]] = []
    for sign in analytes():
        if sign.is_sign:  # 'Murphy sign', 'Antinuclear antibody'
            key = key_of(sign.high_finding, sign.name)
            entries += [(normalise(name), key, False) for name in (sign.name, *sign.synonyms)]
    for line, row in rows(path, ["phrase", "finding"]):
        key = key_of(row["finding"], f"{path}:{line}")
        entries.append((normalise(row["phrase"]), key, False))
    entries += [(name, key, False) for name, key in phenotype_ids().items()]
    entries += [(name, DISEASE + disease, True) for name, disease in disease_names().items()]
    # labels that in running text mostly mean something else
    too_general = set((DATA / "too_general.txt").read_text(encoding="utf-8").splitlines())
    for phrase, key, is_disease in entries:
        words = _stems(phrase.split())
        is_short = is_disease and len(phrase) <= 4
        if 0 < len(words) <= LONGEST and phrase not in too_general and not is_short and key != ROOT:
            book.setdefault(" ".join(sorted(words)), (key, is_disease))
    return book


def _stems(words: Iterable[str]) -> list[str]:
    return [_stem(word) for word in words if word not in STOP_WORDS]


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-3] + "y" if word.endswith("ies") else word[:-1]
    return word


@cache
def acronyms() -> dict[str, str]:
    """'CLL' -> 'Chronic lymphocytic leukemia': names of diseases that are read in their own case
    only."""
    names = ((name, disease.name) for disease in hypotheses() for name in disease.synonyms)
    return {
        name: disease for name, disease in names if len(name) < 6 and name[1:] != name.lower()[1:]
    }


# --- phrases in text ---------------------------------------------------------------------

_SENTENCE_END = re.compile(r"(?<!\b[A-Z])(?<!\bvs)\.(?=\s|$)|[;\n!?]")
_PUNCTUATION = re.compile(r"[,:()/]|\s-\s")
_PAST_LINE = re.compile(
    r"\s*(?:past|medical|surgical|social|obstetric\w*|other)\b[^:]*history\s*:", re.I
)
_PRESENT_HISTORY = re.compile(r"(?:hour|day|week|month|year)s? history of|history of present", re.I)


def _is_past(clause: str) -> bool:
    return cue("past").search(_PRESENT_HISTORY.sub("", clause)) is not None


def _phrases(text: str, source: Source) -> Iterator[Finding]:
    for line in text.replace("_", " ").splitlines():
        past_line = source == "history" and _PAST_LINE.match(line)
        sentences = _SENTENCE_END.split(line)
        for clause in (part for sentence in sentences for part in cue("contrast").split(sentence)):
            if cue("other person").search(clause) or cue("hypothesis").search(clause):
                continue
            past = past_line or (source == "history" and _is_past(clause))
            concludes = source == "result" and cue("conclusion").search(clause)
            for key, is_disease, present in _clause(clause):
                if source == "result" or not is_disease:
                    yield Finding(key, present, PAST if past else 1.0)
                # 'consistent with testicular torsion': a finding that is a disease's name, too
                disease = disease_names().get(normalise(label_of(key)))
                if concludes and present and disease:
                    yield Finding(DISEASE + disease, True)


def _clause(clause: str) -> Iterator[tuple[str, bool, bool]]:
    """(key, whether it is a disease's own name, present) for every phrase of a clause, its segments
    read from left to right."""
    segments, separators = _segments(clause)
    negated = False
    for at, segment in enumerate(segments):
        affirms = cue("affirmation").match(segment.strip())
        if negated and (affirms or not _carries(clause, separators[at - 1 :])):
            negated = False
        negation = DENIAL.search(segment)
        # 'Wheezing: none', 'ascites was not seen'
        tail = segments[at + 1].strip() if separators[at] == ":" else ""
        excluded = DENIAL_AT_START.match(tail) or DENIAL_AFTER.search(segment)
        before = len(_words(segment[: negation.start()])) if negation else LONGEST**3
        after = len(_words(segment[: negation.end()])) if negation else LONGEST**3
        for start, end, key, is_disease in _matches(segment):
            holds_negation = start < after and end > before  # 'absent reflexes', 'no appetite'
            affirmed = end <= before and not (negated or excluded)
            yield key, is_disease, holds_negation or affirmed
        negated = negated or negation is not None


def _segments(clause: str) -> tuple[list[str], list[str]]:
    """The parts of a clause between punctuation and conjunctions, and what follows each of them."""
    marks = sorted(
        [*_PUNCTUATION.finditer(clause), *cue("joint").finditer(clause)], key=lambda m: m.start()
    )
    starts = [0, *(mark.end() for mark in marks)]
    ends = [*(mark.start() for mark in marks), len(clause)]
    segments = [clause[start:end] for start, end in zip(starts, ends, strict=True)]
    return segments, [*(mark[0].strip().lower() for mark in marks), ""]


def _carries(clause: str, separators: list[str]) -> bool:
    """Whether a negation reaches over the first separator: 'denies fever, chills', 'no rash, fever
    or cough', 'no A or B'; not 'no fever, cough for two weeks'."""
    if separators[0] == ":":
        return False
    if DENIAL_OF_A_LIST.search(clause):
        return True
    last_joint = next((mark for mark in reversed(separators) if mark.isalpha()), "")
    return last_joint in ("or", "nor")


def _words(segment: str) -> list[str]:
    return [word for word in normalise(segment).split() if word not in STOP_WORDS]


def _matches(segment: str) -> Iterator[tuple[int, int, str, bool]]:
    """(first word, end, key, whether it is a disease's own name) of the phrases in a segment, the
    longest first at every word, in any order of their words."""
    book, words = phrase_book(), _words(segment)
    stems = [_stem(word) for word in words]
    at = 0
    while at < len(words):
        for length in range(min(LONGEST, len(words) - at), 0, -1):
            entry = book.get(" ".join(sorted(stems[at : at + length])))
            if entry:
                yield at, at + length, *entry
                at += length
                break
        else:
            at += 1
    for word in re.finditer(r"\w+", segment):
        if word[0] in acronyms():
            at = len(_words(segment[: word.start()]))
            yield at, at + 1, DISEASE + acronyms()[word[0]], True


def _labs(text: str, source: Source, adult: bool) -> Iterator[Finding]:
    for line in text.splitlines():
        past = source == "history" and (_PAST_LINE.match(line) or _is_past(line))
        for analyte, status in lab_statuses(line):
            if analyte.test == "Vital signs" and analyte.name != "Temperature" and not adult:
                continue  # the table's pulse and pressure are adults'
            for name, meaning in ((analyte.low_finding, "low"), (analyte.high_finding, "high")):
                if name:
                    yield Finding(key_of(name), status == meaning, PAST if past else 1.0)
