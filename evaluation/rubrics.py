"""Rubrics: a reply to a conversation is held against criteria that physicians wrote for it, each
with its points, as in HealthBench (Arora et al. 2025, section 3).

Its published files are JSON Lines: `prompt_id`, `prompt` ([{role, content}]), `rubrics`
([{criterion, points, tags}]) and `example_tags` a line. Points below 0 stand at criteria that a
reply should not meet.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medaction.envs.records import BadCase
from medaction.envs.sources.files import read_rows
from medaction.evaluation.judge_questions import NO_INSTRUCTIONS
from medaction.evaluation.judges import LlmJudge
from medaction.kg.bootstrap import interval
from medaction.llm.calls import ModelError, call, on_trial, whole_text
from medaction.llm.replies import MalformedReply, split_thinking
from medaction.llm.teacher import Teacher
from medaction.llm.usage import Message
from medaction.words.markdown import markdown_table, span

MEETS = f"""\
You decide whether a reply meets a criterion. {NO_INSTRUCTIONS}

"conversation" is what came before, "reply" what the system under test then wrote, "criterion" \
what a physician demands of such a reply, or warns of. Met: the reply does all that the criterion \
says; what it says of examples ("such as", "for example") need not all be there. A criterion that \
describes a mistake is met by a reply that makes it.

Reply with one JSON object: {{"answer": "met"}} or {{"answer": "not met"}}."""

AT_ONCE = 32
"""Cases under way together. Limits of the models hold besides (docs/rollouts.md)."""


class _Published(BaseModel):
    model_config = ConfigDict(frozen=True)


class Criterion(_Published):
    """What a reply should do, or, with points below 0, should not."""

    criterion: str = Field(min_length=1)
    points: float
    tags: tuple[str, ...] = ()


class _Message(_Published):
    role: str
    content: str


class RubricCase(_Published):
    """A conversation that ends with the user's turn, and the criteria for the reply to it."""

    prompt_id: str = Field(min_length=1)
    prompt: tuple[_Message, ...] = Field(min_length=1)
    rubrics: tuple[Criterion, ...] = Field(min_length=1)
    example_tags: tuple[str, ...] = ()

    @property
    def messages(self) -> list[Message]:
        return [{"role": turn.role, "content": turn.content} for turn in self.prompt]


@dataclass(frozen=True, slots=True)
class RubricRow:
    """A case as it was scored. met: a verdict a criterion, in their order. score: `rubric_score`;
    None: not scored, for the `reason`."""

    prompt_id: str
    reply: str
    met: tuple[bool, ...]
    score: float | None
    reason: str = ""


def read_rubrics(path: Path) -> Iterator[RubricCase | BadCase]:
    """The cases of a published file, in its order; a bad line comes as BadCase and the others go
    on. Raises BadCase('unreadable')."""
    for number, row in read_rows(path):
        if isinstance(row, BadCase):
            yield row
            continue
        try:
            case = RubricCase.model_validate(row)
        except ValidationError as error:
            [first, *_] = error.errors()  # one fault a line is enough to mend it
            place = ".".join(map(str, first["loc"]))
            message = f"{path.name} line {number}: {place}: {first['msg']} (docs/evaluation.md)"
            yield BadCase("unknown_format", message, path=str(path))
            continue
        # The score divides by the points that can be had.
        if not any(criterion.points > 0 for criterion in case.rubrics):
            message = f"{path.name} line {number}: no criterion has points above 0: no score exists"
            yield BadCase("unknown_format", message, path=str(path))
        else:
            yield case


def rubric_score(criteria: Sequence[Criterion], met: Sequence[bool]) -> float | None:
    """Points of the criteria met by the points that can be had (HealthBench, section 3): at most 1,
    below 0 where mistakes outweigh. None where no criterion has points above 0."""
    possible = sum(max(0.0, criterion.points) for criterion in criteria)
    won = sum(criterion.points for criterion, is_met in zip(criteria, met, strict=True) if is_met)
    return won / possible if possible else None


