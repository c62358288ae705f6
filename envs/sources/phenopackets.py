"""GA4GH phenopackets, version 2, as JSON: one individual's phenotypes, measurements, diagnosis and
the variants found.

A packet stands alone, under 'phenopacket', as a family's 'proband', or among a cohort's 'members'
(one case each). Everything is coded, so the sentences here are ours, made of the packet's own
labels and values: the initial observation tells age, sex and the phenotypes, present and absent,
that a history or an examination gives; each measurement, each documented variant and each phenotype
that only a test can show (`medaction.envs.phenotype_tests`) is a result. Most published packets
(phenopacket-store) have variants and phenotypes and no measurements.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medaction.envs.categories import category_of
from medaction.envs.naming import is_code
from medaction.envs.phenotype_tests import names_of_phenotype, shown_by
from medaction.envs.records import (
    BadCase,
    CaseReport,
    DocumentedTest,
    Loss,
    StructuredCase,
    check_id,
    sample_of,
)
from medaction.envs.sources.files import bad_field, object_at, parse_json, read_text, unread_fields
from medaction.words.names import normalise

_PACKET_FIELDS = {
    *("id", "subject", "phenotypicFeatures", "measurements", "interpretations", "diseases"),
    "metaData",
}
_ROWS = {"phenotypicFeatures", "interpretations", "diseases"}
_SUBJECT_FIELDS = {"id", "sex", "timeAtLastEncounter", "taxonomy"}
_FEATURE_FIELDS = {"type", "excluded", "severity", "modifiers", "onset"}
_MEASUREMENT_FIELDS = {"assay", "value", "complexValue", "timeObserved"}

GENETIC_TESTING = "Genetic testing"

_UNTOLD = {"", "UNKNOWN_SEX", "UNKNOWN_STATUS", "UNKNOWN_PROGRESS", "NOT_PROVIDED"}
_NO_DIAGNOSIS = {"UNSOLVED", "IN_PROGRESS"}
"""An interpretation's progress with which its disease is no truth."""


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The cases of one file; ids are the file's stem, in a cohort with the member's number from 1.

    A packet that cannot be used is yielded as BadCase ('bad_field' | 'unsupported_version' |
    'not_human' | 'no_diagnosis' | 'several_diagnoses' | 'unsafe_id') and the others go on. Raises
    BadCase when the file itself cannot be read.
    """
    value = _in_names_of_json(parse_json(read_text(path), path))
    members = value.get("members") if isinstance(value, dict) else None
    packets = [("", value)]
    if isinstance(members, list):
        packets = [(f"-{number}", packet) for number, packet in enumerate(members, 1)]
    for suffix, packet in packets:
        # Names of published files hold what ids may not, e.g. 'PMID_1_II:3.json'.
        case_id = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem) + suffix
        try:
            yield _case_of_packet(_unwrapped(packet), case_id, path)
        except BadCase as bad:
            yield BadCase(bad.reason, bad.message, case_id[:100], str(path))


def recognises(value: Any) -> bool:
    """Whether parsed JSON is a phenopacket, a family or a cohort of them."""
    if isinstance(value, dict) and isinstance(value.get("members"), list):
        # Ten members tell the form; a cohort in a cohort is none.
        return any(
            recognises(member) for member in value["members"][:10] if "members" not in _keys(member)
        )
    keys = {_name_in_json(key) for key in _keys(_unwrapped(value))}
    # Protobuf's JSON leaves out an empty list.
    return "subject" in keys and not keys.isdisjoint(_ROWS)


def _keys(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


def _in_names_of_json(value: Any) -> Any:
    """The value with its fields named as in JSON: protobuf's readers take 'phenotypic_features',
    the name in its schema, too, and some exports write it."""
    if isinstance(value, list):
        return [_in_names_of_json(item) for item in value]
    if isinstance(value, dict):
        return {_name_in_json(key): _in_names_of_json(inner) for key, inner in value.items()}
    return value


def _name_in_json(key: str) -> str:
    first, *others = key.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def _unwrapped(value: Any) -> Any:
    for key in ("phenopacket", "proband"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            # A wrapper's metaData speaks for its packet when that has none; of a family the
            # relatives are counted with the packet's own unread fields.
            fields = {name: field for name, field in value.items() if name not in (key, "id")}
            value = fields | value[key]
    return value


def _case_of_packet(packet: Any, case_id: str, path: Path) -> CaseReport:
    place = f" {case_id[:60]!r}"
    subject = object_at(packet, "subject", path, place)
    rows = _objects(packet, "phenotypicFeatures", path, place)
    features = [row for row in rows if _label(row.get("type"))]
    meta = packet.get("metaData")
    meta = meta if isinstance(meta, dict) else {}
    _refuse_animal_or_old_form(subject, features, meta, f"{path.name}{place}")
    interpretations = [
        # An interpretation in progress may lack its diagnosis.
        row
        for row in _objects(packet, "interpretations", path, place)
        if isinstance(row.get("diagnosis"), dict)
    ]
    diagnosis, synonyms, ruled_out = _diagnosis_of_packet(packet, interpretations, path, place)
    kinds = [_type(row) for row in features]
    synonyms += tuple(_names_in_other_words(kinds, diagnosis))
    # By identity: the same phenotype may stand twice, with another onset.
    of_tests = {id(row): shown_by(*kind) for row, kind in zip(features, kinds, strict=True)}
    rows = _objects(packet, "measurements", path, place)
    measured = [test for row in rows for test in _measured(row, path, place)]
    shown = [test for row in features for test in _shown(row, of_tests[id(row)], path, place)]
    tests = _joined([*measured, *shown]) + _variants(interpretations, path, place)
    at_bedside = [row for row in features if not of_tests[id(row)]]
    observation = "\n".join(
        [_sentence_on_patient(subject), *_phenotype_sentences(at_bedside, path, place)]
    )
    results = [f"{test.name}: {test.result}" for test in tests]
    references = [row for row in _objects(meta, "externalReferences", path, place) if row.get("id")]
    title = next(
        (str(row["description"]) for row in references if row.get("description")),
        f"Phenopacket {path.stem}",
    )
    licence = meta.get("licence", meta.get("license"))
    # In the text, for the checks; not in o1, where they would be a differential.
    ruled = [f"Excluded: {', '.join(ruled_out)}."] if ruled_out else []
    return CaseReport(
        case_id=check_id(case_id),
        source="phenopackets",
        title=title[:300],
        text="\n".join([title, observation, *results, *ruled, f"Diagnosis: {diagnosis}"]),
        path=str(path),
        licence=licence.strip() if isinstance(licence, str) and licence.strip() else None,
        structured=StructuredCase(observation, tuple(tests), diagnosis, synonyms),
        meta=_references(references),
        losses=tuple(
            _losses_of_packet(packet, features, interpretations, (diagnosis, *synonyms), path)
        ),
    )


def _refuse_animal_or_old_form(
    subject: dict[str, Any], features: list[dict[str, Any]], meta: dict[str, Any], place: str
) -> None:
    """Raises BadCase('not_human' | 'unsupported_version')."""
    taxon = subject.get("taxonomy")
    if isinstance(taxon, dict) and taxon.get("id") not in (None, "", "NCBITaxon:9606"):
        raise BadCase("not_human", f"{place}: the subject is {_named(taxon)!r}, no human")
    # Version 1 says 'negated' where version 2 says 'excluded': absent signs would be present.
    is_old = str(meta.get("phenopacketSchemaVersion", "2")).startswith("1")
    if is_old or any("negated" in feature for feature in features):
        fault = "phenopackets of version 1 mark absence otherwise; convert it to version 2"
        raise BadCase("unsupported_version", f"{place}: {fault}")


def _losses_of_packet(
    packet: dict[str, Any],
    features: list[dict[str, Any]],
    interpretations: list[dict[str, Any]],
    answers: tuple[str, ...],
    path: Path,
) -> Iterator[Loss]:
    """Fields of the packet and of its rows that have no place in a case; diseases beside the
    diagnosis, whose names are `answers`; measurements without a value."""
    yield from unread_fields(packet, _PACKET_FIELDS)
    yield from unread_fields(packet["subject"], _SUBJECT_FIELDS, "subject")
    rows = {
        "phenotypicFeatures": (features, _FEATURE_FIELDS),
        "interpretations": (interpretations, {"id", "progressStatus", "diagnosis"}),
        # `get` with a default: `_objects` has refused everything but a list of objects.
        "diseases": (packet.get("diseases", []), {"term", "excluded"}),
        "measurements": (packet.get("measurements", []), _MEASUREMENT_FIELDS),
    }
    for name, (objects, fields) in rows.items():
        losses = [loss for row in objects for loss in unread_fields(row, fields, name)]
        # One line a field, not a row: a thousand features may share it.
        for reason in dict.fromkeys(loss.reason for loss in losses):
            same = [loss for loss in losses if loss.reason == reason]
            yield Loss("field", len(same), reason, same[0].sample)
    for name, key in (("phenotypicFeatures", "type"), ("measurements", "assay")):
        if nameless := [row for row in packet.get(name, []) if not _label(row.get(key))]:
            yield Loss(name, len(nameless), "it has no label", sample_of(nameless[0]))
    present = [row.get("term") for row in packet.get("diseases", []) if not row.get("excluded")]
    if others := [term for term in present if _named(term) not in ("", *answers)]:
        reason = "a disease beside the diagnosis: not read"
        yield Loss("disease", len(others), reason, _named(others[0]))
    labelled = [row for row in packet.get("measurements", []) if _label(row.get("assay"))]
    empty = [row for row in labelled if not any(_measured(row, path, ""))]
    if empty:
        yield Loss("measurement", len(empty), "it has no value", sample_of(empty[0]))


def _references(references: list[dict[str, Any]]) -> dict[str, str]:
    """The publication's ids, of external references such as PMC:PMC123 and DOI:10.1/x."""
    meta: dict[str, str] = {}
    for row in references:
        if found := re.fullmatch(r"(?:PMCI?D?:)?(PMC\d+)", str(row["id"]), re.IGNORECASE):
            meta.setdefault("pmcid", found[1].upper())
        elif found := re.fullmatch(r"doi:\s*(10\.\S+)", str(row["id"]), re.IGNORECASE):
            meta.setdefault("doi", found[1])
    return meta


