"""Stage 3 over a store: link every diagnosis and test to graph nodes, measure DTC and RAC, prune
(paper, section 3.3, stage 3)."""

import logging
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from medaction.envs.checks import diagnosis_linkable
from medaction.envs.records import Built, ClinicalEnvironment
from medaction.envs.rewards import Nodes, Ruler, linked_name, true_name, turn_nodes
from medaction.kg.calibration import Change, changes_of, null_of
from medaction.kg.disease_classes import classes_of
from medaction.kg.graph import Graph, hops
from medaction.kg.linking import DENSE_THRESHOLD, NODE_TYPES, Kind, Linker
from medaction.kg.loaders import imported_graph
from medaction.kg.metrics import Course, Measured, dtc, measure
from medaction.kg.open_graphs import open_disease_graph, open_test_graph
from medaction.kg.overrides import read_overrides
from medaction.kg.pruning import (
    Rules,
    Strategy,
    Verdict,
    WrongEndings,
    prune_correctness,
    prune_dtc_rac,
    prune_none,
)
from medaction.kg.thresholds import is_papers, threshold_of
from medaction.trajectories.quarantine import (
    LEAST_TURNS,
    LIMITS,
    QUARANTINED,
    held_back,
    quarantined,
)
from medaction.trajectories.records import RolloutSpec, Trajectory, path_of
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import trees_without_texts
from medaction.trajectories.tree import Distance, TreePlan
from medaction.words.versions import version_of

log = logging.getLogger("medaction")

COURSES_AT_ONCE = 10_000
"""Paths that are measured together, 3 KiB each: whatever surrounds a test in the graph is looked
for once for all of them. By the 100 cases that are read at a time, the paper's size took over
twice as long."""

OPEN = "open"
"""The graphs that come with the install; anything else is the name or path of one that the user
brought."""


@dataclass(frozen=True, slots=True)
class Aids:
    """What helps linking besides the graphs: a CSV of the user's own links
    (`medaction.kg.overrides`), the encoder (`medaction.kg.encoder`), and folders with MAxO's and
    LOINC2HPO's files, whose tests join the open test graph (`medaction.kg.observed`)."""

    links: Path | None = None
    encoder: str = "small"
    maxo: Path | None = None
    loinc2hpo: Path | None = None


def score_store(
    store: Store,
    strategy: Strategy = "dtc_rac",
    threshold: float | None = None,
    diseases: str = OPEN,
    tests: str = OPEN,
    aids: Aids | None = None,
    wrong_endings: WrongEndings | None = "keep",
    idle_turns: int = 0,
    quarantine: bool = False,
) -> None:
    """Score and judge every current trajectory of the store anew; links of texts that were linked
    before are reused.

    `diseases` and `tests` name the graphs of DTC and RAC. threshold: tau_RAC; None: the test
    graph's own. wrong_endings: None: as `rules_of` says. quarantine: discard what a teacher played
    of whom `trajectories.quarantine` tells. Writes `links`, `turn_scores`, `verdicts`
    and `rac_null`, all of which can be computed again at any time: the trajectories stay whole.
    Nothing is done when nothing has changed since the last time: neither the trajectories nor the
    rules nor the graphs. Raises NoGraph, BadTable for a graph that cannot be read.
    """
    ruler = linkers(diseases, tests, aids)
    disease_graph, test_graph = ruler.diseases.graph, ruler.tests.graph
    rules, origin = rules_of(ruler, strategy, threshold, wrong_endings, idle_turns)
    used = (ruler.diseases, ruler.diagnoses, ruler.tests)
    # Versions alone are cheap: no graph is searched, no encoder loaded, when nothing changed.
    limits = (LEAST_TURNS, LIMITS) if quarantine else None
    state = _state(store, (rules, limits), [linker.version for linker in used])
    if store.meta("scored") == state:
        return
    truths = {
        environment_id: linked_name(diagnosis, synonyms, ruler.diseases)
        for environment_id, diagnosis, synonyms in _truths(store)
    }
    links = _links(store, ruler, set(truths.values()))
    held = held_back(store, list(quarantined(store))) if quarantine else frozenset[str]()
    nodes = Nodes(
        **{name: {row["text"]: row["node"] for row in rows} for name, rows in links.items()}
    )
    changes: list[Change] = []
    # On one graph for both, the two links of a diagnosis are one row.
    rows = {
        (row["graph"], row["kind"], row["text"]): row for found in links.values() for row in found
    }
    # Emptied and filled in one transaction: a reader or a kill never sees half of the scores.
    with store.transaction():
        store.empty("links", "verdicts", "turn_scores", "rac_null")
        store.insert("links", list(rows.values()))
        courses = (
            course
            for batch in trees_without_texts(store)
            for environment_id, tree in batch
            for course in _courses(tree, nodes, nodes.diseases[truths[environment_id]])
        )
        while some := list(islice(courses, COURSES_AT_ONCE)):
            changes += _score(store, some, rules, disease_graph, test_graph, held)
        # From all cases together: the null draws tests and changes of other cases.
        null = null_of(changes, test_graph)
        store.insert(
            "rac_null",
            [
                {"kind": kind, "rac": value}
                for kind, values in (("orders", null.orders), ("changes", null.changes))
                for value in values
            ],
        )
    store.set_meta("rac_threshold_origin", origin)
    store.set_meta("scored", state)  # last: a scoring that was killed is done again


