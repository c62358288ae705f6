"""Criteria that a case's own report gives."""

from dataclasses import replace

import pytest

from medaction.envs.make_oracle import oracle_of
from medaction.envs.records import ClinicalEnvironment, DocumentedTest
from medaction.evaluation.criteria import criteria_of, criteria_table, decisive_tests
from medaction.evaluation.dialogue import Examiner
from medaction.trajectories.records import Trajectory
from tests.records import environment, small_tree

BIOPSY = "Lymph node biopsy"


def case(result: str) -> ClinicalEnvironment:
    test = DocumentedTest(BIOPSY, "pathology", result)
    return replace(environment(), menu=(*environment().menu, test))


@pytest.mark.parametrize(
    ("result", "is_decisive"),
    [
        ("Granulomas. Consistent with sarcoidosis.", True),
        ("Besnier-Boeck disease", True),
        ("No evidence of sarcoidosis.", False),
        ("Sarcoidosis was ruled out; lymphoma.", False),
        ("Noncaseating granulomas.", False),
    ],
)
def test_a_result_that_names_the_diagnosis_decides(result: str, is_decisive: bool) -> None:
    assert decisive_tests(case(result)) == (frozenset([BIOPSY]) if is_decisive else frozenset())


def rollout(*orders: str) -> Trajectory:
    """A rollout of one turn with the oracle's real answers."""
    _, root, _ = small_tree()
    answers = oracle_of(case("Sarcoidosis.")).answer(orders)
    return replace(root, turns=(replace(root.turns[0], tests=orders, answers=answers),))


def test_a_right_guess_and_a_needless_procedure_are_told_apart_from_a_work_up() -> None:
    world = case("Sarcoidosis.")
    careful = criteria_of(world, rollout("CBC", "lymph node biopsy"))
    assert careful == {"decisive": True, "needless_procedures": 0}
    hasty = criteria_of(world, rollout("CBC", "bone marrow biopsy", "colonoscopy"))
    assert hasty == {"decisive": False, "needless_procedures": 2}
    assert criteria_of(environment(), rollout("CBC"))["decisive"] is None
    rows = [
        {"trajectory_id": "a", "correct": True, **careful},
        {"trajectory_id": "b", "correct": True, **hasty},
        {"trajectory_id": None, "correct": False, "decisive": None, "needless_procedures": 0},
    ]
    table = criteria_table(rows)
    assert (table["rollouts"], table["with_a_decisive_test"], table["right"]) == (2, 2, 2)
    assert table["decisive"] == table["right_and_decisive"] == table["needless_procedure"] == 0.5


def test_procedures_count_each_by_itself_and_an_examiners_words_are_of_no_test() -> None:
    world = case("Sarcoidosis.")
    packed = rollout("colonoscopy, bone marrow biopsy and liver biopsy", "CBC and bronchoscopy")
    assert criteria_of(world, packed)["needless_procedures"] == 4
    record = "Complete blood count: anemia. Lymph node biopsy: sarcoidosis."
    asked = ("CBC", "lymph node biopsy", "colonoscopy")
    answers = Examiner("case", record, lambda messages, schema: record).answer(asked)
    _, root, _ = small_tree()
    examined = replace(root, turns=(replace(root.turns[0], tests=asked, answers=answers),))
    assert criteria_of(world, examined) == {"decisive": None, "needless_procedures": 1}
    unanswered = rollout("colonoscopy")
    assert criteria_of(world, unanswered)["decisive"] is False
    assert criteria_of(world, unanswered, has_examiner=True)["decisive"] is None
