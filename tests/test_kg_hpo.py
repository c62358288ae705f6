"""HPO, ICD-10-CM and Synthea as they ship in their packages."""

from pathlib import Path

import pytest

from medaction.kg.cache import cached_json
from medaction.kg.hpo import ROOT, load_hpo, parse_frequency
from medaction.kg.icd import load_icd, plain_name
from medaction.kg.synthea import load_reasons
from medaction.words.names import normalise


def test_phenotypes_carry_name_synonyms_and_parents():
    fever = load_hpo().phenotypes["HP:0001945"]
    assert fever.name == "Fever"
    assert "Pyrexia" in fever.synonyms
    assert fever.parents == ("HP:0004370",)


def test_inheritance_onset_and_frequency_terms_are_left_out():
    phenotypes = load_hpo().phenotypes
    assert (
        not {"HP:0000007", "HP:0003577", "HP:0040281"} & phenotypes.keys()
    )  # recessive, congenital onset, very frequent
    assert phenotypes[ROOT].parents == ()
    assert all(parent in phenotypes for term in phenotypes.values() for parent in term.parents)


def test_every_annotation_names_known_things_with_a_share():
    hpo = load_hpo()
    assert len(hpo.phenotypes) > 18_000
    assert len(hpo.diseases) > 12_000
    for disease, shown in hpo.annotations.items():
        assert disease in hpo.diseases
        assert shown.keys() <= hpo.phenotypes.keys()
        assert all(share is None or 0 < share <= 1 for share in shown.values())


def test_marfan_syndrome_shows_ectopia_lentis():
    hpo = load_hpo()
    marfan = next(
        disease
        for disease, name in hpo.diseases.items()
        if disease.startswith("OMIM") and name == "Marfan syndrome"
    )
    assert "HP:0001083" in hpo.annotations[marfan]


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", None),
        ("0/0", None),
        ("3/4", 0.75),
        ("0/5", 0.0),
        ("45%", 0.45),
        ("HP:0040280", 1.0),
        ("HP:0040285", 0.0),
    ],
)
def test_frequencies_become_shares(text, share):
    assert parse_frequency(text) == share


def test_a_frequency_of_unknown_form_is_refused():
    with pytest.raises(ValueError, match="invalid literal"):
        parse_frequency("often")


def test_icd_is_a_tree_without_external_causes():
    icd = load_icd()
    assert icd["I20.0"].parent == "I20"
    assert icd["I20.0"].name == "Unstable angina"
    assert "Crescendo angina" in icd["I20.0"].synonyms
    assert all(code.parent is None or code.parent in icd for code in icd.values())
    assert not any(code[0] in "VWXYZ" for code in icd)


@pytest.mark.parametrize(
    ("official", "plain"),
    [
        ("Pneumonia, unspecified organism", "Pneumonia"),
        ("Human immunodeficiency virus [HIV] disease", "Human immunodeficiency virus disease"),
        ("Unspecified cirrhosis of liver", "Cirrhosis of liver"),
        ("Unstable angina", "Unstable angina"),
    ],
)
def test_icd_names_are_freed_of_qualifiers(official, plain):
    assert plain_name(official) == plain


def test_synthea_orders_spirometry_for_obstructive_bronchitis():
    assert ("Spirometry", "Chronic obstructive bronchitis") in load_reasons()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Crohn's disease", "crohn disease"),
        ("Haemorrhagic stroke", "hemorrhagic stroke"),
        ("Sjögren syndrome", "Sjogren syndrome"),
        ("Type II diabetes", "type 2 diabetes"),
        ("Oesophageal varices", "esophageal varices"),
    ],
)
def test_spellings_of_one_name_are_one(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Type 1 diabetes", "Type 2 diabetes"), ("hypokalemia", "hyperkalemia"), ("IgA", "IgG")],
)
def test_different_names_stay_different(one, other):
    assert normalise(one) != normalise(other)


def test_a_damaged_cache_is_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDACTION_CACHE", str(tmp_path))
    assert cached_json("table", "key", lambda: {"a": (1, None)}) == {"a": [1, None]}
    (file,) = (tmp_path / "kg").iterdir()
    assert cached_json("table", "key", lambda: pytest.fail("computed again")) == {"a": [1, None]}
    file.write_bytes(file.read_bytes()[:4])
    assert cached_json("table", "key", lambda: {"a": (2,)}) == {"a": [2]}
    assert cached_json("table", "key", lambda: pytest.fail("computed again")) == {"a": [2]}


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MEDACTION_CACHE", str(tmp_path / "file"))
    assert cached_json("table", "key", lambda: [1]) == [1]
