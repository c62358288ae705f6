"""End the Ray that a process left in the middle of its start, once that process is gone:
`python -m medaction.flows.orphans PID FOLDER`. Its processes are known by the folder with its
files, or as children of these."""

import os
import shutil
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

LOOKS_EVERY_S = 0.2
"""Our choice: Ray's servers and their agents start seconds apart."""


def members_of(folder: str, among: Iterable[psutil.Process]) -> set[psutil.Process]:
    """The processes whose command line names the folder, and all of their children; not this
    one."""
    members = set()
    for process in among:
        with suppress(psutil.Error):  # it has ended
            if process.pid != os.getpid() and folder in " ".join(process.cmdline()):
                members |= {process, *process.children(recursive=True)}
    return members


def main() -> None:
    parent, folder = int(sys.argv[1]), sys.argv[2]
    members = members_of(folder, psutil.process_iter())
    # Before its end too: then raylet may be gone, and its agents are nobody's children.
    while os.getppid() == parent:
        members |= members_of(folder, psutil.process_iter())
        time.sleep(LOOKS_EVERY_S)
    members |= members_of(folder, psutil.process_iter())
    for process in members:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(members, timeout=5)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
