"""Plain text, Markdown and HTML: one report a file, with a few optional lines before it that tell
what the text itself does not.

    licence: CC BY 4.0
    title: Fever and back pain in a cheesemaker
    date: 2021-03-14
    journal: Reports of Nowhere

    A 41-year-old woman ...

Known are licence (or license), title, date and journal, in any order and case, one a line; a line
'---' before and after them, as in Markdown's front matter, is skipped. The report starts at the
first other line and is kept whole.
"""

import datetime
import re
from collections.abc import Iterator
from pathlib import Path

from medaction.envs.records import BadCase, CaseReport, Loss, id_of_file
from medaction.envs.sources.files import bad_field, read_text
from medaction.words.html_text import without_html

SUFFIXES = (".txt", ".md", ".html", ".htm")
MAX_TEXT_BYTES = 4 * 2**20
MIN_CHARACTERS = 200
"""A shorter text tells no case: a note on the folder, or a file that was cut."""

_HEADER = re.compile(r"(licen[cs]e|title|date|journal)\s*:\s*(\S.*)", re.IGNORECASE)
_PICTURE = re.compile(r"!\[[^\]\n]{0,300}\]\([^)\n]{1,300}\)|<img\b[^>\n]{0,300}>", re.IGNORECASE)
_MARKDOWN_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The one report of `path`, without structure. Its title is the header's, else the first
    heading, else the first line.

    Yields BadCase('empty_body' | 'bad_field' | 'unsafe_id') and what `read_text` raises.
    """
    try:
        yield _case_of_file(path)
    except BadCase as bad:
        yield BadCase(bad.reason, bad.message, bad.case_id, str(path))


def _case_of_file(path: Path) -> CaseReport:
    is_page = path.suffix.lower().startswith(".htm")
    # A line of Markdown is a line; a page's lines are white space.
    page = without_html(read_text(path, MAX_TEXT_BYTES), keeps_lines=not is_page)
    header, text, losses = _header_and_report(page)
    # People pass the list of ids in place of the articles.
    if _are_ids(text):
        raise BadCase(
            "unknown_format",
            f"{path.name} holds article ids and no report; read them with --cases pmc:{path}",
        )
    if len(text) < MIN_CHARACTERS:
        lengths = f"the text has {len(text)} characters, a report has at least {MIN_CHARACTERS}"
        raise BadCase("empty_body", f"{path.name}: {lengths}", path.stem[:100])
    heading = _MARKDOWN_HEADING.search(text)
    title = header.pop("title", "") or (
        heading[1].rstrip(" \t#") if heading else text.split("\n", 1)[0].strip()
    )
    licence = header.pop("licence", None)
    # A wrong date is refused, not dropped: nobody would notice that it is gone.
    if "date" in header:
        if not (date := iso_date(header["date"])):
            message = f"'date: {header['date'][:40]}' must be as 2021, 2021-03 or 2021-03-14"
            raise bad_field(path, "", message)
        header["date"] = date
    case_id = id_of_file(path.stem)
    return CaseReport(
        case_id, "text", title[:300], text, str(path), licence, meta=header, losses=losses
    )


def _are_ids(text: str) -> bool:
    """Whether it is a list of article ids as `medaction.envs.sources.pmc` takes."""
    lines = [line.partition("#")[0].strip() for line in text.split("\n")]
    return any(lines) and all(re.fullmatch(r"PMC\d+", line) for line in lines if line)


def _header_and_report(text: str) -> tuple[dict[str, str], str, tuple[Loss, ...]]:
    """The lines before the report by their name, the report, and what is not read: a name's second
    line, and pictures, of which Markdown holds the address alone."""
    header: dict[str, str] = {}
    again: list[str] = []
    lines = text.strip().split("\n")
    start = 0
    for line in lines:
        # `fullmatch` of a line: 'Title: ...' in the middle of the report is past the header.
        if match := _HEADER.fullmatch(line.strip()):
            name = "licence" if match[1].lower() == "license" else match[1].lower()
            if name in header:
                again.append(line.strip())
            header.setdefault(name, match[2])
        # Blank lines and front matter's rules may stand among the header's lines.
        elif line.strip() not in ("", "---"):
            break
        start += 1
    report = "\n".join(lines[start:]).strip()
    pictures = [match[0] for match in _PICTURE.finditer(report)]
    losses = [
        Loss(kind, len(items), reason, items[0][:120])
        for kind, items, reason in (
            ("header line", again, "its name stands in a line above"),
            ("figure", pictures, "pictures beside the text are not read"),
        )
        if items
    ]
    return header, report, tuple(losses)


def iso_date(text: str) -> str:
    """'2024-7-9' -> '2024-07-09', as precise as it is told (2024, 2024-07); '' when it is no date
    of the calendar."""
    match = re.fullmatch(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?", text.strip())
    if not match:
        return ""
    parts = [int(part) for part in match.groups() if part]
    try:
        # Filled up to a whole date, to be checked by the calendar, then cut to what was told.
        return datetime.date(*[*parts, 1, 1][:3]).isoformat()[: (4, 7, 10)[len(parts) - 1]]
    except ValueError:
        return ""
