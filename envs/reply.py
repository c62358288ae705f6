"""The grammar of a language model's reply: differential b_t, pivot p_t, action a_t (paper, equation
2).

One Pydantic model is the grammar: it makes the JSON schema that servers constrain generation to,
and it reads what came back, in whatever form (`medaction.llm.replies`). The order of the fields is
the order of generation, so the reasoning stands before what it leads to.

Read although the form is another, and noted: confidences as '60', '60.0', '60 %', or all as
fractions of 1; an action without its frame, or beside an empty other one; tests as one string; a
ninth diagnosis and more, left out where the list is ranked; a final diagnosis that the differential
lacks, which then leads it. Refused, because it has two meanings: 0.6 and 60 in one list, nothing
but ones and noughts, orders and a diagnosis at once.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    model_validator,
)

from medaction.envs.orders import single_tests
from medaction.envs.turns import Hypothesis, Turn
from medaction.llm.replies import Form, Reading, bare_key, note, read, schema_of
from medaction.llm.untrusted import one_line, plain, printable
from medaction.llm.usage import MENDED, Fault, Usage

MOST_TESTS = 6
"""The most tests of one turn."""
MOST_DIAGNOSES = 8
"""The most diagnoses of a differential."""

SUM_NOTED = 120
"""Percent. Confidences that sum to more are noted: the prompt asks for 'at most about 100'."""


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _paragraphs(value: Any) -> Any:
    """A text, or the paragraphs of one, without markup; what is neither is left to the grammar."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    return plain(value) if isinstance(value, str) else value


def _one_line(value: Any) -> Any:
    """A text, or an object that holds one text alone ({"test": "CT"}), on one line."""
    if isinstance(value, dict) and len(value) == 1:
        [value] = value.values()
    return one_line(value) if isinstance(value, str) else value


# A server is asked for at most 2,000 characters (llama.cpp's grammars repeat no more often); a
# longer reply is still accepted.
_SERVED = {"maxLength": 2000}

Prose = Annotated[
    str,
    Field(min_length=1, max_length=12_000, json_schema_extra=_SERVED),
    BeforeValidator(_paragraphs),
    AfterValidator(_filled),
]
Sentence = Annotated[
    str, Field(min_length=1, max_length=1000), BeforeValidator(_one_line), AfterValidator(_filled)
]
ShortText = Annotated[
    str, Field(min_length=1, max_length=160), BeforeValidator(_one_line), AfterValidator(_filled)
]


class RankedDiagnosis(Form):
    diagnosis: ShortText
    confidence: Annotated[int, Field(ge=0, le=100)]


def _in_percent(differential: Any, info: ValidationInfo) -> Any:
    """The lines with confidences as whole percent. What cannot be read is left to the grammar."""
    if isinstance(differential, list) and all(
        isinstance(row, dict) and type(row.get("confidence")) is int and row["confidence"] > 1
        for row in differential
    ):
        _note_sum(sum(row["confidence"] for row in differential), info)
        return differential
    differential = _differential_rows(differential, info)
    if not isinstance(differential, list) or not all(isinstance(row, dict) for row in differential):
        return differential
    rows = [{bare_key(key): value for key, value in row.items()} for row in differential]
    stated = [row.get("confidence") for row in rows]
    numbers = [_percentage(value) for value in stated]
    if not numbers or any(number is None for number in numbers):
        return differential
    marked = any(isinstance(value, str) and "%" in value for value in stated)
    values = [number for number in numbers if number is not None]
    between = any(0 < value < 1 for value in values)
    if between and not marked:
        if max(values) > 1:
            raise ValueError("some confidences are percent and some fractions; write percent")
        values = [100 * value for value in values]
    elif max(values) == 1 and set(values) <= {0, 1}:
        raise ValueError("are these confidences percent or fractions? write percent, 0 to 100")
    whole = [round(value) for value in values]
    if whole != stated:
        note(info, "confidences in another form")
    _note_sum(sum(whole), info)
    return [row | {"confidence": value} for row, value in zip(rows, whole, strict=True)]


def _note_sum(percent: int, info: ValidationInfo) -> None:
    if percent > SUM_NOTED:
        note(info, f"confidences sum to more than {SUM_NOTED}")


