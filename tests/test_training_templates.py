"""Chat templates of the kinds that base models have: the prompt is what a server renders, the loss
is on the reply and its end mark, and what cannot be learnt is refused in one line.

The templates are written for these tests, each with the traits of the family that it is named
after.
"""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip(
    "transformers", reason="training is not installed (pip install 'medaction[train]')"
)

from transformers import AutoTokenizer

from medaction.training.data import prepare_samples, read_datasets, refuse_bent
from medaction.training.settings import TrainError, TrainSettings
from medaction.training.soft_prompt import add_soft_prompt
from medaction.training.templates import Renderer, served_as_taught, switches_of, with_thinking_set
from tests.tiny_model import ASKED, dataset, tiny_tokenizer

pytestmark = pytest.mark.train

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

# The system's text goes before the last message, so it is lost once a reply is the last one.
MISTRAL3 = (
    "{{- '<s>' }}"
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}"
    "{%- for m in turns %}"
    "{%- if m.role == 'user' and loop.last and system is defined %}"
    "{{- '[INST] ' + system + '\\n\\n' + m.content + '[/INST]' }}"
    "{%- elif m.role == 'user' %}{{- '[INST] ' + m.content + '[/INST]' }}"
    "{%- else %}{{- ' ' + m.content + '</s>' }}{%- endif %}"
    "{%- endfor %}"
)
# Thoughts have a channel; a prompt without thinking closes an empty one, which no history has.
GEMMA4 = (
    "{{- '<bos>' }}"
    "{%- for m in messages %}"
    "{{- '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}"
    "{%- if m.reasoning %}{{- '<|channel>thought\\n' + m.reasoning + '\\n<channel|>' }}{%- endif %}"
    "{{- m.content + '<turn|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|turn>model\\n' }}"
    "{%- if not enable_thinking | default(false) %}{{- '<|channel>thought\\n<channel|>' }}"
    "{%- endif %}{%- endif %}"
)

