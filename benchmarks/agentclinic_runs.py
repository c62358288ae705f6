"""AgentClinic's run logs (JSON Lines) as trajectories, so that what other systems played can be
judged like our own rollouts.

A log's 'doctor_hist' is one text in which requests ('REQUEST TEST: X'), their results ('RESULTS:
Y'), questions to the patient with their answers, and at last 'DIAGNOSIS READY: Z' follow each
other. A turn here ends with a request or the diagnosis; questions and answers since the last one
are its reasoning. The examiner there was a language model: its answers are kept as it gave them.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medaction.envs.records import Answer, BadCase, ClinicalEnvironment, DocumentedResult
from medaction.envs.turns import Hypothesis, Turn
from medaction.trajectories.records import Outcome, RolloutSpec, Trajectory

_MOVE = re.compile(
    r"(?P<what>REQUEST TEST|RESULTS|DIAGNOSIS READY):[ \t]*(?P<told>[^\n]*(?:\n(?!\n)[^\n]*)*)"
)
_NO_RESULT = re.compile(r"\s*NORMAL READINGS\.?\s*", re.IGNORECASE)
"""What AgentClinic's examiner says of a test that the case does not have."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """One run: the case's number in its data set, the truth and the verdict that the log's own
    judge gave, and what was played."""

    number: int
    truth: str
    verdict: bool | None
    model: str
    turns: tuple[Turn, ...]

    @property
    def diagnosis(self) -> str:
        return (self.turns[-1].final_diagnosis or "") if self.turns else ""

    @property
    def orders(self) -> tuple[str, ...]:
        return tuple(test for turn in self.turns for test in turn.tests)

    def trajectory(self, environment: ClinicalEnvironment) -> Trajectory:
        """As a rollout in `environment`. Its settings are those of the log; its outcome is
        'turn_limit' without a diagnosis."""
        spec = RolloutSpec(
            environment.environment_id,
            environment.case_id,
            self.model,
            "free",
            0,
            "agentclinic-log",
        )
        outcome: Outcome = "diagnosed" if self.diagnosis else "turn_limit"
        return Trajectory(spec, self.turns, outcome, max(len(self.turns), 1), "agentclinic-log", "")


def read_transcripts(path: Path) -> Iterator[Transcript | BadCase]:
    """The runs of one file; a line that cannot be read is a BadCase, and the others go on."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            log = json.loads(line)
            yield Transcript(
                int(log["scenario_id"]),
                str(log["ground_truth"]),
                None if log.get("correct") is None else bool(log["correct"]),
                str(log.get("doctor_llm") or "unknown"),
                turns_of(str(log["doctor_hist"])),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            yield BadCase(
                "bad_transcript", f"{place}: {type(error).__name__}: {error}", path=str(path)
            )


def turns_of(history: str) -> tuple[Turn, ...]:
    """The turns of one doctor's history."""
    turns: list[Turn] = []
    orders: list[str] = []
    answers: list[Answer] = []
    speech, at = "", 0

    def end(final_diagnosis: str | None) -> None:
        number = len(turns) + 1
        leader = final_diagnosis or "none stated"
        turns.append(
            Turn(
                number,
                speech.strip(),
                (Hypothesis(leader[:160], 0),),
                "",
                tuple(orders),
                final_diagnosis,
                speech.strip() or leader,
                tuple(answers),
            )
        )

    for move in _MOVE.finditer(history):
        speech += history[at : move.start()]
        at, words = move.end(), " ".join(move["told"].split())
        if move["what"] == "REQUEST TEST":
            if orders:
                end(None)
                orders, answers, speech = [], [], ""
            orders = [words.replace("_", " ")]
            answers = [Answer(orders[0])]
        elif move["what"] == "RESULTS" and orders:
            results = () if _NO_RESULT.fullmatch(words) else (DocumentedResult(orders[0], words),)
            answers = [Answer(orders[0], results, "llm" if results else None)]
        elif move["what"] == "DIAGNOSIS READY":
            if orders:
                end(None)
                orders, answers, speech = [], [], ""
            end(words)
            return tuple(turns)
    if orders or history[at:].strip():
        speech += history[at:]
        end(None)
    return tuple(turns)
