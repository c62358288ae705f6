"""One request to a model's server, and what came back: straight over HTTP where that is enough,
else through LiteLLM.

Servers of one's own (vLLM, llama.cpp, SGLang and the like) speak OpenAI's protocol, and a run makes
most of its calls to them. A call through LiteLLM costs 6.3 ms of CPU time here, so that one core is
busy with 160 calls a second, and 0.2 GB in every worker process. The same request over aiohttp
costs a tenth. So a model `openai/...` or `hosted_vllm/...` with an `api_base` is asked directly,
at LiteLLM's price where its list has the model; every other one is LiteLLM's business.
"""

import asyncio
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from medaction.llm.usage import estimated_tokens
from medaction.words.processes import spare_loopback
from medaction.words.retry_after import retry_after_s

COMPATIBLE = ("openai", "hosted_vllm")
_PATH = "/chat/completions"
CONNECT_S = 30.0
"""aiohttp's own: a host that swallows connections is not there, however long a reply may take."""
_PRICE_LIST = "model_prices_and_context_window_backup.json"


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered. `cost_usd` is None where nobody knows the price."""

    text: str
    thinking: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


class Trouble(Exception):
    """No reply. `status` is HTTP's: 408 stands for a time-out of ours, 503 for a server that cannot
    be reached."""

    def __init__(
        self, status: int, message: str, retry_after_s: float | None = None, reached: bool = True
    ):
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.reached = reached


async def send(
    model: str, server: str | None, key: str | None, request: dict[str, Any], timeout_s: float
) -> Response:
    """One request (`request`: everything but the model) to `server`, or to the provider's own.
    Raises Trouble."""
    # The server knows its model without LiteLLM's prefix: 'openai/Qwen/Qwen3-8B' ->
    # 'Qwen/Qwen3-8B'.
    provider, _, name = model.partition("/")
    if not server or provider not in COMPATIBLE:
        return await _send_by_litellm(model, server, key, request, timeout_s)
    response = await _send_directly(name, server, key, request, timeout_s)
    # LiteLLM lists OpenAI's own models without a prefix, others with one.
    prices = _token_prices().get(model) or _token_prices().get(name)
    if prices and response.cost_usd is None:
        cost = response.prompt_tokens * prices[0] + response.completion_tokens * prices[1]
        return replace(response, cost_usd=cost)
    return response


async def _send_directly(
    model: str, server: str, key: str | None, request: dict[str, Any], timeout_s: float
) -> Response:
    url = f"{server.rstrip('/').removesuffix(_PATH)}{_PATH}"
    try:
        async with _session().post(
            url,
            data=json.dumps({"model": model, **request}).encode(),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S),
            allow_redirects=False,  # a redirect would take the key along
            proxy=_proxy(url),
        ) as answer:
            status, headers, body = answer.status, answer.headers, await answer.read()
            try:
                body.decode()  # JSON is UTF-8 (RFC 8259), whatever charset a server's header has
            except UnicodeDecodeError:
                # What Python does not know, or is not the body's either, is left to the reader.
                with suppress(LookupError, UnicodeDecodeError):
                    body = body.decode(answer.charset or "utf-8").encode()
    except aiohttp.ConnectionTimeoutError:
        message = f"Connection error: no connection within {CONNECT_S:g} s"
        raise Trouble(503, message, reached=False) from None
    except TimeoutError:
        raise Trouble(
            408,
            f"no reply within {timeout_s:g} s: a server that is slower, or that lets calls wait,"
            f" needs ';timeout_s={2 * timeout_s:g}' or ';in_flight=2' behind the model's name",
        ) from None
    # Some of aiohttp's errors have no text of their own.
    except (aiohttp.ClientError, OSError) as error:
        message = f"Connection error: {error or type(error).__name__}"
        if "WRONG_VERSION_NUMBER" in message:
            message += ": the server speaks plain HTTP: give its address with http://"
        raise Trouble(503, message, reached=False) from None
    if 300 <= status < 400 and (place := headers.get("Location")):
        raise Trouble(status, f"the server sends calls to {place}: give that address instead")
    if status >= 300:
        raise Trouble(status, _message(body), retry_after_s(headers))
    return _answered(body, request)


def _answered(body: bytes, request: dict[str, Any]) -> Response:
    """What a 200 holds. Raises Trouble: also for an error inside it, with that error's status."""
    try:
        answer = _unframed(_json_of(body))
        rows = answer.get("choices") or answer.get("candidates") or answer.get("results")
        if not rows and isinstance(answer.get("message"), str):
            del answer["message"]  # of a server that has no reply yet: 'Model is loading'
        blocked = (answer.get("promptFeedback") or {}).get("blockReason")
        if blocked and not rows:
            raise Trouble(400, f"the provider's content filter blocked the prompt: {blocked}")
        # Without a list of choices the answer itself is one (Anthropic, Ollama, llama.cpp's
        # /completion).
        choice = (rows or [answer])[0]
        fault = choice.get("error")
        if fault and (rows or not _text_of(choice)):
            stated = fault if isinstance(fault, dict) else {}
            status = _STATUS_OF_TYPE.get(str(stated.get("type")), 502)
            # 'code' may be a word or a number of the vendor's own: then it is a server's trouble.
            if (code := str(stated.get("code"))) in map(str, range(400, 600)):
                status = int(code)
            words = _message(json.dumps({"error": fault}).encode())
            # LM Studio answers 200 to a path that it does not have.
            raise Trouble(404 if "unexpected endpoint" in words.casefold() else status, words)
        # A gateway may part one reply into choices: words, then the tool call (GitHub Copilot).
        response = _response_of(choice, answer, request)
        for row in (rows or [])[1:]:
            if "{" not in response.text and isinstance(row, dict):
                other = _response_of(row, answer, request)
                response = other if "{" in other.text else response
        # An empty text has a reason then: the caller says which (`calls.whole_text`).
        ended = response.finish_reason in ("length", "content_filter", "refusal")
        if not (rows or response.text or response.thinking or ended):
            raise ValueError("it has no choices: give the address of an OpenAI-compatible server")
        return response
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Trouble(
            502,
            f"the server's answer is no chat completion"
            f" ({type(error).__name__}: {error}): {_message(body)}",
        ) from None


