"""Access to language models: the call cache, then the run's limits, then the server, with patience
for trouble that passes."""

import asyncio
import logging
import math
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4
from weakref import WeakKeyDictionary

from medaction.llm.call_cache import CacheMode, CallCache, default_folder, reply_key
from medaction.llm.limits import (
    EQUAL_REFUSALS,
    LOST_S,
    Ask,
    Bounds,
    CallOutcome,
    Ended,
    Ledger,
    LocalLedger,
    Permission,
    Refusal,
)
from medaction.llm.negotiation import PromptOverContext, adapt, learn, learn_path
from medaction.llm.replies import MalformedReply, holds_object
from medaction.llm.teacher import Teacher
from medaction.llm.transport import Response, Trouble, send
from medaction.llm.untrusted import plain
from medaction.llm.usage import MENDED, PARAMETER_REFUSED, Fault, Message, Usage, estimated_tokens
from medaction.words.errors import MedactionError
from medaction.words.versions import version_of

log = logging.getLogger("medaction")

CALL_RETRIES = 4
"""How often a call is made again after trouble that may pass, before the error is ours. A server
that says that it has too much to do costs none of them: it is asked until the teacher's `timeout_s`
is over."""

# A server that starts anew is noticed soon: a doubling pause would sleep past it.
LONGEST_PAUSE_LOST_S = 4.0

OF_EVERY_CALL = (401, 402, 404)
"""Statuses that refuse the key, the account or the model, whatever the prompt."""

MOST_LESSONS = 8
"""Refused parameters of one call, after which the refusal is the caller's: there are no more to
leave out."""

BACK_OFF_S = 0.5
LONGEST_BACK_OFF_S = 30.0


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back from one call. `thinking` is the reasoning content of servers that return it
    apart."""

    text: str
    thinking: str
    finish_reason: str
    usage: Usage

    def all_thinking(self, within_text: str) -> str:
        """What came in a field of its own, and what stood within the text: servers differ."""
        return "\n\n".join(filter(None, (plain(self.thinking).strip(), within_text)))


@dataclass(frozen=True, slots=True)
class CallSettings:
    """How this process reaches models; a worker process is given it (`configure`). `ledger` None:
    limits of this process alone.

    The folder of the cache is by default `medaction.llm.call_cache.default_folder()`.
    """

    cache: CacheMode = "off"
    cache_folder: Path | None = None
    ledger: Ledger | None = None


class ModelError(MedactionError):
    """A call that brought no reply, in the provider's words; unlike LiteLLM's own errors it can go
    from process to process.

    `usage` is what the turn had used by then, as far as whoever raised or passed it on knew.
    """

    usage = Usage()

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.message = message
        self.status = status

    # By default an exception is rebuilt from `args`, the message alone: status and usage would be
    # lost.
    def __reduce__(self):
        return type(self), (self.message, self.status), vars(self)


class ModelUnavailable(ModelError):
    """Rate limit, time-out, overloaded or unreachable server: asking again later may help."""


class ModelRefused(ModelError):
    """The request itself was refused: a wrong key, an unknown model, a prompt that is too long."""


class ModelDeclined(ModelRefused):
    """A reply that was paid for and says that there is none: the model, or the provider's filter,
    would not answer. `raw` is what it says. Not asked again: that would be paid for too."""

    raw = ""


class TeacherStopped(ModelRefused):
    """The server refused this teacher's calls with the same message again and again: the call was
    not made (`medaction.llm.limits.EQUAL_REFUSALS`)."""


class ContextTooLong(ModelRefused):
    """The prompt and a reply do not fit into the model's context. `context_tokens` is what the
    prompt may have (`medaction.llm.usage.estimated_tokens`); 0 where the server did not say."""

    context_tokens = 0


class BudgetSpent(ModelError):
    """The teacher's budget is used up: the call was not made."""


class _Access:
    """What `configure` sets: one for the process."""

    def __init__(self, settings: CallSettings):
        self.mode = settings.cache
        folder = settings.cache_folder or default_folder()
        self.cache = None if settings.cache == "off" else CallCache(folder)
        self.ledger = settings.ledger or LocalLedger()
        self.settings = settings


_access = _Access(CallSettings())
# By task, not by process: many rollouts are under way in one event loop, each with its own calls.
_on_trial: ContextVar[list[str]] = ContextVar("on_trial")


def configure(settings: CallSettings) -> None:
    """Set how this process reaches models from now on. Raises RuntimeError when the call cache
    cannot be used."""
    global _access
    # A worker process is configured for every unit of work; its ledger must not begin anew each
    # time.
    if settings != _access.settings:
        before, _access = _access, _Access(settings)
        if before.cache:
            before.cache.close()


