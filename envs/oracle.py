"""The oracle f: an ordered test -> the documented results of the menu, verbatim, or UNAVAILABLE
(paper, section 3.3).

It cannot invent: every text it returns is copied from an entry of the menu that it was given. How
an order is read, `medaction.envs.orders`; what two names of tests have in common,
`medaction.envs.naming` and `medaction.envs.matching`; which values a result reports,
`medaction.envs.reported`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from rapidfuzz.distance import OSA

from medaction.envs.matching import (
    MARKER,
    MARKING,
    ON_TISSUE,
    SAMPLED,
    SYMBOL,
    Entry,
    Name,
    is_vague,
    may_be_related,
    names_of_menu,
    names_sought,
    nested,
    read_entry,
    tells_of_staining,
    tells_of_test,
    with_later_tests,
    word_score,
)
from medaction.envs.mentions import named_tests
from medaction.envs.naming import (
    AMOUNTS,
    CLASSES,
    CONDITIONS,
    FINDINGS,
    IMAGING,
    NO_SLIPS,
    SOUGHT,
    STEMS,
    TAKEN,
    Profile,
    can_be_same,
    can_be_same_place,
    codes_of,
    fluids_in,
    is_code,
    profile,
    same_modality,
    same_moment,
    same_states,
    says_blood,
    specimen_of,
    synonyms_of,
    vocabulary,
)
from medaction.envs.orders import cut, names_no_test, read_order
from medaction.envs.records import Answer, DocumentedResult, DocumentedTest
from medaction.envs.reported import has_word, names_a_disease, reports
from medaction.words.names import normalise
from medaction.words.phrases import phrase_regex
from medaction.words.plurals import singular
from medaction.words.tests import PANELS, canonical_names, parts_of_panel

Encode = Callable[[list[str]], np.ndarray]
"""Texts -> one unit vector a text, shape (texts, dimensions)."""

Choose = Callable[[str, Sequence[str]], Sequence[int]]
"""An order and the names of the menu -> the positions (from 0) of the entries that answer it
(`medaction.envs.menu_choice.make_chooser`)."""

AnswerMethod = Literal["exact", "synonym", "words", "panel", "encoder", "llm"]

ENCODER_AT = 0.86
"""Cosine from which the encoder may match: below it precision falls on the labels of
benchmarks/oracle."""

_SHORTEST_SLIP = 6
"""Letters of a word from which one slip of the pen is forgiven; shorter words are too alike."""

_LONGEST_NAME = 120
"""Characters of a test's name that the encoder is asked about."""

_SUMMED_UP = re.compile(r"\b(?:normal|unremarkable)", re.IGNORECASE)

_BY_ITS_FORM = re.compile(r"[a-z]{4}(?:metry|scopy|graphy|gram)$")
"""'Tympanometry' is a test, whether a table has it or not."""

_MUTATIONS = frozenset({"mutation", "mutated", "mutant"})

_CIRCUMSTANCE = re.compile(
    rf" {phrase_regex('on | from | at | after | before | during | while | under | via | by', '')} "
)
"""What begins a circumstance of a test: 'ABG on room air', 'cultures from separate sites'."""


