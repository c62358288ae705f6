"""Which changes of the constants that decide results do the tests notice?

Run as: python benchmarks/mutants.py            the table of sources, a minute and a half
        python benchmarks/mutants.py --behaviour [--every 5]    the tests that measure what a
                                                                constant decides: minutes each

Every constant of `tests/test_constants.py` is changed, one at a time, in a copy of the checkout:
numbers of things by one, measures by a tenth of themselves. Ends with 1 when fewer than `--least`
changes are noticed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.test_constants import CONSTANTS, Constant  # noqa: E402

TIMEOUT_S = 300
"""Of one run of tests. A change that makes them run for ever is noticed."""


def changed(value: float) -> str:
    """Another value that could as well stand there."""
    return repr(value + 1) if isinstance(value, int) else repr(round(value * 0.9, 6))


def mutate(text: str, constant: Constant) -> str:
    """The module's source with the constant changed. Raises ValueError when it is not there."""
    *classes, name = constant.name.split(".")
    # A number as Python may write it: 24_000, 2e-4, 0.1.
    number = r"(-?[\d_]+(?:\.\d+)?(?:e-?\d+)?)"
    head = re.search(rf"^class {classes[0]}\b", text, re.MULTILINE) if classes else None
    pattern = rf"^{name} = {number}"
    if classes:  # a Pydantic field or a dataclass's
        pattern = rf"^    {name}: [^=]+= (?:Field\(\s*default=)?{number}"
    match = re.compile(pattern, re.MULTILINE).search(text, head.start() if head else 0)
    if match is None or float(match[1]) != constant.value:
        raise ValueError(f"{constant.module}: {constant.name} = {constant.value} is not there")
    return f"{text[: match.start(1)]}{changed(constant.value)}{text[match.end(1) :]}"


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
