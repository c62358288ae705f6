"""The engine of small runs: all cases play in this process, in one event loop of its own thread."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from medaction.llm.limits import LocalLedger
from medaction.tasks.engine import Unit

THREADS = 64
"""For what blocks while it waits for a model (an extractor, an oracle's model). asyncio's own
number, CPUs + 4, would be the number of calls under way."""


class LocalEngine:
    """Runs units beside each other. A case that kills the process ends the run; what had finished
    is stored. End it with `close`."""

    start_ledger = staticmethod(LocalLedger)

    def __init__(self) -> None:
        # A thread of its own, because the flow's thread stores cases and Ctrl-C must reach it.
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(THREADS, "medaction"))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def submit(self, unit: Unit) -> "Future[Any]":
        async def run() -> Any:
            return await unit.work(*unit.arguments)

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    @staticmethod
    def result(future: "Future[Any]") -> Any:
        return future.exception() or future.result()

    def close(self) -> None:
        """Cancel what is under way, and end the thread."""

        async def cancel() -> None:
            # Cancelled and waited for, so that each call tells the ledger that it ended.
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Closes the connections of the model calls (`llm.transport._at_the_end`).
            await self._loop.shutdown_asyncgens()

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
