"""Are the scores of an episode the same in the tools of others as in `medaction evaluate`?

Run as: python -m benchmarks.hub CASES [--player scripted|kg-screening|kg-targeted] [--out FOLDER]
in the environment of `make test-hub`. CASES: what `medaction evaluate` and docs/rl.md's tools read.

The player's replies come from a server on loopback: `scripted` are the policies of
tests/policies.py, the n-th case played by the n-th of them; a graph clinician's are those that it
gave in a rollout. `medaction evaluate`, `inspect eval` and `vf-eval` are run as their command
lines; `medaction serve-env` is played by OpenEnv's client, and TRL's environment by its tools.
A difference is larger than TOLERANCE.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai.log import list_eval_logs, read_eval_log
from openenv.core.generic_client import GenericEnvClient

from medaction.clinicians.make import make_clinician
from medaction.envs.episode import Episode
from medaction.envs.make_oracle import oracle_of
from medaction.envs.records import ClinicalEnvironment
from medaction.hub.episodes import Play, environments_of, scorer_of
from medaction.hub.trl_environment import ToolEpisode, case_rows
from medaction.llm.teacher import Teacher
from tests.conftest import REPOSITORY
from tests.openai_server import Asked, openai_server
from tests.policies import GAMING, Policy, worker
from tests.runs import environment_server

TOLERANCE = 1e-6
MEASURES = ("correct", "precision", "recall", "f1")
POLICIES: tuple[Policy, ...] = (worker, *GAMING)

Scores = dict[str, tuple[float, ...]]
"""By case: correct, precision, recall and F1; a judge's silence counts as 0."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--player", default="scripted")
    parser.add_argument("--out", type=Path, help="where the tools' logs are left")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    cases = options.cases.resolve()
    worlds = environments_of(cases, training=False)
    replies = {
        world.case_id: replies_of(options.player, world, number)
        for number, world in enumerate(worlds.values())
    }
    with openai_server(lambda asked, _: reply_to(asked, worlds, replies)) as server:
        expected = evaluated(cases, server.url, out / "evaluate")
        played = {
            "inspect eval": inspected(cases, server.url, out / "inspect"),
            "vf-eval": verified(cases, server.url, out / "verifiers", len(worlds)),
            "serve-env": asyncio.run(served(cases, replies)),
            "TRL's tools": called(cases, replies),
        }
    print(f"{len(expected)} cases of {options.cases}, played by {options.player}")
    print("| tool | cases | other scores than medaction evaluate | right | mean F1 |")
    print("|---|---|---|---|---|")
    for tool, scores in {"medaction evaluate": expected, **played}.items():
        others = [case for case, values in scores.items() if differs(values, expected[case])]
        right = sum(values[0] for values in scores.values())
        f1 = sum(values[3] for values in scores.values()) / len(scores)
        cells = (tool, len(scores), f"{len(others)} {' '.join(others)}", f"{right:.0f}")
        print(f"| {' | '.join(map(str, cells))} | {f1:.4f} |")


