"""Servers of this machine are asked without the proxy that the environment names."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from medaction.words.processes import wait_ready


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def test_a_proxy_is_not_asked_for_a_server_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("medaction.words.processes.READY_WITHIN_S", 3)
    (tmp_path / "log").write_text("")
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            wait_ready(process, url, tmp_path / "log", "the server did not start")
        finally:
            process.kill()
            process.wait()
            server.shutdown()
