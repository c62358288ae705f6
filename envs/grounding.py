"""Finding what a model copied from a report again in the report, so that what is kept are always
the report's own words."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

from medaction.words.negation import DENIAL, DENIAL_AFTER
from medaction.words.phrases import phrase_regex

GROUNDED_AT = 90.0
"""A text is found in the report when its best aligned window there agrees to this many percent
(rapidfuzz partial ratio)."""

# '2.1 Case' belongs to section 2: only its top number opens another one.
_NUMBERED_HEADING = re.compile(r"(?P<top>\d+)(?P<sub>(?:\.\d+)+)?\.?\s+(?P<title>[A-Z].{2,80})")
# Titles of sections that tell of other patients and of what is known, not of this one.
_ELSEWHERE = (
    "discussion | introduction | background | conclusion | comment | review | literature review"
    " | systematic review | learning point | references | acknowledgement | acknowledgment"
    " | supplementary material | consent | key message"
)
ELSEWHERE = re.compile(rf"{phrase_regex(_ELSEWHERE)}\b.{{0,40}}", re.IGNORECASE)
_CASE_TITLES = (
    "abstract | the case | history | examination | physical examination | investigation | diagnos*"
    " | differential diagnosis | treatment | follow up | followup | results"
)
_CASE_HEADING = re.compile(
    rf"{phrase_regex(_CASE_TITLES)}|{phrase_regex('case | clinical | patient')}\b.{{0,30}}"
    r"|outcome.{0,30}",
    re.IGNORECASE,
)

_ABSTRACT = re.compile(r"\s*(?:abstract|summary)\b", re.IGNORECASE)

ENOUGH = 500
"""Characters of sections about the patient that make title and abstract dispensable."""

# Of the same length as what they stand for, so that places in the text stay the same.
_ALIKE = str.maketrans("‐‑‒–—―−‘’`´“”×µμ\u00a0\u2009\u202f\t\n|", "-------''''\"\"xuu      ")

_WORD = re.compile(r"\w+")
_MARKS = frozenset(".;,\n")
"""Before which a clause ends."""

RUN_OF_WORDS = 5
"""Words of a passage from which on it is sought rewritten: our choice; fewer stand in many
places."""

REWRITTEN_AT = 0.8
"""Share of a passage's words that a stretch of the report has in their order, where a model tidied
what it copied: left a figure's number out, wrote 'showed' for 'revealed'. Chosen on 24 replies to
four articles, all of which were read."""

REACH = 60
"""Characters before and behind a passage within which a 'no' of the report may deny it: our
choice."""

_WRAPPED_AT = 40
"""Characters of a line from which on prose may have been wrapped there: our choice. A row of a list
is shorter, and the next one may begin with a small letter too."""

# Behind these a 'no' denies nothing: 'no fever, but effusion of the knee'.
_ENDS_DENIAL = frozenset(
    """
    and but with was were is are had has showed revealed which while whereas
    """.split()  # noqa: SIM905
)
_BEFORE_DENIAL = frozenset(
    "was were is are had has have been be could also which".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Span:
    """Where a text stands in a report: characters `start` to `end`, its `score` (percent of
    agreement)."""

    start: int
    end: int
    score: float


class Report:
    """A report's text, searched for what was copied from it.

    `has_abstract`: title and abstract stand before its first section, as in an article. A letter
    of a hospital begins with the patient; there an abstract is one that has a heading.
    """

    def __init__(self, text: str, has_abstract: bool = True):
        self.text, self._has_abstract = text, has_abstract
        self._all = _lined(text)
        self._case = _without_elsewhere(text, has_abstract)
        # One space for many, as in what is sought; a table's row is copied without its bars.
        pieces = [*re.finditer(r"[^ ]+(?: |$)", self._case)]
        self._places = [place for match in pieces for place in range(*match.span())]
        self._packed = "".join(match[0] for match in pieces)

    def find(self, copied: str) -> Span | None:
        """The passage of this patient's own sections that `copied` was copied from; None where none
        agrees to GROUNDED_AT percent.

        A passage that lacks a number of `copied` is none. It begins and ends at word boundaries,
        and has the report's 'no' or 'was absent' that the copy left out before or behind it.
        """
        # The stop at its end may be the model's own.
        needle = " ".join(_lined(copied).split()).strip(" .;,")
        if not needle or len(needle) > len(self._packed):
            return None
        # The exact place first: alignment takes far longer.
        if (start := self._packed.find(needle)) >= 0:
            return self._with_denial(self._span(start, start + len(needle), 100.0))
        alignment = fuzz.partial_ratio_alignment(needle, self._packed, score_cutoff=GROUNDED_AT)
        if alignment is None:
            return None
        start, end = _whole_words(self._packed, alignment.dest_start, alignment.dest_end)
        span = self._span(start, end, alignment.score)
        return self._with_denial(span) if self._has_numbers(span, copied) else None

    def find_rewritten(self, copied: str) -> Span | None:
        """The stretch of sentences that has most words of `copied` in their order and all of its
        numbers; None where none has REWRITTEN_AT of them."""
        words = _WORD.findall(_lined(copied))
        if len(words) < RUN_OF_WORDS:
            return None
        stretches = self._stretches(words)
        # Of equal ones the shortest.
        best = max(stretches, key=lambda span: (span.score, span.start - span.end), default=None)
        if best is None or best.score < 100 * REWRITTEN_AT:
            return None
        return best if self._has_numbers(best, copied) else None

    def _stretches(self, words: list[str]) -> Iterator[Span]:
        """From each clause's beginning to the last of the words in a window behind it; the score is
        the share of the words there."""
        tokens = [(match[0], *match.span()) for match in _WORD.finditer(self._case)]
        for at, (_, start, _) in enumerate(tokens):
            if at and _MARKS.isdisjoint(self.text[tokens[at - 1][2] : start]):
                continue
            window = tokens[at : at + 2 * len(words)]
            opcodes = LCSseq.opcodes(words, [word for word, *_ in window])
            equal = [block for block in opcodes if block.tag == "equal"]
            if equal:
                count = sum(block.src_end - block.src_start for block in equal)
                # From the beginning: a 'no' that the model left out stays the report's.
                end = window[equal[-1].dest_end - 1][2]
                if "\0" not in self._case[start:end]:
                    yield Span(start, end, 100 * count / len(words))

    def _with_denial(self, span: Span) -> Span:
        """A span with what denies it: 'no evidence of a clot' for 'evidence of a clot'."""
        start, end = span.start, span.end
        for denial in DENIAL.finditer(self._case, max(0, start - REACH), start):
            between = self._case[denial.end() : start]
            is_one_clause = set(between).isdisjoint(".,;:\0") and self._is_one_line(
                denial.end(), start
            )
            if is_one_clause and _ENDS_DENIAL.isdisjoint(between.split()):
                start = denial.start()
                break
        if after := DENIAL_AFTER.search(self._case, end, end + REACH):
            between = self._case[end : after.start()]
            is_denied = _BEFORE_DENIAL.issuperset(between.split())
            end = after.end() if is_denied and self._is_one_line(end, after.start()) else end
        return Span(start, end, span.score)

    def _is_one_line(self, start: int, end: int) -> bool:
        """Whether no cell, row or line of a list ends between two places. A line that was wrapped
        goes on with a small letter, and is long unless it ends in the 'no' itself."""
        first, *others = self.text[start : end + 1].split("\n")
        width = start + len(first) - (self.text.rfind("\n", 0, start) + 1)
        is_wrapped = width >= _WRAPPED_AT or not first.strip()
        is_small = all(line.lstrip()[:1].islower() for line in others)
        goes_on = not others or (is_wrapped and is_small)
        return goes_on and not any("|" in line or "\t" in line for line in (first, *others))

    def _span(self, start: int, end: int, score: float) -> Span:
        """The span in the text of one in the packed text."""
        return Span(self._places[start], self._places[end - 1] + 1, score)

    def _has_numbers(self, span: Span, copied: str) -> bool:
        """Whether a span has all numbers: a long passage with one digit wrong agrees to more than
        90 percent, and is no copy."""
        numbers = numbers_of(self.text[span.start : span.end])
        return all(number in numbers for number in numbers_of(copied))

    def words(self, span: Span) -> str:
        """The report's own words there, on one line."""
        return " ".join(self.text[span.start : span.end].split())

    def sentence(self, span: Span) -> str:
        """The whole sentences around a span, on one line."""
        begins = [
            place + len(mark)
            for mark in (". ", "\n", "; ")
            if (place := self.text.rfind(mark, 0, span.start)) >= 0
        ]
        ends = [
            place
            for mark in (". ", ".\n", "\n", "; ")
            if (place := self.text.find(mark, max(span.start, span.end - 1))) >= 0
        ]
        begin, end = max(begins, default=0), min(ends, default=len(self.text)) + 1
        return " ".join(self.text[begin:end].split())

    def context(self, span: Span) -> str:
        """The sentences around a span, and the one before them, where a test is often named."""
        begin = self.text.find(self.sentence(span)[:20], 0, span.end)
        before = self.text.rfind(". ", 0, max(0, (begin if begin >= 0 else span.start) - 2))
        return " ".join(self.text[max(0, before) : span.end].split()) + " " + self.sentence(span)

    def patient_sections(self) -> str:
        """The text of the sections about this patient."""
        return patient_sections(self.text, self._has_abstract)

    def in_its_words(self, name: str) -> str:
        """A name as the report writes it, anywhere in it; the name as it is where the report writes
        it otherwise altogether.

        'intraventricular septal hematoma' of a report on an 'interventricular septal hematoma'
        becomes that.
        """
        needle = " ".join(_lined(name).split())
        if not needle or needle in self._all:
            return name
        # Anywhere: a diagnosis may stand in the discussion alone.
        alignment = fuzz.partial_ratio_alignment(needle, self._all, score_cutoff=GROUNDED_AT)
        if alignment is None:
            return name
        start, end = _whole_words(self._all, alignment.dest_start, alignment.dest_end)
        return " ".join(self.text[start:end].split()).strip(" .,;:")


