"""What the text of an order asks for: 'CBC, CMP and troponin, no CT' -> 'CBC', 'CMP', 'troponin'.

The words that refuse a test or tell what it is for stand in data/test_words.toml.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from medaction.envs.categories import category_of
from medaction.envs.mentions import named_tests
from medaction.envs.naming import (
    APART,
    CULTURED,
    GENERAL,
    IMAGING,
    IN_FLUID_AT_END,
    KINDS,
    SHORTHAND,
    SOUGHT,
    TABLE,
    Profile,
    contrast_in,
    name_each_noun,
    names_in_a_row,
    profile,
    says_how,
    tokens_of,
)
from medaction.words.names import normalise
from medaction.words.phrases import phrase_pattern, phrase_regex
from medaction.words.tests import canonical_names

MAX_ORDER = 400
"""Characters of an order that are read; a longer one is no test's name. GPT-5's longest order in
the AgentClinic runs has 310."""

MAX_PARTS = 40
"""Tests of one order that are answered, so that nobody gets a menu by listing a vocabulary."""

_REFUSAL_AT_START = phrase_pattern(TABLE["refusals"] + TABLE["refusals_at_start"])
_REFUSAL_INSIDE = phrase_pattern(TABLE["refusals"] + TABLE["refusals_inside"])
_NEEDLESS = phrase_pattern(TABLE["needless"])
_TIMES = phrase_pattern(TABLE["times"])
_PURPOSE_OF_ORDER = phrase_pattern(
    # 'to rule out ...', 'for suspected ...': a disease there is looked for, not ordered.
    TABLE["purposes"]
    + "\n".join(
        f"{word} {verb.strip()}"
        for word in ("to", "for")
        for line in TABLE["purpose_verbs"].split("\n")
        for verb in line.split("|")
        if verb.strip()
    )
)
# Contrast first becomes words: 'without contrast' begins like a refusal.
_CONTRASTS = [
    (" ", phrase_pattern(TABLE["either_contrast"])),
    (" noncontrast ", phrase_pattern(TABLE["no_contrast"])),
    (" contrast ", phrase_pattern(TABLE["with_contrast"])),
    (" with ", phrase_pattern("with or without")),  # 'bronchoscopy with or without biopsy'
]
_INSTEAD = re.compile(
    r"\binstead\b(?! of)|^\W*(?:order|get|obtain|do|just|only|please)\b", re.IGNORECASE
)
_CLAUSE = re.compile(r"\s*(?:;|\.\s|\n|\bbut\b|\bhowever\b|\bthen\b)\s*", re.IGNORECASE)
_AFTER_LABEL = re.compile(r":\s|\s[-–—]\s")
# The comma of '1,25-dihydroxyvitamin D' parts nothing.
_COMMA = re.compile(r"(?<!\d),|,(?!\d)")
_BETWEEN_TESTS = phrase_regex(
    "plus | as well as | along with | together with | with | including | incl | followed by | or"
    " | nor",
    "",
)
# Not '1,25', 'antigen 125 and 19' or 'C3/C4'; 'and 24 h urine protein' begins another test.
_ORDER_SEPARATOR = re.compile(
    r"\s*(?:[;&+](?!\s*$)|(?<!\d),(?!\s*$)|,(?!\d|\s*$)|(?<![A-Za-z]\d)/"
    rf"|\b(?:and(?! \d+\b(?! h))|{_BETWEEN_TESTS})\b\.?)\s*",
    re.IGNORECASE,
)
_ORDER_IN_BRACKETS = re.compile(r"\(([^()]*)\)?")
_MUTATION_ORDER = re.compile(
    r"\bmutations?\b(?: status)?(?! (?:anal|test|screen|pan))", re.IGNORECASE
)
"""'EGFR mutation' orders the test for it."""
_NO_TEST_ALONE = frozenset({"doppler", "color doppler", "contrast", "color flow imaging"})
_IN_A_REGION = frozenset({"ct", "mri", "ultrasound", "xray", "angiography", "biopsy"})
_FLUIDS = frozenset({"csf", "pleural", "ascitic", "synovial", "urine"})
IN_FLUIDS = frozenset(
    name.strip() for line in TABLE["in_fluids"].split("\n") for name in line.split("|")
)
_BLOOD = frozenset({"blood", "serum", "plasma"})
_JOINTS = frozenset({"and", "of", "for", "on", "in", "me", "my", "a", "with", "to", "or"})


_LOOKS_FOR = re.compile(r"\b(?:for|against|to)\b", re.IGNORECASE)
_SYMBOL = re.compile(r"\d|[A-Z].*[A-Z]")
_INITIALS = re.compile(r"\b(?:[A-Za-z]\.){2,}[A-Za-z]?(?!\w)")
"""'E.S.R.' is 'ESR'."""
_FACTOR = re.compile(r"\bF([IVX]{1,4})\b")
"""'FVIII' is factor VIII."""
_TYPES = re.compile(
    r"\b([A-Z]{3,})[ -]?(?:[1-9]|I{1,3})(?: ?(?:/|&|,|\band\b) ?-?(?:[1-9]|I{1,3})\b)+"
)
"""'HSV-1/2', 'IDH1/2', 'HTLV I and II': the types of one germ or gene, and so any of it."""
_ANTIGEN_ANTIBODY = re.compile(r"\b(ag|antigen) ?/ ?(ab|antibod(?:y|ies))\b", re.IGNORECASE)
"""One test looks for both."""
_PERIPHERAL = re.compile(r"\bperipheral blood\b(?! \w+cytes?\b| (?:\w+ )*cells?\b)", re.IGNORECASE)
"""Blood is taken from there; what is counted in it needs its own name."""
_BREAKS_OFF = re.compile(r"\b(?:of|in|on|from)(?: the| both)? \w+$")


@dataclass(frozen=True, slots=True)
class Order:
    """One order, read. `text` is without brackets and purpose; `parts` and `brackets` are the tests
    reading there."""

    text: str = ""
    parts: tuple[str, ...] = ()
    brackets: tuple[str, ...] = ()


@lru_cache(maxsize=10_000)  # the reply's reader and the oracle both read it, in every rollout
def read_order(text: str) -> Order:
    """Read an order. What it does not want ('no CT', 'avoid contrast CT', 'MRI not indicated') is
    left out.

    An order in general ('labs', 'imaging', 'all tests', 'everything') names no test and has no
    parts.
    """
    text = _in_words(text)
    brackets = " ; ".join(_ORDER_IN_BRACKETS.findall(text))
    bare = _without_refusals(_ORDER_IN_BRACKETS.sub(" ", text))
    main = _with_place(bare, brackets)
    if not main or _states_a_finding(main):
        return Order()
    # A place in brackets is no order: 'anti-NMDAR (CSF)' asks for no CSF analysis.
    listed = tests_in(_without_refusals(brackets)) if main == bare else ()
    kind = _kind_sought(main)
    # 'Islet antibodies (GAD65, IA-2)': what stands in brackets is of the kind before them.
    listed = tuple(f"{p} {kind}" if kind and _is_symbol(p) else p for p in listed)
    return Order(main, tests_in(main), listed)


def single_tests(orders: Iterable[str]) -> tuple[str, ...]:
    """The single tests that orders ask for, each once; an order that names no test in particular
    counts as one. Limits, precision and cost count these, never entries.

    >>> single_tests(["CBC, CMP and CRP", "chest X-ray", "labs"])
    ('CBC', 'CMP', 'CRP', 'chest X-ray', 'labs')
    """
    return tuple(dict.fromkeys(part for order in orders for part in _parts_of_order(order)))


def _parts_of_order(order: str) -> tuple[str, ...]:
    parts = read_order(order).parts
    return parts if len(parts) > 1 else (order,)


def cut(text: str) -> str:
    """As much of an order as is read; a sign that stands for many letters counts as many."""
    return unicodedata.normalize("NFKC", text[:MAX_ORDER])[:MAX_ORDER]


def names_no_test(text: str) -> bool:
    """Whether a text names no test: 'labs', 'blood tests', 'imaging', 'complete workup',
    'everything'."""
    return (GENERAL | _JOINTS).issuperset(normalise(text).split())


def tests_in(text: str) -> tuple[str, ...]:
    """The tests that a text names; what only one of them says ('CT chest, abdomen and pelvis')
    holds for those without."""
    text = name_each_noun(text)
    # Names that hold an 'and' are put in a form without one before the text is split.
    text = _names_with_joints().sub(
        lambda match: canonical_names()[normalise(match[0])].replace(" and ", " "), text
    )
    # Of the whole order, before the split: 'CT chest and abdomen with contrast' means both.
    contrast = contrast_in(normalise(text))
    parts: list[str] = []
    for piece in _ORDER_SEPARATOR.split(text):
        piece = piece.strip(" .:-")
        if not piece or _REFUSAL_AT_START.match(piece) or not _names_something(profile(piece)):
            continue
        place = profile(piece)
        is_place = place.sides and place.regions and not (place.kinds or place.terms)
        if is_place and parts and _lacks_place(parts):
            parts[-1] += f" {piece}"  # 'arthrocentesis, left knee' is one test
        elif parts and _breaks_off(profile(parts[-1])) and _completes_a_place(place):
            parts[-1] += f" and {piece}"  # 'EMG of the upper and lower limbs', too
        else:
            parts += names_in_a_row(piece)
    # After the names were told apart: the limit counts tests.
    del parts[MAX_PARTS:]
    # From the first on: `_completed` may fill a part that the next one borrows from.
    completed = [_completed(number, parts) for number in range(len(parts))]
    if contrast is not None and len(parts) > 1:
        word = "contrast" if contrast else "noncontrast"
        completed = [f"{p} {word}" if profile(p).kinds & IMAGING else p for p in completed]
    return tuple(part for part in completed if not names_no_test(part))


def _states_a_finding(text: str) -> bool:
    """'Uptake by a ganglion on PET/CT' tells what an image shows; it orders none."""
    before, on, image = text.rpartition(" on ")
    finding = profile(before)
    return bool(on and profile(image).kinds & IMAGING and finding.terms and not finding.kinds)


def _in_words(text: str) -> str:
    """Lines become clauses, shorthand ('w/o', 'O&P') and contrast become words, so that 'without
    contrast' is no refusal."""
    text = re.sub(r"[\r\n\u2022]+", " ; ", cut(text)).replace("_", " ")
    # Control characters of a hostile order would hide words from the patterns.
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = re.sub(r"±|\+/-", " with or without ", text)
    text = _INITIALS.sub(lambda match: match[0].replace(".", ""), text)
    text = _FACTOR.sub(r"factor \1", text)
    text = _TYPES.sub(r"\1", text)
    text = _ANTIGEN_ANTIBODY.sub(r"\1 \2", text)
    text = _PERIPHERAL.sub("blood", text)
    text = _shorthand().sub(lambda match: f"{SHORTHAND[match[0].casefold()]} ", text)
    text = _MUTATION_ORDER.sub("mutation analysis", _TIMES.sub(" ", text))
    for word, pattern in _CONTRASTS:
        text = pattern.sub(word, text)
    return " ".join(text.split())


