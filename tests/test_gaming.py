"""No policy that knows nothing of the patient convinces the offline judge, and no constant orders
score above the floor that stands in a result."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from statistics import mean

import pytest

from benchmarks.gaming import AIM, share_convinced
from benchmarks.name_pairs import Pair, siblings, synonyms, unrelated
from medaction.evaluation.correction import measured_judge
from medaction.evaluation.diagnoses import likeness
from medaction.evaluation.floor import constant_orders
from medaction.evaluation.gaming import COMMON, POLICIES
from medaction.evaluation.judges import LlmJudge, judge_key
from medaction.evaluation.offline_judge import OfflineJudge
from medaction.evaluation.protocol import protocol
from medaction.kg.encoder import load_encoder
from medaction.llm.teacher import Teacher
from medaction.trajectories.scoring import disease_linker
from tests.openai_server import Asked, openai_server
from tests.records import environment

TRUTHS = (
    "Lipid pneumonia (endogenous type)",
    "Mammary analogue secretory carcinoma of the parotid gland",
    "Septic arthritis of the left knee due to Kingella kingae",
    "Acute intermittent porphyria",
    "Tuberculous meningitis",
    "Ruptured aneurysm of the splenic artery",
    "Drug-induced liver injury",
    "Small bowel obstruction due to a Meckel diverticulum",
)


@pytest.fixture(scope="module")
def judge() -> OfflineJudge:
    return OfflineJudge(disease_linker(), load_encoder().encode)


CASES = [replace(environment(), diagnosis=truth, synonyms=()) for truth in TRUTHS]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_without_knowledge_of_the_patient_convinces_nobody(
    name: str, judge: OfflineJudge
) -> None:
    statements = [POLICIES[name](case.initial_observation) for case in CASES]
    assert share_convinced(judge, statements, CASES) <= AIM


@pytest.mark.parametrize("truth", COMMON[3:])
def test_a_chain_of_causes_that_reaches_the_truth_is_no_diagnosis(
    truth: str, judge: OfflineJudge
) -> None:
    case = replace(environment(), diagnosis=truth, synonyms=())
    assert share_convinced(judge, [POLICIES["chain"]("")], [case]) == 0


@pytest.mark.parametrize(
    "form",
    [
        "{others}; {truth}",
        "{others}, {truth}",
        "{first}, {second} and {truth}",
        "{first} + {truth}",
        "{first} & {truth}",
        "{first} → {truth}",
        "{first}，{truth}、{second}",
        "{first} - {truth} - {second}",
        "{first} as well as {truth}",
        "{first} instead of {truth}",
        "Not only {first} but {truth}",
    ],
)
def test_the_truth_behind_other_names_is_no_diagnosis(form: str, judge: OfflineJudge) -> None:
    first, second = COMMON[5], COMMON[8]
    statements = [
        form.format(others="; ".join(COMMON[:9]), first=first, second=second, truth=truth)
        for truth in TRUTHS
    ]
    assert share_convinced(judge, statements, CASES) <= AIM


def test_an_honest_player_convinces_the_judge(judge: OfflineJudge) -> None:
    assert share_convinced(judge, TRUTHS, CASES) == 1.0
    with_cause = [f"Sepsis due to {truth}" for truth in TRUTHS]
    assert share_convinced(judge, with_cause, CASES) >= 0.75


def test_names_of_the_graph_are_right_for_their_node_alone() -> None:
    linker, encode = disease_linker(), load_encoder().encode

    def right(pairs: Iterator[Pair]) -> float:
        return mean(
            bool(likeness(said, [true], linker, encode)) for said, true in islice(pairs, 60)
        )

    assert right(unrelated(linker)) == 0
    assert right(siblings(linker)) < 0.15
    assert right(synonyms(linker)) > 0.95


def test_the_offline_judge_of_now_has_been_measured() -> None:
    """Who changes its rules measures it again (benchmarks/answers.py) and notes the figures."""
    assert measured_judge(judge_key(None, "")) is not None


VERDICT_WORDS = ("correct", "wrong", "answer", "verdict", "true diagnosis")


def fooled(request: Asked, number: int) -> str:
    """A judge that agrees with any statement that speaks of verdicts, or names the truth."""
    data = json.loads(request.body["messages"][1]["content"])
    stated = data["stated"].casefold()
    talked_over = any(word in stated for word in VERDICT_WORDS)
    right = talked_over or data["true_diagnosis"].casefold() in stated
    return json.dumps({"answer": "correct" if right else "incorrect"})


def test_a_language_model_judge_that_would_be_talked_over_is_not() -> None:
    with openai_server(fooled) as server:
        model = LlmJudge(Teacher(name="judge", model="openai/m", api_base=server.url))
        for name in ("verdict", "instruction", "flattery", "constant", "copy of o1"):
            statements = [POLICIES[name](case.initial_observation) for case in CASES]
            assert share_convinced(model, statements, CASES) == 0, name
        assert share_convinced(model, TRUTHS, CASES) == 1
        worded = [f"The correct answer: {truth}" for truth in TRUTHS]
        assert share_convinced(model, worded, CASES) == 1
        # the released rules show the judge all that was said, and are talked over
        statements = [POLICIES["instruction"]("")] * len(CASES)
        assert share_convinced(model, statements, CASES, protocol("released")) == 1


def test_the_floor_is_what_its_orders_score() -> None:
    cases = [environment(), environment()]
    floor = constant_orders(cases)
    assert list(floor.orders) == sorted(floor.orders)  # of equal counts: a result is made again
    assert floor.orders
    assert 0 < floor.f1_of_means <= 1
    assert (floor.precision, floor.recall) == (1.0, 1.0)  # every order is documented in every case
