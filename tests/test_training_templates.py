"""Chat templates of the kinds that base models have: the prompt is what a server renders, the loss
is on the reply and its end mark, and what cannot be learnt is refused in one line.

The templates are written for these tests, each with the traits of the family that it is named
after.
"""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "transformers", reason="training is not installed (pip install 'medaction[train]')"
)

from medaction.training.data import prepare_samples, read_datasets, refuse_bent
from medaction.training.settings import TrainError, TrainSettings
from medaction.training.templates import Renderer, switches_of, without_thinking
from tests.tiny_model import ASKED, dataset, tiny_tokenizer

REPLY = {
    "role": "assistant",
    "content": json.dumps({"reasoning": "Malaria is common there.", "pivot": "which fever"}),
}
EMPTY = "<think>\n\n</think>\n\n"

# Thinks unless told not to; its last assistant's turn always has a block of thoughts.
QWEN3 = (
    "{%- for m in messages %}"
    "{%- if m.role == 'assistant' %}"
    "{%- set parts = m.content.split('</think>') %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if loop.last %}"
    "{{- '<think>\\n' + (parts[0].split('<think>')[-1].strip('\\n') if parts | length > 1 else '')"
    " + '\\n</think>\\n\\n' }}"
    "{%- endif %}"
    "{{- parts[-1].lstrip('\\n') + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)
# No system role, the model's role has another name, and a turn must follow the other's.
GEMMA2 = (
    "{{- '<bos>' }}"
    "{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{%- endif %}"
    "{%- for m in messages %}"
    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{%- endif %}"
    "{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n'"
    " + m.content | trim + '<end_of_turn>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"
)
# As Gemma 2, but the system's text is put before the user's.
GEMMA3 = (
    "{{- '<bos>' }}"
    "{%- if messages[0].role == 'system' %}"
    "{%- set first = messages[0].content + '\\n\\n' %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set first = '' %}{%- set rest = messages %}{%- endif %}"
    "{%- for m in rest %}"
    "{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n'"
    " + (first if loop.first else '') + m.content | trim + '<end_of_turn>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"
)
MISTRAL1 = (
    "{{- '<s>' }}"
    "{%- for m in messages %}"
    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user') }}{%- endif %}"
    "{%- if m.role == 'user' %}{{- '[INST] ' + m.content + ' [/INST]' }}"
    "{%- else %}{{- ' ' + m.content + '</s>' }}{%- endif %}"
    "{%- endfor %}"
)
LLAMA3 = (
    "{{- '<|begin_of_text|>' }}"
    "{%- for m in messages %}"
    "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim"
    " + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
# The reply's channel is part of what the model writes.
GPT_OSS = (
    "{%- for m in messages %}"
    "{%- if m.role == 'assistant' %}"
    "{%- if m.thinking %}{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking"
    " + '<|end|>' }}{%- endif %}"
    "{{- '<|start|>assistant<|channel|>final<|message|>' + m.content"
    " + ('<|return|>' if loop.last else '<|end|>') }}"
    "{%- else %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"
)
# A turn ends where the next one begins: nothing to learn to stop by.
GLM = (
    "{{- '[gMASK]<sop>' }}"
    "{%- for m in messages %}"
    "{{- '<|' + m.role + '|>\\n' + ('<think></think>\\n' if m.role == 'assistant' else '')"
    " + m.content }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think></think>\\n' }}"
    "{%- endif %}{%- endif %}"
)
# Opens a block of thoughts in every prompt, and writes another, empty one before a reply.
TWO_BLOCKS = (
    "{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.role == 'assistant' and loop.last %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{{- m.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)

MARKS = {
    "qwen3": (QWEN3, ("<|im_start|>", "<|im_end|>")),
    "gemma2": (GEMMA2, ("<bos>", "<start_of_turn>", "<end_of_turn>")),
    "gemma3": (GEMMA3, ("<bos>", "<start_of_turn>", "<end_of_turn>")),
    "mistral1": (MISTRAL1, ("<s>", "</s>")),
    "llama3": (
        LLAMA3,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "gpt-oss": (GPT_OSS, ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")),
    "glm": (GLM, ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|endoftext|>")),
    "two-blocks": (TWO_BLOCKS, ("<|im_start|>", "<|im_end|>")),
}


def tokenizer_of(family: str) -> Any:
    return tiny_tokenizer(*MARKS[family])


@pytest.mark.parametrize(
    ("family", "target"),
    [
        ("qwen3", "{reply}<|im_end|>"),
        ("gemma2", "{reply}<end_of_turn>"),
        ("gemma3", "{reply}<end_of_turn>"),
        ("mistral1", " {reply}</s>"),
        ("llama3", "{reply}<|eot_id|>"),
        ("gpt-oss", "<|channel|>final<|message|>{reply}<|return|>"),
    ],
)
def test_the_loss_is_on_the_reply_as_it_is_served(family: str, target: str) -> None:
    tokenizer = tokenizer_of(family)
    tokens, begin = Renderer(tokenizer)([*ASKED, REPLY])
    assert tokenizer.decode(tokens[begin:]) == target.format(reply=REPLY["content"])
    prompt = tokenizer.decode(tokens[:begin])
    for message in ASKED:
        assert prompt.count(message["content"]) == 1


def test_a_template_without_a_system_role_has_its_text_before_the_users() -> None:
    for family in ("gemma2", "mistral1"):
        prompt, _ = Renderer(tokenizer_of(family)).texts([*ASKED, REPLY])
        assert f"{ASKED[0]['content']}\n\n{ASKED[1]['content']}" in prompt


def test_a_template_without_an_end_mark_is_refused_in_one_line() -> None:
    with pytest.raises(TrainError, match="no special token") as error:
        Renderer(tokenizer_of("glm"))([*ASKED, REPLY])
    assert "\n" not in str(error.value)


def test_thinking_that_the_prompt_opens_is_closed_at_once_or_after_the_thoughts() -> None:
    renderer = Renderer(tokenizer_of("two-blocks"))
    prompt, target = renderer.texts([*ASKED, REPLY])
    assert (prompt + target).endswith(f"{EMPTY}{REPLY['content']}<|im_end|>")
    prompt, target = renderer.texts([*ASKED, REPLY], "It may be malaria.")
    assert target == f"It may be malaria.\n</think>\n\n{REPLY['content']}<|im_end|>"


def test_two_blocks_of_thoughts_are_refused() -> None:
    closed = TWO_BLOCKS.replace("assistant\\n<think>\\n'", "assistant\\n'")
    assert closed != TWO_BLOCKS
    renderer = Renderer(tiny_tokenizer(closed))
    renderer([*ASKED, REPLY])
    with pytest.raises(TrainError, match="--thinking empty"):
        renderer([*ASKED, REPLY], "It may be malaria.")


def test_a_template_that_fails_is_an_error_of_its_own() -> None:
    with pytest.raises(TrainError, match="cannot be rendered: broken"):
        Renderer(tiny_tokenizer("{{ raise_exception('broken') }}"))


def test_a_record_without_thinking_has_no_empty_block_in_its_target() -> None:
    prompt, target = Renderer(tokenizer_of("qwen3")).texts([*ASKED, REPLY])
    assert prompt.endswith(f"assistant\n{EMPTY}")
    assert "<think>" not in target


def test_thinking_of_the_data_is_a_target_under_a_prompt_with_thinking_on() -> None:
    prompt, target = Renderer(tokenizer_of("qwen3")).texts([*ASKED, REPLY], "It may be malaria.")
    assert prompt.endswith("assistant\n")
    assert target.startswith("<think>\nIt may be malaria.\n</think>\n\n{")


@pytest.mark.parametrize(
    ("thinking", "data", "taught"),
    [
        ("keep", "Data's.", "Data's."),
        ("keep", "", ""),
        ("empty", "Data's.", ""),
        ("from-reasoning", "Data's.", "Data's."),
        ("from-reasoning", "", "Malaria is common there."),
    ],
)
def test_the_setting_says_what_is_taught(thinking: Any, data: str, taught: str) -> None:
    renderer = Renderer(tokenizer_of("qwen3"), thinking)
    assert renderer.taught_thinking(REPLY["content"], data) == taught
    _, target = renderer.texts([*ASKED, REPLY], data)
    assert target.startswith(f"<think>\n{taught}\n" if taught else REPLY["content"])


def test_a_free_form_reply_has_no_reasoning_to_take() -> None:
    renderer = Renderer(tokenizer_of("qwen3"), "from-reasoning")
    assert renderer.taught_thinking("I think of malaria.", "") == ""


def test_a_model_that_was_taught_no_thinking_is_served_without() -> None:
    tokenizer = tokenizer_of("qwen3")
    trained_on, _ = Renderer(tokenizer).texts([*ASKED, REPLY])
    tokenizer.chat_template = without_thinking(QWEN3)
    served = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    assert served == trained_on
    on = tokenizer.apply_chat_template(
        ASKED, tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    assert on.endswith("assistant\n")


def test_a_field_of_a_message_is_no_switch() -> None:
    assert switches_of(QWEN3) == ("enable_thinking",)
    assert switches_of(GPT_OSS) == ()
    assert switches_of("{% if message['thinking'] %}{% endif %}") == ()
    assert switches_of("{% if thinking %}{% endif %}") == ("thinking",)


def test_a_limit_that_bends_the_data_is_refused_until_it_is_allowed(tmp_path: Path) -> None:
    dataset(tmp_path / "first", turn=1)
    long = [*ASKED, REPLY | {"content": "fever " * 200}]
    dataset(tmp_path / "second", turn=2, final=True, messages=long)
    folders = [str(tmp_path / name) for name in ("first", "second")]
    settings = TrainSettings(data=folders, out=tmp_path / "out", max_length=100)
    prepared = prepare_samples(
        read_datasets(settings), Renderer(tokenizer_of("qwen3")), settings.max_length
    )
    shares = {(item.kind, item.value): (item.dropped, item.records) for item in prepared.shares}
    assert shares["turn", "1"] == (0, 32)
    assert shares["turn", "2"] == shares["ending", "diagnosis"] == (32, 32)
    assert shares["teacher", "a"] == (16, 32)
    with pytest.raises(TrainError, match=r"32 of 32 records of turn 2.*--allow-dropped"):
        refuse_bent(prepared, settings.max_length)
