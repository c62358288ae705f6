"""Rows: the records of a step, packed without padding and without seeing each other.

A step takes exactly `batch` records, whatever the number of processes; its loss is the mean over
their target tokens. They are shared out over processes x rows so that all rows are about equally
long, so neither the packing nor the machine changes what is learnt.

All records begin with the same system prompt. A row holds such a common beginning once, and every
record of the row attends to it: the numbers are the same as if each record had its own, for about a
third less work.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medaction.training.data import Sample
from medaction.training.settings import TrainError

PER_SEQUENCE = "per_sequence"

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
    """Tokens that all samples begin with, as long as they belong to the prompt of each; the last
    one before a target is left out."""
    lowest, highest = (
        min(sample.tokens for sample in samples),
        max(sample.tokens for sample in samples),
    )
    limit = min(sample.prompt for sample in samples) - 1
    return next((place for place in range(limit) if lowest[place] != highest[place]), limit)


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
        random.Random(f"{seed}/{epoch}").shuffle(order)
        batches += [order[at : at + batch] for at in range(0, len(order), batch)]
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
    length = row_tokens + 1
    for index, sample in enumerate(samples):
        if length + len(sample.tokens) - prefix > row_tokens:
            rows.append([])
            length = prefix
        rows[-1].append(index)
        length += len(sample.tokens) - prefix
    rows += [[] for _ in range(-len(rows) % multiple)]
    return tuple(tuple(row) for row in rows)


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are laid out: for which attention, and how many tokens at their beginning belong to
    all of their records."""

    attention: str
    prefix: int = 0


class Rows(torch.utils.data.Dataset):
    """Rows as tensors. `step_targets[i]` is the number of target tokens of the whole step that row
    i belongs to."""

    def __init__(
        self,
        samples: Sequence[Sample],
        rows: Sequence[PackedRow],
        step_targets: Sequence[int],
        layout: Layout,
    ):
        self.samples, self.rows, self.step_targets, self.layout = (
            samples,
            rows,
            step_targets,
            layout,
        )

    @classmethod
    def of(cls, samples: Sequence[Sample], planned: Plan, layout: Layout) -> "Rows":
        rows = [row for step in planned.steps for row in step]
        targets = [
            sum(samples[index].targets for row in step for index in row)
            for step in planned.steps
            for _ in step
        ]
        return cls(samples, rows, targets, layout)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        members = [self.samples[index] for index in self.rows[number]]
        idle = not members
        if idle:
            members = [min(self.samples, key=lambda sample: len(sample.tokens))]
        return tensors(members, self.layout, learn=not idle) | {
            "step_targets": self.step_targets[number]
        }


def tensors(samples: Sequence[Sample], layout: Layout, learn: bool = True) -> dict[str, Any]:
    """One row, without padding: `input_ids` and `position_ids` (1 x tokens; positions start anew
    with each sample, after the common beginning), the places whose next token is a target
    (`logits_to_keep`) with those tokens (`targets`), and where samples begin, as the attention
    wants it.

    Logits are computed at these places only: with a large vocabulary they are the largest tensor of
    a step. `learn=False` masks the targets.
    """
    prefix = layout.prefix
    tokens, positions = list(samples[0].tokens[:prefix]), list(range(prefix))
    keep: list[int] = []
    targets: list[int] = []
    for sample in samples:
        offset = len(tokens) - prefix
        keep += range(offset + sample.prompt - 1, offset + len(sample.tokens) - 1)
        targets += sample.tokens[sample.prompt :]
        tokens += sample.tokens[prefix:]
        positions += range(prefix, len(sample.tokens))
    row: dict[str, Any] = {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([positions]),
        "logits_to_keep": torch.tensor(keep),
        "targets": torch.tensor(targets if learn else [-100] * len(targets)),
    }
    lengths = [len(sample.tokens) - prefix for sample in samples]
    if layout.attention == PER_SEQUENCE:
        return row | {"sequence_lengths": tuple(lengths), "shared_prefix": prefix}
    if layout.attention == "flash_attention_2":
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return row | {
            "cu_seq_lens_q": ends,
            "cu_seq_lens_k": ends,
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
        }
    return row  # transformers tells samples apart by positions that start anew


def register_attention() -> None:
    """Make 'per_sequence' known to transformers: causal attention within each sample of a row, one
    sample after the other, each with the common beginning before it. Nothing is spent on pairs of
    tokens in different samples, and no mask is built."""
    from transformers import AttentionInterface

    AttentionInterface.register(PER_SEQUENCE, _per_sequence)


def _per_sequence(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sequence_lengths: tuple[int, ...] = (),
    shared_prefix: int = 0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """query, key, value: 1 x heads x tokens x head size, keys and values with fewer heads where
    these are shared."""
    if options.get("sliding_window") or options.get("softcap"):
        raise TrainError(
            "this model's attention has a window or a cap: train it with --attention sdpa or"
            " flash_attention_2"
        )

    def attend(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        grouped = query.shape[1] != key.shape[1]
        return torch.nn.functional.scaled_dot_product_attention(
            *parts, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=grouped
        )

    lengths = sequence_lengths or (query.shape[2] - shared_prefix,)
    beginnings, *per_sample = zip(
        *(tensor.split([shared_prefix, *lengths], dim=2) for tensor in (query, key, value)),
        strict=True,
    )
    outputs = [attend(beginnings)] if shared_prefix else []
    for parts in per_sample:
        joined = (
            tuple(torch.cat(pair, dim=2) for pair in zip(beginnings, parts, strict=True))
            if shared_prefix
            else parts
        )
        outputs.append(attend(joined)[:, :, shared_prefix:])
    return torch.cat(outputs, dim=2).transpose(1, 2), None
