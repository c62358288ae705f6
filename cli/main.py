"""The command line. A command's module is imported when the command is called.

So help and wrong usage are answered at once: Prefect, Ray, DuckDB and polars take seconds to
import.
"""

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click

from medaction.flows.configured import prefect_silence
from medaction.words.errors import EngineLost, MedactionError

Commands = dict[str, tuple[str, str]]
"""A command's name -> the module of `cli/` that defines it, and its line in the group's help."""

ENVS: Commands = {
    "build": ("environments", "Build the environments of case reports and stop there."),
    "check": ("environments", "Print every check with its figures, and every refused case."),
    "plot": ("environments", "Draw body systems, disease types and tests."),
    "lint": ("environments", "Count what may name a person in case reports."),
}
KG: Commands = {
    "build": ("kg", "Read the graph at PATH and keep it in the cache."),
    "info": ("kg", "Show the graph of this name or path."),
    "calibrate": ("calibrate", "Propose a RAC threshold from the trajectories of a run."),
}
COMMANDS: Commands = {
    "distill": ("runs", "Build environments, play trees, prune, and write the dataset."),
    "retry": ("runs", "Run again what failed, with the settings of the run."),
    "export": ("runs", "Write the dataset of a run from its store."),
    "view": ("runs", "Look at a run in a browser, also while it runs."),
    "labels": ("labels", "Print what clinicians said of a run, and of its judges."),
    "envs": ("main", "Clinical environments: build, check, plot."),
    "kg": ("main", "Knowledge graphs: build, info, calibrate."),
    "evaluate": ("evaluate", "Play CASES with a model, judge what it did, and score it."),
    "compare": ("evaluate", "Put RESULTS side by side, with paired tests of their differences."),
    "rubrics": ("rubrics", "Score a model's replies by physicians' criteria (HealthBench)."),
    "analyse": ("analyse", "The paper's analyses of RUNS, and more, as tables and plots."),
    "contamination": ("sets", "Look for cases of CASES in the sets AGAINST."),
    "hard-set": ("sets", "Draw a hard set from POOL, folders of runs."),
    "train": ("train", "Fine-tune a base model on datasets."),
    "serve": ("train", "Serve MODEL until interrupted."),
    "serve-env": ("hub", "Serve episodes to reinforcement learners (OpenEnv)."),
    "pipeline": ("pipeline", "Distil, train and evaluate."),
    "redistill": ("pipeline", "Distil what is new, and train the last model on."),
    "ablate": ("pipeline", "Run the paper's ablations."),
    "experiment": ("pipeline", "Do the filters make a better model?"),
    "up": ("service", "Start a Prefect server, its worker and all deployments."),
    "down": ("service", "End what `medaction up` started, and nothing else."),
    "deploy": ("service", "Put the deployments on the Prefect server of PREFECT_API_URL."),
    "doctor": ("service", "Look at this machine; say what is wrong and how to mend it."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and lists commands without importing."""

    def __init__(self, *arguments: Any, table: Commands, **options: Any):
        super().__init__(*arguments, **options)
        self.table = table

    def list_commands(self, _: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module = import_module(f"medaction.cli.{self.table[name][0]}")
        # 'serve-env' is the function serve_env.
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    # click's own would import every command to read its help.
    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"show_default": True})
@click.version_option(package_name="medaction")
def medaction() -> None:
    """From case reports to multi-turn diagnostic training data."""


@click.group(cls=LazyGroup, table=ENVS)
def envs() -> None:
    """Clinical environments: build them alone, see what the checks measured, and draw what they
    are made of."""


@click.group(cls=LazyGroup, table=KG)
def kg() -> None:
    """Knowledge graphs: read PrimeKG, ClinGraph or one of your own into the cache, and see what it
    is like."""


OLD_WORDS = {
    ("hard-set", "--cases"): "--size",
    ("evaluate", "--runs"): "--rollouts",
    ("up", "--runs"): "--at-once",
}
"""(command, an option's earlier word) -> its word. `--cases` is reports everywhere, `--rollouts` is
K everywhere. The earlier words go with version 0.2."""


def in_present_words(arguments: Sequence[str]) -> list[str]:
    """The arguments with earlier words of options replaced; each is noted on stderr."""
    words = list(arguments)
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if present := OLD_WORDS.get((words[0], name)):
            click.echo(f"medaction {words[0]}: {name} is now {present}", err=True)
            words[place] = f"{present}{equals}{value}"
    return words


INTERRUPTED = 130
"""The status that a shell gives a command that Ctrl-C has ended."""
LAST_WORDS_S = 10.0
"""At its end Prefect waits, for ever, until its server has taken the last lines of the log: one
that is gone must not hold the command up."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `medaction`. Ends with a status of docs/commands.md; what a user can mend is
    one line on stderr, a mistake of ours keeps its traceback."""
    # Here alone: whoever imports the package decides on handlers by themselves.
    for name in ("stdout", "stderr"):  # a shell may have closed them: >&-
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    logging.getLogger("medaction").addHandler(logging.StreamHandler())
    # As Ctrl-C does, it closes the store and ends what the run has started.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        words = in_present_words(sys.argv[1:] if arguments is None else arguments)
        medaction.main(words, prog_name="medaction", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:  # a group alone: its help, whole
        error.show()
        sys.exit(error.exit_code)
    except (Exception, KeyboardInterrupt) as error:
        ending = ending_of(error)
        if ending is None:
            raise
        click.echo(f"medaction: {ending.line}", err=True)
        if ending.status == INTERRUPTED:
            # Packages that are interrupted in an import complain when Python takes them down.
            # `os._exit` below runs none of them.
            atexit._run_exitfuncs()
        if isinstance(error, EngineLost) or ending.status == INTERRUPTED:
            # Ray's client has threads that wait for what is gone. All that was to be written is.
            # os._exit writes out no buffers.
            sys.stdout.flush()
            os._exit(ending.status)
        _end_in_time(ending.status)
        sys.exit(ending.status)
    _end_in_time(0)


def _end_in_time(status: int) -> None:
    """Once Python ends this process it may take LAST_WORDS_S, whatever still waits then; no time
    where a run has ended unseen."""
    if prefect_silence.until:
        atexit.unregister(logging.shutdown)  # would wait for Prefect's handler, 5 s
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(status)

    def leave() -> None:
        time.sleep(LAST_WORDS_S)
        os._exit(status)

    last_thread = threading.Thread(target=leave, daemon=True)
    # Where Prefect has put its own waiting; the last that was registered comes first.
    threading._register_atexit(last_thread.start)  # type: ignore[attr-defined]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class Ending(NamedTuple):
    """How a command that did not do its work ends."""

    line: str
    status: int


def ending_of(error: BaseException) -> Ending | None:
    """The line and the status for an error; None: a mistake of ours.

    The tree of errors that users can mend is drawn in words/errors.py. Besides these there are the
    command line's own, files that cannot be read or written, and servers that do not answer.
    """
    # DuckDB says so itself where the interruption came in the middle of a query.
    in_a_query = isinstance(error, RuntimeError) and str(error) == "Query interrupted"
    if in_a_query or isinstance(error, click.Abort | KeyboardInterrupt):
        line = "interrupted; what had finished is stored, the same command goes on from there"
        return Ending(line, INTERRUPTED)
    if isinstance(error, click.UsageError):
        text = " ".join(error.format_message().split())
        command = error.ctx.command_path if error.ctx else "medaction"
        return Ending(f"{text} (see `{command} --help`)", error.exit_code)
    # Behind UsageError, which is one of them.
    if isinstance(error, click.ClickException):
        return Ending(error.format_message(), error.exit_code)
    if isinstance(error, EngineLost):
        line = f"{error}; what had finished is stored, the same command goes on from there"
        return Ending(line, error.status)
    if isinstance(error, MedactionError):
        return Ending(str(error), error.status)
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return Ending(f"{error.filename}: {reason}" if error.filename else reason, 1)
    if type(error).__module__.split(".")[0] in ("httpx", "httpcore"):  # the API of Prefect
        url = os.environ.get("PREFECT_API_URL", "the Prefect server")
        line = f"{url} does not answer ({error}): start it, or unset PREFECT_API_URL"
        return Ending(line, 1)
    return None


if __name__ == "__main__":
    main()
