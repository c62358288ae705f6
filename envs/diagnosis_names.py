"""The names that would give a diagnosis away, and whether a text tells one of them.

A diagnosis is read as parts: 'Sepsis due to pyelitis with shock' is the disease sepsis, its cause
pyelitis, and shock beside it. Each part has whole names ('primary splenic tuberculosis', 'splenic
tuberculosis') and lesser ones ('tuberculosis'). A whole name in the initial observation is the
answer; a lesser one, or a cause, may be the patient's history (`medaction.envs.leaks`).
"""

import itertools
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal

from rapidfuzz import fuzz

from medaction.envs.naming import TABLE, canonical_of, profile, regions_in_text, vocabulary
from medaction.envs.records import DocumentedTest
from medaction.kg.encoder import TOKENIZER
from medaction.words.names import normalise
from medaction.words.phrases import phrase_regex
from medaction.words.plurals import singular
from medaction.words.sentences import statements

CLOSE_AT = 92.0
"""Two long words are the same in another spelling or inflection from this rapidfuzz ratio on;
another disease is not ('hypothyroidism', 'hyperthyroidism': 86)."""

FUZZY_LENGTH = 12
"""Characters of a name from which on it is also looked for in another spelling."""

NameKind = Literal["answer", "lesser", "effect", "cause"]


@dataclass(frozen=True, slots=True)
class DiagnosisName:
    """One name, and what it is of the diagnosis.

    answer: a part whole. lesser: the disease in it without what tells it from others. effect: what
    a cause brought about, which may be the complaint itself. cause: what follows 'due to'.
    """

    text: str
    kind: NameKind
    part: str
    """The part of the diagnosis that it names."""
    exact: bool = False
    """An abbreviation or a gene: looked for as it is written."""
    strict: bool = False
    """Looked for as one phrase alone: what is left without its qualifiers is often a symptom
    ('positional vertigo')."""


