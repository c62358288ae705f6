"""`medaction doctor`: it names what is wrong and the remedy, and never shows a key."""

import os
import socket
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from medaction.cli.main import medaction
from medaction.flows.doctor import examine
from medaction.flows.processes import free_port
from medaction.flows.settings import DistillSettings

KEY = "sk-proj-abcdefghijklmnop0123456789"


def findings_of(
    monkeypatch: pytest.MonkeyPatch, out: Path, *teachers: dict[str, object], **environment: str
) -> dict[str, tuple[str, str, str]]:
    for name in ("PREFECT_API_URL", "RAY_ADDRESS", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = DistillSettings.model_validate(
        {"cases": "cases", "out": out, "teachers": list(teachers) or [{"model": "kg-targeted"}]}
    )
    return {
        finding.subject: (finding.state, finding.fact, finding.remedy)
        for finding in examine(settings)
    }


def test_a_machine_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    findings = findings_of(monkeypatch, tmp_path)
    assert {
        findings[what][0]
        for what in ("packages", "Ray", "graph", "disk of the run", "teacher kg-targeted")
    } == {"ok"}
    assert "nodes" in findings["graph"][1]


def test_what_does_not_answer_is_wrong_and_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    gone = {"name": "gone", "model": "openai/gone", "api_base": f"http://{nobody}/v1"}
    file = {"name": "file", "model": "local", "gguf": tmp_path / "missing.gguf"}
    findings = findings_of(
        monkeypatch,
        tmp_path,
        gone,
        file,
        PREFECT_API_URL=f"http://{nobody}/api",
        RAY_ADDRESS=nobody,
    )
    for what in ("Prefect", "Ray", "teacher gone", "teacher file"):
        state, _, remedy = findings[what]
        assert (what, state) == (what, "wrong")
        assert remedy


def test_a_key_is_there_or_not_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    teacher = {"name": "paid", "model": "openai/gpt-4o-mini", "api_key_env": "OPENAI_API_KEY"}
    without = findings_of(monkeypatch, tmp_path, teacher)["teacher paid"]
    assert without[0] == "wrong"
    assert "OPENAI_API_KEY" in " ".join(without)
    with_key = findings_of(monkeypatch, tmp_path, teacher, OPENAI_API_KEY=KEY)
    assert with_key["teacher paid"][0] == "ok"
    assert KEY not in str(with_key)


def test_a_server_of_ones_own_never_sees_a_providers_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        heard: list[bytes] = []

        def answer() -> None:
            caller, _ = listening.accept()
            heard.append(caller.recv(10_000))
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            caller.close()

        thread = threading.Thread(target=answer)
        thread.start()
        mine = {
            "name": "mine",
            "model": "openai/mine",
            "api_base": f"http://127.0.0.1:{listening.getsockname()[1]}/v1",
        }
        findings = findings_of(monkeypatch, tmp_path, mine, OPENAI_API_KEY=KEY)
        thread.join()
    assert findings["teacher mine"][0] == "ok"
    assert heard[0].startswith(b"GET /v1/models")
    assert KEY.encode() not in heard[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    assert findings_of(monkeypatch, tmp_path)["disk of the run"][0] == "wrong"


def test_the_command_ends_with_1_when_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    result = CliRunner().invoke(medaction, ["doctor"])
    assert result.exit_code == 1
    assert "medaction up" in result.output