def whole_text(completion: Completion) -> str:
    """The reply's text. Raises MalformedReply, with what the call used, when there is none or it
    was cut off."""
    fault = ""
    if completion.finish_reason == "length" and not holds_object(completion.text):
        used = completion.usage.completion_tokens
        fault = f"the reply was cut off at the token limit ({used} tokens); write a shorter one"
        if not completion.text.strip():
            fault = "the reply was cut off at the token limit before it began; think less"
    elif not completion.text.strip():
        reason = completion.finish_reason
        why = f" ({reason})" if reason not in ("", "stop") else ""
        fault = f"the reply is empty{why}; write the JSON object"
    if fault:
        # Where all tokens went into thinking, it is all that there is to show.
        error = MalformedReply(fault, completion.text or completion.thinking)
        error.usage = completion.usage
        raise error
    return completion.text


async def complete(
    teacher: Teacher,
    messages: Sequence[Message],
    schema: dict[str, Any] | None = None,
    seed: int | None = None,
) -> tuple[str, Usage]:
    """One reply to `messages`, in the given JSON schema if the teacher's server can. Raises
    MalformedReply when empty or cut off, and ModelError."""
    completion = await call(teacher, messages, schema, seed)
    return whole_text(completion), completion.usage


async def call(
    teacher: Teacher, messages: Sequence[Message], schema: dict[str, Any] | None, seed: int | None
) -> Completion:
    """One call, with whatever came back. Raises ModelError, and RuntimeError when the teacher's key
    is not set.

    A reply from the cache costs nothing and is counted as `Usage.cached_calls`. Replies that were
    cut off, are empty or were filtered are not stored, so asking again asks the server; a reply
    that its reader refuses is dropped by `on_trial`.
    """
    started = time.monotonic()
    request = _request(teacher, messages, schema, seed)
    # `configure` may replace it while this call waits.
    access = _access
    # The seed is part of the key even where the server takes none: else all rollouts of a case
    # would be given the first one's reply.
    question = {"model": teacher.model, **request} | ({} if seed is None else {"seed": seed})
    key = ""
    if access.cache:
        # Mirrors serve the same; a model file is the same at every port, which each run has anew.
        is_file = teacher.gguf or teacher.folder
        key = reply_key(teacher.file_hash() if is_file else teacher.servers[0], question)
    if key and (keys := _on_trial.get(None)) is not None:
        keys.append(key)
    if access.cache and access.mode != "refresh" and (stored := access.cache.get(key)):
        return Completion(
            stored["text"], stored["thinking"], stored["finish_reason"], Usage(cached_calls=1)
        )
    faults: list[Fault] = []
    try:
        response = await _patiently(access.ledger, teacher, request, faults)
    except ModelError as error:
        error.usage = Usage(faults=tuple(faults))
        raise
    if declined := _declined(response):
        no_reply = ModelDeclined(f"{declined}: {response.text[:300] or 'it says nothing'}", 200)
        no_reply.raw = response.text
        faults.append(Fault(type(no_reply).__name__, no_reply.message, response.text))
        no_reply.usage = _used(teacher, response, started, faults)
        raise no_reply
    # Such a reply may end well at the next try, which the cache would prevent.
    ended = response.finish_reason not in ("length", "content_filter")
    if schema and ended and response.thinking.strip() and not response.text.strip():
        # A server that takes all of a reply for thinking: vLLM's reasoning parsers do, where the
        # model did not think. Only a reply in a schema is looked for there, never free text.
        response = replace(response, text=response.thinking, thinking="")
        faults.append(Fault(MENDED, "the reply stood in reasoning_content", response.text))
    if access.cache and access.mode != "read" and ended and response.text.strip():
        record = {name: getattr(response, name) for name in ("text", "thinking", "finish_reason")}
        access.cache.put(key, record)
    usage = _used(teacher, response, started, faults)
    return Completion(response.text, response.thinking, response.finish_reason, usage)


def _used(teacher: Teacher, response: Response, started: float, faults: list[Fault]) -> Usage:
    seconds = time.monotonic() - started
    tokens = response.prompt_tokens, response.completion_tokens
    return Usage(1, *tokens, _cost(teacher, response), seconds, faults=tuple(faults))


def _declined(response: Response) -> str:
    """Who would not answer; '' where there is a reply."""
    if response.finish_reason == "refusal":
        return "the model refused to answer"
    if response.finish_reason == "content_filter" and not holds_object(response.text):
        return "the provider's content filter stopped the reply"
    return ""


