"""Copies of case reports in other words, which a contamination check must find: synonyms, other
order, other numbers, parts left out."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

SYNONYM_GROUPS = Path(__file__).with_suffix(".txt")
"""A line a group: the words, and what stands for them."""
_SYNONYMS: dict[str, list[str]] = {}
for _line in SYNONYM_GROUPS.read_text(encoding="utf-8").splitlines():
    _first, *_others = (part.strip() for part in _line.split("|"))
    _SYNONYMS[_first] = _others
_WORDS = re.compile(
    r"\b(?:" + "|".join(sorted(map(re.escape, _SYNONYMS), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w]*-\d)")
_LABEL = re.compile(r"^(?P<lead>[\s*#•-]*)(?P<label>[A-Z][^:*\n]{2,60}?)\**:\**\s*(?P<rest>.*)$")
_SENTENCE = re.compile(r"(?<=[.;!?])\s+(?=[A-Z])")
_SHOWED = re.compile(
    r"^(?P<test>[A-Z][^,;:]{2,60}?) (?:revealed|showed|demonstrated|confirmed|disclosed)"
    r" (?P<found>[^.]{5,})\.?$"
)
_WHEN = re.compile(
    r"^(?P<when>(?:After|On|During|Following|At|In|Upon|Before|When|With|Since) [^,]{3,80}),"
    r" (?P<main>[^.]{8,})\.?$"
)
_TAIL = re.compile(
    r"^(?P<main>[^,.]{8,}?),? (?P<when>(?:after|during|following|before|since|when) [^.,]{5,})\.?$"
)
_LIST = re.compile(r"\b((?:[\w-]+(?: [\w-]+){0,2}, ){1,6})(and|or) ([\w-]+(?: [\w-]+){0,2})\b")
_ASIDES = ("of note, ", "at that point, ", "as recorded, ", "in this instance, ")


def paraphrased(text: str, rng: random.Random, drop: float = 0.1) -> str:
    """`text` in other words: sections and their sentences reordered, a share of them dropped, other
    numbers."""
    sections = [_section(line, rng, drop) for line in text.splitlines() if line.strip()]
    sections = [section for section in sections if section]
    blocks = (
        [sections[at : at + 2] for at in range(0, len(sections), 2)]
        if len(sections) > 3
        else [[line] for line in sections]
    )
    rng.shuffle(blocks)
    return "\n".join(line for block in blocks for line in block)


def _section(line: str, rng: random.Random, drop: float) -> str:
    labelled = _LABEL.match(line)
    label = _reworded(labelled["label"], rng) if labelled else ""
    body = (labelled["rest"] if labelled else line.strip(" -*#")).strip()
    kept = [sentence for sentence in _SENTENCE.split(body) if rng.random() >= drop] or [body]
    told = [_sentence(sentence, rng) for sentence in kept]
    if len(told) > 2:
        at = rng.randrange(1, len(told))
        told = told[at:] + told[:at]
    whole = " ".join(told)
    if not label:
        return whole
    return f"{whole} ({label})" if rng.random() < 0.3 else f"{label[0].upper()}{label[1:]}: {whole}"


def _sentence(sentence: str, rng: random.Random) -> str:
    bare = sentence.strip()
    if found := _SHOWED.match(bare):
        bare = f"{_capital(found['found'])} was what {_lowered(found['test'])} showed"
    elif found := _WHEN.match(bare):
        bare = f"{_capital(found['main'])} {_lowered(found['when'])}"
    elif found := _TAIL.match(bare):
        bare = f"{_capital(found['when'])}, {_lowered(found['main'])}"
    bare = _LIST.sub(lambda listed: _relisted(listed, rng), bare.rstrip(". "))
    worded = _numbers(_reworded(bare, rng), rng)
    if rng.random() < 0.2 and worded:
        worded = _capital(rng.choice(_ASIDES)) + _lowered(worded)
    return worded + "."


def _relisted(listed: re.Match[str], rng: random.Random) -> str:
    items = [item.strip() for item in listed[1].split(",") if item.strip()] + [listed[3]]
    turned: Sequence[str] = items[::-1]
    return (
        ", ".join(turned[:-1]) + f" {listed[2]} {turned[-1]}" if rng.random() < 0.8 else listed[0]
    )


def _reworded(text: str, rng: random.Random) -> str:
    def other(found: re.Match[str]) -> str:
        word = rng.choice(_SYNONYMS[found[0].casefold()])
        return _capital(word) if found[0][0].isupper() else word

    return _WORDS.sub(other, text)


def _numbers(text: str, rng: random.Random) -> str:
    """Each number up to 15 % larger or smaller, with as many decimals; a year some years later or
    earlier."""

    def other(found: re.Match[str]) -> str:
        value, decimals = float(found[0]), len(found[0].partition(".")[2])
        if decimals == 0 and 1900 < value < 2100:
            return str(int(value) + rng.choice((-4, -3, -2, 2, 3)))
        changed = value * rng.uniform(0.85, 1.15)
        if decimals == 0 and round(changed) == value:
            changed = value + rng.choice((-1, 1)) if value > 1 else value + 1
        return f"{changed:.{decimals}f}"

    return _NUMBER.sub(other, text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lowered(text: str) -> str:
    """Lower-case first letter, unless the word is an abbreviation."""
    word = text.split(" ", 1)[0]
    return text if sum(c.isupper() for c in word) > 1 else text[:1].lower() + text[1:]
