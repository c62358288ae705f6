"""PubMed Central articles in JATS XML: title, licence, article type, date, and the body as text
with its sections, tables and captions, wherever publishers put these: in their place, in
<floats-group> behind the body, or in the appendices.

The XML is untrusted: no entity is expanded, no network is used; size, nesting and the number of
elements are bounded.
"""

import html
import re
from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from html.entities import html5
from pathlib import Path
from typing import Any

from lxml import etree

from medaction.envs.grounding import ELSEWHERE
from medaction.envs.patients import patient_of_heading
from medaction.envs.records import BadCase, CaseReport, Loss, StructuredCase, id_of_file
from medaction.envs.sources import case_json
from medaction.envs.sources.files import inside, parse_json, read_bytes, read_text
from medaction.envs.sources.package_list import NO_LICENCE
from medaction.envs.sources.text import iso_date

JATS_SUFFIXES = (".xml", ".nxml")

MAX_ARTICLE_BYTES = 8 * 2**20
"""The largest article that is read; the longest case reports of PMC have well under 1 MB."""

MAX_MARKUP = 500_000
"""Bound on elements, attributes and entities together: each takes about 100 bytes once parsed.
Articles have some thousands."""

MIN_BODY_CHARACTERS = 200
"""A shorter body is no report: abstract-only deposits and scanned articles have none."""

MAX_ROW_SPAN = 20
"""Rows in which a cell that spans several is repeated; a bound, since the number is untrusted."""

MAX_SPANNING = 200
"""Characters of a cell that is repeated: the name of a group of rows, never a paragraph."""

MOST_PATIENTS = 50
"""Run-in headings of patients that an article may have: a bound, as each makes a section."""

ARTICLE_NAME = re.compile(r"(?P<pmcid>PMC[0-9]{1,12})(?:\.(?P<version>[0-9]{1,4}))?")
"""PMC's cloud service names an article's folder, and each file in it, by id and version."""

CASE_REPORT = "case-report"
_OUTSIDE_BODY = ("floats-group", "floats-wrap", "back/app-group", "back/app")
"""Where tables, figures and appendices stand outside the body."""
_RETRACTIONS = {"retraction", "retraction-forward", "partial-retraction", "retracted-article"}
# Every space of Unicode: publishers put thin and fixed ones between number and unit.
_SPACES = {code: " " for code in range(0x3001) if chr(code).isspace()}
_TEX_MARKS = str.maketrans("~", " ", "{}$_")
# An argument in braces that holds braces once more: '{10^{9}}'.
_TEX_ARGUMENT = r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
_TEX_FRACTION = re.compile(rf"\\[cdt]?frac{_TEX_ARGUMENT}{_TEX_ARGUMENT}")
# HTML has most of TeX's names; of these it has none, or for another sign.
_TEX_SIGNS = {name.rstrip(";"): sign for name, sign in html5.items()} | {
    "cdot": "×",
    "circ": "°",
    "degree": "°",
    "neq": "≠",
    "to": "→",
    "it": "",
}
_BLOCKS = {"p", "title", "label", "term", "preformat", "verse-line", "disp-formula"}
_NESTED = set(
    """
    table-wrap fig fig-group list boxed-text disp-quote def-list supplementary-material
    graphic media
    """.split()  # noqa: SIM905
)
_SPACED = _BLOCKS | {"break", "list-item", "td", "th"}
"""What begins a line of its own, so that its words never join those before it."""
_ROWS = ("tr", "row")
"""Rows of the tables of HTML and of CALS, which some publishers' archives still hold."""
_BETWEEN = {"mfrac": "/", "msup": "^"}
"""What a formula shows by places alone: 10 to the power of 9 is not 109."""
_EMPHASIS = ("bold", "italic", "underline")
_UNREAD_TAGS = {"ref-list", "ack", "fn-group", "object-id", "alt-text"}
_READ_BEHIND = {"app-group", "app", "ref-list"}
"""What of the back is read, and the list of references, which is no part of a report."""


def read(path: Path, any_article: bool = False) -> Iterator[CaseReport | BadCase]:
    """The one article of a file, or what is wrong with it as BadCase. `any_article`: other types
    than case reports too.

    `<stem>.json` beside the file (docs/case-format.md) becomes the report's structured part.
    """
    try:
        # 'PMC123.1.xml' is version 1 of PMC123: the version is no part of the id.
        cloud = ARTICLE_NAME.fullmatch(path.stem)
        case_id = id_of_file(cloud["pmcid"] if cloud else path.stem)
        article = parse(read_bytes(path, MAX_ARTICLE_BYTES), path.name)
        structured, licence, held_out = _files_beside(path)
        arguments = (case_id, path.name, str(path), any_article, structured, licence)
        for case in reports_of_article(article, *arguments):
            yield replace(case, evaluation_only=held_out)
    except BadCase as bad:
        yield BadCase(bad.reason, bad.message, bad.case_id or path.stem[:100], str(path))


