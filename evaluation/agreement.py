"""How far judges agree: raw agreement and Krippendorff's alpha, which also takes what chance would
give into account."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import krippendorff
import numpy as np


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


def agreement(ratings: Sequence[Sequence[bool | None]]) -> Agreement:
    """Of `ratings`, one sequence a rater over the same items; None: not rated. Raises ValueError
    for sequences of unequal length."""
    if len({len(rater) for rater in ratings}) > 1:
        raise ValueError("every rater needs one rating (or None) for each item")
    columns = [
        [rating for rating in column if rating is not None] for column in zip(*ratings, strict=True)
    ]
    paired = [column for column in columns if len(column) > 1]
    pairs = [one == other for column in paired for one, other in combinations(column, 2)]
    values = {rating for column in paired for rating in column}
    alpha = None
    if len(values) > 1:
        table = np.array(
            [[np.nan if rating is None else float(rating) for rating in rater] for rater in ratings]
        )
        alpha = float(krippendorff.alpha(table, level_of_measurement="nominal"))
    return Agreement(len(ratings), len(paired), sum(pairs) / len(pairs) if pairs else None, alpha)
