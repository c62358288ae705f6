"""tau_RAC of a graph: the paper's 3 hops belong to ClinGraph, and every other graph has its own.

`medaction kg calibrate` measures it (`medaction.kg.calibration`) and writes it here, beside the
cached graphs; the open test graph brings its own.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from medaction.kg.cache import cache_folder
from medaction.kg.graph import Graph
from medaction.kg.pruning import THRESHOLD
from medaction.kg.tables import BadTable

OPEN_THRESHOLD = 2.0
"""tau_RAC of the open test graph, by `medaction kg calibrate` on 100 AgentClinic cases
(docs/linking.md)."""

PAPER_NODES = {"PrimeKG": 129_375, "ClinGraph": 153_166}
"""Nodes of the graphs that the paper measures on (Chandak et al. 2023, Johnson et al. 2024)."""

PAPER_SHARE = 0.95
"""A file in one of these schemas with fewer than this share of the nodes is another graph: a
selection, or a sample."""


class GraphThreshold(NamedTuple):
    """hops: tau_RAC. origin: where it comes from, for people. known: whether it was measured on
    this graph."""

    hops: float
    origin: str
    known: bool = True


def threshold_of(graph: Graph) -> GraphThreshold:
    """tau_RAC of a test graph: what `kg calibrate` wrote for this version of it, else what it
    brings, else the paper's. Raises BadTable for a file that is no longer what was written."""
    file = threshold_file(graph)
    if file.is_file():
        try:
            about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return GraphThreshold(float(about["threshold"]), f"calibrated on {about['run']}")
        except (ValueError, KeyError, TypeError) as error:
            remedy = "delete it and run `medaction kg calibrate` again"
            raise BadTable(file, 1, f"is damaged ({error}): {remedy}") from error
    if is_papers(graph):
        return GraphThreshold(THRESHOLD, "the paper's, for this graph")
    if graph.is_open:
        return GraphThreshold(OPEN_THRESHOLD, "calibrated for the open test graph")
    return GraphThreshold(THRESHOLD, f"the paper's, not calibrated for {graph.name}", known=False)


def is_papers(graph: Graph) -> bool:
    """Whether this is PrimeKG or ClinGraph as published, told by the files' schema and the number
    of nodes."""
    return any(
        # The description begins with the schema that the files are in; the name is the user's.
        graph.description.startswith(name) and graph.nodes.height >= PAPER_SHARE * nodes
        for name, nodes in PAPER_NODES.items()
    )


def threshold_file(graph: Graph) -> Path:
    """Where the threshold of this version of the graph is kept."""
    return cache_folder() / "thresholds" / f"{graph.version}.json"


def keep_threshold(graph: Graph, hops: float, run: str) -> Path:
    """Write tau_RAC of a graph where `threshold_of` looks, whole or not at all. run: what it was
    measured on."""
    file = threshold_file(graph)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}")
    about = {"graph": graph.name, "version": graph.version, "threshold": hops, "run": run}
    draft.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, file)
    return file