_STATUS_OF_TYPE = {
    "invalid_request_error": 400, "authentication_error": 401, "permission_error": 403,
    "not_found_error": 404, "rate_limit_error": 429, "overloaded_error": 529,
}  # fmt: skip
"""Of errors that come without one, by their types, as Anthropic documents them; OpenAI has some."""


def _json_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        # The fields of server-sent events, or two objects in a row.
        if not re.match(rb"\s*(?:data:|:|event:|id:|retry:|\{.*\}\s*\{)", body):
            raise
        return _completion_of_events(body)


def _unframed(answer: Any) -> dict[str, Any]:
    """An answer without a gateway's frame (Cloudflare's, Zhipu's, Qwen's own service's, Bedrock's)
    or the list around it (TGI's)."""
    answer = answer[0] if isinstance(answer, list) else answer
    for frame in ("result", "data", "output"):
        if "choices" not in answer and isinstance(answer.get(frame), dict):
            return answer | answer[frame]
    return answer


def _completion_of_events(body: bytes) -> dict[str, Any]:
    """The answer of a server that only streams: its events, or a line of JSON each, as one chat
    completion. Raises ValueError when they break off: the text may be half a reply."""
    message: dict[str, Any] = defaultdict(str)
    choice: dict[str, Any] = {"message": message, "finish_reason": ""}
    answer: dict[str, Any] = {"choices": [choice]}
    by_delta = False
    # Bytes end a line at CR and LF alone; text does at others too, which a reply may have.
    for line in map(bytes.decode, body.splitlines()):
        data = line.removeprefix("data:").strip()
        if not line.startswith(("data:", "{")) or data in ("", "[DONE]"):
            continue
        event = json.loads(data)
        if event.get("error"):  # what came before it is half a reply
            return {"error": event["error"]}
        answer |= {"usage": event["usage"]} if event.get("usage") else {}
        for part in (event.get("choices", [event]) or ())[:1]:
            by_delta = by_delta or bool(part.get("delta"))
            # Ollama's pieces are messages; behind deltas a message is all of them again (MiniMax).
            delta = part.get("delta") or (not by_delta and part.get("message")) or {}
            for key, text in delta.items():
                if isinstance(text, str) and key != "role":
                    message[key] += text
            for call in delta.get("tool_calls") or ():
                message["arguments"] += (call.get("function") or {}).get("arguments") or ""
            reason = _finish_reason(part) or _finish_reason(delta)
            if reason:  # later ones may say nothing
                choice["finish_reason"] = reason
    # Some servers send neither; then only a closed object shows that nothing is missing.
    ended = choice["finish_reason"] or b"[DONE]" in body[-100:]
    if not ended and not message["content"].rstrip("` \n").endswith("}"):
        raise ValueError("the stream broke off before its end")
    if arguments := message.pop("arguments", ""):
        message["tool_calls"] = [{"function": {"arguments": arguments}}]
    return answer