def differs(values: tuple[float, ...], expected: tuple[float, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(values, expected, strict=True)) > TOLERANCE


def replies_of(player: str, world: ClinicalEnvironment, number: int) -> list[str]:
    """What the player says in each turn of the case."""
    episode = Episode(world, oracle_of(world))
    if player != "scripted":
        clinician = make_clinician(Teacher.parse(player))
        while not episode.ended:
            observation = episode.observation
            episode.step(asyncio.run(clinician.decide(observation, observation.number)))
    else:
        policy = POLICIES[number % len(POLICIES)]
        while not episode.ended:
            episode.step(policy(world, len(episode.turns) + 1))
    return [turn.raw for turn in episode.turns]


def reply_to(
    asked: Asked, worlds: Mapping[str, ClinicalEnvironment], replies: Mapping[str, list[str]]
) -> str:
    """The reply to a prompt: the case is told by how its observation begins."""
    prompt = json.dumps(asked.body["messages"][:2], ensure_ascii=False)
    (case_id,) = (
        case_id
        for case_id, world in worlds.items()
        if json.dumps(world.initial_observation, ensure_ascii=False)[1:400] in prompt
    )
    number = int(re.findall(r"This is turn (\d+) of", prompt)[-1])
    return replies[case_id][number - 1]


def run(command: list[str], folder: Path, **environment: str) -> None:
    """One of the tools' command lines. Raises SystemExit with its last words when it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    program = str(Path(sys.executable).parent / command[0])
    variables = {"PYTHONPATH": str(REPOSITORY), "OPENAI_API_KEY": "none"} | environment
    done = subprocess.run(
        [program, *command[1:]],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def values_of(measures: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(float(measures.get(name) or 0) for name in MEASURES)


def evaluated(cases: Path, url: str, out: Path) -> Scores:
    command = ["python", "-m", "medaction", "evaluate", str(cases), "--model"]
    command += [f"openai/player@{url}", "--protocol", "medaction", "--rollouts", "1"]
    run([*command, "--out", str(out), "--engine", "local", "--allow", "unlicensed"], out)
    rows = json.loads((out / "result.json").read_text())["rows"]
    return {row["case_id"]: values_of(row) for row in rows}


def inspected(cases: Path, url: str, out: Path) -> Scores:
    command = ["inspect", "eval", "medaction/diagnosis", "-T", f"cases={cases}", "--model"]
    run([*command, "openai-api/local/player"], out, LOCAL_BASE_URL=url, LOCAL_API_KEY="none")
    (newest,) = list_eval_logs(str(out / "logs"))
    scores = {}
    for sample in read_eval_log(newest).samples or ():
        (score,) = (sample.scores or {}).values()
        assert isinstance(score.value, dict)
        scores[str(sample.id)] = values_of(score.value)
    return scores


def verified(cases: Path, url: str, out: Path, count: int) -> Scores:
    command = ["vf-eval", "medaction-v1", "-m", "player", "--no-push", "--no-rich"]
    command += ["--client.base-url", url, "--client.api-key-var", "OPENAI_API_KEY"]
    command += ["--env.taskset.cases", str(cases), "-n", str(count), "-o", str(out / "out")]
    examples = REPOSITORY / "examples" / "verifiers"
    run(command, out, PYTHONPATH=f"{REPOSITORY}:{examples}")
    (file,) = out.rglob("traces.jsonl")
    scores = {}
    for line in file.read_text().splitlines():
        episode = json.loads(line)
        scores[episode["task"]["data"]["case_id"]] = values_of(episode["traces"][-1]["metrics"])
    return scores


async def served(cases: Path, replies: Mapping[str, list[str]]) -> Scores:
    """Through `medaction serve-env`, eight sessions at a time."""
    at_once = asyncio.Semaphore(8)

    async def play(url: str, case_id: str) -> tuple[float, ...]:
        async with at_once, GenericEnvClient(base_url=url) as client:
            result = await client.reset(case_id=case_id)
            while not result.done:
                reply = replies[case_id][result.observation["turn"] - 1]
                result = await client.step({"reply": reply})
            return values_of(result.observation["scores"])

    with environment_server(cases, "--port", 8021) as url:
        values = await asyncio.gather(*(play(url, case_id) for case_id in replies))
    return dict(zip(replies, values, strict=True))


def called(cases: Path, replies: Mapping[str, list[str]]) -> Scores:
    """Each reply as the call of a tool with its arguments, as TRL makes it."""
    scorer = scorer_of()
    scores = {}
    for row in case_rows(cases):
        episode = ToolEpisode(cases)
        episode.reset(**row)
        for text in replies[row["case_id"]]:
            reply = json.loads(text)
            differential = {line["diagnosis"]: line["confidence"] for line in reply["differential"]}
            if diagnosis := reply["action"].get("final_diagnosis"):
                episode.diagnose(differential, diagnosis)
            else:
                episode.order_tests(differential, reply["pivot"], reply["action"]["order_tests"])
        assert isinstance(episode._play, Play)
        score = asyncio.run(scorer.score(episode._play))
        scores[row["case_id"]] = values_of({name: getattr(score, name) for name in MEASURES})
    return scores


if __name__ == "__main__":
    main()