# --- patient and phenotypes -------------------------------------------------------------


def _sentence_on_patient(subject: dict[str, Any]) -> str:
    sex = str(subject.get("sex", ""))
    told = [
        f"Age: {age}." if (age := _time(subject.get("timeAtLastEncounter"))) else "",
        f"Sex: {_words_of_constant(sex)}." if sex not in _UNTOLD else "",
    ]
    return " ".join(filter(None, told)) or "A patient."


def _phenotype_sentences(features: list[dict[str, Any]], path: Path, place: str) -> Iterator[str]:
    """'Present: severe hypotonia (onset 3 months).' and 'Absent: ...', each phenotype under its
    label."""
    for heading, excluded in (("Present", False), ("Absent", True)):
        names = [
            _phenotype(row, path, place)
            for row in features
            if bool(row.get("excluded", False)) is excluded
        ]
        if names:
            yield f"{heading}: {'; '.join(names)}."


def _names_in_other_words(kinds: list[tuple[str, str]], diagnosis: str) -> Iterator[str]:
    """The phenotypes that are the diagnosis under another name: 'rod-cone dystrophy' of a
    'retinitis pigmentosa 98', 'dilated cardiomyopathy' of a 'cardiomyopathy, dilated, 1A'."""
    answer = {word for word in normalise(diagnosis).split() if not is_code(word)}
    for hpo_id, label in kinds:
        names = {normalise(name) for name in (label, *names_of_phenotype(hpo_id, label))}
        if any(set(name.split()) == answer for name in names):
            yield label


