"""A local language model on loopback: llama.cpp's OpenAI-compatible server (xllamacpp) in a process
of its own.

Run by hand: python -m medaction.llm.local_server --gguf model.gguf --port 8080
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medaction.llm.teacher import Teacher
from medaction.words.errors import MedactionError
from medaction.words.processes import end_process, free_port, wait_ready

log = logging.getLogger("medaction")

SLOTS = 2
CONTEXT_PER_SLOT = 8192
LOCAL_TIMEOUT_S = 3600.0
"""Patience with one reply where none is set. On two cores that other work kept busy a 1.5B model's
calls took 60 to 420 s, two at a time (2026-11-28); a larger one or a longer reply takes several
times as long, and a reply that is given up is computed for nothing."""
TINY_MODEL = "SmolLM2-135M"


@contextmanager
def start_local(teacher: Teacher) -> Iterator[Teacher]:
    """Serve the local teacher's model file; yields the teacher as it can be reached. The server
    ends with the block, or with this process.

    Raises MedactionError with the remedy when there is no file, no runtime, or the server does not
    come up.
    """
    gguf = Path(teacher.model_file)
    if find_spec("xllamacpp") is None:
        raise MedactionError(
            "local models need a runtime that is not installed: pip install -e '.[local]'"
        )
    if gguf.name.startswith(TINY_MODEL):
        warning = "%s is worthless as a clinician: it exercises the machinery, nothing else"
        log.warning(warning, gguf.stem)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "medaction.llm.local_server", "--gguf", str(gguf)]
    command += ["--port", str(port), "--parent-pid", str(os.getpid())]
    with tempfile.NamedTemporaryFile(suffix=".log") as words:
        # Into a file, not a pipe: llama.cpp writes much, and a full pipe would stop it.
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        try:
            trouble = (
                f"the local model server did not come up with {gguf}: is it a GGUF file, and is"
                " there memory for it?"
            )
            wait_ready(server, url, Path(words.name), trouble)
            reached: dict[str, Any] = {"model": f"openai/{gguf.stem}", "api_base": f"{url}/v1"}
            reached["gguf"] = gguf
            # More calls would wait inside the server, where their time-out runs.
            reached["in_flight"] = min(teacher.in_flight, SLOTS)
            # A stated value counts also where it equals the default.
            if "timeout_s" not in teacher.model_fields_set:
                reached["timeout_s"] = LOCAL_TIMEOUT_S
            yield teacher.model_copy(update=reached)
        finally:
            end_process(server, 10)


def threads() -> int:
    """Half of the CPUs that this process may use. With every CPU and other work beside it,
    llama.cpp's threads wait for each other: generation fell from 26 to 5 tokens a second and less
    on two shared CPUs."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 2
    return max(1, cpus // 2)


def serve_model(gguf: Path, port: int, parent_pid: int | None) -> None:
    """Serve until killed or, given a parent, until it is gone. Prints the URL when ready; port 0
    lets the system choose."""
    import xllamacpp

    if parent_pid is not None:
        threading.Thread(target=_end_with, args=[parent_pid], daemon=True).start()
    settings = xllamacpp.CommonParams()
    settings.model.path = str(gguf)
    settings.model_alias = {gguf.stem}
    settings.hostnames, settings.port = ["127.0.0.1"], port
    # llama.cpp shares its context out among the slots.
    settings.n_parallel, settings.n_ctx = SLOTS, SLOTS * CONTEXT_PER_SLOT
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads()
    settings.ui = False
    # Prompts that may come again are held in memory beside the model; llama.cpp's default is 8 GiB.
    settings.cache_ram_mib = 512
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    threading.Event().wait()


def _end_with(parent_pid: int) -> None:
    """When the parent was killed, nobody is left to stop this process."""
    while os.getppid() == parent_pid:
        time.sleep(0.5)
    # At once, without the server's orderly end, which may wait for a call.
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=serve_model.__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--parent-pid", type=int)
    options = parser.parse_args()
    serve_model(options.gguf, options.port, options.parent_pid)