@lru_cache(maxsize=4096)
def plain_text(text: str) -> str:
    """`text` for comparison: one case, one kind of space, dash and quote, no markdown marks;
    numbers and signs stay."""
    text = unicodedata.normalize("NFKC", text).casefold()
    # NFKC leaves dashes and quotes as they are.
    text = re.sub(r"[‐-―−]", "-", text)
    text = re.sub(r"[‘’`´]", "'", text).replace("“", '"').replace("”", '"')
    return " ".join(re.sub(r"[*_#|]|^[^\S\n]*-\s", " ", text, flags=re.MULTILINE).split())


@lru_cache(maxsize=4096)
def numbers_of(text: str) -> tuple[str, ...]:
    """The numbers of plain text, thousands without commas: '11,500/mm3' -> 11500, 3."""
    # Thousands first: '11,500' is one number, '3,5' two.
    numbers = re.findall(r"\d+(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?", text)
    return tuple(number.replace(",", "") for number in numbers)


def agreement_of_texts(needle: str, text: str) -> float:
    """How well `needle` is found in `text`, in percent; 100 when it stands there."""
    if not needle or needle in text:
        return 100.0 if needle else 0.0
    # A cutoff below the threshold: a refusal tells the figure, and far ones cost little.
    return fuzz.partial_ratio(needle, text, score_cutoff=GROUNDED_AT - 30)


