"""The clinician that plays by a language model."""

from collections.abc import Sequence
from dataclasses import replace

from clinicians.llm import Completion, call, whole_text
from clinicians.prompts import PROMPT_VERSION, messages, repair_messages
from clinicians.reply import MalformedReply, parse_reply, reply_schema
from clinicians.teacher import Teacher
from clinicians.text import plain
from trajectories.records import Turn


class LlmClinician:
    """Plays by a language model: one call a turn, and one more when the reply is outside the grammar."""

    prompt_version = PROMPT_VERSION

    def __init__(self, teacher: Teacher):
        self.teacher = teacher
        self.name = teacher.name

    async def decide(self, initial_observation: str, turns: Sequence[Turn], t_max: int, seed: int) -> Turn:
        """The next turn, without answers. Raises MalformedReply after the repair attempt, and ModelError."""
        number = len(turns) + 1
        last_turn = number >= t_max
        asked = messages(initial_observation, turns, t_max)
        first = await call(self.teacher, asked, reply_schema(last_turn), seed)
        try:
            return _turn(first, number, last_turn)
        except MalformedReply as fault:
            again = repair_messages(asked, fault.raw, fault.message, last_turn)
        second = await call(self.teacher, again, reply_schema(last_turn), seed)
        turn = _turn(second, number, last_turn)
        return replace(turn, repaired=True, usage=first.usage + second.usage)


def _turn(completion: Completion, number: int, last_turn: bool) -> Turn:
    turn = parse_reply(whole_text(completion), number, last_turn)
    thinking = "\n\n".join(part for part in (plain(completion.thinking).strip(), turn.thinking) if part)
    return replace(turn, thinking=thinking, usage=completion.usage)
