"""The language-model clinician over real HTTP: what is sent, what comes back, what goes wrong."""

import asyncio
import json
import logging
import math
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from medaction.clinicians.language_model import LlmClinician
from medaction.clinicians.make import make_clinician, prompt_version
from medaction.envs.prompts import PROMPT_VERSIONS, messages
from medaction.envs.reply import reply_schema
from medaction.envs.turns import Observation, Turn
from medaction.llm import calls as llm
from medaction.llm import transport
from medaction.llm.calls import (
    BudgetSpent,
    CallSettings,
    ContextTooLong,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    call,
    complete,
    configure,
    on_trial,
)
from medaction.llm.limits import LOST_S, Ask, Book, Bounds, Ended, LocalLedger
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import Teacher
from medaction.llm.transport import Trouble, send
from medaction.llm.usage import Usage
from medaction.words.retry_after import retry_after_s
from tests.openai_server import Asked, OpenAIServer, Reply, Script, openai_server

GOOD = json.dumps(
    {
        "reasoning": "Acute monoarthritis.",
        "differential": [{"diagnosis": "Gout", "confidence": 70}],
        "pivot": "Crystals?",
        "action": {"order_tests": ["Synovial fluid analysis"]},
    }
)
KEY = "sk-test-0123456789abcdef"
COUNT = [{"role": "user", "content": "count"}]


@pytest.fixture
def cached(tmp_path: Path) -> Iterator[CallSettings]:
    """A call cache of the test's own."""
    settings = CallSettings("on", tmp_path / "calls")
    configure(settings)
    yield settings
    configure(CallSettings())


def teacher(server: OpenAIServer, **fields: Any) -> Teacher:
    return Teacher.model_validate(
        {"name": "t", "model": "openai/some-model", "api_base": server.url, **fields}
    )


def decide(
    script: Script, turns: tuple[Turn, ...] = (), t_max: int = 8, **fields: Any
) -> tuple[Turn, list[Asked]]:
    with openai_server(script) as server:
        clinician = make_clinician(teacher(server, **fields))
        return asyncio.run(
            clinician.decide(Observation("A painful toe.", tuple(turns), t_max), seed=1234)
        ), server.asked


def test_a_turn_with_its_usage_and_thinking() -> None:
    turn, asked = decide(
        lambda _, n: Reply(
            GOOD, reasoning="toe <|im_end|> first", prompt_tokens=700, completion_tokens=55
        )
    )
    assert turn.tests == ("Synovial fluid analysis",)
    assert turn.thinking == "toe ‹|im_end|› first"
    assert (turn.usage.calls, turn.usage.prompt_tokens, turn.usage.completion_tokens) == (
        1,
        700,
        55,
    )
    assert turn.usage.cost_usd == 0
    assert turn.usage.seconds > 0
    assert not turn.repaired
    assert len(asked) == 1


def test_what_is_sent() -> None:
    _, [asked] = decide(lambda _, n: GOOD)
    assert asked.body["messages"] == messages("A painful toe.", (), 8)
    assert (asked.body["seed"], asked.body["temperature"], asked.body["max_tokens"]) == (
        1234,
        0.6,
        5500,
    )
    assert asked.body["response_format"]["json_schema"]["strict"] is True
    assert asked.body["response_format"]["json_schema"]["schema"] == reply_schema(False)


def test_the_last_turn_is_asked_in_the_schema_of_the_last_turn() -> None:
    final = json.dumps(json.loads(GOOD) | {"action": {"final_diagnosis": "Gout"}})
    turn, [asked] = decide(lambda _, n: final, t_max=1)
    assert turn.final_diagnosis == "Gout"
    assert asked.body["response_format"]["json_schema"]["schema"] == reply_schema(True)


@pytest.mark.parametrize(
    ("structured", "sent"), [("json_object", {"type": "json_object"}), ("none", None)]
)
def test_servers_without_schemas(structured: str, sent: object) -> None:
    _, [asked] = decide(lambda _, n: GOOD, structured=structured)
    assert asked.body.get("response_format") == sent


