"""Free clinical text to findings: HPO terms present or absent, and diseases that a result names.

Two readers share one text: phrases (longest match over HPO labels, synonyms and lay words, with
negation in the manner of NegEx), and laboratory values (kg/data/analytes.csv).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from medaction.clinicians.graph.analytes import TABLES, analytes, cue, levels
from medaction.clinicians.graph.hypotheses import DISEASE, disease_names
from medaction.kg.hpo import ROOT, load_hpo, phenotype_ids
from medaction.kg.tables import rows
from medaction.words.names import normalise
from medaction.words.negation import DENIAL, DENIAL_AFTER, DENIAL_AT_START, DENIAL_OF_A_LIST
from medaction.words.plurals import singular

LONGEST_PHRASE = 7
"""Words of the longest phrase that is looked up."""

PAST = 0.25
"""Weight of a finding of the past history, which need not belong to the present illness. With the
weight 1, 3 to 4 of 100 diagnoses are lost (AgentClinic, 104 cases, 4 seeds)."""

STOP_WORDS = frozenset(
    """of the a an in on to with at his her their my is are was were be been has had have some
    very""".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. `key`: HPO id, or DISEASE + name. `weight`: 0..1."""

    key: str
    present: bool
    weight: float = 1.0

    @property
    def label(self) -> str:
        return name_of_key(self.key)


def name_of_key(key: str) -> str:
    """The finding's name as a reader wants it."""
    return key.removeprefix(DISEASE) if key.startswith(DISEASE) else load_hpo().phenotypes[key].name


@cache
def key_of(name: str) -> str:
    """The key of an HPO label or synonym, else of a disease. Raises KeyError."""
    plain = normalise(name)
    return phenotype_ids().get(plain) or DISEASE + disease_names()[plain]


@lru_cache(maxsize=4096)
def findings_in(text: str, is_result: bool = False) -> tuple[Finding, ...]:
    """What the text says, each key once: laboratory values win over phrases, and present wins over
    absent.

    A disease's name counts in a result ('consistent with Crohn disease'), not in a history
    ('treated for Crohn disease'). A result is 'name: text'; its name is a phrase too ('Rubella IgM:
    positive').
    """
    findings: dict[str, Finding] = {}
    # Values behind phrases: of equal ones the later wins.
    for finding in (*_phrases(text, is_result), *_findings_of_values(text, is_result)):
        before = findings.get(finding.key)
        if not before or (finding.present, finding.weight) >= (before.present, before.weight):
            findings[finding.key] = finding
    return tuple(findings.values())


@cache
def phrase_book() -> dict[str, tuple[str, bool]]:
    """Sorted singular words of a phrase -> its key, and whether it is a disease's own name, which
    in a history is no evidence. Signs and lay words win over HPO's labels, those over diseases."""
    # 'Murphy sign', 'Antinuclear antibody'
    signs = {name: sign for sign in analytes() if sign.is_sign for name in sign.names}
    lay_words = rows(TABLES / "lay_words.csv", ["phrase", "finding"])
    entries = [(normalise(name), key_of(sign.high_finding), False) for name, sign in signs.items()]
    entries += [(normalise(row["phrase"]), key_of(row["finding"]), False) for _, row in lay_words]
    entries += [(name, key, False) for name, key in phenotype_ids().items() if key != ROOT]
    # an abbreviation of a disease may mean something else
    diseases = ((name, disease) for name, disease in disease_names().items() if len(name) > 4)
    entries += [(name, DISEASE + disease, True) for name, disease in diseases]
    # Labels of HPO that in running text mostly mean something else: 'growth', 'drop', 'acute'.
    too_general = set((TABLES / "too_general.txt").read_text(encoding="utf-8").splitlines())
    book: dict[str, tuple[str, bool]] = {}
    for phrase, key, is_disease in entries:
        words = _singular_words(phrase)
        if 0 < len(words) <= LONGEST_PHRASE and phrase not in too_general:
            # Sorted: 'pain in the abdomen' is 'abdomen pain' in another order. The first one wins.
            book.setdefault(" ".join(sorted(words)), (key, is_disease))
    return book