@cache
def _shorthand() -> re.Pattern[str]:
    signs = "|".join(map(re.escape, sorted(SHORTHAND, key=len, reverse=True)))
    return re.compile(rf"(?<![\w/])(?:(?:{signs})(?![\w/])|w/(?=\w))", re.IGNORECASE)


def _without_refusals(text: str) -> str:
    """The clauses that ask for something, without what the tests are for."""
    clauses = []
    for clause in _CLAUSE.split(text):
        clause = _without_frame(clause)
        pieces = [piece.strip(" \t.:-") for piece in _COMMA.split(clause)]
        if _REFUSAL_AT_START.match(pieces[0]):
            # 'no CT, MRI or PET' asks for nothing, 'no CT, MRI instead' for the MRI
            pieces = [piece for piece in pieces[1:] if _INSTEAD.search(piece)]
        tests: list[str] = []
        in_purpose = False
        for piece in pieces:
            if not piece or _NEEDLESS.search(piece) or _REFUSAL_AT_START.match(piece):
                continue
            # 'Order MRI, no CT needed': what stands before the refusal was ordered.
            piece = _until(_REFUSAL_INSIDE, _INSTEAD.sub(" ", piece))
            if in_purpose and not (profile(piece).canonical or profile(piece).kinds):
                continue  # still the purpose: 'to assess the labrum, the capsule'
            test = _until(_PURPOSE_OF_ORDER, piece)
            in_purpose = test != piece
            tests.append(test.strip(" .:-"))
        clauses.append(", ".join(filter(None, tests)))
    return "; ".join(filter(None, clauses)).strip(" .:;,-")


