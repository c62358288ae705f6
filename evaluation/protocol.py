"""MedR-Bench's rules as data: what is read from a dialogue, what of it is scored, and what happens
to a case that cannot be scored.

'released' does what the benchmark's released code does, quirk by quirk; 'fixed' mends what only
happened; 'paper' is what MedAction's paper tells of its own evaluation (section 4, appendices A and
C), and 'medaction' the same in our schema. docs/evaluation.md has the table of quirks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from medaction.envs.turns import Turn
from medaction.llm.replies import split_thinking

RuleSet = Literal["released", "fixed", "paper", "medaction"]
Mode = Literal["free-turn", "one-turn"]

THOUGHT = "### Chain of Thought:"
REQUEST = "### Additional Information Required:"
CONCLUSION = "### Conclusion:"
NOTHING_MORE = "Not required"
"""With these words in its request section a doctor of the benchmark asks for nothing more."""

MOST_REQUESTS = 15
"""Messages of one dialogue whose requests count."""

_ONE_TURN = re.compile(
    rf"{CONCLUSION}\s*(?P<conclusion>.*?)\s*{REQUEST}\s*(?P<request>.*)", re.DOTALL
)
_FREE_TURN = re.compile(
    rf"{REQUEST}\s*(?P<request>.*?)\s*{CONCLUSION}\s*(?P<conclusion>.*)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to run and score the benchmark. `t_max` counts the doctor's messages.

    dialogue: the doctor is asked in the benchmark's sections. free_text: it writes as it likes, and
    another model reads it (`medaction.evaluation.free_text`). With neither it is asked in our
    schema (`medaction.envs.prompts`). conclusion_is_request: a free-turn message's conclusion,
    which stands after its request, is scored as part of it. whole_message: the diagnosis is judged
    on the whole last message, reasoning included; else on its conclusion. lenient_verdicts:
    'correct' anywhere in a judge's reply counts, so 'Incorrect' counts too. drops: what cannot be
    scored is left out of the mean; else it counts as wrong where the model is to blame.
    against_text: a test is compared with the whole text of the other side; else the two lists are
    matched. raw_summary: the doctor sees the case summary as it is up to its tests; else the
    environment's initial observation.
    """

    rules: RuleSet
    mode: Mode
    t_max: int
    dialogue: bool
    free_text: bool
    conclusion_is_request: bool
    whole_message: bool
    lenient_verdicts: bool
    drops: bool
    against_text: bool
    raw_summary: bool

    @property
    def name(self) -> str:
        return f"{self.rules} {self.mode}"


# By their type: a flag that is added cannot be forgotten in a rule set.
_FLAGS = [field.name for field in fields(Protocol) if field.type is bool]


def _flags(*of: str) -> dict[str, bool]:
    return {name: name in of for name in _FLAGS}


_RULES: dict[RuleSet, dict[str, bool]] = {
    "released": _flags(*{*_FLAGS} - {"free_text"}),  # all quirks
    "fixed": _flags("dialogue", "against_text"),
    "paper": _flags("free_text"),
    "medaction": _flags(),
}


def protocol(rules: RuleSet, mode: Mode = "free-turn", t_max: int | None = None) -> Protocol:
    """The protocol of these rules. `t_max` is 5 as released, 8 in the paper, and 2 in one-turn mode
    (one request, one diagnosis).

    Raises ValueError for one-turn mode with another `t_max`.
    """
    if mode == "one-turn" and t_max not in (None, 2):
        raise ValueError(
            f"one-turn mode has two messages, one request and one diagnosis: t_max {t_max} is not"
            " possible"
        )
    # 5: the released code's MAX_TURNS. 8: T_max of the paper.
    by_rules = 2 if mode == "one-turn" else 5 if _RULES[rules]["dialogue"] else 8
    return Protocol(rules, mode, t_max or by_rules, **_RULES[rules])


