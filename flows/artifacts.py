"""What a run shows on its page of Prefect; nothing where it is no flow run. Prefect is imported
where it is used: that takes a second of CPU."""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from medaction.flows.configured import FIRST_SILENCE_S, prefect_silence
from medaction.flows.summary import REPORT_QUERIES, table_of_frame
from medaction.trajectories.export import Version
from medaction.trajectories.store import Store

log = logging.getLogger("medaction")

CHANGES_SHOWN = 200
"""Rows of what a version changes that are shown; the manifest has them all."""

ANSWERED_WITHIN_S = 5.0
"""How long the end of a run waits for a server that is away: its work is done. Our choice, the time
that IMPATIENT gives one answer; a new start of the server took 5 to 12 s."""


def flow_run_id() -> str | None:
    """The id of the Prefect flow run that this process is in. Where nothing has imported Prefect
    there is none, and nothing is imported: that takes a second of CPU."""
    if "prefect" not in sys.modules:
        return None
    from prefect.runtime import flow_run

    id_: str | None = flow_run.get_id()
    return id_


def prefect_answers(patience_s: float = 0.0) -> bool:
    """Whether Prefect's server answers, now or within `patience_s`. Its absence costs one notice,
    and little time: see Silence."""
    from medaction.flows.prefect_server import server_answers

    silence, waits = prefect_silence, patience_s > 0 and not prefect_silence.waited
    if time.monotonic() < silence.until and not waits:
        return False
    if server_answers(patience_s if waits else 0.0):
        silence.until, silence.length_s, silence.waited = 0.0, FIRST_SILENCE_S, False
        return True
    if not silence.until:
        log.warning("Prefect does not answer: the run goes on, and shows nothing there meanwhile")
    silence.waited |= waits
    silence.until = time.monotonic() + silence.length_s
    silence.length_s *= 2
    return False


def note_ended(store: Store) -> None:
    """Tell Prefect which flow runs of this folder have ended. It shows as running those whose
    process was killed, and those whose end came while the server was away."""
    if (this := flow_run_id()) and prefect_answers():
        from medaction.flows.prefect_server import mark_ended

        # One flow run may have run twice here: its newest row counts.
        mark_ended(
            dict(
                store.rows(
                    "select flow_run_id, arg_max(state, started) from runs"
                    " where state <> 'running' and flow_run_id <> ? group by all",
                    [this],
                )
            )
        )


def publish_summary(summary: dict[str, Any]) -> None:
    """Funnel, teachers, and the whole of summary.md."""
    publish_artifact(
        key="funnel", table=summary["funnel"], description=REPORT_QUERIES["Funnel"].note
    )
    publish_artifact(
        key="teachers",
        table=summary["teachers"],
        description="What became of each teacher's trajectories",
    )
    text = (Path(summary["out"]) / "summary.md").read_text(encoding="utf-8")
    publish_artifact(key="summary", markdown=text)


def publish_checks(checks: dict[str, Any]) -> None:
    """Every check with its figures, and the whole of checks.md."""
    publish_artifact(
        key="checks", table=checks["checks"], description=REPORT_QUERIES["Checks"].note
    )
    text = (Path(checks["out"]) / "checks.md").read_text(encoding="utf-8")
    publish_artifact(key="refused", markdown=text)


def publish_version(version: Version) -> None:
    """The dataset's version and what it changes against the one before."""
    head = f"**Version {version.number}** in `{version.folder}`: {version.records} records"
    if version.is_new:
        changes = [f"{version.sum_of(kind)} {kind}" for kind in ("added", "removed", "changed")]
        parts = [f"{head}; against the version before: {', '.join(changes)}."]
    else:
        parts = [f"{head}, unchanged."]
    if version.changes:
        parts.append(table_of_frame(pl.DataFrame(version.changes[:CHANGES_SHOWN])))
    if (more := len(version.changes) - CHANGES_SHOWN) > 0:
        parts.append(f"... and {more} more rows in its manifest.json")
    publish_artifact(key="dataset", markdown="\n\n".join(parts))


def publish_artifact(**artifact: Any) -> None:
    """A Markdown artifact, or a table. A server that is away takes none, and ends nothing."""
    # Asked first, because Prefect's own client would try for minutes.
    if not flow_run_id() or not prefect_answers(ANSWERED_WITHIN_S):
        return
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    create = create_markdown_artifact if "markdown" in artifact else create_table_artifact
    try:
        create(**artifact)
    except httpx.HTTPError as error:
        log.warning("Prefect does not take '%s' (%s)", artifact["key"], error)
