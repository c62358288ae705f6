"""The mistakes of a first hour: each ends with one line that names it, a status, and no traceback.

The statuses are those of docs/commands.md: 1 nothing came out or only a part, 2 wrong use, 130
interrupted. Mistakes that need a run under way are in tests/test_mistakes_of_runs.py.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from medaction.cli.main import ending_of, main
from medaction.envs.build import build_environment
from medaction.envs.records import BadCase, CaseReport
from medaction.envs.sources import read_cases
from medaction.trajectories.store import Store
from medaction.trajectories.table_rows import BuiltCase
from medaction.words.errors import MedactionError
from tests.conftest import SAMPLES

DISTILL = "distill --cases {samples} --out o --teacher kg-targeted"
EVALUATE = "evaluate {samples} --out o --model kg-targeted"


@dataclass(frozen=True)
class Mistake:
    """A command line, its status, and words of the line that names the mistake."""

    arguments: str
    status: int
    words: str


MISTAKES = [
    Mistake("nosuch", 2, "No such command 'nosuch'"),
    Mistake("distill --nosuch", 2, "No such option '--nosuch'"),
    Mistake("distill", 2, "--cases: Field required; --out: Field required; --teacher"),
    Mistake("distill --preset nosuch", 2, "no preset 'nosuch': there are demo, paper"),
    Mistake("distill --preset broken.yaml", 2, "broken.yaml is no YAML"),
    Mistake("distill --preset bytes.yaml", 2, "bytes.yaml is no YAML"),
    Mistake("distill --preset list.yaml", 2, "a preset is a mapping"),
    Mistake("distill --preset unknown.yaml", 2, "colour"),
    Mistake("distill --cases {samples} --teacher kg-targeted --out afile", 2, "is a file"),
    Mistake("distill --cases {samples} --teacher kg-targeted --out /proc/x", 2, "--out /proc/x"),
    Mistake("distill --cases {samples} --teacher kg-targeted --out afile/o", 2, "afile/o"),
    Mistake(f"{DISTILL} --links nolinks.csv", 2, "--links: there is nothing at nolinks.csv"),
    Mistake(f"{DISTILL} --maxo nomaxo", 2, "--maxo: there is nothing at nomaxo"),
    Mistake(f"{DISTILL} --disease-graph nograph.csv", 2, "no graph 'nograph.csv'"),
    Mistake(f"{DISTILL} --test-graph afile", 1, "afile:1: the columns"),
    Mistake(f"{DISTILL} --teacher nosuch", 2, "unknown teacher 'nosuch'"),
    Mistake(f"{DISTILL} --teacher openai/x", 1, "OPENAI_API_KEY is not set"),
    Mistake(f"{DISTILL} --teacher local:no.gguf", 2, "there is no file no.gguf"),
    Mistake(f"{DISTILL} --teacher local", 2, "Give a file, local:/path/to/model.gguf, or a server"),
    Mistake(f"{DISTILL} --teacher kg-targeted", 2, "two teachers have the same name"),
    Mistake(f"{DISTILL} --gold kg-targeted", 2, "is no language model"),
    Mistake(f"{DISTILL} --rollouts 0", 2, "--rollouts"),
    Mistake(f"{DISTILL} --rollouts many", 2, "'many' is not a valid integer"),
    Mistake(f"{DISTILL} --strategy best", 2, "'best' is not one of"),
    Mistake(f"{DISTILL} --case nosuch", 2, "--case: {samples} holds no nosuch"),
    Mistake(f"{DISTILL} --case @nofile", 2, "there is no file nofile with case ids"),
    Mistake("distill --cases nosuch --teacher kg-targeted --out o", 2, "nothing at nosuch"),
    Mistake("distill --cases empty --teacher kg-targeted --out o", 2, "empty holds no .xml"),
    Mistake("distill --cases {samples} --teacher kg-targeted --out http://h/o", 2, "web address"),
    Mistake("distill --cases http://h/c.json --teacher kg-targeted --out o", 2, "web address"),
    Mistake("distill --cases run --teacher kg-targeted --out run", 2, "a folder of its own"),
    Mistake("distill --cases dangling.json --teacher kg-targeted --out o", 2, "nothing at dangl"),
    Mistake("distill --preset misspelt.yaml", 2, "misspelt.yaml: there is no setting 'rollout'"),
    Mistake("distill --preset misspelt.yaml", 2, "is 'rollouts' meant?"),
    Mistake("distill --preset void.yaml", 2, "void.yaml: a preset is a mapping"),
    Mistake(f"{DISTILL} --teacher openai/m;structred=none", 2, "is 'structured' meant?"),
    Mistake(f"{DISTILL} --teacher openai/m;temperature=hot", 2, "--teacher.temperature: "),
    Mistake(f"{DISTILL} --teacher openai/m@127.0.0.1:9", 2, "begins with http://"),
    Mistake(f"{DISTILL} --teacher openai/m@localhost", 2, "begins with http://"),
    Mistake(f"{DISTILL} --teacher openai/m;api_key_env=sk-1", 2, "api_key_env: it has not the"),
    Mistake("train --data d --out o --push a/b/c", 2, "--push: it has not the form that its help"),
    Mistake(f"{DISTILL} --rollouts -3", 2, "greater than or equal to 1"),
    Mistake("envs lint --cases empty", 2, "empty holds no .xml"),
    Mistake("envs lint --cases nosuch", 2, "nothing at nosuch"),
    Mistake("envs build --cases zero.json --out o", 2, "zero.json: Expecting value"),
    Mistake("view run", 2, "Missing option '--out'"),
    Mistake("view --out nosuch", 2, "'nosuch' does not exist"),
    Mistake("view --out empty", 2, "empty is not the folder of a run"),
    Mistake("view --out afile", 2, "'afile' is a file"),
    Mistake("view --out notaduck", 1, "cannot be opened as a DuckDB file"),
    Mistake("view --out torn", 1, "torn/snapshot.duckdb cannot be opened as a DuckDB file: `"),
    Mistake("view --out torn(2)", 1, "`medaction doctor --out 'torn(2)' --repair`"),
    Mistake("view --out run --export no/where.html", 2, "there is no folder no"),
    Mistake("view --out run --export x.html --case nosuch", 2, "run has no case"),
    Mistake("view --out run --port 99999", 2, "99999 is not in the range"),
    Mistake("envs check --out empty", 2, "empty is not the folder of a run"),
    Mistake("envs plot --out empty", 2, "empty is not the folder of a run"),
    Mistake("envs build --cases nosuch --out o", 2, "nothing at nosuch"),
    Mistake("retry --out empty", 2, "empty is not the folder of a run"),
    Mistake("retry --out run --stage dreams", 2, "'dreams' is not one of"),
    Mistake("export --out empty", 2, "empty is not the folder of a run"),
    Mistake("export --out run --push noslash", 2, "'noslash' is not of the form OWNER/NAME"),
    Mistake("export --out run --push /name", 2, "'/name' is not of the form OWNER/NAME"),
    Mistake("export --out run", 1, "has no run yet"),
    Mistake("evaluate", 2, "--cases: Field required"),
    Mistake("evaluate nosuch --model kg-targeted --out o", 2, "nothing at nosuch"),
    Mistake(f"{EVALUATE} --protocol mine", 2, "'mine' is not one of"),
    Mistake(f"{EVALUATE} --mode one-turn --t-max 5", 2, "one-turn mode has two messages"),
    Mistake(f"{EVALUATE} --judge offline --judge offline", 2, "a judge is named twice"),
    Mistake(f"{EVALUATE} --judge nosuch", 2, "--judge.model: unknown teacher 'nosuch'"),
    Mistake(f"{EVALUATE} --judge kg-targeted", 2, "--judge: kg-targeted is no language model"),
    Mistake("distill --preset twice.yaml", 2, "twice.yaml: 'seed' stands twice"),
    Mistake("experiment --preset outer.yaml", 2, "no setting 'cases': it is one of 'distill'"),
    Mistake("compare empty", 2, "there is no such result"),
    Mistake("compare afile", 2, "not a JSON file"),
    Mistake("compare nosuch", 2, "'nosuch' does not exist"),
    Mistake("analyse empty --out o", 2, "empty is not the folder of a run"),
    Mistake("analyse run --out o --judge nosuch", 2, "unknown teacher 'nosuch'"),
    Mistake("contamination nosuch --out o", 2, "nothing at nosuch"),
    Mistake("contamination {samples} {samples} --out o", 2, "AGAINST: {samples} is CASES"),
    Mistake("contamination {samples} nosuch --out o", 2, "AGAINST: there is nothing at nosuch"),
    Mistake("contamination {samples} --out afile", 2, "is a file"),
    Mistake("hard-set empty --out o", 2, "empty is not the folder of a run"),
    Mistake("kg build nosuch", 2, "'nosuch' does not exist"),
    Mistake("kg build afile", 1, "afile:1: the columns"),
    Mistake("kg info nosuch", 2, "no graph 'nosuch'"),
    Mistake("kg calibrate empty", 2, "empty is not the folder of a run"),
    Mistake("doctor --preset nosuch", 2, "no preset 'nosuch'"),
    Mistake("pipeline --preset nosuch", 2, "no preset 'nosuch': there are paper, tiny"),
    Mistake("pipeline --preset broken.yaml", 2, "broken.yaml is no YAML"),
    Mistake("pipeline --preset flat.yaml --cases c", 2, "--distill: Input should be"),
    Mistake(f"{EVALUATE} --judge openai/x", 1, "OPENAI_API_KEY is not set"),
    Mistake("analyse run --out o --judge kg-targeted", 2, "--judge: kg-targeted is no language"),
    Mistake("export --out run --really", 2, "--really sends what --push names"),
    Mistake("view --out run --case medaction-01", 2, "give --export too"),
    Mistake("view --out run --export x.html --against run", 2, "leave out --against"),
    Mistake("view --out run --against run", 2, "run is no evaluation"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are none of what they are taken for, and a store with one environment."""
    place = tmp_path_factory.mktemp("mistakes")
    (place / "afile").write_text("hello\n")
    (place / "empty").mkdir()
    (place / "notaduck").mkdir()
    (place / "notaduck" / "trajectories.duckdb").write_text("no duck")
    (place / "broken.yaml").write_text("cases: [\n  a: b")
    (place / "bytes.yaml").write_bytes(b"cases: \xff\xfe")
    (place / "list.yaml").write_text("- a")
    (place / "unknown.yaml").write_text("cases: c\nout: o\nteachers: [kg-targeted]\ncolour: red\n")
    (place / "misspelt.yaml").write_text("cases: c\nout: o\nteachers: [kg-targeted]\nrollout: 2\n")
    (place / "flat.yaml").write_text("out: o\ndistill: demo\nevaluate:\n")
    (place / "twice.yaml").write_text("cases: c\nseed: 1\nseed: 2\n")
    (place / "outer.yaml").write_text("cases: c\nout: o\n")
    (place / "void.yaml").touch()
    (place / "zero.json").touch()
    (place / "dangling.json").symlink_to("/nowhere.json")
    report = next(read_cases(str(SAMPLES / "medaction-01.json")))
    assert isinstance(report, CaseReport)
    with Store(place / "run" / "trajectories.duckdb") as store:
        store.add_built_cases([BuiltCase(report, build_environment(report))], "settings", "run")
        store.publish()
    shutil.copytree(place / "run", place / "torn")
    (place / "torn" / "snapshot.duckdb").write_text("no duck")
    shutil.copytree(place / "torn", place / "torn(2)")
    return place


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.arguments)
def test_a_mistake_is_one_line_and_a_status(
    mistake: Mistake,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    for variable in ("OPENAI_API_KEY", "PREFECT_API_URL", "PREFECT_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    before = sorted(path for path in folder.rglob("*") if path.parent.name == "empty")
    with pytest.raises(SystemExit) as ending:
        main(mistake.arguments.format(samples=SAMPLES).split())
    lines = capsys.readouterr().err.splitlines()
    assert ending.value.code == mistake.status, lines
    assert len(lines) == 1
    assert mistake.words.format(samples=SAMPLES) in lines[0]
    assert sorted(path for path in folder.rglob("*") if path.parent.name == "empty") == before


def test_python_runs_the_package_as_the_command_runs() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "medaction", "view", "--out", "/nowhere"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("empty", ["--cases", "--out"])
def test_a_variable_that_is_not_set_does_not_mean_this_folder(
    empty: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    values = {"--cases": str(SAMPLES), "--out": "o", "--teacher": "kg-targeted"} | {empty: ""}
    with pytest.raises(SystemExit) as ending:
        main(["distill", "--dry-run", *(word for pair in values.items() for word in pair)])
    assert ending.value.code == 2
    assert empty in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    ["envs lint --cases=", "serve-env --cases=", "contamination @ --out o",
     "contamination {samples} @ --out o", "contamination {samples} --out=", "analyse run --out=",
     "kg calibrate run --out=", "down --home=", "train --data= --out o", "distill --links=",
     "hard-set run --out o --against="],
)  # fmt: skip
def test_no_command_takes_an_empty_path_for_this_folder(
    arguments: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    words = arguments.format(samples=SAMPLES).split()
    with pytest.raises(SystemExit) as ending:
        main([word.replace("@", "") for word in words])
    assert ending.value.code == 2
    assert "it is empty" in capsys.readouterr().err


def test_a_shell_that_has_closed_the_output_gets_no_traceback(folder: Path) -> None:
    command = f"{sys.executable} -m medaction envs check --out run >&-"
    process = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    assert ending_of(KeyError("x")) is None
    assert ending_of(click.Abort()) == ending_of(KeyboardInterrupt())
    assert ending_of(BadCase("no_cases", "nothing there")) == ("no_cases: nothing there", 1)


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    """Every class of the tree stands in the drawing, below its parent."""
    import medaction.kg.loaders
    import medaction.kg.packages
    import medaction.llm.calls
    import medaction.training.settings
    import medaction.words.errors as errors

    parents: list[str] = []
    drawn = set()
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│ ├└─]*)([A-Z]\w+) ", line):
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            drawn.add(tuple(parents[-2:]))

    def classes(error: type) -> set[tuple[str, ...]]:
        below = [kind for kind in error.__subclasses__() if kind.__module__.startswith("medaction")]
        return {(error.__name__, kind.__name__) for kind in below}.union(*map(classes, below))

    assert drawn == classes(MedactionError) | {("MedactionError",)}
    assert os.path.exists(medaction.kg.packages.__file__)
