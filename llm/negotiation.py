"""What a server refuses of a request, learnt from its own words.

Servers that call themselves compatible differ in what they take: some know no JSON schema, no seed,
no system role, or name the token limit otherwise. What such a server answers (400 or 422) names the
parameter. `learn` reads that, `adapt` makes the next request without it. What was learnt is kept
for the run by the ledger (`medaction.llm.limits`), so that a server refuses each parameter once.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from medaction.llm.usage import estimated_tokens

Structured = Literal["json_schema", "json_object", "none"]
# From strict to free: of two demands the later one holds.
_LEVELS: tuple[Structured, ...] = ("json_schema", "json_object", "none")

OPTIONAL_FIELDS = ("seed", "temperature", "top_p", "max_tokens", "stream_options")
"""Parameters that a request can go without."""

SHORTEST_REPLY = 512
"""Tokens. With less room than this beside the prompt no turn can be written: the prompt is then
shortened instead (a turn took 150 to 400 tokens without thinking)."""

SPARE = 1.05
"""A prompt may have so many times the tokens that the server's own count of an earlier one lets
expect."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What a model at a server takes. `path` is what its address lacked; `context_tokens` its
    context length in its own tokens, `tokens_per_estimate` how many of them one of our estimated
    tokens is."""

    structured: Structured = "json_schema"
    left_out: frozenset[str] = frozenset()
    max_completion_tokens: bool = False
    no_system_role: bool = False
    stream: bool = False
    path: str = ""
    most_reply_tokens: int | None = None
    context_tokens: int | None = None
    tokens_per_estimate: float = 1.0

    def __or__(self, more: "Demands") -> "Demands":
        """Both: what either of two calls learnt."""
        return Demands(
            max(self.structured, more.structured, key=_LEVELS.index),
            self.left_out | more.left_out,
            self.max_completion_tokens or more.max_completion_tokens,
            self.no_system_role or more.no_system_role,
            self.stream or more.stream,
            self.path or more.path,
            _smaller(self.most_reply_tokens, more.most_reply_tokens),
            _smaller(self.context_tokens, more.context_tokens),
            max(self.tokens_per_estimate, more.tokens_per_estimate),
        )


def _smaller(limit: int | None, more: int | None) -> int | None:
    return min((value for value in (limit, more) if value is not None), default=None)


TAKES_ALL = Demands()
"""Of a server that has refused nothing so far."""


class PromptOverContext(ValueError):
    """The prompt leaves no room for a reply. `allowed` is how many estimated tokens it may have."""

    def __init__(self, message: str, allowed: int):
        super().__init__(message)
        self.allowed = allowed


def adapt(request: dict[str, Any], demands: Demands) -> dict[str, Any]:
    """The request as the server takes it. Raises PromptOverContext."""
    # Nearly every call: the request stays the same object.
    if demands == TAKES_ALL:
        return request
    request = {name: value for name, value in request.items() if name not in demands.left_out}
    sent = request.get("response_format")
    if sent and _LEVELS.index(sent["type"]) < _LEVELS.index(demands.structured):
        del request["response_format"]
        if demands.structured == "json_object":
            request["response_format"] = {"type": "json_object"}
    if demands.no_system_role:
        request["messages"] = without_system(request["messages"])
    if "max_tokens" in request:
        request["max_tokens"] = _reply_tokens(request, demands)
        if demands.max_completion_tokens:
            request["max_completion_tokens"] = request.pop("max_tokens")
    if demands.stream:
        request["stream"] = True
        # Without it a stream says nothing of its tokens.
        if "stream_options" not in demands.left_out:
            request["stream_options"] = {"include_usage": True}
    return request


def _reply_tokens(request: dict[str, Any], demands: Demands) -> int:
    """The tokens that the reply may have beside this prompt."""
    most: int = min(request["max_tokens"], demands.most_reply_tokens or request["max_tokens"])
    if demands.context_tokens is None:
        return most
    # Our estimate is of bytes: a server's tokenizer may count more or fewer.
    rate = demands.tokens_per_estimate * SPARE
    prompt = math.ceil(estimated_tokens(request["messages"]) * rate)
    room = demands.context_tokens - prompt
    # Of a context of 1,024 tokens 512 would be half; and who asks for 100 tokens needs no 512.
    shortest = min(SHORTEST_REPLY, most, demands.context_tokens // 4)
    if room < shortest:
        # A quarter of a short context is for the reply: the case needs its room too.
        reply_tokens = max(shortest, min(most, demands.context_tokens // 4))
        raise PromptOverContext(
            f"the prompt has about {prompt} tokens, and the server takes"
            f" {demands.context_tokens} with the reply: lower the teacher's context_tokens"
            " or its max_tokens, or serve the model with a longer context",
            int((demands.context_tokens - reply_tokens) / rate),
        )
    return min(most, room)


def without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The system's text at the head of the first user message."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    head = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{**messages[1], "content": head}, *messages[2:]]


def learn_path(
    server: str, demands: Demands, status: int, message: str
) -> tuple[Demands, str] | None:
    """From a 404 or 405 of an address without a path: that OpenAI's protocol stands below /v1, as
    in most servers; None where the refusal is about the model."""
    no_path = not urlsplit(server).path.strip("/")
    if status not in (404, 405) or demands.path or not no_path or "model" in message.casefold():
        return None
    return replace(demands, path="/v1"), f"{server} is asked at {server}/v1"


def learn(
    request: dict[str, Any], demands: Demands, status: int, message: str
) -> tuple[Demands, str] | None:
    """From a refusal of `request`: the demands with one more, and which, in words for the user;
    None when the refusal names nothing that could be changed."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", message).casefold()  # responseFormat
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)  # 4,096
    if status in (500, 501):  # llama.cpp's server answers so to a long prompt, and to a schema
        lesson = _context(request, demands, text) or _structure(request, demands, text)
        # Most 500s are the server's own trouble, which passes: only one that names a parameter
        # teaches.
        if lesson or not _names_any(_PARAMETER, text):
            return lesson
        return _parameter(request, demands, status, text)
    if status not in (400, 413, 422):
        return None
    lesson = (
        # First, because it may name max_tokens too: "'max_tokens' is too large: 5500. This model's
        # maximum context length is 4096 tokens" (vLLM).
        _context(request, demands, text)
        or _structure(request, demands, text)
        or _parameter(request, demands, status, text)
        or _message_shape(request, demands, text)
        or _context_unstated(request, demands, text)
    )
    # The same demands again would be the same refused call again, for ever.
    return lesson if lesson and lesson[0] != demands else None


