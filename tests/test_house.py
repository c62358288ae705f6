"""The house: what may import what. The table is the one of docs/design.md."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
BELOW: dict[str, set[str]] = {
    "words": set(),
    "llm": {"words"},
    "kg": {"words"},
    "envs": {"kg", "llm", "words"},
    "trajectories": {"envs", "kg", "llm", "words"},
    "clinicians": {"trajectories", "envs", "kg", "llm", "words"},
    "training": {"trajectories", "llm", "words"},
}
BELOW["evaluation"] = {*BELOW, "evaluation"} - {"training", "evaluation"}
BELOW["hub"] = {*BELOW} - {"hub"}
BELOW["tasks"] = {*BELOW} - {"hub"}
BELOW["flows"] = {*BELOW}
BELOW["cli"] = {*BELOW}
MACHINERY = {"cli", "flows", "tasks"}
"""The folders that may know Prefect and Ray."""


@cache
def imports() -> dict[str, set[str]]:
    """Module -> the modules that it names in an import statement anywhere in its file."""
    files = [file for room in BELOW for file in sorted((REPOSITORY / room).rglob("*.py"))]
    names = {file: ".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files}
    modules = {f"medaction.{name.removesuffix('.__init__')}" for name in names.values()}
    graph = {}
    for file, name in names.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= (inner & modules) or {node.module}
        graph[f"medaction.{name.removesuffix('.__init__')}"] = targets
    return graph


def test_imports_run_down_the_table_only() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in targets
        if target.startswith("medaction.")
        and (there := target.split(".")[1]) != (here := module.split(".")[1])
        and there not in BELOW[here]
    ]
    assert not wrong


def test_only_tasks_flows_and_the_command_line_know_prefect_and_ray() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in targets
        if target.split(".")[0] in ("prefect", "ray") and module.split(".")[1] not in MACHINERY
    ]
    assert not wrong


def test_no_bare_names_of_our_folders_are_imported() -> None:
    bare = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in targets
        if target.split(".")[0] in BELOW
    ]
    assert not bare


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as circle:
        raise AssertionError(" -> ".join(circle.args[1])) from None


@pytest.mark.long
def test_what_lies_below_the_flows_starts_without_what_is_slow_to_import() -> None:
    """0.2 to 0.6 s of CPU each, which a notebook or a help page should not pay."""
    below = [
        module
        for module in imports()
        if module.split(".")[1] in ("words", "llm", "kg", "envs") and ".loaders" not in module
    ]
    slow = ["prefect", "ray", "torch", "transformers", "litellm", "faiss", "onnxruntime", "duckdb"]
    light = ["polars", "scipy", "rustworkx"]
    names = {False: slow, True: [*slow, *light]}
    for is_light, forbidden in names.items():
        modules = [m for m in below if not is_light or not m.endswith((".survey", ".calibration"))]
        code = f"import sys, {', '.join(modules)}; print(*{{*{forbidden}}} & {{*sys.modules}})"
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        assert process.stdout.split() == []


def test_the_package_itself_imports_nothing() -> None:
    code = "import sys; before = {*sys.modules}; import medaction; print(*{*sys.modules} - before)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    modules = {name.split(".")[0] for name in process.stdout.split()}
    assert modules - sys.stdlib_module_names == {"medaction"}


def test_what_needs_the_extra_for_training_runs_where_it_is_installed() -> None:
    """CI runs the suite as a new user does, without the extra, and then what is marked: a test that
    is skipped for want of it and has no mark would never run."""
    needs = re.compile(r'importorskip\(\s*"(?:deepspeed|torch|transformers|trl)"')
    marked = re.compile(r"pytest\.mark\.(?:train|slow)\b")
    files = [file for file in Path(__file__).parent.glob("test_*.py") if file != Path(__file__)]
    texts = {file.name: file.read_text() for file in files}
    assert [
        name for name, text in texts.items() if needs.search(text) and not marked.search(text)
    ] == []