# Thoughts are left out of a conversation (Nemotron).
CUT = (
    "{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content.split('</think>')[-1].lstrip()"
    " + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# Another word for thoughts, which every prompt opens (EXAONE Deep).
THOUGHT = CUT.replace("think>", "thought>").replace("assistant\\n'", "assistant\\n<thought>\\n'")

# Leaves thoughts out, and the lines between them and the reply in.
CUT_OPEN = CUT.replace(".lstrip()", "")
# Begins the next turn whether or not it is to be generated (Command A).
COMMAND_A = (
    "{%- for m in messages %}"
    "{{- '<|START|><|' + m.role + '|>' }}"
    "{%- if m.role == 'assistant' %}{{- '<|RESPONSE|>' }}{%- endif %}"
    "{{- m.content + '<|END|>' }}"
    "{%- endfor %}"
    "{{- '<|START|><|assistant|>' }}"
)
# As Gemma 4, but with a channel for thoughts beside tool calls alone.
GEMMA4_TOOLS = GEMMA4.replace("if m.reasoning", "if m.reasoning and m.tool_calls")

# A prompt without thinking begins the reply with a closed block, and no line breaks are about it.
DEEPSEEK31 = (
    "{{- '<s>' }}"
    "{%- for m in messages %}"
    "{%- if m.role == 'assistant' %}"
    "{{- '<|Assistant|></think>' + m.content.split('</think>')[-1] + '</s>' }}"
    "{%- else %}{{- ('<|User|>' if m.role == 'user' else '') + m.content }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|Assistant|>' + ('<think>' if thinking else '</think>') }}{%- endif %}"
)
# Thoughts are a part of a message's content; two turns of one role in a row are refused.
MAGISTRAL = (
    "{{- '<s>' }}"
    "{%- for m in messages %}"
    "{%- if m.role == 'system' %}{{- '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}"
    "{%- elif m.role == 'user' %}"
    "{%- if loop.index0 and messages[loop.index0 - 1].role == 'user' %}"
    "{{ raise_exception('roles must alternate') }}{%- endif %}"
    "{{- '[INST]' + m.content + '[/INST]' }}"
    "{%- elif m.content is string %}{{- m.content + '</s>' }}"
    "{%- else %}"
    "{%- for part in m.content %}"
    "{%- if part.type == 'thinking' %}{{- '[THINK]' + part.thinking + '[/THINK]' }}"
    "{%- else %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{{- '</s>' }}{%- endif %}"
    "{%- endfor %}"
)
# Thoughts are a block of a message's content; another form of it is refused.
APERTUS = (
    "{%- for m in messages %}"
    "{{- '<|' + m.role + '_start|>' }}"
    "{%- if m.content is string %}{{- m.content }}"
    "{%- elif m.content is mapping and 'blocks' in m.content %}"
    "{%- for block in m.content.blocks %}"
    "{{- '<|inner|>' + block.text + '<|/inner|>' if block.type == 'thoughts' else block.text }}"
    "{%- endfor %}"
    "{%- else %}{{ raise_exception('Invalid content') }}{%- endif %}"
    "{{- '<|end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant_start|>' }}{%- endif %}"
)
# Thoughts are a message of their own, with the end mark of a reply (Solar Open).
TWO_ENDS = GPT_OSS.replace("<|return|>", "<|end|>")
# The prompt has a line break where the conversation has a space.
OTHER_SPACE = (
    "{%- for m in messages %}"
    "{{- '<|' + m.role + '|>' + (' ' if m.role == 'assistant' else '\n') + m.content + '<|end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}"
)
# Has the word of Magistral's parts for something else, and writes a list as Python does.
EFFORT = (
    "{%- if effort == 'thinking' %}{{- 'Think first.' }}{%- endif %}"
    "{%- for m in messages %}"
    "{{- '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# One mark begins and ends a turn.
ONE_MARK = (
    "{{- '<|turn|>' }}"
    "{%- for m in messages %}{{- m.role + '\\n' + m.content + '<|turn|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'assistant\\n' }}{%- endif %}"
)
# The last turn has no end mark (Olmo 3 has the tokenizer's there).
UNENDED = (
    "{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' + m.content }}"
    "{%- if not (loop.last and m.role == 'assistant') %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# Every reply has a block of thoughts, empty or not, and no prompt opens one.
KIMI = (
    "{%- for m in messages %}"
    "{{- '<|im_' + m.role + '|>' + m.role + '<|im_middle|>' }}"
    "{%- if m.role == 'assistant' %}"
    "{{- '<think>' + (m.reasoning_content or '') + '</think>' }}{%- endif %}"
    "{{- m.content + '<|im_end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_assistant|>assistant<|im_middle|>' }}{%- endif %}"
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
    "mistral3": (MISTRAL3, ("<s>", "</s>")),
    "gemma4": (GEMMA4, ("<bos>", "<|turn>", "<|channel>", "<channel|>", "<turn|>")),
    "cut": (CUT, ("<|im_start|>", "<|im_end|>")),
    "cut-open": (CUT_OPEN, ("<|im_start|>", "<|im_end|>")),
    "command-a": (COMMAND_A, ("<|START|>", "<|user|>", "<|assistant|>", "<|RESPONSE|>", "<|END|>")),
    "thought": (THOUGHT, ("<|im_start|>", "<|im_end|>")),
    "two-blocks": (TWO_BLOCKS, ("<|im_start|>", "<|im_end|>")),
    "deepseek3.1": (DEEPSEEK31, ("<s>", "<|User|>", "<|Assistant|>", "</s>")),
    "magistral": (MAGISTRAL, ("<s>", "[SYSTEM_PROMPT]", "[INST]", "[THINK]", "[/THINK]", "</s>")),
    "apertus": (APERTUS, ("<|assistant_start|>", "<|inner|>", "<|/inner|>", "<|end|>")),
    "other-space": (OTHER_SPACE, ("<|user|>", "<|assistant|>", "<|end|>")),
    "effort": (EFFORT, ("<|im_start|>", "<|im_end|>")),
    "qwen3-effort": (
        "{%- set deep = effort == 'thinking' %}" + QWEN3,
        ("<|im_start|>", "<|im_end|>"),
    ),
    "one-mark": (ONE_MARK, ("<|turn|>",)),
    "unended": (UNENDED, ("<|im_start|>", "<|im_end|>", "<|endoftext|>")),
    "kimi": (KIMI, ("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>")),
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
        ("mistral3", " {reply}</s>"),
        ("gemma4", "{reply}<turn|>"),
        ("thought", "\n</thought>\n\n{reply}<|im_end|>"),
        ("command-a", "<|RESPONSE|>{reply}<|END|>"),
        ("deepseek3.1", "{reply}</s>"),
        ("magistral", "{reply}</s>"),
        ("apertus", "{reply}<|end|>"),
        ("other-space", "{reply}<|end|>"),
        ("one-mark", "{reply}<|turn|>"),
        ("unended", "{reply}<|endoftext|>"),
        ("kimi", "<think></think>{reply}<|im_end|>"),
    ],
)
def test_the_loss_is_on_the_reply_as_it_is_served(family: str, target: str) -> None:
    tokenizer = tokenizer_of(family)
    renderer = Renderer(tokenizer)
    [(tokens, begin)] = renderer.tokenize([renderer.texts([*ASKED, REPLY])])
    assert tokenizer.decode(tokens[begin:]) == target.format(reply=REPLY["content"])
    prompt = tokenizer.decode(tokens[:begin])
    for message in ASKED:
        assert prompt.count(message["content"]) == 1


def test_a_template_without_a_system_role_has_its_text_before_the_users() -> None:
    no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('two roles') }}{% endif %}"
    others = tiny_tokenizer(no_system + LLAMA3, MARKS["llama3"][1])
    for tokenizer in (tokenizer_of("gemma2"), tokenizer_of("mistral1"), others):
        prompt, _ = Renderer(tokenizer).texts([*ASKED, REPLY])
        assert f"{ASKED[0]['content']}\n\n{ASKED[1]['content']}" in prompt


