"""The dataset in the forms that other tools read: types, splits, prompt and completion, thinking;
and the tokens that TRL trains on are ours."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medaction.envs.prompts import messages
from medaction.envs.records import ClinicalEnvironment
from medaction.envs.turns import Turn
from medaction.flows.dataset import _card_licences
from medaction.training.data import prepare_samples, read_datasets
from medaction.training.settings import TrainSettings
from medaction.training.templates import Renderer
from medaction.trajectories.export import export_dataset
from medaction.trajectories.records import Trajectory
from medaction.trajectories.store import Store
from tests.records import add_environment, put_derived, report, small_tree


def exported(folder: Path, validation_percent: int = 0) -> Path:
    """The dataset of a small tree, in which the second turn was thought over first."""

    def prompt(world: ClinicalEnvironment, played: Trajectory, turns: Sequence[Turn]) -> Any:
        return messages(world.initial_observation, turns, played.t_max, played.spec.style)

    world, root, branch = small_tree()
    first, second, third = root.turns
    root = replace(root, turns=(first, replace(second, thinking="Could it be\nboth?"), third))
    with Store(folder / "trajectories.duckdb") as store:
        add_environment(store, report(world.case_id), world)
        store.add_rollouts("distill", world.case_id, [root, branch], [], "run-1")
        numbers = {root.trajectory_id: [1, 2, 3], branch.trajectory_id: [1, 2]}
        verdicts = [
            {
                "trajectory_id": id_,
                "strategy": "none",
                "threshold": None,
                "status": "kept",
                "reason": "",
                "last_turn": None,
                "removed_turns": [],
                "kept_turns": kept,
            }
            for id_, kept in numbers.items()
        ]
        put_derived(store, verdicts=verdicts)
        export_dataset(store, folder, prompt, validation_percent, lambda *_: {})
    return folder / "dataset"


def test_prompt_and_completion_are_the_conversation_and_thinking_stands_in_the_reply(
    tmp_path: Path,
) -> None:
    rows = pl.read_parquet(exported(tmp_path) / "train.parquet").to_dicts()
    assert len(rows) == 4
    for row in rows:
        (reply,) = row["completion"]
        said = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
        assert [*row["prompt"], {k: reply[k] for k in ("role", "content")}] == said
        assert row["messages"][-1] == reply
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
    thoughts = [row["completion"][0]["reasoning_content"] for row in rows]
    assert sorted(thoughts, key=str) == ["Could it be\nboth?", None, None, None]


def test_types_are_plain_and_a_split_without_records_has_no_file(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    schema = pq.read_schema(folder / "train.parquet")
    text = pa.string()
    message = [("role", text), ("content", text)]
    reply = pa.struct([*message, ("reasoning_content", text)])
    assert schema.field("messages").type == pa.list_(reply)
    assert schema.field("prompt").type == pa.list_(pa.struct(message))
    assert {field.type for field in schema if "large" in str(field.type)} == set()
    assert sorted(file.name for file in folder.iterdir()) == [
        *("manifest.json", "train.jsonl", "train.parquet")
    ]
    every = exported(tmp_path / "held-out", validation_percent=100)
    assert pl.read_parquet(every / "validation.parquet").height == 4
    assert pl.read_parquet(every / "train.parquet").is_empty(), "so that it can be read"
    assert not (every / "train.jsonl").exists()


def test_training_reads_new_datasets_and_old_ones_alike(tmp_path: Path) -> None:
    new = exported(tmp_path)
    old = tmp_path / "old"
    old.mkdir()
    frame = pl.read_parquet(new / "train.parquet")
    thinking = pl.col("messages").list.last().struct.field("reasoning_content").fill_null("")
    message = pl.struct(pl.element().struct.field("role"), pl.element().struct.field("content"))
    frame.with_columns(thinking=thinking).with_columns(pl.col("messages").list.eval(message)).drop(
        "prompt", "completion"
    ).write_parquet(old / "train.parquet")
    frames = [
        read_datasets(TrainSettings(data=(str(folder),), out=tmp_path / "out"))
        for folder in (new, old)
    ]
    assert frames[0].drop("dataset").equals(frames[1].drop("dataset"))
    assert frames[0]["thinking"].to_list().count("Could it be\nboth?") == 1
    both = TrainSettings(data=(str(new), str(old)), out=tmp_path / "out")
    assert read_datasets(both).height == 4


def test_the_cards_licence_is_the_cases() -> None:
    assert _card_licences(["CC BY 4.0", "CC0-1.0", "CC-BY-4.0"]) == ["cc-by-4.0", "cc0-1.0"]
    addresses = [
        "https://creativecommons.org/licenses/by/4.0/",
        "This is an open access article (http://creativecommons.org/licenses/by-nc-nd/4.0/).",
        "https://creativecommons.org/publicdomain/zero/1.0/",
    ]
    assert _card_licences(addresses) == ["cc-by-4.0", "cc-by-nc-nd-4.0", "cc0-1.0"]
    assert _card_licences(["CC BY 4.0", "as the publisher says"]) == []
    assert _card_licences(["not stated"]) == []


@pytest.mark.train
def test_trl_trains_on_our_tokens(tmp_path: Path) -> None:
    """With Qwen3's template, which has a switch for thinking. TRL puts the loss on the line break
    behind the end mark, too, which no served model ever writes."""
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.tiny_model import tiny_model

    folder = exported(tmp_path)
    base = tiny_model(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    templates = Path(trl.__file__).parent / "chat_templates"
    tokenizer.chat_template = (templates / "qwen3.jinja").read_text()
    tokenizer.pad_token = "<|im_end|>"
    trainer = trl.SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "out"), max_length=None, use_cpu=True, bf16=False
        ),
        train_dataset=load_dataset(
            "parquet", data_files=str(folder / "train.parquet"), split="train"
        ),
        processing_class=tokenizer,
    )
    settings = TrainSettings(data=(str(folder),), out=tmp_path / "out")
    ours = prepare_samples(read_datasets(settings), Renderer(tokenizer), 100_000).train
    ids = pl.read_parquet(folder / "train.parquet")["id"]
    theirs = dict(zip(ids, trainer.train_dataset, strict=True))
    assert len(ours) == len(theirs) == 4
    line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
    for sample in ours:
        row = theirs[sample.id]
        assert row["input_ids"] == [*sample.tokens, *line_break]
        learnt = [label != -100 for label in row["labels"]]
        assert learnt == [False] * sample.prompt + [True] * (sample.targets + 1)
    texts = [tokenizer.decode(sample.tokens[sample.prompt :]) for sample in ours]
    assert sum("<think>\nCould it be\nboth?\n</think>" in text for text in texts) == 1
    assert sum("<think>" in text for text in texts) == 1, "an empty block is no target"
