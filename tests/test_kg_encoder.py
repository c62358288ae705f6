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
    for row, text in ((0, "kidney biopsy"), (3, "EEG")):
        assert (
            vectors[row] @ encoder.encode([text])[0] > 0.98
        )  # int8 weights: padding moves a vector a little


def test_no_texts_give_no_rows(encoder: Encoder):
    assert encoder.encode([]).shape == (0, DIMENSION)


def test_a_text_beyond_the_model_is_cut(encoder: Encoder):
    assert encoder.encode(["word " * 2000]).shape == (1, DIMENSION)
