"""An environment for TRL's GRPOTrainer: the policy plays by calling tools.

    rows = case_rows(Path("examples/cases"))
    GRPOTrainer(model, args, train_dataset=Dataset.from_list(rows),
                environment_factory=partial(ToolEpisode, Path("examples/cases")))

TRL calls the tools in one growing chat, so the policy sees all that was said, where other players
see the context that is rebuilt each turn. The reward is the episode's total.
"""

import asyncio
import json
from functools import cache
from pathlib import Path
from typing import Any

from medaction.envs.episode import T_MAX
from medaction.envs.records import ClinicalEnvironment
from medaction.hub.episodes import Play, Scorer, environments_of, scorer_of, world_of

INSTRUCTIONS = """\
You are a diagnostician. You are shown what is known of a patient before any test. Call \
order_tests to order tests whose results you need; their documented results are returned, or \
UNAVAILABLE. Call diagnose once, when you are sure enough. Rank your differential in every call."""


@cache
def training_worlds(cases: Path) -> dict[str, ClinicalEnvironment]:
    """The environments of `cases`. Raises BadCase where one is for evaluation only."""
    return environments_of(cases, training=True)


@cache
def offline_scorer() -> Scorer:
    return scorer_of()


def case_rows(cases: Path) -> list[dict[str, Any]]:
    """A row of TRL's dataset for every case: `prompt` and `case_id`."""
    prompt = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": "The patient:\n\n"},
    ]
    return [{"prompt": prompt, "case_id": case_id} for case_id in training_worlds(cases)]


class ToolEpisode:
    """One episode. TRL offers its public methods, but for `reset` and `get_reward`, as tools."""

    def __init__(self, cases: Path, t_max: int = T_MAX):
        self._cases = cases
        self._t_max = t_max
        self._play: Play | None = None

    def reset(self, case_id: str, **_: Any) -> str:
        """Begin the case; returns what is known before any test."""
        world = world_of(training_worlds(self._cases), case_id)
        self._play = Play(world, self._t_max)
        return world.initial_observation

    def order_tests(self, differential: dict[str, int], pivot: str, tests: list[str]) -> str:
        """Order tests and read their results.

        Args:
            differential: Diagnoses with their probabilities in percent.
            pivot: The uncertainty that the tests are to settle.
            tests: One to six tests, each by its name.

        Returns:
            The documented result of each test, or UNAVAILABLE.
        """
        return self._act(differential, pivot, {"order_tests": tests})

    def diagnose(self, differential: dict[str, int], diagnosis: str) -> str:
        """Commit to the definitive diagnosis, which ends the case.

        Args:
            differential: Diagnoses with their probabilities in percent.
            diagnosis: The definitive diagnosis.

        Returns:
            That the case is closed.
        """
        answer = self._act(differential, "Nothing is left open.", {"final_diagnosis": diagnosis})
        return answer or "The case is closed."

    def get_reward(self) -> float:
        """The episode's total; what was not ended has no diagnosis to be judged."""
        return asyncio.run(offline_scorer().credit(self._play)).total if self._play else 0.0

    def _act(self, differential: Any, pivot: str, action: dict[str, Any]) -> str:
        """A call as a reply in the grammar, which says what is wrong with it."""
        if self._play is None or self._play.ended:
            return "The case is closed."
        turn = {"reasoning": pivot, "differential": differential, "pivot": pivot, "action": action}
        return self._play.step(json.dumps(turn))
