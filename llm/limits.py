"""How much of a model's servers, minutes and dollars a run may use: one book for all its processes.

`Book` is the bookkeeping alone: it never waits and takes the time as it is told, so that it can be
kept in this process (`LocalLedger`) or by one keeper for a whole cluster
(`medaction.tasks.ledger`).

Concurrency per server and model adapts by additive increase, multiplicative decrease. Outcomes are
counted in windows of about as many calls as are allowed at once. A window in which a share s of the
calls met an overloaded server multiplies the limit by 1 - s/2 and adds 1 - s: it is halved in a
storm, and moved little by single refusals that do not depend on it (the idea of Data Center TCP,
Alizadeh et al., SIGCOMM 2010). A window without any adds one. Only a limit that fell far grows
faster (`REGROW`), or calls that take long would be many minutes about it.
"""

import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from medaction.llm.negotiation import TAKES_ALL, Demands
from medaction.llm.teacher import Teacher

CallOutcome = Literal["good", "overloaded", "down", "other"]
"""How a call ended: with a reply; with a server that said it had too much to do, or did not answer
in time; with none that could be reached; with an error that says nothing about the server's load.
"""

SILENT_S = 60.0
"""A process that says nothing for so long is gone, and the calls that it had under way do not count
any more."""

# 'Retry-After' may be hours, until a day's quota is new: a server is asked again before that.
LONGEST_CLOSED_S = 300.0
SHORTEST_WAIT_S = 0.02

LOST_S = 60.0
"""How long a server that has answered in this run, and then cannot be reached, is waited for: it
may be starting anew. When none of a teacher's servers could be reached for so long, one call at a
time tries, and the others fail unsent: each would pay its own tries to learn the same."""

HELD_S = 0.5
"""The place of a refused call stays taken for as long as calls take, and at most this long.
Refusals come quickly: else one place too many, taken by one waiting call after the other, would
bring more refusals than all others bring replies."""

ALONE_S = 2.0
"""Until a server has replied in this run, calls to it go one by one for so long: what it refuses of
a request (`medaction.llm.negotiation`) comes at once, and is then learnt by one call and not by all
that begin together. A reply takes longer than that and is not waited for."""

EQUAL_REFUSALS = 10
"""After equal refusals of so many prompts in a row, none of them of a parameter that can be left
out, a teacher's further calls are not made: a wrong key or an unknown model does not mend itself.
A content filter may refuse both forms, structured and free, of a few cases: fewer prompts."""

EQUAL_REFUSALS_LATER = 50
"""The same for a teacher that has replied in this run. Refusals come at once and replies take their
time: of 64 calls under way, those whose prompts a filter refuses may all come first."""

UNDECIDED_S = 0.2
"""A teacher is not stopped while calls to it are under way, which may still be replied to; who asks
meanwhile asks again after so long."""

REGROW = 0.95
"""Up to this part of the limit at which trouble began, the limit is four times as high after every
window without trouble."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a teacher's settings allow, as the book needs it."""

    teacher: str
    model: str
    servers: tuple[str, ...]
    in_flight: int
    requests_per_minute: int | None
    tokens_per_minute: int | None
    budget_usd: float | None

    @classmethod
    def of(cls, teacher: Teacher) -> "Bounds":
        names = cls.__dataclass_fields__.keys() - {"teacher"}
        return cls(teacher.name, **{name: getattr(teacher, name) for name in names})


@dataclass(frozen=True, slots=True)
class Ask:
    """May this call begin? `tokens` is what it may take, `avoid` the server that has just failed
    it."""

    call: str
    bounds: Bounds
    tokens: int
    avoid: str | None = None


