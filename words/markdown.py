"""Markdown: tables written, marks taken away."""

import re
from collections.abc import Sequence


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table. A bar or a line break inside a cell is made harmless."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [
        "| " + " | ".join(headings) + " |",
        "|" + "---|" * len(headings),
        *("| " + " | ".join(row) + " |" for row in cells),
    ]


def without_markdown(markdown: str) -> str:
    """Markdown without its bold, heading and rule marks; bullets stay."""
    lines = (
        re.sub(r"^\s*#+\s*", "", line).replace("**", "").rstrip()
        for line in markdown.strip().splitlines()
    )
    return "\n".join(line for line in lines if line and not re.fullmatch(r"-{3,}", line))
