"""Who scores: a language model through LiteLLM, or the offline judge. Both compare requested with
documented tests, and diagnoses.

What a model under test wrote, and what a case says, reaches a language-model judge inside one JSON
string each, so that it cannot end its quotation; a verdict counts only when the whole reply is one
of the two allowed ones (the rules 'released' find one anywhere).
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

from medaction.envs.orders import single_tests
from medaction.envs.records import ClinicalEnvironment
from medaction.evaluation.judge_questions import (
    COVER,
    EXTRACT,
    MATCH,
    PURPOSE,
    SAME,
    SPOKEN_VERDICT,
    STRICT_WORDED,
    STRICT_YES_NO,
    WORDED,
    YES_NO,
)
from medaction.evaluation.judge_replies import (
    ITEMS_SCHEMA,
    MOST_ITEMS,
    object_of,
    pairs_schema,
    read_items,
    read_pairs,
    read_verdict,
)
from medaction.evaluation.protocol import Protocol, Requested
from medaction.llm.calls import ModelError, complete, on_trial
from medaction.llm.replies import MalformedReply, split_thinking
from medaction.llm.teacher import Teacher
from medaction.llm.untrusted import one_line, plain
from medaction.llm.usage import Usage
from medaction.words.versions import constants_of, version_of

OFFLINE = "offline"
OFFLINE_RULES = tuple(
    f"medaction.{module}"
    for module in (
        *("evaluation.claims", "evaluation.contradictions", "evaluation.diagnoses"),
        *("evaluation.offline_judge", "evaluation.word_shares"),
        *("kg.hierarchy", "kg.opposites", "kg.readings"),
    )
)
"""The modules whose constants decide the offline judge's verdicts, besides graph and encoder."""

ATTEMPTS = 3
"""How often a language model is asked for one verdict before it counts as not given."""

_LONGEST = 12_000
"""Characters of one text that a judge is shown."""


@dataclass(frozen=True, slots=True)
class ComparedTests:
    """Each test of either side, and whether the other side has it."""

    requested: tuple[tuple[str, bool], ...]
    documented: tuple[tuple[str, bool], ...]


class Judge(Interface):
    """Scores one trajectory's tests and diagnosis. Raises MalformedReply or ModelError when there
    is no verdict."""

    usage: Usage

    async def tests(
        self, asked: Requested, environment: ClinicalEnvironment, documented: str, rules: Protocol
    ) -> ComparedTests: ...

    async def diagnosis(
        self, said: str, environment: ClinicalEnvironment, rules: Protocol
    ) -> bool: ...


# As the released code has them.
_HITS = ("是", "Yes", "yes", "YES")


