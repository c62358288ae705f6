"""What calls of a model cost, and what went wrong in them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MENDED = "Mended"
"""The class of a Fault for a reply that was read although it was not in the form asked for."""

PARAMETER_REFUSED = "ParameterRefused"
"""The class of a Fault for a parameter that the server refused and that calls go without since."""

Message = dict[str, str]
"""One message of a prompt: 'role' and 'content'."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An attempt that brought nothing usable, whether or not a later one did: an answer that was no
    reply (`message` begins with HTTP's status), or a reply outside the grammar, with its text in
    `raw`."""

    error_class: str
    message: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a turn cost: model calls, tokens, dollars, seconds. All zero for a clinician that is no
    language model.

    `calls` are those that a server answered with a reply; `cached_calls` were answered by the call
    cache, and are in no other field. `faults` are the attempts that failed: those of class
    MalformedReply (and its kinds) are among the calls, and so are those of class MENDED, which are
    no failures but replies in another form; the others are not. So a server was asked `calls` + the
    other faults times, less the requests that never reached it.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    cached_calls: int = 0
    faults: tuple[Fault, ...] = ()

    def __add__(self, other: "Usage") -> "Usage":
        names = self.__dataclass_fields__
        return Usage(*(getattr(self, name) + getattr(other, name) for name in names))


def estimated_tokens(messages: Iterable[Mapping[str, str]]) -> int:
    """The tokens of chat messages without a tokenizer: one for every 4 bytes of UTF-8. Qwen2.5 took
    one for 4.3 to 4.4 bytes of such prompts."""
    # Bytes, not letters: a Chinese character is one to two tokens and three bytes.
    return math.ceil(sum(len(message["content"].encode()) for message in messages) / 4)