@dataclass(frozen=True, slots=True)
class Match:
    """Which entries of the menu (by position) one ordered test matched, how, and how well (0 to 1;
    None: an LLM chose)."""

    entries: tuple[int, ...]
    method: AnswerMethod
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
    positions is ignored. An image of which neither name nor result tells the region may be of the
    one that `complaint` speaks of.
    """

    def __init__(
        self,
        menu: Sequence[DocumentedTest],
        aliases: Mapping[str, tuple[str, ...]] | None = None,
        encode: Encode | None = None,
        threshold: float = ENCODER_AT,
        choose: Choose | None = None,
        complaint: str = "",
    ):
        self._aliases = aliases or {}
        self._encode = encode
        self._threshold = threshold
        self._choose = choose
        self.asks_model = choose is not None
        # The menu is read once: an oracle answers many orders, in many episodes of its case.
        self._entries = with_later_tests([read_entry(test) for test in menu])
        self._names = names_of_menu(self._entries, complaint)

    def answer(self, orders: Sequence[str]) -> tuple[Answer, ...]:
        """One answer an order, in their sequence. An order of several tests gets all their results;
        no match: UNAVAILABLE."""
        return tuple(self._answer(order) for order in orders)

    def _answer(self, order: str) -> Answer:
        matches = list(self.matches(order))
        if not matches:
            return Answer(order)
        # In the menu's order, whatever the order's: answers are the same for the same set.
        numbers = sorted({number for match in matches for number in match.entries})
        tests = (self._entries[number].test for number in numbers)
        # An order is known as badly as its worst-matched test; an LLM's choice (None) is the
        # weakest.
        weakest = min(matches, key=lambda match: match.score or 0.0)
        score = None if weakest.score is None else round(weakest.score, 3)
        results = tuple(DocumentedResult(test.name, test.result) for test in tests)
        return Answer(order, results, weakest.method, score)

    def matches(self, order: str) -> Iterator[Match]:
        """The matches of an order: of the whole name where the menu knows it, else of each test
        that it names."""
        # The whole name first: an entry may be called 'Blood and urine cultures', or even 'Labs'.
        if exact := self._exact(profile(" ".join(cut(order).replace("_", " ").split()))):
            yield exact
            return
        parsed = read_order(order)
        if not parsed.text or names_no_test(parsed.text):
            return
        ordered = profile(parsed.text)
        # Before it is split: the name of an entry may itself hold an 'and'.
        match = self._by_name(ordered) or (self._by_panel(ordered) if ordered.canonical else None)
        if match and len(parsed.parts) > 1:
            sure = (self._by_tables(profile(part)) for part in parsed.parts)
            # 'Complete blood count and ferritin' is no ferritin alone.
            if {n for part in sure if part for n in part.entries} > set(match.entries):
                match = None
        matches = [match] if match else self._match_all(parsed.parts)
        if not matches and len(parsed.parts) > 1:
            matches = self._match_all((parsed.text,))
        if not matches:  # what stands in brackets says it in other words: 'Coagulation (PT, aPTT)'
            matches = self._match_all(parsed.brackets)
        yield from matches or self._by_choice(parsed.text, parsed.parts)

    def _match_all(self, parts: Iterable[str]) -> list[Match]:
        return [match for part in dict.fromkeys(parts) if (match := self._match(part))]

    def _match(self, order: str) -> Match | None:
        """The first step of the cascade that knows one ordered test: as it is written, without a
        slip, without what it is for."""
        ordered = profile(order)
        if match := self._by_tables(ordered):
            return match
        # The mended order only where the written one is unknown: a rare name is no slip.
        if (mended := self._mended(ordered)) and (match := self._by_tables(profile(mended))):
            return match
        # 'MRI for trauma': what a test is for is no part of its name.
        test, _, purpose = order.partition(" for ")
        match = self._by_tables(profile(test)) if purpose else None
        if match and self._is_for(match, profile(test), purpose):
            return match
        test, *circumstance = _CIRCUMSTANCE.split(order, maxsplit=1)
        # 'ABG on room air' is an ABG; 'CT from skull to thigh' names a place, and stays whole.
        aside = (
            bool(circumstance) and not ordered.moments and _names_no_test(profile(circumstance[0]))
        )
        bare = replace(profile(test), states=ordered.states)  # 'before surgery' stays
        match = self._by_tables(bare) if aside else None
        return match or self._by_rare_words(ordered) or self._by_encoder(ordered)

    def _by_rare_words(self, ordered: Profile) -> Match | None:
        """The one entry in whose name all words of an order stand that no table knows: 'ergonovine
        challenge' is the 'provocation with ergonovine'."""
        words = ordered.text.split()
        # Words that no table has: any other would have matched already.
        rare = {word for word in words if len(word) >= _SHORTEST_SLIP} - vocabulary()
        if ordered.kinds or ordered.canonical or not rare or not ordered.text.isascii():
            return None
        names = [name for name in self._names if rare <= set(name.profile.text.split())]
        entries = {name.entry for name in names}
        # Two entries of the same rare word: which one is meant cannot be told.
        allowed = len(entries) == 1 and all(can_be_same(ordered, n.profile) for n in names)
        return Match(tuple(entries), "words", len(rare) / len(words)) if allowed else None

    def _by_tables(self, ordered: Profile) -> Match | None:
        match = self._by_name(ordered) or self._by_words(ordered)
        # A repeat alone is no answer where a panel reports the first value.
        again = match and all(self._entries[n].profile.repeated for n in match.entries)
        if match is None or (again and not ordered.repeated):
            return self._by_panel(ordered) or match
        return match

    def _is_for(self, match: Match, ordered: Profile, purpose: str) -> bool:
        """'Genetic testing for Wilson disease' is not answered by that of another disease; 'CT head
        for trauma' is any CT head."""
        if ordered.kinds and not ordered.kinds & SOUGHT:
            return True
        # 'Ascites albumin for SAAG': a known analyte looks for nothing else, but a panel, a fluid
        # alone or a class of antibodies may; a number ('for 24 h') says which it is.
        is_analyte = ordered.canonical and ordered.canonical not in PANELS and ordered.terms
        is_amount = is_analyte and not (ordered.kinds or CLASSES & set(ordered.text.split()))
        if is_amount and not (re.search(r"\d", purpose) or named_tests(purpose)):
            return True
        # Short words ('of', 'new') look for nothing; 'VHL' does.
        capitals = {word.lower() for word in re.findall(r"\w+", purpose) if word.isupper()}
        sought = {w for w in profile(purpose).terms if len(w) > 3 or w in capitals}
        entries = [self._entries[number] for number in match.entries]
        return not sought or any(sought & (entry.words | entry.profile.terms) for entry in entries)

    def _exact(self, ordered: Profile) -> Match | None:
        """The entry of that name, and the others that name the same test by the tables."""
        names = [n for n in self._names if n.of_entry and same_states(ordered, n.profile)]
        wording = _without_prepositions(ordered.text)
        exact = {n.entry for n in names if _without_prepositions(n.profile.text) == wording}
        if not exact or not ordered.text:
            return None
        if all(self._entries[number].profile.repeated for number in exact):
            return Match(tuple(sorted(exact)), "exact", 1.0)  # 'CK on day 5' is no other CK
        same = {
            name.entry
            for name in names
            if ordered.canonical and self._is_synonym(ordered, name, frozenset())
        }
        preferred = self._preferred(ordered, sorted(exact | same))
        # The entries of that very name stay, preferred or not: the name was said as the menu has
        # it.
        return Match(tuple(sorted(exact.union(preferred))), "exact", 1.0)

    def _by_name(self, ordered: Profile) -> Match | None:
        """The same name; or a name of the same test, by the menu's aliases, the table of names, or
        the given groups."""
        if exact := self._exact(ordered):
            return exact
        # A group need not be strict: hence the guards of `_is_synonym`.
        group = frozenset(map(normalise, self._aliases.get(ordered.text, ())))
        same = [name.entry for name in self._names if self._is_synonym(ordered, name, group)]
        return Match(self._preferred(ordered, same), "synonym", 1.0) if same else None

    def _is_synonym(self, ordered: Profile, name: Name, group: frozenset[str]) -> bool:
        profile_of_name = name.profile
        if profile_of_name.text == ordered.text:
            return same_states(ordered, profile_of_name)
        entry = self._entries[name.entry]
        if not can_be_same(ordered, profile_of_name, entry.words):
            return False
        if ordered.canonical is not None and ordered.canonical == profile_of_name.canonical:
            # A name that says no fluid means blood, unless the table's own name says one.
            in_blood = profile(ordered.canonical).specimen is None
            return not (in_blood and _of_another_fluid(ordered.text, profile_of_name.text))
        return (
            not (ordered.canonical or profile_of_name.canonical)
            and profile_of_name.text in group
            and nested(ordered, profile_of_name)
        )

    def _by_words(self, ordered: Profile) -> Match | None:
        """Names that say the same by modality, region and their remaining words; the best-covered
        ones."""
        scores: dict[int, float] = {}
        for name in self._names:
            if score := word_score(ordered, name, self._entries[name.entry].words):
                scores[name.entry] = max(score, scores.get(name.entry, 0.0))
        if not scores:
            return None
        if ordered.contrast is not None:
            # Contrast before the score: an entry with the ordered contrast is the test that was
            # ordered.
            same = {n: s for n, s in scores.items() if self._contrast_of(n) == ordered.contrast}
            scores = same or scores
        if ordered.repeated:
            repeats = {n: s for n, s in scores.items() if self._entries[n].profile.repeated}
            scores = repeats or scores
        best = max(scores.values())
        # Scores are sums of fractions: equal ones may differ in the last digit.
        entries = self._preferred(
            ordered, [n for n, score in scores.items() if score > best - 1e-9]
        )
        alike = tuple(n for n in entries if self._entries[n].profile.kinds == ordered.kinds)
        return Match(alike or entries, "words", best)

    def _by_panel(self, ordered: Profile) -> Match | None:
        """A panel gets its documented components, and a component the entry that reports it."""
        # 'Labs' and 'IgG panel' would get all that a menu has.
        if is_vague(ordered) or names_no_test(ordered.text):
            return None
        parts = parts_of_panel(ordered.canonical)
        entries = {
            name.entry
            for name in self._names
            if name.profile.canonical in parts
            and name.profile.specimen == ordered.specimen
            and same_moment(ordered, name.profile)
            and same_states(ordered, name.profile)
        }
        numbered = [
            (number, entry)
            for number, entry in enumerate(self._entries)
            if same_moment(ordered, entry.profile) and same_states(ordered, entry.profile)
        ]
        reporting = {n: entry for n, entry in numbered if _answers(entry, ordered, parts)}
        # Without parts every reporting entry counts: the value may stand in two of them.
        if len(reporting) > 1 and parts:  # most of the panel, or the panel by name
            counts = {
                n: sum(_answers(entry, profile(part), frozenset()) for part in parts)
                for n, entry in reporting.items()
            }
            reporting = {
                n: entry
                for n, entry in reporting.items()
                if 2 * counts[n] > max(counts.values()) or _answers(entry, ordered, frozenset())
            }
        entries = {n for n in entries if self._entries[n].statements} | reporting.keys()
        # Only where nothing reports a value: 'LFTs: normal' answers an order of ALT.
        if not entries:
            entries = {
                n for n, entry in numbered if _is_summed_up(entry, ordered, self._tests_named[n])
            }
        entries = self._told_once(ordered, entries)
        return Match(self._preferred(ordered, sorted(entries)), "panel", 1.0) if entries else None

    def _told_once(self, ordered: Profile, entries: set[int]) -> set[int]:
        """One sentence of several entries is told by the one of the ordered kind or panel."""
        alike = {
            n
            for n in entries
            if self._entries[n].profile.kinds & ordered.kinds
            or any(ordered.canonical in parts_of_panel(panel) for panel in self._tests_named[n])
        }
        texts = {self._entries[n].clauses for n in alike}
        return {n for n in entries if n in alike or self._entries[n].clauses not in texts}

    @cached_property
    def _tests_named(self) -> dict[int, set[str | None]]:
        """The tests that the names of each entry are, as far as the table has them."""
        tests: dict[int, set[str | None]] = defaultdict(set)
        for name in self._names:
            tests[name.entry].add(name.profile.canonical)
        return tests

    def _contrast_of(self, number: int) -> bool | None:
        return self._entries[number].profile.contrast

    def _by_encoder(self, ordered: Profile) -> Match | None:
        """The nearest name by cosine, if near enough and not ruled out by a guard. A disease is no
        test, however near the name of one stands."""
        is_test = ordered.kinds or ordered.canonical
        if (
            self._encode is None
            or not 3 <= len(ordered.text) <= _LONGEST_NAME
            or is_vague(ordered)
            or names_no_test(ordered.text)
            or (not is_test and names_a_disease(ordered.text.partition(" of ")[0]))
        ):
            return None
        # The guards before the cosine: 'CT chest' and 'CT head' are near each other.
        allowed = [
            number
            for number, name in enumerate(self._names)
            if can_be_same(ordered, name.profile, self._entries[name.entry].words)
            # An encoder reads no numbers: '1,25' is near '25'.
            and codes_of(ordered) == codes_of(name.profile)
        ]
        if not allowed:
            return None
        cosines = self._vectors[allowed] @ self._encode([ordered.text])[0]
        best = int(np.argmax(cosines))
        if cosines[best] < self._threshold:
            return None
        return Match((self._names[allowed[best]].entry,), "encoder", float(cosines[best]))

    @cached_property
    def _vectors(self) -> np.ndarray:
        # Encoded when an order first needs it, since most orders are known by name.
        assert self._encode is not None
        return self._encode([name.profile.text for name in self._names])

    def _by_choice(self, order: str, parts: Sequence[str]) -> Iterator[Match]:
        """What an LLM points at. It may bridge names that no table knows; the guards of modality,
        time, place and specimen hold for it too."""
        if self._choose is None or not parts or not self._entries:
            return
        # Names alone, never results: what the model has not seen it cannot pass on.
        choice = self._choose(order, [entry.test.name for entry in self._entries])
        # `type`, not `isinstance`: True is an int.
        valid = {c for c in choice if type(c) is int and 0 <= c < len(self._entries)}
        if len(valid) == len(self._entries) > 2:
            return  # an order may have talked it into everything
        ordered = [profile(part) for part in parts]
        entries = tuple(n for n in sorted(valid) if any(self._may_choose(w, n) for w in ordered))
        if entries:
            yield Match(entries, "llm", None)

    def _may_choose(self, ordered: Profile, number: int) -> bool:
        names = [name.profile for name in self._names if name.entry == number]
        modality = ordered.kinds & IMAGING
        # An entry 'Chest' is of the modality that its result names.
        if modality and not any(name.kinds & IMAGING for name in names):
            in_result = modality <= self._entries[number].words
            names = [
                replace(name, kinds=modality) for name in names if in_result and not name.kinds
            ]
        return any(
            same_modality(ordered, name)
            and same_moment(ordered, name)
            and same_states(ordered, name)
            and can_be_same_place(ordered, name)
            and may_be_related(ordered.canonical, name.canonical)
            for name in names
        )

    def _preferred(self, ordered: Profile, numbers: Iterable[int]) -> tuple[int, ...]:
        """Of several entries that match: the repeat for a repeated order and the first for any
        other; then by contrast, if both say."""
        entries = {number: self._entries[number].profile for number in numbers}
        # 'or entries': a preference picks among what matches, and never refuses it.
        same = {n: p for n, p in entries.items() if p.repeated == ordered.repeated} or entries
        if len(ordered.moments) > 1:  # 'troponin at 0 and 3 h'
            same = entries
        if ordered.contrast is not None:
            same = {n: p for n, p in same.items() if p.contrast == ordered.contrast} or same
        return tuple(same)

    def _mended(self, ordered: Profile) -> str | None:
        """The order with each long word that no table and no entry knows put right, if exactly one
        known word is one edit away."""
        words = []
        for word in ordered.text.split():
            near = {word: ""}
            # One slip of the pen: another first letter is too seldom one to look at all words.
            if len(word) >= _SHORTEST_SLIP and word.isalpha() and word not in self._known_words:
                near = (
                    {
                        candidate: canonical_names().get(candidate, singular(candidate))
                        for candidate in self._mendable[word[0]]
                        if abs(len(candidate) - len(word)) < 2
                        and OSA.distance(word, candidate) == 1
                    }
                    or _mended_stem(word)
                    or near
                )
            # Two known words as near: which one was meant cannot be told.
            words.append(next(iter(near)) if len(set(near.values())) == 1 else word)
        text = " ".join(words)
        return text if text != ordered.text else None

    @cached_property
    def _known_words(self) -> frozenset[str]:
        menu = {word for name in self._names for word in name.profile.text.split()}
        return vocabulary() | NO_SLIPS | menu

    @cached_property
    def _mendable(self) -> dict[str, list[str]]:
        by_letter: defaultdict[str, list[str]] = defaultdict(list)
        for word in sorted(self._known_words):
            if len(word) >= _SHORTEST_SLIP and word.isalpha():
                by_letter[word[0]].append(word)
        return by_letter