def _score(
    store: Store,
    courses: Sequence[tuple[RolloutSpec, Course]],
    rules: Rules,
    disease_graph: Graph,
    test_graph: Graph,
    held: Set[str],
) -> list[Change]:
    """Measure and judge these paths, and store what comes of it; those in `held` are discarded.
    Returns the others' changes."""
    verdicts: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    changes: list[Change] = []
    for (trajectory, course), measured in zip(
        courses, measure([course for _, course in courses], disease_graph, test_graph), strict=True
    ):
        # A gold trajectory was checked against its environment when it was written; it is measured,
        # and kept whole.
        applied = Rules("none") if trajectory.style == "gold" else rules
        verdict = (
            Verdict("discarded", QUARANTINED, None, (), ())
            if trajectory.trajectory_id in held
            else verdict_of(course, measured, applied)
        )
        verdicts.append(
            {
                "trajectory_id": trajectory.trajectory_id,
                "strategy": applied.strategy,
                # The other strategies have no threshold; one in the row would look like a rule.
                "threshold": applied.threshold if applied.strategy == "dtc_rac" else None,
                "status": verdict.status,
                "reason": verdict.reason,
                "last_turn": verdict.last_turn,
                "removed_turns": list(verdict.removed_turns),
                "kept_turns": list(verdict.kept_turns),
            }
        )
        scores += _score_rows(trajectory.trajectory_id, course, measured)
        if trajectory.style != "gold" and trajectory.trajectory_id not in held:
            last = measured.dtc[-1] if measured.dtc else None
            # Gold is no play: its turns would make the null look like expert work.
            changes += changes_of(trajectory.case_id, course, last, trajectory.branch_turn)
    store.insert("verdicts", verdicts)
    store.insert("turn_scores", scores)
    return changes


def rules_of(
    ruler: Ruler,
    strategy: Strategy,
    threshold: float | None,
    wrong_endings: WrongEndings | None,
    idle_turns: int,
) -> tuple[Rules, str]:
    """The rules with what the graphs decide, and where the threshold comes from.

    A wrong commitment is kept where both graphs are the paper's, to the letter of section 3.3.
    Elsewhere the commitment itself is dropped: its turns before are as good as any prefix, which is
    what the paper's introduction and Figure 3 say is kept of a partially correct trajectory, but as
    a target it teaches to be sure of what is wrong.
    """
    own = threshold_of(ruler.tests.graph)
    papers = is_papers(ruler.diseases.graph) and is_papers(ruler.tests.graph)
    rules = Rules(
        strategy,
        own.hops if threshold is None else threshold,
        wrong_endings or ("keep" if papers else "drop-commit"),
        idle_turns,
    )
    return rules, own.origin if threshold is None else "set by hand"


