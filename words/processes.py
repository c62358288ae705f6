"""Processes of ours, and the way to them: a port for a server, its first answer, its end."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from medaction.words.errors import MedactionError

READY_WITHIN_S = 300
"""How long a server may take to start. Prefect's took 12 s on a quiet machine and over 60 s on a
busy one."""


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


GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Controller of a line of /proc/self/cgroup (none: version 2) -> its files with the limit and what
is used, and the line of memory.stat with what of that is only a cache of files."""


def memory_available(
    groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Bytes of memory that are free: the machine's, or what the limits of a container or a job on a
    cluster leave of it."""
    free: list[int] = [psutil.virtual_memory().available]
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in lines:
        _, controller, group = line.split(":", 2)
        if controller not in GROUP_FILES:
            continue
        limit, used, cache = GROUP_FILES[controller]
        # Within a container the group's path may be the machine's: its own limit is the topmost.
        top = groups / controller
        place = top / group.lstrip("/")
        for folder in (place, *place.parents[: len(place.parts) - len(top.parts)]):
            if not (folder / limit).is_file() or not (folder / used).is_file():
                continue
            bound = (folder / limit).read_text().strip()
            stat = (folder / "memory.stat").read_text().split()
            kept = int((folder / used).read_text()) - int(stat[stat.index(cache) + 1])
            if bound != "max":
                free.append(max(0, int(bound) - kept))
    return min(free)


def free_port() -> int:
    with socket.socket() as probe:
        # Port 0: the system chooses one that is free. Another process may take it before the server
        # does.
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def require_free(port: int, host: str = "127.0.0.1") -> None:
    """Whoever starts a server asks first: its own words come after seconds. Raises MedactionError
    for a port that is taken and an address that is not this machine's."""
    with socket.socket() as probe:
        # As servers do: connections of an ended one, which still linger, keep no port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or error
            line = f"port {port} of {host} cannot be had ({reason}): give another with --port"
            raise MedactionError(line) from error


def wait_ready(server: subprocess.Popen[bytes], url: str, log_file: Path, trouble: str) -> None:
    """Until the server answers. Raises MedactionError with the `trouble` and the log's last words
    where it does not start."""
    import httpx  # takes longer to import than most who are here need

    spare_loopback()
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        # It has ended: its log says why.
        if server.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.3)
    last_words = log_file.read_text(errors="replace")[-1500:].strip()
    raise MedactionError(f"{trouble}\n{last_words}")


def stop(server: subprocess.Popen[bytes], patience: float = 10) -> None:
    """End the server and its children, which share its session; `patience`: seconds that they have
    for it by themselves."""
    for way, within_s in ((signal.SIGTERM, patience), (signal.SIGKILL, 5)):
        try:
            # The number of a session's first process is the number of its group.
            os.killpg(server.pid, way)
            server.wait(within_s)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
