"""What two public sources say that tests can show: MAxO (procedures) and LOINC2HPO (laboratory
tests). The user brings the files.

MAxO's annotations tell through which procedure a finding is observed; LOINC2HPO which finding an
abnormal result means.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medaction.kg.hpo import read_terms, text_of_file
from medaction.kg.synthea import loinc_names
from medaction.kg.tables import BadTable

MAXO_ANNOTATIONS = "maxo_diagnostic_annotations.tsv"
MAXO_TERMS = "maxo.obo"
LOINC_ANNOTATIONS = "loinc2hpo-annotations.tsv"

_VISITS = frozenset(
    {
        "clinical assessment",
        "dysmorphology assessment",
        "medical action",
        "radiograph imaging procedure",
        "diagnostic procedure",
    }
)
"""Seeing a specialist is no test. 'Clinical assessment' observes 1,296 findings: through it all of
them would be neighbours."""

_ABNORMAL = {"L", "H", "A", "POS"}  # low, high, abnormal, positive; not N and NEG
_SPECIMEN = re.compile(r" \[[^\]]*\]| by .*$|/.*$|\.total\b|, total\b")


@dataclass(frozen=True, slots=True)
class Observed:
    """One procedure and the findings (HPO ids) that it shows. `names`: the most usual first."""

    id: str
    names: tuple[str, ...]
    finds: tuple[str, ...]


def read_maxo(folder: Path) -> list[Observed]:
    """The procedures of `folder`, which holds MAXO_ANNOTATIONS and MAXO_TERMS, each plain or as
    .gz.

    Raises FileNotFoundError naming what is missing, BadTable for a file of another form.
    """
    path = _file(folder, MAXO_ANNOTATIONS)
    _, terms = read_terms(_file(folder, MAXO_TERMS))
    labels: dict[str, str] = {}
    # Dicts for sets: in a set's order, which no two processes share, the cached graph would be new.
    finds: dict[str, dict[str, None]] = defaultdict(dict)
    for line, row in _rows_of_source(path, ("hpo_id", "predicate_id", "maxo_id", "maxo_label")):
        if not row["hpo_id"].startswith("HP:") or not row["maxo_id"].startswith("MAXO:"):
            raise BadTable(
                path, line, f"{row['hpo_id']!r} and {row['maxo_id']!r} are no ids of HPO and MAxO"
            )
        label = row["maxo_label"]
        is_visit = label in _VISITS or label.endswith("evaluation")
        if row["predicate_id"] == "is_observable_through" and not is_visit:
            labels[row["maxo_id"]] = label
            finds[row["maxo_id"]][row["hpo_id"]] = None
    synonyms = {key: terms[key].synonyms if key in terms else () for key in labels}
    return [
        Observed(key, (_name_of_procedure(label), label, *synonyms[key]), tuple(finds[key]))
        for key, label in labels.items()
    ]


def read_loinc2hpo(folder: Path) -> list[Observed]:
    """The laboratory tests of `folder`, which holds LOINC_ANNOTATIONS, plain or as .gz.

    The file has codes without names; only those that Synthea names (about 130 common ones) are of
    use and are returned. Raises FileNotFoundError naming what is missing, BadTable for a file of
    another form.
    """
    path = _file(folder, LOINC_ANNOTATIONS)
    names = loinc_names()
    finds: dict[str, dict[str, None]] = defaultdict(dict)
    for line, row in _rows_of_source(path, ("loincId", "outcome", "hpoTermId")):
        if not row["hpoTermId"].startswith("HP:"):
            raise BadTable(path, line, f"{row['hpoTermId']!r} is no id of HPO")
        if row["outcome"] in _ABNORMAL and row["loincId"] in names:
            finds[row["loincId"]][row["hpoTermId"]] = None
    return [
        Observed(f"LOINC:{code}", _names_of_loinc(names[code]), tuple(measured))
        for code, measured in finds.items()
    ]


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} holds no {name} (or {name}.gz)")


def _rows_of_source(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) of a table with tabs, a header and comments that start with '#'. Raises
    BadTable.
    """
    lines = [
        (number, line)
        for number, line in enumerate(text_of_file(path).splitlines(), 1)
        if not line.startswith("#")
    ]
    header = lines[0][1].split("\t") if lines else []
    if missing := [column for column in columns if column not in header]:
        raise BadTable(path, lines[0][0] if lines else 1, f"the column {missing[0]!r} is missing")
    for number, line in lines[1:]:
        fields = line.split("\t")
        if len(fields) != len(header):
            raise BadTable(path, number, f"a row has {len(header)} fields")
        yield number, dict(zip(header, fields, strict=True))


def _name_of_procedure(label: str) -> str:
    """'chest radiograph procedure' -> 'Chest radiograph'."""
    plain = label.removesuffix(" procedure")
    return plain[0].upper() + plain[1:]


def _names_of_loinc(name: str) -> tuple[str, ...]:
    """'Glucose [Mass/volume] in Blood' may be called that, 'Glucose in Blood' or 'Glucose'; the
    name itself stands first.

    What is measured in urine is never called by the analyte alone.
    """
    short = _SPECIMEN.sub("", name).strip()
    analyte = short.partition(" in ")[0]
    # 'Protein' or 'Bacteria' alone says neither of what specimen nor which test.
    bare = () if "urine" in name.casefold() or analyte in ("Protein", "Bacteria") else (analyte,)
    return tuple(dict.fromkeys((name, short, *bare)))