_OF_A_FILTER = ("content-filter", "safety", "recitation", "prohibited_content", "blocklist")
_FINISH_REASONS = dict.fromkeys(("max_tokens", "max_output_tokens", "model_length"), "length")
_FINISH_REASONS |= dict.fromkeys(_OF_A_FILTER, "content_filter")
"""Other words for OpenAI's reasons: Anthropic and Bedrock, Gemini, Mistral; Gemini's reasons of its
filter."""


def _finish_reason(choice: dict[str, Any]) -> str:
    """OpenAI's finish_reason, or the field of its like: stop_reason, finishReason, done_reason; in
    OpenAI's Responses one field deeper."""
    # OpenAI's own first: a gateway may add the vendor's word beside it ('native_finish_reason').
    stated = [choice.get("finish_reason")]
    fields = {**choice, **(choice.get("incomplete_details") or {})}
    stated += [value for key, value in fields.items() if key.casefold().endswith("reason")]
    reason = next((value for value in stated if value and isinstance(value, str)), "")
    return _FINISH_REASONS.get(reason.casefold(), reason)


def _text_of(choice: dict[str, Any]) -> Any:
    """What holds the text of a choice: its message's content (OpenAI, Cohere, Ollama); its own
    content (Anthropic, Gemini, llama.cpp), output (OpenAI's Responses) or text."""
    message = choice.get("message") or choice.get("delta") or choice
    if not isinstance(message, dict):
        return message
    for name in ("content", "text", "output", "generated_text", "response"):
        # the `text` of OpenAI's Responses is an object of settings
        if message.get(name) and (name != "text" or isinstance(message[name], str)):
            return message[name]
    return None


def _response_of(
    choice: dict[str, Any], answer: dict[str, Any], request: dict[str, Any]
) -> Response:
    """The reply of a choice wherever it stands: in the content, in parts of it, parsed, in a tool
    call, or as a refusal (`finish_reason` is then 'refusal')."""
    message = choice.get("message") or choice.get("delta") or choice
    text, thinking = _parts(_text_of(choice))
    message = message if isinstance(message, dict) else {}
    for key in ("reasoning_content", "reasoning", "thinking", "reasoning_details"):
        if not thinking and not isinstance(message.get(key), dict):  # its settings, echoed
            thinking = "".join(_parts(message.get(key)))
    finish_reason = _finish_reason(choice)
    calls = message.get("tool_calls") or [{"function": message.get("function_call")}]
    # A proxy that writes every field of the protocol sends a call without a name or arguments.
    inner = [call.get("function") or call.get("custom") or {} for call in calls]
    arguments = [part for call in inner if (part := call.get("arguments") or call.get("input"))]
    if not text.strip() and message.get("parsed"):
        text = json.dumps(message["parsed"])
    elif arguments and "{" not in text:  # words beside the call are its reasons
        if any(part != arguments[0] for part in arguments):
            raise ValueError(f"it has {len(arguments)} tool calls that differ")
        thinking = thinking or text
        text = arguments[0] if isinstance(arguments[0], str) else json.dumps(arguments[0])
    elif not text.strip() and (refusal := _refusal([message, _text_of(choice)])):
        text, finish_reason = refusal, "refusal"
    used = answer.get("usage") or answer.get("usageMetadata") or answer
    prompt = _figure(used, *_PROMPT_FIGURES)
    completion = _figure(used, *_COMPLETION_FIGURES)
    return Response(
        text,
        thinking,
        finish_reason,
        # A server that counts nothing must not seem to cost nothing.
        int(prompt or 0) or estimated_tokens(request["messages"]),
        int(completion or 0) or estimated_tokens([{"content": text + thinking}]),
        _figure(used, "cost"),
    )


