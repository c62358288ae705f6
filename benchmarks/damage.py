"""A run to which something happens: how it ends, how soon, and what is lost.

    python -m benchmarks.damage [--only 'SIGTERM' ...] [--engine local]

Each fault is played on a run of its own over the sample cases, with a simulated teacher that takes
0.3 s a call. The same command is then given again without the fault. Printed of each: the status
and the last line, the seconds from the fault to the end, whether a traceback was shown, processes
that were left, and the rollouts that the second run had to end with but lacks. Ends with status 1
where a run did not end in time or go on, left a process, or lost something.
"""

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.faults import teacher_file
from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store
from tests.simulated_teacher import cases_in, requests_of, simulated_teacher

CASES, ROLLOUTS = 12, 3
AFTER_REQUESTS = 40
"""The fault comes when the teacher has had so many requests, of some 180."""
WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A run under way, its folders, and the teacher's process."""

    process: psutil.Popen
    home: Path
    teacher: subprocess.Popen[str]


def _send(number: int) -> Callable[[Scene], None]:
    return lambda scene: scene.process.send_signal(number)


def _child(pattern: str) -> Callable[[Scene], None]:
    """SIGKILL to the run's processes of this name."""

    def kill(scene: Scene) -> None:
        members = scene.process.children(recursive=True)
        names = {member: " ".join(member.cmdline()) for member in members}
        chosen = [member for member, name in names.items() if re.search(pattern, name)]
        assert chosen, f"no process of the run is {pattern}"
        for member in chosen:
            member.kill()

    return kill


def _second_flow(scene: Scene) -> None:
    """The same command once more, while the run goes on."""
    done = subprocess.run(
        scene.process.args, env=environment_of(scene.home), capture_output=True, text=True
    )
    assert done.returncode != 0, "a second run took the store of the first"
    assert "is in use" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def _nothing(_: Scene) -> None:
    pass


def _hang(seconds: float) -> Callable[[Scene], None]:
    """The teacher takes connections and answers none, for so long."""

    def stop(scene: Scene) -> None:
        scene.teacher.send_signal(signal.SIGSTOP)
        threading.Timer(seconds, scene.teacher.send_signal, [signal.SIGCONT]).start()

    return stop


def _clock_steps(scene: Scene) -> None:
    """An hour forth, and three seconds later two hours back."""
    for step in ("+3600", "-3600"):
        (scene.home / "clock").write_text(f"{step}\n")
        time.sleep(3)


def _small_files() -> None:
    """No file may grow beyond 3 MiB: writes fail as they do on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**20, 3 * 2**20))


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a run. `before`: in the run's process, before it starts; `environment`: what
    it finds, {home} being the folder of all its files; `within`: shell commands in a mount
    namespace of its own, with that folder as $HERE (root only); `happens`: when it is under way.
    `goes_on`: the run is to end as if nothing had happened."""

    happens: Callable[[Scene], None] = _nothing
    goes_on: bool = False
    before: Callable[[], None] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    within: str = ""
    engine: str = "local"
    within_s: float = WITHIN_S
    """How soon the run is to end."""


NO_HOME = (("HOME", "/proc/none"), ("XDG_CACHE_HOME", "/proc/none/cache"))
CLOCK = (
    ("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"),
    ("FAKETIME_TIMESTAMP_FILE", "{home}/clock"),
    ("FAKETIME_NO_CACHE", "1"),
    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
)
"""Debian's package faketime: the wall clock is off by what stands in the file, the monotonic one is
not, as when an administrator or NTP sets the clock."""
READ_ONLY = (
    "mkdir $HERE/out && mount --bind $HERE/out $HERE/out && mount -o remount,ro,bind $HERE/out"
)
FAULTS = {
    "nothing": Fault(goes_on=True),
    "Ctrl-C": Fault(_send(signal.SIGINT)),
    "SIGTERM": Fault(_send(signal.SIGTERM)),
    "SIGKILL": Fault(_send(signal.SIGKILL)),
    "two runs on one folder": Fault(_second_flow, goes_on=True),
    # It may be starting anew: the run waits for it for a minute (`llm.calls.LOST_S`).
    "the teacher's server killed": Fault(lambda scene: scene.teacher.kill(), within_s=90),
    # It is waited for twice the time-out, here 5 s; with the default of 10 minutes for longer.
    "the teacher's server hangs for 7 s": Fault(_hang(7), goes_on=True),
    "the teacher's server hangs": Fault(_hang(300), within_s=20),
    "the clock goes an hour forth, two back": Fault(_clock_steps, goes_on=True, environment=CLOCK),
    "folder that is read-only": Fault(within=READ_ONLY),
    "no file may grow (disk full)": Fault(before=_small_files),
    "HOME not writable": Fault(goes_on=True, environment=NO_HOME),
    "no /dev/shm": Fault(goes_on=True, within="umount -l /dev/shm"),
    "no /dev/shm, on Ray": Fault(goes_on=True, within="umount -l /dev/shm", engine="ray"),
    "Prefect's server killed": Fault(_child(r"prefect server start"), goes_on=True, engine="ray"),
    "Ray's worker killed": Fault(_child(r"^ray::Player"), goes_on=True, engine="ray"),
    "Ray's keeper of limits killed": Fault(_child(r"^ray::_Keeper"), goes_on=True, engine="ray"),
    "Ray's GCS killed": Fault(_child(r"gcs_server"), engine="ray"),
    "Ray's raylet killed": Fault(_child(r"raylet/raylet "), engine="ray"),
    "SIGTERM, on Ray": Fault(_send(signal.SIGTERM), engine="ray"),
    "Ctrl-C, on Ray": Fault(_send(signal.SIGINT), engine="ray"),
}


