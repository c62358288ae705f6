"""Pages of the docs site that are made from the code when the site is built: every command with its
options, every setting, and what `import medaction` offers."""

import inspect
from collections.abc import Iterator
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

import medaction
from medaction.cli.main import medaction as program
from medaction.flows.settings import DistillSettings, EvaluationSettings
from medaction.training.settings import TrainSettings

SETTINGS: dict[str, type[BaseModel]] = {
    "distill": DistillSettings,
    "evaluate": EvaluationSettings,
    "train": TrainSettings,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that are written by hand."""
    pages = {
        "options": "# Options of the commands\n\n" + "\n".join(options("medaction", program)),
        "settings": "# Settings\n\nA preset is a YAML file of these.\n\n" + "\n".join(settings()),
        "python": "# From Python\n\n" + "\n".join(names()),
    }
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def options(path: str, command: click.Command) -> Iterator[str]:
    """A section a command, with its options as a table."""
    context = click.Context(command, info_name=path, show_default=True)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below
            yield from options(f"{path} {name}", below)
        return
    arguments = [part for part in command.collect_usage_pieces(context) if part != "[OPTIONS]"]
    yield f"## {path}\n\n    {' '.join([path, *arguments])}\n\n{cell(command.help or '')}\n"
    yield "| option | is |\n|---|---|"
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record:
            yield f"| `{cell(record[0])}` | {cell(record[1])} |"
    yield ""


def settings() -> Iterator[str]:
    """A section a command, with the fields of its settings."""
    for command, kind in SETTINGS.items():
        yield f"## {command}\n\n{cell(kind.__doc__ or '')}\n"
        yield "| setting | default | is |\n|---|---|---|"
        for name, field in kind.model_fields.items():
            default = "" if field.is_required() else f"`{cell(str(field.get_default()))}`"
            yield f"| `{name}` | {default} | {cell(field.description or '')} |"
        yield ""


def names() -> Iterator[str]:
    """A section a public name, with its signature and docstring."""
    for name in sorted(medaction._HOME):
        thing: Any = getattr(medaction, name)
        try:
            signature = str(inspect.signature(thing))
        except (TypeError, ValueError):
            signature = ""
        text = inspect.getdoc(thing) or ""
        yield f"## {name}\n\n```python\nmedaction.{name}{signature}\n```\n\n```text\n{text}\n```\n"


def cell(text: str) -> str:
    """Text in a table's cell: in one line, and nothing of it markup."""
    line = " ".join(text.replace("\b", "").split())
    return line.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
