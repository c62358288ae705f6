"""Environments on their way to the store, several in a transaction.

A case by itself costs 12 ms of CPU in the store, most of it for planning the statements and for the
commit: of 64 in a transaction each costs 0.9 ms.
"""

import time

from medaction.llm.usage import Usage
from medaction.trajectories.store import Store
from medaction.trajectories.table_rows import BuiltCase

MOST_CASES = 64
"""Cases in a transaction: 1, 16, 64 and 256 took 11.9, 1.5, 0.9 and 0.7 ms of CPU a case (512 of
AgentClinic's cases, 2026-11-28)."""
MOST_S = 2.0
"""Seconds of work that a kill may undo: the next run builds these cases again, which is free."""


class EnvironmentBatch:
    """`with EnvironmentBatch(store, built_with, run_id) as batch: batch.add(case)`.

    A refusal is stored at once, and so is a case on which a model was spent, with all that wait. At
    the end of the block, whatever ended it, what waits is stored. Raises StoreError.
    """

    def __init__(self, store: Store, built_with: str, run_id: str):
        self._store, self._built_with, self._run_id = store, built_with, run_id
        self._cases: list[BuiltCase] = []
        self._stored = time.monotonic()

    def add(self, case: BuiltCase) -> None:
        self._cases.append(case)
        is_due = len(self._cases) >= MOST_CASES or time.monotonic() > self._stored + MOST_S
        # A refusal is shown in the viewer at once; what a model was paid for must survive a kill.
        if is_due or case.built.refusal or case.usage != Usage():
            self._write()

    def _write(self) -> None:
        cases, self._cases = self._cases, []  # not again at the end, where the store is unwritable
        if cases:
            self._store.add_built_cases(cases, self._built_with, self._run_id)
        self._stored = time.monotonic()

    def __enter__(self) -> "EnvironmentBatch":
        return self

    def __exit__(self, *_error: object) -> None:
        self._write()