def _type(feature: dict[str, Any]) -> tuple[str, str]:
    """A phenotype's id and label."""
    return str(feature["type"].get("id", "")), _label(feature["type"])


def _shown(feature: dict[str, Any], test: str, path: Path, place: str) -> Iterator[DocumentedTest]:
    """The result of the test that shows a phenotype, if one is needed: 'Present: proteinuria'."""
    if test:
        state = "Absent" if feature.get("excluded") else "Present"
        name = test[0].upper() + test[1:]
        result = f"{state}: {_phenotype(feature, path, place)}."
        yield DocumentedTest(name, category_of(name), result)


def _phenotype(feature: dict[str, Any], path: Path, place: str) -> str:
    label = _label(feature["type"])
    graded = [
        _named(feature.get("severity")),
        *(_named(row) for row in _objects(feature, "modifiers", path, place)),
    ]
    # An onset of what is absent means nothing.
    onset = "" if feature.get("excluded") else _time(feature.get("onset")).removesuffix(" onset")
    details = ", ".join(
        filter(None, [*(grade.lower() for grade in graded), f"onset {onset}" if onset else ""])
    )
    return f"{label} ({details})" if details else label


def _time(value: Any) -> str:
    """A TimeElement: '51 years', '3 months to 1 year', 'Childhood onset', 'gestational week 20'; ''
    when it tells no age."""
    if not isinstance(value, dict):
        return ""
    if isinstance(age := value.get("age"), dict):
        return _duration(age.get("iso8601duration"))
    if isinstance(span := value.get("ageRange"), dict):
        ends = [
            _duration(span[end].get("iso8601duration"))
            for end in ("start", "end")
            if isinstance(span.get(end), dict)
        ]
        return " to ".join(filter(None, ends))
    if isinstance(pregnancy := value.get("gestationalAge"), dict):
        return f"gestational week {pregnancy['weeks']}" if "weeks" in pregnancy else ""
    return _named(value.get("ontologyClass"))


