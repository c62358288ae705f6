"""A real OpenAI-compatible HTTP server on loopback whose replies a test scripts, and which keeps
every request."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.serving import serving


@dataclass(frozen=True)
class Reply:
    """What the server answers. A `status` of 300 and more makes it an error with `text` as its
    message; `body` is sent as it is.

    `drop`: the connection is cut instead.
    """

    text: str = ""
    finish_reason: str = "stop"
    status: int = 200
    after_s: float = 0.0
    reasoning: str | None = None
    prompt_tokens: int = 100
    completion_tokens: int = 20
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    drop: bool = False


@dataclass
class Asked:
    """A request as it came in: the JSON body, the headers, the time (monotonic) and how many were
    under way, itself included."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float = 0.0
    under_way: int = 1


Script = Callable[[Asked, int], Reply | str]
"""(request, its number from 0) -> the reply; a string is a reply's text."""


@dataclass
class OpenAIServer:
    script: Script
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    under_way: int = 0

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._models),
            ]
        )

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "good-model", "object": "model"}]})

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.under_way += 1
        asked = Asked(body, dict(request.headers), time.monotonic(), self.under_way)
        self.asked.append(asked)
        try:
            scripted = self.script(asked, len(self.asked) - 1)
            reply = Reply(scripted) if isinstance(scripted, str) else scripted
            await asyncio.sleep(reply.after_s)
        finally:
            self.under_way -= 1
        if reply.drop:
            request.receive.__self__.transport.abort()  # type: ignore[attr-defined]
        if reply.body is not None:
            return Response(reply.body, reply.status, reply.headers)
        if reply.status >= 300:
            error = {"message": reply.text or "scripted failure", "type": "scripted", "code": None}
            return JSONResponse({"error": error}, reply.status, reply.headers)
        completion = _completion(asked.body["model"], reply)
        if body.get("stream"):
            return Response(_streamed(completion), media_type="text/event-stream")
        return JSONResponse(completion, headers=reply.headers)


def _streamed(completion: dict[str, Any]) -> str:
    """A completion as the events of a stream: all of it in one, then its end."""
    (choice,) = completion["choices"]
    chunk = {key: completion[key] for key in ("id", "created", "model")}
    chunk["object"] = "chat.completion.chunk"
    delta = {"index": 0, "delta": choice["message"], "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    events = [
        chunk | {"choices": [delta]},
        chunk | {"choices": [end], "usage": completion["usage"]},
    ]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def _completion(model: str, reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text} | (
        {"reasoning_content": reply.reasoning} if reply.reasoning else {}
    )
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }


@contextmanager
def openai_server(script: Script) -> Iterator[OpenAIServer]:
    """Serve `script` on a free port of 127.0.0.1; `url` ends in /v1, as an api_base does."""
    ours = OpenAIServer(script)
    with serving(ours.application()) as url:
        ours.url = f"{url}/v1"
        yield ours