# What stands between the parts. A cause is the diagnosis as much as what it caused; what a disease
# comes with, as, or after is often the complaint or the history itself. 'and' and commas go on as
# before.
_CAUSES = "caused by | induced by | triggered by | due to | secondary to | resulting from | from"
_BESIDE = (
    "with | without | presenting as | presenting with | causing | leading to | complicated by"
    " | complicating | mimicking | involving | during | managed | in the absence of"
    " | in the context of | in the setting of | in the presence of | in a | in an | nearing"
    " | successfully | following | after | likely | compounded by"
)
_CONNECTOR = re.compile(
    # What a disease became is the answer as much: 'relapse with progression to optic neuropathy'.
    r"\b(?P<disease>(?:(?:with|and|that|which) )?(?:progress|evol|transform)\w+ (?:in)?to)\b"
    rf"|\b(?P<cause>{phrase_regex(_CAUSES, '')})\b"
    rf"|\b(?P<beside>{phrase_regex(_BESIDE, '')}|(?<!-)associated(?:\swith)?)\b"
    r"|(?P<same>\band\b|[,;\n]|\b\d\.\s)"
)
# A scanner reads the letters o and l as digits: 'a0rtic', 'scler0derma'.
_MISREAD_DIGIT = re.compile(r"(?<=[a-z])[01](?=[a-z])|\b0(?=[a-z]{3})")
# Words before a disease's name that leave it the same disease.
_SAME_DISEASE = (
    "final diagnosis | acute on chronic | acute | chronic | active | severe | mild | primary"
    " | secondary | idiopathic | isolated | recurrent | benign | malignant | congenital"
    " | metastatic | adult | giant"
    " | bilateral | left | right | acquired | classic | atypical | symptomatic | spontaneous"
    " | incidental finding of | concurrent | concomitant | synchronous | suspected | possible"
    " | a | an | the | early | late | onset | physiologic | physiological | simple | uncomplicated"
)
_LEADING = re.compile(
    rf"^(?:(?:{phrase_regex(_SAME_DISEASE, '')}|(?:stage|type)\s[ivx\d]+\w?)\b[\s:,-]*)+",
    re.IGNORECASE,
)
_TYPE_AT_END = re.compile(
    r"[\s,-]+(?i:(?:sub)?(?:type|stage|grade|class|variant))\s+(?:\d\w*|[IVX]+\w?|[A-Z])$"
)
# What makes another disease of a known one: its spread, or that it is acute now.
_SPREAD = re.compile(r"metasta\w+|acute[ -]on[ -]chronic\b", re.IGNORECASE)
# Adjectives and participles by their endings: 'perforated', 'traumatic', 'papillary'.
_ENDINGS_OF_ADJECTIVES = tuple(
    "al ic ous ed ary ory ive ar ing oid ant ent ile".split()  # noqa: SIM905
)
_EPONYM = re.compile(
    r"(\S{5,}?)(?:'s|’s|s['’])?\s+(?:disease|syndrome|disorder|phenomenon)", re.IGNORECASE
)
_CARCINOMA = re.compile(r"\b(?:\w+ cell )?\w*carcinoma\b", re.IGNORECASE)
_INDUCED = re.compile(r"(.+?)[- ](?:induced|associated|related|triggered|mediated)\s+(.+)", re.I)
_GENUS_END = "(?:a|[aeu]s|um|bacter|[aeiy]x)"  # no 'catheter', no 'prosthesis'
# 'Peripartum cardiomyopathy' and 'postpartum thyroiditis' tell a time.
_TELLS_WHEN = re.compile("irr|non|peri|post|ante|intra", re.IGNORECASE)
# A Latin binomial: 'Klebsiella oxytoca'.
_ORGANISM = re.compile(
    r"\b[A-Z][a-z]{3,}(?:a|[aeiu]s|um|er|[aeiy]x) "
    r"(?!disease|syndrome)[a-z]{3,}(?:[iu]s|um|ens|[aei])\b"
)
_GENE = re.compile(r"\b(?!T\d+N)[A-Z][A-Z0-9]{1,7}\d[A-Z0-9]*\b")
_MUTATION = re.compile(
    r"\b([A-Z][A-Z0-9]{2,7})\b[\s-]+(?:\w+\s)?"
    r"(?:muta|variant|gene|deletion|fusion|rearrang|amplif|positive)"
)
# 'GLA sequencing', 'a splice variant of TAZX1': the gene that a test has looked at.
_GENE_OF_TEST = re.compile(
    r"\b([A-Z][A-Z0-9]{1,7}) (?:gene|sequencing|mutation|variant)"
    r"|\b(?:mutation|variant|deletion|[a-z]+zygous)\b[^.;]*? (?:in|of) (?:the )?"
    r"([A-Z][A-Z0-9]{2,7})\b"
    # 'Heterozygous FBN1 c.1129C>T'
    r"|\b([A-Z][A-Z0-9]{1,7})\b[ :(]{1,3}(?:NM_[\d.]+[ :(]{1,3})?[cp]\.[(\[*A-Z\d]"
)
# 'Pneumococcal', 'meningococcemia', 'staph. cocci': the beginning of an organism's name.
_COCCUS = re.compile(r"\b([a-z]{3,}?)o?cocc[a-z]+", re.IGNORECASE)
# Of a Latin adjective, which stands behind its noun: 'lupus erythematosus'.
_ENDINGS_OF_LATIN_ADJECTIVES = tuple(
    "us um is ans oides ata eta ita osa ica ina".split()  # noqa: SIM905
)
_PREPOSITION = re.compile(r"\s(?:of|in(?! situ| utero)|at|on(?! chronic)|to)\s")
# Words that name a disease by their ending; the general ones give nothing away without the word
# before them.
# Endings, since no list holds all diseases; what they catch wrongly stands in _GENERAL_DISEASES.
_ENDINGS_OF_DISEASES = tuple(
    "itis osis asis oma emia pathy thorax ectasis plasia trophy lepsy".split()  # noqa: SIM905
)
_DISEASES = frozenset({"cancer", "apoplexy", "achalasia", "malaria", "tetanus"})
_GENERAL_DISEASES = frozenset(
    """
    arthritis dermatitis gastritis hepatitis sarcoma lymphoma leukemia anemia cancer hematoma
    granuloma fibrosis stenosis thrombosis necrosis acidosis alkalosis cyanosis diagnosis prognosis
    sclerosis bacteremia septicemia uremia neuropathy nephropathy myopathy lymphadenopathy ptosis
    osteolysis coma trauma stoma leukocytosis anastomosis
    """.split()  # noqa: SIM905
)
# Too general to give a diagnosis away when they stand alone, or before 'disease'.
_GENERAL = frozenset(
    """
    cancer tumor mass cyst lesion infection disease syndrome disorder fracture pain injury
    obstruction hemorrhage bleeding infarction metastasis abscess rupture perforation pregnancy
    inflammation behavior normal dislocation fever anemia edema stroke celiac kidney liver cardiac
    pulmonary vascular autoimmune metabolic connective tissue inflammatory bowel coronary artery
    heart lung thyroid reaction failure attack crisis
    """.split()  # noqa: SIM905
)
# 'NMOSD', 'TTP', 'HbSC', 'MEN1', 'MEN2A'; a label ('PE: lungs clear') is none.
_CAPITALS = re.compile(r"\b[A-Z][A-Za-z]{0,5}[A-Z](?:-?\d{1,2}[A-Z]?)?\b(?!:)")
_LETTERS_BEFORE_A_NUMBER = 3
"""Of initials with a number, our choice: 'CD4' and 'PD-1' are no Crohn's or Parkinson's disease."""
_ABBREVIATION_IN_BRACKETS = re.compile(r"\s\([A-Z][A-Za-z0-9-]{1,7}[),;]")
_SPACES_IN_A_NAME = 20
"""Further characters that a name in a report has for line breaks and a plural: our choice."""
# One word an organ: 'pulmonary' is 'lung'.
_ORGAN_ADJECTIVES: dict[str, str] = TABLE["organ_adjectives"]


