"""The command line answers help at once: a command's module is imported when it is called."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from medaction.cli.main import (
    COMMANDS,
    ENVS,
    KG,
    OLD_WORDS,
    Commands,
    envs,
    in_present_words,
    kg,
    main,
    medaction,
)
from medaction.flows import progress as progress_of_stages
from medaction.flows.progress import Progress, console
from tests.conftest import SAMPLES

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


@pytest.mark.parametrize("words", [[], ["envs"], ["kg"]])
def test_a_group_alone_says_which_commands_it_has_and_that_nothing_was_done(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(words)
    assert ending.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Usage: medaction")
    assert "Commands:" in lines


@pytest.mark.parametrize("words", [[], ["envs"], ["kg"], *([name] for name in COMMANDS)])
def test_help_fits_a_terminal_of_80_columns_and_cuts_nothing(words: list[str]) -> None:
    result = CliRunner().invoke(medaction, [*words, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    if not words:
        flat = " ".join(result.output.split())
        assert all(" ".join(line.split()) in flat for _, line in COMMANDS.values())


def test_an_earlier_word_works_for_one_version_and_says_what_it_is_now(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert in_present_words(["evaluate", "c", "--runs=2"]) == ["evaluate", "c", "--rollouts=2"]
    assert "--runs is now --rollouts" in capsys.readouterr().err
    assert in_present_words(["distill", "--cases", "c"]) == ["distill", "--cases", "c"]
    assert not capsys.readouterr().err
    for (name, old), present in OLD_WORDS.items():
        command = medaction.get_command(click.Context(medaction), name)
        assert command
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert present in flags
        assert old not in flags


@pytest.mark.long
def test_programs_get_json_and_the_quiet_get_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("PREFECT_API_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(console, "quiet", False)
    cases, out = tmp_path / "cases", tmp_path / "out"
    cases.mkdir()
    shutil.copy(SAMPLES / "medaction-03.json", cases)
    (cases / "export.json").write_text("{}")
    words = ["distill", "--cases", str(cases), "--out", str(out), "--teacher", "kg-targeted"]
    main([*words, "--dry-run", "--json"])
    plan = json.loads(capsys.readouterr().out)
    assert plan == {"cases": 1, "files_that_cannot_be_read": 1, "rollouts": 4}
    assert not list(out.glob("*")), "nothing was begun"

    main([*words, "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert {row["step"].strip(): row["count"] for row in summary["funnel"]}[
        "trajectories played"
    ] == plan["rollouts"]

    main([*words, "--quiet"])
    shown = capsys.readouterr()
    assert "━" not in shown.out + shown.err, "neither a table nor a bar"
    assert f"medaction view --out {out}" in shown.out.replace("\n", "")

    scored = ["evaluate", str(cases), "--model", "kg-targeted", "--out", str(tmp_path / "eval")]
    main([*scored, "--rollouts", "1", "--json"])
    shown = capsys.readouterr()
    assert json.loads(shown.out)["cases"]["environments"] == 1
    assert "medaction view" in shown.err


INTERRUPTED_IMPORT = """
import sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == "medaction.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from medaction.__main__ import main
main()
"""


def test_ctrl_c_while_the_command_is_still_being_imported_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "medaction: interrupted\n")


def test_what_waits_for_ever_at_the_end_does_not_hold_a_command_up() -> None:
    """As Prefect does for a server that is gone, in a callback of the threads' end."""
    code = (
        "import threading, medaction.cli.main as cli\n"
        "threading._register_atexit(threading.Event().wait)\n"
        "cli.LAST_WORDS_S = 0.5\n"
        "cli.main(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_log_has_a_line_a_minute_where_nobody_sees_a_bar_move(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 25))
    monkeypatch.setattr(progress_of_stages.time, "monotonic", lambda: float(next(clock)))
    with Progress("rollouts", 8) as progress:
        for case in range(8):
            progress.advance(failed=case == 1)
    lines = [line for line in capsys.readouterr().err.splitlines() if "after" in line]
    assert 2 <= len(lines) < 8
    assert re.fullmatch(r"rollouts: \d of 8 cases, 1 with failures, after \d+ min", lines[-1])
