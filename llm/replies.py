"""Structured replies: the JSON object that a model wrote, in whatever form it came.

One reader for clinicians, extraction, gold, judges and the oracle's model. A reply's grammar is a
Pydantic model (`Form`); `read` finds the object in the text and reads it. What has one meaning is
read: prose, fences, special tokens and thinking around the object, trailing commas, comments,
Python's quotes, keys in another case, keys that nobody asked for. What has two is refused: two
objects that differ, a key that stands twice. What was mended is listed (`Reading.mended`).
"""

import ast
import html
import json
import re
import warnings
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from medaction.llm.untrusted import plain, printable
from medaction.llm.usage import Usage

LONGEST_REPLY = 400_000
"""Characters. The longest reply that can be asked for (`Teacher.max_tokens`) is twice as long; what
holds an object of the forms here is far shorter."""

_THINKING_ENDS = (
    "</think>", "</thinking>", "</thought>", "</reasoning>", "[/THINK]", "◁/think▷", "<unused95>",
    "<|channel|>final<|message|>", "<|START_RESPONSE|>",
)  # fmt: skip
"""How models end their thinking in the text: Qwen and DeepSeek, Claude's habit, Magistral, Kimi,
MedGemma, gpt-oss (harmony), Command A. Chat templates often write its beginning themselves."""

_THINKING_BEGINS = (
    "<think>", "<thinking>", "<thought>", "<reasoning>", "[THINK]", "◁think▷", "<unused94>thought",
    "<unused94>", "<|channel|>analysis<|message|>", "<|START_THINKING|>",
)  # fmt: skip

# DeepSeek writes its tokens with a wide bar: <｜end▁of▁sentence｜>.
_SPECIAL = re.compile(r"<[|｜][^<>\n]{1,60}[|｜]>|</?(?:s|bos|eos|end_of_turn|start_of_turn)>")
_NEXT_TURN = re.compile(rf"(?:{_SPECIAL.pattern})\s*user\b|<[|｜]user[|｜]>", re.IGNORECASE)
"""Where a model that does not stop goes on with the user's part of a dialogue."""
# As a language writes them: “x”, ”x”, „x“, «x».
_QUOTES = re.compile("[“”„«»]")
_FENCE = re.compile(r"(?:```|~~~)[\w-]*")


class MalformedReply(ValueError):
    """A reply outside the grammar. The message tells the model what to mend; `raw` is the reply as
    it came.

    `usage` is what the turn had used by then, as far as whoever raised or passed it on knew.
    """

    usage = Usage()

    def __init__(self, message: str, raw: str = ""):
        super().__init__(message)
        self.message = message
        self.raw = raw

    def __reduce__(self):  # so that a worker process can hand it back whole
        return type(self), (self.message, self.raw), {"usage": self.usage}


class Form(BaseModel):
    """A reply's grammar. Keys are found whatever their case and separators ('Final Diagnosis');
    keys that it does not have are left out. `hints` replaces what Pydantic says about a field."""

    model_config = ConfigDict(
        strict=True,
        str_strip_whitespace=True,
        frozen=True,
        json_schema_extra={"additionalProperties": False},  # servers are asked for these keys only
    )
    hints: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _with_our_keys(cls, value: Any, info: ValidationInfo) -> Any:
        # Nearly every reply has exactly these keys: nothing to look for.
        if not isinstance(value, dict) or [*value] == [*cls.model_fields]:
            return value
        names = own_keys(cls, [*value])
        result: dict[str, Any] = {}
        for key, inner in value.items():
            name = names.get(key)
            if name is None:
                note(info, "keys left out")
                continue
            # 'Diagnosis' and 'diagnosis' with one value are the same key; with two, either could be
            # meant.
            if name in result and result[name] != inner:
                raise ValueError(f"{name!r} stands twice; write each key once")
            if key != name:
                alike = bare_key(key) == bare_key(name)
                note(info, "keys in another case" if alike else "keys of another name")
            result[name] = inner
        return result


def whole_number(value: Any) -> Any:
    """A number by which a reply points at something: 2, and in other forms 2.0, '2' and '2.'."""
    written = re.fullmatch(r"(\d{1,9})(?:\.0*)?", str(value).strip())
    return int(written[1]) if written and isinstance(value, str | float) else value


def as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [] if value is None else [value]


WholeNumbers = Annotated[
    list[Annotated[int, BeforeValidator(whole_number)]], BeforeValidator(as_list)
]
"""Several such numbers; one alone is a list of one, and null a list of none."""