@lru_cache(maxsize=256)
def names_in(diagnosis: str, synonyms: tuple[str, ...] = ()) -> tuple[DiagnosisName, ...]:
    """All names that would give it away, each once, the answer's before lesser ones."""
    # A synonym is read like the diagnosis: it may be as long, and have parts of its own.
    names = [name for text in (diagnosis, *synonyms) for name in _names_in(text)]
    names += [
        DiagnosisName(synonym, "answer", diagnosis, exact=True)
        for synonym in synonyms
        # 'PAN', 'MS': too short for `_whole_names`, which asks for four letters.
        if re.fullmatch(r"[A-Z][A-Za-z0-9-]{0,2}[A-Z]", synonym)
    ]
    names.sort(key=lambda name: name.kind == "lesser")
    # Reversed twice: of two names alike the first one stays, which is the stronger kind.
    return tuple({(normalise(name.text), name.exact): name for name in reversed(names)}.values())[
        ::-1
    ]


def names_of(diagnosis: str) -> Iterator[str]:
    """The names alone, without abbreviations."""
    return (name.text for name in names_in(diagnosis) if not name.exact)


def _names_in(diagnosis: str) -> Iterator[DiagnosisName]:
    parts = parts_of(diagnosis)
    has_cause = any(part.role == "cause" for part in parts)
    for part in parts:
        # Not hidden: what a disease comes with is often the complaint itself.
        if part.role == "beside":
            continue
        induced = _INDUCED.fullmatch(part.text)
        kind: NameKind = "cause" if part.role == "cause" else "effect" if has_cause else "answer"
        for name in _whole_names(part.text):
            yield DiagnosisName(name, kind, part.text)
        # 'Salmonella-induced diarrhea': the diarrhea may be what the patient comes with.
        if induced and not _ORGANISM.fullmatch(induced[2]):
            for name in _whole_names(induced[2]):
                yield DiagnosisName(name, "effect", part.text)
        # A part of a cause is judged like the cause, whose history may be told.
        lesser: NameKind = "cause" if kind == "cause" else "lesser"
        for name in _lesser_names(part.text):
            yield DiagnosisName(name, lesser, part.text)
        # 'Pancreatic adenocarcinoma' is spoken of as 'pancreatic cancer'.
        cancer = _CARCINOMA.sub("cancer", part.text)
        if cancer != part.text and not is_general(cancer):
            yield DiagnosisName(cancer, lesser, part.text)
        for name in _without_qualifiers(part.text):
            yield DiagnosisName(name, lesser, part.text, strict=True)
        for organism in _ORGANISM.findall(part.text):
            # 'Clostridium difficile-associated colitis': the organism is the cause.
            is_cause = induced and organism in induced[1]
            genus, species = organism.split()
            # 'Placenta previa', 'cavernous sinus'
            if _is_adjective(genus) or regions_in_text([genus.casefold()]):
                continue
            # 'Cytomegalovirus retinitis' names one, 'postpartum thyroiditis' is spelt like it.
            if is_disease(species):
                if not _TELLS_WHEN.match(genus):
                    yield DiagnosisName(genus, lesser, part.text)
                continue
            # Behind its first mention an organism is written 'K. oxytoca'.
            for name in (organism, f"{genus[0]} {species}"):
                yield DiagnosisName(name, "cause" if is_cause else "answer", part.text)
            yield DiagnosisName(genus, lesser, part.text)
            # 'pneumonia' of 'Klebsiella oxytoca pneumonia'.
            remainder = part.text.partition(organism)[2].strip()
            # `parts_of` has cut at every connector.
            if len(remainder) >= 4 and not is_general(remainder):
                yield DiagnosisName(remainder, "effect", part.text)
        # 'Perthes' of the Legg-Calvé-Perthes disease; 'White' is an English word.
        for person in _persons_in(part.text):
            if len(person) >= 6 and person.casefold() not in english_words():
                yield DiagnosisName(person, lesser, part.text, exact=True)
        for gene in (*_GENE.findall(part.text), *_MUTATION.findall(part.text)):
            yield DiagnosisName(gene, "answer", part.text, exact=True)
        if rare := _rare_attribute(part.text):
            yield DiagnosisName(rare, lesser, part.text)
    # `parts_of` reads no brackets: what stands there is another name or an abbreviation.
    for before, inner in re.findall(r"([^()]*)\(([^()]{2,})\)", diagnosis):
        # 'Lymphoma with shock (DIC)': the bracket may be of what stands beside.
        if _CONNECTOR.search(before) and any(part.role == "beside" for part in parts):
            continue
        if re.fullmatch(r"[A-Z][A-Za-z0-9-]{1,9}", inner) and sum(map(str.isupper, inner)) >= 2:
            if not _abbreviates_a_site(before, inner):
                yield DiagnosisName(inner, "answer", before, exact=True)
        # '(left)', '(old)': shorter words in brackets are seldom a disease's name.
        elif len(inner) >= 5:
            yield DiagnosisName(inner, "answer", before)


