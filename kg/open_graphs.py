"""The two graphs that need no download: diseases and phenotypes for DTC, the same with tests for
RAC.

Built from packages that carry their data (HPO, ICD-10-CM, Synthea) and from tables written for this
project. They stand in for PrimeKG and ClinGraph, which the paper measures on, and are neither:
figures measured here compare with each other only.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from medaction.kg.cache import cache_folder
from medaction.kg.graph import NODE_COLUMNS, Graph, build_graph, load_graph, save_graph
from medaction.kg.hpo import Hpo, load_hpo, phenotype_ids
from medaction.kg.icd import load_icd
from medaction.kg.observed import Observed, read_loinc2hpo, read_maxo
from medaction.kg.readings import bag
from medaction.kg.synthea import load_reasons
from medaction.kg.tables import ALIASES, COMMON_DISEASES, BadTable, aliases, common_diseases
from medaction.kg.tests_table import PATH as TESTS
from medaction.kg.tests_table import tests_table
from medaction.words.names import normalise
from medaction.words.versions import code_of, constants_of, version_of

log = logging.getLogger("medaction")

BUILDERS = tuple(
    f"medaction.{module}"
    for module in (
        *("kg.open_graphs", "kg.graph", "kg.hpo", "kg.icd", "kg.observed", "kg.packages"),
        *("kg.readings", "kg.synthea", "kg.tables", "kg.tests_table", "words.names"),
        *("words.phrases", "words.plurals", "words.tests"),
    )
)
"""The modules that make a graph of them."""
MAX_SAME_NAME = 6
"""A synonym that more nodes share than this names a family ('Leukodystrophy'), not one thing, and
makes no edge."""


@dataclass(frozen=True, slots=True)
class Entity:
    """One entry of one source, before entries of the same name become one node."""

    id: str
    type: str
    name: str
    synonyms: tuple[str, ...]
    source: str


@dataclass(slots=True)
class Catalogue:
    """Nodes under construction. Entries whose names mean the same are one node, named and typed
    after the first of them."""

    same: dict[str, str]
    rows: list[dict[str, object]] = field(default_factory=list)
    by_id: dict[str, int] = field(default_factory=dict)
    by_key: dict[str, int] = field(default_factory=dict)
    synonyms: list[tuple[int, str]] = field(default_factory=list)

    def add(self, entity: Entity) -> None:
        name = _key(entity.type, entity.name)
        # Under the one name that stands for all that mean the same: a later entry joins this node.
        node = self.by_key.setdefault(self.same.get(name, name), len(self.rows))
        if node == len(self.rows):
            self.rows.append(
                {
                    "node": node,
                    "node_id": entity.id,
                    "node_type": entity.type,
                    "name": entity.name,
                    "source": entity.source,
                }
            )
        self.by_id[entity.id] = node
        label = normalise(str(self.rows[node]["name"]))
        names = (entity.name, *entity.synonyms)
        # `entity.name`, too, is another name where the entry joined a node of another label.
        self.synonyms += [(node, alias) for alias in names if normalise(alias) not in ("", label)]

    def add_aliases(self, type_: str) -> None:
        """Give the curated aliases of diseases or of tests to the nodes they name. Raises BadTable
        for an unknown name."""
        names = self.names()
        for entry in aliases():
            if entry.type == type_:
                nodes = names.get(_key(type_, entry.name))
                if not nodes:
                    raise BadTable(ALIASES, entry.line, f"no {type_} is called {entry.name!r}")
                self.synonyms.append((nodes[0], entry.alias))

    def names(self) -> dict[str, list[int]]:
        """Key of a name -> the nodes that bear it: the one whose label it is, then others in the
        order of the nodes."""
        types = [str(row["node_type"]) for row in self.rows]
        nodes_by_name = defaultdict(
            list,
            {_key(types[node], str(row["name"])): [node] for node, row in enumerate(self.rows)},
        )
        for node, synonym in sorted(self.synonyms):
            nodes = nodes_by_name[_key(types[node], synonym)]
            if node not in nodes:
                nodes.append(node)
        return nodes_by_name


def _key(type_: str, name: str) -> str:
    """'Calcitonin' the test is no phenotype's namesake, so tests have names of their own."""
    return f"test: {normalise(name)}" if type_ == "test" else normalise(name)


def same_names() -> dict[str, str]:
    """Normalised name -> one that stands for all that mean the same, by the common diseases'
    synonyms and the aliases.

    'Whooping cough' in ICD-10-CM is then the curated 'Pertussis', and a hypothesis in either name
    has DTC 0 to the other. Two common diseases never become one: a synonym that would join them is
    left out.
    """
    from scipy.cluster.hierarchy import (
        DisjointSet,  # takes half a second, and only builders need it
    )

    pairs = [(synonym, common.name) for common in common_diseases() for synonym in common.synonyms]
    pairs += [(entry.alias, entry.name) for entry in aliases() if entry.type == "disease"]
    sets = DisjointSet(normalise(name) for pair in pairs for name in pair)
    owners = {normalise(common.name): normalise(common.name) for common in common_diseases()}
    for a, b in pairs:
        names_a, names_b = sets[normalise(a)], sets[normalise(b)]
        owner = {owners[root] for root in (names_a, names_b) if root in owners}
        # Two owners are two common diseases: joined, a wrong diagnosis would have DTC 0.
        if len(owner) < 2:
            sets.merge(names_a, names_b)
            # The merged set may have a new root, under which its owner is looked up.
            owners.update((sets[names_a], name) for name in owner)
    return {name: sets[name] for name in sets}


