"""Ways in which real servers and models answer otherwise than OpenAI's own, each as a script for
`tests.openai_server`. A way plays (with so many requests for four turns), or ends in one line."""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from tests.openai_server import Asked, Reply

DISEASES = ("Sarcoidosis", "Tuberculosis")
TESTS = (
    "Complete blood count", "C-reactive protein", "Chest radiograph", "Serum creatinine",
    "Urinalysis", "Electrocardiogram", "MRI of the brain",
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """`requests` of a whole rollout; or what the line says with which it ends (`says`)."""

    answer: Callable[[Asked, int], Reply]
    requests: int = 4
    says: str = ""


def good(asked: Asked) -> dict[str, Any]:
    """The reply of the turn that is asked for: three turns of one test, then the diagnosis."""
    turn = int(re.findall(r"This is turn (\d+) of", question(asked))[-1])
    action = {"final_diagnosis": DISEASES[0]} if turn >= 4 else {"order_tests": [TESTS[turn - 1]]}
    return {
        "reasoning": f"Turn {turn}: enlarged nodes and fever leave two candidates.",
        "differential": [
            {"diagnosis": DISEASES[0], "confidence": 60},
            {"diagnosis": DISEASES[1], "confidence": 25},
        ],
        "pivot": "Does granulomatous or infectious disease explain the nodes?",
        "action": action,
    }


def question(asked: Asked) -> str:
    return next(row["content"] for row in asked.body["messages"] if row["role"] == "user")


def text_of(asked: Asked) -> str:
    return json.dumps(good(asked), ensure_ascii=False)


def says(change: Callable[[str], str], **fields: Any) -> Callable[[Asked, int], Reply]:
    """The good reply's text, changed."""
    return lambda asked, number: Reply(change(text_of(asked)), **fields)


def with_fields(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Reply]:
    """The good reply with some fields changed."""
    return lambda asked, number: Reply(
        json.dumps((value := good(asked)) | change(value), ensure_ascii=False)
    )


def rated(*confidences: Any) -> Callable[..., Reply]:
    return with_fields(
        lambda value: {
            "differential": [
                row | {"confidence": confidence}
                for row, confidence in zip(value["differential"], confidences, strict=False)
            ]
        }
    )


def acting(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., Reply]:
    """The good reply with another action in the turns that order tests."""
    return with_fields(
        lambda value: {
            "action": change(value["action"])
            if "order_tests" in value["action"]
            else value["action"]
        }
    )


def message(make: Callable[[str], dict[str, Any]], **more: Any) -> Callable[[Asked, int], Reply]:
    """An answer whose message is not the usual one; `more` are fields of the answer."""

    def answer(asked: Asked, number: int) -> Reply:
        written = {"role": "assistant"} | make(text_of(asked))
        value = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": asked.body["model"],
            "choices": [{"index": 0, "message": written, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 900, "completion_tokens": 150, "total_tokens": 1050},
        }
        return Reply(
            body=json.dumps(value | more).encode(), headers={"Content-Type": "application/json"}
        )

    return answer


def events(asked: Asked, number: int) -> Reply:
    """Server-sent events, two for the text."""
    text = text_of(asked)
    half = len(text) // 2
    rows: list[dict[str, Any]] = [
        {"choices": [{"delta": {"role": "assistant", "content": part}, "finish_reason": None}]}
        for part in (text[:half], text[half:])
    ]
    rows.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    lines = [f"data: {json.dumps(row)}\n\n" for row in rows]
    return Reply(
        body="".join([": keep-alive\n\n", *lines, "data: [DONE]\n\n"]).encode(),
        headers={"Content-Type": "text/event-stream"},
    )


def called(*arguments: str, key: str = "tool_calls") -> dict[str, Any]:
    """A message without content that calls a tool with these arguments."""
    calls = [{"name": "reply", "arguments": text} for text in arguments]
    if key == "function_call":
        return {"content": None, key: calls[0]}
    return {"content": None, key: [{"type": "function", "function": call} for call in calls]}


def tool_events(asked: Asked, number: int) -> Reply:
    """Server-sent events with their names, a tool call in two pieces."""
    text = text_of(asked)
    rows = [
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}}]}
        for part in (text[:50], text[50:])
    ]
    lines = [f"event: chunk\r\ndata: {json.dumps(row)}\r\n\r\n" for row in rows]
    return Reply(
        body="".join([*lines, "data: [DONE]\r\n\r\n"]).encode(),
        headers={"Content-Type": "text/event-stream"},
    )


def cut_stream(asked: Asked, number: int) -> Reply:
    """A stream that the token limit ended, and says so before its last chunk, which counts."""
    rows: list[dict[str, Any]] = [
        {"choices": [{"delta": {"content": text_of(asked)[:60]}, "finish_reason": "length"}]},
        {"choices": [{"delta": {}, "finish_reason": None}], "usage": {"completion_tokens": 20}},
    ]
    lines = [f"data: {json.dumps(row)}\n\n" for row in rows]
    return Reply(
        body="".join([*lines, "data: [DONE]\n\n"]).encode(),
        headers={"Content-Type": "text/event-stream"},
    )


def answering(make: Callable[[str], Any]) -> Callable[[Asked, int], Reply]:
    """Another body around the good reply's text."""
    return lambda asked, number: Reply(body=json.dumps(make(text_of(asked))).encode())


def counted(tokens: float) -> dict[str, float]:
    return {"prompt_tokens": tokens, "completion_tokens": tokens}


def choice(**fields: Any) -> Callable[[Asked, int], Reply]:
    """An answer whose one choice has no message."""
    return message(lambda text: {}, choices=[{"index": 0} | fields])


