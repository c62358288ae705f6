"""Progress of a stage, in the terminal and as a Prefect artifact."""

import time
from types import TracebackType
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

console = Console(stderr=True)

ARTIFACT_EVERY_S = 2.0


class Progress:
    """`with Progress('rollouts', 107) as progress: progress.advance()`; counts failures apart.

    `total` None: not known before the source has come to its end.
    """

    def __init__(self, stage: str, total: int | None):
        self.stage, self.total = stage, total
        self.done = self.failed = 0
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
        self._told = time.monotonic()

    def __enter__(self) -> "Progress":
        # Typed for both worlds, called in the synchronous one.
        self._artifact = cast(
            UUID, create_progress_artifact(0.0, self.stage, f"{self.stage}: {self._of()}")
        )
        self._bar.start()
        return self

    def advance(self, failed: bool = False) -> None:
        self.done += 1
        self.failed += failed
        note = f"[red]{self.failed} with failures" if self.failed else ""
        self._bar.update(self._line, completed=self.done, failed=note)
        if time.monotonic() - self._told > ARTIFACT_EVERY_S:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        share = 100.0 * self.done / max(self.total, 1) if self.total is not None else 0.0
        failures = f", {self.failed} with failures" if self.failed else ""
        update_progress_artifact(
            self._artifact,
            progress=share,
            description=f"{self.stage}: {self.done} of {self._of()}{failures}",
        )

    def _of(self) -> str:
        return f"{self.total} cases" if self.total is not None else "so far unknown"

    def ends(self, total: int) -> None:
        """The source has come to its end: it had so many."""
        self.total = total
        self._bar.update(self._line, total=total)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._tell()
