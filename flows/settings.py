"""The settings of a distillation: one model is the flow's parameter (and so the form in the UI),
the YAML preset and the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from medaction.llm.call_cache import CacheMode
from medaction.llm.teacher import Teacher
from medaction.trajectories.records import OpenFailure
from medaction.words.id_lists import listed_ids

PRESETS = Path(__file__).parent.parent / "deployments" / "presets"


def _teacher(value: Any) -> Any:
    return Teacher.parse(value) if isinstance(value, str) else value


def _language_model(model: Teacher) -> Teacher:
    if model.embedded:
        raise ValueError(f"{model.model} is no language model: it can only be a teacher")
    return model


def _judge(name: str) -> str:
    # Judges are text in the form, and become models only where they are called.
    if name != "offline":
        _language_model(Teacher.parse(name))
    return name


TeacherField = Annotated[Teacher, BeforeValidator(_teacher)]
LanguageModel = Annotated[TeacherField, AfterValidator(_language_model)]

_ORACLE: Any = Field(
    default=None,
    description="A language model that may pick menu entries by number for orders that names"
    " and encoder do not match.",
)
_SEED: Any = Field(default=0, ge=0, description="Changes every rollout's seed.")

ROLES = (
    *("extractor", "verifier", "teachers", "gold", "oracle", "model", "judges", "examiner"),
    "reader",
)
"""The settings that name models."""


class EnvironmentSettings(BaseModel):
    """Everything that stage 1 depends on, and where the run lives."""

    evaluation: ClassVar[bool] = False
    """Whether the cases are only evaluated on, whatever their source says."""

    # Inputs are hidden because somebody may have typed a key into the wrong field.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    cases: str = Field(
        min_length=1,
        description="A file or folder of case reports in any form that docs/sources.md names, or"
        " pmc:PMC123,PMC456, or pmc:FILE_OF_IDS.",
    )
    out: Path = Field(
        description="The run's folder: the store, the dataset and the summary are written here."
    )
    extractor: LanguageModel | None = Field(
        default=None,
        description="The language model that builds environments from reports without structured"
        " sections.",
    )
    verifier: LanguageModel | None = Field(
        default=None,
        description="A language model that reads each report and its environment and gives a second"
        " opinion: warnings with the passage quoted, nothing is changed.",
    )
    allow: list[Literal["unlicensed", "any-article"]] = Field(
        default_factory=list,
        description="Take what is refused by default: cases without a licence, articles of other"
        " types.",
    )
    min_tests: int = Field(
        default=1, ge=1, description="A case with fewer documented tests is refused."
    )
    disease_graph: str = Field(
        default="open",
        description="The graph of DTC: 'open', which comes with the install, or a graph of yours"
        " by path or name (docs/graphs.md).",
    )
    call_cache: CacheMode = Field(
        default="on",
        description="Replies of models kept on disk: on; off; read (store nothing new); refresh"
        " (ask anew and store).",
    )
    limit: int | None = Field(default=None, ge=1, description="Only the first so many cases.")
    only: list[str] = Field(
        default_factory=list, description="Only these case ids; @FILE: those in a file, one a line."
    )
    engine: Literal["auto", "local", "ray"] = Field(
        default="auto",
        description="What plays the cases: local (this process), ray (Ray, shown by Prefect), or"
        " auto: local for a small run that no configured Prefect or Ray waits for.",
    )
    workers: int | None = Field(
        default=None, ge=1, description="CPUs that the local Ray uses; by default all of them."
    )
    in_flight: int = Field(
        default=16, ge=1, le=1000, description="Cases under way at the same time."
    )

    def models(self) -> Iterator[tuple[str, Teacher]]:
        """Every model of the run with its role; the offline judge is none."""
        for role in ROLES:
            value = getattr(self, role, None) or ()
            for model in [value] if isinstance(value, Teacher) else value:
                if model != "offline":
                    # 'teachers' -> 'teacher'; judges are names, the others are models already.
                    yield role.removesuffix("s"), _teacher(model)

    @field_validator("only", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return listed_ids(value)

    @model_validator(mode="after")
    def _apart(self) -> "EnvironmentSettings":
        # The store and the dataset would be read as case files at the next run.
        if Path(self.cases).resolve() == self.out.resolve():
            raise ValueError(f"the cases are in {self.out}: --out wants a folder of its own")
        return self


class DistillSettings(EnvironmentSettings):
    """Everything a run depends on. The defaults are the paper's (section 3.3 and appendix C)."""

    teachers: list[TeacherField] = Field(
        min_length=1,
        description="Who plays: kg-screening, kg-targeted, local, local:FILE.gguf,"
        " local:TRAINED_FOLDER, or any LiteLLM model (openai/gpt-5.4-mini,"
        " openai/NAME@http://127.0.0.1:8000/v1).",
    )
    gold: LanguageModel | None = Field(
        default=None,
        description="A language model that reconstructs the documented course of every report as"
        " one gold trajectory (RQ1).",
    )
    oracle: LanguageModel | None = _ORACLE
    rollouts: int = Field(
        default=3,
        ge=1,
        le=64,
        description="K: independent rollouts from the initial observation, per teacher.",
    )
    launch_points: int = Field(
        default=1,
        ge=0,
        le=16,
        description="Intermediate turns a tree from which branches are launched.",
    )
    launch: Literal["uniform", "entropy", "dtc"] = Field(
        default="uniform",
        description="Where branches start: any intermediate turn, the least settled differential,"
        " or the largest change of DTC.",
    )
    branches: int = Field(
        default=1, ge=0, le=16, description="Branched rollouts per launch point and teacher."
    )
    branch_by: Literal["every", "same"] = Field(
        default="every",
        description="Who plays them: every teacher, or only the one that played up to there.",
    )
    pair_branches: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Most further branches a tree, one from each state whose replies make no"
        " preference pair yet, by the teacher that played there (docs/rl.md).",
    )
    t_max: int = Field(
        default=8,
        ge=1,
        le=32,
        description="The last turn, at which a definitive diagnosis is demanded.",
    )
    skip_unlinkable: bool = Field(
        default=True,
        description="Play no case whose true diagnosis is no node of the disease graph: pruning"
        " could keep nothing of it, and its teachers would be paid for nothing.",
    )
    strategy: Literal["dtc_rac", "correctness", "none"] = Field(
        default="dtc_rac",
        description="Which pruning makes the dataset: the paper's two metrics, correct endings"
        " only, or none.",
    )
    test_graph: str = Field(
        default="open",
        description="The graph of RAC: 'open', which comes with the install, or a graph of yours"
        " by path or name (docs/graphs.md).",
    )
    links: Path | None = Field(
        default=None,
        description="A CSV of your own links, text,node_id[,type], which go before all others"
        " (docs/linking.md).",
    )
    encoder: str = Field(
        default="small",
        description="What links names that stand in no table: small, medcpt, or"
        " medcpt:QUERY_FOLDER,ARTICLE_FOLDER.",
    )
    maxo: Path | None = Field(
        default=None, description="A folder with MAxO's files: its tests join the open test graph."
    )
    loinc2hpo: Path | None = Field(
        default=None,
        description="A folder with LOINC2HPO's file: its tests join the open test graph.",
    )
    rac_threshold: float | None = Field(
        default=None,
        gt=0,
        description="Hops on the test graph above which a turn's tests count as ineffective; by"
        " default the graph's own: 3 on ClinGraph, 2 on the open graph, else what `kg calibrate`"
        " found.",
    )
    idle_turns: int = Field(
        default=0,
        ge=0,
        le=32,
        description="A turn counts as ineffective, too, when none of so many turns after it changed"
        " the differential; 0: never, as in the paper.",
    )
    wrong_endings: Literal["keep", "drop-commit", "drop"] | None = Field(
        default=None,
        description="Trajectories that DTC keeps although they commit to a wrong diagnosis: keep"
        " them, drop the commitment only, or drop them.  [default: keep on the paper's own graphs,"
        " as section 3.3 says; else drop-commit]",
    )
    quarantine: bool = Field(
        default=True,
        description="Keep out of the dataset what a teacher played whose replies look broken or"
        " poisoned: too many asked again, the same for other cases, or in another script.",
    )
    validation_percent: int = Field(
        default=10,
        ge=0,
        le=50,
        description="Share of the cases kept apart as the validation split.",
    )
    seed: int = _SEED

    @model_validator(mode="after")
    def _distinct_teachers(self) -> "DistillSettings":
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two teachers have the same name ({', '.join(names)}): give each its own `name`"
            )
        return self


