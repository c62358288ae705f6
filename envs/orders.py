"""What the text of an order asks for: 'CBC, CMP and troponin, no CT' -> 'CBC', 'CMP', 'troponin'."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from medaction.envs.naming import GENERAL, IMAGING, SHORTHAND, Profile, names_in_a_row, profile
from medaction.words.names import normalise
from medaction.words.tests import tests_by_name

MAX_ORDER = 400
"""Characters of an order that are read; a longer one is no test's name."""

MAX_PARTS = 40
"""Tests of one order that are answered."""

_REFUSAL = r"no|not|nor|avoid\w*|defer\w*|do not|don['’]?t|never|cancel\w*|skip\w*|omit\w*|except|rather than|instead of"
_NOT_WANTED = re.compile(
    rf"^\W*(?:{_REFUSAL}|none|without|hold(?:ing)?|n/a|stop|nothing|exclud\w+|declin\w+|refus\w+)\b",
    re.IGNORECASE,
)
_NOT_WANTED_LATER = re.compile(rf"\b(?:{_REFUSAL}|hold off|holding)\b.*", re.IGNORECASE)
_NEEDLESS = re.compile(
    r"\b(?:(?:is|are|was)?\s*not (?:yet )?(?:indicated|needed|necessary|required|recommended|warranted|appropriate|wanted)"
    r"|contraindicated|unnecessary|refused|declined|deferred|cancel?led)\b",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"\b(?:with(?:out)?|no|non)(?:[\s-]{0,3}(?:and|or|&|/)[\s-]{0,3}with(?:out)?)?[\s-]{0,3}"
    r"(?:(?:iv|i\.v\.|oral|intravenous|po|gadolinium)\s{1,3}(?:and\s{1,3})?){0,3}(?:contrast|gadolinium)\b",
    re.IGNORECASE,
)
_TIMES = re.compile(r"\bx ?[2-9]\b|\bq ?\d{1,2} ?h\w*", re.IGNORECASE)
_INSTEAD = re.compile(
    r"\binstead\b(?! of)|^\W*(?:order|get|obtain|do|just|only|please)\b", re.IGNORECASE
)
_PURPOSE = re.compile(
    r"""\b(?:
    (?:(?:in\ order\ )?to|for)\ (?:rule\ out|evaluat\w+|assess\w*|exclud\w+|look\w*|check\w*|confirm\w*|detect\w*|determin\w+|identif\w+
        |investigat\w+|further|screen\w*|see|find|obtain|help|establish|monitor\w*|quantif\w+|characteri[sz]e)
    |look(?:ing)?\ (?:for|at)|rul(?:e|ing)\ out|evaluate\ for|because|given\ (?:the|his|her|that)|due\ to|in\ view\ of|in\ case
    |if\ (?:not|any|stable|available|possible|indicated)|since|concern(?:ing|ed)?\ for|suspect\w*|suspicion\ of|as\ part\ of
    )\b.*""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_CLAUSE = re.compile(r"\s*(?:;|\.\s|\n|\bbut\b|\bhowever\b|\bthen\b)\s*", re.IGNORECASE)
_SEPARATOR = re.compile(
    r"""\s*(?:[,;&+](?!\s*$)|(?<![A-Za-z]\d)/
    |\b(?:and|plus|as\ well\ as|along\ with|together\ with|with|including|incl|followed\ by|or|nor)\b\.?)\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_ORGAN = r"(?:liver|hepatic|renal|kidney|thyroid)"
_FUNCTIONS = re.compile(
    rf"\b({_ORGAN})(?:/| and |, )(?=(?:{_ORGAN}(?:/| and |, )){{0,3}}{_ORGAN}\s(?:functions?|profiles?|panels?)\b)",
    re.IGNORECASE,
)
"""'Renal and liver function tests' is 'renal function, liver function tests'."""
_NO_TEST_ALONE = frozenset({"doppler", "color doppler", "contrast", "color flow imaging"})
_SCOPED = {
    "upper endoscopy": "stomach", "colonoscopy": "colon", "sigmoidoscopy": "colon", "bronchoscopy": "lung", "cystoscopy": "bladder",
    "hysteroscopy": "uterus", "laryngoscopy": "neck",
}  # fmt: skip
"""Where a biopsy is of that is taken in an endoscopy."""

_TAKES_REGION = frozenset({"ct", "mri", "ultrasound", "xray", "angiography", "biopsy"})
_FLUIDS = frozenset({"csf", "pleural", "ascitic", "synovial", "urine"})
_IN_FLUIDS = frozenset({
    "adenosine deaminase", "albumin", "amylase", "chloride", "creatinine", "differential count", "glucose", "lactate",
    "lactate dehydrogenase", "osmolality", "ph", "potassium", "red blood cells", "sodium", "total protein", "triglycerides",
    "white blood cells",
})  # fmt: skip
"""What is measured in a fluid as well as in blood."""


@dataclass(frozen=True, slots=True)
class Order:
    """One order, read. `whole` is its text without brackets and purpose; `parts` and `brackets` are
    the tests named there."""

    whole: str = ""
    parts: tuple[str, ...] = ()
    brackets: tuple[str, ...] = ()


def read_order(text: str) -> Order:
    """Read an order. What it does not want ('no CT', 'avoid contrast CT', 'MRI not indicated') is
    left out.

    An order in general ('labs', 'imaging', 'all tests', 'everything') names no test and has no
    parts.
    """
    text = _in_words(text)
    brackets = " ; ".join(re.findall(r"\(([^()]*)\)", text))
    main = _wanted(re.sub(r"\([^()]*\)?", " ", text))
    main = _with_place(main, brackets)
    if not main or _states_a_finding(main):
        return Order()
    return Order(
        main,
        tuple(p for p in parts_of(main) if not is_general(p)),
        tuple(p for p in parts_of(_wanted(brackets)) if not is_general(p)),
    )


def _states_a_finding(text: str) -> bool:
    """'Uptake by a ganglion on PET/CT' tells what an image shows; it orders none."""
    before, on, image = text.rpartition(" on ")
    said = profile(before)
    return bool(on and profile(image).kinds & IMAGING and said.terms and not said.kinds)


def cut(text: str) -> str:
    """As much of an order as is read; a sign that stands for many letters counts as many."""
    return unicodedata.normalize("NFKC", text[:MAX_ORDER])[:MAX_ORDER]


def _in_words(text: str) -> str:
    """Lines become clauses, shorthand ('w/o', 'O&P') becomes words, and 'without contrast' goes: it
    is no refusal."""
    text = re.sub(r"[\r\n\u2022]+", " ; ", cut(text)).replace("_", " ")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = _shorthand().sub(lambda found: f"{SHORTHAND[found[0].casefold()]} ", text)
    return " ".join(_TIMES.sub(" ", _CONTRAST.sub(" ", text)).split())


@cache
def _shorthand() -> re.Pattern[str]:
    signs = sorted(SHORTHAND, key=len, reverse=True)
    return re.compile(
        rf"(?<![\w/])(?:{'|'.join(map(re.escape, signs))})(?![\w/])|(?<![\w/])w/(?=\w)",
        re.IGNORECASE,
    )


def _wanted(text: str) -> str:
    """The clauses that ask for something, without what the tests are for."""
    clauses = []
    for clause in _CLAUSE.split(text):
        if _NOT_WANTED.match(
            clause
        ):  # 'no CT, MRI or PET' asks for nothing, 'no CT, MRI instead' for the MRI
            clause = ", ".join(piece for piece in clause.split(",")[1:] if _INSTEAD.search(piece))
        pieces: list[str | None] = []
        for piece in clause.split(","):
            if _NEEDLESS.search(piece) or _NOT_WANTED.match(piece):
                continue
            piece = _INSTEAD.sub(" ", piece)
            cut = _NOT_WANTED_LATER.sub("", piece)
            purpose = _PURPOSE.search(cut)
            if pieces and pieces[-1] is None and not _is_test(cut):
                continue  # still the purpose: 'to assess the labrum, the capsule'
            pieces.append(cut[: purpose.start()] if purpose else cut)
            if purpose:
                pieces.append(None)
        clauses.append(
            ", ".join(piece.strip() for piece in pieces if piece and piece.strip(" .:-"))
        )
    return "; ".join(clause for clause in clauses if clause).strip(" .:;,-")


def _is_test(text: str) -> bool:
    said = profile(text)
    return said.canonical is not None or bool(said.kinds)


def _with_place(main: str, brackets: str) -> str:
    """'Glucose (CSF)' is 'Glucose CSF', and 'Knee X-ray (right)' is 'Knee X-ray right'."""
    said, more = profile(main), profile(brackets)
    if more.kinds or more.terms:
        return main
    place = (
        (more.specimen and not said.specimen)
        or (more.regions and not said.regions)
        or (more.sides and not said.sides)
    )
    return f"{main} {normalise(brackets)}" if main and place else main


def is_general(text: str) -> bool:
    """Whether a text names no test: 'labs', 'blood tests', 'imaging', 'complete workup',
    'everything'."""
    words = normalise(text).split()
    return all(
        word in GENERAL
        or word in ("and", "of", "for", "on", "in", "me", "my", "a", "with", "to", "or")
        for word in words
    )


@cache
def _joined_names() -> re.Pattern[str]:
    """Names that have a separator inside: 'type and screen', 'newborn and metabolic screen'."""
    joined = sorted(
        (name for name in tests_by_name() if _SEPARATOR.search(name)), key=len, reverse=True
    )
    names = "|".join(r"[\s-]+".join(map(re.escape, name.split())) for name in joined)
    return re.compile(rf"\b(?:{names})\b", re.IGNORECASE)


def parts_of(text: str) -> list[str]:
    """The tests that a text names; what only one of them says ('CT chest, abdomen and pelvis')
    holds for those without."""
    text = _FUNCTIONS.sub(r"\1 function, ", text)
    text = _joined_names().sub(
        lambda found: tests_by_name()[normalise(found[0])].replace(" and ", " "), text
    )
    pieces = [piece.strip(" .:-") for piece in _SEPARATOR.split(text)]
    parts: list[str] = []
    for piece in pieces:
        said = profile(piece)
        if (
            piece
            and said.text not in _NO_TEST_ALONE
            and not _NOT_WANTED.match(piece)
            and _says_something(said)
        ):
            parts += names_in_a_row(piece)
    del parts[MAX_PARTS:]
    return [_completed(number, parts) for number in range(len(parts))]


def _says_something(said: Profile) -> bool:
    return bool(said.kinds or said.regions or said.terms or said.canonical or said.specimen)


def _completed(number: int, parts: list[str]) -> str:
    """'abdomen' of 'CT chest, abdomen' is 'abdomen ct'; 'Doppler' of 'pelvic ultrasound with
    Doppler' is 'Doppler pelvis'."""
    part = parts[number]
    said = profile(part)
    if (
        said.canonical in _IN_FLUIDS and said.specimen is None and number
    ):  # 'CSF glucose and protein'
        before = profile(parts[number - 1])
        named = (
            "blood" not in said.text.split()
            and "serum" not in said.text.split()
            and "plasma" not in said.text.split()
        )
        first = before.text.split()[0] if before.text else ""
        if (
            named
            and before.specimen in _FLUIDS
            and first
            in ("csf", "pleural", "ascitic", "synovial", "urine", "cerebrospinal", "urinary")
        ):
            parts[number] = f"{before.specimen} {part}"
            return parts[number]
        return part
    if said.terms or said.canonical:
        return part
    others = [profile(other) for other in parts[:number][::-1] + parts[number + 1 :]]
    if not said.kinds and (said.regions or said.specimen):
        lent = [
            " ".join(sorted(kinds))
            for other in others
            if (kinds := other.kinds & (IMAGING | {"biopsy", "culture"}))
        ]
    elif said.kinds and said.kinds <= _TAKES_REGION and not said.regions:
        scoped = [
            _SCOPED.get(kind)
            for other in others
            for kind in (other.canonical or "", *sorted(other.kinds))
        ]
        lent = [region for region in scoped if region and "biopsy" in said.kinds] or [
            region for other in others for region in sorted(other.regions)
        ]
    elif said.kinds == {"culture"} and not said.specimen and not said.regions:
        lent = [other.specimen for other in others if other.specimen]
    else:
        lent = []
    return f"{part} {lent[0]}" if lent else part
