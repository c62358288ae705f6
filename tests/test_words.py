"""The ground room of language: names, plurals, sentences, negation."""

import doctest

import pytest

from medaction.envs.scripts import script_of
from medaction.words import names, negation, plurals, sentences
from medaction.words.names import normalise
from medaction.words.phrases import phrase_pattern
from medaction.words.plurals import singular


@pytest.mark.parametrize("module", [names, plurals, sentences])
def test_the_examples_of_the_docs_hold(module: object) -> None:
    results = doctest.testmod(module)  # type: ignore[arg-type]
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize(
    "name",
    [
        "Рентгенография грудной клетки",
        "МРТ головного мозга",
        "胸部X线",
        "हीमोग्लोबिन",
        "혈액 검사",
        "が",
    ],
)
def test_the_letters_of_every_script_survive(name: str) -> None:
    assert normalise(name) == name.casefold()


def test_names_that_differ_in_another_script_stay_apart() -> None:
    three = ["Общий анализ крови", "Рентгенография грудной клетки", "МРТ головного мозга"]
    assert len({normalise(name) for name in three}) == 3
    assert normalise("γλυκόζη") == "γλυκοζη"


@pytest.mark.parametrize(
    ("british", "american"),
    [
        ("Haemoglobin", "hemoglobin"),
        ("Oesophageal manometry", "esophageal manometry"),
        ("Diarrhoea", "diarrhea"),
        ("Dix-Hallpike manoeuvre", "dix hallpike maneuver"),
        ("Electroencephalogram", "electroencephalogram"),
        ("Dehydroepiandrosterone", "dehydroepiandrosterone"),
        ("Vertebrae", "vertebrae"),
    ],
)
def test_spelling_is_american(british: str, american: str) -> None:
    assert normalise(british) == american


@pytest.mark.parametrize("quote", "'’‘`´")
def test_every_apostrophe_is_one(quote: str) -> None:
    assert normalise(f"Coombs{quote} test") == "coombs test"
    assert normalise(f"Crohn{quote}s disease") == "crohn disease"


@pytest.mark.parametrize(
    "word", ["diagnosis", "ascites", "pancreas", "diabetes", "herpes", "lens", "plus", "status"]
)
def test_no_plural_stays(word: str) -> None:
    assert singular(word) == word


def test_greek_and_latin_plurals() -> None:
    plural = "axillae stenoses metastases analyses bronchi viruses sinuses abscesses doses"
    words = "axilla stenosis metastasis analysis bronchus virus sinus abscess dose"
    assert [singular(word) for word in plural.split()] == words.split()


def test_abbreviations_and_brackets_end_no_sentence() -> None:
    text = "Seen by Dr. Lee (no. 3; see Fig. 2). T. cruzi was sought; it was not found.\nNo fever"
    assert sentences.sentences(text) == [
        "Seen by Dr. Lee (no. 3; see Fig. 2).",
        "T. cruzi was sought; it was not found.",
        "No fever",
    ]
    assert sentences.statements(text)[1:3] == ["T. cruzi was sought;", "it was not found."]
    assert sentences.sentences("患者发热。无咳嗽。") == ["患者发热。", "无咳嗽。"]


@pytest.mark.parametrize(
    ("statement", "undone"),
    [
        ("CA 19-9 was not performed", True),
        ("Sweat chloride test planned but not conducted.", True),
        ("Sequencing pending", True),
        ("Not detected", False),
        ("No growth", False),
    ],
)
def test_a_test_that_was_left_undone(statement: str, undone: bool) -> None:
    assert negation.is_undone(statement) is undone


def test_grouped_phrases_are_tried_longest_first_and_starred_ones_keep_their_place() -> None:
    pattern = phrase_pattern("ct | ct scan of # | *scan of | mri | scan")
    words = "CT scan of 2, rescan of, MRIs, scan, ctx"
    assert pattern.findall(words) == ["CT scan of 2", "rescan of", "MRIs", "scan"]


def test_the_script_of_a_text_is_that_of_most_letters() -> None:
    assert script_of("") == script_of("12 %") == ""
    assert script_of("naïve é") == script_of("Koplik spots 麻") == "latin"
    assert script_of("ひらがな stage II") == "cjk"
