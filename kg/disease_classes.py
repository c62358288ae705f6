"""Body system and disease type of a diagnosis, for the paper's Figure 6: by ICD-10-CM, by the words
of its name, by its phenotypes.

No model is asked, and what none of the three tells stays ''. The vocabulary is that of
`medaction.envs.composition`.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from medaction.kg.hpo import load_hpo
from medaction.kg.icd import load_icd
from medaction.kg.linking import NODE_TYPES, Link, Linker
from medaction.kg.open_graphs import open_disease_graph
from medaction.kg.readings import head
from medaction.kg.tables import DATA, BadTable, parts, rows
from medaction.words.names import normalise

ICD_CLASSES = DATA / "icd_classes.csv"
"""Chapters, blocks and codes of ICD-10-CM. A code without an entry has that of the nearest one
above it in the tree."""

DISEASE_WORDS = DATA / "disease_words.csv"
"""Words by kind: 'site' where a disease is, 'disease' what it is. A word may go on ('pulmon' is
pulmonary) unless '$' ends it, and begins where a word begins unless '*' stands before it. Of
diseases the first row that has one decides on the type."""

BRANCHES = {
    "HP:0001626": "Blood, Heart and Circulation", "HP:0001871": "Blood, Heart and Circulation",
    "HP:0033127": "Bones, Joints and Muscles", "HP:0000707": "Brain and Nerves",
    "HP:0025031": "Digestive System", "HP:0000598": "Ear, Nose and Throat",
    "HP:0000366": "Ear, Nose and Throat", "HP:0000818": "Endocrine System",
    "HP:0000478": "Eyes and Vision", "HP:0010460": "Female Reproductive System",
    "HP:0002715": "Immune System", "HP:0000079": "Kidneys and Urinary System",
    "HP:0002086": "Lungs and Breathing", "HP:0010461": "Male Reproductive System",
    "HP:0000163": "Mouth and Teeth", "HP:0001574": "Skin, Hair and Nails",
}  # fmt: skip
"""HPO's organ systems; growth, metabolism, constitution and face are of no one system."""

NEOPLASM = "HP:0002664"  # HPO's 'Neoplasm'
LEAD = 1.5
"""A disease is of the system that most of its phenotypes belong to if they weigh this many times
those of the next one."""

Classes = tuple[str, str]


def classes_of(names: Sequence[str]) -> Classes:
    """(body system, disease type) of one disease by its names, the true diagnosis first; '' for
    what no name tells.

    A name that is one of a disease in the open graph is told by ICD-10-CM; any other by its words,
    then by the more general disease whose name it holds, by ICD-10-CM or by HPO. A later name only
    adds what the earlier ones did not tell.
    """
    system, kind = "", ""
    for name in names:
        for classes in _readings(name):
            system, kind = system or classes[0], kind or classes[1]
            if system and kind:
                return system, kind
    return system, kind


def _readings(name: str) -> Iterator[Classes]:
    """What the sources tell of `name`, the surest first."""
    linker = _linker()
    # By names alone: what an encoder finds is not sure enough to file a disease by.
    link = linker.link([name])[0] if linker.knows(name) else None
    # A more general disease ('broader') says less than the words of the name itself.
    if link is not None and link.method != "broader":
        yield _by_icd(link)
    yield _by_words(head(name))
    if link is not None:
        yield _by_icd(link)
    # The circumstances come late: 'gout with renal failure' is of the joints.
    yield _by_words(normalise(name))
    if link is not None:
        yield _by_hpo(link)


@cache
def _linker() -> Linker:
    return Linker(open_disease_graph(), NODE_TYPES["diagnosis"])


def _by_icd(link: Link) -> Classes:
    """By the code that bears a name of the linked node, and the codes above it."""
    tree = load_icd()
    codes = _codes()
    # The normalised names of the linked node, its label first.
    names = [normalise(link.name), *_synonyms().get(link.node, ())]
    code = next((codes[name] for name in names if name in codes), None)
    system, kind = "", ""
    while code is not None and not (system and kind):
        classes = _icd_classes().get(code, ("", ""))
        system, kind = system or classes[0], kind or classes[1]
        # a block of one code bears that code's name, so that the code seems to stand above itself
        code = tree[code].parent if tree[code].parent != code else None
    return system, kind


@cache
def _synonyms() -> dict[int | None, list[str]]:
    names = defaultdict(list)
    for node, name in open_disease_graph().names.iter_rows():
        names[node].append(normalise(name))
    return names