def _differential_rows(differential: Any, info: ValidationInfo) -> Any:
    """A differential as {"Gout": 60} or ["Gout (60 %)"], as rows."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(differential, dict):
        pairs = list(differential.items())
    elif isinstance(differential, list) and all(isinstance(row, str) for row in differential):
        matches = [_PERCENT_BEHIND.fullmatch(row) for row in differential]
        pairs = [(match[1], match[2]) for match in matches if match]
    if not pairs or len(pairs) < len(differential):
        return differential
    if not all(isinstance(name, str) and _percentage(value) is not None for name, value in pairs):
        return differential
    note(info, "differential in another form")
    return [{"diagnosis": name, "confidence": value} for name, value in pairs]


_PERCENT_BEHIND = re.compile(r"(.+?)[\s:,(\[–-]+(\d+(?:\.\d+)?\s*%)\s*[)\]]?")


def _percentage(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value.replace("%", "")) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _bounded(differential: Any, info: ValidationInfo) -> Any:
    """The first MOST_DIAGNOSES lines of a differential that is ranked by its confidences."""
    if not isinstance(differential, list) or len(differential) <= MOST_DIAGNOSES:
        return differential
    stated = [row.get("confidence") for row in differential if isinstance(row, dict)]
    numbers = [value for value in stated if type(value) is int]
    if len(numbers) < len(differential) or numbers != sorted(numbers, reverse=True):
        return differential
    note(info, f"differential cut to {MOST_DIAGNOSES}")
    return differential[:MOST_DIAGNOSES]


def _each_once(differential: list[RankedDiagnosis]) -> list[RankedDiagnosis]:
    if name := _repeated(line.diagnosis for line in differential):
        raise ValueError(f"{name!r} stands twice; list each diagnosis once, with one confidence")
    return differential


def _repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before, whatever its case."""
    earlier: set[str] = set()
    for name in names:
        if name.casefold() in earlier:
            return name
        earlier.add(name.casefold())
    return None


# Validators before the grammar run from the last to the first.
Differential = Annotated[
    list[RankedDiagnosis],
    Field(max_length=MOST_DIAGNOSES),
    BeforeValidator(_bounded),
    BeforeValidator(_in_percent),
    AfterValidator(_each_once),
]


_LIST_BULLET = re.compile(r"\s*(?:[-*•]|\d{1,2}[.)])\s+")


def _single_tests(tests: Any, info: ValidationInfo) -> Any:
    """One string of tests as a list, split as the oracle splits an order."""
    if not isinstance(tests, str) or not tests.strip():
        return tests
    note(info, "tests as one string")
    lines = [_LIST_BULLET.sub("", line).strip() for line in tests.replace(";", "\n").splitlines()]
    lines = [line for line in lines if line]
    return list(single_tests(lines))


def _at_most(tests: list[str]) -> list[str]:
    """The limit holds for tests: 'CBC, CMP, CRP' is one entry and three of them."""
    if (count := len(single_tests(tests))) > MOST_TESTS:
        raise ValueError(f"these are {count} tests; order the {MOST_TESTS} that matter most")
    return tests


class OrderTests(Form):
    order_tests: Annotated[
        list[ShortText],
        Field(min_length=1, max_length=MOST_TESTS),
        BeforeValidator(_single_tests),
        AfterValidator(_at_most),
    ]


class Commit(Form):
    final_diagnosis: ShortText


class OrdersRead(Form):
    order_tests: Annotated[
        list[ShortText], Field(min_length=1, max_length=16), BeforeValidator(_single_tests)
    ]


class Undecided(Form):
    undecided: Annotated[str, Field(max_length=160), AfterValidator(one_line)]


_ACTIONS = ("order_tests", "final_diagnosis", "undecided")
_ACTION_KEYS = {bare_key(kind) for kind in _ACTIONS} | set(_ACTIONS)


def _kind(action: Any) -> str | None:
    """Which of the actions an object is; None when it is none."""
    if not isinstance(action, dict):
        return next((kind for kind in _ACTIONS if hasattr(action, kind)), None)
    return next((kind for kind in _ACTIONS if kind in action), None)


Action = Annotated[
    Annotated[OrderTests, Tag("order_tests")] | Annotated[Commit, Tag("final_diagnosis")],
    Discriminator(_kind),
]


