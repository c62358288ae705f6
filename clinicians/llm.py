"""Access to language models through LiteLLM."""

import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from clinicians.prompts import Message
from clinicians.reply import MalformedReply
from clinicians.teacher import Teacher
from trajectories.records import Usage

RETRIES = 2
"""How often LiteLLM itself asks again on a transient error, with growing pauses, before the error is ours."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back from one call. `thinking` is the reasoning content of servers that return it apart."""

    text: str
    thinking: str
    finish_reason: str
    usage: Usage


class ModelError(RuntimeError):
    """A call that brought no reply, in the provider's words; unlike LiteLLM's own errors it can go from process to process.

    `usage` is what the turn had used by then, as far as whoever raised or passed it on knew.
    """

    usage = Usage()

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.message = message
        self.status = status

    def __reduce__(self):
        return type(self), (self.message, self.status)


class ModelUnavailable(ModelError):
    """Rate limit, time-out, overloaded or unreachable server: asking again later may help."""


class ModelRefused(ModelError):
    """The request itself was refused: a wrong key, an unknown model, a prompt that is too long."""


def whole_text(completion: Completion) -> str:
    """The reply's text. Raises MalformedReply when there is none or it was cut off."""
    if completion.finish_reason == "length":
        used = completion.usage.completion_tokens
        raise MalformedReply(f"the reply was cut off at the token limit ({used} tokens); write a shorter one", completion.text)
    if not completion.text.strip():
        why = " (the provider's content filter)" if completion.finish_reason == "content_filter" else ""
        raise MalformedReply(f"the reply is empty{why}; write the JSON object", completion.text)
    return completion.text


async def complete(
    teacher: Teacher, messages: Sequence[Message], schema: dict[str, Any] | None = None, seed: int | None = None
) -> tuple[str, Usage]:
    """One reply to `messages`, in the given JSON schema if the teacher's server can. Raises MalformedReply when empty
    or cut off, and ModelError."""
    completion = await call(teacher, messages, schema, seed)
    return whole_text(completion), completion.usage


def is_transient(error: BaseException) -> bool:
    """Whether asking again later may help: rate limits, overloaded or unreachable servers, time-outs."""
    return isinstance(error, ModelUnavailable)


async def call(teacher: Teacher, asked: Sequence[Message], schema: dict[str, Any] | None, seed: int | None) -> Completion:
    """One call, with whatever came back. Raises ModelError."""
    started = time.monotonic()
    try:
        response = await _litellm().acompletion(
            model=teacher.model,
            messages=list(asked),
            api_base=teacher.api_base,
            api_key=api_key(teacher),
            temperature=teacher.temperature,
            max_tokens=teacher.max_tokens,
            seed=seed,
            response_format=_response_format(teacher, schema),
            timeout=teacher.timeout_s,
            num_retries=RETRIES,
            drop_params=True,
        )
    except Exception as error:
        if not isinstance(status := getattr(error, "status_code", None), int):
            raise
        # `from None`: the chain of causes may show a key too.
        raise _model_error(error, status) from None
    return _completion(response, time.monotonic() - started)


def _completion(response: Any, seconds: float) -> Completion:
    choice, used = response.choices[0], response.usage
    cost = (getattr(response, "_hidden_params", None) or {}).get("response_cost")
    return Completion(
        choice.message.content or "",
        getattr(choice.message, "reasoning_content", None) or "",
        choice.finish_reason or "",
        Usage(1, used.prompt_tokens, used.completion_tokens, cost or 0.0, seconds),
    )


def _response_format(teacher: Teacher, schema: dict[str, Any] | None) -> dict[str, Any] | None:
    if schema is None or teacher.structured == "none":
        return None
    if teacher.structured == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}


def api_key(teacher: Teacher) -> str | None:
    """The key that the teacher names; None lets LiteLLM look for the provider's own variable.

    A server of one's own is never sent a provider's key unless the teacher names it. Raises RuntimeError when it is not set;
    called before a run begins, it spares the run that mistake.
    """
    variable = teacher.api_key_env
    if variable is None and teacher.api_base:
        return "none"
    if variable is None and teacher.model.startswith("openai/"):
        variable = "OPENAI_API_KEY"
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise RuntimeError(f"teacher {teacher.name}: the environment variable {variable} is not set")
    return os.environ[variable]


def _model_error(error: Exception, status: int) -> ModelError:
    """LiteLLM's error as ours. Keys that a server echoed are taken out, because messages are stored and shown."""
    message = f"{status} {error}"
    for name, value in os.environ.items():
        if re.search("KEY|TOKEN|SECRET|PASSWORD", name) and len(value) > 7:
            message = message.replace(value, "***")
    transient = status in (408, 429) or status >= 500
    return (ModelUnavailable if transient else ModelRefused)(message[:2000], status)


@cache
def _litellm() -> ModuleType:
    """LiteLLM, imported at the first call (it takes seconds), with nothing fetched, sent or printed on its own account."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    _spare_loopback()
    import litellm

    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)  # its worker warns whenever another event loop begins
    return litellm


def _spare_loopback() -> None:
    """A proxy for the world outside is not asked for servers on this machine."""
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if "127.0.0.1" not in spared:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [spared, "127.0.0.1", "localhost"]))
