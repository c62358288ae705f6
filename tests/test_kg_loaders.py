"""Graphs from files: what each format becomes, the cache, and every kind of bad file refused with
file and line."""

import gzip
import os
import re
from pathlib import Path

import polars as pl
import pytest

from benchmarks.synthetic import write_clingraph, write_primekg
from medaction.kg.graph import Graph, hops, load_graph
from medaction.kg.loaders import NoGraph, folder_of, import_graph
from medaction.kg.survey import survey
from medaction.kg.tables import BadTable
from tests.conftest import shared_data

KG_HEADER = (
    "relation,display_relation,x_index,x_id,x_type,x_name,x_source,"
    "y_index,y_id,y_type,y_name,y_source\n"
)
CLIN_NODES = "node_id\tnode_name\tntype\tnode_index\n"
CLIN_EDGES = "\t".join(
    [
        "index",
        "node_id_x",
        "node_name_x",
        "ntype_x",
        "relationship",
        "node_id_y",
        "node_name_y",
        "ntype_y",
        "node_index_x",
        "node_index_y",
        "edge_index\n",
    ]
)
NAMES = {0: "asthma", 1: 'cough, "dry"', 2: "Spirometry", 7: "COPD"}
KINDS = {0: "disease", 1: "effect/phenotype", 2: "anatomy", 7: "disease"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDACTION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kg" / "graphs"


def end(index: int) -> str:
    name = NAMES[index].replace('"', '""')
    return f'{index},{index + 100},{KINDS[index]},"{name}",MONDO'


def row(x: int, y: int) -> str:
    return f"r,display,{end(x)},{end(y)}\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def kg_csv(folder: Path, *rows: str) -> Path:
    return write(
        folder / "kg.csv",
        KG_HEADER + "".join(rows or (row(0, 1), row(1, 0), row(0, 7), row(7, 7), row(2, 7))),
    )


def clingraph(folder: Path, nodes: str | None = None, edges: str | None = None) -> Path:
    own = (
        "0:lnc\tHemoglobin\tLNC\t0\n1:icd10cm\tAnemia\tICD10CM\t1\n"
        "2:umls_cui\tPallor\tUMLS_CUI\t2\n"
    )
    write(folder / "ClinGraph_nodes.csv", CLIN_NODES + (own if nodes is None else nodes))
    links = "".join(
        f"{i}\ta\tb\tc\trel\td\te\tf\t{x}\t{y}\t{i}\n"
        for i, (x, y) in enumerate([(0, 1), (1, 0), (1, 2)])
    )
    write(folder / "ClinGraph_edges.csv", CLIN_EDGES + (links if edges is None else edges))
    return folder


def pair(folder: Path, nodes: str, edges: str, ending: str = "csv") -> Path:
    write(folder / f"nodes.{ending}", nodes)
    write(folder / f"edges.{ending}", edges)
    return folder


def load(path: Path, **options) -> Graph:
    return load_graph(import_graph(path, **options))


def edges_by_name(graph: Graph) -> set[frozenset[str]]:
    names = graph.nodes["name"].to_list()
    return {frozenset((names[x], names[y])) for x, y in graph.edges.iter_rows()}


# --- the formats


def test_kg_csv_in_primekg_s_schema(tmp_path):
    graph = load(kg_csv(tmp_path))
    assert graph.nodes.rows() == [
        (0, "100", "disease", "asthma", "MONDO"),
        (1, "101", "phenotype", 'cough, "dry"', "MONDO"),
        (2, "102", "anatomy", "Spirometry", "MONDO"),
        (3, "107", "disease", "COPD", "MONDO"),
    ]
    # both directions are one edge, and the self-loop is none
    assert graph.edges.rows() == [(0, 1), (0, 3), (2, 3)]
    assert "prime" not in graph.name.lower()


def test_clingraph_s_two_files(tmp_path):
    graph = load(clingraph(tmp_path / "clin"))
    assert graph.nodes.select("node_type", "name", "source").rows() == [
        ("test", "Hemoglobin", "LNC"),
        ("disease", "Anemia", "ICD10CM"),
        ("concept", "Pallor", "UMLS_CUI"),
    ]
    assert graph.edges.rows() == [(0, 1), (1, 2)]
    assert load(tmp_path / "clin" / "ClinGraph_edges.csv").edges.rows() == graph.edges.rows()


@pytest.mark.parametrize(("ending", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_pair_of_nodes_and_edges(tmp_path, ending, mark):
    nodes = (
        "\ufeffnode_id,name,node_type,synonyms\nA,Asthma,disease,bronchial"
        " asthma|BA\nB,Spirometry,test,\n"
    )
    edges = "x,y,relation\nA,B,shown_by\nB,A,shows\nA,A,is\n"
    graph = load(pair(tmp_path / "own", nodes.replace(",", mark), edges.replace(",", mark), ending))
    assert graph.nodes.rows() == [
        (0, "A", "disease", "Asthma", ""),
        (1, "B", "test", "Spirometry", ""),
    ]
    assert graph.names.rows() == [(0, "bronchial asthma"), (0, "BA")]
    assert graph.edges.rows() == [(0, 1)]
    assert graph.name == "own"


def test_a_pair_in_parquet(tmp_path):
    pl.DataFrame({"node_id": [7, 8], "name": ["a", "b"], "node_type": "disease"}).write_parquet(
        tmp_path / "nodes.parquet"
    )
    pl.DataFrame({"x": [7], "y": [8]}).write_parquet(tmp_path / "edges.parquet")
    assert load(tmp_path).edges.rows() == [(0, 1)]


def test_gzip_is_read_like_the_plain_file(tmp_path):
    plain = load(kg_csv(tmp_path))
    packed = tmp_path / "packed" / "kg.csv.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress((tmp_path / "kg.csv").read_bytes()))
    assert load(packed.parent).edges.equals(plain.edges)


def test_only_the_types_asked_for_and_the_edges_between_them(tmp_path):
    graph = load(kg_csv(tmp_path), types=["disease", "phenotype"], name="small")
    assert edges_by_name(graph) == {
        frozenset(("asthma", 'cough, "dry"')),
        frozenset(("asthma", "COPD")),
    }
    assert (
        load_graph(folder_of("small")).version
        == graph.version
        != load_graph(folder_of(str(tmp_path / "kg.csv"))).version
    )


def test_an_unknown_type_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(
        NoGraph, match="no nodes of type gene; there are anatomy, disease, phenotype"
    ):
        import_graph(kg_csv(tmp_path), types=["gene"])


@pytest.mark.long
def test_a_generated_graph_of_many_batches_is_read_as_it_was_written(tmp_path):
    rows = write_primekg(tmp_path / "kg.csv", share=0.01)
    graph = load(tmp_path / "kg.csv")
    frame = pl.read_csv(tmp_path / "kg.csv", infer_schema=False)
    assert rows == frame.height > 50_000
    written = {frozenset(pair) for pair in frame.select("x_name", "y_name").iter_rows()}
    assert edges_by_name(graph) == written
    assert write_clingraph(tmp_path, share=0.02) == 58_000
    assert load(tmp_path / "ClinGraph_nodes.csv").edges.height == 58_000


def test_the_rebuilt_primekg_subset():
    graph = load(
        shared_data("primekg/kg_disease_phenotype.csv.gz"), licence="MIT + CC BY 4.0 + HPO licence"
    )
    assert len(graph.targets) == 420_250  # 420,706 rows less repeats and self-loops
    node_of = dict(graph.nodes.select("name", "node").iter_rows())
    assert (
        hops(graph, node_of["mixed mineral dust pneumoconiosis"], node_of["disease or disorder"])
        is not None
    )
    found = survey(graph)
    assert found.nodes["nodes"].sum() == graph.nodes.height
    assert found.edges["edges"].sum() == graph.edges.height
    assert found.degrees["nodes"].sum() == graph.nodes.height
    assert 0.99 * graph.nodes.height < found.largest < graph.nodes.height


# --- the cache


def test_a_graph_is_read_once_and_then_found_by_path_and_by_name(tmp_path, cache, monkeypatch):
    path = kg_csv(tmp_path)
    folder = import_graph(path, name="mine")
    monkeypatch.setattr(
        "medaction.kg.loaders._graph_of_source", None
    )  # whatever reads the file again fails
    assert folder == import_graph(path, name="mine") == folder_of("mine") == folder_of(str(path))
    assert [found.name for found in cache.iterdir()] == [folder.name]


def test_a_changed_file_is_another_graph_and_the_name_goes_with_it(tmp_path):
    path = kg_csv(tmp_path)
    before = import_graph(path, name="mine")
    kg_csv(tmp_path, row(0, 1))
    after = import_graph(path, name="mine")
    assert before != after == folder_of("mine") == folder_of(str(path))
    kg_csv(tmp_path)
    assert import_graph(path, name="mine") == before == folder_of("mine")


def test_a_file_of_the_same_size_and_another_time_is_read_again(tmp_path):
    path = kg_csv(tmp_path)
    before = folder_of(str(path))
    write(path, path.read_text().replace("asthma", "ASTHMA"))
    os.utime(path, ns=(1, 1))
    assert folder_of(str(path)) != before


def test_what_is_neither_path_nor_name_is_refused_with_the_names(tmp_path):
    import_graph(kg_csv(tmp_path), name="mine")
    with pytest.raises(NoGraph, match=r"no graph 'yours'.*mine"):
        folder_of("yours")


# --- bad input: file and line, and nothing half-cached

TWICE = row(0, 1) + row(7, 2) + row(0, 7).replace("asthma", "asthma bronchiale")
BAD_KG = {
    "cut in the middle of a row": (
        KG_HEADER + row(0, 1) + row(1, 0)[:-20], 3, "12 fields separated by commas",
    ),
    "cut in the middle of a quoted name": (KG_HEADER + row(7, 0) + row(1, 0)[:40], 3, "cut short"),
    "too many fields": (
        KG_HEADER + row(0, 1).replace("\n", ",more\n") + row(1, 0), 2, "this one 13",
    ),
    "wrong columns": (
        KG_HEADER.replace("y_name", "name_y") + row(0, 1), 1,
        "the columns y_name are missing; there are relation",
    ),
    "wrong separator": (
        (KG_HEADER + row(0, 1)).replace(",", "\t"), 1, "separated by TAB; they must be by commas",
    ),
    "a node with two names": (
        KG_HEADER + TWICE, 4,
        "node 0 is 'asthma bronchiale' (disease) here and 'asthma' (disease) before",
    ),
    "an index that is no number": (
        KG_HEADER + row(0, 1) + row(0, 1).replace("display,0", "display,zero"), 3, "`zero`",
    ),
    "a negative index": (
        KG_HEADER + row(0, 1).replace("display,0", "display,-1"), 2,
        "x_index '-1' is no number from 0",
    ),
    "a missing index": (
        KG_HEADER + row(0, 1).replace("display,0", "display,"), 2, "x_index is empty",
    ),
    "no row": (KG_HEADER, 1, "the graph has no node"),
    "only self-loops": (KG_HEADER + row(0, 0), 1, "the graph is empty: no edge"),
    "an empty file": ("", 1, "the file is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_KG)
def test_a_bad_kg_csv_is_refused(tmp_path, cache, case):
    text, line, message = BAD_KG[case]
    refused(write(tmp_path / "kg.csv", text), line, message, cache)


NODES, LINK = (
    "0:lnc\tHemoglobin\tLNC\t0\n1:icd\tAnemia\tICD10CM\t1\n",
    "0\ta\tb\tc\trel\td\te\tf\t0\t1\t0\n",
)
BAD_CLINGRAPH = {
    "nodes with commas": (
        NODES.replace("\t", ","), LINK, "nodes", 2, "4 fields separated by TAB, this one 1",
    ),
    "a node with two names": (
        NODES + "9:lnc\tHematocrit\tLNC\t0\n", LINK, "nodes", 4,
        "'Hematocrit' (LNC) here and 'Hemoglobin'",
    ),
    "an edge to an unknown node": (
        NODES, LINK + LINK.replace("\t1\t0\n", "\t5\t1\n"), "edges", 3, "node '5' is not in",
    ),
    "edges cut short": (NODES, LINK + LINK[:-4], "edges", 3, "11 fields separated by TAB"),
    "no edge": (NODES, "", "edges", 1, "the graph is empty"),
    "no node": ("", "", "edges", 1, "the graph has no node"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CLINGRAPH)
def test_a_bad_clingraph_is_refused(tmp_path, cache, case):
    nodes, edges, file, line, message = BAD_CLINGRAPH[case]
    folder = clingraph(tmp_path / "clin", nodes, edges)
    refused(folder, line, message, cache, folder / f"ClinGraph_{file}.csv")


PAIR_NODES = "node_id,name,node_type\nA,Asthma,disease\nB,Spirometry,test\n"
BAD_PAIR = {
    "a node with two names": (
        PAIR_NODES + "A,COPD,disease\n", "x,y\nA,B\n", "nodes", 4,
        "'COPD' (disease) here and 'Asthma'",
    ),
    "a node without an id": (
        PAIR_NODES + ",COPD,disease\n", "x,y\nA,B\n", "nodes", 4, "node_id or node_type is empty",
    ),
    "an edge to an unknown node": (
        PAIR_NODES, "x,y\nA,B\nB,C\n", "edges", 3, "node 'C' is not in nodes.csv",
    ),
    "too many fields": (
        PAIR_NODES, "x,y\nA,B\nA,B,C\n", "edges", 3, "2 fields separated by commas, this one 3",
    ),
    "wrong columns": (
        PAIR_NODES, "from,to\nA,B\n", "edges", 1,
        "the columns x, y are missing; there are from, to",
    ),
    "wrong separator": (
        PAIR_NODES, "x;y\nA;B\n", "edges", 1,
        "separated by semicolons; they must be by commas or TAB",
    ),
    "edges cut short": (
        PAIR_NODES, "x,y\nA,B\nB", "edges", 3, "2 fields separated by commas, this one 1",
    ),
    "an empty graph": (PAIR_NODES, "x,y\n", "edges", 1, "the graph is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PAIR)
def test_a_bad_pair_is_refused(tmp_path, cache, case):
    nodes, edges, file, line, message = BAD_PAIR[case]
    folder = pair(tmp_path / "own", nodes, edges)
    refused(folder, line, message, cache, folder / f"{file}.csv")


def test_a_gzip_file_cut_short_is_refused(tmp_path, cache):
    packed = tmp_path / "kg.csv.gz"
    packed.write_bytes(gzip.compress((KG_HEADER + row(0, 1) * 1000).encode())[:-20])
    refused(packed, None, "damaged or cut short", cache)


def test_a_gzip_file_with_a_flipped_bit_is_refused(tmp_path, cache):
    packed = gzip.compress("".join([KG_HEADER, *(row(0, 1), row(1, 7)) * 200]).encode())
    for place in range(10, len(packed), 7):
        damaged = tmp_path / "kg.csv.gz"
        damaged.write_bytes(packed[:place] + bytes([packed[place] ^ 4]) + packed[place + 1 :])
        with pytest.raises(BadTable):
            load(damaged)


@pytest.mark.parametrize("index", ["-1", "60000000"])
def test_a_node_of_clingraph_has_a_number_from_0(tmp_path, cache, index):
    nodes = f"0:lnc\tHemoglobin\tLNC\t0\n1:icd10cm\tAnemia\tICD10CM\t{index}\n"
    folder = clingraph(tmp_path / "own", nodes=nodes, edges="")
    refused(folder, 3, "is no number from 0", cache, folder / "ClinGraph_nodes.csv")


def test_parquet_that_is_none_and_text_that_is_none_are_refused(tmp_path, cache):
    folder = pair(tmp_path / "own", PAIR_NODES, "x,y\nA,B\n", "parquet")
    refused(folder, 1, "no parquet file", cache, folder / "nodes.parquet")
    (tmp_path / "kg.csv").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "kg.csv", 1, "is no text in UTF-8", cache)


def test_a_folder_without_a_graph_is_refused(tmp_path):
    with pytest.raises(NoGraph, match=r"holds neither kg\.csv, nor ClinGraph_nodes\.csv"):
        import_graph(tmp_path)


def refused(
    path: Path, line: int | None, message: str, cache: Path, file: Path | None = None
) -> None:
    with pytest.raises(
        BadTable,
        match=f"^{re.escape(str(file or path))}:{line or '[0-9]+'}: .*{re.escape(message)}",
    ):
        import_graph(path)
    assert not cache.exists() or not list(cache.iterdir())
