"""The grammar of a language model's reply: differential b_t, pivot p_t, action a_t (paper, equation
2).

One Pydantic model is the grammar: it makes the JSON schema that servers constrain generation to,
and it reads what came back, in whatever form (`medaction.llm.replies`). The order of the fields is
the order of generation, so the reasoning stands before what it leads to.

Read although the form is another, and noted: confidences as '60', '60.0', '60 %', or all as
fractions of 1; keys of another name where only one field can be meant; an action without its frame,
or beside an empty other one; tests as one string; a test or line twice; a ninth diagnosis and more,
left out where the list is ranked; a final diagnosis that the differential lacks, which then leads
it. Refused, because it has two meanings: 0.6 and 60 in one list, nothing
but ones and noughts, orders and a diagnosis at once.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
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
from medaction.llm.replies import Form, Reading, bare_key, is_alike, note, own_keys, read, schema_of
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


def _worded(text: str) -> str:
    if not any(c.isalnum() for c in text):  # '...' stands for what was left out
        raise ValueError(f"{text!r} names nothing")
    return text


def _paragraphs(value: Any) -> Any:
    """A text, or the paragraphs of one, without markup; what is neither is left to the grammar."""
    # Models write reasoning as a list of points or an object of headings; its words are what
    # counts.
    if isinstance(value, dict | list):
        value = "\n".join(_flattened(value))
    return plain(value) if isinstance(value, str) else value


def _flattened(value: Any) -> Iterator[str]:
    """The texts of an object or list of texts, each with its heading."""
    if isinstance(value, dict):
        for heading, part in value.items():
            yield f"{heading}: {', '.join(_flattened(part))}"
    elif isinstance(value, list):
        for part in value:
            yield from _flattened(part)
    else:
        yield str(value)


_NAME_KEYS = {"name", "test", "testname", "diagnosis"}
"""Keys under which an object of several holds the name, where one text was asked for."""


def _one_line(value: Any, info: ValidationInfo) -> Any:
    """A text on one line; or the one that an object holds alone ({"test": "CT"}) or as its name, or
    a list alone."""
    if isinstance(value, dict):
        names = [inner for key, inner in value.items() if bare_key(key) in _NAME_KEYS]
        texts = [*value.values()] if len(value) == 1 else names
        value = texts[0] if len(texts) == 1 else value
        note(info, "text in another form")
    elif isinstance(value, list) and len(value) == 1:
        [value] = value
        note(info, "text in another form")
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
    str,
    Field(min_length=1, max_length=1000),
    BeforeValidator(_one_line),
    BeforeValidator(_paragraphs),
    AfterValidator(_filled),
]
ShortText = Annotated[
    str, Field(min_length=1, max_length=160), BeforeValidator(_one_line), AfterValidator(_worded)
]


_IN_QUOTES = re.compile(r"""["'`*_“]+(.+?)["'`*_”]+""")
_PERCENT_AT_END = re.compile(r"\s*\(\d+(?:\.\d+)?\s*%\)$")
# 'Gout.' loses its stop; 'Lupus n.' or 'St.' may be an abbreviation.
_FULL_STOP = re.compile(r"(?<=[a-z]{4})\.$")


def _undecorated(text: str) -> str:
    """A diagnosis without quotes or emphasis around it, a percentage or a full stop behind it."""
    name = _PERCENT_AT_END.sub("", text)
    quoted = _IN_QUOTES.fullmatch(name)
    # 'or text': what is nothing but decoration stays, and is refused with its own words.
    return _FULL_STOP.sub("", quoted[1].strip() if quoted else name) or text


DiagnosisText = Annotated[ShortText, AfterValidator(_undecorated)]


class RankedDiagnosis(Form):
    diagnosis: DiagnosisText
    confidence: Annotated[int, Field(ge=0, le=100)]


_LINE = tuple(RankedDiagnosis.model_fields)


def _in_percent(differential: Any, info: ValidationInfo) -> Any:
    """The lines with confidences as whole percent. What cannot be read is left to the grammar."""
    if (
        # The common form, seen at a glance: no reading of other forms is spent on it.
        isinstance(differential, list)
        and all(
            # Above 1, since 1 may be a fraction of all.
            isinstance(row, dict)
            and "diagnosis" in row
            and type(row.get("confidence")) is int
            and row["confidence"] > 1
            for row in differential
        )
        and not _is_numbered([row.get("diagnosis") for row in differential])
    ):
        _note_sum(sum(row["confidence"] for row in differential), info)
        return differential
    differential = _differential_rows(differential, info)
    if not isinstance(differential, list) or not all(isinstance(row, dict) for row in differential):
        return differential
    rows = []
    for row in differential:
        names = own_keys(RankedDiagnosis, [*row])
        rows.append({names.get(key, key): value for key, value in row.items()})
        if any(bare_key(key) != bare_key(name) for key, name in names.items()):
            note(info, "keys of another name")
    # A line that is not filled in, as models fill a form.
    filled = [row for row in rows if not all(_is_empty(row.get(key)) for key in _LINE)]
    if 0 < len(filled) < len(rows):
        note(info, "empty lines left out")
        rows = filled
    if columns := _columns(rows):
        rows = [{columns.get(key, key): value for key, value in row.items()} for row in rows]
        note(info, "keys of another name")
    # Only where every line has its rank: '5. Hydroxyindole' alone is part of a name.
    if _is_numbered([row.get("diagnosis") for row in rows]):
        rows = [row | {"diagnosis": _LIST_BULLET.sub("", row["diagnosis"])} for row in rows]
        note(info, "numbers before diagnoses")
    stated = [row.get("confidence") for row in rows]
    numbers = [_percentage(value) for value in stated]
    # The grammar refuses it with the place of the fault.
    if not numbers or any(number is None for number in numbers):
        return differential
    marked = any(isinstance(value, str) and _OF_100.search(value) for value in stated)
    values = [number for number in numbers if number is not None]
    between = any(0 < value < 1 for value in values)
    # '0.6 %' is six in a thousand, '0.6' alone is sixty.
    if between and not marked:
        if max(values) > 1:
            raise ValueError("some confidences are percent and some fractions; write percent")
        values = [100 * value for value in values]
    elif max(values) == 1 and set(values) <= {0, 1}:
        raise ValueError("are these confidences percent or fractions? write percent, 0 to 100")
    # After the scale is known: 0.125 is 12, not 0.
    whole = [round(value) for value in values]
    if whole != stated:
        note(info, "confidences in another form")
    _note_sum(sum(whole), info)
    return [row | {"confidence": value} for row, value in zip(rows, whole, strict=True)]


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Key as written -> the key of a line that no row has. Where every row has the same keys, the
    only column of texts names the diagnoses, and the only one of numbers that sum to about 100, or
    1, is their confidence: a rank or a score out of ten does not."""
    if not rows or any(row.keys() != rows[0].keys() for row in rows):
        return {}
    columns = {}
    for name, fits in (("diagnosis", _are_words), ("confidence", _sum_to_a_whole)):
        others = [key for key in rows[0] if key not in _LINE]
        fitting = [key for key in others if fits([row[key] for row in rows])]
        if name not in rows[0] and len(fitting) == 1:
            columns[fitting[0]] = name
    return columns


def _are_words(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) and _percentage(value) is None for value in values)


def _sum_to_a_whole(values: Sequence[Any]) -> bool:
    numbers = [_percentage(value) for value in values]
    known = [number for number in numbers if number is not None]
    total = sum(known) * (100 if max(known, default=0) <= 1 else 1)
    return len(known) == len(numbers) and 10 * MOST_DIAGNOSES < total <= SUM_NOTED


def _note_sum(percent: int, info: ValidationInfo) -> None:
    if percent > SUM_NOTED:
        note(info, f"confidences sum to more than {SUM_NOTED}")


def _differential_rows(differential: Any, info: ValidationInfo) -> Any:
    """A differential in another form as rows: an object or list of pairs ({"Gout": 60}, [["Gout",
    60]]), of rows by their rank ({"1": {...}}), texts ("Gout (60 %)"), or JSON as text."""
    rows = differential
    if isinstance(rows, str):
        rows = _rows_of_text(rows)
    # {"hypotheses": [...]}: the list within its only key.
    if isinstance(rows, dict) and len(rows) == 1 and isinstance(next(iter(rows.values())), list):
        [rows] = rows.values()
    if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], list) and rows[0]:
        rows = rows[0] if isinstance(rows[0][0], dict) else rows
    if isinstance(rows, dict):
        ranks = all(key.isdecimal() for key in rows)
        rows = [*rows.values()] if ranks else [[name, value] for name, value in rows.items()]
    if not isinstance(rows, list):
        return differential
    rows = [_row_of(row) for row in rows]
    if rows != differential and all(isinstance(row, dict) for row in rows):
        note(info, "differential in another form")
        return rows
    return differential


def _rows_of_text(text: str) -> Any:
    """The rows of a differential that was written as one text: JSON, or a line or clause each."""
    try:
        return json.loads(text)
    except ValueError:
        # Not at every comma: diagnoses have commas, percentages end a row.
        lines = text.splitlines() if "\n" in text.strip() else re.split(r"(?<=[%)\]])[,;]\s*", text)
        return [_LIST_BULLET.sub("", line) for line in lines if line.strip()]


def _row_of(row: Any) -> Any:
    """One row as {"diagnosis", "confidence"}, where it is a pair or a text that ends in percent."""
    if isinstance(row, dict) and len(row) == 1:
        [row] = row.items()
    if isinstance(row, str) and (match := _PERCENT_BEHIND.fullmatch(row.strip())):
        row = (match[1], match[2] or match[3])
    if not isinstance(row, list | tuple) or len(row) != 2:
        return row
    name, value = row
    if isinstance(value, dict):
        keys = {bare_key(key): key for key in value}
        value = value.get(keys.get("confidence", ""))
    if not isinstance(name, str) or _percentage(value) is None:
        return row
    return {"diagnosis": name, "confidence": value}


_PERCENT_BEHIND = re.compile(
    r"(.+?)(?:[\s:,(\[–-]+(\d+(?:\.\d+)?\s*%)\s*[)\]]?|:\s*(\d+(?:\.\d+)?))"
)
_OF_100 = re.compile(r"[%％]|\bper ?cent|/\s*100?\b")
_DIGITS = re.compile(r"\d+(?:[.,]\d+)?")


def _percentage(value: Any) -> float | None:
    """The number of a confidence: 60, '60', '60.0', '60 %', '(60 %)', 'High (60 percent)',
    '60/100', '6/10', '~60%', [60]. Words need a sign of percent beside the number; a bound
    ('>60') or a negative number is none."""
    if isinstance(value, list | dict) and len(value) == 1:
        [value] = value.values() if isinstance(value, dict) else value
    if isinstance(value, str):
        text = unicodedata.normalize("NFKC", value)
        of_ten = re.search(r"/\s*10\b", text)
        # '/100' is a percent sign, not a second number.
        numbers = _DIGITS.findall(re.sub(r"/\s*100?\b", " percent", text))
        rest = _DIGITS.sub("", text)
        # '50-60', '>60': two numbers or a bound are no confidence.
        if len(numbers) != 1 or re.search(r"[<>≤≥-]", rest):
            return None
        if any(c.isalpha() for c in rest) and not _OF_100.search(text):
            return None
        return float(numbers[0].replace(",", ".")) * (10 if of_ten else 1)
    # bool is an int: True is no 1 percent.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _bounded(differential: Any, info: ValidationInfo) -> Any:
    """The first MOST_DIAGNOSES lines of a differential that is ranked by its confidences."""
    # Cut only where the model ranked them itself: else the last need not be the least.
    if not isinstance(differential, list) or len(differential) <= MOST_DIAGNOSES:
        return differential
    stated = [row.get("confidence") for row in differential if isinstance(row, dict)]
    numbers = [value for value in stated if type(value) is int]
    if len(numbers) < len(differential) or numbers != sorted(numbers, reverse=True):
        return differential
    note(info, f"differential cut to {MOST_DIAGNOSES}")
    return differential[:MOST_DIAGNOSES]


def _each_once(differential: list[RankedDiagnosis]) -> list[RankedDiagnosis]:
    # The same line twice says one thing; two confidences of one diagnosis say two.
    differential = _unrepeated(
        differential, lambda line: (line.diagnosis.casefold(), line.confidence)
    )
    if name := _repeated(line.diagnosis for line in differential):
        raise ValueError(f"{name!r} stands twice; list each diagnosis once, with one confidence")
    return differential


def _unrepeated(items: Iterable[Any], key: Callable[[Any], Any]) -> list[Any]:
    """Each item at its first place."""
    first: dict[Any, Any] = {}
    for item in items:
        first.setdefault(key(item), item)
    return [*first.values()]


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


def _is_numbered(texts: Sequence[Any]) -> bool:
    """Whether every text begins with its rank: '1. Gout', '2) Pseudogout'."""
    return bool(texts) and all(
        isinstance(text, str) and text.lstrip().startswith((f"{rank}. ", f"{rank}) "))
        for rank, text in enumerate(texts, 1)
    )


def _single_tests(tests: Any, info: ValidationInfo) -> Any:
    """One string of tests as a list, split as the oracle splits an order; a list in an object or a
    list; a numbered list without its numbers."""
    if isinstance(tests, dict) and tests:
        # {"1": "CBC", "2": "CT"} and {"blood": ..., "imaging": ...} are lists in disguise.
        ranks = all(key.isdecimal() for key in tests)
        tests = [*tests.values()] if ranks or len(tests) > 1 else next(iter(tests.values()))
        if isinstance(tests, list) and all(isinstance(group, list) for group in tests):
            tests = [test for group in tests for test in group]  # by kind: {"blood": [...], ...}
        note(info, "tests in another form")
    if isinstance(tests, list) and len(tests) == 1 and isinstance(tests[0], list):
        [tests] = tests
        note(info, "tests in another form")
    if isinstance(tests, list) and _is_numbered(tests):
        note(info, "tests in another form")
        return [_LIST_BULLET.sub("", test) for test in tests]
    if isinstance(tests, list):
        # null and '' in a list are its empty places.
        stated = [test for test in tests if not (test is None or str(test).isspace() or test == "")]
        distinct = _unrepeated(stated, lambda test: str(test).casefold())
        if 0 < len(distinct) < len(tests):
            note(info, "tests in another form")
            return distinct
    if not isinstance(tests, str) or not tests.strip():
        return tests
    note(info, "tests as one string")
    lines = [_LIST_BULLET.sub("", line).strip() for line in tests.replace(";", "\n").splitlines()]
    lines = [line for line in lines if line]
    # As the oracle would split it: one entry of text is as many orders.
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
    final_diagnosis: DiagnosisText


class OrdersRead(Form):
    order_tests: Annotated[
        # More than may be ordered, so that a free-form turn can be told how many it named.
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


_NO_VALUE = {"", "-", "none", "null", "nil", "n/a", "na", "nan"}
"""How a missing value is written where a text was asked for: pandas' list, in lower case."""


def _is_empty(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_empty(part) for part in value)
    return not value or (isinstance(value, str) and value.strip().casefold() in _NO_VALUE)


def _action_object(action: Any) -> Any:
    """An action that is the text of its object, or a list of it alone, as the object."""
    if isinstance(action, list) and len(action) == 1:
        [action] = action
    if isinstance(action, str) and action.lstrip().startswith("{"):
        with suppress(ValueError):
            return json.loads(action)
    # 'order_tests: CBC, CRP'
    key, colon, rest = action.partition(":") if isinstance(action, str) else ("", "", "")
    return {key: rest} if colon and bare_key(key) in _ACTION_KEYS else action


def _named_action(stated: dict[str, Any]) -> dict[str, Any]:
    """{"type": "order_tests", "tests": [...]}: an action whose kind is a value, beside one other
    entry that holds what it is about. Empty for anything else."""
    kinds = [kind for kind in _ACTIONS if kind in stated.values()]
    others = [value for value in stated.values() if value not in kinds and not _is_empty(value)]
    return {kinds[0]: others[0]} if len(kinds) == len(others) == 1 else {}


class Acting(Form):
    """A reply with an action. An action that stands beside the other keys instead of in its own
    object is moved there; one that is empty or null beside the other is no action."""

    @model_validator(mode="before")
    @classmethod
    def _one_action(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        action = value.get("action")
        # The grammar's own form passes unread: that of nearly all replies.
        in_the_grammar = (
            isinstance(action, dict)
            and len(action) == 1
            and all(action.values())
            and action.keys() <= set(_ACTIONS)
            and not _ACTION_KEYS & value.keys()
        )
        if in_the_grammar:
            return value
        keys = {name: key for key, name in own_keys(cls, [*value]).items()}
        action_as_written = value.get(keys.get("action", ""))
        framed = _action_object(action_as_written)
        # Without an object of its own the action may stand beside the other keys.
        source = framed if isinstance(framed, dict) else value
        stated = {bare_key(key): inner for key, inner in source.items()}
        # 'tests_to_order', 'diagnosis': keys that are like one action, and only one.
        if source is framed and not _ACTION_KEYS & stated.keys():
            kinds = {
                key: [kind for kind in _ACTIONS if is_alike(key, bare_key(kind))] for key in stated
            }
            stated = {
                bare_key(kinds[key][0]): stated[key] for key in stated if len(kinds[key]) == 1
            } or stated
        # An empty or null entry beside the other is how models fill a form.
        actions = {
            kind: stated[bare_key(kind)]
            for kind in _ACTIONS
            if not _is_empty(stated.get(bare_key(kind)))
        }
        if not actions and source is framed:
            actions = _named_action(stated)
        if len(actions) != 1:  # none, or two: the grammar refuses it
            return {**value, keys.get("action", "action"): None}
        if action_as_written != actions:
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
        # The final diagnosis leads its differential: DTC measures b_t(1), which must be one thing.
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


# So that the turn keeps the invariant that `_acts_as_it_says` asks for.
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
