"""Lists of ids that may stand in files."""

from pathlib import Path
from typing import Any


def listed_ids(value: Any) -> Any:
    """The ids of a list in which @FILE stands for those in a file, such as `medaction analyse`
    writes of the hardest cases. Raises ValueError where there is no such file."""
    # A wrong type is refused by the setting's own check, with its field's name.
    if not isinstance(value, list):
        return value
    # A PMID in a list of YAML is a number.
    return [id_ for entry in value for id_ in _ids_of(str(entry))]


def _ids_of(entry: str) -> list[str]:
    if not entry.startswith("@"):
        return [entry]
    file = Path(entry[1:])
    if not file.is_file():
        raise ValueError(f"there is no file {file} with case ids")
    return file.read_text(encoding="utf-8").split()
