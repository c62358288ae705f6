"""The OpenEnv server, in a process of its own: many sessions at once, and clients that die, hang,
send garbage or too much."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from medaction.envs.build import build_environment
from medaction.envs.records import BadCase, ClinicalEnvironment
from medaction.envs.sources import read_cases
from medaction.hub.episodes import scorer_of
from tests.conftest import REPOSITORY, SAMPLES
from tests.openai_server import Reply, openai_server
from tests.policies import GAMING, Policy, hedge, worker
from tests.records import environment_of
from tests.runs import environment_server

pytest.importorskip("openenv.core", reason="the extra `hub` is not installed")
from openenv.core.generic_client import GenericEnvClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from medaction.hub.openenv_server import EpisodeEnvironment, ReplyAction

pytestmark = pytest.mark.long

IDLE_S = 6.0
SESSIONS = 12


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    options = ("--port", 8019, "--sessions", SESSIONS, "--idle-s", IDLE_S)
    with environment_server(SAMPLES, *options) as url:
        yield url


@pytest.fixture(scope="module")
def worlds() -> list[ClinicalEnvironment]:
    return [environment_of(report) for report in read_cases(SAMPLES)]


async def played(url: str, world: ClinicalEnvironment, policy: Policy) -> Any:
    async with GenericEnvClient(base_url=url, message_timeout_s=600) as client:
        result = await client.reset(case_id=world.case_id)
        assert world.initial_observation.split("\n")[0][:60] in json.dumps(result.observation)
        while not result.done:
            assert result.reward in (None, 0.0)
            reply = policy(world, result.observation["turn"])
            result = await client.step({"reply": reply})
        return result


def test_sessions_play_beside_each_other_and_each_has_its_own_case(
    server: str, worlds: list[ClinicalEnvironment]
) -> None:
    async def play() -> list[Any]:
        return await asyncio.gather(*(played(server, world, worker) for world in worlds))

    for result in asyncio.run(play()):
        assert result.observation["scores"]["correct"] == 1
        assert result.reward == pytest.approx(sum(result.observation["turn_rewards"]))
        assert result.reward > 0.8
    (hedged,) = asyncio.run(asyncio.wait_for(_one(server, worlds[0], hedge), 60))
    assert hedged.reward < 0.2


async def _one(server: str, world: ClinicalEnvironment, policy: Policy) -> list[Any]:
    return [await played(server, world, policy)]


def test_replies_that_cannot_be_read_are_answered_and_end_the_episode(
    server: str, worlds: list[ClinicalEnvironment]
) -> None:
    async def play() -> Any:
        async with GenericEnvClient(base_url=server) as client:
            result = await client.reset(seed=3)
            assert worlds[3].initial_observation.split("\n")[0][:60] in str(result.observation)
            faults = []
            while not result.done:
                result = await client.step({"reply": "I would order a CT."})
                faults.append(result.observation["feedback"])
            return result, faults

    result, faults = asyncio.run(play())
    assert len(faults) == 4
    assert all(faults)
    assert (result.observation["outcome"], result.reward) == ("failed", 0)
    assert result.observation["scores"]["f1"] == 0


def test_garbage_gets_an_error_and_the_session_goes_on(
    server: str, worlds: list[ClinicalEnvironment]
) -> None:
    async def talk() -> list[dict[str, Any]]:
        answers = []
        async with connect(server.replace("http", "ws") + "/ws") as socket:
            for message in (
                "not json",
                "[1, 2",
                json.dumps({"type": "open sesame"}),
                json.dumps({"type": "step", "data": {"reply": "before a reset"}}),
                json.dumps({"type": "reset", "data": {"case_id": "../../etc/passwd"}}),
                json.dumps({"type": "step", "data": {"reply": 7, "nonsense": []}}),
                json.dumps({"type": "reset", "data": {"seed": 1.5}}),
                json.dumps({"type": "reset", "data": {"case_id": ["a"]}}),
                json.dumps({"type": "reset", "data": {"seed": "1"}}),
                json.dumps({"type": "step", "data": {"reply": json.loads(hedge(worlds[1], 1))}}),
            ):
                await socket.send(message)
                answers.append(json.loads(await socket.recv()))
        return answers

    answers = asyncio.run(talk())
    assert [answer["type"] for answer in answers] == ["error"] * 8 + ["observation"] * 2
    assert "should be a valid integer" in str(answers[6]["data"])
    assert answers[-1]["data"]["observation"]["turn"] == 2


def test_ten_megabytes_are_refused_and_nothing_else_suffers(server: str) -> None:
    async def shout() -> None:
        async with connect(server.replace("http", "ws") + "/ws", max_size=None) as socket:
            await socket.send(json.dumps({"type": "step", "data": {"reply": "x" * 10_000_000}}))
            await socket.recv()

    with pytest.raises(ConnectionClosed):
        asyncio.run(shout())
    big = {"action": {"reply": "x" * 10_000_000}}
    assert httpx.post(f"{server}/step", json=big).status_code == 413
    assert httpx.post(f"{server}/step", content=iter([b"{", b"}"])).status_code == 413
    assert httpx.get(f"{server}/health").json()["status"] == "healthy"


def test_sessions_of_clients_that_died_or_hang_are_given_to_others(
    server: str, worlds: list[ClinicalEnvironment]
) -> None:
    async def flood() -> None:
        sockets = [await connect(server.replace("http", "ws") + "/ws") for _ in range(SESSIONS + 1)]
        for socket in sockets[:SESSIONS]:
            await socket.send(json.dumps({"type": "reset", "data": {}}))
            assert json.loads(await socket.recv())["type"] == "observation"
        refusal = json.loads(await sockets[-1].recv())
        assert refusal["data"]["code"] == "CAPACITY_REACHED"
        for socket in sockets[: SESSIONS // 2]:
            socket.transport.abort()  # dies without a word; the others hang
        await asyncio.sleep(0.5)
        result = await played(server, worlds[0], worker)
        assert result.done
        await asyncio.sleep(3 * IDLE_S)
        results = await asyncio.gather(*(played(server, world, worker) for world in worlds))
        assert len(results) == len(worlds)

    asyncio.run(asyncio.wait_for(flood(), 120))


def test_a_judge_that_takes_its_time_keeps_no_session_waiting(
    worlds: list[ClinicalEnvironment],
) -> None:
    def play(world: ClinicalEnvironment) -> None:
        session = EpisodeEnvironment({world.case_id: world}, scorer, 8)
        observation = session.reset()
        while not observation.done:
            reply = worker(world, observation.turn)
            observation = session.step(ReplyAction(reply=reply))

    with openai_server(lambda asked, number: Reply("yes", after_s=2.0)) as judge:
        scorer = scorer_of(f"openai/judge@{judge.url}")
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(play, worlds[:6]))
    assert max(asked.under_way for asked in judge.asked) > 4


def test_a_session_is_reached_over_its_own_connection_alone(server: str) -> None:
    """No request names another's session: HTTP's own steps begin with an episode of none."""

    async def talk() -> None:
        async with GenericEnvClient(base_url=server) as client:
            await client.reset(seed=0)
            before = await client.state()
            step = httpx.post(f"{server}/step", json={"action": {"reply": "mine now"}})
            assert step.status_code >= 400
            call = {"jsonrpc": "2.0", "id": 1, "method": "openenv/session/close"}
            stolen = httpx.post(f"{server}/mcp", json=call | {"params": {"session_id": "0"}})
            assert "error" in stolen.json()
            assert await client.state() == before

    asyncio.run(talk())


def test_benchmark_cases_are_refused_for_training(tmp_path: Path) -> None:
    from medaction.hub.episodes import environments_of

    case = json.loads((SAMPLES / "medaction-01.json").read_text())
    (tmp_path / "case.json").write_text(json.dumps(case | {"evaluation_only": True}))
    report = next(read_cases(tmp_path / "case.json"))
    assert not isinstance(report, BadCase)
    assert build_environment(report).environment
    with pytest.raises(BadCase, match="evaluation_only"):
        environments_of(tmp_path, training=True)
    assert environments_of(tmp_path, training=False)
    command = [sys.executable, "-m", "medaction", "serve-env", "--cases", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "may be trained on" in done.stderr
    (tmp_path / "empty").mkdir()
    done = subprocess.run([*command[:-1], str(tmp_path / "empty")], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--cases: " in done.stderr


def test_openenvs_own_check_passes(server: str) -> None:
    """By its command line, as docs/rl.md has it."""
    (line,) = re.findall(
        "^openenv validate .*", (REPOSITORY / "docs" / "rl.md").read_text(), re.MULTILINE
    )
    program, *words = line.replace("http://127.0.0.1:8010", server).split()
    command = [str(Path(sys.executable).parent / program), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["passed"]


def test_policies_that_play_for_the_reward_score_little_over_the_wire(
    server: str, worlds: list[ClinicalEnvironment]
) -> None:
    async def play() -> list[Any]:
        return [await played(server, worlds[1], policy) for policy in GAMING]

    assert max(result.reward for result in asyncio.run(play())) < 0.4
