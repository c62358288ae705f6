"""What is a kind of what: the trees of HPO and ICD-10-CM laid over the nodes of a graph.

An edge of the graph alone does not say so: it also joins a disease with its findings and with its
namesakes.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Literal

from medaction.kg.hpo import load_hpo
from medaction.kg.icd import load_icd
from medaction.kg.linking import Linker

STEPS = 3
"""Steps up a tree that are followed (our choice). Farther up stand chapters and organ systems,
of which nearly everything is a kind."""

Kinship = Literal["same", "broader", "narrower", "apart"]


@lru_cache(maxsize=4)
def parents_of(linker: Linker) -> Mapping[int, frozenset[int]]:
    """Node -> the nodes right above it, of the nodes that bear the names of terms and codes."""
    parents = defaultdict(set)
    for name, name_above in _edges():
        node, parent = linker.bearer(name), linker.bearer(name_above)
        if node is not None and parent is not None and node != parent:  # namesakes are one node
            parents[node].add(parent)
    return {node: frozenset(nodes) for node, nodes in parents.items()}


def _edges() -> Iterator[tuple[str, str]]:
    terms, codes = load_hpo().phenotypes, load_icd()
    for term in terms.values():
        yield from ((term.name, terms[parent].name) for parent in term.parents)
    for code in codes.values():
        if code.parent is not None:
            yield code.name, codes[code.parent].name


def above(linker: Linker, node: int) -> frozenset[int]:
    """The nodes at most STEPS above a node, without itself."""
    parents = parents_of(linker)
    ancestors: frozenset[int] = frozenset()
    rim = frozenset([node])
    for _ in range(STEPS):
        # What was met before is not followed again: HPO's terms have several parents.
        rim = frozenset().union(*(parents.get(child, ()) for child in rim)) - ancestors
        ancestors |= rim
    # Two trees laid over each other may close a ring, and a node stand above itself.
    return ancestors - {node}


def kinship(linker: Linker, node: int, other: int) -> Kinship:
    """What `node` is to `other`: 'broader' where `other` is a kind of it."""
    if node == other:
        return "same"
    if node in above(linker, other):
        return "broader"
    return "narrower" if other in above(linker, node) else "apart"