_PROMPT_FIGURES = (
    "prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "prompt_eval_count",
)  # fmt: skip
_COMPLETION_FIGURES = (
    "completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "eval_count",
)  # fmt: skip


def _figure(figures: Any, *names: str) -> float | None:
    """The first of the named figures that can be one. A reply is not lost for what a server writes
    in its place: a list, a text, null, NaN, -1."""
    for name in names:
        with suppress(LookupError, TypeError, ValueError, OverflowError):
            if 0 <= (value := float(figures[name])) < 1e9:
                return value
    return None


def _refusal(content: Any) -> str:
    """The words of a refusal, in a field of the message or of a part of it."""
    if isinstance(content, list):
        return next(filter(None, map(_refusal, content)), "")
    if not isinstance(content, dict):
        return ""
    return str(content.get("refusal") or "") or _refusal(content.get("content"))


_PARTS = ("text", "thinking", "content", "parts", "json", "input", "arguments", "summary")
"""Where a part has what it says."""


def _parts(content: Any) -> tuple[str, str]:
    """(text, thinking) of a message's content: a string, a list of parts with their types, one
    part, or the object that was asked for as it is: also inside a part (`json`, `input`)."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if isinstance(content, list):
        each = [_parts(part) for part in content]  # Mistral's thinking part holds parts itself
        return "".join(text for text, _ in each), "".join(thinking for _, thinking in each)
    if isinstance(reasoning := content.get("reasoningContent"), dict):  # Bedrock's, or encrypted
        return "", "".join(_parts(reasoning.get("reasoningText")))
    name = next((name for name in _PARTS if content.get(name)), "")
    # Without a type it is a part if it has a text, or nothing else: Gemini's {"parts", "role"}.
    alone = name and not content.keys() - {name, "role"}
    if "type" not in content and not alone and not isinstance(content.get("text"), str):
        return json.dumps(content), ""
    value = content.get(name)
    if name in ("json", "input") and not isinstance(value, str):
        return json.dumps(value), ""
    text, thinking = _parts(value)
    if content.get("thought") or str(content.get("type")).startswith(("thinking", "reasoning")):
        return "", text + thinking
    return text, thinking


def _message(body: bytes) -> str:
    """The error's message as the server put it, with its other figures (n_ctx, param, code); of a
    page its words, and of anything else the beginning."""
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        answer = json.loads(body)
        error = (answer[0] if isinstance(answer, list) else answer)["error"]
        if isinstance(error, str):
            return error
        # A dict without a message is read as the text that it came in.
        text: str = error["message"]
        # `negotiation.learn` reads them: llama.cpp says its context nowhere else.
        names = ("code", "param", "n_ctx", "n_prompt_tokens")
        details = {name: str(error[name]) for name in names if error.get(name)}
        words = [
            f"{name} {value}" if name.startswith("n_") else value
            for name, value in details.items()
            if value not in text and not (name == "code" and value.isdecimal())  # the status again
        ]
        return " ".join([text, *words])
    text = body[:4000].decode(errors="replace").strip()
    if text.startswith("<"):
        text = " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.S).split())
    return text[:500] or "no message"


_sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
_endings: dict[tuple[asyncio.AbstractEventLoop, Callable], AsyncGenerator[None, None]] = {}


def _session() -> aiohttp.ClientSession:
    """The connections of the running event loop, closed when the loop ends."""
    loop = asyncio.get_running_loop()
    if loop not in _sessions:
        # Uvicorn, which vLLM runs on, closes connections that are idle for 5 seconds.
        # No limit here: the ledger has one, and a call that waits for aiohttp's counts as begun.
        connections = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
        _sessions[loop] = aiohttp.ClientSession(connector=connections)
        _at_the_end(loop, _close_session)
    return _sessions[loop]


async def _close_session(loop: asyncio.AbstractEventLoop) -> None:
    await _sessions.pop(loop).close()


async def _close_litellm(_: asyncio.AbstractEventLoop) -> None:
    """LiteLLM keeps a client for every event loop, and its connections open, for an hour."""
    litellm = _litellm()
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()


def _at_the_end(
    loop: asyncio.AbstractEventLoop, close: Callable[[asyncio.AbstractEventLoop], Awaitable[None]]
) -> None:
    """Call `close` as the running event loop's last act: that is to end the asynchronous generators
    that began in it."""

    async def wait() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            del _endings[loop, close]
            await close(loop)

    if (loop, close) not in _endings:
        _endings[loop, close] = wait()
        with suppress(StopIteration):
            # Run up to its `yield` without awaiting: from then on the loop knows it
            # (shutdown_asyncgens).
            anext(_endings[loop, close]).__await__().send(None)


@cache
def _proxy(url: str) -> str | None:
    """The proxy that the environment names for this address, if any."""
    spare_loopback()
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


async def _send_by_litellm(
    model: str, server: str | None, key: str | None, request: dict[str, Any], timeout_s: float
) -> Response:
    litellm = _litellm()
    _at_the_end(asyncio.get_running_loop(), _close_litellm)
    try:
        answer = await litellm.acompletion(
            model=model,
            api_base=server,
            api_key=key,
            timeout=timeout_s,
            # Patience is `calls._patiently`'s, which also tells the ledger.
            num_retries=0,
            max_retries=0,
            drop_params=True,
            **request,
        )
    except Exception as error:
        # LiteLLM's own errors all have one; anything else is a fault of the program.
        if not isinstance(status := getattr(error, "status_code", None), int):
            raise
        answered = getattr(getattr(error, "response", None), "headers", None)
        pause = retry_after_s(getattr(error, "litellm_response_headers", None) or answered)
        message, traceback, _ = str(error).partition("Traceback (most recent call last)")
        unconnected = isinstance(error, litellm.APIConnectionError)
        # An answer that LiteLLM could not read: later may help, and its code's words, which name
        # parameters, teach nothing of the server. A server's own traceback is of another class.
        unread = status < 400 or (unconnected and bool(traceback))
        words = message.strip() if unread else str(error)
        # `from None`: the chain of causes may show a key too.
        raise Trouble(502 if unread else status, words, pause, unread or not unconnected) from None
    response = _answered(answer.model_dump_json().encode(), request)
    # LiteLLM's price, where the answer itself (OpenRouter's) has none.
    cost = (getattr(answer, "_hidden_params", None) or {}).get("response_cost")
    return replace(response, cost_usd=cost if response.cost_usd is None else response.cost_usd)


@cache
def _token_prices() -> dict[str, tuple[float, float]]:
    """Dollars a token of prompt and of reply, by model: LiteLLM's list, without importing it."""
    [folder] = find_spec("litellm").submodule_search_locations  # type: ignore[union-attr, misc]
    models = json.loads((Path(folder) / _PRICE_LIST).read_text())
    return {
        name: (row.get("input_cost_per_token") or 0, row.get("output_cost_per_token") or 0)
        for name, row in models.items()
        if isinstance(row, dict)
    }


@cache
def _litellm() -> ModuleType:
    """LiteLLM, imported at the first call (it takes seconds), with nothing fetched, sent or printed
    on its own account."""
    # It is read at the import: without it LiteLLM fetches its list of prices from the net.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    spare_loopback()
    import litellm

    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    # Its worker warns whenever another event loop begins.
    logging.getLogger("LiteLLM").setLevel(logging.ERROR)
    return litellm
