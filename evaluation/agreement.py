"""How far judges agree: raw agreement and Krippendorff's alpha, which also takes what chance would
give into account."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of several raters over the items that at least two of them rated.

    raw: share of the pairs of ratings of one item that are equal; None without such a pair. alpha:
    Krippendorff's, nominal; None where all ratings are equal (it is not defined there) or there are
    no pairs.
    """

    raters: int
    items: int
    raw: float | None
    alpha: float | None


def agreement(ratings: Sequence[Sequence[Hashable | None]]) -> Agreement:
    """Of `ratings`, one sequence a rater over the same items; None: not rated. Raises ValueError
    for sequences of unequal length."""
    if len({len(rater) for rater in ratings}) > 1:
        raise ValueError("every rater needs one rating (or None) for each item")
    columns = [
        [rating for rating in column if rating is not None] for column in zip(*ratings, strict=True)
    ]
    paired = [column for column in columns if len(column) > 1]
    pairs = [one == other for column in paired for one, other in combinations(column, 2)]
    return Agreement(
        len(ratings), len(paired), sum(pairs) / len(pairs) if pairs else None, alpha(paired)
    )


def alpha(items: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha of nominal ratings: 1 - observed / expected disagreement. `items`: the
    ratings of each item, at least two. None where all ratings are equal.

    Of the m ratings of an item each pair of different ones counts 1 / (m - 1), so that every rating
    weighs the same (Krippendorff 2011, 'Computing Krippendorff's alpha-reliability', section C).
    """
    totals = Counter(rating for item in items for rating in item)
    ratings = totals.total()
    observed = sum(
        (len(item) ** 2 - sum(count**2 for count in Counter(item).values())) / (len(item) - 1)
        for item in items
    )
    expected = ratings**2 - sum(count**2 for count in totals.values())
    return 1 - (ratings - 1) * observed / expected if expected else None