def reports_of_article(
    article: etree._Element,
    case_id: str,
    name: str,
    path: str,
    any_article: bool = False,
    structured: StructuredCase | None = None,
    licence: str | None = None,
) -> Iterator[CaseReport]:
    """The case report of a parsed article, or one a patient ('<id>-1', '<id>-2', ...) where each
    has a section; `licence` is used where the article names none.

    Raises BadCase('retracted' | 'not_a_case_report' | 'empty_body'), naming the file `name`.
    """
    meta = _metadata_of_article(article)
    title = _first_text(article, "front/article-meta/title-group/article-title")
    # First: a retracted article must be named so, whatever else is wrong with it.
    if _is_retracted(article, title):
        raise BadCase(
            "retracted", f"{name}: the article is retracted, or is the notice of a retraction"
        )
    if meta["article_type"] != CASE_REPORT and not any_article:
        kind = f"article-type is {meta['article_type']!r}, not {CASE_REPORT!r}"
        raise BadCase("not_a_case_report", f"{name}: {kind}; allow it with --allow any-article")
    # Before floats are placed: tables alone make no report.
    length = len(_sections(article.find("body")))
    if length < MIN_BODY_CHARACTERS:
        raise BadCase(
            "empty_body",
            f"{name}: the body has {length} characters; only full-text articles can be used",
        )
    _set_run_in_headings_apart(article)
    # A structured part names one patient already.
    patients = _patients(article) if structured is None else {}
    if patients:
        for number, patient in enumerate(patients, 1):
            own, losses = _of_patient(article, patient)
            case = _report(own, f"{case_id}-{number}", name, path, None, licence, meta)
            case_meta = {**case.meta, "patient": patient}
            yield replace(case, meta=case_meta, losses=(*case.losses, *losses))
        return
    yield _report(article, case_id, name, path, structured, licence, meta)


def _report(
    article: etree._Element,
    case_id: str,
    name: str,
    path: str,
    structured: StructuredCase | None,
    licence: str | None,
    meta: dict[str, str],
) -> CaseReport:
    title = _first_text(article, "front/article-meta/title-group/article-title")
    # Only now: `_of_patient` has removed floats by where they stood.
    _place_floats(article)
    body = _sections(article.find("body"))
    # What no section cites stays behind the body.
    apart = [_sections(part) for place in _OUTSIDE_BODY for part in article.iterfind(place)]
    return CaseReport(
        case_id=case_id,
        source="jats",
        title=title,
        text="\n\n".join(filter(None, [title, _sections(_abstract_of(article)), body, *apart])),
        path=path,
        licence=_licence(article) or licence,
        structured=structured,
        meta={key: value for key, value in meta.items() if value},
        losses=tuple(_losses_of_article(article)),
    )


def _place_floats(article: etree._Element) -> None:
    """Move each table and figure from behind the body to the end of the section that cites it
    first: there it is read as part of the case, or of a discussion of others."""
    citing: dict[str, etree._Element] = {}
    for section in article.iterfind("body//sec"):
        for reference in section.iter("xref"):
            # The nearest section: a section holds its subsections' references as well.
            nearest = next(reference.iterancestors("sec"), None)
            if nearest is section:
                for name in reference.get("rid", "").split():
                    citing.setdefault(name, section)
    # A list first: moving elements while iterating over them would skip some.
    for element in list(_floats(article)):
        if (cited_in := citing.get(element.get("id", ""))) is not None:
            cited_in.append(element)


def _floats(article: etree._Element) -> Iterator[etree._Element]:
    """The tables and figures that stand outside the body."""
    for place in _OUTSIDE_BODY:
        for part in article.iterfind(place):
            yield from part.iter("table-wrap", "fig", "boxed-text")


