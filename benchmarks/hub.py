"""Are the scores of an episode the same in the tools of others as in `medaction evaluate`?

Run as: python -m benchmarks.hub CASES [--player scripted|kg-screening|kg-targeted] [--out FOLDER]
        python -m benchmarks.hub CASES --sessions N
in the environment of `make test-hub`. CASES: what `medaction evaluate` and docs/rl.md's tools read.

The player's replies come from a server on loopback: `scripted` are the policies of
tests/policies.py and one whose replies cannot be read, the n-th case played by the n-th of them; a
graph clinician's are those that it gave in a rollout. `medaction evaluate` is run as its command
line, `inspect eval` and `vf-eval` as docs/rl.md has theirs; `medaction serve-env` is played by
OpenEnv's client, and TRL's environment by its tools. A difference is larger than TOLERANCE.

With `--sessions` N episodes are played at once on `medaction serve-env`, and their time counted.
"""

import argparse
import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from medaction.clinicians.make import make_clinician
from medaction.envs.records import ClinicalEnvironment
from medaction.hub.episodes import Play, Scorer, environments_of, scorer_of
from medaction.hub.trl_environment import ToolEpisode, case_rows
from medaction.llm.teacher import Teacher
from tests.conftest import REPOSITORY
from tests.openai_server import Asked, OpenAIServer, Reply, openai_server
from tests.policies import GAMING, Policy, worker
from tests.runs import environment_server

TOLERANCE = 1e-6
MEASURES = ("correct", "precision", "recall", "f1")
AT_ONCE = 8
"""Sessions of `serve-env` at a time, where no number is stated."""


def mumble(world: ClinicalEnvironment, number: int) -> str:
    return worker(world, 1) if number == 1 else "I cannot decide."


POLICIES: tuple[Policy, ...] = (worker, mumble, *GAMING)

Scores = dict[str, tuple[float, ...]]
"""By case: MEASURES, and the reward of training; a judge's silence counts as 0."""
Replies = Mapping[str, list[str]]
"""By case: what the player says in each turn, as often as it is asked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--player", default="scripted")
    parser.add_argument("--out", type=Path, help="where the tools' logs are left")
    parser.add_argument("--sessions", type=int, help="only `serve-env`, so many episodes at once")
    options = parser.parse_args()
    if options.out and options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty: each comparison wants a folder of its own")
    cases, out = options.cases.resolve(), options.out or Path(tempfile.mkdtemp())
    replies, rewards = played(cases, options.player)
    if options.sessions:
        print(asyncio.run(crowd(cases, replies, options.sessions)))
        return
    print(f"{len(replies)} cases of {options.cases}, played by {options.player}")
    print("| tool | cases | other scores than medaction evaluate | right | mean F1 | mean reward |")
    print(f"|{'---|' * 6}")
    with player_server(cases, replies) as server:
        expected = evaluated(cases, server.url, rewards, out / "evaluate")
        for tool, play in {"medaction evaluate": None, **TOOLS}.items():
            scores = play(cases, server.url, replies, out / tool) if play else expected
            others = [case for case in expected if differs(scores.get(case), expected[case])]
            right, _, _, f1, reward = map(sum, zip(*scores.values(), strict=True))
            means = f"{f1 / len(scores):.4f} | {reward / len(scores):.4f}"
            cells = (tool, len(scores), f"{len(others)} {' '.join(others)}", f"{right:.0f}", means)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def differs(values: tuple[float, ...] | None, expected: tuple[float, ...]) -> bool:
    return values is None or (
        max(abs(a - b) for a, b in zip(values, expected, strict=True)) > TOLERANCE
    )


def played(cases: Path, player: str) -> tuple[dict[str, list[str]], dict[str, float]]:
    """The player's replies to each case, and what its episode earned."""
    scorer = scorer_of()
    replies, rewards = {}, {}
    for number, world in enumerate(environments_of(cases, training=False).values()):
        replies[world.case_id], rewards[world.case_id] = _played(player, world, number, scorer)
    return replies, rewards


