"""Real data, servers for the whole session (a real Prefect and a real Ray, on loopback), and which
tests are unit tests."""

import ast
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SAMPLES = REPOSITORY / "examples" / "cases"
SHARED = REPOSITORY.parent / "shared" / "data"


MACHINERY = (
    *("prefect", "ray", "torch", "playwright", "tests.runs", "tests.local_models"),
    *("tests.serving", "tests.openai_server", "tests.ncbi_server"),
)
"""A test file that imports one of these, through whatever other files, is no unit test."""
SERVERS = {"prefect_server", "ray_cluster", "run_environment", "finished"}
"""Nor is one whose tests use one of these fixtures."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unit", action="store_true", help="Only unit tests: no Prefect, no Ray.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --unit a file that needs machinery is not even imported."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    if is_test and config.getoption("--unit") and not is_unit(collection_path):
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --unit without what takes seconds, or reads the hundreds of real cases."""
    if config.getoption("--unit"):
        items[:] = [
            item
            for item in items
            if not any(map(item.get_closest_marker, ("slow", "ui", "long")))
            and not (isinstance(item, pytest.Function) and reads_real_data(item))
        ]


def reads_real_data(item: pytest.Function) -> bool:
    return bool({"shared_data", "SHARED"} & {*item.function.__code__.co_names})


def is_unit(file: Path) -> bool:
    """Whether the tests of a file need neither Prefect nor Ray nor a model's process."""
    waiting, seen = [f"tests.{file.stem}"], set()
    while waiting:
        module = waiting.pop()
        if module.startswith(MACHINERY):
            return False
        if module not in seen:
            seen.add(module)
            waiting += imports_of(module)
    functions = [node for node in ast.walk(ast.parse(file.read_text())) if hasattr(node, "args")]
    arguments = {item.arg for node in functions for item in getattr(node.args, "args", ())}
    return not arguments & SERVERS


@cache
def imports_of(module: str) -> list[str]:
    """What a file of ours imports when it is imported; nothing for the package itself, whose names
    are loaded when they are used, and for this file."""
    path = REPOSITORY / module.removeprefix("medaction.").replace(".", "/")
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    if module in ("medaction", "tests.conftest") or not file.exists():
        return []
    modules = []
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            modules += [item.name for item in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *(f"{node.module}.{item.name}" for item in node.names)]
    return modules


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Unit tests that loaded Prefect or Ray all the same are a failure."""
    loaded = {"prefect", "ray", "torch"} & {*sys.modules}
    if session.config.getoption("--unit") and loaded:
        session.exitstatus = 1
        print(f"\nunit tests imported {', '.join(sorted(loaded))}")


def shared_data(name: str) -> Path:
    """A file or folder of the real data beside the repository; the test is skipped where it is not
    there."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the real data {name} is not beside the repository")
    return path


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As a user has one: without a password, unlike that which a run starts."""
    from medaction.flows.prefect_server import spawn_server
    from medaction.words.processes import free_port, spare_loopback, stop

    spare_loopback()
    port = free_port()
    by = [sys.executable, "-m", "medaction.flows.attached", str(port)]
    server, url = spawn_server(tmp_path_factory.mktemp("prefect"), port, by)
    try:
        yield url
    finally:
        stop(server)


# Lives until its standard input ends, which it does with the session, however that ends.
RAY = """
import sys, ray
context = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print(context.address_info["gcs_address"], flush=True)
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
    """The environment of a `medaction` process in a test, with a call cache of its own."""
    calls = tmp_path_factory.mktemp("calls")
    return (
        os.environ
        | ray_cluster
        | {"PREFECT_API_URL": prefect_server, "MEDACTION_CALL_CACHE": str(calls)}
    )


@pytest.fixture(scope="session")
def run_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run over two sample cases that this process played, without Prefect
    and Ray; for tests that leave it as it is."""
    from medaction.flows.runs import run_distill
    from medaction.flows.settings import DistillSettings
    from tests.runs import sample_cases

    folder = tmp_path_factory.mktemp("here")
    cases = sample_cases(folder / "cases", 1, 3)
    teachers = ["kg-screening", "kg-targeted"]
    settings = {"cases": str(cases), "out": folder / "out", "teachers": teachers, "rollouts": 1}
    run_distill(DistillSettings.model_validate(settings | {"engine": "local"}))
    return folder / "out"


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
