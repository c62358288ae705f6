"""Small hand-written records for tests of the store and of what is built on it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medaction.envs.build import build_environment
from medaction.envs.records import (
    Answer,
    BadCase,
    Built,
    CaseReport,
    ClinicalEnvironment,
    DocumentedResult,
    DocumentedTest,
)
from medaction.envs.turns import Hypothesis, Turn
from medaction.llm.usage import Usage
from medaction.trajectories.records import RolloutSpec, Trajectory
from medaction.trajectories.store import Store
from medaction.trajectories.table_rows import BuiltCase

MENU = (
    DocumentedTest(
        "Complete blood count",
        "laboratory",
        "Hemoglobin 9.1 g/dL; platelets 410 x 10^9/L",
        ("CBC",),
    ),
    DocumentedTest("Chest radiograph", "imaging", "Bilateral hilar lymphadenopathy."),
)


def report(case_id: str = "case-1", text: str = "A report.") -> CaseReport:
    return CaseReport(
        case_id,
        "case_json",
        'A "title", with commas',
        text,
        path=f"{case_id}.json",
        licence="CC BY 4.0",
    )


def environment(case_id: str = "case-1", evaluation_only: bool = False) -> ClinicalEnvironment:
    return ClinicalEnvironment(
        case_id,
        "case_json",
        "title",
        "Cough for six weeks.\nO'Brien's sign absent.",
        MENU,
        "Sarcoidosis",
        ("Besnier-Boeck",),
        "CC BY 4.0",
        evaluation_only,
    )


def turn(number: int, leader: str, tests: tuple[str, ...] = (), final: str | None = None) -> Turn:
    answers = tuple(
        Answer(test, (DocumentedResult(MENU[0].name, MENU[0].result),), "synonym", 1.0)
        if test == "CBC"
        else Answer(test)
        for test in tests
    )
    return Turn(
        number,
        f"Reasoning of turn {number}.",
        (Hypothesis(leader, 60), Hypothesis("Lymphoma", 30)),
        "granuloma or not?",
        tests,
        final,
        f"reply {number}: {leader}",
        answers,
        usage=Usage(1, 200, 50, 0.001, 0.5),
    )


def trajectory(spec: RolloutSpec, *turns: Turn) -> Trajectory:
    return Trajectory(
        spec,
        turns,
        "diagnosed" if turns[-1].final_diagnosis else "turn_limit",
        8,
        "prompt-1",
        "code-1",
    )


def small_tree(
    case_id: str = "case-1", observation: str = ""
) -> tuple[ClinicalEnvironment, Trajectory, Trajectory]:
    """An environment, a rollout of three turns, and a branch launched after its first turn."""
    world = environment(case_id)
    world = replace(world, initial_observation=observation or world.initial_observation)
    spec = RolloutSpec(world.environment_id, case_id, "teacher-a", "schema", 0, "hash-1")
    root = trajectory(
        spec,
        turn(1, "Tuberculosis", ("CBC", "PET")),
        turn(2, "Lymphoma", ("PET",)),
        turn(3, "Lymphoma", (), "Lymphoma"),
    )
    branch_spec = RolloutSpec(
        world.environment_id, case_id, "teacher-a", "schema", 0, "hash-1", root.trajectory_id, 1
    )
    return world, root, trajectory(branch_spec, turn(2, "Sarcoidosis", (), "Sarcoidosis"))


def environment_of(report: CaseReport, *arguments: Any, **named: Any) -> ClinicalEnvironment:
    """The environment that a report becomes; fails with the refusal."""
    built = build_environment(report, *arguments, **named)
    assert built.environment is not None, built.refusal
    return built.environment


def refusal_of(report: CaseReport, *arguments: Any, **named: Any) -> BadCase:
    """The refusal that a report meets."""
    built = build_environment(report, *arguments, **named)
    assert built.refusal is not None
    assert built.environment is None
    return built.refusal


def add_environment(store: Store, report: CaseReport, world: ClinicalEnvironment) -> None:
    store.add_built_cases([BuiltCase(report, Built(world, None))], "", "run-1")


def put_derived(store: Store, **tables: Sequence[Mapping[str, Any]]) -> None:
    """Rows in place of what these derived tables of the store hold."""
    with store.transaction():
        store.empty(*tables)
        for table, rows in tables.items():
            store.insert(table, rows)
