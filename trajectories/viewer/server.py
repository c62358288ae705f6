"""Serving the viewer on loopback until it is interrupted."""

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from medaction.trajectories.viewer.app import app_of
from medaction.words.errors import MedactionError
from medaction.words.serving import AnnouncedServer


def serve(out: Path, port: int, ready: Callable[[str], None], against: Path | None = None) -> None:
    """Show the run in `out` on 127.0.0.1, beside the one in `against`; `ready` is called with the
    URL.

    Raises MedactionError for a port in use and FileNotFoundError when there is no snapshot.
    """
    app = app_of(out, against)
    with socket.socket() as listening:
        # Else the port of a viewer that has just ended is taken for a minute.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # Loopback alone: reports are patients' texts, and the viewer asks for no password.
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise MedactionError(
                f"port {port} of 127.0.0.1 is taken: give another with --port, or --port 0"
            ) from error
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="warning")
        AnnouncedServer(config, lambda: ready(url)).run(sockets=[listening])
