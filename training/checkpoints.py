"""Checkpoints on disk, and what processes leave for whoever started them."""

import shutil
from pathlib import Path

COMPLETE = "complete"
"""A checkpoint with this file in it is whole: every process had written its part."""
TRAINED = "trained.json"
"""In the run's folder once the last step is done and the weights are written."""
REFUSAL = "refusal.txt"
"""What a process refused, in the run's folder."""


def newest_checkpoint(out: Path) -> Path | None:
    """The newest whole checkpoint."""
    complete = [mark.parent for mark in (out / "checkpoints").glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=lambda folder: int(folder.name.rsplit("-", 1)[1]), default=None)


def drop_torn_checkpoints(out: Path) -> None:
    """Remove what a kill in the middle of saving left."""
    for folder in (out / "checkpoints").glob("checkpoint-*"):
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)
