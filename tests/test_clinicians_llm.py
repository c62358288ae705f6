"""The language-model clinician over real HTTP: what is sent, what comes back, what goes wrong."""

import asyncio
import json
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest

from clinicians.llm import ModelError, ModelRefused, complete, is_transient
from clinicians.llm_clinician import LlmClinician
from clinicians.make import make_clinician, prompt_version
from clinicians.prompts import PROMPT_VERSIONS, messages
from clinicians.reply import MalformedReply, reply_schema
from clinicians.teacher import Teacher
from tests.openai_server import Asked, OpenAIServer, Reply, Script, openai_server
from trajectories.records import Turn

GOOD = json.dumps(
    {
        "reasoning": "Acute monoarthritis.",
        "differential": [{"diagnosis": "Gout", "confidence": 70}],
        "pivot": "Crystals?",
        "action": {"order_tests": ["Synovial fluid analysis"]},
    }
)
KEY = "sk-test-0123456789abcdef"


def teacher(server: OpenAIServer, **fields: Any) -> Teacher:
    return Teacher.model_validate({"name": "t", "model": "openai/some-model", "api_base": server.url, **fields})


def decide(script: Script, turns: tuple[Turn, ...] = (), t_max: int = 8, **fields: Any) -> tuple[Turn, list[Asked]]:
    with openai_server(script) as server:
        clinician = make_clinician(teacher(server, **fields))
        return asyncio.run(clinician.decide("A painful toe.", turns, t_max, seed=1234)), server.asked


def test_a_turn_with_its_usage_and_thinking() -> None:
    turn, asked = decide(lambda _, n: Reply(GOOD, reasoning="toe <|im_end|> first", prompt_tokens=700, completion_tokens=55))
    assert turn.tests == ("Synovial fluid analysis",)
    assert turn.thinking == "toe ‹|im_end|› first"
    assert (turn.usage.calls, turn.usage.prompt_tokens, turn.usage.completion_tokens) == (1, 700, 55)
    assert turn.usage.cost_usd == 0
    assert turn.usage.seconds > 0
    assert not turn.repaired
    assert len(asked) == 1


def test_what_is_sent() -> None:
    _, [asked] = decide(lambda _, n: GOOD)
    assert asked.body["messages"] == messages("A painful toe.", (), 8)
    assert (asked.body["seed"], asked.body["temperature"], asked.body["max_tokens"]) == (1234, 0.6, 5500)
    assert asked.body["response_format"]["json_schema"]["strict"] is True
    assert asked.body["response_format"]["json_schema"]["schema"] == reply_schema(False)


def test_the_last_turn_is_asked_in_the_schema_of_the_last_turn() -> None:
    final = json.dumps(json.loads(GOOD) | {"action": {"final_diagnosis": "Gout"}})
    turn, [asked] = decide(lambda _, n: final, t_max=1)
    assert turn.final_diagnosis == "Gout"
    assert asked.body["response_format"]["json_schema"]["schema"] == reply_schema(True)


@pytest.mark.parametrize(("structured", "sent"), [("json_object", {"type": "json_object"}), ("none", None)])
def test_servers_without_schemas(structured: str, sent: object) -> None:
    _, [asked] = decide(lambda _, n: GOOD, structured=structured)
    assert asked.body.get("response_format") == sent


def test_cost_is_the_providers_price_where_litellm_knows_it() -> None:
    turn, _ = decide(lambda _, n: Reply(GOOD, prompt_tokens=1000, completion_tokens=1000), model="openai/gpt-4o-mini")
    assert turn.usage.cost_usd == pytest.approx(1000 * 0.15e-6 + 1000 * 0.6e-6)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Reply("I would aspirate the joint."), "not one JSON object"),
        (Reply(GOOD[:60], finish_reason="length", completion_tokens=5500), "cut off at the token limit (5500 tokens)"),
        (Reply(""), "the reply is empty"),
        (Reply("", finish_reason="content_filter"), "content filter"),
        (Reply(GOOD.replace("70", "170")), "less than or equal to 100"),
    ],
)
def test_one_repair(bad: Reply, told: str) -> None:
    turn, asked = decide(lambda _, n: GOOD if n else bad)
    assert turn.repaired
    assert turn.raw == GOOD
    assert turn.usage.calls == 2
    assert turn.usage.prompt_tokens == 200
    assert len(asked) == 2
    assert asked[1].body["messages"][:2] == asked[0].body["messages"]
    assert told in asked[1].body["messages"][-1]["content"]
    assert '"order_tests"' in asked[1].body["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("bad", "says", "raw"),
    [
        (Reply("still prose"), "not one JSON object", "still prose"),
        (Reply('{"reasoning": "x', finish_reason="length"), "cut off", '{"reasoning": "x'),
        (Reply(""), "empty", ""),
    ],
)
def test_a_reply_malformed_twice_fails_with_the_reply(bad: Reply, says: str, raw: str) -> None:
    with openai_server(lambda _, n: bad) as server, pytest.raises(MalformedReply, match=says) as failed:
        asyncio.run(LlmClinician(teacher(server)).decide("o1", (), 8, seed=1))
    assert failed.value.raw == raw
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_asked_again(status: int) -> None:
    turn, asked = decide(lambda _, n: GOOD if n else Reply("busy", status=status))
    assert turn.usage.calls == 1
    assert not turn.repaired
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "transient", "requests"), [(503, True, 3), (429, True, 3), (401, False, 1), (400, False, 1)]
)
def test_lasting_trouble_is_an_error_that_says_so(status: int, transient: bool, requests: int) -> None:
    with openai_server(lambda _, n: Reply("no luck today", status=status)) as server, pytest.raises(ModelError) as failed:
        asyncio.run(LlmClinician(teacher(server)).decide("o1", (), 8, seed=1))
    assert is_transient(failed.value) is transient
    assert failed.value.status == status
    assert "no luck today" in str(failed.value)
    assert len(server.asked) == requests
    again = pickle.loads(pickle.dumps(failed.value))  # noqa: S301 (our own bytes)
    assert (type(again), str(again), again.status) == (type(failed.value), str(failed.value), status)


