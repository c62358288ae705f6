"""Teachers whose replies look broken or poisoned. What they played stays in the store, and out of
the dataset."""

from medaction.trajectories.store import Store

LEAST_TURNS = 50
"""Of fewer, a share says little: of 50 turns a true 20 % shows as 11 to 33 % (Wilson, 95 %)."""
QUARANTINED = "teacher_quarantined"
"""The reason of its verdicts."""


MOST_REPAIRED, MOST_IDENTICAL, MOST_FOREIGN = 0.2, 0.3, 0.2
"""Shares of its turns, above which a teacher is quarantined. What repeats itself within a case is
no sign: a server that ignores the seed does, and it stands once in the dataset. Of 14,763 turns of
the graph clinician on 342 cases, and of 31 of Qwen 1.5B on 8, none was that to another case."""
LIMITS = {
    "repaired": (MOST_REPAIRED, "had to be asked again"),
    "identical": (MOST_IDENTICAL, "are to the letter those to another case"),
    "foreign": (MOST_FOREIGN, "are in a script that the case is not in"),
}
"""By column of the view `teacher_rates`: (limit, what it says of the replies)."""


def quarantined(store: Store) -> dict[str, str]:
    """Why, by teacher."""
    frame = store.frame(f"select * from teacher_rates where turns >= {LEAST_TURNS}")
    reasons = {}
    for row in frame.iter_rows(named=True):
        over = [
            f"{row[name]:.0%} of its {row['turns']} replies {meaning} (limit {limit:.0%})"
            for name, (limit, meaning) in LIMITS.items()
            if row[name] > limit
        ]
        if over:
            reasons[row["teacher"]] = ", ".join(over)
    return reasons


def held_back(store: Store, teachers: list[str]) -> frozenset[str]:
    """The trajectories with a turn of these teachers: a branch has it in its context, whoever plays
    on. Gold is written from the report, and checked against it."""
    rows = store.rows(
        "select distinct path_id from paths join trajectories on trajectory_id = owner_id"
        " where list_contains(?, teacher) and style <> 'gold'",
        [teachers],
    )
    return frozenset(id_ for (id_,) in rows)
