"""Rewards of an episode: what each is, that the turns' shares add up to them, and that no policy
wins them that plays for them alone."""

import asyncio
from dataclasses import replace
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medaction.envs.credit import Credit, Weights, _lasting_gains
from medaction.envs.episode import Episode
from medaction.envs.make_oracle import oracle_of
from medaction.envs.oracle import Oracle
from medaction.envs.records import ClinicalEnvironment, DocumentedTest
from medaction.envs.rewards import Ruler
from medaction.envs.sources import read_cases
from medaction.evaluation.diagnoses import likeness
from medaction.hub.episodes import Play, Scorer, scorer_of
from medaction.kg.encoder import load_encoder
from medaction.llm.calls import ModelError
from medaction.llm.replies import MalformedReply
from medaction.llm.usage import Usage
from medaction.trajectories.scoring import linkers
from tests.conftest import SAMPLES
from tests.policies import GAMING, Policy, guess, played, reply, worker
from tests.records import MENU, environment, environment_of

REWARDS = ("diagnosis", "test_f1", "dtc", "rac", "information", "cost")


def same_words(said: str, world: ClinicalEnvironment) -> bool:
    return said.casefold() == world.diagnosis.casefold()


def credit_of(*replies: str, world: ClinicalEnvironment | None = None) -> Credit:
    episode = Episode(world or environment(), Oracle(MENU))
    for text in replies:
        try:
            episode.step(text)
        except MalformedReply:
            continue
    return episode.credit(same_words)


BOTH = [("Sarcoidosis", 60), ("Lymphoma", 30)]
COMMIT = reply(BOTH, final="Sarcoidosis")


def test_the_diagnosis_is_the_judges_and_saved_orders_count_only_with_it() -> None:
    right = credit_of(reply(BOTH, ["CBC"]), COMMIT)
    assert right.rewards["diagnosis"] == 1
    assert right.rewards["cost"] == pytest.approx(1 - 1 / 42)
    wrong = credit_of(reply(BOTH, ["CBC"]), reply(BOTH[1:], final="Lymphoma"))
    assert (wrong.rewards["diagnosis"], wrong.rewards["cost"]) == (0, 0)


def test_the_tests_score_as_the_evaluation_has_it_and_go_to_the_turn_that_ordered_them() -> None:
    played_through = credit_of(
        reply(BOTH, ["CBC", "Serum copper"]), reply(BOTH, ["Chest radiograph"]), COMMIT
    )
    assert played_through.rewards["test_f1"] == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    shares = [turn.shares["test_f1"] for turn in played_through.turns]
    assert shares == pytest.approx([0.4, 0.4, 0.0])


def test_many_tests_in_one_order_are_many_orders() -> None:
    alone = credit_of(reply(BOTH, ["CBC"]), COMMIT)
    packed = credit_of(reply(BOTH, ["CBC, serum copper, serum zinc, ferritin, EEG"]), COMMIT)
    assert alone.rewards["test_f1"] == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert packed.rewards["test_f1"] == pytest.approx(2 * 0.2 * 0.5 / 0.7)
    assert (packed.rewards["cost"] or 0) < (alone.rewards["cost"] or 0)


def test_the_results_of_a_panel_are_no_hits_of_other_tests_in_its_order() -> None:
    parts = ("Hemoglobin", "Leukocyte count", "Platelet count", "Hematocrit")
    menu = tuple(DocumentedTest(name, "laboratory", "Normal.") for name in parts)
    world = replace(environment(), menu=menu)

    def f1(*orders: str) -> float | None:
        episode = Episode(world, oracle_of(world))
        for text in (reply(BOTH, orders), COMMIT):
            episode.step(text)
        return episode.credit(same_words).rewards["test_f1"]

    assert f1("CBC") == 1
    apart = f1("CBC", "brain MRI", "liver biopsy", "lumbar puncture")
    assert apart == pytest.approx(0.4)
    assert f1("CBC, brain MRI, liver biopsy and lumbar puncture") == apart


def test_weights_of_nothing_that_is_known_earn_nothing() -> None:
    episode = Episode(environment(), Oracle(MENU))
    episode.step(COMMIT)
    only_dtc = Weights(diagnosis=0, test_f1=0, dtc=1, rac=0, information=0, cost=0)
    assert episode.credit(same_words, weights=only_dtc).total == 0


def test_refused_replies_and_repeated_orders_take_their_share_of_everything() -> None:
    clean = credit_of(reply(BOTH, ["CBC"]), COMMIT)
    assert (clean.well_formed, clean.new_orders) == (1, 1)
    refused = credit_of("I think so.", reply(BOTH, ["CBC"]), COMMIT)
    assert refused.total == pytest.approx(clean.total * 2 / 3)
    again = credit_of(reply(BOTH, ["CBC"]), reply(BOTH, ["CBC"]), COMMIT)
    assert again.new_orders == 0.5
    assert again.total < 0.6 * clean.total
    nothing = credit_of(reply(BOTH[1:], final="Lymphoma"))
    assert (nothing.well_formed, nothing.new_orders, nothing.total) == (1, 1, 0)