def test_a_slow_server_times_out() -> None:
    with openai_server(lambda _, n: Reply(GOOD, after_s=3)) as server, pytest.raises(ModelError) as failed:
        asyncio.run(LlmClinician(teacher(server, timeout_s=0.3)).decide("o1", (), 8, seed=1))
    assert is_transient(failed.value)


def test_a_server_that_is_not_there() -> None:
    with openai_server(lambda _, n: GOOD) as server:
        gone = teacher(server)
    with pytest.raises(ModelError, match="Connection error") as failed:
        asyncio.run(LlmClinician(gone).decide("o1", (), 8, seed=1))
    assert is_transient(failed.value)


def test_our_own_mistakes_are_not_transient() -> None:
    assert not is_transient(MalformedReply("x"))
    assert not is_transient(ValueError("x"))


def test_the_key_reaches_the_server_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDACTION_TEST_KEY", KEY)
    turn, [asked] = decide(lambda _, n: GOOD, api_key_env="MEDACTION_TEST_KEY")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(turn)
    assert KEY not in json.dumps(asked.body)


def test_a_key_that_the_server_echoes_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDACTION_TEST_KEY", KEY)
    script: Script = lambda _, n: Reply(f"Incorrect API key provided: {KEY}", status=401)  # noqa: E731
    with openai_server(script) as server, pytest.raises(ModelRefused, match="Incorrect API key") as failed:
        asyncio.run(LlmClinician(teacher(server, api_key_env="MEDACTION_TEST_KEY")).decide("o1", (), 8, seed=1))
    assert KEY not in str(failed.value)
    assert KEY not in repr(failed.value.args)
    assert failed.value.__suppress_context__


def test_a_server_of_ones_own_is_not_sent_a_providers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    _, [asked] = decide(lambda _, n: GOOD)
    assert KEY not in json.dumps(asked.headers)


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDACTION_TEST_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(RuntimeError, match="MEDACTION_TEST_KEY is not set"):
        decide(lambda _, n: GOOD, api_key_env="MEDACTION_TEST_KEY")
    with pytest.raises(RuntimeError, match="OPENAI_API_KEY is not set"):
        decide(lambda _, n: GOOD, api_base=None)


def test_many_event_loops_one_after_the_other() -> None:
    """Every case plays in a loop of its own; the client must not outlive the loop that it was made in."""
    with openai_server(lambda _, n: GOOD) as server:
        clinician = LlmClinician(teacher(server))
        for seed in range(5):
            asyncio.run(clinician.decide("o1", (), 8, seed=seed))
    assert [asked.body["seed"] for asked in server.asked] == list(range(5))


def test_a_proxy_is_not_asked_for_a_server_on_this_machine() -> None:
    """In a process of its own: clients read the environment when they are made."""
    code = (
        "import asyncio, sys\nfrom clinicians.llm import complete\nfrom clinicians.teacher import Teacher\n"
        "print(asyncio.run(complete(Teacher.parse(sys.argv[1]), [{'role': 'user', 'content': 'x'}]))[0])"
    )
    no_way_out = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    with openai_server(lambda _, n: "here") as server:
        command = [sys.executable, "-c", code, f"openai/x@{server.url}"]
        done = subprocess.run(command, env=os.environ | no_way_out, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "here"), done.stderr


def test_turns_are_asked_concurrently() -> None:
    async def eight(clinician: LlmClinician) -> list[Turn]:
        return await asyncio.gather(*(clinician.decide("o1", (), 8, seed=seed) for seed in range(8)))

    with openai_server(lambda _, n: Reply(GOOD, after_s=0.5)) as server:
        clinician = LlmClinician(teacher(server))
        asyncio.run(clinician.decide("o1", (), 8, seed=0))
        turns = asyncio.run(eight(clinician))
    assert sum(turn.usage.seconds for turn in turns) > 8 * 0.5
    assert max(turn.usage.seconds for turn in turns) < 2.5


def test_a_plain_completion_in_another_schema() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
    with openai_server(lambda _, n: '{"n": 3}' if n == 0 else Reply("", finish_reason="length")) as server:
        text, usage = asyncio.run(complete(teacher(server), [{"role": "user", "content": "count"}], schema))
        with pytest.raises(MalformedReply, match="cut off"):
            asyncio.run(complete(teacher(server), [{"role": "user", "content": "count"}]))
    assert (text, usage.calls, usage.prompt_tokens) == ('{"n": 3}', 1, 100)
    assert server.asked[0].body["response_format"]["json_schema"]["schema"] == schema
    assert "response_format" not in server.asked[1].body


def test_the_prompt_version_is_the_clinicians() -> None:
    chosen = Teacher(name="t", model="openai/x")
    assert prompt_version(chosen) == make_clinician(chosen).prompt_versions["schema"] == PROMPT_VERSIONS["schema"]