@contextmanager
def on_trial() -> Iterator[list[str]]:
    """Calls made in this block are on trial: when it ends without a reply to use, their replies are
    dropped from the call cache.

    Without it, who tries again what failed would be given the refused reply again, for ever. Yields
    the calls' keys, for those who refuse replies without raising that (`forget`). Blocks may stand
    in one another; the inner one keeps its calls to itself.
    """
    keys: list[str] = []
    # Taken off again at the end by this token, so that an outer block has its own list back.
    before = _on_trial.set(keys)
    try:
        yield keys
    except (MalformedReply, ModelDeclined):
        forget(keys)
        raise
    finally:
        _on_trial.reset(before)


def forget(keys: Iterable[str]) -> None:
    """Drop replies from the call cache."""
    if _access.cache and _access.mode in ("on", "refresh"):
        _access.cache.forget(keys)


async def _patiently(
    ledger: Ledger, teacher: Teacher, request: dict[str, Any], faults: list[Fault]
) -> Response:
    """Ask until there is a reply, or the trouble lasts; what went wrong is added to `faults`.
    Raises ModelError."""
    bounds, patience, lessons = Bounds.of(teacher), _Patience(teacher), 0
    # Of the tokens a minute, until calls have ended and their mean is known.
    expected = estimated_tokens(request["messages"]) + teacher.max_tokens
    while True:
        # A new name for every attempt: the ledger counts each as a call under way.
        ask = Ask(uuid4().hex, bounds, expected, patience.failed_server)
        attempt = await _attempt(ledger, teacher, request, ask)
        if isinstance(attempt, Response):
            return attempt
        error = _model_error(attempt.trouble)
        # No try is used up: the server works, it was asked in the wrong form.
        if attempt.lesson and lessons < MOST_LESSONS:
            lessons += 1
            faults.append(Fault(PARAMETER_REFUSED, f"{attempt.lesson} ({error.message[:300]})"))
            place = f"{teacher.name} at {attempt.server}, for the rest of the run"
            log.warning("%s: %s. It said: %s", place, attempt.lesson, error.message[:200])
            continue  # at once: the next request is another one
        faults.append(Fault(type(error).__name__, error.message))
        pause = patience.pause_after(attempt)
        if pause is None:
            raise error from None
        await asyncio.sleep(pause)


@dataclass(frozen=True, slots=True)
class _Failure:
    """A request to `server` that brought no reply within `seconds`. `lesson`: what the server was
    found not to take, in words; '' for none. `down_s`: see `Permission`."""

    trouble: Trouble
    server: str
    down_s: float | None
    lesson: str
    seconds: float


async def _attempt(
    ledger: Ledger, teacher: Teacher, request: dict[str, Any], ask: Ask
) -> Response | _Failure:
    """One request, once the ledger allows it; the ledger is told how it ended, also when the
    request is cancelled."""
    # The key first: where it is missing, the ledger must not wait for the end of a call.
    key, permission = api_key(teacher), await _allowed(ledger, ask)
    server, demands, began = permission.server or "", permission.demands, time.monotonic()
    # What the ledger hears when the call is cancelled or this code fails: it says nothing of the
    # server.
    ended = Ended(ask.call, ask.bounds, server, "other")
    try:
        sent = adapt(request, demands)
        # Without an address the 'server' is the provider's name, and LiteLLM knows the way.
        address = server.rstrip("/") + demands.path if teacher.api_base else None
        response = await send(teacher.model, address, key, sent, teacher.timeout_s)
        tokens = response.prompt_tokens + response.completion_tokens
        declined = _declined(response)
        refusal = None
        if declined:
            refusal = Refusal(declined, version_of(request["messages"]), is_reply=True)
        usd = _cost(teacher, response)
        ended = replace(ended, outcome="good", usd=usd, tokens=tokens, refusal=refusal)
        return _without_key(response, key)
    except Trouble as trouble:
        lesson = learn(sent, demands, trouble.status, str(trouble))
        if not lesson and teacher.api_base:
            lesson = learn_path(server, demands, trouble.status, str(trouble))
        learnt, words = lesson or (None, "")
        refusal = None
        if not lesson and not _passes(trouble):
            # A refused key is counted once a call, a refused prompt once for all calls that send
            # it.
            of_every_call = trouble.status in OF_EVERY_CALL
            subject = ask.call if of_every_call else version_of(request["messages"])
            refusal = Refusal(_model_error(trouble).message, subject)
        ended = replace(ended, outcome=_outcome(trouble), retry_after_s=trouble.retry_after_s)
        ended = replace(ended, learnt=learnt, refusal=refusal, unreached=not trouble.reached)
        return _Failure(trouble, server, permission.down_s, words, time.monotonic() - began)
    # Raised by `adapt`: nothing was sent.
    except PromptOverContext as over:
        too_long = ContextTooLong(str(over), 400)
        too_long.context_tokens = over.allowed
        raise too_long from None
    finally:
        await ledger.end(ended)
        # All lines, not this teacher's alone: teachers may share a model's servers.
        for line in _waiting_here().values():
            line.news.set()


