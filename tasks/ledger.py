"""The limits and budgets of a run, kept by one Ray actor for all of its worker processes.

A process talks to the actor in batches: what piles up while one message is under way goes with the
next, and calls that have ended are reported together with the next call that begins, or a tenth of
a second later. So a call costs at most one message. A call begins only when the actor has allowed
it, hence a budget is overshot by the calls under way at most.
"""

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import ray

from medaction.llm.limits import SILENT_S, Ask, Book, Ended, Permission

log = logging.getLogger("medaction")

# So long other processes may not know of dollars spent, and of places that are free.
REPORT_S = 0.1
# Several may be late or lost before the process counts as gone.
SIGN_OF_LIFE_S = SILENT_S / 6


class _Keeper:
    def __init__(self, spent_usd: Mapping[str, float]):
        # An actor that Ray had to start anew has lost what the run spent: a budget that cannot be
        # kept counts as spent.
        self._lost = ray.get_runtime_context().was_current_actor_reconstructed
        self._book = Book(spent_usd)

    def exchange(
        self, worker: str, asks: Sequence[Ask], ended: Sequence[Ended]
    ) -> list[Permission]:
        if self._lost:
            self._book.spent_usd |= {ask.bounds.teacher: math.inf for ask in asks}
        return self._book.exchange(worker, asks, ended)

    def spent_usd(self) -> dict[str, float]:
        return dict(self._book.spent_usd)


class RayLedger:
    """A ledger that can be handed to Ray tasks, for one event loop at a time. The actor ends with
    the last handle to it.

    Calls raise ray.exceptions.RayError when the actor cannot be had. Ray starts a lost one anew;
    teachers with a budget make no more calls then, until the next run has read from the store what
    they spent.
    """

    def __init__(self, keeper: Any):
        self._keeper = keeper
        self._worker = uuid4().hex
        self._asks: list[tuple[Ask, asyncio.Future[Permission]]] = []
        self._ended: list[Ended] = []
        self._open = 0
        self._sender: asyncio.Task[None] | None = None
        self._reporter: asyncio.Task[None] | None = None

    @classmethod
    def start(cls, spent_usd: Mapping[str, float] | None = None) -> "RayLedger":
        """A new actor. `spent_usd` is what earlier runs spent, by teacher: it counts towards their
        budgets."""
        # No CPU of its own: it computes next to nothing, and a machine of two would lose half of
        # its cases.
        keeper: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Keeper)
        return cls(keeper.remote(dict(spent_usd or {})))

    def __reduce__(self):
        return type(self), (self._keeper,)

    # Every unit of work brings a copy: equal ones are the same ledger to `calls.configure`.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, RayLedger) and self._keeper == other._keeper

    def __hash__(self) -> int:
        return hash(self._keeper)

    async def ask(self, ask: Ask) -> Permission:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Permission] = loop.create_future()
        self._asks.append((ask, future))
        self._send()
        try:
            answer = await future
        except asyncio.CancelledError:
            # It may have been answered already, when nobody had gone on with the answer yet.
            if not future.cancelled() and not future.exception():
                self._give_back(ask, future.result())
                self._send()
            raise
        if answer.server is not None:
            self._open += 1
            if self._reporter is None or self._reporter.done():
                self._reporter = loop.create_task(self._report())
        return answer

    async def end(self, ended: Ended) -> None:
        self._ended.append(ended)
        self._open -= 1
        # Otherwise the next call that begins, or `_report`, takes it along.
        if not self._open:  # maybe the last: the event loop may end after it
            if self._reporter:
                self._reporter.cancel()
                self._reporter = None
            # A case that is cancelled must not take along the message that others' calls are in.
            await asyncio.shield(self._send())

    def spent_usd(self) -> dict[str, float]:
        """By teacher, earlier runs included; empty where the actor is gone, or does not answer for
        2 s: a cluster that is lost must not hold up a run's end."""
        try:
            spent: Any = ray.get(self._keeper.spent_usd.remote(), timeout=2)
        except ray.exceptions.RayError as error:
            log.warning("what this run has spent on its models is lost with its keeper: %s", error)
            return {}
        return spent

    def _give_back(self, ask: Ask, answer: Permission) -> None:
        """Whoever asked was cancelled: the place is free again."""
        if answer.server is not None:
            self._ended.append(Ended(ask.call, ask.bounds, answer.server, "other"))

    def _send(self) -> "asyncio.Task[None]":
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._exchange())
        return self._sender

    async def _exchange(self) -> None:
        while True:
            asks, self._asks = self._asks, []
            ended, self._ended = self._ended, []
            try:
                answers = await self._keeper.exchange.remote(
                    self._worker, [ask for ask, _ in asks], ended
                )
            except ray.exceptions.RayError as error:
                # They go with the next message: what was spent is not forgotten.
                self._ended = ended + self._ended
                for _, future in asks:
                    if not future.done():
                        future.set_exception(error)
                return
            for (ask, future), answer in zip(asks, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
                else:
                    self._give_back(ask, answer)
            if not (self._asks or self._ended):
                return

    async def _report(self) -> None:
        """While calls are under way: tell of those that ended, and that this process lives."""
        silent_s = 0.0
        while True:
            await asyncio.sleep(REPORT_S)
            silent_s += REPORT_S
            if self._ended or silent_s >= SIGN_OF_LIFE_S:
                self._send()
                silent_s = 0.0
