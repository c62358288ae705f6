"""The oracle f: an ordered test -> the documented results of the menu, verbatim, or UNAVAILABLE
(paper, section 3.3).

It cannot invent: every text it returns is copied from an entry of the menu that it was given. How
an order is read, `medaction.envs.orders`; what two names of tests have in common,
`medaction.envs.naming`; which values a result reports, `medaction.envs.reported`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Literal, TypeVar

import numpy as np
from rapidfuzz.distance import OSA

from medaction.envs.matching import (
    MARKER,
    MARKING,
    ON_TISSUE,
    SAMPLED,
    SOUGHT,
    Name,
    is_short_for,
    is_told,
    is_vague,
    may_be_related,
    nested,
    of_all_parts,
    tells,
    texts_of,
    told_of_staining,
    word_score,
)
from medaction.envs.naming import (
    CULTURED,
    FINDINGS,
    IMAGING,
    NO_SLIPS,
    TISSUES,
    WITHIN,
    Profile,
    can_be_same,
    can_be_same_place,
    profile,
    regions_in_text,
    same_modality,
    specimen_of,
    synonyms_of,
    tokens_of,
    vocabulary,
)
from medaction.envs.orders import cut, is_general, read_order
from medaction.envs.records import Answer, DocumentedResult, DocumentedTest
from medaction.envs.reported import clauses, is_done, mentions, names_a_disease, reports
from medaction.words.names import normalise
from medaction.words.tests import PANELS, parts_of_panel, tests_by_name

Encode = Callable[[list[str]], np.ndarray]
"""Texts -> one unit vector a text, shape (texts, dimensions)."""

Choose = Callable[[str, Sequence[str]], Sequence[int]]
"""An order and the names of the menu -> the positions (from 0) of the entries that answer it
(`medaction.envs.menu_choice.make_chooser`)."""

Item = TypeVar("Item", int, str)

Method = Literal["exact", "synonym", "words", "panel", "encoder", "llm"]

ENCODER_AT = 0.86
"""Cosine from which the encoder may match."""


_SHORTEST_SLIP = 6
"""Letters of a word from which one slip of the pen is forgiven."""

_LONGEST_NAME = 120
"""Characters of a test's name that the encoder is asked about."""

_TOLD = 1500
"""Characters of a result that are read for the regions and words that its entry's name leaves open.
"""


_LOOSE_NAMES = frozenset(
    {
        "chemistry",
        "serum chemistry",
        "blood chemistry",
        "biochemistry",
        "serum biochemistry",
        "serum chemistries",
    }
)
"""Names of a panel that reports use for whatever was measured."""

_FAR_SEEING = frozenset({"angiography", "venography", "pet", "imaging"})
"""Kinds of imaging that say little without their region."""


@dataclass(frozen=True, slots=True)
class Match:
    """Which entries of the menu (by position) one ordered test matched, how, and how well (0 to 1;
    None: an LLM chose)."""

    entries: tuple[int, ...]
    method: Method
    score: float | None