def test_cost_is_the_providers_price_where_litellm_knows_it() -> None:
    turn, _ = decide(
        lambda _, n: Reply(GOOD, prompt_tokens=1000, completion_tokens=1000),
        model="openai/gpt-4o-mini",
    )
    assert turn.usage.cost_usd == pytest.approx(1000 * 0.15e-6 + 1000 * 0.6e-6)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Reply("I would aspirate the joint."), "not one JSON object"),
        (
            Reply(GOOD[:60], finish_reason="length", completion_tokens=5500),
            "cut off at the token limit (5500 tokens)",
        ),
        (Reply(""), "the reply is empty"),
        (Reply(GOOD.replace("70", "170")), "less than or equal to 100"),
    ],
)
def test_one_repair(bad: Reply, told: str) -> None:
    turn, asked = decide(lambda _, n: GOOD if n else bad)
    assert turn.repaired
    assert json.loads(turn.raw) == json.loads(GOOD)
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
def test_a_turn_fails_with_the_reply_when_its_second_beginning_fails_too(
    bad: Reply, says: str, raw: str
) -> None:
    with (
        openai_server(lambda _, n: bad) as server,
        pytest.raises(MalformedReply, match=says) as failed,
    ):
        asyncio.run(LlmClinician(teacher(server)).decide(Observation("o1", (), 8), seed=1))
    assert failed.value.raw == raw
    assert [len(asked.body["messages"]) for asked in server.asked] == [2, 4, 2, 4]
    assert len({asked.body["seed"] for asked in server.asked}) == 4
    assert failed.value.usage.calls == 4
    assert [(fault.error_class, fault.raw) for fault in failed.value.usage.faults] == [
        ("MalformedReply", raw)
    ] * 4


def test_a_turn_that_cannot_be_mended_is_begun_anew_and_keeps_what_was_wrong() -> None:
    replies = [Reply("prose"), Reply("busy", status=500), Reply(drop=True), Reply(""), Reply(GOOD)]
    turn, asked = decide(lambda _, n: replies[n])
    assert json.loads(turn.raw) == json.loads(GOOD)
    assert (turn.repaired, turn.usage.calls, len(asked)) == (True, 3, 5)
    assert asked[4].body["messages"] == asked[0].body["messages"]
    faults = turn.usage.faults
    classes = ["MalformedReply", "ModelUnavailable", "ModelUnavailable", "MalformedReply"]
    assert [fault.error_class for fault in faults] == classes
    assert [faults[0].raw, *(fault.message[:4] for fault in faults[1:3]), faults[3].raw] == [
        "prose",
        "500 ",
        "503 ",
        "",
    ]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_asked_again(status: int) -> None:
    turn, asked = decide(lambda _, n: GOOD if n else Reply("busy", status=status))
    assert turn.usage.calls == 1
    assert not turn.repaired
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "transient", "requests"),
    [
        (503, True, 5),
        (500, True, 5),
        (409, True, 5),
        (401, False, 1),
        (400, False, 1),
        (307, False, 1),
    ],
)
def test_lasting_trouble_is_an_error_that_says_so(
    status: int, transient: bool, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm, "BACK_OFF_S", 0.02)
    with (
        openai_server(lambda _, n: Reply("no luck today", status=status)) as server,
        pytest.raises(ModelError) as failed,
    ):
        asyncio.run(LlmClinician(teacher(server)).decide(Observation("o1", (), 8), seed=1))
    assert isinstance(failed.value, ModelUnavailable) is transient
    assert failed.value.status == status
    assert "no luck today" in str(failed.value)
    assert len(server.asked) == requests
    failed.value.usage = Usage(1, 100, 20)
    again = pickle.loads(pickle.dumps(failed.value))  # noqa: S301
    assert (type(again), str(again), again.status) == (
        type(failed.value),
        str(failed.value),
        status,
    )
    assert again.usage == failed.value.usage


