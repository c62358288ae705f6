"""The context of a turn, rebuilt from what was played (paper, section 3.3, stage 2; appendix A):
never the chat log.

Case text, test results and a model's own words are quoted data: they pass through `plain`, so that
they can neither close the tags they stand in nor carry special tokens, and they are put into a
template that is rendered once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

from medaction.envs.loops import must_commit, turns_without_news
from medaction.envs.records import Answer
from medaction.envs.reply import extraction_schema, reply_schema
from medaction.envs.turns import Style, Turn
from medaction.llm.teacher import CONTEXT_TOKENS
from medaction.llm.untrusted import one_line, plain
from medaction.llm.usage import Message, estimated_tokens
from medaction.words.versions import version_of

RECENT = 2
"""Of how many turns the model sees its own reasoning again."""

_FOLDER = files("medaction.envs").joinpath("prompts")
_TEXTS = {
    file.name: file.read_text(encoding="utf-8")
    for file in _FOLDER.iterdir()
    if file.name.endswith(".md")
}
# No escaping: prompts are no HTML, and `plain` has made the data harmless.
# StrictUndefined: a name that a template misspells fails, and does not print nothing.
_TEMPLATES = Environment(loader=DictLoader(_TEXTS), undefined=StrictUndefined, autoescape=False)
_SHARED = ("evidence.md", "new_results.md")


def _prompt_version(style: Style) -> str:
    free = style == "free"
    texts = {
        name: text
        for name, text in _TEXTS.items()
        if name in _SHARED or name.endswith("_free.md") == free
    }
    grammar = extraction_schema(False) if free else reply_schema(False)
    # The schema of turns before the last: both are made of the same model.
    return version_of([texts, grammar])


PROMPT_VERSIONS: dict[Style, str] = {style: _prompt_version(style) for style in ("schema", "free")}
"""The version of what a model is told in each style: it changes with the text of any prompt of the
style, and with its grammar."""


class PromptTooLong(ValueError):
    """Even with everything shortened that may be, the prompt is longer than allowed."""


@dataclass(frozen=True, slots=True)
class _Limits:
    """The most characters that are shown of one piece of each kind; None: all of it."""

    older_reasoning: int | None = None
    earlier_result: int | None = None
    new_result: int | None = None
    latest_reasoning: int | None = None


# Reasoning goes before results: a diagnosis rests on results.
_STEPS = (
    _Limits(),
    _Limits(0),
    _Limits(0, 8000),
    _Limits(0, 4000),
    _Limits(0, 2000),
    _Limits(0, 1000),
    _Limits(0, 500),
    _Limits(0, 500, 4000),
    _Limits(0, 250, 2000),
    _Limits(0, 250, 2000, 2000),
    _Limits(0, 250, 1000, 1000),
    _Limits(0, 120, 500, 500),
    _Limits(0, 40, 250, 250),
)
"""What is shortened, in this order, until the prompt fits (`messages`)."""


def messages(
    initial_observation: str,
    turns: Sequence[Turn],
    t_max: int,
    style: Style = "schema",
    context_tokens: int = CONTEXT_TOKENS,
) -> list[Message]:
    """System and user message of the turn after `turns`: o1, all tests and results, the last two
    turns' reasoning.

    `style` 'free' is the free-form prompt; any other (a gold trajectory too) is the schema's. The
    prompt depends on the arguments alone, so that a training record has the prompt that was played.

    A prompt of more than `context_tokens` (estimated: `medaction.llm.usage.estimated_tokens`) is
    shortened in this order: first the
    reasoning of the older of the two turns is left out (its differential and pivot stay), then the
    results of earlier turns are cut in the middle, the longest first; then the new results, and the
    latest reasoning. Each cut is marked '[… n characters left out …]', and the prompt says what was
    shortened. Never touched are the initial observation, the names of the tests and that they were
    ordered, UNAVAILABLE, and the latest differential and pivot. What is stored stays whole. Raises
    PromptTooLong when that is not enough.
    """
    for limits in _STEPS:
        rendered = _rendered(initial_observation, turns, t_max, style, limits)
        if (count := estimated_tokens(rendered)) <= context_tokens:
            return rendered
    raise PromptTooLong(
        f"the prompt of turn {len(turns) + 1} has about {count} tokens with all results and "
        f"reasoning shortened, and {context_tokens}"
        " are allowed: the initial observation and the names of the tests are never cut; raise "
        "context_tokens"
    )


def _rendered(
    initial_observation: str, turns: Sequence[Turn], t_max: int, style: Style, limits: _Limits
) -> list[Message]:
    number = len(turns) + 1
    suffix = "_free.md" if style == "free" else ".md"
    cut: list[str] = []
    recent = [
        _recollection(
            turn,
            style,
            limits.latest_reasoning if turn is turns[-1] else limits.older_reasoning,
            cut,
        )
        for turn in turns[-RECENT:]
    ]
    record = [
        {"number": turn.number, "lines": list(_record_lines(turn, limits.earlier_result, cut))}
        for turn in turns[:-1]
        if turn.answers
    ]
    new = list(_record_lines(turns[-1], limits.new_result, cut)) if turns else []
    user = _TEMPLATES.get_template(("follow_up" if turns else "first_turn") + suffix).render(
        initial_observation=plain(initial_observation).strip(),
        record=record,
        new=new,
        shortened=[
            *(piece for piece in cut if piece != _RESULT),
            *_results_cut(cut.count(_RESULT)),
        ],
        ordered=list(
            dict.fromkeys(one_line(answer.order) for turn in turns for answer in turn.answers)
        ),
        recent=recent,
        without_news=turns_without_news(turns),
        number=number,
        t_max=t_max,
        last=must_commit(turns, t_max),
    )
    return [
        {"role": "system", "content": _TEXTS["system" + suffix].strip()},
        {"role": "user", "content": user.strip()},
    ]


_RESULT = "a result"


def _results_cut(count: int) -> list[str]:
    return [f"{count} result{'s' if count > 1 else ''} cut in the middle"] if count else []


def _record_lines(turn: Turn, limit: int | None, cut: list[str]) -> Iterator[str]:
    """One entry an ordered test. Further lines of a result are indented, so that no result can pose
    as another entry."""
    for answer in turn.answers:
        results = tuple(
            replace(result, text=_shorten(result.text, limit, _RESULT, cut))
            for result in answer.results
        )
        # `plain` first: the indent is of our own making.
        yield plain(_record_entry(replace(answer, results=results))).strip().replace("\n", "\n    ")


def _record_entry(answer: Answer) -> str:
    """The answer's text; where the record calls the test otherwise than the order did, the order is
    named first."""
    if not answer.results:
        return f"{answer.text} (the record documents no such test)"
    names = {result.test.casefold() for result in answer.results}
    return (
        answer.text
        if names <= {answer.order.casefold()}
        else f"{answer.order}: found as {answer.text}"
    )


def _recollection(turn: Turn, style: Style, limit: int | None, cut: list[str]) -> dict[str, Any]:
    """A turn as the templates of the style show it: its fields, or its words."""
    reasoning = _shorten(turn.reasoning, limit, f"your reasoning of turn {turn.number}", cut)
    if style == "free":
        return {"number": turn.number, "words": _turn_in_words(turn, plain(reasoning).strip())}
    return {
        "number": turn.number,
        "reasoning": one_line(reasoning),
        # In the reply's own form to the comma, because a small model repeats the form that it sees.
        "differential": one_line(
            json.dumps(
                [
                    {"diagnosis": line.diagnosis, "confidence": line.confidence}
                    for line in turn.differential
                ],
                ensure_ascii=False,
            )
        ),
        "pivot": one_line(turn.pivot),
    }


def _turn_in_words(turn: Turn, reasoning: str) -> str:
    """A turn as free text. A whole free-form turn says everything itself; of any other, the record
    says the rest."""
    if reasoning == turn.raw:
        return reasoning
    ranked = ", ".join(
        f"{one_line(line.diagnosis)} ({line.confidence} %)" for line in turn.differential
    )
    return f"{reasoning}\nIn my mind then: {ranked}. What I wanted to know: {one_line(turn.pivot)}"


def _shorten(text: str, limit: int | None, piece: str, cut: list[str]) -> str:
    """`text`, or its beginning and end with a mark between them; then `what` is noted in `cut`."""
    if limit is None or len(text) <= limit + 40:  # the mark itself is about that long
        return text
    cut.append(piece)
    # Both ends stay: a result's conclusion often stands last.
    head = text[: limit - limit // 3].rstrip()
    tail = text[len(text) - limit // 3 :].lstrip()
    return " ".join(
        filter(None, [head, f"[… {len(text) - len(head) - len(tail)} characters left out …]", tail])
    )


def repair_messages(
    prompt: Sequence[Message], reply: str, fault: str, last_turn: bool
) -> list[Message]:
    """`asked`, the start of the malformed reply, and what is wrong with it beside the grammar."""
    schema = json.dumps(reply_schema(last_turn))
    return _with_request(prompt, reply, "repair.md", fault=plain(fault), schema=schema)


def rewrite_messages(
    prompt: Sequence[Message], text: str, fault: str, last_turn: bool
) -> list[Message]:
    """`asked`, the start of the free-form turn that cannot be used, and why."""
    return _with_request(prompt, text, "repair_free.md", fault=plain(fault), last=last_turn)


def extraction_messages(text: str) -> list[Message]:
    """The second call of a free-form turn: what the text says, as a record."""
    quoted = (
        f"<written_turn>\n{plain(text)}\n</written_turn>\n\nPut on record what this text "
        "says, as one JSON object."
    )
    return [
        {"role": "system", "content": _TEXTS["extract_free.md"].strip()},
        {"role": "user", "content": quoted},
    ]


def extraction_repair_messages(
    prompt: Sequence[Message], reply: str, fault: str, last_turn: bool
) -> list[Message]:
    """`asked`, the start of the record that cannot be used, and what is wrong with it beside the
    grammar."""
    schema = json.dumps(extraction_schema(last_turn))
    template = "extract_repair_free.md"
    return _with_request(prompt, reply, template, fault=plain(fault), schema=schema)


def _with_request(
    prompt: Sequence[Message], reply: str, template: str, **values: Any
) -> list[Message]:
    request = _TEMPLATES.get_template(template).render(**values)
    # The start is enough to see the fault, and a reply that ran on would fill the context.
    shown = plain(reply)[:3000].strip() or "(no reply)"
    return [
        *prompt,
        {"role": "assistant", "content": shown},
        {"role": "user", "content": request.strip()},
    ]
