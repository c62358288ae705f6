"""Every way of `tests.other_servers` plays, or ends in one line that says why."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from medaction.clinicians.make import make_clinician
from medaction.envs.episode import Episode
from medaction.envs.oracle import Oracle
from medaction.envs.reply import parse_reply
from medaction.evaluation.free_text import read_decision
from medaction.evaluation.judges import LlmJudge
from medaction.evaluation.protocol import protocol
from medaction.llm import calls
from medaction.llm.calls import (
    CallSettings,
    ModelDeclined,
    ModelError,
    ModelRefused,
    TeacherStopped,
    complete,
    configure,
)
from medaction.llm.limits import EQUAL_REFUSALS, EQUAL_REFUSALS_LATER, LocalLedger
from medaction.llm.negotiation import TAKES_ALL, Demands, learn
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import Teacher
from medaction.llm.usage import MENDED, Message
from medaction.trajectories.records import RolloutSpec, Trajectory
from medaction.trajectories.rollout import RolloutFailed, play
from tests.openai_server import Asked, Reply, Script, openai_server
from tests.other_servers import WAYS, at_first, mending, refuses
from tests.records import environment

COUNT = [{"role": "user", "content": "count"}]
HUMAN_DECISION = {
    "refusal", "refusal_text", "responses_refusal", "error_of_a_kind_in_a_200", "content_filter",
    "filtered_400", "quota", "no_balance", "no_such_model", "blocked", "safety",
    "geminis_blocked_prompt", "choice_with_an_error", "redirect", "challenge",
}  # fmt: skip


@pytest.fixture(autouse=True)
def a_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one test's servers refuse is not remembered in the next."""
    monkeypatch.setattr(calls, "BACK_OFF_S", 0.01)
    configure(CallSettings(ledger=LocalLedger()))
    yield
    configure(CallSettings())


def rollout(
    script: Script, rollouts: int = 1, model: str = "openai/some-model", **fields: Any
) -> tuple[list[Trajectory | RolloutFailed], list[Asked]]:
    world = environment()
    with openai_server(script) as server:
        teacher = Teacher.model_validate(
            {"model": model, "api_base": server.url, "timeout_s": 20} | fields
        )
        clinician = make_clinician(teacher)

        async def all_of_them() -> Any:
            return await asyncio.gather(
                *(
                    play(
                        RolloutSpec(
                            world.environment_id, world.case_id, "t", "schema", sample, "x"
                        ),
                        Episode(world, Oracle(world.menu)),
                        clinician,
                    )
                    for sample in range(rollouts)
                ),
                return_exceptions=True,
            )

        return asyncio.run(all_of_them()), server.asked


@pytest.mark.parametrize("name", WAYS)
def test_a_way_plays_or_ends_in_one_line(name: str) -> None:
    way = WAYS[name]
    [result], asked = rollout(way.answer)
    if way.says:
        assert isinstance(result, RolloutFailed), result
        assert isinstance(result.__cause__, ModelError | MalformedReply)
        assert way.says in str(result.__cause__)
        return
    assert isinstance(result, Trajectory), result.__cause__
    assert (result.outcome, len(result.turns), len(asked)) == ("diagnosed", 4, way.requests)
    for turn in result.turns:
        assert turn.usage.prompt_tokens > 10
        assert turn.usage.completion_tokens > 0
        assert parse_reply(turn.raw, turn.number, last_turn=False).raw == turn.raw
        assert "Ã" not in turn.raw  # UTF-8 that was read as Latin-1


def test_at_least_four_in_five_of_the_ways_that_ask_for_no_human_decision_play() -> None:
    open_ways = [way for name, way in WAYS.items() if name not in HUMAN_DECISION]
    assert sum(not way.says for way in open_ways) >= 0.8 * len(open_ways)


@pytest.mark.parametrize("name", ["cut", "words", "both_actions", "seven_tests", "refusal_text"])
def test_a_model_that_can_mend_its_reply_plays(name: str) -> None:
    [result], asked = rollout(mending(WAYS[name]))
    assert isinstance(result, Trajectory), result.__cause__
    assert len(asked) > 4


def test_a_servers_own_traceback_is_read_through_litellm() -> None:
    words = "Traceback (most recent call last): TypeError: create() got an unexpected keyword"
    way = refuses("seed", 500, f"{words} argument 'seed'")
    [result], asked = rollout(way.answer, model="together_ai/some-model")
    assert isinstance(result, Trajectory), result.__cause__
    assert len(asked) == 5