def _without_frame(clause: str) -> str:
    """'CBC, CMP' of 'Laboratory: CBC, CMP' and 'CBC' of 'CBC: anemia?': neither the group that
    tests stand under nor the question that one is to answer is a test."""
    if not (sign := _AFTER_LABEL.search(clause)):
        return clause
    label, rest = clause[: sign.start()], clause[sign.end() :].strip()
    if rest and names_no_test(label):
        return rest
    reading, head = profile(rest), profile(label)
    # 'Biopsy: liver?', 'PCR: HSV?' and 'glucose: fasting?' say of what, for what and how.
    says_which = reading.regions or reading.specimen or named_tests(rest) or says_how(rest)
    if not rest.endswith("?"):
        # 'CBC: may show anemia' is the CBC; 'Complement: CH50' and 'Echo: stress' are other tests.
        says_which = says_which or APART & reading.terms or any(map(_SYMBOL.search, rest.split()))
    if not says_which and not head.kinds & SOUGHT and named_tests(label):
        return label
    # 'LP: cell count, protein': what a fluid is looked at for.
    if head.canonical and head.specimen in _FLUIDS and rest:
        return ", ".join(
            [label, *(f"{head.specimen} {piece.strip()}" for piece in rest.split(","))]
        )
    return clause


def _until(end: re.Pattern[str], text: str) -> str:
    match = end.search(text)
    return text[: match.start()] if match else text


