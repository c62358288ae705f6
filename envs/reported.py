"""Whether a result in running text reports the value of a test: 'Hb: 9 g/dL', 'elevated AST and
ALT', 'mild anemia', 'TSH normal'."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

from medaction.envs.naming import TABLE, canonical_of, is_code, name_each_noun, specimen_of
from medaction.words.names import GREEK, normalise
from medaction.words.negation import is_undone
from medaction.words.phrases import phrase_pattern
from medaction.words.plurals import singular
from medaction.words.tests import canonical_names

_STATUS_WORDS = phrase_pattern(TABLE["measured"] + TABLE["status"])
_MEASURED = phrase_pattern(TABLE["measured"])
_BESIDE_A_VALUE = frozenset(TABLE["beside_a_value"].split())
_DISEASE_NAME = phrase_pattern(TABLE["diseases"])
_UNITS = frozenset(name.strip() for name in TABLE["units"].split("|"))
# Not the stop of 'e.g.'; 'but' and 'while' turn to another test.
_VALUE_END = re.compile(r"(?<!e\.g)(?<!i\.e)\.(?=\s|$)|[;\n]|,? but\b|\bwhile\b|\bwhereas\b")
_SIGNS = str.maketrans(dict.fromkeys("‐‑‒–—−", "-") | GREEK)
_TOKEN = re.compile(r"[<>≤≥~]?\s*\d|[a-z][\w-]*|[^\s\w]")
_IN_FLUID = re.compile(r"\s*(?:in|of) (?:the )?(\w+)")
_OF_ANOTHER = re.compile(
    r"\s*(?:/\s*[\w-]+|to [\w-]+)?[\s-]*ratio\b"
    r"|\s*(?:m?rna |gene )?(?:expression|gene|mutation)s?\b"
)
"""'Protein/creatinine ratio' tells neither's value, 'reduced ceruloplasmin expression' none in
blood."""
_JOINT = r"[\s\-_/]{0,3}"
_LISTED_CODES = rf"s?{_JOINT}(?:(?:[ivx]+|[a-z]{{0,2}}\d+(?:-\d+)?)(?: ?\([^()]*\))?,? (?:and )?)*"
"""'Factors V, VIII (40 %) and XI': a noun that several codes share."""
_NEXT_WORDS = re.compile(r"[\s-]*(\w+)(?:[\s-]+(\w+))?")
_RESULT_CHARACTERS = 6000
"""Characters of a result that are read."""
_AROUND = 300
"""Characters before and after a name in which its value is looked for."""
_MENTIONS = 10
"""Mentions of a name in one statement that are looked at."""
_NEAR = 8
"""Words and signs that may stand between a name and its value."""
_LISTED = 24
"""Words and signs of a list that one word before it may tell of. Of the labels in benchmarks/oracle
12 give the same as 24, and 48 six wrong entries more (2026-11-30)."""
_ITEM_WORDS = 2
"""Words of one item of such a list: our choice; 1 and 3 give the same on these labels."""


def clauses(result: str) -> tuple[str, ...]:
    """The statements of a result, in lower case."""
    text = (
        # Cut again: NFKC may make one sign into several letters.
        unicodedata.normalize("NFKC", result[:_RESULT_CHARACTERS])[:_RESULT_CHARACTERS]
        .casefold()
        .translate(_SIGNS)
    )
    text = name_each_noun(text)
    pieces = (clause.strip() for clause in _VALUE_END.split(text))
    return tuple(filter(None, pieces))


def reports(
    statements: Sequence[str],
    name: str,
    specimen: str | None = None,
    in_table: bool = True,
    stated: bool = False,
) -> bool:
    """Whether one of the statements gives the value of `name`, by a figure or a word, in blood or
    the given specimen; if `stated`, only where the specimen stands beside the name.

    A name that no table of tests has (`in_table` false) must stand right beside its value, and a
    name of a disease is none: nobody gets 'confirmed Wilson disease' by ordering 'Wilson disease'.
    """
    # A guesser gets nothing: a disease in a result is the answer.
    if not in_table and names_a_disease(name):
        return False
    # 'K' and 'Na' are names and units; other names of one letter are found anywhere.
    if name not in _UNITS and (len(name) < 2 or not any(c.isalpha() for c in name)):
        return False
    begins = {form.split(maxsplit=1)[0] for form in _forms(name)}
    return any(
        _gives(statement, mention, name, specimen, in_table, stated)
        for statement in statements
        if any(word in statement for word in begins)
        for mention in islice(_pattern_of_name(name).finditer(statement), _MENTIONS)
    )


def names_a_disease(name: str) -> bool:
    return _DISEASE_NAME.search(name) is not None


def has_word(statements: Sequence[str], words: tuple[str, ...]) -> bool:
    """Whether a statement has one of `words` as a word of its own: 'anemia'."""
    pattern = phrase_pattern("|".join(words))
    return any(pattern.search(statement) for statement in statements)


@lru_cache(maxsize=4096)
def _forms(name: str) -> tuple[str, ...]:
    """The name and its singular: 'platelets' and 'antibodies' are ordered, 'platelet count' and
    'antibody' reported."""
    *words, last = name.split()
    return name, " ".join([*words, singular(last)])


@lru_cache(maxsize=4096)
def _pattern_of_name(name: str) -> re.Pattern[str]:
    forms = map(_spelt, _forms(name))
    # Not within a word or behind a hyphen: 'non-HDL' is no 'HDL'.
    return re.compile(rf"(?<![a-z0-9])(?<![a-z0-9]-)(?:{'|'.join(forms)})(?:s|es)?(?![a-z0-9])")


def _spelt(form: str) -> str:
    first, *rest = form.split()
    more = (rf"{_LISTED_CODES if is_code(w) else _JOINT}{re.escape(w)}" for w in rest)
    return "".join([re.escape(first), *more])


def _gives(
    statement: str,
    mention: re.Match[str],
    name: str,
    specimen: str | None,
    in_table: bool,
    stated: bool,
) -> bool:
    before = statement[max(0, mention.start() - _AROUND) : mention.start()]
    after = statement[mention.end() : mention.end() + _AROUND]
    # 'ALT pending' gives no value, though a number may follow.
    if is_undone(before[-25:] + mention[0] + after.partition(",")[0][:60]):
        return False
    near = re.findall(r"[a-z]+", re.split(r"[,;:(]", before)[-1])[-5:]
    fluid = next((specimen_of(word) for word in reversed(near) if specimen_of(word)), None)
    if not fluid and (place := _IN_FLUID.match(after)):  # 'amylase in ascites'
        fluid = specimen_of(place[1])
    if fluid not in ((specimen,) if stated else (None, specimen, "blood")):
        return False
    if _OF_ANOTHER.match(after) or _is_longer_name(mention[0], after):
        return False
    if name in _UNITS:  # 'mg' of '3 mg/dL' is no magnesium
        return not before.rstrip()[-1:].isdigit() and _stands_beside_a_value(before, after)
    if not in_table:
        return _stands_beside_a_value(before, after)
    return bool(
        re.search(r"\d|^\s*[:=]", after)
        or _STATUS_WORDS.search(before)
        or _STATUS_WORDS.search(after)
    )


def _is_longer_name(name: str, after: str) -> bool:
    """Whether a name begins that of another test: 'CA' of 'CA 19-9' is no calcium."""
    match = _NEXT_WORDS.match(after)
    words = [word for word in match.groups() if word] if match else []
    names = canonical_names()
    longer = (normalise(" ".join([name, *words[:n]])) for n in range(1, len(words) + 1))
    return not {names[form] for form in longer if form in names} <= {canonical_of(name)}


def _stands_beside_a_value(before: str, after: str) -> bool:
    """'(TSH) level was 3.1', 'elevated serum AST, ALT and GGT'."""
    aside = re.match(r"\s*\([^()\d]*\)", after)  # 'TSH (thyrotropin) was 3.1'
    for token in _TOKEN.findall(after[aside.end() if aside else 0 :])[:_NEAR]:
        if token[-1].isdigit() or _STATUS_WORDS.fullmatch(token):
            return True
        if token not in _BESIDE_A_VALUE and token not in ":=(,":
            break
    # Backwards from the name: 'elevated AST, ALT and GGT' says it of each, and so does 'normal
    # platelet count and electrolytes'.
    words = 0
    for token in reversed(_TOKEN.findall(before)[-_LISTED:]):
        if _MEASURED.fullmatch(token):
            return True
        if token in ",(" or token == "and":
            words = 0
        elif token not in _BESIDE_A_VALUE and token != ":":
            words += 1
        if words > _ITEM_WORDS:
            return False
    return False
