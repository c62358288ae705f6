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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a trajectory; a plain record that can be counted.

    status: 'kept' whole, 'truncated' (cut after t*, or turns removed, or both), 'discarded',
    'unscorable'. reason: a short name. last_turn: the number of turn t*, None where nothing is
    kept. removed_turns: turns up to t* that RAC removed. kept_turns: numbers of the turns to train
    on. Every turn is in `kept_turns`, in `removed_turns`, or after `last_turn`.
    """

    status: Status
    reason: str
    last_turn: int | None
    removed_turns: tuple[int, ...]
    kept_turns: tuple[int, ...]


def prune_none(course: Course, measured: Measured) -> Verdict:
    """No filter: every trajectory is kept whole, whatever its outcome."""
    return _whole(course)


def prune_correctness(course: Course, measured: Measured) -> Verdict:
    """The correctness filter: keep whole what ends on the true diagnosis (the same node), discard
    the rest.

    A last turn that still orders tests has not committed: 'no_final_diagnosis'. An unlinked truth
    or final diagnosis, or two nodes without a path: unscorable.
    """
    if not course.turns or course.turns[-1].tests:
        return _nothing("discarded", "no_final_diagnosis")
    last = measured.dtc[-1]
    if last is None:
        return _nothing("unscorable", _unknown(course, -1, "final_diagnosis"))
    return _whole(course) if last == 0 else _nothing("discarded", "wrong_final_diagnosis")


def prune_dtc_rac(course: Course, measured: Measured, threshold: float = THRESHOLD) -> Verdict:
    """DTC, then RAC pruning, as in the paper.

    t* is the latest turn t >= 2 with DTC_t <= DTC_1; what follows it is cut. Then, in one pass over
    the RAC values of the trajectory as played, each t >= 2 up to t* with RAC_t > `threshold`
    removes turn t-1. So t* itself always stays.

    Discarded: 'one_turn' (there is no t >= 2) and 'no_convergence' (no later turn is as close as
    the first). Unscorable: truth or first hypothesis unlinked or without a path between them, and
    'later_hypotheses_unknown' (of no later turn is the distance known). Otherwise a turn of unknown
    DTC is not t*, and one of unknown RAC removes nothing.
    """
    turns, distances = course.turns, measured.dtc
    if len(turns) < 2:
        return _nothing("discarded", "one_turn")
    first = distances[0]
    if first is None:
        return _nothing("unscorable", _unknown(course, 0, "first_hypothesis"))
    if all(distance is None for distance in distances[1:]):
        return _nothing("unscorable", "later_hypotheses_unknown")
    close = [
        t
        for t in range(1, len(turns))
        if (distance := distances[t]) is not None and distance <= first
    ]
    if not close:
        return _nothing("discarded", "no_convergence")
    last = close[-1]
    removed = {t - 1 for t in range(1, last + 1) if _ineffective(measured, t, threshold)}
    cut = last < len(turns) - 1
    reason = {
        (False, False): "whole",
        (True, False): "cut",
        (False, True): "pruned",
        (True, True): "cut_and_pruned",
    }
    return Verdict(
        status="truncated" if cut or removed else "kept",
        reason=reason[cut, bool(removed)],
        last_turn=turns[last].number,
        removed_turns=tuple(turns[t].number for t in sorted(removed)),
        kept_turns=tuple(turns[t].number for t in range(last + 1) if t not in removed),
    )


def _ineffective(measured: Measured, t: int, threshold: float) -> bool:
    """Whether what changed at position `t` is known to be too far from the tests ordered before
    it.
    """
    found = measured.rac[t]
    return found is not None and found.value is not None and found.value > threshold


def _unknown(course: Course, at: int, what: str) -> str:
    if course.truth is None:
        return "truth_unlinked"
    return f"{what}_unlinked" if course.turns[at].top is None else f"{what}_without_path"


def _whole(course: Course) -> Verdict:
    numbers = tuple(turn.number for turn in course.turns)
    return Verdict("kept", "whole", numbers[-1] if numbers else None, (), numbers)


def _nothing(status: Status, reason: str) -> Verdict:
    return Verdict(status, reason, None, (), ())