def _set_run_in_headings_apart(article: etree._Element) -> None:
    """Make sections of the paragraphs that several patients' names open in bold or italics side by
    side: '<p><bold>Case 1.</bold> A man ...</p>', with what follows each up to the next one."""
    openings: dict[etree._Element, set[etree._Element]] = {}
    for paragraph in article.iterfind("body//p"):
        first, parent = next(iter(paragraph), None), paragraph.getparent()
        if first is None or parent is None or (paragraph.text or "").strip():
            continue
        titles = (_first_text(part, "title") for part in paragraph.iterancestors("sec"))
        # The patients of a discussion are those of others.
        if any(ELSEWHERE.fullmatch(title.lstrip("0123456789. ")) for title in titles):
            continue
        if first.tag in _EMPHASIS and patient_of_heading(_inline(first)):
            openings.setdefault(parent, set()).add(paragraph)
        if sum(map(len, openings.values())) > MOST_PATIENTS:
            return
    for parent, paragraphs in openings.items():
        section = None
        for child in list(parent) if len(paragraphs) > 1 else ():
            if child in paragraphs:
                section, heading = etree.Element("sec"), child[0]
                child.addprevious(section)
                etree.SubElement(section, "title").text = _inline(heading).strip(" .:")
                child.text = (heading.tail or "").lstrip(" .:")
                child.remove(heading)
            # What has a heading of its own ('Discussion') is of all patients.
            if child.tag == "sec":
                section = None
            if section is not None:
                section.append(child)


def _patients(article: etree._Element) -> dict[str, etree._Element]:
    """The sections that are each headed by one patient ('2.1. Case 1', '2.2. Case 2'), by their
    headings; empty unless there are several side by side."""
    body = article.find("body")
    for section in [] if body is None else [body, *body.iter("sec")]:
        headed = {_first_text(part, "title"): part for part in section.iterfind("sec")}
        own = {title: part for title, part in headed.items() if patient_of_heading(title)}
        if len(own) > 1:
            return own
    return {}


def _of_patient(article: etree._Element, heading: str) -> tuple[etree._Element, list[Loss]]:
    """A copy of the article without the other patients' sections, and without the tables and
    figures behind the body that those cite: of a table of all patients nobody's column is told."""
    # A copy: every patient's report begins from the whole article.
    own = deepcopy(article)
    sections = _patients(own)
    others = [section for title, section in sections.items() if title != heading]
    cited = {
        reference
        for section in others
        for element in section.iter("xref")
        for reference in element.get("rid", "").split()
    }
    floats = [element for element in _floats(own) if element.get("id") in cited]
    losses = [
        Loss("section", len(others), "it tells of another patient", _first_text(others[0], "title"))
    ]
    if floats:
        reason = "another patient's section cites it"
        losses.append(Loss("table or figure", len(floats), reason, floats[0].get("id", "")))
    for element in (*others, *floats):
        element.getparent().remove(element)  # type: ignore[union-attr]
    return own, losses


def _losses_of_article(article: etree._Element) -> Iterator[Loss]:
    """What the text does not hold of an article: pictures, files, reviews and the back's notes."""
    parts = {
        ("figure", "it has no caption"): [
            figure for figure in article.iter("fig") if figure.find("caption") is None
        ],
        ("table", "it is a picture or a file"): [
            table for table in article.iter("table-wrap") if next(table.iter(*_ROWS), None) is None
        ],
        ("supplement", "files beside the article are not read"): [
            *article.iter("supplementary-material")
        ],
        ("sub-article", "reviews, replies and translations are not the report"): [
            *article.iterfind("sub-article"),
            *article.iterfind("response"),
        ],
        ("section", "it stands behind the body, among the notes"): [
            part for part in article.iterfind("back/*") if _tag(part) not in _READ_BEHIND
        ],
        ("abstract", "one abstract is read"): [
            part
            for name in ("abstract", "trans-abstract")
            for part in article.iterfind(f"front/article-meta/{name}")
            if part is not _abstract_of(article)
        ],
    }
    for (kind, reason), elements in parts.items():
        if elements:
            sample = " ".join(_sections(elements[0])[:200].split())
            yield Loss(kind, len(elements), reason, sample or elements[0].get("id", ""))


def harmless_parser() -> etree.XMLParser:
    """Reads untrusted XML: nothing is fetched or expanded."""
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        # `huge_tree` would lift lxml's own bounds on depth and text.
        huge_tree=False,
        load_dtd=False,
        remove_comments=True,
        remove_pis=True,
    )