def test_an_answer_that_litellm_cannot_read_is_asked_for_again() -> None:
    cut = at_first(1, Reply(body=b'{"choices": [{"message": {"content": "'))
    [result], asked = rollout(cut, model="together_ai/some-model")
    assert isinstance(result, Trajectory), result.__cause__
    assert len(asked) == 5
    parts = Reply(body=b'{"choices": [{"message": {"content": [{"type": "text", "text": "x"}]}}]}')
    [result], asked = rollout(lambda _, number: parts, model="together_ai/some-model")
    assert isinstance(result, RolloutFailed)
    assert "Traceback" not in str(result.__cause__)
    assert {request.body["response_format"]["type"] for request in asked} == {"json_schema"}


@pytest.mark.parametrize(
    "name", ["ok", "reasoning_content_only", "tool_call", "no_usage", "fenced_prose"]
)
def test_litellms_way_reads_the_same(name: str) -> None:
    [result], asked = rollout(WAYS[name].answer, model="together_ai/some-model")
    assert isinstance(result, Trajectory), result.__cause__
    assert len(asked) == 4
    assert all(turn.usage.completion_tokens > 0 for turn in result.turns)


def test_the_same_content_in_any_form_is_the_same_trajectory() -> None:
    forms = ("ok", "fenced_prose", "prose_before", "trailing_comma", "percent_signs", "fractions",
             "flat", "other_case", "tests_in_one_string", "parts", "only_events")  # fmt: skip
    played = [rollout(WAYS[name].answer)[0][0] for name in forms]
    texts = {tuple(turn.raw for turn in result.turns) for result in played}  # type: ignore[union-attr]
    assert len(texts) == 1


def test_bedrocks_thoughts_are_thinking_and_no_words_of_the_reply() -> None:
    [result], _ = rollout(WAYS["bedrocks_reasoning"].answer)
    assert isinstance(result, Trajectory)
    assert '"confidence": 80' in result.turns[0].thinking
    assert result.turns[0].usage.faults == ()


def test_what_was_mended_is_on_record_with_the_reply_as_it_came() -> None:
    [result], _ = rollout(WAYS["fenced_prose"].answer)
    assert isinstance(result, Trajectory)
    faults = [fault for turn in result.turns for fault in turn.usage.faults]
    assert [fault.error_class for fault in faults] == [MENDED] * 4
    assert faults[0].message == "words around the object"
    assert faults[0].raw.startswith("My answer:")


@pytest.mark.parametrize("name", ["refusal", "responses_refusal", "content_filter", "blocked"])
def test_who_will_not_answer_is_asked_once_and_what_it_cost_is_kept(name: str) -> None:
    [result], asked = rollout(WAYS[name].answer)
    assert isinstance(result, RolloutFailed)
    assert isinstance(result.__cause__, ModelDeclined)
    assert result.__cause__.raw in ("I cannot help with medicine.", "I cannot help.", "")
    assert len(asked) == result.usage.calls == 1
    assert result.usage.completion_tokens > 0
    assert [fault.error_class for fault in result.usage.faults] == ["ModelDeclined"]


def test_a_reader_that_declines_is_no_fault_of_the_model_under_test() -> None:
    refusal = {"choices": [{"message": {"content": None, "refusal": "No."}}]}
    with openai_server(lambda *_: Reply(body=json.dumps(refusal).encode())) as server:
        reader = Teacher.parse(f"openai/reader@{server.url}")
        with pytest.raises(ModelError, match="the reader") as declined:
            asyncio.run(read_decision(reader, "I think of gout."))
    assert not isinstance(declined.value, ModelDeclined)