@cache
def open_disease_graph() -> Graph:
    """Diseases (HPO's rare ones, ICD-10-CM, common ones) and phenotypes. Built on first use, then
    read from the cache."""
    return _open("diseases")


@cache
def open_test_graph(maxo: Path | None = None, loinc2hpo: Path | None = None) -> Graph:
    """The disease graph with the same node numbers, and tests with what they show and confirm.
    Cached likewise.

    maxo, loinc2hpo: folders of these two sources' files (`medaction.kg.observed`), whose tests are
    added. Raises what their readers do.
    """
    if maxo is None and loinc2hpo is None:
        return _open("tests")
    observed = (read_maxo(maxo) if maxo else []) + (read_loinc2hpo(loinc2hpo) if loinc2hpo else [])
    folder = cache_folder() / cache_key() / f"tests-{version_of(observed)}"
    if not folder.is_dir():
        save_graph(with_observed(open_test_graph(), observed), folder)
    return load_graph(folder)


@cache
def cache_key() -> str:
    """Under which the built graphs are kept: the constants, tables and checksums of packages' files
    that they are made of, and the code that makes them. It identifies no result: a graph's version
    is its content."""
    return version_of([constants_of(*BUILDERS), code_of(*BUILDERS)])


def _open(name: str) -> Graph:
    folder = cache_folder() / cache_key()
    if not (folder / name).is_dir():
        _build(folder)
    return load_graph(folder / name)


def _build(folder: Path) -> None:
    start = time.perf_counter()
    log.info("building the open disease and test graphs (once; kept in %s)", folder)
    catalogue = Catalogue(same_names())
    # Sources come in the order that names a node: the first entry of a name labels it.
    for entity in disease_entities():
        catalogue.add(entity)
    # After all entries, since an alias has to name one of them.
    catalogue.add_aliases("disease")
    # Before the tests: the diseases that tests confirm are looked up among diseases alone.
    names = catalogue.names()
    edges = [
        *_common_edges(catalogue),
        *_hpo_edges(load_hpo(), catalogue),
        *_icd_edges(catalogue),
        *_same_name_edges(names),
    ]
    diseases = _graph("open-diseases", "HPO, ICD-10-CM and common diseases", catalogue, edges)
    save_graph(diseases, folder / "diseases")
    # The tests come after all diseases, so that both graphs have the same node numbers.
    for entity in curated_tests():
        catalogue.add(entity)
    catalogue.add_aliases("test")
    edges += [*_test_edges(catalogue, names), *_reason_edges(catalogue, names)]
    description = "the open disease graph with curated tests and Synthea reasons"
    tests = _graph("open-tests", description, catalogue, edges)
    save_graph(tests, folder / "tests")
    log.info(
        "built %d nodes and %d edges in %.1f s",
        tests.nodes.height,
        tests.edges.height,
        time.perf_counter() - start,
    )


def _graph(
    name: str, description: str, catalogue: Catalogue, edges: Iterable[tuple[int, int]]
) -> Graph:
    import polars as pl

    nodes = pl.DataFrame(catalogue.rows, schema_overrides={"node": pl.Int64}).select(NODE_COLUMNS)
    return build_graph(name, nodes, edges, catalogue.synonyms, description=description)


def disease_entities() -> Iterator[Entity]:
    """All diseases, then all phenotypes, so that a finding with a disease's name becomes that
    disease."""
    # Curated names come first: what a clinician writes is then the label.
    for common in common_diseases():
        yield Entity(
            f"COMMON:{normalise(common.name)}", "disease", common.name, common.synonyms, "curated"
        )
    for disease, name in load_hpo().diseases.items():
        yield Entity(disease, "disease", name, (), "HPO")
    for code in load_icd().values():
        yield Entity(f"ICD10CM:{code.code}", "disease", code.name, code.synonyms, "ICD-10-CM")
    for term in load_hpo().phenotypes.values():
        yield Entity(term.id, "phenotype", term.name, term.synonyms, "HPO")


def curated_tests() -> Iterator[Entity]:
    for test in tests_table():
        yield Entity(f"TEST:{normalise(test.name)}", "test", test.name, test.synonyms, "curated")


def _common_edges(catalogue: Catalogue) -> Iterator[tuple[int, int]]:
    """Common disease to its findings. Raises BadTable for a finding that HPO does not know."""
    findings = phenotype_ids()
    for common in common_diseases():
        for label in common.findings:
            if normalise(label) not in findings:
                raise BadTable(
                    COMMON_DISEASES, common.line, f"{common.name!r}: HPO has no phenotype {label!r}"
                )
            yield (
                catalogue.by_id[f"COMMON:{normalise(common.name)}"],
                catalogue.by_id[findings[normalise(label)]],
            )


