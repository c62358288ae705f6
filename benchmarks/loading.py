"""What reading a full-size graph costs: CPU seconds, wall seconds and peak memory of a process of
its own, from files and from the cache.

Run as: python benchmarks/loading.py            writes 1.7 GB into a temporary folder
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.synthetic import write_clingraph, write_primekg

_CHILD = """
import json, re, sys, time
from pathlib import Path
Path("/proc/self/clear_refs").write_text("5")  # or the peak would be that of the process that \
started this one
wall = time.perf_counter()
from medaction.kg.loaders import folder_of, import_graph
from medaction.kg.graph import load_graph
imported = time.process_time()
if sys.argv[1] == "read":
    graph = load_graph(import_graph(Path(sys.argv[2])))
else:
    graph = load_graph(folder_of(sys.argv[2]))
    graph.net
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps({"cpu": time.process_time() - imported, "imports": imported, "wall": \
time.perf_counter() - wall,
    "mib": peak / 1024, "nodes": graph.nodes.height, "edges": len(graph.targets) // 2}))
"""


def main() -> None:
    print(f"{'':44} {'CPU s':>6} {'imports':>8} {'wall s':>7} {'MiB':>6}   graph")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | {"MEDACTION_CACHE": str(folder / "cache")}
        for path, write in (
            (folder / "kg.csv", write_primekg),
            (folder / "clingraph", write_clingraph),
        ):
            path.parent.mkdir(exist_ok=True)
            if path.suffix == "":
                path.mkdir()
            rows = write(path)
            for way, what in (
                ("read", f"{path.name}, {rows:,} rows, into the cache"),
                ("load", "from the cache, with rustworkx's graph"),
            ):
                command = [sys.executable, "-c", _CHILD, way, str(path)]
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=True
                )
                found = json.loads(done.stdout)
                print(
                    f"{what:44} {found['cpu']:6.1f} {found['imports']:8.1f} {found['wall']:7.1f}"
                    f" {found['mib']:6.0f}"
                    f"   {found['nodes']:,} nodes, {found['edges']:,} edges",
                    flush=True,
                )


if __name__ == "__main__":
    main()
