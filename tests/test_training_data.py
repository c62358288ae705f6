"""From a dataset to token ids: which records, which tokens the loss is on, and what is refused with
which remedy."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip(
    "transformers", reason="training is not installed (pip install 'medaction[train]')"
)

from medaction.training.data import (
    Prepared,
    Renderer,
    prepare_samples,
    read_datasets,
    read_samples,
    repeats_noted,
    thinned,
    without_repeats,
    write_samples,
)
from medaction.training.settings import TrainError, TrainSettings
from tests.tiny_model import ASKED, CHATML, REPLY, dataset, tiny_tokenizer

pytestmark = pytest.mark.train

# Opens the thinking in the prompt, and leaves it out of what is rendered afterwards.
OPENS_THINKING = CHATML.replace(
    "message['content']", "message['content'].split('</think>')[-1].strip()"
).replace("assistant\n' }}", "assistant\n<think>\n' }}")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def prepared(tokenizer: Any, *folders: object, **settings: Any) -> Prepared:
    asked = TrainSettings(data=[str(folder) for folder in folders], out=Path("unused"), **settings)
    return thinned(
        prepare_samples(read_datasets(asked), Renderer(tokenizer), asked.max_length), asked
    )


def test_the_loss_is_on_the_reply_and_its_end_mark_alone(tokenizer: Any) -> None:
    renderer = Renderer(tokenizer)
    [(tokens, prompt)] = renderer.tokenize([renderer.texts([*ASKED, REPLY])])
    assert tokenizer.decode(tokens[prompt:]) == REPLY["content"] + "<|im_end|>"
    served = tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, tokenize=False)
    assert list(tokens[:prompt]) == tokenizer(served, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("template", [CHATML, OPENS_THINKING])
def test_thinking_is_learnt_where_the_data_has_it(template: str) -> None:
    made = tiny_tokenizer(template)
    prompt, target = Renderer(made).texts([*ASKED, REPLY], "It may be malaria.")
    assert (prompt + target).endswith(
        f"<think>\nIt may be malaria.\n</think>\n\n{REPLY['content']}<|im_end|>"
    )
    assert prompt == made.apply_chat_template(ASKED, add_generation_prompt=True, tokenize=False)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "has no chat template"),
        (CHATML.replace("message['content']", "message['content'] | upper"), "changes or drops"),
        (CHATML.replace("<|im_end|>", "END"), "no special token"),
        (CHATML.replace("message['content']", "message['content'] | title"), "the user's words"),
        (CHATML.replace("assistant\n'", "model\n'"), "in one way in the prompt"),
    ],
)
def test_a_template_that_leaves_no_cut_is_refused(template: str | None, told: str) -> None:
    made = tiny_tokenizer(template)
    with pytest.raises(TrainError, match=told):
        Renderer(made).texts([*ASKED, REPLY])


def test_a_text_that_stands_several_times_is_learnt_once_and_counted(tmp_path: Path) -> None:
    copies = dataset(tmp_path / "copies", messages=[*ASKED, REPLY])
    (copies / "manifest.json").write_text(json.dumps({"repeats_left_out": {"a (schema)": 7}}))
    settings = TrainSettings(data=[str(copies), str(dataset(tmp_path / "d"))], out=Path("unused"))
    records = read_datasets(settings)
    texts = without_repeats(records)
    assert len(records) == 2 * 8 * 2 * 2
    assert len(texts) == 8 * 2 * 2 + 2, "of the copies one a teacher"
    assert without_repeats(texts).equals(texts)
    assert repeats_noted(settings) == 7


def test_smaller_scales_are_subsets_and_held_out_cases_stay_whole(
    tokenizer: Any, tmp_path: Path
) -> None:
    folder = dataset(tmp_path / "d")
    found = [
        {sample.id for sample in prepared(tokenizer, folder, scale=scale, seed=3).train}
        for scale in (4, 9, 24)
    ]
    assert [len(ids) for ids in found] == [4, 9, 24]
    assert found[0] < found[1] < found[2]
    assert {sample.id for sample in prepared(tokenizer, folder, scale=4, seed=4).train} != found[0]
    whole = prepared(tokenizer, folder, scale=4)
    thought = dataset(tmp_path / "thought", thinking="Malaria?")
    assert prepared(tokenizer, thought, scale=4).report()["thinking"] == 4, "of those trained on"
    assert len(whole.validation) == 8
    assert not {sample.case_id for sample in whole.validation} & {
        sample.case_id for sample in whole.train
    }
    with pytest.raises(TrainError, match="there are 24 training records"):
        prepared(tokenizer, folder, scale=25)


def test_datasets_are_mixed_by_their_shares_and_teachers_chosen(
    tokenizer: Any, tmp_path: Path
) -> None:
    pruned, unfiltered = dataset(tmp_path / "pruned"), dataset(tmp_path / "unfiltered")
    mixed = prepared(tokenizer, f"{pruned}=0.75", f"{unfiltered}=0.25", scale=16).train
    assert sum(sample.id.startswith("pruned") for sample in mixed) == 12
    assert len(mixed) == 16
    assert len(prepared(tokenizer, f"{pruned}=0.75", f"{unfiltered}=0.25").train) == 32
    for scale in (3, 5, 7):
        halves = prepared(tokenizer, f"{pruned}=0.5", f"{unfiltered}=0.5", scale=scale)
        assert len(halves.train) == scale
    (tmp_path / "other").mkdir()
    other = dataset(tmp_path / "others").rename(tmp_path / "other" / "pruned")
    counts = prepared(tokenizer, f"{pruned}=0.5", f"{other}=0.5").report()["datasets"]
    assert counts == {str(pruned): 24, str(other): 24}
    assert {sample.teacher for sample in prepared(tokenizer, pruned, teachers=["b"]).train} == {"b"}
    with pytest.raises(TrainError, match="no record of the teacher c: there are a, b"):
        prepared(tokenizer, pruned, teachers=["c"])
    with pytest.raises(TrainError, match="give every dataset a share"):
        prepared(tokenizer, f"{pruned}=0.75", unfiltered)


def test_records_that_are_too_long_are_left_out_whole_and_listed(
    tokenizer: Any, tmp_path: Path
) -> None:
    folder = dataset(tmp_path / "d")
    long = [*ASKED, REPLY | {"content": "fever " * 200}]
    dataset(tmp_path / "long", teachers=("c",), messages=long)
    found = prepared(tokenizer, folder, tmp_path / "long", max_length=100)
    assert {sample.teacher for sample in found.train} == {"a", "b"}
    assert len(found.overlong) == 16
    assert all(tokens > 100 for tokens in found.overlong.values())
    with pytest.raises(TrainError, match="every training record is longer than --max-length 100"):
        prepared(tokenizer, tmp_path / "long", max_length=100)


def test_without_a_validation_split_cases_are_held_out(tokenizer: Any, tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d", cases=40)
    whole = pl.concat(
        [pl.read_parquet(folder / f"{split}.parquet") for split in ("train", "validation")]
    )
    whole.write_parquet(folder / "train.parquet")
    (folder / "validation.parquet").unlink()
    found = prepared(tokenizer, folder, validation_percent=20)
    held_out = {sample.case_id for sample in found.validation}
    assert 2 <= len(held_out) <= 16
    assert not held_out & {sample.case_id for sample in found.train}


def test_bad_datasets_are_refused_with_the_remedy(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"is no dataset: there is no train\.parquet"):
        prepared(tokenizer, tmp_path)
    for source in ("medrbench", "diagbench"):
        with pytest.raises(TrainError, match=rf"{source}, a benchmark: .*never for training"):
            prepared(tokenizer, dataset(tmp_path / source, source=source))
    empty = dataset(tmp_path / "empty")
    for split in ("train", "validation"):
        pl.read_parquet(empty / f"{split}.parquet").clear().write_parquet(
            empty / f"{split}.parquet"
        )
    with pytest.raises(TrainError, match="is empty: see the run's summary"):
        prepared(tokenizer, empty)
    torn = dataset(tmp_path / "torn")
    (torn / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(TrainError, match="cannot be read"):
        prepared(tokenizer, torn)
    with pytest.raises(TrainError, match="no assistant's reply"):
        prepared(tokenizer, dataset(tmp_path / "unanswered", messages=ASKED))
    both = dataset(tmp_path / "both")
    pl.read_parquet(both / "train.parquet").head(1).with_columns(id=pl.lit("again")).write_parquet(
        both / "validation.parquet"
    )
    with pytest.raises(TrainError, match="on both sides of the split, case-0 first"):
        prepared(tokenizer, both)


def test_what_is_written_for_the_processes_is_read_back(tokenizer: Any, tmp_path: Path) -> None:
    found = prepared(tokenizer, dataset(tmp_path / "d"))
    write_samples(found, tmp_path / "samples.parquet")
    again = read_samples(tmp_path / "samples.parquet")
    assert (again.train, again.validation) == (found.train, found.validation)


def test_a_real_dataset_becomes_samples_whose_targets_are_the_stored_replies(
    tokenizer: Any, finished: tuple[Path, Path]
) -> None:
    _, out = finished
    found = prepared(tokenizer, out)
    replies = {
        line["id"]: line["messages"][-1]["content"]
        for file in (out / "dataset").glob("*.jsonl")
        for line in map(json.loads, file.open())
    }
    assert {sample.id for sample in (*found.train, *found.validation)} == set(replies)
    for sample in found.train:
        assert tokenizer.decode(sample.tokens[sample.prompt :]) == replies[sample.id] + "<|im_end|>"
    assert 0.03 < found.report()["target_share"] < 0.5


def test_the_hardest_cases_alone_are_trained_on_and_what_is_held_out_stays(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "d")
    hardest = tmp_path / "hardest.txt"
    hardest.write_text("case-1\ncase-3\n")
    everything = read_datasets(TrainSettings(data=[str(folder)], out=tmp_path / "out"))
    settings = TrainSettings(data=[str(folder)], out=tmp_path / "out", only=[f"@{hardest}"])
    chosen = read_datasets(settings)
    train, held_out = (chosen.filter(pl.col("split") == split) for split in ("train", "validation"))
    assert set(train["case_id"]) == {"case-1", "case-3"}
    assert held_out.equals(everything.filter(pl.col("split") == "validation"))
    assert len(held_out)
    with pytest.raises(TrainError, match="no training record is left"):
        read_datasets(settings.model_copy(update={"only": ["case-99"]}))
    with pytest.raises(ValueError, match="there is no file"):
        TrainSettings(data=[str(folder)], out=tmp_path / "out", only=["@nowhere.txt"])