F = TypeVar("F", bound=Form)


@dataclass(frozen=True, slots=True)
class Reading(Generic[F]):
    """What a reply says. `mended` names each kind of form that was not the one asked for."""

    value: F
    thinking: str = ""
    mended: tuple[str, ...] = ()


@cache
def _names_by_bare_key(form: type[Form]) -> dict[str, str]:
    return {bare_key(name): name for name in form.model_fields}


def own_keys(form: type[Form], keys: Sequence[str]) -> dict[str, str]:
    """Key as written -> the field of the form that it is. A field that no key names is the one key
    that is like it (`is_alike`); or, in an object of as many keys as the form has, which are at
    least two, the one unknown key at its place ('thought' before the differential)."""
    # Exact names first, so that no alike key takes the field of one that is there.
    fields = _names_by_bare_key(form)
    names = {key: fields[bare_key(key)] for key in keys if bare_key(key) in fields}
    for place, (bare, field) in enumerate(fields.items()):
        unknown = [key for key in keys if key not in names]
        if field in names.values() or not unknown:
            continue
        alike = [key for key in unknown if is_alike(bare_key(key), bare)]
        if len(alike) == 1:
            names[alike[0]] = field
        elif len(unknown) == 1 and len(keys) == len(fields) > 1 and keys[place] == unknown[0]:
            names[unknown[0]] = field
    return names


def is_alike(bare: str, other: str) -> bool:
    """Whether one of two bare keys holds the other: 'differentialdiagnosis', 'differential'."""
    shorter, longer = sorted((bare, other), key=len)
    return len(shorter) >= _SHORTEST_ALIKE and shorter in longer


_SHORTEST_ALIKE = 5
"""Letters. Shorter words stand in others by chance."""


@lru_cache(1024)
def bare_key(key: str) -> str:
    """A key without what writers vary: 'Final Diagnosis', 'finalDiagnosis' -> 'finaldiagnosis'."""
    return "".join(c for c in key if c.isalnum()).casefold()


def note(info: ValidationInfo, mended: str) -> None:
    """For the validators of a form: put on record that a reply was mended."""
    # Validated without `read` (a stored reply, a test), a form has no list to note in.
    if isinstance(info.context, list) and mended not in info.context:
        info.context.append(mended)


def read(text: str, form: type[F], alone: bool = False) -> Reading[F]:
    """The reply in the given form. `alone`: words beside the object are refused, for judges, who
    may quote what they judge. Raises MalformedReply, with what is wrong in words for the model."""
    thinking, whole = split_thinking(text)
    body = _without_made_up_turns(whole)
    mended = [] if body == whole else ["made-up turns behind the reply"]
    try:
        value = _located(body, form, alone, mended)
        return Reading(form.model_validate(value, context=mended), thinking, tuple(mended))
    except ValidationError as error:
        # `from None`: Pydantic's own error holds the whole reply once more.
        raise MalformedReply(_validation_faults(error, form), printable(text)) from None
    except ValueError as error:
        raise MalformedReply(str(error), printable(text)) from None


def split_thinking(text: str) -> tuple[str, str]:
    """(thinking, reply), without special tokens around the reply. Thinking that was begun and not
    ended stays in the reply."""
    text = _trimmed(text)
    # An object may quote such a mark in its strings; no thinking stands before it.
    if text.startswith(("{", "```")):
        return "", text
    ends = [(at, mark) for mark in _THINKING_ENDS if (at := text.find(mark)) >= 0]
    if not ends:
        return "", text
    # The first end: the reply behind it may quote another one.
    at, mark = min(ends)
    # gpt-oss opens its final channel so, behind the thinking.
    thinking = text[:at].removesuffix("<|start|>assistant").strip()
    for begin in _THINKING_BEGINS:
        thinking = thinking.removeprefix(begin)
    thinking = _SPECIAL.sub("", thinking).strip()
    return plain(thinking).strip(), _trimmed(text[at + len(mark) :])


def _without_made_up_turns(body: str) -> str:
    """What stands before the first user's part that follows a whole object: thinking, and the
    object's own strings, may speak of a user, too."""
    for match in _NEXT_TURN.finditer(body):
        before = _trimmed(body[: match.start()])
        if _FENCE.sub("", before).rstrip().endswith("}"):
            return before
    return body