def _whole_names(part: str) -> Iterator[str]:
    """The part, without 'acute' and 'type 4', and the person that a disease is named after."""
    bare = _TYPE_AT_END.sub("", _LEADING.sub("", part))
    match = _EPONYM.fullmatch(bare)
    eponym = match[1] if match and (_persons_in(bare) or "-" not in match[1]) else ""
    # 'Metastatic melanoma' is not the melanoma that was known: that one is a lesser name.
    for name in (part,) if _SPREAD.match(part) else (part, bare, eponym):
        if len(name) >= (4 if name.isascii() else 2) and not is_general(name):
            yield name


def _persons_in(part: str) -> list[str]:
    """The persons after whom 'Legg-Calvé-Perthes disease' is named; 'Cat-Scratch Disease' is a
    title."""
    bare = _TYPE_AT_END.sub("", _LEADING.sub("", part))
    match = _EPONYM.fullmatch(bare)
    names = re.split("[-–]", match[1]) if match and not bare.istitle() else []
    return names if len(names) > 1 and all(map(str.istitle, names)) else []


def _lesser_names(part: str) -> Iterator[str]:
    """'sparganosis' of 'pulmonary sparganosis', 'thyroid carcinoma' of 'papillary thyroid
    carcinoma'."""
    if _SPREAD.match(part) and (bare := _LEADING.sub("", part)) != part:
        yield bare
    # Before the place: behind 'of' stands a site, no disease.
    words = normalise(_PREPOSITION.split(part)[0]).split()
    for before, word in zip(["", *words], words, strict=False):
        if is_disease(word) and not _is_general_disease(word):
            yield word
        # A general disease needs the word before it, and 'cell' or 'acute' is none that tells.
        elif is_disease(word) and before not in ("", "cell") and _LEADING.sub("", before):
            yield f"{before} {word}"
        # 'lupus' of 'lupus erythematosus', no common word and no place ('placenta previa').
        # Of an organism's name the genus is a name anyway.
        elif (
            len(before) >= 5
            and _has_ending(word, _ENDINGS_OF_LATIN_ADJECTIVES, 2)
            and not _ORGANISM.search(part)
        ):
            known = {before, word} & english_words() or regions_in_text([before])
            if not (known or _is_adjective(before) or is_disease(before)):
                yield before


