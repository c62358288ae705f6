"""Failure modes, information gain, difficulty and scaling laws over small graphs and courses,
against numbers worked out by hand."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path as File

import numpy as np
import polars as pl
import pytest

from medaction.envs.records import Answer, DocumentedResult
from medaction.envs.rewards import Nodes
from medaction.envs.turns import Hypothesis, Turn
from medaction.evaluation.difficulty import difficulty, draw_difficulty, hardest
from medaction.evaluation.failure_judge import judge_failures
from medaction.evaluation.failure_modes import (
    draw_failure_modes,
    failure_modes,
    incoherent,
    shares,
    together,
    ungrounded,
    unreliable,
)
from medaction.evaluation.information import draw_gain, gain_by_result, gain_by_turn, gains
from medaction.evaluation.judges import ComparedTests
from medaction.evaluation.judging import Judgement, judgement_json
from medaction.evaluation.played import Linked, Path
from medaction.evaluation.plots import save
from medaction.evaluation.scaling import draw_scaling, fit_law, scaling
from medaction.flows.settings import EnvironmentSettings
from medaction.kg.graph import NODE_COLUMNS, Graph, build_graph
from medaction.kg.metrics import Course, TurnNodes
from medaction.llm.teacher import Teacher
from medaction.trajectories.records import RolloutSpec
from medaction.trajectories.store import Store
from tests.openai_server import openai_server
from tests.records import add_environment, environment, report, trajectory, turn


def chain(name: str, nodes: int) -> Graph:
    """Nodes 0 - 1 - 2 - ...: the hops between two are the difference of their numbers."""
    frame = pl.DataFrame(
        [(at, f"N:{at}", "disease", f"{name} {at}", "test") for at in range(nodes)],
        NODE_COLUMNS,
        orient="row",
    )
    return build_graph(name, frame, [(at, at + 1) for at in range(nodes - 1)])


def hops(a: int, b: int) -> int:
    return abs(a - b)


def path(
    *turns: tuple[int | None, tuple[int | None, ...], tuple[int | None, ...]], truth: int | None = 0
) -> Path:
    """A path whose turns are (top on the disease graph, differential, tests on the test graph);
    every order brought a result."""
    said = tuple(
        replace(
            turn(number, f"d{top}", tuple(f"test {number}-{test}" for test in tests)),
            pivot=f"pivot {number}",
        )
        for number, (top, _, tests) in enumerate(turns, 1)
    )
    said = tuple(replace(one, answers=tuple(brought(order) for order in one.tests)) for one in said)
    spec = RolloutSpec("world", "case-1", "model", "schema", 0, "hash")
    course = tuple(TurnNodes(number, *nodes) for number, nodes in enumerate(turns, 1))
    return Path(trajectory(spec, *said), said, Course(course, truth))


def brought(order: str) -> Answer:
    return Answer(order, (DocumentedResult(order, f"result of {order}"),), "exact", 1.0)


def test_ungrounded_is_a_turn_whose_tests_are_all_far_from_its_hypotheses() -> None:
    assert ungrounded(path((1, (10, 20), (15, 24))), hops, 3) is True  # nearest: 5 and 4
    assert ungrounded(path((1, (10, 20), (15, 23))), hops, 3) is False  # 23 is 3 from 20
    assert (
        ungrounded(path((1, (10, 20), (15, None))), hops, 3) is True
    )  # what is no node says nothing
    assert ungrounded(path((1, (10, None), (None,))), hops, 3) is False
    assert (
        ungrounded(path((1, (10,), (10,)), (1, (10,), (40,))), hops, 3) is True
    )  # one such turn is enough


def test_unreliable_is_rigid_or_erratic() -> None:
    rigid = path((5, (), (1,)), (5, (), ()))
    assert unreliable(rigid, hops, 3) is True
    assert (
        unreliable(replace(rigid, course=replace(rigid.course, truth=5)), hops, 3) is False
    )  # it led rightly
    assert (
        unreliable(
            replace(rigid, turns=tuple(replace(one, answers=()) for one in rigid.turns)), hops, 3
        )
        is False
    )  # no evidence
    assert (
        unreliable(path((5, (), (1,)), (12, (), ())), hops, 3) is True
    )  # 7 hops on, and farther from the truth at 0
    assert (
        unreliable(path((12, (), (1,)), (5, (), ())), hops, 3) is False
    )  # as far a jump, but nearer
    assert unreliable(path((5, (), (1,)), (8, (), ())), hops, 3) is False  # 3 hops are no jump
    assert unreliable(path((5, (), (1,)), (None, (), ()), truth=None), hops, 3) is False


def test_incoherent_is_repeating_being_stuck_or_not_concluding() -> None:
    fine = path((1, (), (1,)), (2, (), (2,))).turns
    assert incoherent(fine, "diagnosed") is False
    assert incoherent(fine, "turn_limit") is True
    again = (fine[0], replace(fine[1], answers=fine[0].answers))
    assert incoherent(again, "diagnosed") is True
    free_text = tuple(replace(turn, pivot="") for turn in fine)
    assert incoherent(free_text, "diagnosed") is False
    stuck = (fine[0], replace(fine[1], pivot="Pivot 1 "))
    assert incoherent(stuck, "diagnosed") is True
    assert (
        incoherent((replace(stuck[0], answers=(Answer("test"),)), stuck[1]), "diagnosed") is False
    )  # nothing came back


NAMES = {"Sarcoidosis": 0, "Tuberculosis": 1, "Asthma": 9, "Lymphoma": 5}


@pytest.fixture
def judged(tmp_path: File):
    """Three rollouts of a case: right; wrong, rigid and repeating an order; wrong with an unlinked
    diagnosis. And their links."""

    def said(number: int, lines: dict[str, int], order: str = "", final: str | None = None) -> Turn:
        one = turn(number, next(iter(lines)), (order,) if order else (), final)
        answers = (brought(order),) if order else ()
        differential = tuple(Hypothesis(name, percent) for name, percent in lines.items())
        return replace(one, differential=differential, pivot=f"pivot {number}", answers=answers)

    with Store(tmp_path / "trajectories.duckdb") as store:
        world = environment(evaluation_only=True)
        add_environment(store, report(), world)
        specs = [
            RolloutSpec(world.environment_id, world.case_id, "model", "schema", sample, "hash")
            for sample in range(3)
        ]
        right = trajectory(
            specs[0],
            said(1, {"Lymphoma": 60, "Sarcoidosis": 20}, "Biopsy"),
            said(2, {"Sarcoidosis": 80, "Lymphoma": 20}, "", "Sarcoidosis"),
        )
        rigid = trajectory(
            specs[1],
            said(1, {"Asthma": 90, "Lymphoma": 90}, "Biopsy"),
            said(2, {"Asthma": 95, "Sarcoidosis": 5}, "Biopsy"),
            said(3, {"Asthma": 100}, "", "Asthma"),
        )
        odd = trajectory(
            specs[2], said(1, {"Gremlins": 50}, "Biopsy"), said(2, {"Gremlins": 60}, "", "Gremlins")
        )
        played = [right, rigid, odd]
        store.add_rollouts("rollout", world.case_id, played, [], "run-1")
        store.add_judgements(
            [
                {
                    "trajectory_id": one.trajectory_id,
                    "protocol": "paper free-turn",
                    "judge": "offline@1",
                    "repeat": 0,
                    "judgement": judgement_json(Judgement(ComparedTests((), ()), one is right)),
                }
                for one in played
            ]
        )
        nodes: dict[str, int | None] = {**NAMES, "Gremlins": None}
        # On the test graph the biopsy lies 4 hops from asthma, and next to lymphoma.
        links = Linked(
            chain("diseases", 12),
            chain("tests", 12),
            Nodes(nodes, nodes, {"Biopsy": 5}),
            {world.environment_id: NAMES["Sarcoidosis"]},
        )
        yield store, links, [one.trajectory_id for one in played]


@pytest.mark.long
def test_modes_gain_and_difficulty_of_a_store(
    judged: tuple[Store, Linked, list[str]], tmp_path: File
) -> None:
    store, links, (right, rigid, odd) = judged
    modes = failure_modes(store, links)
    found = {
        row["trajectory_id"]: tuple(
            row[name] for name in ("wrong", "ungrounded", "unreliable", "incoherent")
        )
        for row in modes.iter_rows(named=True)
    }
    # rigid's second turn orders a biopsy for asthma (4 hops) or sarcoidosis (5): ungrounded; and it
    # had been ordered before
    assert found == {
        right: (False, False, False, False),
        rigid: (True, True, True, True),
        odd: (True, False, False, False),
    }
    assert {key: count for key, count in together(modes).items() if count} == {
        (True, True, True): 1,
        (False, False, False): 1,
    }
    assert shares(modes).rows() == [("model", 3, 2, 0, 0.5, 0.5, 0.5)]

    gained = gains(store, links)
    by_turn = {row["turn"]: row for row in gain_by_turn(gained).iter_rows(named=True)}
    # right: 0.2 to 0.8, second to first. rigid: absent to 0.05 in second place; odd is unknown.
    assert by_turn[1]["probability"] == pytest.approx((0.6 + 0.05) / 2)
    assert by_turn[1]["reciprocal_rank"] == pytest.approx((0.5 + 0.5) / 2)
    assert by_turn[1]["bits"] == pytest.approx((2 + np.log2(5)) / 2)
    assert (by_turn[1]["known"], by_turn[1]["unknown"]) == (2, 1)
    assert by_turn[2]["probability"] == pytest.approx(-0.05)
    (biopsy,) = gain_by_result(gained).iter_rows(named=True)
    assert (biopsy["result"], biopsy["known"]) == ("Biopsy", 3)
    assert biopsy["probability"] == pytest.approx(0.2)

    found_hard = difficulty(store)
    assert found_hard.select("rollouts", "missed", "unknown", "difficulty").rows() == [
        (3, 2, 0, pytest.approx(2 / 3))
    ]
    for name, figure in (
        ("venn", draw_failure_modes(modes, "by rule")),
        ("gain", draw_gain(gained, least=1)),
        ("difficulty", draw_difficulty(found_hard)),
    ):
        save(figure, tmp_path, name)
    assert "Failure modes of 2 wrong trajectories" in (tmp_path / "venn.svg").read_text()


def test_a_judge_says_which_modes_wrong_trajectories_show_and_is_not_asked_twice(
    judged: tuple[Store, Linked, list[str]],
) -> None:
    store, links, (_, rigid, odd) = judged

    def verdict(asked, number) -> str:
        question, data = (message["content"] for message in asked.body["messages"])
        assert "true_diagnosis" in data
        unfounded = "no clear connection" in question and "Gremlins" in data
        return json.dumps({"answer": "yes" if unfounded else "no"})

    with openai_server(verdict) as server:
        judge = Teacher(model="openai/judge", api_base=server.url)
        modes, without = asyncio.run(judge_failures(store, links, judge))
        assert len(server.asked) == 6  # three questions on each wrong trajectory
        again, _ = asyncio.run(judge_failures(store, links, judge))
        assert len(server.asked) == 6
    assert without == 0
    assert modes.equals(again)
    told = {
        row["trajectory_id"]: (row["ungrounded"], row["unreliable"], row["incoherent"])
        for row in modes.iter_rows(named=True)
    }
    assert told == {rigid: (False, False, False), odd: (True, False, False)}


def test_the_hardest_cases_first_and_read_back_as_a_curriculum(tmp_path: File) -> None:
    rows = [
        ("m", "a", 0.0),
        ("m", "b", 1.0),
        ("m", "c", 0.5),
        ("m", "d", None),
        ("n", "a", 1.0),
        ("n", "c", 0.7),
    ]
    found = pl.DataFrame(rows, schema=["model", "case_id", "difficulty"], orient="row")
    assert hardest(found) == [
        "b",
        "c",
    ]  # means: b 1.0, c 0.6, a 0.5; d is unknown; half of three, rounded up
    (tmp_path / "hardest.txt").write_text("b\nc\n")
    settings = EnvironmentSettings(
        cases="x", out=tmp_path, only=[f"@{tmp_path / 'hardest.txt'}", "e"]
    )
    assert settings.only == ["b", "c", "e"]
    with pytest.raises(ValueError, match="there is no file"):
        EnvironmentSettings(cases="x", out=tmp_path, only=["@nowhere.txt"])


def test_scaling_laws_are_found_again(tmp_path: File) -> None:
    # 0.8 - 2 n^-0.5 at 100, 400, 1600 and 6400
    sizes, scores = np.array([100, 400, 1600, 6400]), np.array([0.6, 0.7, 0.75, 0.775])
    law = fit_law(sizes, scores)
    assert law is not None
    assert (law.limit, law.scale, law.exponent) == (
        pytest.approx(0.8, abs=1e-3),
        pytest.approx(2, rel=0.02),
        pytest.approx(0.5, rel=0.01),
    )
    points = pl.DataFrame(
        {
            "series": ["A"] * 4 + ["B"] * 2,
            "records": [*sizes, 100, 400],
            "value": [*scores, 0.5, 0.6],
        }
    )
    a, b = scaling(points).iter_rows(named=True)
    assert a["gain"] == pytest.approx(2 / 80 - 2 / 12800**0.5, abs=2e-4)
    assert (b["sizes"], b["gain"]) == (2, None)
    save(draw_scaling(points, "accuracy"), tmp_path, "scaling")
    assert "B: too few points for a law (2 of 4)" in (tmp_path / "scaling.svg").read_text()


def test_three_points_are_no_scaling_law() -> None:
    sizes = np.array([100, 400, 1600])
    assert fit_law(sizes, np.array([0.1, 0.9, 0.2])) is None
    assert fit_law(np.array([100, 100, 400, 1600]), np.array([0.1, 0.2, 0.3, 0.4])) is None