def _played(
    player: str, world: ClinicalEnvironment, number: int, scorer: Scorer
) -> tuple[list[str], float]:
    play, texts = Play(world), list[str]()
    clinician = None if player == "scripted" else make_clinician(Teacher.parse(player))
    while not play.ended:
        turn = len(play.episode.turns) + 1
        if clinician:
            observation = play.episode.observation
            play.episode.step(asyncio.run(clinician.decide(observation, turn)))
            texts.append(play.episode.turns[-1].raw)
        else:
            texts[turn - 1 :] = [POLICIES[number % len(POLICIES)](world, turn)]
            play.step(texts[-1])
    return texts, asyncio.run(scorer.credit(play)).total


@contextmanager
def player_server(cases: Path, replies: Replies) -> Iterator[OpenAIServer]:
    """Gives the replies to the prompts; a case is told by how its observation begins."""
    worlds = environments_of(cases, training=False)
    first = next(iter(worlds))

    def script(asked: Asked, _: int) -> Reply:
        prompt = json.dumps(asked.body["messages"][:2], ensure_ascii=False)
        (case_id,) = (
            case_id
            for case_id, world in worlds.items()
            if json.dumps(world.initial_observation, ensure_ascii=False)[1:400] in prompt
        )
        number = int(re.findall(r"This is turn (\d+) of", prompt)[-1])
        text = replies[case_id][number - 1]
        # A server that takes the whole reply for thinking.
        return Reply(reasoning=text) if case_id == first else Reply(text)

    with openai_server(script) as server:
        yield server


def values_of(measures: Mapping[str, Any], reward: float | None) -> tuple[float, ...]:
    return *(float(measures.get(name) or 0) for name in MEASURES), float(reward or 0)


def evaluated(
    cases: Path, url: str, rewards: Mapping[str, float], out: Path, **environment: str
) -> Scores:
    """The scores of `medaction evaluate`, with the episodes' `rewards`, which it has not."""
    command = ["medaction", "evaluate", str(cases), "--model", f"openai/player@{url}"]
    command += ["--protocol", "medaction", "--rollouts", "1", "--engine", "local"]
    command += ["--out", str(out), "--allow", "unlicensed"]
    # A cache of its own: what another player replied to the same prompts is no reply of this one.
    environment |= {"OPENAI_API_KEY": "none", "MEDACTION_CALL_CACHE": str(out / "calls")}
    run(command, REPOSITORY, **environment)
    rows = json.loads((out / "result.json").read_text())["rows"]
    return {row["case_id"]: values_of(row, rewards[row["case_id"]]) for row in rows}


