"""Run a server that ends with the process that started it, and is started again when it is killed
or hangs: `python -m medaction.flows.attached PORT COMMAND ...`; port 0: it is never asked.

A process that was killed can stop nobody. Its children would live on for ever: here, a Prefect
server that holds a port and a database. And a Prefect server that is killed, by a machine short of
memory, say, is no reason to end the run that reports to it. Only the standard library is imported,
by `configured` too, so that this costs nothing beside what it runs.
"""

import os
import signal
import subprocess
import sys
import time

from medaction.flows.configured import why_silent

RESTARTS = 5
"""A server that is killed more often than this will not live."""
ASKED_EVERY_S = 5.0
ANSWERS_WITHIN_S = 3.0
HANGS_AFTER_S = 20.0
"""So long without an answer, after the first one, and a server hangs. On two cores under a load of
15 Prefect's answered within 2 s."""


def main() -> int:
    parent = os.getppid()
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True

    # SIGTERM goes to the whole group; whoever sends it waits for this process, so it ends last.
    signal.signal(signal.SIGTERM, end)
    port = int(sys.argv[1])
    for _ in range(1 + RESTARTS):
        child = subprocess.Popen(sys.argv[2:])
        last_answer, last_question = None, time.monotonic()
        while child.poll() is None:
            if port and time.monotonic() - last_question > ASKED_EVERY_S:
                last_question = time.monotonic()
                if not why_silent(f"http://127.0.0.1:{port}/api", ANSWERS_WITHIN_S):
                    last_answer = time.monotonic()
                # Only after a first answer: a slow start is `wait_ready`'s business.
                elif last_answer and last_question - last_answer > HANGS_AFTER_S:
                    child.kill()
            # The parent was killed, and this process has been handed to init.
            if os.getppid() != parent:
                child.terminate()
                try:
                    child.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    child.kill()
            time.sleep(0.5)
        # Only what was killed is started again: a server that ends by itself would end again.
        if ending or child.returncode != -signal.SIGKILL or os.getppid() != parent:
            break
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
