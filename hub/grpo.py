"""Reinforcement learning on episodes, before it starts: which cases are played, and whether the run
fits the machine. The processes that train run `medaction.hub.grpo_process`."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from medaction.envs.credit import Credit
from medaction.envs.prompts import PROMPT_VERSIONS, PromptTooLong
from medaction.envs.records import ClinicalEnvironment
from medaction.hub.episodes import Play, environments_of
from medaction.training.estimate import Load
from medaction.training.launch import base_and_tokenizer, fitting_the_machine, leave_job
from medaction.training.settings import TrainError, TrainSettings
from medaction.trajectories.export import split_of
from medaction.words.versions import version_of

TEMPERATURE = 0.6
"""Of the replies that are trained on: the one that models are evaluated with (paper, appendix C).
"""


class PlayedCases(NamedTuple):
    """The environments that are trained on, and those that only show what was learnt."""

    train: dict[str, ClinicalEnvironment]
    held_out: dict[str, ClinicalEnvironment]


def played_cases(settings: TrainSettings) -> PlayedCases:
    """The cases of the settings, held out by a hash as everywhere; of the held-out ones so many
    that they are played in at most `validation_records` episodes.

    Raises BadCase where a case is for evaluation only, and TrainError when fewer are left than a
    step takes.
    """
    worlds: dict[str, ClinicalEnvironment] = {}
    for place in settings.data:
        worlds |= environments_of(Path(place), training=True)
    sides: dict[str, dict[str, ClinicalEnvironment]] = {"train": {}, "validation": {}}
    # Sorted: the order of the data must not depend on how the folders list their files.
    for case_id in sorted(worlds.keys() - {*settings.without}):
        sides[split_of(case_id, settings.validation_percent)][case_id] = worlds[case_id]
    train, held_out = sides["train"], sides["validation"]
    if settings.only:
        train = {case_id: train[case_id] for case_id in settings.only if case_id in train}
    a_step = settings.batch // settings.group
    if len(train) < a_step:
        raise TrainError(
            f"{', '.join(settings.data)}: {len(train)} cases are left to train on, and a step plays"
            f" {a_step} (batch {settings.batch} in groups of {settings.group}): lower --batch or"
            " --validation-percent, or add cases"
        )
    held_out_cases = max(1, settings.validation_records // settings.group)
    return PlayedCases(train, dict([*held_out.items()][:held_out_cases]))


def prepare_episodes(settings: TrainSettings) -> dict[str, Any]:
    """Check everything and write `job.json`; returns the report, which `report.json` holds too.

    Raises BadCase and TrainError with the remedy: cases, base model, template, disk, memory, or a
    folder that holds another run.
    """
    cases = played_cases(settings)
    base, tokenizer = base_and_tokenizer(settings)
    if 0 < base.positions < settings.max_length:
        raise TrainError(
            f"--max-length {settings.max_length} is more than the {base.positions} tokens that the"
            f" base model is made for: take --max-length {base.positions}"
        )
    if not tokenizer.chat_template:
        raise TrainError(f"--base {settings.base} has no chat template: take an instruct model")
    refuse_without_room((cases.train | cases.held_out).values(), tokenizer, settings)
    load = Load(settings.max_length, settings.reply_tokens)
    settings, resources = fitting_the_machine(settings, base, load)
    if settings.batch % resources["processes"]:
        raise TrainError(
            f"{settings.batch} episodes a step are no equal shares for {resources['processes']}"
            " processes: take a multiple as --batch"
        )
    worlds = [*cases.train.values()], [*cases.held_out.values()]
    ids = [[world.environment_id for world in side] for side in worlds]
    report = {
        "train": len(cases.train), "train_cases": len(cases.train),
        "validation": len(cases.held_out), "validation_cases": len(cases.held_out),
        "steps": steps_per_epoch(cases, settings) * settings.epochs,
        "data_version": version_of([ids, PROMPT_VERSIONS["schema"]]),
        "thinking": True,  # the base's template stays as it is: it was played with
    }  # fmt: skip
    return leave_job(settings, base, report | resources)


def refuse_without_room(
    worlds: Iterable[ClinicalEnvironment], tokenizer: Any, settings: TrainSettings
) -> None:
    """Raises TrainError before any step is trained: an initial observation is never shortened to
    fit."""
    for world in worlds:
        if prompt_tokens(tokenizer, play_of(world, settings)) is None:
            raise TrainError(
                f"{world.case_id}: its first prompt has more than the {room(settings)} tokens that"
                " are left beside a reply: raise --max-length, lower --reply-tokens, or leave the"
                f" case out (--without {world.case_id})"
            )


def steps_per_epoch(cases: PlayedCases, settings: TrainSettings) -> int:
    """Of whole groups: the cases that are left over wait for the next epoch's order."""
    return len(cases.train) // (settings.batch // settings.group)


def room(settings: TrainSettings) -> int:
    """Most tokens of a prompt."""
    return settings.max_length - settings.reply_tokens


def play_of(world: ClinicalEnvironment, settings: TrainSettings) -> Play:
    return Play(world, settings.t_max, room(settings))


def prompt_tokens(tokenizer: Any, play: Play) -> list[int] | None:
    """The prompt of the next turn as a server with the base's template renders it; None where there
    is no room for it."""
    try:
        prompt = play.prompt()
    except PromptTooLong:
        return None
    ids: list[int] = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    # `Play` counts by an estimate (four bytes a token); what fits the model is counted by its
    # tokenizer.
    return ids if len(ids) <= play.context_tokens else None


def next_prompts(plays: Sequence[Play], tokenizer: Any) -> list[tuple[int, list[int]]]:
    """(which one, its next prompt) of the plays that have not ended and have room for a reply."""
    return [
        (number, prompt)
        for number, play in enumerate(plays)
        if not play.ended and (prompt := prompt_tokens(tokenizer, play)) is not None
    ]


def play_to_end(
    plays: Sequence[Play],
    tokenizer: Any,
    write: Callable[[list[tuple[int, list[int]]]], list[list[int]]],
) -> list[list[str]]:
    """Play all side by side until each has ended, or has no room left for another reply. `write`
    makes the replies to the `next_prompts`; returns each play's replies as text."""
    texts: list[list[str]] = [[] for _ in plays]
    while turns := next_prompts(plays, tokenizer):
        for (number, _), reply in zip(turns, write(turns), strict=True):
            texts[number].append(tokenizer.decode(reply, skip_special_tokens=True))
            plays[number].step(texts[number][-1])
    return texts


def write_episode(
    file: Path, play: Play, credit: Credit, replies: Sequence[str], **facts: object
) -> None:
    """Append an episode to `file`: a training that goes on from a checkpoint keeps what was played
    before."""
    line = facts | {
        "case_id": play.episode.environment.case_id,
        "outcome": play.episode.outcome or "failed",
        **asdict(credit),
        "replies": replies,
    }
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line, ensure_ascii=False) + "\n")
