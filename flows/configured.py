"""The Prefect API and the Ray cluster of the user's own that a run is to use, and whether they are
there. Imports nothing that takes time."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443, "ray": 10001, "": 6379}
"""Where a server listens whose address has no port, by scheme; Ray's own address has none."""

FIRST_SILENCE_S = 20.0
"""Our choice: a question to a server that hangs takes 3 s, so at most a seventh of the time."""


@dataclass(slots=True)
class Silence:
    """What is known of a Prefect server that did not answer when it was last asked. Each question
    to one that hangs takes seconds: the longer it is away, the more seldom it is asked."""

    until: float = 0.0
    """Not asked again before (monotonic); 0: it answered."""
    length_s: float = FIRST_SILENCE_S
    waited: bool = False
    """Whether it was waited for: once, in the time that it is away."""


prefect_silence = Silence()
"""This process's Prefect server. Where it is away at the end, the process waits for it no more."""


def why_silent(address: str, within_s: float = 8.0) -> str:
    """Why nothing can be reached at a URL or HOST:PORT; empty: something listens there, and where
    it speaks HTTP answers: a server that hangs takes connections, too."""
    try:
        url = urlsplit(address if "://" in address else f"//{address}")
        if url.scheme not in PORTS:
            return f"nothing is known of {url.scheme}://"
        port = url.port or PORTS[url.scheme]
        with socket.create_connection((url.hostname or "", port), within_s) as connection:
            if url.scheme == "http":
                question = f"GET {url.path}/health HTTP/1.0\r\nHost: {url.netloc}\r\n\r\n"
                connection.sendall(question.encode())
                return "" if connection.recv(1) else "it closes the connection"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def configured_prefect() -> str:
    """The URL of the Prefect API that environment or profile name; empty: none."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    # Prefect reads its own settings; where it was never set up, its import is a second for nothing.
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    if not any(file.exists() for file in (home / "profiles.toml", Path("prefect.toml"))):
        return ""
    from prefect.settings import PREFECT_API_URL

    return str(PREFECT_API_URL.value() or "")


def configured_ray() -> str:
    """The address of the cluster that RAY_ADDRESS names; empty: Ray finds or starts one here."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address in ("auto", "local") else address
