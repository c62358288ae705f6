"""Names that the open graphs lend to a graph that brings few of its own: PrimeKG has one name a
node."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache

from medaction.kg.graph import Graph
from medaction.kg.open_graphs import open_test_graph
from medaction.kg.readings import bag, is_wider
from medaction.words.names import normalise

_KIND_OF_DISEASE = re.compile(r" \((disease|disorder|syndrome)\)$")
ICD = "ICD-10-CM"
"""The source of nodes whose other names are inclusion terms: what a code is used for, too."""
_CLASS = re.compile(r" (disease|syndrome|disorder|disease or disorder)$")


def lent_names(graph: Graph, labels: Mapping[str, int], test: bool) -> Iterator[tuple[str, int]]:
    """(normalised name, node of `graph`) for nodes that are called like a node of the open graphs,
    which has more names.

    labels: normalised label -> node, of the nodes that are linked to. test: whether these are
    tests. A set of names that several nodes of `graph` bear is lent to the one that bears its first
    name, else to none; and never to a special case of that first name: dengue is no dengue
    haemorrhagic fever.
    """
    for names in _names_of_one_thing(test):
        # names[0] is the label there: who bears it is that thing, whatever else bears a synonym.
        if (node := labels.get(names[0])) is None:
            # PrimeKG may call the thing by what is a synonym here.
            bearers = {labels[name]: name for name in names if name in labels}
            if len(bearers) != 1:
                continue
            ((node, bearer),) = bearers.items()
            if bag(names[0]) < bag(bearer):
                continue
        yield from ((name, node) for name in names if name not in labels)


@cache
def _names_of_one_thing(test: bool) -> tuple[tuple[str, ...], ...]:
    """The names of each node of the open test graph that has several, the label first: of tests, or
    of all others."""
    graph = open_test_graph()
    names = defaultdict(list)
    filed = set()
    columns = ("node", "node_type", "name", "source")
    for node, kind, label, source in graph.nodes.select(columns).iter_rows():
        if (kind == "test") is test:
            names[node].append(normalise(label))
            if source == ICD:
                filed.add(node)
    for node, name in graph.names.iter_rows():
        if node in names:
            name = normalise(name)
            # What ICD-10-CM files under a narrower code is no other name of it.
            if node not in filed or not is_wider(name, names[node][0]):
                names[node].append(name)
    return tuple(tuple(dict.fromkeys(of)) for of in names.values() if len(set(of)) > 1)


def plain_labels(name: str) -> Iterator[str]:
    """A label as it stands, and without the '(disease)' that MONDO puts behind names that are
    findings too; both normalised.

    >>> list(plain_labels("amblyopia (disease)"))
    ['amblyopia disease', 'amblyopia']
    """
    yield from dict.fromkeys((normalise(name), normalise(_KIND_OF_DISEASE.sub("", name))))


def other_class(name: str) -> Iterator[str]:
    """A normalised name as an eponym is also used: 'bartter disease' for 'bartter syndrome', and
    back.

    >>> list(other_class("bartter syndrome"))
    ['bartter disease', 'bartter disorder', 'bartter']
    """
    stem = _CLASS.sub("", name)
    endings = (" disease", " syndrome", " disorder", "")
    # A long name without a class is a description; 'bartter' or 'von gierke' is an eponym.
    if stem and (stem != name or len(stem.split()) <= 2):
        yield from (stem + ending for ending in endings if stem + ending != name)
