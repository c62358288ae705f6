"""How the replies of a language-model judge are read, and the schemas that they are asked in. A
reply that is not exactly what was asked for is no verdict."""

from itertools import product
from typing import Any

from pydantic import model_validator

from medaction.llm.replies import Form, MalformedReply, WholeNumbers, read, split_thinking
from medaction.llm.untrusted import one_line
from medaction.words.negation import DENIAL

MOST_ITEMS = 60
"""Tests of one side that are compared; a reply of a thousand 'tests' must not cost a thousand
calls."""


class _Verdict(Form):
    answer: str

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, value: Any) -> Any:
        """An object's only entry is the answer, whatever its key: it must be one of two words."""
        is_alone = isinstance(value, dict) and len(value) == 1
        return {"answer": next(iter(value.values()))} if is_alone else value


class _Item(Form):
    """One test of an extraction; the benchmark's own models misspell a key."""

    type: str | None = None
    test_name: str | None = None
    info_required: str | None = None
    info_requried: str | None = None


class _Items(Form):
    tests: list[_Item]

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """A bare list is the list of tests, and one test alone a list of one."""
        if isinstance(value, dict) and "test_name" in value:
            return {"tests": [value]}
        return {"tests": value} if isinstance(value, list) else value


class _Pair(Form):
    """Two tests that are one; or one beside several, or none."""

    requested: WholeNumbers
    documented: WholeNumbers

    @model_validator(mode="after")
    def _one_on_a_side(self) -> "_Pair":
        # Several on both may be columns of pairs, or all with all.
        if min(len(self.requested), len(self.documented)) > 1:
            raise ValueError("write one number of each list a pair")
        return self


class _Pairs(Form):
    matches: list[_Pair]

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """A bare list is the list of pairs, one pair alone a list of one; an object's only entry is
        the list, whatever its key."""
        if isinstance(value, dict) and len(value) == 1:
            [value] = value.values()
        if isinstance(value, dict) and "matches" not in value:
            value = [value]
        return {"matches": value} if isinstance(value, list) else value


_MARKS = " \n\t\"'*_`“”."
"""Quotes, Markdown and a full stop around a word, which change nothing of it."""


def read_verdict(reply: str, answers: tuple[str, str]) -> bool:
    """False or True for the first or second of `answers`. The reply must be one of them and nothing
    else, as JSON or as a bare word: a judge may quote what it judges.

    >>> words = ("incorrect", "correct")
    >>> read_verdict('{"answer": "incorrect"}', words), read_verdict("Correct.", words)
    (False, True)
    """
    # A bare word first; JSON only where it is none.
    answer = split_thinking(reply)[1].strip(_MARKS).casefold()
    label, colon, word = answer.partition(":")
    # 'Answer: correct', '**Verdict:** correct'
    label = label.strip(_MARKS)
    if colon and label.isalpha() and label not in answers and not DENIAL.search(label):
        answer = word.strip(_MARKS)
    if answer not in answers:
        # `alone`: an object within other words may be quoted from what is judged.
        answer = read(reply, _Verdict, alone=True).value.answer.casefold()
    if answer not in answers:
        raise MalformedReply(f"the answer must be {answers[0]!r} or {answers[1]!r}", reply)
    return answer == answers[1]


def read_items(reply: str) -> list[dict[str, str]]:
    """The items of an extraction: type, test_name and info_required, '' where an item has none.
    Raises MalformedReply."""
    items = [
        {
            "type": one_line(item.type or "")[:400],
            "test_name": one_line(item.test_name or "")[:400],
            "info_required": one_line(item.info_required or item.info_requried or "")[:400],
        }
        for item in read(reply, _Items).value.tests[:MOST_ITEMS]
    ]
    # An item without a name is no test; if there is nothing else, as released it scores 0.
    return [item for item in items if item["test_name"]] or items[:1]


def read_pairs(reply: str, requested: int, documented: int) -> set[tuple[int, int]]:
    """Pairs of positions (from 0). Raises MalformedReply for a number that stands in neither
    list."""
    pairs = set()
    for match in read(reply, _Pairs).value.matches:
        for one, other in product(match.requested, match.documented):
            if not (1 <= one <= requested and 1 <= other <= documented):
                raise MalformedReply(
                    f"there is no pair {one}, {other}: the lists have"
                    f" {requested} and {documented} tests",
                    reply,
                )
            pairs.add((one - 1, other - 1))  # a list for a model begins at 1
    return pairs


def object_of(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_ITEM = object_of(
    {key: {"type": "string", "maxLength": 400} for key in ("type", "test_name", "info_required")}
)
ITEMS_SCHEMA = object_of({"tests": {"type": "array", "items": _ITEM, "maxItems": MOST_ITEMS}})


def pairs_schema(requested: int, documented: int) -> dict[str, Any]:
    sizes = {"requested": requested, "documented": documented}
    pair = object_of(
        # Bounds in the schema: a small model otherwise invents numbers.
        {side: {"type": "integer", "minimum": 1, "maximum": size} for side, size in sizes.items()}
    )
    return object_of(
        {"matches": {"type": "array", "items": pair, "maxItems": requested + documented}}
    )
