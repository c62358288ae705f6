"""Run a command that ends with the process that started it, and is started again when it is killed:
`python -m medaction.flows.attached COMMAND ...`.

A process that was killed can stop nobody. Its children would live on for ever: here, a Prefect
server that holds a port and a database. And a Prefect server that is killed, by a machine short of
memory, say, is no reason to end the run that reports to it. Only the standard library is imported,
so that this costs nothing beside what it runs.
"""

import os
import signal
import subprocess
import sys
import time

RESTARTS = 5
"""A server that is killed more often than this will not live."""


def main() -> int:
    parent = os.getppid()
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True

    # SIGTERM goes to the whole group; whoever sends it waits for this process, so it ends last.
    signal.signal(signal.SIGTERM, end)
    for _ in range(1 + RESTARTS):
        child = subprocess.Popen(sys.argv[1:])
        while child.poll() is None:
            if os.getppid() != parent:
                child.terminate()
                try:
                    child.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    child.kill()
            time.sleep(0.5)
        if ending or child.returncode != -signal.SIGKILL or os.getppid() != parent:
            break
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