class _Patience:
    """What a call has met so far, and so whether it is made again, when, and where not."""

    def __init__(self, teacher: Teacher):
        self.timeout_s, self.servers = teacher.timeout_s, len(teacher.servers)
        self.failed_server: str | None = None
        self.tries = self.refusals = 0
        self.tried_for_s = 0.0
        self.refused_since = self.lost_since = 0.0

    def pause_after(self, failure: _Failure) -> float | None:
        """Seconds to wait before the call is made again; None: it is given up."""
        trouble, now = failure.trouble, time.monotonic()
        if _busy(trouble):
            self.refusals += 1
            self.refused_since = self.refused_since or now
            pause = _pause(self.refusals, trouble.retry_after_s)
            return None if now + pause - self.refused_since > self.timeout_s else pause
        # Being busy costs no try; everything below does.
        self.tries += 1
        self.failed_server = failure.server
        others_left = self.tries < self.servers  # another server is asked at once
        if not trouble.reached and failure.down_s is not None:
            # A server that had answered may be starting anew: all that wait for it go on when it is
            # back.
            self.lost_since = self.lost_since or now
            if max(failure.down_s, now - self.lost_since) > LOST_S:
                return None
            return 0.0 if others_left else min(LONGEST_PAUSE_LOST_S, _pause(self.tries, None))
        # Only seconds that the server took: the pauses between are ours.
        self.tried_for_s += failure.seconds
        pause = 0.0 if others_left else _pause(self.tries, trouble.retry_after_s)
        # A server that asks for an hour's pause ('Retry-After: 3600') is given up at once.
        if not _passes(trouble) or self.tries > CALL_RETRIES or pause >= self.timeout_s:
            return None
        # Twice the time-out is patience enough with a server that hangs.
        return None if self.tried_for_s >= 2 * self.timeout_s else pause


class _WaitingCalls:
    """The calls of this event loop that wait to be allowed, in the order of their coming. Only the
    head of the line asks the ledger, again whenever a call has ended: hundreds that each ask by
    themselves would cost more CPU time than all calls, and leave places empty between their asks.
    """

    def __init__(self) -> None:
        self.head = asyncio.Lock()
        self.news = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Until a call has ended, `seconds` at most: other processes free places too."""
        self.news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.news.wait()


# By loop, because asyncio's locks and events belong to one; weak, or ended loops would stay.
_Waiting = dict[Bounds, _WaitingCalls]
_waiting_by_loop = WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting]()


def _waiting_here() -> _Waiting:
    return _waiting_by_loop.setdefault(asyncio.get_running_loop(), {})


async def _allowed(ledger: Ledger, ask: Ask) -> Permission:
    """Leave to begin at a server, as soon as there is. Raises BudgetSpent, TeacherStopped,
    ModelUnavailable."""
    line, teacher = _waiting_here().setdefault(ask.bounds, _WaitingCalls()), ask.bounds.teacher
    # asyncio.Lock wakes in the order of coming: no call is passed over.
    async with line.head:
        while (answer := await ledger.ask(ask)).server is None:
            if answer.stopped is not None:
                times = f"at least {EQUAL_REFUSALS} times in a row"
                words = f"{teacher} stopped, refused {times}: {answer.stopped}"
                # Who declines ten prompts is not spared the others: its score is over all cases.
                raise (ModelDeclined if answer.declined else TeacherStopped)(words, 400)
            if (usd := answer.spent_usd) is not None:
                spent = f"${usd:.2f}" if math.isfinite(usd) else "an unknown part"
                budget = f"a budget of ${ask.bounds.budget_usd:.2f}; raise budget_usd to go on"
                raise BudgetSpent(f"{teacher}: {spent} spent of {budget}", 402)
            if answer.down_s is not None:
                servers = ", ".join(ask.bounds.servers)
                words = f"{servers} could not be reached for {answer.down_s:.0f} s: not called"
                raise ModelUnavailable(f"{teacher}: {words}", 503)
            # By chance, so that the worker processes do not ask the ledger in step.
            await line.wait(answer.wait_s * random.uniform(1, 1.5))
        return answer


def _pause(times: int, asked_s: float | None) -> float:
    """Seconds to wait after trouble that was met so many times: what the server asks for and a
    little more, else doubling pauses; by chance, so that calls that met it together do not come
    back together."""
    if asked_s is not None:
        # Never less than it asked for: a call that comes early is refused again.
        return asked_s * random.uniform(1, 1.1) + random.uniform(0, 0.1)
    return min(LONGEST_BACK_OFF_S, BACK_OFF_S * 2 ** (times - 1)) * random.uniform(0.5, 1)


def _busy(trouble: Trouble) -> bool:
    """Whether the server will have time, or its model, later: then it is waited for. 498 is Groq's
    word for it, 529 Anthropic's."""
    # llama.cpp's server, while it reads the model's file: 503 'Loading model'.
    if trouble.status == 503 and "loading" in str(trouble).casefold():
        return True
    # OpenAI says 429 of an account without money too: no waiting helps.
    return trouble.status in (429, 498, 529) and "insufficient_quota" not in str(trouble)


