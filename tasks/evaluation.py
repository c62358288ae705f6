"""What an evaluation does for one case: play what is missing of it, judge what was played.
Coroutines from records to records, as in `tasks.work`."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medaction.clinicians.make import make_clinician
from medaction.envs.make_oracle import oracle_of
from medaction.envs.records import ClinicalEnvironment
from medaction.envs.turns import Observation, Style, Turn
from medaction.evaluation.dialogue import DialogueClinician, Examiner
from medaction.evaluation.free_text import FreeTextClinician
from medaction.evaluation.judges import Judge, LlmJudge, documented_text
from medaction.evaluation.judging import Judgement, judge
from medaction.evaluation.offline_judge import OfflineJudge
from medaction.evaluation.protocol import Protocol, split_case
from medaction.kg.encoder import load_encoder
from medaction.llm.calls import CallSettings, configure
from medaction.llm.teacher import Teacher
from medaction.tasks.work import CountingModel
from medaction.trajectories.records import Played, Trajectory
from medaction.trajectories.rollout import Clinician, play_tree
from medaction.trajectories.scoring import OPEN, disease_linker
from medaction.trajectories.tree import TreePlan


@dataclass(frozen=True, slots=True)
class EvaluatedModels:
    """Who takes part in a case: the model under test; who answers (a model that helps our oracle,
    or the benchmark's examiner); who reads what the model under test wrote freely."""

    model: Teacher
    oracle: Teacher | None = None
    examiner: Teacher | None = None
    reader: Teacher | None = None


class _OtherText:
    """A clinician that reads another text than the environment's initial observation."""

    def __init__(self, clinician: Clinician, text: str):
        self._clinician, self._text = clinician, text
        self.name = clinician.name
        self.prompt_versions: Mapping[Style, str] = clinician.prompt_versions

    async def decide(self, observation: Observation, seed: int) -> Turn:
        observation = replace(observation, initial_observation=self._text)
        return await self._clinician.decide(observation, seed)


def clinician_of(model: Teacher, rules: Protocol, reader: Teacher | None = None) -> Clinician:
    """The model under test as the rules ask it: in the benchmark's sections, in free text for a
    reader, or in our schema; an embedded one knows only the schema."""
    if rules.dialogue and not model.embedded:
        return DialogueClinician(model, rules)
    if rules.free_text and not model.embedded:
        return FreeTextClinician(model, reader or model)
    return make_clinician(model)


async def play_benchmark_case(
    environment: ClinicalEnvironment,
    summary: str,
    rules: Protocol,
    plan: TreePlan,
    players: EvaluatedModels,
    tree: Sequence[Trajectory],
    skip: frozenset[str],
    code_version: str,
    calls: CallSettings,
) -> Played:
    """Everything missing of a case's runs, under the benchmark's rules."""
    configure(calls)
    clinician = clinician_of(players.model, rules, players.reader)
    split = split_case(summary) if summary and rules.raw_summary else None
    # The benchmark's own summary, cut before its tests: what published models were shown.
    if split:
        clinician = _OtherText(clinician, split[0])
    # Where both are named the examiner answers.
    helper = players.examiner or players.oracle
    counting_model = CountingModel(helper) if helper else None
    oracle: Any
    if players.examiner and counting_model:
        before, hidden = split or (environment.initial_observation, documented_text(environment))
        oracle = Examiner(before, hidden, counting_model)
    else:
        oracle = oracle_of(environment, counting_model)
    clinicians = {players.model.name: clinician}
    result = await play_tree(environment, plan, tree, skip, clinicians, oracle, code_version)
    return replace(result, oracle_usage=counting_model.usage) if counting_model else result


@dataclass(frozen=True, slots=True)
class JudgePass:
    """One judge, one time: `key` names it in the store (`medaction.evaluation.judges.judge_key`);
    `model` None is the offline judge, which links diagnoses on `disease_graph`."""

    key: str
    model: Teacher | None
    repeat: int = 0
    disease_graph: str = OPEN

    @property
    def rater(self) -> str:
        """Its name among the raters whose agreement is measured."""
        return f"{self.key} #{self.repeat}"

    def place(self, trajectory_id: str) -> tuple[str, str, int]:
        """Where the store has its judgement of a trajectory."""
        return trajectory_id, self.key, self.repeat


async def judge_case(
    environment: ClinicalEnvironment,
    summary: str,
    rules: Protocol,
    judgings: Sequence[tuple[JudgePass, Trajectory]],
    calls: CallSettings,
) -> list[Judgement]:
    """What was asked of the judges for one case, in order."""
    configure(calls)
    verdicts = (
        judge(_judge_of(judge_pass), trajectory, environment, summary, rules)
        for judge_pass, trajectory in judgings
    )
    return await asyncio.gather(*verdicts)


def _judge_of(judge_pass: JudgePass) -> Judge:
    if judge_pass.model is None:
        linker = disease_linker(judge_pass.disease_graph)
        return OfflineJudge(linker, lambda texts: load_encoder().encode(texts))
    return LlmJudge(judge_pass.model, judge_pass.repeat)