def _without_qualifiers(part: str) -> Iterator[str]:
    """'Meckel diverticulum' of a perforated one: the part without adjectives before it, or without
    the place behind it."""
    head, *place = _PREPOSITION.split(part)
    words = normalise(head).split()
    if place and len(words) > 1 and not is_general(head):
        yield normalise(head)
    # Two words stay: one without any qualifier is a lesser name, or general.
    while (
        len(words) > 2
        and words[1] != "on"
        and (_is_adjective(words[0]) or _LEADING.match(words[0]))
    ):
        words = words[1:]
        # 'small cell carcinoma': 'cell' begins no name.
        if words[0] != "cell" and not is_general(" ".join(words)):
            yield " ".join(words)


def _rare_attribute(part: str) -> str:
    """'takotsubo' of 'takotsubo cardiomyopathy', 'listeria' of 'listeria meningitis': a person, an
    organism or a shape before a disease's noun gives it away; an English word ('radiation') does
    not."""
    words = normalise(_LEADING.sub("", _PREPOSITION.split(part)[0])).split()
    if len(words) not in (2, 3) or not words[0].isascii() or len(words[0]) < 6:
        return ""
    is_named = not _is_adjective(words[0]) and not is_disease(words[0])
    # A drug that 'induced' it stands in the history.
    is_named = is_named and not _TELLS_WHEN.match(words[0]) and words[1] != "induced"
    # Words that tests are named by are no rarity either, however rare in English.
    is_rare = is_named and words[0] not in english_words() | vocabulary()
    is_infection = words[-1] == "infection" and re.search(_GENUS_END + "$", words[0])
    names_disease = is_disease(" ".join(words[1:])) or is_infection
    return words[0] if is_rare and names_disease else ""


@cache
def english_words() -> frozenset[str]:
    """Common words: those that the encoder's vocabulary of 30,522 pieces holds whole."""
    pieces = json.loads(TOKENIZER.read_text(encoding="utf-8"))["model"]["vocab"]
    return frozenset(pieces)


@lru_cache(maxsize=64)
def abbreviations_told(
    text: str, names: tuple[DiagnosisName, ...], diagnosis: str
) -> tuple[DiagnosisName, ...]:
    """The abbreviations in `text` that spell a part of the diagnosis, the first letter of each word
    and any further ones in their order: 'HSP', 'NMOSD' of 'neuromyelitis optica spectrum disorder';
    or all of it, where its parts are diseases: 'GPA'.
    """
    # 'CT' or 'ESR' may spell a diagnosis by chance; they are tests.
    shorts = {short for short in _CAPITALS.findall(text) if canonical_of(short) is None}
    parts = [(name.part, 2) for name in names if not name.exact and name.kind != "lesser"]
    if len(joined := parts_of(diagnosis)) == 2 and all(is_disease(part.text) for part in joined):
        # Two letters may be anybody's: a GP.
        parts.append((" with ".join(part.text for part in joined), 3))
    return tuple(
        DiagnosisName(short, "answer", part, exact=True)
        for part, least in dict.fromkeys(parts)
        for short in shorts
        if len(letters := "".join(itertools.takewhile(str.isalpha, short)).casefold())
        >= (least if short.isalpha() else _LETTERS_BEFORE_A_NUMBER)
        and any(_spells(letters, words) for words in _forms_to_spell(part))
    )


def organisms_told(text: str, diagnosis: str) -> Iterator[DiagnosisName]:
    """The words of `text` that name an organism of the diagnosis by its shape: 'pneumococcal' of a
    'Streptococcus pneumoniae meningitis'."""
    names = [word.casefold() for name in _ORGANISM.findall(diagnosis) for word in name.split()]
    for match in _COCCUS.finditer(text) if names else ():
        if any(name.startswith(match[1].casefold()) for name in names):
            yield DiagnosisName(match[0], "lesser", diagnosis, exact=True)


def genes_of(tests: Iterable[DocumentedTest], diagnosis: str) -> Iterator[DiagnosisName]:
    """The genes that the menu's tests have looked at: before the test they say as much as its
    result."""
    for test in tests:
        for symbols in _GENE_OF_TEST.findall(f"{test.name}. {test.result}"):
            # 'A normal variant in MRI' names a kind of test and no gene.
            if not profile(gene := "".join(symbols)).kinds:
                yield DiagnosisName(gene, "lesser", diagnosis, exact=True)