def _duration(value: Any) -> str:
    """'P3Y4M' -> '3 years 4 months'; another text as it stands."""
    text = str(value or "")
    # A time of day ('T...') is no age.
    match = re.fullmatch(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T.*)?", text)
    if match is None:
        return text
    numbers = zip(match.groups(), ("year", "month", "week", "day"), strict=True)
    parts = [(int(number), unit) for number, unit in numbers if number]
    # 'P0Y3M' is 3 months.
    ages = [f"{number} {unit}{'' if number == 1 else 's'}" for number, unit in parts if number]
    return " ".join(ages) or ("0 days" if parts else "")


# --- tests ------------------------------------------------------------------------------


def _measured(measurement: dict[str, Any], path: Path, place: str) -> Iterator[DocumentedTest]:
    """A measurement under its assay's label: '24 g/L (reference range 35 to 50)'. None where it
    tells no value, or no label."""
    name = _label(measurement.get("assay"))
    value, complex_value = measurement.get("value"), measurement.get("complexValue")
    results = [_value(value)] if isinstance(value, dict) else []
    if isinstance(complex_value, dict):
        parts = _objects(complex_value, "typedQuantities", path, place)
        results = [
            f"{_named(part.get('type'))} {_quantity(part.get('quantity'))}".strip()
            for part in parts
        ]
    if name and (result := "; ".join(filter(None, results))):
        when = _time(measurement.get("timeObserved"))
        # Repeated measurements become one test: the time tells its lines apart.
        yield DocumentedTest(name, category_of(name), f"{result}, at {when}" if when else result)


def _value(value: dict[str, Any]) -> str:
    return _quantity(value.get("quantity")) or _named(value.get("ontologyClass"))


