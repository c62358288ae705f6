"""One real Prefect server and one real Ray for the whole session, on loopback; the server's
database is its own and empty."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medaction.flows.services import prefect_api

REPOSITORY = Path(__file__).parent.parent
SAMPLES = REPOSITORY / "examples" / "cases"
SHARED = REPOSITORY.parent / "shared" / "data"


def shared_data(name: str) -> Path:
    """A file or folder of the real data beside the repository; the test is skipped where it is not
    there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the real data {name} is not beside the repository")
    return path


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prefect_api(tmp_path_factory.mktemp("prefect")) as url:
        yield url


# Lives until its standard input ends, which it does with the session, however that ends.
RAY = """
import sys, ray
print(ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False).address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[dict[str, str]]:
    """The environment that joins it."""
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", RAY], env=os.environ | secret, stdin=pipe, stdout=pipe, text=True
    ) as cluster:
        assert cluster.stdin
        assert cluster.stdout
        yield secret | {"RAY_ADDRESS": cluster.stdout.readline().strip()}
        cluster.stdin.close()


@pytest.fixture(scope="session")
def run_environment(
    prefect_server: str, ray_cluster: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment of a `medaction` process in a test, with a call cache of the session's own."""
    calls = tmp_path_factory.mktemp("calls")
    return (
        os.environ
        | ray_cluster
        | {"PREFECT_API_URL": prefect_server, "MEDACTION_CALL_CACHE": str(calls)}
    )


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, run_environment: dict[str, str]
) -> tuple[Path, Path]:
    """(cases, out) of a finished run over three sample cases, for tests that leave it as it is."""
    from tests.runs import TEACHERS, medaction, sample_cases

    folder = tmp_path_factory.mktemp("finished")
    cases = sample_cases(folder / "cases", 1, 3, 7)
    done = medaction(
        run_environment, "distill", "--cases", cases, "--out", folder / "out", *TEACHERS
    )
    assert done.returncode == 0, done.stderr
    return cases, folder / "out"