_PARAMETER = ("argument", "parameter", "field", "not supported", "not implemented")


def _names_any(phrases: tuple[str, ...], text: str) -> bool:
    """Whether a server's words name one of these; it may write `json_schema`, 'JSON schema' or
    'JSON-schema'."""
    spaced = re.sub("[_-]", " ", text)
    return any(phrase in text or phrase in spaced for phrase in phrases)


_CONTEXT = (
    "context length", "context window", "context size", "context limit", "n_ctx",
    "prompt is too long", "maximum length", "maximum model length", "maximum prompt length",
    "token count", "new_tokens", "too many tokens", "tokens per minute", "token limit",
    "max message tokens", "input length",
)  # fmt: skip
"""How servers name what a prompt and its reply have outgrown, `_` read as a space too."""


def _numbers_in(digits: str, pattern: str, *forms: str) -> re.Pattern[str]:
    """A pattern, or one of the forms as servers write them: N is the number sought, # any other."""
    sought = rf"(\d{{{digits}}})"
    others = (re.escape(form).replace("N", sought).replace(r"\#", r"\d+") for form in forms)
    return re.compile("|".join((pattern.replace("N", sought), *others)))


_LIMIT = _numbers_in(
    "3,8",
    # OpenAI, vLLM, SGLang, llama.cpp, LM Studio, xAI
    r"(?:context[ _](?:length|window|size)|n_ctx|maximum (?:model |prompt )?length)\D{0,40}?N",
    "N maximum context length",  # Mistral
    *("# tokens > N", "context limit: # + # > N"),  # Anthropic
    *("maximum number of tokens allowed N", "maximum number of tokens allowed (N"),  # Gemini
    "must be <= N",  # TGI, Together
    "cannot exceed N",  # Cohere
    *("token limit: N", "max message tokens N"),  # Moonshot, Doubao
    "input length should be [#, N",  # Qwen's own service
    "limit N, requested #",  # Groq, whose limit of a minute a request can exceed alone
)
_PROMPT_TOKENS = _numbers_in(
    "2,8",
    r"N (?:input|prompt|`?inputs`?) tokens"
    r"|N (?:tokens )?(?:in|from) the (?:input )?(?:messages|prompt)"
    r"|(?:request|input|prompt) \((?:length )?N(?: tokens)?\)",
    *("resulted in N", "prompt contains N", "prompt contains at least N", "input has N"),
    *("n_prompt_tokens N", "token count (N)"),
)


def _context(request: dict[str, Any], demands: Demands, text: str) -> tuple[Demands, str] | None:
    if not _names_any(_CONTEXT, text) or (limit := _LIMIT.search(text)) is None:
        return None
    context = int(next(filter(None, limit.groups())))
    rate = demands.tokens_per_estimate
    if counted := _PROMPT_TOKENS.search(text):
        tokens = int(next(filter(None, counted.groups())))
        # At most 16 bytes a token: a smaller number is not the prompt's.
        rate = max(0.25, tokens / max(1, estimated_tokens(request["messages"])))
    elif context == demands.context_tokens:
        rate *= 1.3  # it did not fit as estimated, and nobody says by how much
    changed = replace(demands, context_tokens=context, tokens_per_estimate=rate)
    return changed, f"prompt and reply together have at most {context} tokens"


