"""Bounded fan-out of cases: never more than so many under way, results as they come."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import Any, TypeVar

from medaction.tasks.engine import Engine, Unit
from medaction.words.errors import EngineLost

Item = TypeVar("Item")


def fan_out(
    engine: Engine, unit_of: Callable[[Item], Unit], items: Iterable[Item], in_flight: int
) -> Iterator[tuple[Item, Any]]:
    """Yield (item, result) in the order of finishing; what a unit ended with may be an exception.
    Raises EngineLost.

    Items are taken from the iterable only as places become free, so a hundred thousand cases cost
    no more memory than `in_flight`.
    """
    waiting = iter(items)
    running: dict[Any, Item] = {}
    ended: SimpleQueue[Any] = SimpleQueue()
    while True:
        for item in islice(waiting, in_flight - len(running)):
            future = engine.submit(unit_of(item))
            running[future] = item
            future.add_done_callback(ended.put)
        if not running:
            return
        future = ended.get()
        result = engine.result(future)
        if isinstance(result, EngineLost):
            raise result
        yield running.pop(future), result