def environment_of(home: Path) -> dict[str, str]:
    servers = ("PREFECT_", "RAY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(servers)}
    return kept | {"MEDACTION_CALL_CACHE": str(home / "calls")}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `lost`: rollouts that it and the same command again did not bring."""

    status: int
    seconds: float
    line: str
    traceback: bool
    processes: int
    lost: int


def play(name: str, fault: Fault, home: Path) -> Outcome:
    """Play one fault in an empty folder."""
    cases = cases_in(home / "cases", CASES)
    with simulated_teacher(home / "log", "--after-s", 0.3) as (teacher, api_base):
        preset = teacher_file(home, api_base, timeout_s=5.0)
        arguments = ["--cases", cases, "--out", home / "out", "--preset", preset]
        arguments += ["--rollouts", ROLLOUTS, "--launch-points", 0, "--engine", fault.engine]
        command = [sys.executable, "-m", "medaction", "distill", *map(str, arguments)]
        if fault.within:
            command = ["unshare", "-m", "sh", "-c", f'{fault.within} && exec "$@"', "sh", *command]
        environment = environment_of(home) | {"HERE": str(home)}
        environment |= {name: value.format(home=home) for name, value in fault.environment}
        (home / "clock").write_text("+0\n")
        with (home / "words").open("wb") as words, _children_of_none() as strays:
            process = psutil.Popen(
                command, env=environment, stdout=words, stderr=words, preexec_fn=fault.before
            )
            scene = Scene(process, home, teacher)
            while process.poll() is None and len(requests_of(home / "log")) < AFTER_REQUESTS:
                strays |= set(process.children(recursive=True))
                time.sleep(0.05)
            strays |= set(process.children(recursive=True)) if process.poll() is None else set()
            began = time.monotonic()
            if process.poll() is None:
                fault.happens(scene)
            status = process.wait(timeout=400)
            seconds = time.monotonic() - began
            _, alive = psutil.wait_procs(strays, timeout=WITHIN_S)
    text = (home / "words").read_text(errors="replace").strip()
    port = re.findall(r":(\d+)/", api_base)[0]
    with simulated_teacher(home / "log", "--port", port):
        command = command[command.index(sys.executable) :]
        command[command.index("--engine") + 1] = "local"
        done = subprocess.run(command, env=environment_of(home), capture_output=True, text=True)
        if done.returncode:  # what was refused while the teacher was away is left to `retry`
            retry = [sys.executable, "-m", "medaction", "retry", "--out", str(home / "out")]
            subprocess.run(retry, env=environment_of(home), capture_output=True)
    with Store(home / "out" / STORE) as store:
        [(rollouts,)] = store.rows("select count(*) from trajectories")
    line = text.splitlines()[-1][:110] if text else ""
    lost = CASES * ROLLOUTS - rollouts
    return Outcome(status, seconds, line, "Traceback" in text, len(alive), lost)


@contextmanager
def _children_of_none() -> Iterator[set[psutil.Process]]:
    """Processes that a run started; those that still live at the end of the block are ended."""
    strays: set[psutil.Process] = set()
    try:
        yield strays
    finally:
        for member in strays:
            if member.is_running():
                member.kill()


def is_good(fault: Fault, outcome: Outcome) -> bool:
    ended_well = outcome.status == 0 if fault.goes_on else outcome.seconds <= fault.within_s
    return ended_well and not (outcome.traceback or outcome.processes or outcome.lost)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--engine", choices=["local", "ray"], help="only the faults on this one")
    options = parser.parse_args()
    table = Table("fault", "status", "s", "traceback", "processes left", "lost", "last line")
    good = True
    for name in options.only:
        fault = FAULTS[name]
        if options.engine not in (None, fault.engine):
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = play(name, fault, Path(folder))
        good &= is_good(fault, outcome)
        cells = (outcome.status, f"{outcome.seconds:.1f}", outcome.traceback, outcome.processes)
        table.add_row(name, *map(str, cells), str(outcome.lost), outcome.line)
        print(name, outcome, flush=True)
    Console(width=150).print(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
