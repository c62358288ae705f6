"""The deployment files agree with each other, with the package, and with what the design promises:
one version everywhere, nothing that listens beyond this machine, no password of ours."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import REPOSITORY

DEPLOYMENTS = REPOSITORY / "deployments"


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def test_every_image_is_of_this_version() -> None:
    wanted = f"medaction:{version('medaction')}"
    files = [REPOSITORY / "docker-compose.yml", *DEPLOYMENTS.glob("*.yaml")]
    images = {
        image
        for file in files
        for image in re.findall(r"image: (medaction:\S+)", file.read_text(encoding="utf-8"))
    }
    assert images == {wanted}


def test_kubernetes_runs_the_ray_that_is_installed_here() -> None:
    assert read(DEPLOYMENTS / "kuberay.yaml")["spec"]["rayVersion"] == version("ray")


def test_no_port_is_published_beyond_this_machine() -> None:
    services = read(REPOSITORY / "docker-compose.yml")["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_has_a_default() -> None:
    compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    for name in ("POSTGRES_PASSWORD", "RAY_AUTH_TOKEN", "VLLM_API_KEY"):
        assert f"${{{name}:?" in compose
        assert f"${{{name}:-" not in compose
    assert set(read(DEPLOYMENTS / "skypilot.yaml")["envs"]["OPENAI_API_KEY"]) == set()
    for group in ("headGroupSpec", "workerGroupSpecs"):
        specs = read(DEPLOYMENTS / "kuberay.yaml")["spec"][group]
        for spec in specs if isinstance(specs, list) else [specs]:
            (container,) = spec["template"]["spec"]["containers"]
            variables = {item["name"]: item for item in container["env"]}
            assert variables["RAY_AUTH_MODE"]["value"] == "token"
            assert "secretKeyRef" in variables["RAY_AUTH_TOKEN"]["valueFrom"]


def test_packages_are_installed_by_their_content() -> None:
    """What a registry serves under the same version tomorrow is refused. pip cannot take hashes
    together with a folder, so constraints.txt has none."""
    pins, hashed = (
        re.findall(r"^[a-z0-9][^ \n]*==.*?(?= *\\?$)", (REPOSITORY / name).read_text(), re.M)
        for name in ("constraints.txt", "hashes.txt")
    )
    assert pins == hashed
    blocks = re.split(r"^(?=[a-z0-9])", (REPOSITORY / "hashes.txt").read_text(), flags=re.M)[1:]
    assert len(blocks) == len(pins)
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in "".join(blocks)
    for name in ("Makefile", "deployments/Dockerfile"):
        text = (REPOSITORY / name).read_text()
        installs = re.findall(r"^.*--constraint.*--editable.*$", text, re.M)
        assert installs
        assert all("hashes.txt" in line for line in installs)
