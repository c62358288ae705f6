"""The two notebooks of examples/ run as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.py"))


@pytest.mark.long
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    hidden = ("PREFECT_API_URL", "RAY_ADDRESS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"MEDACTION_CALL_CACHE": str(tmp_path / "calls"), "TMPDIR": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, notebook], env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    assert notebook.read_text().startswith("# %% [markdown]")


def test_there_are_two_notebooks() -> None:
    assert len(NOTEBOOKS) == 2
