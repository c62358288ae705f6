"""Run a command that ends with the process that started it: `python -m medaction.flows.attached
COMMAND ...`.

A process that was killed can stop nobody. Its children would live on for ever: here, a Prefect
server that holds a port and a database. Only the standard library is imported, so that this costs
nothing beside what it runs.
"""

import os
import signal
import subprocess
import sys
import time


def main() -> int:
    parent = os.getppid()
    child = subprocess.Popen(sys.argv[1:])
    # Who stops the whole group waits for this process: it is to end last.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while child.poll() is None:
        if os.getppid() != parent:
            child.terminate()
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
        time.sleep(0.5)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
