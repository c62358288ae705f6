"""The folder of graphs and indices."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from medaction.kg.cache import cache_folder, cached_json
folder = cache_folder()
assert cached_json("numbers", "1", lambda: [1]) == [1]
assert (folder / "numbers-1.json").exists()
assert cache_folder() == folder and str(folder).startswith(os.environ["MEDACTION_CACHE"])
print(folder)
"""


def test_without_a_home_a_folder_of_the_process_does_and_is_gone_afterwards() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MEDACTION_CACHE"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | {"HOME": "/proc/none"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not Path(done.stdout.strip()).exists()
    assert "MEDACTION_CACHE" in done.stderr