class EvaluationSettings(EnvironmentSettings):
    """Everything an evaluation depends on (docs/evaluation.md). The defaults are the paper's
    (section 4, appendix C)."""

    evaluation: ClassVar[bool] = True

    model: TeacherField = Field(
        description="The model under test: kg-screening, kg-targeted, local, local:FILE.gguf,"
        " local:TRAINED_FOLDER, or any LiteLLM model."
    )
    judges: list[Annotated[str, AfterValidator(_judge)]] = Field(
        default_factory=lambda: ["offline"],
        min_length=1,
        description="Who scores: offline, or any LiteLLM model. The first one's scores make the"
        " table; of several the agreement is told.",
    )
    repeats: int = Field(
        default=1,
        ge=1,
        le=9,
        description="How often each language-model judge judges each trajectory.",
    )
    protocol: Literal["released", "fixed", "paper", "medaction"] = Field(
        default="medaction",
        description="medaction: the paper's evaluation in our schema; paper: in free text, which"
        " another model reads; released: MedR-Bench as its released code runs it; fixed: with that"
        " code's mistakes mended.",
    )
    mode: Literal["free-turn", "one-turn"] = Field(
        default="free-turn",
        description="Tests in as many turns as are needed, or one request and then the diagnosis.",
    )
    t_max: int | None = Field(
        default=None,
        ge=2,
        le=32,
        description="The last turn.  [default: the protocol's: 8 in the paper, 5 as released]",
    )
    runs: int = Field(default=3, ge=1, le=64, description="Rollouts of each case.")
    examiner: LanguageModel | None = Field(
        default=None,
        description="A language model that answers requests in MedR-Bench's dialogue, as released;"
        " without one our oracle answers.",
    )
    oracle: LanguageModel | None = _ORACLE
    reader: LanguageModel | None = Field(
        default=None,
        description="A language model that reads orders and diagnoses out of free text (protocol"
        " paper).  [default: the first judge]",
    )
    seed: int = _SEED

    @property
    def read_by(self) -> Teacher | None:
        """Who reads what the model under test writes freely; None where it writes in a form."""
        if self.protocol != "paper" or self.model.embedded:
            return None
        judges = [Teacher.parse(judge) for judge in self.judges if judge != "offline"]
        return self.reader or (judges[0] if judges else None)

    @model_validator(mode="after")
    def _fits(self) -> "EvaluationSettings":
        if self.mode == "one-turn" and self.t_max not in (None, 2):
            raise ValueError("one-turn mode has two messages: leave t_max out")
        if self.protocol == "medaction" and self.examiner:
            raise ValueError(
                "protocol medaction has an oracle, no examiner: use oracle, or protocol paper,"
                " released or fixed"
            )
        if self.protocol == "paper" and not self.model.embedded and not self.read_by:
            raise ValueError(
                "protocol paper takes free text, which a language model must read: name one as"
                " reader or judge, or use protocol medaction"
            )
        if len(set(self.judges)) < len(self.judges):
            raise ValueError("a judge is named twice: use repeats to let it judge several times")
        return self


