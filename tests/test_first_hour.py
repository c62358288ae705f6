"""The first hour of docs/tutorial.md, line by line, after the installation: the demo's cases, three
reports of one's own, a model behind an OpenAI-compatible server, scores, labels, the dataset."""

import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient

from medaction.trajectories.store import publish_if_missing
from medaction.trajectories.viewer.app import app_of
from tests.conftest import REPOSITORY, SAMPLES
from tests.openai_server import openai_server
from tests.simulated_teacher import answer, cases_in
from tests.test_pages import lines_of, status_of

SERVER = "http://127.0.0.1:11434/v1"
"""Where the page has its model: Ollama's address."""


def test_the_first_hour_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("PREFECT_API_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MEDACTION_CALL_CACHE", str(tmp_path / "calls"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples" / "cases").mkdir(parents=True)
    shutil.copy(SAMPLES / "medaction-01.json", "examples/cases")
    cases_in(tmp_path / "my_reports", 3)
    lines = lines_of(REPOSITORY / "docs" / "tutorial.md")
    assert lines[0] == "medaction view --out runs/demo", "the demo is made by make"
    assert status_of(["distill", "--preset", "demo"]) == 0
    assert len(lines) == 11

    with openai_server(lambda asked, _: answer(asked.body)) as server:
        for line in lines:
            words = shlex.split(line.replace(SERVER, server.url).split(" > ")[0])[1:]
            if words[0] == "view":  # it would serve until it is interrupted
                out = Path(words[words.index("--out") + 1])
                publish_if_missing(out)
                against = Path(words[-1]) if "--against" in words else None
                page = TestClient(app_of(out, against)).get("/comparison" if against else "/")
                assert page.status_code == 200, line
                continue
            if words[0] == "labels":
                reject(Path("runs/mine"))
            assert status_of(words) == 0, f"{line}\n{capsys.readouterr()}"
    versions = [Path("runs/mine/datasets/v1"), Path("runs/mine/datasets/v2")]
    before, after = (pl.scan_parquet(folder / "*.parquet").collect().height for folder in versions)
    assert after == before - 1, "the turn that was rejected is no record any more"


def reject(out: Path) -> None:
    """Reject the first record of the dataset, as a clinician does in the viewer."""
    record = pl.read_parquet(out / "dataset" / "train.parquet").row(0, named=True)
    form = {name: record[name] for name in ("case_id", "trajectory_id")}
    form |= {"kind": "turn", "number": str(record["turn"]), "opinion": "reject"}
    origin = {"origin": "http://testserver"}
    client = TestClient(app_of(out))
    answered = client.post("/label", data=form, headers=origin, follow_redirects=False)
    assert answered.status_code == 303
