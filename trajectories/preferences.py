"""Preference data: of two replies to one prompt, which one was better.

Two replies are compared where their prompts are the same to the letter: rollouts from o1, and
branches of one turn. They are compared by what came of them, by the first of these that tells them
apart:

1. outcome: the share of the paths through the reply that commit to the true diagnosis (DTC 0);
2. dtc: hops from the reply's own leading hypothesis to the truth; nearer is better;
3. information: how much the results of the reply's tests raised the stated probability of the
   truth, in the turn after; a mean over the paths, and a difference of at least LEAST_GAIN.

How many of the tests were documented never counts: a policy would learn to order what is always
there. What is unknown on either side decides nothing, and replies that nothing tells apart are no
pair.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl

from medaction.envs.records import ClinicalEnvironment
from medaction.envs.rewards import standing
from medaction.envs.turns import Turn
from medaction.kg.metrics import reaches_truth
from medaction.trajectories.export import (
    MESSAGE,
    REPLY,
    SWITCH,
    Prompt,
    SplitFiles,
    reply_message,
    split_of,
)
from medaction.trajectories.labels import rejected
from medaction.trajectories.quarantine import QUARANTINED
from medaction.trajectories.records import Trajectory, path_of
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import trees_of

PREFERENCE_MEASURES = ("outcome", "dtc", "information")

LEAST_GAIN = 0.05
"""Two gains of information that differ by less are alike: clinicians state their confidence in
steps of five percent (our choice)."""

_TEXT, _NUMBER = pl.String(), pl.Int32()
ABOUT = {"case_id": _TEXT, "turn": _NUMBER, "source": _TEXT, "licence": _TEXT}
PAIRS = pl.Schema({
    "id": _TEXT, "prompt": pl.List(MESSAGE), "chosen": pl.List(REPLY), "rejected": pl.List(REPLY),
    "chat_template_kwargs": SWITCH, "better_by": _TEXT, "chosen_id": _TEXT, "rejected_id": _TEXT,
    "chosen_teacher": _TEXT, "rejected_teacher": _TEXT,
} | ABOUT)  # fmt: skip
"""The columns that TRL's DPOTrainer reads, and where a pair comes from."""
LABELS = pl.Schema({
    "id": _TEXT, "prompt": pl.List(MESSAGE), "completion": pl.List(REPLY),
    "chat_template_kwargs": SWITCH, "label": pl.Boolean(), "teacher": _TEXT,
} | ABOUT)  # fmt: skip
"""The columns that TRL's KTOTrainer reads."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A reply to a prompt, and what came of it; None: unknown."""

    id: str
    teacher: str
    turn: Turn
    outcome: float | None
    dtc: int | None
    information: float | None


@dataclass(frozen=True, slots=True)
class State:
    """A prompt and all replies to it that differ."""

    environment: ClinicalEnvironment
    prompt: list[dict[str, str]]
    candidates: tuple[Candidate, ...]


def better(one: Candidate, other: Candidate) -> tuple[str, Candidate, Candidate] | None:
    """(the measure that tells them apart, the better, the worse); None: nothing does."""
    for measure in PREFERENCE_MEASURES:
        values = getattr(one, measure), getattr(other, measure)
        # Unknown is neither better nor worse: the next measure may tell.
        if None in values or values[0] == values[1]:
            continue
        # Rounded: 0.3 - 0.25 is less than 0.05 as a float.
        if measure == "information" and round(abs(values[0] - values[1]), 6) < LEAST_GAIN:
            continue
        is_first = values[0] < values[1] if measure == "dtc" else values[0] > values[1]
        return (measure, one, other) if is_first else (measure, other, one)
    return None


def states(
    store: Store, prompt: Prompt, nodes: dict[str, int | None], truth: Callable[..., int | None]
) -> Iterator[State]:
    """Every prompt that was answered, environment by environment.

    nodes: the diagnoses of the store on the disease graph; truth: an environment -> its true
    diagnosis there. Gold trajectories were written with the report at hand and answer no prompt.
    What a clinician rejected, a turn or a whole environment, is no reply, nor what a quarantined
    teacher played.
    """
    rejected_cases, rejected_turns = rejected(store.path.parent)
    sql = "select trajectory_id from verdicts where reason = ?"
    held = {id_ for (id_,) in store.rows(sql, [QUARANTINED])}
    for batch in trees_of(store):
        ids = [member.trajectory_id for _, tree in batch for member in tree]
        sql = (  # a hash join: `list_contains` would compare each row with each id
            "select trajectory_id, number, dtc from turn_scores"
            " where trajectory_id in (select unnest(?))"
        )
        dtc = {(id_, number): value for id_, number, value in store.rows(sql, [ids])}
        for environment, tree in batch:
            if environment.case_id not in rejected_cases:
                goal = truth(environment)
                left_out = rejected_turns, held
                yield from _states_of(environment, tree, prompt, dtc, nodes, goal, *left_out)


