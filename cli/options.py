"""What the commands share: an option for every field of a settings model, and the Prefect API that
a run needs."""

import logging
import os
import signal
import types
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from medaction.flows.configured import configured_prefect, configured_ray, why_silent
from medaction.flows.settings import DistillSettings, EnvironmentSettings, load_preset
from medaction.trajectories.files import STORE, is_run
from medaction.words.errors import EngineLost, MedactionError

if TYPE_CHECKING:
    from medaction.llm.teacher import Teacher

log = logging.getLogger("medaction")

# Lists are given one by one: --teacher A --teacher B.
ONE_BY_ONE = {
    "teachers": "teacher", "only": "case", "allow": "allow", "judges": "judge", "data": "data",
    "styles": "style", "against": "against", "without": "without", "earlier": "earlier",
    "report_to": "report-to",
}  # fmt: skip


class CasesPath(click.ParamType):
    """Where cases lie, in any form that is read."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        # A path would take a variable of the shell that is not set for the present folder.
        return str(value) or self.fail("it is empty", param, ctx)


CASES_PATH = CasesPath()


class NamedPath(click.Path):
    """A path that is not empty, as from a variable of the shell that is not set."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        if not os.fsdecode(value):
            self.fail("it is empty", param, ctx)
        return Path(os.fsdecode(super().convert(value, param, ctx)))


class NewFolder(NamedPath):
    """A folder that is made where it does not exist. A path would take the first part of a web
    address for a folder, and write there."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        if "://" in os.fsdecode(value):
            self.fail(f"{value} is a web address: give a folder of this machine", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = NewFolder(file_okay=False, writable=True)

WORDS = ONE_BY_ONE | {"runs": "rollouts"}
"""A field's name -> the word of its option."""

LONG_CHOICE = 50
"""Letters of an option's choices beyond which its line would not fit a terminal of 80 columns: they
stand in its help then."""


def options_of(
    settings: type[BaseModel], without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """One option for every field of the settings, so that the command line can do what the form and
    the preset can.

    The command itself declares the fields `without`.
    """

    def add(command: Callable[..., None]) -> Callable[..., None]:
        # The last decorator that is applied stands first in the help.
        for name, field in reversed(settings.model_fields.items()):
            if name not in without:
                command = _option(name, field)(command)
        return command

    return add


Settings = TypeVar("Settings", bound=BaseModel)


def settings_of(kind: type[Settings], preset: str | None, options: dict[str, Any]) -> Settings:
    """The settings that preset and options give; options win. Raises click.UsageError in the words
    of the command line."""
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value not in (None, ())
    }
    start: dict[str, Any] = {}
    for name, value in values.items():
        if "" in (value if isinstance(value, list) else [value]):
            raise click.UsageError(f"{_flag(name)}: it is empty")
    try:
        # In the `try`: an unknown preset is wrong use too.
        start = load_preset(preset) if preset else {}
        # A preset serves every command: fields of others are left out, a misspelt one is refused.
        elsewhere = DistillSettings.model_fields.keys() - kind.model_fields
        of_preset = {name: value for name, value in start.items() if name not in elsewhere}
        return kind.model_validate(of_preset | values)
    except (ValidationError, ValueError) as error:
        # Whose mistake it is: a value of the file, or an option that was typed.
        problems = error.errors() if isinstance(error, ValidationError) else []
        places = {problem["loc"][0] for problem in problems if problem["loc"]}
        place = f"{preset}: " if places & (start.keys() - values.keys()) else ""
        raise click.UsageError(place + readable(error, kind)) from error


def _flag(name: str) -> str:
    return f"--{WORDS.get(name, name).replace('_', '-')}"


def _option(name: str, field: FieldInfo) -> Callable[[Callable[..., None]], Callable[..., None]]:
    flag = _flag(name)
    if field.annotation in (bool, bool | None):
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    has_default = not field.is_required() and field.default not in (None, PydanticUndefined)
    default = f"  [default: {field.default}]" if has_default else ""
    kind = FOLDER if name == "out" else _click_type(field.annotation)
    metavar = None
    choices = ", ".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else ""
    if len(choices) > LONG_CHOICE:
        metavar, default = "CHOICE", f"  One of {choices}.{default}"
    return click.option(
        flag,
        name,
        type=kind,
        multiple=name in ONE_BY_ONE,
        default=None,
        metavar=metavar,
        # click takes \b for 'do not wrap'; form and docs show the same descriptions.
        help=f"{field.description}{default}".replace("\b", ""),
    )


