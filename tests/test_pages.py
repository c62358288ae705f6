"""Every command line of README and docs: its options exist and its values parse, and it is run on
what the product itself wrote, a server on loopback standing in for the models of others. What is
not run stands in NOT_RUN with the reason."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import polars as pl
import pytest
from starlette.testclient import TestClient

from medaction.cli.main import main, medaction
from medaction.trajectories.store import publish_if_missing
from medaction.trajectories.viewer.app import app_of
from tests.conftest import REPOSITORY, SAMPLES
from tests.openai_server import openai_server
from tests.simulated_teacher import cases_in
from tests.stand_in import DISCHARGE_LETTER, stand_in

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


NOT_RUN = {
    "train": "trains for minutes, with torch: tests/test_training_run.py",
    "pipeline": "trains: tests/test_pipeline.py",
    "experiment": "trains: tests/test_experiment.py",
    "redistill": "wants a preset of the reader's: tests/test_redistill.py",
    "ablate": "trains: tests/test_pipeline.py",
    "serve": "serves until it is interrupted: tests/test_training_serving.py",
    "serve-env": "serves until it is interrupted: tests/test_hub_openenv.py",
    "up": "a Prefect server with its worker: tests/test_service.py",
    "down": "ends what `up` started: tests/test_service.py",
    "kg build": "PrimeKG and ClinGraph are not ours to hold: tests/test_kg_loaders.py",
    "kg info": "the same",
    "hard-set": "wants a pool of hundreds of rare cases: tests/test_contamination.py",
    "rubrics": "wants HealthBench's file: tests/test_rubrics.py",
    "evaluate hard/cases": "plays that set",
    "distill --estimate": "the end of a line",
    "distill --pair-branches N": "the end of a line",
    "distill --cases CASES --case @IDS": "begins a training of hours: tests/test_preferences.py",
    "evaluate CASES --model local:OUT": "wants a training under way: test_training_serving.py",
    "distill --cases pmc:": "asks PubMed Central: tests/test_envs_pmc.py",
    "distill --cases oa_comm_xml": "a package of gigabytes: tests/test_envs_sources.py",
    "distill --cases packets/": "phenopackets: tests/test_envs_sources_more.py",
}
"""The beginning of a page's line -> why it is parsed only, and where what it does is tested."""

IN_ORDER = (
    *("envs", "distill", "retry", "evaluate", "compare", "analyse", "contamination", "kg"),
    *("labels", "export", "view", "doctor"),
)
"""The commands as a reader comes to them: what one writes, a later one reads."""

READERS_WORDS = {
    "WHERE": "my_reports/",
    "clean/": "my_reports/",
    "RUN": "runs/demo",
    "FOLDER": "runs/figures",
    "FILE": "demo",
    "MODEL": "openai/MODEL",
    "runs/other": "runs/eval-kg",
    "runs/pool": "runs/mine",
}
"""What a page leaves to its reader -> what is written there."""

ADDED = {"kg calibrate RUN": "--dry-run"}
"""A line that would change the graphs of this machine -> what keeps it from that."""


def is_run(line: str) -> bool:
    """Whether a page's line is complete, and not in NOT_RUN."""
    words = line.removeprefix("medaction ")
    _, arguments = resolve(words.split())
    complete = "..." not in line and (arguments or words == "doctor")
    return bool(complete) and not words.startswith(tuple(NOT_RUN))


LINES = [line for name in IN_ORDER for line in COMMANDS if line.split()[1] == name and is_run(line)]


def as_run(line: str, url: str) -> list[str]:
    """The words of a line with what its reader would write, every model of others at `url`."""
    words = shlex.split(f"{line} {ADDED.get(line.removeprefix('medaction '), '')}")[1:]
    words = [READERS_WORDS.get(word, word) for word in words]
    return [re.sub(r"^(openai|ollama_chat)/([^@]+)(@.*)?$", rf"openai/\2@{url}", w) for w in words]


def status_of(words: list[str]) -> object:
    """The exit status of a command run in this process."""
    try:
        main(words)
    except SystemExit as ending:
        return ending.code or 0
    return 0


def look(words: list[str]) -> int:
    """The status of the first page that `medaction view` would serve until it is interrupted."""
    out = Path(words[words.index("--out") + 1])
    against = Path(words[words.index("--against") + 1]) if "--against" in words else None
    for folder in filter(None, (out, against)):
        publish_if_missing(folder)
    return TestClient(app_of(out, against)).get("/comparison" if against else "/").status_code


def reject(out: Path) -> None:
    """Reject the first record of the dataset, as a clinician does in the viewer."""
    record = pl.read_parquet(out / "dataset" / "train.parquet").row(0, named=True)
    form = {name: record[name] for name in ("case_id", "trajectory_id")}
    form |= {"kind": "turn", "number": str(record["turn"]), "opinion": "reject"}
    client = TestClient(app_of(out))
    origin = {"origin": "http://testserver"}
    assert client.post("/label", data=form, headers=origin, follow_redirects=False).is_redirect


def test_every_line_is_run_or_has_its_reason() -> None:
    assert len(LINES) > 35
    left = [line for line in COMMANDS if is_run(line) and line not in LINES]
    assert not left, "a new command belongs into IN_ORDER or NOT_RUN"
    unused = [
        start for start in NOT_RUN if not any(f"medaction {start}" in line for line in COMMANDS)
    ]
    assert not unused, "no page has such a line any more"


@pytest.mark.long
def test_the_lines_of_the_pages_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one folder, one after the other, in this process: the first hour and all that follows."""
    for variable in ("PREFECT_API_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MEDACTION_CALL_CACHE", str(tmp_path / "calls"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.chdir(tmp_path)
    for folder in ("examples/cases", "medrbench"):
        Path(folder).mkdir(parents=True)
    for number in ("01", "03"):
        shutil.copy(SAMPLES / f"medaction-{number}.json", "examples/cases")
    shutil.copy(SAMPLES / "medaction-05.json", "medrbench/diagnosis_cases.json")
    cases_in(Path("my_reports"), 2)
    Path("my_reports/Discharge letter.txt").write_text(DISCHARGE_LETTER)
    assert status_of(["distill", "--preset", "demo"]) == 0, "the demo is made by make"

    with openai_server(stand_in) as server:
        for line in LINES:
            words = as_run(line, server.url)
            if words[:1] == ["view"] and "--export" not in words:
                assert look(words) == 200, line
                continue
            if line == "medaction labels --out runs/mine":
                reject(Path("runs/mine"))
            status, shown = status_of(words), capsys.readouterr()
            assert status == 0, f"{line}\n{shown.out[-600:]}\n{shown.err[-600:]}"

    assert 'id="case-medaction-01"' in Path("demo.html").read_text()
    assert "medaction-01" not in Path("one.html").read_text(), "the file holds one case"
    newest = len(list(Path("runs/mine/datasets").glob("v*")))
    before, after = (
        pl.scan_parquet(f"runs/mine/datasets/v{number}/*.parquet").collect().height
        for number in (newest - 1, newest)
    )
    assert after == before - 1, "the turn that was rejected is no record any more"
