"""What a process and everything that it started use, read from /proc: CPU seconds and resident
memory over time."""

import os
import subprocess
import threading
import time
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
EVERY_S = 0.2


class Watch:
    """Follows a process and its descendants, those too whose parents have ended, from the start to
    `stop`.

    `samples` are (time, CPU seconds so far, sum of proportional set sizes in MiB). What a process
      uses after its last sample is missed.
    """

    def __init__(self, root: int):
        self.root, self.known = root, {root}
        self.cpu: dict[int, float] = {}
        self.samples: list[tuple[float, float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def cpu_at(self, when: float) -> float:
        return max((cpu for at, cpu, _ in self.samples if at <= when), default=0.0)

    @property
    def peak_mib(self) -> float:
        return max((mib for *_, mib in self.samples), default=0.0)

    def _follow(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._sample()

    def _sample(self) -> None:
        stats = {
            pid: stat
            for path in Path("/proc").glob("[0-9]*")
            if (stat := _stat(pid := int(path.name)))
        }
        # A number may be used again after its process has ended: what is no longer there is no
        # longer known.
        self.known &= stats.keys()
        while (
            new := {pid for pid, (parent, _) in stats.items() if parent in self.known} - self.known
        ):
            self.known |= new
        self.cpu |= {pid: stats[pid][1] for pid in self.known}
        self.samples.append((time.time(), sum(self.cpu.values()), sum(map(_pss_mib, self.known))))


def _stat(pid: int) -> tuple[int, float] | None:
    """Parent and CPU seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICK


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (OSError, StopIteration):
        return 0.0


def run_watched(command: list[str], **how) -> tuple[subprocess.Popen[str], Watch]:
    process = subprocess.Popen(command, text=True, start_new_session=True, **how)
    return process, Watch(process.pid)
