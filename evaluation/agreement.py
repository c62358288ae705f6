"""How far judges agree: raw agreement and Krippendorff's alpha, which also takes what chance would
give into account."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of several raters over the items that at least two of them rated.

    raw: share of the pairs of ratings of one item that are equal; None without such a pair. alpha:
    Krippendorff's, nominal; None where all ratings are equal (it is not defined there) or there are
    no pairs.
    """

    items: int
    raw: float | None
    alpha: float | None


def agreement(ratings: Sequence[Sequence[Hashable | None]]) -> Agreement:
    """Of `ratings`, one sequence a rater over the same items; None: not rated. Raises ValueError
    for sequences of unequal length."""
    if len({len(rater) for rater in ratings}) > 1:
        raise ValueError("every rater needs one rating (or None) for each item")
    items = [
        [rating for rating in item if rating is not None] for item in zip(*ratings, strict=True)
    ]
    # A rating without another one to compare it with says nothing of agreement.
    items = [item for item in items if len(item) > 1]
    equal = [a == b for item in items for a, b in combinations(item, 2)]
    raw = sum(equal) / len(equal) if equal else None
    return Agreement(len(items), raw, nominal_alpha(items))


def nominal_alpha(items: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha of nominal ratings: 1 - observed / expected disagreement.

    `items` are the ratings of one item each, at least two; a rating counts 1 / (ratings of its item
    - 1) in every pair with another one of the item, so that each counts once. Expected is the
    disagreement of two ratings drawn without replacement from all. None where all are equal.
    Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, section C.
    """
    totals = Counter(rating for item in items for rating in item)
    # No disagreement is expected either: alpha would be 0 by 0.
    if len(totals) < 2:
        return None
    count = totals.total()
    # Each item's pairs weigh 1 / (m - 1), so that a rating counts once, however many there are.
    observed = sum(
        sum(a != b for a, b in permutations(item, 2)) / (len(item) - 1) for item in items
    )
    expected = sum(totals[a] * totals[b] for a, b in permutations(totals, 2)) / (count - 1)
    return 1 - observed / expected
