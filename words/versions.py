"""Identity: the version of a result is a hash of whatever decides it.

What decides a result is data: settings, constants, texts of questions, contents of tables. Code is
none of it (a reworded comment would make every result new): what code makes of the data, a graph
say, is versioned by its content. Only a cache of files that code wrote must not outlive that code;
its key has `code_of` besides.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def version_of(inputs: Any) -> str:
    """Twelve hex digits that change with `inputs`, and with nothing else.

    `inputs` is data: JSON, records, sets, patterns, and paths (the file's content counts, not its
    name). The order of a dict's keys and of a set does not matter. Raises TypeError for anything
    else, and OSError for a file that cannot be read.
    """
    return json_hash(_as_json(inputs))[:12]


def json_hash(content: Any) -> str:
    """SHA-256 of JSON. Stored things are named by its beginning, so it can never change."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _as_json(item) for key, item in value.items()}
        # JSON writes the keys 1 and '1' alike.
        return _sorted([_as_json(key), _as_json(item)] for key, item in value.items())
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return _sorted(_as_json(item) for item in value)
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, Path):
        return file_hash(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _as_json(asdict(value))
    raise TypeError(f"a {type(value).__name__} has no version: {value!r}")


def _sorted(items: Iterable[Any]) -> list[Any]:
    # By their JSON: items of different types have no order of their own.
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def constants_of(*modules: str) -> dict[str, dict[str, Any]]:
    """Module -> name -> value of every constant (an upper-case name) whose value is data.

    So a threshold, pattern, word list or question that is added to a module counts without being
    listed anywhere. A path to a file counts with the file's content; folders, and objects that are
    no data (a template engine), are left out.
    """
    return {name: _constants(name) for name in modules}


@cache
def _constants(module: str) -> dict[str, Any]:
    constants = {}
    for name, value in vars(import_module(module)).items():
        # `isupper` is true of '_NAME' too: a private pattern decides as much.
        if name.isupper() and not (isinstance(value, Path) and not value.is_file()):
            try:
                constants[name] = _as_json(value)
            except TypeError:
                continue
    return constants


def code_of(*modules: str) -> list[str]:
    """What the modules do, without docstrings, comments and layout. For keys of caches only."""
    return [_syntax(name) for name in modules]


@cache
def _syntax(module: str) -> str:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_bytes())
    for node in ast.walk(tree):
        statements = getattr(node, "body", None)
        if isinstance(statements, list):
            node.body = [item for item in statements if not _is_text(item)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(statement: ast.AST) -> bool:
    """A docstring, of a module, a function or the name above it."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content. Read once a process while the file stays as it is."""
    # The time is part of the cache's key: a file written anew is read anew.
    return _file_hash(path, path.stat().st_mtime_ns)


@cache
def _file_hash(path: Path, _modified: int) -> str:
    return checksum(path)


def checksum(path: Path) -> str:
    """SHA-256 of a file's content as it is now: of a damaged disk the time tells nothing."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