def test_an_overloaded_server_is_asked_until_the_time_out_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refusals are no failed attempts: more of them than there are retries are still waited for,
    but not for ever."""
    monkeypatch.setattr(llm, "BACK_OFF_S", 0.01)
    turn, asked = decide(lambda _, n: GOOD if n == 8 else Reply("busy", status=429))
    assert (turn.usage.calls, len(asked)) == (1, 9)
    started = time.monotonic()
    with (
        openai_server(lambda _, n: Reply("no luck today", status=429)) as server,
        pytest.raises(ModelError) as failed,
    ):
        asyncio.run(
            LlmClinician(teacher(server, timeout_s=1.5)).decide(Observation("o1", (), 8), seed=1)
        )
    assert isinstance(failed.value, ModelUnavailable)
    assert failed.value.status == 429
    assert 0.7 < time.monotonic() - started < 60
    assert len(server.asked) > 5


def test_a_quota_that_is_used_up_is_not_waited_for() -> None:
    body = json.dumps(
        {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    ).encode()
    with (
        openai_server(lambda _, n: Reply(status=429, body=body)) as server,
        pytest.raises(ModelRefused, match="exceeded"),
    ):
        asyncio.run(complete(teacher(server), COUNT))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "model", ["openai/some-model", "together_ai/some-model"], ids=["direct", "litellm"]
)
def test_a_server_says_when_to_come_back(model: str) -> None:
    script: Script = lambda _, n: Reply(  # noqa: E731
        "there", status=200 if n else 429, headers={"Retry-After": "1"}
    )
    with openai_server(script) as server:
        assert asyncio.run(complete(teacher(server, model=model), COUNT))[0] == "there"
    first, second = server.asked
    assert 1 <= second.at - first.at < 30  # its second; a busy machine adds its own


def test_a_server_that_asks_for_more_patience_than_there_is() -> None:
    started = time.monotonic()
    script: Script = lambda _, n: Reply("tomorrow", status=429, headers={"Retry-After": "86400"})  # noqa: E731
    with openai_server(script) as server, pytest.raises(ModelUnavailable, match="tomorrow"):
        asyncio.run(complete(teacher(server), COUNT))
    assert time.monotonic() - started < 60


def test_what_retry_after_may_say() -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after_s({"retry-after": "2.5"}) == 2.5
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    assert retry_after_s({"retry-after": in_a_minute}) == pytest.approx(60, abs=2)
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    no_time = ["soon", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"]
    headers = [{}, None, *({"retry-after": text} for text in no_time)]
    assert list(map(retry_after_s, headers)) == [None] * 4


@pytest.mark.parametrize(
    "bad",
    [
        Reply(drop=True),
        Reply(body=b"<html>gateway</html>"),
        Reply(body=b'{"error": "x"}'),
        Reply(body=b"{}"),
    ],
)
def test_answers_that_are_no_reply_are_asked_again(bad: Reply) -> None:
    turn, asked = decide(lambda _, n: GOOD if n else bad)
    assert (turn.usage.calls, turn.repaired, len(asked)) == (1, False, 2)


def test_an_error_of_the_context_keeps_what_it_allows_from_process_to_process() -> None:
    error = ContextTooLong("too long", 400)
    error.context_tokens, error.usage = 900, Usage(1, 10)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.context_tokens, again.usage) == ("too long", 900, Usage(1, 10))


def test_a_slow_server_times_out() -> None:
    with (
        openai_server(lambda _, n: Reply(GOOD, after_s=3)) as server,
        pytest.raises(ModelError) as failed,
    ):
        asyncio.run(
            LlmClinician(teacher(server, timeout_s=0.3)).decide(Observation("o1", (), 8), seed=1)
        )
    assert isinstance(failed.value, ModelUnavailable)


def test_a_server_that_is_not_there() -> None:
    with openai_server(lambda _, n: GOOD) as server:
        gone = teacher(server)
    with pytest.raises(ModelError, match="Connection error") as failed:
        asyncio.run(LlmClinician(gone).decide(Observation("o1", (), 8), seed=1))
    assert isinstance(failed.value, ModelUnavailable)


def test_https_of_a_server_without_it_is_named() -> None:
    with openai_server(lambda _, n: GOOD) as server:
        secure = teacher(server, api_base=server.url.replace("http:", "https:"))
        with pytest.raises(ModelUnavailable, match="give its address with http://"):
            asyncio.run(LlmClinician(secure).decide(Observation("o1", (), 8), seed=1))


def test_a_server_that_was_not_there_for_long_is_not_called_for_each_case() -> None:
    with openai_server(lambda _, n: GOOD) as server:
        gone = teacher(server)
    now = [0.0]
    ledger, bounds = LocalLedger(), Bounds.of(gone)
    ledger.book = Book(clock=lambda: now[0], alone_s=0)
    for number, now[0] in enumerate((0.0, LOST_S + 1)):
        ledger.book.exchange("w", [Ask(str(number), bounds, 10)], [])
        down = Ended(str(number), bounds, server.url, "down", unreached=True)
        ledger.book.exchange("w", [], [down])
    configure(CallSettings(ledger=ledger))
    with pytest.raises(ModelUnavailable, match="could not be reached for 61 s") as failed:
        asyncio.run(complete(gone, COUNT))
    assert not failed.value.usage.faults, "no call was made"
    now[0] += 60
    with pytest.raises(ModelUnavailable) as failed:
        asyncio.run(complete(gone, COUNT))
    [fault] = failed.value.usage.faults
    assert "Connection error" in fault.message


def test_a_host_that_swallows_connections_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_S", 0.2)
    with ExitStack() as stack:
        listening, *waiting = [stack.enter_context(socket.socket()) for _ in range(5)]
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for connection in waiting:  # which nobody accepts: Linux answers no further one
            connection.setblocking(False)
            connection.connect_ex(listening.getsockname())
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(Trouble, match="no connection within") as trouble:
            asyncio.run(send("openai/m", address, None, {"messages": COUNT}, timeout_s=20))
    assert not trouble.value.reached


def test_a_server_away_for_a_while_is_waited_for_and_one_that_stays_away_fails_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the number of attempts it would have failed: with these pauses they are over in a tenth of
    a second."""
    monkeypatch.setattr(llm, "BACK_OFF_S", 0.01)
    monkeypatch.setattr(llm, "LONGEST_PAUSE_LOST_S", 0.05)
    away = {"until": 0.0}
    script: Script = lambda _, n: Reply("back", drop=time.monotonic() < away["until"])  # noqa: E731
    configure(CallSettings(ledger=LocalLedger()))
    with openai_server(script) as server:
        assert asyncio.run(complete(teacher(server), COUNT))[0] == "back"
        away["until"] = time.monotonic() + 1
        text, usage = asyncio.run(complete(teacher(server), COUNT))
        assert (text, usage.calls) == ("back", 1)
        assert len(usage.faults) > llm.CALL_RETRIES + 1

        monkeypatch.setattr(llm, "LOST_S", 0.5)
        away["until"] = math.inf
        for most in (100, 1):
            with pytest.raises(ModelUnavailable, match="Connection error") as failed:
                asyncio.run(complete(teacher(server), COUNT))
            assert 1 <= len(failed.value.usage.faults) <= most


