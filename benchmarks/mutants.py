"""Which changes of the constants that decide results do the tests notice?

Run as: python benchmarks/mutants.py            the table of sources, a minute and a half
        python benchmarks/mutants.py --behaviour [--every 5]    the tests that measure what a
                                                                constant decides: minutes each

Every constant of `tests/test_constants.py` is changed, one at a time, in a copy of the checkout:
numbers of things by one, measures by a tenth of themselves. Ends with 1 when fewer than `--least`
changes are noticed.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.test_constants import CONSTANTS, Constant  # noqa: E402

TIMEOUT_S = 300
"""Of one run of tests. A change that makes them run for ever is noticed."""


def changed(value: float) -> str:
    """Another value that could as well stand there."""
    return repr(value + 1 if isinstance(value, int) else float(f"{value * 0.9 or 0.1:.6g}"))


def mutate(text: str, constant: Constant) -> str:
    """The module's source with the constant changed. Raises ValueError when it is not there."""
    *owners, name = constant.name.split(".")
    scope: list[ast.stmt] = ast.parse(text).body
    if owners:
        scope = next(node.body for node in scope if getattr(node, "name", "") == owners[0])
    source = text.encode()
    starts = [0, *accumulate(len(line) for line in source.splitlines(keepends=True))]
    for node in scope:
        for target, value in assigned(node):
            if isinstance(target, ast.Name) and target.id == name:
                begin = starts[value.lineno - 1] + value.col_offset
                end = starts[(value.end_lineno or 0) - 1] + (value.end_col_offset or 0)
                if eval(source[begin:end]) == constant.value:
                    return (
                        f"{source[:begin].decode()}{changed(constant.value)}{source[end:].decode()}"
                    )
    raise ValueError(f"{constant.module}: {constant.name} = {constant.value} is not there")


def assigned(node: ast.stmt) -> list[tuple[ast.expr, ast.expr]]:
    """The names of an assignment with the expressions of their values; of a Pydantic field its
    default."""
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        value = node.value
        if isinstance(value, ast.Call):
            defaults = [word.value for word in value.keywords if word.arg == "default"]
            return [(node.target, default) for default in defaults]
        return [(node.target, value)]
    if not isinstance(node, ast.Assign):
        return []
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return [*zip(target.elts, value.elts, strict=True)]
    return [(target, value)]


def notices(checkout: Path, tests: str) -> bool:
    """Whether tests fail in the checkout."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-m", "not slow and not ui", f"tests/{tests}.py"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    try:
        result = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return True
    if result.returncode not in (0, 1):
        raise RuntimeError(result.stdout.decode()[-2000:])
    return result.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--behaviour", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="change every n-th constant only")
    parser.add_argument("--least", type=int, default=25)
    options = parser.parse_args()
    noticed = []
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "medaction"
        ignore = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__")
        shutil.copytree(REPOSITORY, checkout, symlinks=True, ignore=ignore)
        for constant in CONSTANTS[:: options.every]:
            file = checkout / f"{constant.module.replace('.', '/')}.py"
            text = file.read_text(encoding="utf-8")
            file.write_text(mutate(text, constant), encoding="utf-8")
            tests = constant.tests if options.behaviour else "test_constants"
            noticed.append(notices(checkout, tests))
            file.write_text(text, encoding="utf-8")
            state = "noticed" if noticed[-1] else "NOT NOTICED"
            change = f"{constant.value} -> {changed(constant.value)}"
            print(
                f"{constant.module}.{constant.name}: {change}, tests/{tests}.py: {state}",
                flush=True,
            )
    print(f"{sum(noticed)} of {len(noticed)} changes noticed")
    return 0 if sum(noticed) >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
