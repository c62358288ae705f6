"""What `medaction doctor` and the questions to models looked at, and its lines in the terminal."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.markup import escape

CheckState = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """One thing that was looked at. `remedy` is empty where nothing has to be done; only 'wrong'
    keeps a run from working."""

    subject: str
    state: CheckState
    fact: str
    remedy: str = ""


STATE_MARKS = {"ok": "[green]ok[/]   ", "note": "[yellow]note[/] ", "wrong": "[red]wrong[/]"}


def print_inspections(inspections: Iterable[Inspection]) -> bool:
    """Each inspection as soon as it is there; False when something is wrong."""
    console = Console() if sys.stdout.isatty() else Console(width=150)
    in_order = True
    for inspection in inspections:
        head = f"{STATE_MARKS[inspection.state]} [bold]{escape(inspection.subject)}[/]"
        console.print(f"{head}: {escape(inspection.fact)}", highlight=False)
        if inspection.remedy:
            console.print(f"      → {escape(inspection.remedy)}", highlight=False)
        in_order = in_order and inspection.state != "wrong"
    return in_order
