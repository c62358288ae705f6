"""The small encoder on real texts."""

import numpy as np
import pytest

from medaction.kg.encoder import DIMENSION, Encoder, load_encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


def test_meaning_is_nearer_than_chance(encoder: Encoder):
    attack, infarction, fracture = encoder.encode(
        ["heart attack", "myocardial infarction", "ankle fracture"]
    )
    assert attack @ infarction > attack @ fracture + 0.2


def test_vectors_are_rows_of_length_one_in_the_order_given(encoder: Encoder):
    texts = [
        "kidney biopsy",
        "a rather longer text about the results of a kidney biopsy in nephrotic syndrome",
        "",
        "EEG",
    ] * 40
    vectors = encoder.encode(texts)
    assert vectors.shape == (len(texts), DIMENSION)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = load_encoder.__wrapped__()
    for row, text in ((0, "kidney biopsy"), (3, "EEG")):  # whatever stood beside it
        np.testing.assert_allclose(vectors[row], alone.encode([text])[0], atol=1e-6)


def test_a_text_is_encoded_once_and_some_are_forgotten(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medaction.kg.encoder.MOST_KEPT", 3)
    encode, batches = encoder._batch, list[list[str]]()
    monkeypatch.setattr(encoder, "_batch", lambda texts: [batches.append(texts), encode(texts)][1])
    monkeypatch.setattr(encoder, "_kept", {})
    before = encoder.encode(["EEG", "CBC"])
    np.testing.assert_array_equal(encoder.encode(["CBC", "EEG", "CBC"]), before[[1, 0, 1]])
    assert batches == [["EEG", "CBC"]]
    encoder.encode(["MRI", "ECG"])  # makes room
    encoder.encode(["EEG"])
    assert batches[1:] == [["MRI", "ECG"], ["EEG"]]


def test_no_texts_give_no_rows(encoder: Encoder):
    assert encoder.encode([]).shape == (0, DIMENSION)


def test_a_text_beyond_the_model_is_cut(encoder: Encoder):
    assert encoder.encode(["word " * 2000]).shape == (1, DIMENSION)
