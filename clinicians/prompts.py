"""The context of a turn, rebuilt from what was played (paper, section 3.3, stage 2; appendix A): never the chat log.

Case text, test results and a model's own words are quoted data: they pass through `plain`, so that they can neither close
the tags they stand in nor carry special tokens, and they are put into a template that is rendered once.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

from clinicians.reply import reply_schema
from clinicians.text import one_line, plain
from envs.records import Answer
from trajectories.records import Turn

Message = dict[str, str]

RECENT = 2
"""Of how many turns the model sees its own reasoning again."""

_FOLDER = files("clinicians").joinpath("prompts")
_TEXTS = {file.name: file.read_text(encoding="utf-8") for file in _FOLDER.iterdir() if file.name.endswith(".md")}
_TEMPLATES = Environment(loader=DictLoader(_TEXTS), undefined=StrictUndefined, autoescape=False)

PROMPT_VERSION = hashlib.sha256(json.dumps([_TEXTS, reply_schema(False)], sort_keys=True).encode()).hexdigest()[:10]
"""Changes with the text of any prompt and with the reply's grammar."""


def messages(initial_observation: str, turns: Sequence[Turn], t_max: int) -> list[Message]:
    """System and user message of the turn after `turns`: o1, all tests and results, the last two turns' reasoning."""
    number = len(turns) + 1
    template = _TEMPLATES.get_template("follow_up.md" if turns else "first_turn.md")
    user = template.render(
        initial_observation=plain(initial_observation).strip(),
        record=[{"number": turn.number, "lines": list(_record(turn))} for turn in turns[:-1] if turn.answers],
        new=list(_record(turns[-1])) if turns else [],
        ordered=list(dict.fromkeys(one_line(answer.order) for turn in turns for answer in turn.answers)),
        recent=[_recollection(turn) for turn in turns[-RECENT:]],
        number=number,
        t_max=t_max,
        last=number >= t_max,
    )
    return [{"role": "system", "content": _TEXTS["system.md"].strip()}, {"role": "user", "content": user.strip()}]


def _record(turn: Turn) -> Iterator[str]:
    """One entry an ordered test. Further lines of a result are indented, so that no result can pose as another entry."""
    for answer in turn.answers:
        yield plain(_entry(answer)).strip().replace("\n", "\n    ")


def _entry(answer: Answer) -> str:
    """The answer's text; where the record calls the test otherwise than the order did, the order is named first."""
    if not answer.results:
        return f"{answer.text} (the record documents no such test)"
    called = {found.test.casefold() for found in answer.results}
    return answer.text if called <= {answer.order.casefold()} else f"{answer.order}: found as {answer.text}"


def _recollection(turn: Turn) -> dict[str, Any]:
    return {
        "number": turn.number,
        "reasoning": one_line(turn.reasoning),
        # In the reply's own form to the comma, because a small model repeats the form that it sees.
        "differential": one_line(json.dumps([asdict(line) for line in turn.differential], ensure_ascii=False)),
        "pivot": one_line(turn.pivot),
    }


def repair_messages(asked: Sequence[Message], reply: str, fault: str, last_turn: bool) -> list[Message]:
    """`asked`, the start of the malformed reply, and what is wrong with it beside the grammar."""
    told = _TEMPLATES.get_template("repair.md").render(fault=plain(fault), schema=json.dumps(reply_schema(last_turn)))
    shown = plain(reply)[:3000].strip() or "(no reply)"
    return [*asked, {"role": "assistant", "content": shown}, {"role": "user", "content": told.strip()}]
