"""Body system and disease type of a diagnosis, on the real ICD-10-CM, HPO and open graph."""

import ast
import csv
import json
from pathlib import Path

import pytest

from medaction.envs.composition import BODY_SYSTEMS, DISEASE_TYPES
from medaction.kg import disease_classes
from medaction.kg.disease_classes import BRANCHES, DISEASE_WORDS, ICD_CLASSES, classes_of
from medaction.kg.hpo import load_hpo
from medaction.kg.icd import load_icd
from medaction.kg.tables import BadTable, common_diseases
from tests.conftest import shared_data


@pytest.mark.parametrize(
    ("name", "system", "kind"),
    [
        # by the code that bears the name
        ("Myasthenia gravis", "Brain and Nerves", "Immune and Inflammatory"),
        ("Infective endocarditis", "Blood, Heart and Circulation", "Infections"),
        ("Wilson disease", "Digestive System", "Genetics/Birth Defects"),
        ("Type 2 diabetes mellitus", "Endocrine System", "Diabetes Mellitus"),
        ("HIV infection", "Immune System", "Infections"),
        # by words: what is named first in the head of the text is where it is
        ("Lingual tuberculosis", "Mouth and Teeth", "Infections"),
        ("Primary hepatic leiomyosarcoma (PHLS)", "Digestive System", "Cancers"),
        ("Orbital cellulitis secondary to acute sinusitis", "Eyes and Vision", "Infections"),
        ("Diffuse large B-cell lymphoma of the testis", "Male Reproductive System", "Cancers"),
        ("Lateral-aortic functional paraganglioma", "Blood, Heart and Circulation", "Cancers"),
        (
            "High-grade serous carcinoma of the fallopian tube",
            "Female Reproductive System",
            "Cancers",
        ),
        (
            "Neuroleptic malignant syndrome",
            "Brain and Nerves",
            "Poisoning, Toxicology, Environmental Health",
        ),
        # by the disease that the text is a kind of
        ("Cystic oncocytic pheochromocytoma", "Endocrine System", "Cancers"),
        # by the phenotypes of a rare disease
        ("Niemann-Pick disease, type C2", "Brain and Nerves", "Genetics/Birth Defects"),
    ],
)
def test_classes_of_known_diseases(name: str, system: str, kind: str) -> None:
    assert classes_of([name]) == (system, kind)


def test_what_no_name_tells_stays_empty_and_a_synonym_may_tell_it() -> None:
    assert classes_of([]) == classes_of(["Normal behavior"]) == ("", "")
    assert classes_of(["Syphilis"]) == ("", "Infections")
    assert classes_of(["Meigs syndrome"]) == ("", "")
    assert classes_of(["Meigs syndrome", "Ovarian fibroma with ascites"]) == (
        "Female Reproductive System",
        "Cancers",
    )


def test_nearly_all_common_diseases_are_told() -> None:
    told = [classes_of([disease.name, *disease.synonyms]) for disease in common_diseases()]
    assert sum(bool(system) for system, _ in told) / len(told) > 0.94
    assert sum(bool(kind) for _, kind in told) / len(told) > 0.98


def test_agreement_with_the_labels_of_medrbench() -> None:
    """Its labels know no female reproductive system and no immune, vascular or degenerative
    disease: these are left out."""
    cases = json.loads(
        shared_data("medrbench/diagnosis_cases.json").read_text(encoding="utf-8")
    ).values()
    agree: dict[int, list[bool]] = {0: [], 1: []}
    told = [0, 0]
    for case in cases:
        classes = classes_of([_parsed(case["generate_case"])["diagnosis_results"]])
        for i, key in enumerate(("body_category", "disorder_category")):
            labels = _parsed(case[key])
            told[i] += bool(classes[i])
            if labels and classes[i] in _MEDRBENCH:
                agree[i].append(classes[i] in labels)
    assert min(told) / len(cases) > 0.93
    assert sum(agree[0]) / len(agree[0]) > 0.74
    assert sum(agree[1]) / len(agree[1]) > 0.88


_MEDRBENCH = {*BODY_SYSTEMS, *DISEASE_TYPES} - {
    "Female Reproductive System",
    "Immune and Inflammatory",
    "Vascular and Circulatory",
    "Degenerative and Structural",
    "Other",
}


def _parsed(value: str | dict | list) -> dict | list:
    return ast.literal_eval(value) if isinstance(value, str) else value


def test_tables_speak_the_vocabulary_of_figure_6() -> None:
    for path in (ICD_CLASSES, DISEASE_WORDS):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                assert row["body_system"] in ("", *BODY_SYSTEMS)
                assert row["disease_type"] in ("", *DISEASE_TYPES)
    assert set(BRANCHES.values()) == set(BODY_SYSTEMS)
    assert BRANCHES.keys() <= load_hpo().phenotypes.keys()


def test_every_chapter_of_diseases_has_a_class() -> None:
    chapters = [code.code for code in load_icd().values() if code.parent is None]
    without = {
        code for code in chapters if disease_classes._icd_classes().get(code, ("", "")) == ("", "")
    }
    assert without == {"18", "22"}, "symptoms and provisional codes alone tell nothing as a chapter"


@pytest.mark.parametrize("code", ["A00-A09", "X99"])
def test_a_code_given_twice_or_unknown_is_refused_by_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    table = tmp_path / "icd_classes.csv"
    table.write_text(
        f"codes,body_system,disease_type\nA00-A09,Digestive "
        f"System,Infections\n{code},,Infections\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(disease_classes, "ICD_CLASSES", table)
    with pytest.raises(BadTable, match=rf"icd_classes\.csv:3: '{code}'"):
        disease_classes._icd_classes.__wrapped__()
