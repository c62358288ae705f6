"""Rows as tensors: what the model, the attention and the loss of a row are given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medaction.training.data import Sample
from medaction.training.packing import PackedRow, Plan, Segment, bucket, segments_of, share

NO_TARGET = -100
"""What torch's and Liger's cross entropy leave out by default."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are laid out: for which way of attention (attention.py), whether records share their
    common beginnings, and whether rows and targets are padded to shapes that repeat."""

    attention: str
    shared: bool = True
    padded: bool = False


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
        self.samples, self.rows = samples, rows
        self.step_targets, self.layout = step_targets, layout

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
            # The shortest: the pass is made only so that the processes stay in step.
            members = [min(self.samples, key=lambda sample: len(sample.tokens))]
        return tensors(members, self.layout, learn=not idle) | {
            "step_targets": self.step_targets[number]
        }


def tensors(samples: Sequence[Sample], layout: Layout, learn: bool = True) -> dict[str, Any]:
    """One row: `input_ids` and `position_ids` (1 x tokens; a token's position is that in its
    records), the places whose next token is a target (`logits_to_keep`) with those tokens
    (`targets`), and what the attention wants to know of the borders between records.

    Logits are computed at these places only: with a large vocabulary they are the largest tensor of
    a step. A place counts once for every record that has it. `learn=False` masks the targets.
    """
    last = share([sample.tokens for sample in samples], layout.shared)
    segments = segments_of(last)
    length = segments[-1].end
    if layout.padded and (padding := bucket(length) - length):
        segments.append(Segment(length, length + padding, 0))
    tokens = np.zeros(segments[-1].end, dtype=np.int64)
    keep, targets = [], []
    for sample, leaf in zip(samples, last, strict=True):
        places = _places(leaf)
        tokens[places] = sample.tokens
        # A token is predicted at the place before it.
        keep.append(places[sample.prompt - 1 : -1])
        targets.append(np.array(sample.tokens[sample.prompt :], dtype=np.int64))
    kept, learnt = np.concatenate(keep), np.concatenate(targets)
    if not learn:
        learnt[:] = NO_TARGET
    if layout.padded:
        more = bucket(len(kept), smallest=64) - len(kept)
        kept = np.pad(kept, (0, more))
        learnt = np.pad(learnt, (0, more), constant_values=NO_TARGET)
    return {
        "input_ids": torch.from_numpy(tokens)[None],
        "position_ids": torch.from_numpy(_depths(segments))[None],
        "logits_to_keep": torch.from_numpy(kept),
        "targets": torch.from_numpy(learnt),
    } | BORDERS[layout.attention](segments)


def _places(leaf: Segment) -> np.ndarray:
    """Where in the row each token stands of the record that ends with `leaf`."""
    return np.concatenate([np.arange(part.start, part.end) for part in leaf.path])


@dataclass(frozen=True, slots=True)
class Spans:
    """A row's segments: (start, end, what comes before it as pairs of the same). A record and no
    bare tuple: torch.compile would compile a layer anew for every length of a tuple."""

    parts: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]


def spans(segments: Sequence[Segment]) -> dict[str, Any]:
    """For attention segment by segment."""
    return {
        "spans": Spans(
            tuple(
                (part.start, part.end, tuple((above.start, above.end) for above in part.before))
                for part in segments
            )
        )
    }


def cumulative(segments: Sequence[Segment]) -> dict[str, Any]:
    """For kernels that take variable lengths: every segment is a sequence of queries, whose keys
    are those of its records up to its end. So keys that several segments see are gathered once for
    each (`key_places`, None where no segment is shared); queries, outputs and all else exist once.

    A kernel's causal mask ends at the last query and the last key (bottom right), as it must.
    """
    queries = np.array([part.end - part.start for part in segments])
    depths = np.array([part.depth for part in segments])
    borders: dict[str, Any] = {
        "query_ends": torch.from_numpy(np.cumsum([0, *queries]).astype(np.int32)),
        "key_ends": torch.from_numpy(np.cumsum([0, *(queries + depths)]).astype(np.int32)),
        "key_places": None,
        # Rounded up: a kernel sizes its grid by them, and more shapes would teach it nothing.
        "longest_query": bucket(int(queries.max())),
        "longest_key": bucket(int((queries + depths).max())),
    }
    if depths.any():
        borders["key_places"] = torch.from_numpy(np.concatenate([*map(_places, segments)]))
    return borders


def visibility(segments: Sequence[Segment]) -> dict[str, Any]:
    """For masks: the place in the row up to which later tokens see a token, and how many tokens of
    its records come before it. A segment's descendants stand directly after it, so the first number
    says it all."""
    until = np.zeros(segments[-1].end, dtype=np.int32)
    for part in segments:  # a child comes after its parents
        until[part.start : part.end] = part.end
        for above in part.before:
            until[above.start : above.end] = part.end
    return {
        "visible_until": torch.from_numpy(until),
        "depths": torch.from_numpy(_depths(segments).astype(np.int32)),
    }


def _depths(segments: Sequence[Segment]) -> np.ndarray:
    return np.concatenate(
        [np.arange(part.depth, part.depth + part.end - part.start) for part in segments]
    )


BORDERS = {
    "per_sequence": spans,
    "varlen": cumulative,
    "flash_attention_2": cumulative,
    "flash_attention_3": cumulative,
    "flex": visibility,
    "sdpa": lambda segments: {},  # transformers tells records apart by positions that start anew
}
