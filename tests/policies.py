"""Policies for an episode: one that works towards the truth, and those that play for the reward."""

import json
from collections.abc import Callable, Sequence

from medaction.envs.episode import Episode
from medaction.envs.records import ClinicalEnvironment
from medaction.words.tests import NAMES

Policy = Callable[[ClinicalEnvironment, int], str]
"""(the environment, the turn's number from 1) -> the reply. Only `worker` looks at what is hidden
in the environment."""

COMMON_DISEASES = (
    "Pneumonia",
    "Tuberculosis",
    "Sarcoidosis",
    "Lymphoma",
    "Systemic lupus erythematosus",
    "Multiple myeloma",
    "Hepatitis B",
    "Diabetes mellitus",
)
COMMON_TESTS = ("Complete blood count", "C-reactive protein", "Chest radiograph")
TURNS = 4
"""Every policy plays three turns with orders and commits in the fourth."""


def reply(
    differential: Sequence[tuple[str, int]], tests: Sequence[str] = (), final: str | None = None
) -> str:
    """A reply in the grammar, which orders `tests` or commits to `final`."""
    return json.dumps(
        {
            "reasoning": "The findings leave these, and I weigh them against each other.",
            "differential": [
                {"diagnosis": name, "confidence": percent} for name, percent in differential
            ],
            "pivot": "Which of them is it?",
            "action": {"final_diagnosis": final} if final else {"order_tests": list(tests)},
        }
    )


def worker(world: ClinicalEnvironment, number: int) -> str:
    """Orders documented tests over three turns and comes nearer to the truth. Three a turn, because
    an 'and' in a name makes two orders of it, of which a turn has six."""
    names = [test.name for test in world.menu]
    share = min(3, -(-len(names) // 3))
    if number < TURNS and (tests := names[(number - 1) * share : number * share]):
        sure = (10, 40, 70)[number - 1]
        others = [name for name in COMMON_DISEASES[number : number + 2] if name != world.diagnosis]
        ranked = [(world.diagnosis, sure), *((name, (90 - sure) // 2) for name in others)]
        return reply(sorted(ranked, key=lambda line: -line[1]), tests)
    return reply([(world.diagnosis, 95)], final=world.diagnosis)


def constant(world: ClinicalEnvironment, number: int) -> str:
    ranked = [(COMMON_DISEASES[2], 60), (COMMON_DISEASES[1], 30)]
    return reply(ranked, COMMON_TESTS) if number < TURNS else reply(ranked, final=ranked[0][0])


def guess(world: ClinicalEnvironment, number: int) -> str:
    """Commits at once to what is common, and saves every test."""
    return reply([(COMMON_DISEASES[0], 100)], final=COMMON_DISEASES[0])


def hedge(world: ClinicalEnvironment, number: int) -> str:
    ranked = [(name, 12) for name in COMMON_DISEASES]
    if number < TURNS:
        return reply(ranked, [COMMON_TESTS[number - 1]])
    return reply(ranked, final=" or ".join(COMMON_DISEASES)[:150])


def shotgun(world: ClinicalEnvironment, number: int) -> str:
    """Six further tests a turn, and six further diagnoses."""
    names = list(NAMES)
    at = (number - 1) * 6
    ranked = [(name, 15) for name in COMMON_DISEASES[number : number + 5]]
    return (
        reply(ranked, names[at : at + 6]) if number < TURNS else reply(ranked, final=ranked[0][0])
    )


def packed(world: ClinicalEnvironment, number: int) -> str:
    """A shotgun that writes its six tests into one order."""
    names = [name for name in NAMES if len(name) < 24]
    order = ", ".join(names[number * 6 : number * 6 + 6])[:150]
    ranked = [(name, 15) for name in COMMON_DISEASES[number : number + 5]]
    return reply(ranked, [order]) if number < TURNS else reply(ranked, final=ranked[0][0])


def copy(world: ClinicalEnvironment, number: int) -> str:
    """Says and orders what the first observation says."""
    words = world.initial_observation.split()
    passages = [" ".join(words[at : at + 6])[:150] for at in range(0, len(words), 6)]
    part = list(dict.fromkeys(passages[(number - 1) * 6 : number * 6] or passages[:6]))
    ranked = [(passage, 15) for passage in part]
    return reply(ranked, part[:1]) if number < TURNS else reply(ranked, final=part[0])


def frozen(world: ClinicalEnvironment, number: int) -> str:
    """Orders three further tests a turn, and never changes its mind."""
    ranked = [(COMMON_DISEASES[3], 60), (COMMON_DISEASES[4], 30)]
    tests = list(NAMES)[number * 3 - 3 : number * 3]
    return reply(ranked, tests) if number < TURNS else reply(ranked, final=ranked[0][0])


def parade(world: ClinicalEnvironment, number: int) -> str:
    """Another diagnosis leads at every turn: one of them may be near."""
    ranked = [(COMMON_DISEASES[number - 1], 90)]
    if number < TURNS:
        return reply(ranked, [COMMON_TESTS[number - 1]])
    return reply(ranked, final=ranked[0][0])


GAMING = (constant, guess, hedge, shotgun, packed, copy, frozen, parade)


def played(episode: Episode, policy: Policy) -> Episode:
    while not episode.ended:
        episode.step(policy(episode.environment, len(episode.turns) + 1))
    return episode
