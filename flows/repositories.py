"""Folders sent to repositories of a Hugging Face hub: the one of HF_ENDPOINT, with the key of
HF_TOKEN."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from httpx import HTTPError

from medaction.training.checkpoints import newest_checkpoint
from medaction.words.errors import MedactionError

log = logging.getLogger("medaction")


def upload(
    folder: Path, repository: str, kind: Literal["dataset", "model"], message: str, into: str = ""
) -> None:
    """Send the files of a folder as one commit. A new repository is private: whoever pushes decides
    who may see it. Raises MedactionError with the hub's words."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            repo_type=kind,
            path_in_repo=into or None,
            commit_message=message,
        )
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        line = f"{repository} could not be written at {api.endpoint}: {error}"
        raise MedactionError(line) from error


class CheckpointUploads:
    """Sends each new checkpoint of a training run while the run goes on, one at a time. An upload
    that fails is a warning: the checkpoint is on the disk all the same."""

    def __init__(self, out: Path, repository: str):
        self.out, self.repository = out, repository
        # In the background: an upload may take longer than the steps between two checkpoints.
        self.sender = ThreadPoolExecutor(max_workers=1)
        # What is there at the start was sent by the run that wrote it.
        self.latest = newest_checkpoint(out)

    def look(self) -> None:
        """Send the newest whole checkpoint, unless it was sent before."""
        newest = newest_checkpoint(self.out)
        if newest and newest != self.latest:
            self.latest = newest
            self.sender.submit(self._send, newest)

    def _send(self, checkpoint: Path) -> None:
        name = checkpoint.name
        try:
            upload(checkpoint, self.repository, "model", name, f"checkpoints/{name}")
        except MedactionError as error:
            log.warning("%s was not sent: %s", name, error)

    def close(self) -> None:
        self.look()
        self.sender.shutdown(wait=True)
