"""Processes of ours, and the way to them."""

import os
import subprocess
from typing import Any


def end_process(process: "subprocess.Popen[Any]", within_s: float) -> None:
    """Ask a process to end, and kill it where it has not within so many seconds; nothing is done to
    one that has ended."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        # The wait behind it reaps the process: no zombie stays.
        process.kill()
        process.wait()


def spare_loopback() -> None:
    """A proxy for the world outside is not asked for servers on this machine."""
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if "127.0.0.1" not in spared:
        # Some libraries read one of the two, some the other.
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(
            filter(None, [spared, "127.0.0.1", "localhost"])
        )
