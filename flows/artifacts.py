"""What a run shows on its page of Prefect."""

from pathlib import Path
from typing import Any

import polars as pl
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from medaction.flows.summary import QUERIES, markdown_table
from medaction.trajectories.export import Version

CHANGES = 200
"""Rows of what a version changes that are shown; the manifest has them all."""


def publish_summary(summary: dict[str, Any]) -> None:
    """Funnel, teachers, and the whole of summary.md."""
    create_table_artifact(key="funnel", table=summary["funnel"], description=QUERIES["Funnel"].note)
    create_table_artifact(
        key="teachers",
        table=summary["teachers"],
        description="What became of each teacher's trajectories",
    )
    _publish_file("summary", Path(summary["out"]) / "summary.md")


def publish_checks(checks: dict[str, Any]) -> None:
    """Every check with its figures, and the whole of checks.md."""
    create_table_artifact(key="checks", table=checks["checks"], description=QUERIES["Checks"].note)
    _publish_file("refused", Path(checks["out"]) / "checks.md")


def _publish_file(key: str, file: Path) -> None:
    create_markdown_artifact(key=key, markdown=file.read_text(encoding="utf-8"))


def publish_version(version: Version) -> None:
    """The dataset's version and what it changes against the one before."""
    head = f"**Version {version.number}** in `{version.folder}`: {version.records} records"
    if version.is_new:
        changes = [f"{version.sum_of(kind)} {kind}" for kind in ("added", "removed", "changed")]
        parts = [f"{head}; against the version before: {', '.join(changes)}."]
    else:
        parts = [f"{head}, unchanged."]
    if version.changes:
        parts.append(markdown_table(pl.DataFrame(version.changes[:CHANGES])))
    if (more := len(version.changes) - CHANGES) > 0:
        parts.append(f"... and {more} more rows in its manifest.json")
    create_markdown_artifact(key="dataset", markdown="\n\n".join(parts))
