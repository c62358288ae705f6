"""A clinical environment played turn by turn, without any framework.

    episode = Episode(environment, oracle)
    while not episode.ended:
        episode.step(model(episode.prompt()))

Distillation, evaluation and whoever trains by reinforcement play through this one class. The state
is the tuple of turns so far: an observation is made from it anew at every turn (paper, section 3.3,
stage 2), and a branch is an episode that begins with the turns of another one.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from medaction.envs.credit import Credit, JudgeDiagnosis, Weights, credit
from medaction.envs.loops import must_commit
from medaction.envs.prompts import messages
from medaction.envs.records import Answer, ClinicalEnvironment
from medaction.envs.reply import parse_reply
from medaction.envs.rewards import Ruler, TurnReward, turn_rewards
from medaction.envs.turns import Observation, Outcome, Style, Turn
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import CONTEXT_TOKENS
from medaction.llm.usage import Message

T_MAX = 8
"""The last turn of an episode (paper, appendix C)."""


class Answers(Protocol):
    """What returns the results of ordered tests: `medaction.envs.oracle.Oracle`, or the examiner of
    a benchmark."""

    asks_model: bool
    """Whether an answer may wait for a model: whoever plays many episodes then lets it wait in a
    thread."""

    def answer(self, orders: Sequence[str]) -> tuple[Answer, ...]: ...


class EpisodeEnded(RuntimeError):
    """A step after the last one."""


class Episode:
    """One rollout in one environment: o_t -> b_t -> p_t -> a_t -> r_t, until a definitive diagnosis
    or turn `t_max`.

    `turns` are the shared turns of a branch, with their answers. With `ends_loops`, a policy that
    only orders again what it has must commit at the turn after (`medaction.envs.loops`); the
    outcome is then 'loop'. It is not simply stopped, because then the trajectory would teach
    nothing about getting out: its last turn is a commitment under the evidence there is.
    """

    def __init__(
        self,
        environment: ClinicalEnvironment,
        oracle: Answers,
        t_max: int = T_MAX,
        style: Style = "schema",
        turns: Sequence[Turn] = (),
        ends_loops: bool = True,
    ):
        self.environment = environment
        self.oracle = oracle
        self.t_max = t_max
        self.style = style
        # A tuple, never changed: branches share the turns of the rollout that they leave.
        self.turns = tuple(turns)
        self.ends_loops = ends_loops
        self.malformed = 0
        """How many replies were refused."""

    @property
    def observation(self) -> Observation:
        """o_t: all that a policy may know before the next turn."""
        return Observation(self.environment.initial_observation, self.turns, self.t_max, self.style)

    @property
    def outcome(self) -> Outcome | None:
        """How the episode ended; None while it goes on."""
        number = len(self.turns)
        # Before 'diagnosed': who was made to commit by a loop has not chosen to.
        if self.ends_loops and 0 < number < self.t_max and must_commit(self.turns[:-1], self.t_max):
            return "loop"
        if self.turns and self.turns[-1].final_diagnosis:
            return "diagnosed"
        # After 'diagnosed': a diagnosis in the last turn counts.
        return "turn_limit" if len(self.turns) >= self.t_max else None

    @property
    def ended(self) -> bool:
        return self.outcome is not None

    def prompt(self, context_tokens: int = CONTEXT_TOKENS) -> list[Message]:
        """o_t as the system and the user message of the next turn, of at most `context_tokens`.

        Raises PromptTooLong (`medaction.envs.prompts.messages`).
        """
        return messages(
            self.environment.initial_observation, self.turns, self.t_max, self.style, context_tokens
        )

    def step(self, action: str | Turn) -> Turn:
        """Play one turn: a model's reply as text, or a turn that was read already. Returns the turn
        with the oracle's answers.

        Raises MalformedReply for a text outside the grammar: the episode is as before, and the
        message says what to mend. Raises EpisodeEnded, and whatever the oracle raises.
        """
        if self.ended:
            raise EpisodeEnded(f"the episode ended at turn {len(self.turns)}: {self.outcome}")
        # In a last turn the grammar takes a commitment alone.
        number, last = len(self.turns) + 1, must_commit(self.turns, self.t_max)
        try:
            if isinstance(action, str):
                turn = parse_reply(action, number, last)
            else:  # a clinician may still order in the last turn: the episode ends undiagnosed
                turn = replace(action, number=number)
        except MalformedReply:
            # Counted, not played: a refused reply costs no turn.
            self.malformed += 1
            raise
        answered = replace(turn, answers=self.oracle.answer(turn.tests))
        self.turns = (*self.turns, answered)
        return answered

    def rewards(self, ruler: Ruler | None = None) -> tuple[TurnReward, ...]:
        """What each turn was worth (`medaction.envs.rewards`). Without `ruler` DTC and RAC are
        unknown."""
        return turn_rewards(self.environment, self.turns, ruler)

    def credit(
        self, judge: JudgeDiagnosis, ruler: Ruler | None = None, weights: Weights | None = None
    ) -> Credit:
        """The episode's rewards of 0 to 1, and what each turn earned (`medaction.envs.credit`).
        Without `ruler` those that need the graphs are None."""
        return credit(
            self.environment, self.turns, self.t_max, self.malformed, judge, ruler, weights
        )
