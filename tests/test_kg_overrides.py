"""The user's own links, and graphs that are not ours: names they are lent, their index, and other
encoders."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medaction.kg.encoder import DIMENSION, EncoderUnavailable, LinkingEncoder, linking_encoder
from medaction.kg.graph import Graph, build_graph
from medaction.kg.linking import Linker, own_threshold
from medaction.kg.overrides import read_overrides
from medaction.kg.tables import BadTable
from medaction.kg.vectors import index_of

NAMES = [
    ("1", "disease", "acute myocardial infarction"),
    ("2", "disease", "bartter disease"),
    ("3", "disease", "amblyopia (disease)"),
    ("4", "disease", "dengue hemorrhagic fever"),
    ("5", "phenotype", "Chest pain"),
    ("6", "disease", "dentinogenesis imperfecta type 2"),
    ("7", "disease", "granulomatosis with polyangiitis"),
    ("8", "phenotype", "Granulomatosis"),
    ("9", "test", "Chest radiograph"),
    ("10", "disease", "atresia of small intestine"),
]


@pytest.fixture(scope="module")
def foreign() -> Graph:
    """A graph as PrimeKG is: one name a node."""
    rows = [
        {"node": i, "node_id": a, "node_type": b, "name": c, "source": "MONDO"}
        for i, (a, b, c) in enumerate(NAMES)
    ]
    return build_graph("foreign", pl.DataFrame(rows), [(0, 4)])


@pytest.fixture(scope="module")
def linker(foreign: Graph) -> Linker:
    return Linker(foreign, ("disease", "phenotype"))


@pytest.mark.parametrize(
    ("text", "name", "method"),
    [
        ("Heart attack", "acute myocardial infarction", "synonym"),
        ("MI", "acute myocardial infarction", "abbreviation"),
        ("Amblyopia", "amblyopia (disease)", "exact"),
        ("Bartter syndrome", "bartter disease", "synonym"),
        ("Bartter syndrome type 3", "bartter disease", "broader"),
        (
            "Granulomatosis with polyangiitis (GPA) presenting as pachymeningitis",
            "granulomatosis with polyangiitis",
            "exact",
        ),
        ("**Final diagnosis:**\n1. Amblyopia\n2. Chest pain", "amblyopia (disease)", "exact"),
        ("Small bowel atresia", "atresia of small intestine", "dense"),
    ],
)
def test_a_graph_with_one_name_a_node_is_lent_others(
    linker: Linker, text: str, name: str, method: str
):
    (link,) = linker.link([text])
    assert (link.name, link.method) == (name, method)


@pytest.mark.parametrize(
    "text", ["Dengue fever", "Dentinogenesis imperfecta type 3", "Chest radiograph"]
)
def test_a_special_case_another_type_number_or_a_test_is_not_lent(linker: Linker, text: str):
    assert linker.link([text])[0].node is None


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_user_decides_before_everything(foreign: Graph, tmp_path: Path):
    file = write(
        tmp_path / "links.csv",
        'text,node_id,type\n"heart attack, silent",5,\nAMBLYOPIA,,disease\nCXR,9,test\n',
    )
    overrides = read_overrides(file)
    overrides.check([foreign])
    linker = Linker(foreign, ("disease", "phenotype"), overrides)
    silent, none, usual = linker.link(["Heart attack, silent", "amblyopia", "heart attack"])
    assert (silent.name, silent.method) == ("Chest pain", "given")
    assert (none.node, none.method) == (None, "given")
    assert usual.method == "synonym"
    assert not linker.knows("Amblyopia")
    assert Linker(foreign, ("test",), overrides).link(["CXR"])[0].method == "given"


def test_links_of_other_decisions_are_of_another_version(foreign: Graph, tmp_path: Path):
    one = read_overrides(write(tmp_path / "a.csv", "text,node_id\nthis,1\n"))
    other = read_overrides(write(tmp_path / "b.csv", "text,node_id\nthis,2\n"))
    versions = {Linker(foreign, ("disease",), rows).version for rows in (None, one, other)}
    assert len(versions) == 3
    assert Linker(foreign, ("disease",), one).version in versions


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("text;node_id\na;1\n", "csv:1: the columns must be text, node_id"),
        ("text,node_id\n,1\n", "csv:2: the text is empty"),
        ("text,node_id\nok,1\na, b,2\n", "csv:3: a row has 2 fields"),
        ("text,node_id,type\na,1,drug\n", "csv:2: 'drug' is no type"),
        ("text,node_id\nThe flu,1\nthe FLU,2\n", "csv:3: 'the FLU' stands in line 2 already"),
        ("text,node_id,type\na,1,disease\na,5,\n", "csv:3: 'a' stands in line 2 already"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, rows: str, message: str):
    with pytest.raises(BadTable, match=message):
        read_overrides(write(tmp_path / "links.csv", rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,777,", "csv:2: 'a': no node of foreign has the id '777'"),
        ("a,5,disease", "csv:2: 'a': 5 is a phenotype, no disease"),
    ],
)
def test_a_node_that_is_not_there_is_named(foreign: Graph, tmp_path: Path, row: str, message: str):
    overrides = read_overrides(write(tmp_path / "links.csv", f"text,node_id,type\n{row}\n"))
    with pytest.raises(BadTable, match=message):
        overrides.check([foreign])


def test_an_index_is_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDACTION_CACHE", str(tmp_path))
    small = linking_encoder("small")
    index = index_of("foreign", ["asthma", "gout"], small)

    def refuse(texts: list[str]) -> np.ndarray:
        raise AssertionError(f"{texts} were encoded again")

    again = index_of(
        "foreign",
        ["asthma", "gout"],
        LinkingEncoder(small.key, DIMENSION, small.texts, refuse, None),
    )
    np.testing.assert_array_equal(again.reconstruct_n(0, 2), index.reconstruct_n(0, 2))
    (folder,) = (tmp_path / "kg" / "indices").iterdir()
    assert json.loads((folder / "names.json").read_text()) == ["asthma", "gout"]


def test_a_threshold_is_found_on_the_graphs_own_synonyms(foreign: Graph):
    small = linking_encoder("small")
    linker = Linker(foreign, ("disease", "phenotype"))
    loose, strict = (own_threshold(linker, small, precision) for precision in (0.5, 1.0))
    assert -1 <= loose <= strict <= 1.01


@pytest.mark.parametrize("which", ["large", "medcpt:only-one", "medcpt:,b", "small:x"])
def test_an_encoder_that_is_none_is_refused(which: str):
    with pytest.raises(EncoderUnavailable, match="is no encoder"):
        linking_encoder(which)


@pytest.mark.slow
@pytest.mark.train
def test_a_pair_of_transformers_is_loaded_from_folders(tmp_path: Path):
    """A real pair of BERT encoders, small and untrained: MedCPT's own weights do not ship."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    for name in ("query", "article"):
        folder = tmp_path / name
        folder.mkdir()
        vocabulary = write(folder / "vocab.txt", "\n".join(words))
        transformers.BertTokenizerFast(vocab_file=str(vocabulary)).save_pretrained(folder)
        config = transformers.BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
        model = transformers.BertModel(config)
        model.save_pretrained(folder)
    encoder = linking_encoder(f"medcpt:{tmp_path / 'query'},{tmp_path / 'article'}")
    texts, names = encoder.texts(["gout", "", "asthma"]), encoder.names(["gout", "asthma"])
    assert texts.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    assert not np.allclose(texts[0], names[0])  # two encoders, not one
    np.testing.assert_allclose(encoder.texts(["asthma"])[0], texts[2], rtol=1e-4, atol=1e-5)
    assert encoder.threshold is None
    with torch.no_grad():  # what is fine-tuned in its last layer alone keeps vectors of its own
        list(model.parameters())[-1][0] += 1
    model.save_pretrained(tmp_path / "article")
    tuned = linking_encoder(f"medcpt:{tmp_path / 'query'},{tmp_path / 'article'}")
    assert tuned.key != encoder.key


@pytest.mark.train
@pytest.mark.long
def test_a_transformer_that_is_not_there_is_named(tmp_path: Path):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        EncoderUnavailable, match=r"cannot load the folder .*empty.*model\.safetensors"
    ):
        linking_encoder(f"medcpt:{tmp_path / 'empty'},{tmp_path / 'empty'}")
