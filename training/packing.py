"""Rows: the records of a step, packed without padding and without seeing each other.

A step takes exactly `batch` records, whatever the number of processes; its loss is the mean over
their target tokens. They are shared out over processes x rows so that all rows are about equally
long, so neither the packing nor the machine changes what is learnt.

All records begin with the same system prompt, and records of one case share more. A row holds each
common beginning once (`share`), and every record that has it attends to it: the numbers are the
same as if each record had its own, for about a third less work.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from medaction.training.data import Prepared, Sample
from medaction.training.settings import TrainError, TrainSettings

GRAIN = 64
"""Tokens: a common beginning counts in multiples of this, so that records which happen to agree on
a few more tokens do not fall into many short segments (a call of a kernel works on 64 or 128)."""

PackedRow = tuple[int, ...]
"""Indices of the samples in a row. An empty one keeps a process busy with nothing to learn (see
`tensors`)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Every row of a run: step by step, in a step row by row, in a row process by process."""

    steps: tuple[tuple[PackedRow, ...], ...]
    accumulation: int
    """Rows a process takes a step."""
    steps_per_epoch: int


def shared_prefix(samples: Sequence[Sample]) -> int:
    """Tokens that all samples begin with, as long as they belong to the prompt of each; in whole
    grains, as `share` counts them."""
    # What the smallest and the largest in order begin with, all between them begin with too.
    lowest, highest = (
        min(sample.tokens for sample in samples),
        max(sample.tokens for sample in samples),
    )
    # Up to the token before the first target: its place is where that target is predicted.
    limit = min(sample.prompt for sample in samples) - 1
    differ = (place for place in range(limit) if lowest[place] != highest[place])
    return next(differ, limit) // GRAIN * GRAIN


def plan_run(
    prepared: Prepared, settings: TrainSettings, processes: int, shared: bool
) -> tuple[Plan, int]:
    """(every row of a run, how many tokens at the beginning of all its samples stand in a row once:
    none where rows do not share)."""
    train = prepared.train
    prefix = shared_prefix((*train, *prepared.validation)) if shared else 0
    batch, row, seed = settings.batch, settings.row, settings.seed
    return plan(train, batch, settings.epochs, processes, row, seed, prefix), prefix


def plan(
    samples: Sequence[Sample],
    batch: int,
    epochs: int,
    processes: int,
    row_tokens: int,
    seed: int,
    prefix: int = 0,
) -> Plan:
    """Rows of all epochs, each epoch in an order of its own. The last step of an epoch takes what
    is left.

    `prefix` tokens at the beginning of every sample stand in a row once. The fewest rows a process
    are taken for which none is longer than `row_tokens`. Raises TrainError when there are more
    processes than records in a step.
    """
    if processes > batch:
        raise TrainError(
            f"{processes} processes share a batch of {batch} records: raise --batch or lower"
            " --processes"
        )
    lengths = [len(sample.tokens) - prefix for sample in samples]
    batches: list[list[int]] = []
    for epoch in range(epochs):
        order = list(range(len(lengths)))
        # By epoch, so that a run that goes on in the third has the third's order.
        random.Random(f"{seed}/{epoch}").shuffle(order)
        batches += [order[at : at + batch] for at in range(0, len(order), batch)]
    # The fewest rows that fit: fuller rows share more, and a step makes fewer calls.
    accumulation = 1
    while True:
        steps = [balanced(indices, lengths, processes * accumulation) for indices in batches]
        if all(
            prefix + sum(lengths[index] for index in row) <= row_tokens
            for step in steps
            for row in step
        ):
            return Plan(tuple(steps), accumulation, -(-len(lengths) // batch))
        accumulation += 1


def balanced(indices: Sequence[int], lengths: Sequence[int], rows: int) -> tuple[PackedRow, ...]:
    """The indices shared out over `rows` rows of about the same length: longest first, each to the
    shortest row so far."""
    filled: list[list[int]] = [[] for _ in range(rows)]
    totals = [0] * rows
    # The greedy rule for equal loads (Graham 1969): at most a third over the best.
    for index in sorted(indices, key=lambda index: (-lengths[index], index)):
        shortest = totals.index(min(totals))
        filled[shortest].append(index)
        totals[shortest] += lengths[index]
    return tuple(tuple(row) for row in filled)


def packed(
    samples: Sequence[Sample], row_tokens: int, multiple: int, prefix: int = 0
) -> tuple[PackedRow, ...]:
    """All samples in rows of at most `row_tokens` (for evaluation); the number of rows is a
    multiple of `multiple`."""
    rows: list[list[int]] = []
    # So that the first sample opens a row.
    length = row_tokens + 1
    for index, sample in enumerate(samples):
        if length + len(sample.tokens) - prefix > row_tokens:
            rows.append([])
            length = prefix
        rows[-1].append(index)
        length += len(sample.tokens) - prefix
    # Every process must take part in each row's collective operations, if with nothing to learn.
    rows += [[] for _ in range(-len(rows) % multiple)]
    return tuple(tuple(row) for row in rows)


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that follow one another in some of a row's records and stand in the row once.

    `start` and `end`: places in the row. `depth`: how many tokens of these records come before.
    `before`: the segments that hold them, from the records' beginning on.
    """

    start: int
    end: int
    depth: int
    before: tuple["Segment", ...] = ()

    @property
    def path(self) -> tuple["Segment", ...]:
        """The segments of a record that ends with this one."""
        return (*self.before, self)