def _trimmed(text: str) -> str:
    """Without white space, byte order mark and end-of-turn tokens at either end."""
    # White space may stand on both sides of the byte order mark.
    text = text.strip().strip("\ufeff").strip()
    while (match := _SPECIAL.match(text)) and not text.startswith(_THINKING_BEGINS):
        text = text[match.end() :].lstrip()
    # Only the last 64 characters: no special token is longer, and a search of the whole text is
    # slow.
    while text.endswith((">", "]")) and (tail := _SPECIAL.search(text, max(0, len(text) - 64))):
        if tail.end() != len(text):
            break
        text = text[: tail.start()].rstrip()
    return text


def _unescaped(body: str, mended: list[str]) -> str:
    """A reply whose JSON was escaped once more on its way, or typed with other quotes."""
    if body.startswith('"{') and body.endswith('}"'):  # JSON as the text of a JSON string
        with suppress(ValueError):
            body = json.loads(body)
            mended.append("object in a string")
    elif body.startswith('{\\"'):
        with suppress(ValueError):
            body = json.loads(f'"{body}"')
            mended.append("escaped quotes")
    elif body.startswith("{\\n"):
        body = body.replace("\\n", "\n")
        mended.append("escaped line breaks")
    if '"' not in body and (first := _QUOTES.search(body)):
        # Those of the other kind are within a text: “said «x»”.
        body = re.sub("[«»]" if first[0] in "«»" else "[“”„]", '"', body)
        mended.append("typographic quotes")
    if "&quot;" in body and '"' not in (words := re.sub(r"<[^>\n]{0,200}>", "", body)):
        body = html.unescape(words)
        mended.append("HTML entities")
    return body


def _located(body: str, form: type[Form], alone: bool, mended: list[str]) -> Any:
    """The one JSON value of `body` that has keys of `form`. Raises ValueError."""
    if not body:
        raise ValueError("the reply is empty; write the JSON object")
    body = _unescaped(body, mended)
    # After the unescaping, before the search: reading tries many openings of a long text.
    if len(body) > LONGEST_REPLY:
        raise ValueError(f"the reply has {len(body)} characters; write the JSON object alone")
    form_keys = _names_by_bare_key(form).keys()
    spans = list(_values(body, mended))
    related = [
        span
        for span in spans
        # An object without any key of the form is an example or a citation in the prose.
        if isinstance(span.value, list) or form_keys & {bare_key(key) for key in span.value}
    ]
    # A frame is looked into only where it is all there is: beside other objects it is a guess.
    if len(spans) == 1 and not alone and not (related and isinstance(spans[0].value, dict)):
        framed = _framed(spans[0].value, form_keys)
        if len(framed) == 1:
            in_a_list = isinstance(spans[0].value, list) and framed[0] in spans[0].value
            mended.append("object in a list" if in_a_list else "object in a frame")
            related = [replace(spans[0], value=framed[0])]
    if not related and not alone and (yaml_object := _yaml_object(body, form_keys)):
        mended.append("YAML")
        return yaml_object
    # {"differential": ...} and {"action": ...} on two lines.
    if len(related) > 1 and not alone and (joined := _joined(related)):
        mended.append("an object for each key")
        related = [joined]
    candidates = related or spans
    begun = body.startswith(_THINKING_BEGINS)
    # An object in thinking that broke off is a draft; at the very end it is the reply.
    if begun and not (candidates and _rest(body[candidates[-1].end :]) == ""):
        raise ValueError(
            "the thinking did not end; close it with </think> and write the JSON object after it"
        )
    if not candidates or (not related and _syntax_error(body)):
        raise ValueError(_why_none(body))
    # The same object twice (a draft and its copy) has one meaning.
    if any(span.value != candidates[-1].value for span in candidates):
        raise ValueError("the reply holds JSON objects that differ; write one object")
    span = candidates[-1]
    around = _rest(body[: candidates[0].start]) + _rest(body[span.end :])
    # A judge may quote an object from what it judges: its own verdict must stand alone.
    if around and alone:
        raise ValueError("the reply is not one JSON object alone; write nothing before or after it")
    if around:
        mended.append("words around the object")
    elif len(body) > span.end - span.start:
        mended.append("fence around the object")
    value = span.value
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        mended.append("object in a list")
        return value[0]
    return value


def _joined(spans: Sequence["_Span"]) -> "_Span | None":
    """Objects without a key in common as the one that they are parts of (JSON Lines)."""
    keys = [bare_key(key) for span in spans if isinstance(span.value, dict) for key in span.value]
    if len(set(keys)) < len(keys) or not all(isinstance(span.value, dict) for span in spans):
        return None
    value = {key: inner for span in spans for key, inner in span.value.items()}
    return _Span(value, spans[0].start, spans[-1].end)


