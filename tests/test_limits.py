"""The book of a run's limits, in simulated time: callers that come back at once, servers that
answer, refuse or are away."""

import heapq
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from medaction.llm.calls import _pause
from medaction.llm.limits import (
    ALONE_S,
    EQUAL_REFUSALS,
    LOST_S,
    SILENT_S,
    Ask,
    Book,
    Bounds,
    CallOutcome,
    Ended,
    Permission,
    Refusal,
)
from medaction.llm.negotiation import Demands

BOUNDS = Bounds("t", "openai/m", ("a",), 64, None, None, None)

Served = Callable[[float], tuple[CallOutcome, float]]
"""Time -> how a call that begins now ends, and after how many seconds."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def simulate(
    serve: Served,
    bounds: Bounds = BOUNDS,
    callers: int = 200,
    until: float = 60.0,
    tokens: int = 1000,
) -> list[tuple]:
    """(began, outcome, under way) of every call. Callers wait as `medaction.llm.calls` does, and
    never give up."""
    clock = Clock()
    book, draw = Book(clock=clock, alone_s=0), random.Random(0)
    calls: list[tuple] = []
    events: list[tuple] = [(number * 1e-4, number, None, 0) for number in range(callers)]
    counter = callers
    while events:
        clock.now, _, over, refusals = heapq.heappop(events)
        counter += 1
        if clock.now > until:
            break
        if over is not None:
            book.exchange("w", [], [over])
            refusals = refusals + 1 if over.outcome == "overloaded" else 0
            again = _pause(refusals, over.retry_after_s) if refusals else 0.0
            heapq.heappush(events, (clock.now + again, counter, None, refusals))
            continue
        ask = Ask(str(counter), bounds, tokens)
        [answer] = book.exchange("w", [ask], [])
        if answer.server is None:
            heapq.heappush(
                events, (clock.now + answer.wait_s * draw.uniform(1, 1.5), counter, None, refusals)
            )
            continue
        outcome, seconds = serve(clock.now)
        calls.append((clock.now, outcome, book._server(bounds.model, answer.server, 1).under_way))
        ended = Ended(ask.call, bounds, answer.server, outcome, 0.0, tokens)
        heapq.heappush(events, (clock.now + seconds, counter, ended, refusals))
    return calls


def rate(calls: list[tuple], begin: float, end: float) -> float:
    return sum(outcome == "good" for at, outcome, _ in calls if begin <= at < end) / (end - begin)


@pytest.mark.long
@pytest.mark.parametrize("call_s", [0.2, 2.0, 5.0, 10.0])
def test_a_storm_of_ten_seconds(call_s: float) -> None:
    storm = (30.0, 40.0)
    calls = simulate(
        lambda now: ("overloaded", 0.05) if storm[0] < now < storm[1] else ("good", call_s),
        until=130,
    )
    assert rate(calls, 0, 30) >= 0.95 * 64 / call_s
    late = [under_way for at, _, under_way in calls if storm[0] + 3 < at < storm[1]]
    assert max(late, default=0) <= 6.4
    assert rate(calls, 100, 130) >= 0.9 * 64 / call_s


def test_refusals_that_do_not_depend_on_load_cost_little() -> None:
    """5 % of the calls are refused at whatever concurrency: halving at each would leave a tenth of
    it."""
    numbers = iter(range(10**9))
    calls = simulate(
        lambda now: ("overloaded", 0.05) if next(numbers) % 20 == 0 else ("good", 1.0), until=120
    )
    assert rate(calls, 60, 120) > 20


@pytest.mark.long
def test_a_server_that_takes_fewer_is_found_out() -> None:
    """A server with 20 places refuses more: most places are used, few calls are refused."""
    busy: list[float] = []

    def serve(now: float) -> tuple[CallOutcome, float]:
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        if len(busy) >= 20:
            return "overloaded", 0.05
        heapq.heappush(busy, now + 1.0)
        return "good", 1.0

    calls = simulate(serve, until=200)
    settled = [outcome for at, outcome, _ in calls if at > 100]
    assert rate(calls, 100, 200) > 0.9 * 20
    assert settled.count("overloaded") < 0.1 * len(settled)


@pytest.mark.long
@pytest.mark.parametrize("per_minute", [1, 7, 60, 600])
def test_calls_a_minute(per_minute: int) -> None:
    bounds = replace(BOUNDS, requests_per_minute=per_minute)
    began = [at for at, _, _ in simulate(lambda now: ("good", 0.1), bounds, until=300)]
    assert max(sum(start <= at < start + 59.99 for at in began) for start in began) <= per_minute
    assert len(began) >= 0.85 * 5 * per_minute


def test_tokens_a_minute() -> None:
    """Calls turn out twice as long as was guessed: after the first ones the guess is better."""
    bounds = replace(BOUNDS, tokens_per_minute=60_000, in_flight=8)
    began = [at for at, _, _ in simulate(lambda now: ("good", 1.0), bounds, until=300, tokens=500)]
    in_minutes = [500 * sum(start <= at < start + 60 for at in began) for start in began]
    assert max(in_minutes) <= 60_000 + 8 * 500
    assert 500 * len(began) > 0.8 * 5 * 60_000


def test_a_budget_is_overshot_by_what_is_under_way_at_most() -> None:
    book = Book({"t": 4.5}, alone_s=0)
    bounds = replace(BOUNDS, budget_usd=10, in_flight=3)
    begun = 0
    open_calls: list[Ended] = []
    while True:
        [answer] = book.exchange("w", [Ask(str(begun), bounds, 10)], [])
        if answer.spent_usd is not None:
            break
        if answer.server:
            open_calls.append(Ended(str(begun), bounds, answer.server, "good", 1.0, 10))
            begun += 1
        else:
            book.exchange("w", [], [open_calls.pop(0)])
    book.exchange("w", [], open_calls)
    assert 10 <= book.spent_usd["t"] <= 10 + 3
    [answer] = book.exchange("w", [Ask("x", replace(bounds, budget_usd=20), 10)], [])
    assert answer.server == "a"
    [answer] = book.exchange("w", [Ask("y", replace(bounds, teacher="other"), 10)], [])
    assert answer.server == "a"


def test_mirrors_share_the_calls_and_one_that_is_down_is_left_alone() -> None:
    clock = Clock()
    book = Book(clock=clock, alone_s=0)
    bounds = replace(BOUNDS, servers=("a", "b", "c"), in_flight=4)
    asks = [Ask(str(number), bounds, 10) for number in range(9)]
    servers = [answer.server for answer in book.exchange("w", asks, [])]
    assert sorted(map(str, servers)) == sorted("aaabbbccc")
    ended = [
        Ended(ask.call, bounds, str(at), "down" if at == "b" else "good")
        for ask, at in zip(asks, servers, strict=True)
    ]
    book.exchange("w", [], ended)
    again = [Ask(f"again {number}", bounds, 10) for number in range(8)]
    assert {answer.server for answer in book.exchange("w", again, [])} == {"a", "c"}
    [last] = book.exchange("w", [Ask("last", bounds, 10)], [])
    assert last.server == "b"  # where there is no other, it is tried


@pytest.mark.parametrize("unreached", [True, False])
def test_a_server_that_cannot_be_reached_is_tried_by_one_call_at_a_time(unreached: bool) -> None:
    """One that answers with errors is not: the next prompt may be to its liking."""
    clock = Clock()
    book, bounds, unsent = Book(clock=clock, alone_s=0), replace(BOUNDS, in_flight=4), 0
    for number in range(1100):
        clock.now = 0.06 * number
        ask = Ask(str(number), bounds, 10)
        [answer] = book.exchange("w", [ask], [])
        down = Ended(ask.call, bounds, "a", "down", unreached=unreached)
        book.exchange("w", [], [down] if answer.server else [])
        unsent += answer.server is None
        assert (answer.server is None) <= (answer.down_s is not None and answer.down_s > LOST_S)
    assert unsent == (sum(0.06 * number > LOST_S for number in range(1100)) if unreached else 0)
    clock.now += 31
    asks = [Ask("one", bounds, 10), Ask("other", bounds, 10)]
    servers = [answer.server for answer in book.exchange("w", asks, [])]
    assert servers == ["a", None if unreached else "a"]
    asks = [Ask("again", bounds, 10), Ask("and again", bounds, 10)]
    answers = book.exchange("w", asks, [Ended("one", bounds, "a", "good")])
    assert [answer.server for answer in answers] == ["a", "a"]


def test_a_retry_goes_elsewhere() -> None:
    bounds = replace(BOUNDS, servers=("a", "b"))
    assert Book(alone_s=0).exchange("w", [Ask("1", bounds, 10, avoid="a")], [])[0].server == "b"


def test_calls_of_a_process_that_is_gone_do_not_count() -> None:
    clock = Clock()
    book = Book(clock=clock, alone_s=0)
    bounds = replace(BOUNDS, in_flight=2)
    assert [
        bool(answer.server)
        for answer in book.exchange("killed", [Ask(c, bounds, 1) for c in "abc"], [])
    ] == [1, 1, 0]
    clock.now = SILENT_S / 2
    assert book.exchange("other", [Ask("d", bounds, 1)], [])[0].server is None
    clock.now = SILENT_S + 1
    assert book.exchange("other", [Ask("d", bounds, 1)], [])[0].server == "a"
    book.exchange("killed", [], [Ended("a", bounds, "a", "good", 2.0, 5)])  # it had only been slow
    assert book._server("openai/m", "a", 1).under_way == 1
    assert book.spent_usd["t"] == 2.0


def test_a_storm_with_a_time_to_come_back_closes_the_server() -> None:
    clock = Clock()
    book = Book(clock=clock, alone_s=0)
    bounds = replace(BOUNDS, in_flight=4)
    book.exchange("w", [Ask(c, bounds, 1) for c in "abcd"], [])
    book.exchange("w", [], [Ended(c, bounds, "a", "overloaded", retry_after_s=20) for c in "abcd"])
    assert book.exchange("w", [Ask("e", bounds, 1)], []) == [Permission(wait_s=20)]
    clock.now = 20.0
    assert book.exchange("w", [Ask("e", bounds, 1)], [])[0].server == "a"


def test_a_teacher_with_more_calls_in_flight_raises_the_shared_level() -> None:
    book = Book(alone_s=0)
    few, more = replace(BOUNDS, in_flight=2), replace(BOUNDS, teacher="u", in_flight=5)
    answers = book.exchange(
        "w",
        [Ask(f"few {n}", few, 1) for n in range(4)] + [Ask(f"more {n}", more, 1) for n in range(6)],
        [],
    )
    assert [bool(answer.server) for answer in answers] == [1, 1, 0, 0, 1, 1, 1, 0, 0, 0]


def test_until_a_server_has_replied_calls_go_one_by_one_but_not_for_long() -> None:
    now = [0.0]
    book = Book(clock=lambda: now[0])
    bounds = replace(BOUNDS, in_flight=8)

    def ask(call: str) -> bool:
        return book.exchange("w", [Ask(call, bounds, 10)], [])[0].server is not None

    assert [ask("1"), ask("2")] == [True, False]
    refused = Demands(left_out=frozenset({"seed"}))
    book.exchange("w", [], [Ended("1", bounds, bounds.servers[0], "other", learnt=refused)])
    answers = book.exchange("w", [Ask("3", bounds, 10), Ask("4", bounds, 10)], [])
    assert (answers[0].demands, answers[1].server) == (refused, None)
    now[0] = ALONE_S + 0.1  # a reply takes longer than that: the others begin
    assert ask("5")
    book.exchange("w", [], [Ended("3", bounds, bounds.servers[0], "good")])
    assert all(ask(str(number)) for number in range(10, 15))


def test_a_teacher_is_not_stopped_while_a_reply_may_still_come() -> None:
    """Refusals come at once: of the first calls, a filter may refuse many before any is replied
    to."""
    book, bounds = Book(alone_s=0.0), replace(BOUNDS, in_flight=64)
    calls = [Ask(str(number), bounds, 10) for number in range(EQUAL_REFUSALS + 2)]
    servers = [answer.server or "" for answer in book.exchange("w", calls, [])]
    refused = [
        Ended(ask.call, bounds, server, "other", refusal=Refusal("no", ask.call))
        for ask, server in zip(calls, servers, strict=True)
    ]
    [answer] = book.exchange("w", [Ask("waits", bounds, 10)], refused[:-1])
    assert (answer.server, answer.stopped) == (None, None)
    good = Ended(calls[-1].call, bounds, servers[-1], "good")
    assert book.exchange("w", [Ask("begins", bounds, 10)], [good])[0].server

    book = Book(alone_s=0.0)
    book.exchange("w", calls, [])
    [answer] = book.exchange("w", [Ask("stopped", bounds, 10)], refused)
    assert answer.stopped == "no"
