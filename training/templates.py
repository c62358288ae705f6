"""A record's messages as the base model's chat template writes them: the prompt as it will be when
the model is served, and the target that the loss is on."""

import json
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from itertools import takewhile
from string import ascii_letters
from typing import Any, Literal, TypeAlias

from jinja2 import TemplateError

from medaction.llm.negotiation import without_system
from medaction.training.settings import TrainError

Tokens: TypeAlias = "array[int]"
"""Token ids, 4 bytes each: a tuple of Python's integers takes ten times as much."""

Thinking = Literal["keep", "empty", "from-reasoning"]

SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates turn thinking on and off: Qwen3's, GLM's and SmolLM3's; DeepSeek's.
"""
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message from which templates take its thoughts: Qwen3's and GLM's; Gemma 4's;
gpt-oss's."""

TODAY = date(2026, 1, 1)
"""What templates that write a date (Llama 3, gpt-oss) take for today: the same records on every
day, so that a run goes on from its checkpoints tomorrow."""

FORMS_WITH_THOUGHTS: tuple[Callable[[str, str], Any], ...] = (
    lambda thoughts, reply: [
        {"type": "thinking", "thinking": thoughts},
        {"type": "text", "text": reply},
    ],
    lambda thoughts, reply: {
        "blocks": [{"type": "thoughts", "text": thoughts}, {"type": "response", "text": reply}]
    },
)
"""A message's content with its thoughts as a part: Magistral's, Apertus'."""

WORDS_LOST = (
    "the chat template changes or drops the user's words (one for images may want messages in"
    " parts): take a base model whose template takes plain text"
)

_OPENED = re.compile(r"<(\w+)>\s*$")


def template_of(tokenizer: Any) -> str:
    """The tokenizer's chat template; of several by name (for tools, for documents) the default."""
    template = getattr(tokenizer, "chat_template", None) or ""
    return template.get("default", "") if isinstance(template, dict) else template


def on_one_day(template: str) -> str:
    """The template with TODAY in the place of its day. A macro: transformers hands a template no
    functions."""
    if "strftime_now" not in template:
        return template
    # '%-d': without the zero.
    codes = [f"%{flag}{letter}" for letter in ascii_letters for flag in ("", "-")]
    replaced = "".join(f"|replace({code!r}, {TODAY.strftime(code)!r})" for code in codes)
    macro = "{%- macro strftime_now(format) %}{{- format" + replaced + " -}}{%- endmacro %}"
    return macro + template


def switches_of(template: str) -> tuple[str, ...]:
    """The variables of a chat template that turn thinking on and off; none: it has no such switch.
    A word behind a dot or in quotes is a message's field."""
    return tuple(
        name for name in SWITCHES if re.search(rf"(?<![.\w'\"]){name}(?![\w'\"])", template)
    )


def with_thinking_set(template: str, on: bool) -> str:
    """The template with thinking on, or off, unless a caller says otherwise: a model is served with
    the prompts that it was taught. Qwen3 thinks by default, small models of Qwen3.5 do not."""
    value = str(on).lower()
    lines = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {value} %}}{{%- endif %}}"
        for name in switches_of(template)
    )
    return template if template.startswith(lines) else lines + template


def served_as_taught(tokenizer: Any, thinking: bool) -> Any:
    """The tokenizer of a model that is asked to think where it is taught to, and only there: its
    prompts are rendered so."""
    if switches_of(template := template_of(tokenizer)):
        tokenizer.chat_template = with_thinking_set(template, thinking)
    return tokenizer


def stop_at(marks: Iterable[int], decoding: Any) -> list[int]:
    """The token ids at which generation ends: those that it has, and the marks behind the targets,
    which a base model may not know as an end (Qwen2.5's, whose turns end with `<|im_end|>`, has its
    texts end with `<|endoftext|>`)."""
    stated = [decoding] if isinstance(decoding, int) else decoding or []
    return [*dict.fromkeys([*stated, *sorted(marks)])]


