"""What was played, as graph nodes and endings: what several analyses start from. Needs
`score_store` first."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from medaction.envs.rewards import Nodes, true_name, turn_nodes
from medaction.envs.turns import Turn
from medaction.kg.graph import Graph
from medaction.kg.metrics import Course
from medaction.trajectories.queries import SCORES_BY_JUDGE, judge_of_result
from medaction.trajectories.records import Trajectory, path_of
from medaction.trajectories.scoring import OPEN, Aids, linkers
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import tree_of

# Where the result's judge has judged, its verdict says whether a rollout missed; elsewhere the DTC
# of the last turn, where it is known. Who commits to nothing has missed.
ENDINGS = f"""
with last as (select trajectory_id, arg_max_null(dtc, number) as dtc from turn_scores group by all),
judged as (
    select trajectory_id, correct from ({SCORES_BY_JUDGE})
    where protocol = ? and judge = ? and correct is not null
)
select trajectory_id, case_id, teacher as model, branch_turn, outcome,
    case when (select count(*) from judged) > 0 then not correct
        else dtc > 0 or final_diagnosis is null end as wrong
from current_trajectories left join last using (trajectory_id) left join judged using
    (trajectory_id)
where style <> 'gold' order by all
"""


def endings(store: Store) -> pl.DataFrame:
    """trajectory_id, case_id, model, branch_turn, outcome, wrong (null: unknown), of every
    trajectory that a model played."""
    # The result's judge: a store may hold verdicts of several, earlier ones among them.
    return store.frame(ENDINGS, judge_of_result(store.path.parent, store.db))


@dataclass(frozen=True, slots=True)
class Linked:
    """The graphs on which a store was scored, and what its texts are there."""

    disease_graph: Graph
    test_graph: Graph
    nodes: Nodes
    truths: dict[str, int | None]
    """environment_id -> the true diagnosis as a node of the disease graph."""


@dataclass(frozen=True, slots=True)
class Path:
    """A trajectory with its whole line of turns, as they were said and as nodes."""

    trajectory: Trajectory
    turns: tuple[Turn, ...]
    course: Course


def linked(
    store: Store, diseases: str = OPEN, tests: str = OPEN, aids: Aids | None = None
) -> Linked:
    """The links that `score_store` left in the store for these graphs."""
    # For their graphs and labels: the links themselves are read from the store.
    ruler = linkers(diseases, tests, aids or Aids())
    sql = 'select "text", node from links where graph = ? and kind = ?'
    nodes = Nodes(
        diseases=dict(store.rows(sql, [ruler.diseases.label, "diagnosis"])),
        diagnoses=dict(store.rows(sql, [ruler.diagnoses.label, "diagnosis"])),
        tests=dict(store.rows(sql, [ruler.tests.label, "test"])),
    )
    truths = {
        world.environment_id: nodes.diseases.get(true_name(world, ruler.diseases))
        for world in store.environments()
    }
    return Linked(ruler.diseases.graph, ruler.tests.graph, nodes, truths)


def paths(store: Store, links: Linked) -> Iterator[Path]:
    """Every trajectory that a model played, environment by environment."""
    for environment_id, truth in links.truths.items():
        tree = tree_of(store, environment_id)
        by_id = {member.trajectory_id: member for member in tree}
        for trajectory in tree:
            if trajectory.spec.style != "gold":
                turns = path_of(trajectory, by_id)  # with those that a branch shares
                yield Path(
                    trajectory,
                    turns,
                    Course(tuple(turn_nodes(turn, links.nodes) for turn in turns), truth),
                )