@dataclass(frozen=True, slots=True)
class Permission:
    """Begin at `server`; or ask again after `wait_s` seconds; or never, because `spent_usd` has
    reached the budget.

    `down_s` is for how long that server, which has answered before, could not be reached (0: it
      can); None: it has never answered. Without a server: never, because none could be reached.
      `demands` is what the run learnt of that server. `stopped`: never, because the teacher met
      this refusal EQUAL_REFUSALS times in a row; `declined`: in replies of its model.
    """

    server: str | None = None
    wait_s: float = 0.0
    spent_usd: float | None = None
    down_s: float | None = None
    demands: Demands = TAKES_ALL
    stopped: str | None = None
    declined: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's refusal, and of what: a prompt that it refuses is one, however often it is sent
    (all rollouts of a case begin with the same). A refused key or model refuses every call by
    itself."""

    message: str
    subject: str
    is_reply: bool = False
    """Whether the model said so in a reply: it declined, and the request was as it should be."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that was allowed is over, with what it used. `retry_after_s` is what the server asked
    for, `learnt` what a refusal told of it, `refusal` one that told nothing; where that stood in a
    reply, `outcome` is good."""

    call: str
    bounds: Bounds
    server: str
    outcome: CallOutcome
    usd: float = 0.0
    tokens: int = 0
    retry_after_s: float | None = None
    learnt: Demands | None = None
    refusal: Refusal | None = None
    unreached: bool = False
    """There was no connection at all; a server that answers with an error is 'down' as well."""


class Ledger(Protocol):
    """Who keeps the book. Every `ask` that was answered with a server is followed by one `end`."""

    async def ask(self, ask: Ask) -> Permission: ...

    async def end(self, ended: Ended) -> None: ...

    def spent_usd(self) -> dict[str, float]:
        """By teacher, earlier runs included."""
        ...


class LocalLedger:
    """The book of this process alone."""

    def __init__(self, spent_usd: Mapping[str, float] | None = None):
        self.book = Book(spent_usd)
        self._lock = threading.Lock()

    async def ask(self, ask: Ask) -> Permission:
        with self._lock:
            return self.book.exchange("here", [ask], [])[0]

    async def end(self, ended: Ended) -> None:
        with self._lock:
            self.book.exchange("here", [], [ended])

    def spent_usd(self) -> dict[str, float]:
        with self._lock:
            return dict(self.book.spent_usd)


# Not a whole minute's calls at once: many servers count by the second, or in sliding windows.
class _Bucket:
    """At most `per_minute` in any minute: a tenth of it at once, the rest evenly."""

    def __init__(self, per_minute: int, now: float):
        self.size = max(1.0, per_minute / 10)
        # Less than per_minute / 60: any minute may begin with a full bucket, which counts too.
        self.rate = (per_minute - self.size + 1) / 60
        self.level, self.at = self.size, now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; more than the bucket holds needs a full one."""
        self.level, self.at = min(self.size, self.level + (now - self.at) * self.rate), now
        # A call of more tokens than the bucket holds would else wait for ever.
        return max(0.0, (min(amount, self.size) - self.level) / self.rate)

    def take(self, amount: float) -> None:
        # May fall below zero: a reply can be longer than was expected, and the next calls wait for
        # it.
        self.level -= amount


class _ServerLoad:
    """How much a server is asked of one model, and how it fares. `ceiling`: calls at once that
    the teachers' settings allow."""

    def __init__(self, ceiling: int, alone_s: float):
        self.ceiling = ceiling
        self.alone_s = alone_s
        self.demands = TAKES_ALL
        self.under_way = 0
        self.refused_places_until = deque[float]()  # see HELD_S
        # A guess until calls have ended.
        self.mean_call_s = 0.2
        self.first_began = math.inf
        self.answered = False  # anything at all
        self.replied = False

        # Calls at once: what is allowed now, what went well last, and where trouble began.
        self.limit = self.good_limit = self.trouble_limit = float(ceiling)
        self.limit_changed = -math.inf
        self.last_window_overloaded = False

        # The window: calls that have ended since the limit last changed.
        self.window_calls = self.window_overloaded = 0
        self.window_peak = 0  # the most places taken at once
        self.window_retry_after_s = 0.0
        self.closed_until = 0.0

        self.failures_in_a_row = 0  # to reach it
        self.down_since = self.down_until = 0.0
        self.unreached_since = math.inf

    def wait(self, in_flight: int, now: float) -> float:
        """Seconds until a call of a teacher with so many places may begin, or ask again; 0: now."""
        if now < self.closed_until:
            return self.closed_until - now
        # See ALONE_S.
        alone = not self.replied and self.under_way > 0
        if alone and now < self.first_began + self.alone_s:
            return ALONE_S / 20
        while self.refused_places_until and self.refused_places_until[0] <= now:
            self.refused_places_until.popleft()
        if self._places() < min(in_flight, int(self.limit)):
            return 0.0
        # A place is free about when the calls under way end: a quarter of a call is late by little.
        return min(1.0, max(SHORTEST_WAIT_S, self.mean_call_s / 4))

    def _places(self) -> int:
        return self.under_way + len(self.refused_places_until)

    def is_lost(self, now: float) -> bool:
        """Whether it could not be reached for LOST_S, and is not to be tried now."""
        is_tried = self.under_way > 0 or now < self.down_until
        return is_tried and now - self.unreached_since > LOST_S

    def down_s(self, now: float) -> float | None:
        if not self.answered:
            return None
        return now - self.down_since if self.failures_in_a_row else 0.0

    def begin(self, now: float) -> None:
        self.first_began = min(self.first_began, now)
        self.under_way += 1
        self.window_peak = max(self.window_peak, self._places())

    def end(
        self, outcome: CallOutcome, began: float, retry_after_s: float | None, now: float
    ) -> None:
        if outcome == "down":
            self.down_since = self.down_since if self.failures_in_a_row else now
            self.failures_in_a_row += 1
            # Other servers come first until then; where there is none, it is still asked.
            # Bounded before it is a power: after a thousand failures that would be too large a
            # number.
            self.down_until = now + min(30.0, 2.0 ** min(self.failures_in_a_row, 5))
            return
        # A refusal is an answer too: the server can be reached.
        self.failures_in_a_row, self.down_until, self.answered = 0, 0.0, True
        if outcome == "overloaded":
            self.refused_places_until.append(now + min(HELD_S, self.mean_call_s))
        else:
            # Refusals are left out: they end in milliseconds and say nothing of how long a reply
            # takes.
            self.mean_call_s += 0.1 * (now - began - self.mean_call_s)
        if began < self.limit_changed:  # it tells of the limit before
            return
        self.window_calls += 1
        self.window_overloaded += outcome == "overloaded"
        self.window_retry_after_s = max(self.window_retry_after_s, retry_after_s or 0.0)
        # Where fewer calls are made than are allowed, a window is as many as are made.
        size = self.limit if self.window_peak >= int(self.limit) else max(1.0, self.window_peak)
        # In a storm the window is cut short: half of it refused is reason enough.
        if self.window_calls >= size or self.window_overloaded >= size / 2:
            self._change_limit(size, now)

    def _change_limit(self, window_size: float, now: float) -> None:
        share = self.window_overloaded / self.window_calls
        if share:
            if not self.last_window_overloaded:
                # Between what was too much and what went well.
                self.trouble_limit = (self.limit + self.good_limit) / 2
            # From further down it would grow for many windows, each as long as a call.
            lowest = max(1.0, self.trouble_limit / 16)
            self.limit = max(lowest, window_size * (1 - share / 2) + (1 - share))
        elif self.limit < REGROW * self.trouble_limit:
            self.good_limit = self.limit
            self.limit = min(REGROW * self.trouble_limit, 4 * self.limit)
        else:
            self.good_limit = self.limit
            self.limit = min(self.ceiling, self.limit + 1)
        self.last_window_overloaded = share > 0
        # One refusal's Retry-After, beside many replies, does not close the server for all.
        if share >= 0.5 and self.window_retry_after_s:
            self.closed_until = now + min(LONGEST_CLOSED_S, self.window_retry_after_s)
        self.window_calls = self.window_overloaded = 0
        # Calls under way still hold their places in the new window.
        self.window_peak, self.window_retry_after_s = self.under_way, 0.0
        self.limit_changed = now