def _framed(value: Any, form_keys: Set[str], depth: int = 3) -> list[dict[str, Any]]:
    """The objects with keys of the form in a frame: {"data": {"reply": {...}}}, a list of one, or
    the arguments of a tool call, which are an object or its text."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        # The arguments of a tool call are JSON as text.
        with suppress(ValueError, RecursionError):
            value = _STRICT.decode(value)
    if isinstance(value, dict) and form_keys & {bare_key(key) for key in value}:
        return [value]
    if depth == 0 or not isinstance(value, dict | list):
        return []
    parts = value.values() if isinstance(value, dict) else value
    return [framed for part in parts for framed in _framed(part, form_keys, depth - 1)]


_LONGEST_YAML = 20_000
"""Characters. PyYAML reads 50 kB a second or so, and a turn has 5 kB."""


def _yaml_object(body: str, form_keys: Set[str]) -> dict[str, Any] | None:
    """The one object of a reply in YAML, in a fence or alone; None when it is none. JSON without
    quotes around its keys is YAML too."""
    block = re.search(r"```[\w-]*\n(.*?)(?:```|$)", body, re.DOTALL)
    text = block[1] if block else body
    # References between nodes can make a small text an endless value.
    if len(text) > _LONGEST_YAML or ("&" in text and "*" in text):
        return None
    import yaml  # takes longer to import than a reply takes to be read

    try:
        value = json.loads(json.dumps(yaml.safe_load(text)))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    keys = form_keys & {bare_key(key) for key in value}
    return value if len(keys) >= min(2, len(form_keys)) else None


@dataclass(frozen=True, slots=True)
class _Span:
    value: Any
    start: int
    end: int


_STRICT = json.JSONDecoder(object_pairs_hook=lambda pairs: _object_of_pairs(pairs))
_LOOSE = json.JSONDecoder(object_pairs_hook=lambda pairs: _object_of_pairs(pairs), strict=False)
_MOST_STARTS = 40
"""Braces that are tried as the beginning of an object: prose has few, and each one tried costs."""


def _values(body: str, mended: list[str]) -> Iterator[_Span]:
    """The JSON objects of a text from left to right, and a list of objects that is all there is."""
    opening = body.find("{")
    # '[{...}]': a list of one object is read too, from its bracket.
    bracket = body.rfind("[", 0, opening)
    if bracket >= 0 and not body[bracket + 1 : opening].strip():
        opening = bracket
    # A mend goes over the whole text several times.
    mends_left = 3
    for _ in range(_MOST_STARTS):
        if opening < 0:
            return
        try:
            try:
                value, end = _STRICT.raw_decode(body, opening)
            except json.JSONDecodeError:
                # A line break in a string, which JSON wants written as \n.
                value, end = _LOOSE.raw_decode(body, opening)
                mended.append("line breaks in strings")
        except json.JSONDecodeError:
            closing = body.rfind("]" if body[opening] == "[" else "}") + 1
            value = _mended(body[opening:closing], mended) if mends_left else None
            end = closing
            if value is None and mends_left:  # several closing braces are missing
                value = _mended(_FENCE.sub("", body[opening:]).rstrip(), mended)
                end = len(body)
            mends_left = max(0, mends_left - 1)
            end = end if value is not None else opening + 1
        except RecursionError:
            raise ValueError(
                "the reply is nested too deeply to be the JSON object that was asked for"
            ) from None
        if value is not None:
            yield _Span(value, opening, end)
        opening = body.find("{", end)


def holds_object(text: str) -> bool:
    """Whether a reply that ended before its time, at a limit or by a filter, has the whole of its
    JSON object: it ends with it, goes on behind it in words, or lacks closing braces alone. A draft
    before or within thinking is none."""
    body = _without_made_up_turns(split_thinking(text)[1])
    if body.startswith(_THINKING_BEGINS):
        return False
    body = _FENCE.sub("", body).strip()
    opening = body.find("{")
    if opening < 0 or body.endswith("}"):
        return opening >= 0
    try:
        end = _LOOSE.raw_decode(body, opening)[1]
    except json.JSONDecodeError:
        return bool(_missing_braces(body[opening:]))
    return opening == 0 and "{" not in body[end:]


def _missing_braces(text: str) -> str:
    """The braces that close the objects still open at the end of a text; none where a string, a
    list or a value is open too: of these a part may be lost."""
    # Braces in strings close nothing.
    outside = re.sub(_STRING, '""', text).rstrip()
    if '"' in outside.replace('""', "") or not outside.endswith(('"', "}", "]")):
        return ""
    if outside.count("[") != outside.count("]"):
        return ""
    return "}" * max(0, outside.count("{") - outside.count("}"))


_STRING = r'("(?:\\.|[^"\\])*")'


def _half_width(match: re.Match[str]) -> str:
    return match[1] or {"：": ":", "，": ","}[match[2]]


def _quoted_percent(match: re.Match[str]) -> str:
    return match[1] or f'"{match[2]}"'


def _mended(text: str, mended: list[str]) -> Any:
    """The value of almost-JSON: comments, trailing commas, or Python's notation; None when it is
    neither."""
    # Spaces that do not break, which JSON does not take between its parts.
    text = text.replace("\u00a0", " ")
    for replacement, pattern, kind in (
        # Every pattern takes strings first and gives them back: 'http://' in a string is no
        # comment.
        (r"\1", rf"{_STRING}|//[^\n]*|/\*.*?\*/", "comments"),
        (r"\1", rf"{_STRING}|,(?=\s*[}}\]])", "trailing commas"),
        (_half_width, rf"{_STRING}|([：，])", "wide punctuation"),
        (_quoted_percent, rf"{_STRING}|(\d+(?:\.\d+)?\s*%)(?=\s*[,}}\]])", "bare percent signs"),
    ):
        changed = re.sub(pattern, replacement, text, flags=re.DOTALL)
        if changed != text:
            text = changed
            mended.append(kind)
    try:
        value, end = _LOOSE.raw_decode(text)
        # Words behind the object: which of them belong to it is unknown.
        return value if end == len(text) else None
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of a backslash in the reply
            warnings.simplefilter("ignore", DeprecationWarning)
            value = ast.literal_eval(text)
        # Through JSON, because Python's notation has keys and values that JSON lacks.
        value = json.loads(json.dumps(value))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        # Tried last: in a notation that is none of JSON's, braces may stand in strings.
        if not (closers := _missing_braces(text)):
            return None
        mended.append("closing braces")
        # Once more at most: the closed text has no missing braces.
        return _mended(text + closers, mended)
    mended.append("Python's quotes")
    return value if isinstance(value, dict | list) else None


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, inner in pairs:
        # json itself takes the last one in silence.
        if key in value and value[key] != inner:
            raise ValueError("a key stands twice in the same object; write each key once")
        value[key] = inner
    return value


def _rest(text: str) -> str:
    """What is left of the text around an object without fences and special tokens."""
    return _SPECIAL.sub("", _FENCE.sub("", text)).strip().strip("[]").strip()


def _why_none(body: str) -> str:
    error = _syntax_error(body)
    if error is None:
        return "the reply is not one JSON object"
    near = body[max(0, error.pos - 20) : error.pos + 20]
    return f"the reply is not one JSON object: {error.msg} near {near!r}"


def _syntax_error(body: str) -> json.JSONDecodeError | None:
    """What is wrong with the first object of a text."""
    opening = body.find("{")
    if opening >= 0:
        try:
            _LOOSE.raw_decode(body, opening)
        except json.JSONDecodeError as error:
            return error
    return None


def _validation_faults(error: ValidationError, form: type[Form]) -> str:
    """The first faults of a reply, one a line, each with its place."""
    faults: list[str] = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        place = ".".join(str(part) for part in problem["loc"])[:80]
        field = str(problem["loc"][0]) if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            message = "this key is missing"
        # Pydantic's words for a union are one line for each of its members.
        if field in form.hints:
            place, message = field, form.hints[field]
        line = f"{place}: {message}" if place else message
        if line not in faults:
            faults.append(line)
    # The model is told them in its next prompt: the first ones matter, a list of fifty does not.
    return "\n".join(faults[:5])


@cache
def schema_of(form: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a form without references and titles, in the subset that OpenAI's strict
    mode, vLLM and llama.cpp all take."""
    schema = form.model_json_schema()
    return _inlined(schema, schema.get("$defs", {}))


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    return {
        # OpenAI's strict mode knows anyOf alone, which is what a tagged union is to a server.
        "anyOf" if key == "oneOf" else key: _inlined(value, definitions)
        for key, value in node.items()
        # Left out because they are prompt text to some servers, and the prompt has its own.
        if key not in ("$defs", "title", "description")
    }
