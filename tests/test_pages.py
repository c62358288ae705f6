"""Every command line of README and docs: its options exist and its values parse, and what needs no
cluster, GPU, hub or model of others is run on what the product itself wrote."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from medaction.cli.main import main, medaction
from tests.conftest import REPOSITORY, SAMPLES

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PLACEHOLDER = re.compile(r"\.\.\.|…|[A-Z_]{2,}(\.\.\.)?|@?[A-Z]+(/[A-Za-z._]+)*")
"""A word that the reader replaces, such as MODEL or OUT/cases."""


def commands_of(page: Path) -> Iterator[str]:
    """Whatever a page shows as a `medaction` command: in blocks, and between backticks."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^ {4}(\S.*)$", text, re.M)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub("```", "", text))]
    for line in lines:
        command = re.split(r"#| > ", line)[0].strip().removeprefix(".venv/bin/").removeprefix("$ ")
        if re.match(r"medaction [a-z]", command):
            yield command


COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})


def lines_of(page: Path) -> list[str]:
    """The commands of a page's indented blocks, in their order."""
    lines = [line.strip() for line in page.read_text().splitlines() if line.startswith("    ")]
    return [line for line in lines if line.startswith("medaction ")]


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words after its name."""
    command: click.Command = medaction
    while isinstance(command, click.Group) and words:
        below = command.get_command(click.Context(command), words[0])
        assert below, f"there is no command {words[0]}"
        command, words = below, words[1:]
    return command, words


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_pages_parses(line: str) -> None:
    command, words = resolve(shlex.split(line)[1:])
    pairs = zip(words, ["", *words], strict=False)  # dots after an option stand for its value
    words = [word for word, before in pairs if word != "..." or before.startswith("--")]
    context = click.Context(command)
    values, arguments, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.params:
        value = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice) and value:
            for choice in value if isinstance(value, list) else [value]:
                if not PLACEHOLDER.fullmatch(choice):
                    parameter.type.convert(choice, parameter, context)
    if words and not any(word.endswith("...") for word in words):
        positional = [name for name in command.params if isinstance(name, click.Argument)]
        assert positional or not arguments


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) > 40


RUN = [
    "medaction envs build --cases my_reports/ --out runs/mine",
    "medaction envs check --out runs/mine",
    "medaction envs plot --out runs/mine",
    "medaction distill --preset demo",
    "medaction view --out runs/demo --export runs/demo.html",
    "medaction retry --out runs/demo",
    "medaction export --out runs/demo --push OWNER/NAME",
    "medaction evaluate medrbench/diagnosis_cases.json --model kg-screening --out runs/eval-kg",
    "medaction compare runs/eval-kg --published",
    "medaction analyse runs/demo --out runs/figures",
    "medaction contamination runs/demo medrbench/diagnosis_cases.json --out runs/check",
    "medaction kg calibrate runs/demo --dry-run",
    "medaction doctor --preset demo",
]
"""What the pages show, in the order in which a reader comes to it, run here. Two lines name the
demo's folder where the page names the reader's; the demo plays two cases instead of twelve."""


def status_of(words: list[str]) -> object:
    """The exit status of a command run in this process."""
    try:
        main(words)
    except SystemExit as ending:
        return ending.code or 0
    return 0


@pytest.mark.long
def test_the_commands_of_the_pages_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one folder, one after the other, in this process: none needs a server."""
    for variable in ("PREFECT_API_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MEDACTION_CALL_CACHE", str(tmp_path / "calls"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.chdir(tmp_path)
    for folder in ("my_reports", "examples/cases", "medrbench"):
        Path(folder).mkdir(parents=True)
    for number in ("01", "03"):
        shutil.copy(SAMPLES / f"medaction-{number}.json", "my_reports")
        shutil.copy(SAMPLES / f"medaction-{number}.json", "examples/cases")
    shutil.copy(SAMPLES / "medaction-05.json", "medrbench/diagnosis_cases.json")
    for line in RUN:
        assert status_of(shlex.split(line)[1:]) == 0, f"{line}\n{capsys.readouterr()}"
    html = Path("runs/demo.html").read_text()
    assert 'id="case-' in html, "the exported file holds cases"
