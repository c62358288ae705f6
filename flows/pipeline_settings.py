"""The settings of a pipeline: those of its three stages, whose folders are meant from the
pipeline's own."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from medaction.flows.settings import (
    PRESETS,
    DistillSettings,
    EvaluationSettings,
    TeacherField,
    load_preset,
)
from medaction.llm.teacher import Teacher
from medaction.training.settings import TrainSettings

_BELOW = " A relative path is meant from the pipeline's folder."


class Distilling(DistillSettings):
    out: Path = Field(
        default=Path("distill"), description="The folder of the distillation." + _BELOW
    )


class Training(TrainSettings):
    data: list[str] = Field(
        default=["distill"],
        min_length=1,
        description="Datasets or their runs: by default what was distilled. FOLDER=SHARE mixes"
        " several." + _BELOW,
    )
    out: Path = Field(default=Path("model"), description="The folder of the training." + _BELOW)


class Evaluating(EvaluationSettings):
    model: TeacherField = Field(
        default=Teacher(name="trained", model="local", folder=Path("model")),
        description="What is evaluated: by default the trained model, served on this machine."
        + _BELOW,
    )
    out: Path = Field(
        default=Path("evaluation"), description="The folder of the evaluation." + _BELOW
    )


class PipelineSettings(BaseModel):
    """Everything a pipeline depends on. In a YAML file a stage may begin with `preset: NAME`, whose
    settings it then changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    out: Path = Field(description="The pipeline's folder; each stage has one of its own in it.")
    distill: Distilling = Field(description="How training data is distilled from case reports.")
    train: Training = Field(
        default_factory=Training,
        description="How a model is trained on it. The base model `tiny` needs no GPU.",
    )
    evaluate: Evaluating = Field(
        description="On which cases, and how, the trained model is scored."
    )

    @field_validator("distill", "evaluate", mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "preset" not in values:
            return values
        # A preset of one stage; what stands beside it changes it.
        return load_preset(values["preset"]) | {
            name: value for name, value in values.items() if name != "preset"
        }

    def stages(self) -> tuple[DistillSettings, TrainSettings, EvaluationSettings]:
        """The settings of the stages as they run by themselves, with their folders in place.
        Training refuses the evaluation's cases."""
        model = self.evaluate.model
        if model.folder:
            # An absolute path stays as it is: Path's `/` drops what stands before it.
            model = model.model_copy(update={"folder": self.out / model.folder})
        training = {
            "data": [str(self.out / folder) for folder in self.train.data],
            "out": self.out / self.train.out,
        }
        # A set of which only some cases are played cannot be told from what the others are for.
        if not self.evaluate.only:
            sets = [*self.train.against, self.evaluate.cases]
            training["against"] = list(dict.fromkeys(sets))
        evaluation = {"model": model, "out": self.out / self.evaluate.out}
        return (
            self.distill.model_copy(update={"out": self.out / self.distill.out}),
            self.train.model_copy(update=training),
            self.evaluate.model_copy(update=evaluation),
        )


PIPELINES = PRESETS / "pipelines"
