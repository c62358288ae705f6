"""What an episode was worth to whoever trains by reinforcement: rewards of 0 to 1, and how much of
them each turn earned.

Six rewards are added up by named weights:

* diagnosis: 1 where a judge takes the final diagnosis for the true one.
* test_f1: harmonic mean of two shares: of the ordered tests that the report documents, and of the
  documented tests that were ordered.
* dtc: 2 ** -DTC of the last turn, so 1 at the truth, 1/4 where two diseases share a finding.
* rac: mean over the turns from the second of 2 ** (1 - RAC), times the share of the orders before
  that were new and documented: a change without evidence earns nothing, and no change neither.
* information: the probability that the last differential gives to the truth.
* cost: the diagnosis reward times the share of the possible orders that were saved.

Two more are factors, because a constant has them in full: well_formed, the share of replies that
were in the grammar, and new_orders, the share of orders that were not there before. They can only
take away.

A turn earns of dtc and information what it gained and no later turn lost again. So a detour earns
nothing, neither does a bad start for the sake of progress, and the turns' shares of a reward add
up to it.

Unknown is not far, but it earns nothing: a diagnosis without a node counts for 0 in dtc and
information. Only what no policy could have earned (no node for the truth, no documented test, no
graph, no turn that may order) is None, and its weight is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate

from medaction.envs.loops import repeated_orders
from medaction.envs.make_oracle import oracle_of
from medaction.envs.orders import single_tests
from medaction.envs.records import ClinicalEnvironment
from medaction.envs.reply import MOST_TESTS
from medaction.envs.rewards import Ruler, TurnReward, standing, turn_rewards
from medaction.envs.turns import Turn

JudgeDiagnosis = Callable[[str, ClinicalEnvironment], bool]
"""(a final diagnosis, the environment) -> whether it is the true one."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each reward counts. Our choice: the paper's two scores, diagnosis and test F1, make
    up two thirds; the graphs' measures say how well the turns led there."""

    diagnosis: float = 0.5
    test_f1: float = 0.2
    dtc: float = 0.1
    rac: float = 0.05
    information: float = 0.1
    cost: float = 0.05


@dataclass(frozen=True, slots=True)
class TurnCredit:
    """What one turn earned: its shares of the episode's rewards by name, and of the total."""

    number: int
    shares: Mapping[str, float]
    total: float


@dataclass(frozen=True, slots=True)
class Credit:
    """The rewards of an episode by name, each 0 to 1 or None; the two factors; what each turn
    earned; and the total, which is the sum of what the turns earned."""

    rewards: Mapping[str, float | None]
    well_formed: float
    new_orders: float
    turns: tuple[TurnCredit, ...]
    total: float


def credit(
    environment: ClinicalEnvironment,
    turns: Sequence[Turn],
    t_max: int,
    malformed: int,
    judge: JudgeDiagnosis,
    ruler: Ruler | None = None,
    weights: Weights | None = None,
) -> Credit:
    """The rewards of `turns`, the played ones of an episode, with `malformed` refused replies
    beside them.

    Without `ruler` dtc, rac and information are None. Raises whatever `judge` raises.
    """
    measures = turn_rewards(environment, turns, ruler)
    # 'CBC, CMP and ESR' in one order costs three: else one long order would be cheapest.
    tests = [len(single_tests([order])) for turn in turns for order in turn.tests]
    repeats = sum(flag for flags in repeated_orders(turns) for flag in flags)
    diagnosis = _diagnosis(environment, turns, judge)
    # The last turn can only commit.
    possible = MOST_TESTS * (t_max - 1)
    shares: dict[str, list[float] | None] = {
        "diagnosis": diagnosis,
        "test_f1": _test_f1(environment, turns),
        "dtc": _dtc(environment, measures, ruler),
        "rac": _rac(turns, measures) if ruler else None,
        "information": _gained_information(environment, turns, ruler),
        "cost": [share * max(0.0, 1 - sum(tests) / possible) for share in diagnosis]
        if possible
        else None,  # an episode of one turn has nothing to save
    }
    weight = asdict(weights or Weights())
    known = {name: parts for name, parts in shares.items() if parts is not None}
    # What nobody could have earned is left out, so that the best play still has 1.
    total_weight = sum(weight[name] for name in known)
    # Also counted where the model got it right at the next try: the reply was wasted.
    well_formed = len(turns) / max(1, len(turns) + malformed)
    new_orders = 1 - repeats / sum(len(turn.tests) for turn in turns) if tests else 1.0
    # Nothing to earn where every known reward weighs nothing: the weights are the caller's.
    scale = well_formed * new_orders / total_weight if total_weight else 0.0
    earned = []
    for at, turn in enumerate(turns):
        parts_of_turn = {name: parts[at] for name, parts in known.items()}
        total = scale * sum(weight[name] * part for name, part in parts_of_turn.items())
        earned.append(TurnCredit(turn.number, parts_of_turn, total))
    return Credit(
        {name: None if parts is None else sum(parts) for name, parts in shares.items()},
        well_formed,
        new_orders,
        tuple(earned),
        sum(turn.total for turn in earned),
    )


