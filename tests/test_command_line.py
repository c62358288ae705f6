"""The command line answers help at once: a command's module is imported when it is called."""

import subprocess
import sys

import click
import pytest

from medaction.cli.main import COMMANDS, ENVS, KG, Commands, envs, kg, medaction

COSTLY = {"prefect", "ray", "duckdb", "polars", "numpy", "yaml", "jinja2", "torch", "litellm"}
"""Each takes 30 to 1,600 ms of CPU to import; help has 400."""

LINES = """
import sys
from medaction.cli.main import medaction
for words in {words!r}:
    medaction.main([*words, "--help"], prog_name="medaction", standalone_mode=False)
print(sorted({costly!r} & sys.modules.keys()), file=sys.stderr)
"""


def test_no_help_imports_what_only_a_run_needs() -> None:
    words: list[list[str]] = [[], ["envs"], ["kg"]]
    words += [[name] for name in COMMANDS]
    words += [["envs", name] for name in ENVS] + [["kg", name] for name in KG]
    script = LINES.format(words=words, costly=COSTLY)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == "[]"
    assert "--rac-threshold" in result.stdout


@pytest.mark.parametrize(
    ("group", "table"), [(medaction, COMMANDS), (envs, ENVS), (kg, KG)], ids=["", "envs", "kg"]
)
def test_the_help_of_a_group_lists_commands_that_are_there(
    group: click.Group, table: Commands
) -> None:
    context = click.Context(group)
    for name in table:
        command = group.get_command(context, name)
        assert command is not None
        assert command.help
        assert command.name == name
    assert group.get_command(context, "no-such-command") is None