@lru_cache(maxsize=64)
def _forms_to_spell(part: str) -> tuple[list[str], ...]:
    """The words of a part, of it without what qualifies it, and of the last words before its place;
    never those of the place alone."""
    bare = _TYPE_AT_END.sub("", _LEADING.sub("", part))
    head = normalise(_PREPOSITION.split(bare)[0]).split()
    # Three words or more: fewer letters would be spelt by chance.
    tails = (head[start:] for start in range(1, len(head) - 2))
    joints = ("of", "the", "and", "with")
    forms = [normalise(part).split(), normalise(bare).split(), *tails]
    spelt = ([word for word in words if word not in joints] for words in forms)
    return tuple(words for words in spelt if len(words) > 1)


def _spells(short: str, words: list[str]) -> bool:
    """Whether `short` has the first letter of each word, of two or more, and between them only
    further letters of the word before, in their order."""
    if short[0] != words[0][0]:
        return False
    if len(words) == 1:
        return _is_in_order(short, words[0])
    ends = range(1, len(short))
    return any(
        _is_in_order(short[:end], words[0]) and _spells(short[end:], words[1:]) for end in ends
    )


def _is_in_order(letters: str, word: str) -> bool:
    remainder = iter(word)
    return all(letter in remainder for letter in letters)


def _abbreviates_a_site(before: str, short: str) -> bool:
    """Whether 'MEC' behind '... of the left middle ear cleft' stands for the place alone."""
    site = _PREPOSITION.split(before)[1:]
    letters = r"\w* ?".join(map(re.escape, short.casefold()))
    return bool(site) and re.search(rf"\b{letters}\w*$", site[-1].casefold().strip()) is not None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a diagnosis: the disease, its cause, or what it comes with."""

    text: str
    role: Literal["disease", "cause", "beside"]


# One adjective alone before 'and' shares the noun of the next one.
_NEXT_WORD = re.compile(r"\s*(?:,|and|or|/|&)\s*(\w+)\s+\w", re.IGNORECASE)


@lru_cache(maxsize=256)
def parts_of(diagnosis: str) -> tuple[Part, ...]:
    """The parts of a diagnosis in their order, without what stands in brackets."""
    text = re.sub(r"\([^()]*\)|\*+", " ", diagnosis)
    cuts = [
        (0, "disease"),
        *((match.end(), match.lastgroup) for match in _CONNECTOR.finditer(text)),
    ]
    ends = [*(match.start() for match in _CONNECTOR.finditer(text)), len(text)]
    parts, role = [], "disease"
    for (start, connector), end in zip(cuts, ends, strict=True):
        # 'Shock due to A and B': what 'and' joins has the role of what stands before it.
        role = role if connector == "same" else str(connector)
        name = " ".join(text[start:end].split()).strip(" .:-")
        following = _NEXT_WORD.match(text, end)
        if _is_adjective(name) and following and _is_adjective(following[1]):
            continue  # 'developmental and epileptic encephalopathy' is one disease
        if sum(map(str.isalpha, name)) >= (4 if name.isascii() else 2) and not is_general(name):
            parts.append(Part(name, role))  # type: ignore[arg-type]
    return tuple(parts)


def diseases_joined(diagnosis: str) -> list[str]:
    """The diseases that a diagnosis joins. A cause is one of them unless it is an organism or a
    gene, the primary of a metastasis, or caused what only stands beside the disease; a stage, a
    degree and adjectives that share the next one's noun are none."""
    names: list[str] = []
    before = "disease"
    for part in parts_of(diagnosis):
        role = "beside" if part.role == "cause" and before == "beside" else part.role
        of_spread = role == "cause" and names and _SPREAD.search(names[0])
        agent = role == "cause" and (_ORGANISM.search(part.text) or _MUTATION.search(part.text))
        if role != "beside" and not of_spread and not agent and _is_noun_phrase(part.text):
            names.append(part.text)
        before = role
    return names or [diagnosis]


def _is_noun_phrase(part: str) -> bool:
    """Whether a part says more than how bad or of which kind the one before is ('severe', 'stage
    II', 'Shamblin type II'), or where the next one is ('oral' of 'oral and pharyngeal
    diverticula')."""
    words = _TYPE_AT_END.sub("", f" {_LEADING.sub('', f'{part} ').strip()}").split()
    # A word before the type is the name of its scale, unless English knows it: 'diabetes type 2'.
    is_scale = len(words) == 1 and _TYPE_AT_END.search(part) is not None
    if not words or (is_scale and words[0].casefold() not in english_words()):
        return False
    # 'Bleeding', 'poisoning', 'pemphigoid' and 'fragment' are spelt like adjectives.
    return not _is_adjective(words[-1]) or words[-1].endswith(("ing", "oid", "ent", "ant"))


