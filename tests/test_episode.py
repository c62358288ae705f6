"""An episode without any framework: prompts, replies as text, loops, branches, and what each turn
was worth."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medaction.envs.episode import Episode, EpisodeEnded
from medaction.envs.oracle import Oracle
from medaction.envs.records import UNAVAILABLE, ClinicalEnvironment
from medaction.envs.rewards import Ruler
from medaction.envs.sources import read_cases
from medaction.kg.linking import Linker
from medaction.kg.loaders import import_graph, imported_graph
from medaction.llm.replies import MalformedReply
from tests.conftest import SAMPLES
from tests.records import environment_of


@pytest.fixture
def world() -> ClinicalEnvironment:
    (report,) = read_cases(SAMPLES / "medaction-03.json")
    return environment_of(report)


def episode_in(world: ClinicalEnvironment, **options: object) -> Episode:
    return Episode(world, Oracle(world.menu), **options)  # type: ignore[arg-type]


def ordering(*tests: str, leader: str = "Influenza") -> str:
    return json.dumps(
        {
            "reasoning": "It may be one or the other.",
            "differential": [
                {"diagnosis": leader, "confidence": 60},
                {"diagnosis": "Sarcoidosis", "confidence": 30},
            ],
            "pivot": "Which of the two?",
            "action": {"order_tests": list(tests)},
        }
    )


def committing(diagnosis: str) -> str:
    return json.dumps(
        {
            "reasoning": "It is clear now.",
            "differential": [{"diagnosis": diagnosis, "confidence": 90}],
            "pivot": "Nothing is left open.",
            "action": {"final_diagnosis": diagnosis},
        }
    )


def test_replies_are_answered_by_the_record_until_a_diagnosis(world: ClinicalEnvironment) -> None:
    episode = episode_in(world)
    system, user = episode.prompt()
    assert (system["role"], user["role"]) == ("system", "user")
    assert world.initial_observation.split()[0] in user["content"]
    assert all(test.result not in user["content"] for test in world.menu)
    turn = episode.step(ordering(world.menu[0].name, "Fluoroscopy of the moon"))
    assert turn.answers[0].results[0].text == world.menu[0].result
    assert turn.answers[1].text.endswith(UNAVAILABLE)
    assert " ".join(world.menu[0].result.split()[:3]) in episode.prompt()[-1]["content"]
    assert not episode.ended
    episode.step(committing("Anything at all"))
    assert (episode.outcome, episode.ended) == ("diagnosed", True)
    with pytest.raises(EpisodeEnded):
        episode.step(committing("Something else"))


@pytest.mark.parametrize(
    "reply", ["", "I order a CT.", '{"reasoning": "cut', ordering().replace("order_tests", "pray")]
)
def test_a_malformed_reply_leaves_the_episode_as_it_was(
    world: ClinicalEnvironment, reply: str
) -> None:
    episode = episode_in(world)
    episode.step(ordering(world.menu[0].name))
    before, prompt = episode.turns, episode.prompt()
    with pytest.raises(MalformedReply):
        episode.step(reply)
    assert episode.turns == before
    assert episode.prompt() == prompt
    episode.step(ordering(world.menu[1].name))
    assert len(episode.turns) == 2


def test_whoever_only_orders_again_must_commit_and_ended_in_a_loop(
    world: ClinicalEnvironment,
) -> None:
    episode = episode_in(world)
    for _ in range(3):
        episode.step(ordering(world.menu[0].name))
        assert not episode.ended
    with pytest.raises(MalformedReply):
        episode.step(ordering(world.menu[1].name))
    episode.step(committing("Influenza"))
    assert episode.outcome == "loop"
    assert episode_in(world, turns=episode.turns).outcome == "loop", "read off the turns alone"


def test_the_last_turn_can_only_commit(world: ClinicalEnvironment) -> None:
    episode = episode_in(world, t_max=2)
    episode.step(ordering(world.menu[0].name))
    with pytest.raises(MalformedReply):
        episode.step(ordering(world.menu[1].name))
    episode.step(committing("Influenza"))
    assert episode.outcome == "diagnosed"


def test_a_branch_goes_on_from_the_turns_of_another(world: ClinicalEnvironment) -> None:
    root = episode_in(world)
    root.step(ordering(world.menu[0].name))
    at_launch = root.prompt()
    root.step(committing("Influenza"))
    branch = episode_in(world, turns=root.turns[:1])
    assert branch.prompt() == at_launch
    branch.step(ordering(world.menu[1].name))
    assert branch.turns[0] == root.turns[0]
    assert len(root.turns) == 2, "the other one is left alone"


def test_rewards_measure_each_turn_on_the_graphs(
    world: ClinicalEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Influenza - blood count - truth - cough - sarcoidosis
    monkeypatch.setenv("MEDACTION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "nodes.csv").write_text(
        "node_id,name,node_type\nI,Influenza,disease\nB,Blood count of the moon,test\n"
        f"T,{world.diagnosis},disease\nC,Cough,phenotype\nS,Sarcoidosis,disease\n"
    )
    (tmp_path / "edges.csv").write_text("x,y\nI,B\nB,T\nT,C\nC,S\n")
    import_graph(tmp_path, name="line")
    graph = imported_graph("line")
    diseases = Linker(graph, ("disease", "phenotype"))
    episode = episode_in(world)
    episode.step(ordering("Blood count of the moon", world.menu[0].name))
    episode.step(committing(world.diagnosis))
    turn_1, turn_2 = episode.rewards(Ruler(diseases, diseases, Linker(graph, ("test",))))
    assert (turn_1.dtc, turn_1.dtc_progress, turn_1.rac) == (2, None, None)
    assert (turn_2.dtc, turn_2.dtc_progress) == (0, 2)
    # Influenza (1 hop from the test) and sarcoidosis (3) leave, the truth (1) comes.
    assert turn_2.rac is not None
    assert turn_2.rac.value == pytest.approx((1 + 3 + 1) / 3)
    assert (turn_1.documented, turn_1.novel) == (0.5, 1.0)
    assert [reward.dtc for reward in episode.rewards()] == [None, None], "unknown without a ruler"


def test_a_turn_that_was_read_already_gets_the_number_of_its_place(
    world: ClinicalEnvironment,
) -> None:
    source = episode_in(world)
    orders = source.step(ordering("Urinalysis"))
    episode = episode_in(world)
    assert [episode.step(replace(orders, number=7)).number for _ in range(2)] == [1, 2]
