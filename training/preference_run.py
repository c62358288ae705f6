"""One process of training on preference pairs (Direct Preference Optimization, Rafailov et al.
2023), through TRL's trainer: the tokens, settings, checkpoints and log are those of
`medaction.training.job`.

The loss of a pair is -log sigmoid(beta * margin), where the margin is how much further the model
has moved towards the better reply than towards the worse, in log-probability against the base.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from trl import DPOConfig, DPOTrainer

from medaction.training.checkpoints import Writes
from medaction.training.data import read_samples
from medaction.training.job import Job, MarkComplete, open_job, train_to_end
from medaction.training.looks import Looks
from medaction.training.measure_log import MeasureLog
from medaction.training.preference_data import better_sides
from medaction.training.schedule import schedule
from medaction.training.sharding import ShardedTrainer, share_out
from medaction.training.trainer_arguments import (
    adapter_config,
    load_base,
    load_tokenizer,
    shared_arguments,
)


class PairsConfig(DPOConfig):
    """TRL's arguments; a model that will be shared out is never whole on a GPU."""

    shares_out = False

    @property
    def place_model_on_device(self) -> bool | None:
        return False if self.shares_out else None


class TokenizedTrainer(ShardedTrainer, DPOTrainer):
    """TRL's trainer on pairs that are tokenized already."""

    def __init__(self, *, job: Job, **options: Any):
        self.job = job
        super().__init__(**options)

    def _precompute_ref_logps(self, *dataset: Any) -> Dataset:
        # Here, because TRL hashes the weights first, which must be whole for that.
        if self.args.shares_out and not self.shared_out:
            share_out(self.model, self.job.settings.uses_bf16(self.job.cuda))
        with_probabilities = super()._precompute_ref_logps(*dataset)
        # TRL froze the adapters meanwhile, so FSDP2 took none of them as trained: it looks anew
        # where weights are put together. The optimizer is made for parts of them, not the whole.
        for part in self.model.modules():
            if isinstance(part, FSDPModule):
                part.unshard()
                part.reshard()
        return with_probabilities

    def _prepare_dataset(self, dataset: Dataset, *_unused: Any) -> Dataset:
        return dataset


def train_pairs(out: Path) -> None:
    """Train as the job in `out` says, from its newest whole checkpoint if there is one."""
    job = open_job(out)
    settings = job.settings
    # Read from files through one cache, where the first process leaves the base's probabilities
    # for the others, and for the run that goes on from here.
    cache = str(out / "cache")
    train = Dataset.from_parquet(str(out / "pairs-train.parquet"), cache_dir=cache)
    held_out = out / "pairs-validation.parquet"
    arguments = PairsConfig(
        **shared_arguments(out, settings, job.cuda),
        per_device_train_batch_size=1,  # a pair
        gradient_accumulation_steps=settings.batch // job.processes,
        num_train_epochs=settings.epochs,
        warmup_steps=round(settings.warmup * settings.epochs * -(-len(train) // settings.batch)),
        per_device_eval_batch_size=1,
        beta=settings.beta,
        # Nothing is cut here: too long records were left out, and reported, when they were
        # prepared.
        max_length=None,
        # Before the first step, with the base's weights: so none of them are kept beside the
        # model's.
        precompute_ref_log_probs=True,
    )
    arguments.shares_out = settings.sharding == "fsdp"
    writes = Writes()
    trainer = TokenizedTrainer(
        job=job,
        writes=writes,
        model=load_base(job.base, settings, job.cuda, "sdpa"),
        args=arguments,
        train_dataset=train,
        eval_dataset=Dataset.from_parquet(str(held_out), cache_dir=cache)
        if held_out.is_file()
        else None,
        processing_class=load_tokenizer(job.base, job.thinking),
        callbacks=[MarkComplete(writes), MeasureLog(out / "log.jsonl", "dpo")],
        peft_config=adapter_config(settings) if settings.trains_adapters else None,
    )
    prepared = read_samples(out / "samples.parquet")
    sides = better_sides(prepared.train), better_sides(prepared.validation)
    trainer.add_callback(Looks(trainer, settings, schedule(settings, *sides).every))
    train_to_end(trainer, job, "sdpa")
