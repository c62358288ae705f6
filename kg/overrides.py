"""Links that a user decides: a CSV with the columns text, node_id and, if wished, type."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medaction.kg.graph import Graph
from medaction.kg.tables import BadTable
from medaction.words.names import normalise

TYPES = ("disease", "phenotype", "test")


@dataclass(frozen=True, slots=True)
class Override:
    """`text` is the node `node_id`, or no node if that is ''. type: only where texts are linked to
    this type; '' for all."""

    text: str
    node_id: str
    type: str
    line: int


@dataclass(frozen=True, slots=True)
class Overrides:
    """The rows of one file, checked by `read_overrides`."""

    path: Path
    rows: tuple[Override, ...]

    def of(self, graph: Graph, node_types: Iterable[str]) -> dict[str, int | None]:
        """Normalised text -> node (None: unlinked) for these types of this graph.

        A row whose node is in this graph but of another type belongs to another linker and is
        passed over.
        """
        kinds = set(node_types)
        rows = graph.nodes.select("node_id", "node", "node_type").iter_rows()
        ids = {node_id: node for node_id, node, kind in rows if kind in kinds}
        return {
            normalise(row.text): ids.get(row.node_id)
            for row in self.rows
            if (not row.type or row.type in kinds) and (row.node_id in ids or not row.node_id)
        }

    def check(self, graphs: Iterable[Graph]) -> None:
        """Raises BadTable for a row whose node is in none of the graphs, or there of another type
        than the row says."""
        kinds: dict[str, set[str]] = {}
        for graph in graphs:
            for node_id, kind in graph.nodes.select("node_id", "node_type").iter_rows():
                kinds.setdefault(node_id, set()).add(kind)
        for row in self.rows:
            if row.node_id and row.node_id not in kinds:
                names = ", ".join(graph.name for graph in graphs)
                raise BadTable(
                    self.path,
                    row.line,
                    f"{row.text!r}: no node of {names} has the id {row.node_id!r}",
                )
            if row.node_id and row.type and row.type not in kinds[row.node_id]:
                node_kinds = " or ".join(sorted(kinds[row.node_id]))
                raise BadTable(
                    self.path,
                    row.line,
                    f"{row.text!r}: {row.node_id} is a {node_kinds}, no {row.type}",
                )


def read_overrides(path: Path) -> Overrides:
    """Read the file. Raises FileNotFoundError, and BadTable for a wrong header, a row without text
    or of an unknown type, and a text that is given twice for one type; the line is named."""
    rows: list[Override] = []
    line_of: dict[tuple[str, str], int] = {}
    for line, fields in _lines_of_overrides(path):
        row = Override(
            fields["text"].strip(), fields["node_id"].strip(), fields.get("type", "").strip(), line
        )
        if not normalise(row.text):
            raise BadTable(path, line, "the text is empty")
        if row.type and row.type not in TYPES:
            raise BadTable(
                path,
                line,
                f"{row.type!r} is no type; use one of {', '.join(TYPES)}, or leave it empty",
            )
        # A row without a type holds for every type, so it clashes with a row of any.
        for kind in (row.type,) if row.type else ("", *TYPES):
            if (earlier := line_of.setdefault((normalise(row.text), kind), line)) != line:
                raise BadTable(path, line, f"{row.text!r} stands in line {earlier} already")
        rows.append(row)
    return Overrides(path, tuple(rows))


def _lines_of_overrides(path: Path) -> Iterable[tuple[int, Mapping[str, str]]]:
    # Spreadsheets put a byte order mark before UTF-8.
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Strict: an unclosed quote is an error, not the rest of the file in one field.
        reader = csv.DictReader(file, strict=True)
        if reader.fieldnames not in (["text", "node_id"], ["text", "node_id", "type"]):
            raise BadTable(path, 1, "the columns must be text, node_id and, if wished, type")
        try:
            for row in reader:
                # How DictReader marks a row with too many fields, and one with too few.
                if None in row or None in row.values():
                    raise BadTable(
                        path,
                        reader.line_num,
                        f"a row has {len(reader.fieldnames)} fields; quote a text with commas",
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise BadTable(path, reader.line_num, str(error)) from error
        except UnicodeDecodeError as error:
            # The reader has counted the lines before the one that it could not decode.
            raise BadTable(path, reader.line_num + 1, "is not UTF-8") from error
