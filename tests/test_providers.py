"""Every provider of docs/providers.md plays a rollout through LiteLLM's own code (or ours), against
a server on loopback that answers in the provider's documented form."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from medaction.clinicians.make import make_clinician
from medaction.envs.episode import Episode
from medaction.envs.oracle import Oracle
from medaction.llm.calls import CallSettings, configure
from medaction.llm.limits import LocalLedger
from medaction.llm.teacher import Teacher
from medaction.trajectories.records import RolloutSpec, Trajectory
from medaction.trajectories.rollout import play
from tests.openai_server import Asked
from tests.other_servers import text_of
from tests.records import environment
from tests.serving import serving

Shape = Callable[[str, dict[str, Any]], dict[str, Any]]
"""(the reply's text, the request's body) -> the body of the provider's answer."""


def openai_shape(text: str, body: dict[str, Any], **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", "m"),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text} | message,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 900, "completion_tokens": 150, "total_tokens": 1050},
    }


def deepseek_shape(text: str, body: dict[str, Any]) -> dict[str, Any]:
    return openai_shape(text, body, reasoning_content="The nodes decide.")


def openrouter_shape(text: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = openai_shape(text, body, reasoning="The nodes decide.")
    return answer | {"usage": answer["usage"] | {"cost": 0.25}}


def anthropic_shape(text: str, body: dict[str, Any]) -> dict[str, Any]:
    """A tool call where LiteLLM has made a tool of the schema, else text."""
    if body.get("tools") and body.get("tool_choice"):
        name = body["tools"][0]["name"]
        part = {"type": "tool_use", "id": "t1", "name": name, "input": json.loads(text)}
    else:
        part = {"type": "text", "text": text}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [part],
        "stop_reason": "tool_use" if part["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 900, "output_tokens": 150},
    }


def gemini_shape(text: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
        ],
        "usageMetadata": {
            "promptTokenCount": 900,
            "candidatesTokenCount": 150,
            "totalTokenCount": 1050,
        },
        "modelVersion": "gemini-2.5-flash",
    }


def bedrock_shape(text: str, body: dict[str, Any]) -> dict[str, Any]:
    """Of the Converse API."""
    tools = (body.get("toolConfig") or {}).get("tools")
    part: dict[str, Any] = {"text": text}
    if tools:
        name = tools[0]["toolSpec"]["name"]
        part = {"toolUse": {"toolUseId": "t1", "name": name, "input": json.loads(text)}}
    return {
        "output": {"message": {"role": "assistant", "content": [part]}},
        "stopReason": "tool_use" if tools else "end_turn",
        "usage": {"inputTokens": 900, "outputTokens": 150, "totalTokens": 1050},
        "metrics": {"latencyMs": 10},
    }


def ollama_shape(text: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": body["model"],
        "created_at": "2026-11-28T12:00:00Z",
        "message": {"role": "assistant", "content": text, "thinking": "The nodes decide."},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 900,
        "eval_count": 150,
    }


@dataclass(frozen=True)
class Provider:
    """`model` is what is typed, with {url} for the address; `path` is where the call must go."""

    model: str
    path: str
    shape: Shape
    environment: dict[str, str] = field(default_factory=dict)
    dollars: float | None = None