class Acting(Form):
    """A reply with an action. An action that stands beside the other keys instead of in its own
    object is moved there; one that is empty or null beside the other is no action."""

    @model_validator(mode="before")
    @classmethod
    def _one_action(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        action = value.get("action")
        in_the_grammar = (
            isinstance(action, dict)
            and len(action) == 1
            and all(action.values())
            and action.keys() <= set(_ACTIONS)
            and not _ACTION_KEYS & value.keys()
        )
        if in_the_grammar:
            return value
        keys = {bare_key(key): key for key in value}
        framed = value.get(keys.get("action", ""))
        source = framed if isinstance(framed, dict) else value
        stated = {bare_key(key): inner for key, inner in source.items()}
        actions = {kind: stated[bare_key(kind)] for kind in _ACTIONS if stated.get(bare_key(kind))}
        if len(actions) != 1:  # none, or two: the grammar refuses it
            return {**value, keys.get("action", "action"): None}
        if framed != actions:
            note(info, "action in another form")
        rest = {key: value[key] for key in value if bare_key(key) not in _ACTION_KEYS}
        return rest | {keys.get("action", "action"): actions}


class Reply(Acting):
    """What a model writes at a turn: either it orders tests, or it commits to a definitive
    diagnosis."""

    hints: ClassVar = {
        "action": 'must be exactly {"order_tests": ["...", ...]} with 1 to 6 tests'
        " ('CBC, CRP' is two),"
        ' or {"final_diagnosis": "..."}, never both'
    }
    reasoning: Prose
    differential: Annotated[Differential, Field(min_length=1)]
    pivot: Sentence
    action: Action

    @model_validator(mode="after")
    def _acts_as_it_says(self, info: ValidationInfo) -> "Reply":
        if isinstance(self.action, OrderTests):
            if test := _repeated(self.action.order_tests):
                raise ValueError(f"action: {test!r} is ordered twice; order each test once")
            return self
        final = self.action.final_diagnosis
        highest = max(line.confidence for line in self.differential)
        for line in self.differential:
            if line.diagnosis.casefold() == final.casefold():
                if line.confidence < highest:
                    raise ValueError(
                        f"action: {final!r} does not lead your differential; commit to what does,"
                        " or rank it first"
                    )
                return self
        note(info, "final diagnosis added to the differential")
        return self


class LastReply(Reply):
    """The reply at turn T_max, where only a diagnosis is allowed."""

    hints: ClassVar = {
        "action": 'must be exactly {"final_diagnosis": "..."}, because this is the last turn'
    }
    action: Commit


class Extracted(Acting):
    """What a second call reads from a free-form turn, the decision first. More tests than may be
    ordered are read too, so that they are seen."""

    hints: ClassVar = {
        "action": 'must be exactly {"order_tests": ["...", ...]}, {"final_diagnosis": "..."}'
        ' or {"undecided": "..."}'
    }
    decision: Prose
    action: Annotated[
        Annotated[Commit, Tag("final_diagnosis")]
        | Annotated[OrdersRead, Tag("order_tests")]
        | Annotated[Undecided, Tag("undecided")],
        Discriminator(_kind),
    ]
    differential: Differential
    pivot: Sentence


class LastExtracted(Extracted):
    """What is read from a free-form turn that had to commit."""

    hints: ClassVar = {
        "action": 'must be exactly {"final_diagnosis": "..."} or {"undecided": "..."}'
    }
    action: Annotated[
        Annotated[Commit, Tag("final_diagnosis")] | Annotated[Undecided, Tag("undecided")],
        Discriminator(_kind),
    ]


def reply_schema(last_turn: bool) -> dict[str, Any]:
    """The JSON schema of a reply (`medaction.llm.replies.schema_of`)."""
    return schema_of(LastReply if last_turn else Reply)


def extraction_schema(last_turn: bool) -> dict[str, Any]:
    """The JSON schema of what is read from a free-form turn."""
    return schema_of(LastExtracted if last_turn else Extracted)


def parse_reply(text: str, number: int, last_turn: bool) -> Turn:
    """The Turn that a reply states. Raises MalformedReply.

    `Turn.raw`, which is trained on, is the reply rendered anew in the one grammar; its fields have
    lost control characters and the force of special tokens. Where the reply came in another form,
    the turn's usage has a Fault of class Mended, with the reply as it came.
    """
    reading = read(text, LastReply if last_turn else Reply)
    action = reading.value.action
    final = action.final_diagnosis if isinstance(action, Commit) else None
    turn = Turn(
        number=number,
        reasoning=reading.value.reasoning,
        differential=led_by(final, reading.value.differential),
        pivot=reading.value.pivot,
        tests=tuple(action.order_tests) if isinstance(action, OrderTests) else (),
        final_diagnosis=final,
        raw="",
        thinking=reading.thinking,
        usage=mended_usage(reading.mended, text),
    )
    return replace(turn, raw=render(turn))


def mended_usage(mended: tuple[str, ...], text: str) -> Usage:
    """The record of a reply that was read although its form was another; nothing for one that was
    in the grammar."""
    if not mended:
        return Usage()
    return Usage(faults=(Fault(MENDED, "; ".join(mended), printable(text)),))


def led_by(final: str | None, ranked: Sequence[RankedDiagnosis]) -> tuple[Hypothesis, ...]:
    """The differential as hypotheses. A final diagnosis that it lacks is put first, with what the
    others leave of 100 and no less than any of them."""
    lines = tuple(Hypothesis(line.diagnosis, line.confidence) for line in ranked)
    if final is None or any(line.diagnosis.casefold() == final.casefold() for line in lines):
        return lines
    rest = 100 - sum(line.confidence for line in lines)
    confidence = max([rest, 0, *(line.confidence for line in lines)])
    return (Hypothesis(final, confidence), *lines)[:MOST_DIAGNOSES]


def parse_extracted(text: str, last_turn: bool) -> Reading[Extracted]:
    """The record that a second call read from a free-form turn. Raises MalformedReply."""
    return read(text, LastExtracted if last_turn else Extracted)


def render(turn: Turn) -> str:
    """The canonical JSON of a turn: parse_reply(render(turn)) gives the same fields back."""
    action = (
        {"final_diagnosis": turn.final_diagnosis}
        if turn.final_diagnosis
        else {"order_tests": list(turn.tests)}
    )
    reply = {
        "reasoning": turn.reasoning,
        "differential": [
            {"diagnosis": line.diagnosis, "confidence": line.confidence}
            for line in turn.differential
        ],
        "pivot": turn.pivot,
        "action": action,
    }
    return json.dumps(reply, indent=1, ensure_ascii=False)