def linkers(diseases: str = OPEN, tests: str = OPEN, aids: Aids | None = None) -> Ruler:
    """What links diagnoses for DTC, and diagnoses and tests for RAC. Raises NoGraph, BadTable,
    FileNotFoundError, EncoderUnavailable."""
    aids = aids or Aids()
    disease_graph = open_disease_graph() if diseases == OPEN else imported_graph(diseases)
    test_graph = (
        open_test_graph(aids.maxo, aids.loinc2hpo) if tests == OPEN else imported_graph(tests)
    )
    overrides = read_overrides(aids.links) if aids.links else None
    # Before anything is played: a wrong row of the user's table must not show after hours.
    if overrides:
        overrides.check([disease_graph, test_graph])

    def linker(graph: Graph, kind: Kind) -> Linker:
        return Linker(graph, NODE_TYPES[kind], overrides, aids.encoder)

    return Ruler(
        linker(disease_graph, "diagnosis"),
        linker(test_graph, "diagnosis"),
        linker(test_graph, "test"),
    )


def _truths(store: Store) -> list[tuple[str, str, list[str]]]:
    """(environment id, diagnosis, synonyms) of every case."""
    return store.rows(
        "select environment_id, diagnosis, synonyms from cases join environments using"
        " (environment_id) order by cases.case_id"
    )


def _state(store: Store, rules: object, linked_with: list[str]) -> str:
    """A hash of all that the scores depend on, and of which there are."""
    ids = store.rows("select trajectory_id from current_trajectories order by all")
    truths = sorted(_truths(store))
    return version_of([rules, SCORES, linked_with, ids, truths])


def verdict_of(course: Course, measured: Measured, rules: Rules) -> Verdict:
    """The verdict of the rules on one path."""
    if rules.strategy == "dtc_rac":
        return prune_dtc_rac(
            course, measured, rules.threshold, rules.wrong_endings, rules.idle_turns
        )
    return (
        prune_correctness(course, measured)
        if rules.strategy == "correctness"
        else prune_none(course, measured)
    )


def _courses(
    tree: Sequence[Trajectory], nodes: Nodes, truth: int | None
) -> Iterator[tuple[RolloutSpec, Course]]:
    """Every path of an environment's tree as nodes."""
    by_id = {trajectory.trajectory_id: trajectory for trajectory in tree}
    for trajectory in tree:
        yield (
            trajectory.spec,
            Course(tuple(turn_nodes(turn, nodes) for turn in path_of(trajectory, by_id)), truth),
        )


