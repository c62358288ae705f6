"""The callback that tells the trainer when to look at the held-out cases, to save and to stop.

Looks: before the first step, so often as `medaction.training.schedule` says, after the last step.
Checkpoints: at the best look so far, at the end of an epoch, and after INTERVAL seconds without
one. After the last step none is written: the model itself is.
"""

import time
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback

from medaction.training.schedule import INTERVAL, SAVING_SHARE
from medaction.training.settings import TrainSettings


class Looks(TrainerCallback):
    """Tells the trainer when to look, to save and to stop; all processes come to the same answer.

    `trainer` has what is looked at as `eval_dataset`; `every`: steps between looks.
    """

    def __init__(self, trainer: Any, settings: TrainSettings, every: int):
        self.trainer, self.settings, self.every = trainer, settings, every
        self.saved = self.looked = time.monotonic()
        self.interval = INTERVAL

    def on_train_begin(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        self.saved = time.monotonic()
        # A run that goes on from a checkpoint has had its look.
        if state.global_step == 0 and self.trainer.eval_dataset:
            self.trainer.evaluate()

    def on_step_end(self, args: Any, state: Any, control: Any, **_options: Any) -> Any:
        step, settings = state.global_step, self.settings
        self.looked = time.monotonic()
        last = step >= min(settings.max_steps or state.max_steps, state.max_steps)
        if self.trainer.eval_dataset and (last or step % self.every == 0):
            control.should_evaluate = True
        if settings.save_every:
            due = step % settings.save_every == 0
        else:
            due = step % (state.max_steps // settings.epochs) == 0 or self._overdue(args)
        control.should_training_stop |= last
        control.should_save = due and not last
        return control

    def _overdue(self, args: Any) -> bool:
        """By the clock of whichever process is slowest, so that all of them save together."""
        overdue = time.monotonic() - self.saved > self.interval
        if not distributed.is_initialized():
            return overdue
        flag = torch.tensor(float(overdue), device=args.device)
        # A save waits for all processes: one that alone thought it due would wait for ever.
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag.item())

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_options: Any
    ) -> Any:
        # The loss of grpo says how far the model moved, not how good it is: its reward counts.
        loss = -metrics["eval_reward"] if "eval_reward" in metrics else metrics["eval_loss"]
        step = state.global_step
        self.looked = time.monotonic()
        if step and (state.best_metric is None or loss < state.best_metric):
            state.best_metric, state.best_global_step = loss, step
            control.should_save |= not control.should_training_stop
        elif step and self.settings.patience:
            # Counted from the log, which checkpoints hold: a resumed run stops at the same step.
            later = {
                line["step"]
                for line in state.log_history
                if "eval_loss" in line and line["step"] > state.best_global_step
            }
            if len(later) >= self.settings.patience:
                control.should_training_stop = True
                control.should_save = False
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_options: Any) -> None:
        self.saved = time.monotonic()
        self.interval = max(INTERVAL, (self.saved - self.looked) / SAVING_SHARE)
