"""Graphs from files: PrimeKG's and ClinGraph's own formats, and one for every other graph
(docs/graphs.md).

A graph is read once and kept in the cache under a hash of its files; from there it loads in a
fraction of a second.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medaction.kg.cache import cache_folder
from medaction.kg.graph import Graph, about_graph, build_graph, load_graph, save_graph
from medaction.kg.loaders.clingraph import read_clingraph
from medaction.kg.loaders.files import opened
from medaction.kg.loaders.pair import read_pair
from medaction.kg.loaders.parts import Parts
from medaction.kg.loaders.primekg import PRIMEKG_COLUMNS, read_primekg
from medaction.kg.tables import BadTable
from medaction.words.errors import WrongUse
from medaction.words.versions import code_of, version_of

log = logging.getLogger("medaction")


class NoGraph(WrongUse):
    """There is no such graph; the message says what there is."""


FORMATS: dict[tuple[str, ...], tuple[str, Callable[..., Parts]]] = {
    ("kg",): ("PrimeKG's kg.csv schema", read_primekg),
    ("ClinGraph_nodes", "ClinGraph_edges"): ("ClinGraph's schema", read_clingraph),
    ("nodes", "edges"): ("nodes and edges", read_pair),
}
"""Names of files -> what the format is called, and its reader. PrimeKG's folder has nodes and
edges, too, so it comes first."""

LOADERS = (
    __name__,
    Parts.__module__,
    opened.__module__,
    *(read.__module__ for _, read in FORMATS.values()),
)
"""The modules that decide what is made of a file: when they change, it is read again."""


@dataclass(frozen=True, slots=True)
class Source:
    """The files of a graph, and how they are read. `format` is what the description says."""

    format: str
    read: Callable[..., Parts]
    files: tuple[Path, ...]


def source_of(path: Path) -> Source:
    """What lies at `path`: a `kg.csv`, or a folder with one, with ClinGraph's two files, or with
    nodes and edges.

    One of two files stands for both. Raises BadTable or NoGraph, which say what was expected.
    """
    if not path.exists():
        raise NoGraph(f"{path} does not exist")
    if path.is_dir():
        for names in FORMATS:
            if source := _source(path, names):
                return source
        raise NoGraph(
            f"{path} holds neither kg.csv, nor ClinGraph_nodes.csv and ClinGraph_edges.csv, nor"
            " nodes and edges (docs/graphs.md)"
        )
    for names in FORMATS:
        if path.name.split(".")[0] in names and (source := _source(path.parent, names)):
            return source
    # Under any other name only PrimeKG's form is one single file.
    with opened(path, PRIMEKG_COLUMNS, separators=","):
        return Source(*FORMATS[("kg",)], (path,))


def _source(folder: Path, names: Sequence[str]) -> Source | None:
    """The files of these names, whatever their endings, if all are there."""
    endings = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")
    files = [
        next((file for ending in endings if (file := folder / f"{name}{ending}").is_file()), None)
        for name in names
    ]
    found = tuple(file for file in files if file)
    return Source(*FORMATS[tuple(names)], found) if len(found) == len(names) else None


def import_graph(path: Path, types: Sequence[str] = (), name: str = "", licence: str = "") -> Path:
    """The cached folder of the graph at `path`, which is read if it is new or has changed.

    types: keep only nodes of these types and the edges between them; all by default. name: by
    default the file's or folder's. licence: what is known of the data's licence, for the record.
    Raises BadTable, NoGraph; then nothing is cached.
    """
    source = source_of(path)
    # Resolved: '.' has a name, too.
    name = name or path.resolve().name.split(".")[0]
    version = _version(source, types, name, licence)
    folder = _library() / version
    if not folder.is_dir():
        start = time.perf_counter()
        graph = _graph_of_source(source, sorted(set(types)), name, version)
        # By size and time the next start knows an unchanged file without reading it.
        files = [[str(file.resolve()), *_stamp(file)] for file in source.files]
        save_graph(
            graph,
            folder,
            licence=licence,
            types=sorted(set(types)),
            format=source.format,
            files=files,
        )
        log.info(
            "read %d nodes and %d edges in %.1f s",
            graph.nodes.height,
            len(graph.targets) // 2,
            time.perf_counter() - start,
        )
    os.utime(folder)  # of graphs of one name the one asked for last is meant
    return folder


def _version(source: Source, types: Sequence[str], name: str, licence: str) -> str:
    """A hash of the files' content, of what the loaders do, and of all else that the graph depends
    on."""
    code = code_of(*LOADERS)
    # Sorted: the order in which types are named makes no other graph.
    return version_of([code, source.format, sorted(set(types)), name, licence, source.files])


def _graph_of_source(source: Source, types: Sequence[str], name: str, version: str) -> Graph:
    found = source.read(*source.files)
    nodes, edges = found.nodes, found.edges
    known = sorted(nodes["node_type"].unique()) if nodes.height else []
    if unknown := sorted({*types} - {*known}):
        raise NoGraph(
            f"{found.path} has no nodes of type {', '.join(unknown)}; there are {', '.join(known)}"
        )
    wanted = (
        nodes["node_type"].is_in(types or known).to_numpy()
        if nodes.height
        else np.empty(0, dtype=bool)
    )
    # Rows are numbered anew without gaps; -1 marks what the selection leaves out.
    place = np.where(wanted, np.cumsum(wanted) - 1, -1).astype(np.int32)
    if not wanted.all():
        edges = place[edges[wanted[edges].all(axis=1)]]
    # Self-loops are dropped later, so edges that are all loops are none.
    if not (edges[:, 0] != edges[:, 1]).any():
        raise BadTable(
            found.path,
            1,
            "the graph is empty: no edge joins two of its nodes"
            if nodes.height
            else "the graph has no node",
        )
    numbered = (
        nodes.filter(pl.Series(wanted))
        .with_row_index("node")
        .with_columns(pl.col("node").cast(pl.Int64))
    )
    names = [(int(place[row]), other) for row, other in found.names if wanted[row]]
    description = f"{source.format}, from {', '.join(path.name for path in source.files)}"
    return build_graph(name, numbered, edges, names, version, description)


@cache
def imported_graph(where: str) -> Graph:
    """The graph of this name, or at this path, once a process. Raises NoGraph, BadTable."""
    return load_graph(folder_of(where))


def folder_of(where: str) -> Path:
    """The cached folder of the graph of this name, or at this path (read if need be). Raises
    NoGraph, BadTable."""
    path = Path(where).expanduser()
    if path.exists():
        return _unchanged(path) or import_graph(path)  # neither hashed nor read again
    kept = {about["name"]: folder for folder, about in _cached_graphs()}
    if where not in kept:
        names = ", ".join(sorted(kept)) or "(none yet)"
        raise NoGraph(
            f"no graph {where!r}: it is neither a file or folder nor one of the names {names}"
        )
    return kept[where]


def _unchanged(path: Path) -> Path | None:
    """The newest whole graph that was read from these very files, told by their size and time,
    without reading them."""
    files = [[str(file.resolve()), *_stamp(file)] for file in source_of(path).files]
    return next(
        (
            folder
            for folder, about in reversed([*_cached_graphs()])
            if about.get("files") == files and not about["types"]  # a selection goes by its name
        ),
        None,
    )


def _cached_graphs() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The cached graphs, the one asked for last at the end."""
    # A dot begins the name of a draft, which another process is filling or has left.
    folders = [folder for folder in _library().glob("*") if not folder.name.startswith(".")]
    yield from (
        (folder, about_graph(folder))
        for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime_ns)
    )


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _library() -> Path:
    return cache_folder() / "graphs"