PROVIDERS = {
    "OpenAI": Provider(
        "openai/gpt-4o-mini", "/v1/chat/completions", openai_shape,
        {"OPENAI_BASE_URL": "{url}/v1"},
    ),
    "Azure": Provider(
        "azure/my-deployment@{url};api_key_env=AZURE_API_KEY",
        "/openai/deployments/my-deployment/chat/completions", openai_shape,
        {"AZURE_API_VERSION": "2024-10-21"},
    ),
    "Anthropic": Provider(
        "anthropic/claude-sonnet-4-5@{url};api_key_env=ANTHROPIC_API_KEY", "/v1/messages",
        anthropic_shape,
    ),
    "Gemini": Provider(
        "gemini/gemini-2.5-flash@{url};api_key_env=GEMINI_API_KEY",
        "/models/gemini-2.5-flash:generateContent", gemini_shape,
    ),
    "Bedrock": Provider(
        "bedrock/converse/anthropic.claude-3-haiku-20240307-v1:0",
        "/model/anthropic.claude-3-haiku-20240307-v1:0/converse", bedrock_shape,
        {"AWS_BEDROCK_RUNTIME_ENDPOINT": "{url}", "AWS_REGION_NAME": "us-east-1"},
    ),
    "DeepSeek": Provider(
        "deepseek/deepseek-chat@{url};api_key_env=DEEPSEEK_API_KEY", "/chat/completions",
        deepseek_shape,
    ),
    "OpenRouter": Provider(
        "openrouter/qwen/qwen3-8b@{url}/api/v1;api_key_env=OPENROUTER_API_KEY",
        "/api/v1/chat/completions", openrouter_shape, dollars=0.25,
    ),
    "Ollama": Provider("ollama_chat/qwen3:8b@{url}", "/api/chat", ollama_shape),
    "Ollama, LM Studio, llama.cpp, SGLang, OpenAI's form": Provider(
        "openai/qwen3-8b@{url}/v1", "/v1/chat/completions", deepseek_shape,
    ),
    "vLLM": Provider("hosted_vllm/Qwen/Qwen3-8B@{url}/v1", "/v1/chat/completions", deepseek_shape),
}  # fmt: skip
KEYS = ("OPENAI", "AZURE", "ANTHROPIC", "GEMINI", "DEEPSEEK", "OPENROUTER")


@dataclass
class Recorder:
    shape: Shape
    paths: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        text = (await request.body()).decode()
        body = json.loads(text) if text else {}
        if request.method == "GET" or "This is turn" not in text:  # what LiteLLM asks of Ollama
            return JSONResponse({"model_info": {}, "template": "", "capabilities": []})
        self.paths.append(request.url.path)
        headers = request.headers
        self.keys.append(
            headers.get("authorization") or headers.get("x-api-key")
            or headers.get("api-key") or headers.get("x-goog-api-key")
            or request.query_params.get("key", "")
        )  # fmt: skip
        turn = re.findall(r"This is turn (\d+) of", text)[-1]
        asked = Asked({"messages": [{"role": "user", "content": f"This is turn {turn} of 8"}]}, {})
        return JSONResponse(self.shape(text_of(asked), body))


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_plays_in_its_own_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = PROVIDERS[name]
    recorder = Recorder(provider.shape)
    methods = ["GET", "POST"]
    application = Starlette(routes=[Route("/{path:path}", recorder.answer, methods=methods)])
    for key in KEYS:
        monkeypatch.setenv(f"{key}_API_KEY", f"sk-{key.lower()}-0123456789")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "sk-bedrock-0123456789")
    configure(CallSettings(ledger=LocalLedger()))
    with serving(application) as url:
        for variable, value in provider.environment.items():
            monkeypatch.setenv(variable, value.format(url=url))
        teacher = Teacher.parse(provider.model.format(url=url))
        world = environment()
        spec = RolloutSpec(world.environment_id, world.case_id, "t", "schema", 0, "x")
        episode = Episode(world, Oracle(world.menu))
        trajectory = asyncio.run(play(spec, episode, make_clinician(teacher)))
    configure(CallSettings())
    assert isinstance(trajectory, Trajectory)
    assert (trajectory.outcome, len(trajectory.turns)) == ("diagnosed", 4)
    assert recorder.paths == [provider.path] * 4
    for turn in trajectory.turns:
        assert (turn.usage.prompt_tokens, turn.usage.completion_tokens) == (900, 150)
        assert provider.dollars in (None, turn.usage.cost_usd)
    if provider.shape in (deepseek_shape, openrouter_shape, ollama_shape):
        assert trajectory.turns[0].thinking == "The nodes decide."
    key = name.upper()
    if key in (*KEYS, "BEDROCK"):
        assert f"sk-{key.lower()}-0123456789" in recorder.keys[0]
    else:
        assert "sk-" not in str(recorder.keys), "a server of one's own gets no provider's key"


def test_the_page_of_providers_has_the_lines_that_are_tried() -> None:
    page = (Path(__file__).parent.parent / "docs" / "providers.md").read_text()
    for name, provider in PROVIDERS.items():
        typed = re.split(r"[@;]", provider.model)[0]
        assert typed.split("/")[0] + "/" in page, name
        assert name.split(",")[0] in page