def _click_type(annotation: Any) -> click.ParamType:
    """int, float, path and choice as click knows them; anything else is text that the settings
    model reads."""
    if get_origin(annotation) in (Union, types.UnionType):
        # `Path | None` and the like: None is an option that was not given.
        annotation = next(part for part in get_args(annotation) if part is not types.NoneType)
    if get_origin(annotation) is list:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    numbers = {bool: click.BOOL, int: click.INT, float: click.FLOAT}
    return NamedPath() if annotation is Path else numbers.get(annotation, click.STRING)


PRESET = click.option(
    "--preset",
    help="Start from a preset: demo, paper, or the path of a YAML file; options override it.",
)


def _silence(_: click.Context, __: click.Parameter, value: bool) -> bool:
    """Show no progress from here on."""
    if value:
        from medaction.flows.progress import console

        # All progress and tables are printed by this one console.
        console.quiet = True
    return value


QUIET = click.option(
    "--quiet",
    is_flag=True,
    callback=_silence,
    help="No progress and no tables: what is wrong, and the last lines.",
)
AS_JSON = click.option(
    "--json", "as_json", is_flag=True, callback=_silence, help="One JSON object, no tables."
)
DRY_RUN = click.option(
    "--dry-run", is_flag=True, help="Read the cases and say what would be done; ask no model."
)


def language_model(option: str, name: str) -> "Teacher":
    """The model that an option names. Raises click.UsageError."""
    from medaction.llm.teacher import Teacher

    try:
        teacher = Teacher.parse(name)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error
    if teacher.embedded:
        raise click.UsageError(f"{option}: {name} is no language model")
    return teacher


class RunFolder(click.Path):
    """The folder of a run. Opening a store would make one."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        out = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not is_run(out):
            self.fail(f"{out} is not the folder of a run: it has no {STORE}", param, ctx)
        return out


RUN_FOLDER = RunFolder(exists=True, file_okay=False)
OUT = click.option("--out", type=RUN_FOLDER, required=True, help="The folder of the run.")


def make_folder(out: Path) -> None:
    """Raises click.UsageError where the folder cannot be made or written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"--out {out}: {error.strerror}") from error
    if not os.access(out, os.W_OK):
        raise click.UsageError(f"--out {out}: you may not write there")


def check_settings(settings: EnvironmentSettings) -> None:
    """Whatever can be known to be wrong before anything starts: paths, cases, graphs, keys. Raises
    click.UsageError for what stands in an option, MedactionError for what does not."""
    from medaction.envs.records import BadCase
    from medaction.flows.missing import check_inputs, unknown_cases
    from medaction.kg.loaders import folder_of

    # Settings of `envs build` have none of these.
    for name in ("links", "maxo", "loinc2hpo"):
        path = getattr(settings, name, None)
        if path and not path.exists():
            raise click.UsageError(f"--{name}: there is nothing at {path}")
    for name in ("disease_graph", "test_graph"):
        if (graph := getattr(settings, name, "open")) != "open":
            folder_of(graph)
    require_model_file(settings)
    try:
        check_inputs(settings)
        unknown = unknown_cases(settings)
    except BadCase as error:
        raise click.UsageError(f"--cases: {error.message}") from error
    if unknown and len(unknown) == len(set(settings.only)):
        raise click.UsageError(f"--case: {settings.cases} holds no {', '.join(unknown)}")
    if unknown:
        click.echo(f"--case: {settings.cases} holds no {', '.join(unknown)}", err=True)
    # Where no model is called the cache is not opened.
    embedded = all(model.embedded for _, model in settings.models())
    if settings.call_cache != "off" and not embedded:
        from medaction.llm.call_cache import CallCache, default_folder

        # Opened for a moment: a cache that cannot be used is known before the run begins.
        CallCache(default_folder()).close()
    require_servers()
    make_folder(settings.out)


def case_counts(settings: EnvironmentSettings) -> dict[str, int]:
    """How many cases of the settings can be read, and how many files cannot. What checks refuse is
    not known before."""
    from medaction.envs.records import BadCase
    from medaction.flows.missing import reports_of

    # Read one by one: the reports of a large folder do not fit the memory.
    bad = [isinstance(report, BadCase) for report in reports_of(settings)]
    return {"cases": bad.count(False), "files_that_cannot_be_read": bad.count(True)}


def require_model_file(settings: EnvironmentSettings) -> None:
    """A local clinician needs a file: no model that installs from packages is one
    (docs/providers.md has what was measured). Raises click.UsageError."""
    # Judges and extractors may be tried with the tiny model; a clinician of that kind makes data.
    for role, model in settings.models():
        by_default = model.local and not (model.gguf or model.folder)
        plays = role in ("teacher", "model")
        if plays and by_default and "MEDACTION_LOCAL_GGUF" not in os.environ:
            raise click.UsageError(
                f"{model.name}: no model that installs from packages diagnoses a case. Give a"
                " file, local:/path/to/model.gguf, or a server, such as"
                " ollama_chat/qwen3:8b@http://127.0.0.1:11434"
            )