def share(records: Sequence[Sequence[int]], shared: bool = True) -> list[Segment]:
    """The last segment of each record, when the records stand in one row as a tree of their common
    beginnings (or, not `shared`, one after the other). A parent stands before its children, and
    all of a segment's descendants directly after it.

    A record's last segment is its own, never empty.
    """
    # Sorted, records with a common beginning are neighbours: the tree is read off from pairs.
    order = sorted(range(len(records)), key=lambda index: tuple(records[index]))
    ordered = [np.asarray(records[index]) for index in order]
    common = [0] + [_common_tokens(one, two) if shared else 0 for one, two in pairwise(ordered)]
    last: list[Segment] = [Segment(0, 0, 0)] * len(records)
    length = 0

    def place(low: int, high: int, before: tuple[Segment, ...], depth: int) -> None:
        """Lay out the ordered records low to high, of which `depth` tokens are laid out."""
        nonlocal length
        until = len(ordered[low]) if high == low + 1 else min(common[low + 1 : high])
        if until > depth:
            segment = Segment(length, length + until - depth, depth, before)
            length = segment.end
            before = segment.path
        if high == low + 1:
            last[order[low]] = before[-1]
            return
        # Where neighbours share no more than all do, a new branch begins.
        cuts = [at for at in range(low + 1, high) if common[at] == until]
        for begin, end in zip([low, *cuts], [*cuts, high], strict=True):
            place(begin, end, before, until)

    cuts = [at for at in range(1, len(records)) if common[at] == 0]
    for begin, end in zip([0, *cuts], [*cuts, len(records)], strict=True):
        place(begin, end, (), 0)
    return last


def _common_tokens(one: np.ndarray, two: np.ndarray) -> int:
    # A record's last token stays its own: its segment must not be empty.
    limit = min(len(one), len(two)) - 1
    differ = np.flatnonzero(one[:limit] != two[:limit])
    return (int(differ[0]) if len(differ) else limit) // GRAIN * GRAIN


def segments_of(last: Sequence[Segment]) -> list[Segment]:
    """Every segment of a row, in the row's order."""
    return sorted({segment for leaf in last for segment in leaf.path}, key=lambda part: part.start)


def bucket(count: int, smallest: int = 128) -> int:
    """`count` rounded up to one of sixteen sizes an octave: shapes repeat, for at most a sixteenth
    of padding. A kernel whose plan is built for a shape builds few of them."""
    step = max(smallest, 2 ** (count.bit_length() - 5))
    return -(-count // step) * step
