"""The oracle f: an ordered test -> the documented results of the menu, verbatim, or UNAVAILABLE (paper, section 3.3).

It cannot invent: every text it returns is copied from an entry of the menu that it was given.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from envs.naming import CULTURED, IMAGING, PANELS, Profile, can_be_same, known_names_in, normalise, profile, synonyms_of
from envs.records import Answer, DocumentedResult, DocumentedTest

Encode = Callable[[list[str]], np.ndarray]
"""Texts -> one unit vector a text, shape (texts, dimensions)."""

Method = Literal["exact", "synonym", "words", "panel", "encoder"]

ENCODER_AT = 0.86
"""Cosine from which the encoder may match."""

COVERAGE = 0.6
"""Of the longer name's words, this share must stand in the shorter one."""

MAX_ORDER = 400
"""Characters of an order that are read; a longer one is no test's name."""

_NO_ORDER = re.compile(
    r"^(?:no|not|none|without|avoid|defer|hold|do not|don't|never|n/a|cancel|stop|skip|nothing)\b", re.IGNORECASE
)
_PURPOSE = re.compile(
    r"\b(?:(?:in order )?to|for) (?:rule out|evaluate|assess|exclude|look|check|confirm|detect|determine|identify|investigate|further"
    r"|screen)\b.*|\blook(?:ing)? for\b.*",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"\s*(?:[,;&\n+]|(?<![A-Za-z]\d)/|\b(?:and|plus|as well as|with|including|or)\b)\s*", re.IGNORECASE)


_SOUGHT = frozenset({"antibody", "antigen", "serology", "pcr", "culture", "smear", "stain"})
"""Kinds of tests that say nothing without what they look for, or where."""

_IG = frozenset({"igg", "igm", "iga"})
_NO_TEST_ALONE = frozenset({"doppler", "color doppler", "contrast"})
_TAKES_REGION = frozenset({"ct", "mri", "ultrasound", "xray", "angiography", "biopsy"})


@dataclass(frozen=True, slots=True)
class Match:
    """Which entries of the menu (by position) one ordered test matched, how, and how well (0 to 1)."""

    entries: tuple[int, ...]
    method: Method
    score: float


@dataclass(frozen=True, slots=True)
class _Name:
    """One name of one entry: its own or an alias."""

    entry: int
    own: bool
    profile: Profile