def test_the_key_reaches_the_server_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDACTION_TEST_KEY", KEY)
    turn, [asked] = decide(lambda _, n: GOOD, api_key_env="MEDACTION_TEST_KEY")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(turn)
    assert KEY not in json.dumps(asked.body)


def test_a_key_that_the_server_echoes_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDACTION_TEST_KEY", KEY)
    script: Script = lambda _, n: Reply(f"Incorrect API key provided: {KEY}", status=401)  # noqa: E731
    with (
        openai_server(script) as server,
        pytest.raises(ModelRefused, match="Incorrect API key") as failed,
    ):
        asyncio.run(
            LlmClinician(teacher(server, api_key_env="MEDACTION_TEST_KEY")).decide(
                Observation("o1", (), 8), seed=1
            )
        )
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
    """Every case plays in a loop of its own; the client must not outlive the loop that it was made
    in."""
    with openai_server(lambda _, n: GOOD) as server:
        clinician = LlmClinician(teacher(server))
        for seed in range(5):
            asyncio.run(clinician.decide(Observation("o1", (), 8), seed=seed))
    assert [asked.body["seed"] for asked in server.asked] == list(range(5))


def test_a_proxy_is_not_asked_for_a_server_on_this_machine() -> None:
    """In a process of its own: clients read the environment when they are made."""
    code = (
        "import asyncio, sys\nfrom medaction.llm.calls import complete\nfrom "
        "medaction.llm.teacher import Teacher\n"
        "print(asyncio.run(complete(Teacher.parse(sys.argv[1]), [{'role': 'user', 'content': "
        "'x'}]))[0])"
    )
    no_way_out = {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "NO_PROXY": "",
        "no_proxy": "",
    }
    with openai_server(lambda _, n: "here") as server:
        command = [sys.executable, "-c", code, f"openai/x@{server.url}"]
        done = subprocess.run(command, env=os.environ | no_way_out, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "here"), done.stderr


