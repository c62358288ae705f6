"""`medaction train` and `medaction serve`: fine-tune a model on a dataset, and put it behind a
server."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from medaction.cli.options import options_of, prefect, settings_of
from medaction.training.settings import TrainSettings, installed


@click.command()
@options_of(TrainSettings)
def train(**options: Any) -> None:
    """Fine-tune a base model on datasets. Interrupted or killed, the same command goes on from the
    newest checkpoint."""
    settings = settings_of(TrainSettings, None, options)
    installed(settings.objective)
    from medaction.flows.train import print_results
    from medaction.flows.train import train as flow
    from medaction.flows.unseen import shown
    from medaction.training.base import resolve
    from medaction.training.data import datasets_and_shares, require_dataset

    # Before Prefect starts: a wrong path is a line at once. What a .gguf file holds takes longer.
    # Other nodes than the first take what that one prepared.
    if not settings.node_rank and not Path(settings.base).expanduser().is_file():
        resolve(settings.base, settings.out)
    if settings.objective != "grpo":  # whose data are case reports
        for folder, _ in datasets_and_shares(settings):
            require_dataset(folder)
    with prefect(settings.out, with_ray=settings.launcher == "ray"):
        results = shown(flow, settings)
    if results:
        print_results(settings.out, results)


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--port", type=click.IntRange(1, 65535), default=8000, help="Port on 127.0.0.1.")
def serve(model: Path, port: int) -> None:
    """Serve MODEL (a folder of `medaction train`, or any with safetensors) until interrupted, for
    --teacher and `evaluate`."""
    installed()
    from medaction.training.serving import command
    from medaction.training.serving import serve_checkpoint as run
    from medaction.words.processes import require_free

    _, name = command(model, port)
    require_free(port)
    click.echo(f"as a teacher: --teacher openai/{name}@http://127.0.0.1:{port}/v1", err=True)
    with suppress(KeyboardInterrupt):  # Ctrl+C is how it ends
        run(model, port)