class Oracle:
    """Answers orders from one menu.

    `aliases` maps a normalised name to all names of that test (a group need not be strict: the guards of
    `envs.naming.can_be_same` hold inside it). `encode` is used last, from cosine `threshold`, under the same guards.
    """

    def __init__(
        self,
        menu: Sequence[DocumentedTest],
        aliases: Mapping[str, tuple[str, ...]] | None = None,
        encode: Encode | None = None,
        threshold: float = ENCODER_AT,
    ):
        self._menu = tuple(menu)
        self._names = [name for number, test in enumerate(self._menu) for name in _names(number, test)]
        self._aliases = aliases or {}
        self._encode = encode
        self._threshold = threshold
        self._vectors: np.ndarray | None = None

    def answer(self, orders: Sequence[str]) -> tuple[Answer, ...]:
        """One answer an order, in their sequence. An order of several tests gets all their results; none found: UNAVAILABLE."""
        return tuple(self._answer(order) for order in orders)

    def _answer(self, order: str) -> Answer:
        found = list(self.matches(order))
        if not found:
            return Answer(order)
        entries = dict.fromkeys(entry for match in found for entry in match.entries)
        weakest = min(found, key=lambda match: match.score)
        results = tuple(DocumentedResult(self._menu[entry].name, self._menu[entry].result) for entry in sorted(entries))
        return Answer(order, results, weakest.method, round(weakest.score, 3))

    def matches(self, order: str) -> Iterator[Match]:
        """The matches of an order: of the whole name where the menu knows it, else of each test that it names."""
        main, brackets = _main_and_brackets(order)
        if not main or _NO_ORDER.match(main):
            return
        wanted = profile(main)
        whole = self._by_name(wanted) or (self._by_panel(wanted) if wanted.canonical else None)
        parts = _parts(main)
        found = [whole] if whole else [match for part in parts if (match := self._match(part))]
        if not found and len(parts) > 1:
            found = [match for match in [self._match(main)] if match]
        if not found:  # 'Coagulation panel (PT, aPTT)': what stands in brackets says it in other words
            found = [match for part in _parts(brackets) if (match := self._match(part))]
        yield from found

    def _match(self, order: str) -> Match | None:
        """The first step of the cascade that knows one ordered test."""
        wanted = profile(order)
        return self._by_name(wanted) or self._by_words(wanted) or self._by_panel(wanted) or self._by_encoder(wanted)

    def _by_name(self, wanted: Profile) -> Match | None:
        """The same name; or a name of the same test, by the menu's aliases, the table of names, or the given groups."""
        if exact := [name.entry for name in self._names if name.own and name.profile.text == wanted.text]:
            return Match(_unique(exact), "exact", 1.0)
        group = {normalise(name) for name in self._aliases.get(wanted.text, ())}
        same = [name.entry for name in self._names if _is_synonym(wanted, name.profile, group)]
        return Match(_unique(same), "synonym", 1.0) if same else None

    def _by_words(self, wanted: Profile) -> Match | None:
        """Names that say the same by modality, region and their remaining words; the best-covered ones."""
        scores: dict[int, float] = {}
        for name in self._names:
            if (score := _word_score(wanted, name.profile)) > 0:
                scores[name.entry] = max(score, scores.get(name.entry, 0.0))
        if not scores:
            return None
        best = max(scores.values())
        return Match(tuple(entry for entry, score in scores.items() if score >= best - 1e-9), "words", best)

    def _by_panel(self, wanted: Profile) -> Match | None:
        """A panel gets its documented components, and a component the entry that reports it as a labelled value."""
        if _is_vague(wanted):
            return None
        components = _components(wanted.canonical)
        entries = [
            name.entry
            for name in self._names
            if name.profile.canonical in components and name.profile.specimen == wanted.specimen
        ]
        for number, test in enumerate(self._menu):
            own = profile(test.name)
            if test.category in ("laboratory", "physiologic", "procedure") and _may_report(wanted, own):
                names = [synonym for name in components or {wanted.canonical or wanted.text} for synonym in synonyms_of(name)]
                # A panel that is only summed up ('Within normal limits') says so of each of its components.
                summed_up = wanted.canonical in _components(own.canonical) and not re.search(r":|\d", test.result)
                if summed_up or any(reports(test.result, name) for name in names):
                    entries.append(number)
        return Match(_unique(sorted(entries)), "panel", 1.0) if entries else None

    def _by_encoder(self, wanted: Profile) -> Match | None:
        """The nearest name by cosine, if near enough and not ruled out by a guard."""
        if self._encode is None or not self._names or not wanted.text:
            return None
        allowed = [number for number, name in enumerate(self._names) if can_be_same(wanted, name.profile)]
        if not allowed:
            return None
        if self._vectors is None:
            self._vectors = self._encode([name.profile.text for name in self._names])
        cosines = self._vectors[allowed] @ self._encode([wanted.text])[0]
        best = int(np.argmax(cosines))
        if cosines[best] < self._threshold:
            return None
        return Match((self._names[allowed[best]].entry,), "encoder", float(cosines[best]))


def _names(entry: int, test: DocumentedTest) -> Iterator[_Name]:
    """The names of an entry. What they leave open the result may tell: 'CT: mass in the right lung' is of the chest."""
    own, told = profile(test.name), profile(test.result)
    seen = test.category in ("imaging", "pathology")
    modality = told.kinds & IMAGING - {"imaging"}
    for name in (test.name, *test.aliases):
        said = profile(name)
        yield _Name(
            entry,
            name == test.name,
            replace(
                said,
                regions=said.regions or own.regions or (told.regions if seen else frozenset()),
                specimen=said.specimen or own.specimen or (told.specimen if said.kinds & CULTURED else None),
                kinds=modality if seen and said.kinds == {"imaging"} and modality else said.kinds,
            ),
        )


def _unique(entries: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(entries))


def _is_synonym(wanted: Profile, name: Profile, group: set[str]) -> bool:
    if name.text == wanted.text:
        return True
    if not can_be_same(wanted, name):
        return False
    same = wanted.canonical is not None and wanted.canonical == name.canonical
    return same or (name.text in group and not (wanted.canonical or name.canonical))


def _word_score(wanted: Profile, name: Profile) -> float:
    """0: not the same test. Else how much of what either says both say, 0 to 1."""
    if not can_be_same(wanted, name):
        return 0.0
    ours, theirs = _said(wanted), _said(name)
    if not (wanted.kinds or wanted.rest) or not (name.kinds or name.rest) or _is_vague(wanted):
        return 0.0
    common = ours & theirs
    nested = wanted.rest <= name.rest or name.rest <= wanted.rest
    if wanted.kinds <= _SOUGHT and wanted.kinds and wanted.rest - _IG and not common - wanted.kinds:
        return 0.0  # 'CMV PCR' is not just any PCR
    if wanted.kinds and name.kinds:
        # One of the two may say more ('MRI brain with spectroscopy', 'Biopsy of cervical lymph node'), not both something else.
        return len(common) / len(ours | theirs) if common and (nested or wanted.regions & name.regions) else 0.0
    share = len(common) / max(len(ours), len(theirs))
    return share if (ours <= theirs or theirs <= ours) and share >= COVERAGE else 0.0


