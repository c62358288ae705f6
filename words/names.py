"""When two names are the same name: one normalisation for graphs, curated tables and linking alike."""

import re
import unicodedata

_AMERICAN = {
    "rrhoea": "rrhea",
    "aemi": "emi",
    "haem": "hem",
    "oedem": "edem",
    "oesoph": "esoph",
    "oestr": "estr",
    "paed": "ped",
    "gynae": "gyne",
    "caec": "cec",
    "coeli": "celi",
    "tumour": "tumor",
    "foet": "fet",
    "anaesth": "anesth",
    "sulph": "sulf",
    "colour": "color",
    "fibre": "fiber",
}
_ROMAN = {
    "i": "1",
    "ii": "2",
    "iii": "3",
    "iv": "4",
    "v": "5",
    "vi": "6",
    "vii": "7",
    "viii": "8",
    "ix": "9",
}
_TYPE = re.compile(r"\btype (i|ii|iii|iv|v|vi|vii|viii|ix)\b")
_BRITISH = re.compile("|".join(_AMERICAN))
_POSSESSIVE = re.compile(r"['’`´]s\b|['’`´]")
_SEPARATOR = re.compile(r"[^a-z0-9+]+")


def normalise(name: str) -> str:
    """`name` without case, accents, possessives and punctuation, in American spelling, types in
    Arabic numerals.

    >>> normalise("Crohn's  Disease"), normalise("Haemorrhagic stroke"), normalise("Sjögren syndrome")
    ('crohn disease', 'hemorrhagic stroke', 'sjogren syndrome')
    >>> normalise("Type II diabetes")
    'type 2 diabetes'
    """
    plain = _POSSESSIVE.sub("", name.casefold())
    letters = "".join(
        c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c)
    )
    american = _BRITISH.sub(lambda found: _AMERICAN[found.group()], letters)
    words = _SEPARATOR.sub(" ", american).strip()
    return _TYPE.sub(lambda found: f"type {_ROMAN[found.group(1)]}", words)