def is_general(name: str) -> bool:
    """Whether a name gives nothing away when it stands alone: 'infection', 'kidney disease'."""
    return normalise(name).removesuffix(" disease") in _GENERAL


def is_disease(name: str) -> bool:
    """Whether a word of a name is a disease's by its ending: 'hyperaldosteronism' is none."""
    words = normalise(name).split()
    return any(word in _DISEASES or _has_ending(word, _ENDINGS_OF_DISEASES, 3) for word in words)


def _is_general_disease(word: str) -> bool:
    """Whether a disease's name of one word is one of many diseases: 'carcinoma', 'hypokalemia'."""
    is_level = word.startswith(("hypo", "hyper")) and word.endswith("emia")
    return is_level or word in _GENERAL_DISEASES or word.endswith(("carcinoma", "plasia", "trophy"))


def _is_adjective(word: str) -> bool:
    return _has_ending(word, _ENDINGS_OF_ADJECTIVES, 2)


def _has_ending(word: str, endings: tuple[str, ...], letters: int) -> bool:
    """Whether one word has one of the endings behind so many letters or more."""
    # Letters before the ending: 'ring' and 'oma' are no words with one.
    return word[letters:].endswith(endings) and word.isalnum()


@lru_cache(maxsize=64)
def declared_abbreviations(
    text: str, names: tuple[DiagnosisName, ...]
) -> tuple[DiagnosisName, ...]:
    """The abbreviations that a report gives to one of the names: 'nasal carcinoma (NC)'."""
    spelt = {
        normalise(name.text): name for name in names if not name.exact and not is_general(name.text)
    }
    # An empty alternative would match everywhere.
    if not spelt:
        return ()
    either = "|".join(r"[\s-]+".join(map(re.escape, name.text.split())) for name in spelt.values())
    pattern = re.compile(rf"((?i:{either})s?)\s+\(([A-Z][A-Za-z0-9-]{{1,7}})[),;]")
    # Before each bracket alone: to try all names at each letter of a report took 4 ms.
    longest = max(len(name.text) for name in spelt.values()) + _SPACES_IN_A_NAME
    declared = [
        declaration.groups()
        for aside in _ABBREVIATION_IN_BRACKETS.finditer(text)
        if (declaration := pattern.search(text, max(0, aside.start() - longest), aside.end()))
    ]
    return tuple(
        replace(spelt.get(normalise(name), names[0]), text=short, exact=True)
        for name, short in dict.fromkeys(declared)
        # '(Figure)' and '(Case)' begin with a capital too.
        if sum(map(str.isupper, short)) >= 2 and not _abbreviates_a_site(name, short)
    )


def tells(text: str, name: DiagnosisName) -> bool:
    """Whether `text` tells the name: an abbreviation as it is written, any other as `mentions`."""
    if name.exact:
        return re.search(rf"\b{re.escape(name.text)}s?\b", text) is not None
    if name.strict:
        plain = _organs(normalise(name.text))
        return _stands_in(_organs(normalise(_without_scan_errors(text))), plain)
    return mentions(text, name.text)


def mentions(text: str, name: str) -> bool:
    """Whether `text` names it: as whole words, by all its words within one sentence, as an
    adjective ('tuberculous'), by what is given against it ('antituberculosis'), or, when long, in a
    slightly other spelling. Hyphens and invisible characters hide nothing.
    """
    plain_name = _organs(normalise(name))
    if not plain_name or is_general(plain_name):
        return False
    visible = _without_scan_errors(text)
    return any(
        _mentions(variant, plain_name)
        # Without hyphens too: 'neuro-fibroma' is the name in two pieces.
        for variant in dict.fromkeys((visible, visible.replace("-", "")))
    )


@lru_cache(maxsize=5000)
def _without_scan_errors(text: str) -> str:
    """`text` without invisible characters, and with letters where a scanner saw digits."""
    if not text.isascii():
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return _MISREAD_DIGIT.sub(lambda match: "ol"[int(match[0])], text)