class Oracle:
    """Answers orders from one menu.

    An order goes through a cascade until a step knows it: the same name; a name of the same test
    (exact, synonym); the same modality, region and words (words); a panel by its parts or a part by
    its panel (panel); the nearest name by `encode` from cosine `threshold` (encoder); and for an
    order that no step knows, `choose` (llm), which may only point at entries of the menu. One slip
    in a long word is forgiven before the encoder is asked. At every step the guards hold: another
    modality, region, side, specimen or analyte is another test. A repeated order ('repeat CBC')
    gets an entry that is itself the repeat before the first one, any other order the first one.

    An order in general ('labs', 'imaging', 'workup', 'all tests', 'everything') names no test and
    is UNAVAILABLE, so that nobody gets the whole menu by asking for it; only an entry of that very
    name is answered.

    `aliases` maps a normalised name to all names of that test; a group need not be strict, so a
    name counts only if it shares words or is an abbreviation. What `choose` returns beside valid
    positions is ignored.
    """

    def __init__(
        self,
        menu: Sequence[DocumentedTest],
        aliases: Mapping[str, tuple[str, ...]] | None = None,
        encode: Encode | None = None,
        threshold: float = ENCODER_AT,
        choose: Choose | None = None,
    ):
        self._menu = tuple(menu)
        self._aliases = aliases or {}
        self._encode = encode
        self._threshold = threshold
        self._choose = choose
        self._told = [tokens_of(normalise(test.result[:_TOLD])[:_TOLD]) for test in self._menu]
        self._clauses = [clauses(test.result) for test in self._menu]
        self._statements = [
            [frozenset(tokens_of(normalise(clause))) for clause in found if is_done(clause)]
            for found in self._clauses
        ]
        self._own = [of_all_parts(cut(test.name)) for test in self._menu]
        self._around = Counter(
            region
            for test, own, told in zip(self._menu, self._own, self._told, strict=True)
            for region in own.regions
            | (regions_in_text(told) if test.category != "laboratory" else frozenset())
            if region not in TISSUES
        )
        self._names = [name for number in range(len(self._menu)) for name in self._names_of(number)]
        self._told_words = [frozenset(told) for told in self._told]
        self._by_text: defaultdict[str, list[Name]] = defaultdict(list)
        for name in self._names:
            self._by_text[name.profile.text].append(name)

    def answer(self, orders: Sequence[str]) -> tuple[Answer, ...]:
        """One answer an order, in their sequence. An order of several tests gets all their results;
        none found: UNAVAILABLE."""
        return tuple(self._answer(order) for order in orders)

    def _answer(self, order: str) -> Answer:
        found = list(self.matches(order))
        if not found:
            return Answer(order)
        entries = sorted({entry for match in found for entry in match.entries})
        weakest = min(found, key=lambda match: match.score or 0.0)
        results = tuple(
            DocumentedResult(self._menu[entry].name, self._menu[entry].result) for entry in entries
        )
        return Answer(
            order,
            results,
            weakest.method,
            None if weakest.score is None else round(weakest.score, 3),
        )

    def matches(self, order: str) -> Iterator[Match]:
        """The matches of an order: of the whole name where the menu knows it, else of each test
        that it names."""
        if exact := self._exact(profile(" ".join(cut(order).replace("_", " ").split()))):
            yield exact
            return
        asked = read_order(order)
        if not asked.text or is_general(asked.text):
            return
        wanted = profile(asked.text)
        whole = self._by_name(wanted) or (self._by_panel(wanted) if wanted.canonical else None)
        found = [whole] if whole else self._match_all(asked.parts)
        if not found and len(asked.parts) > 1:
            found = self._match_all((asked.text,))
        if (
            not found
        ):  # 'Coagulation panel (PT, aPTT)': what stands in brackets says it in other words
            found = self._match_all(asked.brackets)
        yield from found or self._by_choice(asked.text, asked.parts)

    def _match_all(self, parts: Iterable[str]) -> list[Match]:
        return [match for part in _unique(parts) if (match := self._match(part))]

    def _match(self, order: str) -> Match | None:
        """The first step of the cascade that knows one ordered test: as it is written, without a
        slip, without what it is for."""
        wanted = profile(order)
        if found := self._known(wanted):
            return found
        if (mended := self._mended(wanted)) and (found := self._known(profile(mended))):
            return found
        test, _, purpose = order.partition(" for ")
        if (
            purpose
            and (found := self._known(profile(test)))
            and self._is_for(found, profile(test), purpose)
        ):
            return found
        return self._by_encoder(wanted)

    def _known(self, wanted: Profile) -> Match | None:
        return self._by_name(wanted) or self._by_words(wanted) or self._by_panel(wanted)

    def _is_for(self, found: Match, wanted: Profile, purpose: str) -> bool:
        """'Genetic testing for Wilson disease' is not answered by that of another disease; 'CT head
        for trauma' is any CT head."""
        if wanted.kinds and not wanted.kinds & SOUGHT:
            return True
        sought = {word for word in profile(purpose).terms if len(word) > 3}
        told = frozenset().union(
            *(self._told_words[entry] | self._own[entry].terms for entry in found.entries)
        )
        return not sought or bool(sought & told)

    def _exact(self, wanted: Profile) -> Match | None:
        """The entry of that name, and the others that name the same test by the tables."""
        own = {name.entry for name in self._by_text.get(wanted.text, ()) if name.own}
        if not own or not wanted.text:
            return None
        same = {
            name.entry
            for name in self._names
            if name.own and wanted.canonical and self._is_synonym(wanted, name, set())
        }
        return Match(
            _unique(sorted({*own, *self._preferred(wanted, sorted(own | same))})), "exact", 1.0
        )

    def _by_name(self, wanted: Profile) -> Match | None:
        """The same name; or a name of the same test, by the menu's aliases, the table of names, or
        the given groups."""
        if exact := self._exact(wanted):
            return exact
        group = {normalise(name) for name in self._aliases.get(wanted.text, ())}
        same = [name.entry for name in self._names if self._is_synonym(wanted, name, group)]
        return Match(self._preferred(wanted, same), "synonym", 1.0) if same else None

    def _is_synonym(self, wanted: Profile, name: Name, group: set[str]) -> bool:
        said = name.profile
        if said.text == wanted.text:
            return True
        if not can_be_same(wanted, said, self._told_words[name.entry]):
            return False
        if wanted.canonical is not None and wanted.canonical == said.canonical:
            return said.text not in _LOOSE_NAMES or self._is_reported(
                name.entry, wanted, parts_of_panel(wanted.canonical)
            )
        strangers = not (wanted.canonical or said.canonical)
        return (
            strangers
            and said.text in group
            and (is_short_for(wanted.text, said.text) or nested(wanted, said))
        )

    def _by_words(self, wanted: Profile) -> Match | None:
        """Names that say the same by modality, region and their remaining words; the best-covered
        ones."""
        scores: dict[int, float] = {}
        for name in self._names:
            if (score := word_score(wanted, name, self._told_words[name.entry])) > 0:
                scores[name.entry] = max(score, scores.get(name.entry, 0.0))
        if not scores:
            return None
        if wanted.repeated and (
            repeats := {
                entry: score for entry, score in scores.items() if self._own[entry].repeated
            }
        ):
            scores = repeats
        best = max(scores.values())
        entries = self._preferred(
            wanted, [entry for entry, score in scores.items() if score >= best - 1e-9]
        )
        alike = tuple(e for e in entries if self._own[e].kinds == wanted.kinds)
        return Match(alike or entries, "words", best)

    def _by_panel(self, wanted: Profile) -> Match | None:
        """A panel gets its documented components, and a component the entry that reports it."""
        if is_vague(wanted) or is_general(wanted.text):
            return None
        components = parts_of_panel(wanted.canonical)
        entries = [
            name.entry
            for name in self._names
            if name.profile.canonical in components and name.profile.specimen == wanted.specimen
        ]
        entries += [
            number for number in range(len(self._menu)) if self._reports(number, wanted, components)
        ]
        if not entries:  # a panel that is only summed up ('Within normal limits') says so of each of its components
            entries = [
                number for number in range(len(self._menu)) if self._is_summed_up(number, wanted)
            ]
        return Match(self._preferred(wanted, sorted(entries)), "panel", 1.0) if entries else None

    def _is_summed_up(self, number: int, wanted: Profile) -> bool:
        """Whether an entry says of a whole panel how it came out: 'Liver function tests: normal',
        'Blood tests: normal renal function'."""
        test, own = self._menu[number], self._own[number]
        if wanted.canonical is None or own.specimen != wanted.specimen or own.kinds & SAMPLED:
            return False
        if wanted.canonical in parts_of_panel(own.canonical) and not any(
            c == ":" or c.isdigit() for c in test.result
        ):
            return True
        above = [panel for panel, parts in PANELS.items() if wanted.canonical in parts]
        names = [name for panel in above for name in synonyms_of(panel)]
        return test.category in ("laboratory", "physiologic") and any(
            reports(self._clauses[number], name, known=False) for name in names
        )

    def _reports(self, number: int, wanted: Profile, components: frozenset[str]) -> bool:
        test, own = self._menu[number], self._own[number]
        if test.category == "pathology" or own.kinds & SAMPLED - IMAGING:
            return self._is_seen_in_tissue(number, wanted)
        if test.category not in ("laboratory", "physiologic", "procedure") or own.kinds & SAMPLED:
            return False
        if (
            wanted.kinds == {"cytology"}
            and wanted.specimen
            and own.specimen == wanted.specimen
            and not own.kinds
        ):
            return mentions(
                self._clauses[number], ("cytolog\\w+", "cells?", "malignan\\w+", "lymphocyt\\w+")
            )
        if wanted.kinds and wanted.kinds <= SOUGHT:
            if any(tells(own, statement, wanted) for statement in self._statements[number]):
                return True
            if not wanted.canonical:
                return False
        if (own.specimen and own.specimen != wanted.specimen) or wanted.kinds & SAMPLED:
            return False
        if not may_be_related(
            wanted.canonical, own.canonical
        ):  # a blood gas's bicarbonate makes no metabolic panel
            components = components - parts_of_panel(own.canonical)
        return self._is_reported(number, wanted, components)

    def _is_seen_in_tissue(self, number: int, wanted: Profile) -> bool:
        """Whether the report of a biopsy tells of a stain, a marker, a culture or a PCR that was
        done on it."""
        told = self._told_words[number] | self._own[number].kinds
        sought = wanted.terms - MARKING
        kinds = wanted.kinds - {"biopsy"}
        stained = (
            "stain" in kinds
            or bool(wanted.terms & MARKING)
            or (kinds == {"smear"} and "tuberculosis" in sought)
        )
        if wanted.specimen or not (kinds or sought) or not kinds <= ON_TISSUE:
            return False
        if not sought:
            return "immunohistochemistry" in wanted.terms and told_of_staining(told)
        if (not kinds and not MARKER.fullmatch(wanted.text)) or not is_told(sought, told):
            return False
        return stained or (bool(kinds & told) if kinds else told_of_staining(told))

    def _is_reported(self, number: int, wanted: Profile, components: frozenset[str]) -> bool:
        own = self._own[number]
        tests = {*components, *([wanted.canonical] if wanted.canonical else [])}
        names = [synonym for test in tests for synonym in synonyms_of(test)] or list(
            synonyms_of(wanted.text)
        )
        if (
            own.specimen != wanted.specimen
        ):  # then the result itself must say of what: '24-hour urine protein: 1180 mg'
            names = [name for name in names if profile(name).specimen == wanted.specimen]
        if any(
            reports(self._clauses[number], name, wanted.specimen, bool(tests)) for name in names
        ):
            return True
        found = [word for test in tests for word in FINDINGS.get(test, ())]
        return (
            bool(found)
            and own.specimen is None
            and wanted.specimen is None
            and mentions(self._clauses[number], found)
        )

    def _by_encoder(self, wanted: Profile) -> Match | None:
        """The nearest name by cosine, if near enough and not ruled out by a guard."""
        if (
            self._encode is None
            or not self._names
            or not 3 <= len(wanted.text) <= _LONGEST_NAME
            or is_vague(wanted)
            or is_general(wanted.text)
            or (
                not wanted.kinds
                and not wanted.canonical
                and names_a_disease(wanted.text.partition(" of ")[0])
            )
        ):  # a disease is no test, however near the name of one stands
            return None
        allowed = [
            n
            for n, name in enumerate(self._names)
            if can_be_same(wanted, name.profile, self._told_words[name.entry])
        ]
        if not allowed:
            return None
        cosines = self._vectors[allowed] @ self._encode([wanted.text])[0]
        best = int(np.argmax(cosines))
        if cosines[best] < self._threshold:
            return None
        return Match((self._names[allowed[best]].entry,), "encoder", float(cosines[best]))

    @cached_property
    def _vectors(self) -> np.ndarray:
        assert self._encode is not None
        return self._encode([name.profile.text for name in self._names])

    def _by_choice(self, order: str, parts: Sequence[str]) -> Iterator[Match]:
        """What an LLM points at. It may bridge names that no table knows; the guards of modality,
        place and specimen hold for it too."""
        if self._choose is None or not parts or not self._menu:
            return
        chosen = self._choose(order, [test.name for test in self._menu])
        valid = {
            c
            for c in chosen
            if isinstance(c, int) and not isinstance(c, bool) and 0 <= c < len(self._menu)
        }
        if entries := tuple(
            c for c in sorted(valid) if any(self._may_choose(profile(part), c) for part in parts)
        ):
            yield Match(entries, "llm", None)

    def _may_choose(self, wanted: Profile, entry: int) -> bool:
        names = [name.profile for name in self._names if name.entry == entry]
        if wanted.kinds & IMAGING and not any(name.kinds & IMAGING for name in names):
            modality = wanted.kinds & IMAGING
            names = [
                replace(name, kinds=modality)
                for name in names
                if not name.kinds and modality <= self._told_words[entry]
            ]
        return any(
            same_modality(wanted, name)
            and can_be_same_place(wanted, name)
            and may_be_related(wanted.canonical, name.canonical)
            for name in names
        )

    def _preferred(self, wanted: Profile, entries: Iterable[int]) -> tuple[int, ...]:
        """Of several entries that match: the repeat for a repeated order and the first for any
        other; then by contrast, if both say."""
        found = _unique(entries)
        found = tuple(e for e in found if self._own[e].repeated == wanted.repeated) or found
        if wanted.contrast is not None:
            found = tuple(e for e in found if self._own[e].contrast == wanted.contrast) or found
        return found

    def _mended(self, wanted: Profile) -> str | None:
        """The order with each long word that no table and no entry knows put right, if exactly one
        known word is one edit away."""
        mended = []
        for word in wanted.text.split():
            near = [word]
            if len(word) >= _SHORTEST_SLIP and word.isalpha() and word not in self._known_words:
                candidates = self._mendable.get(word[0], ())
                near = [
                    known
                    for known in candidates
                    if abs(len(known) - len(word)) < 2 and OSA.distance(word, known) == 1
                ] or near
            mended.append(near[0] if len({_stem(n) for n in near}) == 1 else word)
        text = " ".join(mended)
        return text if text != wanted.text else None

    @cached_property
    def _menu_words(self) -> frozenset[str]:
        return frozenset(word for name in self._names for word in name.profile.text.split())

    @cached_property
    def _known_words(self) -> frozenset[str]:
        return vocabulary() | NO_SLIPS | self._menu_words

    @cached_property
    def _mendable(self) -> dict[str, list[str]]:
        by_letter: defaultdict[str, list[str]] = defaultdict(list)
        for word in sorted(vocabulary() | self._menu_words):
            if len(word) >= _SHORTEST_SLIP and word.isalpha():
                by_letter[word[0]].append(word)
        return by_letter

    def _regions_around(self, said: Profile) -> frozenset[str]:
        """Where an entry without any region may be of: for an image all that the menu speaks of,
        for tissue what it speaks of most."""
        if not said.kinds & {"biopsy", "fna", "cytology"}:
            return frozenset(self._around)
        most = max(self._around.values(), default=0)
        often = frozenset(region for region, count in self._around.items() if 2 * count >= most)
        inner = frozenset(region for region in often if not WITHIN[region])
        return inner or often or TISSUES

    def _names_of(self, entry: int) -> Iterator[Name]:
        """The names of an entry. What they leave open the result may tell: 'CT: mass in the right
        lung' is of the chest.

        Where the result does not tell either, the region must be one that the menu speaks of.
        """
        test, own = self._menu[entry], self._own[entry]
        told = self._told[entry]
        modality = frozenset(told) & IMAGING - {"imaging"}
        told_regions = regions_in_text(told) - TISSUES
        if test.category == "pathology":
            told_regions |= regions_in_text(told) & {"lymphnode"}
        sides = frozenset(told) & {"left", "right"}
        specimen = next((s for t in told if (s := specimen_of(t)) and s != "blood"), None)
        for text, is_own in texts_of(test):
            said = profile(text)
            seen = test.category in ("imaging", "pathology") or bool(said.kinds & SAMPLED)
            regions = said.regions or own.regions or (told_regions if seen else frozenset())
            if seen and not regions and not said.kinds & _FAR_SEEING:
                regions = self._regions_around(said)
            yield Name(
                entry,
                is_own,
                replace(
                    said,
                    regions=regions,
                    sides=said.sides or (sides if seen and len(sides) == 1 else frozenset()),
                    specimen=said.specimen
                    or own.specimen
                    or (specimen if said.kinds & CULTURED else None),
                    kinds=modality
                    if seen and said.kinds == {"imaging"} and modality and not said.regions
                    else said.kinds,
                ),
                regions - said.regions - own.regions,
            )


def _unique(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(dict.fromkeys(items))


@cache
def _stem(word: str) -> str:
    return tests_by_name().get(word, word.rstrip("s"))
