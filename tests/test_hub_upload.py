"""Checkpoints and the model go to a hub: a server on loopback that speaks as much of its protocol
as an upload of small files needs."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
)

from tests.runs import medaction
from tests.tiny_model import dataset, tiny_model

pytestmark = pytest.mark.train


class Hub(BaseHTTPRequestHandler):
    commits: list[tuple[str, dict[str, bytes]]]
    created: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        assert self.headers["Authorization"] == "Bearer hf_secret"
        owner = f"http://{self.headers['Host']}/somebody/model"
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            self.answer({"url": owner, "id": "somebody/model"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in files
            ]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            self.commits.append((lines[0]["value"]["summary"], files))
            self.answer({"commitUrl": f"{owner}/commit/1", "commitOid": "1", "success": True})
        else:
            self.answer({})

    def do_GET(self) -> None:
        self.answer({"sha": "1", "id": "somebody/model"})

    def answer(self, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    class OwnHub(Hub):
        commits, created = [], []

    with ThreadingHTTPServer(("127.0.0.1", 0), OwnHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", OwnHub
        server.shutdown()


def test_a_hub_that_is_not_there_leaves_the_model_and_says_where(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    environment = run_environment | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_secret"}
    environment.pop("HF_HUB_OFFLINE", None)
    out = tmp_path / "out"
    done = medaction(
        environment, "train", "--data", dataset(tmp_path / "data"), "--out", out,
        "--base", tiny_model(tmp_path / "base"), "--max-length", 512, "--processes", 1,
        "--batch", 8, "--epochs", 1, "--push", "somebody/model",
    )  # fmt: skip
    assert done.returncode != 0
    assert f"(the model is in {out / 'model'}; the same command sends it again)" in done.stderr
    assert (out / "model/model.safetensors").is_file()


def test_checkpoints_and_the_model_are_sent(
    tmp_path: Path, hub: tuple[str, type[Hub]], run_environment: dict[str, str]
) -> None:
    url, seen = hub
    environment = run_environment | {"HF_ENDPOINT": url, "HF_TOKEN": "hf_secret"}
    environment.pop("HF_HUB_OFFLINE", None)
    out = tmp_path / "out"
    done = medaction(
        environment, "train", "--data", dataset(tmp_path / "data"), "--out", out,
        "--base", tiny_model(tmp_path / "base"), "--max-length", 512, "--processes", 1,
        "--batch", 8, "--epochs", 2, "--save-every", 3, "--push", "somebody/model",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all((made["visibility"], made["name"]) == ("private", "model") for made in seen.created)
    summaries = [summary for summary, _ in seen.commits]
    assert "checkpoint-3" in summaries
    assert summaries[-1] == "Model of 6 steps"
    _, files = seen.commits[-1]
    assert files["model.safetensors"] == (out / "model/model.safetensors").read_bytes()
    checkpoint = dict(seen.commits)["checkpoint-3"]
    assert "checkpoints/checkpoint-3/trainer_state.json" in checkpoint
    assert "hf_secret" not in (done.stdout + done.stderr)