def _quantity(quantity: Any) -> str:
    if not isinstance(quantity, dict):
        return ""
    number = _finite_number(quantity.get("value", 0))  # protobuf's JSON leaves out a zero
    unit = _named(quantity.get("unit"))
    reference = quantity.get("referenceRange")
    amount = f"{number} {unit}".strip()
    if not number or not isinstance(reference, dict):
        return amount if number else ""
    range_unit = _named(reference.get("unit"))
    low, high = _finite_number(reference.get("low", 0)), _finite_number(reference.get("high", 0))
    # protobuf's JSON leaves out a zero: a range 'from 35' has no upper end.
    bounds = f"from {low}" if high == "0" != low else f"{low} to {high}"
    bounds_unit = f" {range_unit}" if range_unit not in ("", unit) else ""
    return f"{amount} (reference range {bounds}{bounds_unit})"


def _finite_number(value: Any) -> str:
    """A finite number as it is written; '' for anything else."""
    # Protobuf's JSON may hold a number in a string.
    if isinstance(value, str) and value.removeprefix("-").replace(".", "", 1).isdecimal():
        return value
    if isinstance(value, float):
        return f"{value:.15g}" if math.isfinite(value) else ""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _joined(tests: list[DocumentedTest]) -> list[DocumentedTest]:
    """Repeated measurements are one test, its results on lines of their own in the packet's
    order."""
    results: dict[str, list[DocumentedTest]] = {}
    for test in tests:
        results.setdefault(test.name, []).append(test)
    return [
        DocumentedTest(name, same[0].category, "\n".join(test.result for test in same))
        for name, same in results.items()
    ]


def _variants(
    interpretations: list[dict[str, Any]], path: Path, place: str
) -> list[DocumentedTest]:
    """One test with a line for each variant or gene that the packet describes; none when it
    describes none."""
    described = [
        _variant(row)
        for interpretation in interpretations
        for row in _objects(interpretation["diagnosis"], "genomicInterpretations", path, place)
    ]
    # Two interpretations may describe one variant.
    lines = list(dict.fromkeys(filter(None, described)))
    return [DocumentedTest(GENETIC_TESTING, "laboratory", "\n".join(lines))] if lines else []


def _variant(row: dict[str, Any]) -> str:
    """'FBN1 NM_000138.5:c.4710G>C, heterozygous, causative': gene, change, zygosity, and what it
    was held to be. A row may name a gene alone."""
    variant = _object(row.get("variantInterpretation"))
    descriptor = _object(variant.get("variationDescriptor"))
    symbol = str(_object(descriptor.get("geneContext") or row.get("gene")).get("symbol") or "")
    change = _change(descriptor)
    if not (symbol or change):
        return ""
    status = str(row.get("interpretationStatus", ""))
    pathogenicity = str(variant.get("acmgPathogenicityClassification", ""))
    # GA4GH's constants for 'not said' are no judgement.
    judged = [_words_of_constant(text) for text in (status, pathogenicity) if text not in _UNTOLD]
    parts = [f"{symbol} {change}".strip(), _named(descriptor.get("allelicState")), *judged]
    return ", ".join(filter(None, parts))


def _change(descriptor: dict[str, Any]) -> str:
    expressions = descriptor.get("expressions")
    rows = (
        [row for row in expressions if isinstance(row, dict)]
        if isinstance(expressions, list)
        else []
    )
    by_syntax = {str(row.get("syntax")): str(row.get("value")) for row in rows if row.get("value")}
    names = [by_syntax[syntax] for syntax in ("hgvs.c", "hgvs.p") if syntax in by_syntax]
    if names or descriptor.get("label"):
        return " ".join(names) or str(descriptor["label"])
    # A deletion of an exon has neither, but its place.
    kind = _named(descriptor.get("structuralType")) or next(iter(by_syntax.values()), "")
    record = _object(descriptor.get("vcfRecord"))
    locus = ":".join(str(record[key]) for key in ("chrom", "pos") if record.get(key))
    parts = (kind, record.get("genomeAssembly"), locus, record.get("ref"), record.get("alt"))
    return " ".join(str(part) for part in parts if part)