def test_a_turn_that_ends_where_the_next_begins_ends_with_the_tokenizers_own_mark() -> None:
    _, target = Renderer(tokenizer_of("glm")).texts([*ASKED, REPLY])
    assert target == f"{REPLY['content']}<|endoftext|>"


def test_without_any_end_mark_it_is_refused_in_one_line() -> None:
    tokenizer = tokenizer_of("glm")
    tokenizer.eos_token = None
    with pytest.raises(TrainError, match="no special token") as error:
        Renderer(tokenizer).texts([*ASKED, REPLY])
    assert "\n" not in str(error.value)


def test_thinking_that_the_prompt_opens_is_closed_at_once_or_after_the_thoughts() -> None:
    renderer = Renderer(tokenizer_of("two-blocks"))
    prompt, target = renderer.texts([*ASKED, REPLY])
    assert (prompt + target).endswith(f"{EMPTY}{REPLY['content']}<|im_end|>")
    prompt, target = renderer.texts([*ASKED, REPLY], "It may be malaria.")
    assert target == f"It may be malaria.\n</think>\n\n{REPLY['content']}<|im_end|>"


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        (TWO_BLOCKS.replace("assistant\\n<think>\\n'", "assistant\\n'"), MARKS["two-blocks"][1]),
        (GEMMA4_TOOLS, MARKS["gemma4"][1]),
        (TWO_ENDS, ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")),
    ],
)
def test_thoughts_without_one_place_are_refused(template: str, marks: tuple[str, ...]) -> None:
    assert template not in (TWO_BLOCKS, GEMMA4)
    renderer = Renderer(tiny_tokenizer(template, marks))
    renderer.texts([*ASKED, REPLY])
    with pytest.raises(TrainError, match="--thinking empty"):
        renderer.texts([*ASKED, REPLY], "It may be malaria.")