class Retry(BaseModel):
    """Which open failures are run again. An empty list means all; several lists narrow each other
    down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: list[Literal["environment", "gold", "rollout"]] = Field(
        default_factory=list, description="Stages: environment, gold, rollout."
    )
    cases: list[str] = Field(default_factory=list, description="Case ids.")
    teachers: list[str] = Field(default_factory=list, description="Teachers, by name.")
    rollouts: list[str] = Field(default_factory=list, description="Rollouts, by trajectory id.")
    errors: list[str] = Field(
        default_factory=list,
        description="Classes of errors, such as ModelUnavailable or MalformedReply.",
    )

    def wants(self, failure: OpenFailure) -> bool:
        narrow = (
            (self.stages, failure.stage),
            (self.cases, failure.case_id),
            (self.teachers, failure.teacher),
            (self.rollouts, failure.trajectory_id),
            (self.errors, failure.error_class),
        )
        return all(not choices or value in choices for choices, value in narrow)


def load_preset(name_or_path: str, folder: Path = PRESETS) -> dict[str, Any]:
    """A preset by name (FOLDER/NAME.yaml) or by path. Raises ValueError naming what there is."""
    path = Path(name_or_path)
    if not path.suffix:
        path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ValueError(
            f"no preset {name_or_path!r}: there are {names}, or give the path of a YAML file"
        )
    import yaml  # takes longer to import than help takes

    class EachOnce(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            # PyYAML takes the last of two in silence.
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                raise ValueError(f"{path}: {twice!r} stands twice; write each setting once")
            return super().construct_mapping(node, deep)

    try:
        loaded = EachOnce(path.read_text(encoding="utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: a preset is a mapping of setting names to values")
    return loaded