def _with_place(main: str, brackets: str) -> str:
    """'Glucose (CSF)' is 'Glucose CSF', and 'Knee X-ray (right)' is 'Knee X-ray right'."""
    reading, more = profile(main), profile(brackets)
    # With a kind or a term of their own the brackets are a test, read apart.
    if more.kinds or more.terms:
        return main
    place = (
        (more.specimen and not reading.specimen)
        or (more.regions and not reading.regions)
        or (more.sides and not reading.sides)
    )
    return f"{main} {normalise(brackets)}" if main and place else main


@cache
def _names_with_joints() -> re.Pattern[str]:
    """Names that have a separator inside: 'type and screen', 'newborn and metabolic screen'."""
    return phrase_pattern(
        "\n".join(name for name in canonical_names() if _ORDER_SEPARATOR.search(name))
    )


def _names_something(reading: Profile) -> bool:
    return reading.text not in _NO_TEST_ALONE and bool(
        reading.kinds or reading.regions or reading.terms or reading.canonical or reading.specimen
    )


def _completes_a_place(reading: Profile) -> bool:
    """'lower limbs' of 'upper and lower limbs'; 'head' of 'head and neck CT' begins a test."""
    is_place = reading.regions and not (reading.kinds or reading.terms or reading.specimen)
    return bool(is_place) and not profile(reading.text.split()[0]).regions


def _breaks_off(reading: Profile) -> bool:
    """Whether a test ends before the place that it speaks of ('EMG of the upper'). Of an image or a
    biopsy each place is a test."""
    last = profile(reading.text.split()[-1])
    is_whole = reading.kinds or reading.specimen or last.canonical or last.regions
    return not is_whole and _BREAKS_OFF.search(reading.text) is not None


def _lacks_place(parts: list[str]) -> bool:
    """Whether the last of the tests is a procedure without a place, and none before it is imaging,
    of which a place may be one more."""
    is_procedure = category_of(parts[-1]) == "procedure" and not profile(parts[-1]).regions
    return is_procedure and not any(profile(part).kinds & IMAGING for part in parts)


