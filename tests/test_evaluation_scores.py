"""The arithmetic of scores against cases computed by hand; agreement, and paired comparison."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medaction.evaluation import criteria
from medaction.evaluation.agreement import agreement
from medaction.evaluation.compare import (
    by_case,
    comparison,
    draw_costs,
    paired_difference,
    published_rows,
    table_2,
)
from medaction.evaluation.correction import MeasuredJudge, corrected_accuracy
from medaction.evaluation.costs import UNKNOWN_TEST, accuracy_by_cost, cost_of, price_of
from medaction.evaluation.judges import ComparedTests, judge_key
from medaction.evaluation.judging import (
    Judgement,
    failed_score,
    judgement_json,
    judgement_of,
    score_of,
)
from medaction.evaluation.protocol import protocol
from medaction.evaluation.results import (
    ResultRow,
    read_result,
    result_of,
    result_table,
    write_result,
)
from medaction.evaluation.scores import Score, f1, hit_share, measures, score_table
from tests.records import environment, small_tree


@pytest.mark.parametrize(
    ("hits", "expected"),
    [
        ([], 0.0),
        ([True], 1.0),
        ([False], 0.0),
        ([True, False, False, True], 0.5),
        ([True, True, False], 2 / 3),
    ],
)
def test_precision_and_recall_are_shares_of_hits(hits: list[bool], expected: float) -> None:
    assert hit_share(hits) == pytest.approx(expected)


def test_f1() -> None:
    assert f1(0, 0) == 0
    assert f1(0.5, 1.0) == pytest.approx(2 / 3)


def test_means_deviations_and_both_f1_by_hand() -> None:
    # case a, runs 0 and 1; case b, run 0 only (run 1 was dropped); case c never scored
    scores = [
        Score("a", 0, 1.0, 0.5, True),
        Score("a", 1, 0.5, 0.5, False),
        Score("b", 0, 0.0, 0.0, False),
        Score("b", 1, None, None, True),
    ]
    found = {measure.name: measure for measure in measures(scores, ["a", "b", "c"], 2)}
    # run 0: P (1 + 0) / 2 = 0.5; run 1: P 0.5 alone. R: 0.25 and 0.5.
    assert found["precision"].mean == pytest.approx(0.5)
    assert found["precision"].sd == pytest.approx(0.0)
    assert found["recall"].mean == pytest.approx(0.375)
    assert found["recall"].sd == pytest.approx(math.sqrt(0.03125))
    # F1 of means: run 0 2*.5*.25/.75 = 1/3, run 1 0.5; mean of F1: run 0 (2/3 + 0) / 2 = 1/3, run 1
    # 0.5
    assert found["f1_of_means"].mean == pytest.approx((1 / 3 + 0.5) / 2)
    assert found["mean_f1"].mean == pytest.approx((1 / 3 + 0.5) / 2)
    # accuracy: run 0 1/2, run 1 (a wrong, b right) 1/2
    assert found["accuracy"].mean == pytest.approx(0.5)
    assert (found["precision"].scored, found["accuracy"].scored, found["accuracy"].of) == (3, 4, 6)


def test_the_two_f1_differ_where_cases_differ() -> None:
    scores = [Score("a", 0, 1.0, 0.2, True), Score("b", 0, 0.2, 1.0, True)]
    found = {measure.name: measure.mean for measure in measures(scores, ["a", "b"], 1)}
    assert found["f1_of_means"] == pytest.approx(0.6)
    assert found["mean_f1"] == pytest.approx(1 / 3)


def test_the_bootstrap_interval_holds_what_it_should() -> None:
    scores = [
        Score(str(number), run, 1.0, 1.0, number % 4 != 0)
        for number in range(200)
        for run in range(3)
    ]
    found = {
        measure.name: measure
        for measure in measures(scores, [str(number) for number in range(200)], 3)
    }
    accuracy = found["accuracy"]
    assert accuracy.mean == pytest.approx(0.75)
    assert accuracy.low is not None
    assert accuracy.high is not None
    width = 1.96 * math.sqrt(0.75 * 0.25 / 200)  # the runs of a case are equal, so they add nothing
    assert accuracy.low == pytest.approx(0.75 - width, abs=0.02)
    assert accuracy.high == pytest.approx(0.75 + width, abs=0.02)
    assert (found["precision"].low, found["precision"].high) == (1.0, 1.0)


def test_nothing_scored_is_no_score_and_a_double_score_is_an_error() -> None:
    assert all(measure.mean is None and measure.scored == 0 for measure in measures([], ["a"], 3))
    assert measures([], [], 3)[0].of == 0
    with pytest.raises(ValueError, match="two scores"):
        measures([Score("a", 0, 1, 1, True)] * 2, ["a"], 1)


def test_repeats_are_averaged_and_the_majority_decides() -> None:
    def judged(hit: bool, correct: bool) -> Judgement:
        return Judgement(ComparedTests((("CBC", hit),), (("CBC", hit), ("CT", False))), correct)

    found = score_of([judged(True, True), judged(True, True), judged(False, False)], "c", 1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(1 / 3)
    assert found.correct is True
    assert score_of([judged(True, True), judged(True, False)], "c", 1).correct is False
    assert judgement_of(judgement_json(judged(True, False))) == judged(True, False)


@pytest.mark.parametrize(
    ("raters", "alpha"),
    [
        # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), examples A, B and C: two
        # observers and two values; two observers and five values; four observers, values missing.
        (["0100000010", "1110010000"], 0.095),
        (["aabbdcccedda", "babbbcccEddd".lower()], 0.692),
        (["123321412...", "1233224125.3", ".3332342251.", "1233244125 1.".replace(" ", "")], 0.743),
    ],
)
def test_alpha_is_the_published_one(raters: list[str], alpha: float) -> None:
    ratings = [[None if value == "." else value for value in rater] for rater in raters]
    assert agreement(ratings).alpha == pytest.approx(alpha, abs=0.0005)


def test_agreement_by_hand() -> None:
    # 4 items, 2 raters, one disagreement: alpha = 1 - (n - 1) * o / (n0 * n1) = 1 - 7 * 2 / (2 * (5
    # * 3)) with o = 2 ordered pairs
    found = agreement([[True, True, True, False], [True, True, False, False]])
    assert found.raw == 0.75
    assert found.alpha == pytest.approx(1 - 7 * 2 / (2 * 5 * 3))
    assert found.items == 4
    assert agreement([[True, None], [True, False]]).items == 1
    unanimous = agreement([[True, True], [True, True]])
    assert (unanimous.raw, unanimous.alpha) == (1.0, None)
    with pytest.raises(ValueError, match="one rating"):
        agreement([[True], [True, False]])


def test_every_f1_that_the_paper_publishes_is_that_of_the_means() -> None:
    rows = published_rows()
    assert rows.height == 18
    for row in rows.iter_rows(named=True):
        assert f1(row["precision"], row["recall"]) == pytest.approx(row["f1"], abs=0.0101), row


def test_paired_differences() -> None:
    first = {str(number): 0.0 for number in range(20)}
    better = paired_difference(first, {case: 1.0 if int(case) < 15 else 0.0 for case in first})
    assert better.difference == pytest.approx(0.75)
    assert better.p is not None
    assert better.p < 0.001
    same = paired_difference(first, first)
    assert (same.difference, same.p) == (0.0, 1.0)
    mixed = paired_difference(first, {case: (-1.0) ** int(case) for case in first})
    assert mixed.difference == 0
    assert mixed.p is not None
    assert mixed.p > 0.5
    assert paired_difference(first, {"x": 1.0}) == paired_difference({}, {})


def result(model: str, correct: list[bool] | list[bool | None], **change: Any) -> dict[str, Any]:
    """A result of one run over hand-written cases; None: the model gave no reply to read."""
    _, root, _ = small_tree()
    worlds = [environment(f"case-{number}") for number in range(len(correct))]
    played = [
        ResultRow(failed_score(world.case_id, 0, "MalformedReply", protocol("medaction")), None)
        if right is None
        else ResultRow(Score(world.case_id, 0, 0.5, 1.0, right), root)
        for world, right in zip(worlds, correct, strict=True)
    ]
    about = {
        "model": model,
        "protocol": "paper free-turn",
        "t_max": 8,
        "runs": 1,
        "benchmark": "medrbench",
        "judge": "offline@1",
        "answers": "oracle",
        "cases": {"read": 5, "environments": len(worlds), "refused": [("no_diagnosis_in_o1", 1)]},
        "query": "select 1",
    }
    return result_of(about | change, worlds, played, 1, {})


@pytest.mark.parametrize(
    ("answers", "known"),
    [("oracle", True), ("oracle with gpt", True), ("oracle, read by gpt", True),
     ("examiner gpt", False), ("examiner gpt, read by gemma", False)],
)  # fmt: skip
def test_an_examiner_alone_hides_which_test_a_result_is_of(
    answers: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(criteria, "decisive_tests", lambda _: frozenset({"CBC"}))
    rows = result("a", [True], answers=answers)["rows"]
    assert (rows[0]["decisive"] is not None) is known


def test_table_2_is_recomputed_from_the_rows_in_the_papers_shape() -> None:
    """One model on two benchmarks is one line; what the rows say is what the scores said."""
    first = result("model-a", [True, False, True, False])
    hard = result("model-a", [True] * 3, benchmark="hard-300")
    heading, _, line = table_2([first, hard])
    columns = [cell.strip() for cell in heading.strip("|").split("|")]
    assert columns[1:5] == [f"medrbench {name}" for name in ("Prec", "Rec", "F1", "Diag Acc")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[0] == "model-a"
    by_name = {measure["name"]: measure for measure in first["scores"]}
    for name, cell in zip(
        ("precision", "recall", "f1_of_means", "accuracy"), cells[1:5], strict=True
    ):
        measure = by_name[name]
        assert cell == f"{measure['mean']:.2f} ({measure['low']:.2f} to {measure['high']:.2f})"
    assert cells[8].startswith("1.00")
    again = result("model-a", [False] * 4, judge="other@2")
    lines = table_2([result("model-a", [True] * 4, judge="other@1"), again])[2:]
    assert [line.split("|")[5].split()[0] for line in lines] == ["1.00", "0.00"]
    single = table_2([result("model-a", [True])])[2]
    assert all(cell.strip() for cell in single.strip("|").split("|")), "of one case: no interval"
    text = comparison([first, hard])
    assert "As in the paper's Table 2" in text
    assert "different benchmarks" in text


def test_a_result_is_written_read_and_shown(tmp_path: Path) -> None:
    made = result("model-a", [True, False, True])
    file, table = write_result(made, tmp_path)
    assert read_result(tmp_path) == read_result(file) == json.loads(json.dumps(made))
    text = table.read_text()
    assert "| Diagnosis accuracy | 0.667 |" in text
    assert "3 of 3" in text
    assert "offline@1" in text
    assert made["rows"][0]["turns"] == 3
    (tmp_path / "odd.json").write_text("[]")
    with pytest.raises(ValueError, match=r"odd.json: not a result"):
        read_result(tmp_path / "odd.json")
    del made["scores"]
    for precision, fault in ((float("nan"), "rows.0.precision"), ("0.5", "valid number")):
        made["rows"][0]["precision"] = precision
        file.write_text(json.dumps(made | {"scores": []}))
        with pytest.raises(ValueError, match=fault):
            read_result(file)
    file.write_text(json.dumps(made))
    with pytest.raises(ValueError, match="scores: Field required"):
        read_result(file)
    with pytest.raises(ValueError, match="no such result"):
        read_result(tmp_path / "none.json")


def test_accuracy_is_corrected_by_what_is_known_of_the_judge() -> None:
    judge = MeasuredJudge(right=200, right_called=130, wrong=40, wrong_called=36, on="made up")
    called = 0.4 * judge.sensitivity + 0.6 * (1 - judge.specificity)  # 40 % are right in truth
    table = {"accuracy": np.array([[1.0]] * 320 + [[0.0]] * 680)}
    assert called == pytest.approx(0.32)
    corrected = corrected_accuracy(table, judge)
    assert corrected.accuracy == pytest.approx(0.4)
    assert corrected.low is not None
    assert corrected.high is not None
    assert corrected.low < 0.4 < corrected.high
    assert corrected.high - corrected.low > 0.1  # the judge was measured on few answers
    assert corrected_accuracy({"accuracy": np.array([[np.nan]])}, judge).accuracy is None
    none_right = corrected_accuracy({"accuracy": np.zeros((3, 1))}, judge)
    assert (none_right.accuracy, none_right.low) == (0.0, 0.0)
    assert none_right.high is not None
    assert 0.5 < none_right.high < 1, "three wrong cases are no proof that all are"


def test_a_judge_without_errors_corrects_nothing_where_runs_are_missing() -> None:
    perfect = MeasuredJudge(right=200, right_called=200, wrong=40, wrong_called=40, on="made up")
    scores = [Score("a", 0, 1.0, 1.0, True)]
    scores += [Score("b", run, 1.0, 1.0, False) for run in range(3)]
    raw = {found.name: found for found in measures(scores, ["a", "b"], 3)}["accuracy"].mean
    assert raw == pytest.approx(1 / 6)
    corrected = corrected_accuracy(score_table(scores, ["a", "b"], 3), perfect)
    assert corrected.accuracy == pytest.approx(raw)
    assert corrected.low is not None
    assert corrected.high is not None
    assert corrected.low <= raw <= corrected.high


def test_a_table_says_what_its_judge_is_worth_and_what_constant_orders_score() -> None:
    offline = judge_key(None, "sources")
    text = result_table(result("a", [True, False], judge=offline))
    assert "sensitivity is 0.83 (367 right answers)" in text
    assert "corrected by them (Rogan-Gladen): **0.507**" in text
    bare = result("a", [True])
    assert "sensitivity and specificity are not known" in result_table(bare)
    criteria = {"rollouts": 3, "with_a_decisive_test": 0, "right": 0, "needless_procedure": 0.5}
    unknown = {"decisive": None, "right_and_decisive": None}
    text = result_table(bare | {"criteria": criteria | unknown})
    assert "(`evaluation/criteria.py`): Safety: the share of all 3 rollouts" in text


def test_tests_cost_by_name_by_modality_or_as_a_tube_of_blood() -> None:
    assert cost_of(["CBC, CMP", "CBC"]) == pytest.approx(7.77 + 10.56)
    assert price_of("CT-guided lung biopsy").invasiveness == 3
    assert cost_of(["serum oddity level"]) == UNKNOWN_TEST.usd
    assert accuracy_by_cost([(10.0, True), (20.0, False), (30.0, True)])[-1] == (30.0, 2 / 3)
    assert accuracy_by_cost([]) == []
    whole, part = result("a", [True, False]), result("b", [True, None])
    assert part["cost"]["usd_a_case"] == whole["cost"]["usd_a_case"] > 0
    shown = f"{part['cost']['usd_a_case']:,.0f} $ a case"
    assert shown in result_table(part)
    legend = draw_costs([whole, part]).axes[0].get_legend()
    assert legend
    assert [shown in text.get_text() for text in legend.get_texts()] == [True, True]


def test_results_are_compared_pair_by_pair_and_warned_about() -> None:
    one, other = result("a", [False] * 12), result("b", [True] * 12)
    text = comparison([one, other], published=True)
    assert "| a | b | diagnosis accuracy | 12 | +1.000 | +1.000 to +1.000 | 0.000" in text
    assert "Not comparable" not in text
    assert "Published, not measured here" in text
    assert "GPT-5.4" in text
    warned = comparison([one, result("b", [True] * 3, judge="gpt@2")])
    assert "different judges" in warned
    assert "different cases" in warned
    assert by_case(one, "correct")["case-0"] == 0.0
    assert "not scored" not in result_table(one).lower()
    with pytest.raises(ValueError, match="same model, protocol and judge"):
        comparison([one, one])
