"""`medaction doctor`: what is here, what is wrong with it, and how to mend it. It changes nothing,
asks each model of a run one question, and shows of keys only their names."""

import os
import shutil
import socket
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

import httpx
import psutil
from packaging.requirements import Requirement

from medaction.flows.configured import configured_prefect, configured_ray, why_silent
from medaction.flows.inspections import CheckState, Inspection
from medaction.flows.settings import EnvironmentSettings
from medaction.flows.summary import damage_of_reports
from medaction.flows.versions import installed_version
from medaction.llm.call_cache import default_folder
from medaction.training.estimate import existing_folder
from medaction.training.settings import NEEDED
from medaction.trajectories.damage import damage_of_run
from medaction.words.processes import memory_available

GB = 1e9


def examine(*stages: EnvironmentSettings) -> Iterator[Inspection]:
    """Look at packages, machine, Prefect, Ray, graphs and caches, and at the folder and the models
    of each stage of a run."""
    yield from packages()
    yield from machine(stages[0].out if stages else Path("runs"))
    yield prefect()
    yield ray()
    yield from graphs()
    for settings in stages:
        yield from models(settings)


def run_files(out: Path, repair: bool) -> Iterator[Inspection]:
    """The files of a run: what is damaged, missing or edited. Changes nothing without `repair`.
    Raises StoreError when the run is under way."""
    damage = [*damage_of_run(out, repair), *damage_of_reports(out, repair)]
    for item in damage:
        state: CheckState = "note" if item.mended else "wrong"
        how = "done: " if item.mended else ""
        yield Inspection(str(item.file), state, item.fact, how + item.remedy)
    if not damage:
        yield Inspection(
            str(out), "ok", "store, copy, dataset, result and summary are what was written"
        )


def packages() -> Iterator[Inspection]:
    """Every requirement of this installation against what is installed; extras only when one of
    their packages is there."""
    requirements = [Requirement(text) for text in requires("medaction") or ()]
    bad = []
    for requirement in requirements:
        # Requirements of extras have a marker that is false without the extra.
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            name, needed = requirement.name, requirement.specifier
            installed = installed_version(name)
            if installed is None or not needed.contains(installed, prereleases=True):
                bad.append(f"{name} {installed or 'is missing'}, {needed} is needed")
    if bad:
        remedy = "install again with `make install`, or `pip install -c constraints.txt -e .`"
        yield Inspection("packages", "wrong", "; ".join(bad), remedy)
    else:
        fact = f"medaction {version('medaction')} and what it requires"
        yield Inspection("packages", "ok", fact)
    for extra, serves, names in (
        ("local", "a model file, `local:/path/to/model.gguf`", ("xllamacpp",)),
        ("train", "`medaction train`", NEEDED),
    ):
        if absent := [name for name in names if installed_version(name) is None]:
            remedy = f"for {serves}: pip install -e '.[{extra}]'"
            fact = f"not installed: {', '.join(absent)}"
            yield Inspection(f"extra {extra}", "note", fact, remedy)
        else:
            fact = ", ".join(f"{name} {installed_version(name)}" for name in names)
            yield Inspection(f"extra {extra}", "ok", fact)


def machine(out: Path) -> Iterator[Inspection]:
    """CPUs, memory, and the disks of the run's folder and of the caches."""
    free, memory = memory_available(), psutil.virtual_memory()
    tight = free < 4 * GB
    yield Inspection(
        "machine",
        "note" if tight else "ok",
        f"{os.cpu_count()} CPUs, {free / GB:.0f} of {memory.total / GB:.0f} GB of memory free",
        "a run needs about 2 GB and half a GB for each CPU: give fewer --workers" if tight else "",
    )
    for subject, folder in (("disk of the run", out), ("disk of the caches", default_folder())):
        parent_folder = existing_folder(folder)
        free = shutil.disk_usage(parent_folder).free
        state: CheckState = "ok"
        remedy = ""
        if not os.access(parent_folder, os.W_OK):
            state, remedy = "wrong", f"{parent_folder} cannot be written to"
        elif free < 5 * GB:
            state, remedy = "note", "a paper-sized run takes about 5 GB"
        yield Inspection(subject, state, f"{free / GB:.0f} GB free for {folder}", remedy)


def prefect() -> Inspection:
    """The Prefect server that runs would use."""
    url = configured_prefect()
    if not url:
        alone = "each run starts a server of its own on loopback, and stops it"
        fact = f"PREFECT_API_URL is not set: {alone}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 4200)):
                return Inspection("Prefect", "ok", fact)
        remedy = "something answers on port 4200: set PREFECT_API_URL if it is yours"
        return Inspection("Prefect", "note", fact, remedy)
    try:
        answer = httpx.get(f"{url}/admin/version", timeout=5)
        answer.raise_for_status()
        server_version = str(answer.json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        mend = "correct the address (it ends in /api), start it (`medaction up`)"
        fact = f"{url} does not answer as Prefect's API does: {error}"
        return Inspection("Prefect", "wrong", fact, f"{mend}, or unset PREFECT_API_URL")
    installed, fact = version("prefect"), f"{url}, version {server_version}"
    # Major and minor: Prefect's API does not change with a patch.
    if server_version.split(".")[:2] == installed.split(".")[:2]:
        return Inspection("Prefect", "ok", fact)
    remedy = f"this installation has {installed}: use the same on both sides"
    return Inspection("Prefect", "note", fact, remedy)


def ray() -> Inspection:
    """The Ray that runs would use."""
    address = configured_ray()
    if not address:
        alone = "RAY_ADDRESS names no cluster: each run starts its own"
        return Inspection("Ray", "ok", f"{version('ray')}; {alone}")
    if reason := why_silent(address):
        remedy = "start the cluster (docs/cluster.md), or unset RAY_ADDRESS"
        return Inspection("Ray", "wrong", f"{address} does not answer: {reason}", remedy)
    return Inspection("Ray", "ok", f"{version('ray')}; {address} answers")


def graphs() -> Iterator[Inspection]:
    """The graphs of DTC and RAC, with their hashes. They are built at their first use, which takes
    about half a minute."""
    from medaction.kg.open_graphs import open_disease_graph, open_test_graph

    for graph in (open_disease_graph(), open_test_graph()):
        nodes = f"{graph.nodes.height:,} nodes"
        yield Inspection("graph", "ok", f"{graph.name} {graph.version}: {nodes}")


def models(settings: EnvironmentSettings) -> Iterator[Inspection]:
    """Every model of the settings, asked one real question of its part; embedded teachers play
    without one."""
    embedded = [teacher for teacher in getattr(settings, "teachers", ()) if teacher.embedded]
    for teacher in embedded:
        yield Inspection(
            f"teacher {teacher.name}", "ok", "plays on the open graphs, without a model"
        )
    # With Prefect and Ray, which nothing else here needs.
    from medaction.flows.model_checks import check_models, models_of

    if any(models_of(settings)):
        yield from check_models(settings)
