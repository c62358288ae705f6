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
_BRITISH = re.compile("|".join(_AMERICAN))
_POSSESSIVE = re.compile(r"['’`´]s\b|['’`´]")
_SEPARATOR = re.compile(r"[^a-z0-9+]+")


def normalise(name: str) -> str:
    """`name` without case, accents, possessives and punctuation, in American spelling.

    >>> normalise("Crohn's  Disease"), normalise("Haemorrhagic stroke"), normalise("Sjögren syndrome")
    ('crohn disease', 'hemorrhagic stroke', 'sjogren syndrome')
    """
    plain = _POSSESSIVE.sub("", name.casefold())
    letters = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    american = _BRITISH.sub(lambda found: _AMERICAN[found.group()], letters)
    return _SEPARATOR.sub(" ", american).strip()