def test_what_no_policy_could_earn_is_unknown_and_left_out() -> None:
    empty = replace(environment(), menu=())
    credit = credit_of(COMMIT, world=empty)
    assert [name for name in REWARDS if credit.rewards[name] is None] == [
        *("test_f1", "dtc", "rac", "information")
    ]
    assert credit.total == pytest.approx(1.0), "all that there was to earn"
    assert credit_of().total == 0, "nothing played"


@given(st.lists(st.floats(0, 1), max_size=8))
def test_gains_that_last_are_never_negative_and_add_up_to_the_end(values: list[float]) -> None:
    gains = _lasting_gains(values)
    assert all(gain >= 0 for gain in gains)
    assert sum(gains) == pytest.approx(values[-1] if values else 0)


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    return linkers()


@pytest.fixture(scope="module")
def worlds() -> list[ClinicalEnvironment]:
    return [environment_of(report) for report in read_cases(SAMPLES)]


def credits_of(policy: Policy, worlds: list[ClinicalEnvironment], ruler: Ruler) -> list[Credit]:
    def judge(said: str, world: ClinicalEnvironment) -> bool:
        truths = (world.diagnosis, *world.synonyms)
        return bool(likeness(said, truths, ruler.diseases, load_encoder().encode))

    return [
        played(Episode(world, oracle_of(world)), policy).credit(judge, ruler) for world in worlds
    ]


@pytest.mark.long
def test_no_reward_is_won_by_playing_for_it(
    worlds: list[ClinicalEnvironment], ruler: Ruler
) -> None:
    """On the sample cases, beside a policy that works: no policy that looks at nothing has
    three fifths of what it has, in any reward (RAC separates least); in the total none has an
    eighth."""
    working = credits_of(worker, worlds, ruler)
    for policy in GAMING:
        gaming = credits_of(policy, worlds, ruler)
        for name in REWARDS:
            had, gained = (
                mean(value for credit in credits if (value := credit.rewards[name]) is not None)
                for credits in (working, gaming)
            )
            assert gained < 0.6 * had, (policy.__name__, name)
        total, of_worker = (mean(c.total for c in credits) for credits in (gaming, working))
        assert total < of_worker / 8, policy.__name__


@pytest.mark.long
def test_the_turns_shares_add_up_to_the_rewards(
    worlds: list[ClinicalEnvironment], ruler: Ruler
) -> None:
    for policy in (worker, guess):
        for credit in credits_of(policy, worlds, ruler):
            assert 0 <= credit.total <= 1
            assert credit.total == pytest.approx(sum(turn.total for turn in credit.turns))
            for turn in credit.turns:
                assert all(0 <= share <= 1 for share in (*turn.shares.values(), turn.total))
            for name, value in credit.rewards.items():
                if value is not None:
                    assert 0 <= value <= 1 + 1e-9
                    assert value == pytest.approx(sum(turn.shares[name] for turn in credit.turns))


@pytest.mark.long
def test_the_graphs_rewards_show_where_the_truth_came_nearer(
    worlds: list[ClinicalEnvironment], ruler: Ruler
) -> None:
    """`worker` states the truth from turn to turn with 10, 40, 70 and 95 percent; a change that is
    taken back earns nothing."""
    world = next(world for world in worlds if ruler.truth(world) is not None)
    (credit,) = credits_of(worker, [world], ruler)
    assert [turn.shares["information"] for turn in credit.turns] == pytest.approx(
        [0.1, 0.3, 0.3, 0.25]
    )
    assert credit.rewards["dtc"] == 1

    def detour(world: ClinicalEnvironment, number: int) -> str:
        sure = [(world.diagnosis, 90)]
        wrong = [("Influenza", 90)]
        if number == 3:
            return reply(wrong, final="Influenza")
        return reply(sure if number == 2 else wrong, [world.menu[number - 1].name])

    (lost,) = credits_of(detour, [world], ruler)
    assert lost.rewards["information"] == 0
    assert (lost.rewards["dtc"] or 0) < 0.5


def test_the_weights_add_up_to_one() -> None:
    weights = Weights()
    assert sum(getattr(weights, name) for name in REWARDS) == pytest.approx(1)


def test_an_episode_of_one_turn_has_no_orders_to_save() -> None:
    episode = Episode(environment(), Oracle(MENU), t_max=1)
    episode.step(COMMIT)
    alone = episode.credit(same_words)
    assert (alone.rewards["diagnosis"], alone.rewards["cost"]) == (1, None)
    assert alone.total > 0.5


def test_the_score_and_the_rewards_go_by_one_verdict() -> None:
    scorer, asked = scorer_of(), []

    class Judge:
        tests = scorer.judge.tests
        usage = Usage()

        async def diagnosis(self, said: str, *_: object) -> bool:
            asked.append(said)
            if said == "Lymphoma":
                raise ModelError("overloaded", 503)
            return True

    for final, verdict in (("Sarcoidosis", 1.0), ("Lymphoma", None)):
        play = Play(environment())
        play.step(reply([(final, 90)], final=final))
        score, credit = asyncio.run(Scorer(Judge(), scorer.ruler).result(play))
        assert score.values()["correct"] == verdict
        assert (credit.rewards["diagnosis"] if credit else None) == verdict
    assert asked == ["Sarcoidosis", "Lymphoma"]
