"""The command line: `medaction distill`, `retry`, `export`. The options of `distill` are the fields of the settings model.

Prefect and Ray are imported by what runs them, so that help and wrong usage are answered at once."""

import logging
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from envs.records import BadCase
from flows.settings import DistillSettings, load_preset
from trajectories.store import Store, StoreError

# Lists are given one by one: --teacher A --teacher B.
ONE_BY_ONE = {"teachers": "teacher", "only": "case"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `medaction`. Errors that a user can mend are one line on stderr and exit status 1; bad usage is 2."""
    logging.getLogger("medaction").addHandler(logging.StreamHandler())
    try:
        medaction.main(arguments, prog_name="medaction", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (StoreError, BadCase, RuntimeError) as error:
        click.echo(f"medaction: {error}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("medaction: interrupted; what had finished is stored, the same command goes on from there", err=True)
        sys.exit(130)


@click.group()
@click.version_option(package_name="medaction")
def medaction() -> None:
    """From case reports to multi-turn diagnostic training data."""


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for every field of DistillSettings, so that the command line can do what the form and the preset can."""
    for name, field in reversed(DistillSettings.model_fields.items()):
        command = _option(name, field)(command)
    return command


def _option(name: str, field: FieldInfo) -> Callable[[Callable[..., None]], Callable[..., None]]:
    flag = f"--{ONE_BY_ONE.get(name, name).replace('_', '-')}"
    default = "" if field.is_required() or field.default in (None, []) else f"  [default: {field.default}]"
    return click.option(
        flag, name, type=_click_type(field.annotation), multiple=name in ONE_BY_ONE, default=None,
        help=f"{field.description}{default}".replace("\b", ""),
    )  # fmt: skip


def _click_type(annotation: Any) -> click.ParamType:
    """int, float, path and choice as click knows them; anything else is text that the settings model reads."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not types.NoneType)
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    known: dict[Any, click.ParamType] = {int: click.INT, float: click.FLOAT, Path: click.Path(path_type=Path)}
    return known.get(annotation, click.STRING)


@medaction.command()
@click.option("--preset", help="Start from a preset: demo, paper, or the path of a YAML file; options override it.")
@_settings_options
def distill(preset: str | None, **options: Any) -> None:
    """Build environments, play trees, prune, and write the dataset. A rerun does only what is missing."""
    given = {
        name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value not in (None, ())
    }
    try:
        settings = DistillSettings.model_validate((load_preset(preset) if preset else {}) | given)
    except (ValidationError, ValueError) as error:
        raise click.UsageError(_readable(error)) from error
    _run(settings)


@medaction.command()
@click.option("--out", type=click.Path(path_type=Path, exists=True), required=True, help="The folder of the run.")
@click.option("--case", "cases", multiple=True, help="Only the failures of these cases.")
def retry(out: Path, cases: tuple[str, ...]) -> None:
    """Run again what failed, all or by case, with the settings of the run; nothing else is touched."""
    with Store(out / "trajectories.duckdb") as store:
        settings = DistillSettings.model_validate_json(store.last_settings())
        failed = {case for stage in ("environment", "rollout") for case, _ in store.open_failures(stage)}
    unknown = sorted(set(cases) - failed)
    if unknown:
        raise click.UsageError(f"no open failure of {', '.join(unknown)}; there are: {', '.join(sorted(failed)) or 'none'}")
    if not failed:
        click.echo("nothing to retry: no failure is open")
        return
    _run(settings.model_copy(update={"out": out, "only": sorted(cases or failed), "limit": None}), retry=True)


@medaction.command()
@click.option("--out", type=click.Path(path_type=Path, exists=True), required=True, help="The folder of the run.")
def export(out: Path) -> None:
    """Write the dataset of a run again from its store."""
    from flows.dataset import write_dataset

    with Store(out / "trajectories.duckdb") as store:
        settings = DistillSettings.model_validate_json(store.last_settings()).model_copy(update={"out": out})
        click.echo(f"{write_dataset(store, settings)} records in {out / 'dataset'}")


def _run(settings: DistillSettings, retry: bool = False) -> None:
    """Run the flow against the configured Prefect API, or one started for it, and print the summary."""
    from flows.distill import distill as flow
    from flows.progress import console
    from flows.services import prefect_api
    from flows.summary import print_summary

    settings.out.mkdir(parents=True, exist_ok=True)
    with console.status("starting Prefect"), prefect_api(settings.out / "prefect") as url:
        console.print(f"Prefect UI while this runs: {url.removesuffix('/api')}")
        print_summary(flow(settings, retry))


def _readable(error: Exception) -> str:
    """A validation error in the words of the command line."""
    if not isinstance(error, ValidationError):
        return str(error)
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        name = ONE_BY_ONE.get(where.split(".")[0], where).replace("_", "-")
        lines.append(f"--{name}: {problem['msg'].removeprefix('Value error, ')}" if where else problem["msg"])
    return "\n".join(lines)


if __name__ == "__main__":
    main()