class Renderer:
    """Messages -> token ids with the place where the reply begins, by the tokenizer's own chat
    template.

    The prompt is what the template renders before an assistant's turn, tokenized by itself: what a
    server will render. The target is what has to follow it: the thoughts that are taught, the
    reply, and its end mark, at which servers stop. Both are read from behind the user's text: what
    stands before it, some templates change once a reply follows.

    A record that is taught no thinking is rendered with thinking off where the template can: else
    an empty block of thoughts would be part of every target (Qwen3). A template that knows no
    system role has its text at the head of the user's, as servers with such a template are asked.
    Raises TrainError when the template leaves no such cut.
    """

    def __init__(self, tokenizer: Any, thinking: Thinking = "keep"):
        self.template = on_one_day(template_of(tokenizer))
        if not self.template:
            raise TrainError(
                "the base model's tokenizer has no chat template: take an instruct model, or put"
                " chat_template.jinja into its folder"
            )
        self.tokenizer = tokenizer
        self.thinking = thinking
        self.special = tuple(tokenizer.all_special_tokens)
        self.switches = switches_of(self.template)
        self.knows_system = self._knows_system()
        self.takes_block = self._takes_block()
        self.in_parts = self._form_with_thoughts()

    def _knows_system(self) -> bool:
        messages = [{"role": role, "content": f"the {role}'s text"} for role in ("system", "user")]
        try:
            return messages[0]["content"] in self._rendered(messages, {})
        except TrainError:
            self._rendered(messages[1:], {})  # one that cannot be rendered at all is refused
            return False

    def _takes_block(self) -> bool:
        """Whether thoughts may stand between <think> and </think>: not where the template closes a
        block of another kind when thinking is off (Gemma 4's channel)."""
        text = "the user's text"
        off, on = (
            self._rendered(
                [{"role": "user", "content": text}],
                dict.fromkeys(self.switches, value),
                add_generation_prompt=True,
            ).rpartition(text)[2]
            for value in (False, True)
        )
        empty = off.removeprefix(on)
        return not empty.strip() or "think" in empty

    def _form_with_thoughts(self) -> Callable[[str, str], Any] | None:
        """The form in which a message's content may have its thoughts as a part. Templates that
        know none refuse it, drop what they do not know of it, or write it with its keys."""
        for form in FORMS_WITH_THOUGHTS:
            answer = {"role": "assistant", "content": form("the thoughts", "the reply")}
            try:
                text = self._rendered([{"role": "user", "content": "?"}, answer], {})
            except TrainError:
                continue
            _, thoughts, behind = text.rpartition("the thoughts")
            between, reply, _ = behind.partition("the reply")
            if thoughts and reply and "text" not in between:
                return form
        return None

    def _rendered(
        self, messages: Sequence[dict[str, Any]], switches: dict[str, bool], **options: Any
    ) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, chat_template=self.template, **switches, **options
            )
        except (TemplateError, TypeError) as error:
            raise TrainError(f"the chat template cannot be rendered: {error}") from error
        return text

    def tokenize(self, texts: Sequence[tuple[str, str]]) -> list[tuple[Tokens, int]]:
        """(token ids, where the reply begins) of each (prompt, target): all in one call, which the
        tokenizer spreads over the machine's cores."""
        parts = [part for pair in texts for part in pair]
        encoded = self.tokenizer(parts, add_special_tokens=False, return_attention_mask=False)
        ids = encoded["input_ids"]
        return [
            (array("i", [*prompt, *target]), len(prompt))
            for prompt, target in zip(ids[::2], ids[1::2], strict=True)
        ]

    def taught_thinking(self, reply: str, thinking: str) -> str:
        """What stands between <think> and </think> in the target of a record; empty: no such
        block."""
        if self.thinking == "empty":
            return ""
        if self.thinking == "from-reasoning" and not thinking.strip():
            try:
                return str(json.loads(reply)["reasoning"]).strip()
            except (ValueError, KeyError, TypeError):
                return ""  # a free-form reply reasons in its text
        return thinking.strip()

    def texts(self, messages: Sequence[dict[str, str]], thinking: str = "") -> tuple[str, str]:
        """(prompt, target) as text. `thinking` is what the data has of it."""
        *context, reply = messages if self.knows_system else without_system([*messages])
        body = reply["content"].strip()
        if reply["role"] != "assistant" or not body:
            raise TrainError(
                "the last message is no assistant's reply, so there is no target: write the dataset"
                " again with `medaction export`"
            )
        taught = self.taught_thinking(body, thinking)
        switches = dict.fromkeys(self.switches, bool(taught))
        prompt = self._rendered(context, switches, add_generation_prompt=True)
        # Templates strip it too.
        question = context[-1]["content"].strip()
        questions = [message["content"].strip() for message in context if message["role"] == "user"]
        if not question or any(text not in prompt for text in questions):
            raise TrainError(WORDS_LOST)
        before, end = "", ""
        for answer in _ways_to_answer(body, taught, self.takes_block, self.in_parts):
            conversation = self._rendered([*context, answer], switches)
            before, end = _around(body, _behind(question, prompt, conversation))
            # The first way by which the template writes the thoughts at all.
            if taught in before:
                break
        opening = prompt[prompt.rindex(question) + len(question) :]
        beginning = _beginning(opening, before, taught, self.takes_block)
        end = self._end_mark(end)
        mark = next(special for special in self.special if end.endswith(special))
        if mark in beginning:
            raise TrainError(
                f"the chat template ends the thoughts of a reply with {mark!r}, at which a server"
                " stops before the reply: train without thinking (--thinking empty)"
            )
        return prompt, beginning + body + end

    def _end_mark(self, end: str) -> str:
        """What follows the reply, up to the tokenizer's own mark: servers stop there, and some
        templates begin the next turn unbidden (Command A). That mark stands also where the template
        ends a turn with the beginning of the next one (GLM)."""
        mark = self.tokenizer.eos_token or ""
        end = end.rstrip() or mark
        if mark:
            before, written, _ = end.partition(mark)
            end = before + written
        if not end.endswith(self.special):
            raise TrainError(
                f"the chat template ends an assistant's turn with {end[-20:]!r}, no special token:"
                " a model trained so would not learn to stop; take a base model whose template has"
                " an end mark"
            )
        return end