def _completed(number: int, parts: list[str]) -> str:
    """'abdomen' of 'CT chest, abdomen' is 'abdomen ct'; 'Doppler' of 'pelvic ultrasound with
    Doppler' is 'Doppler pelvis'; 'protein' of 'CSF glucose and protein' is 'csf protein'."""
    part = parts[number]
    reading = profile(part)
    # 'CSF glucose and protein': the protein is of the CSF; 'CSF glucose and CBC' is not.
    if (reading.canonical or reading.text) in IN_FLUIDS and number and not reading.specimen:
        fluid = _fluid_before(parts[:number])
        if fluid in _FLUIDS and _BLOOD.isdisjoint(reading.text.split()):
            parts[number] = f"{fluid} {part}"
        return parts[number]
    if kind := _shared_kind(number, parts):
        return f"{part} {kind}"
    end = IN_FLUID_AT_END.search(parts[number + 1]) if number + 1 < len(parts) else None
    if end and reading.kinds & CULTURED and not (reading.specimen or reading.regions):
        return f"{part}{end[0]}"
    # Neighbours lend: nearest first, those before it before those behind.
    neighbours = [profile(neighbour) for neighbour in parts[:number][::-1] + parts[number + 1 :]]
    if "stain" in reading.kinds and not reading.regions:  # 'liver biopsy with Congo red'
        places = [region for n in neighbours if "biopsy" in n.kinds for region in sorted(n.regions)]
        return " ".join([part, *places[:1]])
    # A test that says what it measures needs nothing of its neighbours.
    if reading.terms or reading.canonical:
        return part
    lent: list[str] = []
    if not reading.kinds and (reading.regions or reading.specimen):
        lendable = IMAGING | {"biopsy", "culture"}
        lent = [" ".join(sorted(n.kinds & lendable)) for n in neighbours]
    elif reading.kinds and reading.kinds <= _IN_A_REGION and not reading.regions:
        lent = [region for n in neighbours for region in sorted(n.regions)]
    elif reading.kinds == {"culture"} and not reading.specimen and not reading.regions:
        lent = [n.specimen or "" for n in neighbours]
    lent = [word for word in lent if word]
    return f"{part} {lent[0]}" if lent else part


def _fluid_before(parts: list[str]) -> str | None:
    """The specimen that the parts before one are of, over what no table knows: 'LP with opening
    pressure, cell count'."""
    known = (profile(part) for part in reversed(parts))
    before = next((part for part in known if part.specimen or part.canonical or part.kinds), None)
    return before.specimen if before else None


def _shared_kind(number: int, parts: list[str]) -> str:
    """The kind of test that a part shares with its neighbours: 'NRAS' of 'mutation analysis for
    BRAF and NRAS', 'CMV' of 'CMV and EBV PCR'."""
    if not _is_bare(parts[number]):
        return ""
    before = next((part for part in parts[:number][::-1] if not _is_bare(part)), "")
    if _LOOKS_FOR.search(before):
        return _kind_sought(before)
    behind = next((part for part in parts[number:] if not _is_bare(part)), "")
    # Only from a symbol to a symbol, and an 'anti' is of its own name alone: 'homocysteine and EBV
    # PCR', 'IgG4 and anti-PLA2R antibodies'.
    alike = _is_symbol(parts[number]) and _SYMBOL.search(behind.split()[0] if behind else "")
    return _kind_sought(behind) if alike and not behind.lower().startswith("anti") else ""


def _is_bare(part: str) -> bool:
    reading = profile(part)
    return bool(reading.terms) and not (reading.kinds or reading.canonical or reading.specimen)


def _is_symbol(part: str) -> bool:
    """Whether a part is nothing but symbols of genes, germs or antigens: 'GM1', 'IA-2', 'ZnT8'."""
    return _is_bare(part) and all(map(_SYMBOL.search, part.split()))


def _kind_sought(part: str) -> str:
    """The kind of a test that says nothing without what it looks for, and its specimen."""
    # Of the words as written: the first name of a test in the table may say no kind.
    kinds = KINDS.intersection(tokens_of(normalise(part)))
    fluid = profile(part).specimen or ""
    return f"{fluid} {' '.join(sorted(kinds))}".strip() if kinds and kinds <= SOUGHT else ""