def _without_numbers(message: str) -> str:
    """A refusal without what differs from call to call: request ids, token counts, times."""
    return " ".join(word for word in message.split() if not any(c.isdigit() for c in word))


@dataclass(frozen=True, slots=True)
class _Permit:
    worker: str
    teacher: str
    at: tuple[str, str]
    began: float
    tokens: float


class Book:
    """The limits of a run and how far they are used. `spent_usd` is what earlier runs spent, by
    teacher; infinite: nobody knows."""

    def __init__(
        self,
        spent_usd: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        alone_s: float = ALONE_S,
    ):
        self._alone_s = alone_s
        self._refusals: dict[str, list[Refusal]] = {}
        self._replied = set[str]()
        self.spent_usd = defaultdict(float, spent_usd or {})
        self._clock = clock
        self._servers: dict[tuple[str, str], _ServerLoad] = {}
        self._buckets: dict[tuple[str, str, str, int], _Bucket] = {}
        self._tokens_a_call: dict[str, float] = {}
        self._permits: dict[str, _Permit] = {}
        self._heard: dict[str, float] = {}

    def exchange(
        self, worker: str, asks: Sequence[Ask], ended: Sequence[Ended]
    ) -> list[Permission]:
        """What a process has to say, and the answers to what it asks. Empty news say that it is
        still there."""
        now = self._clock()
        self._heard[worker] = now
        self._forget_silent(now)
        for report in ended:
            self._end(report, now)
        # After the ends, whose places are free now.
        return [self._begin(worker, ask, now) for ask in asks]

    def _begin(self, worker: str, ask: Ask, now: float) -> Permission:
        bounds = ask.bounds
        spent = self.spent_usd[bounds.teacher]
        # Before it begins, not while it runs: a budget is overshot by the calls under way at most.
        if bounds.budget_usd is not None and spent >= bounds.budget_usd:
            return Permission(spent_usd=spent)
        refusals = self._refusals.get(bounds.teacher, [])
        has_replied = bounds.teacher in self._replied
        if len(refusals) >= (EQUAL_REFUSALS_LATER if has_replied else EQUAL_REFUSALS):
            if any(permit.teacher == bounds.teacher for permit in self._permits.values()):
                return Permission(wait_s=UNDECIDED_S)
            return Permission(stopped=refusals[-1].message, declined=refusals[-1].is_reply)
        states = {url: self._server(bounds.model, url, bounds.in_flight) for url in bounds.servers}
        if all(server.is_lost(now) for server in states.values()):
            return Permission(down_s=now - max(s.unreached_since for s in states.values()))
        # Few replies use all of max_tokens: what calls took so far tells more than what they may
        # take.
        tokens = self._tokens_a_call.get(bounds.model, ask.tokens)
        minutes = []
        if per_minute := bounds.requests_per_minute:
            minutes.append((self._bucket(bounds, "requests", per_minute, now), 1.0))
        if per_minute := bounds.tokens_per_minute:
            minutes.append((self._bucket(bounds, "tokens", per_minute, now), tokens))
        # Nothing is taken yet: a call that then finds no free server must cost no minute.
        wait = max((bucket.wait(amount, now) for bucket, amount in minutes), default=0.0)
        if wait:
            return Permission(wait_s=max(SHORTEST_WAIT_S, wait))
        waits = {url: server.wait(bounds.in_flight, now) for url, server in states.items()}
        if free := [url for url, seconds in waits.items() if not seconds]:

            def rank(url: str) -> tuple[bool, bool, int]:
                server = states[url]
                # Not where this call has just failed; where somebody answers; where least goes on.
                return url == ask.avoid, server.down_until > now, server.under_way

            best = min(free, key=rank)
            server, place = states[best], (bounds.model, best)
            for bucket, amount in minutes:
                bucket.take(amount)
            server.begin(now)
            self._permits[ask.call] = _Permit(worker, bounds.teacher, place, now, tokens)
            return Permission(server=best, down_s=server.down_s(now), demands=server.demands)
        return Permission(wait_s=min(waits.values()))

    def _end(self, ended: Ended, now: float) -> None:
        bounds = ended.bounds
        # Paid for, also where the process was given up meanwhile.
        self.spent_usd[bounds.teacher] += ended.usd
        permit = self._permits.pop(ended.call, None)
        if permit is None:  # its process had been given up
            return
        server = self._servers[permit.at]
        server.under_way -= 1
        server.replied |= ended.outcome == "good"
        server.unreached_since = min(server.unreached_since, now) if ended.unreached else math.inf
        if ended.learnt:
            server.demands |= ended.learnt
        self._count_refusal(ended)
        server.end(ended.outcome, permit.began, ended.retry_after_s, now)
        if per_minute := bounds.tokens_per_minute:
            # What it took beyond what was expected; less than that is given back.
            bucket = self._bucket(bounds, "tokens", per_minute, now)
            bucket.take(ended.tokens - permit.tokens)
        if ended.tokens:
            # A moving mean: prompts grow with the turns of the rollouts.
            mean = self._tokens_a_call.get(bounds.model, ended.tokens)
            self._tokens_a_call[bounds.model] = mean + 0.1 * (ended.tokens - mean)

    def _count_refusal(self, ended: Ended) -> None:
        teacher = ended.bounds.teacher
        if ended.outcome == "good" and not ended.refusal:
            self._replied.add(teacher)
            self._refusals.pop(teacher, None)
        elif ended.refusal:
            refusals = self._refusals.setdefault(teacher, [])
            same = _without_numbers(ended.refusal.message)
            if refusals and _without_numbers(refusals[-1].message) != same:
                # Two different messages alternating are no sign of a wrong key or model.
                refusals.clear()
            if ended.refusal.subject not in {refusal.subject for refusal in refusals}:
                refusals.append(ended.refusal)

    def _forget_silent(self, now: float) -> None:
        silent = {worker for worker, heard in self._heard.items() if now - heard > SILENT_S}
        if not silent:
            return
        for call, permit in list(self._permits.items()):
            if permit.worker in silent:
                self._servers[permit.at].under_way -= 1
                del self._permits[call]
        for worker in silent:
            del self._heard[worker]

    def _server(self, model: str, url: str, in_flight: int) -> _ServerLoad:
        if (model, url) not in self._servers:
            self._servers[model, url] = _ServerLoad(in_flight, self._alone_s)
        server = self._servers[model, url]
        if in_flight > server.ceiling:  # another teacher, on the same model
            # What was learnt of the load stays: the limit is raised by as much as the ceiling.
            server.limit, server.ceiling = server.limit + in_flight - server.ceiling, in_flight
        return server

    def _bucket(self, bounds: Bounds, unit: str, per_minute: int, now: float) -> _Bucket:
        # Mirrors share their teacher's minutes; teachers of one model and server share them too.
        key = (bounds.model, bounds.servers[0], unit, per_minute)
        if key not in self._buckets:
            self._buckets[key] = _Bucket(per_minute, now)
        return self._buckets[key]
