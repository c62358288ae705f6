"""The curated tables: what is in them holds, and a bad one is refused with file and line."""

import re
from pathlib import Path

import pytest

from medaction.kg import open_graphs, tables, tests_table
from medaction.kg.open_graphs import open_test_graph
from medaction.kg.tables import BadTable, common_diseases
from medaction.kg.tests_table import read_tests
from medaction.words.names import normalise

HEADER = "test,synonyms,category,finds,diseases\n"


def test_the_table_covers_every_category_and_is_large_enough():
    tests = tests_table.tests_table()
    assert len(tests) >= 150
    assert {test.category for test in tests} == {
        "laboratory",
        "imaging",
        "procedure",
        "physiologic",
        "pathology",
    }


def test_every_common_disease_has_a_test():
    graph = open_test_graph()
    kinds = graph.nodes["node_type"].to_list()
    node_of = dict(graph.nodes.select("node_id", "node").iter_rows())
    for disease in common_diseases():
        node = node_of[f"COMMON:{normalise(disease.name)}"]
        assert any(kinds[other] == "test" for other in graph.neighbours(node)), disease.name


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("test,category\nx,y\n", 1, "the columns must be"),
        (HEADER + "Lipase,,bloods,Pancreatitis,\n", 2, "'bloods' is no category"),
        (HEADER + "Lipase,,laboratory,,\n", 2, "finds nothing and confirms nothing"),
        (
            HEADER + "Lipase,,laboratory,Pancreatitis,\nAmylase,lipase,laboratory,Pancreatitis,\n",
            3,
            "already names 'Lipase'",
        ),
        (HEADER + "Lipase,laboratory,Pancreatitis,\n", 2, "a row has 5 fields"),
        (HEADER + " ,,laboratory,Pancreatitis,\n", 2, "has no name"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str, line: int, message: str):
    path = tmp_path / "tests.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadTable, match=f"{re.escape(str(path))}:{line}: .*{re.escape(message)}"):
        read_tests(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Lipase,,laboratory,Blue moon,\n", "HPO has no phenotype 'Blue moon'"),
        ("Lipase,,laboratory,,Moon fever\n", "no disease is called"),
    ],
)
def test_a_name_that_the_graph_lacks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, message: str
):
    path = tmp_path / "tests.csv"
    path.write_text(HEADER + row, encoding="utf-8")
    monkeypatch.setattr(open_graphs, "tests_table", lambda: read_tests(path))
    catalogue = open_graphs.Catalogue({})
    for entity in open_graphs.curated_tests():
        catalogue.add(entity)
    with pytest.raises(BadTable, match=message):
        list(open_graphs._test_edges(catalogue, catalogue.names()))


def test_an_alias_given_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "aliases.csv"
    path.write_text(
        "alias,name,type\nMI,Acute myocardial infarction,disease\nmi,Mitral "
        "regurgitation,disease\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(tables, "ALIASES", path)
    with pytest.raises(BadTable, match=r"aliases\.csv:3: 'mi' is empty, given twice"):
        tables.aliases.__wrapped__()


def test_no_icd_code_is_its_own_parent() -> None:
    from medaction.kg.icd import load_icd

    codes = load_icd()
    assert all(code.parent != code.code for code in codes.values())
    assert codes["C50"].parent in codes, (
        "breast cancer hangs on its chapter although its block has the same name"
    )
