"""AgentClinic's run logs (JSON Lines): what other systems ordered and diagnosed, so that it can be
judged like our own rollouts.

A log's 'doctor_hist' is one text in which requests ('REQUEST TEST: X'), their results ('RESULTS:
Y'), questions to the patient with their answers, and at last 'DIAGNOSIS READY: Z' follow each
other.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

_MOVE = re.compile(
    r"(?P<move>REQUEST TEST|RESULTS|DIAGNOSIS READY):[ \t]*(?P<text>[^\n]*(?:\n(?!\n)[^\n]*)*)"
)


@dataclass(frozen=True, slots=True)
class Transcript:
    """One run: the truth and the verdict that the log's own judge gave, the tests that were ordered
    and the diagnosis, '' without one."""

    truth: str
    verdict: bool | None
    orders: tuple[str, ...]
    diagnosis: str


def read_transcripts(path: Path) -> list[Transcript]:
    """The runs of one file."""
    return [_transcript(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def _transcript(log: dict[str, str | int | bool | None]) -> Transcript:
    orders, diagnosis = [], ""
    for match in _MOVE.finditer(str(log["doctor_hist"])):
        words = " ".join(match["text"].split())
        if match["move"] == "REQUEST TEST":
            orders.append(words.replace("_", " "))
        elif match["move"] == "DIAGNOSIS READY":
            diagnosis = words
            break
    verdict = None if log.get("correct") is None else bool(log["correct"])
    return Transcript(str(log["ground_truth"]), verdict, tuple(orders), diagnosis)
