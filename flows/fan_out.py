"""Bounded fan-out of Prefect tasks: never more than so many under way, results as they come."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from prefect.futures import PrefectFuture, as_completed

Item = TypeVar("Item")


def fan_out(
    submit: Callable[[Item], PrefectFuture], items: Iterable[Item], in_flight: int
) -> Iterator[tuple[Item, Any]]:
    """Yield (item, result) in the order of finishing; a failed task's result is the exception or
    the data of its Failed state.

    Items are taken from the iterable only as places become free, so a hundred thousand cases cost
    no more memory than `in_flight`.
    """
    waiting = iter(items)
    running: dict[PrefectFuture, Item] = {}
    while True:
        for item in islice(waiting, in_flight - len(running)):
            running[submit(item)] = item
        if not running:
            return
        future = next(as_completed(list(running)))
        yield running.pop(future), future.result(raise_on_failure=False)