def _mended_stem(word: str) -> dict[str, str]:
    """'mamogram' has a slip in 'mammogra', of which the tables know any ending."""
    cuts = [(word[:end], word[end:]) for end in range(_SHORTEST_SLIP, len(word))]
    return {
        f"{stem}{ending}": f"{stem}{ending}"
        for stem in STEMS
        for begin, ending in cuts
        if stem[0] == word[0] and OSA.distance(begin, stem) == 1 and not word.startswith(stem)
    }


def _without_prepositions(text: str) -> list[str]:
    """'CK on day 5' is 'CK (day 5)'."""
    return [word for word in text.split() if word not in ("on", "at", "from", "of")]


def _of_another_fluid(order: str, name: str) -> bool:
    """Whether only one of two names says that the test is one in urine, or in another fluid:
    'beta hCG' is no 'urine pregnancy test', a 'pregnancy test' may be."""
    words, more = set(order.split()), set(name.split())
    fluids = [{specimen_of(word) for word in side} - {None, "blood"} for side in (words, more)]
    return fluids[0] != fluids[1] and not (words < more or more < words)


def _names_no_test(circumstance: Profile) -> bool:
    content = (
        circumstance.canonical
        or circumstance.terms & CONDITIONS
        or circumstance.kinds
        or circumstance.regions
        or circumstance.specimen
        or says_blood(circumstance)
    )
    return not content and not any(map(is_code, circumstance.terms))