def split_case(summary: str) -> tuple[str, str] | None:
    """(what the doctor sees, the tests), at the first line with 'Ancillary Tests'. Whatever follows
    that line is hidden too.

    None where no line has it: the released code fails there and the case is lost without a word.
    """
    lines = summary.strip().split("\n")
    # The first such line, as released: what a later section says is hidden, too.
    at = next((number for number, line in enumerate(lines) if "Ancillary Tests" in line), None)
    return None if at is None else ("\n".join(lines[:at]), "\n".join(lines[at:]))


def clean(reply: str) -> tuple[str, str]:
    """(thinking, message): code fences go, and what a model thinks in <think> is not part of the
    message."""
    thinking, message = split_thinking(reply)
    return thinking, message.replace("```", "").strip()  # as released


def read_message(message: str, mode: Mode) -> tuple[str, str] | None:
    """(request, conclusion) of a message of the doctor with its sections in the order of its mode
    (the two modes have opposite orders); None when they are not all there."""
    found = (_ONE_TURN if mode == "one-turn" else _FREE_TURN).search(message)
    return (found["request"].strip(), found["conclusion"].strip()) if found else None


def final_answer(message: str) -> str:
    """What stands after the last conclusion heading; the whole message where there is none."""
    # The last heading: a model may repeat its form before it fills it in.
    return message.rsplit(CONCLUSION, 1)[-1].strip()


def message_of(turn: Turn, mode: Mode, number: int, in_sections: bool) -> str:
    """A turn as a message in the benchmark's sections. One that was not played in them says the
    same in them.

    The last message of one-turn mode has no request section, as in the benchmark.
    """
    if in_sections:
        return turn.raw
    request = "\n".join(f"- {test}" for test in turn.tests) or f"{NOTHING_MORE}."
    conclusion = turn.final_diagnosis or (
        turn.differential[0].diagnosis if turn.differential else ""
    )
    sections = [(THOUGHT, turn.reasoning), (REQUEST, request), (CONCLUSION, conclusion)]
    if mode == "one-turn":
        # The two modes have opposite orders of request and conclusion.
        sections = [sections[0], sections[2], *([sections[1]] if number == 1 else [])]
    return "\n".join(f"{heading}\n{text}" for heading, text in sections)


@dataclass(frozen=True, slots=True)
class Requested:
    """What a dialogue asked for: the text that is scored, the requests alone, and the single tests
    where they are known as such."""

    text: str
    requests: str
    tests: tuple[str, ...] = ()


def requested(
    messages: Sequence[str], rules: Protocol, tests: Sequence[str] = ()
) -> Requested | None:
    """The requests that are scored; None where the rules drop the case.

    One-turn: what follows the last request heading of the first message. Free-turn: the same of
    every message but the last (the first MOST_REQUESTS), one after the other. There the conclusion
    stands behind the request, and the released code takes both. A free-turn case that was solved in
    its first message has asked for nothing: the released code drops it, but scores a one-turn case
    whose request is 'Not required.' as 0.
    """
    if rules.mode == "one-turn":
        asking = list(messages[:1])
    else:
        asking = list(messages[:-1][:MOST_REQUESTS])
        # The last message is not among those that ask: a case solved at once has none.
        if not asking and rules.drops:
            return None
    # The last heading, as released.
    texts = [
        message.rsplit(REQUEST, 1)[1].strip() if REQUEST in message else "" for message in asking
    ]
    requests = [text.split(CONCLUSION, 1)[0].strip() for text in texts]
    whole = "\n".join(texts if rules.conclusion_is_request else requests)
    return Requested(whole.strip(), "\n".join(requests).strip(), tuple(dict.fromkeys(tests)))


def judged_answer(messages: Sequence[str], rules: Protocol) -> str:
    """What the judge of the diagnosis is shown; '' where nothing was said."""
    if not messages:
        return ""
    return messages[-1] if rules.whole_message else final_answer(messages[-1])