def parse(data: bytes, name: str) -> etree._Element:
    """The 'article' element of a JATS document or of an E-utilities answer around one, its names
    without namespaces.

    Raises BadCase('too_large' | 'bad_xml' | 'hostile_xml'), naming the file `name`.
    """
    # Counted in bytes, before a parser sees them.
    if len(data) > MAX_ARTICLE_BYTES or sum(map(data.count, (b"<", b"=", b"&"))) > MAX_MARKUP:
        raise BadCase(
            "too_large",
            f"{name}: more than {MAX_ARTICLE_BYTES / 2**20:.0f} MB or {MAX_MARKUP:,} elements",
        )
    # A real article names the JATS DTD and declares nothing itself; entities of its own are an
    # attack, or need a DTD anyway.
    # UTF-16 and UTF-32 have NULs between the letters.
    if re.search(rb"<\0{0,3}!\0{0,3}E\0{0,3}N\0{0,3}T\0{0,3}I\0{0,3}T\0{0,3}Y", data):
        raise _hostile(name)
    try:
        root = etree.fromstring(data, harmless_parser())
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadCase("bad_xml", f"{name}: {str(error)[:300] or 'no XML'}") from error
    declared: Any = root.getroottree().docinfo.internalDTD
    # Entities in an encoding that the search cannot see through.
    if declared is not None and any(True for _ in declared.iterentities()):
        raise _hostile(name)
    # Journals use namespaces, or not, or prefixes of their own.
    for element in root.iter(etree.Element):
        element.tag = etree.QName(element).localname
    articles = root.findall("article") if root.tag == "pmc-articleset" else [root]
    if len(articles) > 1:
        fault = f"{name}: it holds {len(articles)} articles; give each a file of its own"
        raise BadCase("bad_xml", fault)
    if not articles or articles[0].tag != "article":
        fault = f"{name}: the root element is {str(root.tag)[:40]!r}, not 'article'"
        raise BadCase("bad_xml", fault)
    return articles[0]


def pmcid_of(article: etree._Element) -> str:
    """'PMC' and digits, or '' where the article does not tell."""
    # Newer articles mark it 'pmcid', older ones 'pmc' with or without the letters.
    for kind in ("pmcid", "pmc"):
        number = _first_text(
            article, f"front/article-meta/article-id[@pub-id-type='{kind}']"
        ).removeprefix("PMC")
        if re.fullmatch(r"[0-9]{1,12}", number):
            return f"PMC{number}"
    return ""


def is_open_access(article: etree._Element) -> bool:
    """Whether PMC marks the article as one of its open access subset, or its licence is one of
    Creative Commons."""
    marks = {
        _first_text(mark, "meta-name"): _first_text(mark, "meta-value")
        for mark in article.iter("custom-meta")
    }
    mark = marks.get("pmc-prop-open-access")
    # A mark 'no' counts more than a licence.
    return mark == "yes" or (
        mark is None and bool(re.search(r"(?i)creative\s?commons", _licence(article) or ""))
    )


def _files_beside(path: Path) -> tuple[StructuredCase | None, str | None, bool]:
    """The structured part that stands beside an article with its licence and whether it is for
    evaluation only, or the licence that PMC's cloud service tells there."""
    beside = path.with_suffix(".json")
    if not beside.exists():
        return None, None, False
    # A link beside an article could show any file of the machine in a report.
    if not inside(beside, path.parent):
        raise BadCase(
            "outside_folder", f"{beside.name} is a link that leads out of its folder; copy the file"
        )
    value = parse_json(read_text(beside), beside)
    # PMC's cloud service has a JSON of its own there: licence and retraction.
    if isinstance(value, dict) and "pmcid" in value and not case_json.is_case(value):
        if value.get("is_retracted") is True:
            raise BadCase("retracted", f"{beside.name}: the article is retracted")
        code = str(value.get("license_code") or "").strip()
        return None, code if code.casefold() not in NO_LICENCE else None, False
    case = case_json.read_case(beside)
    return case.structured, case.licence, case.evaluation_only


def _hostile(name: str) -> BadCase:
    return BadCase("hostile_xml", f"{name} declares entities of its own; they are never expanded")


def _is_retracted(article: etree._Element, title: str) -> bool:
    """PMC's marks: the article's type, a link to the notice, or the word before the title."""
    notices = article.iterfind("front//related-article")
    # The notice of a retraction links to the retracted article, which is marked as such.
    types = {article.get("article-type", "")}
    types |= {notice.get("related-article-type", "") for notice in notices}
    return bool(types & _RETRACTIONS) or says_retracted(title)