def _is_vague(wanted: Profile) -> bool:
    """'Serology', 'culture', 'IgG panel': of what, is not said."""
    more = wanted.rest - _IG or wanted.regions or wanted.specimen
    return bool(wanted.kinds) and wanted.kinds <= _SOUGHT | {"imaging"} and not more


def _said(said: Profile) -> frozenset[str]:
    return said.kinds | said.regions | said.rest


def _components(canonical: str | None) -> set[str]:
    """The tests that a panel reports, with those that its own panels report."""
    direct = set(PANELS.get(canonical or "", ()))
    return direct | {inner for part in direct for inner in PANELS.get(part, ())}


def _may_report(wanted: Profile, entry: Profile) -> bool:
    """Whether an entry can hold the ordered value: not from another specimen; tissue and cultures are entries of their own."""
    return entry.specimen == wanted.specimen and not wanted.kinds & {"biopsy", "culture"}


_VALUE = r"\s*(?:\([^()]{1,40}\)\s*)?(?:levels?|counts?|values?|titers?|ratio|activity|concentrations?|total|direct)?\s*"
_STATUS = (
    r"(?:elevated|raised|high|low|normal|negative|positive|decreased|increased|reduced|abnormal|undetectable|unremarkable|within|slightly|mildly"
    r"|markedly|prolonged|present|absent)"
)


def reports(result: str, name: str) -> bool:
    """Whether a result reports the value of `name`: 'Hb: 9 g/dL', 'WBC (4,800/µL)', 'CRP 12', 'elevated AST and ALT', 'TSH normal'."""
    if len(name) < 2 or not any(c.isalpha() for c in name):
        return False
    text = unicodedata.normalize("NFKC", result).casefold()
    words = r"[\s\-_]*".join(re.escape(word) for word in name.split())
    named = rf"(?<![a-z0-9-]){words}(?![a-z0-9])"
    labelled = rf"{named}{_VALUE}(?:[:=(]|(?:was|were|is|are|of|at)?\s*[<>≤≥~]?\s*\d|(?:was |were |is |are )?{_STATUS}\b)"
    return bool(re.search(labelled, text) or re.search(rf"\b{_STATUS}\b[^.;:()\d\n]{{0,120}}?{named}", text))


def _main_and_brackets(order: str) -> tuple[str, str]:
    """'Metabolic_Panel (electrolytes, BUN)' -> ('Metabolic Panel', 'electrolytes, BUN'), without what the order is for."""
    text = " ".join(order[:MAX_ORDER].replace("_", " ").split())
    brackets = ", ".join(re.findall(r"\(([^()]*)\)", text))
    main = _PURPOSE.sub("", re.sub(r"\([^()]*\)?", " ", text))
    return " ".join(main.split()).strip(" .:;,-"), brackets


def _parts(order: str) -> list[str]:
    """The tests that one order names; what only one of them says ('CT chest, abdomen and pelvis') holds for those without."""
    pieces = [piece.strip(" .:-") for piece in _SEPARATOR.split(_PURPOSE.sub("", order))]
    parts: list[str] = []
    for piece in pieces:
        said = profile(piece)
        if said.text in _NO_TEST_ALONE:
            continue
        if (
            piece
            and not _NO_ORDER.match(piece)
            and (said.kinds or said.regions or said.rest or said.canonical or said.specimen)
        ):
            parts += known_names_in(piece)
    return [_completed(part, parts) for part in parts]


def _completed(part: str, parts: list[str]) -> str:
    """'abdomen' of 'CT chest, abdomen' is 'abdomen ct'; 'Doppler' of 'pelvic ultrasound with Doppler' is 'Doppler pelvis'."""
    said = profile(part)
    if said.rest or said.canonical:
        return part
    others = [profile(other) for other in parts if other != part]
    if not said.kinds and (said.regions or said.specimen):
        lent = [kind for other in others for kind in sorted(other.kinds)]
    elif said.kinds and said.kinds <= _TAKES_REGION and not said.regions:
        lent = [region for other in others for region in sorted(other.regions)]
    elif said.kinds == {"culture"} and not said.specimen and not said.regions:
        lent = [other.specimen for other in others if other.specimen]
    else:
        lent = []
    return f"{part} {lent[0]}" if lent else part
