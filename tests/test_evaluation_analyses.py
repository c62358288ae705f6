"""The analyses over a hand-written store, against numbers worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from medaction.cli.analyse import analyse
from medaction.evaluation.analyses import (
    calibration,
    calibration_error,
    draw_calibration,
    draw_dtc,
    draw_rac,
    dtc_by_turn,
    rac_pass_rate,
    work_up,
)
from medaction.evaluation.hard_set import WORK_UPS
from medaction.evaluation.judges import ComparedTests
from medaction.evaluation.judging import FAULT, Judgement, judgement_json, score_of
from medaction.evaluation.played import endings
from medaction.evaluation.plots import save
from medaction.evaluation.protocol import protocol
from medaction.evaluation.results import FORMAT, QUERY
from medaction.flows.evaluation import _condition_of, _judgement_rows
from medaction.tasks.evaluation import JudgePass
from medaction.trajectories.records import Failure, RolloutSpec, now
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import tree_of
from medaction.trajectories.viewer import queries
from medaction.trajectories.viewer.pages import ShownRun
from tests.records import add_environment, environment, put_derived, report, trajectory, turn
from tests.runs import rows


@pytest.fixture
def store(tmp_path: Path):
    """Two rollouts of one model: one of three turns that ends rightly, one of two that does not;
    DTC and RAC as written here."""
    with Store(tmp_path / "trajectories.duckdb") as store:
        world = environment(evaluation_only=True)
        add_environment(store, report(), world)
        specs = [
            RolloutSpec(world.environment_id, world.case_id, "model", "schema", sample, "hash")
            for sample in (0, 1)
        ]
        long = trajectory(
            specs[0],
            turn(1, "Lymphoma", ("CBC", "PET")),
            turn(2, "Sarcoidosis", ("CBC",)),
            turn(3, "Sarcoidosis", (), "Sarcoidosis"),
        )
        short = trajectory(specs[1], turn(1, "Lymphoma", ("CBC",)), turn(2, "Asthma", (), "Asthma"))
        store.add_rollouts("rollout", world.case_id, [long, short], [], "run-1")
        scores = [(long, (3, 1, 0), (None, 2.0, 4.0)), (short, (3, None), (None, 3.0))]
        rows = [
            {"trajectory_id": played.trajectory_id, "number": number, "dtc": dtc, "rac": rac}
            for played, dtcs, racs in scores
            for number, (dtc, rac) in enumerate(zip(dtcs, racs, strict=True), 1)
        ]
        put_derived(store, links=[], verdicts=[], turn_scores=rows)
        store.add_judgements(
            [
                {
                    "trajectory_id": played.trajectory_id,
                    "protocol": "paper free-turn",
                    "judge": "offline@1",
                    "repeat": 0,
                    "judgement": judgement_json(Judgement(ComparedTests((), ()), right)),
                }
                for played, right in ((long, True), (short, False))
            ]
        )
        yield store


def test_dtc_by_turn_keeps_the_last_of_those_that_ended(store: Store) -> None:
    rows = {row["turn"]: row for row in dtc_by_turn(store).iter_rows(named=True)}
    assert len(rows) == 8
    assert (rows[1]["mean_dtc"], rows[1]["known"], rows[1]["playing"]) == (3.0, 2, 2)
    assert (rows[2]["mean_dtc"], rows[2]["known"], rows[2]["unknown"]) == (
        1.0,
        1,
        1,
    )  # unknown is not averaged
    assert (rows[8]["mean_dtc"], rows[8]["playing"]) == (0.0, 0)


def test_rac_pass_rate_and_work_up(store: Store) -> None:
    assert rac_pass_rate(store, 3.0).rows() == [("model", pytest.approx(2 / 3), 3, 0)]
    assert rac_pass_rate(store, 2.5)["pass_rate"][0] == pytest.approx(1 / 3)
    (length,) = work_up(store).iter_rows(named=True)
    assert length["turns_a_case"] == 2.5
    assert length["tests_an_ordering_turn"] == pytest.approx(4 / 3)
    assert length["tests_a_case"] == 2.0


def test_the_turns_that_a_branch_shares_count_once(store: Store) -> None:
    [(parent, case_id, environment_id)] = store.rows(
        "select trajectory_id, case_id, environment_id from trajectories where sample = 0"
    )
    spec = RolloutSpec(environment_id, case_id, "model", "schema", 0, "hash", parent, 2)
    branch = trajectory(spec, turn(3, "Asthma", (), "Asthma"))
    store.add_rollouts("rollout", case_id, [branch], [], "run-1")
    scores = store.frame("select trajectory_id, number, dtc, rac from turn_scores").to_dicts()
    shared = [
        row | {"trajectory_id": branch.trajectory_id}
        for row in scores
        if row["trajectory_id"] == parent and row["number"] <= 2
    ]
    own = {"trajectory_id": branch.trajectory_id, "number": 3, "dtc": 5, "rac": 6.0}
    put_derived(store, links=[], verdicts=[], turn_scores=[*scores, *shared, own])
    by_turn = {row["turn"]: row for row in dtc_by_turn(store).iter_rows(named=True)}
    assert [by_turn[turn]["known"] for turn in (1, 2, 3)] == [2, 1, 2]
    assert by_turn[3]["mean_dtc"] == (0 + 5) / 2
    assert rac_pass_rate(store, 3.0).rows() == [("model", 0.5, 4, 0)]
    (length,) = work_up(store).iter_rows(named=True)
    assert length["turns_a_case"] == (3 + 2 + 3) / 3
    assert length["tests_an_ordering_turn"] == pytest.approx(4 / 3)


def test_calibration_by_hand(store: Store) -> None:
    # both state 60 % for what they conclude; one of the two is right: |0.6 - 0.5|
    bins = calibration(store)
    assert bins.select("bin", "stated", "right", "cases").rows() == [
        (5, pytest.approx(0.6), 0.5, 2)
    ]
    assert calibration_error(bins) == pytest.approx(0.1)
    assert calibration_error(bins.clear()) is None


def test_gold_trajectories_are_no_models_play(store: Store) -> None:
    [(case_id, environment_id)] = store.rows("select case_id, environment_id from cases")
    tables = (dtc_by_turn, lambda store: rac_pass_rate(store, 3.0), work_up)
    before = [table(store).rows() for table in tables]
    work_ups = store.rows(WORK_UPS)
    scores = store.frame("select trajectory_id, number, dtc, rac from turn_scores").to_dicts()
    spec = RolloutSpec(environment_id, case_id, "model", "gold", 0, "hash")
    gold = trajectory(spec, turn(1, "Sarcoidosis", ("CBC",)), turn(2, "Sarcoidosis", (), "S."))
    store.add_rollouts("gold", case_id, [gold], [], "run-1")
    own = [
        {"trajectory_id": gold.trajectory_id, "number": number, "dtc": 0, "rac": 1.0}
        for number in (1, 2)
    ]
    put_derived(store, links=[], verdicts=[], turn_scores=[*scores, *own])
    assert [table(store).rows() for table in tables] == before
    assert store.rows(WORK_UPS) == work_ups


def add_opposite_judge(store: Store, judge: str, protocol: str) -> None:
    """A judge that calls wrong what the other one calls right."""
    opposite = "select trajectory_id, not (judgement->>'$.correct')::boolean from judgements"
    store.add_judgements(
        [
            {
                "trajectory_id": id_,
                "protocol": protocol,
                "judge": judge,
                "repeat": 0,
                "judgement": judgement_json(Judgement(ComparedTests((), ()), right)),
            }
            for id_, right in store.rows(opposite)
        ]
    )


@pytest.mark.parametrize(
    ("judge", "protocol"), [("a@2", "paper free-turn"), ("offline@1", "a protocol")]
)
def test_who_missed_is_what_the_judge_of_the_result_says(
    store: Store, judge: str, protocol: str
) -> None:
    of_offline = endings(store)["wrong"].to_list()
    add_opposite_judge(store, judge, protocol)
    tables = {("paper free-turn", "offline@1"): of_offline}
    tables[protocol, judge] = [not wrong for wrong in of_offline]
    for (name, key), wrong in tables.items():
        result = {"format": FORMAT, "protocol": name, "judge": key}
        (store.path.parent / "result.json").write_text(json.dumps(result))
        assert endings(store)["wrong"].to_list() == wrong


def test_the_query_of_a_result_recomputes_it_over_repeats_and_for_its_cases(store: Store) -> None:
    tests = ComparedTests((("CBC", True),), (("CBC", True), ("PET", False)))
    nothing = ComparedTests((), (("CBC", False), ("PET", False)))
    [(id_, case_id)] = store.rows("select trajectory_id, case_id from trajectories where sample=0")
    repeats = [Judgement(tests, True), Judgement(nothing, False), Judgement(nothing, False)]
    store.add_judgements(
        [
            {
                "trajectory_id": id_,
                "protocol": "paper free-turn",
                "judge": "a@2",
                "repeat": repeat,
                "judgement": judgement_json(judgement),
            }
            for repeat, judgement in enumerate(repeats)
        ]
    )
    score = score_of(repeats, case_id, 0)
    keys = {"protocol": "paper free-turn", "judge": "a@2", "runs": 2}
    for cases, runs in ((None, 1), ([], 0), ([case_id], 1), (["O'Brien"], 0)):
        about = {"model": "model", "settings_hash": "hash", "cases": _condition_of(cases)}
        expected = [(0, score.precision, score.recall, float(score.correct or 0), 1)]
        assert store.rows(QUERY.format(**about, **keys)) == expected[:runs]
    out = store.path.parent
    (out / "result.json").write_text(json.dumps(keys | {"format": FORMAT}))
    assert [wrong for wrong in endings(store)["wrong"] if wrong is not None] == [True]
    [of_judge] = calibration(store).filter(pl.col("judge") == "a@2").iter_rows(named=True)
    assert (of_judge["right"], of_judge["cases"]) == (0.0, 1)
    # The viewer counts as the result does.
    store.publish()
    run = ShownRun(out)
    assert run.db.sql("select count(*) from judged where judge_key = 'a@2'").fetchall() == [(3,)]
    [shown] = queries.verdicts_of(run.db, out).values()
    [row] = [row for row in queries.rows(run.db, "evaluation") if row["judge"] == "a"]
    for figures in (shown, row):
        assert (figures["precision"], figures["recall"]) == (score.precision, score.recall)
    assert (shown["correct"], row["judged"], row["correct"]) == (score.correct, 1, 0)
    # Of three repeats, and of the other judge's two verdicts.
    [case] = queries.cases(run.db, {}, 1).rows
    assert (case["right"], case["verdicts"]) == (1, 3)
    store.db.execute("delete from judgements where judge <> 'a@2'")
    store.publish()
    run.refresh()
    assert not any(leaf["judged_right"] for leaf in (queries.case(run.db, case_id) or {})["tree"])


def test_each_judge_and_each_run_is_a_line_of_its_own(store: Store, tmp_path: Path) -> None:
    add_opposite_judge(store, "a@2", "paper free-turn")
    save(draw_calibration(calibration(store)), tmp_path, "calibration")
    drawn = (tmp_path / "calibration.svg").read_text()
    assert "model, a@2 (ECE 0.10, 2 rollouts)" in drawn
    assert "model, offline@1 (ECE 0.10, 2 rollouts)" in drawn
    both = pl.concat(dtc_by_turn(store).with_columns(run=pl.lit(run)) for run in ("x", "y"))
    lines = draw_dtc(both).axes[0].get_lines()
    assert [list(line.get_xdata()) for line in lines] == [list(range(1, 9))] * 2


def test_the_figures_are_drawn(store: Store, tmp_path: Path) -> None:
    figures = {
        "dtc": draw_dtc(dtc_by_turn(store)),
        "rac": draw_rac(rac_pass_rate(store)),
        "calibration": draw_calibration(calibration(store)),
    }
    for name, figure in figures.items():
        assert [file.stat().st_size > 1000 for file in save(figure, tmp_path, name)] == [True, True]
    assert "ECE 0.10, 2 rollouts" in (tmp_path / "calibration.svg").read_text()


def test_a_distillation_is_analysed_and_left_as_it_was(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    _, run = finished
    verdicts = rows(run, "select * from verdicts order by all")
    done = CliRunner().invoke(analyse, [str(run), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert rows(run, "select * from verdicts order by all") == verdicts
    drawn = {file.stem for file in tmp_path.glob("*.png")}
    assert drawn == {
        "dtc",
        "rac",
        "failure_modes",
        "information_gain",
        "difficulty",
    }  # no judge, so no calibration
    assert len((tmp_path / "hardest.txt").read_text().split()) == 2  # half of three, rounded up
    told = pl.read_csv(tmp_path / "failure_mode_shares.csv")
    played = dict(rows(run, "select teacher, count(*) from current_trajectories group by all"))
    assert dict(told.select("model", "trajectories").iter_rows()) == played


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({}, ["judge: 1"]),
        ({"repeat": 1}, ["judge: 0"]),
        ({"judge": "judge@2"}, ["judge: 0", "judge: 1"]),
        ({"protocol": "medaction"}, ["judge: 0", "judge: 1", "lost"]),
    ],
)
def test_a_verdict_resolves_the_failure_of_its_own_judging_and_a_lost_worker(
    store: Store, change: dict[str, Any], left: list[str]
) -> None:
    world, rules = environment(evaluation_only=True), protocol("paper")
    [played, _] = tree_of(store, world.environment_id)
    judgings = [(JudgePass("judge@1", None, repeat), played) for repeat in (0, 1)]
    silent = [Judgement(None, None, (f"{FAULT}{repeat}",)) for repeat in (0, 1)]
    rows, failures = _judgement_rows(rules, judgings, silent)
    lost = Failure("judge", world.case_id, "WorkerLost", "lost", now(), protocol=rules.name)
    # As an earlier version stored it: without a protocol, so that any verdict of the judge counts.
    earlier = replace(failures[0], protocol=None, repeat=None, message="earlier")
    store.add_judgements(rows, [*failures, lost, earlier], "run-1")
    verdict = {"judgement": judgement_json(Judgement(ComparedTests((), ()), True))}
    store.add_judgements([rows[0] | verdict | change])
    unresolved = store.rows("select message from failures where resolved is null order by message")
    assert [message for (message,) in unresolved if message != "earlier"] == left
    assert (("earlier",) in unresolved) is ("judge" in change)
