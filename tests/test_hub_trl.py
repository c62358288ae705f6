"""TRL's environment: a policy that calls its tools earns what it would earn in the grammar; and
GRPOTrainer plays it for a step."""

import inspect
from functools import partial
from pathlib import Path

import pytest

from medaction.hub.trl_environment import ToolEpisode, case_rows, training_worlds
from tests.conftest import SAMPLES

pytestmark = pytest.mark.long


def test_tools_play_the_episode_and_earn_its_reward() -> None:
    rows = case_rows(SAMPLES)
    assert len(rows) == len(training_worlds(SAMPLES)) == 12
    world = training_worlds(SAMPLES)[rows[0]["case_id"]]
    episode = ToolEpisode(SAMPLES)
    with pytest.raises(ValueError, match=r"no case 'x' here; one is 'medaction-01'"):
        episode.reset(case_id="x")
    with pytest.raises(ValueError, match="no case 7 here"):
        episode.reset(case_id=7)  # type: ignore[arg-type]
    assert episode.reset(case_id=world.case_id) == world.initial_observation
    unsure = {"Influenza": 60, world.diagnosis: 30}
    results = episode.order_tests(unsure, "Which?", [test.name for test in world.menu[:3]])
    assert world.menu[0].result in results
    assert "action" in episode.order_tests(unsure, "Which?", []), "no test: what is wrong"
    assert episode.diagnose({world.diagnosis: 95}, world.diagnosis) == "The case is closed."
    assert episode.get_reward() > 0.5
    assert episode.order_tests(unsure, "Which?", ["CBC"]) == "The case is closed."
    episode.reset(case_id=world.case_id)
    episode.diagnose({"Influenza": 90}, "Influenza")
    assert episode.get_reward() < 0.2


def test_every_tool_says_what_its_arguments_are() -> None:
    tools = [name for name in vars(ToolEpisode) if not name.startswith("_")]
    assert sorted(tools) == ["diagnose", "get_reward", "order_tests", "reset"]
    for name in ("diagnose", "order_tests"):
        tool = getattr(ToolEpisode, name)
        for argument in list(inspect.signature(tool).parameters)[1:]:
            assert f"{argument}:" in (tool.__doc__ or "")


@pytest.mark.train
def test_grpo_plays_a_step(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from tests.tiny_model import tiny_model

    base = tiny_model(tmp_path / "base")
    template = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    tokenizer.chat_template = template.read_text()
    tokenizer.pad_token = "<|im_end|>"
    arguments = GRPOConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        num_generations=2,
        per_device_train_batch_size=2,
        max_completion_length=16,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(base),
        args=arguments,
        train_dataset=Dataset.from_list(case_rows(SAMPLES)[:2]),
        processing_class=tokenizer,
        environment_factory=partial(ToolEpisode, SAMPLES),
    )
    assert trainer.train().global_step == 2
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert logged
    assert {entry["reward"] for entry in logged} == {0.0}, "random weights call no tool"