_OVER_CONTEXT = re.compile(
    r"context_length_exceeded|\bexceed\w*\b.{0,30}\bcontext[ _](?:length|window|size)"
)
"""The context itself must be named: a quota, a picture or a filter's threshold is exceeded too."""


def _context_unstated(
    request: dict[str, Any], demands: Demands, text: str
) -> tuple[Demands, str] | None:
    """Of a prompt that is too long, nobody says by how much: a third less at a time."""
    if not _OVER_CONTEXT.search(text):
        return None
    reply_tokens = request.get("max_tokens") or request.get("max_completion_tokens") or 0
    prompt = estimated_tokens(request["messages"]) * demands.tokens_per_estimate * SPARE
    context = int(2 / 3 * (prompt + reply_tokens))
    changed = replace(demands, context_tokens=context)
    return changed, f"prompt and reply together have at most {context} tokens, at a guess"


_FORMAT = (
    "response format", "response schema", "json schema", "json object", "json mode",
    "structured output", "grammar", "guided",
    "too many states",  # Gemini's words for a schema that is too large
    "'strict'", "generate json",  # an older schema's fields; Groq, of a reply that was not JSON
)  # fmt: skip
_UNKNOWN_FIELD = ("unrecognized", "unknown", "unexpected", "extra inputs", "not permitted")


def _structure(request: dict[str, Any], demands: Demands, text: str) -> tuple[Demands, str] | None:
    if "response_format" not in request or not _names_any(_FORMAT, text):
        return None
    level = request["response_format"]["type"]
    unknown = _names_any(_UNKNOWN_FIELD, text)
    # 'Unknown field response_format' refuses every level; 'unknown type json_schema' and 'invalid
    # schema for response_format' only this one.
    of_its_type = re.search(r"format\W{0,6}type\b|(?<!response.)\bschema\b|json_", text)
    # FastAPI's {"loc": ["body", "response_format"], ...} names the field itself, and echoes it
    of_itself = re.search(r"format\W?\]", text) or not of_its_type
    to_none = level == "json_object" or (unknown and of_itself)
    lower: Structured = "none" if to_none else "json_object"
    return replace(demands, structured=lower), (
        f"structured={level} is refused, {lower} is sent"
        f" (';structured={lower}' after the model's name spares the refused call)"
    )


_BOUND = (
    "<", ">", "≤", "at most", "maximum", "less than", "lower than", "up to", "between", "range",
    "exceed", "above", "limit", "too large",
)  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.-])\d{2,7}(?![\w-]|\.\d)")
"""A number by itself: none of a model's name, of a version or a date."""
_REPLY_TOKENS = re.compile(r"\bmax(?:imum)?[ _]?(?:new_?|output_?)?tokens\b")
"""How servers call `max_tokens`, which may hand a call on to another one's interface."""


def _parameter(
    request: dict[str, Any], demands: Demands, status: int, text: str
) -> tuple[Demands, str] | None:
    if "max_tokens" in request and _REPLY_TOKENS.search(text):
        if "max_completion_tokens" in text:
            changed = replace(demands, max_completion_tokens=True)
            return changed, "max_tokens is refused, max_completion_tokens is sent"
        # Whatever the words: of the numbers below what was sent, the largest is the limit, for a
        # lower bound is smaller. The status may stand there too.
        numbers = {int(number) for number in _NUMBER.findall(text)} - {status}
        below = [number for number in numbers if number < request["max_tokens"]]
        tokens = max(below, default=0) - ("exclusive" in text)
        if tokens > 0 and _names_any(_BOUND, text):
            changed = replace(demands, most_reply_tokens=tokens)
            return changed, f"max_tokens is at most {tokens}"
    for name in OPTIONAL_FIELDS:
        # One at a time, in this order: the next refusal names the next one.
        if name in request and re.search(rf"\b{name}\b", text):
            changed = replace(demands, left_out=demands.left_out | {name})
            return changed, (
                f"{name} is refused and left out"
                f" (';{name}=none' after the model's name spares the refused call)"
            )
    return None


_NO_SYSTEM = re.compile(
    r"\bsystem\b.*\brole|\brole.*\bsystem\b|roles must alternate|\bonly\b.*\broles\b"
    r"|(?:system|developer) (?:messages?|prompts?|instructions?)\b"  # Bedrock, Gemini for Gemma
)


def _message_shape(
    request: dict[str, Any], demands: Demands, text: str
) -> tuple[Demands, str] | None:
    system = request["messages"][0]["role"] == "system"
    if system and _NO_SYSTEM.search(text):
        changed = replace(demands, no_system_role=True)
        return changed, "the system role is refused, its text is sent with the user's"
    if not demands.stream and re.search(
        r"\bstream\b.*\b(?:only|must|enable|requir)|only.*\bstream|non-streaming", text
    ):
        return replace(demands, stream=True), "the server only streams"
    return None
