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
) -> Iterator[list[tuple[Item, Any]]]:
    """Yield whatever has ended since the last time, at least one, as (item, result) in the order of
    finishing; what a unit ended with may be an exception. Raises EngineLost.

    So a result is stored at once where the store keeps up, and with others where it does not.

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
            # A queue, not `wait` over all futures: that looks at each of them every time.
            future.add_done_callback(ended.put)
        if not running:
            return
        results, lost = [], None
        # Waits for the first alone, and takes whatever has ended meanwhile.
        for future in [ended.get(), *(ended.get() for _ in range(ended.qsize()))]:
            result = engine.result(future)
            if isinstance(result, EngineLost):
                lost = result
            else:
                results.append((running.pop(future), result))
        # What has finished is stored before the loss ends the run.
        if results:
            yield results
        if lost:
            raise lost
