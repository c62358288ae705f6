"""The grammar of a language model's reply: differential b_t, pivot p_t, action a_t (paper, equation
2).

One Pydantic model is the grammar: it makes the JSON schema that servers constrain generation to,
and it checks what came back. The order of the fields is the order of generation, so the reasoning
stands before what it leads to.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from medaction.envs.turns import Hypothesis, Turn
from medaction.llm.replies import MalformedReply, json_object, split_thinking
from medaction.llm.untrusted import one_line, plain, printable


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


MOST_TESTS = 6
"""The most tests of one turn."""

# A server is asked for at most 2,000 characters (llama.cpp's grammars repeat no more often); a
# longer reply is still accepted.
_SERVED = {"maxLength": 2000}

Prose = Annotated[
    str,
    Field(min_length=1, max_length=12_000, json_schema_extra=_SERVED),
    AfterValidator(plain),
    AfterValidator(_filled),
]

Sentence = Annotated[
    str, Field(min_length=1, max_length=1000), AfterValidator(one_line), AfterValidator(_filled)
]

Name = Annotated[
    str, Field(min_length=1, max_length=160), AfterValidator(one_line), AfterValidator(_filled)
]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True, frozen=True)


Model = TypeVar("Model", bound=Strict)


class RankedDiagnosis(Strict):
    diagnosis: Name
    confidence: Annotated[int, Field(ge=0, le=100)]


def _distinct(differential: list[RankedDiagnosis]) -> list[RankedDiagnosis]:
    if name := _repeated(line.diagnosis for line in differential):
        raise ValueError(f"{name!r} stands twice; list each diagnosis once, with one confidence")
    return differential


def _repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before, whatever its case."""
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            return name
        seen.add(name.casefold())
    return None


class OrderTests(Strict):
    order_tests: Annotated[list[Name], Field(min_length=1, max_length=MOST_TESTS)]


class Commit(Strict):
    final_diagnosis: Name


class Reply(Strict):
    """What a model writes at a turn: either it orders tests, or it commits to a definitive
    diagnosis."""

    reasoning: Prose
    differential: Annotated[
        list[RankedDiagnosis], Field(min_length=1, max_length=8), AfterValidator(_distinct)
    ]
    pivot: Sentence
    action: OrderTests | Commit

    @model_validator(mode="after")
    def _acts_as_it_says(self) -> "Reply":
        if isinstance(self.action, OrderTests):
            if test := _repeated(self.action.order_tests):
                raise ValueError(f"{test!r} is ordered twice; order each test once")
            return self
        named = self.action.final_diagnosis
        own = [
            line.confidence
            for line in self.differential
            if line.diagnosis.casefold() == named.casefold()
        ]
        if own and own[0] < max(line.confidence for line in self.differential):
            raise ValueError(
                f"{named!r} does not lead your differential; commit to what does, or rank it first"
            )
        return self


class LastReply(Reply):
    """The reply at turn T_max, where only a diagnosis is allowed."""

    action: Commit


_ACTION = (
    '{"order_tests": ["...", ...]} with 1 to 6 tests, or {"final_diagnosis": "..."}, never both'
)

_LAST_ACTION = '{"final_diagnosis": "..."}, because this is the last turn'

_ACTION_READ = '{"order_tests": ["...", ...]}, {"final_diagnosis": "..."} or {"undecided": "..."}'

_LAST_ACTION_READ = '{"final_diagnosis": "..."} or {"undecided": "..."}'


class OrdersRead(Strict):
    order_tests: Annotated[list[Name], Field(min_length=1, max_length=16)]


class Undecided(Strict):
    undecided: Annotated[str, Field(max_length=160), AfterValidator(one_line)]


class Extracted(Strict):
    """What a second call reads from a free-form turn, the decision first. More tests than may be
    ordered are read too, so that they are seen."""

    decision: Prose
    action: Commit | OrdersRead | Undecided
    differential: Annotated[list[RankedDiagnosis], Field(max_length=8), AfterValidator(_distinct)]
    pivot: Sentence


class LastExtracted(Extracted):
    """What is read from a free-form turn that had to commit."""

    action: Commit | Undecided


@cache
def reply_schema(last_turn: bool) -> dict[str, Any]:
    """The JSON schema of a reply, in the subset that OpenAI's strict mode, vLLM and llama.cpp all
    take."""
    return schema_of(LastReply if last_turn else Reply)


@cache
def extraction_schema(last_turn: bool) -> dict[str, Any]:
    """The JSON schema of what is read from a free-form turn."""
    return schema_of(LastExtracted if last_turn else Extracted)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema without references and titles."""
    schema = model.model_json_schema()
    return _inlined(schema, schema.get("$defs", {}))


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    return {
        key: _inlined(value, definitions)
        for key, value in node.items()
        if key not in ("$defs", "title", "description")
    }


def parse_reply(text: str, number: int, last_turn: bool) -> Turn:
    """The Turn that a reply states. The whole text must be one JSON object; a code fence and
    leading thinking are allowed.

    Fields lose control characters, and special tokens in them are broken. `Turn.raw` is the reply
    as it came, without the thinking that `Turn.thinking` keeps; because it is trained on, a reply
    that held such text is rendered anew. Raises MalformedReply.
    """
    thinking, body = split_thinking(text)
    reply = _validated(
        LastReply if last_turn else Reply, text, body, _LAST_ACTION if last_turn else _ACTION
    )
    turn = _turn(reply, number, body, thinking)
    return turn if plain(body) == body else replace(turn, raw=render(turn))


def parse_extracted(text: str, last_turn: bool) -> Extracted:
    """The record that a second call read from a free-form turn. Raises MalformedReply."""
    _, body = split_thinking(text)
    return _validated(
        LastExtracted if last_turn else Extracted,
        text,
        body,
        _LAST_ACTION_READ if last_turn else _ACTION_READ,
    )


def _validated(model: type[Model], text: str, body: str, action: str) -> Model:
    try:
        return model.model_validate(json_object(body))
    except ValidationError as error:
        raise MalformedReply(_in_words(error, action), printable(text)) from None
    except ValueError as error:
        raise MalformedReply(str(error), printable(text)) from None


def _turn(reply: Reply, number: int, raw: str, thinking: str) -> Turn:
    action = reply.action
    return Turn(
        number=number,
        reasoning=reply.reasoning,
        differential=tuple(
            Hypothesis(line.diagnosis, line.confidence) for line in reply.differential
        ),
        pivot=reply.pivot,
        tests=tuple(action.order_tests) if isinstance(action, OrderTests) else (),
        final_diagnosis=action.final_diagnosis if isinstance(action, Commit) else None,
        raw=raw,
        thinking=thinking,
    )


def _in_words(error: ValidationError, action: str) -> str:
    """The first faults of a reply, one a line, each with its place."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    faults = [_fault(problem) for problem in problems if problem["loc"][:1] != ("action",)][:5]
    if any(
        problem["loc"][:1] == ("action",) for problem in problems
    ):  # one line for both branches of the union
        faults.append(f"action: must be exactly {action}")
    return "\n".join(faults)


def _fault(problem: Any) -> str:
    where = (
        ".".join(str(part) for part in problem["loc"]) or "action"
    )  # what a reply as a whole gets wrong is its action
    wrong = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        wrong = "this key does not belong here"
    elif problem["type"] == "missing":
        wrong = "this key is missing"
    return f"{where[:80]}: {wrong}"


def render(turn: Turn) -> str:
    """The canonical JSON of a turn, such that parse_reply(render(turn)) gives the same fields back."""
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