def _states_of(
    environment: ClinicalEnvironment,
    tree: Sequence[Trajectory],
    prompt: Prompt,
    dtc: dict[tuple[str, int], int | None],
    nodes: dict[str, int | None],
    goal: int | None,
    rejected_turns: Set[tuple[str, int]],
    held: Set[str],
) -> Iterator[State]:
    by_id = {trajectory.trajectory_id: trajectory for trajectory in tree}
    branches = [
        branch
        for branch in tree
        if branch.spec.style != "gold" and branch.trajectory_id not in held
    ]
    paths = {branch.trajectory_id: path_of(branch, by_id) for branch in branches}
    prompts: dict[str, list[dict[str, str]]] = {}
    replies: dict[str, dict[tuple[str, str], list[tuple[Trajectory, Turn]]]] = defaultdict(dict)
    # In one order: the first of equal replies gives the pair its id.
    for branch in sorted(branches, key=lambda member: member.trajectory_id):
        path = paths[branch.trajectory_id]
        for turn in branch.turns:
            if (branch.trajectory_id, turn.number) in rejected_turns:
                continue
            messages = prompt(environment, branch, path[: turn.number - 1])
            # With the turn's number: replies are compared at one place of the work-up.
            key = json.dumps([turn.number, messages])
            prompts[key] = messages
            replies[key].setdefault((turn.raw, turn.thinking), []).append((branch, turn))
    for key, same_replies in replies.items():
        candidates = []
        for places in same_replies.values():
            # The paths through all replies that say the same. Turns are not compared: the seconds
            # and dollars that one took are no part of what it says.
            through = {
                id_: path
                for (_, turn), (id_, path) in product(places, paths.items())
                if len(path) >= turn.number and path[turn.number - 1] is turn
            }
            candidates.append(_candidate(*places[0], through, dtc, nodes, goal))
        yield State(environment, prompts[key], tuple(candidates))


def _candidate(
    branch: Trajectory,
    turn: Turn,
    through: Mapping[str, Sequence[Turn]],
    dtc: dict[tuple[str, int], int | None],
    nodes: dict[str, int | None],
    goal: int | None,
) -> Candidate:
    """A reply with what came of it on all paths `through` it."""
    ends = [
        reaches_truth(path[-1].final_diagnosis is not None, dtc.get((id_, path[-1].number)))
        for id_, path in through.items()
    ]
    # A path of unknown end is left out, not counted as wrong.
    known = [is_right for is_right in ends if is_right is not None]
    gains = []
    for path in through.values():
        now = standing(path[turn.number - 1], nodes, goal)
        # A last turn has no differential after it, and so no gain.
        then = standing(path[turn.number], nodes, goal) if len(path) > turn.number else None
        if now and then:
            gains.append(then.probability - now.probability)
    reply, outcome = f"{branch.trajectory_id}-{turn.number}", fmean(known) if known else None
    hops, gain = dtc.get((branch.trajectory_id, turn.number)), fmean(gains) if gains else None
    return Candidate(reply, branch.spec.teacher, turn, outcome, hops, gain)


def pair_records(state: State, validation_percent: int) -> Iterator[dict[str, Any]]:
    """A record of PAIRS, with its `split`, for every two replies of which one was better."""
    for one, other in combinations(state.candidates, 2):
        if (verdict := better(one, other)) is None:
            continue
        measure, chosen, rejected = verdict
        yield {
            "id": f"{chosen.id}-{rejected.id}",
            "prompt": state.prompt,
            "chosen": [reply_message(chosen.turn)],
            "rejected": [reply_message(rejected.turn)],
            "chat_template_kwargs": _switch(chosen, rejected),
            "better_by": measure,
            "chosen_id": chosen.id,
            "rejected_id": rejected.id,
            "chosen_teacher": chosen.teacher,
            "rejected_teacher": rejected.teacher,
        } | _about(state, chosen, validation_percent)


def label_records(state: State, validation_percent: int) -> Iterator[dict[str, Any]]:
    """A record of LABELS, with its `split`, for every reply that was better more often than worse,
    or the other way round."""
    wins: dict[str, int] = defaultdict(int)
    for one, other in combinations(state.candidates, 2):
        if verdict := better(one, other):
            wins[verdict[1].id] += 1  # KTO wants one label a reply, not pairs
            wins[verdict[2].id] -= 1
    for candidate in state.candidates:
        if wins[candidate.id]:
            yield {
                "id": candidate.id,
                "prompt": state.prompt,
                "completion": [reply_message(candidate.turn)],
                "chat_template_kwargs": _switch(candidate),
                "label": wins[candidate.id] > 0,
                "teacher": candidate.teacher,
            } | _about(state, candidate, validation_percent)


def _switch(*replies: Candidate) -> dict[str, bool]:
    """On where one of the replies was thought over first."""
    return {"enable_thinking": any(reply.turn.thinking for reply in replies)}


def _about(state: State, candidate: Candidate, validation_percent: int) -> dict[str, Any]:
    world = state.environment
    split = split_of(world.case_id, validation_percent)
    about = {"case_id": world.case_id, "turn": candidate.turn.number, "split": split}
    return about | {"source": world.source, "licence": world.licence}


def write_preferences(found: Iterable[State], folder: Path, validation_percent: int) -> None:
    """Write `dpo-<split>` and `kto-<split>` as parquet and JSONL; what has no record has no file.
    Each state is looked at once: to rebuild its prompt is what it costs."""
    folder.mkdir(exist_ok=True)
    with SplitFiles(folder, "dpo-", PAIRS) as pairs, SplitFiles(folder, "kto-", LABELS) as labels:
        for state in found:
            for record in pair_records(state, validation_percent):
                pairs.add(record)
            for record in label_records(state, validation_percent):
                labels.add(record)
    # An empty folder would look like preferences that were lost.
    if not any(folder.iterdir()):
        folder.rmdir()


def missing_pairs(found: Iterable[State]) -> list[tuple[str, int]]:
    """(trajectory, turn to branch after) of every state after turn 1 that has one reply alone, or
    replies that nothing tells apart: where a branch would make a pair."""
    points = []
    for state in found:
        number = state.candidates[0].turn.number
        # Turn 1 needs no branch: its replies are the rollouts from o1.
        if number > 1 and not any(better(*two) for two in combinations(state.candidates, 2)):
            points.append((state.candidates[0].id.rpartition("-")[0], number - 1))
    return sorted(points)
