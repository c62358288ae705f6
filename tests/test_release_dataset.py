"""The release's dataset is checked as a hub and a reader would: what is wrong with it is said."""

import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from medaction.cli.main import main
from tests.conftest import REPOSITORY
from tests.runs import sample_cases


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("release", REPOSITORY / ".ci" / "release_dataset.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the product writes for two of the demo's cases."""
    folder = tmp_path_factory.mktemp("release")
    cases = sample_cases(folder / "cases", 1, 3)
    out = folder / "out"
    words = ["distill", "--cases", cases, "--out", out, "--teacher", "kg-targeted"]
    main([*map(str, words), "--engine", "local"])
    return (out / "dataset").resolve()


@pytest.mark.long
def test_a_dataset_as_it_is_written_has_no_fault(script: ModuleType, dataset: Path) -> None:
    assert list(script.faults_of(dataset)) == []


@pytest.mark.long
def test_what_a_hub_would_stumble_over_is_named(
    script: ModuleType, dataset: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    records = pl.read_parquet(copy / "train.parquet")
    other = records.with_columns(licence=pl.lit("CC BY-NC 4.0"))
    other.write_parquet(copy / "train.parquet")
    lines = (copy / "train.jsonl").read_text().splitlines(keepends=True)
    (copy / "train.jsonl").write_text("".join(lines[1:]))
    card = (copy / "README.md").read_text()
    (copy / "README.md").write_text(card.replace("language: [en]\n", ""))
    faults = "\n".join(script.faults_of(copy))
    assert "the card has no language" in faults
    assert "a case is under CC BY-NC 4.0" in faults
    assert f"{len(lines)} rows, but {len(lines) - 1} in its .jsonl" in faults
    assert "train.parquet: is not the file of manifest.json" in faults
    (copy / "train.parquet").unlink()
    assert "train.parquet, which is not there" in "\n".join(script.faults_of(copy))
    assert json.loads((copy / "manifest.json").read_text())["records"] == records.height