def run(command: list[str], folder: Path, **environment: str) -> None:
    """A command line of this environment. Raises SystemExit with its last words when it fails."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def run_as_written(program: str, cases: Path, url: str, folder: Path, **environment: str) -> None:
    """The command of docs/rl.md that starts `program`, in a folder with the repository's examples;
    what its reader fills in, the cases, the model and where it is served, is ours."""
    page = (REPOSITORY / "docs" / "rl.md").read_text().replace("\\\n", " ")
    (line,) = (line for line in page.splitlines() if re.match(rf"(\w+=\S+ )?{program} ", line))
    for blank, filled in {
        "MODEL": "player", "http://127.0.0.1:8000/v1": url, "examples/cases": str(cases)
    }.items():  # fmt: skip
        line = line.replace(blank, filled)
    words = shlex.split(line)
    settings = dict(word.split("=", 1) for word in words if re.match(r"[A-Z]+=", word))
    if "PYTHONPATH" in settings:  # beside the checkout that is under test
        settings["PYTHONPATH"] += f":{REPOSITORY}"
    folder.mkdir(parents=True)
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    run(words[len(settings) :], folder, **settings | environment)


def inspected(cases: Path, url: str, replies: Replies, out: Path) -> Scores:
    from inspect_ai.log import list_eval_logs, read_eval_log

    served = {"LOCAL_BASE_URL": url, "LOCAL_API_KEY": "none", "INSPECT_DISPLAY": "plain"}
    run_as_written("inspect eval", cases, url, out, **served)
    (newest,) = list_eval_logs(str(out / "logs"))
    scores = {}
    for sample in read_eval_log(newest).samples or ():
        (score,) = (sample.scores or {}).values()
        assert isinstance(score.value, dict)
        scores[str(sample.id)] = values_of(score.value, score.value["reward"])
    return scores


def verified(cases: Path, url: str, replies: Replies, out: Path) -> Scores:
    run_as_written("vf-eval", cases, url, out, OPENAI_API_KEY="none")
    scores = {}
    for episode in episodes_of(out):
        last = episode["traces"][-1]
        case_id = episode["task"]["data"]["case_id"]
        scores[case_id] = values_of(last["metrics"], last["rewards"]["episode"]["score"])
    return scores


def episodes_of(out: Path) -> list[dict[str, Any]]:
    """What `vf-eval` left in the folder where it ran."""
    (file,) = out.rglob("traces.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def served(cases: Path, url: str, replies: Replies, out: Path) -> Scores:
    """Through `medaction serve-env`."""
    with environment_server(cases, "--evaluation", "--port", 8021) as address:
        return asyncio.run(_sessions(address, replies, list(replies), AT_ONCE))


async def _sessions(url: str, replies: Replies, case_ids: list[str], at_once: int) -> Scores:
    from openenv.core.generic_client import GenericEnvClient

    room = asyncio.Semaphore(at_once)

    async def play(case_id: str) -> tuple[float, ...]:
        async with room, GenericEnvClient(base_url=url, message_timeout_s=600) as client:
            result = await client.reset(case_id=case_id)
            while not result.done:
                reply = replies[case_id][result.observation["turn"] - 1]
                result = await client.step({"reply": reply})
            return values_of(result.observation["scores"], result.reward)

    values = await asyncio.gather(*map(play, case_ids))
    return dict(zip(case_ids, values, strict=True))


async def crowd(cases: Path, replies: Replies, sessions: int) -> str:
    """`sessions` episodes at once on `medaction serve-env`: how long they take, and what of the
    machine."""
    case_ids = [list(replies)[number % len(replies)] for number in range(sessions)]
    options = ("--evaluation", "--port", 8021, "--sessions", sessions)
    with environment_server(cases, *options) as url:
        (server,) = psutil.Process().children()
        before, start = server.cpu_times(), time.perf_counter()
        await _sessions(url, replies, case_ids, sessions)
        wall, after = time.perf_counter() - start, server.cpu_times()
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    steps = sum(len(replies[case_id]) for case_id in case_ids)
    cpu = after.user + after.system - before.user - before.system
    return (
        f"{sessions} episodes of {steps} steps at once: {wall:.1f} s, {sessions / wall:.1f} a"
        f" second, {1000 * cpu / steps:.0f} ms of CPU a step, at most {int(peak) / 1e6:.2f} GB;"
        f" load {os.getloadavg()[0]:.1f}"
    )


def called(cases: Path, url: str, replies: Replies, out: Path) -> Scores:
    """Each reply as the call of a tool with its arguments, as TRL makes it; what cannot be read as
    a call that is refused."""
    scorer = scorer_of()
    scores = {}
    for row in case_rows(cases):
        episode = ToolEpisode(cases)
        episode.reset(**row)
        assert isinstance(episode._play, Play)
        for text in replies[row["case_id"]]:
            if not text.startswith("{"):
                while not episode._play.ended:
                    episode.order_tests({}, text, [])
                break
            reply = json.loads(text)
            differential = {line["diagnosis"]: line["confidence"] for line in reply["differential"]}
            if diagnosis := reply["action"].get("final_diagnosis"):
                episode.diagnose(differential, diagnosis)
            else:
                episode.order_tests(differential, reply["pivot"], reply["action"]["order_tests"])
        score = asyncio.run(scorer.score(episode._play))
        scores[row["case_id"]] = values_of(score.values(), episode.get_reward())
    return scores


TOOLS: dict[str, Callable[[Path, str, Replies, Path], Scores]] = {
    "inspect eval": inspected,
    "vf-eval": verified,
    "serve-env": served,
    "TRL's tools": called,
}

if __name__ == "__main__":
    main()
