"""Free-form turns (paper, RQ2): the model reasons as it likes and commits to an action in its own
words; a second call reads them.

The text is what a model is trained on (`Turn.raw`, and `Turn.reasoning` too). Differential, pivot
and action are read from it by the same model at temperature 0, in a schema, together with the
passage that decides. A disease or an order that the text does not contain is refused, and so are a
final diagnosis that the deciding passage does not contain, and a pivot of other words than the
text's. So the record says little that the text does not; whether it says all that the text does,
and no mere mention of a test as an order, only the second call knows. Confidences are the text's
own percentages or, where it gives none, a reading of its words.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from rapidfuzz import fuzz
from rapidfuzz.distance import OSA

from medaction.envs.orders import single_tests
from medaction.envs.prompts import extraction_messages, extraction_repair_messages, rewrite_messages
from medaction.envs.reply import (
    MOST_TESTS,
    Commit,
    Extracted,
    OrdersRead,
    Undecided,
    extraction_schema,
    led_by,
    mended_usage,
    parse_extracted,
)
from medaction.envs.turns import Turn
from medaction.llm.calls import Completion, Message, whole_text
from medaction.llm.replies import MalformedReply, Reading, split_thinking
from medaction.llm.untrusted import DATA_TAGS, plain
from medaction.words.sentences import statements

COPIED = 90.0
"""Percent of agreement (rapidfuzz partial ratio of the words) from which a passage is the text's
own."""

# A model that repeats the tags of the prompt copies the record instead of thinking.
_TAGS = re.compile(rf"</?(?:{'|'.join(DATA_TAGS)})>")


class NoAction(MalformedReply):
    """A free-form text from which no turn can be read: it orders nothing and commits to nothing, or
    both, or names no disease."""


class AskModel(Protocol):
    """One call to the model that plays."""

    async def __call__(
        self,
        prompt: Sequence[Message],
        schema: dict[str, Any] | None = None,
        temperature: float | None = None,
    ) -> Completion: ...

    def refused(self, fault: MalformedReply) -> None:
        """Told of every reply that is asked for again."""


async def write_turn(
    ask: AskModel, prompt: Sequence[Message], number: int, last_turn: bool
) -> Turn:
    """A free-form turn: two calls, and at most four more, because a text that is no turn and a
    record that does not fit are each mended once. Without answers and usage. Raises NoAction and
    MalformedReply, with the texts in `raw`, and ModelError.
    """
    # Without a schema and at the teacher's own temperature: only the reading is bound.
    completion = await ask(prompt)
    try:
        return await _turn_in_text(ask, completion, number, last_turn)
    # The text is at fault, not its record: it is written anew.
    except NoAction as fault:
        ask.refused(fault)
        repair = rewrite_messages(prompt, completion.text, fault.message, last_turn)
    # Once: a second text that is no turn ends the attempt (`LlmClinician` begins anew).
    return replace(await _turn_in_text(ask, await ask(repair), number, last_turn), repaired=True)


async def _turn_in_text(
    ask: AskModel, completion: Completion, number: int, last_turn: bool
) -> Turn:
    thinking, text = _turn_text(completion)
    prompt, schema = extraction_messages(text), extraction_schema(last_turn)
    reply = await ask(prompt, schema, temperature=0.0)
    repaired = False
    try:
        reading = _checked_record(reply, text, last_turn)
    # Caught first, being a MalformedReply too: no repair of the record mends the text.
    except NoAction:
        raise
    except MalformedReply as fault:
        ask.refused(fault)
        repair = extraction_repair_messages(prompt, fault.raw, fault.message, last_turn)
        try:
            reading = _checked_record(await ask(repair, schema, temperature=0.0), text, last_turn)
        except NoAction:
            raise
        except MalformedReply as still:
            # Both texts: who looks at the failure sees what was written and what was read.
            raise MalformedReply(still.message, f"{text}\n\n[read from it]\n{still.raw}") from None
        repaired = True
    extracted, action = reading.value, reading.value.action
    return Turn(
        number=number,
        # The text twice: templates of this style show `reasoning` where the schema's show fields.
        reasoning=text,
        differential=led_by(
            action.final_diagnosis if isinstance(action, Commit) else None, extracted.differential
        ),
        pivot=extracted.pivot,
        tests=tuple(action.order_tests) if isinstance(action, OrdersRead) else (),
        final_diagnosis=action.final_diagnosis if isinstance(action, Commit) else None,
        raw=text,
        thinking=completion.all_thinking(thinking),
        repaired=repaired,
        usage=mended_usage(reading.mended, reply.text),
    )


def _turn_text(completion: Completion) -> tuple[str, str]:
    """(thinking, the text), both harmless. Raises NoAction when it is no text to read."""
    # A cut text has lost its decision, which stands at the end.
    if completion.finish_reason == "length":
        raise NoAction(
            f"it was cut off at the token limit ({completion.usage.completion_tokens} tokens); be "
            "brief",
            completion.text,
        )
    # Thinking is no part of the turn: it is stored apart, and not trained on.
    thinking, body = split_thinking(completion.text)
    if body.startswith("<think>"):
        raise NoAction(
            "the thinking did not end; close it with </think> and write the turn after it",
            completion.text,
        )
    text = plain(body).strip()
    if not text:
        raise NoAction("it is empty", completion.text)
    # A reply in the schema would be read, but teaches nothing of free form.
    if text.startswith(("{", "[", "```")):
        raise NoAction("it is code or JSON, not running text", completion.text)
    if _TAGS.search(body):
        raise NoAction("it copies the record; write down your own thoughts only", completion.text)
    return thinking, text


def _checked_record(reply: Completion, text: str, last_turn: bool) -> Reading[Extracted]:
    """What the reply read from `text`. Raises NoAction when the text is at fault, else
    MalformedReply."""
    reading = parse_extracted(whole_text(reply), last_turn)
    extracted, action = reading.value, reading.value.action
    if isinstance(action, Undecided):
        raise NoAction(f"it does not end in one clear decision ({action.undecided})", text)
    # In bare words: a copy may differ in marks and capitals.
    if fuzz.partial_ratio(_bare(extracted.decision), _bare(text)) < COPIED:
        raise MalformedReply(
            "decision: the text does not say this; copy the sentence in which it says what it "
            "does now",
            reply.text,
        )
    diagnoses = [line.diagnosis for line in extracted.differential]
    orders = [action.final_diagnosis] if isinstance(action, Commit) else action.order_tests
    # All faults at once, so that one repair can mend them.
    faults = [
        f"differential: the text does not say {name!r}"
        for name in diagnoses
        if not names_stand_in(name, text)
    ]
    # In the deciding passage, not anywhere: a text names many diseases.
    if isinstance(action, Commit) and not names_stand_in(
        action.final_diagnosis, extracted.decision
    ):
        faults.append(
            f"action: the decision that you copied does not say {action.final_diagnosis!r}"
        )
    elif isinstance(action, OrdersRead):
        faults += [
            f"action: the text does not say {name!r}"
            for name in orders
            if not names_stand_in(name, text)
        ]
    if faults:
        # Five are enough to see what is wrong, and keep the prompt short.
        raise MalformedReply("\n".join(faults[:5]), reply.text)
    # After the record's own faults: the text is at fault only where the record is right.
    if not diagnoses and not isinstance(action, Commit):
        raise NoAction("it names no disease that it holds possible", text)
    if not isinstance(action, Commit) and (count := len(single_tests(orders))) > MOST_TESTS:
        raise NoAction(f"it orders {count} tests; order the {MOST_TESTS} that matter most", text)
    if not _told_by(extracted.pivot, text):
        raise MalformedReply(
            "pivot: this is not what the text is about; say what it wants to settle or what "
            "settled it",
            reply.text,
        )
    return reading


def _told_by(sentence: str, text: str) -> bool:
    """Whether a third of the longer words of `sentence` stand in `text`: a sentence of its own, but
    not about something else."""
    words = [word for word in re.findall(r"\w+", sentence) if len(word) >= 5]
    text_words = set(re.findall(r"\w+", text))
    return 3 * sum(any(_same(word, another) for another in text_words) for word in words) >= len(
        words
    )


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


# Words that a name may have more than the text.
# 'Troponin level' in the record is 'troponin' in the text.
_IDLE = frozenset(
    """
    a an and for from in of on or s the to with
    level levels panel scan study test tests testing
    """.split()  # noqa: SIM905
)


def names_stand_in(name: str, text: str) -> bool:
    """Whether one sentence or line of `text` has every word of `name`, in any order; small words
    and endings do not count.

    A name with an abbreviation in brackets stands in a text that has either, and one whose initials
    the text has in capitals stands in it too: 'complete blood count (CBC)' in '…, so a CBC'. This
    bounds what a reader can make up; it does not tell an order from a mention.
    """
    sentences = [set(re.findall(r"\w+", sentence)) for sentence in statements(text)]
    # Three initials and more: 'CT' would stand for too many names.
    initials = "".join(word[0] for word in _words_of_name(_BRACKETED.sub(" ", name))).upper()
    forms = list(_name_forms(name))
    return any(
        (len(initials) > 2 and initials in words)
        or any(all(any(_same(word, other) for other in words) for word in form) for form in forms)
        for words in sentences
    )


_BRACKETED = re.compile(r"[(\[]([^()\[\]]*)[)\]]")


def _words_of_name(name: str) -> list[str]:
    return [word for word in re.findall(r"\w+", name) if word.casefold() not in _IDLE]


def _name_forms(name: str) -> Iterator[list[str]]:
    for part in (name, _BRACKETED.sub(" ", name), *_BRACKETED.findall(name)):
        if words := _words_of_name(part):
            yield words


def _same(word: str, another: str) -> bool:
    """The same word, but for its ending ('biopsy', 'biopsies') or, from 5 letters on, one letter
    ('tumour', 'tumor')."""
    a, b = word.casefold(), another.casefold()
    if a == b:
        return True
    # Digits make another test ('CA 125', 'CA 15-3'), and short words too many others.
    if min(len(a), len(b)) < 4 or any(character.isdigit() for character in a + b):
        return False
    common = next(
        (at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    return common >= max(4, 0.6 * max(len(a), len(b))) or (
        min(len(a), len(b)) >= 5 and OSA.distance(a, b, score_cutoff=1) <= 1
    )