def _is_summed_up(entry: Entry, ordered: Profile, panels: set[str | None]) -> bool:
    """Whether an entry says of a whole panel how it came out: 'Liver function tests: normal',
    'Blood tests: normal renal function'."""
    entry_profile, result = entry.profile, entry.test.result
    if (
        ordered.canonical is None
        or entry_profile.specimen != ordered.specimen
        or entry_profile.kinds & SAMPLED
    ):
        return False
    # Figures are values: then the entry reports its own tests, and says nothing of a whole panel.
    has_figures = any(c == ":" or c.isdigit() for c in result)
    parts = frozenset().union(*map(parts_of_panel, panels))
    # So it does where it names them: 'High bilirubin and reticulocytes' tells no haptoglobin.
    if parts and _is_reported(entry, ordered, parts) and not _SUMMED_UP.search(result):
        return False
    if not has_figures and any(ordered.canonical in parts_of_panel(panel) for panel in panels):
        return True
    names = (
        name
        for panel, parts in PANELS.items()
        if ordered.canonical in parts
        for name in synonyms_of(panel)
    )
    return entry.test.category in ("laboratory", "physiologic") and any(
        reports(entry.clauses, name, in_table=False) for name in names
    )


def _answers(entry: Entry, ordered: Profile, parts: frozenset[str]) -> bool:
    """Whether the result of an entry with another name reports the ordered test, or one of its
    `parts`."""
    entry_profile, category = entry.profile, entry.test.category
    # In tissue a word is a stain or a marker, never a value in blood.
    if category == "pathology" or entry_profile.kinds & SAMPLED - IMAGING:
        return _is_seen_in_tissue(entry, ordered)
    if category == "imaging" and not ordered.kinds and ordered.canonical not in PANELS:
        # An ejection fraction is measured in an image of the heart; a fluid is not.
        is_measure = ordered.canonical and not ordered.specimen
        is_of_place = ordered.regions & entry_profile.regions
        return bool(is_measure and is_of_place) and _is_reported(entry, ordered, frozenset())
    if category not in ("laboratory", "physiologic", "procedure") or entry_profile.kinds & SAMPLED:
        return False
    if (
        ordered.kinds == {"cytology"}
        and entry_profile.specimen == ordered.specimen
        and entry_profile.specimen
        and not entry_profile.kinds
    ):
        return has_word(entry.clauses, ("cytolog*", "cell", "malignan*", "lymphocyt*"))
    # Cultures and serologies: a statement must name what was looked for, not give a value.
    if ordered.kinds and ordered.kinds <= SOUGHT:
        if any(tells_of_test(entry_profile, statement, ordered) for statement in entry.statements):
            return True
        if not ordered.canonical:
            return False
    if ordered.kinds & SAMPLED:
        return False
    if entry_profile.specimen and entry_profile.specimen != ordered.specimen:
        # 'CSF glucose 64, serum glucose 96' tells that of the blood too.
        names = synonyms_of(ordered.canonical or "") if ordered.specimen is None else ()
        return any(reports(entry.clauses, name, "blood", stated=True) for name in names)
    # 'Cortisol after dexamethasone' is no plain cortisol.
    if (entry_profile.terms - ordered.terms) & CONDITIONS:
        return False
    if not may_be_related(ordered.canonical, entry_profile.canonical):
        parts -= parts_of_panel(
            entry_profile.canonical
        )  # a blood gas's bicarbonate is no metabolic panel
    return _is_reported(entry, ordered, parts)


