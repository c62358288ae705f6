"""The script for whoever has a GPU runs here in tiny shapes: every kind of part gives its line, and
what fails or hangs gives one too."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

pytest.importorskip("torch", reason="training is not installed (pip install 'medaction[train]')")

from benchmarks.gpu import PARTS, WAYS, attention, loss, run_part
from benchmarks.training import SHAPES

pytestmark = pytest.mark.train

TINY = SimpleNamespace(tiny=True)


def test_the_parts_that_need_no_model() -> None:
    figures = attention(TINY, "per_sequence")
    assert figures["ms_new"] > 0
    assert figures["distinct_rows"] >= 1
    assert attention(TINY, "varlen") == {"obstacle": "needs a GPU"}
    assert loss(TINY, "chunked")["ms"] > 0
    assert loss(TINY, "liger") == {"obstacle": "chunked"}


def test_a_part_that_hangs_or_fails_leaves_a_line(tmp_path: Path) -> None:
    assert run_part("device", tmp_path, True, 0.001)["failed"] == "ended after 0 s"
    failed = run_part("no such part", tmp_path, True, 60)
    assert failed["failed"].startswith("status 1: ")
    assert "Error" in failed["failed"]


def test_what_packages_print_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "sitecustomize.py").write_text(
        "import atexit\nprint('welcome')\natexit.register(print, 'goodbye')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{packages}:{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "data.txt").write_text("unread")
    assert run_part("device", tmp_path, True, 120)["torch"]


def test_ctrl_c_ends_the_part_that_runs() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--only", "compile"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        while not (parts := psutil.Process(running.pid).children()):
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert not psutil.wait_procs(parts, timeout=1)[1]


def test_every_way_and_shape_has_a_part() -> None:
    for shape, method in (
        ("qwen3-0.6b", "full"), ("qwen3-1.7b", "full"), ("qwen3-4b", "lora"), ("qwen3-8b", "lora"),
    ):  # fmt: skip
        assert shape in SHAPES
        assert {f"model {shape}", f"steps {shape} {method}", f"trl {shape} {method}"} <= {*PARTS}
    assert {f"attention {way}" for way in WAYS} <= {*PARTS}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whole_steps_in_tiny_shapes() -> None:
    parts = ("model qwen3-0.6b", "steps qwen3-0.6b full", "compile qwen3-0.6b")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--seconds", "800", "--only", *parts],
        capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = {line["part"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert {*parts} <= {*lines}
    for part in parts[1:]:
        steps = lines[part]
        assert steps["tokens_per_s"] > 0
        assert steps["notes"]
