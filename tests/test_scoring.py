"""Stage 3 over a store, on a small graph that a user brought."""

from dataclasses import replace
from pathlib import Path

import pytest

from medaction.kg.loaders import NoGraph, import_graph
from medaction.kg.tables import BadTable
from medaction.llm.usage import Usage
from medaction.trajectories import scoring
from medaction.trajectories.quarantine import quarantined
from medaction.trajectories.scoring import Aids, score_store
from medaction.trajectories.store import Store
from tests.records import add_environment, report, small_tree, trajectory

# Lymphoma - CBC - Sarcoidosis - Granuloma - Tuberculosis
NODES = """node_id,name,node_type,synonyms
S,Sarcoidosis,disease,Besnier-Boeck
T,Tuberculosis,disease,
L,Lymphoma,disease,
G,Granuloma,phenotype,
C,Complete blood count,test,CBC
"""
EDGES = "x,y\nL,C\nC,S\nS,G\nG,T\n"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDACTION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "nodes.csv").write_text(NODES)
    (tmp_path / "own" / "edges.csv").write_text(EDGES)
    import_graph(tmp_path / "own", name=f"own-{tmp_path.name}")
    with Store(tmp_path / "trajectories.duckdb") as opened:
        world, root, branch = small_tree()
        add_environment(opened, report(), world)
        opened.add_rollouts("rollout", world.case_id, [root, branch], [], "run-1")
        yield opened, root.trajectory_id, branch.trajectory_id, f"own-{tmp_path.name}"


def test_a_store_is_scored_on_the_graph_that_its_user_brought(store):
    opened, root, branch, graph = store
    score_store(opened, "dtc_rac", 3.0, graph, graph)
    scores = (
        "select number, dtc, rac, changed, unknown, unlinked from turn_scores where trajectory_id ="
        " ? order by number"
    )
    # Tuberculosis and lymphoma give way to lymphoma alone (both lines of turn 2 are lymphoma):
    # tuberculosis is 3 hops from the CBC. After turn 2 only a test was ordered that is no node, and
    # nothing changed.
    assert opened.rows(scores, [root]) == [
        (1, 2, None, None, None, None),
        (2, 2, 3.0, 1, 0, 0),
        (3, 2, None, 0, 0, 0),
    ]
    # The final diagnosis is a hypothesis of its turn, listed or not: tuberculosis goes (3 hops),
    # sarcoidosis comes (1 hop).
    assert opened.rows(scores, [branch]) == [(1, 2, None, None, None, None), (2, 0, 2.0, 2, 0, 0)]
    assert opened.rows("select distinct graph, kind from links order by kind") == [
        (f"{graph}@{version}", kind)
        for version in [import_version(opened)]
        for kind in ("diagnosis", "test")
    ]


def test_scores_are_the_same_however_many_paths_are_measured_at_once(store, monkeypatch):
    opened, *_, graph = store
    tables = ("verdicts", "turn_scores", "rac_null")
    results = []
    for count in (1, 1000):
        monkeypatch.setattr(scoring, "COURSES_AT_ONCE", count)
        opened.set_meta("scored", "not yet")
        score_store(opened, "dtc_rac", 2.5, graph, graph)
        results.append([opened.rows(f"select * from {table} order by all") for table in tables])
    assert results[0] == results[1]
    assert [len(rows) for rows in results[0][:2]] == [2, 5]


def test_a_verdict_is_taken_back_by_asking_another_strategy(store):
    opened, root, branch, graph = store
    verdicts = (
        "select trajectory_id, status, reason, last_turn, removed_turns, kept_turns from verdicts"
        " order by status desc"
    )
    score_store(opened, "dtc_rac", 2.5, graph, graph)
    first = opened.rows(verdicts)
    assert first == [
        (root, "truncated", "pruned", 3, [1], [2, 3]),
        (branch, "kept", "whole", 2, [], [1, 2]),
    ]
    score_store(opened, "correctness", 2.5, graph, graph)
    assert {row[:3] for row in opened.rows(verdicts)} == {
        (root, "discarded", "wrong_final_diagnosis"),
        (branch, "kept", "whole"),
    }
    score_store(opened, "dtc_rac", 2.5, graph, graph)
    assert opened.rows(verdicts) == first


def test_fates_of_turns_add_up_to_the_turns_played(store):
    opened, *_, graph = store
    played = opened.rows("select count(*) from turns")
    for strategy in ("none", "correctness", "dtc_rac"):
        score_store(opened, strategy, 2.5, graph, graph)
        assert (
            opened.rows("select count(*) from turn_fates where fate is not null")
            == played
            == [(4,)]
        )
        assert opened.rows("select count(*) from verdicts") == [(2,)]


