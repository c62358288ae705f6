"""The demo's dataset as a release artefact: twelve fictional cases, to be browsed without running
anything. The folder in the archive can be uploaded to a hub as it is.

Run as: python .ci/release_dataset.py --out dist
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import polars as pl
from huggingface_hub import DatasetCard

LICENCE = "creativecommons.org/licenses/by/4.0"
"""That of the fictional cases."""
SUMS = "SHA256SUMS"


def build(out: Path) -> Path:
    """Play the demo and pack its dataset; returns the archive. Raises SystemExit with what is wrong
    with the dataset."""
    run = out / "demo"
    command = [sys.executable, "-m", "medaction", "distill", "--preset", "demo", "--out", str(run)]
    subprocess.run(command, check=True)
    dataset = (run / "dataset").resolve()
    if faults := list(faults_of(dataset)):
        raise SystemExit("\n".join(faults))
    sums = "".join(f"{sha256(file)}  {file.relative_to(dataset)}\n" for file in files_of(dataset))
    (dataset / SUMS).write_text(sums)
    name = f"medaction-demo-{version('medaction')}"
    archive = out / f"{name}.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(dataset, name)
    (out / f"{name}.sha256").write_text(f"{sha256(archive)}  {archive.name}\n")
    return archive


def faults_of(dataset: Path) -> Iterator[str]:
    """What a hub, or a reader of the dataset, would stumble over. Nothing is asked of a hub."""
    card = DatasetCard((dataset / "README.md").read_text(encoding="utf-8"))
    data = card.data.to_dict()
    for key in ("license", "language", "task_categories", "size_categories", "configs"):
        if not data.get(key):
            yield f"README.md: the card has no {key}"
    for config in data.get("configs", ()):
        name, schemas = config["config_name"], set()
        for split in config["data_files"]:
            file = dataset / split["path"]
            if not file.is_file():
                yield f"README.md: {name} names {split['path']}, which is not there"
                continue
            frame = pl.read_parquet(file)
            schemas.add(str(frame.schema))
            yield from _faults_of_split(dataset, file, frame)
        if len(schemas) > 1:
            yield f"{name}: its splits have different columns"
    manifest = json.loads((dataset / "manifest.json").read_text())
    for path, digest in manifest["files"].items():
        if not (dataset / path).is_file() or sha256(dataset / path) != digest:
            yield f"{path}: is not the file of manifest.json"


def _faults_of_split(dataset: Path, file: Path, frame: pl.DataFrame) -> Iterator[str]:
    name = file.relative_to(dataset)
    lines = file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    if len(lines) != frame.height:
        yield f"{name}: {frame.height} rows, but {len(lines)} in its .jsonl"
    if "licence" in frame.columns:
        others = {licence for licence in frame["licence"] if LICENCE not in (licence or "")}
        yield from (f"{name}: a case is under {licence}" for licence in others)


def files_of(dataset: Path) -> list[Path]:
    return sorted(file for file in dataset.rglob("*") if file.is_file() and file.name != SUMS)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("dist"))
    print(build(parser.parse_args().out))