def _links(store: Store, ruler: Ruler, truths: set[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows of `links` of every diagnosis and ordered test that the current trajectories name and of
    the `truths`, by the fields of `Nodes`."""
    rows = store.rows(
        "select distinct unnest(list_append([line.diagnosis for line in differential],"
        " turns.final_diagnosis)) as name"
        " from turns join current_trajectories using (trajectory_id)"
    )
    diagnoses = truths.union(name for (name,) in rows if name)
    orders = store.rows(
        "select distinct unnest(tests) from turns join current_trajectories using (trajectory_id)"
    )
    return {
        "diseases": _rows_of_links(store, ruler.diseases, "diagnosis", diagnoses),
        "diagnoses": _rows_of_links(store, ruler.diagnoses, "diagnosis", diagnoses),
        "tests": _rows_of_links(store, ruler.tests, "test", {name for (name,) in orders}),
    }


def _rows_of_links(
    store: Store, linker: Linker, kind: Kind, texts: set[str]
) -> list[dict[str, Any]]:
    """A row of `links` for every text; only texts that this linker has not seen, at its version,
    are looked up."""
    graph = linker.label
    rows = store.rows(
        'select "text", node, name, "method", score from links where graph = ? and kind = ?',
        [graph, kind],
    )
    stored = [
        dict(zip(("text", "node", "name", "method", "score"), row, strict=True))
        for row in rows
        if row[0] in texts
    ]
    # Sorted: the order of a set differs from process to process, and rows are stored in it.
    unknown = sorted(texts - {row["text"] for row in stored})
    fresh = [asdict(link) for link in linker.link(unknown)]
    return [{"graph": graph, "kind": kind} | row for row in (*stored, *fresh)]


@cache
def disease_linker(graph: str = OPEN) -> Linker:
    """The linker of diagnoses on the disease graph of this name or path, made once a process.
    Raises NoGraph, BadTable."""
    return Linker(
        open_disease_graph() if graph == OPEN else imported_graph(graph), NODE_TYPES["diagnosis"]
    )


def with_link(built: Built, extracted: bool, graph: str = OPEN) -> Built:
    """`built` with what the graph knows of its true diagnosis: whether it is a node, and the
    classes that the source did not tell.

    Of an `extracted` case the graph's classes stand before the model's, which for a weak model are
    guesses.
    """
    if built.environment is None:
        return built
    world, linker = built.environment, disease_linker(graph)
    (link,) = linker.link([true_name(world, linker)])
    system, kind = classes_of((world.diagnosis, *world.synonyms))
    classes = (system or world.body_system, kind or world.disease_type)
    if not extracted:
        classes = (world.body_system or system, world.disease_type or kind)
    world = replace(world, body_system=classes[0], disease_type=classes[1])
    return replace(
        built,
        environment=world,
        checks=(*built.checks, diagnosis_linkable(link.score, DENSE_THRESHOLD, link.name)),
    )


SCORES = ("dtc", "rac", "changed", "unknown", "unlinked", "orders", "linked_orders")
"""The columns of `turn_scores` besides its key: a store that lacks one is scored again."""


def unlinkable(
    store: Store, diseases: str = OPEN, tests: str = OPEN, aids: Aids | None = None
) -> frozenset[str]:
    """The cases whose true diagnosis is no node of the disease graph: what the check of stage 1
    found, looked at again where the user's links or another encoder may know it."""
    cases = frozenset(
        case_id
        for (case_id,) in store.rows(
            "select case_id from checks where name = 'diagnosis_linkable' and not passed"
        )
    )
    # The check of stage 1 linked without the user's table, by the small encoder.
    if not cases or aids is None or (aids.links is None and aids.encoder == Aids().encoder):
        return cases
    linker = linkers(diseases, tests, aids).diseases
    worlds = [
        store.environment(key.environment_id)
        for key in store.environment_keys()
        if key.case_id in cases
    ]
    links = linker.link(true_name(world, linker) for world in worlds)
    known = (
        world.case_id for world, link in zip(worlds, links, strict=True) if link.node is not None
    )
    return cases.difference(known)


def _score_rows(trajectory_id: str, course: Course, measured: Measured) -> Iterator[dict[str, Any]]:
    """A row of `turn_scores` for every turn."""
    for turn, distance, rac in zip(course.turns, measured.dtc, measured.rac, strict=True):
        scores = (
            distance,
            *((rac.value, rac.changed, rac.unknown, rac.unlinked) if rac else (None,) * 4),
            len(turn.tests),
            len(turn.tests) - turn.tests.count(None),
        )
        yield {"trajectory_id": trajectory_id, "number": turn.number} | dict(
            zip(SCORES, scores, strict=True)
        )


def distance_of(environment: ClinicalEnvironment, plan: TreePlan) -> Distance | None:
    """DTC of a diagnosis in this environment, for launch points by DTC; None for the other
    strategies."""
    if plan.launch != "dtc":
        return None

    @cache
    def truth() -> int | None:
        linker = disease_linker(plan.disease_graph)
        return linker.link([true_name(environment, linker)])[0].node

    def distance(diagnosis: str) -> int | None:
        linker = disease_linker(plan.disease_graph)
        return dtc(partial(hops, linker.graph), linker.link([diagnosis])[0].node, truth())

    return distance