MARKS = {
    "repaired": lambda number: {"repaired": True},
    "identical": lambda number: {"raw": f"the same of {number % 30}"},  # of two cases
    "foreign": lambda number: {"reasoning": "Лихорадка без причины, лимфоузлы увеличены"},
    "honest": lambda number: {"raw": f"the same of {number // 30}"},  # its siblings'
    "copies": lambda number: {"raw": f"the same of {number % 30}"},  # of a case under two ids
    "embedded": lambda number: {"raw": f"the same of {number % 30}", "usage": Usage()},
}


@pytest.mark.parametrize(
    ("kind", "turns", "marked", "is_quarantined"),
    [
        *[("repaired", 60, 12, False), ("repaired", 60, 13, True), ("repaired", 48, 48, False)],
        *[("identical", 60, 18, False), ("identical", 60, 20, True)],
        *[("foreign", 60, 12, False), ("foreign", 60, 13, True), ("foreign", 50, 50, True)],
        *[("honest", 60, 60, False), ("copies", 60, 60, False), ("embedded", 60, 60, False)],
    ],
)
def test_a_teacher_whose_replies_look_poisoned_is_out_of_the_dataset(
    store, kind: str, turns: int, marked: int, is_quarantined: bool
) -> None:
    """Its turns stay, and those of others; a branch from one of its turns goes with them."""
    opened, *_, graph = store
    half = turns // 2
    # In turns about the two cases, so that the marked ones are of both.
    places = [side * 30 + number for number in range(half) for side in range(2)][:marked]
    for side in range(2):
        observation = "" if kind == "copies" else f"Fever for {side + 2} days."
        world, root, branch = small_tree(f"other-{side}", observation)
        add_environment(opened, report(world.case_id), world)
        played = []
        for number in range(side * 30, side * 30 + half):
            spec = replace(root.spec, teacher="doubtful", sample=number)
            own = replace(root.turns[0], raw=f"reply {number}")
            played.append(
                trajectory(spec, replace(own, **MARKS[kind](number)) if number in places else own)
            )
        after = replace(branch.spec, parent_id=played[0].trajectory_id, branch_turn=1)
        played += [root, trajectory(after, branch.turns[-1])]
        opened.add_rollouts("rollout", world.case_id, played, [], "run-1")
    score_store(opened, "none", None, graph, graph, quarantine=True)
    sql = (
        "select teacher, branch_turn, bool_and(reason = 'teacher_quarantined'), bool_or(reason ="
        " 'teacher_quarantined') from trajectories join verdicts using (trajectory_id)"
        " where case_id like 'other%' group by all order by all"
    )
    gone = is_quarantined
    honest = ("teacher-a", 0, False, False)
    assert opened.rows(sql) == [("doubtful", 0, gone, gone), honest, ("teacher-a", 1, gone, gone)]
    assert list(quarantined(opened)) == ["doubtful"] * is_quarantined
    score_store(opened, "none", None, graph, graph)
    assert not opened.rows("select 1 from verdicts where reason = 'teacher_quarantined'")


def test_an_unknown_graph_is_refused_before_anything_is_written(store):
    opened, *_ = store
    with pytest.raises(NoGraph, match="no graph 'nowhere'"):
        score_store(opened, "dtc_rac", 3.0, "nowhere")
    assert opened.rows("select count(*) from verdicts") == [(0,)]


def import_version(opened: Store) -> str:
    return opened.rows("select any_value(graph) from links")[0][0].split("@")[1]


def test_the_users_own_links_go_first_and_a_change_of_them_is_seen(store, tmp_path: Path):
    opened, root, _, graph = store
    score_store(opened, "dtc_rac", 3.0, graph, graph)
    scores = "select * from turn_scores order by all"
    link = "select node, \"method\" from links where kind = 'diagnosis' and text = ?"
    [(text,)] = opened.rows(
        "select differential[1].diagnosis from turns where trajectory_id = ? and number = 1", [root]
    )
    before, linked = opened.rows(scores), opened.rows(link, [text])
    own = tmp_path / "links.csv"
    own.write_text(f'text,node_id\n"{text}",\n')
    score_store(opened, "dtc_rac", 3.0, graph, graph, Aids(links=own))
    assert opened.rows(link, [text]) == [(None, "given")]
    assert opened.rows(scores) != before
    score_store(opened, "dtc_rac", 3.0, graph, graph)
    assert opened.rows(link, [text]) == linked
    assert opened.rows(scores) == before


def test_a_bad_link_of_the_users_is_named_with_its_line(store, tmp_path: Path):
    opened, _, _, graph = store
    own = tmp_path / "links.csv"
    own.write_text("text,node_id\nasthma,no-such-node\n")
    with pytest.raises(BadTable, match=r"links\.csv.*2"):
        score_store(opened, "dtc_rac", 3.0, graph, graph, Aids(links=own))