def test_a_template_that_writes_the_date_makes_the_same_records_tomorrow() -> None:
    """A run's records are a part of what it goes on with."""
    dated = LLAMA3.replace("text|>' }}", "text|>Today Date: ' + strftime_now('%d %b %-d %F') }}", 1)
    tokenizer = tiny_tokenizer(dated, MARKS["llama3"][1])
    prompt, _ = Renderer(tokenizer).texts([*ASKED, REPLY])
    assert prompt.startswith("<|begin_of_text|>Today Date: 01 Jan 1 2026-01-01<|start_header")
    tokenizer = add_soft_prompt(tokenizer, 1)
    prompt, _ = Renderer(tokenizer).texts([*ASKED, REPLY])
    assert "Today Date: 01 Jan 1 2026-01-01<" in prompt


def test_of_several_templates_by_name_the_default_is_taken(tmp_path: Path) -> None:
    """As models for tools have them (Command R, Hermes)."""
    tokenizer = tiny_tokenizer({"default": QWEN3, "tool_use": LLAMA3}, MARKS["qwen3"][1])
    tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    prompt, target = Renderer(tokenizer).texts([*ASKED, REPLY])
    assert (prompt + target).endswith(f"{EMPTY}{REPLY['content']}<|im_end|>")
    served = served_as_taught(tokenizer, thinking=False)
    assert prompt == served.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)


def test_a_template_that_fails_is_an_error_of_its_own() -> None:
    with pytest.raises(TrainError, match="cannot be rendered: broken"):
        Renderer(tiny_tokenizer("{{ raise_exception('broken') }}"))


@pytest.mark.parametrize(
    ("family", "target"),
    [
        ("gpt-oss", "<|channel|>analysis<|message|>{thoughts}<|end|><|start|>assistant"
         "<|channel|>final<|message|>{reply}<|return|>"),
        ("gemma4", "<|channel>thought\n{thoughts}\n<channel|>{reply}<turn|>"),
        ("llama3", "<think>\n{thoughts}\n</think>\n\n{reply}<|eot_id|>"),
        ("cut", "<think>\n{thoughts}\n</think>\n\n{reply}<|im_end|>"),
        ("cut-open", "<think>\n{thoughts}\n</think>\n\n{reply}<|im_end|>"),
        ("thought", "{thoughts}\n</thought>\n\n{reply}<|im_end|>"),
        ("deepseek3.1", "{thoughts}</think>{reply}</s>"),
        ("magistral", "[THINK]{thoughts}[/THINK]{reply}</s>"),
        ("apertus", "<|inner|>{thoughts}<|/inner|>{reply}<|end|>"),
        ("other-space", "<think>\n{thoughts}\n</think>\n\n{reply}<|end|>"),
        ("effort", "<think>\n{thoughts}\n</think>\n\n{reply}<|im_end|>"),
        ("qwen3-effort", "<think>\n{thoughts}\n</think>\n\n{reply}<|im_end|>"),
        ("one-mark", "<think>\n{thoughts}\n</think>\n\n{reply}<|turn|>"),
        ("kimi", "<think>{thoughts}</think>{reply}<|im_end|>"),
    ],
)  # fmt: skip
def test_thoughts_stand_where_the_template_has_a_place_for_them(family: str, target: str) -> None:
    thoughts = "It may be malaria."
    _, text = Renderer(tokenizer_of(family)).texts([*ASKED, REPLY], thoughts)
    assert text == target.format(thoughts=thoughts, reply=REPLY["content"])


FOR_IMAGES = {"idefics3", "llava_next", "smolvlm"}
"""They take a message in parts, so plain text is refused."""


