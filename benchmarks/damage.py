"""A run to which something happens: how it ends, how soon, and what is lost.

    python -m benchmarks.damage [--only 'SIGTERM' ...] [--engine local]
    python -m benchmarks.damage --moments 10 --engine ray [--seed 1]

Each fault is played on a run of its own over 30 made-up cases, with a simulated teacher that takes
0.3 s a call and at most 12 calls at a time. The same command is then given again without the fault.
Printed of each: the status and the last line, the seconds from the fault to the end, how many lines
were shown, the processes and temporary files that were left, the cases that failed, the calls that
were made again (of a teacher that hangs, time-outs too), and the rollouts that the second run had
to end with but lacks. Ends with status 1 where a run did not end in time or go on, showed a page,
left a process, or lost something.

With `--moments` one run is interrupted so often, by Ctrl-C and SIGTERM in turn, at moments drawn at
random from 0.2 s after its start on, and started again with the same command each time.
"""

import argparse
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.faults import distilling, teacher_file
from medaction.flows.prefect_server import spawn_server
from medaction.trajectories.files import STORE
from medaction.trajectories.store import Store
from medaction.words.processes import free_port, stop
from tests.simulated_teacher import cases_in, requests_of, simulated_teacher

CASES, ROLLOUTS, IN_FLIGHT, CALL_S = 30, 3, 12, 0.3
"""450 calls, which take at least 11 s."""
AFTER_REQUESTS = 60
"""The fault comes when the teacher has had so many requests."""
WITHIN_S = 10.0
A_PAGE = 12
"""Lines besides the summary and the bars of progress that are more than anybody reads."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A run under way, its folders, and the teacher's process."""

    process: psutil.Popen
    home: Path
    teacher: subprocess.Popen[str]
    prefect: subprocess.Popen[bytes] | None
    """The Prefect server of the user's, where there is one."""


def _send(number: int) -> Callable[[Scene], None]:
    return lambda scene: scene.process.send_signal(number)


def _children(
    pattern: str, number: int = signal.SIGKILL, then: tuple[float, int] | None = None
) -> Callable[[Scene], None]:
    """A signal to the run's processes whose command line begins so; `then`: so many seconds later
    another one."""

    def act(scene: Scene) -> None:
        members = scene.process.children(recursive=True)
        names = {member: " ".join(member.cmdline()) for member in members}
        chosen = [member for member, name in names.items() if re.search(pattern, name)]
        assert chosen, f"no process of the run is {pattern}"
        for member in chosen:
            member.send_signal(number)
            if then:
                threading.Timer(then[0], member.send_signal, [then[1]]).start()

    return act


PREFECT = r"^\S+ -m prefect server start"
KEEPER_TOO = r"-m prefect server start"
"""Prefect's server, without and with the process that starts it anew (`flows.attached`)."""


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


def _interrupt_while_it_hangs(scene: Scene) -> None:
    scene.teacher.send_signal(signal.SIGSTOP)
    time.sleep(2)
    scene.process.send_signal(signal.SIGINT)
    scene.process.wait(timeout=LONGEST_S)
    scene.teacher.send_signal(signal.SIGCONT)


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
    namespace of its own, with that folder as $HERE (root only); `disk_mib`: the run's folder is on
    a disk of that size, which is made larger before the second run (root only); `happens`: when it
    is under way.
    `goes_on`: the run is to end as if nothing had happened."""

    happens: Callable[[Scene], None] = _nothing
    goes_on: bool = False
    before: Callable[[], None] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    within: str = ""
    disk_mib: int = 0
    engine: str = "local"
    within_s: float = WITHIN_S
    """How soon the run is to end."""
    own_prefect: bool = False
    """Whether the user has a Prefect server, which PREFECT_API_URL names."""
    by_retry: bool = False
    """The model's server was away: what it did not answer is left to `medaction retry`."""


NO_HOME = (
    ("HOME", "/proc/none"),
    ("XDG_CACHE_HOME", "/proc/none/cache"),
    ("PREFECT_HOME", "/proc/none/.prefect"),
)
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


def of_users_prefect(number: int) -> Fault:
    def happens(scene: Scene) -> None:
        assert scene.prefect
        os.killpg(scene.prefect.pid, number)

    return Fault(happens, goes_on=True, own_prefect=True, engine="ray")


