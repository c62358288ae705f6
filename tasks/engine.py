"""What runs the work of a case: this process (`tasks.local`), or Prefect and Ray
(`tasks.cases`)."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from medaction.llm.limits import Ledger


@dataclass(frozen=True, slots=True)
class Unit:
    """One stage of one case: `await work(*arguments)` (`tasks.work`, `tasks.evaluation`).

    `cpus` is what it occupies while it runs; it is shown as 'stage: case_id'.
    """

    stage: str
    case_id: str
    cpus: float
    work: Callable[..., Coroutine[Any, Any, Any]]
    arguments: tuple[Any, ...]


class WorkerLost(RuntimeError):
    """A worker process, a node or the cluster was lost: the case is not to blame."""


class Engine(Protocol):
    """Starts units, and keeps the limits and budgets of all of them in one ledger."""

    def submit(self, unit: Unit) -> Any:
        """Start it: a future with `add_done_callback`."""

    def result(self, future: Any) -> Any:
        """What a finished unit returned, or the exception that it ended with."""

    def start_ledger(self, spent_usd: Mapping[str, float]) -> Ledger:
        """`spent_usd` is what earlier runs spent, by teacher: it counts towards their budgets."""
