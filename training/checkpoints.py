"""Checkpoints on disk, and what processes leave for whoever started them."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medaction.training.settings import TrainError

COMPLETE = "complete"
"""A checkpoint with this file in it is whole: every process had written its part. It lists them."""
SPARE_CHECKPOINTS = 2
"""What transformers' own rotation leaves beyond those that are kept: it runs before the one that is
being written is whole, and counts that one and the best."""
TRAINED = "trained.json"
"""In the run's folder once the last step is done and the weights are written."""
REFUSAL = "refusal.txt"
"""What a process refused, in the run's folder."""


def mark_whole(checkpoint: Path) -> None:
    """List the checkpoint's files with their sizes, in bytes; the list appears whole or not at
    all."""
    listing = json.dumps(_sizes(checkpoint))
    building = checkpoint / f"{COMPLETE}.building"
    building.write_text(listing)
    building.replace(checkpoint / COMPLETE)


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (file for file in checkpoint.rglob("*") if file.is_file() and file.name != COMPLETE)
    return {str(file.relative_to(checkpoint)): file.stat().st_size for file in files}


def refuse_changed(checkpoint: Path) -> None:
    """Raises TrainError where a file of a whole checkpoint is no longer what was written: without
    its moments, say, training would go on all the same, with a jump in the loss."""
    listing = (checkpoint / COMPLETE).read_text()
    sizes = _sizes(checkpoint)
    try:
        written = json.loads(listing) if listing else {}  # earlier ones have an empty mark
        changed = [name for name, size in written.items() if sizes.get(name) != size]
    except ValueError:
        changed = [COMPLETE]
    if changed:
        raise TrainError(
            f"{checkpoint} was changed after it was written ({min(changed)}): remove that folder to"
            " go on from an earlier checkpoint, or from the beginning"
        )


def newest_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint."""
    complete = [mark.parent for mark in (out / "checkpoints").glob(f"checkpoint-*/{COMPLETE}")]
    # By number: as text 'checkpoint-900' stands behind 'checkpoint-1000'.
    return max(complete, key=lambda folder: int(folder.name.rsplit("-", 1)[1]), default=None)


def where_it_begins(out: Path) -> str:
    """For the log: the checkpoint from which a run goes on, or that none of its own is whole."""
    if newest := newest_checkpoint(out):
        return f"; it goes on from {newest.name}"
    begun = (out / "log.jsonl").is_file()
    return "; no whole checkpoint is there: it begins again" if begun else ""


def drop_torn_checkpoints(out: Path) -> None:
    """Remove what a kill in the middle of saving left."""
    for folder in (out / "checkpoints").glob("checkpoint-*"):
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)


class Writes:
    """What is being written of a checkpoint while the training goes on, in order."""

    def __init__(self) -> None:
        self.running: list[Future[None]] = []
        self.thread = ThreadPoolExecutor(max_workers=1)

    def then(self, work: Callable[..., Any], *parts: Any) -> None:
        """Do this once all before it is done. Raises what has kept something before it from being
        written."""
        for write in self.running:
            # A full disk ends the run at the next checkpoint, not only at its end.
            if write.done():
                write.result()
        before = tuple(self.running)

        def after() -> None:
            for write in before:
                write.result()
            work(*parts)

        self.running.append(self.thread.submit(after))

    def finish(self) -> None:
        """Wait for everything. Raises what kept something from being written."""
        for write in self.running:
            write.result()
        self.running.clear()
