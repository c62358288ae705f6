"""A record's messages as the base model's chat template writes them: the prompt as it will be when
the model is served, and the target that the loss is on."""

import json
import re
from array import array
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from jinja2 import TemplateError

from medaction.llm.negotiation import without_system
from medaction.training.settings import TrainError

Tokens: TypeAlias = "array[int]"
"""Token ids, 4 bytes each: a tuple of Python's integers takes ten times as much."""

Thinking = Literal["keep", "empty", "from-reasoning"]

SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates turn thinking off: Qwen3's, GLM's and SmolLM3's; DeepSeek's."""


def switches_of(template: str) -> tuple[str, ...]:
    """The variables of a chat template that turn thinking off; none: it has no such switch. A word
    behind a dot or in quotes is a message's field."""
    return tuple(
        name for name in SWITCHES if re.search(rf"(?<![.\w'\"]){name}(?![\w'\"])", template)
    )


def without_thinking(template: str) -> str:
    """The template with thinking off unless a caller turns it on: what a model that was taught none
    is served with."""
    off = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = false %}}{{%- endif %}}"
        for name in switches_of(template)
    )
    return off + template


class Renderer:
    """Messages -> token ids with the place where the reply begins, by the tokenizer's own chat
    template.

    The prompt is what the template renders before an assistant's turn, tokenized by itself; the
    target is what the template adds for the reply, to its end mark. A record that is taught no
    thinking is rendered with thinking off where the template can: else an empty block of thoughts
    would be part of every target (Qwen3). A template that knows no system role has its text at the
    head of the user's, as servers with such a template are asked. Raises TrainError when the
    template leaves no such cut.
    """

    def __init__(self, tokenizer: Any, thinking: Thinking = "keep"):
        if not getattr(tokenizer, "chat_template", None):
            raise TrainError(
                "the base model's tokenizer has no chat template: take an instruct model, or put"
                " chat_template.jinja into its folder"
            )
        self.tokenizer = tokenizer
        self.thinking = thinking
        self.special = set(tokenizer.all_special_ids)
        self.off = dict.fromkeys(switches_of(tokenizer.chat_template), False)
        self.knows_system = self._knows_system()

    def _knows_system(self) -> bool:
        conversation = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
        try:
            self._rendered(conversation, {}, add_generation_prompt=True)
        except TemplateError as error:
            if "system" not in str(error).casefold() and "alternate" not in str(error).casefold():
                raise TrainError(f"the chat template cannot be rendered: {error}") from error
            return False
        return True

    def _rendered(
        self, messages: Sequence[dict[str, str]], switches: dict[str, bool], **options: Any
    ) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, **switches, **options
        )
        return text

    def __call__(
        self, messages: Sequence[dict[str, str]], thinking: str = ""
    ) -> tuple[Tokens, int]:
        """(token ids, where the reply begins). `thinking` is what the data has of it."""
        return self.tokenize([self.texts(messages, thinking)])[0]

    def tokenize(self, texts: Sequence[tuple[str, str]]) -> list[tuple[Tokens, int]]:
        """(token ids, where the reply begins) of each (prompt, target): all in one call, which the
        tokenizer spreads over the machine's cores."""
        parts = [part for pair in texts for part in pair]
        ids = self.tokenizer(parts, add_special_tokens=False, return_attention_mask=False)
        samples = []
        for number, (_, target) in enumerate(texts):
            before, reply = ids["input_ids"][2 * number : 2 * number + 2]
            if not reply or reply[-1] not in self.special:
                raise TrainError(
                    f"the chat template ends an assistant's turn with {target[-20:]!r}, no special"
                    " token: a model trained so would not learn"
                    " to stop; take a base model whose template has an end mark"
                )
            samples.append((array("i", [*before, *reply]), len(before)))
        return samples

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
        """(prompt, target) as text. With thinking, the target begins with it, between <think> and
        </think>."""
        *context, reply = messages if self.knows_system else without_system([*messages])
        if reply["role"] != "assistant" or not reply["content"].strip():
            raise TrainError(
                "the last message is no assistant's reply, so there is no target: write the dataset"
                " again with `medaction export`"
            )
        taught = self.taught_thinking(reply["content"], thinking)
        content = (
            f"<think>\n{taught}\n</think>\n\n{reply['content']}" if taught else reply["content"]
        )
        switches = {} if taught else self.off
        answered = [*context, {"role": "assistant", "content": content}]
        prompt = self._rendered(context, switches, add_generation_prompt=True)
        conversation = self._rendered(answered, switches)
        body = reply["content"].strip()
        opened = re.search(r"<think>\s*$", prompt)
        if not conversation.startswith(prompt) or (opened and taught):
            return prompt, _reply_below_opened_thinking(prompt, conversation, body, taught)
        target = conversation[len(prompt) :]
        if target.count("<think>") > 1:
            raise TrainError(
                "the chat template adds a block of thoughts of its own to a reply that has one:"
                " train without thinking (--thinking empty)"
            )
        if body not in target or (taught and taught not in target):
            raise TrainError(
                "the chat template changes or drops the assistant's words: a model cannot be"
                " trained on them with it"
            )
        return prompt, target.rstrip()


def _reply_below_opened_thinking(prompt: str, conversation: str, body: str, taught: str) -> str:
    """The target under a template that opens <think> for the model, and leaves thinking out of what
    it renders afterwards."""
    opened = re.search(r"<think>\s*$", prompt)
    if (
        opened is None
        or not conversation.startswith(prompt[: opened.start()])
        or body not in conversation[opened.start() :]
    ):
        raise TrainError(
            "the chat template renders the prompt differently once the reply follows, so"
            " the reply's tokens cannot be told from"
            " the prompt's and cannot be masked: take a base model whose template only"
            " appends"
        )
    end = conversation[conversation.rindex(body) + len(body) :]
    return f"{taught}\n</think>\n\n{body}{end.rstrip()}"