def says_retracted(title: str) -> bool:
    """Whether a title is a retracted article's, or a notice's of it.

    >>> says_retracted("RETRACTED: A rare cause of fever"), says_retracted("A retracted testis")
    (True, False)
    """
    notice = r"\W*(?:(?:retracted|withdrawn)\b(?: article)?\W*:|retract(?:ed article|ion not\w+)\b)"
    return re.match(notice, title, re.IGNORECASE) is not None


def _metadata_of_article(article: etree._Element) -> dict[str, str]:
    return {
        "pmcid": pmcid_of(article),
        "doi": _first_text(article, "front/article-meta/article-id[@pub-id-type='doi']"),
        "journal": _first_text(article, "front/journal-meta//journal-title"),
        "date": _date(article),
        "article_type": article.get("article-type", ""),
    }


def _date(article: etree._Element) -> str:
    """When it was published, in print or online: the most precise date, of equally precise ones the
    first. '' if not told."""
    dates = [
        _iso(date)
        for date in article.iterfind("front/article-meta/pub-date")
        # The day that PMC or an author's manuscript got it is no publication.
        if (date.get("pub-type") or date.get("date-type")) not in ("pmc-release", "nihms-submitted")
    ]
    return min(dates, key=lambda date: (-len(date), date), default="")


def _iso(date: etree._Element) -> str:
    """As many of year, month and day as are told and make a date of the calendar."""
    parts = [_first_text(date, part) for part in ("year", "month", "day")]
    # '2021-13-01' is none: month and day go where they make no date.
    dates = (iso_date("-".join(parts[:count])) for count in (3, 2, 1))
    return next(filter(None, dates), "")


def _first_text(article: etree._Element, xpath: str) -> str:
    element = article.find(xpath)
    return _inline(element, _NESTED) if element is not None else ""


def _licence(article: etree._Element) -> str | None:
    """The licence's address where it has one, else its text."""
    licence = article.find("front/article-meta/permissions/license")
    if licence is None:
        return None
    addresses = [
        str(value)
        for element in licence.iter()
        for name, value in element.attrib.items()
        if str(name).endswith("href")
    ]
    addresses += [_inline(element) for element in licence.iter("license_ref")]
    return next(
        # Creative Commons' address first: others lead to the publisher's terms.
        (address for address in addresses if "creativecommons.org" in address),
        _inline(licence, _NESTED) or None,
    )


def _abstract_of(article: etree._Element) -> etree._Element | None:
    """The abstract that is read: one without a type, before teasers, highlights and pictures."""
    abstracts = article.findall("front/article-meta/abstract")
    return min(abstracts, key=lambda abstract: "abstract-type" in abstract.attrib, default=None)


def _sections(element: etree._Element | None) -> str:
    """Paragraphs and headings, one a line, an empty line between; a table's rows with ' | ' between
    cells."""
    return "" if element is None else "\n\n".join(text for text in _paragraphs_of(element) if text)


def _paragraphs_of(element: etree._Element) -> Iterator[str]:
    spanning: dict[int, tuple[int, int, str]] = {}
    for child in element:
        tag = _tag(child)
        if tag in _ROWS:
            yield " | ".join(_cells_of_row(child, spanning))
        elif tag == "alternatives":
            # The same thing in several forms, a table and a picture of it, say: the first text.
            forms = (
                [text for text in _paragraphs_of(form) if text]
                for form in child.iterchildren(etree.Element)
                if form.tag not in _UNREAD_TAGS
            )
            yield from next(filter(None, forms), [])
        # 'Opening pressure: 34 cm H2O': a term and what it is belong together.
        elif tag == "def-item":
            term, *rest = [*filter(None, _paragraphs_of(child)), ""]
            yield ": ".join(filter(None, [term, *rest[:1]]))
            yield from rest[1:]
        # A table's own footnotes explain its values; those of the article do not.
        elif tag and (
            tag not in _UNREAD_TAGS or (tag, element.tag) == ("fn-group", "table-wrap-foot")
        ):
            if tag in _BLOCKS:
                yield _inline(child)
            yield from _paragraphs_of(child)


