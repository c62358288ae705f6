"""In which script a text is written: what decides whether two texts can be compared."""

import re
import unicodedata
from collections import Counter

_ASCII_LETTERS = re.compile("[A-Za-z]+")
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HANGUL")


def script_of(text: str) -> str:
    """The script of most letters, by the first word of their Unicode names: 'latin', 'cyrillic',
    'cjk'; '' without letters. A few Greek letters stand for analytes and do not
    count.

    >>> script_of("Саркоидоз"), script_of("结节病, stage II"), script_of("α-fetoprotein 8 µg/L")
    ('cyrillic', 'cjk', 'latin')
    """
    # Letter by letter is slow, and most letters of most reports are these.
    others, ascii_runs = _ASCII_LETTERS.subn("", text)
    names = (unicodedata.name(c, "").partition(" ")[0] for c in others if c.isalpha())
    counts = Counter({"LATIN": len(text) - len(others)} if ascii_runs else {})
    counts.update("CJK" if name in ("HIRAGANA", "KATAKANA") else name for name in names)
    if is_unspaced(text):  # one such letter tells as much as a Latin word
        counts["CJK"] *= 5
    # 'µ' has a name of its own in Unicode.
    counts.pop("MICRO", None)
    if counts["GREEK"] < sum(counts.values()) / 2:
        del counts["GREEK"]
    return counts.most_common(1)[0][0].casefold() if counts else ""


def is_unspaced(text: str) -> bool:
    """Whether a text has letters of a script that writes no spaces between words, or, as Korean,
    a syllable in each letter."""
    return not text.isascii() and any(
        unicodedata.name(c, "").startswith(_UNSPACED)
        for c in _ASCII_LETTERS.sub("", text)
        if c.isalpha()
    )
