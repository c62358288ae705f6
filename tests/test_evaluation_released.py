"""`released` beside MedR-Bench's own code, written again here from its description: on the same
dialogues, with the same judge behind a real server, every verdict is the same.

The benchmark's code (commit 1eb1162): a test is a miss when it has no type or its comparison fails;
one single item without a type makes precision and recall 0; a verdict is right when the reply holds
'correct'; a free-turn case that was solved in its first message is dropped.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from medaction.envs.records import ClinicalEnvironment, DocumentedTest
from medaction.evaluation.judges import LlmJudge, documented_text
from medaction.evaluation.protocol import (
    CONCLUSION,
    REQUEST,
    THOUGHT,
    Mode,
    judged_answer,
    protocol,
    requested,
)
from medaction.evaluation.scores import hit_share
from medaction.llm.teacher import Teacher
from tests.openai_server import Asked, Reply, openai_server

WORLD = ClinicalEnvironment(
    "case-1",
    "medrbench",
    "title",
    "A man of 40 with cough.",
    (
        DocumentedTest("Blood count", "laboratory", "normal", ()),
        DocumentedTest("Chest CT", "imaging", "hilar nodes", ()),
        DocumentedTest("Biopsy", "pathology", "granulomas", ()),
    ),
    "Sarcoidosis",
)
LINES = (
    "Blood count: anemia?",
    "Chest CT: nodes?",
    "Biopsy: granulomas?",
    "Untyped swab: growth?",
    "Failing scan: anything?",
    "Urinalysis: protein?",
    "Chest radiograph: nodes?",
)
SAME_PURPOSE = {"chest radiograph": "chest ct"}
VERDICTS = {"Sarcoidosis": "Correct", "Lymphoma": "Wrong", "Gout": "Incorrect", "Flu": "unsure"}


def items_of(text: str) -> list[dict[str, str]]:
    """What the fake judge extracts: a test a line, without a type where the line says so."""
    names = [line.strip("- ").partition(":")[0] for line in text.splitlines() if ":" in line]
    return [
        {"test_name": name, "info_required": "why"}
        | ({} if name.startswith("Untyped") else {"type": "test"})
        for name in names
    ]


def match_of(name: str, text: str) -> str | None:
    """What it says of a test beside a text; None: the call fails."""
    name, text = name.casefold(), text.casefold()
    if name.startswith("failing"):
        return None
    return "Yes" if name in text or SAME_PURPOSE.get(name, "\0") in text else "No"


def verdict_of(stated: str) -> str:
    return next(reply for name, reply in VERDICTS.items() if name in stated)


def fake_judge(request: Asked, number: int) -> Reply | str:
    system, user = (message["content"] for message in request.body["messages"][:2])
    data = json.loads(user)
    if "request" in data:
        return json.dumps({"tests": items_of(data["request"])})
    if "test" in data:
        assert "serves the purpose" in system  # match rule 2 is asked for
        reply = match_of(data["test"].partition(" (")[0], data["text"])
        return Reply("no", status=400) if reply is None else reply
    return verdict_of(data["stated"])


@dataclass(frozen=True)
class Verdicts:
    precision: float | None
    recall: float | None
    correct: bool


def reference(messages: Sequence[str], mode: Mode) -> Verdicts:
    """MedR-Bench's scoring of a dialogue, after its description."""
    correct = "correct" in verdict_of(messages[-1]).lower()
    asking = messages[:1] if mode == "one-turn" else messages[:-1][:15]
    if not asking:
        return Verdicts(None, None, correct)
    predicted = "\n".join(
        message.rsplit(REQUEST, 1)[1] if REQUEST in message else "" for message in asking
    )
    truth = documented_text(WORLD)
    items, documented = items_of(predicted), items_of(truth)
    if len(items) == 1 and "type" not in items[0]:
        return Verdicts(0.0, 0.0, correct)

    def part(ours: list[dict[str, str]], text: str) -> float:
        hits = ["type" in item and match_of(item["test_name"], text) == "Yes" for item in ours]
        return sum(hits) / len(hits) if hits else 0.0

    return Verdicts(part(items, truth), part(documented, predicted), correct)


def dialogue(seed: int, mode: Mode) -> list[str]:
    draw = random.Random(seed)
    messages = []
    for _ in range(draw.choice([0, 1, 1, 2, 3]) if mode == "free-turn" else 1):
        request = "\n".join(f"- {line}" for line in draw.sample(LINES, draw.randint(0, 4)))
        parts = [f"{REQUEST}\n{request or 'Not required.'}", f"{CONCLUSION}\nMaybe Biopsy: later"]
        if mode == "one-turn":
            parts.reverse()
        messages.append("\n".join([f"{THOUGHT}\nI think.", *parts]))
    messages.append(f"{THOUGHT}\nI know.\n{CONCLUSION}\n{draw.choice(list(VERDICTS))}")
    return messages


@pytest.mark.parametrize("mode", ["free-turn", "one-turn"])
def test_every_verdict_is_that_of_the_released_code(mode: Mode) -> None:
    rules = protocol("released", mode)
    dialogues = [dialogue(seed, mode) for seed in range(12)]
    dialogues.append([f"{REQUEST}\nUntyped swab: growth?", f"{CONCLUSION}\nGout"])
    with openai_server(fake_judge) as server:
        judge = LlmJudge(Teacher(name="judge", model="openai/m", api_base=server.url))

        async def ours(messages: Sequence[str]) -> Verdicts:
            correct = await judge.diagnosis(judged_answer(messages, rules), WORLD, rules)
            asked = requested(messages, rules)
            if asked is None:
                return Verdicts(None, None, correct)
            tests = await judge.tests(asked, WORLD, documented_text(WORLD), rules)
            sides = (tests.requested, tests.documented)
            precision, recall = (hit_share([hit for _, hit in side]) for side in sides)
            return Verdicts(precision, recall, correct)

        async def every() -> list[Verdicts]:
            return [await ours(messages) for messages in dialogues]

        verdicts = asyncio.run(every())
    expected = [reference(messages, mode) for messages in dialogues]
    assert verdicts == expected
    assert {verdict.correct for verdict in expected} == {True, False}
    assert len({verdict.precision for verdict in expected}) > 3