def test_turns_are_asked_concurrently() -> None:
    async def eight(clinician: LlmClinician) -> list[Turn]:
        return await asyncio.gather(
            *(clinician.decide(Observation("o1", (), 8), seed=seed) for seed in range(8))
        )

    with openai_server(lambda _, n: Reply(GOOD, after_s=0.5)) as server:
        clinician = LlmClinician(teacher(server))
        asyncio.run(clinician.decide(Observation("o1", (), 8), seed=0))
        turns = asyncio.run(eight(clinician))
    assert sum(turn.usage.seconds for turn in turns) > 8 * 0.5
    assert max(turn.usage.seconds for turn in turns) < 2.5


def test_a_plain_completion_in_another_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    with openai_server(
        lambda _, n: '{"n": 3}' if n == 0 else Reply("", finish_reason="length")
    ) as server:
        text, usage = asyncio.run(
            complete(teacher(server), [{"role": "user", "content": "count"}], schema)
        )
        with pytest.raises(MalformedReply, match="cut off"):
            asyncio.run(complete(teacher(server), [{"role": "user", "content": "count"}]))
    assert (text, usage.calls, usage.prompt_tokens) == ('{"n": 3}', 1, 100)
    assert server.asked[0].body["response_format"]["json_schema"]["schema"] == schema
    assert "response_format" not in server.asked[1].body


def test_the_prompt_version_is_the_clinicians() -> None:
    chosen = Teacher(name="t", model="openai/x")
    assert (
        prompt_version(chosen)
        == make_clinician(chosen).prompt_versions["schema"]
        == PROMPT_VERSIONS["schema"]
    )


def ask(server: OpenAIServer, seed: int | None = 1, **fields: Any) -> llm.Completion:
    return asyncio.run(call(teacher(server, **fields), COUNT, None, seed))


def test_a_repeated_call_costs_nothing(cached: CallSettings) -> None:
    with openai_server(lambda _, n: Reply(f"reply {n}", reasoning="hm")) as server:
        first = ask(server, usd_per_million_prompt_tokens=10)
        again = ask(server, usd_per_million_prompt_tokens=10, in_flight=3, timeout_s=5)
    assert len(server.asked) == 1
    assert first.usage.cost_usd == pytest.approx(100 * 10e-6)
    assert (again.text, again.thinking, again.finish_reason) == (first.text, "hm", "stop")
    assert again.usage == Usage(cached_calls=1)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"temperature": 0.5},
        {"top_p": 0.9},
        {"max_tokens": 77},
        {"model": "openai/other"},
        {"structured": "json_object"},
        {"mirrors": ("http://127.0.0.1:9/v1",), "seed": 3},
    ],
)
def test_any_other_call_is_made(cached: CallSettings, other: dict[str, Any]) -> None:
    schema = {"type": "object"}
    with openai_server(lambda _, n: f"reply {n}") as server:
        asyncio.run(call(teacher(server), COUNT, schema, 1))
        seed = other.get("seed", 1)
        asyncio.run(
            call(
                teacher(server, **{k: v for k, v in other.items() if k != "seed"}),
                COUNT,
                schema,
                seed,
            )
        )
        asyncio.run(call(teacher(server), [*COUNT, *COUNT], schema, 1))
        with openai_server(lambda _, n: "elsewhere") as elsewhere:
            asyncio.run(call(teacher(elsewhere), COUNT, schema, 1))
    assert (len(server.asked), len(elsewhere.asked)) == (3, 1)


def test_a_server_that_takes_no_seed_is_still_asked_once_a_seed(cached: CallSettings) -> None:
    with openai_server(lambda _, n: f"reply {n}") as server:
        chosen = teacher(server, left_out=["seed"])
        texts = [asyncio.run(complete(chosen, COUNT, seed=seed))[0] for seed in (1, 2, 1)]
    assert texts == ["reply 0", "reply 1", "reply 0"]
    assert all("seed" not in asked.body for asked in server.asked)


def test_modes_of_the_cache(cached: CallSettings) -> None:
    folder = cached.cache_folder
    with openai_server(lambda _, n: f"reply {n}") as server:
        configure(CallSettings("read", folder))
        assert [ask(server).text, ask(server).text] == ["reply 0", "reply 1"]
        configure(CallSettings("refresh", folder))
        assert [ask(server).text, ask(server).text] == ["reply 2", "reply 3"]
        configure(CallSettings("read", folder))
        assert [ask(server).text, ask(server).text] == ["reply 3", "reply 3"]
        configure(CallSettings("off", folder))
        assert ask(server).text == "reply 4"


