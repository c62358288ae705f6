"""When two names are the same name: one normalisation for graphs, tables, tests and diagnoses.

`normalise` keeps the letters of every script, so that two tests with Russian or Chinese names stay
two tests.
"""

import re
import unicodedata
from functools import lru_cache

GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "κ": "kappa",
    "λ": "lambda", "μ": "u", "ω": "omega",
}  # fmt: skip
"""Letters that stand in names of analytes, genes and chains ('β-hCG', 'κ light chain')."""

_AMERICAN = {
    "oedem": "edem", "oesoph": "esoph", "oestr": "estr", "coeli": "celi", "foet": "fet",
    "rrhoe": "rrhe", "amoeb": "ameb", "manoeuvre": "maneuver", "tumour": "tumor",
    "colour": "color", "sulph": "sulf", "fibre": "fiber", "titre": "titer", "centre": "center",
    "ae": "e",
}  # fmt: skip
"""British spelling -> American; 'ae' at the end of a word is a Latin plural and stays."""

_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9}
# Not at the end: 'vertebrae' is a plural, no spelling of 'vertebre'.
_BRITISH = re.compile("|".join(_AMERICAN).replace("|ae", r"|ae(?=[a-z])"))
# Behind 'type' alone: elsewhere 'v' and 'i' are words or initials.
_TYPE = re.compile(rf"\btype ({'|'.join(_ROMAN)})\b")
# The s of 'Crohn's' goes, that of "O'Sullivan" stays.
_APOSTROPHE = re.compile("['’‘`´]s?(?![a-z])|['’‘`´]")
_LONE_GREEK = re.compile(r"(?<![α-ω])[αβγδεκλμω](?![α-ω])")  # a letter of a Greek word stays
# '+' stays: 'HER2+' and 'HER2' differ.
_SEPARATOR = re.compile("[^a-z0-9+]+")
_LATIN_AND_GREEK_END = "\u0400"
"""The first character of Cyrillic: accents are dropped below it only. In 'й' or 'が' the mark makes
another letter."""

_NO_LETTER = re.compile(r"[^\w+ ]|_")
"""What stands between words, and the marks of letters in scripts beyond Greek."""


@lru_cache(maxsize=50_000)
def normalise(name: str) -> str:
    """`name` in lower case with single spaces: without Latin accents, possessives and punctuation,
    in American spelling, types in Arabic numerals, lone Greek letters as words.

    >>> normalise("Crohn's  Disease"), normalise("Sjögren syndrome"), normalise("β-hCG")
    ('crohn disease', 'sjogren syndrome', 'beta hcg')
    >>> normalise("Haemorrhagic stroke"), normalise("Type II diabetes"), normalise("Chest_X-Ray")
    ('hemorrhagic stroke', 'type 2 diabetes', 'chest x ray')
    >>> normalise("Общий анализ крови"), normalise("血常规")
    ('общий анализ крови', '血常规')
    """
    text = name.casefold()
    # Most names are: they need none of the Unicode tables.
    if text.isascii():
        words = _SEPARATOR.sub(" ", _APOSTROPHE.sub("", text)).strip()
    else:
        words = _letters_of_any_script(text)
    words = _BRITISH.sub(lambda match: _AMERICAN[match[0]], words)
    return _TYPE.sub(lambda match: f"type {_ROMAN[match[1]]}", words)


def _letters_of_any_script(text: str) -> str:
    # `casefold` again: NFKC makes capitals of signs such as '℃'.
    text = unicodedata.normalize("NFKC", _APOSTROPHE.sub("", text)).casefold()
    letters, base = [], ""
    for character in unicodedata.normalize("NFD", text):
        if not unicodedata.combining(character):
            base = character
        elif base < _LATIN_AND_GREEK_END:
            continue
        letters.append(character)
    # Put together again: 'й' came apart into a letter and a mark.
    plain = unicodedata.normalize("NFC", "".join(letters))
    plain = _LONE_GREEK.sub(lambda match: GREEK[match[0]], plain)
    # Vowel signs ('हि') are marks, no letters to `\w`; without them words fall apart.
    marked = _NO_LETTER.sub(
        lambda match: match[0] if unicodedata.category(match[0])[0] == "M" else " ", plain
    )
    return " ".join(marked.split())
