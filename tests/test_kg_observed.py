"""Tests of other sources in the open test graph: MAxO's procedures and LOINC2HPO's laboratory
tests."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from medaction.kg.graph import hops
from medaction.kg.linking import Linker
from medaction.kg.observed import read_loinc2hpo, read_maxo
from medaction.kg.open_graphs import open_test_graph
from medaction.kg.tables import BadTable
from tests.conftest import shared_data

TERMS = """format-version: 1.2

[Term]
id: MAXO:0000001
name: xylophone radiograph procedure
synonym: "radiography of the xylophone" EXACT []

[Term]
id: MAXO:0000002
name: xylophonist evaluation
"""
HEADER = (
    "#description: made for this"
    " test\nhpo_id\thpo_label\tpredicate_id\tmaxo_id\tmaxo_label\tcreator_id\n"
)
ROWS = (
    "HP:0001945\tFever\tis_observable_through\tMAXO:0000001\txylophone radiograph procedure\tX\n"
    "HP:0002090\tPneumonia\tis_prenatally_observable_through\tMAXO:0000001\txylophone radiograph "
    "procedure\tX\n"
    "HP:0001945\tFever\tis_observable_through\tMAXO:0000002\txylophonist evaluation\tX\n"
)


def maxo(folder: Path, rows: str, zipped: bool = False) -> Path:
    (folder / "maxo.obo").write_text(TERMS)
    if zipped:
        (folder / "maxo_diagnostic_annotations.tsv.gz").write_bytes(
            gzip.compress((HEADER + rows).encode())
        )
    else:
        (folder / "maxo_diagnostic_annotations.tsv").write_text(HEADER + rows)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_a_procedure_shows_what_it_observes_after_birth_and_a_visit_is_no_test(
    tmp_path: Path, zipped: bool
):
    (procedure,) = read_maxo(maxo(tmp_path, ROWS, zipped))
    assert procedure.names == (
        "Xylophone radiograph",
        "xylophone radiograph procedure",
        "radiography of the xylophone",
    )
    assert procedure.finds == ("HP:0001945",)


def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path):
    with pytest.raises(BadTable, match=r"maxo_diagnostic_annotations\.tsv:4: a row has 6 fields"):
        read_maxo(maxo(tmp_path, ROWS.splitlines(keepends=True)[0] + "HP:1\tcut off\n"))
    with pytest.raises(BadTable, match=r"tsv:3: 'fever' and 'MAXO:0000001' are no ids"):
        read_maxo(maxo(tmp_path, ROWS.replace("HP:0001945", "fever", 1)))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"holds no maxo_diagnostic_annotations\.tsv"):
        read_maxo(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no loinc2hpo-annotations\.tsv"):
        read_loinc2hpo(tmp_path)


def test_only_abnormal_outcomes_of_named_codes_count(tmp_path: Path):
    rows = [
        "2345-7\tQn\tH\tHP:0003074",  # glucose in serum
        "2345-7\tQn\tN\tHP:0011015",
        "1-8\tQn\tH\tHP:0003074",
    ]
    (tmp_path / "loinc2hpo-annotations.tsv").write_text(
        "\n".join(["loincId\tloincScale\toutcome\thpoTermId", *rows, ""])
    )
    (glucose,) = read_loinc2hpo(tmp_path)
    assert (glucose.id, glucose.finds) == ("LOINC:2345-7", ("HP:0003074",))
    assert glucose.names[-1] == "Glucose"


def test_what_it_adds_joins_curated_tests_or_becomes_a_test(tmp_path: Path):
    folder = maxo(
        tmp_path,
        ROWS + ROWS.splitlines(keepends=True)[0].replace("0000001\txylophone", "0000003\tchest"),
    )
    plain, graph = open_test_graph(), open_test_graph(maxo=folder)
    assert graph.name == "open-tests+maxo"
    assert graph.nodes.height == plain.nodes.height + 1
    assert graph.nodes.head(plain.nodes.height).equals(plain.nodes)
    (fever,) = graph.nodes.filter((pl.col("name") == "Fever") & (pl.col("node_type") != "test"))[
        "node"
    ]
    new, chest = Linker(graph, ("test",)).link(["Radiography of the xylophone", "CXR"])
    assert (new.name, chest.name) == ("Xylophone radiograph", "Chest radiograph")
    assert [hops(graph, link.node, fever) for link in (new, chest)] == [1, 1]
    assert hops(plain, chest.node, fever) != 1


def test_the_real_files_are_read():
    assert len(read_maxo(shared_data("maxo"))) > 200
    assert len(read_loinc2hpo(shared_data("loinc2hpo"))) > 80
