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


def section(heading: str, *parts: str | Sequence[str]) -> list[str]:
    """The lines of a section: paragraphs (texts) and tables or lists (lines), a blank line before
    each."""
    lines = ["", f"## {heading}"]
    for part in parts:
        lines += ["", part] if isinstance(part, str) else ["", *part]
    return lines


def number(value: float | None, form: str = ".3f") -> str:
    """A cell with a number; empty where none is known."""
    return "" if value is None else f"{value:{form}}"


def span(low: float | None, high: float | None, form: str = ".3f") -> str:
    """A cell with both ends of an interval; empty where there is none."""
    return "" if low is None or high is None else f"{low:{form}} to {high:{form}}"


def without_markdown(markdown: str) -> str:
    """Markdown without its bold, heading and rule marks; bullets stay."""
    lines = (
        re.sub(r"^\s*#+\s*", "", line).replace("**", "").rstrip()
        for line in markdown.strip().splitlines()
    )
    return "\n".join(line for line in lines if line and not re.fullmatch(r"-{3,}", line))


_ROW = re.compile(r"\s*\|(?P<cells>.*)\|\s*")
# The line '|---|:--:|' below a table's headings.
_RULE = re.compile(r"[\s|:-]*-[\s|:-]*")

# Whole headings: a 'Range of motion' and what a 'Referral hospital' measured are results.
_REFERENCE = re.compile(
    r"(?:ranges?|units?|(?:normal|ref(?:erence)?\b\.?)(?: (?:ranges?|intervals?|limits?|values?))?)"
    r"(?: ?\(.*\))?",
    re.IGNORECASE,
)


def tables_as_bullets(markdown: str) -> str:
    """Markdown whose tables are bullets below the line before: the first cell of a row, and
    behind it the others with their headings; a column of plain results needs none.

    >>> tables_as_bullets("| Test | Result | Range |\\n|---|---|---|\\n| K | 6.1 | 3.5-5 |")
    '  - K: 6.1 (Range: 3.5-5)'
    """
    lines: list[str] = []
    headings: list[str] = []
    source = markdown.splitlines()
    for number, line in enumerate(source):
        row = _ROW.fullmatch(line)
        cells = [cell.strip() for cell in row["cells"].split("|")] if row else []
        following = source[number + 1] if number + 1 < len(source) else ""
        if not row:
            headings = []
            lines.append(line)
        # Only the rule below it makes a row the headings.
        elif _ROW.fullmatch(following) and _RULE.fullmatch(following):
            headings = cells
        # Bars without headings above them are no table: the line stays as it is.
        elif not headings:
            lines.append(line)
        elif not _RULE.fullmatch(line):
            label, *values = cells
            results = [
                (heading, value)
                # Rows may lack their last cells, or have more than the headings.
                for heading, value in zip(headings[1:], values, strict=False)
                # '-' in a cell: not measured.
                if value.strip(" -–")
            ]
            # A row of its reference alone was not measured.
            if all(_REFERENCE.fullmatch(heading) for heading, _ in results):
                result = "-"
            # 'K: 6.1', not 'K: Result: 6.1': such a heading tells nothing.
            elif re.fullmatch(r"(?i)results?|values?|findings?|levels?", results[0][0]):
                result = " ".join(
                    [results[0][1], *(f"({head}: {value})" for head, value in results[1:])]
                )
            else:
                result = "; ".join(f"{head}: {value}" for head, value in results)
            lines.append(f"  - {label}: {result}")
    return "\n".join(lines)