def _cells_of_row(row: etree._Element, spanning: dict[int, tuple[int, int, str]]) -> Iterator[str]:
    """The cells of one row, those that span it from above in their columns. `spanning`: column ->
    rows that are left, columns, and the cell's text; changed to what spans the next row."""
    column = 0
    cells = deque(cell for cell in row if _tag(cell))
    parent = row.getparent()
    heads = parent is not None and _tag(parent) == "thead"
    while cells or column in spanning:
        if column in spanning:
            # A cell from above takes its column before the row's own next cell does.
            rows, width, text = spanning.pop(column)
        else:
            cell = cells.popleft()
            text = _inline(cell, set())
            # CALS counts the rows behind the first.
            rows = _span(cell, "rowspan") + _span(cell, "morerows", 0)
            width = _span(cell, "colspan")
        yield text
        # What stands behind a wide cell keeps its column; a line of its own needs none.
        if cells or column + width in spanning or (heads and column):
            yield from [text if heads and len(text) <= MAX_SPANNING else ""] * (width - 1)
        # Long text would be repeated in each row: it is no heading of rows.
        if rows > 1 and len(text) <= MAX_SPANNING:
            spanning[column] = rows - 1, width, text
        column += width


def _span(cell: etree._Element, name: str, default: int = 1) -> int:
    number = cell.get(name, "").strip()
    return min(int(number), MAX_ROW_SPAN) if re.fullmatch(r"[0-9]{1,4}", number) else default


def _inline(element: etree._Element, apart: set[str] = _NESTED | _BLOCKS) -> str:
    """The text of one paragraph, white space collapsed, citations left out.

    What is in `apart` is left to the caller; blocks inside a paragraph are paragraphs of their own,
    those of a cell are not.
    """
    text = "".join(_pieces(element, _UNREAD_TAGS | apart)).translate(_SPACES)
    while "  " in text:  # unlike split(), takes no memory for each word
        text = text.replace("  ", " ")
    text = text.strip()
    # A citation's brackets are empty once the citation is out.
    return re.sub(r"\s*\[[\s,;–-]*\]", "", text)


def _pieces(element: etree._Element, left_out: set[str]) -> Iterator[str]:
    yield element.text or ""
    for number, child in enumerate(element):
        tag = _tag(child)
        if isinstance(child, etree._Entity):
            # Named characters such as &nbsp; need the DTD, which is never loaded; those of HTML are
            # the same.
            yield html.unescape(child.text)
        elif tag == "tex-math":
            # The same formula stands beside it as MathML, or nowhere else.
            if element.find("math") is None:
                yield _plain_formula(child.text or "")
        elif tag in left_out:
            # 'Findings:<list>...</list>Later he ...'
            yield " " if (child.tail or "")[:1].isalnum() else ""
        # 'bibr': a number of the reference list, which would look like a value.
        elif tag and child.get("ref-type") != "bibr":
            text = "".join(_pieces(child, left_out))
            space = " " if tag in _SPACED else ""
            # '10<sup>9</sup>' must not become 109; nothing is raised where citations were.
            cites = tag == "sup" and child.find(".//xref[@ref-type='bibr']") is not None
            if not cites or any(map(str.isalnum, text)):
                power = "^" if tag == "sup" else _BETWEEN.get(_tag(element), "") if number else ""
                yield f"{space}{power}{text}{space}"
        yield child.tail or ""


def _plain_formula(tex: str) -> str:
    r"""A formula in words: '2 \times 10^{9}/\text{L}' is '2 × 10^9/L', '\frac{a}{b}' is 'a/b'."""
    formula = re.sub(r"(?s)^.*\\begin\{document\}|\\end\{document\}.*$", "", tex)
    # As deep as fractions stand in fractions; a bound, since the text is untrusted.
    for _ in range(3):
        formula = _TEX_FRACTION.sub(r"\1/\2", formula)
    formula = re.sub(r"\\(?=(?:log|lg|ln|exp|min|max)(?![A-Za-z]))", "", formula)
    formula = re.sub(r"\\([A-Za-z]+)(?:(\s*\{)|\s*)", _plain_command, formula)
    formula = re.sub(r"\\([%&#_$])", r"\1", re.sub(r"\\[\\,;:! ]", " ", formula))
    return formula.translate(_TEX_MARKS).replace("^°", "°")


def _plain_command(command: re.Match[str]) -> str:
    r"""'μ' of '\mu g', ' ≤ ' of '\leq 5'; a command before a brace that is no sign is a way of
    writing, '\mathrm{Na}'."""
    name = command[1]
    # 'upmu' and 'varDelta' are letters in another type.
    sign = _TEX_SIGNS.get(name) or _TEX_SIGNS.get(name.removeprefix("up").removeprefix("var"), "")
    if not sign:
        return "" if command[2] else " "
    return sign if sign.isalpha() or sign == "°" else f" {sign} "


def _tag(element: etree._Element) -> str:
    """The name; empty for entities."""
    return element.tag if isinstance(element.tag, str) else ""