def test_who_will_answer_no_prompt_is_stopped() -> None:
    words = iter(range(100))  # a model finds new ones for each

    def script(asked: Asked, number: int) -> Reply:
        refusal = {"content": None, "refusal": f"No, {next(words)}."}
        return Reply(body=json.dumps({"choices": [{"message": refusal}]}).encode())

    async def prompts(teacher: Teacher) -> None:
        for number in range(EQUAL_REFUSALS):
            with pytest.raises(ModelDeclined):
                await complete(teacher, [{"role": "user", "content": f"{number}"}])
        # Unreadable, as those that were sent: leaving cases out must not raise a score.
        with pytest.raises(ModelDeclined, match="stopped, refused at least 10 times"):
            await complete(teacher, COUNT)

    with openai_server(script) as server:
        asyncio.run(prompts(Teacher.parse(f"openai/m@{server.url}")))
        assert len(server.asked) == EQUAL_REFUSALS


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("no_json_schema", "structured=json_object"),
        ("no_response_format", "structured=none"),
        ("no_seed", "seed=none"),
        ("no_temperature", "temperature=none"),
    ],
)
def test_a_setting_spares_the_refused_call(name: str, setting: str) -> None:
    with openai_server(WAYS[name].answer) as server:
        teacher = Teacher.parse(f"openai/some-model@{server.url};{setting}")
        [result], asked = rollout(WAYS[name].answer, **teacher.model_dump(exclude={"api_base"}))
    assert isinstance(result, Trajectory)
    assert len(asked) == 4


def test_a_parameter_is_refused_once_a_run_however_many_begin_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    results, asked = rollout(WAYS["seed_and_schema"].answer, rollouts=6)
    assert all(isinstance(result, Trajectory) for result in results)
    assert len(asked) == 6 * 4 + 2
    told = [row.message for row in caplog.records if "for the rest of the run" in row.message]
    assert len(told) == 2
    assert "';seed=none' after the model's name" in told[0]


@pytest.mark.parametrize("name", ["no_json_schema", "no_response_format", "no_seed"])
def test_a_judge_and_an_oracle_negotiate_too(name: str) -> None:
    """The same servers, judging: they refuse as they do, and else say that it is correct."""

    def script(asked: Asked, number: int) -> Reply:
        turn = Asked(
            {**asked.body, "messages": [{"role": "user", "content": "This is turn 1 of"}]}, {}
        )
        refused = WAYS[name].answer(turn, number).status >= 300
        verdict = Reply('```json\n{"Answer": "correct", "why": "alias"}\n```')
        return WAYS[name].answer(turn, number) if refused else verdict

    world = environment()
    with openai_server(script) as server:
        judge = LlmJudge(Teacher(name="judge", model="openai/m", api_base=server.url))
        assert asyncio.run(judge.diagnosis("Sarcoidosis", world, protocol("fixed")))
        assert asyncio.run(judge.diagnosis("Besnier-Boeck", world, protocol("fixed")))
    assert len(server.asked) == 3