def body(make: Callable[[str], bytes], **headers: str) -> Callable[[Asked, int], Reply]:
    """A good answer as other bytes."""

    def answer(asked: Asked, number: int) -> Reply:
        written = message(lambda text: {"content": text})(asked, number).body
        assert written is not None
        return Reply(body=make(written.decode()), headers=headers)

    return answer


def differential(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[..., Reply]:
    return with_fields(lambda value: {"differential": change(value["differential"])})


def renamed(value: dict[str, Any], name: str, other: str) -> dict[str, Any]:
    return {other if key == name else key: inner for key, inner in value.items()}


def as_yaml(text: str) -> str:
    return f"```yaml\n{yaml.safe_dump(json.loads(text), sort_keys=False)}```"


def error(status: int, text: str, **fields: Any) -> Reply:
    body = {"error": {"message": text, "type": "invalid_request_error", "code": None} | fields}
    return Reply(status=status, body=json.dumps(body).encode())


def unless(
    refused: Callable[[Asked], bool], refusal: Reply, answer: Callable[..., Reply] | None = None
) -> Callable[[Asked, int], Reply]:
    """Refuses what it does not take, and answers the rest."""
    answer = answer or says(str)
    return lambda asked, number: refusal if refused(asked) else answer(asked, number)


def at_first(times: int, refusal: Reply) -> Callable[[Asked, int], Reply]:
    return lambda asked, number: refusal if number < times else Reply(text_of(asked))


def filled(form: str, text: str) -> Any:
    """The value of a form in JSON, in which "TEXT" stands for the reply's text, OBJECT for its
    object."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [fill(inner) for inner in value]
        return text if value == "TEXT" else json.loads(text) if value == "OBJECT" else value

    return fill(json.loads(form))


def in_body(form: str, **way: Any) -> Way:
    """Another body around the good reply's text, as its server writes it."""
    return Way(answering(lambda text: filled(form, text)), **way)


def in_message(form: str, **way: Any) -> Way:
    """A message of this form."""
    return Way(message(lambda text: filled(form, text)), **way)


def in_text(form: str, ending: str = "", **fields: Any) -> Way:
    """The good reply's text within other text, which has it at TEXT."""
    return Way(says(lambda text: form.replace("TEXT", text), **fields), says=ending)


def refuses(field: str, status: int, words: str, **fields: Any) -> Way:
    """Refuses what has the field, and answers the rest."""
    return Way(unless(has(field), error(status, words, **fields)), 5)


def refuses_schema(status: int, words: str, **fields: Any) -> Way:
    is_schema = unless(
        lambda asked: structured(asked) == "json_schema", error(status, words, **fields)
    )
    return Way(is_schema, 5)


def structured(asked: Asked) -> str:
    return str((asked.body.get("response_format") or {}).get("type"))


def has(name: str) -> Callable[[Asked], bool]:
    return lambda asked: name in asked.body


def prompt_tokens(asked: Asked) -> int:
    return sum(len(row["content"]) for row in asked.body["messages"]) // 4


def short_context(asked: Asked, number: int) -> Reply:
    """A context of 4,096 tokens, in vLLM's words."""
    tokens, most = prompt_tokens(asked), asked.body.get("max_tokens", 0)
    if tokens + most <= 4096:
        return Reply(text_of(asked))
    return error(
        400,
        f"'max_tokens' or 'max_completion_tokens' is too large: {most}. This model's maximum"
        f" context length is 4096 tokens and your request has {tokens} input tokens"
        f" ({most} > 4096 - {tokens}).",
    )


def too_long_for(tokens: int, words: str, **fields: Any) -> Callable[[Asked, int], Reply]:
    """A context of so many tokens, which the second turn outgrows by its record of the first."""

    def answer(asked: Asked, number: int) -> Reply:
        if prompt_tokens(asked) > tokens:
            return error(400, words, **fields)
        return Reply(json.dumps(good(asked) | {"reasoning": "It fits both. " * 420}))

    return answer


def shorter_context(asked: Asked, number: int) -> Reply:
    """A context that the prompt alone soon outgrows."""
    tokens = prompt_tokens(asked)
    if tokens <= 1450:
        return Reply(json.dumps(good(asked) | {"reasoning": "It fits both. " * 150}))
    return error(
        400,
        f"This model's maximum context length is 2000 tokens. However, your request has {tokens}"
        " input tokens. Please reduce the length of the input messages.",
    )


def chinese(asked: Asked, number: int) -> Reply:
    value = good(asked)
    names = ("结节病", "结核病")
    ranked = [
        row | {"diagnosis": name} for row, name in zip(value["differential"], names, strict=True)
    ]
    final = "final_diagnosis" in value["action"]
    action = {"final_diagnosis": names[0]} if final else value["action"]
    changed = value | {"reasoning": "考虑两种疾病。", "differential": ranked, "action": action}
    return Reply(json.dumps(changed, ensure_ascii=False))


WAYS: dict[str, Way] = {
    "ok": Way(says(str)),
    # frames, gateways and templates
    "r1_without_its_opening_tag": in_text("Okay, {x}.\n</think>\n\nTEXT"),
    "header_tokens": in_text("<|start_header_id|>assistant<|end_header_id|>\n\nTEXT<|eot_id|>"),
    "kimis_tool_tokens": in_text(
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.turn:0"
        "<|tool_call_argument_begin|>TEXT<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "python_tag": in_text('<|python_tag|>{"name": "turn", "parameters": TEXT}'),
    "html_code": Way(
        says(
            lambda text: (
                '<pre><code class="language-json">' + text.replace('"', "&quot;") + "</code></pre>"
            )
        )
    ),
    "an_object_a_key": Way(
        says(
            lambda text: "\n".join(
                json.dumps({key: inner}) for key, inner in json.loads(text).items()
            )
        )
    ),
    "no_context_for_a_case": Way(
        lambda asked, number: error(
            400, "This model's maximum context length is 512 tokens, and your request has 900"
        ),
        says="even when shortened, the prompt has about",
    ),
    "citation_marks": in_text("TEXT[1][3]"),
    "under_properties": in_text('{"type": "object", "properties": TEXT}'),
    "of_ten": Way(rated("6/10", "2.5/10")),
    "an_ellipsis": Way(
        acting(lambda action: {"order_tests": [*action["order_tests"], "..."]}), says="1 to 6 tests"
    ),
    "tests_by_kind": Way(
        acting(lambda action: {"order_tests": {"blood": action["order_tests"], "imaging": []}})
    ),
    "diagnosis_with_a_code": Way(
        differential(
            lambda rows: [
                row | {"diagnosis": {"name": row["diagnosis"], "icd10": "D86"}} for row in rows
            ]
        )
    ),
    "lone_surrogate_and_nul": Way(
        says(lambda text: text.replace("enlarged", "\\ud83d enlarged \\u0000"))
    ),
    "delta_for_message": in_body('{"choices": [{"delta": {"content": "TEXT"}}]}'),
    "gateway_frame": Way(
        body(lambda text: f'{{"result": {text}, "success": true, "errors": []}}'.encode())
    ),
    "no_error_in_base_resp": Way(
        message(lambda text: {"content": text}, base_resp={"status_code": 0, "status_msg": ""})
    ),
    # other interfaces, as gateways hand them on
    "anthropics_messages": in_body(
        '{"type": "message", "content": [{"type": "thinking", "thinking": "{x} fits both",'
        ' "signature": "s"}, {"type": "text", "text": "TEXT"}], "stop_reason": "end_turn",'
        ' "usage": {"input_tokens": 900, "output_tokens": 150}}'
    ),
    "anthropics_tool": Way(
        answering(
            lambda text: {
                "content": [{"type": "tool_use", "input": json.loads(text) | {"summary": "x"}}]
            }
        )
    ),
    "openais_responses": in_body(
        '{"object": "response", "status": "completed", "error": null, "incomplete_details": null,'
        ' "reasoning": {"effort": "medium", "summary": "auto"},'
        ' "text": {"format": {"type": "text"}, "verbosity": "medium"}, "output":'
        ' [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "{x}"}]},'
        ' {"type": "message", "content": [{"type": "output_text", "text": "TEXT"}]}]}'
    ),
    "responses_function_call": in_body(
        '{"object": "response", "status": "completed",'
        ' "output": [{"type": "reasoning", "id": "r", "summary": []}, {"type": "function_call",'
        ' "call_id": "c", "name": "reply", "arguments": "TEXT", "status": "completed"}],'
        ' "usage": {"input_tokens": 900, "output_tokens": 150, "total_tokens": 1050}}'
    ),
    "responses_refusal": in_body(
        '{"object": "response", "output": [{"type": "message", "content": [{"type": "refusal",'
        ' "refusal": "I cannot help."}]}]}',
        says="the model refused to answer: I cannot help",
    ),
    "responses_at_the_limit": in_body(
        '{"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},'
        ' "text": {"format": {"type": "text"}}, "output": [{"type": "reasoning", "summary": []}]}',
        says="at the token limit",
    ),
    "geminis_blocked_prompt": in_body(
        '{"promptFeedback": {"blockReason": "SAFETY"}}',
        says="400 the provider's content filter blocked the prompt: SAFETY",
    ),
    "geminis_candidates": in_body(
        '{"candidates": [{"content": {"parts": [{"text": "{x}", "thought": true},'
        ' {"text": "TEXT"}], "role": "model"}, "finishReason": "STOP"}],'
        ' "usageMetadata": {"promptTokenCount": 900, "candidatesTokenCount": 150}}'
    ),
    "bedrocks_reasoning": Way(
        answering(
            lambda text: filled(
                '{"output": {"message": {"role": "assistant", "content": [{"reasoningContent":'
                ' {"reasoningText": {"text": "DRAFT", "signature": "x"}}}, {"reasoningContent":'
                ' {"redactedContent": "eA=="}}, {"text": "TEXT"}]}}, "stopReason": "end_turn",'
                ' "usage": {"inputTokens": 900, "outputTokens": 150, "totalTokens": 1050}}'.replace(
                    '"DRAFT"', json.dumps(text.replace("60", "80"))
                ),
                text,
            )
        )
    ),
    "bedrocks_reasoning_alone": in_body(
        '{"output": {"message": {"role": "assistant", "content": [{"reasoningContent":'
        ' {"reasoningText": {"text": "TEXT"}}}]}}, "stopReason": "end_turn"}'
    ),
    "bedrocks_converse": in_body('{"output": {"message": {"content": [{"text": "TEXT"}]}}}'),
    "ollamas_generate": in_body('{"response": "TEXT", "done": true}'),
    "generated_text": in_body('[{"generated_text": "TEXT"}]'),
    "watsonx": in_body('{"results": [{"generated_text": "TEXT"}]}'),
    "lines_of_json": Way(
        lambda asked, number: Reply(
            body="\n".join(
                json.dumps({"message": {"content": part}, "done_reason": reason})
                for part, reason in (
                    (text_of(asked)[:50], None),
                    (text_of(asked)[50:], None),
                    ("", "stop"),
                )
            ).encode()
        )
    ),
    "anthropics_events": Way(
        lambda asked, number: Reply(
            body="\n\n".join(
                f"event: {row['type']}\ndata: {json.dumps(row)}"
                for row in (
                    {"type": "message_start", "message": {"content": [], "role": "assistant"}},
                    {"type": "content_block_delta", "delta": {"thinking": "It fits {both}."}},
                    {"type": "content_block_delta", "index": 1, "delta": {"text": text_of(asked)}},
                    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
                )
            ).encode()
        )
    ),
    "an_object_with_thinking": Way(
        message(lambda text: {"content": json.loads(text) | {"thinking": "it fits"}})
    ),
    "an_object_with_a_summary": Way(
        message(lambda text: {"content": json.loads(text) | {"summary": "it fits"}})
    ),
    "a_json_part_with_text": Way(
        message(
            lambda text: {"content": [{"type": "json", "json": json.loads(text) | {"text": "x"}}]}
        )
    ),
    "a_custom_tool": in_message(
        '{"tool_calls": [{"type": "custom", "custom": {"input": "TEXT"}}]}'
    ),
    "message_is_text": in_body('{"choices": [{"message": "TEXT"}]}'),
    "no_interface_at_all": in_body('{"answer": "TEXT"}', says="OpenAI-compatible"),
    "nested_without_end": Way(
        lambda asked, number: Reply(body=b"[" * 200_000), says="no chat completion"
    ),
    # what servers count
    "usage_is_a_list": Way(message(lambda text: {"content": text}, usage=[900, 150])),
    "usage_is_nan": Way(message(lambda text: {"content": text}, usage=counted(float("nan")))),
    "usage_is_endless": Way(message(lambda text: {"content": text}, usage=counted(float("inf")))),
    "usage_is_negative": Way(message(lambda text: {"content": text}, usage=counted(-1))),
    "cost_is_a_word": Way(message(lambda text: {"content": text}, usage={"cost": "unknown"})),
    # limits in words
    "n_ctx_beside_the_status": Way(
        too_long_for(
            2200,
            "the request exceeds the available context size. try increasing the context size or"
            " enable context shift",
            code=400,
            n_ctx=2200,
        ),
        requests=5,
    ),
    "no_limit_named": Way(
        too_long_for(2200, "Your input exceeds the context window of this model."), requests=7
    ),
    "a_comma_in_the_limit": Way(
        too_long_for(2200, "This model's maximum context length is 2,200 tokens."), requests=5
    ),
    "too_many_states": refuses_schema(
        400, "The specified schema produces a constraint that has too many states"
    ),
    "a_model_that_failed": Way(at_first(1, error(424, "The model failed")), requests=5),
    "sensitive": in_body(
        '{"choices": [{"message": {}, "finish_reason": "sensitive"}]}',
        says="the reply is empty (sensitive)",
    ),
    "stream_cut_once": Way(
        lambda asked, number: (
            Reply(body=b'data: {"choices": [{"delta": {"content": "{"}}]}\n\n')
            if number == 0
            else events(asked, number)
        ),
        requests=5,
    ),
    "flex_capacity": Way(at_first(1, error(498, "Flex tier capacity exceeded")), requests=5),
    "exclusive_range": Way(
        unless(
            lambda asked: asked.body["max_tokens"] > 4096,
            error(
                400,
                "Unable to submit request because it has a maxOutputTokens value of 5500 but the"
                " supported range is from 1 (inclusive) to 4097 (exclusive).",
            ),
        ),
        requests=5,
    ),
    "seed_forbidden_in_detail": Way(
        unless(
            has("seed"),
            Reply(
                status=422,
                body=json.dumps(
                    {"message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}}
                ).encode(),
            ),
        ),
        requests=5,
    ),
    # keys of another name, and what stands where a value is missing
    "probabilities": Way(
        differential(lambda rows: [renamed(row, "confidence", "probability") for row in rows])
    ),
    "named_rows": Way(
        differential(lambda rows: [renamed(row, "diagnosis", "name") for row in rows])
    ),
    "differential_diagnosis": Way(
        says(
            lambda text: json.dumps(
                renamed(json.loads(text), "differential", "differential_diagnosis")
            )
        )
    ),
    "thought": Way(
        says(lambda text: json.dumps(renamed(json.loads(text), "reasoning", "thought")))
    ),
    "numbered_diagnoses": Way(
        differential(
            lambda rows: [
                row | {"diagnosis": f"{rank}. {row['diagnosis']}"}
                for rank, row in enumerate(rows, 1)
            ]
        )
    ),
    "not_applicable": Way(acting(lambda action: action | {"final_diagnosis": "N/A"})),
    "empty_list_of_names": Way(acting(lambda action: action | {"final_diagnosis": [""]})),
    "last_brace_missing": Way(says(lambda text: text[:-1])),
    "last_braces_missing": Way(says(lambda text: text[:-2])),
    "made_up_turns_behind": Way(
        says(
            lambda text: (
                f"{text}<|im_end|>\n<|im_start|>user\nAll normal.<|im_end|>\n"
                "<|im_start|>assistant\n" + text.replace("60", "80")
            ),
            finish_reason="length",
        )
    ),
    "made_up_turns_of_llama": Way(
        says(
            lambda text: (
                f"{text}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|>"
                + text.replace("60", "80")
            )
        )
    ),
    "last_braces_missing_at_the_limit": Way(says(lambda text: text[:-2], finish_reason="length")),
    "words_cut_off_behind_the_object": in_text("TEXT\n\nNote that", finish_reason="length"),
    "last_braces_missing_in_a_fence": Way(says(lambda text: f"```json\n{text[:-2]}\n```")),
    "numbered_tests_with_a_gap": Way(
        acting(lambda action: {"tests": ["", *action["order_tests"] * 2, None]})
    ),
    "next_action": Way(
        says(lambda text: json.dumps(renamed(json.loads(text), "action", "next_action")))
    ),
    "a_line_twice": Way(differential(lambda rows: [*rows, rows[0]])),
    "two_confidences_of_one": Way(
        differential(lambda rows: [*rows, rows[0] | {"confidence": 5}]), says="stands twice"
    ),
    "in_words_and_percent": Way(rated("High (60 %)", "about 25 per cent")),
    "bounds": Way(rated(">60", "<25"), says="valid integer"),
    "rows_in_a_frame": Way(differential(lambda rows: {"diagnoses": rows})),
    "name_and_number": Way(
        differential(lambda rows: [f"{row['diagnosis']}: {row['confidence']}" for row in rows])
    ),
    "final_in_quotes": Way(
        with_fields(
            lambda value: {
                "action": {kind: f'"{text}." (90%)' for kind, text in value["action"].items()}
                if "final_diagnosis" in value["action"]
                else value["action"]
            }
        )
    ),
    "pivot_in_parts": Way(
        with_fields(lambda value: {"pivot": {"question": value["pivot"], "why": "it splits"}})
    ),
    "escaped_line_breaks": Way(
        says(lambda text: json.dumps(json.loads(text), indent=1).replace("\n", "\\n"))
    ),
    "words_beside_the_call": Way(
        message(lambda text: called(text) | {"content": "I shall answer by the tool."})
    ),
    "too_early": Way(at_first(1, error(425, "too early")), requests=5),
    "strict_is_unknown": refuses_schema(
        400, "Additional properties are not allowed ('strict' was unexpected)"
    ),
    "open_list": Way(says(lambda text: text.rstrip("]}")), says="one JSON object"),
    "whole_at_the_limit": Way(says(str, finish_reason="length")),
    "ollamas_own": in_body('{"message": {"content": "TEXT"}, "done": true}'),
    "latin_1": Way(
        body(
            lambda text: text.replace("enlarged", "vergrößerte").encode("latin-1"),
            **{"Content-Type": "application/json; charset=iso-8859-1"},
        )
    ),
    "utf_8_as_latin_1": Way(
        body(
            lambda text: text.replace("enlarged", "vergrößerte").encode(),
            **{"Content-Type": "application/json; charset=iso-8859-1"},
        )
    ),
    "null_as_second_choice": in_body('{"choices": [{"message": {"content": "TEXT"}}, null]}'),
    "words_and_call_as_two_choices": in_body(
        '{"choices": [{"message": {"content": "I order a test."}},'
        ' {"message": {"tool_calls": [{"function": {"arguments": "TEXT"}}]}}]}'
    ),
    "schema_not_implemented": refuses_schema(501, "response_format json_schema is not implemented"),
    "keyword_argument": refuses("seed", 500, "create() got an unexpected keyword argument 'seed'"),
    # where the reply stands
    "reasoning_content_only": in_message('{"content": null, "reasoning_content": "TEXT"}'),
    "reasoning_content_and_prose": Way(
        message(lambda text: {"content": "", "reasoning_content": f"I think of nodes.\n{text}"})
    ),
    "reasoning_only": in_message('{"content": null, "reasoning": "TEXT"}'),
    "parts": in_message('{"content": [{"type": "text", "text": "TEXT"}]}'),
    "thinking_parts": in_message(
        '{"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "nodes"}]},'
        ' {"type": "text", "text": "TEXT"}]}'
    ),
    "tool_call": in_message(
        '{"content": null, "tool_calls": [{"type": "function", "id": "1",'
        ' "function": {"name": "r", "arguments": "TEXT"}}]}'
    ),
    "reasoning_details": Way(
        message(
            lambda text: {
                "content": "",
                "reasoning_details": [{"type": "reasoning.text", "text": f"I think.\n{text}"}],
            }
        )
    ),
    "one_part": in_message('{"content": {"type": "text", "text": "TEXT"}}'),
    "content_as_the_object": in_message('{"content": "OBJECT"}'),
    "json_part": in_message('{"content": [{"type": "json", "json": "OBJECT"}]}'),
    "parsed": in_message('{"content": null, "parsed": "OBJECT"}'),
    "function_call": Way(message(lambda text: called(text, key="function_call"))),
    # Of a proxy that writes out every field of the protocol (Snowflake).
    "empty_fields": in_message(
        '{"content": "TEXT", "refusal": "", "tool_calls": null, "annotations": null, "audio":'
        ' {"data": "", "expires_at": 0, "id": "", "transcript": ""},'
        ' "function_call": {"arguments": "", "name": ""}}'
    ),
    "call_without_arguments": in_message(
        '{"content": "TEXT", "tool_calls": [{"function": {"name": "search"}}]}'
    ),
    "equal_tool_calls": Way(message(lambda text: called(text, text))),
    "other_tool_calls": Way(
        message(lambda text: called(text, "{}")), says="2 tool calls that diff"
    ),
    "tool_call_in_a_stream": Way(tool_events),
    "cut_stream": Way(cut_stream, says="cut off at the token limit"),
    "tool_call_in_the_text": in_text('<tool_call>\n{"name": "r", "arguments": TEXT}\n</tool_call>'),
    "arguments_as_text": Way(says(lambda text: json.dumps({"name": "r", "arguments": text}))),
    "tool_calls_mark": in_text('[TOOL_CALLS][{"name": "r", "arguments": TEXT}]'),
    "input_and_output_tokens": Way(
        message(lambda text: {"content": text}, usage={"input_tokens": 900, "output_tokens": 99})
    ),
    "plain_text_type": Way(body(str.encode, **{"Content-Type": "text/plain"})),
    "html_type": Way(body(str.encode, **{"Content-Type": "text/html; charset=utf-8"})),
    "gzip": Way(body(lambda text: gzip.compress(text.encode()), **{"Content-Encoding": "gzip"})),
    "byte_order_mark_of_the_answer": Way(body(lambda text: f"\ufeff{text}".encode())),
    "blocked": Way(choice(finish_reason="content_filter"), says="content filter"),
    "safety": Way(choice(finish_reason="SAFETY"), says="content filter"),
    "error_of_a_kind_in_a_200": in_body(
        '{"error": {"type": "authentication_error", "message": "invalid x-api-key"}}',
        says="401 invalid x-api-key",
    ),
    "choice_with_an_error": Way(
        choice(finish_reason="error", error={"code": 402, "message": "Insufficient credits"}),
        says="402 Insufficient credits",
    ),
    "error_event": Way(
        lambda asked, number: Reply(
            body=b'data: {"choices": [{"delta": {"content": "{"}}]}\n\n'
            b'data: {"error": {"code": 400, "message": "the model broke off"}}\n\n'
        ),
        says="400 the model broke off",
    ),
    "legacy_text": in_body('{"choices": [{"text": "TEXT"}], "usage": {}}'),
    "no_usage": Way(message(lambda text: {"content": text}, usage=None)),
    "keep_alive_lines": Way(
        lambda asked, number: Reply(
            body=b"\n\n\n"
            + json.dumps({"choices": [{"message": {"content": text_of(asked)}}]}).encode()
        )
    ),
    "only_events": Way(events),
    "only_streams": Way(
        unless(
            lambda asked: not asked.body.get("stream"),
            error(400, "This model only supports stream mode, please enable the stream parameter."),
            events,
        ),
        5,
    ),
    "error_in_200": Way(
        lambda asked, number: Reply(
            text_of(asked),
            body=None if number else b'{"error": {"code": 502, "message": "upstream"}}',
        ),
        5,
    ),
    "refusal": in_message(
        '{"content": null, "refusal": "I cannot help with medicine."}',
        says="the model refused to answer: I cannot help",
    ),
    "refusal_text": in_text("I can't give medical advice.", ending="not one JSON obj"),
    "content_filter": in_text("", finish_reason="content_filter", ending="content filter"),
    "filtered_400": Way(
        lambda asked, number: error(
            400, "The response was filtered due to the content policy.", param="prompt"
        ),
        says="filtered due to",
    ),
    "no_choices": Way(message(lambda text: {}, choices=[]), says="no chat completion"),
    "cut": Way(says(lambda text: text[: len(text) // 2]), says="not one JSON object"),
    "thoughts_alone_at_the_limit": Way(
        message(
            lambda text: {"content": None},
            choices=[{"index": 0, "finish_reason": "length", "message": {"role": "assistant"}}],
        ),
        says="cut off at the token limit before it began",
    ),
    "length": Way(
        says(lambda text: text[: len(text) // 2], finish_reason="length"), says="at the token limit"
    ),
    "empty_first": Way(
        lambda asked, number: Reply("" if number % 2 == 0 else text_of(asked)), requests=8
    ),
    # the form of the JSON
    "fenced": in_text("```json\nTEXT\n```"),
    "fenced_prose": in_text("My answer:\n\n```json\nTEXT\n```\n\nMore?"),
    "prose_before": in_text("Sure, here is the JSON object:\nTEXT"),
    "prose_after": in_text("TEXT\n\nNote [1]: research use only."),
    "trailing_comma": Way(says(lambda text: f"{text[:-2]},}}}}")),
    "single_quotes": Way(says(lambda text: repr(json.loads(text)))),
    "newline_in_string": Way(says(lambda text: text.replace("leave two", "leave\ntwo"))),
    "array_wrapped": in_text("[TEXT]"),
    "byte_order_mark": in_text("\ufeffTEXT"),
    "json_in_a_string": Way(says(json.dumps)),
    "typographic_quotes": Way(says(lambda text: re.sub('"(.*?)"', "“\\1”", text))),
    "framed": in_text('{"response": TEXT}'),
    "paragraphs": Way(with_fields(lambda value: {"reasoning": [value["reasoning"], "So."]})),
    "two_frames": in_text('{"data": {"result": TEXT}}'),
    "frame_with_a_list": in_text('{"replies": [TEXT]}'),
    "quotes_of_german": Way(says(lambda text: re.sub('"(.*?)"', "„\\1“", text))),
    "quotes_of_swedish": Way(says(lambda text: text.replace('"', "”"))),
    "html_entities": Way(says(lambda text: text.replace('"', "&quot;"))),
    "escaped_quotes": Way(says(lambda text: text.replace('"', '\\"'))),
    "keys_without_quotes": Way(says(lambda text: re.sub(r'"(\w+)":', r"\1:", text))),
    "yaml": Way(says(as_yaml)),
    "wide_punctuation": Way(says(lambda text: text.replace('": "', '"： "'))),
    "spaces_that_do_not_break": Way(says(lambda text: text.replace(": ", ":\u00a0"))),
    "answer_tags": in_text("<answer>TEXT</answer>"),
    "harmony_constrain": in_text(
        "<|channel|>analysis<|message|>both fit<|end|><|start|>assistant"
        "<|channel|>final <|constrain|>json<|message|>TEXT<|return|>"
    ),
    "draft_and_reply": in_text(
        'Draft: {"pivot": "or not?"}\nReply: TEXT', ending="objects that differ"
    ),
    "without_a_comma": Way(
        says(lambda text: text.replace(', "pivot"', ' "pivot"')), says="',' del"
    ),
    "markdown_table": in_text(
        "| Diagnosis | % |\n|---|---|\n| Sarcoidosis | 60 |", ending="not one JSON"
    ),
    "xml": in_text("<reply><pivot>why</pivot></reply>", ending="not one JSON object"),
    "pairs": Way(
        differential(lambda rows: [[row["diagnosis"], row["confidence"]] for row in rows])
    ),
    "rows_by_rank": Way(differential(lambda rows: {str(i): row for i, row in enumerate(rows, 1)})),
    "rows_by_name": Way(
        differential(
            lambda rows: {row["diagnosis"]: {"confidence": row["confidence"]} for row in rows}
        )
    ),
    "rows_of_one_key": Way(
        differential(lambda rows: [{row["diagnosis"]: row["confidence"]} for row in rows])
    ),
    "differential_as_lines": Way(
        differential(
            lambda rows: "\n".join(
                f"{i}. {row['diagnosis']} ({row['confidence']}%)" for i, row in enumerate(rows, 1)
            )
        )
    ),
    "differential_as_json_text": Way(differential(json.dumps)),
    "action_by_its_type": Way(
        acting(lambda action: {"type": "order_tests", "tests": action["order_tests"]})
    ),
    "action_as_json_text": Way(acting(lambda action: json.dumps(action))),  # type: ignore[arg-type, return-value]
    "none_beside": Way(acting(lambda action: action | {"final_diagnosis": "None"})),
    "tests_by_rank": Way(acting(lambda action: {"order_tests": {"1": action["order_tests"][0]}})),
    "tests_with_reasons": Way(
        acting(
            lambda action: {
                "order_tests": [{"name": name, "why": "?"} for name in action["order_tests"]]
            }
        )
    ),
    "numbered_tests": Way(
        acting(lambda action: {"order_tests": [f"1. {action['order_tests'][0]}"]})
    ),
    "pivot_in_a_list": Way(with_fields(lambda value: {"pivot": [value["pivot"]]})),
    "reasoning_in_steps": Way(
        with_fields(lambda value: {"reasoning": {"step 1": value["reasoning"], "step 2": "So."}})
    ),
    "differential_as_an_object": Way(
        with_fields(lambda value: {"differential": dict(zip(DISEASES, (60, 25), strict=True))})
    ),
    "percents_behind_the_names": Way(
        with_fields(lambda value: {"differential": [f"{name} (45%)" for name in DISEASES]})
    ),
    "tests_as_objects": Way(
        acting(lambda action: {"order_tests": [{"test": name} for name in action["order_tests"]]})
    ),
    "end_token": in_text("TEXT<|im_end|>"),
    "think_tags": in_text("<think>\nboth fit\n</think>\n\nTEXT"),
    "think_end_only": in_text("both fit\n</think>\n\nTEXT"),
    "think_unclosed": in_text("<think>\nboth fit\nTEXT"),
    "thinking_tags": in_text("<thinking>\nboth fit\n</thinking>\nTEXT"),
    "medgemma": in_text("<unused94>thought\nboth fit<unused95>TEXT"),
    "harmony": in_text(
        "<|channel|>analysis<|message|>both fit<|end|>"
        "<|start|>assistant<|channel|>final<|message|>TEXT<|return|>"
    ),
    "surrogate": Way(says(lambda text: text.replace("candidates", "candidates \\ud83d"))),
    "nul": Way(says(lambda text: text.replace("two c", "two\\u0000 c"))),
    # the grammar
    "diagnoses_as_strings": Way(
        with_fields(lambda value: {"differential": list(DISEASES)}), says="differential.0"
    ),
    "percent_signs": Way(rated("60%", "25 %")),
    "fractions": Way(rated(0.6, 0.25)),
    "whole_floats": Way(rated(60.0, 25.0)),
    "half_percent": Way(rated(62.5, 25)),
    "numbers_as_text": Way(rated("60", "25")),
    "percent_in_words": Way(rated("60 percent", "25 percent")),
    "of_a_hundred": Way(rated("60/100", "25/100")),
    "about": Way(rated("~60%", "~25%")),
    "decimal_comma": Way(rated("62,5", "25")),
    "percent_without_quotes": Way(says(lambda text: re.sub(r'("confidence": \d+)', r"\1%", text))),
    "a_range": Way(rated("60-70%", "25%"), says="valid integer"),
    "above_100": Way(rated(160, 25), says="less than or equal to 100"),
    "no_number": Way(says(lambda text: text.replace("60", "NaN", 1)), says="valid integer"),
    "words": Way(rated("high", "low"), says="valid integer"),
    "ones_and_noughts": Way(rated(1, 0), says="percent or fractions"),
    "mixed_scales": Way(rated(0.6, 25), says="some fractions"),
    "more_than_100": Way(rated(90, 90)),
    "tests_in_one_string": Way(acting(lambda action: {"order_tests": action["order_tests"][0]})),
    "joined_tests": Way(
        acting(lambda action: {"order_tests": [f"{action['order_tests'][0]} and ESR"]})
    ),
    "seven_tests": Way(acting(lambda action: {"order_tests": list(TESTS)}), says="1 to 6 tests"),
    "both_actions": Way(
        acting(lambda action: action | {"final_diagnosis": "X"}), says="never both"
    ),
    "null_beside": Way(acting(lambda action: action | {"final_diagnosis": None})),
    "flat": Way(says(lambda text: json.dumps((value := json.loads(text)) | value.pop("action")))),
    "more_keys": Way(with_fields(lambda value: {"next_steps": "none"})),
    "other_case": Way(
        says(lambda text: json.dumps({k.title(): v for k, v in json.loads(text).items()}))
    ),
    "a_diagnosis_twice": Way(
        with_fields(
            lambda value: {
                "differential": [
                    *value["differential"],
                    {"diagnosis": "sarcoidosis", "confidence": 5},
                ]
            }
        ),
        says="stands twice",
    ),
    "nine_diagnoses": Way(
        with_fields(
            lambda value: {
                "differential": value["differential"]
                + [{"diagnosis": f"Disease {place}", "confidence": 2} for place in range(7)]
            }
        )
    ),
    "another_final_diagnosis": Way(
        says(
            lambda text: text.replace(
                '"final_diagnosis": "Sarcoidosis"', '"final_diagnosis": "Pulmonary sarcoidosis"'
            )
        )
    ),
    "second_as_final": Way(
        says(lambda text: text.replace('sis": "Sarcoidosis"}}', 'sis": "Tuberculosis"}}')),
        says="does not lead your differential",
    ),
    "chinese": Way(chinese),
    # what the server refuses
    "no_json_schema": refuses_schema(400, "This response_format type is unavailable now"),
    "json_object_only": refuses_schema(
        400, "Model does not support 'json_schema' response format.", param="x"
    ),
    "no_response_format": refuses(
        "response_format", 400, "Unrecognized request argument: response_format"
    ),
    "no_seed": refuses("seed", 400, "Unrecognized request argument supplied: seed"),
    "no_seed_422": Way(
        unless(
            has("seed"),
            Reply(
                status=422,
                body=b'{"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs not '
                b'permitted"}]}',
            ),
        ),
        5,
    ),
    "no_response_format_by_fastapi": Way(
        unless(
            has("response_format"),
            Reply(
                status=422,
                body=b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "response_format"], '
                b'"msg": "Extra inputs are not permitted", "input": {"type": "json_schema"}}]}',
            ),
        ),
        5,
    ),
    "no_temperature": refuses(
        "temperature", 400, "Unsupported value: 'temperature' does not support 0.6 with this model."
    ),
    "max_completion_tokens": refuses(
        "max_tokens", 400, "'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    ),
    "short_replies": Way(
        unless(
            lambda asked: asked.body["max_tokens"] > 4096,
            error(400, "max_tokens is too large: this model supports at most 4096 tokens"),
        ),
        5,
    ),
    "no_system_role": Way(
        unless(
            lambda asked: asked.body["messages"][0]["role"] == "system",
            error(400, "System role not supported"),
        ),
        5,
    ),
    "seed_and_schema": Way(
        lambda asked, number: (
            error(400, "unknown parameter seed")
            if "seed" in asked.body
            else error(400, "response_format: json_schema is not available")
            if structured(asked) == "json_schema"
            else Reply(text_of(asked))
        ),
        6,
    ),
    "context_in_a_500": Way(
        unless(
            lambda asked: asked.body["max_tokens"] > 4000,
            error(500, "the request exceeds the available context size (4096 tokens)"),
        ),
        5,
    ),
    "short_context": Way(short_context, 5),
    "shorter_context": Way(shorter_context, 5),
    "html_500": Way(
        at_first(1, Reply(status=500, body=b"<html><h1>Internal Server Error</h1></html>")), 5
    ),
    "overloaded": Way(at_first(2, error(529, "Overloaded")), 6),
    "retry_after": Way(at_first(1, Reply(status=429, headers={"Retry-After": "0"})), 5),
    "dropped": Way(lambda asked, number: Reply(text_of(asked), drop=number == 1), 5),
    "slow": Way(lambda asked, number: Reply(text_of(asked), after_s=0.3)),
    "redirect": Way(
        lambda asked, number: Reply(
            status=308, body=b"", headers={"Location": "https://models.example/v1"}
        ),
        says="308 the server sends calls to https://models.example/v1: give that address",
    ),
    "challenge": Way(
        lambda asked, number: Reply(
            status=403, body=b"<html><style>p {}</style><title>Just a moment</title></html>"
        ),
        says="403 Just a moment",
    ),
    "busy": Way(at_first(3, error(429, "Rate limit reached")), 7),
    "loading": Way(at_first(2, error(503, "Loading model")), 6),
    "gateway": Way(at_first(2, Reply(status=502, body=b"<html>Bad Gateway</html>")), 6),
    "quota": Way(
        lambda asked, number: error(429, "You exceeded your quota", code="insufficient_quota"),
        says="exceeded your quota",
    ),
    "no_balance": Way(lambda asked, number: error(402, "Insufficient Balance"), says="402 Insuff"),
    "no_such_model": Way(
        lambda asked, number: error(404, "The model does not exist", code="model_not_found"),
        says="404 The model does not exist",
    ),
}


def mending(way: Way) -> Callable[[Asked, int], Reply]:
    """The same way until the client says what is wrong; then the good reply."""

    def answer(asked: Asked, number: int) -> Reply:
        told = sum(row["role"] == "user" for row in asked.body["messages"]) > 1
        return Reply(text_of(asked)) if told else way.answer(asked, number)

    return answer
