"""What a command and everything that it starts use: CPU seconds and memory over time."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil


class Watch:
    """Starts a command, and follows its process and all descendants, those too whose parents have
    ended, until `stop`.

    `cpu` is the CPU seconds of each; `samples` are (time, CPU seconds so far, sum of proportional
    set sizes in MiB), one `every_s`. What a process uses after its last sample is missed.
    """

    def __init__(self, command: Sequence[str], every_s: float = 0.2, **how: Any):
        self.process = psutil.Popen(command, text=True, start_new_session=True, **how)
        self.cpu: dict[psutil.Process, float] = {psutil.Process(self.process.pid): 0.0}
        self.samples: list[tuple[float, float, float]] = []
        self.every_s, self._ended = every_s, threading.Event()
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
        while not self._ended.wait(self.every_s):
            self._sample()

    def _sample(self) -> None:
        parent_of = {member: member.info["ppid"] for member in psutil.process_iter(["ppid"])}
        # Not by its number alone: that is used again after a process has ended.
        numbers = {member.pid for member in parent_of if member in self.cpu}
        while new := {m.pid for m, parent in parent_of.items() if parent in numbers} - numbers:
            numbers |= new
        mib = 0.0
        for member in parent_of:
            if member.pid in numbers:
                with suppress(psutil.Error):  # it has ended; what it had used is counted
                    self.cpu[member] = sum(member.cpu_times()[:2])
                    mib += member.memory_full_info().pss / 2**20
        self.samples.append((time.time(), sum(self.cpu.values()), mib))
