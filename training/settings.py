"""The settings of a training run: one model is the flow's parameter, the command line's options and
what a resumed run is compared with."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medaction.words.errors import MedactionError
from medaction.words.id_lists import listed_ids

PAPERS_BASE = "Intelligent-Internet/II-Medical-8B"


class TrainError(MedactionError):
    """Input that training refuses. The message names what is wrong and the remedy."""


class MissingInput(TrainError):
    """No dataset or no model stands at the path that was given: nothing was begun."""

    status = 2


class ProcessDied(MedactionError):
    """A training process ended otherwise than by refusing something; starting again goes on from
    the newest checkpoint."""


Objective = Literal["sft", "dpo", "grpo"]

LEARNING_RATE, EPOCHS = 2e-4, 3
"""The paper's (appendix C), for records."""

PAIRS_LEARNING_RATE, PAIRS_EPOCHS = 1e-6, 1
"""Of dpo. Learning rate: Rafailov et al. 2023, appendix B; one pass, because replies that are
pushed down again and again take the good ones with them (our choice)."""

PLAY_LEARNING_RATE, PLAY_EPOCHS = 1e-6, 1
"""Of grpo. Learning rate: Shao et al. 2024, section 4.2, whose policy sees its questions once."""

DEFAULTS_BY_OBJECTIVE = {
    "dpo": {"learning_rate": PAIRS_LEARNING_RATE, "epochs": PAIRS_EPOCHS},
    "grpo": {"learning_rate": PLAY_LEARNING_RATE, "epochs": PLAY_EPOCHS},
}
"""Where the defaults are not the paper's."""

NEEDED = ("torch", "transformers", "deepspeed", "peft", "accelerate")

TRL = ("trl", "datasets")
"""What the other objectives need beside."""


def installed(objective: Objective = "sft") -> None:
    """Raises TrainError when what training and serving need is not there. The flows are put on a
    server without it all the same."""
    needed = NEEDED if objective == "sft" else (*NEEDED, *TRL)
    if lacking := [name for name in needed if find_spec(name) is None]:
        raise TrainError(
            f"training and serving need {', '.join(lacking)}: pip install -e '.[train]'"
        )


