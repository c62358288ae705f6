"""Progress of a stage, in the terminal, and as an artifact of the Prefect flow run if there is
one."""

import logging
import time
from typing import cast
from uuid import UUID

import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from medaction.flows.artifacts import flow_run_id, prefect_answers

log = logging.getLogger("medaction")
# stdout is for results: --json is read by programs.
console = Console(stderr=True)

ARTIFACT_EVERY_S = 2.0
"""Each update of the artifact is a request to the server."""
LINE_EVERY_S = 60.0
"""Where nobody sees a bar move (a log of nohup or Slurm): a line a minute, our choice."""


class ProgressArtifact:
    """How far a stage is, on the page of the Prefect flow run if there is one. A server that is
    away costs a notice: the stage goes on."""

    def __init__(self, stage: str):
        self.stage = stage
        self._id: UUID | None = None

    def show(self, percent: float, text: str) -> None:
        if not flow_run_id() or not prefect_answers():
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        try:
            if self._id:
                update_progress_artifact(self._id, progress=percent, description=text)
            else:
                # Typed for both worlds, called in the synchronous one.
                self._id = cast(UUID, create_progress_artifact(percent, self.stage, text))
        except httpx.HTTPError as error:
            log.info("Prefect does not take the progress of %s (%s)", self.stage, error)


class Progress:
    """`with Progress('rollouts', 107) as progress: progress.advance()`; counts failures apart.

    `total` None: not known before the source has come to its end.
    """

    def __init__(self, stage: str, total: int | None, failing: str = "with failures"):
        self.stage, self.total, self.failing = stage, total, failing
        self.count = self.failed = 0
        self._artifact = ProgressArtifact(stage)
        self._began = self._sent = self._printed = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description:>14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._line = self._bar.add_task(stage, total=total, failed="")

    def __enter__(self) -> "Progress":
        self._send()
        self._bar.start()
        return self

    def advance(self, failed: bool = False) -> None:
        self.count += 1
        self.failed += failed
        note = f"[red]{self.failed} {self.failing}" if self.failed else ""
        self._bar.update(self._line, completed=self.count, failed=note)
        now = time.monotonic()
        if now - self._sent > ARTIFACT_EVERY_S:
            self._send()
        if not console.is_terminal and now - self._printed > LINE_EVERY_S:
            self._printed = now
            minutes = (now - self._began) / 60
            console.print(f"{self._state()}, after {minutes:.0f} min", highlight=False)

    def ends(self, total: int) -> None:
        """The source has come to its end: it had so many."""
        self.total = total
        self._bar.update(self._line, total=total)

    def _send(self) -> None:
        self._sent = time.monotonic()
        share = 0.0 if self.total is None else 100.0 * self.count / max(self.total, 1)
        self._artifact.show(share, self._state())

    def _state(self) -> str:
        count = " so far" if self.total is None else f" of {self.total} cases"
        failures = f", {self.failed} {self.failing}" if self.failed else ""
        return f"{self.stage}: {self.count}{count}{failures}"

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()
        self._send()