def _singular_words(text: str) -> list[str]:
    return [singular(word) for word in normalise(text).split() if word not in STOP_WORDS]


_CLAUSE_BORDER = re.compile(r"(?<!\b[A-Z])(?<!\bvs)\.(?=\s|$)|[;\n!?]")
_SEGMENT_BORDER = re.compile(r"([,:()/]|\s-\s|\b(?:and|or|nor|as well as|plus)\b)", re.I)
# 'A two-week history of cough' is the present illness.
_PRESENT_HISTORY = re.compile(r"(?:hour|day|week|month|year)s? history of|history of present", re.I)


def _weight(clause: str, is_result: bool) -> float:
    # In a result nothing is past: it was measured now.
    is_past = not is_result and cue("past").search(_PRESENT_HISTORY.sub("", clause))
    return PAST if is_past else 1.0


def _phrases(text: str, is_result: bool) -> Iterator[Finding]:
    for clause in _CLAUSE_BORDER.split(text.replace("_", " ")):
        # 'Unremarkable' and the like: words of it would be findings.
        if not cue("no finding").search(clause):
            for key, is_disease, present in _clause(clause):
                if is_result or not is_disease:
                    yield Finding(key, present, _weight(clause, is_result))


def _clause(clause: str) -> Iterator[tuple[str, bool, bool]]:
    """(key, whether it is a disease's own name, present) for every phrase of a clause, its segments
    read from left to right."""
    pieces = _SEGMENT_BORDER.split(clause)
    segments, borders = pieces[::2], [border.strip().lower() for border in pieces[1::2]]
    # 'Denies fever, chills', 'no A, B or C'; not 'no fever, cough for two weeks'.
    carries = DENIAL_OF_A_LIST.search(clause) or not {"or", "nor"}.isdisjoint(borders)
    negated = False
    for at, segment in enumerate(segments):
        # Across a colon or past 'but' nothing is denied any more.
        affirms = cue("affirmation").match(segment.strip()) or borders[at - 1 : at] == [":"]
        negated = negated and bool(carries) and not affirms
        negation = DENIAL.search(segment)
        # 'Wheezing: none', 'ascites was not seen'
        tail = segments[at + 1].strip() if borders[at : at + 1] == [":"] else ""
        excluded = DENIAL_AT_START.match(tail) or DENIAL_AFTER.search(segment)
        words = _singular_words(segment)
        # Counted in words of the segment, as matches are.
        before = len(_singular_words(segment[: negation.start()])) if negation else len(words)
        after = len(_singular_words(segment[: negation.end()])) if negation else len(words)
        for start, end, (key, is_disease) in _longest_phrases(words):
            holds_negation = start < after and end > before  # 'absent reflexes', 'no appetite'
            affirmed = end <= before and not (negated or excluded)
            yield key, is_disease, bool(negation and holds_negation) or affirmed
        negated = negated or negation is not None


def _longest_phrases(words: list[str]) -> Iterator[tuple[int, int, tuple[str, bool]]]:
    """(start, end, entry) of the phrases of the book, from left to right, the longest first at
    every word."""
    start = 0
    while start < len(words):
        for end in range(min(start + LONGEST_PHRASE, len(words)), start, -1):
            if entry := phrase_book().get(" ".join(sorted(words[start:end]))):
                yield start, end, entry
                start = end
                break
        else:
            start += 1


def _findings_of_values(text: str, is_result: bool) -> Iterator[Finding]:
    for line in text.splitlines():
        for analyte, level in levels(line):
            for name, meaning in ((analyte.low_finding, "low"), (analyte.high_finding, "high")):
                if name:
                    # Both directions: a normal value denies the high and the low finding.
                    yield Finding(key_of(name), level == meaning, _weight(line, is_result))