@cache
def _codes() -> dict[str, str]:
    """Normalised name -> code of ICD-10-CM; an official name wins over an inclusion term, a broader
    code over one below it."""
    tree = load_icd().values()
    # Of equal keys a dict holds the last one, and a code comes before those below it.
    synonyms = {normalise(name): code.code for code in reversed(tree) for name in code.synonyms}
    return synonyms | {normalise(code.name): code.code for code in reversed(tree)}


@cache
def _icd_classes() -> dict[str, Classes]:
    """Code -> what ICD_CLASSES tells of it. Raises BadTable for a code that ICD-10-CM does not have
    or two classes of one."""
    classes: dict[str, Classes] = {}
    for line, row in rows(ICD_CLASSES, ["codes", "body_system", "disease_type"]):
        for code in parts(row["codes"]):
            old = classes.get(code, ("", ""))
            if (
                code not in load_icd()
                or (old[0] and row["body_system"])
                or (old[1] and row["disease_type"])
            ):
                raise BadTable(
                    ICD_CLASSES,
                    line,
                    f"{code!r} is no code of ICD-10-CM, or has a class in an earlier line",
                )
            classes[code] = (old[0] or row["body_system"], old[1] or row["disease_type"])
    return classes


@dataclass(frozen=True, slots=True)
class _Words:
    site: bool
    pattern: re.Pattern[str]
    classes: Classes


@cache
def _word_rows() -> list[_Words]:
    """DISEASE_WORDS. Raises BadTable for a row without words, of another kind, or that tells
    nothing."""
    words_rows = []
    for line, row in rows(DISEASE_WORDS, ["kind", "words", "body_system", "disease_type"]):
        words, classes = parts(row["words"]), (row["body_system"], row["disease_type"])
        if row["kind"] not in ("site", "disease") or not words or not any(classes):
            message = "the kind is 'site' or 'disease', and words and a class are needed"
            raise BadTable(DISEASE_WORDS, line, message)
        pattern = re.compile("|".join(map(_pattern_of_word, words)))
        words_rows.append(_Words(row["kind"] == "site", pattern, classes))
    return words_rows


def _pattern_of_word(word: str) -> str:
    if word.startswith("*"):
        return re.escape(word[1:])
    return rf"\b{re.escape(word.removesuffix('$'))}" + (r"\b" if word.endswith("$") else "")


def _by_words(text: str) -> Classes:
    """The system of the first site that is named, else of the first row of diseases that has one;
    the type likewise."""
    matches = [(words, match) for words in _word_rows() if (match := words.pattern.search(text))]
    # What a name says first is where the disease is; of two words at one place the longer one.
    sites = [
        (match.start(), -len(match[0]), words.classes[0]) for words, match in matches if words.site
    ]
    diseases = [words.classes for words, _ in matches if not words.site]
    system = min(sites)[2] if sites else next((system for system, _ in diseases if system), "")
    return system, next((kind for _, kind in diseases if kind), "")


def _by_hpo(link: Link) -> Classes:
    """By the organ systems of the linked phenotype, or of the linked disease's phenotypes if one of
    them leads."""
    hpo = load_hpo()
    node_id = open_disease_graph().nodes.item(link.node, "node_id")
    # OMIM lists what is inherited by Mendel's rules.
    kind = "Genetics/Birth Defects" if node_id.startswith("OMIM:") else ""
    if node_id in hpo.phenotypes:
        weights = dict.fromkeys(_systems(node_id), 1.0)
        kind = "Cancers" if NEOPLASM in _above(node_id) else ""
    else:
        weights = defaultdict(float)
        for phenotype, share in hpo.annotations.get(node_id, {}).items():
            for system in _systems(phenotype):
                # Without a stated frequency: neither rare nor the rule.
                weights[system] += 0.5 if share is None else share
    # Padded: the phenotypes may be of one system or of none.
    best, runner_up = [*sorted(weights.values(), reverse=True), 0.0, 0.0][:2]
    return (max(weights, key=weights.__getitem__) if best > LEAD * runner_up else ""), kind


@cache
def _above(phenotype: str) -> frozenset[str]:
    """The phenotype itself and all above it."""
    parents = load_hpo().phenotypes[phenotype].parents
    return frozenset({phenotype}).union(*map(_above, parents))


def _systems(phenotype: str) -> set[str]:
    return {BRANCHES[term] for term in _above(phenotype) if term in BRANCHES}