def _is_seen_in_tissue(entry: Entry, ordered: Profile) -> bool:
    """Whether the report of a biopsy tells of a stain, a marker, a culture or a PCR that was done
    on it."""
    words = entry.words | entry.profile.kinds
    sought = ordered.terms - MARKING - TAKEN - AMOUNTS
    kinds = ordered.kinds - {"biopsy"}
    # An order of a fluid ('CSF culture') is not of the tissue, but a cytology may be of that fluid.
    is_of_fluid = ordered.specimen not in (None, entry.profile.specimen)
    if is_of_fluid or not (kinds or sought) or not kinds <= ON_TISSUE:
        return False
    if not can_be_same_place(
        replace(ordered, specimen=None), replace(entry.profile, specimen=None)
    ):
        return False
    if not sought:
        return "immunohistochemistry" in ordered.terms and tells_of_staining(words)
    if not names_sought(sought, words):
        return False
    if not kinds:
        # 'Ki-67 FISH' is another test than the stain, unless the report speaks of it.
        marker = MARKER.match(ordered.text)
        if not marker and ordered.terms & AMOUNTS:
            marker = SYMBOL.match(ordered.text)
        more = sought.difference(marker[0].split()) if marker else sought
        # 'HER2-positive' guesses what was found, and orders nothing.
        is_guess = ordered.text.endswith((" positive", " negative"))
        is_marker = marker is not None and ordered.canonical is None and not is_guess
        return is_marker and 2 * len(more - words) <= len(more)
    acid_fast = kinds == {"smear"} and "tuberculosis" in sought
    if "stain" in kinds or ordered.terms & MARKING or acid_fast:
        # A report of these says its finding without the word 'stain': 'CD20 positive'.
        return True
    return bool(kinds & words) or (kinds == {"sequencing"} and not _MUTATIONS.isdisjoint(words))


