"""Which turns of a trajectory are worth training on: the paper's DTC and RAC pruning and its two
baselines (section 3.3).

A verdict only says which turns are training targets: trajectories stay stored whole, so any verdict
can be taken back by asking another strategy. A removed turn is no target, because what changed
after it lies too far from its tests to be their doing; but what they returned stays in the record
that later turns see. Those turns were played with that evidence on the table: without it their
reasoning would refer to results that nobody had ordered, and teach a model to invent them.
"""

from dataclasses import dataclass
from typing import Literal

from medaction.kg.metrics import Course, Measured

THRESHOLD = 3.0
"""tau_RAC, the maximum of hops (paper, appendix C)."""

Status = Literal["kept", "truncated", "discarded", "unscorable"]
Strategy = Literal["dtc_rac", "correctness", "none"]
WrongEndings = Literal["keep", "drop-commit", "drop"]
"""What becomes of a trajectory that DTC keeps to its end and that commits to a wrong diagnosis
(DTC above 0 at the end, not above that of turn 1): section 3.3 keeps it; 'drop-commit' keeps what
was played before the commitment; 'drop' discards it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a store is pruned. threshold: tau_RAC in hops. idle_turns: see `prune_dtc_rac`; 0:
    never."""

    strategy: Strategy = "dtc_rac"
    threshold: float = THRESHOLD
    wrong_endings: WrongEndings = "keep"
    idle_turns: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a trajectory; a plain record that can be counted.

    status: 'kept' whole, 'truncated' (cut after t*, or turns removed, or both), 'discarded',
    'unscorable'. reason: a short name. last_turn: the number of turn t*, or of the turn before a
    wrong commitment that was dropped; None where nothing is kept. removed_turns: turns up to there
    that RAC removed. kept_turns: numbers of the turns to train on. Every turn is in `kept_turns`,
    in `removed_turns`, or after `last_turn`.
    """

    status: Status
    reason: str
    last_turn: int | None
    removed_turns: tuple[int, ...]
    kept_turns: tuple[int, ...]


def prune_none(course: Course, measured: Measured) -> Verdict:
    """No filter: every trajectory is kept whole, whatever its outcome."""
    numbers = tuple(turn.number for turn in course.turns)
    return Verdict("kept", "whole", numbers[-1] if numbers else None, (), numbers)


def prune_correctness(course: Course, measured: Measured) -> Verdict:
    """The correctness filter: keep whole what ends on the true diagnosis (the same node), discard
    the rest.

    A last turn that still orders tests has not committed: 'no_final_diagnosis'. An unlinked truth
    or final diagnosis, or two nodes without a path: unscorable.
    """
    if not course.turns or course.turns[-1].tests:
        return _discarded("discarded", "no_final_diagnosis")
    last = measured.dtc[-1]
    if last is None:
        return _discarded("unscorable", _unknown(course, -1, "final_diagnosis"))
    if last > 0:
        return _discarded("discarded", "wrong_final_diagnosis")
    return prune_none(course, measured)


def prune_dtc_rac(
    course: Course,
    measured: Measured,
    threshold: float = THRESHOLD,
    wrong_endings: WrongEndings = "keep",
    idle_turns: int = 0,
) -> Verdict:
    """DTC, then RAC pruning; with the defaults as in the paper.

    t* is the latest turn t >= 2 with DTC_t <= DTC_1; what follows it is cut. Then, in one pass over
    the RAC values of the trajectory as played, each t >= 2 up to t* with RAC_t > `threshold`
    removes turn t-1. So t* itself always stays. With `idle_turns` k, a turn is removed, too, when
    none of the k turns after it, all of them up to t*, changed the differential: RAC has no value
    there, so that a differential that never changes passes it. `wrong_endings` applies where t* is
    a commitment of known DTC above 0.

    Discarded: 'one_turn' (there is no t >= 2), 'no_convergence' (no later turn is as close as the
    first) and 'wrong_ending' (as `wrong_endings` says). Truncated: 'cut' after t*, 'pruned' by RAC,
    'commitment_dropped', or two of these ('cut_and_pruned'). Unscorable: truth or first hypothesis
    unlinked or without a path between them, and 'later_hypotheses_unknown' (of no later turn is the
    distance known). Otherwise a turn of unknown DTC is not t*, and one of unknown RAC removes
    nothing.
    """
    turns, distances = course.turns, measured.dtc
    if len(turns) < 2:
        return _discarded("discarded", "one_turn")
    start = distances[0]
    if start is None:
        return _discarded("unscorable", _unknown(course, 0, "first_hypothesis"))
    if all(distance is None for distance in distances[1:]):
        return _discarded("unscorable", "later_hypotheses_unknown")
    # From the end: t* is the latest such turn, not the nearest.
    last = len(turns) - 1
    while last > 0 and ((distance := distances[last]) is None or distance > start):
        last -= 1
    if last == 0:
        return _discarded("discarded", "no_convergence")
    # One pass over the turns as played: what is removed changes no other turn's RAC.
    removed = _ineffective(measured, last, threshold) | _idle(measured, last, idle_turns)
    # Only the last turn can commit, and one that commits orders nothing.
    commits_wrongly = not turns[last].tests and last == len(turns) - 1 and distances[last] != 0
    reasons = []
    if commits_wrongly and wrong_endings != "keep":
        last -= 1
        if wrong_endings == "drop" or removed.issuperset(range(last + 1)):  # no target is left
            return _discarded("discarded", "wrong_ending")
        reasons.append("commitment_dropped")
    elif last < len(turns) - 1:
        reasons.append("cut")
    if removed:
        reasons.append("pruned")
    reason = "_and_".join(reasons) or "whole"
    return Verdict(
        status="kept" if reason == "whole" else "truncated",
        reason=reason,
        last_turn=turns[last].number,
        removed_turns=tuple(turns[t].number for t in sorted(removed)),
        kept_turns=tuple(turns[t].number for t in range(last + 1) if t not in removed),
    )


def _ineffective(measured: Measured, last: int, threshold: float) -> set[int]:
    """Positions of the turns up to `last` whose tests are known to be too far from what changed
    after them."""
    return {
        # What changed at t follows the tests of t-1: theirs is the blame.
        t - 1
        for t in range(1, last + 1)
        if (hops := measured.rac[t]) and hops.value is not None and hops.value > threshold
    }


def _idle(measured: Measured, last: int, idle_turns: int) -> set[int]:
    """Positions of the turns up to `last` after which the differential stood still for
    `idle_turns`; 0: none."""
    if not idle_turns:
        return set()
    return {
        t
        for t in range(last + 1 - idle_turns)
        if all(
            # Of an entry that is no node nobody can tell whether it stayed.
            hops is not None and not hops.changed and not hops.unlinked
            for hops in measured.rac[t + 1 : t + idle_turns + 1]
        )
    }


def _unknown(course: Course, at: int, subject: str) -> str:
    # The truth first: without it no other distance of the case is known either.
    if course.truth is None:
        return "truth_unlinked"
    return f"{subject}_unlinked" if course.turns[at].top is None else f"{subject}_without_path"


def _discarded(status: Status, reason: str) -> Verdict:
    return Verdict(status, reason, None, (), ())
