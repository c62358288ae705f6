"""Copies in other words are found among the sample cases, reviewed, reported, and kept out of
training and of a hard set."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from benchmarks.paraphrase import paraphrased
from medaction.cli.main import medaction as command
from medaction.envs.records import BadCase, Built, CaseReport
from medaction.envs.sources import read_cases
from medaction.evaluation import contamination, hard_set
from medaction.evaluation.case_sets import SetCase, ids_of, read_set
from medaction.evaluation.contamination import SIGNALS, find_pairs, remembering
from medaction.evaluation.hard_set import HardCase, draw_cases
from medaction.flows.held_out import refuse_contaminated
from medaction.kg.encoder import load_encoder
from medaction.training.data import read_datasets
from medaction.training.settings import TrainError, TrainSettings
from medaction.trajectories.records import RolloutSpec, Trajectory
from medaction.trajectories.scoring import disease_linker
from medaction.trajectories.store import Store
from medaction.trajectories.table_rows import BuiltCase
from medaction.words.errors import WrongUse
from tests.conftest import SAMPLES
from tests.openai_server import Asked, openai_server
from tests.records import environment, environment_of, turn
from tests.runs import sample_cases


def copies_of(numbers: tuple[int, ...], folder: Path) -> Path:
    """Sample cases under other ids and titles, in other words, with other numbers, in another
    order."""
    folder.mkdir()
    for number in numbers:
        value = json.loads((SAMPLES / f"medaction-{number:02}.json").read_text())
        rng = random.Random(number)
        value["case_id"], value["title"] = (
            f"other-{number}",
            f"Patient {number} of another hospital",
        )
        value["initial_observation"] = paraphrased(value["initial_observation"], rng)
        for test in value["tests"]:
            test["result"] = paraphrased(test["result"], rng)
            test.pop("quote", None)
        rng.shuffle(value["tests"])
        (folder / f"other-{number}.json").write_text(json.dumps(value))
    return folder


def test_planted_copies_are_found_reviewed_reported_and_noted_in_a_dataset(tmp_path: Path) -> None:
    originals = sample_cases(tmp_path / "samples", 2, 5, 9)
    copies = copies_of((2, 5, 9), tmp_path / "copies")
    first, samples = read_set(copies), read_set(originals)
    assert not set(first[1].texts[-1].split("\n")) & set(
        samples[1].texts[-1].split("\n")
    )  # no line is left as it was
    encode = remembering(load_encoder().encode)
    pairs = find_pairs(first, samples, encode, disease_linker())
    found = {(row["case_id"], row["other_id"]) for row in pairs.iter_rows(named=True)}
    assert found == {(f"other-{number}", f"medaction-{number:02}") for number in (2, 5, 9)}
    assert all(
        {"text", "presentation"} <= set(row["found_by"]) for row in pairs.iter_rows(named=True)
    )
    within = find_pairs([*samples, *first], None, encode, disease_linker())
    assert {frozenset(pair) for pair in within.select("case_id", "other_id").iter_rows()} == {
        frozenset(pair) for pair in found
    }

    dataset = tmp_path / "dataset"
    dataset.mkdir()
    rows = [
        {
            "id": f"{case.case_id}-1",
            "teacher": "a",
            "style": "schema",
            "case_id": case.case_id,
            "turn": 1,
            "source": "case_json",
            "diagnosis": case.names[0],
            "licence": "CC BY 4.0",
            "messages": [
                {"role": "system", "content": "Play."},
                {
                    "role": "user",
                    "content": "<initial_observation>\n"
                    f"{case.presentation}\n</initial_observation>\nNo test yet.",
                },
                {"role": "assistant", "content": "{}"},
            ],
        }
        for case in first
    ]
    pl.DataFrame(rows).write_parquet(dataset / "train.parquet")
    (dataset / "manifest.json").write_text("{}")

    def reviewer(request: Asked, number: int) -> str:
        data = json.loads(request.body["messages"][1]["content"])
        assert set(data) == {"one", "other"}
        return (
            '{"answer": "different"}'
            if "Diagnosis: Pheochromocytoma" in data["one"]
            else '{"answer": "same"}'
        )

    with openai_server(reviewer) as server:
        arguments = [
            *("contamination", str(dataset), str(originals), "--out", str(tmp_path / "out")),
            "--validator",
        ]
        done = CliRunner().invoke(
            command, [*arguments, f"openai/reviewer@{server.url}"], catch_exceptions=False
        )
    assert done.exit_code == 0
    assert "3 pairs found" in done.output
    report = json.loads((tmp_path / "out" / "contamination.json").read_text())
    assert report["contaminated"] == ["other-2", "other-9"]
    assert report["verdicts"] == {"same": 2, "different": 1}
    assert set(pl.read_csv(tmp_path / "out" / "pairs.csv").columns) >= {
        *SIGNALS,
        "found_by",
        "verdict",
    }
    assert json.loads((dataset / "manifest.json").read_text())["contaminated"] == {
        str(originals): ["other-2", "other-9"]
    }

    given: dict[str, Any] = {
        "data": [str(dataset)],
        "out": tmp_path / "model",
        "validation_percent": 0,
    }
    with pytest.raises(TrainError, match=r"2 cases of .*samples \(other-2, other-9\).*--without"):
        read_datasets(TrainSettings(**given))
    clean = TrainSettings(**given, without=["other-2", "other-9"])
    assert read_datasets(clean)["case_id"].to_list() == ["other-5"]
    with pytest.raises(
        TrainError, match="other-5 is medaction-05"
    ):  # cleared by the reviewer, but not by the check before training
        refuse_contaminated(clean.model_copy(update={"against": [str(originals)]}))


def test_the_same_publication_is_found_by_its_ids_and_a_title_by_its_words() -> None:
    assert ids_of("PMC1234567", {}) == ids_of("x", {"pmcid": "1234567"}) == {"pmcid:PMC1234567"}
    assert (
        ids_of("x", {"doi": "https://doi.org/10.1/AB"})
        == ids_of("y", {"doi": "doi:10.1/ab"})
        == {"doi:10.1/ab"}
    )
    one = SetCase(
        "a",
        "s",
        "A rare case of gastric duplication cyst in a newborn: a case report",
        (),
        "",
        (),
        ids_of("PMC1234567", {}),
    )
    other = SetCase("b", "s", "Duplication cyst, gastric, in the newborn", (), "", (), frozenset())
    third = SetCase(
        "c", "s", "AgentClinic OSCE case 7", (), "", (), ids_of("c", {"pmcid": "PMC1234567"})
    )

    def encode(texts: list[str]) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[: len(texts)]

    found = {
        (row["case_id"], row["other_id"]): row["found_by"]
        for row in find_pairs([one], [other, third], encode, disease_linker()).iter_rows(named=True)
        if set(row["found_by"]) & {"id", "title"}
    }
    assert "title" in found["a", "b"]
    assert "id" in found["a", "c"]
    assert "title" not in found["a", "c"]  # a title that tells nothing is compared with none


def test_text_finds_a_patient_of_many_copies_and_says_nothing_of_a_few_words() -> None:
    rng = random.Random(0)
    cases = [case for case in read_cases(SAMPLES) if isinstance(case, CaseReport)]
    texts = [case.text for case in cases]
    for copies in ([texts[0]] * 4, [paraphrased(texts[0], rng) for _ in range(4)]):
        of_set = [set_case(text) for text in (*texts, *copies)]
        shares = contamination._shares_of_text(of_set, of_set)
        of_patient = [0, *range(len(texts), len(of_set))]
        others = range(1, len(texts))
        assert shares[np.ix_(of_patient, of_patient)].min() > 0.5
        assert shares[np.ix_(of_patient, others)].max() < contamination.THRESHOLDS["text"]
    few = [set_case("Sudden hemoptysis."), set_case(f"Sudden hemoptysis. {texts[0]}")]
    assert contamination._shares_of_text(few, few)[0, 1] == 0


def set_case(text: str) -> SetCase:
    return SetCase("id", "s", "", (text,), "", (), frozenset())


def test_nearness_is_the_mean_over_the_shorter_case_of_the_best_match() -> None:
    rng = np.random.default_rng(0)
    counts = ([2, 5, 1], [3, 3])

    def passages(sizes: list[int]) -> contamination._Passages:
        vectors = rng.normal(size=(sum(sizes), 4)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return contamination._Passages(
            vectors, np.cumsum([0, *sizes[:-1]]), np.zeros(len(sizes), dtype=int)
        )

    ours, theirs = passages(counts[0]), passages(counts[1])
    split = [np.split(side.vectors, side.starts[1:]) for side in (ours, theirs)]
    by_hand = [
        [
            np.mean([max(float(p @ q) for q in b) for p in a])
            if len(a) <= len(b)
            else np.mean([max(float(p @ q) for p in a) for q in b])
            for b in split[1]
        ]
        for a in split[0]
    ]
    assert np.allclose(contamination._nearness(ours, theirs), by_hand, atol=1e-6)


def candidate(
    number: int,
    tests: int,
    system: str = "Skin, Hair and Nails",
    turns: float | None = None,
    rare: str = "source",
) -> HardCase:
    world = replace(environment(f"case-{number}"), body_system=system)
    return HardCase(world, "pool", rare, tests, turns, None, 3 if turns else 0, system, "")


def test_the_hardest_of_every_stratum_are_drawn() -> None:
    skin = [candidate(number, tests=number) for number in range(6)]
    eyes = [
        candidate(number, tests=4, system="Eyes and Vision", turns=float(number))
        for number in (6, 7, 8)
    ]
    common = candidate(9, tests=99, rare="")
    chosen = draw_cases([*skin, *eyes, common], 6, 0, seed=1)
    assert [found.environment.case_id for found in chosen] == [
        "case-2",
        "case-3",
        "case-4",
        "case-5",
        "case-7",
        "case-8",
    ]  # 6:3 is 4:2
    assert chosen == draw_cases([*eyes, common, *skin], 6, 0, seed=1)
    assert hard_set._ranks([1, None, 3, 3]).tolist()[0] == 0.0
    with pytest.raises(
        BadCase, match=r"9 are of a rare disease, 4 of these with 4 documented tests or more"
    ):
        draw_cases([*skin[:5], *eyes, common, replace(skin[0], tests=1)], 6, 4, seed=1)


def test_a_hard_set_is_drawn_from_a_pool_checked_and_played_again_as_it_was(tmp_path: Path) -> None:
    samples = sample_cases(tmp_path / "samples", 3, 4, 9, 12)
    reports = [case for case in read_cases(samples) if isinstance(case, CaseReport)]
    with Store(tmp_path / "pool" / "trajectories.duckdb") as store:
        for case in reports:
            world = environment_of(case)
            store.add_built_cases([BuiltCase(case, Built(world, None))], "built", "run")
            spec = RolloutSpec(world.environment_id, world.case_id, "a", "schema", 0, "hash")
            turns = (turn(1, "Lymphoma", ("CBC", "PET")), turn(2, "Sarcoidosis", (), "Sarcoidosis"))
            store.add_rollouts(
                "rollout",
                world.case_id,
                [Trajectory(spec, turns, "diagnosed", 8, "p", "c")],
                [],
                "run",
            )
    copies = copies_of((4,), tmp_path / "benchmark")  # Wilson disease
    arguments = [
        *("hard-set", tmp_path / "pool", "--out", tmp_path / "hard", "--size", 2),
        *("--min-tests", 3, "--against", copies),
    ]
    done = CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "hard" / "manifest.json").read_text())
    assert set(manifest["contamination"]["excluded"]) == {"medaction-04"}
    assert [row["turns"] for row in manifest["rows"]] == [2.0, 2.0]
    assert manifest["licences"] == {"https://creativecommons.org/licenses/by/4.0/": 2}
    again = [
        case for case in read_cases(tmp_path / "hard" / "cases") if isinstance(case, CaseReport)
    ]
    assert [environment_of(case).environment_id for case in again] == [
        row["environment_id"] for row in manifest["rows"]
    ]
    assert all(case.evaluation_only for case in again)
    assert [case.case_id for case in read_set(tmp_path / "hard")] == [
        row["case_id"] for row in manifest["rows"]
    ]
    mine = tmp_path / "hard" / "cases" / "mine.json"
    mine.write_text("{}")
    refused = CliRunner().invoke(command, [*map(str, arguments)])
    assert isinstance(refused.exception, WrongUse)
    mine.unlink()
    assert CliRunner().invoke(command, [*map(str, arguments)]).exit_code == 0
    assert len(list((tmp_path / "hard" / "cases").iterdir())) == 2


def test_what_names_no_licence_is_compared_and_what_cannot_be_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = json.loads((SAMPLES / "medaction-02.json").read_text()) | {"licence": None}
    (tmp_path / "unlicensed.json").write_text(json.dumps(case))
    (tmp_path / "export.json").write_text('{"patient": {"age": 64}}')
    assert [case.source for case in read_set(tmp_path)] == ["case_json"]
    assert "not compared" in caplog.text
    assert "export.json" in caplog.text
