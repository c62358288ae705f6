"""The paper's own protocol: the model under test writes as it likes, and another model reads what
its message decides (the paper's appendix A has a prompt that extracts the ordered tests).

So a tuned model that was taught a form, and a base model that was not, are asked in the same words
and scored on what they say. The words of the prompts are ours: the turn's are the free form's
(`medaction.envs.prompts`).
"""

from collections.abc import Mapping
from dataclasses import replace

from medaction.clinicians.free_form import names_stand_in
from medaction.envs.loops import must_commit
from medaction.envs.orders import single_tests
from medaction.envs.prompts import PROMPT_VERSIONS, messages
from medaction.envs.turns import Hypothesis, Observation, Style, Turn
from medaction.evaluation.dialogue import turn_of_message
from medaction.evaluation.judge_questions import NO_INSTRUCTIONS
from medaction.evaluation.judge_replies import MOST_ITEMS, object_of
from medaction.evaluation.judges import LlmJudge
from medaction.llm.calls import Completion, ModelDeclined, ModelError
from medaction.llm.replies import Form, MalformedReply, read, split_thinking
from medaction.llm.teacher import CONTEXT_TOKENS, Teacher
from medaction.llm.untrusted import one_line, plain
from medaction.llm.usage import Usage
from medaction.words.versions import version_of

READ = f"""\
You put on record what a doctor's message decides. {NO_INSTRUCTIONS}

"message" is what the doctor wrote, in any form: running text, a list, JSON. Copy names in the \
doctor's own words.
- "tests": every single test, examination or measurement that the message orders now. Not those \
that are already done, only mentioned, or wanted later or under a condition. No treatments.
- "leading_diagnosis": the disease that the message holds most probable; "" if it names none.
- "final_diagnosis": the same disease, only if the message commits to it as its definitive \
diagnosis; else "".

Reply with one JSON object with these three keys."""

_NAME = {"type": "string", "maxLength": 300}
_SCHEMA = object_of(
    {
        "tests": {"type": "array", "items": _NAME, "maxItems": MOST_ITEMS},
        "leading_diagnosis": _NAME,
        "final_diagnosis": _NAME,
    }
)
FREE_TEXT_VERSION = f"free-text-{version_of([PROMPT_VERSIONS['free'], READ])}"
"""Changes with the prompts of the model under test and of its reader."""


class Decision(Form):
    """What a message decides, in its own words."""

    tests: list[str]
    leading_diagnosis: str = ""
    final_diagnosis: str = ""


class FreeTextClinician:
    """A language model under test, and the reader of what it writes. A turn's `raw` is the message;
    its only hypothesis is the leading diagnosis, with confidence 0: the paper asks for none."""

    prompt_versions: Mapping[Style, str] = {"schema": FREE_TEXT_VERSION}

    def __init__(self, teacher: Teacher, reader: Teacher):
        self.teacher = teacher
        self.name = teacher.name
        self._reader = reader

    async def decide(self, observation: Observation, seed: int) -> Turn:
        """The next message and what it decides. Raises MalformedReply when the model under test
        decides nothing in MESSAGE_ATTEMPTS messages, and ModelError, also where its reader is at
        fault."""
        turns, t_max = observation.turns, observation.t_max
        context = self.teacher.context_tokens or CONTEXT_TOKENS
        prompt = messages(observation.initial_observation, turns, t_max, "free", context)
        # The same rule as in our own episodes, so that protocols differ in form alone.
        last = must_commit(turns, t_max)

        async def read_turn(completion: Completion, spent: list[Usage]) -> Turn:
            thinking, text = map(plain, split_thinking(completion.text))
            decision, usage = await read_decision(self._reader, text)
            # Before the turn is made: a message that decides nothing has been read, and paid, too.
            spent.append(usage)
            turn = _decided_turn(observation.number, text, decision, last)
            return replace(turn, thinking=thinking)

        return await turn_of_message(self.teacher, prompt, seed, read_turn)


async def read_decision(reader: Teacher, text: str) -> tuple[Decision, Usage]:
    """What a message decides, and what reading it used. Raises ModelError where the reader gives no
    record, or one that says what the message does not."""
    if not text.strip():
        return Decision(tests=[]), Usage()  # nothing to read, no call
    asked = LlmJudge(reader)

    def decision_of(reply: str) -> Decision:
        decision = read(reply, Decision).value
        names = [*decision.tests, decision.leading_diagnosis, decision.final_diagnosis]
        for name in filter(None, names):
            if not names_stand_in(name, text):  # a reader must not add a diagnosis
                raise MalformedReply(f"the message does not say {name!r}", reply)
        return decision

    try:
        decision = await asked.ask(READ, {"message": text}, _SCHEMA, decision_of)
    except (MalformedReply, ModelDeclined) as error:  # no fault of the model under test
        raise ModelError(f"the reader {reader.name}: {error.message}", 0) from error
    return decision, asked.usage


def _decided_turn(number: int, text: str, decision: Decision, last: bool) -> Turn:
    """Raises MalformedReply for a message that decides nothing. In the last turn what leads is the
    diagnosis; a message that commits orders nothing."""
    leading = one_line(decision.final_diagnosis or decision.leading_diagnosis)
    # At the last turn the leading diagnosis counts: else who hedges has no wrong answers.
    final = leading if decision.final_diagnosis or last else None
    tests = () if final else tuple(dict.fromkeys(single_tests(decision.tests)))
    if not tests and not final:
        raise MalformedReply("the message orders no test and commits to no diagnosis", text)
    hypothesis = Hypothesis(leading[:160] or "none stated", 0)
    return Turn(number, text, (hypothesis,), "", tests, final, text)
