"""The clinician that plays by a language model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medaction.clinicians.free_form import write_turn
from medaction.envs.loops import must_commit
from medaction.envs.prompts import PROMPT_VERSIONS, PromptTooLong, messages, repair_messages
from medaction.envs.reply import parse_reply, reply_schema
from medaction.envs.turns import Observation, Style, Turn
from medaction.llm.calls import (
    Completion,
    ContextTooLong,
    Message,
    ModelError,
    ModelRefused,
    call,
    on_trial,
    whole_text,
)
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import CONTEXT_TOKENS, Teacher
from medaction.llm.usage import Fault, Usage


class LlmClinician:
    """Plays by a language model: in the schema one call a turn, and one more when the reply is
    outside the grammar; free-form (`medaction.clinicians.free_form`) two calls, and up to four
    more. A turn that could not be mended is begun anew once, because a model that sees its own bad
    reply may repeat it. `context_tokens` bounds a prompt (`medaction.envs.prompts`)."""

    prompt_versions: Mapping[Style, str] = PROMPT_VERSIONS

    def __init__(self, teacher: Teacher, context_tokens: int = CONTEXT_TOKENS):
        self.teacher = teacher
        self.name = teacher.name
        self.context_tokens = context_tokens
        # The server's words for its limit; empty as long as it has called nothing too long.
        self.server_limit = ""

    async def decide(self, observation: Observation, seed: int) -> Turn:
        """The next turn, without answers. Raises MalformedReply when the second beginning fails
        too, ModelError, and PromptTooLong.

        What the calls of a turn that failed had used, and all that was wrong, stands in the error's
        `usage`.
        """
        # One for both beginnings: seeds go on, and the spending of both is the turn's.
        ask = _Ask(self.teacher, seed)
        try:
            # What fails leaves the call cache: a later attempt must not be given the refused
            # replies again.
            with on_trial():
                try:
                    turn = await self._written(ask, observation)
                except MalformedReply as fault:
                    ask.refused(fault)
                    turn = replace(await self._written(ask, observation), repaired=True)
        except MalformedReply as error:
            ask.refused(error)
            # On the error: the rollout that fails has spent this, too.
            error.usage = ask.usage
            raise
        except ModelError as error:
            error.usage = ask.usage
            raise
        return replace(turn, usage=ask.usage + turn.usage)

    async def _written(self, ask: "_Ask", observation: Observation) -> Turn:
        """A turn on a prompt that fits into the model's context: one that its server has called too
        long is shortened in the stated order, and so are the prompts that follow."""
        turns, t_max, style = observation.turns, observation.t_max, observation.style
        write = write_turn if style == "free" else _write_reply
        number, last_turn = observation.number, must_commit(turns, t_max)
        # As often as the server names a smaller context; each time it gets strictly smaller.
        while True:
            try:
                prompt = messages(
                    observation.initial_observation, turns, t_max, style, self.context_tokens
                )
            except PromptTooLong:
                if not self.server_limit:
                    raise
                # Not the teacher's context_tokens is too small, which that error would blame.
                raise ModelRefused(f"even when shortened, {self.server_limit}", 400) from None
            try:
                return await write(ask, prompt, number, last_turn)
            except ContextTooLong as error:
                # Not smaller than ours: shortening would not help.
                if not 0 < error.context_tokens < self.context_tokens:
                    raise
                # For the turns that follow as well, which only get longer.
                self.context_tokens, self.server_limit = error.context_tokens, str(error)


class _Ask:
    """The calls of one turn and what they used so far. Each has the next seed: with the same one a
    model may repeat its fault."""

    def __init__(self, teacher: Teacher, seed: int):
        self.teacher, self.seed = teacher, seed
        self.usage = Usage()

    async def __call__(
        self,
        prompt: Sequence[Message],
        schema: dict[str, Any] | None = None,
        temperature: float | None = None,
    ) -> Completion:
        teacher = (
            self.teacher
            if temperature is None
            # A copy: the teacher is shared by many rollouts.
            else self.teacher.model_copy(update={"temperature": temperature})
        )
        try:
            completion = await call(teacher, prompt, schema, self.seed)
        except ModelError as error:
            self.usage += error.usage
            raise
        self.seed += 1
        self.usage += completion.usage
        return completion

    def refused(self, fault: MalformedReply) -> None:
        """Keep on record what was wrong with a reply, whether or not it is asked for again."""
        self.usage += Usage(faults=(Fault(type(fault).__name__, fault.message, fault.raw),))


async def _write_reply(ask: _Ask, prompt: Sequence[Message], number: int, last_turn: bool) -> Turn:
    schema = reply_schema(last_turn)
    try:
        return _turn_in_schema(await ask(prompt, schema), number, last_turn)
    except MalformedReply as fault:
        ask.refused(fault)
        repair = repair_messages(prompt, fault.raw, fault.message, last_turn)
    return replace(_turn_in_schema(await ask(repair, schema), number, last_turn), repaired=True)


def _turn_in_schema(completion: Completion, number: int, last_turn: bool) -> Turn:
    turn = parse_reply(whole_text(completion), number, last_turn)
    return replace(turn, thinking=completion.all_thinking(turn.thinking))