@pytest.mark.parametrize("thoughts", ["", "It may be malaria."])
def test_the_templates_of_published_models_are_right_or_refused(thoughts: str) -> None:
    """TRL brings the chat templates of some fifty models, as they were published. Whatever marks a
    template has, they are the tokenizer's special tokens here."""
    trl = pytest.importorskip("trl")
    files = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    refused = set()
    for file in files:
        if file.stem.endswith("_training"):
            continue
        template = file.read_text(encoding="utf-8")
        marks = sorted(
            {*re.findall(r"<\|?[\w/ ]{2,30}\|?>|<｜[^>]+>", template)} - {"<think>", "</think>"}
        )
        tokenizer = tiny_tokenizer(template, [*marks, "<eos>"], vocabulary=500)
        tokenizer.bos_token = marks[0]
        try:
            renderer = Renderer(tokenizer)
            prompt, target = renderer.texts([*ASKED, REPLY], thoughts)
        except TrainError as error:
            refused.add((file.stem, len(str(error).splitlines())))
            continue
        assert ASKED[0]["content"] in prompt, file.stem
        assert prompt.count(ASKED[1]["content"]) == 1, file.stem
        assert REPLY["content"] not in prompt, file.stem
        _, reply, end = target.partition(REPLY["content"])
        assert reply, file.stem
        assert end.endswith(renderer.special), file.stem
        assert thoughts in target, file.stem
    assert refused == {(name, 1) for name in FOR_IMAGES}


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
    tokenizer.chat_template = with_thinking_set(QWEN3, on=False)
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
    with pytest.raises(TrainError, match=r"32 of 32 records of turn 2.*--allow-dropped") as no:
        refuse_bent(prepared, settings.max_length, 0)
    named = re.search(r"--max-length (\d+) takes", str(no.value))
    assert named
    longest = max(prepared.overlong.values())
    assert int(named[1]) == longest
    # What the base model has no room for is no remedy.
    with pytest.raises(TrainError, match=r"take another --base; or accept it with"):
        refuse_bent(prepared, settings.max_length, longest - 1)
    with pytest.raises(TrainError, match=f"--max-length {longest} takes"):
        refuse_bent(prepared, settings.max_length, longest)


def test_a_limit_that_empties_what_is_held_out_is_refused(tmp_path: Path) -> None:
    """Of each turn, teacher and ending it leaves out less than a twentieth."""
    folder = dataset(tmp_path / "data", cases=60)
    file = folder / "validation.parquet"
    long = [*ASKED, REPLY | {"content": "fever " * 200}]
    held_out = pl.read_parquet(file)
    held_out.with_columns(messages=pl.Series([long] * len(held_out))).write_parquet(file)
    settings = TrainSettings(data=[str(folder)], out=tmp_path / "out", max_length=100)
    prepared = prepare_samples(
        read_datasets(settings), Renderer(tokenizer_of("qwen3")), settings.max_length
    )
    with pytest.raises(TrainError, match=r"leaves out 8 of 8 records of split validation: "):
        refuse_bent(prepared, settings.max_length, 0)


def test_a_template_that_drops_an_earlier_question_is_refused() -> None:
    last_alone = "{%- for m in messages[-2:] %}" + LLAMA3.partition("{%- for m in messages %}")[2]
    earlier = {"role": "user", "content": "Cough?"}
    for template in (last_alone, LLAMA3.replace("m.content", "m.content.replace('ugh?', 'gh?')")):
        renderer = Renderer(tiny_tokenizer(template, MARKS["llama3"][1]))
        with pytest.raises(TrainError, match="the user's words"):
            renderer.texts([earlier, REPLY, ASKED[1], REPLY])


def test_a_record_without_a_question_is_refused_in_one_line() -> None:
    with pytest.raises(TrainError, match="the user's words"):
        Renderer(tokenizer_of("llama3")).texts([ASKED[0], ASKED[1] | {"content": " "}, REPLY])