FAULTS = {
    "nothing": Fault(goes_on=True),
    "Ctrl-C": Fault(_send(signal.SIGINT)),
    "SIGTERM": Fault(_send(signal.SIGTERM)),
    "SIGKILL": Fault(_send(signal.SIGKILL)),
    "two runs on one folder": Fault(_second_flow, goes_on=True),
    # It may be starting anew: the run waits for it for a minute (`llm.limits.LOST_S`).
    "the teacher's server killed": Fault(
        lambda scene: scene.teacher.kill(), within_s=90, by_retry=True
    ),
    # It is waited for twice the time-out, here 5 s; with the default of 10 minutes for longer.
    "the teacher's server hangs for 7 s": Fault(_hang(7), goes_on=True),
    "the teacher's server hangs": Fault(_hang(300), within_s=20, by_retry=True),
    "Ctrl-C while the teacher hangs": Fault(_interrupt_while_it_hangs, within_s=12),
    "Ctrl-C while the teacher hangs, on Ray": Fault(
        _interrupt_while_it_hangs, within_s=12, engine="ray"
    ),
    "the clock goes an hour forth, two back": Fault(_clock_steps, goes_on=True, environment=CLOCK),
    "folder that is read-only": Fault(within=READ_ONLY),
    "no file may grow (disk full)": Fault(before=_small_files),
    "disk full": Fault(disk_mib=4),
    "HOME not writable, on Ray": Fault(goes_on=True, environment=NO_HOME, engine="ray"),
    "two runs on one folder, on Ray": Fault(_second_flow, goes_on=True, engine="ray"),
    "HOME not writable": Fault(goes_on=True, environment=NO_HOME),
    "no /dev/shm": Fault(goes_on=True, within="umount -l /dev/shm"),
    "no /dev/shm, on Ray": Fault(goes_on=True, within="umount -l /dev/shm", engine="ray"),
    "Prefect's server killed": Fault(_children(PREFECT), goes_on=True, engine="ray"),
    "Prefect's server killed, for good": Fault(_children(KEEPER_TOO), goes_on=True, engine="ray"),
    "Prefect's server hangs for 8 s": Fault(
        _children(PREFECT, signal.SIGSTOP, (8.0, signal.SIGCONT)), goes_on=True, engine="ray"
    ),
    "Prefect's server hangs": Fault(_children(PREFECT, signal.SIGSTOP), goes_on=True, engine="ray"),
    "the user's Prefect server killed": of_users_prefect(signal.SIGKILL),
    "the user's Prefect server hangs": of_users_prefect(signal.SIGSTOP),
    "Ray's worker killed": Fault(_children(r"^ray::Player"), goes_on=True, engine="ray"),
    "Ray's keeper of limits killed": Fault(_children(r"^ray::_Keeper"), goes_on=True, engine="ray"),
    "Ray's GCS killed": Fault(_children(r"gcs_server"), engine="ray"),
    "Ray's raylet killed": Fault(_children(r"raylet/raylet "), engine="ray"),
    "SIGTERM, on Ray": Fault(_send(signal.SIGTERM), engine="ray"),
    "Ctrl-C, on Ray": Fault(_send(signal.SIGINT), engine="ray"),
}


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a run with its temporary files in `home`, and no server of the user's."""
    (home / "temporary").mkdir(exist_ok=True)
    servers = ("PREFECT_", "RAY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(servers)}
    return kept | {
        "MEDACTION_CALL_CACHE": str(home / "calls"),
        "TMPDIR": str(home / "temporary"),
        "PREFECT_HOME": str(home / "prefect-home"),
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `lines`: what it printed after the fault. `files`: what it left in its
    temporary folder. `failed`: failures that it put on record; `lost`: rollouts that it and the
    same command again did not bring, `retried`: as many when `medaction retry` was given too.
    `again`: requests of all these runs that the teacher had had before."""

    status: int
    seconds: float
    lines: tuple[str, ...]
    processes: tuple[str, ...]
    files: tuple[str, ...]
    failed: int
    lost: int
    retried: int
    again: int

    @property
    def is_page(self) -> bool:
        return len(self.lines) > A_PAGE or any("Traceback" in line for line in self.lines)


def play(name: str, fault: Fault, home: Path) -> Outcome:
    """Play one fault in an empty folder."""
    cases = cases_in(home / "cases", CASES)
    if fault.disk_mib:
        (home / "out").mkdir()
        size = f"size={fault.disk_mib}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", home / "out"], check=True)
    with simulated_teacher(home / "log", "--after-s", CALL_S) as (teacher, api_base):
        preset = teacher_file(home, api_base, timeout_s=5.0, in_flight=IN_FLIGHT)
        command = [sys.executable, "-m", "medaction"]
        command += distilling(cases, home / "out", preset, ROLLOUTS, "--engine", fault.engine)
        if fault.within:
            command = ["unshare", "-m", "sh", "-c", f'{fault.within} && exec "$@"', "sh", *command]
        environment = environment_of(home) | {"HERE": str(home)}
        environment |= {name: value.format(home=home) for name, value in fault.environment}
        (home / "clock").write_text("+0\n")
        users = _prefect_of_the_user(home) if fault.own_prefect else nullcontext((None, {}))
        with (
            users as (prefect, named),
            (home / "words").open("wb") as words,
            _children_of_none() as strays,
        ):
            environment |= named
            process = psutil.Popen(
                command, env=environment, stdout=words, stderr=words, preexec_fn=fault.before
            )
            scene = Scene(process, home, teacher, prefect)
            while process.poll() is None and len(requests_of(home / "log")) < AFTER_REQUESTS:
                strays |= set(process.children(recursive=True))
                time.sleep(0.05)
            strays |= set(process.children(recursive=True)) if process.poll() is None else set()
            began, shown = time.monotonic(), (home / "words").stat().st_size
            if process.poll() is None:
                fault.happens(scene)
            while process.poll() is None:
                assert time.monotonic() < began + LONGEST_S, "it does not end"
                strays |= set(process.children(recursive=True))
                time.sleep(0.2)
            seconds = time.monotonic() - began
            _, alive = psutil.wait_procs(strays, timeout=WITHIN_S)
            left = tuple(sorted(command_of(member) for member in alive))
    text = (home / "words").read_bytes()[shown if process.returncode >= 0 else 0 :]
    files = tuple(sorted(path.name for path in (home / "temporary").iterdir()))
    if fault.disk_mib:
        subprocess.run(["mount", "-o", "remount,size=500m", home / "out"], check=True)
    failed = count_in(home / "out", "select count(*) from failures where resolved is null")
    port = re.findall(r":(\d+)/", api_base)[0]
    with simulated_teacher(home / "log", "--port", port):
        command = command[command.index(sys.executable) :]
        command[command.index("--engine") + 1] = "local"
        rollouts = []
        retry = [sys.executable, "-m", "medaction", "retry", "--out", str(home / "out")]
        for again in (command, retry):  # what a server refused is left to `retry`
            subprocess.run(again, env=environment_of(home), capture_output=True)
            rollouts.append(count_in(home / "out", "select count(*) from trajectories"))
    if fault.disk_mib:
        subprocess.run(["umount", home / "out"], check=True)
    lost, retried = (CASES * ROLLOUTS - count for count in rollouts)
    again, words = requests_again(home / "log"), _words_in(text)
    return Outcome(process.returncode, seconds, words, left, files, failed, lost, retried, again)


def requests_again(log: Path) -> int:
    requests = requests_of(log)
    return len(requests) - len({key for key, _ in requests})


LONGEST_S = 400.0
PROGRESS = ("  environments", "      rollouts", "Prefect UI while")


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:60]
    except psutil.Error:
        return f"process {process.pid}"


def count_in(out: Path, sql: str) -> int:
    if not (out / STORE).exists():
        return 0
    with Store(out / STORE) as store:
        return int(store.rows(sql)[0][0])


@contextmanager
def _prefect_of_the_user(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """A Prefect server that no run has started, and the variable that names it."""
    server, url = spawn_server(home / "prefect-of-the-user", free_port())
    try:
        yield server, {"PREFECT_API_URL": url}
    finally:
        stop(server)


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


LAST_MOMENT_S = {"local": 15.0, "ray": 40.0}
"""On Ray the first call came 15 to 30 s after the start."""


def play_moments(engine: str, count: int, seed: int, home: Path) -> bool:
    """Interrupt one run again and again, and print how it ended each time; whether each end was
    good and the last run, left in peace, complete."""
    drawn = random.Random(seed)
    cases, good = cases_in(home / "cases", CASES), True
    last = math.log(LAST_MOMENT_S[engine])
    table = Table("moment", "signal", "status", "s", "lines", "left", "rollouts stored", "line")
    with simulated_teacher(home / "log", "--after-s", 1.0) as (_, api_base):
        preset = teacher_file(home, api_base, in_flight=IN_FLIGHT)
        command = [sys.executable, "-m", "medaction"]
        command += distilling(cases, home / "out", preset, ROLLOUTS, "--engine", engine)
        for number in range(count):
            moment = math.exp(drawn.uniform(math.log(0.2), last))
            chosen = (signal.SIGINT, signal.SIGTERM)[number % 2]
            with (home / "words").open("wb") as words, _children_of_none() as strays:
                process = psutil.Popen(
                    command, env=environment_of(home), stdout=words, stderr=words
                )
                ends = time.monotonic() + moment
                while process.poll() is None and time.monotonic() < ends:
                    strays |= set(process.children(recursive=True))
                    time.sleep(0.05)
                began = time.monotonic()
                if process.poll() is None:
                    process.send_signal(chosen)
                process.wait(timeout=LONGEST_S)
                seconds = time.monotonic() - began
                _, alive = psutil.wait_procs(strays, timeout=WITHIN_S)
                left = [command_of(member) for member in alive]
            left += [path.name for path in (home / "temporary").iterdir()]
            lines = _words_in((home / "words").read_bytes())
            stored = count_in(home / "out", "select count(*) from trajectories")
            good &= seconds <= WITHIN_S and len(lines) <= A_PAGE and not left
            cells = (process.returncode, f"{seconds:.1f}", len(lines), left, stored)
            line = lines[-1] if lines else ""
            table.add_row(f"{moment:.1f}", chosen.name, *map(str, cells), line)
            print(moment, chosen.name, cells, lines[:A_PAGE], flush=True)
        done = subprocess.run(command, env=environment_of(home), capture_output=True, text=True)
    Console(width=150).print(table)
    rollouts = count_in(home / "out", "select count(*) from trajectories")
    requests, again = len(requests_of(home / "log")), requests_again(home / "log")
    print(f"left in peace: status {done.returncode}, {rollouts} of {CASES * ROLLOUTS} rollouts;")
    print(f"{requests} requests, {again} of them made again")
    return good and done.returncode == 0 and rollouts == CASES * ROLLOUTS


def _words_in(shown: bytes) -> tuple[str, ...]:
    """What a run said besides its progress and its summary, of which the first table is the
    funnel."""
    lines = tuple(
        line[:200]
        for line in shown.decode(errors="replace").splitlines()
        if line.strip() and not line.startswith(PROGRESS)
    )
    ends = next((at for at, line in enumerate(lines) if line.strip().startswith("Funnel")), None)
    return lines[:ends]


def is_good(fault: Fault, outcome: Outcome) -> bool:
    ended_well = outcome.status == 0 if fault.goes_on else outcome.seconds <= fault.within_s
    lost = outcome.retried if fault.by_retry else outcome.lost
    return ended_well and not (outcome.is_page or outcome.processes or lost)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--engine", choices=["local", "ray"], help="only the faults on this one")
    parser.add_argument("--moments", type=int, help="interrupt one run so often")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.moments:
        with tempfile.TemporaryDirectory() as folder:
            engine = options.engine or "local"
            is_whole = play_moments(engine, options.moments, options.seed, Path(folder))
        return 0 if is_whole else 1
    numbers = ("status", "s", "lines", "left", "failed", "lost, by retry", "again")
    table = Table("fault", *numbers, "last line")
    good = True
    for name in options.only:
        fault = FAULTS[name]
        if options.engine not in (None, fault.engine):
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = play(name, fault, Path(folder))
        good &= is_good(fault, outcome)
        left = ", ".join(outcome.processes + outcome.files)
        ending = (outcome.status, f"{outcome.seconds:.1f}", len(outcome.lines), left)
        brought = (outcome.failed, f"{outcome.lost}, {outcome.retried}", outcome.again)
        line = outcome.lines[-1] if outcome.lines else ""
        table.add_row(name, *map(str, (*ending, *brought)), line)
        print(name, replace(outcome, lines=outcome.lines[:A_PAGE]), flush=True)
    Console(width=150).print(table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