class TrainSettings(BaseModel):
    """Everything a run depends on. Epochs, batch, learning rate and base model are the paper's
    (section 4, appendix C); what the paper does not say (schedule, weight decay, lengths) is our
    choice."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    data: list[str] = Field(
        min_length=1,
        description="A dataset's folder (or its run's), or FOLDER=SHARE, a share between 0 and 1 of"
        " the records. Several are mixed. grpo: case reports.",
    )
    out: Path = Field(
        description="The run's folder: tokens, checkpoints, log, curves and the trained model are"
        " written here."
    )
    objective: Objective = Field(
        default="sft",
        description="What is learnt: the replies of the records (sft), or which of two replies is"
        " better (dpo, from the dataset's preferences), or what earns rewards in episodes that the"
        " model plays (grpo).",
    )
    base: str = Field(
        default=PAPERS_BASE,
        description="What is fine-tuned: a folder with safetensors weights, a .gguf file, or a"
        " model's name on the Hugging Face hub.",
    )
    earlier: list[str] = Field(
        default_factory=list,
        description="Datasets that the base model has learnt, the oldest first: of their records"
        " only those of `replay` are learnt again, and their held-out cases show what is"
        " forgotten.",
    )
    replay: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Share of the training records that are drawn from the earlier datasets.",
    )
    teachers: list[str] = Field(
        default_factory=list, description="Only the records of these teachers."
    )
    styles: list[Literal["schema", "free", "gold"]] = Field(
        default_factory=list, description="Only records in these styles."
    )
    without: list[str] = Field(
        default_factory=list, description="Cases that are left out, by their ids."
    )
    only: list[str] = Field(
        default_factory=list,
        description="Only these cases are trained on (@FILE: those in a file, such as"
        " the hardest half that `medaction analyse` finds); what is held out stays.",
    )
    against: list[str] = Field(
        default_factory=list,
        description="Benchmarks, hard sets or runs: when one of their cases is in the data, in"
        " whatever words, training is refused.",
    )
    scale: int | None = Field(
        default=None,
        ge=1,
        description="So many training records; a smaller scale of the same seed is a subset of a"
        " larger one.",
    )
    validation_percent: int = Field(
        default=10,
        ge=0,
        le=50,
        description="Share of the cases held out where a dataset has no validation split of its"
        " own.",
    )
    validation_records: int = Field(
        default=512,
        ge=1,
        description="Most held-out records that the loss is measured on, drawn by the seed.",
    )
    max_length: int = Field(
        default=16_384,
        ge=64,
        description="Most tokens of a record; longer ones are left out whole, never cut, and"
        " listed.",
    )
    allow_dropped: bool = Field(
        default=False,
        description="Train although max-length leaves out more than a twentieth of a split's, a"
        " turn's, a teacher's or an ending's records.",
    )
    thinking: Literal["keep", "empty", "from-reasoning"] = Field(
        default="keep",
        description="What is taught before the reply: the thinking that a record has (keep), none"
        " (empty), or where it has none the reply's own reasoning (from-reasoning).",
    )
    row_tokens: int | None = Field(
        default=None,
        ge=64,
        description="Most tokens that go through a process at once: records packed into one row."
        " [max-length]",
    )
    # This and the learning rate have no default in the schema: a form would send it as if the user
    # had stated it. `_for_objective` fills in those of the other objectives.
    epochs: int = Field(
        default_factory=lambda: EPOCHS,
        ge=1,
        description=f"Passes over the data. [{EPOCHS}; dpo, grpo: {PLAY_EPOCHS}]",
    )
    batch: int = Field(
        default=32, ge=1, description="Records, pairs or episodes a step, over all processes."
    )
    learning_rate: float = Field(
        default_factory=lambda: LEARNING_RATE,
        gt=0,
        description="The highest learning rate; a cosine brings it down to zero."
        f" [{LEARNING_RATE:.0e}; dpo, grpo: {PLAY_LEARNING_RATE:.0e}]",
    )
    beta: float = Field(
        default=0.1, gt=0, description="dpo: how much leaving the base model costs."
    )
    # TRL's default; Shao et al. 2024 took 64.
    group: int = Field(default=8, ge=2, description="grpo: episodes of one case that are compared.")
    reply_tokens: int = Field(
        default=2048,
        ge=16,
        description="Of an episode: most tokens of a reply, within those of max-length.",
    )
    t_max: int = Field(default=8, ge=1, le=50, description="The last turn of an episode.")
    warmup: float = Field(
        default=0.03, ge=0, lt=1, description="Share of the steps in which the learning rate rises."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Of AdamW.")
    optimizer: Literal["adamw", "adamw-8bit"] = Field(
        default="adamw",
        description="adamw-8bit has AdamW's two moments in 8 bits: 6 bytes less a trained weight.",
    )
    max_steps: int | None = Field(
        default=None,
        ge=1,
        description="Stop after so many steps; the schedule is laid out for the whole.",
    )
    method: Literal["full", "lora", "qlora", "prompt"] = Field(
        default="full",
        description="Train all weights, low-rank adapters (merged at the end), adapters over"
        " weights in 4 bits, or the vectors of a soft prompt alone.",
    )
    prompt_tokens: int = Field(
        default=100, ge=1, description="Vectors of the soft prompt, with method prompt."
    )
    lora_rank: int = Field(
        default=64,
        ge=1,
        description="Rank of the adapters, on every linear layer; alpha is twice the rank.",
    )
    seed: int = Field(
        default=0, ge=0, description="Orders the records and chooses those of a scale or a share."
    )
    sharding: Literal["zero", "fsdp"] = Field(
        default="zero",
        description="What shares a model out among processes: DeepSpeed's ZeRO, or torch's FSDP2,"
        " which shares out everything, writes checkpoints while the training goes on, and goes on"
        " from them with any number of processes.",
    )
    zero: Literal[0, 1, 2, 3] | None = Field(
        default=None,
        description="DeepSpeed's ZeRO stage: optimizer (1), gradients (2) and weights (3) shared"
        " out; 0: no DeepSpeed. [0 for one process, 2 for several; what the offload needs]",
    )
    offload: Literal["none", "optimizer", "all"] = Field(
        default="none",
        description="What ZeRO keeps in the machine's memory instead of the GPU's: the optimizer,"
        " or (stage 3) weights too.",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="auto: bf16 on a GPU, fp32 without one. Master weights and optimizer are fp32"
        " either way.",
    )
    attention: Literal[
        "auto", "flash_attention_3", "flash_attention_2", "varlen", "flex", "per_sequence", "sdpa"
    ] = Field(
        default="auto",
        description="How records in a row are kept apart. auto: on a GPU the first of these that is"
        " installed and computes rightly there, without one record by record.",
    )
    gradient_checkpointing: bool | None = Field(
        default=None,
        description="Less memory for activations, about a third more time. [where the memory is too"
        " small without]",
    )
    compile: bool = Field(
        default=False,
        description="sft: each layer by torch.compile, but for its attention; on a GPU in place of"
        " Liger's norms and activations. A minute or two at the first rows.",
    )
    launcher: Literal["torchrun", "ray"] = Field(
        default="torchrun", description="Who starts the processes."
    )
    processes: int | None = Field(
        default=None, ge=1, description="Processes on this machine. [one a GPU; 1 without]"
    )
    nodes: int = Field(
        default=1,
        ge=1,
        description="Machines; run the same command on each, with --out on a shared file system.",
    )
    node_rank: int = Field(
        default=0,
        ge=0,
        description="Which of the machines this is; 0 prepares the data and writes the model.",
    )
    rendezvous: str = Field(
        default="127.0.0.1:0",
        pattern=r"^[^\s:]+:\d+$",
        description="HOST:PORT of machine 0, where all meet.",
    )
    save_every: int | None = Field(
        default=None,
        ge=1,
        description="Steps between checkpoints. [at the end of an epoch, at the best look at the"
        " held-out cases, and every half hour]",
    )
    keep: int = Field(
        default=2, ge=1, description="Checkpoints that are kept: the newest, the best, older ones."
    )
    evaluate_every: int | None = Field(
        default=None,
        ge=1,
        description="Steps between looks at the held-out cases. [up to four looks an epoch, for at"
        " most 3 % of the compute]",
    )
    episodes: int | None = Field(
        default=None,
        ge=1,
        description="sft: so many held-out cases are played at every look, with greedy replies:"
        " reward, right diagnoses, F1 of the tests and readable replies go into the log.",
    )
    find_learning_rate: bool = Field(
        default=False,
        description="Train nothing: let the learning rate rise for at most 100 steps, and say where"
        " the loss falls fastest (OUT/learning-rate).",
    )
    push: str | None = Field(
        default=None,
        pattern=r"^[^/\s]+/[^/\s]+$",
        description="OWNER/NAME of a model repository of a hub: each checkpoint goes there as it is"
        " written, and the model at the end. A new repository is private; the key comes from"
        " HF_TOKEN.",
    )
    report_to: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(
        default_factory=list,
        description="Trackers that get every step too, each with its own package and environment"
        " variables. Off unless stated.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop once so many looks in a row have found no lower held-out loss.",
    )

    @field_validator("only", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return listed_ids(value)

    @model_validator(mode="before")
    @classmethod
    def _for_objective(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # What the user states wins.
        return DEFAULTS_BY_OBJECTIVE.get(values.get("objective", ""), {}) | values

    @model_validator(mode="after")
    def _fit(self) -> "TrainSettings":
        if self.row_tokens is not None and self.row_tokens < self.max_length:
            raise ValueError(
                f"row_tokens {self.row_tokens} is less than max_length {self.max_length}: a row"
                " must hold the longest record"
            )
        if (self.offload != "none" and self.zero == 0) or (
            self.offload == "all" and self.zero not in (None, 3)
        ):
            raise ValueError(
                f"offload {self.offload!r} needs ZeRO: stage 3 for 'all', 1 or more for 'optimizer'"
            )
        if self.objective != "sft" and (self.method == "prompt" or self.find_learning_rate):
            raise ValueError(
                "a soft prompt and the search for a learning rate are for objective sft: with"
                f" {self.objective} take method full, lora or qlora, and leave find_learning_rate"
                " out"
            )
        if self.method == "qlora" and (self.zero or self.offload != "none"):
            raise ValueError(
                "qlora keeps its weights in 4 bits, which ZeRO does not share out: leave --zero and"
                " --offload out, or take --method lora"
            )
        if self.optimizer == "adamw-8bit" and (self.zero or self.offload != "none"):
            raise ValueError(
                "adamw-8bit is not shared out: leave --zero and --offload out, or take --optimizer"
                " adamw"
            )
        if self.sharding == "fsdp" and (
            self.zero
            or self.offload != "none"
            or self.objective == "grpo"
            or self.method not in ("full", "lora")
            or self.optimizer != "adamw"
        ):
            raise ValueError(
                "sharding fsdp is for objective sft or dpo, method full or lora, and optimizer"
                " adamw, without --zero and --offload"
            )
        if self.compile and (self.objective != "sft" or self.zero == 3 or self.offload == "all"):
            raise ValueError(
                "compile is for objective sft, and ZeRO below stage 3, which gathers a layer's"
                " weights as it runs"
            )
        if self.objective == "grpo":
            self._can_be_played()
        if self.episodes and (self.objective != "sft" or self.sharding == "fsdp"):
            raise ValueError(
                "episodes at looks are for objective sft without sharding fsdp (grpo plays its"
                " held-out cases anyway)"
            )
        if self.episodes or self.objective == "grpo":
            self._has_room_and_weights()
        if self.nodes > 1 and (self.launcher == "ray" or self.rendezvous.endswith(":0")):
            raise ValueError(
                "several nodes need the torchrun launcher and a rendezvous HOST:PORT that all of"
                " them reach"
            )
        if self.objective != "sft" and (self.styles or self.earlier):
            raise ValueError(
                f"{self.objective} has records of no style and no replay: leave these out"
            )
        if self.node_rank >= self.nodes:
            raise ValueError(
                f"node_rank {self.node_rank} of {self.nodes} nodes: they are numbered from 0"
            )
        return self

    def _can_be_played(self) -> None:
        if self.batch % self.group:
            raise ValueError(
                f"batch {self.batch} episodes are no whole groups of {self.group}: take a multiple"
            )
        if self.teachers or self.scale:
            raise ValueError("grpo plays cases: they have no teacher and no scale; see case")

    def _has_room_and_weights(self) -> None:
        if self.reply_tokens >= self.max_length:
            raise ValueError(
                f"reply_tokens {self.reply_tokens} leave no room for a prompt within max_length"
                f" {self.max_length}"
            )
        # Processes play episodes of different lengths; weights that are gathered for every token
        # would need them to be equal.
        if self.launcher == "ray" or self.zero == 3 or self.offload == "all":
            raise ValueError("episodes need the torchrun launcher, and ZeRO below stage 3")

    @property
    def trains_adapters(self) -> bool:
        return self.method in ("lora", "qlora")

    @property
    def needs_bitsandbytes(self) -> bool:
        return self.method == "qlora" or self.optimizer == "adamw-8bit"

    @property
    def shared_out_by(self) -> str:
        if self.sharding == "fsdp":
            return "FSDP2"
        return f"DeepSpeed ZeRO {self.zero}" if self.zero else "no DeepSpeed"

    def uses_bf16(self, gpu: bool) -> bool:
        """Whether products are computed in bf16, on a GPU or without one."""
        return self.precision == "bf16" or (self.precision == "auto" and gpu)

    @property
    def sums_in_fp32(self) -> bool:
        """Whether the gradients of a step's rows are summed in fp32, so that small ones are not
        lost among those of many in bf16. Not where ZeRO does not share them out, or offloads: they
        would take twice the memory or the way."""
        return not self.zero or (self.zero > 1 and self.offload == "none")

    @property
    def row(self) -> int:
        """Most tokens of a row."""
        return self.row_tokens or self.max_length

    def decides(self) -> dict[str, object]:
        """What the loss curve depends on: a run goes on from its checkpoints only while these stay
        as they were."""
        # What is played at looks changes nothing.
        of_episodes = {"group", "reply_tokens", "t_max"} if self.objective == "grpo" else set()
        return self.model_dump(
            mode="json",
            include=of_episodes | {
                "objective", "beta", "data", "base", "earlier", "replay", "teachers", "styles",
                "without", "only", "scale",
                "validation_percent", "max_length", "thinking", "epochs", "batch",
                "learning_rate", "warmup", "weight_decay", "optimizer", "method",
                "lora_rank", "prompt_tokens",
                "seed", "sharding", "zero",
                "offload", "precision",
            },
        )  # fmt: skip
