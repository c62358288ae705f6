"""Rows: nothing is learnt from a neighbour in the row, nothing is lost or doubled, and processes do
not change the steps."""

from typing import Any

import pytest

pytest.importorskip("torch", reason="training is not installed (pip install 'medaction[train]')")

import torch

from medaction.training.data import Sample
from medaction.training.packing import (
    GRAIN,
    bucket,
    packed,
    plan,
    segments_of,
    share,
    shared_prefix,
)
from medaction.training.rows import Layout, Rows
from medaction.training.settings import TrainError

pytestmark = pytest.mark.train

PREFIX = 2 * GRAIN


def sample(number: int, length: int, targets: int = 5) -> Sample:
    """Random tokens after a beginning that all samples have."""
    drawn = torch.randint(
        2, 1500, [length], generator=torch.Generator().manual_seed(number)
    ).tolist()
    tokens = (*range(100, 100 + PREFIX), number, *drawn[PREFIX + 1 :])
    return Sample(f"s{number}", f"c{number}", "t", "schema", "d", tokens, length - targets)


SAMPLES = tuple(sample(number, PREFIX + 20 + 7 * (number % 9)) for number in range(53))


def test_the_common_beginning_ends_where_samples_differ_and_before_any_target() -> None:
    assert shared_prefix(SAMPLES) == PREFIX
    assert shared_prefix([sample(1, PREFIX + 3)] * 2) == GRAIN


def tokens_of(records: list[list[int]]) -> list[list[int]]:
    """The records read back from a row that is laid out as `share` says."""
    last = share(records)
    row: dict[int, int] = {}
    for record, leaf in zip(records, last, strict=True):
        places = [place for part in leaf.path for place in range(part.start, part.end)]
        for place, token in zip(places, record, strict=True):
            assert row.setdefault(place, token) == token, "two tokens at one place"
    assert sorted(row) == list(range(len(row)))
    return [
        [row[place] for part in leaf.path for place in range(part.start, part.end)] for leaf in last
    ]


def test_a_row_is_a_tree_of_common_beginnings_from_which_every_record_can_be_read() -> None:
    common, case, other = [1] * GRAIN, [2] * GRAIN, [3] * 2 * GRAIN
    records = [
        [*common, *case, 7, 8], [*common, *other, 9], [*common, *case, 7, 9, 9],
        [*common, *other], [4, 4], [*common, *case, 7, 8],
    ]  # fmt: skip
    assert tokens_of(records) == records
    segments = segments_of(share(records))
    assert [part.end - part.start for part in segments] == [64, 64, 2, 2, 3, 64, 64, 65, 2]
    assert [part.depth for part in segments] == [0, 64, 128, 128, 128, 64, 128, 128, 0]
    apart = segments_of(share(records, shared=False))
    assert sum(part.end - part.start for part in apart) == sum(map(len, records))


def test_shapes_of_rows_are_few_and_little_is_padded() -> None:
    for low in (128, 1000, 9000):
        sizes = {bucket(count) for count in range(low, 2 * low)}
        assert len(sizes) <= 17
        assert all(bucket(count) >= count for count in range(low, 2 * low))
    assert max(bucket(count) / count for count in range(2048, 40_000)) < 1 + 1 / 16


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_step_has_the_same_records_whatever_the_number_of_processes(processes: int) -> None:
    planned = plan(SAMPLES, 8, 2, processes, row_tokens=PREFIX + 140, seed=5, prefix=PREFIX)
    steps = [sorted(index for row in step for index in row) for step in planned.steps]
    assert steps == [
        sorted(step) for step in whole(plan(SAMPLES, 8, 2, 1, row_tokens=10_000, seed=5))
    ]
    for epoch in (steps[:7], steps[7:]):
        assert sorted(index for step in epoch for index in step) == list(range(53))
    assert steps[:7] != steps[7:]
    assert planned.steps_per_epoch == 7
    for step in planned.steps:
        assert len(step) == processes * planned.accumulation
        assert all(
            PREFIX + sum(len(SAMPLES[index].tokens) - PREFIX for index in row) <= PREFIX + 140
            for row in step
        )


def whole(planned: Any) -> list[list[int]]:
    return [[index for row in step for index in row] for step in planned.steps]


def test_idle_rows_have_no_targets_and_every_row_knows_its_steps() -> None:
    planned = plan(SAMPLES[:9], 8, 1, 2, row_tokens=1000, seed=0)
    rows = Rows.of(SAMPLES[:9], planned, Layout("per_sequence"))
    last = [rows[number] for number in (2, 3)]
    assert sorted(int((row["targets"] != -100).sum()) for row in last) == [0, 5]
    assert [row["step_targets"] for row in (rows[0], *last)] == [40, 5, 5]


def test_held_out_samples_fill_rows_to_the_limit() -> None:
    rows = packed(SAMPLES, 600, multiple=4)
    assert [index for row in rows for index in row] == list(range(53))
    assert len(rows) % 4 == 0
    assert all(sum(len(SAMPLES[index].tokens) for index in row) <= 600 for row in rows)


def test_more_processes_than_records_in_a_step_are_refused() -> None:
    with pytest.raises(TrainError, match="9 processes share a batch of 8"):
        plan(SAMPLES, 8, 1, 9, row_tokens=100, seed=0)