def _passes(trouble: Trouble) -> bool:
    # 424 is Bedrock's word for a model that failed
    return _busy(trouble) or trouble.status in (408, 409, 424, 425, 499) or trouble.status >= 500


def _outcome(trouble: Trouble) -> CallOutcome:
    if not trouble.reached:
        return "down"
    if _busy(trouble) or trouble.status in (408, 503, 504):
        return "overloaded"
    return "down" if trouble.status >= 500 else "other"


def _request(
    teacher: Teacher, messages: Sequence[Message], schema: dict[str, Any] | None, seed: int | None
) -> dict[str, Any]:
    request = {"messages": list(messages), "temperature": teacher.temperature}
    request |= {"top_p": teacher.top_p, "max_tokens": teacher.max_tokens, "seed": seed}
    request["response_format"] = _response_format(teacher, schema)
    stated = {name: value for name, value in request.items() if value is not None}
    return {name: value for name, value in stated.items() if name not in teacher.left_out}


def _response_format(teacher: Teacher, schema: dict[str, Any] | None) -> dict[str, Any] | None:
    if schema is None or teacher.structured == "none":
        return None
    if teacher.structured == "json_object":
        return {"type": "json_object"}
    form = {"name": "reply", "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": form}


def _cost(teacher: Teacher, response: Response) -> float:
    """Dollars: by the teacher's own prices, else as the server or LiteLLM's price list says, else
    nothing."""
    prices = teacher.usd_per_million_prompt_tokens, teacher.usd_per_million_completion_tokens
    if prices == (None, None):
        return response.cost_usd or 0.0
    prompt, completion = (price or 0 for price in prices)
    return (response.prompt_tokens * prompt + response.completion_tokens * completion) / 1e6


def api_key(teacher: Teacher) -> str | None:
    """The key that the teacher names; None lets LiteLLM look for the provider's own variable.

    A server of one's own is never sent a provider's key unless the teacher names it. Raises
    RuntimeError when it is not set; called before a run begins, it spares the run that mistake.
    """
    variable = teacher.api_key_env
    if variable is None and teacher.api_base:
        return "none"
    if variable is None and teacher.model.startswith("openai/"):
        variable = "OPENAI_API_KEY"
    if variable is None:
        return None
    if key := os.environ.get(variable):
        return key
    raise MedactionError(f"teacher {teacher.name}: the environment variable {variable} is not set")


def _without_key(response: Response, key: str | None) -> Response:
    """The reply, should a server have put the key into it: replies are stored, shown and trained
    on."""
    # A short 'key' ('none', 'EMPTY') is a word that a reply may hold.
    if not key or len(key) < 8 or key not in response.text + response.thinking:
        return response
    text, thinking = (part.replace(key, "***") for part in (response.text, response.thinking))
    return replace(response, text=text, thinking=thinking)


def _model_error(trouble: Trouble) -> ModelError:
    """The trouble as ours. Keys that a server echoed are taken out, because messages are stored and
    shown."""
    message = f"{trouble.status} {trouble}"
    for name, value in os.environ.items():
        # Not the teacher's key alone: LiteLLM takes a provider's variables, and may show them in an
        # error.
        if re.search("KEY|TOKEN|SECRET|PASSWORD", name) and len(value) > 7:
            message = message.replace(value, "***").replace(quote(value, safe=""), "***")
    # Some servers send the whole prompt back in their error.
    return (ModelUnavailable if _passes(trouble) else ModelRefused)(message[:2000], trouble.status)