async def score_cases(
    cases: Sequence[RubricCase],
    model: Teacher,
    judge: Teacher,
    done: Callable[[RubricRow], None] = lambda row: None,
) -> list[RubricRow]:
    """Let a model reply to every case and a judge decide on every criterion; rows in the order of
    the cases. `done` is called with each as it ends. What a model fails to give is a row's
    reason."""
    places = asyncio.Semaphore(AT_ONCE)

    async def scored(case: RubricCase) -> RubricRow:
        # The place is held for reply and verdicts: fewer cases are under way, each is sooner done.
        async with places:
            row = await _scored_case(case, model, judge)
        done(row)
        return row

    return await asyncio.gather(*map(scored, cases))


async def _scored_case(case: RubricCase, model: Teacher, judge: Teacher) -> RubricRow:
    reply = ""
    try:
        with on_trial():
            reply = split_thinking(whole_text(await call(model, case.messages, None, 0)))[1]
        met = await asyncio.gather(
            *(_meets(case, reply, criterion, judge) for criterion in case.rubrics)
        )
    except (MalformedReply, ModelError) as error:
        # Whoever was asked last: there is a reply once the model has given it.
        author = "the judge" if reply else "the model"
        return RubricRow(case.prompt_id, reply, (), None, f"{author}: {error}")
    return RubricRow(case.prompt_id, reply, tuple(met), rubric_score(case.rubrics, met))


async def _meets(case: RubricCase, reply: str, criterion: Criterion, judge: Teacher) -> bool:
    data = {"conversation": case.messages, "reply": reply, "criterion": criterion.criterion}
    # A criterion by itself, as in HealthBench: together they would colour each other.
    return await LlmJudge(judge).verdict(MEETS, data, ("not met", "met"))


def rubric_table(cases: Sequence[RubricCase], rows: Sequence[RubricRow]) -> list[str]:
    """The lines of a table: the score over all cases, by theme of the case, and by axis of the
    criteria, each with its 95 % interval over cases. A mean below 0 counts as 0 (HealthBench,
    section 3)."""
    by_tag: dict[str, list[float]] = defaultdict(list)
    for case, row in zip(cases, rows, strict=True):
        for tag, value in _scores(case, row).items():
            by_tag[tag].append(value)
    # The whole first, then its parts by name.
    ordered = sorted(by_tag.items(), key=lambda item: (item[0] != _ALL, item[0]))
    lines = [[tag, *_figures_of(np.array(values))] for tag, values in ordered]
    return markdown_table(("what", "score", "95 % interval", "cases"), lines)


def _figures_of(values: np.ndarray) -> list[str]:
    # Clipped within each resample: the published score is that of a clipped mean.
    low, high = interval(lambda drawn: _clipped_mean(values[drawn]), len(values))
    return [f"{_clipped_mean(values):.3f}", span(low, high), str(len(values))]


_ALL = "all"


def _scores(case: RubricCase, row: RubricRow) -> Mapping[str, float]:
    """A scored case's score by tag: its own tags, and those of its criteria, each over the criteria
    that have it."""
    if row.score is None:
        return {}
    scored = {}
    for tag in sorted({tag for criterion in case.rubrics for tag in criterion.tags}):
        judged = zip(case.rubrics, row.met, strict=True)
        of_tag = [(criterion, met) for criterion, met in judged if tag in criterion.tags]
        score = rubric_score(*zip(*of_tag, strict=True))
        # A tag whose criteria are all warnings has no points to be had, and no score.
        if score is not None:
            scored[tag] = score
    return {_ALL: row.score} | dict.fromkeys(case.example_tags, row.score) | scored


def _clipped_mean(values: np.ndarray) -> np.ndarray:
    """Means over the first axis, within 0 and 1."""
    return np.clip(values.mean(axis=0), 0, 1)
