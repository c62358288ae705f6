"""The open graphs as they are built from their packages and tables."""

import subprocess
import sys

import polars as pl
import pytest

from medaction.kg.graph import hops
from medaction.kg.open_graphs import (
    Catalogue,
    Entity,
    open_disease_graph,
    open_test_graph,
    same_names,
)
from medaction.kg.tables import common_diseases
from medaction.words.names import normalise


def node(name: str, test: bool = False) -> int:
    graph = open_test_graph()
    kind = pl.col("node_type").eq("test")
    (found,) = graph.nodes.filter((kind if test else ~kind) & pl.col("name").eq(name))["node"]
    return found


def test_the_disease_graph_is_the_beginning_of_the_test_graph():
    diseases, tests = open_disease_graph(), open_test_graph()
    assert tests.nodes.head(diseases.nodes.height).equals(diseases.nodes)
    assert set(tests.nodes["node_type"].unique()) == {"disease", "phenotype", "test"}
    assert diseases.version != tests.version


def test_the_names_claim_no_graph_of_the_paper():
    for graph in (open_disease_graph(), open_test_graph()):
        assert "prime" not in graph.name.lower()
        assert "clin" not in graph.name.lower()


@pytest.mark.parametrize(
    ("test", "disease"),
    [
        ("Blood culture", "Infective endocarditis"),
        ("CT pulmonary angiography", "Pulmonary embolism"),
        ("Kidney biopsy", "IgA nephropathy"),
    ],
)
def test_a_test_is_one_hop_from_what_it_confirms(test: str, disease: str):
    assert hops(open_test_graph(), node(test, test=True), node(disease)) == 1


@pytest.mark.parametrize(
    ("test", "near", "far"),
    [
        ("Ophthalmologic examination", "Wilson disease", "Acute appendicitis"),
        (
            "Electromyography and nerve conduction study",
            "Amyotrophic lateral sclerosis",
            "Cholelithiasis",
        ),
        ("Colonoscopy", "Ulcerative colitis", "Glaucoma"),
    ],
)
def test_a_test_is_nearer_to_what_it_is_for(test: str, near: str, far: str):
    close, distant = (
        hops(open_test_graph(), node(test, test=True), node(disease)) for disease in (near, far)
    )
    assert close is not None
    assert distant is not None
    assert close < distant


def test_kin_are_nearer_than_strangers():
    graph = open_disease_graph()
    assert hops(graph, node("Crohn disease"), node("Ulcerative colitis")) < hops(
        graph, node("Crohn disease"), node("Glaucoma")
    )


def test_every_common_disease_is_a_node_of_its_own():
    rows = open_disease_graph().nodes.filter(pl.col("node_id").str.starts_with("COMMON:"))
    assert rows.height == len(common_diseases())


def test_names_that_mean_the_same_are_one_node():
    same = same_names()
    assert same["whooping cough"] == same["pertussis"]
    assert same.get("pertussis") != same.get("tetanus")


def test_entries_of_one_name_become_one_node_named_after_the_first():
    catalogue = Catalogue({"whooping cough": "pertussis"})
    catalogue.add(Entity("A", "disease", "Pertussis", ("100-day cough",), "one"))
    catalogue.add(Entity("B", "disease", "Whooping cough", (), "two"))
    catalogue.add(Entity("C", "phenotype", "PERTUSSIS", (), "three"))
    catalogue.add(Entity("D", "test", "Pertussis", (), "four"))
    assert [(row["node_id"], row["node_type"]) for row in catalogue.rows] == [
        ("A", "disease"),
        ("D", "test"),
    ]
    assert catalogue.by_id == {"A": 0, "B": 0, "C": 0, "D": 1}
    assert catalogue.names()["whooping cough"] == [0]


def test_findings_reach_their_common_disease():
    graph = open_disease_graph()
    finding = node(
        next(name for name in graph.nodes["name"] if normalise(name) == "st segment elevation")
    )
    assert hops(graph, finding, node("Acute myocardial infarction")) == 1


@pytest.mark.long
def test_a_second_process_reads_the_same_graph_from_the_cache():
    script = (
        "from medaction.kg.open_graphs import open_test_graph as g;"
        " print(g().version, g().edges.height)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    graph = open_test_graph()
    assert done.stdout.split() == [graph.version, str(graph.edges.height)]