@pytest.mark.parametrize("bad", [Reply("half", finish_reason="length"), Reply(" ")])
def test_what_is_no_whole_reply_is_not_kept(cached: CallSettings, bad: Reply) -> None:
    with openai_server(lambda _, n: "good" if n else bad) as server:
        first, second, third = ask(server), ask(server), ask(server)
    assert (first.usage.calls, second.text, third.usage.cached_calls, len(server.asked)) == (
        1,
        "good",
        1,
        2,
    )


def test_a_reply_that_its_reader_refused_is_not_given_again(cached: CallSettings) -> None:
    """Of two rollouts at once, the failing one loses that turn's replies and nothing else."""

    async def turn(chosen: Teacher, seed: int, fails: bool) -> str:
        with on_trial():
            said = (await call(chosen, COUNT, None, seed)).text
            if fails:
                raise MalformedReply("no", said)
            return said

    async def rollout(chosen: Teacher, seed: int, fails: bool) -> list[str]:
        return [await turn(chosen, seed, False), await turn(chosen, seed + 1, fails)]

    async def both(chosen: Teacher, fails: bool) -> list[Any]:
        return await asyncio.gather(
            rollout(chosen, 10, fails), rollout(chosen, 20, False), return_exceptions=True
        )

    with openai_server(lambda asked, n: f"{asked.body['seed']} at {n}") as server:
        first, second = (
            asyncio.run(both(teacher(server), True)),
            asyncio.run(both(teacher(server), False)),
        )
    assert [asked.body["seed"] for asked in server.asked[4:]] == [11]
    assert isinstance(first[0], MalformedReply)
    assert second[0][1] == "11 at 4"
    assert second[1] == first[1]


def test_errors_are_not_kept(cached: CallSettings) -> None:
    with openai_server(lambda _, n: "good" if n else Reply("no", status=400)) as server:
        with pytest.raises(ModelRefused):
            ask(server)
        assert ask(server).text == "good"


def test_what_a_cut_off_reply_cost_is_told() -> None:
    cut = Reply("half", finish_reason="length", prompt_tokens=1000, completion_tokens=5500)
    prices = {"usd_per_million_prompt_tokens": 1.0, "usd_per_million_completion_tokens": 2.0}
    with openai_server(lambda _, n: cut) as server, pytest.raises(MalformedReply) as failed:
        asyncio.run(complete(teacher(server, **prices), COUNT))
    assert failed.value.usage.cost_usd == pytest.approx(0.012)
    assert failed.value.usage.completion_tokens == 5500


def test_tokens_that_a_server_does_not_count_are_estimated() -> None:
    body = json.dumps(
        {"choices": [{"message": {"content": "four" * 50}, "finish_reason": "stop"}]}
    ).encode()
    with openai_server(lambda _, n: Reply(body=body)) as server:
        used = ask(server, usd_per_million_completion_tokens=1.0).usage
    assert (used.prompt_tokens, used.completion_tokens, used.cost_usd) == (
        2,
        50,
        pytest.approx(50e-6),
    )


def test_no_call_begins_after_the_budget_is_spent() -> None:
    """Two at once of a dollar each, on a budget of three: the overshoot is at most what was under
    way."""
    configure(CallSettings(ledger=LocalLedger()))
    thousand = Reply("x", after_s=0.05, prompt_tokens=1000, completion_tokens=0)

    async def many(chosen: Teacher) -> list[Any]:
        return await asyncio.gather(
            *(call(chosen, COUNT, None, seed) for seed in range(20)), return_exceptions=True
        )

    with openai_server(lambda _, n: thousand) as server:
        chosen = teacher(server, usd_per_million_prompt_tokens=1000, budget_usd=3, in_flight=2)
        results = asyncio.run(many(chosen))
        more = asyncio.run(call(chosen.model_copy(update={"budget_usd": 5.5}), COUNT, None, 1))
    configure(CallSettings())
    refused = [result for result in results if isinstance(result, BudgetSpent)]
    assert 3 <= 20 - len(refused) <= 4
    assert len(refused) + sum(isinstance(result, llm.Completion) for result in results) == 20
    assert "raise budget_usd" in str(refused[0])
    assert more.usage.cost_usd == pytest.approx(1)