def _hpo_edges(hpo: Hpo, catalogue: Catalogue) -> Iterator[tuple[int, int]]:
    for term in hpo.phenotypes.values():
        for parent in term.parents:
            yield catalogue.by_id[term.id], catalogue.by_id[parent]
    for disease, findings in hpo.annotations.items():
        for phenotype in findings:
            yield catalogue.by_id[disease], catalogue.by_id[phenotype]


def _icd_edges(catalogue: Catalogue) -> Iterator[tuple[int, int]]:
    for code in load_icd().values():
        if code.parent is not None:
            yield catalogue.by_id[f"ICD10CM:{code.code}"], catalogue.by_id[f"ICD10CM:{code.parent}"]


def _same_name_edges(names: dict[str, list[int]]) -> Iterator[tuple[int, int]]:
    """Between the first node that bears a name and the others."""
    for nodes in names.values():
        if len(nodes) <= MAX_SAME_NAME:
            yield from ((nodes[0], node) for node in nodes[1:])


def _test_edges(catalogue: Catalogue, names: dict[str, list[int]]) -> Iterator[tuple[int, int]]:
    """Test to what it shows and to what it confirms. Raises BadTable for an unknown name."""
    findings = phenotype_ids()
    for test in tests_table():
        node = catalogue.by_id[f"TEST:{normalise(test.name)}"]
        for name in test.finds:
            if normalise(name) not in findings:
                raise BadTable(TESTS, test.line, f"{test.name!r}: HPO has no phenotype {name!r}")
            yield node, catalogue.by_id[findings[normalise(name)]]
        for name in test.diseases:
            if not names.get(normalise(name)):
                raise BadTable(TESTS, test.line, f"{test.name!r}: no disease is called {name!r}")
            # The first bearer: curated diseases stand before rare ones that share the name.
            yield node, names[normalise(name)][0]


def _reason_edges(catalogue: Catalogue, names: dict[str, list[int]]) -> Iterator[tuple[int, int]]:
    """Test to what Synthea orders it for, where both are known."""
    owners = {normalise(name): test.name for test in tests_table() for name in test.names}
    for test, disorder in load_reasons():
        if normalise(test) in owners and names.get(normalise(disorder)):
            yield (
                catalogue.by_id[f"TEST:{normalise(owners[normalise(test)])}"],
                names[normalise(disorder)][0],
            )


def with_observed(graph: Graph, observed: Sequence[Observed]) -> Graph:
    """The open test graph with the findings that other sources say tests show. A test that no
    curated one is called like is new."""
    import polars as pl

    names_by_bag = {
        bag(normalise(name)): test.name for test in tests_table() for name in test.names
    }
    tests = {
        name: node
        for node, name in graph.nodes.filter(pl.col("node_type") == "test")
        .select("node", "name")
        .iter_rows()
    }
    findings = _nodes_of_findings(graph)
    rows, names, edges = graph.nodes.to_dicts(), graph.names.rows(), graph.edges.rows()
    for procedure in observed:
        test_name = next(
            (
                names_by_bag[key]
                for name in procedure.names
                if (key := bag(normalise(name))) in names_by_bag
            ),
            procedure.names[0],
        )
        # A test under a curated name adds its findings to that test; else it becomes a node.
        node = tests.setdefault(test_name, len(rows))
        if node == len(rows):
            source = procedure.id.partition(":")[0]
            rows.append(
                {
                    "node": node,
                    "node_id": procedure.id,
                    "node_type": "test",
                    "name": test_name,
                    "source": source,
                }
            )
            names += [(node, name) for name in procedure.names[1:]]
        # A finding that this HPO no longer has, or that a newer one added, has no node.
        edges += [(node, findings[finding]) for finding in procedure.finds if finding in findings]
    # A name of its own: links are kept by it, and those to the plain graph are others.
    name = "+".join(
        [graph.name, *sorted({procedure.id.partition(":")[0].lower() for procedure in observed})]
    )
    nodes = pl.DataFrame(rows, schema=graph.nodes.schema)
    return build_graph(name, nodes, edges, names, description=graph.description)


def _nodes_of_findings(graph: Graph) -> dict[str, int]:
    """HPO id -> the node of that finding, which may be the disease of the same name."""
    import polars as pl

    rows = graph.nodes.filter(pl.col("node_type") != "test").select("node", "name")
    synonyms = rows.select("node").join(graph.names, on="node")
    nodes = {
        normalise(name): node
        # The later entry stands: labels over synonyms, and of two labels that of the lower node.
        for table in (synonyms, rows.reverse())
        for node, name in table.iter_rows()
    }
    return {
        term.id: nodes[key]
        for term in load_hpo().phenotypes.values()
        if (key := normalise(term.name)) in nodes
    }
