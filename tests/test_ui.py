"""What a person sees of a run on Prefect's page, in a real browser."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from tests.runs import rows

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--virtual-time-budget=20000", "--window-size=1500,1000"),
)


def chromium() -> str:
    found = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


@contextmanager
def browser() -> Iterator[Page]:
    """An empty page in a browser, to click and to write in."""
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        opened = started.new_page(viewport={"width": 1500, "height": 1600})
        # Its own 30 s are too few where other work keeps the machine busy.
        opened.set_default_timeout(180_000)
        yield opened
        started.close()


def page(url: str, profile: Path) -> str:
    """The page's text as the browser has it after its scripts have run."""
    command = [chromium(), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_page_shows_the_run_its_tasks_and_its_artifacts(
    finished: tuple[Path, Path], prefect_server: str, tmp_path: Path
) -> None:
    _, out = finished
    (flow_run_id,) = rows(out, "select flow_run_id from runs order by started limit 1")[0]
    run = f"{prefect_server.removesuffix('/api')}/runs/flow-run/{flow_run_id}"
    tasks = page(f"{run}?tab=Task+Runs", tmp_path / "one")
    assert "Completed" in tasks
    for number in ("01", "03", "07"):
        assert f"environment: medaction-{number}" in tasks
        assert f"rollouts: medaction-{number}" in tasks
    query = {
        "flow_runs": {"id": {"any_": [flow_run_id]}},
        "artifacts": {"key": {"any_": ["summary"]}},
    }
    (summary,) = httpx.post(f"{prefect_server}/artifacts/filter", json=query).json()
    text = page(
        f"{prefect_server.removesuffix('/api')}/artifacts/artifact/{summary['id']}",
        tmp_path / "two",
    )
    for heading in ("Distillation of", "Funnel", "Teachers", "trajectories played"):
        assert heading in text
