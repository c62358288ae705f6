"""A trajectory judged: what a judge found under the rules of a protocol, and the score that follows
from it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from medaction.envs.records import ClinicalEnvironment
from medaction.evaluation.dialogue import DIALOGUE_VERSION
from medaction.evaluation.judges import ComparedTests, Judge, documented_text
from medaction.evaluation.protocol import Protocol, judged_answer, message_of, requested, split_case
from medaction.evaluation.scores import Score, hit_share
from medaction.llm.calls import ModelDeclined, ModelError
from medaction.llm.replies import MalformedReply
from medaction.llm.usage import Usage
from medaction.trajectories.records import Trajectory

# By its beginning: earlier versions of the prompts had the same sections.
_IN_SECTIONS = DIALOGUE_VERSION.split("-")[0] + "-"

_FREE = Usage()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one judge found in one trajectory. `tests` or `correct` None: not scored, for the
    reasons in `notes`."""

    tests: ComparedTests | None
    correct: bool | None
    notes: tuple[str, ...] = ()
    usage: Usage = _FREE


_JUDGEMENT = TypeAdapter(Judgement)

FAULT = "judge: "
"""Begins the note of a judgement that a judge's own failure left incomplete."""


def judgement_json(judgement: Judgement) -> str:
    return json.dumps(asdict(judgement))


def judgement_of(text: str) -> Judgement:
    return _JUDGEMENT.validate_json(text)


def is_complete(judgement: Judgement) -> bool:
    """Whether the judge did its work; what the rules drop is complete."""
    return not any(note.startswith(FAULT) for note in judgement.notes)


async def judge(
    judging: Judge,
    trajectory: Trajectory,
    environment: ClinicalEnvironment,
    summary: str,
    rules: Protocol,
) -> Judgement:
    """Judge tests and diagnosis. `summary`: the case summary as MedR-Bench has it, '' where there
    is none.

    A judge that gives no verdict leaves that half unscored, and says why in a note that begins with
    FAULT.
    """
    messages = messages_of(trajectory, rules)
    orders = tuple(dict.fromkeys(test for turn in trajectory.turns for test in turn.tests))
    if trajectory.prompt_version.startswith(_IN_SECTIONS):
        # An order of the dialogue is a line of prose, which a judge has to take apart.
        orders = ()
    requests = requested(messages, rules, orders)
    # As released the examiner's text is the summary's end; our own menu otherwise.
    hidden = split_case(summary) if rules.raw_summary and summary else None
    documented = hidden[1] if hidden else documented_text(environment)
    notes = (
        []
        if requests
        else ["solved in its first message: nothing was requested, and the rules drop such cases"]
    )
    tests, correct = await asyncio.gather(
        _guarded(judging.tests(requests, environment, documented, rules), notes)
        if requests
        else asyncio.sleep(0),
        _guarded(judging.diagnosis(judged_answer(messages, rules), environment, rules), notes),
    )
    return Judgement(tests, correct, tuple(notes), judging.usage)


async def _guarded(verdict: Any, notes: list[str]) -> Any:
    try:
        return await verdict
    except (MalformedReply, ModelError) as error:
        # One half that fails leaves the other one its verdict.
        notes.append(f"{FAULT}{type(error).__name__}: {error}"[:500])
        return None


def messages_of(trajectory: Trajectory, rules: Protocol) -> list[str]:
    """The trajectory as the doctor's messages in the benchmark's sections."""
    in_sections = trajectory.prompt_version.startswith(_IN_SECTIONS)
    return [message_of(turn, rules.mode, turn.number, in_sections) for turn in trajectory.turns]


def score_of(judgements: Sequence[Judgement], case_id: str, run: int) -> Score:
    """The score of one trajectory by one judge: over its repeats the mean precision and recall, and
    the verdict of the majority (a tie is no)."""
    tests = [judgement.tests for judgement in judgements if judgement.tests is not None]
    verdicts = [judgement.correct for judgement in judgements if judgement.correct is not None]
    notes = dict.fromkeys(note for judgement in judgements for note in judgement.notes)
    precision = recall = None
    if tests:
        precisions = [hit_share([hit for _, hit in compared.requested]) for compared in tests]
        recalls = [hit_share([hit for _, hit in compared.documented]) for compared in tests]
        precision, recall = sum(precisions) / len(tests), sum(recalls) / len(tests)
    # A tie is no: a doubtful answer is not counted as right.
    correct = 2 * sum(verdicts) > len(verdicts) if verdicts else None
    return Score(case_id, run, precision, recall, correct, "; ".join(notes))


def failed_score(case_id: str, run: int, error_class: str, rules: Protocol) -> Score:
    """The score of a rollout that failed: wrong where its model is to blame and the rules do not
    drop it, else left out."""
    unreadable = error_class in (MalformedReply.__name__, ModelDeclined.__name__)
    if unreadable and not rules.drops:
        note = f"the model gave no usable reply ({error_class})"
        return Score(case_id, run, 0.0, 0.0, False, note, unreadable)
    note = f"rollout failed: {error_class}"
    return Score(case_id, run, None, None, None, note, unreadable)
