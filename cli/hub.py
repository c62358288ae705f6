"""`medaction serve-env`: the episode as an OpenEnv server."""

from contextlib import suppress
from pathlib import Path

import click

from medaction.cli.options import CASES_PATH
from medaction.flows.settings import DistillSettings
from medaction.words.errors import MedactionError


@click.command()
@click.option(
    "--cases", type=CASES_PATH, default="examples/cases", help="Case reports (docs/sources.md)."
)
@click.option("--evaluation", is_flag=True, help="Serve benchmark cases too; never to train on.")
@click.option("--judge", default="offline", help="Who judges a diagnosis: offline, or MODEL.")
@click.option(
    "--t-max", type=click.IntRange(1), default=DistillSettings.model_fields["t_max"].default
)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8010)
@click.option("--sessions", type=click.IntRange(1), default=128, help="Most clients at a time.")
@click.option(
    "--idle-s",
    type=click.FloatRange(1),
    default=600.0,
    help="Seconds of silence after which a session is ended.",
)
def serve_env(
    cases: str,
    evaluation: bool,
    judge: str,
    t_max: int,
    host: str,
    port: int,
    sessions: int,
    idle_s: float,
) -> None:
    """Serve the episodes of CASES to whoever speaks OpenEnv, until interrupted."""
    try:
        from medaction.hub.openenv_server import application, serve
    except ModuleNotFoundError as error:
        raise MedactionError(f"{error.name} is not installed: pip install -e '.[hub]'") from None
    from medaction.envs.records import BadCase
    from medaction.hub.episodes import environments_of, scorer_of
    from medaction.words.processes import require_free

    # Before the environments are built, which takes longer than a user waits to hear of it.
    require_free(port, host)
    try:
        worlds = environments_of(Path(cases), training=not evaluation)
    except BadCase as error:
        # Cases were read, and none of them can be served.
        if error.reason in ("evaluation_only", "no_environment"):
            raise
        raise click.UsageError(f"--cases: {error.message}") from error
    app = application(worlds, scorer_of(judge), t_max, sessions, idle_s)
    line = f"{len(worlds)} cases on http://{host}:{port} (OpenEnv; /health, /ws)"
    with suppress(KeyboardInterrupt):  # Ctrl+C is how it ends
        serve(app, host, port, lambda: click.echo(line, err=True))