@lru_cache(maxsize=5000)
def _organs(plain: str) -> str:
    return " ".join(_ORGAN_ADJECTIVES.get(word, word) for word in plain.split())


def _mentions(text: str, name: str) -> bool:
    plain = _organs(normalise(text))
    if _stands_in(plain, name):
        return True
    # Without three letters at its end: '-itis', '-osis' and '-oma' become adjectives.
    stems = [word[: max(5, len(word) - 3)] for word in name.split() if len(word) > 3]
    # One sentence: words that stand far apart name another thing each.
    if len(stems) >= 2 and any(
        all(f" {stem}" in sentence or f"+{stem}" in sentence for stem in stems)
        for sentence in _sentences(text)
    ):
        return True
    return len(name) >= FUZZY_LENGTH and _words_align(name, plain)


def _stands_in(plain: str, name: str) -> bool:
    """Whether plain text has the name in one of the ways of `_pattern_of`. They begin alike, so
    that most patterns need not be compiled."""
    begins = not name.isascii() or name[:3] in plain
    return begins and _pattern_of(name).search(plain) is not None


@lru_cache(maxsize=5000)
def _pattern_of(name: str) -> re.Pattern[str]:
    """The whole name, what is given against it, or its adjective. A script that writes no spaces
    has no word boundaries; one that is not Latin has endings of its own."""
    # No Latin letter: neither plurals nor English endings.
    if not re.search(r"[a-z]", name):
        letters = [word for word in name.split() if len(word) > 1]
        if name[0].lower() != name[0].upper():
            # Russian or Greek: two letters at the end are case and number.
            stems = (re.escape(word[: max(4, len(word) - 2)]) + r"\w*" for word in letters)
            return re.compile(r"\b" + r"\s".join(stems))
        # Chinese or Japanese: a line's end may stand between any two characters.
        return re.compile(r"\s?".join(re.escape(c) for c in name if not c.isspace()))
    *words, last = name.split()
    ways = [rf"{re.escape(name)}(?:s|es)?\b", rf"{re.escape(' '.join([*words, singular(last)]))}\b"]
    # A shorter name's stem fits other words: 'anti g' of 'gout'.
    if len(name) >= 7:
        ways.append(rf"anti ?{re.escape(name[: len(name) - 3])}")
    stem = re.sub(r"(?:i?osis|itis|oma|emia|i?asis|a)$", "", name)
    # 'porphyric', 'mycobacterial', 'hemophiliacs'; 'epileptic'
    if name.endswith("lepsy"):
        ways.append(rf"{re.escape(name.removesuffix('sy'))}tics?\b")
    # Of '-emia' below; 'ischemic heart disease' is no ischemia of a leg.
    if len(name) >= 7 and name.endswith(("ia", "ium")) and not name.endswith("emia"):
        ways.append(rf"{re.escape(name.removesuffix('a').removesuffix('um'))}(?:cs?|al|acs?)\b")
    # A stem of fewer letters begins other words too.
    if 6 <= len(stem) < len(name):
        # The organism, too: 'histoplasma', 'brucella', 'blastomyces' of what they cause. Before
        # '-itis' stands an organ, whose adjective tells no disease: 'urethral discharge'.
        of_stem = "(?:(?:om|at)?ous|otic|itic|emic|id|ic|al|ia|a|us|um|es)?"
        ways.append(rf"{re.escape(stem)}{'itic' if name.endswith('itis') else of_stem}\b")
    return re.compile(rf"\b(?:{'|'.join(ways)})")


def _words_align(name: str, plain: str) -> bool:
    """Fuzzy, but word for word: each word of the name has a close one at its place, so 'hypo-' is
    never taken for 'hyper-'."""
    pattern = name.split()
    if pattern[0][:4] not in plain:  # as `_close` has it, before the costly part
        return False
    words = plain.split()
    return any(
        _close(pattern[0], words[start])
        and all(map(_close, pattern, words[start : start + len(pattern)]))
        for start in range(len(words) - len(pattern) + 1)
    )


def _close(a: str, b: str) -> bool:
    # The first four letters alike: 'hypo-' and 'hyper-' differ within them.
    return a == b or (len(a) >= 7 and a[:4] == b[:4] and fuzz.ratio(a, b) >= CLOSE_AT)


@lru_cache(maxsize=200)
def _sentences(text: str) -> list[str]:
    return [" " + _organs(normalise(sentence)) for sentence in statements(text)]
