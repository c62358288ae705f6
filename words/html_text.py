"""Text out of HTML: pages, and strings of JSON that were cut out of pages."""

import re
from html import unescape
from html.parser import HTMLParser

_INLINE = "a|abbr|b|code|em|font|i|mark|small|span|strong|sub|sup|u"
_BLOCK = (
    "blockquote|br|dd|div|dl|dt|h1|h2|h3|h4|h5|h6|hr|li|ol|p|pre|section|table|tbody|td|th|thead"
    "|tr|ul"
)
_CELLS = ("td", "th", "dd")
_TABLES = ("table", "dl")
_ROWS = ("tr", "dt", *_TABLES)
"""What begins or ends a row; a term and what it means are one, too."""
# HTML's own elements alone: '<0.01 mU/l', '<b and c' and '<unknown>' are a report's words.
_ELEMENT = rf"/?(?:html|head|body|img|{_BLOCK}|{_INLINE})(?:\s[^<>]{{0,300}})?/?>"
_TAG = re.compile(rf"<{_ELEMENT}", re.IGNORECASE)
# A page has tags of any name; elsewhere '<' may be 'less than'.
_PAGE = re.compile(r"<(?:html|body)\b", re.IGNORECASE)
_LESS_THAN = re.compile(rf"<(?!{_ELEMENT}|!--|/?(?:script|style)\b)", re.IGNORECASE)
# With its semicolon: `unescape` alone reads '&lt' and '&micro' without one too.
_ENTITY = re.compile(r"&(?:#\d{1,6}|#[xX][\da-fA-F]{1,5}|[A-Za-z]{2,20}\d{0,2});")


class _Text(HTMLParser):
    """The text of a page, a line a block and a cell a tab; what no reader sees is left out."""

    def __init__(self, keeps_lines: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = ""
        self.in_cell = False
        self.in_table = False
        self.keeps_lines = keeps_lines

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        self.in_table = self.in_table or tag in _TABLES
        if tag in ("script", "style", "head"):
            self.hidden = tag
        elif tag in _CELLS:
            self.in_cell = True
            self.parts.append("\t")
        elif tag == "sup" and self.parts and self.parts[-1][-1:].isdigit():
            self.parts.append("^")  # 10<sup>9</sup> is no 109
        # Any tag but an inline one parts two words; 'H<sub>2</sub>O' is one.
        elif tag not in _INLINE.split("|"):
            # A paragraph in a cell, as word processors write each, leaves the row whole; a cell
            # may lack its end.
            self.in_cell = self.in_cell and tag not in _ROWS
            self.parts.append(" " if self.in_cell else "\n")

    def handle_endtag(self, tag: str) -> None:
        self.in_table = self.in_table and tag not in _TABLES
        if tag == self.hidden:
            self.hidden = ""
        # A cell's end adds nothing: the next cell brings its own tab; so does what a term means.
        elif tag in (*_CELLS, "dt"):
            self.in_cell = False
        elif tag not in _INLINE.split("|"):
            self.in_cell = self.in_cell and tag not in _ROWS
            self.parts.append(" " if self.in_cell else "\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            text = data.replace("\xa0", " ")
            keeps = self.keeps_lines and not self.in_table
            self.parts.append(text if keeps else re.sub(r"\s+", " ", text))


def without_html(text: str, keeps_lines: bool = False) -> str:
    """The text of an HTML page or passage; any other text as it is.

    Args:
        keeps_lines: Line ends of the source are lines, as in Markdown with a few tags; in a page
            and between a table's tags they are white space.

    >>> without_html("<p>Fever &amp; <b>chills</b></p>WBC 9 x 10<sup>9</sup>/L, TSH <0.01 mU/l")
    'Fever & chills\\nWBC 9 x 10^9/L, TSH <0.01 mU/l'
    """
    text = _without_comments(text)
    if not _TAG.search(text):
        # JSON that was cut out of pages has entities without any tag.
        return unescape(text).replace("\xa0", " ") if _ENTITY.search(text) else text
    if not _PAGE.search(text):  # 'ferritin <LLN<br>' has one tag; a page has tags of any name
        text = _LESS_THAN.sub("&lt;", text)
    page = _Text(keeps_lines)
    page.feed(text)
    # Hands over the words behind the last tag, which `feed` holds back.
    page.close()
    lines = "".join(page.parts).split("\n")
    return "\n".join(
        line.rstrip() if keeps_lines else line.strip() for line in lines if line.strip()
    )


def _without_comments(text: str) -> str:
    """`text` without '<!-- ... -->', which no reader of a page or of Markdown sees. In one pass:
    a pattern would go to the end anew from each beginning that nothing ends."""
    head, *pieces = text.split("<!--")
    parted = [(piece, *piece.partition("-->")) for piece in pieces]
    return head + "".join(after if end else f"<!--{piece}" for piece, _, end, after in parted)