def _ways_to_answer(
    body: str, taught: str, takes_block: bool, in_parts: Callable[[str, str], Any] | None
) -> list[dict[str, Any]]:
    """The assistant's message: its thoughts as a part of their own where the template knows such
    (FORMS_WITH_THOUGHTS), or in the fields of which a template reads one (gpt-oss has a channel for
    them), else before the reply between <think> and </think>; last without them, where a template
    leaves them out."""
    reply: dict[str, Any] = {"role": "assistant", "content": body}
    if not taught:
        return [reply]
    block = {"content": f"<think>\n{taught}\n</think>\n\n{body}"}
    fields = dict.fromkeys(THOUGHT_FIELDS, taught)
    ways: list[dict[str, Any]] = [
        *([{"content": in_parts(taught, body)}] if in_parts else []),
        fields,
        *([block] if takes_block else []),
        {},
    ]
    return [reply | way for way in ways]


def _behind(question: str, prompt: str, conversation: str) -> str:
    """What the conversation has behind the user's text."""
    times = prompt.count(question)
    parts = conversation.split(question, times)
    if len(parts) <= times:
        raise TrainError(WORDS_LOST)
    return parts[-1]


def _around(body: str, text: str) -> tuple[str, str]:
    """What stands before the reply, and behind it."""
    # The last one: the thoughts may hold the reply's words too.
    before, written, end = text.rpartition(body)
    if not written:
        raise TrainError(
            "the chat template changes or drops the assistant's words: a model cannot be"
            " trained on them with it"
        )
    return before, end


def _beginning(opening: str, before: str, taught: str, takes_block: bool) -> str:
    """What a model has to write between the prompt and the reply. `opening` is what the prompt has
    behind the user's text, `before` what the whole conversation has between that and the reply;
    `takes_block`: thoughts may stand between <think> and </think>."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(opening, before, strict=False))
    shared = sum(1 for _ in alike)
    only_prompt, missing = opening[shared:], before[shared:]
    if only_prompt and not only_prompt.strip():
        missing = missing.lstrip()  # the prompt has other white space there, and is served so
    tag = _OPENED.search(opening)
    # A tag of the assistant's turn stands in the conversation too; one of thoughts (EXAONE Deep
    # has another word for them) may not.
    opened = tag is not None and (tag[1] == "think" or shared <= tag.end(1))
    closed = _closing(tag[1], before) if tag and opened else ""
    if taught and opened and not missing.startswith(taught):
        return taught + closed  # left out of what is rendered afterwards (DeepSeek R1)
    if taught and takes_block and not only_prompt.strip() + missing.strip():
        # Left out of a conversation (Nemotron).
        return f"{missing}<think>\n{taught}\n</think>\n\n"
    if taught and taught not in missing:
        raise TrainError(
            "the chat template changes or drops the thoughts of a reply: train without thinking"
            " (--thinking empty)"
        )
    if missing.count("<think>") > 1:
        raise TrainError(
            "the chat template adds a block of thoughts of its own to a reply that has one:"
            " train without thinking (--thinking empty)"
        )
    if not only_prompt.strip():
        return missing
    if missing.strip():
        raise TrainError(
            "the chat template begins a reply in one way in the prompt and in another once the"
            " reply is there, so what a model has to write is unclear: take another base model"
        )
    # The prompt has more than the conversation afterwards: a block of thoughts that is closed
    # (Gemma 4), or one that the reply has to close.
    return closed


def _closing(tag: str, before: str) -> str:
    """What closes a block of thoughts that the prompt opens: as the template writes it before a
    reply, where it does (DeepSeek V3.1 has no line breaks about it)."""
    thoughts, written, space = before.rpartition(f"</{tag}>")
    if not written or space.strip():
        return f"\n</{tag}>\n\n"
    line_break = "\n" if thoughts.endswith("\n") else ""
    return f"{line_break}</{tag}>{space}"