def test_a_long_prompt_is_shortened_to_the_models_context() -> None:
    [result], asked = rollout(WAYS["shorter_context"].answer)
    assert isinstance(result, Trajectory)
    sizes = [sum(len(row["content"]) for row in request.body["messages"]) // 4 for request in asked]
    assert max(sizes[2:]) <= 1450
    assert all(request.body["max_tokens"] < 2000 for request in asked[2:])


def test_a_teacher_stops_after_equal_refusals_and_another_goes_on() -> None:
    results, asked = rollout(WAYS["no_balance"].answer, rollouts=12)
    causes = [type(result.__cause__) for result in results]
    assert causes.count(TeacherStopped) == 12 - EQUAL_REFUSALS
    assert len(asked) == EQUAL_REFUSALS
    stopped = next(r.__cause__ for r in results if isinstance(r.__cause__, TeacherStopped))
    assert "402 Insufficient Balance" in str(stopped)
    assert isinstance(rollout(WAYS["ok"].answer, name="another")[0][0], Trajectory)


def test_refusals_that_a_reply_interrupts_stop_nobody() -> None:
    script: Script = lambda asked, n: WAYS["filtered_400"].answer(asked, n) if n % 3 else "fine"  # noqa: E731
    with openai_server(script) as server:
        teacher = Teacher(model="openai/some-model", api_base=server.url)
        for number in range(18):
            with suppress(ModelRefused):
                asyncio.run(complete(teacher, COUNT, seed=number))
    assert len(server.asked) == 18


def test_a_teacher_that_has_replied_is_given_more_refusals() -> None:
    """What a filter refuses of many calls at once comes before the replies to the others."""
    script: Script = lambda asked, n: WAYS["filtered_400"].answer(asked, n) if n else "fine"  # noqa: E731
    with openai_server(script) as server:
        teacher = Teacher(model="openai/some-model", api_base=server.url)
        for number in range(EQUAL_REFUSALS_LATER + 9):
            with suppress(ModelRefused, TeacherStopped):
                asyncio.run(complete(teacher, prompt(number)))
    assert len(server.asked) == 1 + EQUAL_REFUSALS_LATER


def test_a_prompt_that_a_filter_refuses_is_one_refusal_however_often_it_is_sent() -> None:
    """All rollouts of a case begin with the same prompt."""
    script: Script = lambda asked, n: WAYS["filtered_400"].answer(asked, n)  # noqa: E731
    with openai_server(script) as server:
        teacher = Teacher(model="openai/some-model", api_base=server.url)
        for number in range(3 * EQUAL_REFUSALS):
            with suppress(ModelRefused):
                asyncio.run(complete(teacher, prompt(number % 3), seed=number))
    assert len(server.asked) == 3 * EQUAL_REFUSALS


def test_a_streams_lines_end_at_line_ends_alone() -> None:
    words = "one\u2028two\x85three\x0cfour"
    event = {"choices": [{"delta": {"content": words}, "finish_reason": "stop"}]}
    stream = f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\ndata: [DONE]\n\n".encode()
    reply = Reply(body=stream, headers={"Content-Type": "text/event-stream"})
    with openai_server(lambda asked, n: reply) as server:
        teacher = Teacher(model="openai/some-model", api_base=server.url)
        assert asyncio.run(complete(teacher, COUNT))[0] == words


@pytest.mark.parametrize(
    "body",
    [
        {"message": "Model is loading"},
        {
            "status": "failed",
            "error": {"code": "server_error", "message": "try again"},
            "output": [],
            "text": {"format": {"type": "text"}},
        },
    ],
)
def test_what_stands_where_there_is_no_reply_is_not_read_as_one(body: dict[str, Any]) -> None:
    no_reply = Reply(body=json.dumps(body).encode())
    with openai_server(lambda asked, n: "fine" if n else no_reply) as server:
        teacher = Teacher(model="openai/some-model", api_base=server.url)
        assert asyncio.run(complete(teacher, COUNT))[0] == "fine"


def test_a_stream_that_repeats_the_whole_at_its_end_is_read_once() -> None:
    """MiniMax's does."""
    rows = [
        {"delta": {"role": "assistant", "content": "one "}},
        {"delta": {"content": "two"}},
        {"message": {"role": "assistant", "content": "one two"}, "finish_reason": "stop"},
    ]
    stream = "".join(f"data: {json.dumps({'choices': [row]})}\n\n" for row in rows).encode()
    reply = Reply(body=stream, headers={"Content-Type": "text/event-stream"})
    with openai_server(lambda asked, n: reply) as server:
        teacher = Teacher(model="openai/some-model", api_base=server.url)
        assert asyncio.run(complete(teacher, COUNT))[0] == "one two"


def prompt(number: int) -> list[Message]:
    return [{"role": "user", "content": f"{number}"}]


@pytest.mark.parametrize("address", ["", "/v1", "/v1/", "/v1/chat/completions"])
def test_an_address_is_read_with_and_without_its_path(address: str) -> None:
    with openai_server(lambda asked, number: "fine") as server:
        teacher = Teacher(model="openai/m", api_base=server.url.removesuffix("/v1") + address)
        assert asyncio.run(complete(teacher, COUNT))[0] == "fine"


FULL = {
    "messages": [{"role": "system", "content": "s" * 800}, {"role": "user", "content": "u" * 2800}],
    "max_tokens": 5500,
    "temperature": 0.6,
    "seed": 1,
    "response_format": {"type": "json_schema"},
}
LONGEST_CONTEXT = [
    "prompt is too long: 8000 tokens > 4096 maximum",  # Anthropic
    "input length and `max_tokens` exceed context limit: 900 + 5500 > 4096, decrease input length",
    "Prompt contains 5000 tokens, too large for model with 4096 maximum context length",  # Mistral
    "The input token count (5000) exceeds the maximum number of tokens allowed (4096).",  # Gemini
    # TGI, Together
    "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 900 `inputs` tokens and 5500",
    "the request exceeds the available context size, try increasing it n_ctx 4096",  # llama.cpp
    "request (900 tokens) exceeds the available context size (4096 tokens)",
    # LM Studio
    "the context overflows. However, the model is loaded with context length of only 4096 tokens",
    "The input (900 tokens) is longer than the model's context length (4096 tokens).",  # SGLang
    "Requested token count exceeds the model's maximum context length of 4096 tokens.",
    "The decoder prompt (length 900) is longer than the maximum model length of 4096.",  # vLLM
    "too many tokens: the prompt cannot exceed 4096 - received 5000",  # Cohere
    "Your request exceeded model token limit: 4096 (requested: 7130)",  # Moonshot
    "Total tokens of image and text exceed max message tokens 4096",  # Doubao
    "Range of input length should be [1, 4096]",  # Qwen's own service
    # Groq
    "Request too large on tokens per minute (TPM): Limit 4096, Requested 6400, please reduce",
    # OpenAI, DeepSeek
    "This model's maximum context length is 4096 tokens. However, you requested 6400 tokens (900"
    " in the messages, 5500 in the completion).",
]
MOST_REPLY = [
    "max_tokens: 5500 > 4096, which is the maximum allowed number of output tokens",  # Anthropic
    "Invalid max_tokens value, the valid range of max_tokens is [1, 4096]",  # DeepSeek
    "Range of max_tokens should be [1, 4096]",  # Qwen's own service
    "max_tokens is too large: 5500. This model supports at most 4096 completion tokens",  # OpenAI
    "`max_tokens` must be less than or equal to `4096`",  # Groq
    "the maxOutputTokens supported range is from 1 (inclusive) to 4097 (exclusive)",  # Vertex
    # OpenAI's Responses, with a status behind it as one-api does
    "Invalid 'max_output_tokens': integer above maximum value. Expected <= 4096, not 5500. 400",
    "The maximum tokens you requested exceeds the model limit of 4096.",  # Bedrock
    "max_new_tokens exceeds 4096, the limit of m-2024-08-06, by 1404",  # no number of its name
]
NO_SCHEMA = [
    "This model does not support response format `json_schema`.",  # Groq
    "The provided JSON schema contains features not supported by xgrammar.",  # vLLM
    "Unknown name \"additionalProperties\" at 'generation_config.response_schema'",  # Gemini
    "response_format value as json_schema is enabled only for api versions 2024-08-01-preview",
    "Invalid schema for response_format 'reply': 'required' is required to be supplied",  # OpenAI
    "failed to parse grammar",  # llama.cpp
    "The specified schema produces a constraint that has too many states",  # Gemini
    # of gateways, in spellings of their own
    "not supported by this endpoint: response-format",
    "JSON-schema mode is off",
    "The parameter `responseFormat` is not available",
    "schema response_format is not allowed here",
]
NOTHING_TO_CHANGE = [
    "Your credit balance is too low",
    "Input is too long for requested model.",
    "You exceeded your current quota for input tokens, please check your plan",
    "Your prompt was flagged: exceeds the allowed harm threshold",
    "The image in the prompt is too large",
    "Message content exceeds policy",
    "body failed schema validation: messages.0.role must be one of user, assistant",
    "Invalid value for tool schema id",
]
NO_SYSTEM_ROLE = [
    "Developer instruction is not enabled for models/gemma-3-27b-it",  # Gemini
    "This model doesn't support system messages.",  # Bedrock
    "Conversation roles must alternate user/assistant/user/assistant/...",  # vLLM, by a template
    "Only user and assistant roles are supported!",  # by Mistral's first template
]


def test_documented_refusals_name_what_is_to_be_changed() -> None:
    def lesson(text: str) -> Demands:
        learnt = learn(FULL, TAKES_ALL, 400, text)
        assert learnt is not None, text
        return learnt[0]

    assert {text: lesson(text).context_tokens for text in LONGEST_CONTEXT} == dict.fromkeys(
        LONGEST_CONTEXT, 4096
    )
    assert {lesson(text).most_reply_tokens for text in MOST_REPLY} == {4096}
    assert all(lesson(text).structured != "json_schema" for text in NO_SCHEMA)
    of_the_schema = "Invalid schema for response_format 'turn': 'maxItems' is not permitted."
    assert lesson(of_the_schema).structured == "json_object"
    assert all(lesson(text).no_system_role for text in NO_SYSTEM_ROLE)
    assert lesson("enable_thinking must be set to false for non-streaming calls").stream
    for name in ("seed", "temperature"):
        assert lesson(f'Invalid JSON payload received. Unknown name "{name}"').left_out == {name}
    for text in NOTHING_TO_CHANGE:
        assert learn(FULL, TAKES_ALL, 400, text) is None, text
