"""The offline judge on pairs of names out of the open disease graph: unrelated diseases and
siblings (of one parent, not of one another) must be wrong, synonyms right.

Run as: python -m benchmarks.name_pairs [--pairs N]. Diseases are drawn by the SHA-256 of their
names; no rule and no coefficient was fitted to these pairs.
"""

import argparse
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

from medaction.evaluation.diagnoses import likeness
from medaction.evaluation.scores import hit_share
from medaction.kg.encoder import load_encoder
from medaction.kg.hierarchy import kinship, parents_of
from medaction.kg.linking import Linker
from medaction.trajectories.scoring import disease_linker
from medaction.words.names import normalise

Pair = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=500, help="of each kind")
    options = parser.parse_args()
    linker, encode = disease_linker(), load_encoder().encode
    for kind, pairs in {
        "unrelated": unrelated(linker),
        "siblings": siblings(linker),
        "synonyms": synonyms(linker),
    }.items():
        chosen = list(islice(pairs, options.pairs))
        right = [bool(likeness(stated, [true], linker, encode)) for stated, true in chosen]
        print(f"{kind}: {hit_share(right):.3f} of {len(chosen)} count as right")
        surprising = [pair for pair, is_right in zip(chosen, right, strict=True) if is_right]
        if kind != "synonyms":
            print("\n".join(f"  {stated} | {true}" for stated, true in surprising[:40]))


def unrelated(linker: Linker) -> Iterator[Pair]:
    """Neighbours in the order of the draw, of which neither is a kind of the other."""
    nodes = _drawn(linker)
    for node, other in zip(nodes[::2], nodes[1::2], strict=False):
        if kinship(linker, node, other) == "apart":
            yield linker.names_of(node)[0], linker.names_of(other)[0]


def siblings(linker: Linker) -> Iterator[Pair]:
    """A disease and the first other one of a parent of both."""
    children = defaultdict(list)
    parents = parents_of(linker)
    for node in _drawn(linker):
        for parent in sorted(parents.get(node, ())):
            children[parent].append(node)
    for nodes in children.values():
        if len(nodes) > 1 and kinship(linker, nodes[0], nodes[1]) == "apart":
            yield linker.names_of(nodes[0])[0], linker.names_of(nodes[1])[0]


def synonyms(linker: Linker) -> Iterator[Pair]:
    """The name of a disease and a synonym that other nodes do not bear."""
    for node in _drawn(linker):
        name, *others = linker.names_of(node)
        for other in others:
            if normalise(other) != normalise(name) and linker.bearer(other) == node:
                yield other, name
                break


def _drawn(linker: Linker) -> list[int]:
    """The nodes of diseases that a text can be linked to, in an order by chance but always the
    same."""
    nodes = linker.graph.nodes
    rows = nodes.filter(nodes["node_type"] == "disease").select("node", "name").iter_rows()
    named = [(name, node) for node, name in rows if linker.bearer(name) == node]
    return [node for _, node in sorted(named, key=lambda pair: _draw(pair[0]))]


def _draw(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


if __name__ == "__main__":
    main()
