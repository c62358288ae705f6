"""A trained model behind an OpenAI-compatible server on loopback: vLLM where it runs, otherwise
transformers' own server.

vLLM keeps replies to the grammar; transformers' server does not know it and ignores that it was
asked.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from medaction.training.base import resolve
from medaction.training.launch import devices
from medaction.training.settings import TrainError

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
"""For the server's environment: it looks nothing up and tells nobody."""


def command(model: Path, port: int) -> tuple[list[str], str]:
    """(the server's command, the name that its model is asked for by). Raises TrainError: no model,
    or no server installed."""
    folder = model / "model" if (model / "model").is_dir() else model
    resolve(str(folder.absolute()), folder)
    if importlib.util.find_spec("vllm") is not None and devices()[0] == "gpu":
        name = "medaction"
        listen = ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
        return [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(folder.resolve()),
            *listen,
        ], name
    if importlib.util.find_spec("torch") is None:
        raise TrainError(
            "serving needs vllm on a machine with a GPU, or torch: pip install 'medaction[train]'"
        )
    path = str(folder.resolve())
    return [
        sys.executable,
        "-m",
        "transformers.cli.transformers",
        "serve",
        path,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ], path


def serve(model: Path, port: int) -> None:
    """Serve until interrupted. Raises TrainError when the server ends by itself."""
    run, _ = command(model, port)
    ended = subprocess.run(run, env=os.environ | QUIET)
    if ended.returncode:
        raise TrainError(f"the server ended with status {ended.returncode}; its words are above")
