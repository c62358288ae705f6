"""Stage 3 over a store: link every diagnosis and test to graph nodes, measure DTC and RAC, prune (paper, section 3.3, stage 3)."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal

from envs.checks import diagnosis_linkable
from envs.records import Built, ClinicalEnvironment
from kg.disease_classes import classes_of
from kg.graph import Graph
from kg.linking import THRESHOLD, Linker
from kg.open_graphs import open_disease_graph, open_test_graph, sources_hash
from kg.pruning import TurnNodes, Verdict, prune_correctness, prune_dtc_rac, prune_none
from trajectories.records import Turn, path_of
from trajectories.store import Store

log = logging.getLogger("medaction")

Kind = Literal["diagnosis", "test"]
Strategy = Literal["dtc_rac", "correctness", "none"]
NODE_TYPES: dict[Kind, tuple[str, ...]] = {"diagnosis": ("disease", "phenotype"), "test": ("test",)}


@dataclass(frozen=True, slots=True)
class Nodes:
    """Text to node, in the graphs where each is needed: diagnoses on both, tests on the test graph. None: unlinked."""

    diseases: Mapping[str, int | None]
    diagnoses: Mapping[str, int | None]
    tests: Mapping[str, int | None]


def score_store(store: Store, strategy: Strategy, threshold: float) -> None:
    """Score and judge every current trajectory of the store anew; links of texts that were linked before are reused.

    Writes `links`, `turn_scores` and `verdicts`, all of which can be computed again at any time: the trajectories stay whole.
    Nothing is done when nothing has changed since the last time: neither the trajectories nor the strategy nor the graphs.
    """
    state = _state(store, strategy, threshold)
    if store.meta("scored") == state:
        return
    linker = disease_linker()
    disease_graph, test_graph = linker.graph, open_test_graph()
    environments = store.environments()
    truths = {world.environment_id: true_name(world, linker) for world in environments}
    diagnoses, tests = _texts(store)
    diagnoses.update(truths.values())
    links = [
        *_linked(store, linker, "diagnosis", diagnoses),
        *_linked(store, Linker(test_graph, NODE_TYPES["diagnosis"]), "diagnosis", diagnoses),
        *_linked(store, Linker(test_graph, NODE_TYPES["test"]), "test", tests),
    ]
    nodes = _nodes(links, disease_graph, test_graph)
    verdicts: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for environment in environments:
        tree = store.trajectories(environment.environment_id)
        by_id = {trajectory.trajectory_id: trajectory for trajectory in tree}
        truth = nodes.diseases[truths[environment.environment_id]]
        for trajectory in tree:
            turns = [turn_nodes(turn, nodes) for turn in path_of(trajectory, by_id)]
            # A gold trajectory was checked against its environment when it was written; it is measured, and kept whole.
            chosen = "none" if trajectory.spec.style == "gold" else strategy
            verdict = judge(turns, truth, disease_graph, test_graph, chosen, threshold)
            verdicts.append(_verdict_row(trajectory.trajectory_id, verdict, chosen, threshold))
            scores += [
                {"trajectory_id": trajectory.trajectory_id, "number": turn.number, "dtc": dtc, "rac": rac}
                for turn, dtc, rac in zip(turns, verdict.dtc, verdict.rac, strict=True)
            ]
    store.replace(links=links, verdicts=verdicts, turn_scores=scores)
    store.set_meta("scored", state)


def _state(store: Store, strategy: Strategy, threshold: float) -> str:
    """A hash of all that the scores depend on."""
    played = store.rows("select trajectory_id from current_trajectories order by all")
    truths = store.rows(
        "select environment_id, diagnosis, synonyms from cases join environments using (environment_id) order by all"
    )
    return hashlib.sha256(json.dumps([strategy, threshold, sources_hash(), played, truths]).encode()).hexdigest()[:16]


def judge(
    turns: list[TurnNodes], truth: int | None, disease_graph: Graph, test_graph: Graph, strategy: Strategy, threshold: float
) -> Verdict:
    """The verdict of one pruning strategy on one path."""
    prune = {"dtc_rac": prune_dtc_rac, "correctness": prune_correctness, "none": prune_none}[strategy]
    return prune(turns, truth, disease_graph, test_graph, threshold)


def turn_nodes(turn: Turn, nodes: Nodes) -> TurnNodes:
    """A turn as graph nodes. In a turn that commits, the final diagnosis is the top hypothesis b_t(1)."""
    top = turn.final_diagnosis or turn.differential[0].diagnosis
    named = [line.diagnosis for line in turn.differential] + ([turn.final_diagnosis] if turn.final_diagnosis else [])
    linked = (nodes.diagnoses[name] for name in named)
    return TurnNodes(
        turn.number,
        nodes.diseases[top],
        frozenset(node for node in linked if node is not None),
        tuple(nodes.tests[order] for order in turn.tests),
    )


def _texts(store: Store) -> tuple[set[str], set[str]]:
    """Every diagnosis and every ordered test that the current trajectories name."""
    rows = store.rows(
        "select distinct unnest(list_append([line.diagnosis for line in differential], turns.final_diagnosis)) as name"
        " from turns join current_trajectories using (trajectory_id)"
    )
    diagnoses = {name for (name,) in rows if name}
    tests = store.rows("select distinct unnest(tests) from turns join current_trajectories using (trajectory_id)")
    return diagnoses, {name for (name,) in tests}


def _linked(store: Store, linker: Linker, kind: Kind, texts: set[str]) -> list[dict[str, Any]]:
    """A row of `links` for every text; only texts that this version of the graph has not seen are looked up."""
    name = f"{linker.graph.name}@{linker.graph.version}"
    rows = store.rows('select "text", node, name, "method", score from links where graph = ? and kind = ?', [name, kind])
    known = [dict(zip(("text", "node", "name", "method", "score"), row, strict=True)) for row in rows if row[0] in texts]
    unknown = sorted(texts - {row["text"] for row in known})
    fresh = [asdict(link) for link in linker.link(unknown)]
    return [{"graph": name, "kind": kind} | row for row in (*known, *fresh)]


def _nodes(links: list[dict[str, Any]], disease_graph: Graph, test_graph: Graph) -> Nodes:
    def table(graph: Graph, kind: Kind) -> dict[str, int | None]:
        name = f"{graph.name}@{graph.version}"
        return {row["text"]: row["node"] for row in links if row["graph"] == name and row["kind"] == kind}

    return Nodes(table(disease_graph, "diagnosis"), table(test_graph, "diagnosis"), table(test_graph, "test"))


def true_name(environment: ClinicalEnvironment, linker: Linker) -> str:
    """The name by which the truth is linked: the diagnosis, or the first documented synonym that the graph knows where it does not."""
    names = (environment.diagnosis, *environment.synonyms)
    return next((name for name in names if linker.knows(name)), environment.diagnosis)


@cache
def disease_linker() -> Linker:
    """The linker of diagnoses on the disease graph, made once a process."""
    return Linker(open_disease_graph(), NODE_TYPES["diagnosis"])


def with_link(built: Built, extracted: bool) -> Built:
    """`built` with what the graph knows of its true diagnosis: whether it is a node, and the classes that the source did not tell.

    Of an `extracted` case the graph's classes stand before the model's, which for a weak model are guesses.
    """
    if built.environment is None:
        return built
    world, linker = built.environment, disease_linker()
    (link,) = linker.link([true_name(world, linker)])
    system, kind = classes_of((world.diagnosis, *world.synonyms))
    told = (system or world.body_system, kind or world.disease_type)
    if not extracted:
        told = (world.body_system or system, world.disease_type or kind)
    world = replace(world, body_system=told[0], disease_type=told[1])
    return replace(built, environment=world, checks=(*built.checks, diagnosis_linkable(link.score, THRESHOLD, link.name)))


def _verdict_row(trajectory_id: str, verdict: Verdict, strategy: Strategy, threshold: float) -> dict[str, Any]:
    return {
        "trajectory_id": trajectory_id,
        "strategy": strategy,
        "threshold": threshold if strategy == "dtc_rac" else None,
        "status": verdict.status,
        "reason": verdict.reason,
        "last_turn": verdict.last_turn,
        "removed_turns": list(verdict.removed_turns),
        "kept_turns": list(verdict.kept_turns),
    }