def _lined(text: str) -> str:
    """`text` in small letters with one kind of dash, quote and space, character for character."""
    # 'İ' has two characters in small letters; places must stay.
    return "".join(low if len(low := c.lower()) == 1 else c for c in text.translate(_ALIKE))


def patient_sections(text: str, has_abstract: bool = True) -> str:
    """The text with spaces, as many, for what is not of this patient: places stay the same."""
    searched = _without_elsewhere(text, has_abstract)
    return "".join(c if plain != "\0" else " " for c, plain in zip(text, searched, strict=True))


@lru_cache(maxsize=4)
def _without_elsewhere(text: str, has_abstract: bool) -> str:
    """The searched text with the sections about other patients blanked, so that nothing is found
    there.

    Title and abstract are blanked too where a section about the patient follows: an abstract mixes
    what was found with what is known.
    """
    blank, top = False, ""
    lines: list[str] = []
    characters = preamble = 0
    for line in text.splitlines(keepends=True):
        before = blank, top
        blank, top = _section_of_line(line.strip(), blank, top)
        if (
            not preamble
            and (before != (blank, top) or _CASE_HEADING.fullmatch(line.strip()[:90]))
            and not _ABSTRACT.match(line)
        ):
            preamble = len(lines)
        # Without enough about the patient below, the abstract is all there is.
        characters += len(line) if preamble and not blank else 0
        lines.append("\0" * len(line) if blank else _lined(line))
    has_abstract = has_abstract or any(map(_ABSTRACT.match, text.splitlines()[:preamble]))
    if has_abstract and characters >= ENOUGH:
        lines[:preamble] = ["\0" * len(line) for line in lines[:preamble]]
    return "".join(lines)


def _section_of_line(line: str, blank: bool, top: str) -> tuple[bool, str]:
    """Whether the text from this line on is about other patients, and its section's number; a line
    that is no heading changes nothing."""
    # Longer lines are paragraphs.
    if len(line) > 90:
        return blank, top
    if numbered := _NUMBERED_HEADING.fullmatch(line):
        # '5.2 Case series' below '5 Discussion' stays blanked.
        if numbered["sub"] and numbered["top"] == top:
            return blank, top
        return bool(ELSEWHERE.fullmatch(numbered["title"])), numbered["top"]
    # 'Consent was obtained.' is a sentence, no heading.
    if ELSEWHERE.fullmatch(line) and not line.endswith("."):
        return True, ""
    return (False, "") if _CASE_HEADING.fullmatch(line) and not line.endswith(".") else (blank, top)


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    while start > 0 and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while end < len(text) and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return start, end
