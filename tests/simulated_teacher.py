"""A teacher that is no model: an OpenAI-compatible server whose replies depend on the request
alone, with faults on demand.

`python -m tests.simulated_teacher --log FILE [--port N] [--faults SEED]` serves it in a process of
its own, that can be killed and started again at the same port; FILE gets a line for every request:
a hash of it, and what it was answered with.

Every rollout has five turns: four order one test each, the fifth commits. The same request always
gets the same reply, so that a run can be compared with another one, whatever happened in between
and in whichever order the requests came.
"""

import argparse
import hashlib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from tests.openai_server import Asked, OpenAIServer, Reply

TURNS = 5
TESTS = (
    "Complete blood count",
    "C-reactive protein",
    "Chest radiograph",
    "Serum creatinine",
    "Urinalysis",
)
DISEASES = (
    "Sarcoidosis",
    "Tuberculosis",
    "Lymphoma",
    "Systemic lupus erythematosus",
    "Amyloidosis",
    "Crohn disease",
)

FAULTS = {
    "429": 0.05,
    "500": 0.02,
    "dropped": 0.01,
    "stalled": 0.01,
    "invalid": 0.03,
    "empty": 0.01,
    "cut off": 0.01,
}
"""The share of requests that meet each fault."""


def cases_in(folder: Path, count: int) -> Path:
    """`count` small made-up cases in the JSON form of docs/case-format.md, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        drawn = random.Random(number)
        age, weeks, hemoglobin = (
            drawn.randint(18, 90),
            drawn.randint(2, 30),
            drawn.randint(70, 160) / 10,
        )
        results = (
            f"Hemoglobin {hemoglobin} g/dL; white cells {drawn.randint(3, 20)} x 10^9/L",
            f"{drawn.randint(1, 300)} mg/L (reference below 5)",
            f"Bilateral hilar enlargement of {drawn.randint(10, 40)} mm, clear lungs",
            f"{drawn.randint(50, 400)} umol/L",
            f"Protein {drawn.randint(0, 3)}+, no blood, pH {drawn.randint(5, 8)}",
        )
        case = {
            "case_id": f"simulated-{number:05}",
            "title": f"Simulated case {number}",
            "licence": "CC0-1.0",
            "initial_observation": f"A {age}-year-old patient came with fever and tiredness for "
            f"{weeks} weeks, had lost"
            f" {drawn.randint(1, 15)} kg and slept badly. On examination the pulse was "
            f"{drawn.randint(60, 120)} per minute, and there"
            " were enlarged lymph nodes on both sides of the neck.",
            "diagnosis": drawn.choice(DISEASES),
            "tests": [
                {"name": name, "result": result}
                for name, result in zip(TESTS, results, strict=True)
            ],
        }
        (folder / f"{case['case_id']}.json").write_text(json.dumps(case))
    return folder


def mark(cases: Path, number: int) -> str:
    """The words that tell a case's prompts from others'."""
    case: dict[str, Any] = json.loads((cases / f"simulated-{number:05}.json").read_text())
    return case["initial_observation"][:60]


def answer(body: Mapping[str, Any], turns: int = TURNS) -> str:
    """The right reply to a request: a turn in the schema, a free-form one, or its record."""
    asked = body["messages"][1]["content"]
    if "<written_turn>" in asked:
        return _record(asked)
    drawn = random.Random(_hash(body))
    first, second = drawn.sample(DISEASES, 2)
    sure = drawn.randint(40, 70)
    number = int(re.findall(r"This is turn (\d+) of", asked)[-1])
    commits = number >= turns
    pivot = f"whether {first} explains the findings better than {second}"
    if "response_format" not in body:
        end = f"So the diagnosis is {first}." if commits else f"I now order: {TESTS[number - 1]}."
        return (
            f"This leaves {first} ({sure} %) and {second} (20 %) in my mind. I want to "
            f"settle {pivot}. {end}"
        )
    return json.dumps(
        {
            "reasoning": f"In turn {number} the findings leave these two, and I weigh them "
            "against each other.",
            "differential": [
                {"diagnosis": first, "confidence": sure},
                {"diagnosis": second, "confidence": 20},
            ],
            "pivot": f"It is open {pivot}.",
            "action": {"final_diagnosis": first}
            if commits
            else {"order_tests": [TESTS[number - 1]]},
        }
    )


def _record(asked: str) -> str:
    text = asked.split("<written_turn>")[1].split("</written_turn>")[0].strip()
    named = re.findall(r"(?:leaves|and) ([A-Z][\w ]+?) \((\d+) %\)", text)
    decision = text.rsplit(". ", 1)[-1]
    what = re.split(r"is |: ", decision, maxsplit=1)[1].rstrip(".")
    commits = decision.startswith("So the diagnosis")
    return json.dumps(
        {
            "decision": decision,
            "action": {"final_diagnosis": what} if commits else {"order_tests": [what]},
            "differential": [
                {"diagnosis": name, "confidence": int(percent)} for name, percent in named
            ],
            "pivot": re.findall(r"settle (whether .*?)\. ", text)[0],
        }
    )


def _hash(body: Mapping[str, Any]) -> str:
    # What a turn is asked, without attempts at it: a repaired reply says what the first one would
    # have said.
    return hashlib.sha256(
        json.dumps([body["messages"][:2], body["model"]]).encode()
    ).hexdigest() + str(body["seed"])


class Simulated:
    """The server's script, with faults drawn by `faults` (a seed), the request and how often it
    came: None for no faults."""

    def __init__(
        self,
        log: Path,
        faults: int | None = None,
        stall_s: float = 30.0,
        after_s: float = 0.0,
        turns: int = TURNS,
    ):
        self.log = log.open("a", buffering=1)
        self.faults, self.stall_s, self.after_s, self.turns = faults, stall_s, after_s, turns
        self.seen: Counter[str] = Counter()

    def __call__(self, asked: Asked, _: int) -> Reply:
        key = hashlib.sha256(json.dumps(asked.body, sort_keys=True).encode()).hexdigest()
        fault = self._fault(key)
        self.seen[key] += 1
        self.log.write(f"{key} {fault or 'answered'}\n")
        good = answer(asked.body, self.turns)
        replies = {
            "429": Reply("too many requests", status=429, headers={"Retry-After": "1"}),
            "500": Reply("internal error", status=500),
            "dropped": Reply(drop=True),
            "stalled": Reply(good, after_s=self.stall_s),
            "invalid": Reply("{" + good[: len(good) // 2]),
            "empty": Reply(""),
            "cut off": Reply(good[: len(good) // 2], finish_reason="length"),
        }
        return replies[fault] if fault else Reply(good, after_s=self.after_s)

    def _fault(self, key: str) -> str | None:
        if self.faults is None:
            return None
        drawn = random.Random(f"{self.faults} {key} {self.seen[key]}").random()
        for name, share in FAULTS.items():
            if drawn < share:
                return name
            drawn -= share
        return None


class Failing:
    """The simulated teacher; what it is asked about some cases fails in their own way while
    `broken`. Keeps whom it was asked about."""

    def __init__(self, ways: dict[str, Reply]):
        self.ways, self.broken, self.asked_about = ways, True, list[str]()

    def __call__(self, asked: Asked, _: int) -> Reply:
        prompt = asked.body["messages"][1]["content"]
        about = next((words for words in self.ways if words in prompt), "the others")
        self.asked_about.append(about)
        return self.ways[about] if self.broken and about in self.ways else Reply(answer(asked.body))


@contextmanager
def simulated_teacher(log: Path, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(process, api_base) of the server; killed at the end. Give `--port` to have it where an
    earlier one was."""
    command = [
        sys.executable,
        *("-m", "tests.simulated_teacher", "--log", str(log), *map(str, arguments)),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            yield server, server.stdout.readline().strip()
        finally:
            server.kill()


def requests_of(log: Path) -> list[tuple[str, str]]:
    """(hash, what it was answered with) of every request that the server had."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(line[:64], line[65:]) for line in lines]


class _Announced(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/v1", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--faults", type=int, help="a seed; no faults without it")
    parser.add_argument("--stall-s", type=float, default=30.0)
    parser.add_argument("--after-s", type=float, default=0.0, help="seconds that every reply takes")
    parser.add_argument("--turns", type=int, default=TURNS, help="the last commits")
    given = parser.parse_args()
    script = Simulated(given.log, given.faults, given.stall_s, given.after_s, given.turns)
    app = OpenAIServer(script).application()
    _Announced(uvicorn.Config(app, port=given.port, log_level="error", lifespan="off")).run()
