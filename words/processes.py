"""Processes of ours."""

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
