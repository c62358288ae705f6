"""What listens where while a command runs: address, port and process of every socket.

    python -m benchmarks.listening [--only 'view' ...] [--python PATH]

`--python`: the interpreter that runs the commands: `serve-env` needs the extra `hub`, which does
not install beside all others.

Each command runs until it has ended or for `LOOK_S` seconds, and its processes are looked at twice
a second. A process that Ray or Prefect has started counts as the command's. Ends with status 1
where a socket takes connections from beyond this machine.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from ipaddress import ip_address
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.damage import environment_of
from benchmarks.faults import teacher_file
from medaction.words.processes import free_port
from tests.simulated_teacher import cases_in, simulated_teacher

LOOK_S = 45.0


def commands_in(home: Path, preset: Path) -> dict[str, list[str]]:
    """The command lines by name, over small inputs in `home`; 'view' looks at the run of the first,
    'serve' serves a tiny model without training."""
    played = ["--cases", str(home / "cases"), "--preset", str(preset), "--rollouts", "1"]
    out, port = str(home / "out"), str(free_port())
    from tests.tiny_model import tiny_model

    return {
        "distill, one process": ["distill", *played, "--out", out, "--engine", "local"],
        "distill, Ray": ["distill", *played, "--out", str(home / "ray"), "--engine", "ray"],
        "view": ["view", "--out", out, "--port", "0"],
        "serve-env": ["serve-env", "--cases", str(home / "cases"), "--port", port],
        "serve": ["serve", str(tiny_model(home / "model")), "--port", str(free_port())],
        "up": ["up", "--home", str(home / "up"), "--port", port],
    }


def sockets_of(arguments: list[str], home: Path, python: str) -> set[tuple[str, str, int]]:
    """(process, address, port) of every socket on which the command's processes listen."""
    sockets = set()
    command = [python, "-m", "medaction", *arguments]
    with (home / "words").open("ab") as words:
        process = psutil.Popen(command, env=environment_of(home), stdout=words, stderr=words)
    began, members = time.monotonic(), {process}
    while process.poll() is None and time.monotonic() - began < LOOK_S:
        members |= set(process.children(recursive=True))
        for member in members:
            try:
                name = " ".join(member.cmdline())
                for socket in member.net_connections(kind="tcp"):
                    if socket.status == psutil.CONN_LISTEN:
                        sockets.add((_short(name), socket.laddr.ip, socket.laddr.port))
            except psutil.Error:  # it has ended meanwhile
                continue
        time.sleep(0.5)
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)
    return sockets


def is_loopback(address: str) -> bool:
    """Also as gRPC writes it, which listens on IPv6 sockets: ::ffff:127.0.0.1."""
    ip = ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def _short(name: str) -> str:
    """What a process is, from its command line."""
    known = ("gcs_server", "raylet/raylet", "ray::", "dashboard", "runtime_env", "prefect server")
    return next((word for word in known if word in name), Path(name.split(" ")[0]).name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    table, is_closed = Table("command", "process", "address", "ports"), True
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        cases_in(home / "cases", 4)
        with simulated_teacher(home / "log", "--after-s", 1) as (_, api_base):
            commands = commands_in(home, teacher_file(home, api_base))
            for name in options.only or commands:
                sockets = sockets_of(commands[name], home, options.python)
                for process, address in sorted({socket[:2] for socket in sockets}):
                    ports = [str(place[2]) for place in sockets if place[:2] == (process, address)]
                    table.add_row(name, process, address, ", ".join(ports))
                    is_closed &= is_loopback(address)
                if not sockets:
                    table.add_row(name, "nothing listens")
        subprocess.run(
            [sys.executable, "-m", "medaction", "down", "--home", str(home / "up")],
            env=environment_of(home),
            capture_output=True,
        )
        print((home / "words").read_text(errors="replace")[-1500:])
    Console(width=150).print(table)
    return 0 if is_closed else 1


if __name__ == "__main__":
    sys.exit(main())
