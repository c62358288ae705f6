"""The experiment on filters: what it can find is right before it runs, its cases are those on which
filters differ, its intervals hold, and it runs."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from medaction.cli.pipeline import pipeline_settings
from medaction.evaluation.experiment import (
    choose_pool,
    disagreement,
    draw_experiment,
    effect,
    experiment_report,
    mean_score,
    power_statement,
    shared_records,
)
from medaction.evaluation.power import detectable, paired_power, sd_of_difference
from medaction.flows.experiment import ExperimentSettings, experiment, held_out_cases
from medaction.flows.pipeline_settings import PIPELINES
from medaction.flows.tiny_base import tiny_base
from medaction.training.settings import TrainError
from medaction.words.errors import MedactionError
from tests.runs import medaction


def test_power_is_that_of_published_examples() -> None:
    # G*Power 3.1's manual, t test of two dependent means: dz 0.421637, 50 pairs.
    assert paired_power(0.421637, 1, 50) == pytest.approx(0.832114, abs=1e-5)
    # Cohen's dz of 0.5: 34 pairs are the fewest with a power of 0.8.
    assert paired_power(0.5, 1, 34) > 0.8 > paired_power(0.5, 1, 33)
    assert paired_power(0, 1, 20) == pytest.approx(0.05)
    # Miller 2024, section 5: 969 questions tell 3 points apart, when each is asked without end.
    assert detectable(sd_of_difference(10**9), 969) == pytest.approx(0.03, abs=1e-4)
    assert sd_of_difference(1) > sd_of_difference(3) > 1 / 3
    with pytest.raises(ValueError, match="1 cases"):
        detectable(1, 1)


def test_power_is_the_share_of_experiments_that_find_the_difference() -> None:
    from scipy.stats import ttest_1samp

    draws = np.random.default_rng(0).normal(0.4, 1, size=(4000, 30))
    share = (ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert paired_power(0.4, 1, 30) == pytest.approx(share, abs=0.025)


def records(arm: dict[str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        [{"id": f"{case}{letter}", "case_id": case} for case in arm for letter in arm[case]]
    )


KEPT = {
    "none": records({"a": "1234", "b": "1234", "c": "1234"}),
    "correctness": records({"a": "1234", "b": "12", "c": "1"}),
    "dtc_rac": records({"a": "1234", "b": "34", "c": "234"}),
}


def test_the_cases_are_those_on_which_filters_disagree_most() -> None:
    assert disagreement(KEPT) == {"a": 0.0, "b": 1.0, "c": 1.0}
    pool = choose_pool(KEPT, None)
    assert (pool.cases, pool.records) == (("b", "c"), 3)  # nothing can be learnt from a
    assert choose_pool(KEPT, 2).cases == ("b",)
    assert choose_pool(KEPT, 4).cases == ("b", "c", "a")  # as many as were asked for, and no more
    with pytest.raises(MedactionError, match=r"2 of 3 cases; there are 12 records under none, 7 r"):
        choose_pool(KEPT, 8)
    taken = {"none": frozenset("abcd"), "dtc_rac": frozenset("abce")}
    assert shared_records(taken) == {("none", "dtc_rac"): 0.75}


def test_what_can_be_found_is_said_with_the_share_of_records_that_arms_have_in_common() -> None:
    from dataclasses import replace

    pool = replace(choose_pool(KEPT, 2), shared={("none", "dtc_rac"): 0.5})
    words = power_statement(pool, 100, 3, 1)
    smallest = detectable(sd_of_difference(3), 100)
    assert f"with a power of 80%: {smallest:.3f} (" in words
    assert "lower bound" in words
    assert f"| none and dtc_rac | 50% | {2 * smallest:.3f} |" in words
    same = replace(pool, shared={("none", "dtc_rac"): 1.0})
    assert "| 100% | none: " in power_statement(same, 100, 3, 1)
    assert "All arms learn the same records" in power_statement(same, 100, 3, 1)
    assert "All arms learn the same records" not in words
    assert "of 80%: none: " in power_statement(pool, 2, 1, 1)


def test_one_held_out_case_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    preset = yaml.safe_load((PIPELINES / "tiny.yaml").read_text())
    preset["evaluate"] |= {"only": ["medaction-11"]}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(preset))
    file = str(tmp_path / "one.yaml")
    settings = pipeline_settings(ExperimentSettings, file, tmp_path / "out", None, None)
    with pytest.raises(MedactionError, match="1 held-out cases are left"):
        held_out_cases(settings)


def test_a_base_without_its_tokenizer_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    pytest.importorskip(
        "torch", reason="training is not installed (pip install 'medaction[train]')"
    )
    base = tiny_base(tmp_path / "base")
    for file in base.glob("*token*"):
        file.unlink()
    preset = yaml.safe_load((PIPELINES / "tiny.yaml").read_text())
    preset["train"] |= {"base": str(base)}
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(preset))
    file = str(tmp_path / "bare.yaml")
    settings = pipeline_settings(ExperimentSettings, file, tmp_path / "out", None, None)
    with pytest.raises(TrainError, match="its tokenizer or configuration cannot be loaded"):
        experiment.fn(settings)
    assert not (settings.out / "pool").exists()


def scores(rate: float, seeds: int, spread: float, stream: int) -> dict[int, dict[str, float]]:
    luck = np.random.default_rng(stream)
    return {
        seed: {
            f"case-{case}": float(luck.random() < rate + shift)
            for case in range(60)
        }
        for seed, shift in enumerate(luck.normal(0, spread, seeds))
    }  # fmt: skip


def test_an_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    inside = 0
    for stream in range(100):
        arms = {
            "none": scores(0.4, 4, 0.05, 2 * stream),
            "dtc_rac": scores(0.5, 4, 0.05, 2 * stream + 1),
        }
        seen = effect(arms, "none", "dtc_rac")
        assert seen.low is not None
        assert seen.high is not None
        inside += seen.low <= 0.1 <= seen.high
    assert inside >= 90  # 98 measured


def test_arms_that_differ_are_told_apart_and_equal_ones_are_not() -> None:
    arms = {"none": scores(0.2, 3, 0, 1), "dtc_rac": scores(0.7, 3, 0, 2)}
    report = experiment_report({"accuracy": arms | {"again": arms["none"]}}, {"none": "2 of 9"})
    assert "which score 0: none 2 of 9." in report
    lines = [line for line in report.splitlines() if line.startswith("| none | ")]
    assert lines[-2].endswith("| yes |")
    assert lines[-1].endswith("| no |")
    mean, low, high = mean_score(arms["none"])
    assert low is not None
    assert high is not None
    assert low < mean < high


def test_a_figure_has_room_for_more_arms_than_colours() -> None:
    arms = {f"arm {number}": scores(0.4, 2, 0, number) for number in range(9)}
    [axes] = draw_experiment({"accuracy": arms, "F1": arms}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(arms)
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert max(dots[::2]) < min(dots[1::2]), "the columns of two measures stand apart"


def test_an_arm_without_a_case_that_all_its_seeds_have_has_no_mean() -> None:
    """A judge that failed leaves cases without a score, or a measure without an arm."""
    arms = {"none": scores(0.4, 2, 0, 0), "dtc_rac": {0: {"a": 1.0}, 1: {"b": 1.0}}}
    report = experiment_report({"accuracy": arms, "F1": {"none": arms["none"]}}, {})
    assert "| dtc_rac | accuracy | 2 |  |  |" in report
    assert "| none | dtc_rac | accuracy | 0 |  |  |  |" in report
    [axes] = draw_experiment({"F1": {"none": arms["none"]}, "accuracy": arms}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["none"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_experiment_runs_from_reports_to_a_table(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    pytest.importorskip(
        "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
    )
    preset = yaml.safe_load((PIPELINES / "tiny.yaml").read_text())
    preset |= {"out": str(tmp_path / "out"), "seeds": [0]}
    # Of cases 8 and 10 the graph clinicians play turns that pruning takes away, so filters differ.
    cases = [f"medaction-{number:02}" for number in (1, 4, 6, 8, 10)]
    preset["distill"] |= {"validation_percent": 0, "engine": "local", "only": cases}
    preset["train"] |= {"max_steps": 2, "validation_percent": 0}
    preset["evaluate"] |= {"only": ["medaction-11", "medaction-12"], "engine": "local"}
    preset["evaluate"]["model"]["max_tokens"] = 64
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(preset))
    command = ("experiment", "--preset", tmp_path / "small.yaml")
    planned = medaction(run_environment, *command, "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "2 held-out cases, 1 seeds, 1 rollouts each" in planned.stdout
    assert "Each arm learns 12 records" in planned.stdout
    assert not (tmp_path / "out/models").exists()
    done = medaction(run_environment, *command, timeout=1000)  # four models are served in turn
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "out/experiment.md").read_text()
    for arm in ("base model", "none", "correctness", "dtc_rac"):
        assert f"| {arm} | accuracy | 1 |" in report
    # 64 tokens are no whole reply.
    assert "which score 0: base model 2 of 2, none 2 of 2, correctness 2 of 2" in report
    # Filters that keep the same records share a version of the dataset, and so a model.
    versions = {*json.loads((tmp_path / "out/pool.json").read_text())["datasets"].values()}
    assert len(versions) > 1
    models = list((tmp_path / "out/models").glob("*/model/model.safetensors"))
    assert len(models) == len(versions)
    assert (tmp_path / "out/experiment.png").stat().st_size > 10_000
    # The preset as users have it: every arm has as many records as it asks for.
    another = ("experiment", "--preset", "tiny", "--out", tmp_path / "out")
    shipped = medaction(run_environment, *another, "--plan")
    assert shipped.returncode == 0, shipped.stderr
    pool = json.loads((tmp_path / "out/pool.json").read_text())
    assert not versions & {*pool["datasets"].values()}, "another pool is filtered anew"
