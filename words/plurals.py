"""The singular of an English or Latin noun, as medicine writes them.

`inflect` was tried on 67 such words: it makes 'diagnosi' of 'diagnosis', 'ascite' of 'ascites' and
'pancrea' of 'pancreas', and takes 1.2 s to import.
"""

from functools import lru_cache

_SINGULAR_IN_S = """
aids ascites biceps caries diabetes feces gas herpes lens measles meninges mumps pancreas pertussis
pus rabies rickets scabies series species triceps
"""
_IRREGULAR = {
    "bronchi": "bronchus", "calculi": "calculus", "emboli": "embolus", "foci": "focus",
    "fungi": "fungus", "gases": "gas", "indices": "index", "lenses": "lens", "nuclei": "nucleus",
    "phalanges": "phalanx", "testes": "testis", "thrombi": "thrombus", "varices": "varix",
}  # fmt: skip
_ENDINGS = (
    (("sses", "uses", "shes", "tches", "nches", "xes"), 2, ""),  # masses, viruses
    (("tases", "yses", "theses", "reses", "rises"), 2, "is"),  # metastases, analyses
    (("ies",), 3, "y"),
    (("ae",), 1, ""),  # vertebrae
    (("ss", "us", "is"), 0, ""),  # no plurals: mass, virus, diagnosis
    (("s",), 1, ""),
)
"""(endings, letters to drop, letters to add); the first that fits decides."""
_SES = 7
"""Letters from which '-oses' is a Greek plural: 'stenoses', not 'doses' or 'noses'."""


@lru_cache(maxsize=50_000)
def singular(word: str) -> str:
    """The singular of a lower-case `word`; a word that is no plural comes back as it is.

    >>> [singular(word) for word in ("biopsies", "masses", "vertebrae", "metastases", "viruses")]
    ['biopsy', 'mass', 'vertebra', 'metastasis', 'virus']
    >>> [singular(word) for word in ("diagnosis", "ascites", "pus", "virus", "diseases", "labs")]
    ['diagnosis', 'ascites', 'pus', 'virus', 'disease', 'lab']
    """
    # In three letters nothing tells a plural: 'gas', 'pus', 'abs'.
    if len(word) < 4 or word in _SINGULAR_IN_S.split() or not word.isascii():
        return word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    # Before the table, whose endings know nothing of how long a word is.
    if word.endswith("oses") and len(word) >= _SES:
        return f"{word[:-2]}is"
    for endings, dropped, added in _ENDINGS:
        if word.endswith(endings):
            return word[: len(word) - dropped] + added
    return word
