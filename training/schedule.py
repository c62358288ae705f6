"""When a run looks at its held-out cases and saves, and what that costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from medaction.training.data import Sample
from medaction.training.settings import TrainSettings

LOOKS = 4
"""Most looks an epoch: enough to see where the held-out loss turns within the paper's 3 epochs."""
LOOK_SHARE = 0.03
"""Share of the training's compute that the looks of an epoch may take; one look an epoch is taken
whatever it costs."""
INTERVAL = 1800.0
"""Seconds of work that a kill may lose at most."""
SAVING_SHARE = 0.02
"""Share of the time that writing checkpoints by the clock may take: the interval grows where
writing is slow."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the looks are, and what they cost.

    every: steps between looks. looks: in the whole run. share: their operations as a share of the
    training's. checkpoints: the most that looks, epochs and --save-every lead to, the
    clock's left out.
    """

    every: int
    looks: int
    share: float
    checkpoints: int


def schedule(
    settings: TrainSettings, train: Sequence[Sample], held_out: Sequence[Sample]
) -> Schedule:
    """The schedule of a run on these samples.

    A look is a forward pass. A step is three of them a token (forward, and twice as much backward),
    and four where gradient checkpointing computes the activations again.
    """
    steps = -(-len(train) // settings.batch)
    passes = 4 if settings.gradient_checkpointing else 3
    tokens = sum(len(sample.tokens) for sample in train)
    look = sum(len(sample.tokens) for sample in held_out) / (passes * tokens)
    affordable = int(LOOK_SHARE / look) if look else LOOKS
    every = settings.evaluate_every or math.ceil(steps / min(LOOKS, max(1, affordable)))
    planned = steps * settings.epochs
    total = min(planned, settings.max_steps or planned)
    looks = 1 + total // every + bool(total % every) if held_out else 0
    # At most: every look may be the best so far.
    checkpoints = {*range(every, total, every)} if held_out else set[int]()
    saved = settings.save_every or steps
    checkpoints |= {*range(saved, total, saved)}
    return Schedule(every, looks, looks * look * steps / total, len(checkpoints))
