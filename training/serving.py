"""A trained model behind an OpenAI-compatible server on loopback: vLLM where it runs, otherwise
transformers' own server.

vLLM lives in an environment of its own, because no one environment can hold it and Prefect (vLLM
wants fastapi below 0.137, Prefect's server 0.139 and later): `uv venv ~/vllm && uv pip install
--python ~/vllm vllm`, then MEDACTION_VLLM=~/vllm/bin/vllm. A vLLM that runs elsewhere needs none of
this: it is the model `openai/NAME@http://HOST:PORT/v1`.

vLLM keeps replies to the grammar; transformers' server does not know it and ignores that it was
asked.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from medaction.training.base import resolve
from medaction.training.launch import devices
from medaction.training.settings import TrainError

VLLM = "MEDACTION_VLLM"
"""Names vLLM's command."""

SERVER_ENVIRONMENT = {
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
    # Only for what it refuses: a folder without whole weights.
    resolve(str(folder.absolute()), folder)
    listen = ["--host", "127.0.0.1", "--port", str(port)]
    if vllm := vllm_command():
        name = "medaction"
        return [vllm, "serve", str(folder.resolve()), "--served-model-name", name, *listen], name
    if importlib.util.find_spec("torch") is None:
        raise TrainError(
            f"serving needs vLLM on a machine with a GPU ({VLLM} names its command), or torch:"
            " pip install -e '.[train]'"
        )
    path = str(folder.resolve())
    return [sys.executable, "-m", "transformers.cli.transformers", "serve", path, *listen], path


def vllm_command() -> str | None:
    """The `vllm` that the environment names, else the one on the PATH; None: there is none, or no
    GPU. Raises TrainError for a name that leads to no program."""
    command = os.environ.get(VLLM)
    program = shutil.which(os.path.expanduser(command or "vllm"))
    if command and program is None:
        raise TrainError(f"{VLLM}={command} is no program: name the `vllm` of its environment")
    # vLLM without a GPU needs a build of its own.
    return program if program and devices()[0] == "gpu" else None


def serve_checkpoint(model: Path, port: int) -> None:
    """Serve until interrupted. Raises TrainError when the server ends by itself."""
    run, _ = command(model, port)
    ended = subprocess.run(run, env=os.environ | SERVER_ENVIRONMENT)
    if ended.returncode:
        raise TrainError(f"the server ended with status {ended.returncode}; its words are above")