def _diagnosis(
    environment: ClinicalEnvironment, turns: Sequence[Turn], judge: JudgeDiagnosis
) -> list[float]:
    return [
        float(turn.final_diagnosis is not None and judge(turn.final_diagnosis, environment))
        for turn in turns
    ]


def _test_f1(environment: ClinicalEnvironment, turns: Sequence[Turn]) -> list[float] | None:
    """The F1 of all orders, split by the documented tests that each turn was first to order.

    An order that names several tests counts as so many: in one order of twenty tests the one that
    is documented does not make it a documented order.
    """
    if not environment.menu:
        return None
    oracle = oracle_of(environment)
    orders: dict[str, tuple[int, int]] = {}
    returned: set[str] = set()
    fresh = []
    for turn in turns:
        # By the results that came back: two names of one test earn once.
        before = len(returned)
        for answer in turn.answers:
            tests = single_tests([answer.order])
            hits = int(bool(answer.results))
            if hits and len(tests) > 1:
                # Not the number of results: a documented panel returns many for one test. What a
                # model chose from the menu no name matches; it is one hit.
                hits = max(1, sum(any(oracle.matches(test)) for test in tests))
            # By its words: the same order again is no second hit (new_orders pays for it).
            orders[answer.order] = len(tests), hits
            returned |= {result.test for result in answer.results}
        fresh.append(len(returned) - before)
    # Nothing came back: precision and recall are 0, and their harmonic mean has no value.
    if not returned:
        return [0.0] * len(turns)
    precision = sum(hits for _, hits in orders.values()) / sum(
        named for named, _ in orders.values()
    )
    recall = len(returned) / len({test.name for test in environment.menu})
    f1 = 2 * precision * recall / (precision + recall)
    return [f1 * count / len(returned) for count in fresh]


def _dtc(
    environment: ClinicalEnvironment, measures: Sequence[TurnReward], ruler: Ruler | None
) -> list[float] | None:
    if ruler is None or ruler.truth(environment) is None:
        return None
    return _lasting_gains(
        [0.0 if measure.dtc is None else 2.0**-measure.dtc for measure in measures]
    )


def _rac(turns: Sequence[Turn], measures: Sequence[TurnReward]) -> list[float]:
    news = [
        sum(
            bool(answer.results) and not repeated
            for answer, repeated in zip(turn.answers, flags, strict=True)
        )
        / max(1, len(flags))
        for turn, flags in zip(turns, repeated_orders(turns), strict=True)
    ]
    values = [None if measure.rac is None else measure.rac.value for measure in measures]
    return [
        0.0 if value is None else min(1.0, 2 ** (1 - value)) * news[at - 1] / (len(turns) - 1)
        for at, value in enumerate(values)
    ]


def _gained_information(
    environment: ClinicalEnvironment, turns: Sequence[Turn], ruler: Ruler | None
) -> list[float] | None:
    truth = ruler.truth(environment) if ruler else None
    if ruler is None or truth is None:
        return None
    nodes = ruler.nodes(turns).diseases
    stands = [standing(turn, nodes, truth) for turn in turns]
    return _lasting_gains([stand.probability if stand else 0.0 for stand in stands])


def _lasting_gains(values: Sequence[float]) -> list[float]:
    """What each turn added to a value of 0 to 1 that no later turn took away; their sum is the last
    value.

    >>> _lasting_gains([0.25, 0.0, 1.0, 0.5])
    [0.0, 0.0, 0.5, 0.0]
    """
    # The running minimum from the end: of each gain, what no later turn lost.
    kept = list(accumulate(reversed(values), min))[::-1]
    return [after - before for before, after in zip([0.0, *kept], kept, strict=False)]