def _is_reported(entry: Entry, ordered: Profile, parts: frozenset[str]) -> bool:
    """Whether a result gives the value of the ordered test or of one of its `parts`."""
    entry_profile = entry.profile
    tests = parts | ({ordered.canonical} if ordered.canonical else set())
    names = [name for test in tests for name in synonyms_of(test)] or list(
        synonyms_of(ordered.text)
    )
    # Where neither entry nor name says of what, the result must: 'serum amylase 90 U/L, ascitic
    # amylase 3324 U/L'.
    in_fluid = {entry_profile.specimen, *fluids_in(entry.test.name)}  # 'Blood and urine tests'
    is_open = ordered.specimen not in in_fluid
    if ordered.specimen and not is_open:  # a urinalysis says 'osmolality' of that of the urine
        names += synonyms_of(" ".join(w for w in ordered.text.split() if not specimen_of(w)))
    if any(
        reports(
            entry.clauses,
            name,
            ordered.specimen,
            bool(tests) or _BY_ITS_FORM.search(name) is not None,
            stated=is_open and profile(name).specimen != ordered.specimen,
        )
        for name in names
    ):
        return True
    # 'Mild anemia' tells a hemoglobin of blood, 'pyuria' a urinalysis.
    findings = tuple(
        word
        for test in tests
        for word in FINDINGS.get(test, ())
        if profile(test).specimen == ordered.specimen
    )
    is_of_fluid = entry_profile.specimen in (None, ordered.specimen)
    return bool(findings) and is_of_fluid and has_word(entry.clauses, findings)