def test_a_server_that_is_down_has_mirrors() -> None:
    with openai_server(lambda _, n: "never") as gone:
        pass
    with (
        openai_server(lambda _, n: Reply("one", after_s=0.05)) as one,
        openai_server(lambda _, n: Reply("two", after_s=0.05)) as two,
    ):
        chosen = teacher(gone, mirrors=(one.url, two.url))

        async def many() -> list[llm.Completion]:
            return await asyncio.gather(*(call(chosen, COUNT, None, seed) for seed in range(30)))

        replies = asyncio.run(many())
    assert len(replies) == len(one.asked) + len(two.asked) == 30
    assert min(len(one.asked), len(two.asked)) >= 5


def test_a_storm_of_refusals_is_weathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses a hundred calls in a row is asked at a fraction of the breadth after
    some of them, and at the old breadth some calls after the last: counted in calls, so that it
    holds on a machine of any speed."""
    monkeypatch.setattr(llm, "BACK_OFF_S", 0.02)

    def script(_: Asked, number: int) -> Reply:
        refused = 60 <= number < 160
        return Reply("busy", status=429, after_s=0.02) if refused else Reply("x", after_s=0.1)

    async def play(chosen: Teacher, number: int) -> None:
        for turn in range(20):
            await call(chosen, COUNT, None, 1000 * number + turn)

    async def everyone(chosen: Teacher) -> None:
        await asyncio.gather(*(play(chosen, number) for number in range(20)))

    with openai_server(script) as server:
        asyncio.run(everyone(teacher(server, in_flight=20, timeout_s=120)))
    under_way = [asked.under_way for asked in server.asked]
    assert len(under_way) == 20 * 20 + 100
    assert max(under_way[20:60]) >= 10
    assert max(under_way[130:160]) <= 5
    assert max(under_way[300:400]) >= 10


@pytest.mark.parametrize(
    "model", ["openai/some-model", "together_ai/some-model"], ids=["direct", "litellm"]
)
def test_connections_end_with_their_event_loop(model: str) -> None:
    """In a process of its own, where nothing of other tests is warned about."""
    code = (
        "import asyncio, gc, os, sys\nfrom medaction.llm.calls import complete\nfrom "
        "medaction.llm.teacher import Teacher\n"
        "chosen = Teacher.parse(sys.argv[1])\n"
        "for number in range(20):\n"
        "    asyncio.run(complete(chosen, [{'role': 'user', 'content': 'x'}]))\n"
        "    files = files if number else len(os.listdir('/proc/self/fd'))\n"
        "from medaction.llm import transport\ngc.collect()\n"
        "print(len(os.listdir('/proc/self/fd')) - files, len(transport._sessions), "
        "len(transport._endings))"
    )
    with openai_server(lambda _, n: "here") as server:
        command = [sys.executable, "-X", "dev", "-c", code, f"{model}@{server.url}"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["0"] * 3), done.stderr
    assert len(server.asked) == 20
    assert "nclosed" not in done.stderr


def test_a_key_is_nowhere_but_in_the_header(
    cached: CallSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that repeats the key: in a reply, in an error, in an address, in a header."""
    monkeypatch.setenv("MEDACTION_TEST_KEY", key := "sk-CANARY/0123456789+abcdef")
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(llm, "BACK_OFF_S", 0.01)
    echoes = [
        Reply(f"you sent {key}", reasoning=f"the key {key}"),
        Reply(
            f"bad key {key} at http://x/?key=sk-CANARY%2F0123456789%2Babcdef",
            status=401,
            headers={"X-Echo": key},
        ),
        Reply(
            body=f"<html>{key}</html>".encode(),
            headers={"Location": f"http://127.0.0.1:9/{key}"},
            status=302,
        ),
    ]
    told = ""
    with openai_server(lambda _, n: echoes[n]) as server:
        chosen = teacher(server, api_key_env="MEDACTION_TEST_KEY")
        told += repr(asyncio.run(call(chosen, COUNT, None, 0)))
        for seed in (1, 2):
            with pytest.raises(ModelRefused) as failed:
                asyncio.run(call(chosen, COUNT, None, seed))
            told += f"{failed.value!r} {failed.value.__dict__}"
    assert all(asked.headers["authorization"] == f"Bearer {key}" for asked in server.asked)
    assert "you sent ***" in told
    assert cached.cache_folder is not None
    kept = b"".join(file.read_bytes() for file in cached.cache_folder.iterdir())
    for text in (told, caplog.text, kept.decode(errors="replace")):
        assert "CANARY" not in text