# --- diagnosis --------------------------------------------------------------------------


def _diagnosis_of_packet(
    packet: dict[str, Any], interpretations: list[dict[str, Any]], path: Path, place: str
) -> tuple[str, tuple[str, ...], list[str]]:
    """The disease of the finished interpretations, else the one that the packet lists and does not
    exclude; the other names under the same code; and the diseases excluded. Raises
    BadCase('no_diagnosis' | 'several_diagnoses').
    """
    diseases = _objects(packet, "diseases", path, place)
    # Anything but unsolved and in progress: an absent status is a finished one.
    finished = [
        row for row in interpretations if str(row.get("progressStatus")) not in _NO_DIAGNOSIS
    ]
    concluded = [term for row in finished if _named(term := row["diagnosis"].get("disease"))]
    present = [
        term for row in diseases if not row.get("excluded") and _named(term := row.get("term"))
    ]
    # Interpretations first: 'diseases' also lists what the patient had before.
    diagnoses = concluded or present
    if not diagnoses:
        message = (
            f"{path.name}{place}: neither 'interpretations' (solved or completed) nor 'diseases'"
            " name a disease"
        )
        raise BadCase("no_diagnosis", message)
    # By code: one disease under two labels is one; so is one label under the codes of two lists.
    codes = {str(term.get("id") or _named(term)) for term in diagnoses}
    # A list of diseases holds earlier ones too.
    if len(codes) > 1 and len({normalise(_named(term)) for term in diagnoses}) > 1:
        message = (
            f"{path.name}{place}: {', '.join(sorted(map(_named, diagnoses)))[:200]}: which one is"
            " the diagnosis is not told"
        )
        raise BadCase("several_diagnoses", message)
    terms = (*concluded, *present)
    names = [_named(term) for term in terms if str(term.get("id") or _named(term)) in codes]
    # 'OMIM:154700', its own id or written as the label.
    same = [name for name in names if not re.fullmatch(r"[\w.]+:\S+", name)]
    if not same:
        message = (
            f"{path.name}{place}: {', '.join(codes)[:200]} is a code; give its disease's label"
        )
        raise BadCase("no_diagnosis", message)
    label = same[0]
    excluded = (_named(row.get("term")) for row in diseases if row.get("excluded"))
    ruled_out = list(filter(None, excluded))
    return label, tuple(dict.fromkeys(name for name in same if name != label)), ruled_out


# --- reading ----------------------------------------------------------------------------


MOST_ROWS = 5_000
"""Of one kind in a packet: each phenotype is looked up in the whole of HPO's names. The richest of
published packets have some two hundred."""


def _objects(value: dict[str, Any], key: str, path: Path, place: str) -> list[dict[str, Any]]:
    """The list of objects `value[key]`; empty when missing. Raises BadCase('bad_field' |
    'too_large')."""
    objects = value.get(key, [])
    if isinstance(objects, list) and len(objects) > MOST_ROWS:
        message = f"{path.name}{place}: {key!r} has more than {MOST_ROWS:,} entries"
        raise BadCase("too_large", message, path=str(path))
    if not isinstance(objects, list) or not all(isinstance(row, dict) for row in objects):
        raise bad_field(path, place, f"{key!r} must be a list of objects")
    return objects


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _label(term: Any) -> str:
    """The label of what a row is about, else the ontology's name of its id; '' for neither."""
    label = _object(term).get("label")
    if isinstance(label, str) and label.strip():
        return label.strip()
    return next(iter(names_of_phenotype(str(_object(term).get("id")), "")), "")


def _named(term: Any) -> str:
    """The label of an ontology class; its id where it has none; '' when it is none."""
    if not isinstance(term, dict):
        return ""
    return str(term.get("label") or term.get("id") or "").strip()


def _words_of_constant(constant: str) -> str:
    """'LIKELY_PATHOGENIC' -> 'likely pathogenic'."""
    return constant.replace("_", " ").lower()
