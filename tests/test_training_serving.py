"""Where a trained model is served."""

from pathlib import Path

import pytest

from medaction.training import serving
from medaction.training.settings import TrainError


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `vllm` in an environment of its own, on a machine with a GPU."""
    program = tmp_path / "vllm" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv(serving.VLLM, str(program))
    monkeypatch.setattr(serving, "devices", lambda: ("gpu", 1, 2**36))
    monkeypatch.setattr(serving, "resolve", lambda name, folder: None)
    return program


def test_vllm_of_an_environment_of_its_own_serves(vllm: Path, tmp_path: Path) -> None:
    command, name = serving.command(tmp_path, 8123)
    assert command[:3] == [str(vllm), "serve", str(tmp_path.resolve())]
    assert command[command.index("--served-model-name") + 1] == name
    assert command[-4:] == ["--host", "127.0.0.1", "--port", "8123"]


def test_a_name_that_is_no_program_is_a_mistake(vllm: Path) -> None:
    vllm.unlink()
    with pytest.raises(TrainError, match=r"MEDACTION_VLLM=.* is no program"):
        serving.vllm_command()


def test_without_a_gpu_vllm_is_left_alone(vllm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "devices", lambda: ("cpu", 1, 2**36))
    assert serving.vllm_command() is None
