"""PubMed Central articles in JATS XML: title, licence, article type, and the body as text with its sections and tables.

The XML is untrusted: no entity is expanded, no network is used, nesting and size are bounded.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from envs.records import BadCase, CaseReport, StructuredCase, check_id
from envs.sources import case_json

MAX_BYTES = 16 * 2**20
"""The largest article that is read; the longest case reports of PMC have well under 1 MB."""

MIN_CHARACTERS = 200
"""A shorter body is no report: abstract-only deposits and scanned articles have none."""

CASE_REPORT = "case-report"
_BLOCKS = {"p", "title", "label", "term"}
_NESTED = {"table-wrap", "fig", "fig-group", "list", "boxed-text", "disp-quote", "def-list", "supplementary-material"}
_LEFT_OUT = {"ref-list", "ack", "fn-group", "object-id", "alternatives", "graphic", "media", "tex-math"}


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """One article, or every `*.xml` of a folder by name. What is no usable case report is yielded as BadCase.

    `<stem>.json` beside `<stem>.xml` (docs/case-format.md) becomes the report's structured part.
    """
    for file in sorted(path.glob("*.xml")) if path.is_dir() else [path]:
        try:
            yield _report(file)
        except BadCase as bad:
            yield BadCase(bad.reason, bad.message, bad.case_id or file.stem[:100], str(file))


def _report(path: Path) -> CaseReport:
    case_id = check_id(path.stem)
    article = _parse(path)
    kind = article.get("article-type", "")
    if kind != CASE_REPORT:
        raise BadCase("not_a_case_report", f"{path.name}: article-type is {kind!r}, not {CASE_REPORT!r}")
    title = _first(article, "front/article-meta/title-group/article-title")
    body = _sections(article.find("body"))
    if len(body) < MIN_CHARACTERS:
        raise BadCase("empty_body", f"{path.name}: the body has {len(body)} characters; only full-text articles can be used")
    return CaseReport(
        case_id=case_id,
        source="jats",
        title=title,
        text="\n\n".join(filter(None, [title, _abstract(article), body])),
        path=str(path),
        licence=_licence(article),
        structured=_structured_beside(path),
        meta={
            "article_type": kind,
            "journal": _first(article, "front/journal-meta//journal-title"),
            "year": _first(article, "front/article-meta/pub-date/year"),
            "doi": _first(article, "front/article-meta/article-id[@pub-id-type='doi']"),
        },
    )


def _structured_beside(path: Path) -> StructuredCase | None:
    beside = path.with_suffix(".json")
    return case_json.read_structured(beside) if beside.exists() else None


def _parse(path: Path) -> etree._Element:
    """The root element. Raises BadCase('unreadable' | 'too_large' | 'bad_xml' | 'hostile_xml')."""
    data = _bytes(path)
    # A real article names the JATS DTD and declares nothing itself; entities of its own are an attack, or need a DTD anyway.
    if re.search(rb"<\0?!\0?E\0?N\0?T\0?I\0?T\0?Y", data):
        raise BadCase("hostile_xml", f"{path.name} declares entities of its own; they are never expanded")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise BadCase("bad_xml", f"{path.name}: {error}") from error
    if not isinstance(root.tag, str) or etree.QName(root).localname != "article":
        raise BadCase("bad_xml", f"{path.name}: the root element is {str(root.tag)[:40]!r}, not 'article'")
    return root


def _bytes(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadCase("too_large", f"{path.name} has {size / 2**20:.0f} MB; at most {MAX_BYTES / 2**20:.0f} are read")
        return path.read_bytes()
    except OSError as error:
        raise BadCase("unreadable", f"{path.name}: {error.strerror}") from error


def _first(article: etree._Element, xpath: str) -> str:
    found = article.find(xpath)
    return _inline(found) if found is not None else ""


def _licence(article: etree._Element) -> str | None:
    """The licence's address where it has one, else its text."""
    licence = article.find("front/article-meta/permissions/license")
    if licence is None:
        return None
    addresses = (
        str(value) for element in licence.iter() for name, value in element.attrib.items() if str(name).endswith("href")
    )
    return next((address for address in addresses if "creativecommons.org" in address), _inline(licence) or None)


def _abstract(article: etree._Element) -> str:
    abstract = article.find("front/article-meta/abstract")
    return "" if abstract is None else _sections(abstract)


def _sections(element: etree._Element | None) -> str:
    """Paragraphs and headings, one a line, an empty line between; a table's rows with ' | ' between cells."""
    return "" if element is None else "\n\n".join(text for text in _paragraphs(element) if text)


def _paragraphs(element: etree._Element) -> Iterator[str]:
    for child in element:
        tag = _tag(child)
        if tag == "tr":
            yield " | ".join(_inline(cell) for cell in child)
        elif tag and tag not in _LEFT_OUT:
            if tag in _BLOCKS:
                yield _inline(child)
            yield from _paragraphs(child)


def _inline(element: etree._Element) -> str:
    """The text of one paragraph, white space collapsed, citations left out. Blocks inside it are paragraphs of their own."""
    text = " ".join("".join(_pieces(element)).split())
    return re.sub(r"\s*\[[\s,;–-]*\]", "", text)


def _pieces(element: etree._Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        tag = _tag(child)
        if isinstance(child, etree._Entity):
            # Named characters such as &nbsp; need the DTD, which is never loaded; those of HTML are the same.
            yield html.unescape(child.text)
        elif tag and tag not in _LEFT_OUT | _NESTED and child.get("ref-type") != "bibr":
            yield from ("^" if tag == "sup" else "", *_pieces(child))
        yield child.tail or ""


def _tag(element: etree._Element) -> str:
    """The local name; empty for entities."""
    return etree.QName(element).localname if isinstance(element.tag, str) else ""