def require_servers(with_ray: bool = True) -> None:
    """Raises MedactionError when nothing listens where a Prefect or a Ray is said to be. Ray would
    wait for minutes, and Prefect end in a page of its own."""
    servers = {"PREFECT_API_URL": configured_prefect()}
    if with_ray:
        servers["RAY_ADDRESS"] = configured_ray()
    for variable, address in servers.items():
        if address and (reason := why_silent(address)):
            remedy = f"start it, or unset {variable}"
            raise MedactionError(f"{address} does not answer ({reason}): {remedy}")


def run(flow: str, settings: Any, *more: Any) -> Any:
    """Run 'distill', 'environments' or 'evaluate' with its settings: a small one in this process,
    unless a Prefect or a Ray is configured; else as a flow, on the Prefect API that is configured
    or on one of its own."""
    # Imported here: it brings polars and DuckDB, seconds that `--help` must not wait for.
    from medaction.flows.missing import is_small
    from medaction.flows.runs import RUNS

    # polars, imported by now, has put a handler of its own before Python's, after which a thread
    # that waits for a lock waits on: Ctrl-C would be heard when the next case ends.
    signal.siginterrupt(signal.SIGINT, True)
    settings.out.mkdir(parents=True, exist_ok=True)
    # A Prefect or a Ray that is configured shall show and play every run.
    configured = configured_prefect() or "RAY_ADDRESS" in os.environ
    small = settings.engine == "auto" and not configured and is_small(settings)
    if small or settings.engine == "local":
        return RUNS[flow](settings, *more)
    from medaction.flows.unseen import shown

    with prefect(settings.out):
        try:
            return shown(getattr(import_module(f"medaction.flows.{flow}"), flow), settings, *more)
        except EngineLost as error:
            if not error.can_go_on or "RAY_ADDRESS" in os.environ:  # no match for a cluster
                raise
            log.warning("%s: the run goes on in this process, without Prefect and Ray", error)
    # What was played is stored. Without a flow run there is nothing for Ray's cases to be tasks of.
    return RUNS[flow](settings.model_copy(update={"engine": "local"}), *more)


@contextmanager
def prefect(out: Path, with_ray: bool = True) -> Iterator[None]:
    """The configured Prefect API, or one started for the run, which may need a Ray too."""
    from medaction.flows.prefect_server import end_loops, prefect_api
    from medaction.flows.progress import console

    require_servers(with_ray)
    make_folder(out)
    # Prefect's handler would write to stderr for every log line that a lost server did not take.
    logging.raiseExceptions = False
    with ExitStack() as services:
        # Registered first, so that it comes last: after the server has ended.
        services.callback(end_loops)
        with console.status("starting Prefect"):
            url, password = services.enter_context(prefect_api(out / "prefect"))
        page = url.removesuffix("/api")
        console.print(
            f"Prefect UI while this runs: {page}" + f" (password {password})" * bool(password),
            highlight=False,
        )
        yield


def readable(error: Exception, settings: type[BaseModel]) -> str:
    """A validation error of the settings in the words of the command line."""
    if not isinstance(error, ValidationError):
        return str(error)
    lines = []
    for problem in error.errors():
        # Numbers in a place (the second teacher) have no word on the command line.
        option, *fields = [part for part in problem["loc"] if isinstance(part, str)] or [""]
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "string_pattern_mismatch":
            # Not repeated: it may be a key that was typed where its variable's name belongs.
            message = "it has not the form that its help shows"
        if problem["type"] == "extra_forbidden":
            unknown = fields.pop() if fields else option
            option = option if option != unknown else ""
            message = f"there is no setting {unknown!r}{_suggestion(unknown, settings)}"
        name = ".".join([WORDS.get(option, option).replace("_", "-"), *fields])
        lines.append(f"--{name}: {message}" if option else message)
    return "; ".join(lines)


def _suggestion(unknown: str, settings: type[BaseModel]) -> str:
    """The setting, of these or of what stands in them, that a misspelt name may mean."""
    schema = settings.model_json_schema()
    # At another level than its own, as 'cases' in the settings of a whole experiment.
    for name, field in schema["properties"].items():
        inner = schema.get("$defs", {}).get(field.get("$ref", "").rpartition("/")[2], {})
        if unknown in inner.get("properties", ()):
            return f": it is one of {name!r}"
    models = [schema, *schema.get("$defs", {}).values()]
    # The schema has the nested models too: a teacher's fields, say.
    known = sorted({name for model in models for name in model.get("properties", ())} - {unknown})
    nearest = get_close_matches(unknown, known, n=1, cutoff=0.75)  # 'judges' is no 'budget_usd'
    return f": is {nearest[0]!r} meant?" if nearest else ""
