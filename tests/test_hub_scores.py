"""The same replies, played by a rollout as `medaction evaluate` plays and scores it, and in the
tools of others through their own command lines: the scores are equal."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medaction.clinicians.language_model import LlmClinician
from medaction.envs.episode import Episode
from medaction.envs.make_oracle import oracle_of
from medaction.envs.prompts import PROMPT_VERSIONS
from medaction.envs.records import ClinicalEnvironment
from medaction.envs.sources import read_cases
from medaction.evaluation.judging import failed_score, judge, score_of
from medaction.evaluation.scores import Score
from medaction.hub.episodes import PAPER, scorer_of
from medaction.llm.teacher import Teacher
from medaction.trajectories.records import RolloutSpec
from medaction.trajectories.rollout import RolloutFailed, play
from tests.conftest import REPOSITORY, SAMPLES
from tests.openai_server import Asked, OpenAIServer, Reply, openai_server
from tests.policies import GAMING, Policy, worker
from tests.records import environment_of

pytestmark = pytest.mark.long


def mumble(world: ClinicalEnvironment, number: int) -> str:
    return worker(world, 1) if number == 1 else "I cannot decide."


POLICIES: tuple[Policy, ...] = (worker, mumble, *GAMING)
"""The n-th case is played by the n-th policy."""


@pytest.fixture(scope="module")
def worlds() -> list[ClinicalEnvironment]:
    return [environment_of(report) for report in read_cases(SAMPLES)]


@pytest.fixture(scope="module")
def server(worlds: list[ClinicalEnvironment]) -> Iterator[OpenAIServer]:
    def script(asked: Asked, _: int) -> Reply:
        prompt = json.dumps(asked.body["messages"][:2], ensure_ascii=False)
        openings = [world.initial_observation.split("\n")[0][:60] for world in worlds]
        (at,) = (at for at, opening in enumerate(openings) if opening in prompt)
        number = int(re.findall(r"This is turn (\d+) of", prompt)[-1])
        text = POLICIES[at % len(POLICIES)](worlds[at], number)
        # A server that takes the whole reply for thinking.
        return Reply(reasoning=text) if at == 0 else Reply(text)

    with openai_server(script) as serving:
        yield serving


@pytest.fixture(scope="module")
def expected(server: OpenAIServer, worlds: list[ClinicalEnvironment]) -> dict[str, Score]:
    scorer = scorer_of()

    async def scored(world: ClinicalEnvironment) -> Score:
        spec = RolloutSpec(world.environment_id, world.case_id, "teacher", "schema", 0, "")
        clinician = LlmClinician(Teacher(model="openai/good-model", api_base=server.url))
        try:
            trajectory = await play(spec, Episode(world, oracle_of(world)), clinician)
        except RolloutFailed:
            return failed_score(world.case_id, 0, "MalformedReply", PAPER)
        assert trajectory.prompt_version == PROMPT_VERSIONS["schema"]
        return score_of([await judge(scorer.judge, trajectory, world, "", PAPER)], world.case_id, 0)

    async def every() -> list[Score]:
        return [await scored(world) for world in worlds]

    scores = {score.case_id: score for score in asyncio.run(every())}
    assert {score.correct for score in scores.values()} == {True, False}
    return scores


def run_as_written(program: str, folder: Path, url: str, **environment: str) -> None:
    """The command of docs/rl.md that starts `program`, in a folder with the repository's examples;
    what its reader fills in, the model and where it is served, is the test's."""
    page = (REPOSITORY / "docs" / "rl.md").read_text().replace("\\\n", " ")
    (line,) = (line for line in page.splitlines() if re.match(rf"(\w+=\S+ )?{program} ", line))
    words = shlex.split(
        line.replace("MODEL", "good-model").replace("http://127.0.0.1:8000/v1", url)
    )
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z]+=", word))
    if "PYTHONPATH" in settings:  # beside the checkout that is under test
        settings["PYTHONPATH"] += f":{REPOSITORY}"
    command = [word for word in words if not re.match(r"[A-Z]+=", word)]
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=folder,
        env=os.environ | settings | environment,
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def same(found: dict[str, Any], score: Score) -> None:
    expected = (score.correct, score.precision, score.recall, score.f1)
    values = [found[name] for name in ("correct", "precision", "recall", "f1")]
    assert values == pytest.approx([float(value or 0) for value in expected]), score.case_id


def test_inspect_scores_as_evaluate_does(
    server: OpenAIServer, expected: dict[str, Score], tmp_path: Path
) -> None:
    pytest.importorskip("inspect_ai", reason="the extra `hub` is not installed")
    from inspect_ai.log import list_eval_logs, read_eval_log

    served = {"LOCAL_BASE_URL": server.url, "LOCAL_API_KEY": "none"}
    run_as_written("inspect eval", tmp_path, server.url, INSPECT_DISPLAY="plain", **served)
    (info,) = list_eval_logs(str(tmp_path / "logs"))
    log = read_eval_log(info)
    assert log.status == "success"
    assert log.samples
    for sample in log.samples:
        assert sample.scores
        (score,) = sample.scores.values()
        assert isinstance(score.value, dict)
        same(score.value, expected[str(sample.id)])
        assert all(0 <= value <= 1 for value in score.value.values())
    assert len(log.samples) == len(expected)


def test_verifiers_scores_as_evaluate_does_and_each_turn_is_a_trace(
    server: OpenAIServer, expected: dict[str, Score], tmp_path: Path
) -> None:
    pytest.importorskip("verifiers", reason="the extra `hub` is not installed")
    run_as_written("vf-eval", tmp_path, server.url, OPENAI_API_KEY="none")
    (file,) = tmp_path.rglob("traces.jsonl")
    episodes = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(episodes) == len(expected)
    for episode in episodes:
        assert episode["ok"], episode["errors"]
        *_, last = episode["traces"]
        same(last["metrics"], expected[episode["task"]["data"]["case_id"]])
        turns = [trace["rewards"]["turn"]["score"] for trace in episode["traces"]]
        assert sum(turns) == pytest.approx(last["rewards"]["episode"]["score"])
    assert max(len(episode["traces"]) for episode in episodes) > 1