class LlmJudge:
    """A language model. `repeat` gives a repeated judging its own seeds; `usage` adds up over all
    calls."""

    def __init__(self, model: Teacher, repeat: int = 0):
        self.usage = Usage()
        self._model = model
        self._seed = 1000 * repeat  # more than the attempts of one verdict

    async def tests(
        self, asked: Requested, environment: ClinicalEnvironment, documented: str, rules: Protocol
    ) -> ComparedTests:
        if rules.against_text:
            return await self._against_texts(asked.text, documented, rules)
        # Orders of our schema are tests already: asking for them would only lose some.
        requests = single_tests(asked.tests) or tuple(
            item["test_name"] for item in await self._items(asked.requests)
        )
        return await self._lists(requests[:MOST_ITEMS], [test.name for test in environment.menu])

    async def diagnosis(self, said: str, environment: ClinicalEnvironment, rules: Protocol) -> bool:
        data = {"true_diagnosis": environment.diagnosis, "stated": said}
        if rules.lenient_verdicts:
            # As released: anywhere in the reply, so that 'Incorrect' counts as well.
            return "correct" in (await self._reply(SAME + WORDED, data)).lower()
        # A statement that says 'correct' must not be taken for the verdict on itself.
        data["stated"] = SPOKEN_VERDICT.sub(" ", said)
        # Nothing but a verdict was stated: no diagnosis, and no call.
        if not any(map(str.isalpha, data["stated"])):
            return False
        return await self.verdict(SAME + STRICT_WORDED, data, ("incorrect", "correct"))

    async def _against_texts(
        self, requested: str, documented: str, rules: Protocol
    ) -> ComparedTests:
        """The benchmark's own way: each item of one side against the whole text of the other."""
        ours, theirs = await asyncio.gather(self._items(requested), self._items(documented))
        # As released: a prediction of one item without its type scores 0, whatever it names.
        if len(ours) == 1 and not ours[0].get("type"):
            return ComparedTests(
                ((ours[0].get("test_name", ""), False),),
                tuple((item["test_name"], False) for item in theirs),
            )

        async def covered(items: list[dict[str, str]], text: str) -> tuple[tuple[str, bool], ...]:
            hits = await asyncio.gather(*(self._covers(item, text, rules) for item in items))
            return tuple((item["test_name"], hit) for item, hit in zip(items, hits, strict=True))

        return ComparedTests(
            *await asyncio.gather(covered(ours, documented), covered(theirs, requested))
        )

    async def _covers(self, item: dict[str, str], text: str, rules: Protocol) -> bool:
        if not item.get("type"):  # as released: an item without its type is a miss
            return False
        data = {
            "test": f"{item['test_name']} ({item['type']}): {item['info_required']}",
            "text": text,
        }
        if rules.lenient_verdicts:
            try:
                reply = await self._reply(COVER + PURPOSE + YES_NO, data)
            except ModelError:
                return False  # as released: a comparison whose call fails is a miss
            return any(hit in reply for hit in _HITS)
        return await self.verdict(COVER + STRICT_YES_NO, data, ("no", "yes"))

    async def _items(self, text: str) -> list[dict[str, str]]:
        """The tests that a text names, as the benchmark has them: type, test_name, info_required.
        No text, no call."""
        if not text.strip():
            return []
        return await self.ask(EXTRACT, {"request": text}, ITEMS_SCHEMA, read_items)

    async def _lists(self, requested: Sequence[str], documented: Sequence[str]) -> ComparedTests:
        pairs: set[tuple[int, int]] = set()
        if requested and documented:
            # Numbered: the reply names tests by number, and cannot rewrite them.
            data = {
                side: {str(number): one_line(name) for number, name in enumerate(names, 1)}
                for side, names in (("requested", requested), ("documented", documented))
            }
            size = (len(requested), len(documented))
            pairs = await self.ask(
                MATCH, data, pairs_schema(*size), lambda reply: read_pairs(reply, *size)
            )
        ours, theirs = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
        return ComparedTests(
            tuple((name, number in ours) for number, name in enumerate(requested)),
            tuple((name, number in theirs) for number, name in enumerate(documented)),
        )

    async def verdict(
        self, instructions: str, data: dict[str, Any], answers: tuple[str, str]
    ) -> bool:
        """Whether the second of two answers is given, as `read_verdict` says. Raises MalformedReply
        at the last attempt, and ModelError."""
        schema = object_of({"answer": {"type": "string", "enum": list(answers)}})
        return await self.ask(
            instructions, data, schema, lambda reply: read_verdict(reply, answers)
        )

    async def ask(
        self, instructions: str, data: dict[str, Any], schema: dict[str, Any], read: Any
    ) -> Any:
        """What `read` makes of the reply; asked again, with another seed, when it refuses it.
        Raises MalformedReply at last."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with on_trial():
                    # `on_trial`: a reply that `read` refuses must not be cached as an answer.
                    return read(await self._reply(instructions, data, schema, attempt))
            except MalformedReply:
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def _reply(
        self,
        instructions: str,
        data: dict[str, Any],
        schema: dict[str, Any] | None = None,
        attempt: int = 1,
    ) -> str:
        asked = [
            {"role": "system", "content": instructions},
            {"role": "user", "content": fenced(data)},
        ]
        text, used = await complete(self._model, asked, schema, self._seed + attempt)
        self.usage += used
        return split_thinking(text)[1]


def fenced(data: dict[str, Any]) -> str:
    """Data as one JSON object: a text in it stays inside its string, whatever it holds; special
    tokens in it are broken."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [clean(inner) for inner in value]
        # Cut behind the cleaning, which may make a text longer.
        return plain(value)[:_LONGEST]

    return json.dumps(clean(data), ensure_ascii=False, indent=1)


def judge_key(judge: Teacher | None, sources: str, *questions: str) -> str:
    """The name of a judge with a hash of all that its verdicts depend on; None: the offline judge
    on graphs of the hash `sources`. questions: modules with questions of their own."""
    if judge is None:
        return f"{OFFLINE}@{version_of(constants_of(*OFFLINE_RULES))}-{sources}"
    # The questions count: a reworded one is another judge.
    asked = constants_of("medaction.evaluation.judge_questions", *questions)
    return f"{judge.name}@{version_of([judge.identity(), asked])}"


def documented_text(environment: ClinicalEnvironment) -> str:
    """The tests of the menu with their results, as a judge reads them."""
    return "\n".join(_lines((test.name, test.result) for test in environment.menu))


def _lines(tests: Iterable[tuple[str, str]]) -> list[str]:
    return [f"- {name}: {result}" for name, result in tests]
